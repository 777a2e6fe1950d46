"""Training in a child process, which can be started, monitored and cancelled.

The program that starts it stays responsive, and survives its crashes. Its progress is read from its output and from the
epochs that it appends to a file.
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

LINES = 200  # the last lines of output, which are kept
LONGEST_LINE = 1_000  # characters of a line that are kept
LONGEST_READ = 100_000  # characters read at once: a progress bar does not end its line
GRACE = 5.0  # seconds between a signal and the next, stronger one
NICENESS = 10  # added to this process's: the training gets the CPU time that is left over

Status = Literal["idle", "running", "stopping", "finished", "failed", "cancelled"]


class BackgroundError(AntbeeError):
    """A training can't be started; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingRequest:
    """The settings of a training; None stands for the default of `antbee.train`."""

    output: Path  # gets a model folder for each mode
    data: Path | str | None = None  # a path, "drawn" or an address of the Hub; None: the classic ants and bees
    weights: str | None = None  # imagenet, random or a file
    recipe: str = "fast"
    mode: str = "both"  # or "frozen", "finetune"
    epochs: int | None = None  # of each mode; None: the recipe's
    seed: int = 0


def command(request: TrainingRequest) -> list[str]:
    """The command line of a training: this module as a program, and the request as JSON."""
    # An absolute path: a folder called "drawn" is not the drawn set.
    data = str(request.data.absolute()) if isinstance(request.data, Path) else request.data
    settings = asdict(request) | {"data": data, "output": str(request.output)}
    # -P: modules are not imported from the current folder, which may hold another random.py.
    return [sys.executable, "-P", "-m", __name__, json.dumps(settings)]


def main() -> None:
    """The program of the child process: trains as the JSON on its command line says, and logs epochs as JSON lines."""
    from antbee.training.context import Settings
    from antbee.training.pipeline import run

    settings = json.loads(sys.argv[1])
    run(settings.pop("data"), Settings.checked(**settings, track="jsonl"), print)


@dataclass(frozen=True)
class TrainingState:
    """A snapshot of the latest training; idle where none was started."""

    status: Status = "idle"
    request: TrainingRequest | None = None
    lines: tuple[str, ...] = ()  # the last LINES lines of stdout and stderr
    epochs: tuple[Mapping[str, Any], ...] = ()  # see `tracking.read_epochs`
    seconds: float = 0.0  # since its start, up to its end
    error: str | None = None  # the reason of a failure, in a sentence

    @property
    def running(self) -> bool:
        """Whether its process is running, also while it is stopping."""
        return self.status in ("running", "stopping")


class BackgroundTraining:
    """Runs at most one training at a time; thread-safe.

    Close it before the program ends, for example with `contextlib.closing`. If the program is killed instead, the
    training ends with the next line that it prints, after its epoch at the latest, as nothing reads its output.
    """

    def __init__(
        self, command_of: Callable[[TrainingRequest], Sequence[str]] = command, *, grace: float = GRACE
    ) -> None:
        self._command_of = command_of
        self._grace = grace
        self._starting = threading.Lock()
        self._run: _Run | None = None
        self._closed = False

    def start(self, request: TrainingRequest) -> None:
        """Starts a training and returns at once.

        Raises BackgroundError where a training is running, after `close`, or where the process can't be started.
        """
        with self._starting:
            if self._closed:
                raise BackgroundError("no training can be started: the program is shutting down")
            if self._run is not None and self._run.is_running:
                raise BackgroundError("a training is running already: wait until it ends, or cancel it")
            try:
                empty_epochs(request.output)  # the new process does so too, but only seconds later
                self._run = _Run(request, self._command_of(request), self._grace)
            except (OSError, ValueError, TrackerError) as error:  # ValueError: a null character in a path
                raise BackgroundError(f"the training can't be started: {error}") from error

    def state(self) -> TrainingState:
        """The state of the latest training; always the same object once it has ended."""
        run = self._run
        return TrainingState() if run is None else run.state()

    def cancel(self) -> None:
        """Stops the training and returns at once; does nothing where none is running.

        Its checkpoints are removed, and the models in the output folder stay as they were.
        """
        if (run := self._run) is not None:
            run.cancel()

    def close(self) -> None:
        """Cancels the training and waits for its end; no other can be started afterwards."""
        with self._starting:
            self._closed = True
        if (run := self._run) is not None:
            run.cancel()
            run.wait()


class _Run:
    """A training's process, and a thread that reads its output."""

    def __init__(self, request: TrainingRequest, arguments: Sequence[str], grace: float) -> None:
        self._request = request
        self._grace = grace
        self._lines: deque[str] = deque(maxlen=LINES)
        self._changing = threading.Lock()
        self._cancelled = False
        self._end: TrainingState | None = None
        self._started = time.monotonic()
        self._process = _process(arguments)
        # Both threads are daemons, so that a program that did not close this can end.
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
        self._reader.join(3 * self._grace)  # two signals, then time to read the last output

    def _state(self, status: Status, error: str | None = None) -> TrainingState:
        with self._changing:
            lines = tuple(self._lines)
        epochs = read_epochs(self._request.output)
        return TrainingState(status, self._request, lines, epochs, time.monotonic() - self._started, error)

    def _follow(self) -> None:
        assert self._process.stdout is not None
        # Lines end at "\n" alone: a progress bar returns to the start of its line with "\r".
        with TextIOWrapper(self._process.stdout, "utf-8", "replace", newline="\n") as stdout:
            while text := stdout.readline(LONGEST_READ):
                line = text.rstrip("\r\n").rpartition("\r")[2]
                with self._changing:
                    self._lines.append(line[:LONGEST_LINE])
        status = self._process.wait()
        if status == 0:
            self._end = self._state("finished")
        elif self._cancelled:
            with suppress(OutputError):  # another run has locked the folder
                discard_run(self._request.output)
            self._end = self._state("cancelled")
        else:
            self._end = self._state("failed", _failure_reason(status, tuple(self._lines)))

    def _stop(self) -> None:
        # Training saves a checkpoint at SIGTERM and ends. SIGINT is not enough: a program that a shell starts with "&"
        # ignores it, and so do its child processes.
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            _send(self._process, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace)
                return


def _python_path() -> str:
    """The PYTHONPATH of the process: the folder that holds this package, then this process's own."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))


def _process(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    options: dict[str, Any]
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
    else:
        # In a process group of its own it does not get the terminal's Ctrl-C: the program handles that. In a session of
        # its own its niceness would have no effect: Linux shares the CPU evenly between sessions (autogroup, sched(7)).
        options = {"process_group": 0}
    process = subprocess.Popen(
        arguments,
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
        process.terminate()  # Ctrl-C can't be sent to another process group
    elif process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _failure_reason(status: int, lines: Sequence[str]) -> str:
    """Why a training ended with that status, in a sentence: its last error message, if it printed one."""
    if status < 0:
        return f"the training was ended by signal {-status}; 9 is what a system sends that runs out of memory"
    for line in reversed(lines):
        if match := re.match(r"(?:[\w. ]+: )?error: (.+)", line):
            return match[1]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "none")
    return f"the training ended with status {status}; its last output: {last}"


if __name__ == "__main__":
    errors.run(main)
