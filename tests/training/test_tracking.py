"""Trackers: every epoch arrives, nothing is imported that was not asked for, and what is missing is named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from antbee.training.recipe import FAST
from antbee.training.tracking import EPOCHS_FILE, TrackerError, check_tracker, empty_epochs, read_epochs, tracked

ROOT = Path(__file__).resolve().parents[2]
RECORDS = [{"epoch": number, "train_loss": 1 / number, "val_accuracy": number / 4} for number in (1, 2, 3)]
SETTINGS = {"mode": "frozen", "epochs": 3, "learning_rate": 0.003, "shorter_side": None, "head_first": True}


def test_tensorboard_gets_every_epoch_by_its_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked("tensorboard", "frozen", SETTINGS, tmp_path) as log:
        for record in RECORDS:
            log(record)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "frozen")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_accuracy")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    (text,) = events.Tensors("settings/text_summary")
    assert "learning_rate: 0.003" in str(text.tensor_proto.string_val)


def test_trackio_gets_every_epoch_by_its_number_without_a_network(tmp_path):
    pytest.importorskip("trackio")
    # In a process of its own: trackio reads where it keeps its runs at its import. A bare package in antbee's place
    # spares it the import of torch.
    program = f"""
import socket, sys, types
sys.modules["antbee"] = types.ModuleType("antbee")
sys.modules["antbee"].__path__ = [{str(ROOT / "antbee")!r}]
def refuse(*arguments): raise SystemExit(f"a connection to {{arguments}}")
socket.socket.connect = refuse
from pathlib import Path
from antbee.training import tracking
with tracking.tracked("trackio", "frozen", {SETTINGS!r}, Path()) as log:
    for record in {RECORDS!r}:
        log(record)
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs(tracking.PROJECT, "frozen")
assert [(row["step"], row["val_accuracy"]) for row in rows] == [(1, 0.25), (2, 0.5), (3, 0.75)], rows
assert SQLiteStorage.get_run_config(tracking.PROJECT, "frozen")["learning_rate"] == 0.003
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")}
    environment |= {"HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr


def test_a_tracker_that_is_not_installed_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(TrackerError, match=r"trackio is not installed: `pip install trackio`"):
        check_tracker("trackio")


def test_jsonl_needs_no_package_and_has_every_epoch_in_a_line_as_soon_as_it_ended(tmp_path):
    check_tracker("jsonl")
    folder = tmp_path / "outputs"  # which nothing was written to yet
    with tracked("jsonl", "frozen", SETTINGS, folder) as log:
        for told, record in enumerate(RECORDS, start=1):
            log(record)
            lines = (folder / "epochs.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == [
                {"mode": "frozen", "epochs": 3, **record} for record in RECORDS[:told]
            ]
    assert [epoch["epoch"] for epoch in read_epochs(folder)] == [1, 2, 3]


def test_an_epoch_whose_line_is_still_on_its_way_is_not_read_and_none_is_where_there_is_no_file(tmp_path):
    assert read_epochs(tmp_path) == ()
    (tmp_path / "epochs.jsonl").write_text('{"mode": "frozen", "epoch": 1}\n{"mode": "frozen", "ep')
    assert [epoch["epoch"] for epoch in read_epochs(tmp_path)] == [1]


def test_both_modes_append_to_one_file_that_a_run_started_anew_empties_and_a_resumed_one_does_not(
    script_module, monkeypatch, tmp_path
):
    script = script_module(ROOT / "scripts" / "train.py")

    def finish_mode(job, foundation, mode, before, checkpoint, *, write):
        with script.tracked_epochs(job, mode) as log:
            log(RECORDS[0])

    monkeypatch.setattr(script, "finish_mode", finish_mode)
    for name in ("checkpoint", "forget", "lay_foundation", "compare_in_folders"):
        monkeypatch.setattr(script, name, lambda *job: SimpleNamespace(remove=lambda: None))

    def run(**arguments):
        told = {"mode": "both", "arch": "resnet18", "seed": 0, "output": tmp_path, "track": "jsonl", **arguments}
        job = SimpleNamespace(
            arguments=SimpleNamespace(**told),
            recipe=FAST,
            context=SimpleNamespace(is_first=True),
            weights=SimpleNamespace(name="random"),
            photos=SimpleNamespace(name="drawn", class_names=("ants", "bees")),
        )
        script.train_modes(job)
        epochs = read_epochs(tmp_path)
        assert all(epoch["epochs"] == FAST.schedule(epoch["mode"]).epochs for epoch in epochs)
        return [epoch["mode"] for epoch in epochs]

    assert run(resume=False) == ["frozen", "finetune"]
    assert run(resume=False) == ["frozen", "finetune"]
    assert run(resume=True) == ["frozen", "finetune"] * 2
    assert run(resume=False, track=None) == ["frozen", "finetune"] * 2, "nobody asked for the file"


@pytest.mark.parametrize("content", ["my notes", '{"name": "a record of something else"}\n', "[1, 2]\n"])
def test_a_file_of_that_name_which_no_run_wrote_is_not_emptied(tmp_path, content):
    path = tmp_path / EPOCHS_FILE
    path.write_text(content if content.endswith("\n") else content + "\n")
    before = path.read_text()
    with pytest.raises(TrackerError, match=r"epochs\.jsonl holds something else"):
        empty_epochs(tmp_path)
    assert path.read_text() == before
