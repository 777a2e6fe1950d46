"""Reading, checking and writing tensors, which may come from untrusted sources; nothing is unpickled."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from antbee.data.files import ENOUGH, FileError, content_of, kind_of
from antbee.errors import InputError

MAX_BYTES = 2**30  # twice the size of the largest supported network in float32
MAX_HEADER_BYTES = 2**24  # thousands of tensors, or the names of 20,000 images
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # accepted dtypes of weights


class TensorsError(InputError):
    """A safetensors file can't be read; the message says why, the caller names the file and the remedy."""


class WeightsError(InputError):
    """Weights or a network can't be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Tensors:
    """The content of a safetensors file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    digest: str  # SHA-256 of the file


def read_tensors(path: Path) -> Tensors:
    """All tensors of a safetensors file, on the CPU. Raises TensorsError."""
    try:
        content = content_of(path, largest=MAX_BYTES)
    except FileError as error:
        raise TensorsError(str(error)) from error
    header = _header(content)
    try:
        tensors = safetensors.torch.load(content)
    # KeyError: a dtype that torch lacks. torch raises the others for impossible shapes and offsets.
    except (SafetensorError, LookupError, ValueError, RuntimeError, OverflowError) as error:
        raise TensorsError(_reason(error)) from error
    return Tensors(tensors, header.get("__metadata__") or {}, hashlib.sha256(content).hexdigest())


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Writes tensors of any device and memory layout; returns the SHA-256 of the file."""
    # safetensors refuses channels_last tensors.
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # Not save_file, which ignores the umask: its files are readable by their owner alone. Of several keys safetensors
    # writes the metadata in any order, so equal models would have other bytes.
    content = safetensors.torch.save(plain, metadata or {"format": "pt"})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _header(content: bytes) -> dict[str, Any]:
    """The parsed header; safetensors itself accepts duplicate names."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(MAX_HEADER_BYTES, len(content) - 8):
        what = kind_of(content[:ENOUGH])
        raise TensorsError(f"{what}, not safetensors" if what else "its header is cut short, or it is not safetensors")
    try:
        header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=_unique_names)
    except (ValueError, RecursionError) as error:
        raise TensorsError(f"its header is no JSON: {_reason(error)}") from error
    if not isinstance(header, dict):
        raise TensorsError("its header is no object")
    return header


def _unique_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("Error while deserializing: ")
    return f"{text or type(error).__name__:.200}"
