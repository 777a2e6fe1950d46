"""Few-shot training: a new head is fitted to the features of a handful of photos, in seconds."""

import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import antbee
from antbee.data.archive import FewShotError
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation.calibration import fit_temperature
from antbee.models import detector as models_detector
from antbee.models.backbone import Network, count_parameters, head_of
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig, DataInfo
from antbee.models.detector import FALSE_ALARM_RATE, NO_LIMIT, KNNDetector, leave_classes_out
from antbee.models.device import choose_device
from antbee.models.earlier import has_starting_backbone
from antbee.models.metrics import Evaluation, Found, Metrics, OODMetrics, Parameters
from antbee.models.provenance import WeightsInfo
from antbee.models.weights import PACKAGED, build_network, load_starting_weights
from antbee.text import one_line
from antbee.training import assessment
from antbee.training.crossvalidation import OutOfFold, head_out_of_fold, stratified_folds, trained_head
from antbee.training.features import Features
from antbee.training.fewshot_data import FewShotDataset, Progress, no_progress
from antbee.training.output import write_model_folder
from antbee.training.recipe import FAST, TrainingError
from antbee.training.trainer import threads

MODEL_FOLDER = "few-shot-model"  # in the zip that is downloaded


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """A classifier for the classes of a few-shot data set, and how good it is."""

    classifier: Classifier  # shares its backbone with the model that it was fitted on
    report: Evaluation | None  # cross-validated; None where a class has a single photo

    @property
    def folds(self) -> int | None:
        """The number of folds of the cross-validation; None where there was none."""
        metrics = self.classifier.config.metrics
        return metrics.cross_validation if metrics else None


def pretrained_base(device: str = "auto") -> Classifier:
    """A base where there is no model: the network whose ImageNet weights come by pip, with a head that knows nothing.

    Raises what `load_starting_weights` and `choose_device` raise.
    """
    weights = load_starting_weights("imagenet", PACKAGED)
    config = ClassifierConfig(
        architecture=PACKAGED,
        label_names=("first class", "second class"),
        preprocessing=weights.preprocessing,
        mode="frozen",
        recipe={"cached_features": True},  # the backbone has its starting weights
        weights=WeightsInfo(name=weights.name, digest=weights.digest, license=weights.license),
    )
    network = build_network(PACKAGED, len(config.label_names), weights, seed=0)
    return Classifier(network.to(choose_device(device)), config)


def fit_few_shot(
    base: Classifier, dataset: FewShotDataset, *, seed: int = 0, progress: Progress = no_progress
) -> FewShotResult:
    """Fits a new head for the classes of a few-shot data set on the backbone of `base`, which does not change.

    The head is trained as the frozen mode of `recipe.FAST`, calibrated, and has a detector for "neither", by the same
    functions as a whole run. It is scored by cross-validation: each photo is predicted by a head that was trained on
    the other folds, and calibrated with a temperature of those folds. Equal data sets and seeds give equal heads, as
    long as no other thread draws random numbers meanwhile. Raises FewShotError where the data set is incomplete, or was
    embedded by another backbone.
    """
    dataset.check()
    dataset.check_backbone(base)
    with threads(1):
        return _fit(base, dataset, seed, progress)


def _fit(base: Classifier, dataset: FewShotDataset, seed: int, progress: Progress) -> FewShotResult:
    started = time.perf_counter()
    features = dataset.features(base.device)
    try:
        progress(0.0, "training on all photos")
        head = trained_head(features, len(dataset.classes), FAST, seed=seed, device=base.device)
        progress(0.2, "cross-validating")
        folds = stratified_folds(features.labels, FAST.frozen.folds, seed)
        left_out = _predict_left_out(features, folds, seed)
    except TrainingError as error:
        raise FewShotError(
            f"this model's features can't be trained on ({one_line(str(error))}): choose another model"
        ) from error
    progress(0.9, "calibrating")
    detector = assessment.fit_detector(features, list(dataset.thumbnails), left_out, backbone_is_frozen=False)
    config = _config(base.config, dataset, left_out, seed)
    if left_out is None:
        return FewShotResult(base.with_head(head, config, detector), None)
    before = evaluation_metrics.evaluate(left_out.logits, features.labels)
    temperature = assessment.calibrate(head, left_out, features.labels)
    logits = _calibrated_by_other_folds(left_out.logits, features.labels, folds)
    report = evaluation_metrics.evaluate(logits, features.labels)
    metrics = Metrics(
        **report.as_metrics(FAST.frozen.epochs),
        selected_on="nothing",
        cross_validation=left_out.folds,
        epochs=FAST.frozen.epochs,
        seconds=time.perf_counter() - started,
        parameters=_parameters(base.network, head),
        calibration=assessment.calibration_of(temperature, left_out, before),
        neither=_ood_metrics(
            detector, backbone_is_untrained=has_starting_backbone(base.config) and not base.config.weights.earlier
        ),
    )
    return FewShotResult(base.with_head(head, replace(config, metrics=metrics), detector), report)


def _predict_left_out(features: Features, folds: Tensor, seed: int) -> OutOfFold | None:
    """Out-of-fold predictions; None where a class has a single photo, which no fold can leave out."""
    if len(folds.unique()) < 2:
        return None
    return head_out_of_fold(features, folds, FAST, seed=seed, device=features.features.device)


def _calibrated_by_other_folds(logits: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """The logits (N, classes), each fold's divided by a temperature that was fitted to the other folds."""
    calibrated = torch.empty_like(logits)
    for fold in folds.unique():
        held = folds == fold
        calibrated[held] = logits[held] / fit_temperature(logits[~held], labels[~held])
    return calibrated


def _ood_metrics(detector: KNNDetector, *, backbone_is_untrained: bool) -> OODMetrics | None:
    """The detector's threshold, and how many photos it detects when their own class is removed from it."""
    if detector.limit is None:
        return None
    fewest_left = len(detector.labels) - int(torch.bincount(detector.labels).max())
    left_out = None
    if backbone_is_untrained and models_detector.threshold(torch.zeros(fewest_left)) < NO_LIMIT:
        rows, labels = detector.features, detector.labels
        found = leave_classes_out(rows, labels, rows, labels, count=detector.neighbours)
        left_out = Found(found=found, count=len(detector.labels))
    return OODMetrics(threshold=detector.threshold, rate=FALSE_ALARM_RATE, foreign={}, left_out=left_out)


def _parameters(network: Network, head: nn.Linear) -> Parameters:
    own_head, new_head = (count_parameters(one, trainable=False) for one in (head_of(network), head))
    total = count_parameters(network, trainable=False)
    return Parameters(total=total - own_head + new_head, trainable=new_head)


def _config(base: ClassifierConfig, dataset: FewShotDataset, left_out: OutOfFold | None, seed: int) -> ClassifierConfig:
    """The classifier's config, without its metrics."""
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
            split=f"{left_out.folds}-fold cross-validation" if left_out else "too few photos for a validation split",
        ),
        weights=_starting_weights(base),
    )


def _starting_weights(base: ClassifierConfig) -> WeightsInfo:
    """The base model's starting weights, if its backbone still has them; else a description of its training."""
    if has_starting_backbone(base):
        known = ("name", "digest", "base_model", "earlier")
        return WeightsInfo(**{name: found for name in known if (found := getattr(base.weights, name)) is not None})
    data = base.data.name or f"{len(base.label_names)} classes"
    start = base.weights.name or "unknown weights"
    return WeightsInfo(name=one_line(f"{base.mode or 'a model'} of {data}, from {start}", longest=100))


def write_zip(classifier: Classifier, path: Path) -> None:
    """Writes a zip of a model folder without figures, MODEL_FOLDER; `path` appears once the zip is complete."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        folder, archive = Path(temporary) / MODEL_FOLDER, Path(temporary) / path.name
        write_model_folder(classifier, folder)
        with zipfile.ZipFile(archive, "w") as written:  # stored: weights hardly compress
            for file in sorted(folder.iterdir()):
                written.write(file, f"{MODEL_FOLDER}/{file.name}")
        archive.replace(path)
