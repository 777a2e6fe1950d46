"""Inside: the processing of one photo step by step, from the file to the loss, with the model's own values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas
import torch
from PIL import Image
from torch import Tensor

from antbee.data.transforms import Preprocessing, pixels_of
from antbee.evaluation import plots
from antbee.models.activations import MOST_STAGES, Activations, record_activations, residual_blocks, strongest_channels
from antbee.models.config import ClassifierConfig
from antbee.text import as_text, one_line
from antbee.ui.components import NEWEST, Choice, Pictures, gallery, photo_of, picture_of
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, how_to_train

CHANNELS = 8  # pictures of each stage
COLOURS = ("red", "green", "blue")
MOST_NAMES = 10  # class names in a sentence
PHOTO_SIDE = 640  # pixels


@dataclass(frozen=True)
class Step:
    """The contents of one step; parts that a step lacks are empty."""

    text: str  # Markdown
    galleries: tuple[Pictures, ...] = ()
    table: pandas.DataFrame | None = None
    bars: pandas.DataFrame | None = None  # columns number and value
    conclusion: str = ""  # Markdown, below the table
    most_galleries: int = 0  # of the slot, where that depends on the network


def steps_of(photo: Image.Image, model: LoadedModel, translate: Translator = ENGLISH) -> list[Step]:
    """The six steps from a photo to its prediction: photo, tensor, normalisation, stages, features, prediction."""
    config, classifier = model.config, model.classifier
    pixels = pixels_of([classifier.crop(photo)])
    image = config.preprocessing.normalise(pixels.to(classifier.device))
    activations = record_activations(classifier.network, image)
    return [
        _photo(photo, config, translate),
        _tensor(photo, pixels[0], config.preprocessing, translate),
        _normalisation(pixels[0], image[0].cpu(), config.preprocessing, translate),
        _stages(model, activations, translate),
        _features(activations, classifier.explains_exactly, translate),
        _prediction(activations, config.label_names, translate),
    ]


def _photo(photo: Image.Image, config: ClassifierConfig, translate: Translator) -> Step:
    classes = [f"{as_text(name)} = {index}" for index, name in enumerate(config.label_names[:MOST_NAMES])]
    classes += ["…"] * (len(config.label_names) > MOST_NAMES)
    caption = translate("inside.photo.size", width=photo.width, height=photo.height)
    pictures = Pictures(translate("inside.photo.title"), [(_small(photo), caption)])
    return Step(translate("inside.photo.explanation", classes=", ".join(classes)), (pictures,))


def _small(photo: Image.Image) -> Image.Image:
    small = photo.copy()
    small.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return small


def _tensor(photo: Image.Image, pixels: Tensor, preprocessing: Preprocessing, translate: Translator) -> Step:
    """The step from the photo to its crop, uint8 (3, H, W), and to a tensor in 0..1."""
    small, tensor = _small(photo), pixels / 255
    no_activation = torch.zeros(1, 1)  # the heat map then only darkens what the crop leaves out
    cut = plots.heat_map(small, no_activation, preprocessing.crop_box(*small.size), strongest=1.0)
    pictures = [(cut, translate("inside.tensor.cut")), (picture_of(tensor), translate("inside.tensor.shown"))]
    middle = preprocessing.crop // 2
    rows = [
        _representation("picture", pixels.permute(1, 2, 0), pixels[:, middle, middle], "d", translate),
        _representation("tensor", tensor, tensor[:, middle, middle], ".2f", translate),
    ]
    square = translate(f"inside.tensor.{preprocessing.fit}", resize=preprocessing.resize, crop=preprocessing.crop)
    text = translate("inside.tensor.explanation", square=square)
    table = _frame(rows, ("form", "shape", "type", "range", "middle"), translate)
    return Step(text, (Pictures(translate("inside.tensor.title"), pictures),), table)


def _frame(rows: Sequence[Sequence[str]], names: Sequence[str], translate: Translator) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=[translate(f"inside.{name}") for name in names])


def _representation(kind: str, numbers: Tensor, pixel: Tensor, digits: str, translate: Translator) -> tuple[str, ...]:
    """A row of the table: shape, type, minimum and maximum, and the values of one pixel."""
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
    """The step from pixels, uint8 (3, H, W), to the normalised image, float32 (3, H, W)."""
    names = [translate(f"inside.{colour}") for colour in COLOURS]
    before, after = ([_range(channel, ".2f", translate) for channel in channels] for channels in (pixels / 255, image))
    means, deviations = ([f"{value:g}" for value in values] for values in (preprocessing.mean, preprocessing.std))
    rows = list(zip(names, means, deviations, before, after, strict=True))
    captions = [translate("inside.spread", name=name, spread=spread) for name, spread in zip(names, after, strict=True)]
    pictures = Pictures(
        translate("inside.normalised.title"), list(zip(plots.signed_channels(image), captions, strict=True))
    )
    table = _frame(rows, ("channel", "mean", "std", "before", "after"), translate)
    return Step(translate("inside.normalised.explanation"), (pictures,), table)


def _stages(model: LoadedModel, activations: Activations, translate: Translator) -> Step:
    counts = [[stage.parameters, stage.trainable_frozen, stage.trainable_finetune] for stage in activations.stages]
    counts.append([sum(column) for column in zip(*counts, strict=True)])
    does = {name: translate(f"inside.does.{name}") for name in ("input", "pooling", "head")}
    stages = [(one.name, _shape(one.shape), one.parts or does[one.name]) for one in activations.stages]
    stages.append((translate("inside.sum"), "", ""))
    rows = [
        (name, shape, *(f"{count:,}" for count in row), does)
        for (name, shape, does), row in zip(stages, counts, strict=True)
    ]
    network = model.classifier.network
    text = translate(
        "inside.stages.explanation",
        architecture=as_text(model.config.architecture),
        weights=as_text(model.config.weights.name or translate("inside.unknown")),
        tensors=len(network.state_dict()),
    )
    if blocks := residual_blocks(network):
        text = f"{text}\n\n{translate('inside.stages.residual', blocks=blocks)}"
    galleries = tuple(_strongest(name, maps, translate) for name, maps in activations.maps.items())
    table = _frame(rows, ("stage", "shape.batch", "parameters", "frozen", "finetune", "does"), translate)
    return Step(text, galleries, table, conclusion=translate("inside.stages.maps"), most_galleries=MOST_STAGES)


def _strongest(name: str, activation: Tensor, translate: Translator) -> Pictures:
    """The channels of a stage, (C, h, w), with the largest mean activations, each with its maximum."""
    count, height, width = activation.shape
    channels = strongest_channels(activation, CHANNELS)
    title = translate("inside.stages.title", stage=name, shown=len(channels), count=count, height=height, width=width)
    captions = [
        translate("inside.stages.channel", channel=channel, largest=f"{activation[channel].max():.1f}")
        for channel in channels
    ]
    return Pictures(title, list(zip(plots.channels(activation[channels]), captions, strict=True)))


def _features(activations: Activations, are_means: bool, translate: Translator) -> Step:
    features, strongest = activations.features.tolist(), int(activations.features.argmax())
    largest = {"strongest": strongest, "value": f"{features[strongest]:.2f}"}
    text = translate("inside.features.explanation", count=len(features), **largest)
    if are_means:
        text = f"{text}\n\n{translate('inside.features.means')}"
    return Step(text, bars=pandas.DataFrame({"number": range(len(features)), "value": features}))


def _prediction(activations: Activations, label_names: Sequence[str], translate: Translator) -> Step:
    logits, probabilities, losses = activations.logits, activations.probabilities, activations.losses
    rows = [
        (str(index), one_line(name), f"{logits[index]:.3f}", f"{probabilities[index]:.4f}", f"{losses[index]:.3f}")
        for index, name in enumerate(label_names)
    ]
    best = activations.answer
    text = translate(
        "inside.prediction.explanation",
        count=len(activations.features),
        logit=f"{logits[best]:.3f}",
        index=best,
        predicted=as_text(label_names[best]),
        probability=f"{probabilities[best]:.1%}",
    )
    values: dict[str, str] = {}
    for prefix, index in zip(("", "other_"), probabilities.topk(2).indices.tolist(), strict=True):
        values |= {f"{prefix}truth": as_text(label_names[index]), f"{prefix}loss": f"{losses[index]:.3f}"}
        values[f"{prefix}probability"] = f"{probabilities[index]:.4f}"
    conclusion = translate("inside.prediction.loss", **values)
    table = _frame(rows, ("index", "class", "logit", "softmax", "loss"), translate)
    return Step(text, table=table, conclusion=conclusion)


def inside_tab(registry: ModelRegistry, choice: Choice, photo: gr.Image, tab: gr.Tab) -> None:
    """Shows how a model processes the photo of the tab Classify. Computed when the tab is opened."""
    message = gr.Markdown(visible=False)
    names = registry.snapshot.names[:SIDE_BY_SIDE]
    picked = gr.Radio(names, label=label("inside.model"), visible=len(names) > 1)
    with gr.Column(visible=False) as column:
        gr.Markdown(label("inside.intro"))
        with gr.Tabs(overflow_behavior="wrap"):
            slots = [
                _step_slot("photo", columns=[1]),
                _step_slot("tensor", "table", columns=[2]),
                _step_slot("normalised", "table", columns=[3]),
                _step_slot("stages", "table", "conclusion", columns=[CHANNELS] * MOST_STAGES),
                _step_slot("features", "bars"),
                _step_slot("prediction", "table", "conclusion"),
            ]

    def show(
        upload: dict[str, Any] | None, names: list[str] | None, name: str | None, request: gr.Request
    ) -> list[Any]:
        translate, models = translator_of(request), registry.snapshot.chosen(names)
        picture = photo_of(upload, translate)
        model = next((model for model in models if model.name == name), models[0] if models else None)
        known = [one.name for one in models]
        radio = gr.Radio(known, value=model.name if model else None, visible=len(known) > 1)
        if model is None or picture is None:
            text = how_to_train(translate) if model is None else translate("inside.no_photo")
            empty = [gr.skip() for slot in slots for _ in slot]
            return [gr.Markdown(text, visible=True), radio, gr.Column(visible=False), *empty]
        filled = [part for step in steps_of(picture, model, translate) for part in _filled(step, translate)]
        return [gr.Markdown(visible=False), radio, gr.Column(visible=True), *filled]

    def update(upload: dict[str, Any] | None, names: list[str] | None, name: str | None, request: gr.Request) -> Any:
        return gr.skip() if name is None else show(upload, names, name, request)

    inputs = [photo, choice.models, picked]
    outputs = [message, picked, column, *[part for slot in slots for part in slot]]
    settings: dict[str, Any] = NEWEST | {"preprocess": False, "show_progress_on": picked}
    gr.on([tab.select, picked.input], show, inputs, outputs, **settings)
    # Before the tab is first opened no model is picked, and nothing needs an update.
    gr.on(choice.changes[1:], update, inputs, outputs, show_progress="hidden", **settings)


def _step_slot(name: str, *parts: str, columns: Sequence[int] = ()) -> list[gr.blocks.Block]:
    """The components of a step, in the order of `_filled`; its galleries have so many columns each."""
    make: dict[str, Callable[[], gr.blocks.Block]] = {"table": _table, "bars": _bars, "conclusion": _text}
    # A few large pictures stand beside the text, many small ones below it.
    with gr.Tab(label(f"inside.{name}")), gr.Row() if len(columns) == 1 else gr.Column():
        with gr.Column(scale=3, min_width=280):
            components = [_text(), *[make[part]() for part in parts]]
        with gr.Column(scale=2, min_width=280, visible=bool(columns)):
            return [*components, *map(_gallery, columns)]


def _text() -> gr.Markdown:
    return gr.Markdown(elem_classes="reading")


def _bars() -> gr.BarPlot:
    return gr.BarPlot(x="number", y="value", height=300, label=label("inside.features.bars"))


def _gallery(columns: int) -> gr.Gallery:
    style = "tiles" if columns == CHANNELS else "whole"
    return gallery(style, columns=columns, object_fit="contain", format="png", allow_preview=False)


def _table() -> gr.Dataframe:
    return gr.Dataframe(show_label=False, interactive=False, pinned_columns=1, buttons=[])


def _filled(step: Step, translate: Translator) -> Iterator[Any]:
    """The values of a slot's components."""
    yield step.text
    if step.table is not None:
        yield step.table
    if step.bars is not None:
        number, value = translate("inside.features.number"), translate("inside.features.value")
        highest = 1.05 * step.bars["value"].max()
        yield gr.BarPlot(step.bars, x_title=number, y_title=value, x_lim=[-1, len(step.bars)], y_lim=[0, highest])
    if step.conclusion:
        yield step.conclusion
    for pictures in step.galleries:
        yield gr.Gallery(pictures.pictures, label=pictures.title, visible=True)
    yield from [gr.Gallery(visible=False)] * (step.most_galleries - len(step.galleries))
