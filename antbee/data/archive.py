"""Photos out of a zip of class folders, which may come from anybody."""

import contextlib
import hashlib
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_SET, BytesIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import BinaryIO

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from antbee.data.folder import HIDDEN, SkippedFile
from antbee.data.images import DataError, open_photo
from antbee.errors import InputError
from antbee.text import one_line

FEWEST_CLASSES, MOST_CLASSES = 2, 10
MOST_PHOTOS_OF_CLASS, MOST_PHOTOS = 60, 400
LONGEST_CLASS_NAME = 40  # characters

# A zip of a few kilobytes may hold, or claim to hold, gigabytes.
MOST_FILES_IN_ZIP = 5_000
LARGEST_FILE_IN_ZIP = 20_000_000  # bytes, unpacked
LARGEST_ZIP = 1_000_000_000  # bytes, all that is unpacked of it
LARGEST_READ = 4_000_000  # bytes; a zip's list of files is read at once, and takes 20 times the memory
UNPACKED_AT_ONCE = 1_000_000  # bytes
# What zipfile meets in a file that is none, or is damaged, or has an unknown method, a password or an impossible name.
NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


class FewShotError(InputError):
    """Nothing can be taught with this; the message says what came, what was expected, and what to do."""


def class_name_of(text: str) -> str:
    """The name of a class as it was meant: one line, without spaces around it, letters with their accents in one.

    Raises FewShotError where it is no name, or none that a folder of photos could have.
    """
    # Of the same word in two spellings, as macOS and others write it, there would be two classes that look the same.
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not 1 <= len(name) <= LONGEST_CLASS_NAME:
        raise FewShotError(
            f"the class name '{one_line(name, longest=60)}' has {len(name)} characters: expected 1 to"
            f" {LONGEST_CLASS_NAME}, give another"
        )
    if not name.isprintable():
        raise FewShotError(f"the class name {one_line(name)} has characters that can't be seen: type it again")
    if name.startswith(HIDDEN) or "/" in name or "\\" in name:
        raise FewShotError(
            f"the class name {name} can't be that of a folder of photos: expected one that does not start with"
            f" {' or '.join(HIDDEN)} and has no slash, give another"
        )
    return name


@dataclass(frozen=True)
class ZipPhoto:
    """A photo from a zip of class folders."""

    class_name: str
    name: str  # of its file
    photo: Image.Image  # RGB
    share: float  # of the zip that is read with it, 0..1


def photos_in_zip(
    file: Path | BinaryIO, counts: Mapping[str, int] = MappingProxyType({})
) -> Iterator[ZipPhoto | SkippedFile]:
    """The photos in a zip of class folders, in the order of their paths, and the files that can't be used.

    The folder that a photo lies in names its class: ants/1.jpg, photos/ants/1.jpg, and train/ants/1.jpg joins
    val/ants/1.jpg. Where there is no room for all of them beside the `counts` of each class,
    every class gets the same share of it. Nothing is written to disk, and photos are unpacked one by one.
    Raises FewShotError where it is no zip, is encrypted, holds no photo in a class folder, or far too much.
    """
    with _opened_zip(file) as archive:
        # Not by ZipInfo.is_dir(), which fails where a name is empty.
        members = [_member(entry) for entry in archive.infolist() if not entry.filename.endswith("/")]
        wanted = sorted((one for one in members if isinstance(one, _Member)), key=lambda one: one.path)
        unwanted = [one for one in members if isinstance(one, SkippedFile)]
        _check_members(wanted, unwanted, counts)
        yield from unwanted
        room = _room(wanted, counts)
        earlier: dict[bytes, str] = {}  # paths by the SHA-256 of their content
        unpacked = 0
        for number, member in enumerate(wanted, 1):
            if room[member.class_name] == 0:
                yield member.skipped(f"no room for more photos of {member.class_name}")
                continue
            unpacked += min(member.entry.file_size, LARGEST_FILE_IN_ZIP)  # zipfile unpacks no more than a file claims
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


class _BoundedReads:
    """A file of which nobody reads more than LARGEST_READ at once, as zipfile does with a zip's list of files."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.tell = file.tell
        self.seekable = file.seekable

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_READ:
            raise _too_many_files()
        return self.file.read(size)


def _too_many_files() -> FewShotError:
    return FewShotError(f"the zip lists more than {MOST_FILES_IN_ZIP} files: zip the class folders alone")


@contextlib.contextmanager
def _opened_zip(file: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            archive = stack.enter_context(zipfile.ZipFile(_BoundedReads(stream)))
        except FewShotError:
            raise
        except NO_ZIP as error:
            reason = getattr(error, "strerror", None) or str(error)  # without the path, which is nobody's business
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


def _member(entry: zipfile.ZipInfo) -> _Member | SkippedFile:
    """What a file of a zip is by its name alone; nothing is ever written under that name."""
    path = _path_of(entry)
    *folders, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    suffix = PurePosixPath(name).suffix
    reason = None
    if name.startswith(".") or any(part.startswith(HIDDEN) for part in folders):  # and so is .., which leads upwards
        reason = "hidden"
    elif not folders:
        reason = "in no class folder"
    elif suffix.lower() not in IMG_EXTENSIONS:
        reason = f"{suffix or 'no'} file extension, not one of {' '.join(IMG_EXTENSIONS)}"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "packed by an unusual method"  # and by one whose unpacking can't be bounded
    if reason is not None:
        return SkippedFile(one_line(path), one_line(reason))
    return _Member(entry, path, class_name_of(folders[-1]), name)


def _path_of(entry: zipfile.ZipInfo) -> str:
    """The path in the zip, with slashes; zipfile takes the UTF-8 that macOS writes unsaid for code page 437."""
    path = entry.filename
    if not entry.flag_bits & 0x800:  # it is not said to be UTF-8
        with contextlib.suppress(UnicodeError):
            path = path.encode("cp437").decode("utf-8")
    return path.replace("\\", "/")


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
    if any(member.entry.flag_bits & 0x1 for member in members):
        raise FewShotError("the zip is encrypted: zip the class folders without a password")


def _room(members: Sequence[_Member], counts: Mapping[str, int]) -> dict[str, int]:
    """How many more photos of each of the zip's classes are taken: the same of all, where it is not for all."""
    names = {member.class_name for member in members}
    share = (MOST_PHOTOS - sum(counts.values())) // len(names)
    return {name: min(share, MOST_PHOTOS_OF_CLASS - counts.get(name, 0)) for name in names}


def _content(archive: zipfile.ZipFile, member: _Member) -> bytes:
    """The file, unpacked. Raises DataError where it is damaged or too large, whatever the zip says of its size."""
    content = bytearray()
    try:
        with archive.open(member.entry) as packed:
            while len(content) <= LARGEST_FILE_IN_ZIP and (part := packed.read(UNPACKED_AT_ONCE)):
                content += part
    except NO_ZIP as error:
        raise DataError(f"damaged in the zip ({one_line(str(error))})") from error
    if len(content) > LARGEST_FILE_IN_ZIP:
        raise DataError(f"larger than {LARGEST_FILE_IN_ZIP // 1_000_000} MB")
    return bytes(content)


def _photo(content: bytes, earlier: Mapping[bytes, str]) -> Image.Image:
    """The photo in a file. Raises DataError where it is none, or the same as an earlier one."""
    if (same := earlier.get(hashlib.sha256(content).digest())) is not None:
        raise DataError(f"the same file as {one_line(same)}")
    return open_photo(BytesIO(content))
