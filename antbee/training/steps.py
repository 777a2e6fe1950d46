"""The steps of a run: each mode from its starting weights, then calibrated and evaluated, then with other seeds."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from antbee.data.folder import Split
from antbee.evaluation import metrics
from antbee.evaluation.calibration import COOLEST, HOTTEST
from antbee.models.backbone import Network, apply_temperature, count_parameters, freeze_backbone, head_of
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig
from antbee.models.detector import KNNDetector
from antbee.models.device import choose_precision
from antbee.models.metrics import Calibration, CurvePoint, Evaluation, Metrics, Parameters
from antbee.text import counted
from antbee.training import assessment
from antbee.training.checkpoint import Checkpoint
from antbee.training.context import RunContext
from antbee.training.crossvalidation import (
    OutOfFold,
    choose_neighbours,
    enough_data,
    head_out_of_fold,
    learning_curve,
    logits_of,
    network_out_of_fold,
    stratified_folds,
    trained_head,
)
from antbee.training.features import FeatureCache, Features, compute_features
from antbee.training.history import Epoch
from antbee.training.modes import Run, fit_mode_without_validation, train_finetune, train_frozen, train_head
from antbee.training.recipe import FAST, TrainingError
from antbee.training.summary import epoch_line
from antbee.training.tracking import Log, tracked
from antbee.training.trainer import DivergedError, FitResult

SELECTED_ON = {"val": "val", "holdout": "a holdout", "last": "nothing"}


@dataclass(frozen=True)
class StartingFeatures:
    """The starting network's features of every split, computed on first use."""

    context: RunContext
    train: FeatureCache
    selection: FeatureCache
    val: FeatureCache

    @cached_property
    def data_metrics(self) -> dict[str, Any]:
        """Metrics that do not depend on the mode: zero-shot accuracy and the learning curve."""
        context = self.context
        device = context.distributed.device
        train, val = self.train.computed, self.val.computed
        own_head = context.own_head
        points = learning_curve(train, val, FAST, seed=context.settings.seed, device=device)
        return {
            "zero_shot": own_head and metrics.score(logits_of(own_head.to(device), val), val.labels),
            "learning_curve": [
                CurvePoint(per_class=point.per_class, photos=point.photos, accuracies=list(point.accuracies))
                for point in points
            ],
            "enough_data": enough_data(points),
        }


def starting_features(context: RunContext) -> StartingFeatures:
    """The features for the frozen mode and for the metrics of the data."""
    network = context.starting_network(context.settings.seed)
    freeze_backbone(network)
    train, selection, val = (
        FeatureCache(network, context.loader(split), context=context.distributed, what="features")
        for split in (context.train, context.selection, context.dataset.val)
    )
    # If the epoch is chosen on the validation images, both are the same and are computed once.
    return StartingFeatures(context, train, val if context.selection is context.dataset.val else selection, val)


@dataclass(frozen=True)
class HeadInitialisation:
    """The head that a mode starts from: a calibrated one, with its temperature, or None for a new one."""

    head: Mapping[str, Tensor] | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, classifier: Classifier) -> "HeadInitialisation":
        """The head of a trained mode, whose weights are already divided by its temperature."""
        measured = classifier.config.metrics
        calibration = measured and measured.calibration
        return cls(head_of(classifier.network).state_dict(), calibration.temperature if calibration else 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def train_mode(
    features: StartingFeatures, mode: str, start: HeadInitialisation, checkpoint: Checkpoint
) -> tuple[Network, FitResult]:
    """Trains a mode from the starting weights. Raises TrainingError, naming the images where the loss diverged."""
    context = features.context
    network = context.starting_network(context.settings.seed)
    if start.head is not None:
        head_of(network).load_state_dict(start.head)
    with tracked_epochs(context, mode) as log:

        def report(epoch: Epoch) -> None:
            context.say(epoch_line(epoch))
            log(epoch.to_record())

        run = run_of(context, mode, context.settings.seed, report)
        try:
            return network, fit_mode(network, features, mode, run, checkpoint)
        except DivergedError as error:
            raise TrainingError(f"{error}. {images_of_batch(context, error.positions)}") from error


def fit_mode(
    network: Network, features: StartingFeatures, mode: str, run: Run, checkpoint: Checkpoint | None = None
) -> FitResult:
    """Trains the network as the mode does; the frozen mode on cached features where the recipe caches them."""
    if mode == "finetune":
        return train_finetune(network, run, checkpoint)
    if not run.recipe.cached_features:
        return train_frozen(network, run, checkpoint)
    freeze_backbone(network)
    return train_head(head_of(network), features.train, features.selection, run, checkpoint)


def run_of(context: RunContext, mode: str, seed: int, report: Callable[[Epoch], None] = lambda epoch: None) -> Run:
    """The arguments of a mode's training."""
    return Run(
        recipe=context.recipe,
        train=context.loader(context.train, mode, seed=seed),
        val=context.loader(context.selection),
        seed=seed,
        context=context.distributed,
        keep="last" if context.settings.select == "last" else "best",
        compiled=context.settings.compile,
        signals=context.signals,
        report=report,
    )


def images_of_batch(context: RunContext, positions: tuple[int, ...]) -> str:
    """Names the files of the batch whose loss diverged, and says what is kept."""
    names = context.train.names(context.dataset.root)
    more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
    seen = f"The batch: {', '.join(names[position] for position in positions[:3])}{more}. " if positions else ""
    return f"{seen}The last finished epoch and earlier models are kept"


@contextmanager
def tracked_epochs(context: RunContext, mode: str) -> Iterator[Log]:
    """Yields the function that logs a mode's epochs to the tracker, if there is one, in the first process."""
    settings = context.settings
    if settings.track is None or not context.distributed.is_first:
        yield lambda record: None
        return
    run = f"{mode} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    logged = {"architecture": context.backbone, "weights": context.weights.name, "data": context.dataset.name}
    more = {"mode": mode, "seed": settings.seed, **context.recipe.flat(mode)}
    with tracked(settings.track, run, logged | more, settings.output) as log:
        yield log


# ---------------------------------------------------------------------------------------------------------------------
# Calibration and evaluation


def calibrate_and_evaluate(
    features: StartingFeatures,
    mode: str,
    start: HeadInitialisation,
    network: Network,
    fitted: FitResult,
    config: ClassifierConfig,
) -> tuple[Classifier, Tensor]:
    """Returns the classifier, with its detector and metrics, and its validation logits: float32 (N, classes), CPU."""
    context = features.context
    is_starting_backbone = mode == "frozen" and context.recipe.cached_features  # then its features are cached
    train = features.train.computed if is_starting_backbone else features_of(context, network, context.train)
    val = features.val.computed if is_starting_backbone else features_of(context, network, context.dataset.val)
    left_out = predict_left_out(features, mode, start, fitted.kept.number)
    calibration: Calibration | None = None
    if left_out is not None:
        before = metrics.evaluate(logits_of(head_of(network), val), val.labels)
        temperature = assessment.calibrate(head_of(network), left_out, torch.tensor(context.train.labels))
        after = metrics.evaluate(logits_of(head_of(network), val), val.labels)
        calibration = assessment.calibration_of(temperature, left_out, before)
        context.say(calibration_line(temperature, before, after))
    names = context.train.names(context.dataset.root)
    is_unaware = mode == "frozen" and context.has_untrained_backbone  # of the classes and the images
    detector = assessment.fit_detector(train, names, left_out, backbone_is_frozen=is_unaware)
    val_logits = logits_of(head_of(network), val)
    measured = {
        **fit_metrics(context, network, fitted, val_logits),
        "test": test_metrics(context, network, detector),
        "calibration": calibration,
        "neither": assessment.ood_metrics(
            Classifier(network, config, detector), val, backbone_is_frozen=is_starting_backbone and is_unaware
        ),
        "seeds": seed_metrics(features, mode, start, fitted, val_logits),
        **features.data_metrics,
        "activation_map": "exact" if Classifier(network, config).explains_exactly else "gradients",
    }
    config = replace(config, metrics=Metrics.model_validate(measured))
    return Classifier(network, config, detector), val_logits


def calibration_line(temperature: float, before: Evaluation, after: Evaluation) -> str:
    """The temperature and its effect on the validation photos, which may be none."""
    limit = ""
    if temperature > 0.999 * HOTTEST:
        limit = " (the largest allowed: the logits tell little)"
    elif temperature < 1.001 * COOLEST:
        limit = " (the smallest allowed: the head is trained too little, more --epochs help)"
    verdict = "" if after.loss <= before.loss else "; no better on these photos"
    return (
        f"  calibrated: temperature {temperature:.2f}{limit}, val loss {before.loss:.3f} -> {after.loss:.3f}, "
        f"calibration error {before.calibration_error:.3f} -> {after.calibration_error:.3f}{verdict}"
    )


def features_of(context: RunContext, network: Network, split: Split) -> Features:
    """The features of a split's images, in evaluation crops."""
    return compute_features(network, context.loader(split), context.distributed, what="features")


def val_logits_of(context: RunContext, network: Network) -> Tensor:
    """A network's logits of the validation images: float32 (N, classes), on the CPU."""
    return logits_of(
        head_of(network), features_of(context, network.to(context.distributed.device), context.dataset.val)
    )


def predict_left_out(
    features: StartingFeatures, mode: str, start: HeadInitialisation, max_epochs: int
) -> OutOfFold | None:
    """Out-of-fold predictions, by trainings of as many epochs as the kept epoch's number.

    None if the recipe has no folds, or if a class is too small for two.
    """
    context = features.context
    seed, recipe, device = context.settings.seed, context.recipe, context.distributed.device
    wanted = recipe.schedule(mode).folds
    folds = stratified_folds(torch.tensor(context.train.labels), wanted, seed)
    if (count := len(folds.unique())) < wanted:
        context.say(
            f"  calibrating with {counted(count, 'fold')}, the photos of the smallest class; at least 2 are needed"
        )
    if count < 2:
        return None
    if mode == "frozen" and recipe.cached_features:
        return head_out_of_fold(
            features.train.computed,
            folds,
            recipe,
            seed=seed,
            device=device,
            max_epochs=max_epochs,
            start=context.first_head(seed),
        )

    def train_on(positions: Tensor) -> Network:
        network = context.starting_network(seed)
        if start.head is not None:
            subset = features.train.computed.subset(positions)
            count = head_of(network).out_features
            head = trained_head(subset, count, recipe, seed=seed, device=device, start=context.first_head(seed))
            head_of(network).load_state_dict(head.state_dict())
            apply_temperature(head_of(network), start.temperature)
        if mode == "frozen":
            freeze_backbone(network)
        images = context.loader(context.train.subset(positions.tolist()), mode, seed=seed)
        fit_mode_without_validation(
            network, images, mode, recipe, seed=seed, context=context.distributed, max_epochs=max_epochs
        )
        return network

    context.say("  calibrating: training again on folds of the photos")
    precision = choose_precision(recipe.precision, device)
    neighbours = choose_neighbours(features.train.computed)
    images = context.loader(context.train)
    return network_out_of_fold(train_on, images, folds, context.distributed, precision, neighbours)


def fit_metrics(context: RunContext, network: Network, fitted: FitResult, val_logits: Tensor) -> dict[str, Any]:
    """Metrics on the validation images, duration, and parameter counts."""
    history, labels = fitted.history, torch.tensor(context.dataset.val.labels)
    last = metrics.share(round(history.last.val.accuracy * len(labels)), len(labels)).model_dump(exclude_unset=True)
    cleaned = context.dataset.cleaned
    is_other = 0 < len(cleaned) < len(labels)
    return {
        **metrics.evaluate(val_logits, labels).as_metrics(fitted.kept.number),
        "last": None if context.settings.select == "holdout" else last | {"epoch": history.last.number},
        "cleaned": metrics.score(val_logits[cleaned], labels[cleaned]) if is_other else None,
        "selected_on": SELECTED_ON[context.settings.select],
        "epochs": len(history.epochs),
        "seconds": history.seconds,
        "parameters": Parameters(
            total=count_parameters(network, trainable=False), trainable=count_parameters(network, trainable=True)
        ),
    }


def test_metrics(context: RunContext, network: Network, detector: KNNDetector | None) -> Evaluation | None:
    """Metrics on the test images, on which nothing was chosen: computed once, when the model is finished."""
    if not len(context.dataset.test):
        return None
    features = features_of(context, network, context.dataset.test)
    return assessment.evaluation_of(head_of(network), features, detector)


# ---------------------------------------------------------------------------------------------------------------------
# Other seeds


def seed_metrics(
    features: StartingFeatures, mode: str, start: HeadInitialisation, fitted: FitResult, val_logits: Tensor
) -> dict[str, Any] | None:
    """Mean and spread of the accuracy over seeds, which draw heads, orders and crops. None for a single seed."""
    context, settings = features.context, features.context.settings
    if settings.seeds < 2:
        return None
    labels = torch.tensor(context.dataset.val.labels)
    accuracies = [(metrics.score(val_logits, labels).accuracy, fitted.history.last.val.accuracy)]
    for seed in range(settings.seed + 1, settings.seed + settings.seeds):
        accuracies.append(accuracies_of_seed(features, mode, start, seed))
        context.say(f"  seed {seed}: {accuracies[-1][0]:.1%}")
    of_kept, of_last = (metrics.spread(values) for values in zip(*accuracies, strict=True))
    # With a holdout the last epoch was not scored on the validation images.
    return {"kept": of_kept, "last": None if settings.select == "holdout" else of_last}


def accuracies_of_seed(
    features: StartingFeatures, mode: str, start: HeadInitialisation, seed: int
) -> tuple[float, float]:
    """Accuracies with another seed: of the kept epoch on the validation images, of the last on the selection images."""
    context = features.context
    network = context.starting_network(seed)
    steps = ["frozen", mode] if mode == "finetune" and context.recipe.head_first else [mode]
    for step in steps:
        if step != steps[0]:
            apply_temperature(head_of(network), start.temperature)  # as the head was that the run itself started from
        fitted = fit_mode(network, features, step, run_of(context, step, seed))
    accuracy = fitted.kept.val.accuracy
    if context.selection is not context.dataset.val:
        accuracy = metrics.score(val_logits_of(context, network), features.val.labels).accuracy
    return accuracy, fitted.history.last.val.accuracy
