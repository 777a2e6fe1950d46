"""Saving, stopping and resuming a run."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from antbee.models.statedict import NO_WEIGHTS
from antbee.training.recipe import TrainingError

FORMAT = 2  # of the checkpoints; version 0.1 wrote another

# The flag that decides each value of `Checkpoint.decides`. Other values follow from these.
FLAGS = {
    "architecture": "--backbone",
    "weights": "--weights",
    "photos": "photos",
    "recipe": "--recipe",
    "crop": "--image-size",
    "fit": "--fit",
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "learning_rate": "--lr",
    "folds": "--folds",
    "balanced": "--balance",
    "mirror": "--mirror",
    "precision": "--precision",
    "select": "--select",
    "seeds": "--seeds",
    "seed": "--seed",
}


class DeferredSignals:
    """Ctrl-C (SIGINT) and SIGTERM, held back while a `deferred` block runs.

    A signal raises KeyboardInterrupt or SystemExit at the end of the block. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_deferred = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        if not self._is_deferred:
            self._stop(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that no signal interrupts: its exception is raised at the end of the block."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Raises the exception of an earlier signal again: Python drops exceptions that are raised in a destructor."""
        if self._number is not None:
            self._stop(self._number)

    def _stop(self, number: int) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


@contextlib.contextmanager
def deferring_signals() -> Iterator[DeferredSignals]:
    """Handles this process's signals during the block; Ctrl-C stays ignored if it was ignored before.

    Under torchrun SIGTERM ends the process at once: no Python handler runs while it waits in a collective operation.
    """
    signals = DeferredSignals()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield signals
        return
    terminated = signal.SIG_DFL if "LOCAL_RANK" in os.environ else signals.note
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] != signal.SIG_IGN:  # it is in a shell's background jobs
        signal.signal(signal.SIGINT, signals.note)
    signal.signal(signal.SIGTERM, terminated)
    report, sys.unraisablehook = sys.unraisablehook, _unless_stopped(sys.unraisablehook)
    try:
        yield signals
        signals.check()
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless_stopped(report: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook that reports the exceptions Python drops, but a signal's, which `DeferredSignals.check` raises again."""
    return lambda dropped: None if isinstance(dropped.exc_value, KeyboardInterrupt | SystemExit) else report(dropped)


@dataclass(frozen=True)
class Checkpoint:
    """The file that holds a run's state, and the fingerprint of the run that may resume from it.

    The checkpoint before the last one is kept too, in case the last one is damaged.
    """

    path: Path
    fingerprint: str
    decides: Mapping[str, Any] = field(default_factory=dict)  # what the fingerprint is of, to name what differs

    @property
    def previous(self) -> Path:
        """The checkpoint before the last."""
        return self.path.with_suffix(f".previous{self.path.suffix}")

    def save(self, content: Mapping[str, Any]) -> None:
        """Writes to a temporary path and renames, so that one checkpoint is always complete. Raises TrainingError."""
        temporary = self.path.with_suffix(".writing")
        run = {"format": FORMAT, "fingerprint": self.fingerprint, "decides": self.decides, **_environment()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self.path.replace(self.previous)
            torch.save({**run, **content}, temporary)
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch raises it where the disk is full
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.path} can't be written ({_reason(error)}): free some space, then resume from the checkpoint "
                "before it with --resume"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or the one before it if the last is damaged; None where there is none.

        Warns where the one before it is used, and where the thread count or torch's version changed, so that the final
        weights may differ. Raises TrainingError where it belongs to another run, or where none can be read.
        """
        paths = [path for path in (self.path, self.previous) if path.is_file()]
        contents = [content for content in map(_read_checkpoint, paths) if content is not None]
        if not paths:
            return None
        if not contents:
            raise TrainingError(f"{paths[0]} is damaged: delete it, or train without --resume")
        content = contents[0]
        if content.get("format") != FORMAT:
            raise TrainingError(f"{self.path} is of another version of antbee: train without --resume")
        if content.get("fingerprint") != self.fingerprint:
            flags = differing_flags(content.get("decides"), self.decides) or ["flags"]
            # The learning rates of all epochs, and the sizes of crops, follow from the number of epochs.
            then = " (then --weights OUTPUT/MODE --epochs N goes on from its model)" if "--epochs" in flags else ""
            raise TrainingError(
                f"{self.path} belongs to a run with other {', '.join(flags)}: repeat that run's flags{then}, or train "
                "without --resume"
            )
        if len(contents) < len(paths):
            warnings.warn(f"{self.path} is damaged: resuming from the checkpoint before it", stacklevel=2)
        for name, now in _environment().items():
            if (before := content.get(name)) != now:
                warnings.warn(
                    f"the run started with {name} {before} and resumes with {now}: its final weights may differ",
                    stacklevel=2,
                )
        return content


def differing_flags(before: Any, now: Mapping[str, Any]) -> list[str]:
    """The flags that differ between two runs; the names of the values where no flag is known to decide them."""
    names = list(dict.fromkeys(_differing(before, now)))
    if {"architecture", "weights"} & set(names):
        names = [name for name in names if name in now]  # not those within the recipe, which follows the network
    return [FLAGS[name] for name in names if name in FLAGS] or names


def _differing(before: Any, now: Any, name: str = "flags") -> Iterator[str]:
    """The names of the values that differ in nested mappings; of another recipe the recipe's name alone."""
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.get("name") == now.get("name"):
        for key in now:
            yield from _differing(before.get(key), now[key], key)
    elif before != now:
        yield name


def _environment() -> dict[str, Any]:
    """Software settings that rounding depends on."""
    return {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The content of a checkpoint; None if it is damaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, *NO_WEIGHTS):
        return None
    return content if isinstance(content, dict) else None


def _reason(error: Exception) -> str:
    """The reason of a failed write, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:100]


def check_space(output: Path, needed: int) -> None:
    """Raises TrainingError where the disk of `output` has fewer than `needed` bytes free."""
    if (free := shutil.disk_usage(output).free) < needed:
        raise TrainingError(
            f"{output} has {free / 1e6:,.0f} MB free, and models and checkpoints need "
            f"{needed / 1e6:,.0f} MB: free some space, or choose another folder with --output"
        )


def fingerprint(description: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a run's result; a run resumes only from a checkpoint with the same one."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
