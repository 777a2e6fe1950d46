"""Metrics as rows and sentences, for the terminal, the model card and the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antbee.evaluation.metrics import wilson_interval
from antbee.models.config import ClassifierConfig
from antbee.models.metrics import Evaluation, Found, Metrics, OODMetrics, Score
from antbee.text import counted

COMPARISON_COLUMNS = ("mode", "trainable", "val", "95% interval", "kept epoch", "chosen on", "last epoch", "training s")
TEST_COLUMNS = ("test", "95% interval")


@dataclass(frozen=True)
class Row:
    """A metric with its formatted value; the page labels it with the text `report.KEY`."""

    key: str
    value: str | Found  # counts are formatted in the language of the page
    kind: str | None = None  # of synthetic images, for the key "found"


def comparison(configs: Iterable[ClassifierConfig]) -> list[tuple[str, ...]]:
    """The modes in comparison: COMPARISON_COLUMNS, then a row for each config that has metrics.

    TEST_COLUMNS stand beside those of the validation images where there were test images.
    """
    measured = [(config, config.metrics) for config in configs if config.metrics]
    tested = any(metrics.test for _, metrics in measured)
    rows = [
        (
            str(config.mode),
            f"{metrics.parameters.trainable:,}",
            f"{metrics.kept.accuracy:.1%}" + (" (cross-validated)" if metrics.cross_validation else ""),
            interval(metrics.kept.interval),
            *(_tested(metrics.test) if tested else ()),
            f"{metrics.kept.epoch} of {metrics.epochs}",
            metrics.selected_on or "unknown",
            f"{metrics.last.accuracy:.1%}" if metrics.last else "not measured",
            f"{metrics.seconds:.1f}",
        )
        for config, metrics in measured
    ]
    return [(*COMPARISON_COLUMNS[:4], *(TEST_COLUMNS if tested else ()), *COMPARISON_COLUMNS[4:]), *rows]


def _tested(score: Score | None) -> tuple[str, str]:
    return (f"{score.accuracy:.1%}", interval(score.interval)) if score else ("not measured", "")


def metric_rows(metrics: Metrics) -> list[Row]:
    """All known metrics of a model, except those of single classes."""
    crossed = "cross_validated" if metrics.cross_validation else "accuracy"
    numbers = [
        ("last", metrics.last and metrics.last.accuracy, ".1%"),
        ("f1", metrics.macro and metrics.macro.f1, ".3f"),
        ("auc", metrics.auc, ".3f"),
        ("zero_shot", metrics.zero_shot and metrics.zero_shot.accuracy, ".1%"),
        ("loss", metrics.kept.loss, ".3f"),
        ("calibration", metrics.calibration_error, ".3f"),
        ("temperature", metrics.calibration and metrics.calibration.temperature, ".2f"),
    ]
    neither = metrics.neither
    return [
        Row(crossed, _with_bounds(metrics.kept)),
        *([Row("test", _with_bounds(metrics.test))] if metrics.test else []),
        *(Row(key, format(value, form)) for key, value, form in numbers if value is not None),
        *([Row("alarms", neither.val)] if neither and neither.val else []),
        *(Row("found", found, kind) for kind, found in (neither.foreign if neither else {}).items()),
        Row("kept", Found(found=metrics.kept.epoch, count=metrics.epochs)),
        Row("chosen_on", metrics.selected_on or "?"),
        Row("trainable", f"{metrics.parameters.trainable:,}"),
        Row("seconds", f"{metrics.seconds:.1f}"),
    ]


def _with_bounds(score: Score) -> str:
    low, high = score.interval
    return f"{score.accuracy:.1%} [{low:.1%}, {high:.1%}]"


def interval(bounds: Sequence[float]) -> str:
    """The bounds of an interval in percent."""
    low, high = bounds
    return f"{max(0, low):.1%} to {min(1, high):.1%}"  # the interval of a mean may exceed 0..1


def with_interval(score: Score) -> str:
    """An accuracy with its counts and its 95% interval."""
    return f"{score.accuracy:.1%} ({score.correct} of {score.count}), 95% {interval(score.interval)}"


def conclusions(configs: Sequence[ClassifierConfig]) -> list[str]:
    """Sentences about the metrics of a run that `comparison` does not show."""
    measured = [(config, config.metrics) for config in configs if config.metrics]
    sentences = [f"{config.mode}: {sentence}" for config, metrics in measured for sentence in _of_mode(config, metrics)]
    for config, metrics in measured[:1]:  # equal for all modes
        if zero_shot := metrics.zero_shot:
            which = "this" if config.weights.earlier else "any"
            sentences.append(
                f"before {which} training the starting weights' own head has {zero_shot.accuracy:.1%} right"
            )
        if metrics.enough_data:
            sentences.append(metrics.enough_data)
    return sentences


def evaluation(result: Evaluation, names: Sequence[str]) -> list[str]:
    """The lines of an evaluation; `names` are printable class names."""
    lines = [
        f"accuracy  {with_interval(result)}",
        f"loss      {result.loss:.3f} (negative log-likelihood, nats)",
        f"calibration error {result.calibration_error:.3f}",
    ]
    if result.auc is not None:
        lines.append(f"area under the ROC curve {result.auc:.3f}")
    if result.cleaned:
        lines.append(f"without excluded photos {with_interval(result.cleaned)}")
    if result.neither:
        lines.append(f'"neither" of {result.neither.found} of {counted(result.neither.count, "photo")}')
    predicted = [
        ", ".join(f"{count} as {name}" for count, name in zip(row, names, strict=True) if count)
        for row in result.confusion
    ]
    rows = [("", "precision", "recall", "F1")]
    has_photos = [*map(any, result.confusion), True]
    for name, score, known in zip(
        [*names, "mean of classes"], [*result.per_class, result.macro], has_photos, strict=True
    ):
        numbers = [f"{value:.3f}" for value in (score.precision, score.recall, score.f1)]
        rows.append((name, *(numbers if known else ("", "", ""))))
    table = aligned(rows).splitlines()
    last_column = ["predicted", *(cell or "no photo of this class" for cell in predicted), ""]
    return lines + [f"{line}   {cell}".rstrip() for line, cell in zip(table, last_column, strict=True)]


def _of_mode(config: ClassifierConfig, metrics: Metrics) -> list[str]:
    sentences = []
    if metrics.seeds:
        kept = metrics.seeds.kept
        mean = f"{kept.mean:.1%} ({interval(kept.interval)})"
        sentences.append(f"mean of {len(kept.values)} seeds on these same photos {mean}")
    if metrics.cleaned:
        sentences.append(
            f"{metrics.cleaned.accuracy:.1%} on the {counted(metrics.cleaned.count, 'photo')} not excluded"
        )
    if metrics.neither:
        return sentences + _detected(metrics.neither)
    if config.mode == "finetune" and metrics.calibration is None and config.recipe.get("folds") == 0:
        # A trained network maps its own training photos closer together than new ones.
        return [
            *sentences,
            '"neither" is not detected: without folds no photo is left out of training for its threshold',
        ]
    return [*sentences, '"neither" is not detected: there are too few photos for its threshold']


def has_false_alarms(neither: Mapping[str, Any]) -> bool:
    """Whether a model answers "neither" for far more validation photos than meant, by its record in config.json."""
    alarms, rate = neither.get("val") or {}, neither.get("rate")
    if rate is None or not alarms.get("count"):
        return False
    found, count = alarms["found"], alarms["count"]
    return bool(found > 3 * rate * count and wilson_interval(found, count)[0] > rate)


def _detected(neither: OODMetrics) -> list[str]:
    """How often a model answers "neither"; a warning where that is far more often than meant."""
    parts, warning = [], []
    if alarms := neither.val:
        parts.append(f"wrongly for {alarms.found} of {counted(alarms.count, 'validation photo')}")
        if has_false_alarms(neither.model_dump()):
            warning = [
                f'warning: do not believe its "neither", which should be wrong for about {neither.rate:.0%} of them: '
                "more training photos help"
            ]
    if neither.foreign:
        kinds = ", ".join(f"{kind} {found.found} of {found.count}" for kind, found in neither.foreign.items())
        parts.append(f"rightly for {kinds}")
    return [f'"neither" {"; ".join(parts)}'] * bool(parts) + warning


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join("   ".join(line) for line in lines)
