"""Batches: sample batches of both splits, augmentation, and the models' predictions."""

from collections.abc import Sequence
from dataclasses import replace
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
from antbee.ui.components import EACH, NEWEST, Captioned, Choice, Pictures, gallery, picture_of
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, Snapshot, of_classes

LARGEST_SEED = 999_999  # JavaScript has no 64-bit integers
LARGEST_BATCH = 32  # photos; each model predicts all of them for every new batch
AUGMENTED = 8  # augmented versions of one photo
FRAME = 8  # pixels


def positions_of(split: Split, which: str, size: int, seed: int) -> Tensor:
    """The positions of the photos of a batch: int64 (min(size, N),), reproducible by seed."""
    return torch.randperm(len(split), generator=seeded_generator(seed, which))[:size]


def batch(
    snapshot: Snapshot, names: Sequence[str] | None, which: str, size: int, seed: int, translate: Translator = ENGLISH
) -> list[Pictures]:
    """A random batch of a split, which is "train" or "val".

    Training photos are augmented: one grid. Validation photos are shown with the predictions of each chosen model that
    has their classes, a grid for each model; without such a model in one grid. No grids without photos.
    """
    photos = snapshot.photos
    if photos is None:
        return []
    split = photos.train if which == "train" else photos.val
    positions = positions_of(split, which, size, seed)
    if which == "val" and (models := of_classes(snapshot.chosen(names), photos)):
        return [
            Pictures(
                translate("batches.grid", name=model.name, split=which, seed=seed),
                predicted(model, photos, positions, translate),
            )
            for model in models
        ]
    augmentation = _augmentation(snapshot) if which == "train" else None
    images = unnormalised(ImageLoader(split, _preprocessing(snapshot), augmentation, seed=seed), positions)
    captions = [one_line(photos.class_names[split.labels[position]]) for position in positions]
    pictures = [(picture_of(image), caption) for image, caption in zip(images, captions, strict=True)]
    return [Pictures(translate("batches.grid", name=photos.name, split=which, seed=seed), pictures)]


def augmented(
    snapshot: Snapshot, which: str, size: int, seed: int, picked: int, translate: Translator = ENGLISH
) -> list[Captioned]:
    """One photo of a batch as training augments it in its first epochs; `picked` is its place in the batch.

    Needs a snapshot with photos.
    """
    photos = snapshot.photos
    assert photos is not None
    split = photos.train if which == "train" else photos.val
    position = positions_of(split, which, size, seed)[picked : picked + 1]
    loader = ImageLoader(split, _preprocessing(snapshot), _augmentation(snapshot), seed=seed)
    return [
        (picture_of(unnormalised(loader, position, epoch)[0]), translate("batches.draw", epoch=epoch))
        for epoch in range(1, AUGMENTED + 1)
    ]


def _preprocessing(snapshot: Snapshot) -> Any:
    return snapshot.models[0].config.preprocessing if snapshot.models else FAST.preprocessing


def _augmentation(snapshot: Snapshot) -> Augmentation:
    """The random crops of the models' recipe, at the size of the evaluation's crop."""
    recipes = [model.config.recipe for model in snapshot.models]
    mirror = all(recipe.get("mirror") is not False for recipe in recipes)
    changes = {"preprocessing": _preprocessing(snapshot), "finetune_sizes": (), "shorter_side": None, "mirror": mirror}
    augmentation = replace(FAST, **changes).fitted(None).augmentation("finetune")
    assert augmentation is not None  # as always in this mode
    crops = [crop for recipe in recipes if (crop := recipe.get("smallest_crop")) is not None]
    return replace(augmentation, smallest_crop=crops[0]) if crops else augmentation


def unnormalised(loader: ImageLoader, positions: Tensor, epoch: int = 0) -> Tensor:
    """The network's input for these photos, without normalisation: float32 (B, 3, H, W) in 0..1."""
    ((images, _),) = loader.batches([positions], epoch)
    return loader.preprocessing.unnormalise(images)


def predicted(
    model: LoadedModel, photos: ImageDataset, positions: Tensor, translate: Translator = ENGLISH
) -> list[Captioned]:
    """Validation photos with a model's predictions; frames and captions show which are right."""
    images = unnormalised(ImageLoader(photos.val, model.config.preprocessing), positions)
    predictions = model.classifier.predict([open_photo(photos.val.paths[position]) for position in positions])
    pictures = []
    for image, position, prediction in zip(images, positions, predictions, strict=True):
        truth = photos.class_names[photos.val.labels[position]]
        right = prediction.label == truth
        text = f"{one_line(prediction.label)} {prediction.probabilities[prediction.label]:.0%}"
        sign = plots.RIGHT_SIGN if right else plots.WRONG_SIGN
        caption = f"{sign} {text}" if right else f"{sign} {text}, {translate('batches.is', truth=one_line(truth))}"
        frame = plots.RIGHT if right else plots.WRONG
        pictures.append((ImageOps.expand(picture_of(image), FRAME, frame), caption))
    return pictures


def batches_tab(registry: ModelRegistry, choice: Choice) -> None:
    """Batches of both splits, and augmented versions of one photo."""
    missing = gr.Markdown(visible=False)
    gr.Markdown(label("batches.intro"))
    with gr.Row():
        split = gr.Radio(["train", "val"], value="train", label=label("batches.split"))
        size = gr.Slider(4, LARGEST_BATCH, value=8, step=4, label=label("batches.size"))
        seed = gr.Number(0, precision=0, minimum=0, maximum=LARGEST_SEED, label=label("batches.seed"))
        new = gr.Button(label("batches.new"), variant="primary")
    grids = [_grid() for _ in range(SIDE_BY_SIDE)]
    versions = _grid(label=label("batches.draws"))

    def show_batch(names: list[str], split: str, size: int, seed: int, request: gr.Request) -> list[Any]:
        translate, snapshot = translator_of(request), registry.snapshot
        found = batch(snapshot, names, split, size, seed or 0, translate)
        galleries: list[Any] = [gr.Gallery(grid.pictures, label=grid.title, visible=True) for grid in found]
        galleries += [gr.Gallery(None, visible=False)] * (SIDE_BY_SIDE - len(found))
        message = translate("page.no_photos", app=command_name("app"))
        return [gr.Markdown(message, visible=snapshot.photos is None), *galleries, gr.Gallery(None, visible=False)]

    def show_augmented(split: str, size: int, seed: int, request: gr.Request, picked: gr.SelectData) -> Any:
        return gr.Gallery(
            augmented(registry.snapshot, split, size, seed or 0, picked.index, translator_of(request)), visible=True
        )

    inputs = [split, size, seed]
    changes = [*choice.changes, split.change, size.release, seed.change]
    gr.on(changes, show_batch, [choice.models, *inputs], [missing, *grids, versions], **NEWEST)
    new.click(lambda seed: ((seed or 0) + 1) % (LARGEST_SEED + 1), seed, seed, queue=False, **NEWEST)
    gr.on([grid.select for grid in grids], show_augmented, inputs, versions, **EACH)


def _grid(**settings: Any) -> gr.Gallery:
    return gallery("tiles", columns=4, object_fit="contain", allow_preview=False, visible=False, **settings)
