"""Reads a data folder in the layout of `torchvision.datasets.ImageFolder` into a training and a validation split.

    DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg

The sorted names of the class folders are the classes 0, 1, 2, ..., as in ImageFolder. Unlike there, every photo is
decoded once while the folder is read, and a file that can't be used is listed with the reason.
"""

import hashlib
import io
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from antbee.data.files import ENOUGH, FileError, content_of, kind_of
from antbee.data.images import EMPTY, LARGEST_FILE, DataError, open_photo
from antbee.data.listing import SkippedFile, is_hidden_folder, is_named_as_photo
from antbee.data.seeds import seeded_generator

MOST_DAMAGED = 0.1  # of the photos of a class, see `refuse_damaged`
MOST_CLASSES = 1000
LAYOUT = "expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, with two classes or more"

OnPhoto = Callable[[Path, Image.Image], None]


@dataclass(frozen=True)
class Split:
    """The image files of a split and their class indices, as `ImageFolder.samples` has them."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]  # a class index for each path
    class_names: tuple[str, ...] = ()  # by class index

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, class_names: Sequence[str]) -> dict[str, int]:
        """Number of images of each class, by class name."""
        return {name: self.labels.count(index) for index, name in enumerate(class_names)}

    def subset(self, positions: Iterable[int]) -> "Split":
        """The images at these positions, in this order, as `torch.utils.data.Subset` selects them."""
        chosen = list(positions)
        return replace(self, paths=tuple(self.paths[i] for i in chosen), labels=tuple(self.labels[i] for i in chosen))

    def in_order_of(self, class_names: Sequence[str]) -> "Split":
        """The same images, with labels that index `class_names`. Raises DataError if the split has other classes."""
        if set(self.class_names) != set(class_names):
            raise DataError(
                f"the photos have the classes {', '.join(self.class_names)}, the model {', '.join(class_names)}: "
                "name a folder of the model's classes"
            )
        labels = tuple(class_names.index(self.class_names[label]) for label in self.labels)
        return replace(self, labels=labels, class_names=tuple(class_names))

    def names(self, root: Path) -> list[str]:
        """The file of each image, relative to the data folder, with slashes."""
        return [path.relative_to(root).as_posix() for path in self.paths]


@dataclass(frozen=True)
class ImageDataset:
    """A data folder: its classes, its training and validation split, and the files that are not used."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    val: Split
    skipped: tuple[SkippedFile, ...]
    split: str  # how the validation images were chosen
    digest: str  # SHA-256 of all files of the class folders, see `folder_digest`
    excluded: tuple[str, ...] = ()  # images that are not trained on, see `without`
    damaged: tuple[SkippedFile, ...] = ()  # of those skipped, the photos that can't be read or decoded
    leaked: int = 0  # validation images that are byte-identical to a training image

    def __repr__(self) -> str:
        """The folder, the classes and the number of photos."""
        names = ", ".join(self.class_names[:5]) + ", ..." * (len(self.class_names) > 5)
        return f"<ImageDataset {self.root}: {names}; {len(self.train)} train, {len(self.val)} val>"

    def without(self, excluded: Sequence[str]) -> "ImageDataset":
        """The data set without some training images, named as by `Split.names`.

        The validation split stays as it is, so that accuracy can be compared with other results; `cleaned` lists the
        validation images that are not excluded. Raises DataError for an unknown name and for a class without images.
        """
        unwanted = set(excluded)
        names = {split: split.names(self.root) for split in (self.train, self.val)}
        skipped = {entry.file for entry in self.skipped}
        if unknown := sorted(unwanted.difference(skipped, *names.values())):
            raise DataError(
                f"no photo {unknown[0]} in {self.root}: expected files below it, such as {names[self.train][0]}"
            )
        train = self.train.subset(index for index, name in enumerate(names[self.train]) if name not in unwanted)
        if empty := [name for name, count in train.counts(self.class_names).items() if count == 0]:
            raise DataError(f"every training photo of {empty[0]} is excluded: keep some")
        return replace(self, train=train, excluded=tuple(sorted(unwanted)))

    @property
    def both(self) -> Split:
        """The training images, then the validation images."""
        train, val = self.train, self.val
        return replace(train, paths=train.paths + val.paths, labels=train.labels + val.labels)

    @property
    def cleaned(self) -> list[int]:
        """Positions of the validation images that are not excluded."""
        excluded = set(self.excluded)
        return [position for position, name in enumerate(self.val.names(self.root)) if name not in excluded]


def read_folder(root: Path, *, seed: int = 0, val_share: float = 0.2, on_photo: OnPhoto | None = None) -> ImageDataset:
    """Reads a data folder; every photo is decoded once, to find those that can't be used.

    Without `val/`, the fraction `val_share` of each class, drawn by `seed`, is the validation split. `on_photo` is
    called with the path and the RGB image of every photo that can be used, from several threads.
    Raises DataError, naming the folder, where the layout or the classes of the splits don't fit.
    """
    root = Path(root)
    if not root.is_dir():
        hint = "unpack it first; " if root.suffix.lower() == ".zip" or zipfile.is_zipfile(root) else ""
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'not there'}: {hint}{LAYOUT}")
    train_root, val_root = root / "train", root / "val"
    if val_root.is_dir() and not train_root.is_dir():
        raise DataError(f"{root} has val/ but no train/: {LAYOUT}")
    roots = [train_root if train_root.is_dir() else root] + ([val_root] if val_root.is_dir() else [])
    class_names = _shared_classes({split_root: _class_folders(split_root, root) for split_root in roots})
    checked = [_check_split(split_root, class_names, root, on_photo) for split_root in roots]
    splits = [_usable(files, class_names) for files in checked]
    if len(splits) == 1:
        splits = list(stratified_split(splits[0], class_names, seed, val_share))
        how = f"{val_share:.0%} of each class, drawn with seed {seed}"
    else:
        how = "val/ folder"
    files = [file for split_files in checked for file in split_files]
    digests = {file.path: file.digest for file in files if file.digest is not None}
    train_digests = {digests[path] for path in splits[0].paths}
    skipped = {file: SkippedFile(file.path.relative_to(root).as_posix(), file.reason) for file in files if file.reason}
    return ImageDataset(
        name=root.resolve().name,
        root=root,
        class_names=class_names,
        train=splits[0],
        val=splits[1],
        skipped=tuple(skipped.values()),
        split=how,
        digest=_digest_of({path.relative_to(root).as_posix(): digest for path, digest in digests.items()}),
        damaged=tuple(entry for file, entry in skipped.items() if file.is_damaged),
        leaked=sum(digests[path] in train_digests for path in splits[1].paths),
    )


def read_folder_of(root: Path, class_names: Sequence[str], *, seed: int = 0) -> ImageDataset:
    """`read_folder`, with labels that index a model's `class_names`. Raises DataError if the folder has others too."""
    dataset = read_folder(root, seed=seed)
    try:
        train, val = (split.in_order_of(class_names) for split in (dataset.train, dataset.val))
    except DataError as error:
        raise DataError(f"{root}: {error} with --data") from error
    return replace(dataset, class_names=tuple(class_names), train=train, val=val)


def refuse_damaged(dataset: ImageDataset) -> None:
    """Raises DataError if over a tenth of the photos of a class folder, and more than one, are damaged."""
    used = Counter(path.parent for path in dataset.both.paths)
    damaged = defaultdict(list)
    for entry in dataset.damaged:
        damaged[(dataset.root / entry.file).parent].append(entry)
    for folder, entries in damaged.items():
        total = used[folder] + len(entries)
        if len(entries) > max(1, MOST_DAMAGED * total):
            raise DataError(
                f"{folder}: {len(entries)} of {total} photos can't be used, over a tenth, such as "
                f"{Path(entries[0].file).name} ({entries[0].reason}): replace or remove them, or go on without them "
                "by --allow-bad"
            )


def _class_folders(split_root: Path, root: Path) -> list[str]:
    """The sorted names of a split's class folders.

    A link to a folder elsewhere counts. Raises DataError for a link into the data folder, whose photos would count
    twice, and for a folder that can't be read.
    """
    names = []
    try:
        for folder in split_root.iterdir():
            if not folder.is_dir() or is_hidden_folder(folder.name):
                continue
            target, home = folder.resolve(), root.resolve()
            if folder.is_symlink() and (home.is_relative_to(target) or target.is_relative_to(home)):
                raise DataError(
                    f"{folder} is a link into the data folder itself, so photos would count twice: remove it"
                )
            next(folder.iterdir(), None)
            names.append(folder.name)
    except OSError as error:
        raise DataError(f"{error.filename} can't be read ({error.strerror}): run chmod u+rx on it") from error
    return sorted(names)


def _shared_classes(folders: Mapping[Path, Sequence[str]]) -> tuple[str, ...]:
    """The classes of the first split, which is the training split. Raises DataError if another split has others."""
    (train_root, train), *others = folders.items()
    if len(train) < 2:
        found = f"1 class folder ({train[0]})" if train else "no class folder"
        raise DataError(f"{train_root} has {found}: {LAYOUT}")
    if len(train) > MOST_CLASSES:
        raise DataError(f"{train_root} has {len(train)} class folders, expected at most {MOST_CLASSES}: leave some out")
    if blank := [name for name in train if not name.strip()]:
        raise DataError(f"{train_root} has a class folder whose name is blank, {blank[0]!r}: rename it")
    for split_root, names in others:
        if missing := sorted(set(train).difference(names)):
            raise DataError(
                f"{split_root / missing[0]} is not there, but {train_root / missing[0]} is: both splits need it, add it"
            )
        if unknown := sorted(set(names).difference(train)):
            raise DataError(f"{split_root / unknown[0]} is a class that {train_root} doesn't have: add it there")
    return tuple(train)


@dataclass(frozen=True)
class _File:
    """A file of a split, checked."""

    path: Path
    label: int | None = None
    digest: str | None = None  # SHA-256; None where the file can't be read or is hidden
    reason: str | None = None  # why it is not used; None where it is
    is_damaged: bool = False


def _usable(files: Iterable[_File], class_names: tuple[str, ...]) -> Split:
    used = [(file.path, file.label) for file in files if file.reason is None and file.label is not None]
    return Split(tuple(path for path, _ in used), tuple(label for _, label in used), class_names)


def _check_split(split_root: Path, class_names: Sequence[str], root: Path, on_photo: OnPhoto | None) -> list[_File]:
    """All files of a split, sorted by path, after what lies outside its class folders.

    Raises DataError for a class without a usable photo.
    """
    folders = [split_root / name for name in class_names]
    labels, files = _walk(split_root, folders)
    allowed = [root.resolve(), *(folder.resolve() for folder in folders)]
    check = partial(_check_file, allowed=allowed, on_photo=on_photo)
    paths = sorted(labels)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        checked = pool.map(check, paths, [labels[path] for path in paths])
        files += tqdm(checked, split_root.name, len(paths), leave=False, disable=None)
    used = {file.label for file in files if file.reason is None}
    for label, folder in enumerate(folders):
        if label not in used:
            first = next((file for file in files if file.path.is_relative_to(folder)), None)
            such = f" (such as {first.path.name}: {first.reason})" if first else ""
            raise DataError(f"{folder} has no photo that can be used{such}: add photos, or remove the class folder")
    return files


def _walk(split_root: Path, class_folders: Sequence[Path]) -> tuple[dict[Path, int], list[_File]]:
    """The label of every file below the class folders, and what is skipped: stray photos and whole folders.

    Links to folders are given as files, since following them might never end.
    """
    labels: dict[Path, int] = {}
    unreadable: list[OSError] = []
    outside = sorted(set(split_root.iterdir()).difference(class_folders))
    hidden = [path for path in outside if path.is_dir() and not path.is_symlink()]
    for label, class_folder in enumerate(class_folders):
        for parent, folders, names in os.walk(class_folder, onerror=unreadable.append):
            links = [name for name in folders if Path(parent, name).is_symlink()]
            labels |= {Path(parent, name): label for name in (*names, *links)}
            hidden += [Path(parent, name) for name in folders if is_hidden_folder(name) and name not in links]
            folders[:] = [name for name in folders if not is_hidden_folder(name)]
    skipped = [
        _File(path, reason="not in a class folder: move it into one")
        for path in outside
        if _is_named_as_photo(path.name) and path.is_file()
    ]
    for folder in hidden:
        if count := sum(_is_named_as_photo(name) for _, _, names in os.walk(folder) for name in names):
            photos = "1 photo" if count == 1 else f"{count} photos"
            skipped.append(_File(folder, reason=f"a hidden folder with {photos}: move them out to use them"))
    for error in unreadable:
        skipped.append(_File(Path(error.filename), reason=f"can't be read ({error.strerror}): run chmod u+rx on it"))
    return labels, skipped


def _is_named_as_photo(name: str) -> bool:
    return not name.startswith(".") and is_named_as_photo(name)


def _check_file(path: Path, label: int, *, allowed: Sequence[Path], on_photo: OnPhoto | None) -> _File:
    """Whether a file can be used; links have to stay in the `allowed` folders."""
    if reason := _refused_link(path, allowed):
        return _File(path, label, reason=reason)
    if path.name.startswith("."):
        return _File(path, label, reason="a hidden file: rename it to use it")
    has_extension = _is_named_as_photo(path.name)
    try:
        content = content_of(path, largest=LARGEST_FILE)
    except FileError as error:
        return _File(path, label, reason=str(error), is_damaged=has_extension and path.is_file())
    digest = hashlib.sha256(content).hexdigest()
    if not has_extension:  # ImageFolder would not read it either
        return _File(path, label, digest, _wrong_extension(path, content[:ENOUGH]))
    try:
        photo = open_photo(io.BytesIO(content))
    except DataError as error:
        return _File(path, label, digest, str(error), is_damaged=True)
    if on_photo is not None:
        on_photo(path, photo)
    return _File(path, label, digest)


def _refused_link(path: Path, allowed: Sequence[Path]) -> str | None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        target = None
    if target is None or not any(target.is_relative_to(folder) for folder in allowed):
        return "a link that leads out of the data folder, to nothing or in a circle: copy the file itself"
    return "a link to a folder, which may lead in a circle: copy the folder itself" if target.is_dir() else None


def _wrong_extension(path: Path, start: bytes) -> str:
    if not start:
        return EMPTY
    kind = kind_of(start) or "of a kind unknown here"
    remedy = "rename it" if kind in ("JPEG", "PNG", "WebP") else "export it as JPEG to use it"
    extensions = " ".join(IMG_EXTENSIONS)
    return f"{path.suffix or 'no'} file extension, not one of {extensions}, and {kind} inside: {remedy}"


def stratified_split(split: Split, class_names: Sequence[str], seed: int, share: float) -> tuple[Split, Split]:
    """A stratified split: the rest, and the fraction `share` of each class, drawn by `seed`; both in order.

    Each side gets at least one image of each class. Raises DataError for a class with a single image.
    """
    chosen: set[int] = set()
    for index, name in enumerate(class_names):
        members = [position for position, label in enumerate(split.labels) if label == index]
        if len(members) < 2:
            raise DataError(f"class {name} has a single photo: two are needed, one for training, one for validation")
        order = torch.randperm(len(members), generator=seeded_generator(seed, "split", name)).tolist()
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen.update(members[position] for position in order[:count])
    return split.subset(i for i in range(len(split)) if i not in chosen), split.subset(sorted(chosen))


def folder_digest(root: Path) -> str:
    """SHA-256 of the sorted lines "SHA-256 of a file, two spaces, its path below `root`", in hexadecimal."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return _digest_of(
        {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


def _digest_of(digests: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
