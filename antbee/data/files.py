"""A file that may come from anybody, before anything reads it: is it a file at all, how large, what its bytes say."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from antbee.errors import InputError

# How kinds of files begin: what stands where in them. None of these is ever opened; a person should hear what it is.
BEGINNINGS = (
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
    (8, b"WEBP", "WebP"),
    (0, b"RIFF", "a sound or a video"),
    (0, b"ID3", "a sound"),
)
# Brands of the container that phones keep photos and videos in (ISO/IEC 14496-12, "ftyp").
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
ENOUGH = 512  # bytes of a file that say what it is


class FileError(InputError):
    """A file can't be read; the message says why, and what to do, for a caller who names the file."""


@contextmanager
def opened(path: Path, *, largest: int) -> Iterator[BufferedReader]:
    """The file, open to be read, if it is a regular file of at most `largest` bytes.

    A pipe or a device would wait for ever, or never end. Links are followed. Raises FileError for anything else.
    """
    try:
        # Opened before it is looked at, so that nobody can change it in between; without waiting, in case it is a pipe.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
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
    """What a file is, in words, by its first ENOUGH bytes; None where they say nothing known."""
    if not start:
        return "an empty file"
    for place, beginning, what in BEGINNINGS:
        if start[place : place + len(beginning)] == beginning:
            return what
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a video")
    return "nothing but zeros" if not any(start) else _kind_of_text(start)


def _kind_of_text(start: bytes) -> str | None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG or other XML"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    is_text = all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in start)
    return "text" if is_text else None
