"""Where a data folder has its photos: which of its folders are splits, which are classes, and which are neither.

    DIR/train/CLASS/*, DIR/val/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/train/* and so on, or DIR/CLASS/*

Splits are known by their usual names in any case, classes by their names in Unicode normalisation form C.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from antbee.data.images import DataError
from antbee.data.listing import (
    SkippedFile,
    class_name_of_folder,
    is_hidden_file,
    is_hidden_folder,
    is_named_as_photo,
    list_files,
    why_left_out,
)

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
SPELLINGS: Mapping[str, SplitName] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
        **dict.fromkeys(("test", "testing", "eval"), "test"),
    }
)
LAYOUT = "expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, with two classes or more"


@dataclass(frozen=True)
class Labelled:
    """A file that may be a photo, or a folder of them, with its class and, where there are splits, its split."""

    path: Path
    class_name: str
    split: SplitName | None = None


@dataclass(frozen=True)
class Layout:
    """The files of a data set with their classes and splits, and what is left out."""

    root: Path
    files: tuple[Labelled, ...]  # sorted by path
    skipped: tuple[SkippedFile, ...] = ()
    folders: tuple[Labelled, ...] = ()  # none where a table labels the files
    names: Mapping[SplitName, str] = field(default_factory=dict)  # the splits as they are named there

    @property
    def splits(self) -> list[SplitName | None]:
        """The splits that there are, in the order of SPLITS; None alone where there is no division into splits."""
        found = {entry.split for entry in (*self.folders, *self.files)}
        return [split for split in (None, *SPLITS) if split in found]

    def class_names(self, split: SplitName | None) -> list[str]:
        """The sorted classes of a split, also those without a file."""
        return sorted({entry.class_name for entry in (*self.folders, *self.files) if entry.split == split})

    def place(self, split: SplitName | None, class_name: str) -> str:
        """What to call a class of a split in a message: its folder where it has one."""
        for folder in self.folders:
            if (folder.split, folder.class_name) == (split, class_name):
                return str(folder.path)
        return f"{self.root / self.names.get(split, split) / class_name}" if split else str(self.root / class_name)


def split_named(name: str) -> SplitName | None:
    """The split that a folder of this name is, or None."""
    return SPELLINGS.get(name.lower())


def layout_of(root: Path, *, follow_links: bool = False) -> Layout:
    """The layout of a data folder. No photo is opened.

    Raises DataError, naming the folder, for one that can't be read, for a link to a folder that is read already, and
    where it is not clear which folders are splits.
    """
    beside = _visible_folders(root, root)
    splits = _splits_among(beside)
    if splits:
        folders = [
            Labelled(folder, class_name_of_folder(folder.name), split)
            for split, split_root in splits.items()
            for folder in _visible_folders(split_root, root)
        ]
        skipped = _beside_splits(root, splits.values(), root)
        for split_root in splits.values():
            skipped += _beside_classes(split_root, [folder.path for folder in folders], root)
        names = {split: folder.name for split, folder in splits.items()}
    elif folders := _class_first(root, beside):
        skipped = _beside_classes(root, beside, root)
        for class_folder in beside:
            own = [folder.path for folder in folders if folder.path.parent == class_folder]
            skipped += _beside_splits(class_folder, own, root)
        names = {folder.split: folder.path.name for folder in folders if folder.split}
    else:
        folders = [Labelled(folder, class_name_of_folder(folder.name)) for folder in beside]
        skipped = _beside_classes(root, beside, root)
        names = {}
    files = []
    for folder in folders:
        found = list_files(folder.path, root=root, follow_links=follow_links)
        files += [Labelled(path, folder.class_name, folder.split) for path in found.files]
        skipped += found.skipped
    return Layout(root, tuple(sorted(files, key=lambda file: file.path)), tuple(skipped), tuple(folders), names)


def _visible_folders(parent: Path, root: Path) -> list[Path]:
    """The sorted folders in a folder that may be classes or splits; not those that antbee wrote.

    A link to a folder elsewhere counts. Raises DataError for a link into the data folder, whose photos would count
    twice, and for a folder that can't be read.
    """
    found = []
    try:
        for folder in sorted(parent.iterdir()):
            if not folder.is_dir() or is_hidden_folder(folder.name):
                continue
            target, home = folder.resolve(), root.resolve()
            if folder.is_symlink() and (home.is_relative_to(target) or target.is_relative_to(home)):
                raise DataError(
                    f"{folder} is a link into the data folder itself, so photos would count twice: remove it"
                )
            next(folder.iterdir(), None)
            if not why_left_out(folder):
                found.append(folder)
    except OSError as error:
        raise DataError(f"{error.filename} can't be read ({error.strerror}): run chmod u+rx on it") from error
    return found


def _splits_among(folders: Iterable[Path]) -> dict[SplitName, Path]:
    """The split folders among the folders of a data set. Raises DataError for two of one split, and for a mixture."""
    by_split: dict[SplitName, list[Path]] = defaultdict(list)
    classes = []
    for folder in folders:
        if split := split_named(folder.name):
            by_split[split].append(folder)
        else:
            classes.append(folder)
    for split, found in by_split.items():
        if len(found) > 1:
            names = " and ".join(f"{folder.name}/" for folder in found)
            raise DataError(f"{found[0].parent} has {names}, which both name its {split} split: put them together")
    if by_split and "train" not in by_split and classes:
        split_folder = next(iter(by_split.values()))[0]
        raise DataError(
            f"{split_folder} is named as a split, but lies beside {classes[0].name}/ and there is no train/: move the "
            f"class folders into {split_folder.parent / 'train'}, or rename {split_folder.name}"
        )
    return {split: by_split[split][0] for split in SPLITS if split in by_split}


def _class_first(root: Path, class_folders: Iterable[Path]) -> list[Labelled]:
    """The folders of the layout CLASS/SPLIT; none where no class folder holds split folders.

    Raises DataError where only some classes have a train split.
    """
    found: dict[Path, dict[SplitName, Path]] = {}
    for folder in class_folders:
        inner = [path for path in _visible_folders(folder, root) if split_named(path.name)]
        found[folder] = _splits_among(inner)
    if not any(found.values()):
        return []
    for folder, splits in found.items():
        if "train" not in splits:
            other = next(path for inner in found.values() for path in inner.values())
            raise DataError(
                f"{other} is named as a split, but {folder / 'train'} is not there: add it, or rename {other.name}"
            )
    return [
        Labelled(path, class_name_of_folder(folder.name), split)
        for folder, splits in found.items()
        for split, path in splits.items()
    ]


def _beside_splits(parent: Path, used: Collection[Path], root: Path) -> list[SkippedFile]:
    """What lies beside the split folders of a data set or of a class: other folders, and what `_beside_classes` is."""
    skipped = _beside_classes(parent, used, root)
    names = "/, ".join(folder.name for folder in used)
    for folder in _visible_folders(parent, root):
        if folder not in used:
            reason = f"a folder beside {names}/, which is not used: move what it holds into one of them"
            skipped.append(SkippedFile(folder.relative_to(root).as_posix(), reason))
    return skipped


def _beside_classes(parent: Path, used: Iterable[Path], root: Path) -> list[SkippedFile]:
    """What lies beside the folders that are used: files, hidden folders with photos, and what antbee wrote."""
    skipped = []
    for path in sorted(set(parent.iterdir()).difference(used)):
        if path.is_dir():
            reason = None if path.is_symlink() and is_hidden_folder(path.name) else why_left_out(path)
        elif is_hidden_file(path.name) or not path.is_file():
            reason = None
        elif is_named_as_photo(path.name):
            reason = "not in a class folder: move it into one"
        else:
            reason = "a file beside the class folders (no photo by its name)"
        if reason:
            skipped.append(SkippedFile(path.relative_to(root).as_posix(), reason))
    return skipped
