"""A command ends with the exit status of its error and one line that says why."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from antbee.errors import AntbeeError, InputError, importing, run

ROOT = Path(__file__).resolve().parents[1]


class UnreachableError(InputError):
    """A child with another exit status, as DownloadError is of DataError."""

    exit_status = 1


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("it can't be used"), 2),
        (AntbeeError("it failed"), 1),
        (UnreachableError("there is no network"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
    ],
)
def test_the_exit_status_is_that_of_the_exception_and_1_for_the_systems_own(error, status, error_of):
    ended, line = error_of(run, raising(error))
    assert ended == status
    assert len(line) > len("error: ")


def test_the_message_has_no_line_break_control_code_or_change_of_direction(error_of):
    _, line = error_of(run, raising(InputError("a\x1b[31m red\n\u202eline.jpg \udcff")))
    assert line == r"error: a\x1b[31m red \u202eline.jpg \udcff"


def test_an_input_error_is_a_value_error_and_every_error_an_antbee_error():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, AntbeeError)


def test_a_command_that_succeeds_does_not_exit(own_signals):
    run(lambda: None)


def test_ctrl_c_prints_the_message_of_the_command(own_signals, capsys):
    with pytest.raises(SystemExit) as ended:
        run(raising(KeyboardInterrupt()), stopped="stopped: run it again")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nstopped: run it again\n"


def test_other_exceptions_pass_with_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


@pytest.fixture
def own_signals():
    """Restores the signal handlers and the format of warnings afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    formatwarning = warnings.formatwarning
    yield
    warnings.formatwarning = formatwarning
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_its_status_and_without_a_traceback(own_signals, capsys, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as ended:
        run(lambda: os.kill(os.getpid(), number))
    assert ended.value.code == 128 + number
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize(("number", "message"), [(signal.SIGINT, "\nstopped\n"), (signal.SIGTERM, "")])
def test_a_signal_during_imports_ends_the_process_even_where_a_library_drops_exceptions(number, message):
    code = f"""
import os
from antbee import errors
with errors.importing():
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:
        pass
    print("went on", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", message)


def test_after_the_imports_signals_raise_as_before(own_signals):
    before = signal.getsignal(signal.SIGINT)
    with importing():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_warning_is_one_printable_line_without_source_code(own_signals, capsys):
    run(lambda: None)
    assert warnings.formatwarning("half\n of it \x1b[31m", UserWarning, "a.py", 3) == "warning: half of it \\x1b[31m\n"


def test_a_closed_pipe_ends_the_command_without_a_message():
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from antbee import errors; errors.run(lambda: print('x' * 10**6))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
