"""A classifier of one's own from a handful of photos: their features are kept, and a head is fitted in seconds.

    photos -> look -> examples -> lesson -> teach -> a classifier on the very same backbone -> a model folder, zipped

Of a photo no more is kept than its features, a thumbnail and a file name. A lesson never changes: whoever adds to it
gets another one, so that one visitor's is never another's.
"""

import contextlib
import hashlib
import struct
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from io import SEEK_SET, BytesIO
from itertools import chain, count, islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.models import ResNet

import antbee
from antbee import evaluation, model, neighbours, resampling, training
from antbee.classifier import Classifier
from antbee.data import HIDDEN, Skipped
from antbee.hub.card import FEW_SHOT_DATA, card_without_figures
from antbee.images import DataError, open_photo
from antbee.models.config import ClassifierConfig, DataInfo, WeightsInfo
from antbee.models.metrics import Calibration, EpochScore, Found, Metrics, OODMetrics, Parameters
from antbee.neighbours import FeatureBank
from antbee.text import one_line
from antbee.training import FAST, Features

FEWEST_CLASSES, MOST_CLASSES = 2, 10
MOST_PHOTOS_OF_CLASS, MOST_PHOTOS = 60, 400
LONGEST_CLASS_NAME = 40  # characters
LONGEST_FILE_NAME = 100
THUMBNAIL_SIDE = 128  # pixels of the longer side

# A zip of a few kilobytes may hold, or claim to hold, gigabytes.
MOST_FILES_IN_ZIP = 5_000
LARGEST_FILE_IN_ZIP = 20_000_000  # bytes, unpacked
LARGEST_ZIP = 1_000_000_000  # bytes, all that is unpacked of it
LARGEST_READ = 4_000_000  # bytes; a zip's list of files is read at once, and takes 20 times the memory
UNPACKED_AT_ONCE = 1_000_000  # bytes
# What zipfile meets in a file that is none, or is damaged, or has an unknown method, a password or an impossible name.
NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)

MODEL_FOLDER = "taught-model"  # in the zip that is given away

Progress = Callable[[float, str], None]  # the share that is done, 0..1, and what comes next


class TeachingError(ValueError):
    """Nothing can be taught with this; the message says what came, what was expected, and what to do."""


def _tell_nobody(share: float, what: str) -> None:
    pass


# ---------------------------------------------------------------------------------------------------------------------
# A lesson: classes, and examples of each


@dataclass(frozen=True, eq=False)  # neither pictures nor features can be compared by ==
class Example:
    """What is kept of a photo."""

    name: str  # a file's, never a path; unique in its class once it is in a lesson
    thumbnail: Image.Image  # RGB
    features: Tensor  # float32 (C,)
    crop_digest: str  # SHA-256 of the pixels that the network saw: that of the same picture is the same
    backbone_digest: str  # whose features these are


@dataclass(frozen=True)
class LessonClass:
    """A class and its examples."""

    name: str
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Lesson:
    """What a classifier is to be taught: classes in the order of its outputs, with examples. Empty at first."""

    classes: tuple[LessonClass, ...] = ()

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

    def with_class(self, name: str) -> "Lesson":
        """With one more class, that has no photos yet. Raises TeachingError for a name that won't do."""
        if len(self.classes) == MOST_CLASSES:
            raise TeachingError(f"there are {MOST_CLASSES} classes, more are not taken: remove one first")
        return Lesson((*self.classes, LessonClass(self._new_name(name))))

    def renamed(self, name: str, new_name: str) -> "Lesson":
        """With a class under another name. Raises TeachingError for a name that won't do."""
        known = self._class(name)
        others = self.without_class(name)
        return self._replacing(known, replace(known, name=others._new_name(new_name)))

    def without_class(self, name: str) -> "Lesson":
        """Without a class and its photos."""
        known = self._class(name)
        return Lesson(tuple(one for one in self.classes if one is not known))

    def with_examples(self, class_name: str, examples: Iterable[Example]) -> "Lesson":
        """With more examples of a class, each under a name that none of its others has.

        A picture that the class has already changes nothing. Raises TeachingError where another class has it, where
        there are too many, and where their features are another backbone's.
        """
        known, examples = self._class(class_name), list(examples)
        _check_backbones(self._backbones() | {example.backbone_digest for example in examples})
        owners = {example.crop_digest: one.name for one in self.classes for example in one.examples}
        added: list[Example] = []
        for example in examples:
            owner = owners.setdefault(example.crop_digest, known.name)
            if owner != known.name:
                raise TeachingError(
                    f"{example.name} is the same picture as one of {owner}, and a photo is of one class only:"
                    f" leave it out, or remove it from {owner} first"
                )
            if example.crop_digest not in {one.crop_digest for one in (*known.examples, *added)}:
                taken = {one.name for one in (*known.examples, *added)}
                added.append(replace(example, name=_free_name(example.name, taken)))
        if len(added) > (room := self.room(class_name)):
            raise TeachingError(
                f"{len(added)} more photos came for {known.name}, which has {len(known.examples)} of {len(self)} in"
                f" all: at most {MOST_PHOTOS_OF_CLASS} of a class and {MOST_PHOTOS} in all are taken, choose {room}"
            )
        return self._replacing(known, replace(known, examples=(*known.examples, *added)))

    def without_example(self, class_name: str, example_name: str) -> "Lesson":
        """Without one photo of a class."""
        known = self._class(class_name)
        left = tuple(example for example in known.examples if example.name != example_name)
        if len(left) == len(known.examples):
            raise TeachingError(f"{class_name} has no photo {one_line(example_name)}: it is gone already")
        return self._replacing(known, replace(known, examples=left))

    def check(self) -> None:
        """Raises TeachingError where a classifier can't learn from it, saying what is missing."""
        if len(self.classes) < FEWEST_CLASSES:
            raise TeachingError(
                f"there are {len(self.classes)} of at least {FEWEST_CLASSES} classes: add another, with photos"
            )
        for one in self.classes:
            if not one.examples:
                raise TeachingError(f"{one.name} has no photos: add some, or remove the class")

    def check_backbone(self, classifier: Classifier) -> None:
        """Raises TeachingError where the features are another backbone's than the classifier's."""
        _check_backbones(self._backbones() | {classifier.backbone_digest})

    def features(self, device: torch.device) -> Features:
        """What a head learns from: the features of all examples, class after class, and their classes."""
        rows = [example.features for one in self.classes for example in one.examples]
        labels = [label for label, one in enumerate(self.classes) for _ in one.examples]
        return Features(torch.stack(rows).to(device), torch.tensor(labels))

    def _class(self, name: str) -> LessonClass:
        known = next((one for one in self.classes if one.name == name), None)
        if known is None:
            there = ", ".join(self.label_names) or "none"
            raise TeachingError(f"there is no class {one_line(name, LONGEST_CLASS_NAME)}, the classes are: {there}")
        return known

    def _replacing(self, known: LessonClass, new: LessonClass) -> "Lesson":
        return Lesson(tuple(new if one is known else one for one in self.classes))

    def _new_name(self, text: str) -> str:
        name = class_name_of(text)
        if name in self.label_names:
            raise TeachingError(f"there is a class {name} already: give another name")
        return name

    def _backbones(self) -> set[str]:
        return {example.backbone_digest for one in self.classes for example in one.examples}


def _check_backbones(digests: Set[str]) -> None:
    if len(digests) > 1:
        raise TeachingError(
            "the lesson's photos were looked at by another model: go on with that one, or start a new lesson"
        )


def class_name_of(text: str) -> str:
    """The name of a class as it was meant: one line, without spaces around it, letters with their accents in one.

    Raises TeachingError where it is no name, or none that a folder of photos could have.
    """
    # Of the same word in two spellings, as macOS and others write it, there would be two classes that look the same.
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not 1 <= len(name) <= LONGEST_CLASS_NAME:
        raise TeachingError(
            f"the class name '{one_line(name, longest=60)}' has {len(name)} characters: expected 1 to"
            f" {LONGEST_CLASS_NAME}, give another"
        )
    if not name.isprintable():
        raise TeachingError(f"the class name {one_line(name)} has characters that can't be seen: type it again")
    if name.startswith(HIDDEN) or "/" in name or "\\" in name:
        raise TeachingError(
            f"the class name {name} can't be that of a folder of photos: expected one that does not start with"
            f" {' or '.join(HIDDEN)} and has no slash, give another"
        )
    return name


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


# ---------------------------------------------------------------------------------------------------------------------
# Photos in


def look(classifier: Classifier, photos: Iterable[tuple[str, Image.Image]]) -> Iterator[Example]:
    """Named RGB photos -> an example of each, in order.

    Photos are taken one by one and dropped once they are cropped: they may come from a generator, and need not fit into
    memory together. Names may be paths; only the file's name is kept.
    """
    seen = ((_file_name(name), _thumbnail(photo), classifier.crop(photo)) for name, photo in photos)
    while batch := list(islice(seen, training.evaluation_batch(classifier.device))):
        features = classifier.features_of_crops([crop for _, _, crop in batch])
        for (name, thumbnail, crop), row in zip(batch, features, strict=True):
            digest = hashlib.sha256(crop.tobytes()).hexdigest()
            # A copy: a row of the batch would keep the whole batch in memory.
            yield Example(name, thumbnail, row.clone(), digest, classifier.backbone_digest)


def _thumbnail(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


@dataclass(frozen=True)
class ZipPhoto:
    """A photo from a zip of class folders."""

    class_name: str
    name: str  # of its file
    photo: Image.Image  # RGB
    share: float  # of the zip that is read with it, 0..1


def lesson_with_zip(
    classifier: Classifier, lesson: Lesson, file: Path | BinaryIO, progress: Progress = _tell_nobody
) -> tuple[Lesson, tuple[Skipped, ...]]:
    """The lesson with the photos of a zip, and the files that could not be used; see `photos_in_zip`.

    Classes that the lesson lacks are added. Raises TeachingError where the zip can't be used at all.
    """
    lesson.check_backbone(classifier)
    skipped: list[Skipped] = []
    class_names: list[str] = []

    def photos() -> Iterator[tuple[str, Image.Image]]:
        for found in photos_in_zip(file, lesson):
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                class_names.append(found.class_name)
                yield found.name, found.photo
                progress(found.share, "looking at the photos")

    grown = lesson
    examples = list(look(classifier, photos()))
    for name, example in zip(class_names, examples, strict=True):
        grown = grown if name in grown.label_names else grown.with_class(name)
        try:
            grown = grown.with_examples(name, [example])
        except TeachingError as error:  # the same picture in two classes: that the others are lost helps nobody
            skipped.append(Skipped(f"{name}/{example.name}", str(error)))
    return grown, tuple(skipped)


def photos_in_zip(file: Path | BinaryIO, lesson: Lesson = Lesson()) -> Iterator[ZipPhoto | Skipped]:
    """The photos in a zip of class folders, in the order of their paths, and the files that can't be used.

    The folder that a photo lies in names its class: ants/1.jpg, photos/ants/1.jpg, and train/ants/1.jpg joins
    val/ants/1.jpg. Of more photos than `lesson` has room for, every class gets the same share of it. Nothing is written
    to disk, and photos are unpacked one by one. Raises TeachingError where it is no zip, is encrypted, holds no photo
    in a class folder, or far too much.
    """
    with _opened_zip(file) as archive:
        # Not by ZipInfo.is_dir(), which fails where a name is empty.
        members = [_member(entry) for entry in archive.infolist() if not entry.filename.endswith("/")]
        wanted = sorted((one for one in members if isinstance(one, _Member)), key=lambda one: one.path)
        unwanted = [one for one in members if isinstance(one, Skipped)]
        _check_members(wanted, unwanted, lesson)
        yield from unwanted
        room = _room(wanted, lesson)
        earlier: dict[bytes, str] = {}  # paths by the SHA-256 of their content
        unpacked = 0
        for number, member in enumerate(wanted, 1):
            if room[member.class_name] == 0:
                yield member.skipped(f"no room for more photos of {member.class_name}")
                continue
            unpacked += min(member.entry.file_size, LARGEST_FILE_IN_ZIP)  # zipfile unpacks no more than a file claims
            if unpacked > LARGEST_ZIP:
                raise TeachingError(
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


def _too_many_files() -> TeachingError:
    return TeachingError(f"the zip lists more than {MOST_FILES_IN_ZIP} files: zip the class folders alone")


@contextlib.contextmanager
def _opened_zip(file: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            archive = stack.enter_context(zipfile.ZipFile(_BoundedReads(stream)))
        except TeachingError:
            raise
        except NO_ZIP as error:
            reason = getattr(error, "strerror", None) or str(error)  # without the path, which is nobody's business
            raise TeachingError(
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

    def skipped(self, reason: str) -> Skipped:
        return Skipped(one_line(self.path), reason)


def _member(entry: zipfile.ZipInfo) -> _Member | Skipped:
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
        return Skipped(one_line(path), one_line(reason))
    return _Member(entry, path, class_name_of(folders[-1]), name)


def _path_of(entry: zipfile.ZipInfo) -> str:
    """The path in the zip, with slashes; zipfile takes the UTF-8 that macOS writes unsaid for code page 437."""
    path = entry.filename
    if not entry.flag_bits & 0x800:  # it is not said to be UTF-8
        with contextlib.suppress(UnicodeError):
            path = path.encode("cp437").decode("utf-8")
    return path.replace("\\", "/")


def _check_members(members: Sequence[_Member], unwanted: Sequence[Skipped], lesson: Lesson) -> None:
    if not members:
        example = f" ({unwanted[0].file}: {unwanted[0].reason})" if unwanted else ""
        raise TeachingError(
            f"the zip has no photo in a class folder{example}: expected paths such as ants/1.jpg, a folder for each"
            " class"
        )
    names = {*lesson.label_names, *(member.class_name for member in members)}
    if len(names) > MOST_CLASSES:
        raise TeachingError(
            f"with the zip's class folders there would be {len(names)} classes, at most {MOST_CLASSES} are taken:"
            " leave some out"
        )
    if any(member.entry.flag_bits & 0x1 for member in members):
        raise TeachingError("the zip is encrypted: zip the class folders without a password")


def _room(members: Sequence[_Member], lesson: Lesson) -> dict[str, int]:
    """How many more photos of each of the zip's classes are taken: the same of all, where it is not for all."""
    names = {member.class_name for member in members}
    share = (MOST_PHOTOS - len(lesson)) // len(names)
    return {name: min(share, MOST_PHOTOS_OF_CLASS - lesson.counts.get(name, 0)) for name in names}


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


# ---------------------------------------------------------------------------------------------------------------------
# Teaching


@dataclass(frozen=True, eq=False)
class Taught:
    """A classifier of one's own, and how good it is."""

    classifier: Classifier  # shares the backbone of the one that it was taught with
    report: evaluation.Report | None  # cross-validated; None where a class has one photo alone
    left_out_logits: Tensor | None  # float32 (N, classes), of each photo in the lesson's order: what `report` is of

    @property
    def folds(self) -> int | None:
        """Into how many parts the photos were divided to be cross-validated; None where they were not."""
        metrics = self.classifier.config.metrics
        return metrics.cross_validation if metrics else None


def teach(base: Classifier, lesson: Lesson, *, seed: int = 0, progress: Progress = _tell_nobody) -> Taught:
    """Fits a new head for the lesson's classes on the backbone of `base`, which stays as it is.

    It learns as the recipe `training.FAST` lets a head learn, is calibrated, and says "neither" where it should. How
    good it is is cross-validated: each photo is answered by a head that learned from the other folds, and calibrated by
    a temperature of those other folds. Equal lessons and seeds give equal heads, as long as no other thread of the
    process draws random numbers meanwhile. Raises TeachingError where the lesson lacks something, or was made with
    another backbone.
    """
    lesson.check()
    lesson.check_backbone(base)
    with training.threads(1):
        return _taught(base, lesson, seed, progress)


def _taught(base: Classifier, lesson: Lesson, seed: int, progress: Progress) -> Taught:
    started = time.perf_counter()
    features = lesson.features(base.device)
    try:
        progress(0.0, "learning from all photos")
        head = resampling.trained_head(features, len(lesson.classes), FAST, seed=seed, device=base.device)
        progress(0.2, "cross-validating")
        left_out = _left_out(features, seed)
    except training.TrainingError as error:
        raise TeachingError(
            f"nothing can be learned from this model's features ({one_line(str(error))}): choose another model"
        ) from error
    progress(0.9, "calibrating")
    bank = _bank(lesson, features, left_out)
    config = _config(base.config, lesson, left_out, seed)
    if left_out is None:
        return Taught(base.with_head(head, config, bank), None, None)
    temperature = evaluation.fit_temperature(left_out.answers.logits, features.labels)
    model.divide_logits(head, temperature)
    calibrated = left_out.calibrated(features.labels)
    report = evaluation.report(calibrated, features.labels)
    metrics = Metrics(
        kept=EpochScore(**report.score.to_record(), epoch=FAST.frozen.epochs),
        selected_on="nothing",
        cross_validation=left_out.answers.folds,
        **report.details(),
        epochs=FAST.frozen.epochs,
        seconds=time.perf_counter() - started,
        parameters=_parameters(base.network, head),
        calibration=_calibration(temperature, left_out, features.labels),
        neither=_neither(bank, backbone_knows_nothing=_backbone_is_its_start(base.config)),
    )
    return Taught(base.with_head(head, replace(config, metrics=metrics), bank), report, calibrated)


@dataclass(frozen=True)
class _LeftOut:
    """What each photo gets from heads that learned without its fold."""

    answers: resampling.OutOfFold
    folds: Tensor  # int64 (N,)

    def calibrated(self, labels: Tensor) -> Tensor:
        """The logits, each fold's divided by the temperature of the others: it was not fitted to them."""
        logits = self.answers.logits
        calibrated = torch.empty_like(logits)
        for fold in self.folds.unique():
            held = self.folds == fold
            calibrated[held] = logits[held] / evaluation.fit_temperature(logits[~held], labels[~held])
        return calibrated


def _left_out(features: Features, seed: int) -> _LeftOut | None:
    """None where a class has one photo alone: without it there would be nothing to learn the class from."""
    folds = resampling.stratified_folds(features.labels, FAST.frozen.folds, seed)
    if len(folds.unique()) < 2:
        return None
    device = features.features.device
    return _LeftOut(resampling.head_out_of_fold(features, folds, FAST, seed=seed, device=device), folds)


def _calibration(temperature: float, left_out: _LeftOut, labels: Tensor) -> Calibration:
    before = evaluation.report(left_out.answers.logits, labels)
    return Calibration(
        temperature=temperature,
        folds=left_out.answers.folds,
        loss_before=before.score.loss,
        error_before=before.calibration_error,
    )


def _bank(lesson: Lesson, features: Features, left_out: _LeftOut | None) -> FeatureBank:
    threshold = neighbours.NO_LIMIT if left_out is None else neighbours.threshold(left_out.answers.distances)
    return neighbours.build_bank(features.features, features.labels, list(lesson.thumbnails), threshold)


def _neither(bank: FeatureBank, *, backbone_knows_nothing: bool) -> OODMetrics | None:
    """When "neither" is said, and how often of a class's photos where no other photo of it is known."""
    if bank.limit is None:
        return None
    others = len(bank.labels) - int(torch.bincount(bank.labels).max())  # the fewest that are left without a class
    has_limit = neighbours.threshold(torch.zeros(others)) < neighbours.NO_LIMIT
    left_out = None
    if backbone_knows_nothing and has_limit:
        found = neighbours.leave_classes_out(bank.features, bank.labels, bank.features, bank.labels)
        left_out = Found(found=found, count=len(bank.labels))
    return OODMetrics(threshold=bank.threshold, rate=neighbours.FALSE_ALARM_RATE, foreign={}, left_out=left_out)


def _parameters(network: ResNet, head: nn.Linear) -> Parameters:
    own_head, new_head = (model.count_parameters(one, trainable=False) for one in (network.fc, head))
    total = model.count_parameters(network, trainable=False)
    return Parameters(total=total - own_head + new_head, trainable=new_head)


def _config(base: ClassifierConfig, lesson: Lesson, left_out: _LeftOut | None, seed: int) -> ClassifierConfig:
    """What the classifier tells of itself, but for how good it is."""
    return ClassifierConfig(
        architecture=base.architecture,
        label_names=lesson.label_names,
        preprocessing=base.preprocessing,
        version=antbee.__version__,
        mode="frozen",
        seed=seed,
        recipe=FAST.flat("frozen"),
        data=DataInfo(
            name=FEW_SHOT_DATA,
            train=lesson.counts,
            split=f"{left_out.answers.folds}-fold cross-validation" if left_out else "too few photos to keep any back",
        ),
        weights=_starting_weights(base),
    )


def _starting_weights(base: ClassifierConfig) -> WeightsInfo:
    """What the backbone is: its starting weights where it never learned more, else what it learned, and from where."""
    if _backbone_is_its_start(base):
        weights = base.weights
        return WeightsInfo(name=weights.name, digest=weights.digest, base_model=weights.base_model)
    learned = base.data.name or f"{len(base.label_names)} classes"
    start = base.weights.name or "unknown weights"
    return WeightsInfo(name=one_line(f"{base.mode or 'a model'} of {learned}, from {start}", longest=100))


def _backbone_is_its_start(base: ClassifierConfig) -> bool:
    """Whether a classifier's backbone was left as it was, BatchNorm's statistics included."""
    unmoved = base.recipe.get("cached_features") is True or base.recipe.get("batch_norm") == "fixed"
    return base.mode == "frozen" and bool(unmoved)


# ---------------------------------------------------------------------------------------------------------------------
# A model to take away


def write_folder(classifier: Classifier, folder: Path) -> None:
    """Writes a model folder with its card; no pictures."""
    classifier.save_pretrained(folder)
    (folder / "README.md").write_text(card_without_figures(classifier.config.to_json()), "utf-8")


def write_zip(classifier: Classifier, path: Path) -> None:
    """Writes a zip of one model folder with its card, MODEL_FOLDER; no pictures. `path` is there once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as workshop:
        folder = Path(workshop) / MODEL_FOLDER
        write_folder(classifier, folder)
        beside = Path(workshop) / path.name
        with zipfile.ZipFile(beside, "w") as archive:  # as they are: weights can hardly be packed
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{MODEL_FOLDER}/{file.name}")
        beside.replace(path)
