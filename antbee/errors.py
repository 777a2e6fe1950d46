"""How every command ends: its exit status, and one line that says why.

0          it did what it was asked for
1          something failed that trying again may mend: the disk, the network, a training that ran away
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

FAULT, BAD_INPUT = 1, 2
LONGEST = 2000  # characters of the line

Errors = tuple[type[Exception], ...]


def run(main: Callable[[], None], *, bad_input: Errors, faults: Errors = (), stopped: str = "stopped") -> None:
    """Runs a command's `main` and ends the process where it fails.

    `faults` come first, for some of them are special cases of `bad_input`; an OSError is always one. Every other
    exception is a mistake of this program's own, which Python reports in full. `stopped` is said at Ctrl-C.
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
        sys.exit(FAULT)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except MemoryError as error:
        _end(FAULT, error if str(error) else MemoryError("there is not enough memory: close other programs"))
    except OSError as error:
        _end(FAULT, error)
    except faults as error:
        _end(FAULT, error)
    except bad_input as error:
        _end(BAD_INPUT, error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python closes down now, and would report the exception


def _one_sentence(message: Warning | str, *where: object, **more: object) -> str:
    # As Python would print it, with a line of source code, it would look like a mistake of this program's.
    return f"warning: {one_line(str(message), longest=LONGEST)}\n"


def _end_at_signal(number: int, frame: FrameType | None) -> None:
    # An exception and no sudden end: what is open gets closed, and temporary files go.
    sys.exit(128 + number)


def _end(status: int, error: Exception) -> None:
    print(f"error: {one_line(str(error), longest=LONGEST)}", file=sys.stderr)
    sys.exit(status)
