"""The loop, which knows no modes."""

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
from antbee.evaluation import metrics
from antbee.models.device import Precision, autocast
from antbee.training.checkpoint import Checkpoint, DeferredSignals
from antbee.training.distributed import DistributedContext
from antbee.training.features import Examples, compute_rows, is_out_of_memory, progress_bar
from antbee.training.history import Epoch, EpochMetrics, History
from antbee.training.recipe import Schedule, TrainingError, learning_rate

SAVE_EVERY = 60.0  # seconds between checkpoints in the middle of an epoch
LOOK_EVERY = 10  # steps between two looks at the loss, on devices that each look would keep waiting


class DivergedError(TrainingError):
    """The loss is no number any more: the weights ran away, or a photo holds what no photo should."""

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = tuple(positions)  # of the examples in the batch that it was seen at


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """An epoch's batches of positions: all of them once, in an order that hangs on (seed, epoch) alone.

    Sizes differ by one at most: a small last batch would weigh as much as a full one, and BatchNorm can't
    normalise a single example.
    """
    order = torch.randperm(count, generator=seeded_generator(seed, "order", epoch))
    return order.tensor_split(math.ceil(count / batch_size))


def set_learning(module: nn.Module, batch_norm: str) -> None:
    """Training mode. With "fixed" BatchNorm keeps its statistics, which no `requires_grad` protects from `train()`."""
    module.train()
    if batch_norm == "fixed":
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()


@dataclass(frozen=True)
class FitResult:
    """How a training went, and what the weights it kept say of the validation photos."""

    history: History
    kept: Epoch  # whose weights are kept
    val_logits: Tensor  # float32 (N, classes), of the kept epoch, in the order of the validation split


@dataclass(frozen=True)
class _Best:
    """The weights of the best epoch so far and what they say of the validation photos."""

    state: dict[str, Tensor]
    val_logits: Tensor


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
    """Trains the weights of `module` that require gradients, and leaves it with those of the epoch to keep.

    Calls `report` after every epoch. With a `checkpoint`, a run that was interrupted goes on after its last saved step
    and ends as if it had never been: it is saved after every epoch, every SAVE_EVERY seconds, and when it is stopped.
    Raises TrainingError where a checkpoint can't be written, and DivergedError where the loss is no number any more.
    """
    signals = signals or DeferredSignals()
    learning = _Learning(
        module, train, schedule, batch_norm, precision, compiled, class_weights, seed, context, signals
    )
    run = _Fitting(module, learning, checkpoint)
    run.take_up()

    try:
        while run.progress.epoch <= schedule.epochs:
            learned = learning.epoch(run.progress, run.save_in_time)
            looked, val_logits = validate(module, val, run.progress.epoch, context)
            if not math.isfinite(looked.loss):
                raise learning.diverged(looked.loss, run.progress, ())
            with signals.deferred():
                run.end_epoch(learned, looked, val_logits, keep)
                run.save()
            report(run.history.last)
    except (KeyboardInterrupt, SystemExit):
        # Several processes stop at different steps: there the last epoch's end is what they go on from.
        if context.count == 1:
            run.save()
        raise

    history = run.history
    module.load_state_dict(run.best.state)
    return FitResult(history, history.last if keep == "last" else history.best, run.best.val_logits)


@dataclass
class _Progress:
    """How far a training came: the epoch under way, its finished steps, and what was seen on the way."""

    epoch: int = 1
    steps: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(3))  # float32: loss, right answers, examples
    seconds: float = 0.0


class _Fitting:
    """A run of `fit` in progress: all of it that a checkpoint has to hold."""

    def __init__(self, module: nn.Module, learning: "_Learning", checkpoint: Checkpoint | None) -> None:
        self.module = module
        self.learning = learning
        self.checkpoint = checkpoint if learning.context.is_first else None
        self.progress = _Progress()
        self.history = History()
        self.best = _Best({}, torch.empty(0))
        self._saved = time.monotonic()

    def take_up(self) -> None:
        """Goes on where a checkpoint says that the run was."""
        saved = self.learning.context.from_first(self.checkpoint.load() if self.checkpoint is not None else None)
        if saved is None:
            return
        self.module.load_state_dict(saved["module"])
        self.learning.optimiser.load_state_dict(saved["optimiser"])
        self.history, self.best = History.from_records(saved["history"]), _Best(**saved["best"])
        self.progress = _Progress(**saved["progress"])

    def end_epoch(
        self, learned: EpochMetrics, looked: EpochMetrics, val_logits: Tensor, keep: Literal["best", "last"]
    ) -> None:
        """The epoch under way is over: the next one begins."""
        number = self.progress.epoch
        rate = max(self.learning.rates(number))
        self.history = History((*self.history.epochs, Epoch(number, rate, learned, looked)))
        if keep == "last" or self.history.best.number == number:
            self.best = _Best(copied_state(self.module), val_logits)
        self.progress = _Progress(number + 1)

    def save_in_time(self) -> None:
        """Saves in the middle of a long epoch."""
        if self.learning.context.count == 1 and time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Saves where the run is now, in the first of several processes; never weights that ran away."""
        self._saved = time.monotonic()
        if self.checkpoint is None or not all(torch.isfinite(weights).all() for weights in self.module.parameters()):
            return
        self.checkpoint.save(
            {
                "module": self.module.state_dict(),
                "optimiser": self.learning.optimiser.state_dict(),
                "best": vars(self.best),
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
    """Trains without validation for `max_epochs`, or for all epochs; leaves `module` in evaluation mode."""
    learning = _Learning(
        module, train, schedule, batch_norm, precision, False, class_weights, seed, context, DeferredSignals()
    )
    for number in range(1, (max_epochs or schedule.epochs) + 1):
        learning.epoch(_Progress(number))
    module.eval()
    context.share_buffers(module)


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor: `state_dict` itself gives views that go on changing with the training."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for the block: steps as small as a head's wait for more of them longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Learning:
    """A module that learns, epoch by epoch."""

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
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(
            weights, lr=schedule.learning_rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
        self.learner = _in_parallel(module, batch_norm, context)
        if compiled:
            # Around the module: what is measured and saved stays as it is.
            self.learner = cast(nn.Module, torch.compile(self.learner))
        self.is_head = isinstance(module, nn.Linear)
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
        """The steps of the epoch under way that are left, each of which moves `progress` on; what was seen of all."""
        number, started = progress.epoch, time.perf_counter() - progress.seconds
        set_learning(self.learner, self.batch_norm)
        context = self.context
        batches = shuffled_batches(len(self.train), self.schedule.batch_size, self.seed, number)
        left = range(progress.steps, len(batches))
        rates = self.rates(number)
        examples = self.train.batches([context.share(batches[step]) for step in left], number)
        progress.totals = progress.totals.to(context.device)  # summed there, read once
        on_cpu = context.device.type == "cpu"
        with threads(1 if self.is_head else torch.get_num_threads()):
            what = f"epoch {number} of {self.schedule.epochs}"
            for step, (inputs, labels) in zip(left, progress_bar(examples, what, len(left), context), strict=True):
                with self.signals.deferred():
                    loss, seen = self._forward(inputs, labels)
                    if (on_cpu or step % LOOK_EVERY == 0 or step == left[-1]) and not math.isfinite(
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
        """What to say where the loss is no number any more, with the examples that it was seen at."""
        rates = self.rates(progress.epoch)
        rate = rates[min(progress.steps, len(rates) - 1)]
        return DivergedError(
            f"the loss is {loss} in epoch {progress.epoch}, step {progress.steps + 1}, at the learning rate {rate:g}: "
            f"the weights ran away, try --lr {max(rates) / 10:g}",
            positions,
        )

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """This process's share of a batch: the loss to learn from, and loss, right answers and examples, summed."""
        device = self.context.device
        on_cuda = device.type == "cuda"  # elsewhere a copy that nobody waits for may be read too early
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
            group["lr"] = rate
        self.optimiser.zero_grad()
        with self._fitting_into_memory(batch_size):
            # The mean over the whole batch, whatever share of it this process has: gradients are averaged over them.
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


def validate(module: nn.Module, val: Examples, number: int, context: DistributedContext) -> tuple[EpochMetrics, Tensor]:
    """How good the weights are now, on the validation split."""
    started = time.perf_counter()
    module.eval()
    context.share_buffers(module)  # what is scored is what is saved
    class_count = int(val.labels.max()) + 1  # every class has validation photos: `read_folder` sees to it
    logits = compute_rows(module, val, class_count, context, what=f"epoch {number}, validation").cpu()
    result = metrics.score(logits, val.labels)
    return EpochMetrics(result.loss, result.accuracy, time.perf_counter() - started), logits


def _in_parallel(module: nn.Module, batch_norm: str, context: DistributedContext) -> nn.Module:
    """The module, wrapped so that its gradients are averaged over the processes."""
    if context.count == 1:
        return module
    devices = [context.device] if context.device.type == "cuda" else None
    if batch_norm == "adapting" and devices:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # statistics of the whole batch; not there for CPUs
    return DistributedDataParallel(module, device_ids=devices)
