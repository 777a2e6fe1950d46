"""Evaluation of a model on a split of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from antbee.data.download import folder_named
from antbee.data.folder import ImageDataset, Split, read_folder_of
from antbee.data.images import DataError
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.evaluation import metrics, report
from antbee.installation import home
from antbee.models.backbone import head_of
from antbee.models.classifier import Classifier
from antbee.models.metrics import Evaluation
from antbee.models.predict import load_classifier
from antbee.text import one_line
from antbee.training.crossvalidation import logits_of
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features


class SplitEvaluation(Evaluation):
    """An evaluation with the names of its classes; printed, it is a table."""

    label_names: list[str]
    model: str | None = None  # model folder or Hub id
    data: str | None = None  # data folder
    split: str | None = None

    def __str__(self) -> str:
        """The lines that `scripts/evaluate.py` prints."""
        return "\n".join(report.evaluation(self, list(map(one_line, self.label_names))))


def evaluate(
    model: Classifier | str | Path,
    data: Split | ImageDataset | str | Path | None = None,
    *,
    split: Literal["val", "train"] = "val",
    json: str | Path | None = None,
) -> SplitEvaluation:
    """Accuracy with its 95% interval, loss, calibration error, confusion matrix and metrics of each class.

    `model` is a classifier, a model folder or a Hub id. `data` is a split, or a data set or a data folder of which
    `split` is evaluated; None is the model's own data set in data/. `json` is a file to write the evaluation to. On the
    model's own data set a second score leaves out the images that were excluded from training. Raises DataError where
    the images can't be read or have other classes, and what `Classifier.from_pretrained` raises.
    """
    classifier = load_classifier(model)
    source = {} if isinstance(model, Classifier) else {"model": str(model)}
    if isinstance(data, Split):
        chosen, names = data.in_order_of(classifier.config.label_names), []
    else:
        dataset = dataset_of(classifier, data)
        chosen = dataset.val if split == "val" else dataset.train
        # In another data set, another image may have the file name of an excluded one.
        names = chosen.names(dataset.root) if dataset.digest == classifier.config.data.digest else []
        source |= {"data": str(dataset.root), "split": split}
    result = _evaluate(classifier, chosen, names).model_copy(update=source)
    if json is not None:
        text = result.model_dump_json(indent=1, exclude_unset=True, exclude={"label_names"})
        Path(json).write_text(text + "\n", "utf-8")
    return result


def dataset_of(classifier: Classifier, data: ImageDataset | str | Path | None = None) -> ImageDataset:
    """A data set, a data folder, or the model's own data set in data/, labelled in the order of the model's outputs.

    Raises DataError where there is none, or where it has other classes.
    """
    names = classifier.config.label_names
    if isinstance(data, ImageDataset):
        train, val = data.train.in_order_of(names), data.val.in_order_of(names)
        return replace(data, class_names=names, train=train, val=val)
    root = data or folder_named(home() / "data", classifier.config.data.name)
    if root is None:
        raise DataError("the model's own photos are not in data/: name a data folder with --data")
    # The seed of the training run: without a val/ folder it draws the validation images that were not trained on.
    return read_folder_of(Path(root), names, seed=classifier.config.seed or 0)


def _evaluate(classifier: Classifier, split: Split, names: Sequence[str]) -> SplitEvaluation:
    """Evaluates on a split; `names` are its files where some may have been excluded from training."""
    config = classifier.config
    loader = ImageLoader(split, config.preprocessing, options=LoaderOptions.for_device(classifier.device))
    computed = compute_features(classifier.network, loader, DistributedContext(classifier.device), what="predicting")
    logits, labels = logits_of(head_of(classifier.network), computed), computed.labels
    result = metrics.evaluate(logits, labels).model_dump(exclude_unset=True)
    if (detector := classifier.detector) is not None and detector.limit is not None:
        found = int((detector.distance(computed.features) > detector.limit).sum())
        result["neither"] = {"threshold": detector.limit, "found": found, "count": len(labels)}
    # A shortened list of exclusions does not tell which images remain.
    excluded = set(config.data.excluded or ()) if config.data.excluded_count is None else set()
    kept = [position for position, name in enumerate(names) if name not in excluded]
    if 0 < len(kept) < len(names):
        result["cleaned"] = metrics.score(logits[kept], labels[kept]).model_dump()
    return SplitEvaluation.model_validate(result | {"label_names": list(config.label_names)})
