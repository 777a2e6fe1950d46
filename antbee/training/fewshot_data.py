"""A few-shot data set: classes, and the features of a handful of photos of each class.

Only a photo's features, thumbnail and file name are kept. A data set is immutable: its methods return a new one, so
that visitors of the page never share one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from antbee.data.archive import (
    FEWEST_CLASSES,
    LONGEST_CLASS_NAME,
    MOST_CLASSES,
    MOST_PHOTOS,
    MOST_PHOTOS_OF_CLASS,
    FewShotError,
    ZipPhoto,
    class_name_of,
    photos_in_zip,
)
from antbee.data.listing import SkippedFile
from antbee.data.zip_names import ZipNames
from antbee.models.classifier import Classifier
from antbee.text import one_line
from antbee.training.features import Features, evaluation_batch

LONGEST_FILE_NAME = 100
THUMBNAIL_SIDE = 128  # pixels of the longer side

Progress = Callable[[float, str], None]  # fraction done, 0..1, and the name of the next step


def no_progress(fraction: float, step: str) -> None:
    """A `Progress` that does nothing."""


@dataclass(frozen=True, eq=False)  # images and tensors can't be compared by ==
class Example:
    """A photo of a few-shot data set: its features, not its pixels."""

    name: str  # a file name, never a path; unique in its class
    thumbnail: Image.Image  # RGB
    features: Tensor  # float32 (C,)
    crop_digest: str  # SHA-256 of the crop's pixels
    backbone_digest: str  # of the backbone that computed the features


@dataclass(frozen=True)
class FewShotClass:
    """A class and its examples."""

    name: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class FewShotDataset:
    """Classes in the order of the head's outputs, with their examples."""

    classes: tuple[FewShotClass, ...] = ()

    def __len__(self) -> int:
        return sum(len(one.examples) for one in self.classes)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(one.name for one in self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of photos of each class, by its name."""
        return {one.name: len(one.examples) for one in self.classes}

    @property
    def thumbnails(self) -> dict[str, Image.Image]:
        """Thumbnails, class after class, by the names of nearest neighbours: class/file."""
        return {f"{one.name}/{example.name}": example.thumbnail for one in self.classes for example in one.examples}

    def room(self, class_name: str) -> int:
        """How many more photos a class takes."""
        return min(MOST_PHOTOS_OF_CLASS - len(self._class(class_name).examples), MOST_PHOTOS - len(self))

    def with_class(self, name: str) -> "FewShotDataset":
        """The data set with an additional, empty class. Raises FewShotError for an invalid name."""
        if len(self.classes) == MOST_CLASSES:
            raise FewShotError(f"there are {MOST_CLASSES} classes, which is the limit: remove one first")
        return FewShotDataset((*self.classes, FewShotClass(self._new_name(name))))

    def renamed(self, name: str, new_name: str) -> "FewShotDataset":
        """The data set with a class renamed. Raises FewShotError for an invalid name."""
        known = self._class(name)
        others = self.without_class(name)
        return self._replacing(known, replace(known, name=others._new_name(new_name)))

    def without_class(self, name: str) -> "FewShotDataset":
        """The data set without this class and its photos."""
        known = self._class(name)
        return FewShotDataset(tuple(one for one in self.classes if one is not known))

    def with_examples(self, class_name: str, examples: Iterable[Example]) -> "FewShotDataset":
        """The data set with more examples of a class; file names are numbered where needed to be unique in the class.

        An image that the class has already is ignored. Raises FewShotError where another class has it, where there are
        too many, or where another backbone computed the features.
        """
        known, examples = self._class(class_name), list(examples)
        _check_backbones(self._backbones() | {example.backbone_digest for example in examples})
        owners = {example.crop_digest: one.name for one in self.classes for example in one.examples}
        added: list[Example] = []
        for example in examples:
            owner = owners.setdefault(example.crop_digest, known.name)
            if owner != known.name:
                raise FewShotError(
                    f"{example.name} is the same picture as one of {owner}, and a photo belongs to one class only:"
                    f" leave it out, or remove it from {owner} first"
                )
            if example.crop_digest not in {one.crop_digest for one in (*known.examples, *added)}:
                taken = {one.name for one in (*known.examples, *added)}
                added.append(replace(example, name=_free_name(example.name, taken)))
        if len(added) > (room := self.room(class_name)):
            raise FewShotError(
                f"{known.name} has {len(known.examples)} of {len(self)} photos, and {len(added)} are to be added: at"
                f" most {MOST_PHOTOS_OF_CLASS} of a class and {MOST_PHOTOS} in all are possible, choose {room}"
            )
        return self._replacing(known, replace(known, examples=(*known.examples, *added)))

    def without_example(self, class_name: str, example_name: str) -> "FewShotDataset":
        """The data set without one photo of a class."""
        known = self._class(class_name)
        left = tuple(example for example in known.examples if example.name != example_name)
        if len(left) == len(known.examples):
            raise FewShotError(f"{class_name} has no photo {one_line(example_name)}: it was removed already")
        return self._replacing(known, replace(known, examples=left))

    def check(self) -> None:
        """Raises FewShotError where something is missing that training needs; the message says what."""
        if len(self.classes) < FEWEST_CLASSES:
            raise FewShotError(
                f"there are {len(self.classes)} classes, expected at least {FEWEST_CLASSES}: add another, with photos"
            )
        for one in self.classes:
            if not one.examples:
                raise FewShotError(f"{one.name} has no photos: add some, or remove the class")

    def check_backbone(self, classifier: Classifier) -> None:
        """Raises FewShotError where another backbone than the classifier's computed the features."""
        _check_backbones(self._backbones() | {classifier.backbone_digest})

    def features(self, device: torch.device) -> Features:
        """The features of all examples, class after class, and their labels, on `device`."""
        rows = [example.features for one in self.classes for example in one.examples]
        labels = [label for label, one in enumerate(self.classes) for _ in one.examples]
        return Features(torch.stack(rows).to(device), torch.tensor(labels))

    def _class(self, name: str) -> FewShotClass:
        known = next((one for one in self.classes if one.name == name), None)
        if known is None:
            there = ", ".join(self.label_names) or "none"
            raise FewShotError(f"there is no class {one_line(name, LONGEST_CLASS_NAME)}, the classes are: {there}")
        return known

    def _replacing(self, known: FewShotClass, new: FewShotClass) -> "FewShotDataset":
        return FewShotDataset(tuple(new if one is known else one for one in self.classes))

    def _new_name(self, text: str) -> str:
        name = class_name_of(text)
        if name in self.label_names:
            raise FewShotError(f"there is a class {name} already: give another name")
        return name

    def _backbones(self) -> set[str]:
        return {example.backbone_digest for one in self.classes for example in one.examples}


def _check_backbones(digests: Set[str]) -> None:
    if len(digests) > 1:
        raise FewShotError("the photos were embedded by another model: choose that model again, or start again")


def _file_name(text: str) -> str:
    """The file name of a path, in printable characters."""
    name = text.replace("\\", "/").rpartition("/")[2]
    visible = "".join(letter if letter.isprintable() else "_" for letter in name)
    return visible[-LONGEST_FILE_NAME:].strip(" .") or "photo"  # the end of a long name has the extension


def _free_name(name: str, taken: Set[str]) -> str:
    """The name, with the first free number appended if it is taken: photo (2).jpg."""
    path = PurePosixPath(name)
    numbered = (f"{path.stem} ({number}){path.suffix}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def embed(classifier: Classifier, photos: Iterable[tuple[str, Image.Image]]) -> Iterator[Example]:
    """Computes the features of named RGB photos; yields an example of each, in order.

    `photos` may be a generator: a photo is released once it is cropped. Names may be paths; only the file name is kept.
    """
    prepared = ((_file_name(name), _thumbnail(photo), classifier.crop(photo)) for name, photo in photos)
    while batch := list(islice(prepared, evaluation_batch(classifier.device))):
        features = classifier.features_of_crops([crop for _, _, crop in batch])
        for (name, thumbnail, crop), row in zip(batch, features, strict=True):
            digest = hashlib.sha256(crop.tobytes()).hexdigest()
            # A copy: a view of one row would keep the whole batch in memory.
            yield Example(name, thumbnail, row.clone(), digest, classifier.backbone_digest)


def _thumbnail(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


@dataclass(frozen=True)
class UnpackedZip:
    """What came of adding the photos of a zip to a data set."""

    dataset: FewShotDataset
    skipped: tuple[SkippedFile, ...]
    names: ZipNames


def dataset_with_zip(
    classifier: Classifier,
    dataset: FewShotDataset,
    file: Path | BinaryIO,
    progress: Progress = no_progress,
    language: str = "",
) -> UnpackedZip:
    """The data set with the photos of a zip added, and the skipped files; see `photos_in_zip`.

    Missing classes are added. Raises FewShotError where the zip can't be used at all.
    """
    dataset.check_backbone(classifier)
    names = ZipNames(())
    skipped: list[SkippedFile] = []
    class_names: list[str] = []

    def photos() -> Iterator[tuple[str, Image.Image]]:
        nonlocal names
        for found in photos_in_zip(file, dataset.counts, language):
            if isinstance(found, ZipPhoto):
                class_names.append(found.class_name)
                yield found.name, found.photo
                progress(found.share, "embedding the photos")
            elif isinstance(found, SkippedFile):
                skipped.append(found)
            else:
                names = found

    grown = dataset
    examples = list(embed(classifier, photos()))
    for name, example in zip(class_names, examples, strict=True):
        grown = grown if name in grown.label_names else grown.with_class(name)
        try:
            grown = grown.with_examples(name, [example])
        except FewShotError as error:  # the same image in two classes: only this one is skipped
            skipped.append(SkippedFile(f"{name}/{example.name}", str(error)))
    return UnpackedZip(grown, tuple(skipped), names)
