"""The exceptions of antbee, and how every command ends: its exit status, and one line that says why.

0          it did what it was asked for
1          something failed that trying again may mend: the disk, the network, a training that diverged
2          what it was given can't be used: a flag, a photo, a folder, a model
130, 143   it was stopped by Ctrl-C (SIGINT) or by SIGTERM
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType

from antbee.text import one_line

LONGEST = 2000  # characters of the line


class AntbeeError(Exception):
    """Something failed that trying again may mend; the message says what, and what to do next."""

    exit_status = 1


class InputError(AntbeeError, ValueError):
    """What was given can't be used; the message says what came, what was expected, and what to do next."""

    exit_status = 2


def run(main: Callable[[], None], *, stopped: str = "stopped") -> None:
    """Runs a command's `main` and ends the process where it fails, with the exit status of the error.

    Every exception but AntbeeError, OSError and MemoryError is a bug, which Python reports in full. `stopped` is
    printed at Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names need not be Unicode
    signal.signal(signal.SIGTERM, _end_at_signal)
    # Pillow would warn of large and of damaged photos on its way; `images` says so itself, with the file's name.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.formatwarning = _one_sentence
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
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
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python closes down now, and would report the exception


def _one_sentence(message: Warning | str, *where: object, **more: object) -> str:
    # As Python would print it, with a line of source code, it would look like a bug of this program.
    return f"warning: {one_line(str(message), longest=LONGEST)}\n"


def _end_at_signal(number: int, frame: FrameType | None) -> None:
    # An exception and no sudden end: what is open gets closed, and temporary files go.
    sys.exit(128 + number)


def _end(status: int, error: Exception) -> None:
    print(f"error: {one_line(str(error), longest=LONGEST)}", file=sys.stderr)
    sys.exit(status)
