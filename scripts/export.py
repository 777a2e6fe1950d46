"""python scripts/export.py MODEL --onnx FILE [--int8 FILE] [--data DIR]

Writes a model as one ONNX file that runs without antbee and torch, and says in its metadata how to prepare a photo. It
takes "images", float32 (batch, 3, H, W), and gives "logits", float32 (batch, classes). MODEL is a model folder or a Hub
id such as user/name. --int8 also writes a version in 8-bit integers, a quarter in size and faster on most CPUs, and
measures both on the validation photos: those of --data, or of the model's own data set in data/.
It needs three packages that antbee itself does not: pip install onnx onnxscript onnxruntime
"""

import argparse
import contextlib
import importlib
import itertools
import json
import secrets
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import antbee
from antbee import errors
from antbee.data.download import folder_named
from antbee.data.folder import ImageDataset, Split, read_folder_of
from antbee.data.images import DataError
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.data.seeds import seeded_generator
from antbee.errors import AntbeeError
from antbee.evaluation import metrics
from antbee.installation import home
from antbee.models.backbone import fuse_conv_bn
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig
from antbee.training import features
from antbee.training.distributed import DistributedContext

if TYPE_CHECKING:  # optional, and imported where they are used
    import onnx
    import onnxruntime

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # of ONNX: what the exporter writes without converting, with every version of torch
TOLERANCE = 1e-3  # of the largest logit; rounding explains a hundredth of it
CALIBRATION = 128  # photos that the ranges of the 8-bit numbers are taken from


class ExportError(AntbeeError):
    """The model can't be exported; the message says why and what to do."""


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Write a model as an ONNX file.")
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("--onnx", type=Path, metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--int8", type=Path, metavar="FILE", help="also write a version in 8-bit integers")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data folder for --int8 (default: the model's own in data/)"
    )
    arguments = parser.parse_args()
    if arguments.data is not None and arguments.int8 is None:
        parser.error("--data is for --int8 alone")
    if arguments.int8 is not None and arguments.int8.resolve() == arguments.onnx.resolve():
        parser.error("--onnx and --int8 name the same file")
    return arguments


def main() -> None:
    """Export the network and compare it with torch; then, where asked to, quantise it and measure both files."""
    arguments = parse_arguments()
    check_packages()
    classifier = Classifier.from_pretrained(arguments.model, device="cpu")
    photos = None if arguments.int8 is None else photos_of(classifier, arguments.data)

    with replacing(arguments.onnx) as file:
        program = exported(classifier.network, classifier.config.preprocessing.crop)
        describe(program, classifier.config)
        file.write_bytes(program.SerializeToString())
        difference = largest_difference(classifier, file)
    print(f"written to {arguments.onnx}: its logits are torch's but for {difference:.1e} at most")
    if photos is None:
        return

    chosen = spread(photos.train, CALIBRATION)
    with replacing(arguments.int8) as file:
        program = quantised(arguments.onnx, ImageLoader(chosen, classifier.config.preprocessing))
        describe(program, classifier.config, f"int8, calibrated with {len(chosen)} training photos of {photos.name}")
        file.write_bytes(program.SerializeToString())
    print(f"written to {arguments.int8}: int8, calibrated with {len(chosen)} training photos of {photos.root}")
    print_table(measured([arguments.onnx, arguments.int8], classifier, photos.val))


def check_packages() -> None:
    """Raises ExportError where a package is missing that exporting needs."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"{package} can't be imported ({error}): pip install {' '.join(PACKAGES)}") from error


def photos_of(classifier: Classifier, root: Path | None) -> ImageDataset:
    """The photos of `root`, or else of the model's own data set, labelled in the order of the model's outputs.

    Raises DataError where there are none, or none of the model's classes.
    """
    root = root or folder_named(home() / "data", classifier.config.data.name)
    if root is None:
        raise DataError("the model's own photos are not in data/: name a data folder with --data")
    # Without a val/ folder the model's own seed draws the photos that it was checked with, and not trained on.
    return read_folder_of(root, classifier.config.label_names, seed=classifier.config.seed or 0)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A place to write to, which becomes `file` once the block ends well; an older file stays until then.

    Raises ExportError, before any work is done, where nothing can be written.
    """
    if file.is_dir():
        raise ExportError(f"{file} is a folder: name a file in it")
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
    except OSError as error:
        raise ExportError(f"{file} can't be written ({error.strerror}): choose another place") from error
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# The network as a file


def exported(network: nn.Module, crop: int) -> "onnx.ModelProto":
    """The network as an ONNX program: "images" (batch, 3, crop, crop) -> "logits" (batch, classes), in float32.

    The exporter folds every BatchNorm into the convolution before it.
    https://docs.pytorch.org/docs/stable/onnx_export.html
    """
    # The warnings are of the exporter's own parts, and nothing that a person could mend.
    with tqdm(desc="exporting", total=1, leave=False, disable=None), warnings.catch_warnings(action="ignore"):
        try:
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, crop, crop),),  # a batch of one would be taken for a constant
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"torch can't export it ({reason}): pip install --upgrade {' '.join(PACKAGES)}"
            ) from error
        proto: onnx.ModelProto = program.model_proto
    # The exporter notes the line of Python that each part comes from, with the folders of this machine.
    graph = proto.graph
    for part in itertools.chain(graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        part.ClearField("metadata_props")
    return proto


def describe(program: "onnx.ModelProto", config: ClassifierConfig, quantisation: str | None = None) -> None:
    """Writes into the program what whoever finds the file alone has to know: a sentence or two, and `metadata`."""
    import onnx

    look = config.preprocessing
    program.doc_string = (
        f"An image classifier by antbee. images: RGB photos, turned upright, the shorter side resized to {look.resize} "
        f"pixels ({look.interpolation}, antialiased, as Pillow resizes; the longer side in proportion, rounded down), "
        f"the central {look.crop} x {look.crop} pixels cut out, divided by 255, the channels' mean {list(look.mean)} "
        f"subtracted, then divided by their standard deviation {list(look.std)}. The softmax of the logits is the "
        f"probability of each label, in the order of the metadata's labels."
    )
    onnx.helper.set_model_props(program, metadata(config, quantisation))


def metadata(config: ClassifierConfig, quantisation: str | None = None) -> dict[str, str]:
    """The file's metadata: every value is text, lists are JSON."""
    look = config.preprocessing
    entries = {
        "labels": json.dumps(config.label_names),  # in the order of the logits
        "architecture": config.architecture,  # torchvision's name of the network
        "channel_order": "RGB",
        "resize_shorter_side": str(look.resize),  # pixels; the longer side keeps the proportion and is rounded down
        "resize_interpolation": look.interpolation,  # bilinear or bicubic
        "resize_antialias": "true",  # the filter widens as a photo shrinks, which Pillow does and not every library
        "centre_crop": str(look.crop),  # pixels a side, after resizing
        "value_range": "[0, 1]",  # of the pixels, before the mean is subtracted
        "mean": json.dumps(look.mean),  # of each channel, subtracted
        "std": json.dumps(look.std),  # of each channel, divided by afterwards
        "antbee_version": antbee.__version__,  # that wrote the file
    }
    return entries if quantisation is None else entries | {"quantisation": quantisation}  # which numbers, from what


def session_of(file: Path) -> "onnxruntime.InferenceSession":
    """The file, ready to answer on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def largest_difference(classifier: Classifier, file: Path) -> float:
    """Between the logits of torch and of the file, for random images in a batch of one and in one of three.

    Raises ExportError where it is more than rounding explains.
    """
    session, crop = session_of(file), classifier.config.preprocessing.crop
    differences = []
    for count in (1, 3):
        images = torch.randn(count, 3, crop, crop, generator=seeded_generator(0, "export", count))
        with torch.inference_mode():
            expected = classifier.network(images)
        found = torch.from_numpy(answers(session, images))
        differences.append(float((found - expected).abs().max()))
        if not differences[-1] <= TOLERANCE * max(1, float(expected.abs().max())):  # nor where it is not a number
            raise ExportError(f"the file's logits differ from torch's by {differences[-1]:.3g}: nothing was written")
    return max(differences)


def answers(session: "onnxruntime.InferenceSession", images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) -> logits (B, classes)."""
    logits: np.ndarray = session.run(["logits"], {"images": images.numpy()})[0]
    return logits


# ---------------------------------------------------------------------------------------------------------------------
# The same in 8-bit integers


def quantised(file: Path, photos: ImageLoader) -> "onnx.ModelProto":
    """The program of a float32 file in 8-bit integers but for its last layer; `photos` give each tensor's range.

    Static quantisation after training, as in Jacob et al. 2018, arXiv 1712.05877, with a scale for each channel of the
    weights; https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as name:
        prepared, result = Path(name, "prepared.onnx"), Path(name, "quantised.onnx")
        # Every shape is inferred. Folding is done already, and onnxruntime's own would leave its dialects in the file.
        quantization.quant_pre_process(file, prepared, skip_symbolic_shape=True, skip_optimization=True)
        head = next(node.name for node in onnx.load(prepared).graph.node if "logits" in node.output)
        quantization.quantize_static(
            prepared,
            result,
            CalibrationImages(photos),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            activation_type=quantization.QuantType.QUInt8,  # on x86 CPUs several times faster than QInt8
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # weights of 7 bits: with 8 the sums overflow on x86 CPUs without VNNI
            nodes_to_exclude=[head],  # tiny, and its outputs are the answer
        )
        return onnx.load(result)


class CalibrationImages:
    """The images that the ranges are taken from, one at a time, as onnxruntime asks for them."""

    def __init__(self, photos: ImageLoader) -> None:
        batches = photos.batches(torch.arange(len(photos)).split(1))
        self._images = iter(tqdm(batches, "calibrating", len(photos), leave=False, delay=0.5, disable=None))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The network's input, or None after the last one."""
        images, _ = next(self._images, (None, None))
        return None if images is None else {"images": images.numpy()}


def spread(split: Split, count: int) -> Split:
    """So many photos of a split, or all that there are: of every class alike, drawn by a fixed seed."""
    order = torch.randperm(len(split), generator=seeded_generator(0, "calibration")).tolist()
    by_class = [[i for i in order if split.labels[i] == label] for label in sorted(set(split.labels))]
    in_turns = [i for turn in itertools.zip_longest(*by_class) for i in turn if i is not None][:count]
    return split.subset(in_turns)


# ---------------------------------------------------------------------------------------------------------------------
# How good the files are


@dataclass(frozen=True)
class Measurement:
    """What a file costs and how good its answers are."""

    file: Path
    score: metrics.Score
    same: int  # answers that are torch's too
    milliseconds: float  # median for one photo by itself, decoded and cropped already


def measured(files: Sequence[Path], classifier: Classifier, val: Split) -> list[Measurement]:
    """Every file's answers to the validation photos, one by one."""
    photos = ImageLoader(val, classifier.config.preprocessing, options=LoaderOptions.for_device(classifier.device))
    class_count = len(classifier.config.label_names)
    network, process = fuse_conv_bn(classifier.network), DistributedContext(classifier.device)
    by_torch = features.compute_rows(network, photos, class_count, process, what="predicting with torch").argmax(1)
    measurements = []
    for file in files:
        session, rows, seconds = session_of(file), [], []
        batches = photos.batches(torch.arange(len(photos)).split(1))
        for images, _ in tqdm(batches, f"measuring {file.name}", len(photos), leave=False, delay=0.5, disable=None):
            started = time.perf_counter()
            rows.append(answers(session, images))
            seconds.append(time.perf_counter() - started)
        logits = torch.from_numpy(np.concatenate(rows))
        same = int((logits.argmax(1) == by_torch).sum())
        score = metrics.score(logits, photos.labels)
        measurements.append(Measurement(file, score, same, 1000 * statistics.median(seconds)))
    return measurements


def print_table(measurements: Sequence[Measurement]) -> None:
    """A row for each file."""
    rows = [("file", "MB", "accuracy on val", "95 % interval", "as torch", "ms a photo")]
    for found in measurements:
        score = found.score
        low, high = metrics.wilson_interval(score.correct, score.count)
        rows.append(
            (
                str(found.file),
                f"{found.file.stat().st_size / 1e6:.1f}",
                f"{score.accuracy:.1%} ({score.correct} of {score.count})",
                f"{low:.1%} to {high:.1%}",
                f"{found.same} of {score.count}",
                f"{found.milliseconds:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    errors.run(main)
