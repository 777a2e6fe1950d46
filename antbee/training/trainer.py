"""The training loop, which both modes use: see `modes`."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from antbee.data.seeds import seeded_generator
from antbee.models.device import Precision, autocast
from antbee.training.checkpoint import Checkpoint, DeferredSignals
from antbee.training.distributed import DistributedContext
from antbee.training.features import Examples, compute_rows, is_out_of_memory, progress_bar
from antbee.training.history import Epoch, EpochMetrics, History
from antbee.training.recipe import Schedule, TrainingError, learning_rate

SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch
CHECK_LOSS_EVERY = 10  # steps, on accelerators, where reading the loss waits for the device


class DivergedError(TrainingError):
    """Training diverged: the loss is NaN or infinite."""

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = tuple(positions)  # of the examples in the batch


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The positions of an epoch's batches, shuffled by (seed, epoch): int64, each position once.

    Batch sizes differ by one at most: a small last batch would weigh as much as a full one, and BatchNorm can't
    normalise a single example.
    """
    order = torch.randperm(count, generator=seeded_generator(seed, "order", epoch))
    return order.tensor_split(math.ceil(count / batch_size))


def set_training_mode(module: nn.Module, batch_norm: str) -> None:
    """Sets training mode; "fixed" keeps BatchNorm's running statistics, which `requires_grad=False` does not."""
    module.train()
    if batch_norm == "fixed":
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()


def is_head(module: nn.Module) -> bool:
    """Whether a module is a head, or several of them, and not a whole network: a single layer."""
    return next(module.children(), None) is None


@dataclass(frozen=True)
class FitResult:
    """The history of a training, and the epoch whose weights are kept."""

    history: History
    kept: Epoch


def fit(
    module: nn.Module,
    train: Examples,
    val: Examples,
    schedule: Schedule,
    *,
    batch_norm: str = "fixed",
    precision: Precision = "float32",
    compiled: bool = False,
    class_weights: Tensor | None = None,
    keep: Literal["best", "last"] = "best",
    seed: int = 0,
    context: DistributedContext = DistributedContext(),
    checkpoint: Checkpoint | None = None,
    signals: DeferredSignals | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> FitResult:
    """Trains the parameters of `module` that require gradients; it ends with the weights of the epoch to keep.

    Calls `report` after every epoch. With a `checkpoint`, which is saved after every epoch, every SAVE_EVERY seconds
    and when the run is stopped, an interrupted run resumes after its last saved step, and ends with the same bytes as
    an uninterrupted one. Raises TrainingError where a checkpoint can't be written, DivergedError where the loss is NaN
    or infinite.
    """
    signals = signals or DeferredSignals()
    training = _Training(
        module, train, schedule, batch_norm, precision, compiled, class_weights, seed, context, signals
    )
    run = _FitState(module, training, checkpoint)
    run.resume()

    try:
        while run.progress.epoch <= schedule.epochs:
            trained = training.epoch(run.progress, run.save_if_due)
            validation = validate(module, val, run.progress.epoch, context)
            if not math.isfinite(validation.loss):
                raise training.diverged(validation.loss, run.progress, ())
            with signals.deferred():
                run.end_epoch(trained, validation, keep)
                run.save()
            report(run.history.last)
    except (KeyboardInterrupt, SystemExit):
        # Several processes stop at different steps, so they resume from the end of an epoch.
        if context.count == 1:
            run.save()
        raise

    history = run.history
    module.load_state_dict(run.kept)
    return FitResult(history, history.last if keep == "last" else history.best)


@dataclass
class _Progress:
    """The current epoch, its finished steps, and the sums of its metrics."""

    epoch: int = 1
    steps: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(3))  # float32: loss, correct predictions, examples
    seconds: float = 0.0


class _FitState:
    """The state of a `fit` in progress, which checkpoints hold."""

    def __init__(self, module: nn.Module, training: "_Training", checkpoint: Checkpoint | None) -> None:
        self.module = module
        self.training = training
        self.checkpoint = checkpoint if training.context.is_first else None
        self.progress = _Progress()
        self.history = History()
        self.kept: dict[str, Tensor] = {}  # the weights of the epoch to keep, among those so far
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Loads the state of an interrupted run, if there is a checkpoint."""
        saved = self.training.context.from_first(self.checkpoint.load() if self.checkpoint is not None else None)
        if saved is None:
            return
        self.module.load_state_dict(saved["module"])
        self.training.optimiser.load_state_dict(saved["optimiser"])
        self.history, self.kept = History.from_records(saved["history"]), saved["kept"]
        self.progress = _Progress(**saved["progress"])

    def end_epoch(self, trained: EpochMetrics, validation: EpochMetrics, keep: Literal["best", "last"]) -> None:
        """Adds an epoch to the history, and keeps its weights if it is the best or the last."""
        number = self.progress.epoch
        rate = max(self.training.rates(number))
        self.history = History((*self.history.epochs, Epoch(number, rate, trained, validation)))
        if keep == "last" or self.history.best.number == number:
            self.kept = copied_state(self.module)
        self.progress = _Progress(number + 1)

    def save_if_due(self) -> None:
        """Saves the state in the middle of a long epoch."""
        if self.training.context.count == 1 and time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Saves the state, in the first process alone; never weights that are NaN or infinite."""
        self._saved = time.monotonic()
        if self.checkpoint is None or not all(torch.isfinite(weights).all() for weights in self.module.parameters()):
            return
        self.checkpoint.save(
            {
                "module": self.module.state_dict(),
                "optimiser": self.training.optimiser.state_dict(),
                "kept": self.kept,
                "history": self.history.to_records(),
                "progress": vars(self.progress),
            }
        )


def fit_without_validation(
    module: nn.Module,
    train: Examples,
    schedule: Schedule,
    *,
    batch_norm: str = "fixed",
    precision: Precision = "float32",
    class_weights: Tensor | None = None,
    seed: int = 0,
    context: DistributedContext = DistributedContext(),
    max_epochs: int | None = None,
) -> None:
    """Trains without validation for `max_epochs`, by default all; leaves `module` in evaluation mode."""
    training = _Training(
        module, train, schedule, batch_norm, precision, False, class_weights, seed, context, DeferredSignals()
    )
    for number in range(1, (max_epochs or schedule.epochs) + 1):
        training.epoch(_Progress(number))
    module.eval()
    context.share_buffers(module)


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor: `state_dict()` returns views, which change as training goes on."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets torch's thread count for the block: a second thread slows steps as small as a head's down."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """Trains a module, epoch by epoch."""

    def __init__(
        self,
        module: nn.Module,
        train: Examples,
        schedule: Schedule,
        batch_norm: str,
        precision: Precision,
        compiled: bool,
        class_weights: Tensor | None,
        seed: int,
        context: DistributedContext,
        signals: DeferredSignals,
    ) -> None:
        smallest = len(train) // math.ceil(len(train) / schedule.batch_size)  # see `shuffled_batches`
        if smallest < context.count:
            raise TrainingError(
                f"batches of {schedule.batch_size} can't be shared by {context.count} processes: "
                "raise --batch-size, or start fewer processes"
            )
        self.optimiser = _optimiser(module, schedule)
        self.learner = _in_parallel(module, batch_norm, context)
        if compiled:
            # A wrapper: the module that is evaluated and saved stays uncompiled.
            self.learner = cast(nn.Module, torch.compile(self.learner))
        self.is_head = is_head(module)
        self.train = train
        self.schedule = schedule
        self.batch_norm = batch_norm
        self.multiplying = autocast(precision, context.device)
        self.class_weights = None if class_weights is None else class_weights.to(context.device)
        self.seed = seed
        self.context = context
        self.signals = signals

    def rates(self, number: int) -> list[float]:
        """The learning rate of every step of an epoch."""
        steps = math.ceil(len(self.train) / self.schedule.batch_size)
        return [learning_rate(self.schedule, (number - 1) * steps + step, steps) for step in range(steps)]

    def epoch(self, progress: _Progress, after_step: Callable[[], None] = lambda: None) -> EpochMetrics:
        """Runs the remaining steps of the epoch and updates `progress`; returns the metrics of the whole epoch."""
        number, started = progress.epoch, time.perf_counter() - progress.seconds
        set_training_mode(self.learner, self.batch_norm)
        context = self.context
        batches = shuffled_batches(len(self.train), self.schedule.batch_size, self.seed, number)
        left = range(progress.steps, len(batches))
        rates = self.rates(number)
        examples = self.train.batches([context.share(batches[step]) for step in left], number)
        progress.totals = progress.totals.to(context.device)  # accumulated on the device, read once
        on_cpu = context.device.type == "cpu"
        with threads(1 if self.is_head else torch.get_num_threads()):
            what = f"epoch {number} of {self.schedule.epochs}"
            for step, (inputs, labels) in zip(left, progress_bar(examples, what, len(left), context), strict=True):
                with self.signals.deferred():
                    loss, seen = self._forward(inputs, labels)
                    if (on_cpu or step % CHECK_LOSS_EVERY == 0 or step == left[-1]) and not math.isfinite(
                        value := loss.item()
                    ):
                        raise self.diverged(value, progress, context.share(batches[step]).tolist())
                    self._backward(loss, rates[step], len(batches[step]))
                    progress.totals += seen
                    progress.steps, progress.seconds = step + 1, time.perf_counter() - started
                after_step()
        loss_sum, correct_sum, count = context.total(progress.totals.clone()).tolist()
        return EpochMetrics(loss_sum / count, correct_sum / count, time.perf_counter() - started)

    def diverged(self, loss: float, progress: _Progress, positions: Sequence[int]) -> DivergedError:
        """The error for a loss that is NaN or infinite, with the positions of the batch."""
        rates = self.rates(progress.epoch)
        rate = rates[min(progress.steps, len(rates) - 1)]
        return DivergedError(
            f"training diverged: the loss is {loss} in epoch {progress.epoch}, step {progress.steps + 1}, at learning "
            f"rate {rate:g}; try --lr {max(rates) / 10:g}",
            positions,
        )

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise on this process's share of a batch, and the sums of loss, correct and examples (3,)."""
        device = self.context.device
        on_cuda = device.type == "cuda"  # elsewhere an asynchronous copy may be read too early
        labels = labels.to(device, non_blocking=on_cuda)
        with self._fitting_into_memory(len(labels)), self.multiplying:
            logits = self.learner(inputs.to(device, non_blocking=on_cuda)).float()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        weighted = (
            loss
            if self.class_weights is None
            else functional.cross_entropy(logits, labels, self.class_weights, reduction="sum")
        )
        correct = (logits.detach().argmax(1) == labels).sum(dtype=loss.dtype)
        return weighted, torch.stack([loss.detach(), correct, torch.full_like(correct, len(labels))])

    def _backward(self, loss: Tensor, rate: float, batch_size: int) -> None:
        """One gradient step."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimiser.zero_grad()
        with self._fitting_into_memory(batch_size):
            # The mean over the whole batch, as gradients are averaged over the processes.
            (loss * self.context.count / batch_size).backward()
        self.optimiser.step()

    @contextlib.contextmanager
    def _fitting_into_memory(self, count: int) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"a batch of {count} doesn't fit into the memory of {self.context.device}: "
                f"try --batch-size {max(1, count // 2)}"
            ) from error


def validate(module: nn.Module, val: Examples, number: int, context: DistributedContext) -> EpochMetrics:
    """Metrics of the validation split with the current weights, after epoch `number`."""
    started = time.perf_counter()
    module.eval()
    context.share_buffers(module)  # evaluates the weights that are saved
    class_count = int(val.labels.max()) + 1  # `read_folder` ensures that every class has validation photos
    logits = compute_rows(module, val, class_count, context, what=f"epoch {number}, validation").cpu()
    loss = float(functional.cross_entropy(logits, val.labels))
    accuracy = int((logits.argmax(1) == val.labels).sum()) / len(val.labels)
    return EpochMetrics(loss, accuracy, time.perf_counter() - started)


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimiser == "sgd":
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.SGD(
            weights, lr=schedule.learning_rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(module, schedule.weight_decay, layer_decay=schedule.layer_decay)
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _in_parallel(module: nn.Module, batch_norm: str, context: DistributedContext) -> nn.Module:
    """The module, wrapped so that its gradients are averaged over the processes."""
    if context.count == 1:
        return module
    devices = [context.device] if context.device.type == "cuda" else None
    if batch_norm == "adapting" and devices:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # statistics of the whole batch; not available on CPUs
    return DistributedDataParallel(module, device_ids=devices)
