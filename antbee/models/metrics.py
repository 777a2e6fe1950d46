"""The metrics of config.json as pydantic models, and the types of their values.

Values are validated without conversion: "1" is not a number, true is not a count, and NaN and infinity are refused.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("text that is not blank")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Number = Annotated[float, Field(ge=-3.5e38, le=3.5e38)]  # the range of float32
Amount = Annotated[float, Field(ge=0, le=3.5e38)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # SHA-256
STRICT = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Part(BaseModel):
    """An object of config.json; unknown keys are kept."""

    model_config = STRICT


class Score(Part):
    """Accuracy on a set of images, and the mean loss."""

    correct: Count
    count: Count
    accuracy: Share
    interval: Annotated[list[Share], Field(min_length=2, max_length=2)]  # 95%, Wilson
    loss: Amount | None = None  # mean cross-entropy, in nats


class EpochScore(Score):
    """The score of the weights after an epoch."""

    epoch: Count


class ClassMetrics(Part):
    """Precision, recall and F1 of a class."""

    precision: Share
    recall: Share
    f1: Share


class Parameters(Part):
    """The number of weights, and of trained weights."""

    total: Count
    trainable: Count


class Calibration(Part):
    """Temperature scaling: the head's weights are divided by the temperature; loss and calibration error before it."""

    temperature: Amount
    folds: Count
    loss_before: Amount
    error_before: Share


class Found(Part):
    """A number of images out of `count`."""

    found: Count
    count: Count

    @model_validator(mode="after")
    def _is_part(self) -> Self:
        if self.found > self.count:
            raise ValueError(f"at most {self.count} found")
        return self


class OODMetrics(Part):
    """The out-of-distribution detector's threshold, and how many images it detects."""

    threshold: Amount  # of the distance to the k-th nearest neighbour
    rate: Share  # false alarm rate for which the threshold was chosen
    val: Found | None = None  # validation images: false alarms
    foreign: dict[Text, Found]  # synthetic out-of-distribution images by kind: true detections
    left_out: Found | None = None  # images of a class that was removed from the detector


class Evaluation(Score):
    """All metrics of a model on a set of images."""

    loss: Amount  # mean cross-entropy, in nats
    macro: ClassMetrics  # mean of the classes
    per_class: list[ClassMetrics]
    confusion: list[list[Count]]  # rows: true classes; columns: predicted classes
    calibration_error: Share
    auc: Share | None = None
    neither: Found | None = None  # images detected as out of distribution
    cleaned: Score | None = None  # without the images that were excluded from training

    def as_metrics(self, epoch: int) -> dict[str, Any]:
        """The evaluation as keys of `Metrics`, of the weights that were kept from `epoch`."""
        values = self.model_dump(exclude_unset=True)
        kept = {name: values.pop(name) for name in Score.model_fields if name in values}
        return {"kept": kept | {"epoch": epoch}, **values}


class CurvePoint(Part):
    """Accuracies of heads trained on random subsets of one size."""

    per_class: Count
    photos: Count
    accuracies: Annotated[list[Share], Field(min_length=1)]


class Spread(Part):
    """Accuracies of training runs with different seeds."""

    values: list[Number]
    mean: Number
    deviation: Amount
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)]  # 95%, of the mean


class SeedSpreads(Part):
    """The spread over seeds of the kept epoch, and of the last epoch."""

    kept: Spread
    last: Spread | None = None


class Metrics(Part):
    """The metrics of a model, on its validation images, and the cost of its training.

    With `cross_validation`, a number of folds, there were no validation images: the metrics are those of out-of-fold
    predictions for the training images. `test` are those of the test images, which nothing was chosen on.
    """

    kept: EpochScore
    last: EpochScore | None = None
    cleaned: Score | None = None  # without the images that were excluded from training
    selected_on: Text | None = None  # the images on which the kept epoch was chosen
    cross_validation: Count | None = None
    macro: ClassMetrics | None = None  # mean of the classes
    confusion: list[list[Count]]  # rows: true classes; columns: predicted classes
    per_class: list[ClassMetrics] | None = None
    calibration_error: Share | None = None
    auc: Share | None = None
    epochs: Count
    seconds: Amount
    parameters: Parameters
    calibration: Calibration | None = None
    neither: OODMetrics | None = None
    seeds: SeedSpreads | None = None
    test: Evaluation | None = None
    zero_shot: Score | None = None  # the starting weights' own head
    learning_curve: list[CurvePoint] | None = None
    enough_data: Text | None = None
    activation_map: Text | None = None  # "exact", or "gradients" where it is weighted by them

    @property
    def accuracy(self) -> float:
        """The accuracy of the kept weights, 0..1."""
        return self.kept.accuracy
