"""app.py: which models and which photos the page shows."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import app
from antbee import Classifier, errors, ui
from antbee.data.download import folder_named
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.models.config import ClassifierConfig
from antbee.models.weights import StartingWeights, build_network
from antbee.training.background import BackgroundTraining, TrainingRequest
from antbee.ui import registry

ROOT = Path(__file__).resolve().parents[2]


def write_model(folder, label_names=("ants", "bees"), **config):
    network = build_network("resnet18", len(label_names), StartingWeights("random"), seed=0)
    Classifier(network, ClassifierConfig("resnet18", tuple(label_names), **config)).save_pretrained(folder)
    return folder


def test_the_models_named_are_shown_else_a_spaces_else_all_in_outputs(tmp_path, monkeypatch):
    for name in ("finetune", "frozen", "frozen.previous", ".finetune.writing", "versions/1/frozen"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "config.json").touch()
    (tmp_path / "outputs" / ".training").mkdir()
    monkeypatch.setattr(app, "home", lambda: tmp_path)
    monkeypatch.delenv("ANTBEE_MODELS", raising=False)
    assert [path.name for path in app.choose_models([])] == ["frozen", "finetune"]
    monkeypatch.setenv("ANTBEE_MODELS", "user/a  user/b")
    assert app.choose_models([]) == ["user/a", "user/b"]
    assert app.choose_models(["mine"]) == ["mine"]
    monkeypatch.setenv("ANTBEE_MODELS", "")
    monkeypatch.setattr(app, "home", lambda: tmp_path / "nowhere")
    assert app.choose_models([]) == []


def test_the_models_own_data_set_is_shown_where_it_is(tmp_path, drawn_root, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(drawn_root)
    monkeypatch.setattr(registry, "home", lambda: tmp_path)
    models = ui.load_models([write_model(tmp_path / "model", data={"name": "mine"})])
    photos = registry.choose_photos(None, models, tmp_path / "workshop")
    assert photos.root == tmp_path / "data" / "mine"


def test_photos_behind_links_are_shown_where_links_are_followed(tmp_path, drawn_root):
    for split in ("train", "val"):
        for name in ("ants", "bees"):
            (tmp_path / "linked" / split / name).mkdir(parents=True)
            (tmp_path / "linked" / split / name / "all").symlink_to(drawn_root / split / name)
    photos = registry.choose_photos(tmp_path / "linked", (), tmp_path, follow_links=True)
    assert len(photos.all) == 40
    with pytest.raises(DataError, match="no photo that can be used"):
        registry.choose_photos(tmp_path / "linked", (), tmp_path)


@pytest.mark.parametrize("with_model", [True, False])
def test_drawn_pictures_are_shown_where_there_are_no_photos_of_ants_and_bees(tmp_path, monkeypatch, with_model):
    monkeypatch.setattr(registry, "home", lambda: tmp_path)
    models = ui.load_models([write_model(tmp_path / "model")]) if with_model else ()
    photos = registry.choose_photos(None, models, tmp_path)
    assert photos.class_names == ("ants", "bees")
    assert len(photos.val) == 2 * registry.DRAWN_EXAMPLES
    assert registry.choose_photos(None, models, tmp_path) == photos, "models that are shown anew find the same ones"


@pytest.mark.parametrize("name", ["..", "/etc", "../secret", "", None, 3, ["x"]])
def test_a_models_config_never_leads_out_of_the_data_folder(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").mkdir()
    assert folder_named(tmp_path / "data", name) is None


def test_no_pictures_are_made_up_for_other_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "home", lambda: tmp_path)
    models = ui.load_models([write_model(tmp_path / "model", ["cats", "dogs", "owls"])])
    assert registry.choose_photos(None, models, tmp_path) is None


def test_photos_are_chosen_for_whichever_model_knows_their_classes(tmp_path, drawn_root, monkeypatch):
    monkeypatch.setattr(registry, "home", lambda: tmp_path)
    models = ui.load_models([write_model(tmp_path / "pets", ["cats", "dogs"]), write_model(tmp_path / "mine")])
    assert registry.choose_photos(None, models, tmp_path).class_names == ("ants", "bees")
    assert registry.choose_photos(drawn_root, models, tmp_path).root == drawn_root
    turned = ui.load_models([write_model(tmp_path / "turned", ["bees", "ants"])])
    assert registry.choose_photos(drawn_root, turned, tmp_path).root == drawn_root


def test_a_folder_without_val_is_split_with_the_seed_of_the_models_training(tmp_path, drawn_root):
    models = ui.load_models([write_model(tmp_path / "model", seed=3)])
    photos = registry.choose_photos(drawn_root / "train", models, tmp_path)
    assert photos.val == read_folder(drawn_root / "train", seed=3).val
    assert photos.val != read_folder(drawn_root / "train", seed=0).val


def test_a_named_folder_of_other_classes_is_refused(tmp_path):
    models = ui.load_models([write_model(tmp_path / "model")])
    for split in ("train", "val"):
        for name in ("cats", "dogs"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / name / "a.png")
    with pytest.raises(DataError, match="has the classes cats, dogs"):
        registry.choose_photos(tmp_path / "pets", models, tmp_path)


# ---- who may train ---------------------------------------------------------------------------------------------------


@pytest.fixture
def may_train(monkeypatch):
    """Whether the page may train, by the words of its command."""
    for name in ("GRADIO_SERVER_NAME", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)

    def asked(*words):
        monkeypatch.setattr(sys, "argv", ["app.py", *words])
        return app.may_train(app.parse_arguments())

    return asked


@pytest.mark.parametrize("words", [[], ["--host", "127.0.0.1"], ["--host", "localhost"], ["--host", "::1"]])
def test_the_page_may_train_where_none_but_its_owner_can_open_it(may_train, words):
    assert may_train(*words)


@pytest.mark.parametrize(
    "words", [["--host", "0.0.0.0"], ["--host", "::"], ["--host", "192.168.1.7"], ["--share"], ["--host", "pc.local"]]
)
def test_the_page_may_not_train_where_others_can_open_it_unless_its_owner_says_so(may_train, words):
    assert not may_train(*words)
    assert may_train(*words, "--train")
    assert not may_train("--no-train")


@pytest.mark.parametrize(("name", "value"), [("GRADIO_SERVER_NAME", "0.0.0.0"), ("SPACE_ID", "user/space")])
def test_the_page_may_not_train_where_its_surroundings_open_it_to_others(may_train, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not may_train()
    assert may_train("--train")


@pytest.mark.parametrize("words", [["--root-path", "/antbee"], ["--root-path", "https://me.example/antbee"]])
def test_the_page_may_not_train_behind_a_proxy_unless_its_owner_says_so(may_train, words):
    assert not may_train(*words)
    assert may_train(*words, "--train")


def test_a_host_that_is_named_counts_more_than_the_one_of_the_surroundings(may_train, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert may_train("--host", "127.0.0.1")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    assert may_train()
    assert not may_train("--host", "0.0.0.0")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["--train"], contextlib.nullcontext()),  # Gradio takes Ctrl-C for itself
        (["--train"], pytest.raises(SystemExit)),  # SIGTERM
        (["--no-train"], contextlib.nullcontext()),
    ],
    ids=["Ctrl-C", "SIGTERM", "no training"],
)
def test_the_page_gets_a_training_where_it_may_train_and_none_of_it_is_left_when_the_program_ends(
    tmp_path, monkeypatch, words, end
):
    waiting = [sys.executable, "-c", "import signal; print('here', flush=True); signal.pause()"]
    built, launched, shared = [], [], []
    for name, value in app.gradio_settings(tmp_path).items():
        monkeypatch.setenv(name, value)  # which app.main would leave behind in this process
    monkeypatch.setattr(sys, "argv", ["app.py", *words])
    monkeypatch.setattr(app, "share_arenas", lambda: shared.append(True))  # not of this process
    monkeypatch.setattr(app, "choose_models", lambda named: [])
    monkeypatch.setattr(app, "choose_photos", lambda *values, **options: None)
    monkeypatch.setattr(app, "BackgroundTraining", lambda: BackgroundTraining(lambda request: waiting))
    monkeypatch.setattr(app.ui, "build_page", lambda registry, training: built.append(training) or Page(training))
    monkeypatch.setattr(app.ui, "launch", lambda page, **options: launched.append(options) or [])

    class Page:
        """One that is open until its training runs, and then gets a signal."""

        def __init__(self, training):
            self.training = training

        def block_thread(self):
            if self.training is not None:
                self.training.start(TrainingRequest(tmp_path))
                while not self.training.state().lines:
                    assert self.training.state().running
            if not isinstance(end, contextlib.nullcontext):
                sys.exit(128 + signal.SIGTERM)

    with end:
        app.main()
    (training,), (options,) = built, launched
    assert options["local_only"] == (words == ["--train"])
    assert options["password"] is None
    assert shared == [True]
    assert (training is not None) == (words == ["--train"])
    if training is not None:
        assert training.state().status == "cancelled"


# ---- the command -----------------------------------------------------------------------------------------------------


# Runs the command once for every line on stdin, in a process forked off once everything is imported, which takes the
# longest. Prints that process's ID before anything else, and once it is over "ended" and its status.
COMMAND = """
import json, os, runpy, signal, sys
app = sys.argv[1]
sys.path[0] = os.path.dirname(app)  # as where Python starts it
runpy.run_path(app)
for line in sys.stdin:
    ignored, words = json.loads(line)
    if (process := os.fork()) == 0:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        sys.argv = [app, *words]
        runpy.run_path(app, run_name="__main__")
        sys.exit()
    print("ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass
class Command:
    """The command, which COMMAND runs."""

    runner: subprocess.Popen
    process: int | None = None  # while it runs

    def start(self, *words, ctrl_c_ignored=False):
        """Gives the first two lines that it prints."""
        print(json.dumps([ctrl_c_ignored, list(map(str, words))]), file=self.runner.stdin, flush=True)
        self.process = int(self.runner.stdout.readline())
        return [self.runner.stdout.readline().strip() for _ in range(2)]

    def send(self, number):
        os.kill(self.process, number)

    def status(self):
        """Waits until it ended."""
        status = next(int(line.split()[1]) for line in self.runner.stdout if line.startswith("ended "))
        self.process = None
        return status


@pytest.fixture(scope="module")
def runner():
    """What runs the command, from another folder."""
    words = [sys.executable, "-c", COMMAND, ROOT / "app.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd="/", env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipes) as process:
        yield process


@pytest.fixture
def command(runner):
    """The command, which is killed where it still runs in the end."""
    command = Command(runner)
    yield command
    if command.process is not None:
        with contextlib.suppress(ProcessLookupError):
            command.send(signal.SIGKILL)
        command.status()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_the_command_serves_the_page_says_where_and_ends_on_ctrl_c(command, tmp_path, drawn_root):
    folder = write_model(tmp_path / "model", mode="frozen")
    port = free_port()
    lines = command.start(folder, "--data", drawn_root, "--port", port)
    assert lines == ["model     frozen: ants, bees", f"page      http://127.0.0.1:{port}/"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=20) as answer:
        assert json.load(answer)["title"] == "antbee"
    command.send(signal.SIGINT)
    assert command.status() == 0


def test_the_command_started_with_ctrl_c_ignored_ends_at_sigterm_alone(command, tmp_path):
    port = free_port()
    command.start(write_model(tmp_path / "model"), "--port", port, ctrl_c_ignored=True)
    command.send(signal.SIGINT)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=20) as answer:
        assert answer.status == 200
    command.send(signal.SIGTERM)
    assert command.status() == 128 + signal.SIGTERM


def test_a_taken_port_is_one_clear_line_and_status_1(tmp_path, drawn_root, monkeypatch, error_of):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [write_model(tmp_path / "model"), "--data", drawn_root, "--port", port]
        monkeypatch.setattr(sys, "argv", ["app.py", *map(str, words)])
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
        status, error = error_of(errors.run, app.main)
    assert status == 1
    assert str(port) in error
    assert "--port" in error


@pytest.mark.parametrize("words", [["--port", "0"], ["--port", "70000"], ["--port", "http"], ["--root-path", "antbee"]])
def test_a_port_or_a_path_that_can_not_be_is_refused_with_what_can(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["app.py", *words])
    with pytest.raises(SystemExit) as ended:
        app.parse_arguments()
    assert ended.value.code == 2
    assert re.search(rf"{words[1]} is no (port: give|path: give)", capsys.readouterr().err)


def test_an_empty_password_is_no_open_door(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("ANTBEE_PASSWORD", "")
    with pytest.raises(SystemExit) as ended:
        app.parse_arguments()
    assert ended.value.code == 2
    assert "ANTBEE_PASSWORD is empty" in capsys.readouterr().err
