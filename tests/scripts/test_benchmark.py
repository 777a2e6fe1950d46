"""scripts/benchmark.py measures what it says, figure by figure; how fast anything is, no test asks."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from antbee.data.drawn import write_drawn_set

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    counts = {"ants": 2, "bees": 2}
    return write_drawn_set(tmp_path_factory.mktemp("tiny") / "pictures", train=counts, val=counts, longest_side=96)


@pytest.fixture
def benchmark(script_module):
    """The script as a module."""
    return script_module(SCRIPT)


@pytest.fixture
def bench(benchmark, tiny_root):
    return benchmark.Bench(tiny_root, "random", torch.device("cpu"))


@pytest.fixture
def measure(benchmark, tiny_root, tmp_path, monkeypatch):
    """Runs the script in this process, which measures in others, and gives what it wrote."""

    def run(*words):
        start = ["--data", tiny_root, "--weights", "random", "--device", "cpu", "--json", tmp_path / "values.json"]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [*start, *words])])
        benchmark.main()
        return json.loads((tmp_path / "values.json").read_text())

    return run


def test_a_figure_is_measured_in_a_process_and_written_with_the_machine_it_was_measured_on(measure, capfd):
    content = measure("--only", "photos", "--rounds", 1)
    assert {"photos: decode", "photos: crop and mirror", "photos: peak memory"} <= content["values"].keys()
    assert all(len(entry["values"]) == 1 and min(entry["values"]) > 0 for entry in content["values"].values())
    assert content["machine"]["torch"] == torch.__version__
    assert "photos: decode" in capfd.readouterr().out


def test_figures_take_turns_in_every_round_each_time_in_a_process_of_its_own(benchmark, measure, monkeypatch):
    started = []

    def ended(command, **options):
        started.append(command[command.index("--figure") + 1])
        return SimpleNamespace(stdout=json.dumps([{"name": "a", "value": len(started), "unit": "s"}]))

    monkeypatch.setattr(benchmark.subprocess, "run", ended)
    content = measure("--only", "photos", "step", "--rounds", 2)
    assert started == ["photos", "step", "photos", "step"]
    assert {name: entry["values"] for name, entry in content["values"].items()} == {
        "photos: a": [1, 3],
        "step: a": [2, 4],
    }


def test_the_tutorials_own_loop_yields_an_epoch_at_a_time_and_learns_by_mode(benchmark, bench, monkeypatch):
    networks = []
    build = benchmark.Bench.network
    monkeypatch.setattr(benchmark.Bench, "network", lambda self: networks.append(build(self)) or networks[-1])
    for mode in ("frozen", "finetune"):
        before = build(bench).conv1.weight
        (epoch,) = benchmark.tutorial_epochs(bench, mode, 1)
        seconds, accuracy = epoch
        assert seconds > 0
        assert accuracy in {number / 4 for number in range(5)}
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
