"""Files of tensors, and where starting weights come from; nothing is ever unpickled."""

import hashlib
import http.client
import json
import pickle  # for the name of its error alone: nothing is ever unpickled
import ssl
import struct
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models import ResNet, WeightsEnum, get_model_weights

from antbee.data.files import ENOUGH, FileError, content_of, kind_of, opened
from antbee.errors import InputError

LARGEST = 2**30  # bytes: twice the largest network that is known here, in float32
LARGEST_HEADER = 2**24  # bytes: thousands of tensors, or the names of 20,000 photos


class TensorsError(InputError):
    """A file holds no tensors that can be used; the message says why, for a caller who names the file and a remedy."""


@dataclass(frozen=True)
class Tensors:
    """What a file of tensors holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    digest: str  # SHA-256 of the file


def read_tensors(path: Path) -> Tensors:
    """All tensors of a safetensors file, on the CPU. Raises TensorsError."""
    try:
        content = content_of(path, largest=LARGEST)
    except FileError as error:
        raise TensorsError(str(error)) from error
    header = _header(content)
    try:
        tensors = safetensors.torch.load(content)
    # KeyError: a type of numbers that torch has not. The rest is what torch says to shapes and places that can't be.
    except (SafetensorError, LookupError, ValueError, RuntimeError, OverflowError) as error:
        raise TensorsError(_reason(error)) from error
    return Tensors(tensors, header.get("__metadata__") or {}, hashlib.sha256(content).hexdigest())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Writes tensors, whatever device and memory layout they have, and gives the file's SHA-256."""
    # channels_last weights would be refused: the format knows no memory layout but the plain one.
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # Through bytes, since save_file makes a file that only its owner can read, whatever the umask says.
    content = safetensors.torch.save(plain, {"format": "pt", **(metadata or {})})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _header(content: bytes) -> dict[str, Any]:
    """The header, in which safetensors itself would overlook a name that is there twice."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(LARGEST_HEADER, len(content) - 8):
        what = kind_of(content[:ENOUGH])
        raise TensorsError(f"{what}, not safetensors" if what else "its header is cut short, or it is not safetensors")
    try:
        header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise TensorsError(f"its header is no JSON: {_reason(error)}") from error
    if not isinstance(header, dict):
        raise TensorsError("its header is no object")
    return header


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("Error while deserializing: ")
    return f"{text or type(error).__name__:.200}"


# The torchvision networks whose head is called `fc` and whose backbone ends in one pooled feature map.
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

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what weights may be kept in

WEIGHTS_EXPECTED = "expected .safetensors or a torchvision .pth, give such a file"
NO_WEIGHTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError)


class WeightsError(InputError):
    """Starting weights can't be used; the message says which, why, and what to do."""


class WeightsUnreachableError(WeightsError):
    """The ImageNet weights are not on this machine and could not be fetched from the network."""

    exit_status = 1


@dataclass(frozen=True)
class StartingWeights:
    """What a network knows before training."""

    name: str  # "imagenet", "random", or a file's name
    state: Mapping[str, Tensor] | None = None  # torchvision's keys; None: random
    digest: str | None = None  # SHA-256 of the file the tensors came from
    base_model: str | None = None  # the same weights on the Hub


def check_architecture(architecture: str) -> None:
    """Raises WeightsError for a network that antbee does not know, naming those it does."""
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"unknown architecture {architecture!r:.100}: expected one of {', '.join(ARCHITECTURES)}")


def load_strictly(network: ResNet, state: Mapping[str, Tensor], source: str) -> None:
    """Fills every tensor of `network`; raises WeightsError, naming `source` and up to three misfits, if it can't."""
    own = network.state_dict()
    # BatchNorm's step counters are in no file older than they are; nothing here reads them.
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
    """What is wrong with the numbers of a tensor of this name: torch itself takes any, and answers with NaN later."""
    if name.endswith("num_batches_tracked"):  # which nothing reads
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

    Nothing is unpickled: files are safetensors, or are read by torch with `weights_only=True`.
    Raises WeightsError, and WeightsUnreachableError where ImageNet's weights can't be fetched.
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
    """torchvision's first ImageNet weights of a network, which are those of the tutorial."""
    enum: WeightsEnum = get_model_weights(architecture)["IMAGENET1K_V1"]
    name = enum.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    expected = name.partition("-")[2].partition(".")[0]  # the hash's beginning is part of the file's name
    if not path.is_file():
        _download(enum.url, path, expected)
    # torch checks it only while it downloads, and never that of a file already in its cache.
    if not (digest := _digest(path)).startswith(expected):
        raise WeightsError(f"{path} is damaged (SHA-256 {digest[:8]}, expected {expected}): delete it and try again")
    return StartingWeights("imagenet", _read_state(path), digest, base_model=f"timm/{architecture}.tv_in1k")


def _download(url: str, path: Path, expected: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=expected)  # to a temporary name, then renamed
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise WeightsUnreachableError(f"{url} can't be reached ({getattr(error, 'reason', error)})") from error
    except RuntimeError as error:  # what arrived has another hash
        raise WeightsUnreachableError(f"the download of {url} was cut off or changed ({error}): try again") from error


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and its SHA-256. Raises WeightsError for a file that holds something else."""
    if path.suffix == ".safetensors":
        try:
            read = read_tensors(path)
        except TensorsError as error:
            raise WeightsError(f"{path} can't be read as weights ({error}): {WEIGHTS_EXPECTED}") from error
        return read.tensors, read.digest
    digest = _digest(path)
    return _read_state(path), digest


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torchvision .pth file by name. Raises WeightsError for a file that holds something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # What torch's reader meets in a file that is none of its own, found by feeding it such files.
    except (pickle.UnpicklingError, struct.error, OSError, RuntimeError, EOFError, *NO_WEIGHTS) as error:
        reason = "more than tensors, or none" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise WeightsError(f"{path} can't be read as weights ({reason}): {WEIGHTS_EXPECTED}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds something else than named tensors: expected a torchvision state_dict")
    return dict(state)


def _digest(path: Path) -> str:
    try:
        with opened(path, largest=LARGEST) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileError as error:
        raise WeightsError(f"{path} can't be read as weights ({error}): {WEIGHTS_EXPECTED}") from error
