"""Recipes: all hyperparameters of both modes, which together with images, weights and seed decide a run's result."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from antbee.data.transforms import Augmentation, Fit, Preprocessing
from antbee.errors import AntbeeError
from antbee.models.device import Precision

LEAST_OF_WHOLE = 0.8  # smallest share of a squashed or padded photo that a random crop covers, see docs/own-photos.md


class TrainingError(AntbeeError):
    """Training can't start or continue; the message says why and what to do."""


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters of one mode's gradient descent."""

    epochs: int
    batch_size: int
    learning_rate: float  # the highest
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: Literal["step", "cosine"] = "cosine"
    warmup: float = 0.0  # epochs in which the rate climbs to its highest; cosine only
    optimiser: Literal["sgd", "adamw"] = "sgd"
    layer_decay: float = 1.0  # the rate of a layer, of that of the layer after it; adamw only
    folds: int = 0  # of the cross-validation that calibrates the probabilities; 0: none


@dataclass(frozen=True)
class Recipe:
    """All hyperparameters of both modes; images, starting weights and seed are separate."""

    name: str
    frozen: Schedule
    finetune: Schedule
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    smallest_crop: float = 0.08  # smallest share of an image's area that a random crop covers
    shorter_side: int | None = None  # pixels; larger images are resized to it before random crops are cut
    mirror: bool = True  # half of the random crops are flipped horizontally
    finetune_sizes: tuple[int, ...] = ()  # side of the random crops in pixels, each for an equal share of the epochs
    cached_features: bool = False  # frozen: evaluation crops pass through the backbone once, not in every epoch
    own_head: bool = False  # frozen: starts from the rows of the weights' own head, where ImageNet has the classes
    head_first: bool = False  # finetune: starts from the frozen mode's trained head instead of a new one
    batch_norm: Literal["fixed", "adapting"] = "fixed"  # BatchNorm's running statistics while training
    channels_last: bool = False  # memory layout: faster on CPUs and tensor cores, equal within rounding
    precision: Literal["auto"] | Precision = "float32"  # of training; evaluation is float32
    balanced: bool = False  # the loss weighs classes equally, whatever their number of images

    def schedule(self, mode: str) -> Schedule:
        """The schedule of a mode, "frozen" or "finetune"."""
        return self.frozen if mode == "frozen" else self.finetune

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def augmentation(self, mode: str) -> Augmentation | None:
        """The random crops of a mode, which may grow while fine-tuning; None: the evaluation crop."""
        if mode == "frozen" and self.cached_features:
            return None
        sizes = (self.finetune_sizes if mode == "finetune" else ()) or (self.preprocessing.crop,)
        epochs = self.schedule(mode).epochs
        return Augmentation(
            smallest_crop=self.smallest_crop,
            sizes=tuple(sizes[math.ceil(epoch * len(sizes) / epochs) - 1] for epoch in range(1, epochs + 1)),
            shorter_side=self.shorter_side,
            mirror=self.mirror,
            squash=self.preprocessing.fit == "squash",
            padding=self.preprocessing.padding,
        )

    def for_images(self, preprocessing: Preprocessing, *, grow: bool) -> "Recipe":
        """The recipe for a network with this preprocessing; its crops grow only where the network takes any size."""
        scale = preprocessing.crop / self.preprocessing.crop
        sizes = tuple(32 * max(1, round(scale * size / 32)) for size in self.finetune_sizes[:-1]) if grow else ()
        return replace(
            self,
            preprocessing=preprocessing,
            finetune_sizes=(*sizes, preprocessing.crop) if self.finetune_sizes else (),
            shorter_side=None if self.shorter_side is None else round(scale * self.shorter_side),
        )

    def fitted(self, fit: Fit | None) -> "Recipe":
        """The recipe with photos made square in this way; None: as the preprocessing says.

        Photos that are squashed or padded by choice are seen as a whole. Random crops then keep most of the photo.
        """
        preprocessing = self.preprocessing if fit is None else replace(self.preprocessing, fit=fit)
        if preprocessing.fit == "crop":
            return replace(self, preprocessing=preprocessing)
        return replace(
            self,
            preprocessing=preprocessing if fit is None else replace(preprocessing, crop_pct=1.0),
            smallest_crop=max(self.smallest_crop, LEAST_OF_WHOLE),
        )

    def flat(self, mode: str) -> dict[str, Any]:
        """One mode's part of the recipe as a flat record, for config.json and the model card."""
        settings: dict[str, Any] = {"name": self.name, **asdict(self.schedule(mode))}
        if (augmentation := self.augmentation(mode)) is not None:
            settings["crop_sizes"] = ", ".join(map(str, dict.fromkeys(augmentation.sizes)))
            settings["smallest_crop"] = augmentation.smallest_crop
            settings["shorter_side"] = augmentation.shorter_side
        if augmentation is not None or not self.mirror:  # for a training that goes on from this one, and augments
            settings["mirror"] = self.mirror
        own = {"frozen": "cached_features", "finetune": "head_first"}[mode]
        common = ("batch_norm", "channels_last", "precision", "balanced")
        return settings | {name: getattr(self, name) for name in (own, *common)}


# Exactly the hyperparameters of the tutorial: https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
# Its normalisation (mean 0.5, std 0.25) is not the one that the ImageNet weights were trained with.
TUTORIAL = Recipe(
    name="tutorial",
    frozen=Schedule(epochs=25, batch_size=4, learning_rate=0.001, momentum=0.9, decay="step"),
    finetune=Schedule(epochs=25, batch_size=4, learning_rate=0.001, decay="step"),
    preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    batch_norm="adapting",
)
# Head first, then all weights: the gradients of a randomly initialised head would distort the features.
# Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features", arXiv 2202.10054.
FAST = Recipe(
    name="fast",
    frozen=Schedule(epochs=40, batch_size=32, learning_rate=0.003, momentum=0.9, weight_decay=0.05, folds=5),
    finetune=Schedule(
        epochs=3, batch_size=16, learning_rate=0.0005, momentum=0.9, weight_decay=1e-4, warmup=1.0, folds=2
    ),
    finetune_sizes=(128, 160, 224),
    smallest_crop=0.35,
    shorter_side=448,
    cached_features=True,
    own_head=True,
    head_first=True,
    channels_last=True,
    precision="auto",
)
# Networks without BatchNorm, vision transformers above all, are fine-tuned by AdamW, early layers less than late ones:
# Bao et al. 2022, "BEiT", arXiv 2106.08254.
LAYER_NORM = Schedule(
    epochs=3,
    batch_size=16,
    learning_rate=0.0001,
    weight_decay=0.05,
    warmup=1.0,
    optimiser="adamw",
    layer_decay=0.75,
    folds=2,
)
# Networks of depthwise convolutions, which are small, forget at larger steps.
DEPTHWISE = replace(FAST.finetune, learning_rate=0.0001)
# Random weights have no trained BatchNorm statistics to keep, and no trained features that larger steps could distort.
FAST_FROM_RANDOM = replace(FAST, batch_norm="adapting", finetune=replace(FAST.finetune, epochs=5, learning_rate=0.003))
RECIPES = {recipe.name: recipe for recipe in (FAST, TUTORIAL)}
RECIPES_FROM_RANDOM = {recipe.name: recipe for recipe in (FAST_FROM_RANDOM, TUTORIAL)}


def learning_rate(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0; it needs no scheduler state, so a resumed run needs none either.

    "step" divides by ten after every seventh epoch; "cosine" climbs to the highest rate, then falls along half a
    cosine to zero (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    if schedule.decay == "step":
        return schedule.learning_rate * 0.1 ** (step // steps_per_epoch // 7)
    warmup, steps = schedule.warmup * steps_per_epoch, schedule.epochs * steps_per_epoch
    if step < warmup:
        return schedule.learning_rate * (step + 1) / (warmup + 1)
    return schedule.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def balancing_weights(labels: Tensor) -> Tensor:
    """The class weights N / (classes * images of the class): float32 (classes,).

    Their mean over the images is 1, so that the learning rate need not change. The "balanced" weights of
    https://scikit-learn.org/stable/modules/generated/sklearn.utils.class_weight.compute_class_weight.html
    """
    counts = torch.bincount(labels)
    return len(labels) / (len(counts) * counts.float())
