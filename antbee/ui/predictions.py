"""The loaded models' predictions for the validation photos, computed once for all visitors."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.images import open_photo
from antbee.evaluation import metrics, plots
from antbee.text import one_line
from antbee.ui.components import heat_map
from antbee.ui.registry import LoadedModel, Snapshot, of_classes

LARGEST_ERRORS = 12  # pictures of each model
PICTURE_SIDE = 320  # pixels
CHUNK = 16  # photos in memory at a time

Progress = Callable[[float], None]  # is called with the fraction that is done, 0..1


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for the validation photos."""

    model: LoadedModel
    photos: ImageDataset
    logits: Tensor  # float32 (N, classes), in the order of photos.class_names

    @cached_property
    def labels(self) -> Tensor:
        """The true classes: int64 (N,)."""
        return torch.tensor(self.photos.val.labels)

    @cached_property
    def predicted(self) -> Tensor:
        """The most probable classes: int64 (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """The probabilities of the most probable classes: float32 (N,)."""
        return self.logits.softmax(1).amax(1)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes as printable text."""
        return [one_line(name) for name in self.photos.class_names]

    @property
    def confusion(self) -> list[list[int]]:
        """Photos by true class (rows) and predicted class (columns)."""
        return metrics.confusion_matrix(self.logits, self.labels).tolist()

    @cached_property
    def largest_errors(self) -> list[tuple[int, Image.Image]]:
        """The wrong predictions, highest confidence first: positions, and photos with their activation maps."""
        positions = self.by_confidence(self.predicted != self.labels)[:LARGEST_ERRORS]
        return [(position, self._explained(position)) for position in positions]

    def _explained(self, position: int) -> Image.Image:
        """A photo and the activation map of its predicted class, side by side."""
        classifier, name = self.model.classifier, self.photos.class_names[int(self.predicted[position])]
        explanation = classifier.explain(open_photo(self.photos.val.paths[position]))
        photo = self.picture(position)
        return plots.beside(photo, heat_map(classifier, photo, explanation, name))

    def by_confidence(self, mask: Tensor) -> list[int]:
        """The positions where a mask, bool (N,), is true, highest confidence first."""
        positions = mask.nonzero()[:, 0]
        return positions[self.confidence[positions].argsort(descending=True)].tolist()

    def picture(self, position: int) -> Image.Image:
        """A photo at the size of the galleries."""
        return open_photo(self.photos.val.paths[position], shorter_side=PICTURE_SIDE)


def predict_validation(
    model: LoadedModel, photos: ImageDataset, progress: Progress = lambda fraction: None
) -> Predictions:
    """Predicts every validation photo. Raises DataError for a photo that can't be opened."""
    logits = [model.classifier.logits(chunk) for chunk in opened_in_chunks(photos.val.paths, progress)]
    order = [model.config.label_names.index(name) for name in photos.class_names]
    return Predictions(model, photos, torch.cat(logits)[:, order])


def opened_in_chunks(paths: Sequence[Path], progress: Progress) -> Iterator[list[Image.Image]]:
    """Opens photos a few at a time and reports the progress. Raises DataError for one that can't be opened."""
    for start in range(0, len(paths), CHUNK):
        yield [open_photo(path) for path in paths[start : start + CHUNK]]
        progress(min(1, (start + CHUNK) / len(paths)))


class PredictionCache:
    """Predictions of the loaded models for the validation photos, computed once for all visitors."""

    def __init__(self) -> None:
        self._cached: dict[str, Predictions] = {}  # by the model's name
        self._lock = threading.Lock()  # otherwise two visitors at once would compute the same

    def get(self, snapshot: Snapshot, names: Sequence[str] | None, progress: Progress) -> list[Predictions]:
        """The predictions of the chosen models that have the photos' classes."""
        photos = snapshot.photos
        if photos is None:
            return []
        with self._lock:
            # Predictions of models and photos that are no longer loaded are dropped, to free their memory.
            cached = [one for one in self._cached.values() if one.photos is photos and one.model in snapshot.models]
            self._cached = {one.model.name: one for one in cached}
            chosen = of_classes(snapshot.chosen(names), photos)
            for done, model in enumerate(chosen):
                if model.name not in self._cached:
                    share = partial(lambda done, fraction: progress((done + fraction) / len(chosen)), done)
                    self._cached[model.name] = predict_validation(model, photos, share)
            return [self._cached[model.name] for model in chosen]
