"""What a run tells of its epochs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochMetrics:
    """One pass over a split."""

    loss: float  # mean cross-entropy, in nats
    accuracy: float  # 0..1; in training measured while the weights move, on the crops that are learned from
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch: learning, then looking how good it got."""

    number: int  # from 1
    learning_rate: float  # the highest of its steps
    train: EpochMetrics
    val: EpochMetrics

    def to_record(self) -> dict[str, float]:
        """All of it by name: epoch, learning_rate, train_loss, val_accuracy, ..."""
        return (
            {"epoch": self.number, "learning_rate": self.learning_rate}
            | {f"train_{name}": value for name, value in asdict(self.train).items()}
            | {f"val_{name}": value for name, value in asdict(self.val).items()}
        )


@dataclass(frozen=True)
class History:
    """Every epoch of a run, in order."""

    epochs: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch:
        """The epoch of the best validation accuracy, ties broken by the lower loss."""
        return max(self.epochs, key=lambda epoch: (epoch.val.accuracy, -epoch.val.loss))

    @property
    def last(self) -> Epoch:
        """The last epoch: what a run would give that never looked at the validation photos."""
        return self.epochs[-1]

    @property
    def seconds(self) -> float:
        """Time spent learning and evaluating."""
        return sum(epoch.train.seconds + epoch.val.seconds for epoch in self.epochs)

    def to_records(self) -> list[dict[str, float]]:
        """The epochs' records: what history.json holds."""
        return [epoch.to_record() for epoch in self.epochs]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> "History":
        """The history that `to_records` took apart."""

        def phase(record: Mapping[str, Any], split: str) -> EpochMetrics:
            return EpochMetrics(record[f"{split}_loss"], record[f"{split}_accuracy"], record[f"{split}_seconds"])

        return cls(tuple(Epoch(r["epoch"], r["learning_rate"], phase(r, "train"), phase(r, "val")) for r in records))
