"""The settings of a run, and the context that its steps share: images, starting weights, recipe and device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from antbee.data.download import DownloadError, data_root, drawn_folder, hymenoptera_folder
from antbee.data.exclusions import read_exclusions
from antbee.data.folder import ImageDataset, Split, read_folder, refuse_damaged, require_folder, stratified_split
from antbee.data.layout import Labelled
from antbee.data.loading import GPUImageLoader, ImageCache, ImageLoader, LoaderOptions, cache_photo, choose_loader
from antbee.data.sources import pinned
from antbee.data.transforms import Fit
from antbee.errors import InputError
from antbee.installation import home
from antbee.models.architectures import takes_any_size
from antbee.models.backbone import (
    Network,
    check_image_size,
    crashes_channels_last,
    feature_count,
    has_batch_norm,
    has_depthwise_convolutions,
    head_of,
    new_head,
    outline,
    zero_head,
)
from antbee.models.config import MODES
from antbee.models.device import choose_precision
from antbee.models.validation import validating
from antbee.models.versions import Replace, RunFolder
from antbee.models.weights import (
    PACKAGED,
    StartingWeights,
    build_network,
    choose_network,
    zero_shot_head,
)
from antbee.training.checkpoint import DeferredSignals
from antbee.training.distributed import DistributedContext
from antbee.training.recipe import DEPTHWISE, LAYER_NORM, RECIPES, RECIPES_FROM_RANDOM, Recipe

HOLDOUT = 0.2  # of the images in train/, what `select="holdout"` sets aside

Count = Annotated[int, Field(gt=0)]


class SettingsError(InputError):
    """A setting of a run can't be used; the message names it and says what was expected."""


class Settings(BaseModel):
    """The settings of a run, with the names and defaults of the flags of scripts/train.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None  # see `load_starting_weights`; None: imagenet
    backbone: str | None = None  # a network of timm; None: resnet18, or PACKAGED where its weights can't be downloaded
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None  # pixels; None: that of the weights
    fit: Fit | None = None  # how a photo becomes a square; None: as with the weights, which is mostly "crop"
    mode: Literal["both", "frozen", "finetune"] = "both"
    recipe: Literal["fast", "tutorial"] = "fast"
    epochs: Count | None = None  # None, here and below: the recipe's
    batch_size: Count | None = None
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    select: Literal["val", "holdout", "last"] = "val"
    balance: bool = False
    mirror: bool | None = None  # None: as the model that training goes on from, else True
    folds: Annotated[int, Field(ge=0)] | None = None
    seeds: Count = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    exclude: Path | None = None
    allow_bad: bool = False
    follow_links: bool = False
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    compile: bool = False
    workers: Count | None = None
    output: Path = Field(default_factory=lambda: home() / "outputs")
    replace: Replace = "unless-worse"
    resume: bool = False
    track: Literal["trackio", "tensorboard", "jsonl"] | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that get a model folder, in the order in which they are trained."""
        return MODES if self.mode == "both" else (self.mode,)

    @classmethod
    def checked(cls, **values: object) -> "Settings":
        """Validates the values. Raises SettingsError."""
        with validating(SettingsError):
            settings = cls.model_validate(values)
        if settings.folds == 1:
            raise SettingsError(
                "folds is 1, which leaves nothing to train on: expected 0 (no calibration), or 2 or more"
            )
        return settings


@dataclass(frozen=True)
class RunContext:
    """The context that the steps of a run share."""

    settings: Settings
    distributed: DistributedContext
    signals: DeferredSignals
    dataset: ImageDataset
    place: Path  # what --data has to name for these images
    train: Split  # the images that are trained on
    selection: Split  # the images that the epoch to keep is chosen on
    cache: ImageCache
    backbone: str
    weights: StartingWeights
    recipe: Recipe
    notices: tuple[str, ...]  # substitutes for what could not be downloaded, each in a sentence
    log: Callable[[str], None]

    @property
    def run_folder(self) -> RunFolder:
        """The folder of checkpoints and finished models, until the run ends."""
        return RunFolder(self.settings.output)

    def say(self, text: str) -> None:
        """Logs a line, in the first process alone; raises the exception of a signal that arrived before."""
        self.signals.check()
        if self.distributed.is_first:
            self.log(text)

    def loader(self, split: Split, mode: str | None = None, *, seed: int = 0) -> ImageLoader | GPUImageLoader:
        """Loads a split with the augmentation of a mode or, without a mode, with the evaluation crop."""
        options = LoaderOptions.for_device(
            self.distributed.device, workers=self.settings.workers, processes=self.distributed.local_count
        )
        options = replace(options, layout=self.recipe.layout, cache=self.cache)
        augmentation = self.recipe.augmentation(mode) if mode else None
        return choose_loader(ImageLoader(split, self.recipe.preprocessing, augmentation, seed=seed, options=options))

    @cached_property
    def own_head(self) -> nn.Linear | None:
        """The head of the starting weights for the classes of the data set; None where it lacks one of them."""
        names, earlier = self.dataset.class_names, self.weights.model
        if earlier is None:
            return zero_shot_head(self.weights, self.backbone, names)
        return earlier.head_for(names, self._zero_head) if len(earlier.kept(names)) == len(names) else None

    def first_head(self, seed: int) -> nn.Linear | None:
        """The head that the recipe starts from; None: a new one, drawn by the seed.

        Where a model goes on from an earlier one, it keeps the rows of their common classes, in any recipe.
        """
        if (earlier := self.weights.model) is not None:
            return earlier.head_for(self.dataset.class_names, self.new_head(seed))
        return (self.own_head or self._zero_head) if self.recipe.own_head else None

    def new_head(self, seed: int) -> nn.Linear:
        """A head that knows nothing: zero, or drawn by the seed, as the recipe says."""
        return self._zero_head if self.recipe.own_head else new_head(*self._head_size, seed=seed)

    @property
    def _zero_head(self) -> nn.Linear:
        return zero_head(*self._head_size)

    @property
    def _head_size(self) -> tuple[int, int]:
        return feature_count(self.backbone), len(self.dataset.class_names)

    def seen_before(self, split: Split) -> int:
        """How many images of a split the earlier model was trained on, by their names in the data folder."""
        earlier = self.weights.model
        return len(earlier.photos.intersection(split.names(self.dataset.root))) if earlier is not None else 0

    @property
    def has_untrained_backbone(self) -> bool:
        """Whether no earlier model's photos were used to train the backbone of the starting weights."""
        return self.weights.model is None or not self.weights.model.backbone_is_trained

    def starting_network(self, seed: int) -> Network:
        """A network on the device, with a new head drawn by `seed`; random backbones keep to the run's own seed."""
        network = build_network(
            self.backbone,
            len(self.dataset.class_names),
            self.weights,
            seed=self.settings.seed,
            head_seed=seed,
            image_size=self.recipe.preprocessing.crop,
        )
        if (first := self.first_head(seed)) is not None:
            head_of(network).load_state_dict(first.state_dict())
        return network.to(self.distributed.device).to(memory_format=self.recipe.layout)


def prepare(
    data: str | Path | ImageDataset | None,
    settings: Settings,
    distributed: DistributedContext,
    signals: DeferredSignals,
    log: Callable[[str], None],
) -> RunContext:
    """Loads the images and the starting weights; the first process decides on substitutes for all processes.

    Raises what `data_root`, `read_folder` and `load_starting_weights` raise.
    """
    drawn = stand_in = None
    if distributed.is_first:
        if isinstance(data, str | Path):
            data = pinned(data, home() / "data")  # once: the Hub's answer may be another a moment later
        root, drawn = choose_data(data)
        if isinstance(root, Path):
            require_folder(root)  # before weights are downloaded for it
        backbone, weights, stand_in = choose_network(settings.backbone, settings.weights)
    drawn, stand_in, name = distributed.from_first((drawn, stand_in, data if isinstance(data, str) else None))
    with distributed.in_turn():
        if not distributed.is_first:
            root, _ = choose_data("drawn" if drawn else name or data)
            backbone, weights, _ = choose_network(PACKAGED if stand_in else settings.backbone, settings.weights)
    recipe = recipe_of(settings, backbone, weights, distributed.device)
    cache = ImageCache()
    dataset = root if isinstance(root, ImageDataset) else read_for_training(root, settings, cache, recipe)
    if not settings.allow_bad:
        refuse_damaged(dataset)
    if settings.exclude is not None:
        dataset = dataset.without(read_exclusions(settings.exclude))
    train, selection = dataset.train, dataset.val
    if settings.select == "holdout":
        train, selection = stratified_split(dataset.train, dataset.class_names, settings.seed, HOLDOUT)
    place = root.root if isinstance(root, ImageDataset) else root
    notices = tuple(notice for notice in (drawn, stand_in) if notice)
    return RunContext(
        settings, distributed, signals, dataset, place, train, selection, cache, backbone, weights, recipe, notices, log
    )


def choose_data(data: str | Path | ImageDataset | None) -> tuple[Path | ImageDataset, str | None]:
    """The data set, or its folder or table; and a notice if drawn images replace the photos of ants and bees."""
    if data is not None:
        return data if isinstance(data, ImageDataset) else data_root(data), None
    try:
        return hymenoptera_folder(home() / "data"), None
    except DownloadError as error:
        return drawn_folder(home() / "data"), f"DRAWN PICTURES stand in for the photos of ants and bees: {error}."


def recipe_of(settings: Settings, backbone: str, weights: StartingWeights, device: torch.device) -> Recipe:
    """The recipe for a network, with the settings that override both of its schedules.

    Raises SettingsError for the tutorial's recipe with another network than a ResNet, WeightsError for a size that the
    network does not take.
    """
    if settings.image_size is not None:
        check_image_size(backbone, settings.image_size)
    recipe = (RECIPES if weights.state is not None else RECIPES_FROM_RANDOM)[settings.recipe]
    if recipe.name == "tutorial":
        if not backbone.startswith(("resnet", "resnext", "wide_resnet")):
            raise SettingsError(f"the tutorial's recipe is for a ResNet, not for {backbone}: leave out --recipe")
        preprocessing = replace(recipe.preprocessing, crop=settings.image_size or recipe.preprocessing.crop)
        recipe = replace(recipe, preprocessing=preprocessing)
    else:
        crop = settings.image_size or weights.preprocessing.crop
        recipe = recipe.for_images(replace(weights.preprocessing, crop=crop), grow=takes_any_size(backbone))
        network = outline(backbone)
        if not has_batch_norm(network):
            recipe = replace(recipe, finetune=LAYER_NORM)
        elif weights.state is not None and has_depthwise_convolutions(network):
            recipe = replace(recipe, finetune=DEPTHWISE)
        if crashes_channels_last(network):
            recipe = replace(recipe, channels_last=False)
    flags = {"epochs": "epochs", "batch_size": "batch_size", "learning_rate": "lr", "folds": "folds"}
    given = {name: value for name, flag in flags.items() if (value := getattr(settings, flag)) is not None}
    mirror = weights.model is None or weights.model.mirror
    return replace(
        recipe.fitted(settings.fit),
        frozen=replace(recipe.frozen, **given),
        finetune=replace(recipe.finetune, **given),
        balanced=settings.balance,
        mirror=mirror if settings.mirror is None else settings.mirror,
        precision=choose_precision(settings.precision or recipe.precision, device),
    )


def read_for_training(root: Path, settings: Settings, cache: ImageCache, recipe: Recipe) -> ImageDataset:
    """`read_folder`, which caches the sizes of the decoded images that training needs."""
    crops = [recipe.augmentation(mode) or recipe.preprocessing for mode in MODES]

    def keep(file: Labelled, image: Image.Image) -> None:
        cache_photo(cache, file.path, image, crops if file.split in ("train", None) else [recipe.preprocessing])

    return read_folder(root, seed=settings.seed, follow_links=settings.follow_links, on_photo=keep)
