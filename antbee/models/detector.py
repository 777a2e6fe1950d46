"""A bank of training photos' features, and what lies near a photo in it: one idea, four uses.

What it looks like, whether it looks like anything that was learned, whose label its neighbours doubt, and what is there
twice. Features are compared by direction alone: each is divided by its length, so distances run from 0 (the same) to 2.
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
from antbee.models.weights import TensorsError, read_tensors, write_tensors

FALSE_ALARM_RATE = 0.05  # of photos like those learned from, the share that may be called "neither"
NEAREST = 10  # neighbours that decide; fewer where the bank holds fewer
LARGEST_DETECTOR = 20_000  # photos; a sample of a larger set says as much (Sun et al. 2022, figure 3)
CHUNK = 1024  # photos compared with the bank at a time
NO_LIMIT = 2.0  # the farthest that directions can be from each other
LARGEST_SAMPLE = 2_000  # photos of a bank, where it is compared with itself once for every class


class DetectorError(InputError):
    """A file of features can't be used; the message says why."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest photos of a bank to each of some photos, nearest first."""

    distances: Tensor  # float64 (B, k), 0..2
    positions: Tensor  # int64 (B, k), in the bank


@dataclass(frozen=True)
class KNNDetector:
    """The features of training photos, and how far from them a photo may lie before it is like none of them."""

    features: Tensor  # float32 (N, C), each of length 1
    labels: Tensor  # int64 (N,)
    names: tuple[str, ...]  # files, relative to the data folder
    threshold: float  # distance to the k-th nearest beyond which the answer is "neither"; NO_LIMIT where none is known

    @property
    def limit(self) -> float | None:
        """The threshold, or None where too little is known to say "neither"."""
        return self.threshold if self.threshold < NO_LIMIT else None

    @cached_property
    def _directions(self) -> Tensor:
        return directions(self.features)

    def nearest(self, features: Tensor, count: int = NEAREST) -> Neighbours:
        """The `count` nearest photos, or all there are, to features (B, C) of any length."""
        return nearest(directions(features), self._directions, count)

    def distance(self, features: Tensor) -> Tensor:
        """How far features (B, C) lie from all that was learned from: float64 (B,), see `kth_distance`."""
        return self.nearest(features).distances[:, -1]

    def save(self, path: Path) -> str:
        """Writes the bank as safetensors; names stand in the metadata, and no picture anywhere. Gives its SHA-256."""
        tensors = {
            "features": self.features,
            "labels": self.labels,
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }
        return write_tensors(path, tensors, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path, *, feature_count: int, class_count: int, digest: str | None = None) -> "KNNDetector":
        """The bank in a file, which may come from anybody. Raises DetectorError where it is none of this network's.

        With a `digest`, the file has to have that SHA-256.
        """
        try:
            read = read_tensors(path)
            names = json.loads(read.metadata.get("names", "null"))
        except (TensorsError, ValueError, RecursionError) as error:
            raise DetectorError(f"{path} can't be read ({' '.join(str(error).split()):.200})") from error
        if digest not in (None, read.digest):
            raise DetectorError(
                f"{path} is not the file that config.json tells of: another checksum, {read.digest[:12]}"
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in read.tensors.items()}
        _check_shapes(path, names, shapes, feature_count)
        _check_values(path, read.tensors, class_count)
        return cls(read.tensors["features"], read.tensors["labels"], tuple(names), float(read.tensors["threshold"]))


def _check_shapes(path: Path, names: object, shapes: dict[str, tuple[int, ...]], feature_count: int) -> None:
    count = len(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else 0
    expected = {"features": (count, feature_count), "labels": (count,), "threshold": ()}
    if not 0 < count <= LARGEST_DETECTOR or shapes != expected:
        raise DetectorError(f"{path} holds {_shown(shapes)} for {count} names, expected {_shown(expected)}")


def _check_values(path: Path, tensors: dict[str, Tensor], class_count: int) -> None:
    expected = {"features": torch.float32, "labels": torch.int64, "threshold": torch.float64}
    if (found := {name: tensor.dtype for name, tensor in tensors.items()}) != expected:
        raise DetectorError(f"{path} holds {_shown(found)}, expected {_shown(expected)}")
    features, labels, threshold = tensors["features"], tensors["labels"], float(tensors["threshold"])
    if not torch.allclose(
        features.norm(dim=1), torch.ones(len(features)), atol=1e-3
    ):  # false too where one is not a number
        raise DetectorError(f"{path} has features that are not of length 1")
    if not ((labels >= 0) & (labels < class_count)).all():
        raise DetectorError(f"{path} has labels outside of {class_count} classes")
    if not 0 <= threshold <= 2:
        raise DetectorError(f"{path} has the threshold {threshold}, expected a distance of 0 to 2")


def _shown(tensors: Mapping[str, object]) -> str:
    told = [f"{repr(name)[1:-1]:.40} {what}" for name, what in sorted(tensors.items())]
    return ", ".join(told[:3]) + (" and more" if len(told) > 3 else "") or "nothing"


def build_detector(features: Tensor, labels: Tensor, names: Sequence[str], threshold: float) -> KNNDetector:
    """The bank of the features (N, C) of photos, or of a `sample` of very many."""
    kept = sample(len(features))
    kept_names = tuple(names[position] for position in kept.tolist())
    return KNNDetector(directions(features[kept.to(features.device)]).float(), labels[kept], kept_names, threshold)


def sample(count: int, limit: int | None = None) -> Tensor:
    """The positions, among `count` photos, of those that a bank keeps: int64, ascending, and always the same.

    At most `limit`, or LARGEST_DETECTOR.

    Whoever chooses a threshold has to measure distances to no more photos than the bank will hold: to more they are
    shorter.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: limit or LARGEST_DETECTOR].sort().values


def directions(features: Tensor) -> Tensor:
    """Features (N, C) of any length -> float64 (N, C) of length 1, on the CPU.

    Not every device knows float64, and in float32 a photo would lie 0.0005 away from itself.
    """
    return normalize(features.cpu().double())


def nearest(rows: Tensor, bank: Tensor, count: int, *, same: bool = False) -> Neighbours:
    """The `count` nearest directions of `detector` (N, C) to each of `rows` (B, C).

    With `same`, `rows` are the bank's own in its order, and none is its own neighbour.
    """
    count = min(count, len(bank) - same)
    found = [between.topk(count, largest=False) for between in _distances(rows, bank, same=same)]
    return Neighbours(torch.cat([part.values for part in found]), torch.cat([part.indices for part in found]))


def _distances(rows: Tensor, bank: Tensor, *, same: bool = False) -> Iterator[Tensor]:
    """The distances between directions, float64 (<= CHUNK, N) for one part of the rows after the other."""
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        between = (2 - 2 * (part @ bank.T)).clamp(min=0).sqrt()
        if same:
            between[:, start : start + len(part)].fill_diagonal_(math.inf)
        yield between


def kth_distance(features: Tensor, bank: Tensor, *, count: int = NEAREST, same: bool = False) -> Tensor:
    """The distance of each of `features` (B, C) to its `count`-th nearest in `detector` (N, C): float64 (B,), 0..2.

    Far from everything that was learned from, an answer means nothing. Sun et al. 2022, "Out-of-Distribution Detection
    with Deep Nearest Neighbors", arXiv 2204.06507. With `same`, each row is left out of its own neighbours.
    """
    if len(bank) == same:  # no other photo: nothing is known to be near
        return torch.full((len(features),), NO_LIMIT, dtype=torch.double)
    return nearest(directions(features), directions(bank), count, same=same).distances[:, -1]


def threshold(distances: Tensor, rate: float = FALSE_ALARM_RATE) -> float:
    """The distance that a share of `rate` of photos like these lie beyond: distances (N,) of photos not learned from.

    As conformal prediction chooses it: on average over new photos of the same kind the false alarms stay at or below
    `rate` (Angelopoulos and Bates 2021, arXiv 2107.07511). That holds for distances in one network's features; measured
    in those of networks that learned from other parts of the photos it is an approximation. NO_LIMIT where there are
    too few photos.
    """
    ordered = distances.sort().values
    place = math.ceil((len(ordered) + 1) * (1 - rate))
    return float(ordered[place - 1]) if place <= len(ordered) else NO_LIMIT


def leave_classes_out(features: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> int:
    """Of `others` (B, C), how many are called "neither" by a bank (N, C) without the photos of their own class.

    The features must come from a backbone that learned nothing of the classes.
    """
    kept = sample(len(features), LARGEST_SAMPLE)
    features, labels = features[kept], labels[kept]
    found = 0
    for label in other_labels.unique():
        rest = features[labels != label]
        beyond = threshold(kth_distance(rest, rest, same=True))
        found += int((kth_distance(others[other_labels == label], rest) > beyond).sum())
    return found


def label_doubt(features: Tensor, labels: Tensor, probabilities: Tensor) -> Tensor:
    """How much speaks against each photo's label: float64 (N,), 0..1; above 0.5 the evidence is against it.

    The mean of what the nearest photos say, each by its nearness, and of what a head says that never saw the photo:
    features (N, C), labels (N,), `probabilities` (N, classes) out of fold. The head's half is the self-confidence of
    Northcutt et al. 2021, "Confident Learning", arXiv 1911.00068.
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
    """Two photos that show the same, as positions in what was compared."""

    first: int
    second: int
    distance: float  # of features, 0..2


def pairs_within(features: Tensor, distance: float) -> list[Pair]:
    """All pairs of photos whose features (N, C) lie within a distance, the nearest first."""
    rows = directions(features)
    pairs = []
    for part, between in enumerate(_distances(rows, rows, same=True)):
        for row, column in (between <= distance).nonzero().tolist():
            if (first := part * CHUNK + row) < column:
                pairs.append(Pair(first, column, float(between[row, column])))
    return sorted(pairs, key=lambda pair: pair.distance)
