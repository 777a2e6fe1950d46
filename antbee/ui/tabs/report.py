"""Report: the models' metrics, training curves, confusion matrices and errors, and photos that may be faulty."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import gradio as gr
import pandas
import torch

from antbee.data.folder import ImageDataset
from antbee.data.images import open_photo
from antbee.data.quality import OF_THE_WHOLE, Finding, PhotoFacts, measure
from antbee.evaluation import metrics, plots
from antbee.evaluation.calibration import reliability
from antbee.evaluation.report import metric_rows
from antbee.text import as_text, one_line
from antbee.training.inspection import folder_findings
from antbee.ui.components import (
    EACH,
    NEWEST,
    PRIVATE,
    Captioned,
    Choice,
    Histories,
    curve_colours,
    empty_epoch_plots,
    epoch_colours,
    epoch_plots,
    errors_in_toasts,
    gallery,
    line_plot,
)
from antbee.ui.i18n import ENGLISH, Translator, label, translator_of
from antbee.ui.predictions import PICTURE_SIDE, PredictionCache, Predictions, Progress, opened_in_chunks
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, Snapshot, how_to_train, of_classes

PERFECT_COLOUR = "#999999"
CELL_PHOTOS = 48  # pictures of a cell of a confusion matrix, at most
FINDING_PICTURES = 24  # at most
RELIABILITY_BINS = 8


def metrics_table(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """Metrics in rows, models in columns; a metric that a model lacks is an empty cell."""
    columns = {model.name: dict(_metric_texts(model, translate)) for model in models}
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    cells = {name: [column.get(row, "") for row in rows] for name, column in columns.items()}
    return pandas.DataFrame({translate("report.measure"): rows} | cells)


def _metric_texts(model: LoadedModel, translate: Translator) -> Iterator[tuple[str, str]]:
    for row in metric_rows(model.config.metrics) if model.config.metrics else []:
        kind = {} if row.kind is None else {"kind": one_line(row.kind)}
        if isinstance(row.value, str):
            value = one_line(row.value)
        else:
            value = translate("report.of", found=row.value.found, count=row.value.count)
        yield translate(f"report.{row.key}", **kind), value


def learning_curve_table(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """Accuracy by training photos per class: mean, minimum and maximum of the random subsets, a curve each.

    Both modes start from the same backbone, so the first curve found is that of all models.
    """
    curves = [model.config.metrics.learning_curve for model in models if model.config.metrics]
    rows = []
    for point in next(filter(None, curves), []):
        accuracies = point.accuracies
        summary = {"mean": fmean(accuracies), "lowest": min(accuracies), "highest": max(accuracies)}
        rows += [(point.per_class, translate(f"report.photos.{name}"), value) for name, value in summary.items()]
    return pandas.DataFrame(rows, columns=["photos", "curve", "accuracy"])


def reliability_table(predictions: Sequence[Predictions], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """The reliability diagram: mean confidence and accuracy of each bin, a curve for each model, and the diagonal."""
    rows = [
        (point.confidence, one.model.name, point.accuracy)
        for one in predictions
        for point in reliability(one.logits, one.labels, RELIABILITY_BINS)
    ]
    if rows:
        rows += [(value, translate("report.perfect"), value) for value in (min(row[0] for row in rows), 1.0)]
    return pandas.DataFrame(rows, columns=["confidence", "curve", "right"])


def significance(predictions: Sequence[Predictions], translate: Translator = ENGLISH) -> str:
    """Whether the accuracies of two models differ significantly, as Markdown; empty for one model."""
    if len(predictions) < 2:
        return ""
    found = metrics.difference(*(one.predicted == one.labels for one in predictions))
    verdict = translate("report.apart.real" if found.is_significant else "report.apart.chance")
    first, second = (as_text(one.model.name) for one in predictions)
    counts = {"count": found.count, "first_alone": found.first_alone, "second_alone": found.second_alone}
    return translate("report.apart", first=first, second=second, verdict=verdict, p=f"{found.p:.2g}", **counts)


def unmeasured(models: Sequence[LoadedModel], photos: ImageDataset | None, translate: Translator = ENGLISH) -> str:
    """Which models the photos can't be used for, since their classes have other names, as Markdown; empty for none."""
    if photos is None or not (others := [model for model in models if not of_classes([model], photos)]):
        return ""
    names, classes = (", ".join(map(as_text, found)) for found in ([one.name for one in others], photos.class_names))
    return translate("report.other_classes", names=names, classes=classes)


def confusion_table(predictions: Predictions, translate: Translator = ENGLISH) -> pandas.DataFrame:
    """The confusion matrix as a table: its first column names the true classes."""
    names = predictions.class_names
    rows = [[name, *counts] for name, counts in zip(names, predictions.confusion, strict=True)]
    return pandas.DataFrame(rows, columns=[translate("report.true_class"), *names])


def cell_photos(predictions: Predictions, truth: int, predicted: int) -> list[Captioned]:
    """The photos of one cell of the confusion matrix, highest confidence first."""
    positions = predictions.by_confidence((predictions.labels == truth) & (predictions.predicted == predicted))
    files = [one_line(path.name) for path in predictions.photos.val.paths]
    return [
        (predictions.picture(position), f"{files[position]}: {float(predictions.confidence[position]):.0%}")
        for position in positions[:CELL_PHOTOS]
    ]


def error_pictures(predictions: Predictions, translate: Translator = ENGLISH) -> list[Captioned]:
    """The wrong predictions, highest confidence first: each photo with the activation map of the predicted class."""
    names, pictures = predictions.class_names, []
    for position, picture in predictions.largest_errors:
        truth, predicted = (names[int(classes[position])] for classes in (predictions.labels, predictions.predicted))
        probability = f"{float(predictions.confidence[position]):.0%}"
        caption = translate("report.error", truth=truth, predicted=predicted, probability=probability)
        pictures.append((picture, caption))
    return pictures


def frozen_model(snapshot: Snapshot) -> LoadedModel | None:
    """A model whose backbone was not trained on the photos' labels; None where there is none."""
    known = of_classes(snapshot.models, snapshot.photos) if snapshot.photos else []
    return next((model for model in known if model.config.mode == "frozen"), None)


def inspect_photos(
    model: LoadedModel, photos: ImageDataset, progress: Progress = lambda fraction: None
) -> list[Finding]:
    """The findings of `antbee.check`, with the features of a model's backbone.

    Raises DataError for a photo that can't be opened.
    """
    facts: list[PhotoFacts] = []
    features = []
    for chunk in opened_in_chunks(photos.all.paths, progress):
        facts += map(measure, chunk)
        features.append(model.classifier.features(chunk))
    names = photos.all.names(photos.root)
    return folder_findings(photos, dict(zip(names, facts, strict=True)), torch.cat(features))


def findings_table(findings: Sequence[Finding], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """The findings as a table."""
    columns = [translate(f"report.faults.{name}") for name in ("kind", "file", "reason")]
    rows = [(finding.kind, one_line(finding.file), one_line(finding.reason)) for finding in findings]
    return pandas.DataFrame(rows, columns=columns)


def findings_pictures(findings: Sequence[Finding], photos: ImageDataset) -> list[Captioned]:
    """The photos of the findings; the two photos of a pair side by side."""
    pictures = []
    for finding in [finding for finding in findings if finding.kind not in OF_THE_WHOLE][:FINDING_PICTURES]:
        picture = open_photo(photos.root / finding.file, shorter_side=PICTURE_SIDE)
        if finding.other:
            other = open_photo(photos.root / finding.other, shorter_side=PICTURE_SIDE)
            picture = plots.beside(picture, other)
        pictures.append((picture, f"{finding.kind}: {one_line(finding.file)}: {one_line(finding.reason)}"))
    return pictures


def report_tab(registry: ModelRegistry, choice: Choice, tab: gr.Tab) -> None:
    """Compares the models. Predictions are computed when the tab is first opened."""
    no_model = gr.Markdown(visible=False)
    table = gr.Dataframe(
        label=label("report.measures"),
        interactive=False,
        wrap=True,
        max_height=1200,
        buttons=["copy"],
        elem_classes="numbers",
    )
    difference = gr.Markdown(min_height=72)  # pixels: room for the progress of predicting
    gr.Markdown(label("report.explained"))
    epochs = empty_epoch_plots()
    fractions: dict[str, Any] = {"color_title": " ", "y_lim": [0, 1]}
    with gr.Row():
        reliable = line_plot("confidence", "right", label("report.reliability"), **fractions)
        learning_curve = line_plot("photos", "accuracy", label("report.photos"), **fractions)
    gr.Markdown(label("report.confusion.hint"))
    models = range(SIDE_BY_SIDE)
    with gr.Row():
        matrices = [gr.Dataframe(interactive=False, visible=False, min_width=280, buttons=[]) for _ in models]
    cell = _hidden_gallery(columns=6)
    with gr.Row():
        errors = [_hidden_gallery(columns=3, min_width=280) for _ in models]
    with gr.Accordion(label("report.faults"), open=False):
        _findings_section(registry)
    accordions, cards = zip(*(_card() for _ in models), strict=True)

    def show_metrics(names: list[str], request: gr.Request) -> list[Any]:
        translate, models = translator_of(request), registry.snapshot.chosen(names)
        curve = learning_curve_table(models, translate)
        measured = [model.config.metrics for model in models if model.config.metrics]
        titles = [translate("report.card", name=one.name) for one in models]
        enough = next((metrics.enough_data for metrics in measured if metrics.enough_data), None)
        return [
            gr.Markdown(how_to_train(translate), visible=not models),
            gr.Dataframe(metrics_table(models, translate), column_widths=_widths(len(models)), visible=bool(models)),
            *epoch_plots(_histories(models)),
            gr.LinePlot(curve, x_title=translate("report.photos.x"), visible=bool(len(curve)), caption=enough),
            *_padded(gr.Accordion, [gr.Accordion(title, visible=True) for title in titles]),
            *_padded(gr.Markdown, [gr.Markdown(one.card, visible=True) for one in models]),
        ]

    def show_predictions(
        opened: int, names: list[str], request: gr.Request, progress: gr.Progress = gr.Progress()
    ) -> list[Any]:
        if not opened:  # nothing is computed for visitors who never open this tab
            return [gr.skip()] * len(computed)
        translate = translator_of(request)
        predictions = cache.get(registry.snapshot, names, partial(progress, desc=translate("report.predicting")))
        others = unmeasured(registry.snapshot.chosen(names), registry.snapshot.photos, translate)
        sentences = [significance(predictions, translate), others]
        points = reliability_table(predictions, translate)
        axes: dict[str, Any] = {"x_title": translate("report.confidence"), "y_title": translate("report.right")}
        return [
            gr.Markdown("\n\n".join(filter(None, sentences)), min_height=0),
            gr.LinePlot(points, **axes, visible=bool(len(points))),
            *_filled(gr.Dataframe, confusion_table, "report.confusion", predictions, translate),
            gr.Gallery(visible=False),
            *_filled(gr.Gallery, error_pictures, "report.errors", predictions, translate),
        ]

    def colour_epochs(names: list[str]) -> list[gr.LinePlot]:
        return epoch_colours(_histories(registry.snapshot.chosen(names)))

    def colour_reliability(names: list[str], request: gr.Request) -> gr.LinePlot:
        known = of_classes(registry.snapshot.chosen(names), photos) if (photos := registry.snapshot.photos) else []
        colours = curve_colours([model.name for model in known])
        validation = {model.name: colours[f"{model.name}, val"] for model in known}
        return gr.LinePlot(color_map={**validation, translator_of(request)("report.perfect"): PERFECT_COLOUR})

    cache = PredictionCache()
    instant = [no_model, table, *epochs, learning_curve, *accordions, *cards]
    computed = [difference, reliable, *matrices, cell, *errors]
    drawn = gr.on(choice.changes, show_metrics, choice.models, instant, **NEWEST)
    drawn.then(colour_epochs, choice.models, epochs, **NEWEST)
    opened = gr.State(0)  # how often
    # Queued: of other calls the browser is not told that a gr.State has changed.
    tab.select(lambda times: times + 1, opened, opened, show_progress="hidden", **PRIVATE)
    updates = [opened.change, *choice.changes[1:]]
    predicted = gr.on(updates, show_predictions, [opened, choice.models], computed, **NEWEST)
    predicted.then(colour_reliability, choice.models, reliable, **NEWEST)
    for place, matrix in enumerate(matrices):
        matrix.select(_cell_handler(cache, registry, place), choice.models, cell, **EACH)


def _histories(models: Sequence[LoadedModel]) -> Histories:
    return {model.name: model.history for model in models}


def _widths(models: int) -> list[str | int]:
    """Column widths that keep the metrics' names and values, such as 11,177,538, within a phone's screen."""
    return ["36%", *[f"{64 // max(models, 1)}%"] * models]


def _filled(
    component: Any, content: Callable[..., Any], key: str, predictions: Sequence[Predictions], translate: Translator
) -> list[Any]:
    """A component for each model, with its content and its title."""
    titles = [translate(key, name=one.model.name) for one in predictions]
    filled = zip(predictions, titles, strict=True)
    return _padded(component, [component(content(one, translate), label=title, visible=True) for one, title in filled])


def _padded(component: Any, filled: list[Any]) -> list[Any]:
    return [*filled, *[component(visible=False)] * (SIDE_BY_SIDE - len(filled))]


def _cell_handler(cache: PredictionCache, registry: ModelRegistry, place: int) -> Callable[..., gr.Gallery]:
    """The handler of a click on a cell of a confusion matrix, the one at this place: it shows the cell's photos."""

    def show_cell(names: list[str], request: gr.Request, picked: gr.SelectData) -> gr.Gallery:
        predictions = cache.get(registry.snapshot, names, lambda fraction: None)
        column = picked.index[1]
        if place >= len(predictions) or column == 0:  # the first column holds the class names
            return gr.Gallery(visible=False)
        one, classes = predictions[place], predictions[place].class_names
        row = classes.index(picked.row_value[0])  # not by the row's index: a visitor may have sorted the table
        counts = {"truth": classes[row], "predicted": classes[column - 1], "count": one.confusion[row][column - 1]}
        title = translator_of(request)("report.cell", name=one.model.name, **counts)
        return gr.Gallery(cell_photos(one, row, column - 1), label=title, visible=True)

    return show_cell


def _hidden_gallery(**settings: Any) -> gr.Gallery:
    return gallery("whole", "tiles", object_fit="contain", visible=False, **settings)


def _card() -> tuple[gr.Accordion, gr.Markdown]:
    with gr.Accordion(visible=False, open=False) as accordion:
        return accordion, gr.Markdown()


def _findings_section(registry: ModelRegistry) -> None:
    gr.Markdown(label("report.faults.info"))
    start = gr.Button(label("report.faults.check"))
    message = gr.Markdown()
    table = gr.Dataframe(label=label("report.faults"), interactive=False, wrap=True, visible=False)
    pictures = _hidden_gallery(label=label("report.faults"), columns=4)

    def find(request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        snapshot, translate = registry.snapshot, translator_of(request)
        model, photos = frozen_model(snapshot), snapshot.photos
        if model is None or photos is None:
            return [translate("report.faults.no_backbone"), gr.Dataframe(visible=False), gr.Gallery(visible=False)]
        with errors_in_toasts("classify.bad_photo", translate):  # a photo may be deleted meanwhile
            findings = inspect_photos(model, photos, partial(progress, desc=translate("report.faults.progress")))
        return [
            "" if findings else translate("report.faults.none"),
            gr.Dataframe(findings_table(findings, translate), visible=bool(findings)),
            gr.Gallery(findings_pictures(findings, photos), visible=bool(findings)),
        ]

    start.click(find, None, [message, table, pictures], **PRIVATE)
