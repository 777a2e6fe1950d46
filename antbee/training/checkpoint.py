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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from antbee.models.weights import NO_WEIGHTS
from antbee.training.recipe import TrainingError


class DeferredSignals:
    """Ctrl-C (SIGINT) and SIGTERM, held back while a `deferred` block runs.

    A signal raises KeyboardInterrupt or SystemExit, as Python does, but at the end of the block. A second signal ends
    the process at once.
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
        """A block that a signal does not interrupt: it is raised at the end of the block."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Raises the exception of a signal that came: Python drops one that is raised inside a destructor."""
        if self._number is not None:
            self._stop(self._number)

    def _stop(self, number: int) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


@contextlib.contextmanager
def deferring_signals() -> Iterator[DeferredSignals]:
    """Handles this process's signals during the block; Ctrl-C stays ignored where it was when the program started.

    Under torchrun SIGTERM ends the process at once: Python handlers don't run while it waits in a collective.
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
    """A hook for exceptions that Python drops, but for a signal's: `DeferredSignals.check` raises that again."""
    return lambda lost: None if isinstance(lost.exc_value, KeyboardInterrupt | SystemExit) else report(lost)


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run's state is saved in, with the fingerprint of the run that may resume from it.

    The checkpoint before it is kept too, in case the last one can't be read.
    """

    path: Path
    fingerprint: str

    @property
    def previous(self) -> Path:
        """The checkpoint before the last."""
        return self.path.with_suffix(f".previous{self.path.suffix}")

    def save(self, content: Mapping[str, Any]) -> None:
        """Writes to a temporary path and renames, so that one checkpoint is always complete. Raises TrainingError."""
        temporary = self.path.with_suffix(".writing")
        made_by = {"fingerprint": self.fingerprint, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self.path.replace(self.previous)
            torch.save({**made_by, **content}, temporary)
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch raises it where the disk is full
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.path} can't be written ({_reason(error)}): free some space, then go on from the checkpoint "
                "before it with --resume"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or the one before it where that can't be read; None where there is none.

        Warns where the one before it is used, and where the thread count or torch's version changed, so that the final
        weights may differ. Raises TrainingError where it is of another run, or where none can be read.
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
    """The content of a checkpoint; None where it can't be read."""
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
    """SHA-256 of everything that decides a run's result: only a run with an equal one may resume from it."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
