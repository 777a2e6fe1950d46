"""python scripts/push.py MODEL REPO_ID [--private] [--dry-run] [--create-pr | --revision R] [--message TEXT]

Uploads a model folder to the Hugging Face Hub in one commit: the weights, config.json, the card and its pictures.
MODEL is a folder that scripts/train.py wrote, REPO_ID is your-name/model-name. Look first with --dry-run, which shows
what would be uploaded and needs no network. The access token comes from `hf auth login` or HF_TOKEN.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import hub


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Push a trained model to the Hugging Face Hub.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a trained model, such as outputs/finetune")
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, your-name/model-name")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--dry-run", action="store_true", help="show the files and the card, upload nothing")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--create-pr", action="store_true", help="propose the model as a pull request")
    target.add_argument("--revision", metavar="R", help="branch to push to, created if it is new (default: main)")
    parser.add_argument(
        "--message", metavar="TEXT", default="Push an antbee model", help="what the commit says (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Push, or show what would be pushed."""
    arguments = parse_arguments()

    files = hub.repository_files(arguments.model)
    card = hub.card_for(arguments.model, arguments.repo_id)
    megabytes = sum(size for _, size in files) / 1e6
    print(f"{len(files)} files, {megabytes:.1f} MB, from {arguments.model} to {arguments.repo_id}:")
    for path, size in files:
        print(f"{size:>14,} bytes  {path}")

    if arguments.dry_run:
        print(f"\nREADME.md, the card:\n\n{card}\nNothing was uploaded. To upload, leave out --dry-run.")
        return

    address = hub.push(
        arguments.model,
        arguments.repo_id,
        private=arguments.private,
        create_pr=arguments.create_pr,
        revision=arguments.revision,
        commit_message=arguments.message,
    )
    print(f"The model is at {address}")
    print(f"Load it back with: python app.py {arguments.repo_id}")


if __name__ == "__main__":
    try:
        main()
    except hub.HubError as error:
        sys.exit(f"error: {error}")
