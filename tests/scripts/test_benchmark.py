"""scripts/benchmark.py: processes, rounds, and the code that is measured; no test depends on a time."""

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from antbee import errors
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
    pools = []

    @contextmanager
    def pool(*arguments, **options):
        pools.append([])
        yield SimpleNamespace(submit=submit)

    def submit(measure_figure, figure, bench):
        pools[-1].append(figure)
        return SimpleNamespace(result=lambda: [("a", len(pools), "s")])

    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", pool)
    content = measure("--only", "photos", "step", "seeds", "--rounds", 2)
    assert pools == [["photos"], ["step"], ["seeds"], ["photos"], ["step"]]
    assert {name: entry["values"] for name, entry in content["values"].items()} == {
        "photos: a": [1, 4],
        "step: a": [2, 5],
        "seeds: a": [3],
    }


@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        ([], set()),
        (["--against", "tutorial"], {"tutorial"}),
        (["--full"], {"seeds", "processes"}),
        (["--against", "tutorial", "--full"], {"tutorial in full", "seeds", "processes"}),
    ],
)
def test_flags_choose_the_figures(measure, monkeypatch, flags, extra):
    chosen = []
    monkeypatch.setattr(benchmark, "measure", lambda bench, figures, rounds: chosen.extend(figures) or {})
    measure(*flags)
    assert set(chosen) == extra | benchmark.FIGURES.keys() - {
        "page",
        "tutorial",
        "tutorial in full",
        "seeds",
        "processes",
    }


def test_an_error_in_a_figure_is_raised_with_its_message(measure, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", lambda count, **options: ThreadPoolExecutor(count))
    with pytest.raises(errors.AntbeeError, match="empty") as raised:
        measure("--only", "photos", "--data", tmp_path / "empty")
    passed = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - as it is passed from the process
    assert (type(passed), str(passed)) == (type(raised.value), str(raised.value))


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


@pytest.mark.parametrize("training", [False, True])
def test_bare_passes_take_random_batches_in_turn_and_have_gradients_in_training_mode_only(bench, monkeypatch, training):
    network = bench.network(tuned=training).train(training)
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert benchmark.bare_seconds(bench, network, 2, sizes=(32,)) > 0
    assert torch.equal(seen[0], seen[4])
    assert not torch.equal(seen[0], seen[1])
    assert seen[0].is_contiguous(memory_format=benchmark.FAST.layout) == training
    assert (network.fc.weight.grad is not None) == training


def test_the_speed_up_over_the_tutorial_is_given_for_each_measured_mode():
    measured = {
        "tutorial: frozen, an epoch times 25": {"unit": "s", "values": [300, 310, 290]},
        "tutorial: finetune, an epoch times 25": {"unit": "s", "values": [600]},
        "fast frozen: wall time": {"unit": "s", "values": [10]},
        "fast both: wall time": {"unit": "s", "values": [45, 40, 50]},
    }
    assert [line.split() for line in benchmark.report(measured) if "faster" in line] == [
        ["fast", "frozen", "10.0", "s", "tutorial", "300.0", "s", "30.0", "times", "faster"],
        ["fast", "both", "45.0", "s", "tutorial", "900.0", "s", "20.0", "times", "faster"],
    ]
    assert "faster" not in "".join(benchmark.report({"fast both: wall time": {"unit": "s", "values": [45]}}))


def test_the_report_has_number_median_minimum_and_maximum():
    _, line = benchmark.report({"a: b": {"unit": "ms", "values": [3.0, 1.0, 2.0]}})
    assert line.split() == ["a:", "b", "3", "2.00", "1.00", "3.00", "ms"]


def test_runs_are_timed_with_their_models_and_accuracies(bench, monkeypatch):
    seeds = []

    def train(data, **given):
        assert given.keys() == {"mode", "weights", "device", "output", "log", "seed"}
        seeds.append(given["seed"])
        metrics = SimpleNamespace(seconds=1.5, kept=SimpleNamespace(accuracy=0.75), last=None)
        return SimpleNamespace(models=[SimpleNamespace(mode="frozen", metrics=metrics)])

    monkeypatch.setattr(benchmark.antbee, "train", train)
    whole, *model = list(benchmark.fast(bench, mode="frozen", seeds=2))[:3]
    assert (whole[0], whole[2]) == ("wall time", "s")
    assert model == [("frozen training and evaluation", 1.5, "s"), ("frozen, best accuracy", 75, "%")]
    assert seeds == [0, 1]


def test_folder_predictions_are_measured_relative_to_the_bare_network(bench, monkeypatch):
    monkeypatch.setattr(benchmark, "bare_seconds", lambda *values: 0.01)
    values = {name: value for name, value, _ in benchmark.predict(bench)}
    assert values.keys() == {
        "one photo, p50",
        "one photo, p95",
        "one photo, over decoding and bare forward",
        "a folder",
        "a folder, of the bare network",
    }
    assert values["a folder, of the bare network"] == pytest.approx(values["a folder"])
