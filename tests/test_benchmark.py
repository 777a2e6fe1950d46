"""scripts/benchmark.py measures what it says, figure by figure; how fast anything is, no test asks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from antbee.drawn import write_drawn_set

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "benchmark.py"


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    counts = {"ants": 3, "bees": 3}
    return write_drawn_set(tmp_path_factory.mktemp("tiny") / "pictures", train=counts, val=counts, longest_side=96)


@pytest.fixture
def benchmark(script_module):
    """The script as a module."""
    return script_module(SCRIPT)


@pytest.fixture
def bench(benchmark, tiny_root):
    return benchmark.Bench(tiny_root, "random", torch.device("cpu"))


def test_a_figure_is_measured_in_rounds_and_written_with_the_machine_it_was_measured_on(tiny_root, tmp_path):
    words = ["--data", tiny_root, "--weights", "random", "--device", "cpu", "--only", "photos", "--rounds", 2]
    words += ["--json", tmp_path / "values.json"]
    ended = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    content = json.loads((tmp_path / "values.json").read_text())
    assert {"photos: decode", "photos: crop and mirror", "photos: peak memory"} <= content["values"].keys()
    assert all(len(entry["values"]) == 2 and min(entry["values"]) > 0 for entry in content["values"].values())
    assert content["machine"]["torch"] == torch.__version__
    assert "photos: decode" in ended.stdout


def test_the_tutorials_own_loop_yields_an_epoch_at_a_time_and_learns_by_mode(benchmark, bench, monkeypatch):
    networks = []
    build = benchmark.Bench.network
    monkeypatch.setattr(benchmark.Bench, "network", lambda self: networks.append(build(self)) or networks[-1])
    for mode in ("frozen", "finetune"):
        before = build(bench).conv1.weight
        (epoch,) = benchmark.tutorial_epochs(bench, mode, 1)
        seconds, accuracy = epoch
        assert seconds > 0
        assert accuracy in {number / 6 for number in range(7)}
        assert torch.equal(networks[-1].conv1.weight, before) == (mode == "frozen")


def test_bare_passes_see_other_images_each_time(benchmark, bench):
    seen = []
    answer = benchmark.answering(seen.append, list(bench.ready(2, 32)))
    for _ in range(5):
        answer()
    assert torch.equal(seen[0], seen[4])
    assert not torch.equal(seen[0], seen[1])


def test_fast_is_compared_with_the_tutorial_mode_by_mode(benchmark):
    measured = {
        "tutorial: frozen, an epoch times 25": {"unit": "s", "values": [300, 310, 290]},
        "tutorial: finetune, an epoch times 25": {"unit": "s", "values": [600]},
        "fast frozen: wall time": {"unit": "s", "values": [10]},
        "fast both: wall time": {"unit": "s", "values": [45, 40, 50]},
    }
    lines = [line.split() for line in benchmark.conclusions(measured)]
    assert lines[1:] == [
        ["frozen", "tutorial", "300.0", "s", "fast", "10.0", "s", "30.0", "times", "faster"],
        ["both", "tutorial", "900.0", "s", "fast", "45.0", "s", "20.0", "times", "faster"],
    ]
    assert not list(benchmark.conclusions({"fast both: wall time": {"unit": "s", "values": [45]}}))


def test_the_table_tells_number_median_and_spread(benchmark):
    table = benchmark.table({"a: b": {"unit": "ms", "values": [3.0, 1.0, 2.0]}}).splitlines()
    assert table[1].split() == ["a:", "b", "3", "2.00", "1.00", "3.00", "ms"]
