"""The two modes of transfer learning: a frozen backbone, and fine-tuning."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from antbee.data.loading import GPUImageLoader, ImageLoader
from antbee.models.backbone import Network, freeze_backbone, unfreeze
from antbee.models.device import choose_precision
from antbee.training.checkpoint import Checkpoint, DeferredSignals
from antbee.training.distributed import DistributedContext
from antbee.training.features import Examples
from antbee.training.history import Epoch
from antbee.training.recipe import Recipe, balancing_weights
from antbee.training.trainer import FitResult, fit, fit_without_validation, is_head


@dataclass(frozen=True)
class Run:
    """The arguments of both modes: the recipe, the images, the seed and the device."""

    recipe: Recipe
    train: ImageLoader | GPUImageLoader
    val: ImageLoader | GPUImageLoader
    seed: int = 0
    context: DistributedContext = DistributedContext()
    keep: Literal["best", "last"] = "best"  # the epoch whose weights are kept
    compiled: bool = False  # torch.compile whole networks: takes minutes, then steps are faster on some GPUs
    signals: DeferredSignals = field(default_factory=DeferredSignals)
    report: Callable[[Epoch], None] = lambda epoch: None


def train_frozen(network: Network, run: Run, checkpoint: Checkpoint | None = None) -> FitResult:
    """Frozen mode: the backbone is a fixed feature extractor, only the head is trained.

    The images pass through the backbone in every epoch. The recipe's `batch_norm` decides whether that updates
    BatchNorm's running statistics ("adapting"), as in the tutorial.
    """
    freeze_backbone(network)
    return _fit_mode(network, run.train, run.val, "frozen", run, checkpoint)


def train_head(
    head: nn.Linear, train: Examples, val: Examples, run: Run, checkpoint: Checkpoint | None = None
) -> FitResult:
    """Frozen mode on cached features, which leaves every tensor of the backbone as it is."""
    return _fit_mode(head, train, val, "frozen", run, checkpoint)


def train_finetune(network: Network, run: Run, checkpoint: Checkpoint | None = None) -> FitResult:
    """Finetune mode: every weight is trained, from the current weights of `network`."""
    unfreeze(network)
    return _fit_mode(network, run.train, run.val, "finetune", run, checkpoint)


def _fit_mode(
    module: nn.Module, train: Examples, val: Examples, mode: str, run: Run, checkpoint: Checkpoint | None
) -> FitResult:
    return fit(
        module,
        train,
        val,
        run.recipe.schedule(mode),
        compiled=run.compiled and not isinstance(module, nn.Linear),
        keep=run.keep,
        checkpoint=checkpoint,
        signals=run.signals,
        report=run.report,
        **_fit_options(module, train.labels, run.recipe, run.seed, run.context),
    )


def fit_mode_without_validation(
    module: nn.Module,
    train: Examples,
    mode: str,
    recipe: Recipe,
    *,
    seed: int,
    context: DistributedContext,
    max_epochs: int | None = None,
) -> None:
    """Trains a head or a network with a mode's schedule, without validation; see `fit_without_validation`."""
    options = _fit_options(module, train.labels, recipe, seed, context)
    fit_without_validation(module, train, recipe.schedule(mode), max_epochs=max_epochs, **options)


def _fit_options(
    module: nn.Module, labels: Tensor, recipe: Recipe, seed: int, context: DistributedContext
) -> dict[str, Any]:
    """The arguments that a recipe gives to `fit` and `fit_without_validation`."""
    whole = not is_head(module)  # a head is too small to gain from lower precision
    return {
        "batch_norm": recipe.batch_norm,
        "precision": choose_precision(recipe.precision, context.device) if whole else "float32",
        "class_weights": balancing_weights(labels) if recipe.balanced else None,
        "seed": seed,
        "context": context,
    }
