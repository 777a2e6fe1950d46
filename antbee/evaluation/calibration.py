"""Whether 80 % means 80 %: reliability, calibration error, temperature."""

from dataclasses import dataclass

from torch import Tensor

CALIBRATION_BINS = 15

COOLEST, HOTTEST = 0.25, 10.0  # bounds of a temperature: the fewer answers are wrong, the nearer to 0 it would be


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """How far the probability of an answer is from how often such answers are right, 0..1.

    The expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599,
    over 15 bins of equal width. With few photos chance alone keeps it well above zero.
    """
    bins = reliability(logits, labels)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(labels)


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers of about the same probability."""

    count: int
    confidence: float  # mean probability of the answers
    accuracy: float  # share of them that is right


def reliability(logits: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Logits (N, classes), labels (N,) -> answers by their probability, in `bins` of equal width; none that is empty.

    The reliability diagram of Niculescu-Mizil and Caruana 2005, https://doi.org/10.1145/1102351.1102430
    """
    confidence, answers = logits.softmax(1).max(1)
    confidence, right = confidence.double(), (answers == labels).double()
    places = (confidence * bins).ceil().long().clamp(1, bins) - 1
    members = [places == place for place in places.unique()]
    return [
        ReliabilityBin(int(member.sum()), float(confidence[member].mean()), float(right[member].mean()))
        for member in members
    ]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """What logits (N, classes) are best divided by: the temperature of the lowest mean cross-entropy.

    Guo et al. 2017, arXiv 1706.04599. The loss is convex in the inverse of the temperature, so halving an interval
    around the zero of its slope finds it. It stays in 0.25..10, and is 1 where no answer is wrong: then nothing can be
    learned about how sure wrong answers are.
    """
    if bool((logits.argmax(1) == labels).all()):
        return 1.0
    logits = logits.double()
    right = logits.gather(1, labels[:, None])[:, 0]
    low, high = 1 / HOTTEST, 1 / COOLEST
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((middle * logits).softmax(1) * logits).sum(1)
        if float((expected - right).mean()) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)
