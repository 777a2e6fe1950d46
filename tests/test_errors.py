import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from antbee import errors

ROOT = Path(__file__).resolve().parents[1]


class UnusableError(ValueError):
    pass


class BrokenError(UnusableError):
    pass


def run(main):
    errors.run(main, bad_input=(UnusableError,), faults=(BrokenError,))


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnusableError("it can't be used"), 2),
        (BrokenError("it broke"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
    ],
)
def test_what_came_in_ends_with_status_2_and_what_failed_with_status_1(error, status, error_of):
    ended, line = error_of(run, raising(error))
    assert ended == status
    assert len(line) > len("error: ")


def test_the_line_holds_no_line_break_no_terminal_code_and_no_turned_letters(error_of):
    _, line = error_of(run, raising(UnusableError("a\x1b[31m red\n\u202eline.jpg \udcff")))
    assert line == r"error: a\x1b[31m red \u202eline.jpg \udcff"


def test_a_mistake_of_the_programs_own_is_shown_in_full():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


@pytest.fixture
def own_signals():
    """The handlers and the ways of this process, put back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    told = warnings.formatwarning
    yield
    warnings.formatwarning = told
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="there are other signals on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_own_status_and_without_a_traceback(own_signals, capsys, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as ended:
        run(lambda: os.kill(os.getpid(), number))
    assert ended.value.code == 128 + number
    assert "Traceback" not in capsys.readouterr().err


def test_a_warning_is_one_printable_line_without_a_place_in_the_source(own_signals, capsys):
    run(lambda: None)
    assert warnings.formatwarning("half\n of it \x1b[31m", UserWarning, "a.py", 3) == "warning: half of it \\x1b[31m\n"


def test_a_reader_that_has_seen_enough_is_no_error_to_tell_of():
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from antbee import errors; errors.run(lambda: print('x' * 10**6), bad_input=())"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
