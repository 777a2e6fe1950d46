"""scripts/benchmark.py: processes, rounds, and the code that is measured; no test depends on a time."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from antbee.data.drawn import write_drawn_set
from scripts import benchmark


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    counts = {"ants": 2, "bees": 2}
    return write_drawn_set(tmp_path_factory.mktemp("tiny") / "pictures", train=counts, val=counts, longest_side=96)


@pytest.fixture
def bench(tiny_root):
    return benchmark.Bench(tiny_root, "random", torch.device("cpu"))


@pytest.fixture
def measure(tiny_root, tmp_path, monkeypatch):
    """Runs the script in this process, which measures in others, and returns the JSON that it wrote."""

    def run(*argv):
        common = ["--data", tiny_root, "--weights", "random", "--device", "cpu", "--json", tmp_path / "values.json"]
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, [*common, *argv])])
        benchmark.main()
        return json.loads((tmp_path / "values.json").read_text())

    return run


def test_the_json_file_has_the_values_and_the_machine(measure, capfd):
    content = measure("--only", "photos", "--rounds", 1)
    assert {"photos: decode", "photos: crop and mirror", "photos: peak memory"} <= content["values"].keys()
    assert all(len(entry["values"]) == 1 and min(entry["values"]) > 0 for entry in content["values"].values())
    assert content["machine"]["torch"] == torch.__version__
    assert "photos: decode" in capfd.readouterr().out


def test_every_round_measures_every_figure_in_a_new_process(measure, monkeypatch):
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


def test_the_tutorials_loop_yields_each_epoch_and_trains_the_backbone_when_fine_tuning_only(bench, monkeypatch):
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


def test_forward_passes_take_the_batches_in_turn(bench):
    seen = []
    run = benchmark.forward_pass(seen.append, list(bench.batches(2, 32)))
    for _ in range(5):
        run()
    assert torch.equal(seen[0], seen[4])
    assert not torch.equal(seen[0], seen[1])


def test_the_speed_up_over_the_tutorial_is_given_for_each_measured_mode():
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


def test_the_table_has_number_median_minimum_and_maximum():
    table = benchmark.table({"a: b": {"unit": "ms", "values": [3.0, 1.0, 2.0]}}).splitlines()
    assert table[1].split() == ["a:", "b", "3", "2.00", "1.00", "3.00", "ms"]


def test_a_run_is_timed_with_its_models(bench, monkeypatch):
    trained = [SimpleNamespace(mode="frozen", metrics=SimpleNamespace(seconds=1.5))]

    def train(data, **given):
        assert given.keys() == {"mode", "weights", "device", "output", "log"}
        return SimpleNamespace(models=trained)

    monkeypatch.setattr(benchmark.antbee, "train", train)
    whole, model = benchmark.fast(bench, mode="frozen")
    assert (whole.name, whole.unit) == ("wall time", "s")
    assert model == benchmark.Value("frozen training and evaluation", 1.5, "s")


def test_folder_predictions_are_measured_relative_to_the_bare_network(bench, monkeypatch):
    monkeypatch.setattr(benchmark, "forward_rate", lambda *values: 100.0)
    values = {value.name: value.value for value in benchmark.predict(bench)}
    assert values.keys() == {
        "one photo, p50",
        "one photo, p95",
        "one photo, over decoding and bare forward",
        "a folder",
        "a folder, of the bare forward",
    }
    assert values["a folder, of the bare forward"] == pytest.approx(values["a folder"])
