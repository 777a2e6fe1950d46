"""Trackers: every epoch arrives, nothing is imported that was not asked for, and what is missing is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from antbee import tracking

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [{"epoch": number, "train_loss": 1 / number, "val_accuracy": number / 4} for number in (1, 2, 3)]
SETTINGS = {"recipe": "fast", "learning_rate": 0.003, "shorter_side": None, "head_first": True}


def test_tensorboard_gets_every_epoch_by_its_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking.tracked("tensorboard", "frozen", SETTINGS, tmp_path) as log:
        for record in RECORDS:
            log(record)
    events = EventAccumulator(str(tmp_path / "frozen")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_accuracy")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    (text,) = events.Tensors("settings/text_summary")
    assert "learning_rate: 0.003" in str(text.tensor_proto.string_val)


def test_trackio_gets_every_epoch_by_its_number_without_a_network(tmp_path):
    pytest.importorskip("trackio")
    # In a process of its own: trackio reads where it keeps its runs at its import.
    program = f"""
import socket
def refuse(*arguments): raise SystemExit(f"a connection to {{arguments}}")
socket.socket.connect = refuse
from pathlib import Path
from antbee import tracking
with tracking.tracked("trackio", "frozen", {SETTINGS!r}, Path()) as log:
    for record in {RECORDS!r}:
        log(record)
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs(tracking.PROJECT, "frozen")
assert [(row["step"], row["val_accuracy"]) for row in rows] == [(1, 0.25), (2, 0.5), (3, 0.75)], rows
assert SQLiteStorage.get_run_config(tracking.PROJECT, "frozen")["learning_rate"] == 0.003
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")}
    environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr


def test_a_tracker_that_is_not_installed_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(tracking.TrackerError, match=r"trackio is not installed: `pip install trackio`"):
        tracking.check_tracker("trackio")
