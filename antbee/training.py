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
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, Protocol, TypeVar, cast

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


SAVE_EVERY = 60.0  # seconds between checkpoints in the middle of an epoch
LOOK_EVERY = 10  # steps between two looks at the loss, on devices that each look would keep waiting


class TrainingError(RuntimeError):
    """Training can't start or go on; the message says why and what to do."""


class DivergedError(TrainingError):
    """The loss is no number any more: the weights ran away, or a photo holds what no photo should."""

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = tuple(positions)  # of the examples in the batch that it was seen at


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
    try:
        store, rank, count = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun may keep its store when it starts lost processes anew: without a part of their own they would meet
        # the addresses of those that are gone.
        store = torch.distributed.PrefixStore(f"start {_restarts()}", store)  # type: ignore[attr-defined]
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
        yield Process(device, rank, local_rank, count, int(os.environ["LOCAL_WORLD_SIZE"]))
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower():
            raise TrainingError(
                "another process of this run was lost: start it again with --resume, or give torchrun --max-restarts"
            ) from error
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def is_restarted() -> bool:
    """Whether torchrun has started these processes anew, after it lost one of them (`--max-restarts`)."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


# ---------------------------------------------------------------------------------------------------------------------
# Asked to stop


class Stopping:
    """Whether somebody asked this process to stop, by Ctrl-C (SIGINT) or by SIGTERM.

    A signal raises what Python raises at it, KeyboardInterrupt or SystemExit, but never in the middle of a `whole`
    block. A second one ends the process at once.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_whole = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        if not self._is_whole:
            self._stop(number)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """A block that a signal does not break: it is raised at the block's end."""
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False
        self.check()

    def check(self) -> None:
        """Raises what a signal raises, if one came: Python itself loses an exception that it meets in a destructor."""
        if self._number is not None:
            self._stop(self._number)

    def _stop(self, number: int) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


@contextlib.contextmanager
def stopping_at_signals() -> Iterator[Stopping]:
    """What notes this process's signals during the block; Ctrl-C stays ignored where it was when the program started.

    Under torchrun SIGTERM ends it at once: a process that waits for another in a collective hears of no Python handler.
    """
    stopping = Stopping()
    terminated = signal.SIG_DFL if "LOCAL_RANK" in os.environ else stopping.note
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] != signal.SIG_IGN:  # else a script's training in the background would end with another's
        signal.signal(signal.SIGINT, stopping.note)
    signal.signal(signal.SIGTERM, terminated)
    report, sys.unraisablehook = sys.unraisablehook, _unless_stopped(sys.unraisablehook)
    try:
        yield stopping
        stopping.check()
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless_stopped(report: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What reports the exceptions that Python loses, but for those of a signal, which `Stopping.check` raises again."""
    return lambda lost: None if isinstance(lost.exc_value, KeyboardInterrupt | SystemExit) else report(lost)


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
            rows[share.to(process.device)] = _in_parts(function, inputs, process.device).float()
    return process.total(rows)


def _in_parts(function: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device) -> Tensor:
    """`function` of a batch, in halves of it where the whole does not fit into the device's memory."""
    try:
        return function(inputs.to(device))
    except (RuntimeError, MemoryError) as error:
        if len(inputs) < 2 or not _is_out_of_memory(error):
            raise
    # Out here, where the exception keeps nothing of the whole in memory any more.
    return torch.cat([_in_parts(function, half, device) for half in inputs.tensor_split(2)])


def _is_out_of_memory(error: BaseException) -> bool:
    # On CPUs torch knows no exception of its own for it, but says so.
    said = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, total: int, process: Process) -> Iterable[Item]:
    """The items, under a progress bar where somebody watches; short work shows none."""
    silent = None if process.is_first else True  # None: only where the error stream is no terminal
    return tqdm(items, what, total, leave=False, delay=0.5, disable=silent)


# ---------------------------------------------------------------------------------------------------------------------
# The loop


@dataclass(frozen=True)
class Checkpoint:
    """Where a run in progress is kept, and what it must be a run of to be taken up again.

    The one before the last is kept too, in case that the last can't be read.
    """

    path: Path
    fingerprint: str

    @property
    def previous(self) -> Path:
        """The one before the last."""
        return self.path.with_suffix(f".previous{self.path.suffix}")

    def save(self, content: Mapping[str, Any]) -> None:
        """Writes beside and renames: at any moment one checkpoint is whole. Raises TrainingError if it can't."""
        beside = self.path.with_suffix(".writing")
        made_by = {"fingerprint": self.fingerprint, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self.path.replace(self.previous)
            torch.save({**made_by, **content}, beside)
            beside.replace(self.path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's own word for a disk that is full
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.path} can't be written ({_reason(error)}): free some space, then go on from the checkpoint "
                "before it with --resume"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or before the last where that can't be read; None where nothing was.

        Warns where the one before it is taken, and where the run ends with other bytes than it would have. Raises
        TrainingError where it is of another run, or where none can be read.
        """
        there = [path for path in (self.path, self.previous) if path.is_file()]
        contents = [content for content in map(_read_checkpoint, there) if content is not None]
        if not there:
            return None
        if not contents:
            raise TrainingError(f"{there[0]} is damaged: delete it, or train without --resume")
        content = contents[0]
        if content.get("fingerprint") != self.fingerprint:
            raise TrainingError(
                f"{self.path} is of a run with other photos, weights, recipe or seed: "
                "repeat that run's flags, or train without --resume"
            )
        if len(contents) < len(there):
            warnings.warn(f"{self.path} is damaged: going on from the checkpoint before it", stacklevel=2)
        for what, now in (("threads", torch.get_num_threads()), ("torch", str(torch.__version__))):
            if content.get(what) != now:
                then = content.get(what)
                warnings.warn(
                    f"the run began with {what} {then}, and goes on with {now}: its weights may end differently",
                    stacklevel=2,
                )
        return content

    def remove(self) -> None:
        """Forgets the run: it is finished, or starts anew."""
        for path in (self.path, self.previous, self.path.with_suffix(".writing")):
            path.unlink(missing_ok=True)


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where it can't be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, *model.NO_WEIGHTS):
        return None
    return content if isinstance(content, dict) else None


def _reason(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100]


def check_space(output: Path, needed: int) -> None:
    """Raises TrainingError where a folder's disk has less free than so many bytes."""
    if (free := shutil.disk_usage(output).free) < needed:
        raise TrainingError(
            f"{output} has {free / 1e6:,.0f} MB free, and the models and what a run keeps to go on from need "
            f"{needed / 1e6:,.0f} MB: free some space, or choose another folder with --output"
        )


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
    stopping: Stopping | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Trains the weights of `module` that require gradients, and leaves it with those of the epoch to keep.

    Calls `report` after every epoch. With a `checkpoint`, a run that was interrupted goes on after its last saved step
    and ends as if it had never been: it is saved after every epoch, every SAVE_EVERY seconds, and when it is stopped.
    Raises TrainingError where a checkpoint can't be written, and DivergedError where the loss is no number any more.
    """
    stopping = stopping or Stopping()
    learning = _Learning(
        module, train, schedule, batch_norm, precision, compiled, class_weights, seed, process, stopping
    )
    run = _Fitting(module, learning, checkpoint)
    run.take_up()

    try:
        while run.progress.epoch <= schedule.epochs:
            learned = learning.epoch(run.progress, run.save_in_time)
            looked, val_logits = _look(module, val, run.progress.epoch, process)
            if not math.isfinite(looked.loss):
                raise learning.diverged(looked.loss, run.progress, ())
            with stopping.whole():
                run.end_epoch(learned, looked, val_logits, keep)
                run.save()
            report(run.history.last)
    except (KeyboardInterrupt, SystemExit):
        # Several processes stop at different steps: there the last epoch's end is what they go on from.
        if process.count == 1:
            run.save()
        raise

    history = run.history
    module.load_state_dict(run.best.state)
    return Fitted(history, history.last if keep == "last" else history.best, run.best.val_logits)


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
        self.checkpoint = checkpoint if learning.process.is_first else None
        self.progress = _Progress()
        self.history = History()
        self.best = _Best({}, torch.empty(0))
        self._saved = time.monotonic()

    def take_up(self) -> None:
        """Goes on where a checkpoint says that the run was."""
        saved = self.learning.process.from_first(self.checkpoint.load() if self.checkpoint is not None else None)
        if saved is None:
            return
        self.module.load_state_dict(saved["module"])
        self.learning.optimiser.load_state_dict(saved["optimiser"])
        self.history, self.best = History.from_records(saved["history"]), _Best(**saved["best"])
        self.progress = _Progress(**saved["progress"])

    def end_epoch(self, learned: Phase, looked: Phase, val_logits: Tensor, keep: Literal["best", "last"]) -> None:
        """The epoch under way is over: the next one begins."""
        number = self.progress.epoch
        rate = max(self.learning.rates(number))
        self.history = History((*self.history.epochs, Epoch(number, rate, learned, looked)))
        if keep == "last" or self.history.best.number == number:
            self.best = _Best(copied_state(self.module), val_logits)
        self.progress = _Progress(number + 1)

    def save_in_time(self) -> None:
        """Saves in the middle of a long epoch."""
        if self.learning.process.count == 1 and time.monotonic() - self._saved > SAVE_EVERY:
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
    learning = _Learning(
        module, train, schedule, batch_norm, precision, False, class_weights, seed, process, Stopping()
    )
    for number in range(1, (until or schedule.epochs) + 1):
        learning.epoch(_Progress(number))
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
        stopping: Stopping,
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
        self.stopping = stopping

    def rates(self, number: int) -> list[float]:
        """The learning rate of every step of an epoch."""
        steps = math.ceil(len(self.train) / self.schedule.batch_size)
        return [learning_rate(self.schedule, (number - 1) * steps + step, steps) for step in range(steps)]

    def epoch(self, progress: _Progress, after_step: Callable[[], None] = lambda: None) -> Phase:
        """The steps of the epoch under way that are left, each of which moves `progress` on; what was seen of all."""
        number, started = progress.epoch, time.perf_counter() - progress.seconds
        set_learning(self.learner, self.batch_norm)
        process = self.process
        batches = shuffled_batches(len(self.train), self.schedule.batch_size, self.seed, number)
        left = range(progress.steps, len(batches))
        rates = self.rates(number)
        examples = self.train.batches([process.share(batches[step]) for step in left], number)
        progress.totals = progress.totals.to(process.device)  # summed there, read once
        on_cpu = process.device.type == "cpu"
        with threads(1 if self.is_head else torch.get_num_threads()):
            what = f"epoch {number} of {self.schedule.epochs}"
            for step, (inputs, labels) in zip(left, shown(examples, what, len(left), process), strict=True):
                with self.stopping.whole():
                    loss, seen = self._forward(inputs, labels)
                    if (on_cpu or step % LOOK_EVERY == 0 or step == left[-1]) and not math.isfinite(
                        value := loss.item()
                    ):
                        raise self.diverged(value, progress, process.share(batches[step]).tolist())
                    self._backward(loss, rates[step], len(batches[step]))
                    progress.totals += seen
                    progress.steps, progress.seconds = step + 1, time.perf_counter() - started
                after_step()
        loss_sum, correct_sum, count = process.total(progress.totals.clone()).tolist()
        return Phase(loss_sum / count, correct_sum / count, time.perf_counter() - started)

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
        device = self.process.device
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
            (loss * self.process.count / batch_size).backward()
        self.optimiser.step()

    @contextlib.contextmanager
    def _fitting_into_memory(self, count: int) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise TrainingError(
                f"a batch of {count} doesn't fit into the memory of {self.process.device}: "
                f"try --batch-size {max(1, count // 2)}"
            ) from error


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
    stopping: Stopping = field(default_factory=Stopping)  # what notes that somebody wants it to stop
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
        stopping=run.stopping,
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
