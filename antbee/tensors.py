"""Files of tensors that may come from anybody: safetensors, checked whole before a tensor is used, never unpickled.

The format: the header's length in 8 bytes, the header in JSON, which names each tensor with its type, shape and place,
and the tensors' bytes. https://huggingface.co/docs/safetensors/index#format
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from antbee.files import ENOUGH, FileError, content_of, kind_of

LARGEST = 2**30  # bytes: twice the largest network that is known here, in float32
LARGEST_HEADER = 2**24  # bytes: thousands of tensors, or the names of 20,000 photos


class TensorsError(ValueError):
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
