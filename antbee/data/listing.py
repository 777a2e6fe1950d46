"""Which files below a folder may be photos, and which are left out and why: the same for every command, page and zip.

By names alone: hidden files and folders and those of operating systems and tools are left out, and so is what antbee
wrote itself. Links are followed where they stay in the folder or lead into the Hub's cache, elsewhere if asked to.
By content: a file whose name says so is a photo, which the decoder may refuse; any other if it begins as one does.
"""

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from torchvision.datasets.folder import IMG_EXTENSIONS

from antbee.data.files import ENOUGH, FileError, content_of, kind_of, opened
from antbee.data.images import EMPTY, LARGEST_FILE, PHOTO_KINDS

# Folders and files of operating systems and tools: thumbnails, copies of photos, settings. In lower case.
SYSTEM_FOLDERS = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r")
# What antbee writes into an output folder: models, earlier models, the run in progress, the epochs for trackers.
OWN_CONFIG, VERSIONS, RUN, RUN_MARKER = "config.json", "versions", ".training", "antbee.txt"
OWN_NAMES = ("tensorboard", "epochs.jsonl")
LARGEST_CONFIG = 2**26  # bytes
MOST_KINDS, NAMED = 8, 3  # of left-out files that `summary` gives, and files named of each

LINK_OUT = "a link that leads out of the folder: copy the file itself, or follow it by --follow-links"
LINK_TO_NOTHING = "a link to nothing or in a circle: remove it, or copy the file itself"
LINK_TO_FOLDER = "a link to a folder: copy the folder itself, or follow it by --follow-links"
READ_BEFORE = "a link to a folder that is read already: its photos would count twice"


@dataclass(frozen=True)
class SkippedFile:
    """A file or a folder that is not used."""

    file: str  # relative to the folder that was read
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its details and advice, by which many files are counted."""
        return self.reason.partition(":")[0].partition(" (")[0]


@dataclass(frozen=True)
class Listing:
    """The files below a folder that are used, in the order of their paths, and those that are not."""

    files: tuple[Path, ...]
    skipped: tuple[SkippedFile, ...]


def list_files(folder: Path, *, root: Path | None = None, follow_links: bool = False) -> Listing:
    """All files below a folder that are not left out by their names, by their place or as links.

    Each is a regular file or a link to one when it is listed; `opened` refuses what it becomes later. The folder may be
    one in a data folder `root`, to which links may lead and the names of what is left out are relative.
    """
    places = {*places_for_links(root or folder), folder.resolve()}
    return _Walk(root or folder, tuple(places), follow_links).listing(folder)


def list_photos(folder: Path, *, follow_links: bool = False) -> Listing:
    """The files below a folder that may be photos, by their first bytes or their names; the others with the reason."""
    found = list_files(folder, follow_links=follow_links)
    reasons = {path: _why_no_photo_on_disk(path) for path in found.files}
    skipped = [SkippedFile(path.relative_to(folder).as_posix(), reason) for path, reason in reasons.items() if reason]
    return Listing(tuple(path for path in found.files if not reasons[path]), (*found.skipped, *skipped))


def why_no_photo(name: str, start: bytes, *, for_training: bool = False) -> str | None:
    """Why a file is not taken for a photo, by its name and its first ENOUGH bytes; None where it may be one.

    A name with a photo's extension is believed, so that the decoder says what is wrong with a damaged photo.
    `for_training`, a GIF is not one: the format is for drawings and placeholders. ImageFolder leaves them out too, so
    that a data set keeps the number of photos that others publish for it.
    """
    if is_named_as_photo(name):
        return None
    if not start:
        return EMPTY
    kind = kind_of(start)
    if kind == "GIF" and for_training:
        return "a GIF, which is not trained on (a format for drawings): export it as PNG to use it"
    if kind in PHOTO_KINDS and kind != "TIFF":
        return None
    return _named_by_content(name, kind)


def _named_by_content(name: str, kind: str | None) -> str:
    if kind in ("HEIC", "AVIF"):
        return f"{kind}, a format that is not read: export it as JPEG to use it"
    suffix = PurePath(name).suffix.lower()
    what = f"a {suffix} file, not a photo" if suffix else "a file without an extension, not a photo"
    if kind == "TIFF":  # what a decoder finds first in a raw file is a thumbnail
        return f"{what} (TIFF, as cameras' raw files are): export it as JPEG to use it"
    return f"{what} ({kind or 'of a kind unknown here'})"


def _why_no_photo_on_disk(path: Path) -> str | None:
    if is_named_as_photo(path.name):
        return None
    try:
        with opened(path, largest=LARGEST_FILE) as file:
            return why_no_photo(path.name, file.read(ENOUGH))
    except FileError as error:
        return str(error)
    except OSError as error:
        return f"can't be read ({error.strerror}): copy it again"


def is_named_as_photo(name: str) -> bool:
    """Whether a name has the extension of a photo, as ImageFolder knows them."""
    return PurePath(name).suffix.lower() in IMG_EXTENSIONS


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name is neither a class nor searched for photos."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_hidden_file(name: str) -> bool:
    """Whether a file of this name is one of an operating system or a tool, or hidden by somebody."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def class_name_of_folder(name: str) -> str:
    """The class that a folder of this name is: in Unicode normalisation form C, whichever form the disk has."""
    return unicodedata.normalize("NFC", name)


def is_model_folder(folder: Path) -> bool:
    """Whether antbee wrote this folder as a model, by its config.json."""
    try:
        content = json.loads(content_of(folder / OWN_CONFIG, largest=LARGEST_CONFIG))
    except (FileError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("antbee"), dict)


def is_own_folder(folder: Path) -> bool:
    """Whether antbee wrote this folder: a model, or an output folder of its, in which there is nothing else."""
    if (folder / OWN_CONFIG).exists():
        return is_model_folder(folder)
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return False
    others = [folder / name for name in names - {VERSIONS, RUN, *OWN_NAMES} if not is_hidden_file(name)]
    earlier = [path.parent for path in folder.glob(f"{VERSIONS}/*/*/{OWN_CONFIG}")]
    models = others + earlier
    return ((folder / RUN / RUN_MARKER).is_file() or bool(models)) and all(map(is_model_folder, models))


def summary(skipped: Iterable[SkippedFile]) -> list[str]:
    """What is left out in a line for each kind, the most frequent first: a file with its reason, or a few of many."""
    kinds: dict[str, list[SkippedFile]] = defaultdict(list)
    for entry in skipped:
        kinds[entry.kind].append(entry)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    lines = [_line(entries) for entries in ordered[:MOST_KINDS]]
    if others := ordered[MOST_KINDS:]:
        lines.append(f"{sum(map(len, others)):,} more, of {len(others)} other kinds")
    return lines


def _line(entries: Sequence[SkippedFile]) -> str:
    first = entries[0]
    if len(entries) == 1:
        return f"{first.file}: {first.reason}"
    named = ", ".join(entry.file for entry in entries[:NAMED])
    advice = {entry.reason.partition(": ")[2] for entry in entries}
    what_to_do = f" ({advice.pop()})" if len(advice) == 1 and "" not in advice else ""
    return f"{len(entries):,} times {first.kind}{what_to_do}{', such as' if len(entries) > NAMED else ':'} {named}"


def some_of_each(skipped: Sequence[SkippedFile], most: int) -> list[SkippedFile]:
    """At most this many of the left-out files, in their order: a few of each kind before many of one."""
    seen: Counter[str] = Counter()
    ranks = []
    for entry in skipped:
        ranks.append(seen[entry.kind])
        seen[entry.kind] += 1
    chosen = sorted(sorted(range(len(skipped)), key=ranks.__getitem__)[:most])
    return [skipped[position] for position in chosen]


def places_for_links(folder: Path) -> tuple[Path, ...]:
    """Where links in a folder may lead: the folder itself and, in a download of the Hub's, the files of its cache.

    As `hf download` leaves it, CACHE/datasets--USER--NAME/snapshots/REVISION links to files in blobs/ beside
    snapshots/, and those may be links to files in CACHE/blobs/, which downloads share.
    """
    home = folder.resolve()
    for snapshots in (path for path in (home, *home.parents) if path.name == "snapshots"):
        download = snapshots.parent
        if "--" in download.name and (download / "blobs").is_dir():
            return (home, download / "blobs", download.parent / "blobs")
    return (home,)


@dataclass
class _Walk:
    """One walk through a folder. No folder is read twice, so that neither loops nor links to links multiply files."""

    root: Path  # what names are relative to
    places: tuple[Path, ...]  # where links may lead
    follow_links: bool  # anywhere
    files: list[Path] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)  # device and inode of folders

    def listing(self, folder: Path) -> Listing:
        pending = [folder]
        while pending:
            pending += self._enter(pending.pop())
        return Listing(tuple(sorted(self.files)), tuple(sorted(self.skipped, key=lambda entry: entry.file)))

    def _enter(self, folder: Path) -> Iterator[Path]:
        """Lists the files in a folder; yields the folders in it that are to be entered."""
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self.seen:
                self._skip(folder, READ_BEFORE)
                return
            self.seen.add((found.st_dev, found.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._skip(folder, f"can't be read ({error.strerror}): run chmod u+rx on it")
            return
        for entry in entries:
            path = Path(entry.path)
            if reason := self._refused_link(entry):
                self._skip(path, reason)
            elif entry.is_dir():
                if reason := why_left_out(path):
                    self._skip(path, reason)
                elif not is_hidden_folder(path.name):
                    yield path
            elif is_hidden_file(path.name):
                self._skip(path, "a hidden file: rename it to use it")
            elif not entry.is_file():
                self._skip(path, "a pipe, a device or a socket, not a file: remove it")
            else:
                self.files.append(path)

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append(SkippedFile(path.relative_to(self.root).as_posix(), reason))

    def _refused_link(self, entry: "os.DirEntry[str]") -> str | None:
        if not entry.is_symlink():
            return None
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            return LINK_TO_NOTHING
        if target.is_dir():
            return None if self.follow_links else LINK_TO_FOLDER
        if self.follow_links or any(target.is_relative_to(place) for place in self.places):
            return None
        return LINK_OUT


def why_left_out(folder: Path) -> str | None:
    """Why a folder is left out that is worth a word: a hidden one with photos, or one that antbee wrote."""
    if is_hidden_folder(folder.name):
        names = (name for _, _, names in os.walk(folder) for name in names)
        count = sum(is_named_as_photo(name) and not is_hidden_file(name) for name in names)
        photos = "1 photo" if count == 1 else f"{count} photos"
        return f"a hidden folder with {photos}: move them out to use them" if count else None
    return "a folder that antbee wrote, with models: name it to use them" if is_own_folder(folder) else None
