"""Train: what is asked for, how a training is told, and that its models are shown once it is done."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from page_helpers import registry_of, write_model
from safetensors.torch import load_file

from antbee import ui
from antbee.data import download
from antbee.installation import home
from antbee.models.config import ModelFolderError
from antbee.text import as_text
from antbee.training.background import BackgroundError, TrainingRequest, TrainingState
from antbee.ui.i18n import CHINESE, ENGLISH, label
from antbee.ui.tabs import train
from antbee.ui.tabs.train import LINES, TrainingJob, histories_of, request_of, status_sentence

EPOCHS = tuple(
    {"mode": mode, "epoch": epoch, "val_accuracy": 0.5, "train_accuracy": 0.6, "val_loss": 1.0, "train_loss": 1.0}
    for mode, epoch in (("frozen", 1), ("frozen", 2), ("finetune", 1))
)
BROWSER = SimpleNamespace(headers={"accept-language": "en"}, session_hash="visitor")


class FakeTraining:
    """A training that is as it is told to be."""

    def __init__(self):
        self.now = TrainingState()
        self.started, self.cancelled = [], 0

    def start(self, request):
        if self.now.running:
            raise BackgroundError("a training is running already")
        self.started.append(request)
        self.now = TrainingState("running", request)

    def state(self):
        return self.now

    def cancel(self):
        self.cancelled += 1
        self.now = replace(self.now, status="stopping")


@pytest.fixture
def training():
    return FakeTraining()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of one model, as a training leaves it."""
    outputs = tmp_path_factory.mktemp("outputs")
    write_model(outputs / "frozen", "frozen")
    return outputs


def train_again(outputs):
    """What a training does to the model in its place, as far as the page can see."""
    path = outputs / "frozen" / "config.json"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


@pytest.fixture
def registry():
    return registry_of((), None)


@pytest.fixture
def turns(registry, monkeypatch):
    """The calls of registry.switch_to."""
    counted, switch_to = [], registry.switch_to
    monkeypatch.setattr(registry, "switch_to", lambda *values: counted.append(values) or switch_to(*values))
    return counted


# ---- what is asked for and told --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "folder"),
    [
        ("", None),
        (" \n", None),
        ("photos", Path("photos")),
        (" /photos of mine\n", Path("/photos of mine")),
        ("~/photos", Path.home() / "photos"),
        ("drawn ", "drawn"),
        ("./drawn", Path("drawn")),
        (" hf://datasets/user/name", "hf://datasets/user/name"),
        ("user/name", Path("user/name")),
    ],
)
def test_what_was_typed_is_the_folder_or_the_drawn_set_and_nothing_the_default(typed, folder):
    request = request_of(typed, "tutorial", "frozen", Path("outputs"))
    assert request == TrainingRequest(Path("outputs"), data=folder, recipe="tutorial", mode="frozen")


def test_epochs_are_told_apart_by_their_modes_in_the_order_they_came():
    assert histories_of(EPOCHS) == {"frozen": list(EPOCHS[:2]), "finetune": [EPOCHS[2]]}
    assert list(histories_of(EPOCHS[::-1])) == ["finetune", "frozen"]
    assert histories_of(()) == {}


TOLD = {
    "idle": ("train.idle", {}),
    "running": ("train.running", {"seconds": "12", "epochs": 3}),
    "stopping": ("train.stopping", {}),
    "cancelled": ("train.cancelled", {}),
    "failed": ("train.failed", {"error": "no photos here"}),
    "finished": ("train.finished", {}),
}


@pytest.mark.parametrize("translate", [ENGLISH, CHINESE])
def test_every_status_has_a_sentence_of_its_own(translate):
    states = {status: TrainingState(status, None, (), EPOCHS, 12.3, "no photos here") for status in TOLD}
    sentences = {status: status_sentence(state, translate) for status, state in states.items()}
    assert sentences == {status: translate(key, **values) for status, (key, values) in TOLD.items()}
    assert len(set(sentences.values())) == len(TOLD)


def test_markup_in_an_error_is_escaped():
    assert "<img" not in status_sentence(TrainingState("failed", error="<img src=x onerror=alert(1)>"))


# ---- the models that a training leaves -------------------------------------------------------------------------------


def test_the_models_of_a_finished_training_are_loaded_once(registry, training, turns, trained):
    job = TrainingJob(registry, training, trained)
    job.start("", "fast", "both")
    assert training.started == [TrainingRequest(trained)]
    for status in ("running", "stopping", "cancelled", "failed"):
        training.now = replace(training.now, status=status)
        job.poll()
    assert (turns, registry.snapshot.names) == ([], [])
    before = registry.version
    train_again(trained)
    training.now = replace(training.now, status="finished")
    looks = [job.poll() for _ in range(3)]
    assert looks == [(training.now, ENGLISH("train.finished"))] * 3
    assert registry.snapshot.names == ["frozen"]
    assert registry.version == before + 1
    assert turns == [(trained, None)]
    training.now = replace(training.now)
    job.poll()
    assert len(turns) == 2, "another training's models are others"


def test_they_are_shown_with_the_photos_that_they_learned_from(registry, training, trained, drawn_root):
    job = TrainingJob(registry, training, trained)
    job.start(str(drawn_root), "fast", "both")
    train_again(trained)
    training.now = replace(training.now, status="finished")
    job.poll()
    assert registry.snapshot.photos.root == drawn_root


def test_new_models_that_are_not_put_in_place_are_named_and_can_be_restored(registry, training, tmp_path):
    write_model(tmp_path / "frozen", "frozen", seed=1)
    write_model(tmp_path / "versions" / "2026-11-28_17-12-46" / "frozen", "frozen", seed=2)
    job = TrainingJob(registry, training, tmp_path)
    job.start("", "fast", "both")
    training.now = replace(training.now, status="finished")
    assert job.poll()[1] == ENGLISH("train.not_placed", folder=as_text(str(tmp_path / "versions")))
    before = load_file(tmp_path / "frozen" / "model.safetensors")["fc.weight"]
    assert torch.equal(registry.snapshot.models[0].classifier.network.fc.weight.cpu(), before)
    ((title, name),) = job.versions()
    assert title == "2026-11-28_17-12-46: frozen 75.0%"
    assert "2026-11-28_17-12-46" in job.restore(name)
    after = load_file(tmp_path / "frozen" / "model.safetensors")["fc.weight"]
    assert not torch.equal(before, after)
    assert torch.equal(registry.snapshot.models[0].classifier.network.fc.weight.cpu(), after)
    ((_, name),) = job.versions()
    job.restore(name)
    assert torch.equal(load_file(tmp_path / "frozen" / "model.safetensors")["fc.weight"], before)


@pytest.mark.parametrize("translate", [ENGLISH, CHINESE])
def test_models_that_can_not_be_loaded_are_an_error_with_the_reason_and_the_snapshot_stays(
    training, turns, registry, tmp_path, translate
):
    (tmp_path / "frozen").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "frozen" / name).write_text("{}")
    job, before = TrainingJob(registry, training, tmp_path), registry.snapshot
    job.start("", "fast", "both")
    training.now = replace(training.now, status="finished")
    looks = [job.poll(translate)[1] for _ in range(2)]
    with pytest.raises(ModelFolderError) as raised:
        ui.load_models([tmp_path / "frozen"])
    values = {"folder": as_text(str(tmp_path)), "error": as_text(str(raised.value))}
    assert looks[0] == translate("train.not_shown", **values)
    assert looks[1] == looks[0], "whoever looks later reads it too"
    assert len(turns) == 1
    assert registry.snapshot is before


def test_photos_that_are_gone_by_then_are_said_and_the_next_training_is_shown(registry, training, trained, tmp_path):
    job = TrainingJob(registry, training, trained)
    job.start(str(tmp_path / "gone"), "fast", "both")
    train_again(trained)
    training.now = replace(training.now, status="finished")
    assert "gone" in job.poll()[1]
    training.now = TrainingState("finished", TrainingRequest(trained))
    assert job.poll()[1] == ENGLISH("train.finished")
    assert registry.snapshot.names == ["frozen"]


def test_a_training_on_the_drawn_set_is_shown_with_the_drawn_set(registry, training, trained, photos, monkeypatch):
    monkeypatch.setattr(download, "drawn_folder", lambda parent: photos.root)
    job = TrainingJob(registry, training, trained)
    job.start("drawn", "fast", "both")
    train_again(trained)
    training.now = replace(training.now, status="finished")
    assert job.poll()[1] == ENGLISH("train.finished")
    assert registry.snapshot.photos.root == photos.root


# ---- the tab ---------------------------------------------------------------------------------------------------------


def handler(page, name):
    """What the tab does of this name, and how many values it has to give."""
    found = next(
        one for one in page.fns.values() if getattr(one.fn, "__qualname__", "") == f"train_tab.<locals>.{name}"
    )
    return found.fn, len(found.outputs)


@pytest.fixture
def page(registry, training, monkeypatch):
    # Outside an event Gradio would miss what only the page's own dropdown knows of itself.
    monkeypatch.setattr(train, "newly_chosen", lambda registry: [registry.snapshot.names, registry.version])
    return ui.build_page(registry, training)


@pytest.fixture(scope="module")
def both_pages():
    """The page with something to train with, and without."""
    return [ui.build_page(registry_of((), None), training) for training in (FakeTraining(), None)]


def tabs(page):
    return [str(block.label) for block in page.blocks.values() if isinstance(block, gr.Tab)]


def test_the_tab_is_there_where_there_is_something_to_train_with_and_only_there(both_pages):
    able, without = both_pages
    assert str(label("train.tab")) not in tabs(without)
    assert tabs(able) == [*tabs(without), str(label("train.tab"))]
    assert not any("train_tab" in getattr(one.fn, "__qualname__", "") for one in without.fns.values())


def test_no_event_of_the_page_is_public_but_the_one_that_answers_a_photo(both_pages):
    for page in both_pages:
        open_to_all = [event.api_name for event in page.fns.values() if event.api_visibility != "private"]
        assert open_to_all == ["predict"]


def test_a_poll_fills_the_tab_and_only_a_running_training_is_polled_again(page, training):
    poll, places = handler(page, "poll")
    expected = {
        "idle": (True, False, False),
        "running": (False, True, True),
        "stopping": (False, False, True),
        "cancelled": (True, False, False),
        "failed": (True, False, False),
    }
    for status, buttons in expected.items():
        training.now = TrainingState(status, error="no photos here")
        message, _, _, _, _, start, cancel, timer, *_ = values = poll(-1, 0, BROWSER)
        assert len(values) == places
        assert message == status_sentence(training.now)
        assert (start.interactive, cancel.interactive, timer.active) == buttons, status


def test_a_poll_draws_only_new_epochs_and_shows_the_last_lines(page, training, registry):
    poll, _ = handler(page, "poll")
    training.now = TrainingState("running", None, tuple(map(str, range(LINES + 5))), EPOCHS)
    _, accuracy, loss, log, seen, *_, version, _, _ = poll(-1, 0, BROWSER)
    assert accuracy.visible
    assert loss.visible
    assert log.visible
    assert log.value.splitlines() == list(map(str, range(5, LINES + 5)))
    assert (seen, version) == (3, registry.version)
    _, *plots, _, _, _, _, _, models, version, others, restore = poll(seen, version, BROWSER)
    assert [*plots, models, version, others, restore] == [gr.skip()] * 6, "the visitor's choice of models among them"
    colour, places = handler(page, "colour_plots")
    assert [plot.color_map.keys() for plot in colour()] == [
        {f"{mode}, {split}" for mode in ("frozen", "finetune") for split in ("train", "val")}
    ] * places


def test_the_buttons_start_and_cancel_and_a_second_training_is_refused_with_the_reason(page, training):
    start, _ = handler(page, "start_training")
    start("photos", "tutorial", "finetune")
    (request,) = training.started
    assert (request.data, request.recipe, request.mode) == (Path("photos"), "tutorial", "finetune")
    assert request.output.name == "outputs"
    with pytest.raises(gr.Error, match="running already") as raised:
        start("", "fast", "both")
    assert raised.value.print_exception is False
    (cancel,) = [one.fn for one in page.fns.values() if getattr(one.fn, "__self__", None) is training]
    cancel()
    assert training.cancelled == 1


def test_its_models_are_chosen_on_all_tabs_once_they_are_shown(registry, training, trained, page, monkeypatch):
    poll, _ = handler(page, "poll")
    before = registry.version
    monkeypatch.setattr(registry, "switch_to", partial(switch_to_one_folder, registry, trained))
    training.now = TrainingState("finished", TrainingRequest(trained))
    *_, models, version, _, _ = poll(-1, before, BROWSER)
    assert (models, version) == (["frozen"], before + 1)


def switch_to_one_folder(registry, trained, outputs, data):
    """What it does, of a folder of the test's own in the place of the project's."""
    assert outputs == home() / "outputs"
    type(registry).switch_to(registry, trained, data)
