"""A training in the background: one at a time, watched and cancelled from any thread, and nothing left of it."""

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

from antbee import installation
from antbee.data.drawn import write_drawn_set
from antbee.models.versions import MARKER, RUN_FOLDER, RunFolder
from antbee.training import background
from antbee.training.background import BackgroundError, BackgroundTraining, TrainingRequest, TrainingState
from antbee.training.tracking import EPOCHS_FILE

ROOT = Path(__file__).resolve().parents[2]
WAITING = "import os, signal; print(os.getpid()); signal.pause()"  # until a signal ends it


@pytest.fixture
def request_(tmp_path):
    return TrainingRequest(tmp_path / "outputs")


@pytest.fixture
def run(request_):
    """Starts a Python program as the training; what runs in the end is closed."""
    started = []

    def start(program, *words, **options):
        training = BackgroundTraining(lambda request: [sys.executable, "-c", program, *map(str, words)], **options)
        started.append(training)
        training.start(request_)
        return training

    yield start
    for training in started:
        training.close()


@pytest.fixture
def start_for_real(tmp_path, monkeypatch):
    """Starts train.py itself, quickened, for as many epochs; what runs in the end is closed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(background, "NICENESS", 0)  # a busy machine would leave it nothing
    folder = write_drawn_set(
        tmp_path / "-pictures", train={"ants": 2, "bees": 2}, val={"ants": 1, "bees": 1}, longest_side=64
    )

    def quickly(request):
        python, _, *words = background.command(request)
        return [python, str(ROOT / "tests" / "train_quickly.py"), *words, "--folds=0", "--device=cpu"]

    with closing(BackgroundTraining(quickly, grace=60)) as training:

        def start(epochs):
            request = TrainingRequest(tmp_path / "outputs", folder, "random", mode="frozen", epochs=epochs)
            training.start(request)
            return training, request

        yield start


def eventually(condition):
    """What a condition gives as soon as that is true of it."""
    deadline, pause = time.monotonic() + 50, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        pause.wait(0.005)
    return found


def ended(training):
    """The state of a training that runs no more."""
    return eventually(lambda: None if (state := training.state()).running else state)


def pid_of(training):
    """The number that WAITING printed."""
    return int(eventually(lambda: training.state().lines)[0])


def is_there(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# ---- what is started -------------------------------------------------------------------------------------------------


def test_every_part_of_a_request_reaches_the_script_as_a_value_though_it_looks_like_a_flag(script_module, monkeypatch):
    monkeypatch.chdir("/")
    parse = script_module(ROOT / "scripts" / "train.py").parse_arguments
    request = TrainingRequest(Path("-out"), Path("-x"), "--resume", "tutorial", "frozen", epochs=7, seed=5)
    python, script, *words = background.command(request)
    assert (python, Path(script)) == (sys.executable, ROOT / "scripts" / "train.py")
    arguments = parse(words)
    assert (arguments.output, arguments.data, arguments.weights) == (Path("-out"), "/-x", "--resume")
    assert (arguments.recipe, arguments.mode, arguments.epochs, arguments.seed) == ("tutorial", "frozen", 7, 5)
    assert arguments.track == "jsonl"
    assert not arguments.resume


def test_what_a_request_leaves_open_is_chosen_by_the_script_and_no_folder_is_taken_for_the_drawn_set(
    script_module, tmp_path
):
    parse = script_module(ROOT / "scripts" / "train.py").parse_arguments
    arguments = parse(background.command(TrainingRequest(tmp_path))[2:])
    assert (arguments.data, arguments.weights, arguments.epochs) == (None, None, None)
    assert parse(background.command(TrainingRequest(tmp_path, Path("drawn")))[2:]).data == str(Path("drawn").absolute())


def test_an_installed_antbee_starts_the_script_that_it_carries(monkeypatch, tmp_path):
    carried = tmp_path / "project" / "scripts" / "train.py"
    carried.parent.mkdir(parents=True)
    carried.touch()
    monkeypatch.setattr(installation, "PACKAGE", tmp_path)
    assert background.command(TrainingRequest(tmp_path))[1] == str(carried)


def test_a_real_training_is_watched_to_its_end(start_for_real):
    training, request = start_for_real(epochs=2)
    state = ended(training)
    assert (state.status, state.error, state.request) == ("finished", None, request), state.lines
    history = json.loads((request.output / "frozen" / "history.json").read_text())
    assert list(state.epochs) == [{"mode": "frozen", "epochs": 2, **record} for record in history]
    assert f"models    {request.output / 'frozen'}" in state.lines
    assert sum(line.startswith("  epoch ") for line in state.lines) == 2


# ---- what is seen ----------------------------------------------------------------------------------------------------


def test_nothing_is_told_before_the_first_training(tmp_path):
    training = BackgroundTraining()
    training.cancel()
    assert training.state() == TrainingState()
    assert not training.state().running
    training.close()


def test_lines_and_epochs_are_seen_while_the_training_runs(run, request_):
    program = """
import json, signal, sys
with open(sys.argv[1], "a") as file:
    for number in (1, 2):
        print("epoch", number)
        print(json.dumps({"mode": "frozen", "epoch": number}), file=file, flush=True)
    print("warning", file=sys.stderr)
    signal.pause()
"""
    training = run(program, request_.output / "epochs.jsonl")
    state = eventually(lambda: state if "warning" in (state := training.state()).lines else None)
    assert (state.status, state.running, state.request) == ("running", True, request_)
    assert state.lines == ("epoch 1", "epoch 2", "warning")
    assert [epoch["epoch"] for epoch in state.epochs] == [1, 2]
    assert training.state().seconds > state.seconds > 0


def test_the_epochs_of_the_run_before_are_not_taken_for_those_of_this_one(run, request_):
    request_.output.mkdir()
    (request_.output / "epochs.jsonl").write_text('{"mode": "frozen", "epoch": 1}\n')
    assert run(WAITING).state().epochs == ()


def test_what_ended_is_told_as_it_was_then(run, request_):
    training = run("print('done')")
    state = ended(training)
    assert (state.status, state.error, state.lines) == ("finished", None, ("done",))
    (request_.output / "epochs.jsonl").write_text('{"mode": "frozen", "epoch": 1}\n')  # of a run from the command line
    assert training.state() is state


def test_of_much_output_the_last_lines_are_kept_and_a_progress_bar_is_one_line(run):
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
        ("import sys; print('photos'); sys.exit('error: /nowhere is not there')", "/nowhere is not there"),
        ("import sys; sys.exit('train.py: error: argument --epochs: 0 is none')", "argument --epochs: 0 is none"),
        ("raise RuntimeError('an error: unexpected')", "it ended with status 1; the last it said: RuntimeError: "),
        ("import os; os._exit(3)", "it ended with status 3; the last it said: nothing"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by signal 9"),
    ],
)
def test_a_training_that_fails_says_why_in_a_sentence(run, program, sentence):
    state = ended(run(program))
    assert state.status == "failed"
    assert state.error.startswith(sentence)
    assert len(state.error.splitlines()) == 1


def test_any_number_of_threads_may_look(run):
    training = run("for number in range(20000): print(number)")
    with ThreadPoolExecutor(4) as pool:
        states = [looker.result() for looker in [pool.submit(ended, training) for _ in range(4)]]
    assert {state.lines[-1] for state in states} == {"19999"}


# ---- one at a time ---------------------------------------------------------------------------------------------------


def test_of_many_that_start_at_once_one_does_and_the_next_may_when_it_ended(request_):
    def attempt(_):
        try:
            training.start(request_)
        except BackgroundError as error:
            return str(error)
        return "started"

    with closing(BackgroundTraining(lambda request: [sys.executable, "-c", WAITING])) as training:
        with ThreadPoolExecutor(8) as pool:
            answers = sorted(pool.map(attempt, range(8)))
        assert answers == ["a training is running already: wait until it ends, or cancel it"] * 7 + ["started"]
        training.cancel()
        ended(training)
        training.start(replace(request_, seed=1))
        assert training.state().status == "running"
        assert training.state().request.seed == 1


def test_what_can_not_be_started_is_an_error_and_leaves_the_way_free(tmp_path, request_):
    (tmp_path / "file").touch()
    words = ["/nowhere/python"]
    with closing(BackgroundTraining(lambda request: words)) as training:
        for request in (request_, TrainingRequest(tmp_path / "file"), TrainingRequest(tmp_path / "\0")):
            with pytest.raises(BackgroundError, match=r"the training can't be started: .+"):
                training.start(request)
        words = [sys.executable, "-c", "print('a\0b')"]
        with pytest.raises(BackgroundError, match="null"):
            training.start(request_)
        words = [sys.executable, "-c", "print('here')"]
        training.start(request_)
        assert ended(training).lines == ("here",)


# ---- cancelled -------------------------------------------------------------------------------------------------------


def test_cancel_asks_the_training_once_to_end_and_waits_for_nothing(run, request_, tmp_path):
    os.mkfifo(tmp_path / "door")
    program = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *heard: print("heard"))
print("ready")
signal.pause()
open(sys.argv[1]).read()
print("stopped", file=sys.stderr)
sys.exit(143)
"""
    training = run(program, tmp_path / "door", grace=30)
    eventually(lambda: training.state().lines)
    training.cancel()
    training.cancel()
    assert training.state().status == "stopping"
    eventually(lambda: "heard" in training.state().lines)
    with pytest.raises(BackgroundError, match="running already"):
        training.start(request_)
    (tmp_path / "door").write_text("open")
    state = ended(training)
    assert (state.status, state.error, state.lines) == ("cancelled", None, ("ready", "heard", "stopped"))


def test_a_training_can_be_cancelled_where_ctrl_c_is_ignored(run, ctrl_c_ignored):
    training = run("import signal; print(signal.getsignal(signal.SIGINT)); signal.pause()", grace=60)
    assert eventually(lambda: training.state().lines) == (str(signal.SIG_IGN),)
    training.cancel()
    assert ended(training).status == "cancelled"


def test_a_real_training_is_cancelled_where_ctrl_c_is_ignored_and_leaves_no_trace(start_for_real, ctrl_c_ignored):
    training, request = start_for_real(epochs=100_000)
    eventually(lambda: training.state().epochs)
    training.cancel()
    state = ended(training)
    assert (state.status, state.error) == ("cancelled", None)
    assert state.lines[-1].startswith("  epoch "), "no traceback"
    left = {path.name for path in request.output.rglob("*")}
    assert left <= {RUN_FOLDER, MARKER, "lock", EPOCHS_FILE}


def test_a_cancelled_training_leaves_nothing_of_its_own_and_everything_that_was_there(run, request_):
    (request_.output / "frozen").mkdir(parents=True)
    (request_.output / "frozen" / "photo.jpg").write_bytes(b"a photo")
    run_folder = RunFolder(request_.output)
    with run_folder.locked():
        run_folder.checkpoint("finetune").write_bytes(b"half a training")
        run_folder.model("frozen").mkdir()
    training = run(WAITING)
    pid_of(training)
    training.cancel()
    assert ended(training).status == "cancelled"
    assert {path.name for path in run_folder.path.iterdir()} <= {"lock", MARKER}
    assert (request_.output / "frozen" / "photo.jpg").read_bytes() == b"a photo"


def test_a_training_that_ends_well_before_it_hears_of_being_cancelled_has_ended_well(run):
    program = "import signal; signal.signal(signal.SIGTERM, lambda *heard: exit(0)); print('ready'); signal.pause()"
    training = run(program)
    eventually(lambda: training.state().lines)
    training.cancel()
    assert ended(training).status == "finished"


def test_a_training_that_hears_nothing_is_ended_all_the_same(run):
    deaf = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]\n"
    training = run(deaf + "import os; print(os.getpid())\nwhile True: signal.pause()", grace=0.05)
    pid = pid_of(training)
    training.cancel()
    assert ended(training).status == "cancelled"
    assert not is_there(pid)


def test_closing_leaves_nothing_running_and_lets_nothing_start(run, request_):
    training = run(WAITING)
    pid = pid_of(training)
    training.close()
    assert training.state().status == "cancelled"
    assert not is_there(pid)
    with pytest.raises(BackgroundError, match="about to end"):
        training.start(request_)
    training.close()


# ---- beside the program that started it ------------------------------------------------------------------------------


def test_it_takes_what_others_leave_of_the_processor_and_hears_no_ctrl_c_of_the_terminal(run):
    pid = pid_of(run(WAITING))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + background.NICENESS)
    assert os.getpgid(pid) == pid != os.getpgid(0)
    assert os.getsid(pid) == os.getsid(0), "between sessions niceness counts for nothing"


def test_it_ends_with_its_next_line_where_the_program_that_started_it_is_killed(tmp_path):
    # A bare package in antbee's place spares the program the import of torch.
    program = f"""
import sys, types
sys.modules["antbee"] = types.ModuleType("antbee")
sys.modules["antbee"].__path__ = [{str(ROOT / "antbee")!r}]
from pathlib import Path
from antbee.training.background import *
chatty = "import os\\nwhile True: print(os.getpid())"
training = BackgroundTraining(lambda request: [sys.executable, "-c", chatty])
training.start(TrainingRequest(Path({str(tmp_path)!r})))
while not training.state().lines: pass
print(training.state().lines[-1], flush=True)
sys.stdin.read()
"""
    program_words = [sys.executable, "-c", program]
    with subprocess.Popen(program_words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        pid = int(started.stdout.readline())
        assert is_there(pid)
        started.send_signal(signal.SIGKILL)
    eventually(lambda: not is_there(pid))
