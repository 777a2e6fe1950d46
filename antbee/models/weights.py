"""Starting weights: ImageNet, random, or a file; downloads are verified, and nothing is unpickled."""

import hashlib
import http.client
import pickle  # only for its exception
import ssl
import struct
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet, WeightsEnum, get_model_weights

from antbee.data.files import FileError, opened
from antbee.errors import InputError
from antbee.models.tensors import MAX_BYTES, TensorsError, read_tensors

# The networks of torchvision whose head is the linear layer `fc` on one pooled feature map.
ARCHITECTURES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # accepted dtypes of weights

EXPECTED_FILE = "expected .safetensors or a torchvision .pth, give such a file"
NO_WEIGHTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError)  # of torch.load, for other files


class WeightsError(InputError):
    """Weights can't be used; the message says which, why, and what to do."""


class WeightsUnreachableError(WeightsError):
    """The ImageNet weights are not cached and can't be downloaded."""

    exit_status = 1


@dataclass(frozen=True)
class StartingWeights:
    """The weights of a network before training."""

    name: str  # "imagenet", "random", or a file's name
    state: Mapping[str, Tensor] | None = None  # torchvision's keys; None: random
    digest: str | None = None  # SHA-256 of the file the tensors came from
    base_model: str | None = None  # the same weights on the Hub


def check_architecture(architecture: str) -> None:
    """Raises WeightsError, with the supported names, for an architecture that is not supported."""
    if architecture not in ARCHITECTURES:
        near = " or ".join(get_close_matches(architecture, ARCHITECTURES, n=2))
        hint = f" (did you mean {near}?)" if near else ""
        raise WeightsError(f"unknown backbone {architecture!r:.100}{hint}: expected one of {', '.join(ARCHITECTURES)}")


def load_strictly(network: ResNet, state: Mapping[str, Tensor], source: str) -> None:
    """Loads `state` into `network`. Raises WeightsError, naming `source`, for missing, unknown or invalid tensors."""
    own = network.state_dict()
    # Files of old torch versions lack BatchNorm's step counters, which are not used.
    state = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")} | dict(state)
    misfits = [f"{name} is missing" for name in own if name not in state]
    misfits += [f"{name} is unknown" for name in state if name not in own]
    misfits += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise WeightsError(
            f"{source} don't fit this network: {'; '.join(misfits[:3])}{more}. Is it another architecture? "
            "Name the right one, or train or download it again"
        )
    for name in own:
        if (wrong := _wrong_numbers(name, state[name])) is not None:
            raise WeightsError(f"{source} are damaged: {name} {wrong}; train or download them again")
    network.load_state_dict(state)


def _wrong_numbers(name: str, tensor: Tensor) -> str | None:
    """Why the values of a tensor are invalid, if they are: torch would load them, and predict NaN."""
    if name.endswith("num_batches_tracked"):
        return None if tensor.dtype == torch.int64 else f"is of {tensor.dtype}, expected torch.int64"
    if tensor.dtype not in FLOATS:
        return f"is of {tensor.dtype}, expected torch.float32"
    numbers = tensor.float()
    if not torch.isfinite(numbers).all():
        return "has numbers that are NaN or infinite"
    if name.endswith("running_var") and bool((numbers < 0).any()):
        return "has negative numbers, and variances have none"
    return None


def load_starting_weights(choice: str, architecture: str) -> StartingWeights:
    """Starting weights: "imagenet", "random", or the path of a .safetensors or a torchvision .pth file.

    torch reads .pth files with `weights_only=True`. Raises WeightsError, and WeightsUnreachableError where the
    ImageNet weights can't be downloaded.
    """
    check_architecture(architecture)
    if choice == "random":
        return StartingWeights("random")
    if choice == "imagenet":
        return _imagenet_weights(architecture)
    path = Path(choice)
    if not path.exists():
        raise WeightsError(f"no weights file {path}: expected imagenet, random, or a .safetensors or .pth file")
    return StartingWeights(path.name, *_read_weights(path))


def _imagenet_weights(architecture: str) -> StartingWeights:
    """torchvision's IMAGENET1K_V1 weights, which the PyTorch tutorial uses."""
    enum: WeightsEnum = get_model_weights(architecture)["IMAGENET1K_V1"]
    name = enum.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    expected = name.partition("-")[2].partition(".")[0]  # the first digits of the file's SHA-256
    if not path.is_file():
        _download(enum.url, path, expected)
    # torch verifies downloads only, not cached files.
    if not (digest := _digest(path)).startswith(expected):
        raise WeightsError(f"{path} is damaged (SHA-256 {digest[:8]}, expected {expected}): delete it and try again")
    return StartingWeights("imagenet", _read_state(path), digest, base_model=f"timm/{architecture}.tv_in1k")


def _download(url: str, path: Path, expected: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=expected)  # atomic: torch renames a temporary file
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise WeightsUnreachableError(f"{url} can't be reached ({getattr(error, 'reason', error)})") from error
    except RuntimeError as error:  # another hash
        raise WeightsUnreachableError(f"the download of {url} was cut off or changed ({error}): try again") from error


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and its SHA-256. Raises WeightsError."""
    if path.suffix == ".safetensors":
        try:
            read = read_tensors(path)
        except TensorsError as error:
            raise WeightsError(f"{path} can't be read as weights ({error}): {EXPECTED_FILE}") from error
        return read.tensors, read.digest
    digest = _digest(path)  # first: it refuses pipes and devices, at which torch.load would wait
    return _read_state(path), digest


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torchvision .pth file by name. Raises WeightsError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # All exceptions that torch.load raises for other files, as found by fuzzing.
    except (pickle.UnpicklingError, struct.error, OSError, RuntimeError, EOFError, *NO_WEIGHTS) as error:
        reason = "more than tensors, or none" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise WeightsError(f"{path} can't be read as weights ({reason}): {EXPECTED_FILE}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} does not hold named tensors: expected a torchvision state_dict")
    return dict(state)


def _digest(path: Path) -> str:
    try:
        with opened(path, largest=MAX_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileError as error:
        raise WeightsError(f"{path} can't be read as weights ({error}): {EXPECTED_FILE}") from error
