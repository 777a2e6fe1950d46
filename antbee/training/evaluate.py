"""Evaluation of a model on a split of a data set."""

from collections.abc import Sequence

from antbee.data.folder import Split
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.evaluation import metrics, report
from antbee.models.classifier import Classifier
from antbee.models.metrics import Evaluation
from antbee.text import one_line
from antbee.training.crossvalidation import logits_of
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features


class SplitEvaluation(Evaluation):
    """An evaluation with the names of its classes; printed, it is a table."""

    label_names: list[str]

    def __str__(self) -> str:
        """The table that `scripts/evaluate.py` prints."""
        return "\n".join(report.evaluation(self, list(map(one_line, self.label_names))))


def evaluate(model: Classifier, split: Split, *, names: Sequence[str] = ()) -> SplitEvaluation:
    """Accuracy with its 95% interval, loss, calibration error, confusion and figures of each class of a model.

    `names` are the files of the split, relative to the data folder, where it is the model's own: those that were
    excluded from training are then also left out of a second score. Raises DataError for a split of other classes.
    """
    config = model.config
    split = split.in_order_of(config.label_names)
    loader = ImageLoader(split, config.preprocessing, options=LoaderOptions.for_device(model.device))
    computed = compute_features(model.network, loader, DistributedContext(model.device), what="predicting")
    logits, labels = logits_of(model.network.fc, computed), computed.labels
    result = metrics.report(logits, labels).to_record()
    if (detector := model.detector) is not None and detector.limit is not None:
        found = int((detector.distance(computed.features) > detector.limit).sum())
        result["neither"] = {"threshold": detector.limit, "found": found, "count": len(labels)}
    # With only a part of the excluded files listed, the rest can't be left out.
    excluded = set(config.data.excluded or ()) if config.data.excluded_count is None else set()
    kept = [position for position, name in enumerate(names) if name not in excluded]
    if 0 < len(kept) < len(names):
        result["cleaned"] = metrics.score(logits[kept], labels[kept]).to_record()
    return SplitEvaluation.model_validate(result | {"label_names": list(config.label_names)})
