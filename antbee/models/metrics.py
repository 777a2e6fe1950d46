"""What config.json says of how good a model is, as pydantic models, and the kinds of values that they are made of.

Values are checked and never converted: "1" is no number, true is no count, and NaN is none either.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("text that is not blank")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Number = Annotated[float, Field(ge=-3.5e38, le=3.5e38)]  # as large as a float32 can be
Amount = Annotated[float, Field(ge=0, le=3.5e38)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # SHA-256
STRICT = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Part(BaseModel):
    """An object of config.json; keys that it does not name are kept as they are."""

    model_config = STRICT


class Score(Part):
    """Right answers among photos, and the mean loss."""

    correct: Count
    count: Count
    accuracy: Share
    interval: Annotated[list[Share], Field(min_length=2, max_length=2)]  # 95 %, Wilson
    loss: Amount | None = None  # mean cross-entropy, in nats


class EpochScore(Score):
    """The same, and the epoch whose weights it is of."""

    epoch: Count


class ClassMetrics(Part):
    """How well a class is told from the others."""

    precision: Share
    recall: Share
    f1: Share


class Parameters(Part):
    """The network's weights, and how many of them were trained."""

    total: Count
    trainable: Count


class Calibration(Part):
    """The temperature that the head's weights are divided by, and the figures without it."""

    temperature: Amount
    folds: Count
    loss_before: Amount
    error_before: Share


class Found(Part):
    """How many of how many."""

    found: Count
    count: Count


class OODMetrics(Part):
    """When the answer is "neither" of the classes, and how often it is."""

    threshold: Amount  # of the distance to the k-th nearest neighbour
    rate: Share  # of false alarms that the threshold is set for
    val: Found | None = None  # validation photos, so wrongly
    foreign: dict[Text, Found]  # synthetic out-of-distribution images by kind, so rightly
    left_out: Found | None = None  # photos of a class that the detector was not shown


class Evaluation(Score):
    """How good a model is on a set of photos."""

    macro: ClassMetrics  # mean of the classes
    per_class: list[ClassMetrics]
    confusion: list[list[Count]]  # rows: true classes; columns: answers
    calibration_error: Share
    auc: Share | None = None
    neither: Found | None = None  # how often the answer is none of the classes
    cleaned: Score | None = None  # without the photos that were excluded from training


class CurvePoint(Part):
    """Accuracies of heads that were trained on a subset of the photos."""

    per_class: Count
    photos: Count
    accuracies: Annotated[list[Share], Field(min_length=1)]


class Spread(Part):
    """Accuracies of runs with other seeds."""

    values: list[Number]
    mean: Number
    deviation: Amount
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)]  # 95 %, of the mean


class SeedSpreads(Part):
    """Of the kept epochs, and of the last ones."""

    kept: Spread
    last: Spread | None = None


class Metrics(Part):
    """How good a model is and what it took to train it.

    With `cross_validation`, a number of folds, there were no validation photos: then it is of the training photos, each
    answered by a head that was trained on the other folds.
    """

    kept: EpochScore
    last: EpochScore | None = None
    cleaned: Score | None = None  # without the photos that were excluded from training
    selected_on: Text | None = None  # which photos chose the kept epoch
    cross_validation: Count | None = None
    macro: ClassMetrics | None = None  # mean of the classes
    confusion: list[list[Count]]  # rows: true classes; columns: answers
    per_class: list[ClassMetrics] | None = None
    calibration_error: Share | None = None
    auc: Share | None = None
    epochs: Count
    seconds: Amount
    parameters: Parameters
    calibration: Calibration | None = None
    neither: OODMetrics | None = None
    seeds: SeedSpreads | None = None
    zero_shot: Score | None = None  # of the starting weights' own head
    learning_curve: list[CurvePoint] | None = None
    enough_data: Text | None = None

    @property
    def accuracy(self) -> float:
        """That of the weights that are kept, 0..1."""
        return self.kept.accuracy
