"""A data folder: which photos there are, of which class, in which split.

A data folder is what `torchvision.datasets.ImageFolder` reads, twice: `train/` and `val/`, each with one folder a
class. Everything here is decided once for the whole run: one class list, one list of the files that could not be used.
"""

import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from antbee.data.files import ENOUGH, FileError, content_of, kind_of
from antbee.data.images import LARGEST_FILE, DataError, open_photo
from antbee.data.seeds import seeded_generator

MOST_DAMAGED = 0.1  # of the photos of a class, the share that may be damaged before somebody has to look
HIDDEN = (".", "__")  # how the names of folders begin that tools leave behind: .ipynb_checkpoints, __MACOSX
MOST_CLASSES = 1000
LAYOUT = "expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, with two classes or more"


@dataclass(frozen=True)
class Split:
    """The photos of one split and the class index of each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, class_names: Sequence[str]) -> dict[str, int]:
        """Photos of each class, by name."""
        return {name: self.labels.count(index) for index, name in enumerate(class_names)}

    def subset(self, positions: Iterable[int]) -> "Split":
        """Some of them, by position."""
        chosen = list(positions)
        return replace(self, paths=tuple(self.paths[i] for i in chosen), labels=tuple(self.labels[i] for i in chosen))

    def in_order_of(self, class_names: Sequence[str]) -> "Split":
        """The same with labels that count these class names. Raises DataError where the split has others."""
        if set(self.class_names) != set(class_names):
            raise DataError(
                f"the photos have the classes {', '.join(self.class_names)}, the model {', '.join(class_names)}: "
                "name a folder of the model's classes"
            )
        labels = tuple(class_names.index(self.class_names[label]) for label in self.labels)
        return replace(self, labels=labels, class_names=tuple(class_names))

    def names(self, root: Path) -> list[str]:
        """The files as a list of files names them: relative to the data folder, with slashes."""
        return [path.relative_to(root).as_posix() for path in self.paths]


@dataclass(frozen=True)
class SkippedFile:
    """A file that lies in a class folder and is not used."""

    file: str  # relative to the data folder
    reason: str


@dataclass(frozen=True)
class ImageDataset:
    """A data folder, read once: the class list of the whole run and the photos of both splits."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    val: Split
    skipped: tuple[SkippedFile, ...]
    split: str  # how the validation photos were chosen
    digest: str  # SHA-256 over every file of the class folders, see `folder_digest`
    excluded: tuple[str, ...] = ()  # photos that are not learned from, see `without`
    damaged: tuple[str, ...] = ()  # of those skipped, the photos that can't be decoded or read
    leaked: int = 0  # validation photos that are, byte for byte, also among those to learn from

    def without(self, excluded: Sequence[str]) -> "ImageDataset":
        """The same without some photos to learn from, named as `Split.names` does.

        The validation photos stay: how many are right of all of them is what others report. `cleaned` says which of
        them are left. Raises DataError for a name that is no photo's, and where a class has no photo left.
        """
        unwanted = set(excluded)
        names = {split: split.names(self.root) for split in (self.train, self.val)}
        skipped = {entry.file for entry in self.skipped}
        if unknown := sorted(unwanted.difference(skipped, *names.values())):
            raise DataError(
                f"no photo {unknown[0]} in {self.root}: expected files below it, such as {names[self.train][0]}"
            )
        kept = [position for position, name in enumerate(names[self.train]) if name not in unwanted]
        train = self.train.subset(kept)
        if empty := [name for name, count in train.counts(self.class_names).items() if count == 0]:
            raise DataError(f"every photo of {empty[0]} to learn from is excluded: leave some")
        return replace(self, train=train, excluded=tuple(sorted(unwanted)))

    @property
    def both(self) -> Split:
        """The photos of both splits, those to learn from first."""
        return replace(
            self.train,
            paths=(*self.train.paths, *self.val.paths),
            labels=(*self.train.labels, *self.val.labels),
        )

    @property
    def cleaned(self) -> list[int]:
        """Positions of the validation photos that are not excluded."""
        excluded = set(self.excluded)
        return [position for position, name in enumerate(self.val.names(self.root)) if name not in excluded]


def read_folder(
    root: Path, *, seed: int = 0, val_share: float = 0.2, seen: Callable[[Path, Image.Image], None] | None = None
) -> ImageDataset:
    """Reads a data folder: every photo is decoded once, every file that can't be used is listed with its reason.

    Without a `val/`, `val_share` of each class becomes the validation split, drawn by `seed`. `seen` is called with
    every photo that opens, from several threads: who needs it again need not decode it again.
    Raises DataError, naming the folder, where the layout or the class lists don't fit.
    """
    root = Path(root)
    if not root.is_dir():
        hint = "unpack it first; " if root.suffix.lower() == ".zip" or zipfile.is_zipfile(root) else ""
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'not there'}: {hint}{LAYOUT}")
    train_root, val_root = root / "train", root / "val"
    if val_root.is_dir() and not train_root.is_dir():
        raise DataError(f"{root} has val/ but no train/: {LAYOUT}")
    roots = [train_root if train_root.is_dir() else root] + ([val_root] if val_root.is_dir() else [])
    folders = {split_root: _class_folders(split_root, root) for split_root in roots}
    class_names = _one_class_list(folders)
    reading = _Reading(root, seen)
    splits = [
        replace(_read_split(split_root, found, reading), class_names=class_names)
        for split_root, found in folders.items()
    ]
    if len(splits) == 1:
        splits = list(divide(splits[0], class_names, seed, val_share))
        how = f"{val_share:.0%} of each class, drawn with seed {seed}"
    else:
        how = "val/ folder"
    return ImageDataset(
        name=root.resolve().name,
        root=root,
        class_names=class_names,
        train=splits[0],
        val=splits[1],
        skipped=tuple(reading.skipped),
        split=how,
        digest=_digest_of({path.relative_to(root).as_posix(): digest for path, digest in reading.digests.items()}),
        damaged=tuple(reading.damaged),
        leaked=_leaked(splits[0], splits[1], reading.digests),
    )


def _leaked(train: Split, val: Split, digests: Mapping[Path, str]) -> int:
    """How many validation photos are, byte for byte, also among those to learn from."""
    learned = {digests[path] for path in train.paths}
    return sum(digests[path] in learned for path in val.paths)


def read_folder_of(root: Path, class_names: Sequence[str], *, seed: int = 0) -> ImageDataset:
    """The same for a model's classes: labelled in their order, which is that of the head's outputs.

    Raises DataError also where the folder has other classes.
    """
    photos = read_folder(root, seed=seed)
    if set(photos.class_names) != set(class_names):
        raise DataError(
            f"{photos.root} has the classes {', '.join(photos.class_names)}, the model {', '.join(class_names)}: "
            "name a folder of the model's classes with --data"
        )
    train, val = (split.in_order_of(class_names) for split in (photos.train, photos.val))
    return replace(photos, class_names=tuple(class_names), train=train, val=val)


def refuse_damaged(photos: ImageDataset) -> None:
    """Raises DataError where over a tenth of a class's photos, and more than one, is damaged.

    Whoever learns from the rest all the same learns from less than was meant, and perhaps something else.
    """
    used = Counter(path.parent for path in photos.both.paths)
    damaged = Counter((photos.root / file).parent for file in photos.damaged)
    for folder, count in damaged.items():
        if count > max(1, MOST_DAMAGED * (used[folder] + count)):
            first = next(file for file in photos.damaged if (photos.root / file).parent == folder)
            reason = next(skipped.reason for skipped in photos.skipped if skipped.file == first)
            raise DataError(
                f"{folder}: {count} of {used[folder] + count} photos can't be used, over a tenth, such as "
                f"{Path(first).name} ({reason}): replace or remove them, or go on without them by --allow-bad"
            )


def _class_folders(split_root: Path, root: Path) -> dict[str, Path]:
    """The class folders of a split by name. Raises DataError for one that can't be read, or that leads in a circle.

    A class folder may be a link to a folder elsewhere, which somebody made on purpose: its photos are read there.
    """
    found = {}
    with _scanned(split_root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_dir() or entry.name.startswith(HIDDEN):
                continue
            folder = Path(entry.path)
            target, home = folder.resolve(), root.resolve()
            if entry.is_symlink() and (home.is_relative_to(target) or target.is_relative_to(home)):
                raise DataError(
                    f"{folder} is a link into the data folder itself, so photos would count twice: remove it"
                )
            with _scanned(folder):
                found[entry.name] = folder
    return found


@contextmanager
def _scanned(folder: Path) -> Iterator[Iterator["os.DirEntry[str]"]]:
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise DataError(f"{folder} can't be read ({error.strerror}): run chmod u+rx on it") from error


def _one_class_list(folders: Mapping[Path, Mapping[str, Path]]) -> tuple[str, ...]:
    """The class names, from the training split, which comes first; every other split must have just the same."""
    (train_root, train), *others = folders.items()
    if len(train) < 2:
        raise DataError(f"{train_root} has {len(train)} class folder(s): {LAYOUT}")
    if len(train) > MOST_CLASSES:
        raise DataError(f"{train_root} has {len(train)} class folders, expected at most {MOST_CLASSES}: leave some out")
    if blank := [name for name in train if not name.strip()]:
        raise DataError(f"{train_root} has a class folder whose name is blank, {blank[0]!r}: rename it")
    for split_root, found in others:
        if missing := sorted(train.keys() - found.keys()):
            raise DataError(
                f"{split_root / missing[0]} is not there, but {train_root / missing[0]} is: both splits need it, add it"
            )
        if unknown := sorted(found.keys() - train.keys()):
            raise DataError(f"{split_root / unknown[0]} is a class that {train_root} doesn't have: add it there")
    return tuple(train)


@dataclass
class _Reading:
    """What was found out about the files of a data folder so far."""

    root: Path
    seen: Callable[[Path, Image.Image], None] | None
    digests: dict[Path, str] = field(default_factory=dict)
    skipped: list[SkippedFile] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def skip(self, path: Path, reason: str) -> None:
        self.skipped.append(SkippedFile(path.relative_to(self.root).as_posix(), reason))


def _read_split(split_root: Path, class_folders: Mapping[str, Path], reading: _Reading) -> Split:
    """The photos of one split that really open; adds to `reading` what else was found."""
    usable: list[tuple[Path, int]] = []
    for path in _strays(split_root):
        reading.skip(path, _hidden(path.relative_to(split_root)) or "not in a class folder: move it into one")
    labels = {path: index for index, folder in enumerate(class_folders.values()) for path in _entries(folder, reading)}
    paths = sorted(labels)
    homes = [reading.root.resolve(), *(folder.resolve() for folder in class_folders.values())]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        check = partial(_check_file, split_root=split_root, homes=homes, seen=reading.seen)
        checked = tqdm(pool.map(check, paths), split_root.name, len(paths), leave=False, disable=None)
        for path, (digest, reason, is_damaged) in zip(paths, checked, strict=True):
            if digest is not None and not path.name.startswith("."):  # a .DS_Store makes no other data set
                reading.digests[path] = digest
            if reason is None:
                usable.append((path, labels[path]))
                continue
            reading.skip(path, reason)
            if is_damaged:
                reading.damaged.append(path.relative_to(reading.root).as_posix())
    for index, folder in enumerate(class_folders.values()):
        if index not in {label for _, label in usable}:
            raise DataError(_without_photos(folder, reading))
    return Split(paths=tuple(path for path, _ in usable), labels=tuple(label for _, label in usable))


def _without_photos(folder: Path, reading: _Reading) -> str:
    """Why a class is of no use."""
    inside = f"{folder.relative_to(reading.root).as_posix()}/"
    skipped = [skipped for skipped in reading.skipped if skipped.file.startswith(inside)]
    such = f" ({Path(skipped[0].file).name}: {skipped[0].reason})" if skipped else ""
    return f"{folder} has no photo that can be used{such}: add photos, or remove the class folder"


def _entries(folder: Path, reading: _Reading) -> list[Path]:
    """All that lies in a class folder, at whatever depth, but for folders; links to folders may lead in a circle."""
    found = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        reading.skip(folder, f"can't be read ({error.strerror}): run chmod u+rx on it")
        return []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            found += _entries(Path(entry.path), reading)
        else:
            found.append(Path(entry.path))
    return found


def _strays(split_root: Path) -> list[Path]:
    """Pictures that lie beside the class folders, or in hidden ones, where somebody may miss them."""
    hidden = [path for path in split_root.iterdir() if path.name.startswith(HIDDEN) and path.is_dir()]
    beside = [
        *split_root.iterdir(),
        *(path for folder in hidden if not folder.is_symlink() for path in folder.iterdir()),
    ]
    return sorted(path for path in beside if _is_named_as_photo(path) and path.is_file())


def _is_named_as_photo(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in IMG_EXTENSIONS


def _check_file(
    path: Path, *, split_root: Path, homes: Sequence[Path], seen: Callable[[Path, Image.Image], None] | None
) -> tuple[str | None, str | None, bool]:
    """The SHA-256 of a file that can be read, why it can't be used, or None where it can, and whether it is damaged."""
    if (place := _resolved(path)) is None or not any(place.is_relative_to(home) for home in homes):
        return None, "a link that leads out of the data folder, to nothing or in a circle: copy the file itself", False
    if place.is_dir():
        return None, "a link to a folder, which may lead in a circle: copy the folder itself", False
    try:
        content = content_of(path, largest=LARGEST_FILE)
    except FileError as error:
        return None, str(error), _is_named_as_photo(path) and place.is_file()
    digest = hashlib.sha256(content).hexdigest()
    if reason := _kept_out(path.relative_to(split_root), content[:ENOUGH]):
        return digest, reason, False
    try:
        photo = open_photo(io.BytesIO(content))
    except DataError as error:
        return digest, str(error), True
    if seen is not None:
        seen(path, photo)
    return digest, None, False


def _resolved(path: Path) -> Path | None:
    """Where a file lies really; None where its links lead to nothing or in a circle."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a circle, before Python 3.13
        return None


def _hidden(path: Path) -> str | None:
    """Why the litter of desktops and tools is kept out; `path` is below the split's folder."""
    if any(part.startswith(HIDDEN) for part in path.parent.parts):
        return "in a hidden folder: move it out to use it"
    return "a hidden file: rename it to use it" if path.name.startswith(".") else None


def _kept_out(path: Path, start: bytes) -> str | None:
    """Why the name of a file, below the split's folder, keeps it out, as it does for ImageFolder; None: it doesn't."""
    if (hidden := _hidden(path)) or _is_named_as_photo(path):
        return hidden
    what = kind_of(start) or "of a kind unknown here"
    extensions = " ".join(IMG_EXTENSIONS)
    remedy = "rename it" if what in ("JPEG", "PNG", "WebP") else "export it as JPEG to use it"
    return f"{path.suffix or 'no'} file extension, not one of {extensions}, and {what} inside: {remedy}"


def divide(split: Split, class_names: Sequence[str], seed: int, share: float) -> tuple[Split, Split]:
    """What is left, and `share` of each class drawn by `seed`; both in the order of `split`.

    Raises DataError where a class has a single photo.
    """
    chosen: set[int] = set()
    for index, name in enumerate(class_names):
        members = [position for position, label in enumerate(split.labels) if label == index]
        if len(members) < 2:
            raise DataError(f"class {name} has a single photo: two are needed, one to learn from and one to check with")
        order = torch.randperm(len(members), generator=seeded_generator(seed, "split", name)).tolist()
        # At least one photo on each side.
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen.update(members[position] for position in order[:count])
    return split.subset(i for i in range(len(split)) if i not in chosen), split.subset(sorted(chosen))


def read_exclusions(path: Path) -> list[str]:
    """The files that a list names, one a line and relative to the data folder; see `exclusion_line`.

    Lines that start with # are comments. Raises DataError where it can't be read.
    """
    try:
        lines = path.read_text("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}): expected a list of files, one a line") from error
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    try:
        return [json.loads(line) if line.startswith('"') else line for line in named]
    except ValueError as error:
        raise DataError(f"{path} has a line in quotes that is no JSON text ({error}): write the plain name") from error


def exclusion_line(name: str) -> str:
    """A file's name as a list names it: as it is, or as JSON text where it would be read as something else."""
    plain = name == name.strip() and name.splitlines() == [name] and not name.startswith(("#", '"'))
    return name if plain else json.dumps(name)


def folder_digest(root: Path) -> str:
    """SHA-256 over the sorted lines "SHA-256 of a file, two spaces, its path below `root`"."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return _digest_of(
        {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


def _digest_of(digests: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
