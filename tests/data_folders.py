"""Small data folders for the tests of antbee.data."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photo_bytes(shade: int = 0) -> bytes:
    """A JPEG of 8 x 8 pixels."""
    return encoded(Image.new("RGB", (8, 8), (shade % 256, 90, 60)))


def write_set(root: Path, counts: dict[str, int]) -> Path:
    """Writes a number of small photos into each folder below `root`; photos of one number are the same file."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number:03d}.jpg").write_bytes(photo_bytes(number))
    return root


def small_set(root: Path) -> Path:
    """A data folder with both splits and 3 + 2 training and 1 + 2 validation photos."""
    return write_set(root, {"train/ants": 3, "train/bees": 2, "val/ants": 1, "val/bees": 2})


def zip_with_names(files: Mapping[bytes, bytes], extra: bytes = b"") -> bytes:
    """A zip whose entries have these very bytes for names, without the flag for UTF-8; `extra` is of each entry."""
    buffer, names = io.BytesIO(), {f"<{number}".ljust(len(name), ">"): name for number, name in enumerate(files)}
    with zipfile.ZipFile(buffer, "w") as archive:
        for placeholder, name in names.items():
            entry = zipfile.ZipInfo(placeholder)
            entry.extra = extra
            archive.writestr(entry, files[name])
    content = buffer.getvalue()
    for placeholder, name in names.items():  # once before the content, once in the directory
        content = content.replace(placeholder.encode(), name)
    return content
