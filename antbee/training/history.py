"""The metrics of every epoch of a training."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one pass over a split."""

    loss: float  # mean cross-entropy, in nats
    accuracy: float  # 0..1; of the training split measured while the weights change, on random crops
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch: training, then validation."""

    number: int  # from 1
    learning_rate: float  # the highest of its steps
    train: EpochMetrics
    val: EpochMetrics

    def to_record(self) -> dict[str, float]:
        """A flat record: epoch, learning_rate, train_loss, val_accuracy, ..."""
        return (
            {"epoch": self.number, "learning_rate": self.learning_rate}
            | {f"train_{name}": value for name, value in asdict(self.train).items()}
            | {f"val_{name}": value for name, value in asdict(self.val).items()}
        )


@dataclass(frozen=True)
class History:
    """The epochs of a training, in order."""

    epochs: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch:
        """The epoch of the best validation accuracy, ties broken by the lower loss."""
        return max(self.epochs, key=lambda epoch: (epoch.val.accuracy, -epoch.val.loss))

    @property
    def last(self) -> Epoch:
        """The last epoch, which is not chosen by the validation images."""
        return self.epochs[-1]

    @property
    def seconds(self) -> float:
        """Time spent on training and validation."""
        return sum(epoch.train.seconds + epoch.val.seconds for epoch in self.epochs)

    def to_records(self) -> list[dict[str, float]]:
        """The content of history.json: a record for each epoch."""
        return [epoch.to_record() for epoch in self.epochs]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> "History":
        """The history of such records."""

        def metrics(record: Mapping[str, Any], split: str) -> EpochMetrics:
            return EpochMetrics(record[f"{split}_loss"], record[f"{split}_accuracy"], record[f"{split}_seconds"])

        return cls(
            tuple(Epoch(r["epoch"], r["learning_rate"], metrics(r, "train"), metrics(r, "val")) for r in records)
        )
