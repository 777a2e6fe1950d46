"""Opens untrusted files safely: regular files of limited size alone. Names file formats by their first bytes."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from antbee.errors import InputError

# Offset, bytes at this offset, format. For error messages alone: these formats are not decoded by this list.
SIGNATURES = (
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"PK", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a pickle"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x80\x05", "a pickle"),
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for a file that was not fetched"),
    (0, b"GIF8", "GIF"),
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"RIFF", "a sound or a video"),
    (0, b"ID3", "a sound"),
)
# Brands in the "ftyp" box of ISO/IEC 14496-12, the container of phones' photos and videos.
BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
# Two letters at least: C: is a drive. One slash is enough, as pathlib leaves no more.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/+", re.IGNORECASE)
AN_ADDRESS = "an address, not a file: download it first, and name the file"
ENOUGH = 512  # bytes from the start of a file that `kind_of` needs


class FileError(InputError):
    """A file can't be read. The message says why and what to do; the caller adds the file's name."""


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address, as of a web page, and no file or folder here has this name."""
    return ADDRESS.match(os.fspath(path)) is not None and not Path(path).exists()


@contextmanager
def opened(path: Path, *, largest: int) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `largest` bytes for binary reading; links are followed.

    Raises FileError for anything else: reading a pipe or a device might block or never end.
    """
    try:
        # Opened before its type is checked, so that it can't be replaced in between; non-blocking for pipes.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise FileError(_why_not(path, error)) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        what = "a folder" if path.is_dir() else "a pipe, a device or a socket"
        raise FileError(f"{what}, not a file: give a file")
    with os.fdopen(number, "rb") as file:
        if (size := os.fstat(number).st_size) > largest:
            raise FileError(f"too large a file ({size:,} bytes, at most {largest:,} are read): make it smaller")
        yield file


def _why_not(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to nothing: copy the file itself" if path.is_symlink() else "not there: check the name"
    if isinstance(error, PermissionError):
        return "can't be read, you lack the permission: run chmod u+r on it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that leads in a circle: remove it, or copy the file itself"
    return f"can't be opened ({getattr(error, 'strerror', None) or error}): check the name"


def content_of(path: Path, *, largest: int) -> bytes:
    """All bytes of a file. Raises FileError as `opened` does."""
    with opened(path, largest=largest) as file:
        try:
            return file.read(largest + 1)
        except OSError as error:
            raise FileError(f"can't be read ({error.strerror}): copy it again") from error


def kind_of(start: bytes) -> str | None:
    """The format of a file by its first ENOUGH bytes, in words for a message; None if it is unknown."""
    if not start:
        return "an empty file"
    for offset, signature, name in SIGNATURES:
        if start[offset : offset + len(signature)] == signature:
            return name
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a video")
    if start[:2] == b"BM" and start[6:10] == bytes(4):  # two reserved fields
        return "BMP"
    if re.match(rb"P[1-6]\s", start):
        return "PPM"
    return "nothing but zeros" if not any(start) else _kind_of_text(start)


def _kind_of_text(start: bytes) -> str | None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG or other XML"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    is_text = all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in start)
    return "text" if is_text else None
