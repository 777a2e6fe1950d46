"""Calibration, the out-of-distribution detector and its metrics, for the pipeline and for few-shot training.

Temperature and threshold are fitted to out-of-fold predictions, see `crossvalidation`.
"""

from typing import Any

from torch import Tensor, nn

from antbee.evaluation import ood
from antbee.evaluation.calibration import fit_temperature
from antbee.models.backbone import apply_temperature, count_parameters
from antbee.models.classifier import Classifier
from antbee.models.detector import FALSE_ALARM_RATE, NO_LIMIT, KNNDetector, build_detector, leave_classes_out, threshold
from antbee.models.metrics import Evaluation
from antbee.training.crossvalidation import OutOfFold, distances_left_out
from antbee.training.features import Features


def calibrate(head: nn.Linear, left_out: OutOfFold, labels: Tensor) -> float:
    """Fits a temperature to out-of-fold predictions, divides the head's weights by it, and returns it.

    So every program that loads the model gives calibrated probabilities, without an extra parameter.
    """
    temperature = fit_temperature(left_out.logits, labels)
    apply_temperature(head, temperature)
    return temperature


def calibration_record(temperature: float, left_out: OutOfFold, before: Evaluation) -> dict[str, Any]:
    """The calibration's record in config.json: its temperature, and loss and calibration error without it."""
    return {
        "temperature": temperature,
        "folds": left_out.folds,
        "loss_before": before.loss,
        "error_before": before.calibration_error,
    }


def fit_detector(
    features: Features, names: list[str], left_out: OutOfFold | None, *, backbone_is_frozen: bool
) -> KNNDetector:
    """A detector of the training images' features, with a threshold from images left out of training.

    A trained backbone maps its training images closer together than new ones: without images that were left out of
    its training, the detector has no threshold.
    """
    limit = NO_LIMIT
    if left_out is not None:
        limit = threshold(left_out.distances)
    elif backbone_is_frozen:
        limit = threshold(distances_left_out(features))
    return build_detector(features.features, features.labels, names, limit)


def ood_record(classifier: Classifier, val: Features, *, backbone_is_frozen: bool) -> dict[str, Any] | None:
    """How often the detector answers "neither" for validation images and for synthetic images.

    With a frozen backbone also for validation images of each class when the detector lacks that class. None if the
    detector has no threshold.
    """
    detector = classifier.detector
    if detector is None or detector.limit is None:
        return None
    alarms = int((detector.distance(val.features) > detector.limit).sum())
    predictions = {kind: classifier.predict(ood.synthetic_images(kind, ood.COUNT)) for kind in ood.KINDS}
    left_out = None
    if backbone_is_frozen:
        found = leave_classes_out(detector.features, detector.labels, val.features, val.labels)
        left_out = {"found": found, "count": len(val)}
    return {
        "threshold": detector.limit,
        "rate": FALSE_ALARM_RATE,
        "val": {"found": alarms, "count": len(val)},
        "foreign": {
            kind: {"found": sum(one.is_out_of_distribution for one in found), "count": len(found)}
            for kind, found in predictions.items()
        },
        "left_out": left_out,
    }


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """The number of parameters of a network, in total and trainable."""
    return {
        "total": count_parameters(network, trainable=False),
        "trainable": count_parameters(network, trainable=True),
    }
