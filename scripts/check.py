"""python scripts/check.py PATH ... [--weights imagenet|random|FILE] [--sheets DIR] [--list FILE] [--allow-bad] [--json]

Looks for what may be wrong, and changes nothing. PATH is a data folder, a model folder or a picture. Of a data folder
it tells files that can't be used, placeholders, photos that are there twice or in both splits, suspicious labels, tiny,
oddly shaped, dark and blurred photos and classes of very different size; as a table and as a contact sheet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from antbee import errors
from antbee.data import folder as data_folder
from antbee.data import quality
from antbee.data.exclusions import exclusion_line
from antbee.data.folder import ImageDataset, SkippedFile, Split, refuse_damaged
from antbee.data.images import DataError, open_photo
from antbee.data.loading import ImageCache, ImageLoader, LoaderOptions, keep_checked
from antbee.data.quality import UNWANTED, Finding, PhotoFacts, photo_findings
from antbee.data.transforms import Preprocessing, pixels_of
from antbee.installation import home
from antbee.models.backbone import build_network
from antbee.models.classifier import Classifier
from antbee.models.config import CONFIG_FILE, ModelFolderError, read_history
from antbee.models.device import choose_device
from antbee.models.folder import UNREAD_WEIGHTS, WEIGHTS_FILE
from antbee.models.weights import WeightsError, WeightsUnreachableError, load_starting_weights
from antbee.text import one_line
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features
from antbee.training.inspection import folder_findings

ARCHITECTURE = "resnet18"  # whose features photos are compared by
SHEET = 48  # findings on the contact sheet at most


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Look for what may be wrong with photos or models.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="data folder, model folder or picture")
    parser.add_argument("--weights", metavar="imagenet|random|FILE", help="of the network that compares photos")
    parser.add_argument(
        "--sheets",
        type=Path,
        default=home() / "outputs",
        metavar="DIR",
        help="where contact sheets go, without --json (default: outputs/)",
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="write what may be excluded, for train.py --exclude")
    parser.add_argument("--allow-bad", action="store_true", help="let over a tenth of a class's files be damaged")
    parser.add_argument("--json", action="store_true", help="print an object a line for each PATH instead of tables")
    return parser.parse_args()


@dataclass(frozen=True)
class Checked:
    """What was found out about a path."""

    path: str
    kind: str  # "data", "model" or "picture"
    ok: bool  # whether it can be used at all
    classes: list[str] | None = None
    used: int | None = None  # photos that can be used; of a model, those whose features it keeps
    skipped: Sequence[SkippedFile] = ()
    findings: Sequence[Finding] = ()
    error: str | None = None


def main() -> None:
    """Check every path; end with status 2 if one can't be used."""
    arguments = parse_arguments()
    if arguments.list is not None and len(arguments.paths) > 1:
        raise DataError("--list is of one data folder: check the others apart")
    results = []
    for path in arguments.paths:
        checked = check(path, arguments)
        results.append(checked)
        print(json.dumps(asdict(checked)) if arguments.json else said(checked), flush=True)
    if arguments.list is not None:
        write_list(arguments.list, results)
    if unusable := [checked for checked in results if not checked.ok]:
        named = "; ".join(str(checked.error) for checked in unusable)
        raise DataError(f"{len(unusable)} of {len(results)} can't be used: {named}")


def check(path: Path, arguments: argparse.Namespace) -> Checked:
    """Whatever the path is, what may be wrong with it."""
    kind = kind_of(path)
    try:
        if kind == "picture":
            return check_picture(path)
        return check_model(path) if kind == "model" else check_data(path, arguments)
    except (DataError, ModelFolderError, WeightsError, OSError) as error:
        return Checked(str(path), kind, ok=False, error=str(error))


def kind_of(path: Path) -> str:
    """What a path is taken for: by what is in a folder, else by its name where it is none."""
    if path.is_dir():
        is_model = any((path / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE, *UNREAD_WEIGHTS))
        return "model" if is_model else "data"
    if path.name in (CONFIG_FILE, WEIGHTS_FILE):
        return "model"
    return "picture" if path.exists() or path.suffix.lower() in IMG_EXTENSIONS else "data"


def check_picture(path: Path) -> Checked:
    """Whether a picture can be read, and what it is like."""
    try:
        facts = quality.measure(open_photo(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    findings = photo_findings(path.name, facts)
    return Checked(str(path), "picture", ok=True, used=1, findings=findings)


def check_model(path: Path) -> Checked:
    """Whether a model folder is whole: its weights fit and are numbers, its features are those of its network."""
    if not path.is_dir():
        raise ModelFolderError(f"{path} is a part of a model: name its folder, {path.parent}")
    classifier = Classifier.from_pretrained(path, device="cpu")
    read_history(path)
    used = None if classifier.detector is None else len(classifier.detector.names)
    return Checked(str(path), "model", ok=True, classes=list(classifier.config.label_names), used=used)


def check_data(root: Path, arguments: argparse.Namespace) -> Checked:
    """What may be wrong with the photos of a data folder."""
    facts: dict[Path, PhotoFacts] = {}
    memory, preprocessing = ImageCache(), Preprocessing()

    def measure(path: Path, photo: Image.Image) -> None:
        facts[path] = quality.measure(photo)
        keep_checked(memory, path, photo, [preprocessing])

    photos = data_folder.read_folder(root, seen=measure)
    features = features_of(photos.both, preprocessing, memory, arguments.weights)
    by_name = {path.relative_to(photos.root).as_posix(): fact for path, fact in facts.items()}
    findings = folder_findings(photos, by_name, features)
    if findings and not arguments.json:
        write_sheet(arguments.sheets / f"check-{photos.name}.png", photos, findings)
    error = None
    try:
        if not arguments.allow_bad:
            refuse_damaged(photos)
    except DataError as damage:
        error = str(damage)
    classes = list(photos.class_names)
    return Checked(str(root), "data", error is None, classes, len(photos.both), photos.skipped, findings, error)


def features_of(
    split: Split, preprocessing: Preprocessing, memory: ImageCache, weights: str | None
) -> torch.Tensor | None:
    """What a network that learned nothing of these photos sees in them: float32 (N, C); None without its weights."""
    try:
        start = load_starting_weights(weights or "imagenet", ARCHITECTURE)
    except WeightsUnreachableError as error:
        if weights is not None:
            raise
        print(f"labels are not judged, and copies found by hash alone: {error}; or see --weights", file=sys.stderr)
        return None
    device = choose_device("auto")
    network = build_network(ARCHITECTURE, 2, start, seed=0).to(device)
    loading = LoaderOptions.for_device(device)
    looks = ImageLoader(split, preprocessing, options=replace(loading, cache=memory))
    process = DistributedContext(device)
    return compute_features(network, looks, process, what="features").features.cpu()


# ---------------------------------------------------------------------------------------------------------------------
# What is said and written


def said(checked: Checked) -> str:
    """A path's findings as a table."""
    told = f"{one_line(checked.path)}: {checked.kind}"
    if checked.error is not None:
        told += f", can't be used: {one_line(checked.error, longest=1000)}"
    if checked.classes is not None:
        told += f", {', '.join(map(one_line, checked.classes))}"
    if checked.used is not None:
        told += f", {checked.used} photo{'s' * (checked.used != 1)}" + (
            f", {len(checked.skipped)} skipped" if checked.skipped else ""
        )
    rows = [("skipped", entry.file, entry.reason) for entry in checked.skipped]
    rows += [(finding.kind, finding.file, finding.reason) for finding in checked.findings]
    width = max((len(one_line(file)) for _, file, _ in rows), default=0)
    lines = [f"  {kind:12}{one_line(file):{min(width, 60)}}  {one_line(reason)}" for kind, file, reason in rows]
    return "\n".join([told, *lines] if lines or not checked.ok else [f"{told}: nothing found"])


def write_sheet(path: Path, photos: ImageDataset, findings: Sequence[Finding]) -> None:
    """The photos that something was found of, with what, as one picture."""
    from antbee.evaluation import plots  # matplotlib takes half a second to import

    preprocessing = Preprocessing()

    def tile(what: str, file: str) -> plots.Tile:
        crop = preprocessing.cropped(open_photo(photos.root / file))
        folder, _, name = file.rpartition("/")
        return plots.Tile(pixels_of([crop])[0] / 255, f"{what}\n{folder}\n{name}")

    tiles = []
    for finding in [finding for finding in findings if finding.kind != "imbalance"][:SHEET]:
        tiles.append(tile(finding.kind, finding.file))
        if finding.other is not None:
            tiles.append(tile(f"{finding.kind} of", finding.other))
    if tiles:
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.grid(tiles).save(path)
        print(f"contact sheet written to {path}")


def write_list(path: Path, results: Sequence[Checked]) -> None:
    """The files that a model may learn wrong things from, one a line, for a person to shorten."""
    lines = ["# What train.py --exclude leaves out. Look at each, and delete the lines of those that are right."]
    for checked in results:
        for finding in checked.findings:
            if finding.kind in UNWANTED:
                lines += [f"# {finding.kind}: {one_line(finding.reason)}", exclusion_line(finding.file)]
    path.write_text("\n".join(lines) + "\n", "utf-8", errors="surrogateescape")
    print(f"list written to {path}", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
