"""A config with all that antbee writes, and what tests do with configs."""

from antbee.data.transforms import Preprocessing
from antbee.models.config import ClassifierConfig

KEPT = {"epoch": 3, "accuracy": 0.9477, "loss": 0.17, "correct": 145, "count": 153, "interval": [0.9, 0.973]}
CONFIG = ClassifierConfig(
    architecture="resnet18",
    label_names=("ants", "bees"),
    preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    version="0.1.0",
    mode="finetune",
    seed=3,
    recipe={"name": "fast", "epochs": 5, "learning_rate": 0.001, "cached_features": True, "batch_norm": "fixed"},
    data={
        "name": "hymenoptera_data",
        "train": {"ants": 123, "bees": 121},
        "val": {"ants": 70, "bees": 83},
        "digest": "d" * 64,
        "split": "val/ folder",
        "skipped": [{"file": "train/ants/imageNotFound.gif", "reason": "not a picture"}],
    },
    weights={"name": "imagenet", "digest": "e" * 64, "base_model": "timm/resnet18.tv_in1k"},
    metrics={
        "kept": KEPT,
        "last": KEPT | {"epoch": 5, "accuracy": 0.9412, "correct": 144, "interval": [0.892, 0.969]},
        "confusion": [[66, 4], [4, 79]],
        "parameters": {"total": 11_177_538, "trainable": 11_177_538},
        "epochs": 5,
        "seconds": 143.2,
        "selected_on": "val",
        "macro": {"precision": 0.947, "recall": 0.948, "f1": 0.9475},
        "per_class": [
            {"precision": 0.9429, "recall": 0.9428, "f1": 0.9430},
            {"precision": 0.9518, "recall": 0.9519, "f1": 0.9520},
        ],
        "auc": 0.9876,
        "calibration_error": 0.0301,
        "calibration": {"temperature": 1.371, "folds": 2, "loss_before": 0.2001, "error_before": 0.0702},
        "neither": {
            "threshold": 0.7654,
            "rate": 0.05,
            "val": {"found": 6, "count": 153},
            "foreign": {"noise": {"found": 19, "count": 20}, "flat colours": {"found": 18, "count": 20}},
            "left_out": {"found": 33, "count": 153},
        },
        "zero_shot": {"accuracy": 0.915, "correct": 140, "count": 153, "interval": [0.86, 0.95], "loss": 0.3},
        "cleaned": {"accuracy": 1.0, "correct": 8, "count": 8, "interval": [0.7, 1.0], "loss": 0.2},
        "learning_curve": [{"per_class": 5, "photos": 10, "accuracies": [0.8, 0.9]}],
        "enough_data": "With *all* 244 photos: level.",
        "seeds": {
            "kept": {"values": [0.8, 0.9], "mean": 0.85, "deviation": 0.07, "interval": [0.2, 1.4]},
            "last": None,
        },
    },
    run="abc",
)
