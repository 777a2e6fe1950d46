"""Report: how good the modes are, how they learned, what they confuse, and which photos may be wrong."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import gradio as gr
import pandas
import torch
from PIL import Image
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.images import DataError, open_photo
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.data.quality import Finding, measure
from antbee.evaluation import metrics
from antbee.evaluation import plots as evaluation_plots
from antbee.evaluation.calibration import reliability
from antbee.evaluation.report import metric_rows
from antbee.text import as_text, one_line
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features
from antbee.training.inspection import folder_findings
from antbee.ui.components import (
    Captioned,
    Choice,
    Histories,
    curve_colours,
    empty_epoch_plots,
    epoch_colours,
    epoch_plots,
    gallery,
    heat_map,
)
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, LoadedModel, ModelRegistry, Snapshot, how_to_train, of_classes

PERFECT_COLOUR = "#999999"
MISTAKES = 12  # shown of each model
CELL_PHOTOS = 48  # shown of a cell at most
FAULTS = 24  # shown as pictures at most
PICTURE_SIDE = 320  # pixels
RELIABILITY_BINS = 8
CHUNK = 16  # photos answered at a time


def measures(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """How good each model is: a row for every measure that one of them tells, a column for each."""
    columns = [dict(_measures(shown, translate)) for shown in models]
    rows = list(dict.fromkeys(row for column in columns for row in column))
    table = {translate("report.measure"): rows}
    table |= {shown.name: [column.get(row, "") for row in rows] for shown, column in zip(models, columns, strict=True)}
    return pandas.DataFrame(table)


def _measures(shown: LoadedModel, translate: Translator) -> Iterator[tuple[str, str]]:
    for row in metric_rows(shown.config.metrics) if shown.config.metrics else []:
        kind = {} if row.kind is None else {"kind": one_line(row.kind)}
        if isinstance(row.value, str):
            yield translate(f"report.{row.key}", **kind), one_line(row.value)
        else:
            counts = {"found": row.value.found, "count": row.value.count}
            yield translate(f"report.{row.key}", **kind), translate("report.of", **counts)


def photos_table(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """Accuracy by photos of each class learned from: mean, lowest and highest of the draws, in three curves.

    It is the starting backbone's, the same whatever mode was trained.
    """
    told = [shown.config.metrics for shown in models if shown.config.metrics]
    rows = []
    for point in next((one.learning_curve for one in told if one.learning_curve), []):
        accuracies = point.accuracies
        figures = {"mean": sum(accuracies) / len(accuracies), "lowest": min(accuracies), "highest": max(accuracies)}
        rows += [
            {"photos": point.per_class, "curve": translate(f"report.photos.{name}"), "accuracy": value}
            for name, value in figures.items()
        ]
    return pandas.DataFrame(rows, columns=["photos", "curve", "accuracy"])


@dataclass(frozen=True)
class Answers:
    """What a model answers on the validation photos."""

    shown: LoadedModel
    photos: ImageDataset
    logits: Tensor  # float32 (N, classes), classes as the photos have them

    @property
    def labels(self) -> Tensor:
        """The true classes: int64 (N,)."""
        return torch.tensor(self.photos.val.labels)

    @cached_property
    def worst(self) -> list[tuple[int, Image.Image]]:
        """The wrong answers, the surest first: positions, and each photo beside what spoke for the answer."""
        confidence, chosen = self.logits.softmax(1).max(1)
        wrong = (chosen != self.labels).nonzero()[:, 0]
        pictures = []
        for position in wrong[confidence[wrong].argsort(descending=True)].tolist()[:MISTAKES]:
            classifier = self.shown.classifier
            explanation = classifier.explain(open_photo(self.photos.val.paths[position]))
            photo = small(self.photos, position)
            answer = self.photos.class_names[int(chosen[position])]
            pictures.append(
                (position, evaluation_plots.beside(photo, heat_map(classifier, photo, explanation, answer)))
            )
        return pictures

    @property
    def confusion(self) -> list[list[int]]:
        """Photos by true class (rows) and answer (columns)."""
        return metrics.confusion_matrix(self.logits, self.labels).tolist()


def answers_of(
    shown: LoadedModel, photos: ImageDataset, report: Callable[[float], None] = lambda share: None
) -> Answers:
    """Asks a model for every validation photo; `report` is told the share that is done."""
    paths = photos.val.paths
    parts = []
    for start in range(0, len(paths), CHUNK):
        parts.append(shown.classifier.logits([open_photo(path) for path in paths[start : start + CHUNK]]))
        report(min(1, (start + CHUNK) / len(paths)))
    order = [shown.config.label_names.index(name) for name in photos.class_names]
    return Answers(shown, photos, torch.cat(parts)[:, order])


class AnswerBook:
    """The answers of the models that were asked, so that every visitor after the first finds them."""

    def __init__(self) -> None:
        self._answers: list[Answers] = []
        self._asking = threading.Lock()  # two visitors at once would compute the same

    def of(self, exhibit: Snapshot, names: Sequence[str] | None, report: Callable[[float], None]) -> list[Answers]:
        """The answers of the chosen models that know the photos' classes."""
        photos = exhibit.photos
        if photos is None:
            return []
        with self._asking:
            # Answers of what is no longer shown are forgotten.
            known = [given for given in self._answers if given.photos is photos and given.shown in exhibit.models]
            chosen = of_classes(exhibit.chosen(names), photos)
            for number, shown in enumerate(chosen):
                if shown not in [given.shown for given in known]:
                    known.append(answers_of(shown, photos, partial(_part_done, report, number, len(chosen))))
            self._answers = known
            return [next(given for given in known if given.shown == shown) for shown in chosen]


def _part_done(report: Callable[[float], None], part: int, parts: int, share: float) -> None:
    report((part + share) / parts)


def reliability_table(answers: Sequence[Answers], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """How often answers of about the same probability are right, and how often they should be."""
    rows: list[dict[str, Any]] = [
        {"confidence": one.confidence, "curve": given.shown.name, "right": one.accuracy}
        for given in answers
        for one in reliability(given.logits, given.labels, RELIABILITY_BINS)
    ]
    if rows:
        least = min(row["confidence"] for row in rows)
        rows += [{"confidence": x, "curve": translate("report.perfect"), "right": x} for x in (least, 1.0)]
    return pandas.DataFrame(rows, columns=["confidence", "curve", "right"])


def modes_apart(answers: Sequence[Answers], translate: Translator = ENGLISH) -> str:
    """Whether two models' results differ by more than chance; nothing where there is one."""
    if len(answers) < 2:
        return ""
    found = metrics.difference(*(given.logits.argmax(1) == given.labels for given in answers))
    return translate(
        "report.apart",
        count=found.count,
        first=as_text(answers[0].shown.name),
        second=as_text(answers[1].shown.name),
        first_alone=found.first_alone,
        second_alone=found.second_alone,
        verdict=translate("report.apart.real" if found.is_significant else "report.apart.chance"),
        p=f"{found.p:.2g}",
    )


def confusion_table(answers: Answers, translate: Translator = ENGLISH) -> pandas.DataFrame:
    """The confusion matrix as a table: its first column names the true classes."""
    names = [one_line(name) for name in answers.photos.class_names]
    rows = [[name, *counts] for name, counts in zip(names, answers.confusion, strict=True)]
    return pandas.DataFrame(rows, columns=[translate("report.true_class"), *names])


def cell_photos(answers: Answers, truth: int, answer: int) -> list[Captioned]:
    """The photos of one cell of the confusion matrix, the surest answers first."""
    given = answers.logits.softmax(1)
    inside = ((answers.labels == truth) & (answers.logits.argmax(1) == answer)).nonzero()[:, 0]
    positions = inside[given[inside, answer].argsort(descending=True)].tolist()[:CELL_PHOTOS]
    return [
        (small(answers.photos, position), f"{name_of(answers.photos, position)}: {float(given[position, answer]):.0%}")
        for position in positions
    ]


def mistakes(answers: Answers, translate: Translator = ENGLISH) -> list[Captioned]:
    """The wrong answers, the surest first: each photo beside what spoke for the answer."""
    given, names = answers.logits.softmax(1), [one_line(name) for name in answers.photos.class_names]
    captions = [
        translate(
            "report.mistake",
            truth=names[int(answers.labels[position])],
            answer=names[int(given[position].argmax())],
            probability=f"{given[position].max():.0%}",
        )
        for position, _ in answers.worst
    ]
    return [(picture, caption) for (_, picture), caption in zip(answers.worst, captions, strict=True)]


def small(photos: ImageDataset, position: int) -> Image.Image:
    """A validation photo as the page shows it beside others."""
    return open_photo(photos.val.paths[position], shorter_side=PICTURE_SIDE)


def name_of(photos: ImageDataset, position: int) -> str:
    """A validation photo's file, without the folders above it."""
    return one_line(photos.val.paths[position].name)


def judge_of(exhibit: Snapshot) -> LoadedModel | None:
    """A model whose backbone learned nothing of the photos' labels; None where there is none."""
    if exhibit.photos is None:
        return None
    known = of_classes(exhibit.models, exhibit.photos)
    return next((shown for shown in known if shown.config.mode == "frozen"), None)


def find_faults(
    judge: LoadedModel, photos: ImageDataset, report: Callable[[float], None] = lambda share: None
) -> list[Finding]:
    """Looks at every photo as check.py does, with the judge's backbone; `report` is told the share that is done."""
    both = photos.both
    facts = {}
    for number, (path, name) in enumerate(zip(both.paths, both.names(photos.root), strict=True)):
        facts[name] = measure(open_photo(path))
        report((number + 1) / len(both) / 2)
    device = judge.classifier.device
    looks = ImageLoader(both, judge.config.preprocessing, options=LoaderOptions.for_device(device))
    features = compute_features(judge.classifier.network, looks, DistributedContext(device), what="features")
    report(1)
    return folder_findings(photos, facts, features.features.cpu())


def fault_table(findings: Sequence[Finding], translate: Translator = ENGLISH) -> pandas.DataFrame:
    """The findings as a table."""
    columns = [translate(f"report.faults.{name}") for name in ("kind", "file", "reason")]
    rows = [(finding.kind, one_line(finding.file), one_line(finding.reason)) for finding in findings]
    return pandas.DataFrame(rows, columns=columns)


def fault_pictures(findings: Sequence[Finding], photos: ImageDataset) -> list[Captioned]:
    """The photos that something was found of, each pair side by side."""
    pictures = []
    for finding in [finding for finding in findings if finding.kind != "imbalance"][:FAULTS]:
        files = [finding.file, *([finding.other] if finding.other else [])]
        opened = [open_photo(photos.root / file, shorter_side=PICTURE_SIDE) for file in files]
        picture = opened[0] if len(opened) == 1 else evaluation_plots.beside(*opened)
        pictures.append((picture, f"{finding.kind}: {one_line(finding.file)}: {one_line(finding.reason)}"))
    return pictures


def report_tab(registry: ModelRegistry, choice: Choice, tab: gr.Tab) -> None:
    """How the models compare; what needs the photos is computed when the tab is opened."""
    book = AnswerBook()
    empty = gr.Markdown(visible=False)
    table = gr.Dataframe(
        label=label("report.measures"), interactive=False, wrap=True, max_height=1200, buttons=["copy"]
    )
    apart = gr.Markdown(min_height=72)  # pixels: room for the progress of answering
    gr.Markdown(label("report.explained"))
    plots = _plots()
    gr.Markdown(label("report.confusion.hint"))
    with gr.Row():
        matrices = [
            gr.Dataframe(interactive=False, visible=False, min_width=280, buttons=[]) for _ in range(SIDE_BY_SIDE)
        ]
    cell = gallery("whole", columns=6, object_fit="contain", visible=False)
    with gr.Row():
        worst = [
            gallery("whole", columns=3, object_fit="contain", min_width=280, visible=False) for _ in range(SIDE_BY_SIDE)
        ]
    with gr.Accordion(label("report.faults"), open=False):
        _faults(registry)
    cards = [_card() for _ in range(SIDE_BY_SIDE)]

    def tell(names: list[str], request: gr.Request) -> list[Any]:
        exhibit, translate = registry.now, translator_of(request)
        models = exhibit.chosen(names)
        photos = photos_table(models, translate)
        told = [shown.config.metrics for shown in models if shown.config.metrics]
        enough = next((metrics.enough_data for metrics in told if metrics.enough_data), None)
        told_cards = [(shown.name, shown.card) for shown in models] + [("", "")] * (SIDE_BY_SIDE - len(models))
        return [
            gr.Markdown(how_to_train(translate), visible=not models),
            gr.Dataframe(measures(models, translate), column_widths=_widths(len(models)), visible=bool(models)),
            *epoch_plots(_histories(models)),
            gr.LinePlot(photos, x_title=translate("report.photos.x"), visible=bool(len(photos)), caption=enough),
            *[
                part
                for name, card in told_cards
                for part in (gr.Accordion(translate("report.card", name=name), visible=bool(name)), card)
            ],
        ]

    def ask(names: list[str], request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        translate = translator_of(request)
        told = translate("report.answering")
        answers = book.of(registry.now, names, lambda share: progress(share, told))
        reliable = reliability_table(answers, translate)
        return [
            modes_apart(answers, translate),
            gr.LinePlot(
                reliable,
                x_title=translate("report.confidence"),
                y_title=translate("report.right"),
                visible=bool(len(reliable)),
            ),
            *_padded(gr.Dataframe, [_matrix(given, translate) for given in answers]),
            gr.Gallery(visible=False),
            *_padded(
                gr.Gallery,
                [
                    gr.Gallery(
                        mistakes(given, translate),
                        label=translate("report.mistakes", name=given.shown.name),
                        visible=True,
                    )
                    for given in answers
                ],
            ),
        ]

    def ask_again(
        is_open: bool, names: list[str], request: gr.Request, progress: gr.Progress = gr.Progress()
    ) -> list[Any]:
        return ask(names, request, progress) if is_open else [gr.skip()] * len(opened)

    def colour(names: list[str]) -> list[gr.LinePlot]:
        return epoch_colours(_histories(registry.now.chosen(names)))

    def colour_reliability(names: list[str], request: gr.Request) -> gr.LinePlot:
        known = of_classes(registry.now.chosen(names), photos) if (photos := registry.now.photos) else []
        colours = curve_colours([shown.name for shown in known])
        strong = {shown.name: colours[f"{shown.name}, val"] for shown in known}
        return gr.LinePlot(color_map={**strong, translator_of(request)("report.perfect"): PERFECT_COLOUR})

    instant = [empty, table, *plots[:2], plots[3], *[part for card in cards for part in card]]
    private: dict[str, Any] = {"api_visibility": "private"}
    gr.on(choice.changes, tell, choice.models, instant, **private).then(colour, choice.models, plots[:2], **private)
    opened = [apart, plots[2], *matrices, cell, *worst]
    is_open = gr.State(False)  # whoever never opens this tab need not wait for its answers
    tab.select(lambda: True, None, is_open, show_progress="hidden", **private)
    asked = [
        tab.select(ask, choice.models, opened, **private),
        gr.on(choice.changes[1:], ask_again, [is_open, choice.models], opened, **private),
    ]
    for answered in asked:
        answered.then(colour_reliability, choice.models, plots[2], **private)
    for place, matrix in enumerate(matrices):
        matrix.select(_opened(book, registry, place), choice.models, cell, api_visibility="private")


def _histories(models: Sequence[LoadedModel]) -> Histories:
    return {shown.name: shown.history for shown in models}


def _widths(models: int) -> list[str | int]:
    """Of a table's columns: a phone has to show the figures beside what they measure."""
    return ["46%", *[f"{54 // max(models, 1)}%"] * models]


def _padded(component: Any, filled: list[Any]) -> list[Any]:
    return [*filled, *[component(visible=False)] * (SIDE_BY_SIDE - len(filled))]


def _matrix(answers: Answers, translate: Translator) -> gr.Dataframe:
    name = translate("report.confusion", name=answers.shown.name)
    return gr.Dataframe(confusion_table(answers, translate), label=name, visible=True)


def _opened(book: AnswerBook, registry: ModelRegistry, place: int) -> Callable[..., gr.Gallery]:
    """What a click on a cell of the matrix in this place does: its photos are shown."""

    def open_cell(names: list[str], request: gr.Request, picked: gr.SelectData) -> gr.Gallery:
        answers = book.of(registry.now, names, lambda share: None)
        column = picked.index[1]
        if place >= len(answers) or column == 0:  # the first column holds the classes' names
            return gr.Gallery(visible=False)
        given = answers[place]
        classes = [one_line(name) for name in given.photos.class_names]
        row = classes.index(picked.row_value[0])  # not by its place: a visitor may have sorted the table
        pictures = cell_photos(given, row, column - 1)
        told = {"truth": classes[row], "answer": classes[column - 1], "count": given.confusion[row][column - 1]}
        title = translator_of(request)("report.cell", name=given.shown.name, **told)
        return gr.Gallery(pictures, label=title, visible=True)

    return open_cell


def _plots() -> list[gr.LinePlot]:
    """Accuracy and loss by epoch, reliability, accuracy by photos."""
    by_epoch = empty_epoch_plots()
    with gr.Row():
        return [
            *by_epoch,
            _share_plot("reliability", "confidence", "right"),
            _share_plot("photos", "photos", "accuracy"),
        ]


def _share_plot(name: str, x: str, y: str) -> gr.LinePlot:
    return gr.LinePlot(
        x=x,
        y=y,
        color="curve",
        color_title=" ",
        y_lim=[0, 1],
        tooltip="all",
        label=label(f"report.{name}"),
        min_width=280,
        visible=False,
    )


def _card() -> tuple[gr.Accordion, gr.Markdown]:
    with gr.Accordion(visible=False, open=False) as accordion:
        return accordion, gr.Markdown()


def _faults(registry: ModelRegistry) -> None:
    gr.Markdown(label("report.faults.info"))
    look = gr.Button(label("report.faults.look"))
    result = gr.Markdown()
    table = gr.Dataframe(label=label("report.faults"), interactive=False, wrap=True, visible=False)
    pictures = gallery("whole", label=label("report.faults"), columns=4, object_fit="contain", visible=False)

    def find(request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        exhibit, translate = registry.now, translator_of(request)
        judge, photos = judge_of(exhibit), exhibit.photos
        if judge is None or photos is None:
            return [translate("report.faults.no_backbone"), gr.Dataframe(visible=False), gr.Gallery(visible=False)]
        told = translate("report.faults.progress")
        try:
            findings = find_faults(judge, photos, lambda share: progress(share, told))
        except DataError as error:  # a photo was taken away meanwhile
            raise gr.Error(translate("classify.bad_photo", error=in_toast(error)), print_exception=False) from error
        return [
            "" if findings else translate("report.faults.none"),
            gr.Dataframe(fault_table(findings, translate), visible=bool(findings)),
            gr.Gallery(fault_pictures(findings, photos), visible=bool(findings)),
        ]

    look.click(find, None, [result, table, pictures], api_visibility="private")
