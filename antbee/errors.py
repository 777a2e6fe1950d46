"""The base exceptions of antbee, and how its commands end: with an exit status and an error message of one line.

Every exception that antbee raises on purpose is an AntbeeError. The modules that raise them derive their own, such as
DataError for data folders and photos. Messages say what came, what was expected and what to do next.

exit status   raised by the command
0             nothing: success
1             AntbeeError, OSError, MemoryError: a failure that may not occur again, such as a full disk, a network
              error or a training that diverged
2             InputError, or argparse for wrong flags: bad input, which fails again unless it is changed
130, 143      KeyboardInterrupt (Ctrl-C, SIGINT), or the signal SIGTERM
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from antbee.text import one_line

LONGEST = 2000  # characters of a message


class AntbeeError(Exception):
    """An operation failed. Base class of all exceptions that antbee raises on purpose.

    `exit_status` is the status with which a command ends; subclasses may set another one.
    """

    exit_status = 1


class InputError(AntbeeError, ValueError):
    """An argument, a file or a folder can't be used. Also a ValueError."""

    exit_status = 2


def run(main: Callable[[], None], *, stopped: str = "stopped") -> None:
    """Runs the `main` of a command. If it fails, prints one line to stderr and exits with the status of the error.

    Exceptions other than AntbeeError, OSError and MemoryError are bugs: they pass, and Python prints the traceback.
    `stopped` is the line that is printed at Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names need not be Unicode
    signal.signal(signal.SIGTERM, _end_at_signal)
    # Pillow warns of large and damaged photos; antbee.data.images raises errors for them, which name the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.formatwarning = _format_warning
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except MemoryError as error:
        _end(1, error if str(error) else MemoryError("there is not enough memory: close other programs"))
    except OSError as error:
        _end(1, error)
    except AntbeeError as error:
        _end(error.exit_status, error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at exit, Python would print the SystemExit


@contextmanager
def importing() -> Iterator[None]:
    """For the imports of a command, which take seconds: Ctrl-C and SIGTERM end the process at once, with their status.

    An exception would not do, as some libraries drop exceptions while they are imported.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as SIGINT is in a shell's background jobs
            signal.signal(number, _exit_at_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_at_signal(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        print("\nstopped", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _format_warning(message: Warning | str, *args: object, **kwargs: object) -> str:
    # Python's format, with the line of source code, looks like a bug.
    return f"warning: {one_line(str(message), longest=LONGEST)}\n"


def _end_at_signal(number: int, frame: FrameType | None) -> None:
    # An exception, so that files are closed and temporary files removed.
    sys.exit(128 + number)


def _end(status: int, error: Exception) -> None:
    print(f"error: {one_line(str(error), longest=LONGEST)}", file=sys.stderr)
    sys.exit(status)
