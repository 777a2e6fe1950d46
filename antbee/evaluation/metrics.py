"""How good it is: from logits and labels to figures a person can trust."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from antbee.evaluation.calibration import calibration_error

SIGNIFICANT = 0.05  # a difference that chance explains less often than that is told as one

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom, as printed in any statistics book.
# fmt: off
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True)
class Score:
    """Right answers and mean loss over a set of photos; sums are divided once, so uneven batches weigh right."""

    correct: int
    count: int
    loss: float  # mean cross-entropy, which is the negative log-likelihood of a photo, in nats

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0..1."""
        return self.correct / self.count

    def to_record(self) -> dict[str, Any]:
        """All of it by name, with the accuracy's 95 % interval: what a config and a JSON file hold."""
        return share(self.correct, self.count) | {"loss": self.loss}


def score(logits: Tensor, labels: Tensor) -> Score:
    """Logits (N, classes) and labels (N,) -> how many are right, and the mean cross-entropy."""
    loss = functional.cross_entropy(logits, labels)
    return Score(correct=int((logits.argmax(1) == labels).sum()), count=len(labels), loss=float(loss))


def share(correct: int, count: int) -> dict[str, Any]:
    """How many of how many are right, by name, with the 95 % interval."""
    interval = list(wilson_interval(correct, count))
    return {"correct": correct, "count": count, "accuracy": correct / count, "interval": interval}


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of `correct` out of `count`.

    Wilson 1927; unlike the plain normal interval it stays inside 0..1 and holds for few photos and high shares.
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    z = NORMAL_QUANTILE
    share = correct / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At 0 and at 1 the bound is exact; rounding would leave 1e-17.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == count else (centre + spread) / scale
    return low, high


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, classes), labels (N,) -> int64 (classes, classes): rows are true classes, columns are answers."""
    class_count = logits.shape[1]
    pairs = labels * class_count + logits.argmax(1)
    return torch.bincount(pairs, minlength=class_count * class_count).reshape(class_count, class_count)


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from the others; a share of no photos at all counts as 0."""

    precision: float  # of the photos answered with this class, the share that is of it
    recall: float  # of the photos of this class, the share that is answered with it
    f1: float  # harmonic mean of both

    @classmethod
    def mean(cls, scores: Sequence["ClassScore"]) -> "ClassScore":
        """The macro average: every class counts the same, however many photos it has."""
        columns = ([getattr(score, name) for score in scores] for name in ("precision", "recall", "f1"))
        return cls(*map(statistics.fmean, columns))


def class_scores(confusion: Sequence[Sequence[int]]) -> list[ClassScore]:
    """Rows of true classes, columns of answers -> precision, recall and F1 of every class."""
    scores = []
    for index, row in enumerate(confusion):
        right, of_class, answered = row[index], sum(row), sum(answers[index] for answers in confusion)
        precision, recall = right / max(answered, 1), right / max(of_class, 1)
        scores.append(ClassScore(precision, recall, 2 * right / max(of_class + answered, 1)))
    return scores


def roc_auc(logits: Tensor, labels: Tensor) -> float:
    """Of two classes: how likely a photo of the second gets more of its probability than a photo of the first.

    Logits (N, 2), labels (N,), both classes among them. It is the area under the ROC curve; ties count half (Hanley and
    McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
    """
    return area_under_roc((logits[:, 1] - logits[:, 0]).double(), labels == 1)


def area_under_roc(values: Tensor, positive: Tensor) -> float:
    """How likely a positive example's value is above a negative one's: values (N,), positive bool (N,)."""
    negatives = values[~positive].sort().values.contiguous()
    positives = values[positive].contiguous()
    below, not_above = (torch.searchsorted(negatives, positives, right=right) for right in (False, True))
    return float((below + not_above).double().mean() / 2 / len(negatives))


@dataclass(frozen=True)
class Report:
    """Everything that logits and labels of a set of photos tell of a classifier."""

    score: Score
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows are true classes, columns are answers
    calibration_error: float
    auc: float | None  # of two classes alone, with photos of both

    @property
    def macro(self) -> ClassScore:
        """Precision, recall and F1, every class counting the same."""
        return ClassScore.mean(self.per_class)

    def to_record(self) -> dict[str, Any]:
        """All of it by name: what a JSON file holds."""
        return self.score.to_record() | self.details()

    def details(self) -> dict[str, Any]:
        """All but the score, by name."""
        return {
            "macro": asdict(self.macro),
            "per_class": [asdict(one) for one in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "calibration_error": self.calibration_error,
            "auc": self.auc,
        }


def report(logits: Tensor, labels: Tensor) -> Report:
    """Logits (N, classes) and labels (N,) -> how good they are."""
    confusion = confusion_matrix(logits, labels).tolist()
    has_curve = logits.shape[1] == 2 and len(labels.unique()) == 2
    return Report(
        score=score(logits, labels),
        per_class=tuple(class_scores(confusion)),
        confusion=tuple(map(tuple, confusion)),
        calibration_error=calibration_error(logits, labels),
        auc=roc_auc(logits, labels) if has_curve else None,
    )


def mcnemar(first_right: Tensor, second_right: Tensor) -> float:
    """How likely chance alone would part two equally good classifiers this far or farther: the two-sided p-value.

    Bool (N,) each, whether they are right on the same photos. McNemar 1947, exact: of the photos that one of them alone
    has right, either is as likely to have them as in tosses of a coin.
    https://en.wikipedia.org/wiki/McNemar%27s_test
    """
    first_alone = int((first_right & ~second_right).sum())
    second_alone = int((second_right & ~first_right).sum())
    tosses = first_alone + second_alone
    tail, ways = 0, 1  # of 2**tosses: whole numbers, so nothing is lost however many there are
    for heads in range(min(first_alone, second_alone) + 1):
        tail += ways
        ways = ways * (tosses - heads) // (heads + 1)
    return min(1.0, 2 * tail / 2**tosses)


@dataclass(frozen=True)
class Difference:
    """How two classifiers differ on the same photos."""

    count: int  # photos
    first_alone: int  # photos that the first has right and the second has not
    second_alone: int
    p: float  # see `mcnemar`

    @property
    def is_significant(self) -> bool:
        """Whether chance hardly explains it."""
        return self.p < SIGNIFICANT


def difference(first_right: Tensor, second_right: Tensor) -> Difference:
    """Bool (N,) each, whether two classifiers are right on the same photos -> how they differ."""
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    return Difference(len(first_right), first_alone, second_alone, mcnemar(first_right, second_right))


def _t_quantile(freedom: int) -> float:
    """The quantile beyond the table, to four digits (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NORMAL_QUANTILE
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


@dataclass(frozen=True)
class Spread:
    """What repeated runs came to."""

    values: tuple[float, ...]
    mean: float
    deviation: float  # standard deviation of single runs
    interval: tuple[float, float]  # 95 %, of the mean

    def to_record(self) -> dict[str, Any]:
        """All of it by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and the mean's 95 % interval (Student 1908) of two values or more."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    freedom = len(values) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else _t_quantile(freedom)
    reach = quantile * deviation / math.sqrt(len(values))
    return Spread(tuple(values), mean, deviation, (mean - reach, mean + reach))
