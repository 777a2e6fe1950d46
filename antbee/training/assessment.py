"""Calibration, the out-of-distribution detector and its metrics, for the pipeline and for few-shot training.

Temperature and threshold are fitted to out-of-fold predictions, see `crossvalidation`.
"""

from torch import Tensor, nn

from antbee.evaluation import metrics, ood
from antbee.evaluation.calibration import fit_temperature
from antbee.models.backbone import apply_temperature
from antbee.models.classifier import Classifier
from antbee.models.detector import FALSE_ALARM_RATE, NO_LIMIT, KNNDetector, build_detector, leave_classes_out, threshold
from antbee.models.metrics import Calibration, Evaluation, Found, OODMetrics
from antbee.training.crossvalidation import OutOfFold, choose_neighbours, distances_left_out, logits_of
from antbee.training.features import Features


def calibrate(head: nn.Linear, left_out: OutOfFold, labels: Tensor) -> float:
    """Fits a temperature to out-of-fold predictions, divides the head's weights by it, and returns it.

    So every program that loads the model gives calibrated probabilities, without an extra parameter.
    """
    temperature = fit_temperature(left_out.logits, labels)
    apply_temperature(head, temperature)
    return temperature


def calibration_of(temperature: float, left_out: OutOfFold, before: Evaluation) -> Calibration:
    """The calibration's record in config.json: its temperature, and loss and calibration error without it."""
    loss, error = before.loss, before.calibration_error
    return Calibration(temperature=temperature, folds=left_out.folds, loss_before=loss, error_before=error)


def fit_detector(
    features: Features, names: list[str], left_out: OutOfFold | None, *, backbone_is_frozen: bool
) -> KNNDetector:
    """A detector of the training images' features, with a threshold from images left out of training.

    A trained backbone maps its training images closer together than new ones: without images that were left out of
    its training, the detector has no threshold.
    """
    count = choose_neighbours(features) if left_out is None else left_out.neighbours
    limit = NO_LIMIT
    if left_out is not None:
        limit = threshold(left_out.distances)
    elif backbone_is_frozen:
        limit = threshold(distances_left_out(features, count))
    return build_detector(features.features, features.labels, names, limit, count)


def evaluation_of(head: nn.Linear, features: Features, detector: KNNDetector | None) -> Evaluation:
    """All metrics of a head on images by their features, and how often a detector calls them "neither"."""
    evaluation = metrics.evaluate(logits_of(head, features), features.labels)
    if detector is None or detector.limit is None:
        return evaluation
    return evaluation.model_copy(update={"neither": _beyond(detector, detector.limit, features)})


def _beyond(detector: KNNDetector, limit: float, features: Features) -> Found:
    """How many images lie farther from the training images than the limit."""
    found = int((detector.distance(features.features) > limit).sum())
    return Found(found=found, count=len(features))


def ood_metrics(classifier: Classifier, val: Features, *, backbone_is_frozen: bool) -> OODMetrics | None:
    """How often the detector answers "neither" for validation images and for synthetic images.

    With a frozen backbone also for validation images of each class when the detector lacks that class. None if the
    detector has no threshold.
    """
    detector = classifier.detector
    if detector is None or detector.limit is None:
        return None
    left_out, found = None, {}
    for kind in ood.KINDS:
        predictions = classifier.predict(ood.synthetic_images(kind, ood.COUNT))
        found[kind] = Found(found=sum(one.is_out_of_distribution for one in predictions), count=ood.COUNT)
    if backbone_is_frozen:
        rows, count = val.features, detector.neighbours
        others = leave_classes_out(detector.features, detector.labels, rows, val.labels, count=count)
        left_out = Found(found=others, count=len(val))
    return OODMetrics(
        threshold=detector.limit,
        rate=FALSE_ALARM_RATE,
        val=_beyond(detector, detector.limit, val),
        foreign=found,
        left_out=left_out,
    )
