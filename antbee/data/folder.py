"""Reads a data folder, laid out as for `torchvision.datasets.ImageFolder`, into its training, val and test splits.

The sorted names of the class folders are the classes 0, 1, 2, ..., as in ImageFolder. Unlike there, every photo is
decoded once while the folder is read, and a file that can't be used is listed with the reason.
"""

import hashlib
import io
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from antbee.data.digest import digest_of
from antbee.data.duplicates import in_two_classes, shared_bytes
from antbee.data.files import ENOUGH, FileError, content_of
from antbee.data.images import LARGEST_FILE, DataError, open_photo
from antbee.data.layout import LAYOUT, SPLITS, Labelled, Layout, SplitName
from antbee.data.listing import SkippedFile, is_named_as_photo, why_no_photo
from antbee.data.seeds import seeded_generator
from antbee.data.table import is_table, layout_at

MOST_DAMAGED = 0.1  # of the photos of a class, see `refuse_damaged`
MOST_CLASSES = 1000

OnPhoto = Callable[[Labelled, Image.Image], None]


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
        """The same images, with labels that index `class_names`, of which some may have no images.

        Raises DataError if the split has other classes.
        """
        if not set(self.class_names) <= set(class_names):
            raise DataError(
                f"the photos have the classes {', '.join(self.class_names)}, the model {', '.join(class_names)}: "
                "name a folder of the model's classes, or rename the class folders as the model's classes were renamed"
            )
        index = {name: position for position, name in enumerate(class_names)}
        labels = tuple(index[self.class_names[label]] for label in self.labels)
        return replace(self, labels=labels, class_names=tuple(class_names))

    def names(self, root: Path) -> list[str]:
        """The file of each image, relative to the data folder, with slashes."""
        return [path.relative_to(root).as_posix() for path in self.paths]


@dataclass(frozen=True)
class ImageDataset:
    """A data folder: its classes, its splits, and the files that are not used.

    The test split is measured once, when training has ended; most data sets have none, and then it is empty.
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    val: Split
    skipped: tuple[SkippedFile, ...]
    split: str  # how the validation images were chosen
    digest: str  # SHA-256 of all files of the class folders, see `digest.folder_digest`
    excluded: tuple[str, ...] = ()  # images that are not trained on, see `without`
    damage: str | None = None  # which class has too many damaged photos, in a sentence, see `refuse_damaged`
    leaked: int = 0  # validation images that are byte-identical to a training image
    test: Split = Split((), ())
    test_leaked: int = 0  # test images that are byte-identical to a training or validation image
    contradictory: tuple[tuple[Path, Path], ...] = ()  # byte-identical training images of different classes

    def __repr__(self) -> str:
        """The folder, the classes and the number of photos."""
        names = ", ".join(self.class_names[:5]) + ", ..." * (len(self.class_names) > 5)
        test = f", {len(self.test)} test" if len(self.test) else ""
        return f"<ImageDataset {self.root}: {names}; {len(self.train)} train, {len(self.val)} val{test}>"

    def without(self, excluded: Sequence[str]) -> "ImageDataset":
        """The data set without some training images, named as by `Split.names`.

        The validation split stays as it is, so that accuracy can be compared with other results; `cleaned` lists the
        validation images that are not excluded. Raises DataError for an unknown name and for a class without images.
        """
        unwanted = set(excluded)
        names = {split: split.names(self.root) for split in (self.train, self.val, self.test)}
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
    def splits(self) -> dict[SplitName | None, Split]:
        """The splits by their names, without those that have no images."""
        named: dict[SplitName | None, Split] = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in named.items() if len(split)}

    @property
    def all(self) -> Split:
        """The training images, then the validation images, then the test images."""
        return joined([self.train, self.val, self.test])

    def in_order_of(self, class_names: Sequence[str]) -> "ImageDataset":
        """The same, with labels that index `class_names`. Raises DataError if the data set has other classes."""
        train, val, test = (split.in_order_of(class_names) for split in (self.train, self.val, self.test))
        return replace(self, class_names=tuple(class_names), train=train, val=val, test=test)

    @property
    def cleaned(self) -> list[int]:
        """Positions of the validation images that are not excluded."""
        excluded = set(self.excluded)
        return [position for position, name in enumerate(self.val.names(self.root)) if name not in excluded]


def read_folder(
    root: Path,
    *,
    seed: int = 0,
    val_share: float = 0.2,
    follow_links: bool = False,
    on_photo: OnPhoto | None = None,
    layout: Layout | None = None,
) -> ImageDataset:
    """Reads a data folder or a table for training; every photo is decoded once, to find those that can't be used.

    Without a val split, the fraction `val_share` of each class, drawn by `seed`, is it. Links out of the folder are
    followed where they lead into the Hub's cache and, with `follow_links`, anywhere. `on_photo` is called with the RGB
    image of every photo that can be used, from several threads. `layout` says which files have which classes where
    their folders don't. Raises DataError, naming the folder, where the layout or the classes of the splits don't fit.
    """
    layout = layout or layout_at(require_folder(root), follow_links=follow_links)
    class_names = _shared_classes(layout)
    files = _check_files(layout, on_photo)
    splits = {split: _usable(files, class_names, split) for split in (None, *SPLITS)}
    _require_photos(layout, files, class_names)
    train, val, test = splits["train"] if "train" in layout.splits else splits[None], splits["val"], splits["test"]
    if "val" in layout.splits:
        how = f"{layout.names.get('val', 'val')}/ folder" if layout.folders else "the table's val split"
    else:
        train, val = stratified_split(train, class_names, seed, val_share)
        how = f"{val_share:.0%} of each class, drawn with seed {seed}"
    digests = _digests(files)
    return ImageDataset(
        name=layout.root.resolve().name,
        root=layout.root,
        class_names=class_names,
        train=train,
        val=val,
        test=test,
        skipped=(*layout.skipped, *_skipped(layout, files)),
        split=how,
        digest=_digest_of_files(layout, files),
        damage=_damage(layout, files),
        leaked=shared_bytes(digests, train.paths, val.paths),
        test_leaked=shared_bytes(digests, train.paths + val.paths, test.paths),
        contradictory=in_two_classes(digests, train.paths, train.labels),
    )


def require_folder(root: Path) -> Path:
    """The folder, or the table of photos. Raises DataError where it is not there."""
    if not root.is_dir() and not (is_table(root) and root.is_file()):
        if not root.exists():
            raise DataError(f"{root} is not there: {LAYOUT}")
        hint = "unpack it first; " if root.suffix.lower() == ".zip" or zipfile.is_zipfile(root) else ""
        raise DataError(f"{root} is not a folder: {hint}{LAYOUT}")
    return root


def read_folder_of(
    root: Path, class_names: Sequence[str], *, seed: int = 0, follow_links: bool = False
) -> ImageDataset:
    """`read_folder`, with labels that index a model's `class_names`. Raises DataError if the folder has others too."""
    dataset = read_folder(root, seed=seed, follow_links=follow_links)
    with _naming(root):
        return dataset.in_order_of(class_names)


@dataclass(frozen=True)
class FolderSplits:
    """The splits of a folder, as it has them; where it has none, all photos are that of the key None."""

    splits: Mapping[SplitName | None, Split]  # none of them is empty
    digest: str  # as that of `ImageDataset`
    root: Path


def read_splits(root: Path, class_names: Sequence[str], *, follow_links: bool = False) -> FolderSplits:
    """The splits of a folder that a model of these classes is evaluated on: any splits, with any of the classes.

    Raises DataError for other classes and where there is no photo.
    """
    layout = layout_at(require_folder(root), follow_links=follow_links)
    files = _check_files(layout, None)
    with _naming(root):
        found = {
            split: _usable(files, tuple(layout.class_names(split)), split).in_order_of(class_names)
            for split in layout.splits
        }
    splits = {name: split for name, split in found.items() if len(split)}
    if not splits:
        raise DataError(f"{root} has no photo that can be used: expected DIR/CLASS/*.jpg or DIR/SPLIT/CLASS/*.jpg")
    return FolderSplits(splits, _digest_of_files(layout, files), layout.root)


@contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Names the folder in an error about its classes."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{root}: {error}") from error


def joined(splits: Sequence[Split]) -> Split:
    """The images of several splits of the same classes, one after the other."""
    paths = tuple(path for split in splits for path in split.paths)
    return replace(splits[0], paths=paths, labels=tuple(label for split in splits for label in split.labels))


def refuse_damaged(dataset: ImageDataset) -> None:
    """Raises DataError if over a tenth of the photos of a class in a split, and more than one, are damaged."""
    if dataset.damage is not None:
        raise DataError(dataset.damage)


def _shared_classes(layout: Layout) -> tuple[str, ...]:
    """The classes of the training split. Raises DataError where another split has others, or val lacks one."""
    root, splits = layout.root, layout.splits
    first: SplitName | None = "train" if any(splits) else None
    if first not in splits and splits:
        there = "/, ".join(layout.names.values())
        raise DataError(f"{root} has {there}/ but no train/: {LAYOUT}")
    train = layout.class_names(first)
    where = layout.names.get("train", "")
    if len(train) < 2:
        found = f"1 class folder ({train[0]})" if train else "no class folder"
        tables = sorted(root.glob("*.csv")) if not train else []
        hint = f"; if {tables[0].name} says the classes, name it: {tables[0]}" if tables else ""
        raise DataError(f"{root / where} has {found}: {LAYOUT}{hint}")
    if len(train) > MOST_CLASSES:
        raise DataError(f"{root} has {len(train)} class folders, expected at most {MOST_CLASSES}: leave some out")
    if blank := [name for name in train if not name.strip()]:
        raise DataError(f"{root} has a class folder whose name is blank, {blank[0]!r}: rename it")
    for split in (name for name in ("val", "test") if name in splits):
        names = set(layout.class_names(split))
        if unknown := sorted(names.difference(train)):
            place = layout.place(split, unknown[0])
            raise DataError(f"{place} is a class that {root / where} doesn't have: add it there")
        if split == "val" and (missing := sorted(set(train).difference(names))):
            raise DataError(
                f"{layout.place(split, missing[0])} is not there, but {layout.place(first, missing[0])} is: both "
                "splits need it, add it"
            )
    return tuple(train)


@dataclass(frozen=True)
class _File:
    """A file of a data set, checked."""

    path: Path
    class_name: str
    split: SplitName | None = None
    digest: str | None = None  # SHA-256; None where the file can't be read
    reason: str | None = None  # why it is not used; None where it is
    is_damaged: bool = False


def _check_files(layout: Layout, on_photo: OnPhoto | None) -> list[_File]:
    check = partial(_check_file, on_photo=on_photo)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        checked = pool.map(check, layout.files)
        return list(tqdm(checked, "photos", len(layout.files), leave=False, disable=None))


def _check_file(file: Labelled, *, on_photo: OnPhoto | None) -> _File:
    """Whether a file can be used, by its content."""
    checked = partial(_File, file.path, file.class_name, file.split)
    is_named = is_named_as_photo(file.path.name)
    try:
        content = content_of(file.path, largest=LARGEST_FILE)
    except FileError as error:
        return checked(reason=str(error), is_damaged=is_named and file.path.is_file())
    digest = hashlib.sha256(content).hexdigest()
    if reason := why_no_photo(file.path.name, content[:ENOUGH], for_training=True):
        return checked(digest, reason)
    try:
        photo = open_photo(io.BytesIO(content))
    except DataError as error:
        return checked(digest, str(error), is_damaged=True)
    if on_photo is not None:
        on_photo(file, photo)
    return checked(digest)


def _usable(files: Iterable[_File], class_names: tuple[str, ...], split: SplitName | None) -> Split:
    used = [file for file in files if file.reason is None and file.split == split]
    labels = {name: label for label, name in enumerate(class_names)}
    return Split(tuple(file.path for file in used), tuple(labels[file.class_name] for file in used), class_names)


def _require_photos(layout: Layout, files: Sequence[_File], class_names: Sequence[str]) -> None:
    """Raises DataError for a class without a photo that can be used, in any split but test."""
    used = {(file.split, file.class_name) for file in files if file.reason is None}
    for split in layout.splits:
        for name in class_names:
            if split != "test" and (split, name) not in used:
                place = layout.place(split, name)
                of_class = [file for file in files if (file.split, file.class_name) == (split, name)]
                beside = [entry for entry in layout.skipped if (layout.root / entry.file).is_relative_to(place)]
                there = iter([*_skipped(layout, of_class), *beside])
                such = f" (such as {Path(first.file).name}: {first.reason})" if (first := next(there, None)) else ""
                raise DataError(f"{place} has no photo that can be used{such}: add photos, or remove the class folder")


def _damage(layout: Layout, files: Iterable[_File]) -> str | None:
    """The message of `refuse_damaged`; None where there is no such class."""
    photos = defaultdict(list)
    for file in files:
        if file.is_damaged or file.reason is None:
            photos[file.split, file.class_name].append(file)
    for (split, class_name), of_class in photos.items():
        damaged = [file for file in of_class if file.is_damaged]
        if len(damaged) > max(1, MOST_DAMAGED * len(of_class)):
            return (
                f"{layout.place(split, class_name)}: {len(damaged)} of {len(of_class)} photos can't be used, over a "
                f"tenth, such as {damaged[0].path.name} ({damaged[0].reason}): replace or remove them, or go on "
                "without them by --allow-bad"
            )
    return None


def _digests(files: Iterable[_File]) -> dict[Path, str]:
    return {file.path: file.digest for file in files if file.digest is not None}


def _digest_of_files(layout: Layout, files: Iterable[_File]) -> str:
    # Class folders are in the paths; what a table says is not.
    labels = {} if layout.folders else {file.path: f"{file.split or ''}/{file.class_name}/" for file in layout.files}
    return digest_of(
        {
            labels.get(path, "") + path.relative_to(layout.root).as_posix(): digest
            for path, digest in _digests(files).items()
        }
    )


def _skipped(layout: Layout, files: Iterable[_File]) -> list[SkippedFile]:
    return [SkippedFile(file.path.relative_to(layout.root).as_posix(), file.reason) for file in files if file.reason]


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
