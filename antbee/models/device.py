"""The device and the precision of computations."""

from typing import Literal, get_args

import torch

from antbee.errors import InputError

Precision = Literal["float32", "bfloat16"]  # inputs of convolutions and matrix products; weights and losses are float32
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class DeviceError(InputError):
    """The device or precision is not available; the message lists the available ones."""


def fastest_layout(device: torch.device) -> torch.memory_format:
    """The memory format of images and weights with the fastest convolutions: channels last on CPUs and CUDA."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of a name; "auto" is bfloat16 on devices with instructions for it, else float32.

    Raises DeviceError for another name.
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
    """A context in which convolutions and matrix products take inputs in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is the available accelerator (CUDA, MPS, ...), else the CPU.

    Raises DeviceError where the device is not available.
    """
    # Without check_available a CUDA build of torch returns "cuda" on machines without a GPU.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    available = ("cpu", accelerator.type) if accelerator else ("cpu",)
    if name.partition(":")[0] not in available:
        raise DeviceError(f"no device {name!r} here: this machine has {' and '.join(available)}; choose one, or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device {name!r}: expected {' or '.join(available)}, or auto") from error
