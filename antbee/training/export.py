"""Export of a model to ONNX, and how the exported files compare on the validation images."""

import copy
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antbee.data.folder import ImageDataset, Split
from antbee.data.loading import ImageLoader
from antbee.data.seeds import seeded_generator
from antbee.data.transforms import Preprocessing
from antbee.errors import InputError
from antbee.evaluation import metrics, report
from antbee.models.classifier import Classifier
from antbee.models.export import (
    check_packages,
    describe,
    largest_difference,
    onnx_logits,
    onnx_program,
    open_session,
    quantised_program,
    replacing,
)
from antbee.models.metrics import Score
from antbee.models.predict import load_classifier
from antbee.training.evaluate import dataset_of

CALIBRATION_IMAGES = 128  # at most


@dataclass(frozen=True)
class FileMetrics:
    """Size, accuracy and speed of an exported file."""

    file: Path
    score: Score  # on the validation images
    agreement: int  # images for which the most probable class is that of torch
    milliseconds: float  # median of one image, preprocessed, in a batch of one


@dataclass(frozen=True)
class ExportResult:
    """The written files; printed, it is what `scripts/export.py` prints."""

    onnx: Path
    difference: float  # the largest between the file's logits and torch's
    int8: Path | None = None
    calibration: str | None = None  # the images that int8 was calibrated with
    metrics: tuple[FileMetrics, ...] = ()  # of both files; empty without int8

    def __str__(self) -> str:
        """A line for each file, then a table."""
        lines = [f"written to {self.onnx}: its logits differ from torch's by {self.difference:.1e} at most"]
        if self.int8 is not None:
            lines += [f"written to {self.int8}: int8, calibrated with {self.calibration}", _table(self.metrics)]
        return "\n".join(lines)


def export(
    model: Classifier | str | Path,
    *,
    onnx: str | Path,
    int8: str | Path | None = None,
    data: ImageDataset | str | Path | None = None,
    follow_links: bool = False,
) -> ExportResult:
    """Writes a model as an ONNX file: "images" float32 (batch, 3, H, W) -> "logits" float32 (batch, classes).

    `model` is a classifier, a model folder or a Hub id. `int8` is a second file, in 8-bit integers, calibrated with
    training images and compared with the first on the validation images of `data`: a data set, what `load_folder`
    takes, or, if None, the model's own data set in data/. Links out of a folder are followed where they lead into the
    Hub's cache and, with `follow_links`, anywhere. A file is written only if its logits are those of torch. Raises
    ExportError, InputError for arguments that don't fit together, and DataError where the images can't be used.
    """
    onnx, int8 = Path(onnx), None if int8 is None else Path(int8)
    if data is not None and int8 is None:
        raise InputError("data is only for int8: leave out --data, or give --int8 a file to write")
    if int8 is not None and int8.resolve() == onnx.resolve():
        raise InputError(f"onnx and int8 name the same file, {onnx}: name two")
    check_packages()
    classifier = load_classifier(model, device="cpu")
    network, config = copy.deepcopy(classifier.network).cpu(), classifier.config
    dataset = None if int8 is None else dataset_of(classifier, data, follow_links=follow_links)
    with replacing(onnx) as temporary:
        program = onnx_program(network, config.preprocessing.crop)
        describe(program, config)
        temporary.write_bytes(program.SerializeToString())
        difference = largest_difference(network, temporary, config.preprocessing.crop)
    if int8 is None or dataset is None:
        return ExportResult(onnx, difference)

    images = balanced_subset(dataset.train, CALIBRATION_IMAGES)
    with replacing(int8) as temporary:
        program = quantised_program(onnx, ImageLoader(images, config.preprocessing))
        describe(program, config, f"int8, calibrated with {len(images)} training photos of {dataset.name}")
        temporary.write_bytes(program.SerializeToString())
    compared = compare([onnx, int8], network, dataset.val, config.preprocessing)
    return ExportResult(onnx, difference, int8, f"{len(images)} training photos of {dataset.root}", compared)


def balanced_subset(split: Split, count: int) -> Split:
    """At most `count` images of a split, equally many of each class if possible, drawn with a fixed seed."""
    order = torch.randperm(len(split), generator=seeded_generator(0, "calibration")).tolist()
    by_class = [[i for i in order if split.labels[i] == label] for label in sorted(set(split.labels))]
    in_turns = [i for turn in itertools.zip_longest(*by_class) for i in turn if i is not None]
    return split.subset(in_turns[:count])


def compare(
    files: Sequence[Path], network: nn.Module, split: Split, preprocessing: Preprocessing
) -> tuple[FileMetrics, ...]:
    """Evaluates exported files on a split, also against torch."""
    images = ImageLoader(split, preprocessing)
    # torch first: its threads would spin between the files' answers and slow them down.
    with torch.inference_mode():
        by_torch = torch.cat([network(image) for image in _one_by_one(images, "torch")]).argmax(1)
    return tuple(_evaluate(file, images, by_torch) for file in files)


def _evaluate(file: Path, images: ImageLoader, by_torch: Tensor) -> FileMetrics:
    session, rows, seconds = open_session(file), [], []
    for image in _one_by_one(images, file.name):
        started = time.perf_counter()
        rows.append(onnx_logits(session, image))
        seconds.append(time.perf_counter() - started)
    logits = torch.cat(rows)
    agreement = int((logits.argmax(1) == by_torch).sum())
    return FileMetrics(file, metrics.score(logits, images.labels), agreement, 1000 * statistics.median(seconds))


def _one_by_one(images: ImageLoader, name: str) -> Iterator[Tensor]:
    """The images in batches of one: float32 (1, 3, H, W)."""
    batches = images.batches(torch.arange(len(images)).split(1))
    for batch, _ in tqdm(batches, f"evaluating {name}", len(images), leave=False, delay=0.5, disable=None):
        yield batch


def _table(compared: Sequence[FileMetrics]) -> str:
    rows = [("file", "MB", "accuracy on val", "95% interval", "as torch", "ms a photo")]
    for found in compared:
        score = found.score
        rows.append(
            (
                str(found.file),
                f"{found.file.stat().st_size / 1e6:.1f}",
                f"{score.accuracy:.1%} ({score.correct} of {score.count})",
                report.interval(score.interval),
                f"{found.agreement} of {score.count}",
                f"{found.milliseconds:.1f}",
            )
        )
    return report.aligned(rows)
