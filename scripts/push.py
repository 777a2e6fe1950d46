"""python scripts/push.py MODEL REPO_ID [--space] [--private] [--dry-run] [--create-pr | --revision R] [--message TEXT]
   python scripts/push.py --dataset DATA REPO_ID [--license NAME] [--private] [--dry-run] ...

Uploads a model folder to the Hugging Face Hub in one commit: the weights, config.json, the card and its pictures.
MODEL is a folder that scripts/train.py wrote, REPO_ID is your-name/model-name. Where MODEL holds several such folders,
as outputs/ does, each becomes a repository of its own, your-name/model-name-frozen and your-name/model-name-finetune.
--space also creates a Space named REPO_ID with the page for these models. --dataset publishes photos instead, as a data
set with a card; DATA is what train.py --data takes. --dry-run prints what would be uploaded and needs no network. The
access token comes from `hf auth login` or HF_TOKEN.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import errors
from antbee.installation import command_name
from antbee.text import counted, printable


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Push models or photos to the Hugging Face Hub.", allow_abbrev=False)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="model folder, or a folder of them such as outputs/")
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, your-name/model-name")
    parser.add_argument("--dataset", metavar="DATA", help="publish photos instead: what train.py --data takes")
    parser.add_argument("--license", metavar="NAME", help="of the photos, such as cc-by-4.0 (default: unknown)")
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    parser.add_argument("--space", action="store_true", help="also create a Space with the page for the models")
    parser.add_argument("--private", action="store_true", help="create the repositories as private ones")
    parser.add_argument("--dry-run", action="store_true", help="print the files and the cards, upload nothing")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--create-pr", action="store_true", help="propose the model as a pull request")
    target.add_argument("--revision", metavar="R", help="branch to push to, created if missing (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="commit message (default: Push an antbee model)")
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.dataset is None):
        parser.error("name either a model folder or, with --dataset, photos")
    if arguments.dataset is None and arguments.license is not None:
        parser.error("--license is that of photos: leave it out, or name them with --dataset")
    if arguments.dataset is not None and arguments.space:
        parser.error("a Space shows models: leave out --space, or --dataset")
    if arguments.space and (arguments.create_pr or arguments.revision):
        parser.error("a Space loads the main branch: leave out --space, or --create-pr and --revision")
    return arguments


def main() -> None:
    """Pushes the models, or prints what would be pushed."""
    arguments = parse_arguments()
    with errors.importing():
        import antbee.hub  # noqa: F401 - its imports take a second

    if arguments.dataset is not None:
        push_dataset(arguments)
    else:
        push_models(arguments)
    if arguments.dry_run:
        print("\nNothing was uploaded. To upload, leave out --dry-run.")


def push_models(arguments: argparse.Namespace) -> None:
    """Pushes the models and their Space, or prints what would be pushed."""
    from antbee import hub

    models = models_to_push(arguments.model, arguments.repo_id)
    for repo_id, folder in models.items():  # checks all of them before the first is uploaded
        hub.repository_files(folder)
        hub.card_for(folder, repo_id)
    for repo_id, folder in models.items():
        push_model(folder, repo_id, arguments)
    if arguments.space:
        push_space(list(models), arguments)
    if not arguments.dry_run:
        print(f"Load it back with: {command_name('app')} {' '.join(models)}")


def models_to_push(model: str, repo_id: str) -> Mapping[str, Path]:
    """Model folders by repository: a model folder itself, or the model folders in it, one repository each."""
    from antbee.data.paths import local_path
    from antbee.models.config import CONFIG_FILE
    from antbee.models.folder import model_folders

    folder = local_path(model)
    if (folder / CONFIG_FILE).exists() or not (models := model_folders(folder)):
        return {repo_id: folder}
    return {f"{repo_id}-{model.name}": model for model in models}


def push_model(folder: Path, repo_id: str, arguments: argparse.Namespace) -> None:
    """Pushes a model folder to its repository, or prints its files and its card."""
    from antbee import hub

    files = hub.repository_files(folder)
    card = hub.card_for(folder, repo_id)
    print_files(files, f"from {folder} to {repo_id}")
    if arguments.dry_run:
        print(f"\nREADME.md, the card:\n\n{card}")
        return
    address = hub.push(
        folder,
        repo_id,
        **target_of(arguments, "Push an antbee model"),
    )
    print(f"The model is at {address}")


def target_of(arguments: argparse.Namespace, message: str) -> dict[str, Any]:
    """Where a push goes and under what message, as keyword arguments."""
    target = {name: getattr(arguments, name) for name in ("private", "create_pr", "revision")}
    return target | {"commit_message": message if arguments.message is None else arguments.message}


def push_dataset(arguments: argparse.Namespace) -> None:
    """Pushes photos as a data set, or prints what would be pushed."""
    import antbee
    from antbee import hub
    from antbee.data.listing import summary
    from antbee.data.position import has_position

    dataset = antbee.load_folder(arguments.dataset, allow_bad=True, follow_links=arguments.follow_links)
    files = hub.dataset_files(dataset, arguments.repo_id, license=arguments.license)
    sizes = [(path, local.stat().st_size) for path, local in files.photos.items()]
    print_files([*sizes, ("README.md", len(files.card.encode()))], f"from {dataset.root} to {arguments.repo_id}")
    for line in summary(dataset.skipped):
        print(f"left out  {printable(line)}")
    if positions := sum(map(has_position, files.photos.values())):
        print(
            f"warning   {counted(positions, 'photo')} would tell everybody where they were taken, by a GPS position in"
            " their EXIF data: remove it first, for instance with `exiftool -gps:all= FOLDER -r`, to keep it private"
        )
    if arguments.dry_run:
        print(f"\nREADME.md, the card:\n\n{files.card}")
        return
    target = target_of(arguments, "Push an antbee data set")
    address = hub.push_dataset(dataset, arguments.repo_id, license=arguments.license, **target)
    print(f"The data set is at {address}")
    print(f"Train on it with: {command_name('train')} --data {arguments.repo_id}")


def push_space(model_ids: Sequence[str], arguments: argparse.Namespace) -> None:
    """Pushes the Space, or prints its files and its card."""
    from antbee import hub
    from antbee.hub.space import space_files

    files = space_files(arguments.repo_id, model_ids)
    print_files([(path, len(content)) for path, content in files.items()], f"to the Space {arguments.repo_id}")
    if arguments.dry_run:
        print(f"\nREADME.md, the Space's card:\n\n{files['README.md'].decode()}")
        return
    address = hub.push_space(files, arguments.repo_id, model_ids, private=arguments.private)
    print(f"The Space is at {address}; building it takes some minutes")
    print("(for private models, set the secret HF_TOKEN in its settings to a token that may read them)")


def print_files(files: Sequence[tuple[str, int]], route: str) -> None:
    """Prints files with their sizes in bytes."""
    print(f"{len(files)} files, {sum(size for _, size in files) / 1e6:.1f} MB, {route}:")
    for path, size in files:
        print(f"{size:>14,} bytes  {printable(path)}")


if __name__ == "__main__":
    errors.run(main)
