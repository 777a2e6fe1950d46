"""A few-shot data set: classes, and the features of a handful of photos of each.

Of a photo no more is kept than its features, a thumbnail and a file name. A data set never changes: whoever adds to it
gets another one, so that one visitor's is never another's.
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
    class_name_of,
    photos_in_zip,
)
from antbee.data.folder import SkippedFile
from antbee.models.classifier import Classifier
from antbee.text import one_line
from antbee.training.features import Features, evaluation_batch

LONGEST_FILE_NAME = 100
THUMBNAIL_SIDE = 128  # pixels of the longer side

Progress = Callable[[float, str], None]  # the share that is done, 0..1, and what comes next


def tell_nobody(share: float, what: str) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True, eq=False)  # neither pictures nor features can be compared by ==
class Example:
    """What is kept of a photo."""

    name: str  # a file's, never a path; unique in its class once it is in a lesson
    thumbnail: Image.Image  # RGB
    features: Tensor  # float32 (C,)
    crop_digest: str  # SHA-256 of the pixels that the network saw: that of the same picture is the same
    backbone_digest: str  # whose features these are


@dataclass(frozen=True)
class FewShotClass:
    """A class and its examples."""

    name: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class FewShotDataset:
    """What a classifier is to be taught: classes in the order of its outputs, with examples. Empty at first."""

    classes: tuple[FewShotClass, ...] = ()

    def __len__(self) -> int:
        return sum(len(one.examples) for one in self.classes)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(one.name for one in self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Photos of each class, by name."""
        return {one.name: len(one.examples) for one in self.classes}

    @property
    def thumbnails(self) -> dict[str, Image.Image]:
        """The small pictures, class after class, by the names of a taught classifier's neighbours: class/file."""
        return {f"{one.name}/{example.name}": example.thumbnail for one in self.classes for example in one.examples}

    def room(self, class_name: str) -> int:
        """How many more photos a class takes."""
        return min(MOST_PHOTOS_OF_CLASS - len(self._class(class_name).examples), MOST_PHOTOS - len(self))

    def with_class(self, name: str) -> "FewShotDataset":
        """With one more class, that has no photos yet. Raises FewShotError for a name that won't do."""
        if len(self.classes) == MOST_CLASSES:
            raise FewShotError(f"there are {MOST_CLASSES} classes, more are not taken: remove one first")
        return FewShotDataset((*self.classes, FewShotClass(self._new_name(name))))

    def renamed(self, name: str, new_name: str) -> "FewShotDataset":
        """With a class under another name. Raises FewShotError for a name that won't do."""
        known = self._class(name)
        others = self.without_class(name)
        return self._replacing(known, replace(known, name=others._new_name(new_name)))

    def without_class(self, name: str) -> "FewShotDataset":
        """Without a class and its photos."""
        known = self._class(name)
        return FewShotDataset(tuple(one for one in self.classes if one is not known))

    def with_examples(self, class_name: str, examples: Iterable[Example]) -> "FewShotDataset":
        """With more examples of a class, each under a name that none of its others has.

        A picture that the class has already changes nothing. Raises FewShotError where another class has it, where
        there are too many, and where their features are another backbone's.
        """
        known, examples = self._class(class_name), list(examples)
        _check_backbones(self._backbones() | {example.backbone_digest for example in examples})
        owners = {example.crop_digest: one.name for one in self.classes for example in one.examples}
        added: list[Example] = []
        for example in examples:
            owner = owners.setdefault(example.crop_digest, known.name)
            if owner != known.name:
                raise FewShotError(
                    f"{example.name} is the same picture as one of {owner}, and a photo is of one class only:"
                    f" leave it out, or remove it from {owner} first"
                )
            if example.crop_digest not in {one.crop_digest for one in (*known.examples, *added)}:
                taken = {one.name for one in (*known.examples, *added)}
                added.append(replace(example, name=_free_name(example.name, taken)))
        if len(added) > (room := self.room(class_name)):
            raise FewShotError(
                f"{len(added)} more photos came for {known.name}, which has {len(known.examples)} of {len(self)} in"
                f" all: at most {MOST_PHOTOS_OF_CLASS} of a class and {MOST_PHOTOS} in all are taken, choose {room}"
            )
        return self._replacing(known, replace(known, examples=(*known.examples, *added)))

    def without_example(self, class_name: str, example_name: str) -> "FewShotDataset":
        """Without one photo of a class."""
        known = self._class(class_name)
        left = tuple(example for example in known.examples if example.name != example_name)
        if len(left) == len(known.examples):
            raise FewShotError(f"{class_name} has no photo {one_line(example_name)}: it is gone already")
        return self._replacing(known, replace(known, examples=left))

    def check(self) -> None:
        """Raises FewShotError where a classifier can't learn from it, saying what is missing."""
        if len(self.classes) < FEWEST_CLASSES:
            raise FewShotError(
                f"there are {len(self.classes)} of at least {FEWEST_CLASSES} classes: add another, with photos"
            )
        for one in self.classes:
            if not one.examples:
                raise FewShotError(f"{one.name} has no photos: add some, or remove the class")

    def check_backbone(self, classifier: Classifier) -> None:
        """Raises FewShotError where the features are another backbone's than the classifier's."""
        _check_backbones(self._backbones() | {classifier.backbone_digest})

    def features(self, device: torch.device) -> Features:
        """What a head learns from: the features of all examples, class after class, and their classes."""
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
        raise FewShotError(
            "the lesson's photos were looked at by another model: go on with that one, or start a new lesson"
        )


def _file_name(text: str) -> str:
    """A file's name alone, of letters that can be seen, whatever path or name came."""
    name = text.replace("\\", "/").rpartition("/")[2]
    visible = "".join(letter if letter.isprintable() else "_" for letter in name)
    return visible[-LONGEST_FILE_NAME:].strip(" .") or "photo"  # the end of a long one: it tells the kind


def _free_name(name: str, taken: Set[str]) -> str:
    """The name itself, or with the first number that makes it another one than those taken: photo (2).jpg."""
    path = PurePosixPath(name)
    numbered = (f"{path.stem} ({number}){path.suffix}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def embed(classifier: Classifier, photos: Iterable[tuple[str, Image.Image]]) -> Iterator[Example]:
    """Named RGB photos -> an example of each, in order.

    Photos are taken one by one and dropped once they are cropped: they may come from a generator, and need not fit into
    memory together. Names may be paths; only the file's name is kept.
    """
    seen = ((_file_name(name), _thumbnail(photo), classifier.crop(photo)) for name, photo in photos)
    while batch := list(islice(seen, evaluation_batch(classifier.device))):
        features = classifier.features_of_crops([crop for _, _, crop in batch])
        for (name, thumbnail, crop), row in zip(batch, features, strict=True):
            digest = hashlib.sha256(crop.tobytes()).hexdigest()
            # A copy: a row of the batch would keep the whole batch in memory.
            yield Example(name, thumbnail, row.clone(), digest, classifier.backbone_digest)


def _thumbnail(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


def dataset_with_zip(
    classifier: Classifier, dataset: FewShotDataset, file: Path | BinaryIO, progress: Progress = tell_nobody
) -> tuple[FewShotDataset, tuple[SkippedFile, ...]]:
    """The lesson with the photos of a zip, and the files that could not be used; see `photos_in_zip`.

    Classes that the lesson lacks are added. Raises FewShotError where the zip can't be used at all.
    """
    dataset.check_backbone(classifier)
    skipped: list[SkippedFile] = []
    class_names: list[str] = []

    def photos() -> Iterator[tuple[str, Image.Image]]:
        for found in photos_in_zip(file, dataset.counts):
            if isinstance(found, SkippedFile):
                skipped.append(found)
            else:
                class_names.append(found.class_name)
                yield found.name, found.photo
                progress(found.share, "looking at the photos")

    grown = dataset
    examples = list(embed(classifier, photos()))
    for name, example in zip(class_names, examples, strict=True):
        grown = grown if name in grown.label_names else grown.with_class(name)
        try:
            grown = grown.with_examples(name, [example])
        except FewShotError as error:  # the same picture in two classes: that the others are lost helps nobody
            skipped.append(SkippedFile(f"{name}/{example.name}", str(error)))
    return grown, tuple(skipped)
