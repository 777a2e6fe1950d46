"""Checks of a data folder, a model folder or a picture: what can't be used, and what a person should look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from antbee.data import quality
from antbee.data.download import data_root
from antbee.data.exclusions import exclusion_line
from antbee.data.folder import Split, read_folder, refuse_damaged, require_folder
from antbee.data.images import DataError, open_photo
from antbee.data.layout import Labelled
from antbee.data.listing import SkippedFile
from antbee.data.loading import ImageCache, ImageLoader, LoaderOptions, cache_photo
from antbee.data.quality import OF_THE_WHOLE, UNWANTED, Finding, PhotoFacts, photo_findings
from antbee.data.table import is_table
from antbee.data.transforms import Preprocessing, pixels_of
from antbee.errors import AntbeeError, InputError
from antbee.models.classifier import Classifier
from antbee.models.config import CONFIG_FILE, ModelFolderError, read_history
from antbee.models.device import choose_device
from antbee.models.folder import UNREAD_WEIGHTS, WEIGHTS_FILE
from antbee.models.outputs import make_folder
from antbee.models.tensors import WeightsError
from antbee.models.weights import StartingWeights, build_network, choose_network
from antbee.text import counted, one_line
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features
from antbee.training.inspection import folder_findings

LARGEST_SHEET = 48  # findings on a contact sheet

Kind = Literal["data", "model", "picture"]


@dataclass(frozen=True)
class CheckResult:
    """The result of a check; printed, it is a table."""

    path: str
    kind: Kind
    ok: bool  # whether it can be used
    classes: tuple[str, ...] | None = None
    used: int | None = None  # images that can be used; of a model, the training images that its detector keeps
    skipped: tuple[SkippedFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    error: str | None = None  # why it can't be used

    def __str__(self) -> str:
        """A summary line, then a line for each skipped file and each finding."""
        rows = [("skipped", entry.file, entry.reason) for entry in self.skipped]
        rows += [(finding.kind, finding.file, finding.reason) for finding in self.findings]
        width = min(60, max((len(one_line(file)) for _, file, _ in rows), default=0))
        lines = [f"  {kind:12}{one_line(file):{width}}  {one_line(reason)}" for kind, file, reason in rows]
        end = ": nothing found" if self.ok and not lines else ""
        return "\n".join([self._summary() + end, *lines])

    def _summary(self) -> str:
        parts = [f"{one_line(self.path)}: {self.kind}"]
        if self.error is not None:
            parts.append(f"can't be used: {one_line(self.error, longest=1000)}")
        if self.classes is not None:
            parts += map(one_line, self.classes)
        if self.used is not None:
            parts.append(counted(self.used, "photo"))
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return ", ".join(parts)


def check(
    path: str | Path,
    *,
    weights: str | None = None,
    sheets: str | Path | None = None,
    list: str | Path | None = None,  # noqa: A002 - the flag's name
    allow_bad: bool = False,
    follow_links: bool = False,
    log: Callable[[str], None] = print,
) -> CheckResult:
    """Checks photos, a model folder or a picture, and changes nothing in it. Photos are what `load_folder` takes.

    The findings of a data folder are placeholders, duplicates, leaks between the splits, suspicious labels, tiny,
    thin, dark and blurred images, and imbalanced classes. `weights` are those of the network that compares images:
    "imagenet", "random" or a file; None is ImageNet's or, without a network, none. `sheets` is a folder for a contact
    sheet of the findings, `list` a file for the images that should be excluded from training. Unless `allow_bad`, a
    folder where over a tenth of a class is damaged can't be used. Links out of a data folder are followed where they
    lead into the Hub's cache and, with `follow_links`, anywhere. Raises InputError where `list` is given for anything
    but a data folder, and WeightsError for `weights` that can't be used.
    """
    try:
        path = data_root(path)
    except (AntbeeError, OSError) as error:
        return CheckResult(str(path), "data", ok=False, error=str(error))
    kind = kind_of(path)
    if list is not None:
        make_folder(Path(list).parent)
    if list is not None and kind != "data":
        raise InputError(f"a list of photos to exclude is made of a data folder, and {path} is a {kind}")
    try:
        if kind == "picture":
            result = check_picture(path)
        elif kind == "model":
            result = check_model(path)
        else:
            result = check_data(path, weights=weights, allow_bad=allow_bad, follow_links=follow_links, log=log)
    except (DataError, ModelFolderError, OSError) as error:
        result = CheckResult(str(path), kind, ok=False, error=str(error))
    folder = path.parent if is_table(path) else path
    if sheets is not None and kind == "data" and (sheet := contact_sheet(folder, result.findings)) is not None:
        log(save_sheet(sheet, Path(sheets) / f"check-{folder.resolve().name}.png"))
    if list is not None and result.used is not None:
        write_exclusions(Path(list), result.findings)
        log(f"list written to {list}")
    return result


def kind_of(path: Path) -> Kind:
    """Tells data folders, model folders and pictures apart, by content or, where nothing is there, by name."""
    if path.is_dir():
        is_model = any((path / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE, *UNREAD_WEIGHTS))
        return "model" if is_model else "data"
    if path.name in (CONFIG_FILE, WEIGHTS_FILE):
        return "model"
    if is_table(path):
        return "data"
    return "picture" if path.exists() or path.suffix.lower() in IMG_EXTENSIONS else "data"


def check_picture(path: Path) -> CheckResult:
    """Decodes a picture and measures it. Raises DataError."""
    try:
        facts = quality.measure(open_photo(path), path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return CheckResult(str(path), "picture", ok=True, used=1, findings=tuple(photo_findings(path.name, facts)))


def check_model(path: Path) -> CheckResult:
    """Loads a model folder completely. Raises ModelFolderError."""
    if not path.is_dir():
        raise ModelFolderError(f"{path} is a part of a model: name its folder, {path.parent}")
    try:
        classifier = Classifier.from_pretrained(path, device="cpu")
    except WeightsError as error:
        raise ModelFolderError(str(error)) from error
    if classifier.config.mode:  # a model that antbee did not train may have a history of another format
        read_history(path)
    used = None if classifier.detector is None else len(classifier.detector.names)
    return CheckResult(str(path), "model", ok=True, classes=tuple(classifier.config.label_names), used=used)


def check_data(
    root: Path, *, weights: str | None, allow_bad: bool, follow_links: bool, log: Callable[[str], None]
) -> CheckResult:
    """Reads a data folder and compares its images. Raises DataError, and WeightsError for named weights."""
    require_folder(root)
    if models := sorted(str(file.parent) for file in root.glob(f"*/{WEIGHTS_FILE}")):
        raise DataError(f"{root} holds models, not photos: name them, {' '.join(map(one_line, models))}")
    facts: dict[Path, PhotoFacts] = {}
    cache = ImageCache()
    backbone, start, notice = choose_network(None, weights)
    if notice is not None:
        log(notice)

    def measure(file: Labelled, photo: Image.Image) -> None:
        facts[file.path] = quality.measure(photo, file.path)
        cache_photo(cache, file.path, photo, [start.preprocessing])

    dataset = read_folder(root, follow_links=follow_links, on_photo=measure)
    features = features_of(dataset.all, backbone, start, cache)
    by_name = {path.relative_to(dataset.root).as_posix(): fact for path, fact in facts.items()}
    error = None
    try:
        if not allow_bad:
            refuse_damaged(dataset)
    except DataError as damage:
        error = str(damage)
    return CheckResult(
        str(root),
        "data",
        ok=error is None,
        classes=dataset.class_names,
        used=len(dataset.all),
        skipped=dataset.skipped,
        findings=tuple(folder_findings(dataset, by_name, features)),
        error=error,
    )


def features_of(split: Split, backbone: str, weights: StartingWeights, cache: ImageCache) -> Tensor:
    """The features of a backbone that was not trained on these images: float32 (N, C)."""
    device = choose_device("auto")
    network = build_network(backbone, 2, weights, seed=0).to(device)
    options = replace(LoaderOptions.for_device(device), cache=cache)
    loader = ImageLoader(split, weights.preprocessing, options=options)
    return compute_features(network, loader, DistributedContext(device), what="features").features.cpu()


def contact_sheet(root: Path, findings: Sequence[Finding]) -> Image.Image | None:
    """The images with findings, each under its finding, as one picture; None without any."""
    from antbee.evaluation import plots  # matplotlib takes half a second to import

    preprocessing = Preprocessing()

    def tile(title: str, file: str) -> plots.Tile:
        crop = preprocessing.cropped(open_photo(root / file))
        folder, _, name = file.rpartition("/")
        return plots.Tile(pixels_of([crop])[0] / 255, f"{title}\n{folder}\n{name}")

    tiles = []
    for finding in [finding for finding in findings if finding.kind not in OF_THE_WHOLE][:LARGEST_SHEET]:
        tiles.append(tile(finding.kind, finding.file))
        if finding.other is not None:
            tiles.append(tile(f"{finding.kind} of", finding.other))
    return plots.grid(tiles) if tiles else None


def save_sheet(sheet: Image.Image, file: Path) -> str:
    """Saves a contact sheet; returns a sentence on where, or on why not, since the findings stand without it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(file)
    except OSError as error:
        return f"no contact sheet: {file} can't be written ({error.strerror}): name another folder by --sheets"
    return f"contact sheet written to {file}"


def write_exclusions(path: Path, findings: Sequence[Finding]) -> None:
    """Writes the images that mislead training, one a line with the reason above, for a person to shorten."""
    lines = ["# What train.py --exclude leaves out. Look at each, and delete the lines of those that are right."]
    for finding in findings:
        if finding.kind in UNWANTED:
            lines += [f"# {finding.kind}: {one_line(finding.reason)}", exclusion_line(finding.file)]
    path.write_text("\n".join(lines) + "\n", "utf-8", errors="surrogateescape")
