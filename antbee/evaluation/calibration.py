"""Calibration of probabilities: reliability diagram, expected calibration error, temperature scaling."""

from dataclasses import dataclass

from torch import Tensor

CALIBRATION_BINS = 15

COOLEST, HOTTEST = 0.25, 10.0  # bounds of the temperature, which tends to 0 as the last errors vanish


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """The expected calibration error, 0..1, of logits (N, classes) for labels (N,), over 15 bins of equal width.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599. With few images it is well above zero
    even for a calibrated model.
    """
    bins = reliability(logits, labels)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(labels)


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions with similar probabilities."""

    count: int
    confidence: float  # mean probability of the predicted classes
    accuracy: float  # share of correct predictions


def reliability(logits: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Groups predictions by their probability in `bins` of equal width: logits (N, classes), labels (N,).

    Empty bins are left out. It is the reliability diagram of Niculescu-Mizil and Caruana 2005,
    https://doi.org/10.1145/1102351.1102430
    """
    confidence, predicted = logits.softmax(1).max(1)
    confidence, correct = confidence.double(), (predicted == labels).double()
    indices = (confidence * bins).ceil().long().clamp(1, bins) - 1
    members = [indices == index for index in indices.unique()]
    return [
        ReliabilityBin(int(member.sum()), float(confidence[member].mean()), float(correct[member].mean()))
        for member in members
    ]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, 0.25..10, by which logits (N, classes) are divided for the lowest mean cross-entropy.

    Guo et al. 2017, arXiv 1706.04599. The loss is convex in the inverse of the temperature, so bisection of its
    derivative finds the minimum. It is 1 where all predictions are correct: the minimum would be at 0.
    """
    if bool((logits.argmax(1) == labels).all()):
        return 1.0
    logits = logits.double()
    of_labels = logits.gather(1, labels[:, None])[:, 0]
    low, high = 1 / HOTTEST, 1 / COOLEST
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((middle * logits).softmax(1) * logits).sum(1)
        if float((expected - of_labels).mean()) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)
