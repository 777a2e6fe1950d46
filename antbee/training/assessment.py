"""What makes a trained model trustworthy: calibrated probabilities, an out-of-distribution detector, and its metrics.

The pipeline and few-shot training share it. Whatever is fitted to predictions is fitted to those on images that were
left out of training, see `crossvalidation`.
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
    """Divides a head's weights by the temperature that suits images left out of training, and returns it.

    So every program that loads the model gives calibrated probabilities, without knowing of a temperature.
    """
    temperature = fit_temperature(left_out.logits, labels)
    apply_temperature(head, temperature)
    return temperature


def calibration_record(temperature: float, left_out: OutOfFold, before: Evaluation) -> dict[str, Any]:
    """What config.json says of a calibration: its temperature, and loss and error without it."""
    return {
        "temperature": temperature,
        "folds": left_out.folds,
        "loss_before": before.loss,
        "error_before": before.calibration_error,
    }


def fit_detector(
    features: Features, names: list[str], left_out: OutOfFold | None, *, backbone_is_frozen: bool
) -> KNNDetector:
    """The detector of a model: the features it was trained on, and the distance beyond which an image is like none.

    A network's training images lie nearer to each other than new ones do: where none were left out of the training
    of the backbone, there is no limit.
    """
    limit = NO_LIMIT
    if left_out is not None:
        limit = threshold(left_out.distances)
    elif backbone_is_frozen:
        limit = threshold(distances_left_out(features))
    return build_detector(features.features, features.labels, names, limit)


def ood_record(classifier: Classifier, val: Features, *, backbone_is_frozen: bool) -> dict[str, Any] | None:
    """How often "neither" is answered: wrongly to validation images, rightly to synthetic images.

    With a backbone that was not trained on the classes also to validation images of a class that the detector lacks.
    None where too little is known for a limit.
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
    """Weights of a network, and those of them that were trained."""
    return {
        "total": count_parameters(network, trainable=False),
        "trainable": count_parameters(network, trainable=True),
    }
