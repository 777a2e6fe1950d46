"""Reads photos from an untrusted zip of class folders, within limits and without writing anything to disk."""

import contextlib
import gzip
import hashlib
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_SET, BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from PIL import Image

from antbee.data.files import ENOUGH
from antbee.data.images import DataError, open_photo
from antbee.data.layout import split_named
from antbee.data.listing import SkippedFile, is_hidden_file, is_hidden_folder, is_named_as_photo, why_no_photo
from antbee.data.zip_names import ZipNames, names_in_zip
from antbee.errors import InputError
from antbee.text import one_line

FEWEST_CLASSES, MOST_CLASSES = 2, 10
MOST_PHOTOS_OF_CLASS, MOST_PHOTOS = 60, 400
LONGEST_CLASS_NAME = 40  # characters

# A zip of a few kilobytes may unpack to gigabytes, or claim to.
MOST_FILES_IN_ZIP = 5_000
LARGEST_FILE_IN_ZIP = 20_000_000  # bytes, unpacked
LARGEST_ZIP = 1_000_000_000  # bytes, unpacked, of all files that are read
LARGEST_READ = 4_000_000  # bytes; zipfile reads the central directory at once and needs 20 times its size in memory
UNPACKED_AT_ONCE = 1_000_000  # bytes
# What zipfile raises for a file that is no zip or damaged, an unknown compression, a password or an invalid name.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class FewShotError(InputError):
    """A class name, a photo or a zip can't be used for few-shot training."""


def class_name_of(text: str) -> str:
    """A class name on one line, stripped and in Unicode normalisation form C.

    Raises FewShotError if it is empty, too long or unprintable, or could not name a class folder.
    """
    # macOS decomposes accents in file names: without normalising, one word could name two classes.
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not 1 <= len(name) <= LONGEST_CLASS_NAME:
        raise FewShotError(
            f"the class name '{one_line(name, longest=60)}' has {len(name)} characters: expected 1 to"
            f" {LONGEST_CLASS_NAME}, give another"
        )
    if not name.isprintable():
        raise FewShotError(f"the class name {one_line(name)} has characters that can't be seen: type it again")
    if is_hidden_folder(name) or "/" in name or "\\" in name:
        raise FewShotError(
            f"the class name {name} can't be that of a folder of photos: expected one that has no slash, does not"
            " start with a dot and is not a system folder's, give another"
        )
    return name


@dataclass(frozen=True)
class ZipPhoto:
    """A photo from a zip of class folders."""

    class_name: str
    name: str  # of its file, without folders
    photo: Image.Image  # RGB
    share: float  # fraction of the zip that has been read, 0..1


def photos_in_zip(
    file: Path | BinaryIO, counts: Mapping[str, int] = MappingProxyType({}), language: str = ""
) -> Iterator[ZipNames | ZipPhoto | SkippedFile]:
    """Yields how the names in a zip of class folders were read, its photos, sorted by path, and unusable files.

    The innermost folder that is no split is the class: ants/1.jpg, photos/ants/1.jpg, train/ants/1.jpg and
    ants/val/1.jpg are all ants. `counts` are the photos that each class has already; if the limits leave too little
    room for all photos of the zip, each class gets an equal share of it. Photos are unpacked one by one. `language` is
    that of `names_in_zip`.
    Raises FewShotError if the file is no zip, is encrypted, has no photo in a class folder, or is too large.
    """
    with _opened_zip(file) as archive:
        # Not by ZipInfo.is_dir(), which raises for an empty name.
        names = names_in_zip(archive.infolist(), language)
        entries = zip(archive.infolist(), names.paths, strict=True)
        named = [_member(entry, path) for entry, path in entries if not path.endswith("/")]
        members = [_by_content(archive, entry) if isinstance(entry, _Member) else entry for entry in named]
        wanted = sorted((entry for entry in members if isinstance(entry, _Member)), key=lambda member: member.path)
        unwanted = [entry for entry in members if isinstance(entry, SkippedFile)]
        _check_members(wanted, unwanted, counts)
        yield names
        yield from unwanted
        room = _room(wanted, counts)
        earlier: dict[bytes, str] = {}  # paths by the SHA-256 of their content
        unpacked = 0
        for number, member in enumerate(wanted, 1):
            if room[member.class_name] == 0:
                yield member.skipped(f"no room for more photos of {member.class_name}")
                continue
            unpacked += min(member.entry.file_size, LARGEST_FILE_IN_ZIP)  # zipfile stops at the size claimed
            if unpacked > LARGEST_ZIP:
                raise FewShotError(
                    f"the zip unpacks to more than {LARGEST_ZIP // 1_000_000} MB: choose fewer or smaller photos"
                )
            try:
                content = _content(archive, member)
                photo = _photo(content, earlier)
            except DataError as error:
                yield member.skipped(str(error))
            else:
                earlier[hashlib.sha256(content).digest()] = member.path
                room[member.class_name] -= 1
                yield ZipPhoto(member.class_name, member.name, photo, number / len(wanted))


class BoundedReads:
    """A file that refuses reads of more than `largest` bytes, which zipfile and tarfile try for huge lists of files."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, largest: int, refusal: Callable[[], Exception]) -> None:
        self.file = file
        self.largest = largest
        self.refusal = refusal
        self.tell = file.tell
        self.seekable = file.seekable
        self.latest = b""  # what was read last

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """As that of the file."""
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """As that of the file. Raises the refusal."""
        if size > self.largest:
            raise self.refusal()
        self.latest = self.file.read(size)
        return self.latest


def _too_many_files() -> FewShotError:
    return FewShotError(f"the zip lists more than {MOST_FILES_IN_ZIP} files: zip the class folders alone")


@contextlib.contextmanager
def _opened_zip(file: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            archive = stack.enter_context(zipfile.ZipFile(BoundedReads(stream, LARGEST_READ, _too_many_files)))
        except FewShotError:
            raise
        except ZIP_ERRORS as error:
            reason = getattr(error, "strerror", None) or str(error)  # the path is the server's, not the visitor's
            raise FewShotError(
                f"no zip that can be read ({one_line(reason)}): expected a zip of class folders, make it again"
            ) from error
        if len(archive.infolist()) > MOST_FILES_IN_ZIP:
            raise _too_many_files()
        yield archive


@dataclass(frozen=True)
class _Member:
    """A file in a zip that may be a photo."""

    entry: zipfile.ZipInfo
    path: str
    class_name: str
    name: str  # of the file

    def skipped(self, reason: str) -> SkippedFile:
        return SkippedFile(one_line(self.path), reason)


def _member(entry: zipfile.ZipInfo, path: str) -> _Member | SkippedFile:
    """Judges a file of a zip by its name and compression alone; nothing is ever written under that name."""
    *folders, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    classes = [folder for folder in folders if split_named(folder) is None]
    reason = None
    if is_hidden_file(name) or any(map(is_hidden_folder, folders)):  # .. too
        reason = "hidden"
    elif not classes:
        reason = "in no class folder"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "packed by an unusual method"  # whose memory can't be bounded
    if reason is not None:
        return SkippedFile(one_line(path), one_line(reason))
    return _Member(entry, path, class_name_of(classes[-1]), name)


def _by_content(archive: zipfile.ZipFile, member: _Member) -> _Member | SkippedFile:
    """Judges a file that is not named as a photo by its first bytes, as those of folders are."""
    if is_named_as_photo(member.name) or _is_encrypted(member.entry):
        return member
    try:
        with archive.open(member.entry) as packed:
            reason = why_no_photo(member.name, packed.read(ENOUGH))
    except ZIP_ERRORS as error:
        reason = f"damaged in the zip ({one_line(str(error))})"
    return member.skipped(one_line(reason)) if reason else member


def _is_encrypted(entry: zipfile.ZipInfo) -> bool:
    return bool(entry.flag_bits & 0x1)


def _check_members(members: Sequence[_Member], unwanted: Sequence[SkippedFile], counts: Mapping[str, int]) -> None:
    if not members:
        example = f" ({unwanted[0].file}: {unwanted[0].reason})" if unwanted else ""
        raise FewShotError(
            f"the zip has no photo in a class folder{example}: expected paths such as ants/1.jpg, a folder for each"
            " class"
        )
    names = {*counts, *(member.class_name for member in members)}
    if len(names) > MOST_CLASSES:
        raise FewShotError(
            f"with the zip's class folders there would be {len(names)} classes, at most {MOST_CLASSES} are taken:"
            " leave some out"
        )
    if any(_is_encrypted(member.entry) for member in members):
        raise FewShotError("the zip is encrypted: zip the class folders without a password")


def _room(members: Sequence[_Member], counts: Mapping[str, int]) -> dict[str, int]:
    """How many photos of each class of the zip are taken at most, by class name."""
    names = {member.class_name for member in members}
    share = (MOST_PHOTOS - sum(counts.values())) // len(names)
    return {name: min(share, MOST_PHOTOS_OF_CLASS - counts.get(name, 0)) for name in names}


def _content(archive: zipfile.ZipFile, member: _Member) -> bytes:
    """The unpacked file. Raises DataError if it is damaged or too large, whatever size the zip claims."""
    content = bytearray()
    try:
        with archive.open(member.entry) as packed:
            while len(content) <= LARGEST_FILE_IN_ZIP and (part := packed.read(UNPACKED_AT_ONCE)):
                content += part
    except ZIP_ERRORS as error:
        raise DataError(f"damaged in the zip ({one_line(str(error))})") from error
    if len(content) > LARGEST_FILE_IN_ZIP:
        raise DataError(f"larger than {LARGEST_FILE_IN_ZIP // 1_000_000} MB")
    return bytes(content)


def _photo(content: bytes, earlier: Mapping[bytes, str]) -> Image.Image:
    """The photo in a file. Raises DataError if it can't be read, or if the file is the same as an earlier one."""
    if (same := earlier.get(hashlib.sha256(content).digest())) is not None:
        raise DataError(f"the same file as {one_line(same)}")
    return open_photo(BytesIO(content))
