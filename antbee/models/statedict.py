"""A file of weights -> named tensors: .safetensors, or a .pth that torch reads with `weights_only=True`.

Programs save the same weights in several ways: bare, in a checkpoint beside the epoch and the optimiser's state, or
under the names that a wrapper such as DataParallel gave them.
"""

import hashlib
import pickle  # only for its exception
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antbee.data.files import FileError, opened
from antbee.models.tensors import MAX_BYTES, TensorsError, WeightsError, read_tensors
from antbee.text import one_line

EXPECTED_FILE = "expected .safetensors or a torchvision .pth, give such a file"
NO_WEIGHTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError)  # of torch.load, for other files
# Where checkpoints keep the weights, in the order of preference: timm's averaged ones come before those of the last
# step, as `timm.models.load_state_dict` takes them.
CHECKPOINT_KEYS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "weights",
)
# What wrappers put in front of every name: DataParallel, torch.compile, Lightning and others' attributes.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.")


def read_state_file(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, without wrappers' prefixes, and its SHA-256. Raises WeightsError."""
    if path.suffix == ".safetensors":
        try:
            read = read_tensors(path)
        except TensorsError as error:
            raise WeightsError(f"{path} can't be read as weights ({error}): {EXPECTED_FILE}") from error
        return unwrapped(read.tensors), read.digest
    digest = digest_of(path)  # first: it refuses pipes and devices, at which torch.load would wait
    return read_state(path), digest


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file by name, without wrappers' prefixes. Raises WeightsError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # All exceptions that torch.load raises for other files, as found by fuzzing.
    except (pickle.UnpicklingError, struct.error, OSError, RuntimeError, EOFError, *NO_WEIGHTS) as error:
        reason = "more than tensors, or none" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise WeightsError(f"{path} can't be read as weights ({reason}): {EXPECTED_FILE}") from error
    if (state := _state_in(content)) is None:
        raise WeightsError(
            f"{path} holds {_described(content)}: expected a torchvision state_dict of named tensors, alone or under "
            "state_dict, model or model_state_dict"
        )
    return unwrapped(state)


def digest_of(path: Path) -> str:
    """SHA-256 of a file of weights. Raises WeightsError."""
    try:
        with opened(path, largest=MAX_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileError as error:
        raise WeightsError(f"{path} can't be read as weights ({error}): {EXPECTED_FILE}") from error


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that all their names have: a part of them may be a network's own name."""
    found = dict(state)
    while prefix := next((one for one in PREFIXES if found and all(name.startswith(one) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _state_in(content: Any) -> Mapping[str, Tensor] | None:
    """The named tensors that a file consists of or holds under one of the usual keys."""
    if _is_state(content):
        return content
    if not isinstance(content, Mapping):
        return None
    return next((content[key] for key in CHECKPOINT_KEYS if _is_state(content.get(key))), None)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _described(content: Any) -> str:
    """What a file holds, in a few words."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if not content:
        return "nothing"
    keys = ", ".join(one_line(str(key), longest=40) for key in list(content)[:5])
    more = ", ..." if len(content) > 5 else ""
    return f"a dictionary with the keys {keys}{more}"
