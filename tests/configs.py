"""A config with all that antbee writes, and what tests do with configs."""

from antbee.data.transforms import Preprocessing
from antbee.models.config import ClassifierConfig

CONFIG = ClassifierConfig(
    architecture="resnet18",
    label_names=("ants", "bees"),
    preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    version="0.1.0",
    mode="finetune",
    seed=3,
    recipe={"name": "fast", "epochs": 5},
    data={"name": "drawn", "train": {"ants": 1, "bees": 1}, "skipped": []},
    weights={"name": "random", "digest": None, "base_model": None},
    metrics={
        "kept": {"epoch": 4, "accuracy": 0.9, "loss": 0.3, "correct": 9, "count": 10, "interval": [0.8, 0.95]},
        "last": {"epoch": 5, "accuracy": 0.8, "loss": 0.4, "correct": 8, "count": 10, "interval": [0.7, 0.9]},
        "confusion": [[5, 1], [0, 4]],
        "parameters": {"total": 11_177_538, "trainable": 11_177_538},
        "epochs": 5,
        "seconds": 12.34,
        "selected_on": "val",
        "macro": {"precision": 0.9, "recall": 0.92, "f1": 0.9},
        "per_class": [
            {"precision": 1.0, "recall": 0.83, "f1": 0.91},
            {"precision": 0.8, "recall": 1.0, "f1": 0.89},
        ],
        "auc": 0.95,
        "calibration_error": 0.05,
        "calibration": {"temperature": 1.5, "folds": 2, "loss_before": 0.5, "error_before": 0.1},
        "neither": {
            "threshold": 0.7,
            "rate": 0.05,
            "val": {"found": 1, "count": 10},
            "foreign": {"noise": {"found": 15, "count": 20}},
            "left_out": None,
        },
        "zero_shot": {"accuracy": 0.8, "correct": 8, "count": 10, "interval": [0.5, 0.9], "loss": 0.5},
        "cleaned": {"accuracy": 1.0, "correct": 8, "count": 8, "interval": [0.7, 1.0], "loss": 0.2},
        "learning_curve": [{"per_class": 5, "photos": 10, "accuracies": [0.6, 0.7]}],
        "enough_data": "More would help.",
        "seeds": {
            "kept": {"values": [0.8, 0.9], "mean": 0.85, "deviation": 0.07, "interval": [0.2, 1.4]},
            "last": None,
        },
    },
    run="abc",
)
