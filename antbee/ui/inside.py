"""Inside: one photo's way through the network, from the file to the loss, in the model's own numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas
import torch
from PIL import Image
from torch import Tensor

from antbee import anatomy, figures
from antbee.anatomy import MAPS, Anatomy
from antbee.images import Preprocessing, pixels_of
from antbee.models.config import ClassifierConfig
from antbee.text import as_text, one_line
from antbee.ui.choice import Choice
from antbee.ui.exhibition import SIDE_BY_SIDE, Exhibition, Shown, how_to_train
from antbee.ui.photo import Captioned, gallery, photo_of, picture_of
from antbee.ui.words import ENGLISH, Speech, label, speech_of

CHANNELS = 8  # shown of each stage
SHOWN_STAGES = tuple(name for name in MAPS if name != "maxpool")  # whose maps are conv1's, only smaller
COLOURS = ("red", "green", "blue")
MOST_NAMES = 10  # of classes in a sentence
PHOTO_SIDE = 640  # pixels


# ---------------------------------------------------------------------------------------------------------------------
# Handlers


@dataclass(frozen=True)
class Pictures:
    """Captioned pictures under a title."""

    title: str
    pictures: list[Captioned]


@dataclass(frozen=True)
class Step:
    """One step of the way, as the page shows it; what a step does not have stays empty."""

    told: str  # Markdown
    galleries: tuple[Pictures, ...] = ()
    table: pandas.DataFrame | None = None
    bars: pandas.DataFrame | None = None  # columns number and value
    concluded: str = ""  # Markdown, below the rest


def way(photo: Image.Image, shown: Shown, speech: Speech = ENGLISH) -> list[Step]:
    """A photo's way through a model: photo, tensor, normalisation, stages, features, answer."""
    config, classifier = shown.config, shown.classifier
    pixels = pixels_of([classifier.crop(photo)])
    image = config.preprocessing.normalise(pixels.to(classifier.device))
    parts = anatomy.dissect(classifier.network, image)
    return [
        _photo(photo, config, speech),
        _tensor(photo, pixels[0], config.preprocessing, speech),
        _normalisation(pixels[0], image[0].cpu(), config.preprocessing, speech),
        _stages(shown, parts, speech),
        _features(parts, speech),
        _answer(parts, config.label_names, speech),
    ]


def _photo(photo: Image.Image, config: ClassifierConfig, speech: Speech) -> Step:
    classes = [f"{as_text(name)} = {index}" for index, name in enumerate(config.label_names[:MOST_NAMES])]
    classes += ["…"] * (len(config.label_names) > MOST_NAMES)
    caption = speech("inside.photo.size", width=photo.width, height=photo.height)
    pictures = Pictures(speech("inside.photo.title"), [(_small(photo), caption)])
    return Step(speech("inside.photo.told", classes=", ".join(classes)), (pictures,))


def _small(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return small


def _tensor(photo: Image.Image, pixels: Tensor, preprocessing: Preprocessing, speech: Speech) -> Step:
    """Pixels, uint8 (3, H, W), of the photo's crop."""
    small, tensor = _small(photo), pixels / 255
    nothing_glows = torch.zeros(1, 1)
    cut = figures.heat_map(small, nothing_glows, preprocessing.crop_box(*small.size), strongest=1.0)
    pictures = [(cut, speech("inside.tensor.cut")), (picture_of(tensor), speech("inside.tensor.shown"))]
    middle = preprocessing.crop // 2
    rows = [
        _form("picture", pixels.permute(1, 2, 0), pixels[:, middle, middle], "d", speech),
        _form("tensor", tensor, tensor[:, middle, middle], ".2f", speech),
    ]
    columns = [speech(f"inside.{name}") for name in ("form", "shape", "type", "range", "middle")]
    told = speech("inside.tensor.told", resize=preprocessing.resize, crop=preprocessing.crop)
    return Step(told, (Pictures(speech("inside.tensor.title"), pictures),), pandas.DataFrame(rows, columns=columns))


def _form(kind: str, numbers: Tensor, pixel: Tensor, digits: str, speech: Speech) -> tuple[str, ...]:
    """A row on a photo in one of its forms: shape, type, smallest and largest value, and one pixel of it."""
    return (
        speech(f"inside.tensor.{kind}"),
        _shape(numbers.shape),
        str(numbers.dtype).removeprefix("torch."),
        _range(numbers, digits, speech),
        ", ".join(f"{value:{digits}}" for value in pixel.tolist()),
    )


def _shape(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _range(numbers: Tensor, digits: str, speech: Speech) -> str:
    smallest, largest = numbers.min().item(), numbers.max().item()
    return speech("inside.from_to", smallest=f"{smallest:{digits}}", largest=f"{largest:{digits}}")


def _normalisation(pixels: Tensor, image: Tensor, preprocessing: Preprocessing, speech: Speech) -> Step:
    """Pixels, uint8 (3, H, W), and what normalising made of them, float32 (3, H, W)."""
    names = [speech(f"inside.{colour}") for colour in COLOURS]
    before, after = ([_range(channel, ".2f", speech) for channel in channels] for channels in (pixels / 255, image))
    means, deviations = ([f"{value:g}" for value in values] for values in (preprocessing.mean, preprocessing.std))
    columns = [speech(f"inside.{name}") for name in ("channel", "mean", "std", "before", "after")]
    rows = list(zip(names, means, deviations, before, after, strict=True))
    captions = [speech("inside.spread", name=name, spread=spread) for name, spread in zip(names, after, strict=True)]
    pictures = list(zip(figures.signed_channels(image), captions, strict=True))
    return Step(
        speech("inside.normalised.told"),
        (Pictures(speech("inside.normalised.title"), pictures),),
        pandas.DataFrame(rows, columns=columns),
    )


def _stages(shown: Shown, parts: Anatomy, speech: Speech) -> Step:
    names = ("stage", "shape.batch", "parameters", "frozen", "finetune", "does")
    rows = [
        (
            stage.name,
            _shape(stage.shape),
            f"{stage.parameters:,}",
            f"{stage.learn_frozen:,}",
            f"{stage.learn_finetune:,}",
            speech(f"inside.does.{stage.name}"),
        )
        for stage in parts.stages
    ]
    counts = [(stage.parameters, stage.learn_frozen, stage.learn_finetune) for stage in parts.stages]
    parameters, frozen, finetune = (f"{sum(column):,}" for column in zip(*counts, strict=True))
    rows.append((speech("inside.sum"), "", parameters, frozen, finetune, ""))
    network = shown.classifier.network
    told = speech(
        "inside.stages.told",
        architecture=as_text(shown.config.architecture),
        depth=anatomy.depth(network),
        blocks=anatomy.block_count(network),
        weights=as_text(shown.config.weights.name or speech("inside.unknown")),
        tensors=len(network.state_dict()),
    )
    galleries = tuple(_strongest(parts, name, speech) for name in SHOWN_STAGES)
    return Step(told, galleries, pandas.DataFrame(rows, columns=[speech(f"inside.{name}") for name in names]))


def _strongest(parts: Anatomy, name: str, speech: Speech) -> Pictures:
    """The channels of a stage that answer to the photo most, each with its largest value."""
    activation = parts.activation(name)
    _, channel_count, height, width = activation.shape
    channels = anatomy.strongest_channels(activation, CHANNELS)
    title = speech(
        "inside.stages.title", stage=name, shown=len(channels), count=channel_count, height=height, width=width
    )
    captions = [
        speech("inside.stages.channel", channel=channel, largest=f"{activation[0, channel].max():.1f}")
        for channel in channels
    ]
    return Pictures(title, list(zip(figures.channels(activation[0, channels]), captions, strict=True)))


def _features(parts: Anatomy, speech: Speech) -> Step:
    features, maps = parts.features.tolist(), parts.activation("layer4")
    (strongest,) = anatomy.strongest_channels(maps, 1)
    told = speech(
        "inside.features.told",
        count=len(features),
        height=maps.shape[2],
        width=maps.shape[3],
        strongest=strongest,
        value=f"{features[strongest]:.2f}",
    )
    return Step(told, bars=pandas.DataFrame({"number": range(len(features)), "value": features}))


def _answer(parts: Anatomy, label_names: Sequence[str], speech: Speech) -> Step:
    numbers = zip(label_names, parts.logits.tolist(), parts.probabilities.tolist(), parts.losses.tolist(), strict=True)
    rows = [
        (str(index), one_line(name), f"{logit:.3f}", f"{probability:.4f}", f"{loss:.3f}")
        for index, (name, logit, probability, loss) in enumerate(numbers)
    ]
    columns = [speech(f"inside.{name}") for name in ("index", "class", "logit", "softmax", "loss")]
    best = parts.answer
    told = speech(
        "inside.answer.told",
        count=len(parts.features),
        logit=f"{parts.logits[best]:.3f}",
        index=best,
        answer=as_text(label_names[best]),
        probability=f"{parts.probabilities[best]:.1%}",
    )
    first, second = (
        {
            "truth": as_text(label_names[index]),
            "probability": f"{parts.probabilities[index]:.4f}",
            "loss": f"{parts.losses[index]:.3f}",
        }
        for index in parts.probabilities.topk(2).indices.tolist()
    )
    concluded = speech("inside.answer.loss", **first, **{f"other_{key}": value for key, value in second.items()})
    return Step(told, table=pandas.DataFrame(rows, columns=columns), concluded=concluded)


# ---------------------------------------------------------------------------------------------------------------------
# The tab


def inside_tab(exhibition: Exhibition, choice: Choice, photo: gr.Image, tab: gr.Tab) -> None:
    """The way of the photo on the tab Classify through one of the models; computed when the tab is opened."""
    missing = gr.Markdown(visible=False)
    names = exhibition.now.names[:SIDE_BY_SIDE]
    picked = gr.Radio(names, label=label("inside.model"), visible=len(names) > 1)
    with gr.Column(visible=False) as column:
        gr.Markdown(label("inside.intro"))
        with gr.Tabs(overflow_behavior="wrap"):
            slots = [_photo_slot(), _tensor_slot(), _normalisation_slot(), _stages_slot(), _features_slot()]
            slots.append(_answer_slot())

    def walk(
        upload: dict[str, Any] | None, names: list[str] | None, name: str | None, request: gr.Request
    ) -> list[Any]:
        speech, models = speech_of(request), exhibition.now.chosen(names)
        picture = photo_of(upload, speech)
        shown = next((shown for shown in models if shown.name == name), models[0] if models else None)
        known = [one.name for one in models]
        radio = gr.Radio(known, value=shown.name if shown else None, visible=len(known) > 1)
        if shown is None or picture is None:
            told = how_to_train(speech) if shown is None else speech("inside.no_photo")
            empty = [gr.skip() for slot in slots for _ in slot]
            return [gr.Markdown(told, visible=True), radio, gr.Column(visible=False), *empty]
        taken = way(picture, shown, speech)
        filled = [part for step in taken for part in _filled(step, speech)]
        return [gr.Markdown(visible=False), radio, gr.Column(visible=True), *filled]

    def walk_again(
        upload: dict[str, Any] | None, names: list[str] | None, name: str | None, request: gr.Request
    ) -> Any:
        return gr.skip() if name is None else walk(upload, names, name, request)

    inputs = [photo, choice.models, picked]
    outputs = [missing, picked, column, *[part for slot in slots for part in slot]]
    settings: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress_on": picked}
    gr.on([tab.select, picked.input], walk, inputs, outputs, **settings)
    # Nothing is picked, and nothing to be renewed, before the tab was opened once.
    gr.on(choice.changes[1:], walk_again, inputs, outputs, show_progress="hidden", **settings)


def _photo_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.photo")), gr.Row():
        with gr.Column(scale=2, min_width=280):
            pictures = _gallery(1, "whole")
        with gr.Column(scale=3, min_width=280):
            return [_text(), pictures]


def _tensor_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.tensor")), gr.Row():
        with gr.Column(scale=2, min_width=280):
            pictures = _gallery(2, "whole")
        with gr.Column(scale=3, min_width=280):
            return [_text(), pictures, _table()]


def _normalisation_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.normalised")):
        return [_text(), _gallery(3), _table()]


def _stages_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.stages")):
        told, table = _text(), _table()
        gr.Markdown(label("inside.stages.maps"), elem_classes="reading")
        return [told, *[_gallery(CHANNELS, "tiles") for _ in SHOWN_STAGES], table]


def _features_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.features")):
        return [_text(), gr.BarPlot(x="number", y="value", height=300, label=label("inside.features.bars"))]


def _answer_slot() -> list[gr.blocks.Block]:
    with gr.Tab(label("inside.answer")):
        return [_text(), _table(), _text()]


def _text() -> gr.Markdown:
    return gr.Markdown(elem_classes="reading")


def _gallery(columns: int, *classes: str) -> gr.Gallery:
    return gallery(*classes, columns=columns, object_fit="contain", format="png", allow_preview=False)


def _table() -> gr.Dataframe:
    return gr.Dataframe(show_label=False, interactive=False, pinned_columns=1, buttons=[])


def _filled(step: Step, speech: Speech) -> Iterator[Any]:
    """What stands in a step's slot, in its order."""
    yield step.told
    for shown in step.galleries:
        yield gr.Gallery(shown.pictures, label=shown.title)
    if step.table is not None:
        yield step.table
    if step.bars is not None:
        number, value = speech("inside.features.number"), speech("inside.features.value")
        highest = 1.05 * step.bars["value"].max()
        yield gr.BarPlot(step.bars, x_title=number, y_title=value, x_lim=[-1, len(step.bars)], y_lim=[0, highest])
    if step.concluded:
        yield step.concluded
