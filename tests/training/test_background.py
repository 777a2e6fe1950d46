"""Training in a child process: its command line, its state, one at a time, cancelling, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from antbee.data.drawn import write_drawn_set
from antbee.models.versions import MARKER, RUN_FOLDER, RunFolder
from antbee.training import background, pipeline
from antbee.training.background import BackgroundError, BackgroundTraining, TrainingRequest, TrainingState
from antbee.training.context import Settings
from antbee.training.tracking import EPOCHS_FILE

ROOT = Path(__file__).resolve().parents[2]
WAITING = "import os, signal; print(os.getpid()); signal.pause()"  # until a signal ends it


@pytest.fixture
def request_(tmp_path):
    return TrainingRequest(tmp_path / "outputs")


@pytest.fixture
def run(request_):
    """Starts a Python program as the training, and closes it at the end of the test."""
    started = []

    def start(program, *arguments, **options):
        training = BackgroundTraining(lambda request: [sys.executable, "-c", program, *map(str, arguments)], **options)
        started.append(training)
        training.start(request_)
        return training

    yield start
    for training in started:
        training.close()


@pytest.fixture
def start_training(tmp_path, monkeypatch):
    """Starts the default command on six small images, in the frozen mode, and closes it at the end of the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(background, "NICENESS", 0)  # on a busy machine it would get no CPU time
    counts = {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1, "bees": 1}}
    images = write_drawn_set(tmp_path / "-images", **counts, longest_side=64)
    with closing(BackgroundTraining(grace=60)) as training:

        def start(epochs):
            request = TrainingRequest(tmp_path / "outputs", images, "random", mode="frozen", epochs=epochs)
            training.start(request)
            return training, request

        yield start


def eventually(condition):
    """The first true value of a condition."""
    deadline, pause = time.monotonic() + 100, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        pause.wait(0.005)
    return value


def ended(training):
    """The state of a training after its end."""
    return eventually(lambda: None if (state := training.state()).running else state)


def pid_of(training):
    """The process ID that WAITING printed."""
    return int(eventually(lambda: training.state().lines)[0])


def is_alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# ---- the child process -----------------------------------------------------------------------------------------------


@pytest.fixture
def settings_of(monkeypatch):
    """The data and the settings that the child process trains with for a request."""

    def run_main(request):
        received = []
        monkeypatch.setattr(pipeline, "run", lambda data, settings, log: received.append((data, settings)))
        monkeypatch.setattr(sys, "argv", ["background", background.command(request)[-1]])
        background.main()
        (found,) = received
        return found

    return run_main


def test_every_setting_of_a_request_reaches_the_training_even_if_it_looks_like_a_flag(settings_of, monkeypatch):
    monkeypatch.chdir("/")
    request = TrainingRequest(Path("-out"), Path("-x"), "--resume", "tutorial", "frozen", epochs=7, seed=5)
    data, settings = settings_of(request)
    assert data == "/-x"
    expected = {"weights": "--resume", "recipe": "tutorial", "mode": "frozen", "epochs": 7, "seed": 5}
    assert settings == Settings(output=Path("-out"), track="jsonl", **expected)


def test_a_request_without_settings_trains_with_the_defaults(settings_of, tmp_path):
    assert settings_of(TrainingRequest(tmp_path)) == (None, Settings(output=tmp_path, track="jsonl"))


def test_a_folder_named_drawn_is_not_mistaken_for_the_drawn_set(settings_of, tmp_path):
    data, _ = settings_of(TrainingRequest(tmp_path, Path("drawn")))
    assert data == str(Path("drawn").absolute())
    assert settings_of(TrainingRequest(tmp_path, "drawn"))[0] == "drawn"


def test_a_training_started_from_any_folder_without_pythonpath_is_monitored_up_to_its_end(
    start_training, tmp_path, monkeypatch
):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for module in ("antbee", "random", "torch"):  # importing one of them would end the process
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    training, request = start_training(epochs=2)
    state = ended(training)
    assert (state.status, state.error, state.request) == ("finished", None, request), state.lines
    history = json.loads((request.output / "frozen" / "history.json").read_text())
    assert list(state.epochs) == [{"mode": "frozen", "epochs": 2, **record} for record in history]
    assert f"models    {request.output / 'frozen'}" in state.lines
    assert sum(line.startswith("  epoch ") for line in state.lines) == 2


# ---- its state -------------------------------------------------------------------------------------------------------


def test_the_state_is_idle_before_the_first_training():
    training = BackgroundTraining()
    training.cancel()
    assert training.state() == TrainingState()
    assert not training.state().running
    training.close()


def test_lines_and_epochs_are_available_while_the_training_runs(run, request_):
    program = """
import json, signal, sys
with open(sys.argv[1], "a") as file:
    for number in (1, 2):
        print("epoch", number)
        print(json.dumps({"mode": "frozen", "epoch": number}), file=file, flush=True)
    print("warning", file=sys.stderr)
    signal.pause()
"""
    training = run(program, request_.output / EPOCHS_FILE)
    state = eventually(lambda: state if "warning" in (state := training.state()).lines else None)
    assert (state.status, state.running, state.request) == ("running", True, request_)
    assert state.lines == ("epoch 1", "epoch 2", "warning")
    assert [epoch["epoch"] for epoch in state.epochs] == [1, 2]
    assert training.state().seconds > state.seconds > 0


def test_a_new_training_starts_without_the_epochs_of_the_previous_run(run, request_):
    request_.output.mkdir()
    (request_.output / EPOCHS_FILE).write_text('{"mode": "frozen", "epoch": 1}\n')
    assert run(WAITING).state().epochs == ()


def test_the_state_of_an_ended_training_no_longer_changes(run, request_):
    training = run("print('done')")
    state = ended(training)
    assert (state.status, state.error, state.lines) == ("finished", None, ("done",))
    (request_.output / EPOCHS_FILE).write_text('{"mode": "frozen", "epoch": 1}\n')  # by a run from the command line
    assert training.state() is state


def test_the_last_lines_of_long_output_are_kept_and_a_progress_bar_is_one_line(run):
    program = r"""
import sys
for number in range(1000): print("line", number)
for number in range(1000): sys.stderr.write(f"\r {number} of 1000")
sys.stderr.write("\n" + "x" * 5000 + "\n")
sys.stderr.buffer.write(b"caf\xe9 \r\n")
"""
    *lines, bar, long, undecodable = ended(run(program)).lines
    assert lines == [f"line {number}" for number in range(1003 - background.LINES, 1000)]
    assert (bar, long, undecodable) == (" 999 of 1000", "x" * background.LONGEST_LINE, "caf\N{REPLACEMENT CHARACTER} ")


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import sys; print('photos'); sys.exit('error: /nowhere does not exist')", "/nowhere does not exist"),
        ("import sys; sys.exit('train.py: error: argument --epochs: invalid')", "argument --epochs: invalid"),
        (
            "raise RuntimeError('an error: unexpected')",
            "the training ended with status 1; its last output: RuntimeError: ",
        ),
        ("import os; os._exit(3)", "the training ended with status 3; its last output: none"),
        ("import os; os.kill(os.getpid(), 9)", "the training was ended by signal 9"),
    ],
)
def test_a_failed_training_gives_its_reason_in_a_sentence(run, program, sentence):
    state = ended(run(program))
    assert state.status == "failed"
    assert state.error.startswith(sentence)
    assert len(state.error.splitlines()) == 1


def test_several_threads_can_read_the_state_at_once(run):
    training = run("for number in range(20000): print(number)")
    with ThreadPoolExecutor(4) as pool:
        states = [future.result() for future in [pool.submit(ended, training) for _ in range(4)]]
    assert {state.lines[-1] for state in states} == {"19999"}


# ---- one at a time ---------------------------------------------------------------------------------------------------


def test_one_of_several_simultaneous_starts_succeeds_and_the_next_may_start_after_its_end(request_):
    def attempt(_):
        try:
            training.start(request_)
        except BackgroundError as error:
            return str(error)
        return "started"

    with closing(BackgroundTraining(lambda request: [sys.executable, "-c", WAITING])) as training:
        with ThreadPoolExecutor(8) as pool:
            results = sorted(pool.map(attempt, range(8)))
        assert results == ["a training is running already: wait until it ends, or cancel it"] * 7 + ["started"]
        training.cancel()
        ended(training)
        training.start(replace(request_, seed=1))
        assert training.state().status == "running"
        assert training.state().request.seed == 1


def test_a_failed_start_is_an_error_and_the_next_training_can_start(tmp_path, request_):
    (tmp_path / "file").touch()
    arguments = ["/nowhere/python"]
    with closing(BackgroundTraining(lambda request: arguments)) as training:
        for request in (request_, TrainingRequest(tmp_path / "file"), TrainingRequest(tmp_path / "\0")):
            with pytest.raises(BackgroundError, match=r"the training can't be started: .+"):
                training.start(request)
        arguments = [sys.executable, "-c", "print('a\0b')"]
        with pytest.raises(BackgroundError, match="null"):
            training.start(request_)
        arguments = [sys.executable, "-c", "print('started')"]
        training.start(request_)
        assert ended(training).lines == ("started",)


# ---- cancelled -------------------------------------------------------------------------------------------------------


def test_cancel_sends_one_signal_and_returns_before_the_training_ends(run, request_, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    program = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *arguments: print("signal"))
print("ready")
signal.pause()
open(sys.argv[1]).read()
print("stopped", file=sys.stderr)
sys.exit(143)
"""
    training = run(program, tmp_path / "pipe", grace=30)
    eventually(lambda: training.state().lines)
    training.cancel()
    training.cancel()
    assert training.state().status == "stopping"
    eventually(lambda: "signal" in training.state().lines)
    with pytest.raises(BackgroundError, match="running already"):
        training.start(request_)
    (tmp_path / "pipe").write_text("end")
    state = ended(training)
    assert (state.status, state.error, state.lines) == ("cancelled", None, ("ready", "signal", "stopped"))


def test_a_training_can_be_cancelled_where_ctrl_c_is_ignored(run, ctrl_c_ignored):
    training = run("import signal; print(signal.getsignal(signal.SIGINT)); signal.pause()", grace=60)
    assert eventually(lambda: training.state().lines) == (str(signal.SIG_IGN),)
    training.cancel()
    assert ended(training).status == "cancelled"


def test_a_cancelled_training_leaves_no_checkpoints_and_prints_no_traceback(start_training, ctrl_c_ignored):
    training, request = start_training(epochs=100_000)
    eventually(lambda: training.state().epochs)
    training.cancel()
    state = ended(training)
    assert (state.status, state.error) == ("cancelled", None)
    assert state.lines[-1].startswith("  epoch "), "no traceback"
    left = {path.name for path in request.output.rglob("*")}
    assert left <= {RUN_FOLDER, MARKER, "lock", EPOCHS_FILE}


def test_a_cancelled_training_removes_its_own_files_and_nothing_else(run, request_):
    (request_.output / "frozen").mkdir(parents=True)
    (request_.output / "frozen" / "photo.jpg").write_bytes(b"a photo")
    run_folder = RunFolder(request_.output)
    with run_folder.locked():
        run_folder.checkpoint("finetune").write_bytes(b"a checkpoint")
        run_folder.model("frozen").mkdir()
    training = run(WAITING)
    pid_of(training)
    training.cancel()
    assert ended(training).status == "cancelled"
    assert {path.name for path in run_folder.path.iterdir()} <= {"lock", MARKER}
    assert (request_.output / "frozen" / "photo.jpg").read_bytes() == b"a photo"


def test_a_training_that_succeeds_after_the_cancel_signal_is_finished_not_cancelled(run):
    program = "import signal; signal.signal(signal.SIGTERM, lambda *a: exit(0)); print('ready'); signal.pause()"
    training = run(program)
    eventually(lambda: training.state().lines)
    training.cancel()
    assert ended(training).status == "finished"


def test_a_training_that_ignores_signals_is_killed(run):
    ignoring = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]\n"
    training = run(ignoring + "import os; print(os.getpid())\nwhile True: signal.pause()", grace=0.05)
    pid = pid_of(training)
    training.cancel()
    assert ended(training).status == "cancelled"
    assert not is_alive(pid)


def test_close_ends_the_training_and_no_other_can_start(run, request_):
    training = run(WAITING)
    pid = pid_of(training)
    training.close()
    assert training.state().status == "cancelled"
    assert not is_alive(pid)
    with pytest.raises(BackgroundError, match="shutting down"):
        training.start(request_)
    training.close()


# ---- its process -----------------------------------------------------------------------------------------------------


def test_it_has_a_low_priority_and_gets_no_ctrl_c_from_the_terminal(run):
    pid = pid_of(run(WAITING))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + background.NICENESS)
    assert os.getpgid(pid) == pid != os.getpgid(0)
    assert os.getsid(pid) == os.getsid(0), "niceness has no effect between sessions"


def test_it_ends_with_its_next_line_if_the_program_that_started_it_is_killed(tmp_path):
    # A stub of the one module that needs torch saves the program its import.
    program = f"""
import sys, types
sys.path.insert(0, {str(ROOT)!r})
sys.modules["antbee.models.versions"] = stub = types.ModuleType("stub")
stub.OutputError = stub.discard_run = None
from pathlib import Path
from antbee.training.background import *
printing = "import os\\nwhile True: print(os.getpid())"
training = BackgroundTraining(lambda request: [sys.executable, "-c", printing])
training.start(TrainingRequest(Path({str(tmp_path)!r})))
while not training.state().lines: pass
print(training.state().lines[-1], flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        pid = int(started.stdout.readline())
        assert is_alive(pid)
        started.send_signal(signal.SIGKILL)
    eventually(lambda: not is_alive(pid))
