"""A network as an ONNX file in float32, or quantised to 8-bit integers.

The packages that this needs are optional, see PACKAGES, and imported where they are used.
"""

import contextlib
import importlib
import itertools
import json
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import antbee
from antbee.data.loading import ImageLoader
from antbee.data.seeds import seeded_generator
from antbee.errors import AntbeeError
from antbee.models.config import ClassifierConfig

if TYPE_CHECKING:
    import onnx
    import onnxruntime

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # the ONNX opset that torch's exporter writes without converting
TOLERANCE = 1e-3  # of the largest logit; rounding explains a hundredth of it


class ExportError(AntbeeError):
    """The model can't be exported; the message says why and what to do."""


def check_packages() -> None:
    """Raises ExportError where a package is missing that exporting needs."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"{package} can't be imported ({error}): pip install {' '.join(PACKAGES)}") from error


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary path that replaces `file` if the block succeeds; otherwise an older file stays as it is.

    Raises ExportError before the block runs where the file can't be written.
    """
    if file.is_dir():
        raise ExportError(f"{file} is a folder: name a file in it")
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise ExportError(f"{file} can't be written ({error.strerror}): choose another place") from error
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# In float32


def onnx_program(network: nn.Module, crop: int) -> "onnx.ModelProto":
    """The network as an ONNX program: "images" (batch, 3, crop, crop) -> "logits" (batch, classes), in float32.

    The exporter fuses every BatchNorm with the convolution before it. Raises ExportError.
    https://docs.pytorch.org/docs/stable/onnx_export.html
    """
    # The warnings concern the exporter's internals, nothing that a user could change.
    with tqdm(desc="exporting", total=1, leave=False, disable=None), warnings.catch_warnings(action="ignore"):
        try:
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, crop, crop),),  # a batch size of one would be taken for a constant
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
    assert program is not None  # as with every call with dynamo=True
    proto: onnx.ModelProto = program.model_proto
    # The exporter records the line of Python code of each part, with the paths of this machine.
    graph = proto.graph
    for part in itertools.chain(graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        part.ClearField("metadata_props")
    return proto


def describe(program: "onnx.ModelProto", config: ClassifierConfig, quantisation: str | None = None) -> None:
    """Writes the preprocessing and the labels into the program: as text, and as `metadata`."""
    import onnx

    steps = config.preprocessing
    how = f"{steps.resize} pixels ({steps.interpolation}, antialiased, as Pillow resizes"
    resized = {
        "crop": f"the shorter side resized to {how}; the longer side in proportion, rounded down)",
        "squash": f"both sides resized to {how})",
        "pad": f"the longer side resized to {how}; the shorter side in proportion, rounded), put at the centre of a "
        f"square of the colour {steps.padding}",
    }[steps.fit]
    program.doc_string = (
        f"An image classifier by antbee. images: RGB photos, turned upright, {resized}, the central {steps.crop} x "
        f"{steps.crop} pixels cut out, divided by 255, the channels' mean {list(steps.mean)} subtracted, then divided "
        f"by their standard deviation {list(steps.std)}. The softmax of the logits is the probability of each label, "
        "in the order of the metadata's labels."
    )
    onnx.helper.set_model_props(program, metadata(config, quantisation))


def metadata(config: ClassifierConfig, quantisation: str | None = None) -> dict[str, str]:
    """The metadata of the file: all values are text, lists are JSON."""
    steps = config.preprocessing
    sides = {"crop": "shorter_side", "squash": "both_sides", "pad": "longer_side"}[steps.fit]
    entries = {
        "labels": json.dumps(config.label_names),  # in the order of the logits
        "architecture": config.architecture,
        "channel_order": "RGB",
        "fit": steps.fit,  # crop, squash or pad
        f"resize_{sides}": str(steps.resize),  # pixels; of crop and pad the other side keeps the proportion
        "resize_interpolation": steps.interpolation,  # bilinear or bicubic
        "resize_antialias": "true",  # the filter widens as a photo shrinks, in Pillow but not in every library
        "centre_crop": str(steps.crop),  # side in pixels, after resizing
        "value_range": "[0, 1]",  # of the pixels, before the mean is subtracted
        "mean": json.dumps(steps.mean),  # of each channel, subtracted
        "std": json.dumps(steps.std),  # of each channel, divided by afterwards
        "antbee_version": antbee.__version__,
    }
    if steps.padding is not None:
        entries["padding"] = json.dumps(steps.padding)  # RGB in 0..255, around the resized photo
    return entries if quantisation is None else entries | {"quantisation": quantisation}


def open_session(file: Path) -> "onnxruntime.InferenceSession":
    """An onnxruntime session of the file on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def onnx_logits(session: "onnxruntime.InferenceSession", images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> logits: float32 (B, classes)."""
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def largest_difference(network: nn.Module, file: Path, crop: int) -> float:
    """The largest difference between the logits of torch and of the file, for random images in batches of 1 and 3.

    Raises ExportError where rounding does not explain it.
    """
    session = open_session(file)
    differences = []
    for count in (1, 3):
        images = torch.randn(count, 3, crop, crop, generator=seeded_generator(0, "export", count))
        with torch.inference_mode():
            expected = network(images)
        differences.append(float((onnx_logits(session, images) - expected).abs().max()))
        if not differences[-1] <= TOLERANCE * max(1, float(expected.abs().max())):  # also where it is NaN
            raise ExportError(f"the file's logits differ from torch's by {differences[-1]:.3g}: nothing was written")
    return max(differences)


# ---------------------------------------------------------------------------------------------------------------------
# In 8-bit integers


def quantised_program(file: Path, images: ImageLoader) -> "onnx.ModelProto":
    """The program of a float32 file in 8-bit integers, except its last layer; `images` calibrate each tensor's range.

    Static quantisation after training (Jacob et al. 2018, arXiv 1712.05877) with a scale for each channel of the
    weights; https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as name:
        prepared, result = Path(name, "prepared.onnx"), Path(name, "quantised.onnx")
        # Only infers shapes: BatchNorm is fused already, and onnxruntime's optimiser would add operators of its own.
        quantization.quant_pre_process(file, prepared, skip_symbolic_shape=True, skip_optimization=True)
        head = next(node.name for node in onnx.load(prepared).graph.node if "logits" in node.output)
        quantization.quantize_static(
            prepared,
            result,
            _CalibrationReader(images),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            activation_type=quantization.QuantType.QUInt8,  # on x86 CPUs several times faster than QInt8
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # weights of 7 bits: with 8 the sums overflow on x86 CPUs without VNNI
            nodes_to_exclude=[head],  # tiny, and its outputs are the logits
        )
        return onnx.load(result)


class _CalibrationReader:
    """Gives the calibration images one at a time, by onnxruntime's protocol."""

    def __init__(self, images: ImageLoader) -> None:
        batches = images.batches(torch.arange(len(images)).split(1))
        self._batches = iter(tqdm(batches, "calibrating", len(images), leave=False, delay=0.5, disable=None))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The network's input, or None after the last image."""
        images, _ = next(self._batches, (None, None))
        return None if images is None else {"images": images.numpy()}
