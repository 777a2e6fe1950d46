"""Evaluation of a model on a split of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from antbee.data.download import data_root, folder_named
from antbee.data.folder import ImageDataset, Split, joined, read_folder_of, read_splits
from antbee.data.images import DataError
from antbee.data.layout import SplitName
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.evaluation import metrics, report
from antbee.installation import home
from antbee.models.backbone import head_of
from antbee.models.classifier import Classifier
from antbee.models.metrics import Evaluation
from antbee.models.predict import load_classifier
from antbee.text import counted, one_line
from antbee.training.assessment import evaluation_of
from antbee.training.crossvalidation import logits_of
from antbee.training.distributed import DistributedContext
from antbee.training.features import compute_features

SplitChoice = Literal["train", "val", "test", "all"]


class SplitEvaluation(Evaluation):
    """An evaluation with the names of its classes; printed, it is a table."""

    label_names: list[str]
    model: str | None = None  # model folder or Hub id
    data: str | None = None  # data folder
    split: str | None = None
    trained_on: int | None = None  # images whose file names are those of images that the model was trained on

    def __str__(self) -> str:
        """The lines that `scripts/evaluate.py` prints."""
        lines = report.evaluation(self, list(map(one_line, self.label_names)))
        if self.data is not None:
            lines.insert(0, f"photos    {one_line(self.data)}: {counted(self.count, 'photo')} ({self.split})")
        if self.trained_on and self.split != "train":
            lines.append(
                f"warning   {self.trained_on} of these have the names of photos that the model was trained on, so the "
                "accuracy may be too high"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Chosen:
    """A split to evaluate, with its name, its folder, and the images that may have been excluded from training."""

    split: Split
    name: str | None = None
    root: Path | None = None
    is_own: bool = False  # of the data set that the model was trained on


def evaluate(
    model: Classifier | str | Path,
    data: Split | ImageDataset | str | Path | None = None,
    *,
    split: SplitChoice | None = None,
    follow_links: bool = False,
    json: str | Path | None = None,
) -> SplitEvaluation:
    """Accuracy with its 95% interval, loss, calibration error, confusion matrix and metrics of each class.

    `model` is a classifier, a model folder or a Hub id. `data` is a split, or a data set, a data folder or whatever
    else `load_folder` takes, of which `split` is evaluated; None is the model's own data set in data/. A folder may
    have any of the splits, and some of the classes. Where no split is named, it is val or, where there is none, test;
    of class folders without splits, all images, unless the model was trained on them: then those that were drawn for
    validation. Links out of the folder are followed where they lead into the Hub's cache and, with `follow_links`,
    anywhere. `json` is a file to write the evaluation to. On the model's own data set a second score leaves out the
    images that were excluded from training. Raises DataError where the images can't be read or have other classes,
    and what `Classifier.from_pretrained` raises.
    """
    classifier = load_classifier(model)
    chosen = _chosen(classifier, data, split, follow_links)
    result = _evaluate(classifier, chosen).model_copy(
        update={
            **({} if isinstance(model, Classifier) else {"model": str(model)}),
            **({} if chosen.root is None else {"data": str(chosen.root), "split": chosen.name}),
        }
    )
    if json is not None:
        text = result.model_dump_json(indent=1, exclude_unset=True, exclude={"label_names"})
        Path(json).write_text(text + "\n", "utf-8")
    return result


def dataset_of(
    classifier: Classifier, data: ImageDataset | str | Path | None = None, *, follow_links: bool = False
) -> ImageDataset:
    """What `data` names, or the model's own data set in data/, labelled in the order of the model's outputs.

    Raises DataError where there is none, or where it has other classes.
    """
    names = classifier.config.label_names
    if isinstance(data, ImageDataset):
        return data.in_order_of(names)
    # The seed of the training run: without a val/ folder it draws the validation images that were not trained on.
    seed = classifier.config.seed or 0
    return read_folder_of(_root_of(classifier, data), names, seed=seed, follow_links=follow_links)


def _root_of(classifier: Classifier, data: str | Path | None) -> Path:
    if data is not None:
        return data_root(data)
    if (root := folder_named(home() / "data", classifier.config.data.name)) is None:
        raise DataError("the model's own photos are not in data/: name a data folder with --data")
    return root


def _chosen(
    classifier: Classifier,
    data: Split | ImageDataset | str | Path | None,
    split: SplitChoice | None,
    follow_links: bool,
) -> _Chosen:
    """What to evaluate on."""
    names, own = classifier.config.label_names, classifier.config.data
    if isinstance(data, Split):
        return _Chosen(data.in_order_of(names))
    if isinstance(data, ImageDataset):
        return _Chosen(*_choose(data.in_order_of(names).splits, split, data.root), data.root, data.digest == own.digest)
    root = _root_of(classifier, data)
    found = read_splits(root, names, follow_links=follow_links)
    is_own = found.digest == own.digest
    # Of its own data set without a val split, the model was not trained on the images that were drawn as one.
    known = found.splits
    if is_own and "val" not in known:
        known = dataset_of(classifier, root, follow_links=follow_links).splits
    return _Chosen(*_choose(known, split, root), found.root, is_own)


def _choose(known: Mapping[SplitName | None, Split], split: SplitChoice | None, root: Path) -> tuple[Split, str]:
    """The split asked for, or the first that there is of val, test, class folders without splits, and train."""
    preferred: tuple[SplitName | None, ...] = ("val", "test", None, "train")
    if split is None:
        name = next(name for name in preferred if name in known)
        return known[name], name or "all"
    if split == "all":
        return joined(list(known.values())), "all"
    if split not in known:
        there = ", ".join(str(name) for name in known if name) or "class folders without splits"
        raise DataError(f"{root} has no photos for --split {split}, but {there}: name another, or --split all")
    return known[split], split


def _evaluate(classifier: Classifier, chosen: _Chosen) -> SplitEvaluation:
    config, split, detector = classifier.config, chosen.split, classifier.detector
    loader = ImageLoader(split, config.preprocessing, options=LoaderOptions.for_device(classifier.device))
    computed = compute_features(classifier.network, loader, DistributedContext(classifier.device), what="predicting")
    result = evaluation_of(head_of(classifier.network), computed, detector).model_dump(exclude_unset=True)
    names = split.names(chosen.root) if chosen.root is not None else []
    if detector is not None and (known := len(set(names) & set(detector.names))):
        result["trained_on"] = known
    if chosen.is_own:  # in another data set, another image may have the file name of an excluded one
        result |= _cleaned(classifier, names, logits_of(head_of(classifier.network), computed), computed.labels)
    return SplitEvaluation.model_validate(result | {"label_names": list(config.label_names)})


def _cleaned(classifier: Classifier, names: Sequence[str], logits: Tensor, labels: Tensor) -> dict[str, object]:
    """The score without the images that were excluded from training; empty where none of them is here."""
    data = classifier.config.data
    # A shortened list of exclusions does not tell which images remain.
    excluded = set(data.excluded or ()) if data.excluded_count is None else set()
    kept = [position for position, name in enumerate(names) if name not in excluded]
    is_other = 0 < len(kept) < len(names)
    return {"cleaned": metrics.score(logits[kept], labels[kept]).model_dump()} if is_other else {}
