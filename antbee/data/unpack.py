"""Unpacks an archive of photos from anybody into a folder beside it: within limits, all of it or nothing.

Nothing is written under a name that leads out of the folder, and nothing but plain files. A folder that is there
already is never written into.
"""

import contextlib
import gzip
import hashlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, BinaryIO, TypeVar, cast

from tqdm.auto import tqdm

from antbee.data.archive import ZIP_ERRORS, BoundedReads
from antbee.data.images import DataError
from antbee.data.layout import split_named
from antbee.data.listing import is_hidden_file, is_hidden_folder
from antbee.data.origin import Origin, read_origin, write_origin
from antbee.data.zip_names import names_in_zip
from antbee.text import one_line

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_FILES = 500_000
LARGEST_UNPACKED = 200 * 10**9  # bytes, of all files
# Photos hardly shrink when they are packed; what grows more than this was made to fill a disk.
LARGEST_GROWTH, ALWAYS_ALLOWED = 100, 10**9  # times the size of the archive; bytes
FREE_SPACE = 10**9  # bytes that stay free on the disk
# zipfile and tarfile read a list of files or a header at once, and need many times its size in memory.
LARGEST_READ, LARGEST_HEADER = 64 * 2**20, 2**20  # bytes
COPIED_AT_ONCE = 2**20  # bytes
LONGEST_NAME = 4096  # characters, of a path in a tar; Linux allows no longer ones
TAR_BLOCK = 512  # bytes; the first of zeros ends the archive
Entry = TypeVar("Entry")
ARCHIVE_ERRORS = (*ZIP_ERRORS, tarfile.TarError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    path: str  # as the archive has it, with slashes
    is_plain: bool  # no link, device or pipe
    opened: Callable[[], IO[bytes]]

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.path.split("/") if part not in ("", "."))


def archive_suffix(path: Path) -> str | None:
    """Which of ARCHIVES a file's name ends in, if in any."""
    return next((suffix for suffix in sorted(ARCHIVES, key=len) if path.name.lower().endswith(suffix)), None)


def unpacked(archive: Path) -> Path:
    """The folder of an archive's photos: photos.zip is unpacked into photos/ beside it, once.

    Where the archive holds a single folder and nothing else, it is that folder in photos/. Raises DataError where the
    archive can't be read, holds anything but plain files below it, is larger than the limits of this module, or where
    photos/ is there already and was not unpacked from this very file.
    """
    suffix = archive_suffix(archive)
    if suffix is None or archive.name == suffix:
        raise DataError(f"{archive} is no archive that is unpacked here: expected {', '.join(ARCHIVES)}")
    folder = archive.with_name(archive.name[: -len(suffix)])
    try:
        digest = _digest_of(archive)
        if folder.exists() or folder.is_symlink():
            _require_unpacked_from(folder, archive, digest)
        else:
            _unpack(archive, folder, digest)
    except DataError:
        raise
    except ARCHIVE_ERRORS as error:
        reason = one_line(getattr(error, "strerror", None) or str(error)) or type(error).__name__
        raise DataError(
            f"{archive} can't be unpacked ({reason}): check that it is complete and that its folder may be written to"
        ) from error
    return _photo_root(folder)


def _digest_of(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_unpacked_from(folder: Path, archive: Path, digest: str) -> None:
    origin = read_origin(folder)
    if origin is None or origin.archive is None:
        raise DataError(
            f"{archive} would be unpacked into {folder}, which is there already: name that folder, or rename the file"
        )
    if origin.archive != digest:
        raise DataError(
            f"{archive} can't be unpacked: {folder} was unpacked from another {archive.name}; remove or rename it"
        )


def _photo_root(folder: Path) -> Path:
    found = [entry for entry in folder.iterdir() if not is_hidden_file(entry.name) and not is_hidden_folder(entry.name)]
    is_split = found and split_named(found[0].name) is not None
    return found[0] if len(found) == 1 and found[0].is_dir() and not is_split else folder


def _unpack(archive: Path, folder: Path, digest: str) -> None:
    """Writes the files of an archive into a temporary folder, which gets its name once all are there."""
    growth = max(ALWAYS_ALLOWED, LARGEST_GROWTH * archive.stat().st_size)
    room = min(LARGEST_UNPACKED, growth, shutil.disk_usage(archive.parent).free - FREE_SPACE)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=archive.parent) as temporary:
        content = Path(temporary) / folder.name
        content.mkdir()
        with _members(archive) as members:
            for member in tqdm(members, f"unpacking {archive.name}", leave=False, disable=None):
                _require_inside(member, archive)
                if not _is_hidden(member):
                    room -= _write(member, content, room, archive)
        write_origin(content, Origin(archive=digest))
        content.rename(folder)


def _require_inside(member: _Member, archive: Path) -> None:
    """Raises DataError for what may not be unpacked by anybody: a name that leads elsewhere, a link, a device."""
    path = one_line(member.path)
    if not member.is_plain:
        raise DataError(f"{archive} holds a link or a device, {path}: expected plain files, make it again without it")
    name = PureWindowsPath(member.path)  # whose slashes are those of all systems
    if name.anchor or ".." in name.parts or not member.parts:
        raise DataError(f"{archive} holds a file whose name leads out of it, {path}: don't use it")


def _is_hidden(member: _Member) -> bool:
    *folders, name = member.parts
    return is_hidden_file(name) or any(map(is_hidden_folder, folders))


def _write(member: _Member, folder: Path, room: int, archive: Path) -> int:
    """Writes a file below `folder`; returns its size. Raises DataError where it has more than `room` bytes."""
    target = folder.joinpath(*member.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with member.opened() as packed, target.open("xb") as file:
        while part := packed.read(COPIED_AT_ONCE):
            size += len(part)
            if size > room:
                raise DataError(
                    f"{archive} unpacks to more than the disk, {LARGEST_UNPACKED // 10**9} GB or {LARGEST_GROWTH} times"
                    " its own size allow: unpack it yourself if you trust it"
                )
            file.write(part)
    return size


# ---- zip and tar -----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """The files in an archive, by what its name says it is."""
    suffix = archive_suffix(archive)
    with contextlib.ExitStack() as stack:
        file: BinaryIO | gzip.GzipFile = stack.enter_context(archive.open("rb"))
        if suffix == ".zip":
            zipped = zipfile.ZipFile(BoundedReads(file, LARGEST_READ, _too_long_a_list))
            yield _zip_members(stack.enter_context(zipped), archive)
            return
        if suffix != ".tar":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        reads = BoundedReads(file, LARGEST_HEADER, _too_long_a_list)
        yield _tar_members(stack.enter_context(tarfile.open(fileobj=cast(IO[bytes], reads), mode="r:")), reads, archive)


def _too_long_a_list() -> OSError:
    return OSError("its list of files, or a header, is too long")


def _few(entries: Iterable[Entry], archive: Path) -> Iterator[Entry]:
    """The entries; tarfile keeps all of them in memory, folders too. Raises DataError for more than MOST_FILES."""
    for number, entry in enumerate(entries):
        if number >= MOST_FILES:
            raise DataError(f"{archive} lists more than {MOST_FILES:,} files and folders: unpack it yourself")
        yield entry


def _zip_members(zipped: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    entries = zipped.infolist()
    for entry, path in _few(zip(entries, names_in_zip(entries).paths, strict=True), archive):
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where no Unix made it
        if path.endswith("/"):
            continue
        if entry.flag_bits & 0x1:
            raise DataError(f"{archive} is encrypted: make it again without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{archive} is packed by an unusual method: make it again as an ordinary zip")
        yield _Member(path, kind in (0, stat.S_IFREG), partial(zipped.open, entry))


def _tar_members(tarred: tarfile.TarFile, reads: BoundedReads, archive: Path) -> Iterator[_Member]:
    for entry in _few(tarred, archive):
        if len(entry.name) > LONGEST_NAME:
            raise tarfile.ReadError(f"a name of over {LONGEST_NAME:,} characters")
        entry.pax_headers = {}  # else a copy of those of all files, for each entry that tarfile keeps
        if not entry.isdir():
            yield _Member(entry.name, entry.isreg() and not entry.issparse(), partial(_tar_content, tarred, entry))
    if reads.latest != bytes(TAR_BLOCK):  # tarfile takes the end of the file for the end of the archive
        raise tarfile.ReadError("it breaks off")


def _tar_content(tarred: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tarred.extractfile(entry)
    assert content is not None, "a plain file has content"
    return content
