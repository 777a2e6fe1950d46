"""Transfer learning: one loop, and the two classic ways to use it.

`fit` knows no modes. Fine-tuning gives it the whole network and batches of images; frozen gives it the head and batches
of cached features. How long, how fast and with which crops is data: a `Recipe`.
"""

import contextlib
import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import ResNet
from tqdm import tqdm

from antbee import evaluation, model
from antbee.data import Photos, seeded_generator
from antbee.images import Augmentation, Preprocessing
from antbee.model import Precision
from antbee.resident import ResidentPhotos

# Photos at a time, where nothing is learned: a CPU's caches hold no more, a GPU is idle with less.
EVALUATION_BATCH = {"cpu": 16, "cuda": 256}


class TrainingError(RuntimeError):
    """Training can't start or go on; the message says why and what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# Recipes


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the weights of one mode learn, by stochastic gradient descent."""

    epochs: int
    batch_size: int
    learning_rate: float  # at its highest
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay: Literal["step", "cosine"] = "cosine"
    warmup: float = 0.0  # epochs in which the rate climbs to its highest; cosine only
    folds: int = 0  # parts of the training photos, each predicted by a training on the others to calibrate; 0: none


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a run goes, besides the photos, the starting weights and the seed."""

    name: str
    frozen: Schedule
    finetune: Schedule
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    smallest_crop: float = 0.08  # least share of a photo's area that a training crop keeps
    shorter_side: int | None = None  # pixels to which larger photos are shrunk before training crops are cut from them
    finetune_sizes: tuple[int, ...] = ()  # pixels a side of training crops, each for a like share of the epochs
    cached_features: bool = False  # frozen: evaluation crops go through the backbone once, not in every epoch
    head_first: bool = False  # finetune: starts from the frozen mode's trained head instead of a new one
    batch_norm: Literal["fixed", "adapting"] = "fixed"  # BatchNorm's running statistics while training
    channels_last: bool = False  # memory layout: the faster one on CPUs and on tensor cores, equal but for rounding
    precision: Literal["auto"] | Precision = (
        "float32"  # of learning, calibrating's included; what is measured is float32
    )
    balanced: bool = False  # the loss weighs every class the same, however many photos it has

    def schedule(self, mode: str) -> Schedule:
        """The schedule of a mode, "frozen" or "finetune"."""
        return self.frozen if mode == "frozen" else self.finetune

    @property
    def layout(self) -> torch.memory_format:
        """How images and weights lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def augmentation(self, mode: str) -> Augmentation | None:
        """The random crops a mode learns from, in fine-tuning of a size that may grow; None: the evaluation's crop."""
        if mode == "frozen" and self.cached_features:
            return None
        sizes = (self.finetune_sizes if mode == "finetune" else ()) or (self.preprocessing.crop,)
        epochs = self.schedule(mode).epochs
        return Augmentation(
            smallest_crop=self.smallest_crop,
            sizes=tuple(sizes[math.ceil(epoch * len(sizes) / epochs) - 1] for epoch in range(1, epochs + 1)),
            shorter_side=self.shorter_side,
        )

    def flat(self, mode: str) -> dict[str, Any]:
        """One mode's part of the recipe, by name: what a config or a model card tells of it."""
        settings: dict[str, Any] = {"name": self.name, **asdict(self.schedule(mode))}
        if (augmentation := self.augmentation(mode)) is not None:
            settings["crop_sizes"] = ", ".join(map(str, dict.fromkeys(augmentation.sizes)))
            settings["smallest_crop"] = augmentation.smallest_crop
            settings["shorter_side"] = augmentation.shorter_side
        own = {"frozen": "cached_features", "finetune": "head_first"}[mode]
        common = ("batch_norm", "channels_last", "precision", "balanced")
        return settings | {name: getattr(self, name) for name in (own, *common)}


# The tutorial's two runs to the letter: https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
# Half and a quarter per channel are its normalisation, not the one ImageNet's weights were trained with.
TUTORIAL = Recipe(
    name="tutorial",
    frozen=Schedule(epochs=25, batch_size=4, learning_rate=0.001, momentum=0.9, decay="step"),
    finetune=Schedule(epochs=25, batch_size=4, learning_rate=0.001, decay="step"),
    preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    batch_norm="adapting",
)
# Head first, then everything: a new head's first, random gradients would otherwise spoil the features it is given.
# Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features", arXiv 2202.10054.
FAST = Recipe(
    name="fast",
    frozen=Schedule(epochs=40, batch_size=32, learning_rate=0.003, momentum=0.9, weight_decay=0.05, folds=5),
    finetune=Schedule(
        epochs=3, batch_size=16, learning_rate=0.0005, momentum=0.9, weight_decay=1e-4, warmup=1.0, folds=2
    ),
    finetune_sizes=(128, 160, 224),
    smallest_crop=0.35,
    shorter_side=448,
    cached_features=True,
    head_first=True,
    channels_last=True,
    precision="auto",
)
# Random weights bring neither BatchNorm statistics worth keeping nor features that larger steps could spoil.
FAST_FROM_RANDOM = replace(FAST, batch_norm="adapting", finetune=replace(FAST.finetune, epochs=5, learning_rate=0.003))
RECIPES = {recipe.name: recipe for recipe in (FAST, TUTORIAL)}
RECIPES_FROM_RANDOM = {recipe.name: recipe for recipe in (FAST_FROM_RANDOM, TUTORIAL)}


def learning_rate(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """The rate of a step counted from 0: a function of its place alone, so that a resumed run needs no scheduler state.

    "step" divides by ten after every seventh epoch; "cosine" climbs to the highest rate, then falls along half a
    cosine to zero (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    if schedule.decay == "step":
        return schedule.learning_rate * 0.1 ** (step // steps_per_epoch // 7)
    warmup, steps = schedule.warmup * steps_per_epoch, schedule.epochs * steps_per_epoch
    if step < warmup:
        return schedule.learning_rate * (step + 1) / (warmup + 1)
    return schedule.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


# ---------------------------------------------------------------------------------------------------------------------
# What a run leaves behind


@dataclass(frozen=True)
class Phase:
    """One pass over a split."""

    loss: float  # mean cross-entropy, in nats
    accuracy: float  # 0..1; in training measured while the weights move, on the crops that are learned from
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch: learning, then looking how good it got."""

    number: int  # from 1
    learning_rate: float  # the highest of its steps
    train: Phase
    val: Phase

    def to_record(self) -> dict[str, float]:
        """All of it by name: epoch, learning_rate, train_loss, val_accuracy, ..."""
        return (
            {"epoch": self.number, "learning_rate": self.learning_rate}
            | {f"train_{name}": value for name, value in asdict(self.train).items()}
            | {f"val_{name}": value for name, value in asdict(self.val).items()}
        )


@dataclass(frozen=True)
class History:
    """Every epoch of a run, in order."""

    epochs: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch:
        """The epoch of the best validation accuracy, ties broken by the lower loss."""
        return max(self.epochs, key=lambda epoch: (epoch.val.accuracy, -epoch.val.loss))

    @property
    def last(self) -> Epoch:
        """The last epoch: what a run would give that never looked at the validation photos."""
        return self.epochs[-1]

    @property
    def seconds(self) -> float:
        """Time spent learning and evaluating."""
        return sum(epoch.train.seconds + epoch.val.seconds for epoch in self.epochs)

    def to_records(self) -> list[dict[str, float]]:
        """The epochs' records: what history.json holds."""
        return [epoch.to_record() for epoch in self.epochs]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> "History":
        """The history that `to_records` took apart."""

        def phase(record: Mapping[str, Any], split: str) -> Phase:
            return Phase(record[f"{split}_loss"], record[f"{split}_accuracy"], record[f"{split}_seconds"])

        return cls(tuple(Epoch(r["epoch"], r["learning_rate"], phase(r, "train"), phase(r, "val")) for r in records))


# ---------------------------------------------------------------------------------------------------------------------
# Several processes


@dataclass(frozen=True)
class Process:
    """This process among those that train together: alone by default, one of several under torchrun."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    local_rank: int = 0  # among the processes on this machine
    count: int = 1
    local_count: int = 1  # processes on this machine

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, positions: Tensor) -> Tensor:
        """This process's part of a batch of positions: every count-th."""
        return positions[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in each of them."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """What the first process has, in every process: they need not see the same disk."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every process the first one's buffers: BatchNorm's statistics of different shares differ."""
        if self.count > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets the first process through, then one on every machine, then the rest.

        Whoever downloads or draws comes first, and those who come later find the files, on a shared disk or on none.
        """
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        self._wait(turn)
        yield
        self._wait(2 - turn)

    def _wait(self, times: int) -> None:
        for _ in range(times if self.count > 1 else 0):
            torch.distributed.barrier()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Process]:
    """This process, joined with the others that torchrun started, if it did."""
    if "LOCAL_RANK" not in os.environ:
        yield Process(device)
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        yield Process(device, rank, local_rank, count, int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        torch.distributed.destroy_process_group()


# ---------------------------------------------------------------------------------------------------------------------
# Examples to learn from


class Examples(Protocol):
    """What `fit` learns from: labelled photos, or their cached features."""

    @property
    def labels(self) -> Tensor:
        """The class index of each: int64 (N,)."""
        ...

    def __len__(self) -> int: ...

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 inputs (B, ...) and int64 labels (B,)."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of photos and their labels: what a head learns from, the same in every epoch."""

    features: Tensor  # float32 (N, C)
    labels: Tensor  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,)."""
        return [(self.features[batch.to(self.features.device)], self.labels[batch]) for batch in positions]

    def part(self, positions: Tensor) -> "Features":
        """Some of them, by position."""
        return Features(self.features[positions.to(self.features.device)], self.labels[positions])


class CachedFeatures:
    """The backbone's features of every photo, computed when they are first asked for.

    A frozen backbone would compute the same ones again in every epoch; processes compute shards and exchange them.
    """

    def __init__(self, network: ResNet, photos: Photos | ResidentPhotos, *, process: Process, what: str) -> None:
        self.network = network
        self.photos = photos
        self.process = process
        self.what = what
        self.labels = photos.labels  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def computed(self) -> Features:
        """All of them, on the process's device."""
        return features_of(self.network, self.photos, self.process, what=self.what)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,); the same in every epoch."""
        return self.computed.batches(positions)


def features_of(
    network: ResNet, photos: Examples, process: Process, *, what: str, precision: Precision = "float32"
) -> Features:
    """The backbone's features of all photos, computed now, on the process's device."""
    folded = model.folded(network)

    def features(images: Tensor) -> Tensor:
        with model.multiplying_in(precision, process.device):
            return model.pooled(folded, model.feature_map(folded, images))

    return Features(compute_rows(features, photos, network.fc.in_features, process, what=what), photos.labels)


def evaluation_batch(device: torch.device) -> int:
    """Photos that a device computes at a time, where nothing is learned."""
    return EVALUATION_BATCH.get(device.type, 64)


def compute_rows(
    function: Callable[[Tensor], Tensor],
    examples: Examples,
    width: int,
    process: Process,
    *,
    epoch: int = 0,
    what: str = "",
) -> Tensor:
    """`function` of every example, in order: float32 (N, width).

    Rows are written by position, so that no number of processes counts an example twice.
    """
    rows = torch.zeros(len(examples), width, device=process.device)
    batches = torch.arange(len(examples)).split(evaluation_batch(process.device) * process.count)
    mine = [share for batch in batches if len(share := process.share(batch))]
    with torch.inference_mode():
        for share, (inputs, _) in zip(
            mine, shown(examples.batches(mine, epoch), what, len(mine), process), strict=True
        ):
            rows[share.to(process.device)] = function(inputs.to(process.device)).float()
    return process.total(rows)


Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, total: int, process: Process) -> Iterable[Item]:
    """The items, under a progress bar where somebody watches; short work shows none."""
    silent = None if process.is_first else True  # None: only where the error stream is no terminal
    return tqdm(items, what, total, leave=False, delay=0.5, disable=silent)


# ---------------------------------------------------------------------------------------------------------------------
# The loop


@dataclass(frozen=True)
class Checkpoint:
    """Where a run in progress is kept, and what it must be a run of to be taken up again."""

    path: Path
    fingerprint: str

    def save(self, content: Mapping[str, Any]) -> None:
        """Writes beside and renames: an interruption leaves the older checkpoint whole."""
        beside = self.path.with_suffix(".writing")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"fingerprint": self.fingerprint, **content}, beside)
        beside.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """What the last finished epoch left, or None; raises TrainingError where it is of another run."""
        if not self.path.is_file():
            return None
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, *model.NO_WEIGHTS) as error:
            raise TrainingError(f"{self.path} is damaged: delete it, or train without --resume") from error
        if content.get("fingerprint") != self.fingerprint:
            raise TrainingError(
                f"{self.path} is of a run with other photos, weights, recipe or seed: "
                "repeat that run's flags, or train without --resume"
            )
        return content

    def remove(self) -> None:
        """Forgets the run: it is finished, or starts anew."""
        self.path.unlink(missing_ok=True)


def fingerprint(description: Mapping[str, Any]) -> str:
    """SHA-256 of all that decides a run's result: equal descriptions may be resumed, others not."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


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
class Fitted:
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
    process: Process = Process(),
    checkpoint: Checkpoint | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Trains the weights of `module` that require gradients, and leaves it with those of the epoch to keep.

    Calls `report` after every epoch. With a `checkpoint`, a run that was interrupted goes on after its last finished
    epoch and ends as if it had never been. Raises TrainingError where the loss is no number any more.
    """
    learning = _Learning(module, train, schedule, batch_norm, precision, compiled, class_weights, seed, process)
    history, best = History(), _Best({}, torch.empty(0))
    saved = process.from_first(checkpoint.load() if checkpoint is not None and process.is_first else None)
    if saved is not None:
        module.load_state_dict(saved["module"])
        learning.optimiser.load_state_dict(saved["optimiser"])
        history, best = History.from_records(saved["history"]), _Best(**saved["best"])

    for number in range(len(history.epochs) + 1, schedule.epochs + 1):
        rate, learned = learning.epoch(number)
        looked, val_logits = _look(module, val, number, process)
        history = History((*history.epochs, Epoch(number, rate, learned, looked)))
        if keep == "last" or history.best.number == number:
            best = _Best(copied_state(module), val_logits)
        if checkpoint is not None and process.is_first:
            state = {
                "module": module.state_dict(),
                "optimiser": learning.optimiser.state_dict(),
                "best": vars(best),
                "history": history.to_records(),
            }
            checkpoint.save(state)
        report(history.last)

    module.load_state_dict(best.state)
    return Fitted(history, history.last if keep == "last" else history.best, best.val_logits)


def learn(
    module: nn.Module,
    train: Examples,
    schedule: Schedule,
    *,
    batch_norm: str = "fixed",
    precision: Precision = "float32",
    class_weights: Tensor | None = None,
    seed: int = 0,
    process: Process = Process(),
    until: int | None = None,
) -> None:
    """The same training without looking, to the epoch `until` or to the last; leaves `module` in evaluation mode."""
    learning = _Learning(module, train, schedule, batch_norm, precision, False, class_weights, seed, process)
    for number in range(1, (until or schedule.epochs) + 1):
        learning.epoch(number)
    module.eval()
    process.share_buffers(module)


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
        process: Process,
    ) -> None:
        smallest = len(train) // math.ceil(len(train) / schedule.batch_size)  # see `shuffled_batches`
        if smallest < process.count:
            raise TrainingError(
                f"batches of {schedule.batch_size} can't be shared by {process.count} processes: "
                "raise --batch-size, or start fewer processes"
            )
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(
            weights, lr=schedule.learning_rate, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )
        self.learner = _in_parallel(module, batch_norm, process)
        if compiled:
            # Around the module: what is measured and saved stays as it is.
            self.learner = cast(nn.Module, torch.compile(self.learner))
        self.is_head = isinstance(module, nn.Linear)
        self.train = train
        self.schedule = schedule
        self.batch_norm = batch_norm
        self.multiplying = model.multiplying_in(precision, process.device)
        self.class_weights = None if class_weights is None else class_weights.to(process.device)
        self.seed = seed
        self.process = process

    def epoch(self, number: int) -> tuple[float, Phase]:
        """One epoch of gradient steps: its highest learning rate, and what was seen on the way."""
        started = time.perf_counter()
        set_learning(self.learner, self.batch_norm)
        schedule, process = self.schedule, self.process
        batches = shuffled_batches(len(self.train), schedule.batch_size, self.seed, number)
        rates = [learning_rate(schedule, (number - 1) * len(batches) + i, len(batches)) for i in range(len(batches))]
        examples = self.train.batches([process.share(batch) for batch in batches], number)
        totals = torch.zeros(3, device=process.device)  # loss, right answers, examples: summed there, read once
        steps = zip(
            batches, rates, shown(examples, f"epoch {number} of {schedule.epochs}", len(batches), process), strict=True
        )
        with threads(1 if self.is_head else torch.get_num_threads()):
            for batch, rate, (inputs, labels) in steps:
                totals += self._step(inputs, labels, rate, len(batch))
        loss_sum, correct_sum, count = process.total(totals).tolist()
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is {loss_sum} in epoch {number}: the weights ran away, try --lr {max(rates) / 10:g}"
            )
        return max(rates), Phase(loss_sum / count, correct_sum / count, time.perf_counter() - started)

    def _step(self, inputs: Tensor, labels: Tensor, rate: float, batch_size: int) -> Tensor:
        """One gradient step on this process's share of a batch: its loss, right answers and examples, summed."""
        device = self.process.device
        on_cuda = device.type == "cuda"  # elsewhere a copy that nobody waits for may be read too early
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        labels = labels.to(device, non_blocking=on_cuda)
        with self.multiplying:
            logits = self.learner(inputs.to(device, non_blocking=on_cuda)).float()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        weighted = (
            loss
            if self.class_weights is None
            else functional.cross_entropy(logits, labels, self.class_weights, reduction="sum")
        )
        self.optimiser.zero_grad()
        # The mean over the whole batch, whatever share of it this process has: gradients are averaged over processes.
        (weighted * self.process.count / batch_size).backward()
        self.optimiser.step()
        correct = (logits.detach().argmax(1) == labels).sum(dtype=loss.dtype)
        return torch.stack([loss.detach(), correct, torch.full_like(correct, len(labels))])


def balancing_weights(labels: Tensor) -> Tensor:
    """A weight for each class, by which all weigh the same: N / (classes * photos of the class), float32 (classes,).

    Their mean over the photos is 1, so that the learning rate need not change. The "balanced" weights of
    https://scikit-learn.org/stable/modules/generated/sklearn.utils.class_weight.compute_class_weight.html
    """
    counts = torch.bincount(labels)
    return len(labels) / (len(counts) * counts.float())


def _look(module: nn.Module, val: Examples, number: int, process: Process) -> tuple[Phase, Tensor]:
    """How good the weights are now, on the validation split."""
    started = time.perf_counter()
    module.eval()
    process.share_buffers(module)  # what is scored is what is saved
    class_count = int(val.labels.max()) + 1  # every class has validation photos: `read_folder` sees to it
    logits = compute_rows(module, val, class_count, process, what=f"epoch {number}, validation").cpu()
    result = evaluation.score(logits, val.labels)
    return Phase(result.loss, result.accuracy, time.perf_counter() - started), logits


def _in_parallel(module: nn.Module, batch_norm: str, process: Process) -> nn.Module:
    """The module, wrapped so that its gradients are averaged over the processes."""
    if process.count == 1:
        return module
    devices = [process.device] if process.device.type == "cuda" else None
    if batch_norm == "adapting" and devices:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # statistics of the whole batch; not there for CPUs
    return DistributedDataParallel(module, device_ids=devices)


# ---------------------------------------------------------------------------------------------------------------------
# The two modes


@dataclass(frozen=True)
class Run:
    """What both modes have in common: the recipe, the photos, the seed, and where it runs."""

    recipe: Recipe
    train: Photos | ResidentPhotos
    val: Photos | ResidentPhotos
    seed: int = 0
    process: Process = Process()
    keep: Literal["best", "last"] = "best"  # the epoch whose weights are kept, by the validation photos or by none
    compiled: bool = False  # torch.compile for whole networks: minutes at first, faster steps then on some GPUs
    report: Callable[[Epoch], None] = lambda epoch: None


def cached_features(network: ResNet, run: Run) -> tuple[CachedFeatures, CachedFeatures]:
    """What a head on a backbone that stays as it is learns from, and what it is measured on."""
    return (
        CachedFeatures(network, run.train, process=run.process, what="training features"),
        CachedFeatures(network, run.val, process=run.process, what="validation features"),
    )


def train_frozen(network: ResNet, run: Run, checkpoint: Checkpoint | None = None) -> Fitted:
    """The backbone is a fixed feature extractor: only the head learns.

    With cached features every backbone tensor is byte-equal before and after. Without them BatchNorm does what the
    recipe says: "adapting" replaces the backbone's statistics, as the tutorial does.
    """
    model.freeze_backbone(network)
    if not run.recipe.cached_features:
        return _fit_mode(network, run.train, run.val, "frozen", run, checkpoint)
    return train_head(network.fc, *cached_features(network, run), run, checkpoint)


def train_head(
    head: nn.Linear, train: Examples, val: Examples, run: Run, checkpoint: Checkpoint | None = None
) -> Fitted:
    """The same from features that are there already, see `cached_features`."""
    return _fit_mode(head, train, val, "frozen", run, checkpoint)


def train_finetune(network: ResNet, run: Run, checkpoint: Checkpoint | None = None) -> Fitted:
    """Every weight learns, from wherever `network` stands."""
    model.unfreeze(network)
    return _fit_mode(network, run.train, run.val, "finetune", run, checkpoint)


def _fit_mode(
    module: nn.Module, train: Examples, val: Examples, mode: str, run: Run, checkpoint: Checkpoint | None
) -> Fitted:
    return fit(
        module,
        train,
        val,
        run.recipe.schedule(mode),
        compiled=run.compiled and isinstance(module, ResNet),
        keep=run.keep,
        checkpoint=checkpoint,
        report=run.report,
        **_terms(module, train.labels, run.recipe, run.seed, run.process),
    )


def learn_mode(
    module: nn.Module,
    train: Examples,
    mode: str,
    recipe: Recipe,
    *,
    seed: int,
    process: Process,
    until: int | None = None,
) -> None:
    """Trains a head or a whole network as a mode does, without looking; see `learn`."""
    terms = _terms(module, train.labels, recipe, seed, process)
    learn(module, train, recipe.schedule(mode), until=until, **terms)


def _terms(module: nn.Module, labels: Tensor, recipe: Recipe, seed: int, process: Process) -> dict[str, Any]:
    """On what terms a recipe lets a module learn."""
    whole = isinstance(module, ResNet)  # not the head alone, which is too small to be worth lower precision
    return {
        "batch_norm": recipe.batch_norm,
        "precision": model.choose_precision(recipe.precision, process.device) if whole else "float32",
        "class_weights": balancing_weights(labels) if recipe.balanced else None,
        "seed": seed,
        "process": process,
    }
