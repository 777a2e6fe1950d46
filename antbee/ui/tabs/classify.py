"""Classify: predictions for one photo, with heat map and nearest training photos; or a table for several photos."""

import hashlib
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas
from gradio.utils import get_upload_folder
from PIL import Image

from antbee.data.folder import ImageDataset
from antbee.data.images import DataError, open_photo
from antbee.evaluation.report import has_false_alarms
from antbee.models.classifier import Explanation, Prediction
from antbee.models.config import MODES
from antbee.models.tables import csv_bytes
from antbee.text import as_text, one_line
from antbee.ui.batching import LARGEST_BATCH, DynamicBatches
from antbee.ui.components import (
    EACH,
    NEWEST,
    Captioned,
    Choice,
    files_of,
    gallery,
    heat_map,
    neighbour_pictures,
    photo_input,
    photo_of,
    shown_probabilities,
)
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, how_to_train, was_trained_on

NEIGHBOURS = 4  # training photos shown for each prediction
EXAMPLES_PER_CLASS = 4
EXAMPLE_SIDE = 160  # pixels
MOST_PHOTOS = 200  # at once
CONCURRENT_PREDICTIONS = 2  # requests: one photo is decoded while the network computes another
CONCURRENT_CALLS = 2 * LARGEST_BATCH  # of the endpoint: a batch waits while another is computed


@dataclass(frozen=True)
class PredictionView:
    """One model's prediction for a photo, as the page shows it."""

    title: str
    verdict: str
    probabilities: dict[str, float]
    photo_and_map: tuple[Image.Image, Image.Image]
    neighbours: list[Captioned]


def classify(
    photo: Image.Image, models: Sequence[LoadedModel], photos: ImageDataset | None, translate: Translator = ENGLISH
) -> list[PredictionView]:
    """Every model's prediction for a photo, with heat map and nearest training photos.

    Neighbours are shown for models that were trained on `photos`.
    """
    views = []
    for model in models:
        explanation = model.classifier.explain(photo, NEIGHBOURS)
        prediction = explanation.prediction
        views.append(
            PredictionView(
                title_of(model, translate),
                verdict_sentence(prediction, translate)
                + _doubt(prediction, model, translate)
                + _approximation(explanation, translate),
                shown_probabilities(prediction),
                (photo, heat_map(model.classifier, photo, explanation, prediction.label)),
                neighbour_pictures(explanation.neighbours, photos if was_trained_on(model, photos) else None),
            )
        )
    return views


def title_of(model: LoadedModel, translate: Translator) -> str:
    """A model's name, as Markdown."""
    return f"**{translate(f'mode.{model.name}') if model.name in MODES else as_text(model.name)}**"


def verdict_sentence(prediction: Prediction, translate: Translator = ENGLISH) -> str:
    """The predicted class, its probability, and whether the photo is out of distribution, as Markdown."""
    probability = f"{prediction.probabilities[prediction.label]:.0%}"
    verdict = f"## {as_text(prediction.label)} · {probability}"
    if prediction.distance is None:
        return verdict
    if prediction.threshold is None:
        return f"{verdict}\n{translate('classify.unknown')}"
    far = {"distance": f"{prediction.distance:.2f}", "limit": f"{prediction.threshold:.2f}"}
    if prediction.is_out_of_distribution:
        return f"## {translate('classify.neither')}\n{translate('classify.unlike', **far)}"
    return f"{verdict}\n{translate('classify.like', **far)}"


def _doubt(prediction: Prediction, model: LoadedModel, translate: Translator) -> str:
    """That a model says "neither" far too often, where it says so."""
    metrics = model.config.metrics
    neither = metrics.neither.model_dump() if metrics is not None and metrics.neither is not None else {}
    is_doubtful = prediction.is_out_of_distribution and has_false_alarms(neither)
    return f"\n\n{translate('classify.false_alarms', **neither['val'])}" if is_doubtful else ""


def _approximation(explanation: Explanation, translate: Translator) -> str:
    return "" if explanation.is_exact else f"\n\n{translate('classify.map.gradient')}"


def crops_of(photo: Image.Image | None, models: Sequence[LoadedModel]) -> list[Image.Image]:
    """What each model sees of a photo. Raises gr.Error without a photo."""
    if photo is None:
        raise gr.Error("No photo came: send an image file.", print_exception=False)
    return [model.classifier.crop(photo) for model in models]


def predict(crops: Sequence[Image.Image], models: Sequence[LoadedModel], batches: DynamicBatches) -> dict[str, Any]:
    """Every model's prediction for its crop of a photo, by the model's name, for the page's API."""
    predictions = {
        model.name: batches.predict(model.classifier, crop) for model, crop in zip(models, crops, strict=True)
    }
    return {
        name: {
            "label": one_line(prediction.label),
            "probabilities": shown_probabilities(prediction),
            "verdict": one_line(prediction.verdict),
            "distance": prediction.distance,
            "threshold": prediction.threshold,
        }
        for name, prediction in predictions.items()
    }


def example_paths(photos: ImageDataset, per_class: int = EXAMPLES_PER_CLASS) -> list[Path]:
    """The first validation photos of each class, the classes in turn."""
    by_class = [
        [path for path, label in zip(photos.val.paths, photos.val.labels, strict=True) if label == index][:per_class]
        for index in range(len(photos.class_names))
    ]
    return [path for turn in zip(*by_class, strict=False) for path in turn]


def example_file(path: Path) -> str:
    """The path of an example as a PNG file in Gradio's upload folder, with the pixels of `open_photo`.

    Gradio would write the file again for every visitor, in place: others could read half a photo.
    """
    written = f"{path.resolve()} {path.stat().st_mtime_ns}".encode("utf-8", "surrogateescape")
    file = Path(get_upload_folder()) / hashlib.sha256(written).hexdigest() / "example.png"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{secrets.token_hex(8)}.png")
        open_photo(path).save(temporary)
        temporary.replace(file)
    return str(file)


@dataclass(frozen=True)
class BatchPredictions:
    """Predictions for several photos, one row each; unreadable files get the reason instead."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    pictures: tuple[Captioned, ...]

    def to_csv(self) -> bytes:
        """The table as CSV for spreadsheets, with cells escaped that they would take for formulas."""
        return csv_bytes([self.columns, *self.rows])


def predict_batch(files: Iterable[tuple[str, Path]], models: Sequence[LoadedModel]) -> BatchPredictions:
    """Every model's predictions for (name, path) pairs; unreadable files get the reason instead."""
    columns = ["file"]
    for model in models:
        columns += [model.name, *(f"{model.name}: {one_line(name)}" for name in model.config.label_names)]
    rows, pictures = [], []
    for file, path in files:
        name = one_line(file)
        try:
            photo = open_photo(path)
        except DataError as error:
            rows.append((name, one_line(str(error)), *[""] * (len(columns) - 2)))
            continue
        row, verdicts = [name], []
        for model in models:
            (prediction,) = model.classifier.predict([photo])
            verdicts.append(one_line(prediction.verdict))
            row += [verdicts[-1], *(f"{probability:.4f}" for probability in prediction.probabilities.values())]
        rows.append(tuple(row))
        photo.thumbnail((2 * EXAMPLE_SIDE, 2 * EXAMPLE_SIDE))
        pictures.append((photo, f"{name}: {' / '.join(dict.fromkeys(verdicts))}"))
    return BatchPredictions(tuple(columns), tuple(rows), tuple(pictures))


@dataclass(frozen=True)
class ClassifyParts:
    """Components that the Teach tab uses: the photo, and its true class as chosen by the visitor."""

    photo: gr.Image
    truth: gr.Radio
    correct: gr.Button


def classify_tab(registry: ModelRegistry, choice: Choice) -> ClassifyParts:
    """Adds the tab to the page, with its events and the endpoint /predict."""
    no_model = gr.Markdown(visible=False)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = photo_input("classify.photo", "photo")
            examples = gallery(label=label("classify.examples"), columns=4, allow_preview=False)
            crop = gr.Image(label=label("classify.crop"), interactive=False, height=224, buttons=["fullscreen"])
        slots = [_prediction_slot() for _ in range(SIDE_BY_SIDE)]
    with gr.Group():
        truth = gr.Radio([], label=label("classify.correct"), info=label("classify.correct.info"))
        correct = gr.Button(label("classify.correct.button"), size="sm")
    with gr.Accordion(label("classify.several"), open=False):
        _several_photos(registry, choice)

    def show_predictions(upload: dict[str, Any] | None, names: list[str], request: gr.Request) -> list[Any]:
        translate, snapshot = translator_of(request), registry.snapshot
        picture, models = photo_of(upload, translate), snapshot.chosen(names)
        if picture is None or not models:
            return [None, *_filled(None) * SIDE_BY_SIDE]
        views = [*classify(picture, models, snapshot.photos, translate), *[None] * (SIDE_BY_SIDE - len(models))]
        cropped = gr.Image(models[0].config.preprocessing.cropped(picture), alt_text=translate("classify.crop.alt"))
        return [cropped, *[part for view in views for part in _filled(view)]]

    def start(upload: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        snapshot = registry.snapshot
        paths = example_paths(snapshot.photos) if snapshot.photos else []
        pictures = [(open_photo(path, shorter_side=EXAMPLE_SIDE), one_line(path.parent.name)) for path in paths]
        classes = snapshot.models[0].config.label_names if snapshot.models else ()
        return [
            gr.Markdown(how_to_train(translator_of(request)), visible=not snapshot.models),
            gr.Gallery(pictures, visible=bool(paths)),
            # The first example is predicted at once, unless the visitor has uploaded a photo.
            example_file(paths[0]) if paths and not upload else gr.skip(),
            gr.Radio([one_line(name) for name in classes], value=None, visible=bool(classes)),
            gr.Button(visible=bool(classes)),
        ]

    def take_example(picked: gr.SelectData) -> str | None:
        photos = registry.snapshot.photos
        return None if photos is None else example_file(example_paths(photos)[picked.index])

    # Not when the page opens: `start` then sets the photo, which is a change event.
    changes, shown = [photo.change, *choice.changes[1:]], [crop, *[part for slot in slots for part in slot]]
    at_once: dict[str, Any] = NEWEST | {"concurrency_limit": CONCURRENT_PREDICTIONS}
    gr.on(changes, show_predictions, [photo, choice.models], shown, preprocess=False, **at_once)
    opened = [choice.changes[0], choice.version.change]
    gr.on(opened, start, photo, [no_model, examples, photo, truth, correct], preprocess=False, **NEWEST)
    examples.select(take_example, None, photo, **EACH)
    _endpoint(registry, photo)
    return ClassifyParts(photo, truth, correct)


def _prediction_slot() -> list[gr.blocks.Block]:
    with gr.Column(scale=3, min_width=280, visible=False) as column:
        slider: dict[str, Any] = {"interactive": False, "buttons": ["fullscreen"], "max_height": 340, "format": "jpeg"}
        return [
            column,
            gr.Markdown(),
            gr.Markdown(elem_classes="verdict"),
            gr.ImageSlider(label=str(label("classify.map")), **slider),
            gr.Label(label=label("classify.probabilities"), num_top_classes=5, show_heading=False),
            gallery(label=label("classify.neighbours"), columns=NEIGHBOURS),
        ]


def _filled(view: PredictionView | None) -> list[Any]:
    """The values of a slot, which is hidden without a prediction."""
    if view is None:
        return [gr.Column(visible=False), None, None, None, None, None]
    neighbours = gr.Gallery(view.neighbours, visible=bool(view.neighbours))
    return [gr.Column(visible=True), view.title, view.verdict, view.photo_and_map, view.probabilities, neighbours]


def _endpoint(registry: ModelRegistry, photo: gr.Image) -> None:
    """Adds the endpoint /predict of the page's API."""
    batches = DynamicBatches()
    # A photo of a phone takes hundreds of times the memory of its crops.
    decoding = threading.Semaphore(CONCURRENT_PREDICTIONS)

    def predict_photo(photo: dict[str, Any] | None) -> dict[str, Any]:
        models = registry.snapshot.models
        with decoding:
            crops = crops_of(photo_of(photo), models)
        return predict(crops, models, batches)

    gr.Button(visible=False).click(
        predict_photo,
        photo,
        gr.JSON(visible=False),
        preprocess=False,
        concurrency_limit=CONCURRENT_CALLS,
        api_name="predict",
        api_description="Predicts the class of a photo: each model's prediction, the probability of every class, and "
        "whether the photo is out of distribution.",
    )


def _several_photos(registry: ModelRegistry, choice: Choice) -> None:
    files = gr.File(
        label=label("classify.several.files"), file_count="multiple", file_types=["image"], elem_id="several"
    )
    pictures = gallery("tiles", label=label("classify.several.predictions"), columns=6, visible=False, buttons=None)
    table = gr.Dataframe(label=label("classify.several.table"), interactive=False, wrap=True, visible=False)
    download = gr.DownloadButton(str(label("classify.several.csv")), visible=False)

    def show_batch(
        uploads: list[dict[str, Any]] | None,
        names: list[str],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> list[Any]:
        translate = translator_of(request)
        if not uploads:
            return [gr.Gallery(visible=False), gr.Dataframe(visible=False), gr.DownloadButton(visible=False)]
        if len(uploads) > MOST_PHOTOS:
            text = translate("classify.several.most", count=len(uploads), most=MOST_PHOTOS)
            raise gr.Error(text, print_exception=False)
        paths = [(path.name, path) for path in files_of(uploads, translate)]
        batch = predict_batch(progress.tqdm(paths), registry.snapshot.chosen(names))
        return [
            gr.Gallery(list(batch.pictures), visible=True),
            gr.Dataframe(pandas.DataFrame(batch.rows, columns=list(batch.columns)), visible=True),
            gr.DownloadButton(value=str(_written(batch)), visible=True),
        ]

    files.change(show_batch, [files, choice.models], [pictures, table, download], preprocess=False, **NEWEST)


def _written(batch: BatchPredictions) -> Path:
    """The path of the table as CSV in the upload folder, whose old files the page deletes.

    Like an upload's, its folder is named after the SHA-256 of its content.
    """
    content = batch.to_csv()
    path = Path(get_upload_folder()) / hashlib.sha256(content).hexdigest() / "predictions.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
