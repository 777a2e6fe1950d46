"""Inside: one photo's way through the network, from the file to the loss, in the model's own numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas
import torch
from PIL import Image
from torch import Tensor

from antbee.data.transforms import Preprocessing, pixels_of
from antbee.evaluation import plots
from antbee.models.activations import MAPS, Activations, block_count, depth, record_activations, strongest_channels
from antbee.models.config import ClassifierConfig
from antbee.text import as_text, one_line
from antbee.ui.components import Captioned, Choice, gallery, photo_of, picture_of
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, how_to_train

CHANNELS = 8  # shown of each stage
SHOWN_STAGES = tuple(name for name in MAPS if name != "maxpool")  # whose maps are conv1's, only smaller
COLOURS = ("red", "green", "blue")
MOST_NAMES = 10  # of classes in a sentence
PHOTO_SIDE = 640  # pixels


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


def way(photo: Image.Image, shown: LoadedModel, translate: Translator = ENGLISH) -> list[Step]:
    """A photo's way through a model: photo, tensor, normalisation, stages, features, answer."""
    config, classifier = shown.config, shown.classifier
    pixels = pixels_of([classifier.crop(photo)])
    image = config.preprocessing.normalise(pixels.to(classifier.device))
    parts = record_activations(classifier.network, image)
    return [
        _photo(photo, config, translate),
        _tensor(photo, pixels[0], config.preprocessing, translate),
        _normalisation(pixels[0], image[0].cpu(), config.preprocessing, translate),
        _stages(shown, parts, translate),
        _features(parts, translate),
        _answer(parts, config.label_names, translate),
    ]


def _photo(photo: Image.Image, config: ClassifierConfig, translate: Translator) -> Step:
    classes = [f"{as_text(name)} = {index}" for index, name in enumerate(config.label_names[:MOST_NAMES])]
    classes += ["…"] * (len(config.label_names) > MOST_NAMES)
    caption = translate("inside.photo.size", width=photo.width, height=photo.height)
    pictures = Pictures(translate("inside.photo.title"), [(_small(photo), caption)])
    return Step(translate("inside.photo.told", classes=", ".join(classes)), (pictures,))


def _small(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return small


def _tensor(photo: Image.Image, pixels: Tensor, preprocessing: Preprocessing, translate: Translator) -> Step:
    """Pixels, uint8 (3, H, W), of the photo's crop."""
    small, tensor = _small(photo), pixels / 255
    nothing_glows = torch.zeros(1, 1)
    cut = plots.heat_map(small, nothing_glows, preprocessing.crop_box(*small.size), strongest=1.0)
    pictures = [(cut, translate("inside.tensor.cut")), (picture_of(tensor), translate("inside.tensor.shown"))]
    middle = preprocessing.crop // 2
    rows = [
        _form("picture", pixels.permute(1, 2, 0), pixels[:, middle, middle], "d", translate),
        _form("tensor", tensor, tensor[:, middle, middle], ".2f", translate),
    ]
    columns = [translate(f"inside.{name}") for name in ("form", "shape", "type", "range", "middle")]
    told = translate("inside.tensor.told", resize=preprocessing.resize, crop=preprocessing.crop)
    return Step(told, (Pictures(translate("inside.tensor.title"), pictures),), pandas.DataFrame(rows, columns=columns))


def _form(kind: str, numbers: Tensor, pixel: Tensor, digits: str, translate: Translator) -> tuple[str, ...]:
    """A row on a photo in one of its forms: shape, type, smallest and largest value, and one pixel of it."""
    return (
        translate(f"inside.tensor.{kind}"),
        _shape(numbers.shape),
        str(numbers.dtype).removeprefix("torch."),
        _range(numbers, digits, translate),
        ", ".join(f"{value:{digits}}" for value in pixel.tolist()),
    )


def _shape(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _range(numbers: Tensor, digits: str, translate: Translator) -> str:
    smallest, largest = numbers.min().item(), numbers.max().item()
    return translate("inside.from_to", smallest=f"{smallest:{digits}}", largest=f"{largest:{digits}}")


def _normalisation(pixels: Tensor, image: Tensor, preprocessing: Preprocessing, translate: Translator) -> Step:
    """Pixels, uint8 (3, H, W), and what normalising made of them, float32 (3, H, W)."""
    names = [translate(f"inside.{colour}") for colour in COLOURS]
    before, after = ([_range(channel, ".2f", translate) for channel in channels] for channels in (pixels / 255, image))
    means, deviations = ([f"{value:g}" for value in values] for values in (preprocessing.mean, preprocessing.std))
    columns = [translate(f"inside.{name}") for name in ("channel", "mean", "std", "before", "after")]
    rows = list(zip(names, means, deviations, before, after, strict=True))
    captions = [translate("inside.spread", name=name, spread=spread) for name, spread in zip(names, after, strict=True)]
    pictures = list(zip(plots.signed_channels(image), captions, strict=True))
    return Step(
        translate("inside.normalised.told"),
        (Pictures(translate("inside.normalised.title"), pictures),),
        pandas.DataFrame(rows, columns=columns),
    )


def _stages(shown: LoadedModel, parts: Activations, translate: Translator) -> Step:
    names = ("stage", "shape.batch", "parameters", "frozen", "finetune", "does")
    rows = [
        (
            stage.name,
            _shape(stage.shape),
            f"{stage.parameters:,}",
            f"{stage.trainable_frozen:,}",
            f"{stage.trainable_finetune:,}",
            translate(f"inside.does.{stage.name}"),
        )
        for stage in parts.stages
    ]
    counts = [(stage.parameters, stage.trainable_frozen, stage.trainable_finetune) for stage in parts.stages]
    parameters, frozen, finetune = (f"{sum(column):,}" for column in zip(*counts, strict=True))
    rows.append((translate("inside.sum"), "", parameters, frozen, finetune, ""))
    network = shown.classifier.network
    told = translate(
        "inside.stages.told",
        architecture=as_text(shown.config.architecture),
        depth=depth(network),
        blocks=block_count(network),
        weights=as_text(shown.config.weights.name or translate("inside.unknown")),
        tensors=len(network.state_dict()),
    )
    galleries = tuple(_strongest(parts, name, translate) for name in SHOWN_STAGES)
    return Step(told, galleries, pandas.DataFrame(rows, columns=[translate(f"inside.{name}") for name in names]))


def _strongest(parts: Activations, name: str, translate: Translator) -> Pictures:
    """The channels of a stage that answer to the photo most, each with its largest value."""
    activation = parts.activation(name)
    _, channel_count, height, width = activation.shape
    channels = strongest_channels(activation, CHANNELS)
    title = translate(
        "inside.stages.title", stage=name, shown=len(channels), count=channel_count, height=height, width=width
    )
    captions = [
        translate("inside.stages.channel", channel=channel, largest=f"{activation[0, channel].max():.1f}")
        for channel in channels
    ]
    return Pictures(title, list(zip(plots.channels(activation[0, channels]), captions, strict=True)))


def _features(parts: Activations, translate: Translator) -> Step:
    features, maps = parts.features.tolist(), parts.activation("layer4")
    (strongest,) = strongest_channels(maps, 1)
    told = translate(
        "inside.features.told",
        count=len(features),
        height=maps.shape[2],
        width=maps.shape[3],
        strongest=strongest,
        value=f"{features[strongest]:.2f}",
    )
    return Step(told, bars=pandas.DataFrame({"number": range(len(features)), "value": features}))


def _answer(parts: Activations, label_names: Sequence[str], translate: Translator) -> Step:
    numbers = zip(label_names, parts.logits.tolist(), parts.probabilities.tolist(), parts.losses.tolist(), strict=True)
    rows = [
        (str(index), one_line(name), f"{logit:.3f}", f"{probability:.4f}", f"{loss:.3f}")
        for index, (name, logit, probability, loss) in enumerate(numbers)
    ]
    columns = [translate(f"inside.{name}") for name in ("index", "class", "logit", "softmax", "loss")]
    best = parts.answer
    told = translate(
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
    concluded = translate("inside.answer.loss", **first, **{f"other_{key}": value for key, value in second.items()})
    return Step(told, table=pandas.DataFrame(rows, columns=columns), concluded=concluded)


def inside_tab(registry: ModelRegistry, choice: Choice, photo: gr.Image, tab: gr.Tab) -> None:
    """The way of the photo on the tab Classify through one of the models; computed when the tab is opened."""
    missing = gr.Markdown(visible=False)
    names = registry.now.names[:SIDE_BY_SIDE]
    picked = gr.Radio(names, label=label("inside.model"), visible=len(names) > 1)
    with gr.Column(visible=False) as column:
        gr.Markdown(label("inside.intro"))
        with gr.Tabs(overflow_behavior="wrap"):
            slots = [_photo_slot(), _tensor_slot(), _normalisation_slot(), _stages_slot(), _features_slot()]
            slots.append(_answer_slot())

    def walk(
        upload: dict[str, Any] | None, names: list[str] | None, name: str | None, request: gr.Request
    ) -> list[Any]:
        translate, models = translator_of(request), registry.now.chosen(names)
        picture = photo_of(upload, translate)
        shown = next((shown for shown in models if shown.name == name), models[0] if models else None)
        known = [one.name for one in models]
        radio = gr.Radio(known, value=shown.name if shown else None, visible=len(known) > 1)
        if shown is None or picture is None:
            told = how_to_train(translate) if shown is None else translate("inside.no_photo")
            empty = [gr.skip() for slot in slots for _ in slot]
            return [gr.Markdown(told, visible=True), radio, gr.Column(visible=False), *empty]
        taken = way(picture, shown, translate)
        filled = [part for step in taken for part in _filled(step, translate)]
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


def _filled(step: Step, translate: Translator) -> Iterator[Any]:
    """What stands in a step's slot, in its order."""
    yield step.told
    for shown in step.galleries:
        yield gr.Gallery(shown.pictures, label=shown.title)
    if step.table is not None:
        yield step.table
    if step.bars is not None:
        number, value = translate("inside.features.number"), translate("inside.features.value")
        highest = 1.05 * step.bars["value"].max()
        yield gr.BarPlot(step.bars, x_title=number, y_title=value, x_lim=[-1, len(step.bars)], y_lim=[0, highest])
    if step.concluded:
        yield step.concluded
