"""How good it is: from logits and labels to figures a person can trust."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Score:
    """Right answers and mean loss over a set of photos; sums are divided once, so uneven batches weigh right."""

    correct: int
    count: int
    loss: float  # mean cross-entropy, in nats

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0..1."""
        return self.correct / self.count


def score(logits: Tensor, labels: Tensor) -> Score:
    """Logits (N, classes) and labels (N,) -> how many are right, and the mean cross-entropy."""
    loss = functional.cross_entropy(logits, labels)
    return Score(correct=int((logits.argmax(1) == labels).sum()), count=len(labels), loss=float(loss))


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of `correct` out of `count`.

    Wilson 1927; unlike the plain normal interval it stays inside 0..1 and holds for few photos and high shares.
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    z = 1.959964  # 97.5 % quantile of the normal distribution
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
