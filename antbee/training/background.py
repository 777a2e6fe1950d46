"""A training in a child process: started, watched, cancelled.

Whoever starts it stays responsive and outlives its faults.
What it does is learned from what it prints and from the epochs that it appends to a file.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from antbee import errors
from antbee.errors import AntbeeError
from antbee.models.versions import OutputError, discard_run
from antbee.training.tracking import TrackerError, empty_epochs, read_epochs

LINES = 200  # of output that are kept, the last ones
LONGEST_LINE = 1_000  # characters of a line that are kept
LONGEST_READ = 100_000  # characters: a progress bar may go on that long without ending its line
GRACE = 5.0  # seconds that a training has to end after each signal
NICENESS = 10  # added to that of this process: the training takes what it leaves

Status = Literal["idle", "running", "stopping", "finished", "failed", "cancelled"]


class BackgroundError(AntbeeError):
    """A training can't be started; the message says why, and what to do."""


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained, and where to; None leaves the choice to the command `train`."""

    output: Path  # the folder that gets a model folder for each mode
    data: Path | None = None  # None: the photos of ants and bees
    weights: str | None = None  # imagenet, random or a file
    recipe: str = "fast"
    mode: str = "both"  # or "frozen", "finetune"
    epochs: int | None = None  # of each mode; None: the recipe's
    seed: int = 0


def command(request: TrainingRequest) -> list[str]:
    """The program and the arguments that start a training: this module, see `main`."""
    # Made absolute: a folder called "drawn" is not the drawn set.
    data = None if request.data is None else str(request.data.absolute())
    settings = asdict(request) | {"data": data, "output": str(request.output)}
    return [sys.executable, "-m", __name__, json.dumps(settings)]


def main() -> None:
    """What the process does: the training that the request on its command line asks for."""
    from antbee.training.context import Settings
    from antbee.training.pipeline import run

    settings = json.loads(sys.argv[1])
    run(settings.pop("data"), Settings.checked(**settings, track="jsonl"), print)


@dataclass(frozen=True)
class TrainingState:
    """A moment of the training that was started last, or of none at all."""

    status: Status = "idle"
    request: TrainingRequest | None = None
    lines: tuple[str, ...] = ()  # the last ones that it printed, errors included
    epochs: tuple[Mapping[str, Any], ...] = ()  # see `tracking.read_epochs`
    seconds: float = 0.0  # since it was started; until it ended, once it has
    error: str | None = None  # why it failed, in a sentence

    @property
    def running(self) -> bool:
        """Whether its process is still there, also on its way to an end."""
        return self.status in ("running", "stopping")


class BackgroundTraining:
    """At most one training at a time, for any number of threads to look at.

    Close it before the program ends, as `contextlib.closing` does. Where the program is killed instead, nobody reads
    what the training prints any more, and it ends with the next line that it prints: after its epoch at the latest.
    """

    def __init__(self, words: Callable[[TrainingRequest], Sequence[str]] = command, *, grace: float = GRACE) -> None:
        self._words = words
        self._grace = grace
        self._starting = threading.Lock()
        self._run: _Run | None = None
        self._closed = False

    def start(self, request: TrainingRequest) -> None:
        """Starts a training and comes back at once.

        Raises BackgroundError where one is running, where this is closed, or where no process can be started.
        """
        with self._starting:
            if self._closed:
                raise BackgroundError("no training is started any more: the program is about to end")
            if self._run is not None and self._run.is_running:
                raise BackgroundError("a training is running already: wait until it ends, or cancel it")
            try:
                empty_epochs(request.output)  # the new process is seconds away from doing so itself
                self._run = _Run(request, self._words(request), self._grace)
            except (OSError, ValueError, TrackerError) as error:  # ValueError: a null character in a path
                raise BackgroundError(f"the training can't be started: {error}") from error

    def state(self) -> TrainingState:
        """How the training that was started last is getting on; once it has ended always the same object."""
        run = self._run
        return TrainingState() if run is None else run.state()

    def cancel(self) -> None:
        """Tells the training to end and comes back at once; nothing happens where none is running.

        It leaves nothing behind: the models that were in place before it are in place after it.
        """
        if (run := self._run) is not None:
            run.cancel()

    def close(self) -> None:
        """Cancels the training and waits for its end; no other can be started."""
        with self._starting:
            self._closed = True
        if (run := self._run) is not None:
            run.cancel()
            run.wait()


class _Run:
    """A training's process, with a thread that reads what it prints."""

    def __init__(self, request: TrainingRequest, words: Sequence[str], grace: float) -> None:
        self._request = request
        self._grace = grace
        self._lines: deque[str] = deque(maxlen=LINES)
        self._changing = threading.Lock()
        self._cancelled = False
        self._end: TrainingState | None = None
        self._started = time.monotonic()
        self._process = _process(words)
        # Daemons, both threads: a program that forgot to close this must be able to end.
        self._reader = threading.Thread(target=self._follow, name="training", daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        return self._end is None and self._reader.is_alive()

    def state(self) -> TrainingState:
        return self._end or self._state("stopping" if self._cancelled else "running")

    def cancel(self) -> None:
        with self._changing:
            if self._cancelled or not self.is_running:
                return
            self._cancelled = True
        threading.Thread(target=self._stop, name="cancelling", daemon=True).start()

    def wait(self) -> None:
        self._reader.join(3 * self._grace)  # two signals, and a last breath: what survives them can't be waited for

    def _state(self, status: Status, error: str | None = None) -> TrainingState:
        with self._changing:
            lines = tuple(self._lines)
        epochs = read_epochs(self._request.output)
        return TrainingState(status, self._request, lines, epochs, time.monotonic() - self._started, error)

    def _follow(self) -> None:
        assert self._process.stdout is not None
        # Lines end at "\n" alone: after each "\r" a progress bar writes itself again.
        with TextIOWrapper(self._process.stdout, "utf-8", "replace", newline="\n") as printed:
            while piece := printed.readline(LONGEST_READ):
                line = piece.rstrip("\r\n").rpartition("\r")[2]
                with self._changing:
                    self._lines.append(line[:LONGEST_LINE])
        status = self._process.wait()
        if status == 0:
            self._end = self._state("finished")
        elif self._cancelled:
            with suppress(OutputError):  # another training has begun there
                discard_run(self._request.output)
            self._end = self._state("cancelled")
        else:
            self._end = self._state("failed", _why(status, tuple(self._lines)))

    def _stop(self) -> None:
        # train.py saves at SIGTERM and ends. Ctrl-C's SIGINT would not do: a program that a script starts with "&"
        # ignores it, and so do the processes that the program starts.
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            _send(self._process, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace)
                return


def _python_path() -> str:
    """Where the process finds antbee: beside this package, then where this process was told to look."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))


def _process(words: Sequence[str]) -> subprocess.Popen[bytes]:
    options: dict[str, Any]
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
    else:
        # A group of its own keeps the terminal's Ctrl-C from it, which is for the program that closes it. In a session
        # of its own niceness would count for nothing: Linux shares the processor evenly between sessions (sched(7)).
        options = {"process_group": 0}
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": _python_path()},
        **options,
    )
    if sys.platform != "win32":
        with suppress(ProcessLookupError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    return process


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    if sys.platform == "win32":
        process.terminate()  # in a group of its own no Ctrl-C can reach it
    elif process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _why(status: int, lines: Sequence[str]) -> str:
    """Why a training ended with that status, in a sentence: its own, where it said one."""
    if status < 0:
        return f"it was ended by signal {-status}; 9 is what a system sends that runs out of memory"
    for line in reversed(lines):
        if told := re.match(r"(?:[\w. ]+: )?error: (.+)", line):
            return told[1]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return f"it ended with status {status}; the last it said: {last}"


if __name__ == "__main__":
    errors.run(main)
