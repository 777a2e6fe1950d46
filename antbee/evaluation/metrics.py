"""Metrics of classifiers, computed from logits and labels: accuracy, F1, ROC AUC, McNemar's test, spread over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from antbee.evaluation.calibration import calibration_error
from antbee.models.metrics import ClassMetrics, Evaluation, Score, Spread

SIGNIFICANT = 0.05  # level of significance: differences with a smaller p-value are reported as significant

# 97.5% quantiles of Student's t distribution with 1, 2, ... degrees of freedom.
# fmt: off
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
NORMAL_QUANTILE = 1.959964


def score(logits: Tensor, labels: Tensor) -> Score:
    """Accuracy and mean cross-entropy of logits (N, classes) for labels (N,)."""
    accuracy = share(int((logits.argmax(1) == labels).sum()), len(labels)).model_dump(exclude_unset=True)
    return Score(**accuracy, loss=float(functional.cross_entropy(logits, labels)))


def share(correct: int, count: int) -> Score:
    """The accuracy of `correct` among `count` predictions with its 95% interval; the loss is not set."""
    interval = list(wilson_interval(correct, count))
    return Score(correct=correct, count=count, accuracy=correct / count, interval=interval)


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95% Wilson score interval of the proportion `correct` / `count`.

    Unlike the normal approximation it stays inside 0..1 and holds for few images and for proportions near 0 or 1.
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
    """The confusion matrix, int64 (classes, classes): rows are true classes, columns are predicted classes."""
    class_count = logits.shape[1]
    pairs = labels * class_count + logits.argmax(1)
    return torch.bincount(pairs, minlength=class_count * class_count).reshape(class_count, class_count)


def class_metrics(confusion: Sequence[Sequence[int]]) -> list[ClassMetrics]:
    """Precision, recall and F1 of every class; 0 where the denominator is 0."""
    found = []
    for index, row in enumerate(confusion):
        correct, of_class, predicted = row[index], sum(row), sum(counts[index] for counts in confusion)
        precision, recall = correct / max(predicted, 1), correct / max(of_class, 1)
        found.append(ClassMetrics(precision=precision, recall=recall, f1=2 * correct / max(of_class + predicted, 1)))
    return found


def macro_average(per_class: Sequence[ClassMetrics]) -> ClassMetrics:
    """The unweighted mean over classes."""
    names = ClassMetrics.model_fields
    return ClassMetrics(**{name: statistics.fmean(getattr(one, name) for one in per_class) for name in names})


def roc_auc(logits: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve of the second of two classes: logits (N, 2), labels (N,), both classes in them."""
    values = (logits[:, 1] - logits[:, 0]).double()
    return area_under_roc(values[labels == 0], values[labels == 1])


def area_under_roc(negatives: Tensor, positives: Tensor) -> float:
    """The probability that a score of `positives` (P,) ranks above one of `negatives` (N,); ties count half.

    Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747
    """
    negatives, positives = negatives.sort().values, positives.contiguous()
    below, not_above = (torch.searchsorted(negatives, positives, right=right) for right in (False, True))
    return float((below + not_above).double().mean() / 2 / len(negatives))


def evaluate(logits: Tensor, labels: Tensor) -> Evaluation:
    """All metrics of logits (N, classes) for labels (N,).

    The macro average is that of the classes that have images; the AUC is that of two classes that both have some.
    """
    confusion = confusion_matrix(logits, labels).tolist()
    per_class = class_metrics(confusion)
    has_curve = logits.shape[1] == 2 and len(labels.unique()) == 2
    return Evaluation(
        **score(logits, labels).model_dump(),
        macro=macro_average([one for one, row in zip(per_class, confusion, strict=True) if sum(row)]),
        per_class=per_class,
        confusion=confusion,
        calibration_error=calibration_error(logits, labels),
        auc=roc_auc(logits, labels) if has_curve else None,
    )


@dataclass(frozen=True)
class Difference:
    """The predictions of two classifiers compared on the same images."""

    count: int  # images
    first_alone: int  # images that only the first classifier predicts correctly
    second_alone: int
    p: float  # the two-sided p-value of McNemar's exact test

    @property
    def is_significant(self) -> bool:
        """Whether the p-value is below SIGNIFICANT."""
        return self.p < SIGNIFICANT


def difference(first_right: Tensor, second_right: Tensor) -> Difference:
    """Compares two classifiers: bool (N,) each, whether they predict the same images correctly.

    Under the null hypothesis of McNemar's test an image that only one classifier predicts correctly belongs to either
    with probability 1/2. https://en.wikipedia.org/wiki/McNemar%27s_test
    """
    first_alone, second_alone = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    count = first_alone + second_alone
    tail, ways = 0, 1  # of 2**count: exact integers, which do not underflow
    for successes in range(min(first_alone, second_alone) + 1):
        tail += ways
        ways = ways * (count - successes) // (successes + 1)
    return Difference(len(first_right), first_alone, second_alone, min(1.0, 2 * tail / 2**count))


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and 95% interval of the mean (Student's t) of at least two values."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    freedom = len(values) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else _t_quantile(freedom)
    reach = quantile * deviation / math.sqrt(len(values))
    return Spread(values=list(values), mean=mean, deviation=deviation, interval=[mean - reach, mean + reach])


def _t_quantile(freedom: int) -> float:
    """The 97.5% quantile for more degrees of freedom than T_QUANTILES has (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NORMAL_QUANTILE
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
