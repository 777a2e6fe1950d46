"""Batches: the tutorial's grid of sample photos, alive."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch
from PIL import ImageOps
from torch import Tensor

from antbee.data.folder import ImageDataset, Split
from antbee.data.images import open_photo
from antbee.data.loading import ImageLoader
from antbee.data.seeds import seeded_generator
from antbee.data.transforms import Augmentation
from antbee.evaluation import plots
from antbee.installation import command_name
from antbee.text import one_line
from antbee.training.recipe import FAST
from antbee.ui.components import Captioned, Choice, gallery, picture_of
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, Snapshot, of_classes

LARGEST_SEED = 999_999  # what the browser sends must fit into the numbers it is sent back in
LARGEST_BATCH = 32  # photos; each model predicts them all when a batch is drawn
DRAWS = 8  # of one photo's augmentation
FRAME = 8  # pixels


@dataclass(frozen=True)
class Grid:
    """A batch as the page shows it."""

    title: str
    pictures: list[Captioned]


def positions_of(split: Split, which: str, size: int, seed: int) -> Tensor:
    """The photos of a batch, by position: int64 (size,), the same for the same seed."""
    return torch.randperm(len(split), generator=seeded_generator(seed, which))[:size]


def batch(
    exhibit: Snapshot, names: Sequence[str] | None, which: str, size: int, seed: int, translate: Translator = ENGLISH
) -> list[Grid]:
    """A batch of a split: as training sees it or, of the validation photos, with what each chosen model answers."""
    photos = exhibit.photos
    if photos is None:
        return []
    split = photos.train if which == "train" else photos.val
    positions = positions_of(split, which, size, seed)
    if which == "val" and (answering := of_classes(exhibit.chosen(names), photos)):
        return [
            Grid(
                translate("batches.grid", name=shown.name, split=which, seed=seed),
                answered(shown, photos, positions, translate),
            )
            for shown in answering
        ]
    looks = ImageLoader(split, _preprocessing(exhibit), _augmentation(exhibit) if which == "train" else None, seed=seed)
    images = visible(looks, positions)
    captions = [one_line(photos.class_names[split.labels[position]]) for position in positions]
    pictures = [(picture_of(image), caption) for image, caption in zip(images, captions, strict=True)]
    return [Grid(translate("batches.grid", name=photos.name, split=which, seed=seed), pictures)]


def draws(
    exhibit: Snapshot, which: str, size: int, seed: int, picked: int, translate: Translator = ENGLISH
) -> list[Captioned]:
    """What training would see of one photo of a batch in its first eight epochs."""
    photos = exhibit.photos
    assert photos is not None
    split = photos.train if which == "train" else photos.val
    position = positions_of(split, which, size, seed)[picked : picked + 1]
    looks = ImageLoader(split, _preprocessing(exhibit), _augmentation(exhibit), seed=seed)
    return [
        (picture_of(visible(looks, position, epoch)[0]), translate("batches.draw", epoch=epoch))
        for epoch in range(1, DRAWS + 1)
    ]


def _preprocessing(exhibit: Snapshot) -> Any:
    return exhibit.models[0].config.preprocessing if exhibit.models else FAST.preprocessing


def _augmentation(exhibit: Snapshot) -> Augmentation:
    """The random crops that fine-tuning learned from, at the evaluation's size."""
    recipes = [shown.config.recipe for shown in exhibit.models]
    known = (crop for recipe in recipes if (crop := recipe.get("smallest_crop")) is not None)
    smallest_crop = next(known, FAST.smallest_crop)
    return Augmentation(smallest_crop, (_preprocessing(exhibit).crop,))


def visible(photos: ImageLoader, positions: Tensor, epoch: int = 0) -> Tensor:
    """Photos as the network is given them, made visible again: float32 (B, 3, H, W) in 0..1."""
    ((images, _),) = photos.batches([positions], epoch)
    return photos.preprocessing.unnormalise(images)


def answered(
    shown: LoadedModel, photos: ImageDataset, positions: Tensor, translate: Translator = ENGLISH
) -> list[Captioned]:
    """Validation photos with a model's answers: framed and signed as right or wrong, with the class it really is."""
    images = visible(ImageLoader(photos.val, shown.config.preprocessing), positions)
    predictions = shown.classifier.predict([open_photo(photos.val.paths[position]) for position in positions])
    pictures = []
    for image, position, prediction in zip(images, positions, predictions, strict=True):
        truth = photos.class_names[photos.val.labels[position]]
        right = prediction.label == truth
        answer = f"{one_line(prediction.label)} {prediction.probabilities[prediction.label]:.0%}"
        sign = plots.RIGHT_SIGN if right else plots.WRONG_SIGN
        caption = f"{sign} {answer}" if right else f"{sign} {answer}, {translate('batches.is', truth=one_line(truth))}"
        frame = plots.RIGHT if right else plots.WRONG
        pictures.append((ImageOps.expand(picture_of(image), FRAME, frame), caption))
    return pictures


def batches_tab(registry: ModelRegistry, choice: Choice) -> None:
    """Batches of both splits, and what augmentation does to one photo."""
    missing = gr.Markdown(visible=False)
    gr.Markdown(label("batches.intro"))
    with gr.Row():
        split = gr.Radio(["train", "val"], value="train", label=label("batches.split"))
        size = gr.Slider(4, LARGEST_BATCH, value=8, step=4, label=label("batches.size"))
        seed = gr.Number(0, precision=0, minimum=0, maximum=LARGEST_SEED, label=label("batches.seed"))
        new = gr.Button(label("batches.new"), variant="primary")
    grids = [_grid() for _ in range(SIDE_BY_SIDE)]
    drawn = _grid(label=label("batches.draws"))

    def fill(names: list[str], split: str, size: int, seed: int, request: gr.Request) -> list[Any]:
        translate, exhibit = translator_of(request), registry.now
        found = batch(exhibit, names, split, size, seed or 0, translate)
        galleries: list[Any] = [gr.Gallery(grid.pictures, label=grid.title, visible=True) for grid in found]
        galleries += [gr.Gallery(None, visible=False)] * (SIDE_BY_SIDE - len(found))
        told = translate("page.no_photos", app=command_name("app"))
        return [gr.Markdown(told, visible=exhibit.photos is None), *galleries, gr.Gallery(None, visible=False)]

    def draw(split: str, size: int, seed: int, request: gr.Request, picked: gr.SelectData) -> Any:
        return gr.Gallery(
            draws(registry.now, split, size, seed or 0, picked.index, translator_of(request)), visible=True
        )

    inputs = [split, size, seed]
    changes = [*choice.changes, split.change, size.release, seed.change]
    gr.on(changes, fill, [choice.models, *inputs], [missing, *grids, drawn], api_visibility="private")
    new.click(lambda seed: ((seed or 0) + 1) % (LARGEST_SEED + 1), seed, seed, api_visibility="private")
    gr.on([grid.select for grid in grids], draw, inputs, drawn, api_visibility="private")


def _grid(**settings: Any) -> gr.Gallery:
    return gallery("tiles", columns=4, object_fit="contain", allow_preview=False, visible=False, **settings)
