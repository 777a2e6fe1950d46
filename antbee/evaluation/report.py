"""Metrics as rows and sentences, for the terminal, the model card and the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antbee.models.config import ClassifierConfig
from antbee.models.metrics import ClassMetrics, Evaluation, Found, Metrics, Score

COMPARISON_COLUMNS = ("mode", "trainable", "val", "95% interval", "kept epoch", "chosen on", "last epoch", "seconds")


@dataclass(frozen=True)
class Row:
    """A metric with its formatted value; the page labels it with the text `report.KEY`."""

    key: str
    value: str | Found  # counts are formatted in the language of the page
    kind: str | None = None  # of synthetic images, for the key "found"


def comparison(configs: Iterable[ClassifierConfig]) -> list[tuple[str, ...]]:
    """The modes in comparison: a row of COMPARISON_COLUMNS for each config that has metrics."""
    return [_comparison_row(str(config.mode), config.metrics) for config in configs if config.metrics]


def _comparison_row(mode: str, metrics: Metrics) -> tuple[str, ...]:
    kept, last = metrics.kept, metrics.last
    return (
        mode,
        f"{metrics.parameters.trainable:,}",
        f"{kept.accuracy:.1%}" + (" (cross-validated)" if metrics.cross_validation else ""),
        interval(kept.interval),
        f"{kept.epoch} of {metrics.epochs}",
        metrics.selected_on or "unknown",
        f"{last.accuracy:.1%}" if last else "not measured",
        f"{metrics.seconds:.1f}",
    )


def metric_rows(metrics: Metrics) -> list[Row]:
    """All known metrics of a model, except those of single classes."""
    low, high = metrics.kept.interval
    crossed = "cross_validated" if metrics.cross_validation else "accuracy"
    found = {
        crossed: f"{metrics.kept.accuracy:.1%} [{low:.1%}, {high:.1%}]",
        "last": _formatted(metrics.last.accuracy if metrics.last else None, ".1%"),
        "f1": _formatted(metrics.macro.f1 if metrics.macro else None, ".3f"),
        "auc": _formatted(metrics.auc, ".3f"),
        "zero_shot": _formatted(metrics.zero_shot.accuracy if metrics.zero_shot else None, ".1%"),
        "loss": _formatted(metrics.kept.loss, ".3f"),
        "calibration": _formatted(metrics.calibration_error, ".3f"),
        "temperature": _formatted(metrics.calibration.temperature if metrics.calibration else None, ".2f"),
    }
    return [
        *(Row(key, value) for key, value in found.items() if value is not None),
        *out_of_distribution(metrics),
        Row("kept", Found(found=metrics.kept.epoch, count=metrics.epochs)),
        Row("chosen_on", metrics.selected_on or "?"),
        Row("trainable", f"{metrics.parameters.trainable:,}"),
        Row("seconds", f"{metrics.seconds:.1f}"),
    ]


def out_of_distribution(metrics: Metrics) -> list[Row]:
    """Images detected as "neither": validation images ("alarms"), then each kind of synthetic images ("found")."""
    if (neither := metrics.neither) is None:
        return []
    alarms = [Row("alarms", neither.val)] if neither.val else []
    return [*alarms, *(Row("found", found, kind) for kind, found in neither.foreign.items())]


def calibration(metrics: Metrics) -> list[tuple[str, float, float]]:
    """Mean loss and calibration error before and after calibration; no rows where they are unknown."""
    before, loss, error = metrics.calibration, metrics.kept.loss, metrics.calibration_error
    if before is None or loss is None or error is None:
        return []
    return [("before", before.loss_before, before.error_before), ("after", loss, error)]


def class_scores(names: Sequence[str], scores: Sequence[ClassMetrics]) -> list[tuple[str, str, str, str]]:
    """Name, precision, recall and F1 of every class."""
    return [
        (name, f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}")
        for name, score in zip(names, scores, strict=True)
    ]


def _formatted(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def interval(bounds: Sequence[float]) -> str:
    """The bounds of an interval in percent."""
    low, high = bounds
    return f"{max(0, low):.1%} to {min(1, high):.1%}"  # the interval of a mean may exceed 0..1


def with_interval(score: Score) -> str:
    """An accuracy with its counts and its 95% interval."""
    return f"{score.accuracy:.1%} ({score.correct} of {score.count}), 95% {interval(score.interval)}"


def of(found: Found) -> str:
    """Counts as text."""
    return f"{found.found} of {found.count}"


def conclusions(configs: Sequence[ClassifierConfig]) -> list[str]:
    """Sentences about the metrics of a run that `comparison` does not show."""
    measured = [(config.mode, config.metrics) for config in configs if config.metrics]
    sentences = [f"{mode}: {sentence}" for mode, metrics in measured for sentence in _of_mode(metrics)]
    for _, metrics in measured[:1]:  # equal for all modes
        if zero_shot := metrics.zero_shot:
            sentences.append(f"before any training the starting weights' own head has {zero_shot.accuracy:.1%} right")
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
        lines.append(f'"neither" of {of(result.neither)} photos')
    predicted = [
        ", ".join(f"{count} as {name}" for count, name in zip(row, names, strict=True) if count)
        for row in result.confusion
    ]
    head = ("", "precision", "recall", "F1")
    rows = class_scores([*names, "mean of classes"], [*result.per_class, result.macro])
    table = aligned([head, *rows]).splitlines()
    last_column = ["predicted", *predicted, ""]
    return lines + [f"{line}   {cell}".rstrip() for line, cell in zip(table, last_column, strict=True)]


def _of_mode(metrics: Metrics) -> list[str]:
    sentences = []
    if metrics.seeds:
        kept = metrics.seeds.kept
        mean = f"{kept.mean:.1%} ({interval(kept.interval)})"
        sentences.append(f"mean of {len(kept.values)} seeds on these same photos {mean}")
    if metrics.cleaned:
        sentences.append(f"{metrics.cleaned.accuracy:.1%} on the {metrics.cleaned.count} photos not excluded")
    if (neither := metrics.neither) is None:
        return [*sentences, 'too few images to detect "neither"']
    alarms = f"wrongly for {of(neither.val)} validation photos" if neither.val else ""
    detected = ", ".join(f"{kind} {of(found)}" for kind, found in neither.foreign.items())
    parts = [part for part in (alarms, f"rightly for {detected}" if detected else "") if part]
    return [*sentences, f'"neither" {"; ".join(parts)}'] if parts else sentences


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join("   ".join(line) for line in lines)
