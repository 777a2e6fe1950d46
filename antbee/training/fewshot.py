"""A classifier from a handful of photos: a head is fitted to their features in seconds."""

import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

import antbee
from antbee.data.archive import FewShotError
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation.calibration import fit_temperature
from antbee.models import detector as models_detector
from antbee.models.backbone import apply_temperature, count_parameters
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig, DataInfo, WeightsInfo
from antbee.models.detector import FALSE_ALARM_RATE, NO_LIMIT, KNNDetector, build_detector, leave_classes_out
from antbee.models.metrics import Calibration, EpochScore, Found, Metrics, OODMetrics, Parameters
from antbee.text import one_line
from antbee.training.crossvalidation import OutOfFold, head_out_of_fold, stratified_folds, trained_head
from antbee.training.features import Features
from antbee.training.fewshot_data import FewShotDataset, Progress, tell_nobody
from antbee.training.recipe import FAST, TrainingError
from antbee.training.trainer import threads

MODEL_FOLDER = "taught-model"  # in the zip that is given away


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """A classifier of one's own, and how good it is."""

    classifier: Classifier  # shares the backbone of the one that it was taught with
    report: evaluation_metrics.Report | None  # cross-validated; None where a class has one photo alone
    left_out_logits: Tensor | None  # float32 (N, classes), of each photo in the lesson's order: what `report` is of

    @property
    def folds(self) -> int | None:
        """Into how many parts the photos were divided to be cross-validated; None where they were not."""
        metrics = self.classifier.config.metrics
        return metrics.cross_validation if metrics else None


def fit_few_shot(
    base: Classifier, dataset: FewShotDataset, *, seed: int = 0, progress: Progress = tell_nobody
) -> FewShotResult:
    """Fits a new head for the lesson's classes on the backbone of `base`, which stays as it is.

    It learns as the recipe `recipe.FAST` lets a head learn, is calibrated, and says "neither" where it should. How
    good it is is cross-validated: each photo is answered by a head that learned from the other folds, and calibrated by
    a temperature of those other folds. Equal lessons and seeds give equal heads, as long as no other thread of the
    process draws random numbers meanwhile. Raises FewShotError where the lesson lacks something, or was made with
    another backbone.
    """
    dataset.check()
    dataset.check_backbone(base)
    with threads(1):
        return _fitted(base, dataset, seed, progress)


def _fitted(base: Classifier, dataset: FewShotDataset, seed: int, progress: Progress) -> FewShotResult:
    started = time.perf_counter()
    features = dataset.features(base.device)
    try:
        progress(0.0, "learning from all photos")
        head = trained_head(features, len(dataset.classes), FAST, seed=seed, device=base.device)
        progress(0.2, "cross-validating")
        left_out = _left_out(features, seed)
    except TrainingError as error:
        raise FewShotError(
            f"nothing can be learned from this model's features ({one_line(str(error))}): choose another model"
        ) from error
    progress(0.9, "calibrating")
    detector = _detector(dataset, features, left_out)
    config = _config(base.config, dataset, left_out, seed)
    if left_out is None:
        return FewShotResult(base.with_head(head, config, detector), None, None)
    temperature = fit_temperature(left_out.answers.logits, features.labels)
    apply_temperature(head, temperature)
    calibrated = left_out.calibrated(features.labels)
    report = evaluation_metrics.report(calibrated, features.labels)
    metrics = Metrics(
        kept=EpochScore(**report.score.to_record(), epoch=FAST.frozen.epochs),
        selected_on="nothing",
        cross_validation=left_out.answers.folds,
        **report.details(),
        epochs=FAST.frozen.epochs,
        seconds=time.perf_counter() - started,
        parameters=_parameters(base.network, head),
        calibration=_calibration(temperature, left_out, features.labels),
        neither=_neither(detector, backbone_knows_nothing=_backbone_is_its_start(base.config)),
    )
    return FewShotResult(base.with_head(head, replace(config, metrics=metrics), detector), report, calibrated)


@dataclass(frozen=True)
class _LeftOut:
    """What each photo gets from heads that learned without its fold."""

    answers: OutOfFold
    folds: Tensor  # int64 (N,)

    def calibrated(self, labels: Tensor) -> Tensor:
        """The logits, each fold's divided by the temperature of the others: it was not fitted to them."""
        logits = self.answers.logits
        calibrated = torch.empty_like(logits)
        for fold in self.folds.unique():
            held = self.folds == fold
            calibrated[held] = logits[held] / fit_temperature(logits[~held], labels[~held])
        return calibrated


def _left_out(features: Features, seed: int) -> _LeftOut | None:
    """None where a class has one photo alone: without it there would be nothing to learn the class from."""
    folds = stratified_folds(features.labels, FAST.frozen.folds, seed)
    if len(folds.unique()) < 2:
        return None
    device = features.features.device
    return _LeftOut(head_out_of_fold(features, folds, FAST, seed=seed, device=device), folds)


def _calibration(temperature: float, left_out: _LeftOut, labels: Tensor) -> Calibration:
    before = evaluation_metrics.report(left_out.answers.logits, labels)
    return Calibration(
        temperature=temperature,
        folds=left_out.answers.folds,
        loss_before=before.score.loss,
        error_before=before.calibration_error,
    )


def _detector(dataset: FewShotDataset, features: Features, left_out: _LeftOut | None) -> KNNDetector:
    threshold = NO_LIMIT if left_out is None else models_detector.threshold(left_out.answers.distances)
    return build_detector(features.features, features.labels, list(dataset.thumbnails), threshold)


def _neither(detector: KNNDetector, *, backbone_knows_nothing: bool) -> OODMetrics | None:
    """When "neither" is said, and how often of a class's photos where no other photo of it is known."""
    if detector.limit is None:
        return None
    others = len(detector.labels) - int(
        torch.bincount(detector.labels).max()
    )  # the fewest that are left without a class
    has_limit = models_detector.threshold(torch.zeros(others)) < NO_LIMIT
    left_out = None
    if backbone_knows_nothing and has_limit:
        found = leave_classes_out(detector.features, detector.labels, detector.features, detector.labels)
        left_out = Found(found=found, count=len(detector.labels))
    return OODMetrics(threshold=detector.threshold, rate=FALSE_ALARM_RATE, foreign={}, left_out=left_out)


def _parameters(network: ResNet, head: nn.Linear) -> Parameters:
    own_head, new_head = (count_parameters(one, trainable=False) for one in (network.fc, head))
    total = count_parameters(network, trainable=False)
    return Parameters(total=total - own_head + new_head, trainable=new_head)


def _config(base: ClassifierConfig, dataset: FewShotDataset, left_out: _LeftOut | None, seed: int) -> ClassifierConfig:
    """What the classifier tells of itself, but for how good it is."""
    from antbee.hub.card import FEW_SHOT_DATA

    return ClassifierConfig(
        architecture=base.architecture,
        label_names=dataset.label_names,
        preprocessing=base.preprocessing,
        version=antbee.__version__,
        mode="frozen",
        seed=seed,
        recipe=FAST.flat("frozen"),
        data=DataInfo(
            name=FEW_SHOT_DATA,
            train=dataset.counts,
            split=f"{left_out.answers.folds}-fold cross-validation" if left_out else "too few photos to keep any back",
        ),
        weights=_starting_weights(base),
    )


def _starting_weights(base: ClassifierConfig) -> WeightsInfo:
    """What the backbone is: its starting weights where it never learned more, else what it learned, and from where."""
    if _backbone_is_its_start(base):
        weights = base.weights
        return WeightsInfo(name=weights.name, digest=weights.digest, base_model=weights.base_model)
    learned = base.data.name or f"{len(base.label_names)} classes"
    start = base.weights.name or "unknown weights"
    return WeightsInfo(name=one_line(f"{base.mode or 'a model'} of {learned}, from {start}", longest=100))


def _backbone_is_its_start(base: ClassifierConfig) -> bool:
    """Whether a classifier's backbone was left as it was, BatchNorm's statistics included."""
    unmoved = base.recipe.get("cached_features") is True or base.recipe.get("batch_norm") == "fixed"
    return base.mode == "frozen" and bool(unmoved)


def write_folder(classifier: Classifier, folder: Path) -> None:
    """Writes a model folder with its card; no pictures."""
    from antbee.hub.card import card_without_figures

    classifier.save_pretrained(folder)
    (folder / "README.md").write_text(card_without_figures(classifier.config.to_json()), "utf-8")


def write_zip(classifier: Classifier, path: Path) -> None:
    """Writes a zip of one model folder with its card, MODEL_FOLDER; no pictures. `path` is there once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as workshop:
        folder = Path(workshop) / MODEL_FOLDER
        write_folder(classifier, folder)
        beside = Path(workshop) / path.name
        with zipfile.ZipFile(beside, "w") as archive:  # as they are: weights can hardly be packed
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{MODEL_FOLDER}/{file.name}")
        beside.replace(path)
