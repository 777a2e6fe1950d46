"""Nearest neighbours in feature space: the KNN out-of-distribution detector, suspicious labels and near-duplicates.

A prediction is "neither" where the distance of its features to the k-th nearest training image exceeds
`KNNDetector.threshold` (see `classifier.Prediction.is_out_of_distribution`). `threshold()` chooses that value from
distances of images that were left out of training. Features are normalised to length 1: distances are 0 (equal) to 2.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from antbee.errors import InputError
from antbee.models.tensors import TensorsError, read_tensors, write_tensors

FALSE_ALARM_RATE = 0.05  # share of in-distribution images that the threshold lets be called "neither"
NEAREST = 10  # k of version 0.1: the distance to the k-th nearest training image is compared with the threshold
LARGEST_DETECTOR = 20_000  # images; of more, a sample detects as well (Sun et al. 2022, figure 3)
CHUNK = 1024  # rows of a distance matrix that are computed at a time
NO_LIMIT = 2.0  # the largest distance: with this threshold nothing is "neither"
LARGEST_SAMPLE = 2_000  # images, in `leave_classes_out`, which compares all pairs for every class


class DetectorError(InputError):
    """A detector's file can't be used; the message says why."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest references of each query, nearest first."""

    distances: Tensor  # float64 (B, k), 0..2
    positions: Tensor  # int64 (B, k), rows of the references


@dataclass(frozen=True)
class KNNDetector:
    """The out-of-distribution detector of a model: the features of its training images, and a distance threshold.

    Deep nearest neighbours of Sun et al. 2022, arXiv 2204.06507.
    """

    features: Tensor  # float32 (N, C), each of length 1
    labels: Tensor  # int64 (N,)
    names: tuple[str, ...]  # files, relative to the data folder
    threshold: float  # images with a larger distance to the k-th nearest are out of distribution; or NO_LIMIT
    neighbours: int = NEAREST  # k

    @property
    def limit(self) -> float | None:
        """The threshold; None where no images, or too few, were left out of training to choose it.

        Then nothing is "neither".
        """
        return self.threshold if self.threshold < NO_LIMIT else None

    @cached_property
    def _directions(self) -> Tensor:
        return directions(self.features)

    def nearest(self, features: Tensor, count: int = NEAREST) -> Neighbours:
        """The `count` nearest training images, or all if they are fewer, to features (B, C) of any length."""
        return nearest(directions(features), self._directions, count)

    def distance(self, features: Tensor) -> Tensor:
        """The distance that is compared with the threshold, of features (B, C): float64 (B,), see `kth_distance`."""
        return self.nearest(features, self.neighbours).distances[:, -1]

    def save(self, path: Path) -> str:
        """Writes a safetensors file with the names in its metadata; returns its SHA-256."""
        tensors = {
            "features": self.features,
            "labels": self.labels,
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
            "neighbours": torch.tensor(self.neighbours),
        }
        return write_tensors(path, tensors, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path, *, feature_count: int, class_count: int, digest: str | None = None) -> "KNNDetector":
        """Reads a detector from an untrusted file; `digest` is the SHA-256 that the file must have.

        Raises DetectorError where the file is damaged or does not fit the network.
        """
        try:
            read = read_tensors(path)
            names = json.loads(read.metadata.get("names", "null"))
        except (TensorsError, ValueError, RecursionError) as error:
            raise DetectorError(f"{path} can't be read ({' '.join(str(error).split()):.200})") from error
        if digest not in (None, read.digest):
            raise DetectorError(f"{path} is not the file that config.json names: its checksum is {read.digest[:12]}")
        tensors = {"neighbours": torch.tensor(NEAREST), **read.tensors}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        _check_shapes(path, names, shapes, feature_count)
        _check_values(path, tensors, class_count)
        limit, neighbours = float(tensors["threshold"]), int(tensors["neighbours"])
        return cls(tensors["features"], tensors["labels"], tuple(names), limit, neighbours)


def _check_shapes(path: Path, names: object, shapes: dict[str, tuple[int, ...]], feature_count: int) -> None:
    count = len(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else 0
    expected = {"features": (count, feature_count), "labels": (count,), "threshold": (), "neighbours": ()}
    if not 0 < count <= LARGEST_DETECTOR or shapes != expected:
        raise DetectorError(f"{path} holds {_shown(shapes)} for {count} names, expected {_shown(expected)}")


def _check_values(path: Path, tensors: dict[str, Tensor], class_count: int) -> None:
    expected = {"features": torch.float32, "labels": torch.int64, "threshold": torch.float64, "neighbours": torch.int64}
    if (found := {name: tensor.dtype for name, tensor in tensors.items()}) != expected:
        raise DetectorError(f"{path} holds {_shown(found)}, expected {_shown(expected)}")
    features, labels, threshold = tensors["features"], tensors["labels"], float(tensors["threshold"])
    if not torch.allclose(features.norm(dim=1), torch.ones(len(features)), atol=1e-3):  # also false for NaN
        raise DetectorError(f"{path} has features that are not of length 1")
    if not ((labels >= 0) & (labels < class_count)).all():
        raise DetectorError(f"{path} has labels outside of {class_count} classes")
    if not 1 <= (neighbours := int(tensors["neighbours"])) <= LARGEST_DETECTOR:
        raise DetectorError(f"{path} compares {neighbours} neighbours, expected 1 to {LARGEST_DETECTOR}")
    if not 0 <= threshold <= 2:
        raise DetectorError(f"{path} has the threshold {threshold}, expected a distance of 0 to 2")


def _shown(tensors: Mapping[str, object]) -> str:
    shown = [f"{repr(name)[1:-1]:.40} {what}" for name, what in sorted(tensors.items())]
    return ", ".join(shown[:4]) + (" and more" if len(shown) > 4 else "") or "nothing"


def build_detector(
    features: Tensor, labels: Tensor, names: Sequence[str], threshold: float, neighbours: int = NEAREST
) -> KNNDetector:
    """A detector from the features (N, C), labels (N,) and file names of training images, or of a `sample` of them."""
    kept = sample(len(features))
    kept_names = tuple(names[position] for position in kept.tolist())
    rows = directions(features[kept.to(features.device)]).float()
    return KNNDetector(rows, labels[kept], kept_names, threshold, neighbours)


def sample(count: int, limit: int | None = None) -> Tensor:
    """Random positions among `count` images, at most `limit` or LARGEST_DETECTOR: int64, ascending, deterministic.

    These are the images that a detector keeps. Distances for its threshold must be measured to as many: distances to
    more images are shorter.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: limit or LARGEST_DETECTOR].sort().values


def directions(features: Tensor) -> Tensor:
    """Features (N, C) normalised to length 1: float64 (N, C), on the CPU.

    In float32 the distance of an image to itself would be 0.0005, and some devices lack float64.
    """
    return normalize(features.cpu().double())


def nearest(queries: Tensor, references: Tensor, count: int, *, same: bool = False) -> Neighbours:
    """The `count` nearest `references` (N, C) of each of `queries` (B, C), all normalised by `directions`.

    With `same`, the queries are the references themselves, and none is its own neighbour.
    """
    count = min(count, len(references) - same)
    found = [distances.topk(count, largest=False) for distances in _distances(queries, references, same=same)]
    return Neighbours(torch.cat([part.values for part in found]), torch.cat([part.indices for part in found]))


def _distances(queries: Tensor, references: Tensor, *, same: bool = False) -> Iterator[Tensor]:
    """The distance matrix in chunks of rows, float64 (<= CHUNK, N)."""
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]
        distances = (2 - 2 * (chunk @ references.T)).clamp(min=0).sqrt()
        if same:
            distances[:, start : start + len(chunk)].fill_diagonal_(math.inf)
        yield distances


def kth_distance(queries: Tensor, references: Tensor, *, count: int = NEAREST, same: bool = False) -> Tensor:
    """The distance of each of `queries` (B, C) to its `count`-th nearest of `references` (N, C): float64 (B,), 0..2.

    It is the out-of-distribution score of Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors",
    arXiv 2204.06507. With `same`, the queries are the references themselves, and none is its own neighbour.
    """
    if len(references) == same:  # there is no neighbour
        return torch.full((len(queries),), NO_LIMIT, dtype=torch.double)
    return nearest(directions(queries), directions(references), count, same=same).distances[:, -1]


def threshold(distances: Tensor, rate: float = FALSE_ALARM_RATE) -> float:
    """The threshold with a false alarm rate of `rate`, from distances (N,) of images left out of training.

    By split conformal prediction the expected rate on new images of the same kind is at most `rate` (Angelopoulos and
    Bates 2021, arXiv 2107.07511). This is exact for distances in one network's features, and an approximation for
    distances of several folds in those of their own networks. NO_LIMIT where there are too few images for the rate.
    """
    ordered = distances.sort().values
    rank = math.ceil((len(ordered) + 1) * (1 - rate))
    return float(ordered[rank - 1]) if rank <= len(ordered) else NO_LIMIT


def leave_classes_out(
    features: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *, count: int = NEAREST
) -> int:
    """Counts `others` (B, C) that a detector on `features` (N, C), without those of the same class, detects.

    It compares the distance to the `count`-th nearest.

    The features must come from a backbone that was not trained on these classes.
    """
    kept = sample(len(features), LARGEST_SAMPLE)
    features, labels = features[kept], labels[kept]
    found = 0
    for label in other_labels.unique():
        rest = features[labels != label]
        beyond = threshold(kth_distance(rest, rest, count=count, same=True))
        found += int((kth_distance(others[other_labels == label], rest, count=count) > beyond).sum())
    return found


def label_doubt(features: Tensor, labels: Tensor, probabilities: Tensor) -> Tensor:
    """The evidence against each image's label: float64 (N,), 0..1; above 0.5 it outweighs that for the label.

    It is 1 minus the mean of two estimates of the label's probability: the share of the nearest neighbours with that
    label, weighted by inverse distance (features (N, C), labels (N,)), and the out-of-fold `probabilities` (N, classes)
    of a head, the self-confidence of Northcutt et al. 2021, "Confident Learning", arXiv 1911.00068.
    """
    rows = directions(features)
    found = nearest(rows, rows, NEAREST, same=True)
    weight = 1 / found.distances.clamp(min=1e-3)
    agreeing = (labels[found.positions] == labels[:, None]) * weight
    neighbours = agreeing.sum(1) / weight.sum(1)
    head = probabilities.gather(1, labels[:, None])[:, 0]
    return 1 - (neighbours + head) / 2


@dataclass(frozen=True)
class Pair:
    """A pair of near-duplicates, as rows of the compared features."""

    first: int
    second: int
    distance: float  # of features, 0..2


def pairs_within(features: Tensor, distance: float) -> list[Pair]:
    """All pairs of features (N, C) within a distance of each other, nearest first."""
    rows = directions(features)
    pairs = []
    for chunk, distances in enumerate(_distances(rows, rows, same=True)):
        for row, column in (distances <= distance).nonzero().tolist():
            if (first := chunk * CHUNK + row) < column:
                pairs.append(Pair(first, column, float(distances[row, column])))
    return sorted(pairs, key=lambda pair: pair.distance)
