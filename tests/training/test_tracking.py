"""Trackers: every epoch is logged, without a network, and a missing package is named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from antbee.models.versions import RunFolder
from antbee.training import pipeline, steps
from antbee.training.checkpoint import DeferredSignals
from antbee.training.context import Settings, prepare
from antbee.training.distributed import DistributedContext
from antbee.training.tracking import EPOCHS_FILE, TrackerError, check_tracker, empty_epochs, read_epochs, tracked

ROOT = Path(__file__).resolve().parents[2]
RECORDS = [{"epoch": number, "train_loss": 1 / number, "val_accuracy": number / 4} for number in (1, 2, 3)]
SETTINGS = {"mode": "frozen", "epochs": 3, "learning_rate": 0.003, "shorter_side": None, "head_first": True}


def test_tensorboard_logs_every_epoch_under_its_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked("tensorboard", "frozen", SETTINGS, tmp_path) as log:
        for record in RECORDS:
            log(record)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "frozen")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_accuracy")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    (text,) = events.Tensors("settings/text_summary")
    assert "learning_rate: 0.003" in str(text.tensor_proto.string_val)


def test_trackio_logs_every_epoch_under_its_number_without_a_network(tmp_path):
    pytest.importorskip("trackio")
    # In a process of its own, as trackio reads the folder of its runs when it is imported. A stub of the antbee package
    # saves the process the import of torch.
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


def test_a_missing_tracker_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(TrackerError, match=r"trackio is not installed: `pip install trackio`"):
        check_tracker("trackio")


def test_jsonl_needs_no_package_and_writes_a_line_after_each_epoch(tmp_path):
    check_tracker("jsonl")
    folder = tmp_path / "outputs"  # does not exist yet
    with tracked("jsonl", "frozen", SETTINGS, folder) as log:
        for count, record in enumerate(RECORDS, start=1):
            log(record)
            lines = (folder / "epochs.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == [
                {"mode": "frozen", "epochs": 3, **record} for record in RECORDS[:count]
            ]
    assert [epoch["epoch"] for epoch in read_epochs(folder)] == [1, 2, 3]


def test_no_epochs_are_read_from_an_incomplete_line_or_a_missing_file(tmp_path):
    assert read_epochs(tmp_path) == ()
    (tmp_path / "epochs.jsonl").write_text('{"mode": "frozen", "epoch": 1}\n{"mode": "frozen", "ep')
    assert [epoch["epoch"] for epoch in read_epochs(tmp_path)] == [1]


def test_both_modes_append_to_one_file_that_a_new_run_empties_and_a_resumed_run_does_not(
    drawn_root, tmp_path, monkeypatch
):
    def finish_mode(features, mode, start, checkpoint, *, write):
        with steps.tracked_epochs(features.context, mode) as log:
            log(RECORDS[0])

    monkeypatch.setattr(pipeline, "finish_mode", finish_mode)
    monkeypatch.setattr(pipeline, "starting_features", lambda context: SimpleNamespace(context=context))

    def run(**values):
        settings = Settings(weights="random", recipe="tutorial", output=tmp_path, **values)
        context = prepare(drawn_root, settings, DistributedContext(), DeferredSignals(), print)
        with RunFolder(tmp_path).locked():
            pipeline.train_modes(context)
        return [(epoch["mode"], epoch["epochs"]) for epoch in read_epochs(tmp_path)]

    both = [("frozen", 25), ("finetune", 25)]
    assert run(track="jsonl") == both
    assert run(track="jsonl") == both
    assert run(track="jsonl", resume=True) == both * 2
    assert run() == both * 2, "the file was not asked for"


@pytest.mark.parametrize("content", ["my notes", '{"name": "a record of something else"}\n', "[1, 2]\n"])
def test_a_file_that_holds_something_else_than_epochs_is_not_emptied(tmp_path, content):
    path = tmp_path / EPOCHS_FILE
    path.write_text(content if content.endswith("\n") else content + "\n")
    before = path.read_text()
    with pytest.raises(TrackerError, match=r"epochs\.jsonl holds something else"):
        empty_epochs(tmp_path)
    assert path.read_text() == before
