"""A trained model that a new one goes on from: which rows of its head are kept, and what it has seen already."""

import copy
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from antbee.models.backbone import head_of
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig


@dataclass(frozen=True)
class EarlierModel:
    """What a training takes over from an earlier model, apart from its backbone."""

    label_names: tuple[str, ...]
    head: nn.Linear  # as it is saved: already divided by the temperature
    photos: frozenset[str]  # that it was trained on, by their names in the data folder, as far as its detector has them
    backbone_is_trained: bool  # on the photos of this model, or of one before it
    mirror: bool = True  # whether training mirrored photos, or would have where it augments

    @classmethod
    def of(cls, classifier: Classifier) -> "EarlierModel":
        """What there is to take over from a classifier."""
        config, detector = classifier.config, classifier.detector
        return cls(
            config.label_names,
            copy.deepcopy(head_of(classifier.network)).requires_grad_(False),
            frozenset(detector.names if detector is not None else ()),
            not has_starting_backbone(config) or bool(config.weights.earlier),
            config.recipe.get("mirror") is not False,
        )

    def kept(self, class_names: Sequence[str]) -> list[str]:
        """Those of `class_names` that the earlier model has too, by their names in Unicode normalisation form C."""
        own = set(map(_normalised, self.label_names))
        return [name for name in class_names if _normalised(name) in own]

    def dropped(self, class_names: Sequence[str]) -> list[str]:
        """The classes of the earlier model that are none of `class_names`."""
        new = set(map(_normalised, class_names))
        return [name for name in self.label_names if _normalised(name) not in new]

    def head_for(self, class_names: Sequence[str], new: nn.Linear) -> nn.Linear:
        """A copy of `new`, a head for these classes, with the earlier model's rows for those that it has too."""
        rows = {_normalised(name): row for row, name in enumerate(self.label_names)}
        head = copy.deepcopy(new).requires_grad_(False)
        kept = [(row, rows[_normalised(name)]) for row, name in enumerate(class_names) if _normalised(name) in rows]
        with torch.no_grad():
            for row, own in kept:
                head.weight[row], head.bias[row] = self.head.weight[own], self.head.bias[own]
        return head


def has_starting_backbone(config: ClassifierConfig) -> bool:
    """Whether a model's backbone still has its starting weights, including BatchNorm's running statistics."""
    is_fixed = config.recipe.get("cached_features") is True or config.recipe.get("batch_norm") == "fixed"
    return config.mode == "frozen" and is_fixed


def _normalised(name: str) -> str:
    return unicodedata.normalize("NFC", name)
