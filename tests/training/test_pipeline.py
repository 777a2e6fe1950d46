"""Whole runs: their files and output, interrupted and resumed, in several processes, without a network."""

import contextlib
import functools
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import CONFIG
from huggingface_hub import ModelCard
from PIL import Image
from quick_training import NO_FIGURES, SMALL, quickening
from safetensors.torch import load_file, save_file

import antbee
from antbee import Classifier, errors
from antbee.data.download import DownloadError
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.images import DataError, open_photo
from antbee.evaluation import metrics
from antbee.models import weights
from antbee.models.config import read_config
from antbee.models.versions import MARKER, VERSIONS, OutputError, RunFolder, list_versions, restore_version
from antbee.models.weights import build_network
from antbee.training import context, crossvalidation, pipeline, steps, summary
from antbee.training.checkpoint import DeferredSignals
from antbee.training.context import Settings, prepare
from antbee.training.distributed import DistributedContext
from antbee.training.features import FeatureCache
from antbee.training.trainer import threads

ROOT = Path(__file__).resolve().parents[2]
QUICK_SCRIPT = ROOT / "tests" / "quick_training.py"
FILES = {
    "README.md",
    "config.json",
    "history.json",
    "model.safetensors",
    "neighbours.safetensors",
}
FIGURES = {"batch.png", "confusion.png", "curves.png", "photos.png"}
FIGURES_OF_MISTAKES = {"mistakes.png", "differences.png"}  # which not every run has


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Three training and two validation images of each class; its parent folder has a file of random weights."""
    root = tmp_path_factory.mktemp("tiny") / "pictures"
    network = build_network("resnet18", 1000, weights.StartingWeights("random"), seed=5)
    save_file(network.state_dict(), root.parent / "random.safetensors")
    return write_drawn_set(root, train={"ants": 3, "bees": 3}, val={"ants": 2, "bees": 2}, longest_side=96)


def settings(root, output, **more):
    """The arguments of a quick run from the random weights."""
    weights = root.parent / "random.safetensors"
    start = {"weights": str(weights), "image_size": SMALL, "device": "cpu"}
    return {"data": root, **start, "output": output, "batch_size": 4, **more}


def flags_of(arguments):
    """The same arguments as flags of scripts/train.py."""
    return [text for name, value in arguments.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def run_quickly(patch, *, figures=False, **arguments):
    """Trains in this process with small crops, by default without figures."""
    for change in quickening():
        if not (figures and change == NO_FIGURES):
            patch.setattr(*change)
    return antbee.train(**arguments)


@pytest.fixture
def train(monkeypatch):
    return functools.partial(run_quickly, monkeypatch)


def files_of(folder):
    """The files of a model folder, without the figures."""
    return {path.name for path in folder.iterdir() if path.is_file()}


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def whole_run(tiny_root, tmp_path_factory):
    """An uninterrupted run of both modes: its output folder, its log, and what `antbee.train` returns."""
    output, lines = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patch, threads(1):
        run = run_quickly(patch, figures=True, **settings(tiny_root, output, epochs=3, log=lines.append))
    return output, "\n".join(lines), run


@pytest.mark.parametrize(("mode", "trainable"), [("frozen", 1_026), ("finetune", 11_177_538)])
def test_a_run_trains_both_modes_and_writes_two_complete_model_folders(whole_run, mode, trainable):
    output, *_ = whole_run
    assert sorted(path.name for path in output.iterdir()) == [".training", "finetune", "frozen"]
    assert {path.name for path in (output / ".training").iterdir()} == {"lock", MARKER}
    assert files_of(output / mode) == FILES
    assert {path.name for path in (output / mode / "figures").iterdir()} - FIGURES_OF_MISTAKES == FIGURES
    config = Classifier.from_pretrained(output / mode, device="cpu").config
    assert (config.mode, config.label_names, config.seed) == (mode, ("ants", "bees"), 0)
    assert config.data.train == {"ants": 3, "bees": 3}
    assert config.weights.name == "random.safetensors"
    metrics, history = config.metrics, json.loads((output / mode / "history.json").read_text())
    assert (metrics.parameters.total, metrics.parameters.trainable) == (11_177_538, trainable)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert metrics.kept.accuracy == max(record["val_accuracy"] for record in history)
    assert metrics.last.accuracy == history[-1]["val_accuracy"]
    assert sum(map(sum, metrics.confusion)) == metrics.kept.count == 4
    for name in FIGURES:
        Image.open(output / mode / "figures" / name).verify()


def test_the_log_has_the_data_the_epochs_and_the_comparison_of_both_modes(whole_run, tiny_root):
    output, printed, _ = whole_run
    assert "3 train, 2 val" in printed
    assert "weights: random.safetensors" in printed
    assert printed.count("epoch  3") == 2
    for mode, trainable in (("frozen", "1,026"), ("finetune", "11,177,538")):
        assert re.search(rf"^{mode} +{trainable} .*% to .*% .* of 3", printed, re.MULTILINE)
    assert f"python app.py {output / 'frozen'} {output / 'finetune'} --data {tiny_root}" in printed
    assert re.search(r"^took +\d+ s in all$", printed, re.MULTILINE)


@pytest.fixture(scope="module")
def flagged_run(tiny_root, tmp_path_factory):
    """A run of both modes with many settings: its output folder, its log, and the epochs that the tracker got."""
    output, logged, lines = tmp_path_factory.mktemp("flagged"), [], []

    @contextlib.contextmanager
    def tracked(name, run, settings, folder):
        yield lambda record: logged.append((name, run.split()[0], record["epoch"], settings["epochs"]))

    more = {"epochs": 2, "folds": 0, "weights": "random", "precision": "bfloat16", "track": "tensorboard"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "tracked", tracked)
        patch.setattr(pipeline, "check_tracker", lambda name: None)
        run_quickly(patch, **settings(tiny_root, output, **more, log=lines.append))
    return output, "\n".join(lines), logged


def test_every_epoch_of_both_modes_is_logged_to_the_tracker(flagged_run):
    *_, logged = flagged_run
    assert logged == [("tensorboard", mode, epoch, 2) for mode in ("frozen", "finetune") for epoch in (1, 2)]


def test_the_precision_of_training_is_chosen_logged_and_saved(flagged_run):
    output, printed, _ = flagged_run
    assert "fast, bfloat16, seed 0" in printed
    for mode in ("frozen", "finetune"):
        assert Classifier.from_pretrained(output / mode).config.recipe["precision"] == "bfloat16"


def test_each_card_compares_both_modes_of_the_run(whole_run):
    rows = [
        [
            line
            for line in (whole_run[0] / mode / "README.md").read_text().splitlines()
            if line.startswith(f"| {other} ")
        ]
        for mode in ("frozen", "finetune")
        for other in ("frozen", "finetune")
    ]
    assert [len(found) for found in rows] == [1, 1, 1, 1]
    assert rows[0] == rows[2]


def test_an_edited_card_is_not_overwritten(whole_run, train, tiny_root, tmp_path):
    output = shutil.copytree(whole_run[0], tmp_path / "copy")
    card = output / "frozen" / "README.md"
    card.write_text("an edited card")
    train(**settings(tiny_root, output, epochs=3, resume=True))
    assert card.read_text() == "an edited card"


def test_the_saved_metrics_are_those_of_the_saved_model(whole_run, tiny_root):
    photos = read_folder(tiny_root)
    for mode in ("frozen", "finetune"):
        classifier = Classifier.from_pretrained(whole_run[0] / mode, device="cpu")
        predictions = classifier.predict([open_photo(path) for path in photos.val.paths])
        truth = [photos.class_names[label] for label in photos.val.labels]
        right = sum(prediction.label == name for prediction, name in zip(predictions, truth, strict=True))
        confusion = classifier.config.metrics.confusion
        assert right == classifier.config.metrics.kept.correct == confusion[0][0] + confusion[1][1]


@pytest.fixture(scope="module")
def finetuned_alone(tiny_root, tmp_path_factory):
    """The same run with finetune alone: its output folder, and the head that fine-tuning started from."""
    output, heads = tmp_path_factory.mktemp("finetuned"), []
    train_finetune = steps.train_finetune

    def record_and_train(network, run, checkpoint):
        heads.append(network.fc.weight.detach().clone())
        return train_finetune(network, run, checkpoint)

    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.setattr(steps, "train_finetune", record_and_train)
        run_quickly(patch, **settings(tiny_root, output, epochs=3, mode="finetune"))
    (head,) = heads
    return output, head


def test_fast_fine_tuning_ends_equal_with_and_without_a_frozen_model_folder(whole_run, finetuned_alone):
    outputs = whole_run[0], finetuned_alone[0]
    assert [(output / "frozen").exists() for output in outputs] == [True, False]
    weights = [(output / "finetune" / "model.safetensors").read_bytes() for output in outputs]
    assert weights[0] == weights[1]


def test_fast_fine_tuning_starts_from_the_head_of_the_frozen_mode(whole_run, finetuned_alone):
    _, head = finetuned_alone
    assert torch.equal(head, load_file(whole_run[0] / "frozen" / "model.safetensors")["fc.weight"])


def test_a_new_run_keeps_the_previous_model_and_discards_an_interrupted_run_with_a_message(
    train, tiny_root, tmp_path, capsys
):
    for seed in (0, 1):
        if seed:
            RunFolder(tmp_path).checkpoint("frozen").write_bytes(b"of an interrupted run")
        train(**settings(tiny_root, tmp_path, epochs=1, mode="frozen", seed=seed, replace="always"))
        assert ("--resume would have continued it" in (printed := capsys.readouterr().out)) == bool(seed)
    (version,) = list_versions(tmp_path)
    assert f"versions  1 in {tmp_path / VERSIONS}, kept until you delete them" in printed
    assert f"--restore {version.name} --output {tmp_path}" in printed
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 1
    assert Classifier.from_pretrained(version.folder / "frozen", device="cpu").config.seed == 0
    restore_version(tmp_path, version.name)
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 0


def test_photos_in_the_place_of_a_model_are_an_error_before_training_and_stay(train, tiny_root, tmp_path):
    album = tmp_path / "food" / "frozen"
    album.mkdir(parents=True)
    (album / "soup.jpg").write_bytes(b"a photo of a soup")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"food/frozen is there and is no model of antbee's"):
            train(**settings(tiny_root, tmp_path / "food", epochs=1, mode="frozen"))
    assert [path.name for path in (tmp_path / "food").rglob("*")] == ["frozen", "soup.jpg"]


def test_skipped_files_are_listed_in_the_log_the_config_and_the_card(train, tmp_path, capsys):
    counts = {"ants": 3, "bees": 3}
    root = write_drawn_set(tmp_path / "pictures", train=counts, val=counts, longest_side=64)
    (root / "train" / "ants" / "imageNotFound.gif").write_bytes(b"GIF89a")
    train(**settings(root, tmp_path / "out", epochs=1, mode="frozen", weights="random"))
    assert "train/ants/imageNotFound.gif" in capsys.readouterr().out
    (skipped,) = Classifier.from_pretrained(tmp_path / "out" / "frozen", device="cpu").config.data.skipped
    assert skipped.file == "train/ants/imageNotFound.gif"
    assert "imageNotFound.gif" in (tmp_path / "out" / "frozen" / "README.md").read_text()


def test_batch_norm_statistics_adapt_from_random_weights_and_are_fixed_from_a_file(whole_run, flagged_run):
    at_the_start = torch.zeros(64)
    for output, mode, kept in (
        (flagged_run[0], "frozen", True),
        (flagged_run[0], "finetune", False),
        (whole_run[0], "finetune", True),
    ):
        statistics = load_file(output / mode / "model.safetensors")["bn1.running_mean"]
        assert torch.equal(statistics, at_the_start) == kept


def test_the_tutorial_recipe_has_its_own_preprocessing(train, tiny_root, tmp_path):
    train(**settings(tiny_root, tmp_path, epochs=1, recipe="tutorial", mode="frozen"))
    config = Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config
    assert config.preprocessing.mean == (0.5, 0.5, 0.5)
    assert config.recipe["name"] == "tutorial"


# ---- choice of the epoch, and metrics --------------------------------------------------------------------------------


def metrics_of(output, mode="frozen"):
    return Classifier.from_pretrained(output / mode, device="cpu").config.metrics


def test_the_calibration_is_cross_validated_and_saved_with_its_effect(whole_run):
    for mode, folds in (("frozen", 3), ("finetune", 2)):  # the classes have three images
        calibration = metrics_of(whole_run[0], mode).calibration
        assert calibration.folds == folds
        assert calibration.temperature > 0
        assert calibration.loss_before > 0


@pytest.fixture(scope="module")
def plain_run(tiny_root, tmp_path_factory):
    """A run of the frozen mode that keeps the last epoch, uncalibrated: its output folder, and its trained head."""
    output, heads = tmp_path_factory.mktemp("plain"), []
    fit_mode = steps.fit_mode

    def record_and_fit(network, *rest):
        fitted = fit_mode(network, *rest)
        heads.append(network.fc.weight.detach().clone())
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "fit_mode", record_and_fit)
        run_quickly(patch, **settings(tiny_root, output, epochs=3, mode="frozen", folds=0, select="last"))
    (head,) = heads
    return output, head


def test_without_folds_the_trained_weights_are_saved_uncalibrated(plain_run, tiny_root):
    output, head = plain_run
    assert metrics_of(output).calibration is None
    assert torch.equal(head, load_file(output / "frozen" / "model.safetensors")["fc.weight"])
    assert Classifier.from_pretrained(output / "frozen", device="cpu").detector.names == tuple(
        sorted(path.relative_to(tiny_root).as_posix() for path in (tiny_root / "train").rglob("*.jpg"))
    )


def test_the_end_of_a_run_says_how_the_epoch_was_chosen_unless_it_is_the_last_anyway():
    def epochs(kept, of):
        score = CONFIG.metrics.kept.model_copy(update={"epoch": kept})
        return replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"kept": score, "epochs": of}))

    assert summary.selection_lines("val", [epochs(3, 3), epochs(40, 40)], 153) == []
    (line,) = summary.selection_lines("val", [epochs(3, 3), epochs(36, 40)], 153)
    assert "the best on the 153 photos it is scored on" in line
    assert summary.selection_lines("last", [epochs(3, 3)], 153) == [
        "(the last epoch was kept: the 153 photos decided nothing)"
    ]


def test_select_last_keeps_the_last_epoch(plain_run):
    metrics = metrics_of(plain_run[0])
    assert metrics.kept.epoch == metrics.last.epoch == 3
    assert metrics.kept.accuracy == metrics.last.accuracy


def test_with_a_holdout_validation_images_do_not_choose_the_epoch_and_are_evaluated_once(
    train, drawn_root, tmp_path, monkeypatch
):
    computed_on, chosen_on = [], []
    computed = FeatureCache.computed.func

    def record_and_compute(cached):
        computed_on.append({path.parent.parent.name for path in cached.photos.split.paths})
        return computed(cached)

    def record_and_train(head, train, val, run, checkpoint=None):
        chosen_on.extend(path.parent.parent.name for path in val.photos.split.paths)
        return train_head(head, train, val, run, checkpoint)

    train_head = steps.train_head
    recording = functools.cached_property(record_and_compute)
    recording.__set_name__(FeatureCache, "computed")
    monkeypatch.setattr(FeatureCache, "computed", recording)
    monkeypatch.setattr(steps, "train_head", record_and_train)
    train(**settings(drawn_root, tmp_path, epochs=2, mode="frozen", select="holdout", weights="random"))
    config = Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config
    assert set(chosen_on) == {"train"}
    assert computed_on.count({"val"}) == 1
    assert config.metrics.selected_on == "a holdout"
    assert config.metrics.last is None
    assert config.data.train == {"ants": 10, "bees": 10}
    assert config.data.holdout == {"ants": 2, "bees": 2}
    assert config.metrics.kept.count == 16


def test_every_seed_of_a_repeated_run_is_evaluated_and_the_first_gives_the_model(train, tiny_root, tmp_path):
    train(**settings(tiny_root, tmp_path / "two", epochs=2, mode="frozen", seeds=2, seed=5))
    metrics = metrics_of(tmp_path / "two")
    assert len(metrics.seeds.kept.values) == len(metrics.seeds.last.values) == 2
    assert metrics.seeds.kept.values[0] == metrics.kept.accuracy
    train(**settings(tiny_root, tmp_path / "one", epochs=2, mode="frozen", seed=6))
    assert metrics.seeds.kept.values[1] == metrics_of(tmp_path / "one").kept.accuracy


def test_the_detectors_k_is_chosen_on_the_features_of_the_training_images_alone(
    train, tiny_root, tmp_path, monkeypatch
):
    chosen_on = []

    def choose(features):
        chosen_on.append(features.features)
        return 3

    for module in (crossvalidation, steps):
        monkeypatch.setattr(module, "choose_neighbours", choose)
    run = train(**settings(tiny_root, tmp_path, epochs=1))
    assert [model.classifier.detector.neighbours for model in run.models] == [3, 3]
    # Both modes choose it on the features before fine-tuning, which frozen training leaves as they are.
    frozen = run.frozen.classifier.features([open_photo(path) for path in read_folder(tiny_root).train.paths])
    assert len(chosen_on) == 2
    for features in chosen_on:
        torch.testing.assert_close(features, frozen, rtol=1e-3, atol=1e-4)


def test_a_test_split_is_measured_once_at_the_end_and_has_its_own_row_everywhere(train, tiny_root, tmp_path):
    root, lines = shutil.copytree(tiny_root, tmp_path / "pictures"), []
    (root / "val").rename(root / "Validation")
    shutil.copytree(root / "train", root / "Test")
    shutil.rmtree(root / "Test" / "bees")
    run = train(**settings(root, tmp_path / "out", mode="frozen", epochs=1, weights="random", log=lines.append))
    log, tested = "\n".join(lines), run.frozen.metrics.test
    assert "6 train + 4 val + 3 test (Validation/ folder)" in log
    assert "warning   3 of the 3 test photos are, byte for byte, among the training or validation photos" in log
    assert "warning   no test photos of bees" in log
    assert tested.count == 3
    assert tested.correct == antbee.evaluate(run.best, root, split="test").correct
    assert f"{tested.accuracy:.1%}" in next(line for line in log.splitlines() if line.startswith("frozen  "))
    config = json.loads((run.frozen.folder / "config.json").read_text())["antbee"]
    assert (config["data"]["test"], config["metrics"]["test"]["count"]) == ({"ants": 3, "bees": 0}, 3)
    card = ModelCard.load(run.frozen.folder / "README.md")
    assert [result.dataset_split for result in card.data.eval_results] == ["test", "val", "val"]
    assert f"| test | {tested.accuracy:.1%} |" in card.text
    assert read_config(run.frozen.folder).metrics.test == tested


@pytest.mark.parametrize(("fit", "recipe"), [("squash", "fast"), ("pad", "tutorial")])
def test_a_model_sees_photos_as_it_was_trained_and_its_heat_map_covers_the_whole_photo(
    train, tiny_root, tmp_path, fit, recipe
):
    root = strips(tiny_root, tmp_path / "strips")
    values = settings(root, tmp_path / "outputs", weights="random", epochs=1, recipe=recipe)
    run = train(**values, fit=fit, mirror=False)
    for model in run.models:
        loaded = Classifier.from_pretrained(model.folder, device="cpu")
        assert (loaded.config.preprocessing.fit, loaded.config.preprocessing.crop_pct) == (fit, 1.0)
        assert loaded.config.recipe.get("mirror") in (False, None)  # None: the mode does not augment
        photos = [open_photo(path) for path in read_folder(root).val.paths]
        torch.testing.assert_close(loaded.logits(photos), model.val_logits, rtol=1e-3, atol=1e-3)
        explanation = loaded.explain(photos[0])
        darkened = np.asarray(photos[0], int) // 3
        assert explanation.heatmap.size == photos[0].size
        assert (np.asarray(explanation.heatmap, int) >= darkened).mean() > 0.95, "no part of it is left out as darkness"
    assert run.finetune.classifier.config.recipe["mirror"] is False


@pytest.fixture
def start_log():
    """The lines that a run logs before training."""

    def prepare_and_log(data, **values):
        signals, distributed = DeferredSignals(), DistributedContext()
        context = prepare(data, Settings.checked(**values), distributed, signals, print)
        return "\n".join(summary.start_lines(context))

    return prepare_and_log


def test_leaked_images_are_warned_of_and_unprintable_file_names_are_escaped(start_log, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    leaked = next((root / "train" / "ants").iterdir())
    shutil.copy(leaked, root / "val" / "ants" / "again.jpg")
    (root / "train" / "ants" / "a\n\x1b[31mb.txt").write_text("no photo")
    lines = start_log(**settings(root, tmp_path, weights="random"))
    assert "1 of the 5 validation photos are, byte for byte, among the training photos" in lines
    (line,) = [line for line in lines.splitlines() if line.startswith("skipped")]
    assert line.startswith("skipped   train/ants/a \\x1b[31mb.txt: a .txt file, not a photo")


def test_a_photo_in_two_classes_is_warned_of_with_the_names_of_one_pair_unless_it_is_excluded(
    start_log, tiny_root, tmp_path
):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    first = next((root / "train" / "ants").iterdir())
    shutil.copy(first, root / "train" / "bees" / "again.jpg")
    values = settings(root, tmp_path, weights="random")
    lines = start_log(**values)
    assert (
        "warning   1 training photo with the bytes of a photo of another class, such as train/bees/again.jpg and "
        f"train/ants/{first.name}: `python scripts/check.py {root}` names them"
    ) in lines.replace("antbee check", "python scripts/check.py")
    (tmp_path / "list.txt").write_text("train/bees/again.jpg\n")
    assert "another class" not in start_log(**values, exclude=tmp_path / "list.txt")
    assert "another class" not in start_log(**settings(tiny_root, tmp_path, weights="random"))


def strips(root, name):
    """A copy of a data set whose photos are all strips."""
    copy = shutil.copytree(root, name)
    for path in copy.rglob("*.jpg"):
        Image.open(path).convert("RGB").resize((300, 60)).save(path)
    return copy


def test_a_crop_that_sees_little_of_most_photos_is_warned_of_and_no_other_way_is(start_log, tiny_root, tmp_path):
    values = settings(strips(tiny_root, tmp_path / "strips"), tmp_path, weights="random")
    assert "the centre crop sees 15% of the area or less: --fit squash" in start_log(**values)
    for fit in ("squash", "pad"):
        lines = start_log(**values, fit=fit, mirror=False)
        assert "the centre crop" not in lines
        assert lines.endswith(f", --fit {fit}, --no-mirror")
    assert "the centre crop" not in start_log(**settings(tiny_root, tmp_path, weights="random"))


def test_photos_of_12_bits_in_16_are_warned_of(start_log, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 4096
    Image.fromarray(values).save(root / "train" / "ants" / "depth.png")
    lines = start_log(**settings(root, tmp_path, weights="random"))
    assert "1 of 7 training photos have 16 bits but use a sixteenth of their range or less" in lines
    assert "16 bits" not in start_log(**settings(tiny_root, tmp_path, weights="random"))


def test_a_class_with_many_damaged_photos_is_trained_on_only_if_allowed(start_log, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    for name in ("one.jpg", "two.jpg"):
        (root / "train" / "bees" / name).write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"train/bees: 2 of 5 photos can't be used.*--allow-bad"):
        start_log(**settings(root, tmp_path, weights="random"))
    assert "bees: 3 train" in start_log(**settings(root, tmp_path, weights="random", allow_bad=True))


def test_excluded_photos_are_not_trained_on_and_the_score_is_given_with_and_without_them(
    train, tiny_root, tmp_path, capsys
):
    photos = read_folder(tiny_root)
    excluded = [photos.train.names(tiny_root)[0], photos.val.names(tiny_root)[1]]
    (tmp_path / "list.txt").write_text("# no ants\n" + "\n".join(excluded))
    train(**settings(tiny_root, tmp_path, epochs=1, mode="frozen", exclude=tmp_path / "list.txt"))
    assert "excluded  2 files" in capsys.readouterr().out
    classifier = Classifier.from_pretrained(tmp_path / "frozen", device="cpu")
    assert classifier.config.data.excluded == sorted(excluded)
    assert len(classifier.detector.names) == 5
    assert excluded[0] not in classifier.detector.names
    assert classifier.config.metrics.kept.count == 4
    assert classifier.config.metrics.cleaned.count == 3
    assert "Without the photos that were excluded" in (tmp_path / "frozen" / "README.md").read_text()


def test_unbalanced_classes_are_warned_of_unless_they_are_balanced(start_log, tmp_path):
    root = write_drawn_set(
        tmp_path / "pictures", train={"ants": 2, "bees": 7}, val={"ants": 1, "bees": 1}, longest_side=64
    )
    arguments = settings(root, tmp_path, weights="random")
    assert "--balance weighs them the same" in start_log(**arguments)
    assert "--balance weighs them the same" not in start_log(**arguments, balance=True)


def test_the_modes_are_compared_by_mcnemars_test(whole_run):
    for mode in ("frozen", "finetune"):
        card = (whole_run[0] / mode / "README.md").read_text()
        assert re.search(r"Of 4 validation photos, \d were right with frozen alone and \d with finetune alone", card)
        assert "exact test, p" in card


# ---- interrupted -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """The program of tests/quick_training.py, which starts a process for every line of flags, and their stderr."""

    process: subprocess.Popen
    errors: Path

    def run(self, flags, signal_at=None, number=None):
        """The exit status and the output of a run; it gets a signal at the first line "mode line" that starts so."""
        print(json.dumps(flags), file=self.process.stdin, flush=True)
        pid, mode, lines = int(self.process.stdout.readline()), "", []
        for line in map(str.strip, self.process.stdout):
            if line.startswith("ended"):
                return int(line.split()[1]), "\n".join(lines)
            mode = line if line in ("frozen", "finetune") else mode
            if signal_at is not None and f"{mode} {line}".startswith(signal_at):
                os.kill(pid, number)
            lines.append(line)
        raise AssertionError(self.errors.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Processes that run scripts/train.py from another folder."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    errors = tmp_path_factory.mktemp("runs") / "errors.txt"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, str(QUICK_SCRIPT)],
            cwd="/",
            env=environment | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield Runs(process, errors)


@pytest.fixture(scope="module")
def interrupted_run(runs, tiny_root, tmp_path_factory):
    """The same run, killed in the frozen mode, resumed, stopped by Ctrl-C in the finetune mode, resumed and killed.

    Its output folder, and its state after Ctrl-C: exit status, stderr, and the files of finished models.
    """
    output = tmp_path_factory.mktemp("interrupted")
    flags = flags_of(settings(tiny_root, output, epochs=3))
    assert runs.run(flags, "frozen epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    flags.append("--resume")
    status, _ = runs.run(flags, "finetune epoch  1", signal.SIGINT)
    written = {path.name: files_of(path) for path in (output / ".training").iterdir() if path.is_dir()}
    assert [path.name for path in output.iterdir()] == [".training"]
    err = runs.errors.read_text()
    assert runs.run(flags, "finetune epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    return output, (status, err, written)


def test_a_run_killed_in_each_mode_resumes_to_the_bytes_of_an_uninterrupted_one(
    interrupted_run, whole_run, train, tiny_root, capsys
):
    output, _ = interrupted_run
    with threads(1):
        train(**settings(tiny_root, output, epochs=3, resume=True))
    printed = capsys.readouterr().out
    assert "frozen: finished before" in printed
    assert "epoch  1" not in printed
    assert "epoch  3" in printed
    for mode in ("frozen", "finetune"):
        resumed, whole = (folder / mode / "model.safetensors" for folder in (output, whole_run[0]))
        assert resumed.read_bytes() == whole.read_bytes()
        assert len(json.loads((output / mode / "history.json").read_text())) == 3


def test_ctrl_c_ends_a_run_with_a_message_on_how_to_resume(interrupted_run):
    _, (status, err, written) = interrupted_run
    assert status == 130
    assert err.strip() == "stopped: the same command with --resume goes on where it stopped"
    assert written == {"frozen": FILES}


def test_a_resumed_run_does_not_train_a_finished_mode_again(whole_run, train, tiny_root, tmp_path, capsys):
    output = shutil.copytree(whole_run[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    train(**settings(tiny_root, output, epochs=3, resume=True))
    printed = capsys.readouterr().out
    assert "frozen: finished before" in printed
    assert "finetune: finished before" in printed
    assert "11,177,538" in printed
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


# ---- several processes -----------------------------------------------------------------------------------------------


def test_two_processes_train_the_same_model_as_one_and_only_the_first_prints_and_writes(
    runs, tiny_root, tmp_path, whole_run
):
    flags = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    flags += ["--run-path", "--start-method", "fork"]  # which keeps the imports
    track = {"track": "tensorboard"} if importlib.util.find_spec("tensorboard") else {}
    flags += [str(QUICK_SCRIPT), *flags_of(settings(tiny_root, tmp_path, epochs=3, **track))]
    status, printed = runs.run(flags)
    assert status == 0, runs.errors.read_text()
    tracked = [path.parent.name.split()[0] for path in tmp_path.glob("tensorboard/*/events*")]
    assert sorted(tracked) == (["finetune", "frozen"] if track else [])
    assert printed.count("last epoch   training s") == 1
    for mode in ("frozen", "finetune"):
        assert files_of(tmp_path / mode) == FILES
        one, two = (load_file(folder / mode / "model.safetensors") for folder in (whole_run[0], tmp_path))
        temperatures = [metrics_of(folder, mode).calibration.temperature for folder in (whole_run[0], tmp_path)]
        # Fitted to six photos, it turns the rounding of their logits into thousandths of itself.
        assert temperatures[1] == pytest.approx(temperatures[0], rel=0.01)
        for state, temperature in zip((one, two), temperatures, strict=True):
            for name in ("fc.weight", "fc.bias"):
                state[name] *= temperature  # the head as it was trained
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
        histories = [json.loads((folder / mode / "history.json").read_text()) for folder in (whole_run[0], tmp_path)]
        for left, right in zip(*histories, strict=True):
            assert right["train_loss"] == pytest.approx(left["train_loss"], rel=1e-3)
            assert right["val_accuracy"] == left["val_accuracy"]


# ---- without a network, and with invalid settings --------------------------------------------------------------------


def test_without_a_network_data_and_weights_are_substituted_each_with_a_notice_at_start_and_end(
    train, tiny_root, tmp_path, monkeypatch, capsys, unreachable
):
    def no_photos(parent):
        raise DownloadError("the photos can't be reached (no route to host)")

    monkeypatch.setattr(context, "hymenoptera_folder", no_photos)
    monkeypatch.setattr(context, "drawn_folder", lambda parent: tiny_root)
    train(output=tmp_path / "out", epochs=1, mode="frozen", device="cpu", image_size=SMALL)
    printed = " ".join(capsys.readouterr().out.replace("#", "").split())
    assert printed.count("DRAWN PICTURES stand in for the photos of ants and bees: the photos can't be reached") == 2
    assert printed.count("EFFICIENTNET-LITE0, whose ImageNet weights come by pip, stands in for ResNet-18") == 2
    assert printed.count(unreachable) == 2
    config = Classifier.from_pretrained(tmp_path / "out" / "frozen", device="cpu").config
    assert (config.architecture, config.weights.name) == (weights.PACKAGED, "imagenet")
    assert config.weights.stands_in_for == "resnet18"
    assert "Another network than intended" in (tmp_path / "out" / "frozen" / "README.md").read_text()


def test_named_data_weights_and_backbones_are_never_substituted(unreachable):
    for backbone, start in ((None, "imagenet"), ("resnet18", None), ("resnet18.a1_in1k", None), ("resnet50", None)):
        with pytest.raises(weights.WeightsUnreachableError):
            weights.choose_network(backbone, start)
    assert weights.choose_network(weights.PACKAGED, None)[2] is None
    assert context.choose_data("some/other/folder") == (Path("some/other/folder"), None)


@pytest.fixture(scope="module")
def whole_frozen(tiny_root, tmp_path_factory):
    """The output folder of a finished run of one epoch in the frozen mode."""
    output = tmp_path_factory.mktemp("whole_frozen")
    with pytest.MonkeyPatch.context() as patch, threads(1):
        run_quickly(patch, **settings(tiny_root, output, epochs=1, mode="frozen"))
    return output


@pytest.mark.parametrize("is_resumable", [False, True])
def test_resuming_without_an_interrupted_run_is_said(train, tiny_root, tmp_path, capsys, is_resumable):
    if is_resumable:
        train(**settings(tiny_root, tmp_path, epochs=1, mode="frozen"))
    train(**settings(tiny_root, tmp_path, epochs=1, mode="frozen", resume=True))
    printed = capsys.readouterr().out
    assert (f"nothing to resume in {tmp_path}: starting anew" in printed) != is_resumable


ENDED = "of {0}/frozen has ended, whose learning rates were planned for --epochs 1, so one of 2 is another run"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"epochs": 2}, ENDED),
        ({"epochs": 2, "seed": 3}, "{0}/frozen is of a run with other --epochs, --seed"),
        ({"weights": "random"}, "{0}/frozen is of a run with other --weights"),
        ({"select": "last"}, "{0}/frozen is of a run with other --select"),
        ({"lr": 0.5, "balance": True}, "{0}/frozen is of a run with other --lr, --balance"),
        ({"recipe": "tutorial"}, "{0}/frozen is of a run with other --recipe"),
    ],
)
def test_a_finished_run_that_resumes_with_other_flags_starts_anew_and_says_why(
    whole_frozen, train, tiny_root, tmp_path, monkeypatch, capsys, more, words
):
    class StoppedError(Exception):
        pass

    def stop(*arguments):
        raise StoppedError

    output = shutil.copytree(whole_frozen, tmp_path / "copy")
    monkeypatch.setattr(pipeline, "starting_features", stop)
    with pytest.raises(StoppedError):
        train(**settings(tiny_root, output, **({"epochs": 1} | more), mode="frozen", resume=True))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "nothing to resume" in line]
    assert line.startswith(f"nothing to resume in {output}: ")
    assert words.format(output) in line
    assert f"starting anew; to go on from that model instead: --weights {output}/frozen" in line


def test_photos_that_differ_from_those_of_a_finished_run_are_named(
    whole_frozen, train, tiny_root, tmp_path, monkeypatch, capsys
):
    output = shutil.copytree(whole_frozen, tmp_path / "copy")
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    next((root / "train" / "ants").iterdir()).unlink()
    weights = tiny_root.parent / "random.safetensors"
    train(**settings(root, output, epochs=1, mode="frozen", resume=True) | {"weights": str(weights)})
    assert "frozen is of a run with other photos: starting anew" in capsys.readouterr().out


def test_a_damaged_model_of_a_finished_run_is_trained_again_with_a_message(
    whole_frozen, train, tiny_root, tmp_path, capsys
):
    output = shutil.copytree(whole_frozen, tmp_path / "copy")
    weights = output / "frozen" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8])
    with threads(1):
        train(**settings(tiny_root, output, epochs=1, mode="frozen", resume=True))
    assert "frozen is trained again: " in capsys.readouterr().out
    assert weights.read_bytes() == content


def test_an_interrupted_run_is_not_lengthened_and_says_what_to_do(train, tiny_root, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "epoch_line", lambda epoch: interrupt() if epoch.number == 2 else "")
        with pytest.raises(KeyboardInterrupt):
            train(**settings(tiny_root, tmp_path, epochs=3, mode="frozen"))
    with pytest.raises(errors.AntbeeError, match=r"frozen\.pt belongs to a run with other --epochs: repeat.*--weights"):
        train(**settings(tiny_root, tmp_path, epochs=4, mode="frozen", resume=True))
    run = train(**settings(tiny_root, tmp_path, epochs=3, mode="frozen", resume=True))
    assert len(run.frozen.history.epochs) == 3


def test_many_skipped_files_of_a_kind_are_counted_in_a_line_that_names_a_few(start_log, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    for number in range(25):
        (root / "train" / "ants" / f"{number:02}.txt").write_text("no photo")
    lines = start_log(**settings(root, tmp_path, weights="random"))
    files = ", ".join(f"train/ants/{number:02}.txt" for number in range(3))
    assert [line for line in lines.splitlines() if line.startswith("skipped")] == [
        f"skipped   25 times a .txt file, not a photo, such as {files}"
    ]


def test_the_next_command_names_the_photos_unless_the_page_finds_them_by_itself(train, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "home", lambda: tmp_path)
    counts = {"ants": 2, "bees": 2}
    for place in (tmp_path / "data" / "drawn", tmp_path / "mine"):
        lines = []
        data = antbee.load_folder(write_drawn_set(place, train=counts, val=counts, longest_side=64))
        more = {"data": data, "weights": "random", "device": "cpu", "epochs": 1, "mode": "frozen"}
        train(output=tmp_path / "outputs" / place.name, log=lines.append, **more)
        assert (f"--data {place}" in lines[-1]) == (place.name == "mine")


def test_a_restored_version_is_listed_with_the_accuracy_of_its_models(whole_run, tmp_path):
    version = shutil.copytree(whole_run[0], tmp_path / VERSIONS / "one")
    shutil.rmtree(version / ".training")
    placed = restore_version(tmp_path, "one")
    accuracy = metrics_of(tmp_path, "frozen").accuracy
    first, second = summary.restored_lines(tmp_path, placed)
    assert first == f"in place  {tmp_path / 'frozen'}: {accuracy:.1%} of its validation photos right"
    assert second.startswith(f"in place  {tmp_path / 'finetune'}: ")


@pytest.mark.parametrize(
    ("temperature", "loss", "remark"),
    [
        (1.5, 0.4, ""),
        (10.0, 0.4, "the largest allowed"),
        (0.25, 0.4, "the smallest allowed"),
        (1.5, 0.6, "no better on these photos"),
    ],
)
def test_a_calibration_that_tells_or_helps_little_says_so(whole_run, temperature, loss, remark):
    one = metrics.evaluate(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
    before, after = (one.model_copy(update={"loss": value}) for value in (0.5, loss))
    line = steps.calibration_line(temperature, before, after)
    assert line.startswith(f"  calibrated: temperature {temperature:.2f}")
    assert remark in line
    assert ("(" in line, ";" in line) == ("allowed" in remark, "better" in remark)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"weights": "/nowhere.pth"}, "no weights file /nowhere.pth"),
        ({"weights": "/nowhere.pth"}, "expected imagenet, random, a tag of timm's (a1_in1k, "),
        ({"weights": "nowhere"}, "no weights 'nowhere' of resnet18: expected imagenet, random, "),
        ({"device": "abacus"}, "no device 'abacus' here"),
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19': expected the name of a network of timm"),
        ({"backbone": "resnet19"}, "such as resnet18"),
        ({"backbone": "resnet18.a9"}, "no weights 'a9' of resnet18: expected imagenet, random, a tag of timm's"),
        ({"image_size": 16}, "image_size is 16"),
        ({"epochs": 0}, "epochs is 0, expected more than 0"),
        ({"lr": math.nan}, "lr is nan, expected a finite number"),
        ({"lr": "x"}, "lr is 'x', expected a valid number"),
        ({"workers": 0}, "workers is 0"),
        ({"precision": "half"}, "precision is 'half', expected 'auto', 'float32' or 'bfloat16'"),
        ({"seed": 10**20}, "expected less than 4294967296"),
        ({"folds": 1}, "folds is 1"),
        ({"mode": "all"}, "mode is 'all'"),
    ],
)
def test_an_invalid_setting_is_an_error_of_one_line_before_models_are_written(
    train, tiny_root, tmp_path, settings, remedy
):
    with pytest.raises(errors.InputError) as raised:
        train(data=tiny_root, output=tmp_path / "outputs", **settings)
    assert remedy in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.glob("outputs/f*"))


# ---- the Python API --------------------------------------------------------------------------------------------------


def test_a_run_returns_its_models_with_metrics_and_history_and_the_better_one(whole_run, tiny_root):
    output, _, run = whole_run
    assert [model.mode for model in run.models] == ["frozen", "finetune"]
    assert [model.folder for model in run.models] == [output / "frozen", output / "finetune"]
    for model in run.models:
        assert model.history.best.number == model.metrics.kept.epoch
    assert run.best in (run.frozen.classifier, run.finetune.classifier)
    accuracy = run.best.config.metrics.accuracy
    assert (
        repr(run)
        == f"<TrainResult frozen {run.frozen.metrics.accuracy:.1%}, finetune {run.finetune.metrics.accuracy:.1%}>"
    )
    assert repr(run.frozen) == f"<TrainedModel frozen: accuracy {run.frozen.metrics.accuracy:.1%}, {output / 'frozen'}>"
    assert repr(antbee.load_folder(tiny_root)) == f"<ImageDataset {tiny_root}: ants, bees; 6 train, 4 val>"
    assert repr(run.best).startswith("<Classifier resnet18 (f")
    assert repr(run.best).endswith(f"): ants, bees, accuracy {accuracy:.1%}>")
    assert accuracy == max(model.metrics.accuracy for model in run.models)
    evaluation = antbee.evaluate(run.best, antbee.load_folder(tiny_root).val)
    assert evaluation.accuracy == accuracy
    assert str(evaluation).startswith(f"accuracy  {accuracy:.1%} (")


def test_a_data_set_in_memory_is_trained_on_outside_the_main_thread_without_signal_handlers(train, tiny_root, tmp_path):
    arguments = settings(tiny_root, tmp_path, epochs=1, mode="frozen") | {"data": antbee.load_folder(tiny_root)}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, **arguments).result()
    assert run.finetune is None
    assert run.frozen.folder == tmp_path / "frozen"
