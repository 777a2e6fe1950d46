"""Paths as people type them: patterns that the shell left as they are, and addresses in the place of files."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from antbee.data.files import AN_ADDRESS, is_address
from antbee.data.images import DataError
from antbee.text import printable


def local_path(text: str | os.PathLike[str]) -> Path:
    """The path of something on this computer. Raises DataError for an address."""
    if is_address(text):
        raise DataError(f"{printable(os.fspath(text))} is {AN_ADDRESS}")
    return Path(text)


def local_paths(texts: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The paths of things on this computer, and in place of a pattern such as *.jpg what fits it, sorted.

    A shell does the same, but that of Windows does not. What exists is never a pattern. Raises DataError for an address
    and for a pattern that nothing fits.
    """
    return [local_path(name) for text in texts for name in expanded(os.fspath(text))]


def expanded(text: str) -> list[str]:
    """What fits a pattern, sorted; what is none, or an address, as it is. Raises DataError where nothing fits."""
    path = Path(text)
    if not glob.has_magic(text) or is_address(text) or path.exists() or path.is_symlink():
        return [text]
    found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - leaves out hidden files, as shells do
    if not found:
        raise DataError(f"nothing fits {printable(path)}: expected a file, a folder or a pattern such as photos/*.jpg")
    return found
