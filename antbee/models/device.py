"""The device that computes, and the precision it multiplies in."""

from typing import Literal, get_args

import torch

from antbee.errors import InputError

Precision = Literal["float32", "bfloat16"]  # of the factors of convolutions; weights and losses stay float32
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class DeviceError(InputError):
    """The device asked for is not there; the message says which ones are."""


def fastest_layout(device: torch.device) -> torch.memory_format:
    """How images and convolutions' weights lie in memory: channels last on CPUs and on tensor cores."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def choose_precision(name: str, device: torch.device) -> Precision:
    """ "auto" is bfloat16 where the device multiplies it faster than float32: not on CPUs that have to emulate it.

    Raises DeviceError for a name that is none.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise DeviceError(f"no precision {name!r}: expected auto, {' or '.join(PRECISIONS)}")
    if device.type == "cpu":
        instructions = torch.cpu.get_capabilities()
        faster = instructions.get("avx512_bf16") or instructions.get("amx_bf16")
    else:
        faster = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if faster else "float32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products take their factors in `precision` and add up in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose_device(name: str) -> torch.device:
    """ "auto" is the accelerator that torch finds (CUDA, MPS, ...), else the CPU; other names as torch spells them.

    Raises DeviceError where the device named is not there.
    """
    # Without check_available a CUDA build of torch answers "cuda" on machines that have no GPU.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    here = ("cpu", accelerator.type) if accelerator else ("cpu",)
    if name.partition(":")[0] not in here:
        raise DeviceError(f"no device {name!r} here: this machine has {' and '.join(here)}; choose one, or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device {name!r}: expected {' or '.join(here)}, or auto") from error
