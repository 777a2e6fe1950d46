"""ICC profiles for tests, put together by hand: Pillow makes none but sRGB, LAB and XYZ.

The layout is that of version 4 of https://www.color.org/specification/ICC.1-2022-05.pdf: a header of 128 bytes, a table
of tags, and their values.
"""

import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

# XYZ of full red, green and blue, for the white D50.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
WHITE = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: Sequence[Sequence[float]]) -> bytes:
    """A profile with these primaries and the transfer curve of sRGB."""
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, values))
    tags = {b"wtpt": _xyz(WHITE)}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {letter + b"XYZ": _xyz(primary), letter + b"TRC": curve}
    return _profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """A profile of greys."""
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    return _profile(b"GRAY", {b"wtpt": _xyz(WHITE), b"kTRC": curve})


def in_primaries(picture: Image.Image, primaries: Sequence[Sequence[float]]) -> Image.Image:
    """An sRGB picture with pixels for other primaries and the transfer curve of sRGB: it looks the same with those."""
    values = np.asarray(picture, float) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.array(SRGB) @ np.linalg.inv(np.array(primaries))).clip(0, 1)
    values = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((values * 255).round().astype(np.uint8))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, content, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(content), len(value))
        content += value + b"\0" * (-len(value) % 4)
    size = start + len(content)
    header = struct.pack(">I4sI4s4s4s12x4s28x", size, b"", 0x04000000, b"mntr", space, b"XYZ ", b"acsp")
    return (header + b"".join(map(_fixed, WHITE))).ljust(128, b"\0") + table + content
