"""A whole run: what it writes and says, interrupted, in several processes, without a network."""

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
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from quick_training import quickening
from safetensors.torch import load_file, save_file

import antbee
from antbee import Classifier, errors
from antbee.data.download import DownloadError
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.images import DataError, open_photo
from antbee.models import weights
from antbee.models.backbone import build_network
from antbee.models.versions import MARKER, VERSIONS, OutputError, RunFolder, list_versions, restore_version
from antbee.training import context, pipeline, steps, summary
from antbee.training import output as output_module
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
    "figures/batch.png",
    "figures/confusion.png",
    "figures/curves.png",
    "figures/photos.png",
    "history.json",
    "model.safetensors",
    "neighbours.safetensors",
}
WHERE_MODES_ERR = {"figures/mistakes.png", "figures/differences.png"}


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Three pictures of each class to learn from, two to check with; beside them weights that know nothing."""
    root = tmp_path_factory.mktemp("tiny") / "pictures"
    network = build_network("resnet18", 1000, weights.StartingWeights("random"), seed=5)
    save_file(network.state_dict(), root.parent / "untrained.safetensors")
    return write_drawn_set(root, train={"ants": 3, "bees": 3}, val={"ants": 2, "bees": 2}, longest_side=96)


def settings(root, output, **more):
    """The arguments of a quick run on the untrained weights."""
    weights = root.parent / "untrained.safetensors"
    return {"data": root, "weights": str(weights), "device": "cpu", "output": output, "batch_size": 4, **more}


def words_of(arguments):
    """The same as flags of scripts/train.py."""
    flags = {f"--{name.replace('_', '-')}": value for name, value in arguments.items()}
    words = [[flag] if value is True else [flag, str(value)] for flag, value in flags.items()]
    return [word for pair in words for word in pair]


def run_quickly(patch, *, figures=False, **arguments):
    """A run in this process with small crops, without figures."""
    for change in quickening():
        patch.setattr(*change)
    if not figures:
        patch.setattr(output_module, "figures_of", lambda *run: {})
    return antbee.train(**arguments)


@pytest.fixture
def train(monkeypatch):
    return functools.partial(run_quickly, monkeypatch)


def files_of(folder):
    """The files of a model folder, but for pictures of mistakes, which not every run makes."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - WHERE_MODES_ERR


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def whole_run(tiny_root, tmp_path_factory):
    """An uninterrupted run of both modes: its output folder, and what it printed."""
    output, lines = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patch, threads(1):
        run_quickly(patch, figures=True, **settings(tiny_root, output, epochs=3, log=lines.append))
    return output, "\n".join(lines)


@pytest.mark.parametrize(("mode", "trainable"), [("frozen", 1_026), ("finetune", 11_177_538)])
def test_one_command_trains_both_modes_and_writes_two_complete_model_folders(whole_run, mode, trainable):
    output, _ = whole_run
    assert sorted(path.name for path in output.iterdir()) == [".training", "finetune", "frozen"]
    assert {path.name for path in (output / ".training").iterdir()} == {"lock", MARKER}
    assert files_of(output / mode) == FILES
    config = Classifier.from_pretrained(output / mode, device="cpu").config
    assert (config.mode, config.label_names, config.seed) == (mode, ("ants", "bees"), 0)
    assert config.data.train == {"ants": 3, "bees": 3}
    assert config.weights.name == "untrained.safetensors"
    metrics, history = config.metrics, json.loads((output / mode / "history.json").read_text())
    assert (metrics.parameters.total, metrics.parameters.trainable) == (11_177_538, trainable)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert metrics.kept.accuracy == max(record["val_accuracy"] for record in history)
    assert metrics.last.accuracy == history[-1]["val_accuracy"]
    assert sum(map(sum, metrics.confusion)) == metrics.kept.count == 4
    for name in ("batch", "curves", "confusion"):
        Image.open(output / mode / "figures" / f"{name}.png").verify()


def test_the_run_tells_its_start_its_epochs_and_how_both_modes_compare(whole_run, tiny_root):
    output, printed = whole_run
    assert "3 train, 2 val" in printed
    assert "weights: untrained.safetensors" in printed
    assert printed.count("epoch  3") == 2
    for mode, trainable in (("frozen", "1,026"), ("finetune", "11,177,538")):
        assert re.search(rf"^{mode} +{trainable} .*% to .*% .* of 3", printed, re.MULTILINE)
    assert f"python app.py {output / 'frozen'} {output / 'finetune'} --data {tiny_root}" in printed


@pytest.fixture(scope="module")
def flagged_run(tiny_root, tmp_path_factory):
    """A run of both modes with many settings: its output folder, what it printed, what it logged to the tracker."""
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


def test_a_tracker_gets_every_epoch_of_both_modes(flagged_run):
    *_, told = flagged_run
    assert told == [("tensorboard", mode, epoch, 2) for mode in ("frozen", "finetune") for epoch in (1, 2)]


def test_the_precision_named_is_learned_in_and_told(flagged_run):
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


def test_a_card_that_somebody_edited_is_not_written_again(whole_run, train, tiny_root, tmp_path):
    output = shutil.copytree(whole_run[0], tmp_path / "copy")
    card = output / "frozen" / "README.md"
    card.write_text("my own words")
    train(**settings(tiny_root, output, epochs=3, resume=True))
    assert card.read_text() == "my own words"


def test_the_scores_that_are_written_are_those_of_the_model_that_is_written(whole_run, tiny_root):
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
    """The whole run again with finetune alone: its output folder, and the head that fine-tuning started from."""
    output, heads = tmp_path_factory.mktemp("finetuned"), []
    train_finetune = steps.train_finetune

    def note_and_train(network, run, checkpoint):
        heads.append(network.fc.weight.detach().clone())
        return train_finetune(network, run, checkpoint)

    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.setattr(steps, "train_finetune", note_and_train)
        run_quickly(patch, **settings(tiny_root, output, epochs=3, mode="finetune"))
    (head,) = heads
    return output, head


def test_fast_fine_tuning_starts_from_the_trained_head_asked_for_or_not(whole_run, finetuned_alone):
    outputs = whole_run[0], finetuned_alone[0]
    assert [(output / "frozen").exists() for output in outputs] == [True, False]
    weights = [(output / "finetune" / "model.safetensors").read_bytes() for output in outputs]
    assert weights[0] == weights[1]


def test_the_head_that_fast_fine_tuning_starts_from_is_the_frozen_modes(whole_run, finetuned_alone):
    _, head = finetuned_alone
    assert torch.equal(head, load_file(whole_run[0] / "frozen" / "model.safetensors")["fc.weight"])


def test_a_run_that_starts_anew_keeps_the_older_model_and_says_where_and_what_it_gives_up(
    train, tiny_root, tmp_path, capsys
):
    for seed in (0, 1):
        if seed:
            RunFolder(tmp_path).checkpoint("frozen").write_bytes(b"of an interrupted run")
        train(**settings(tiny_root, tmp_path, epochs=1, mode="frozen", seed=seed, replace="always"))
        assert ("--resume would have gone on with it" in (printed := capsys.readouterr().out)) == bool(seed)
    (version,) = list_versions(tmp_path)
    assert f"versions  1 in {tmp_path / VERSIONS}, kept until you delete them" in printed
    assert f"--restore {version.name} --output {tmp_path}" in printed
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 1
    assert Classifier.from_pretrained(version.folder / "frozen", device="cpu").config.seed == 0
    restore_version(tmp_path, version.name)
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 0


def test_photos_in_a_models_place_end_the_run_before_it_starts_and_stay(train, tiny_root, tmp_path):
    album = tmp_path / "food" / "frozen"
    album.mkdir(parents=True)
    (album / "soup.jpg").write_bytes(b"a photo of a soup")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"food/frozen is there and is no model of antbee's"):
            train(**settings(tiny_root, tmp_path / "food", epochs=1, mode="frozen"))
    assert [path.name for path in (tmp_path / "food").rglob("*")] == ["frozen", "soup.jpg"]


def test_skipped_files_are_listed_in_the_summary_the_config_and_the_card(train, tmp_path, capsys):
    counts = {"ants": 3, "bees": 3}
    root = write_drawn_set(tmp_path / "pictures", train=counts, val=counts, longest_side=64)
    (root / "train" / "ants" / "imageNotFound.gif").write_bytes(b"GIF89a")
    train(**settings(root, tmp_path / "out", epochs=1, mode="frozen", weights="random"))
    assert "train/ants/imageNotFound.gif" in capsys.readouterr().out
    (skipped,) = Classifier.from_pretrained(tmp_path / "out" / "frozen", device="cpu").config.data.skipped
    assert skipped.file == "train/ants/imageNotFound.gif"
    assert "imageNotFound.gif" in (tmp_path / "out" / "frozen" / "README.md").read_text()


def test_random_weights_have_no_batch_norm_statistics_worth_keeping_while_a_files_are_kept(whole_run, flagged_run):
    at_the_start = torch.zeros(64)
    for output, mode, kept in (
        (flagged_run[0], "frozen", True),
        (flagged_run[0], "finetune", False),
        (whole_run[0], "finetune", True),
    ):
        statistics = load_file(output / mode / "model.safetensors")["bn1.running_mean"]
        assert torch.equal(statistics, at_the_start) == kept


def test_the_tutorial_recipe_runs_with_its_own_preprocessing(train, tiny_root, tmp_path):
    train(**settings(tiny_root, tmp_path, epochs=1, recipe="tutorial", mode="frozen"))
    config = Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config
    assert config.preprocessing.mean == (0.5, 0.5, 0.5)
    assert config.recipe["name"] == "tutorial"


# ---- how the epoch is chosen, and what else is measured --------------------------------------------------------------


def metrics_of(output, mode="frozen"):
    return Classifier.from_pretrained(output / mode, device="cpu").config.metrics


def test_what_was_fitted_was_fitted_to_photos_left_out_and_told_with_its_effect(whole_run):
    for mode, folds in (("frozen", 3), ("finetune", 2)):  # no class has five
        calibration = metrics_of(whole_run[0], mode).calibration
        assert calibration.folds == folds
        assert calibration.temperature > 0
        assert calibration.loss_before > 0


@pytest.fixture(scope="module")
def plain_run(tiny_root, tmp_path_factory):
    """A run of the frozen mode that chooses no epoch and is not calibrated: its output folder, and its head."""
    output, heads = tmp_path_factory.mktemp("plain"), []
    fit_mode = steps.fit_mode

    def note_and_fit(network, *rest):
        fitted = fit_mode(network, *rest)
        heads.append(network.fc.weight.detach().clone())
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "fit_mode", note_and_fit)
        run_quickly(patch, **settings(tiny_root, output, epochs=3, mode="frozen", folds=0, select="last"))
    (head,) = heads
    return output, head


def test_without_folds_nothing_is_calibrated_and_the_weights_are_those_that_were_learned(plain_run, tiny_root):
    output, head = plain_run
    assert metrics_of(output).calibration is None
    assert torch.equal(head, load_file(output / "frozen" / "model.safetensors")["fc.weight"])
    assert Classifier.from_pretrained(output / "frozen", device="cpu").detector.names == tuple(
        sorted(path.relative_to(tiny_root).as_posix() for path in (tiny_root / "train").rglob("*.jpg"))
    )


def test_the_last_epoch_is_kept_where_nothing_is_to_be_chosen(plain_run):
    metrics = metrics_of(plain_run[0])
    assert metrics.kept.epoch == metrics.last.epoch == 3
    assert metrics.kept.accuracy == metrics.last.accuracy


def test_a_holdout_chooses_the_epoch_and_the_validation_photos_are_looked_at_once(
    train, drawn_root, tmp_path, monkeypatch
):
    looked, chosen_on = [], []
    computed = FeatureCache.computed.func

    def note_and_compute(cached):
        looked.append({path.parent.parent.name for path in cached.photos.split.paths})
        return computed(cached)

    def note_and_train(head, train, val, run, checkpoint=None):
        chosen_on.extend(path.parent.parent.name for path in val.photos.split.paths)
        return train_head(head, train, val, run, checkpoint)

    train_head = steps.train_head
    noting = functools.cached_property(note_and_compute)
    noting.__set_name__(FeatureCache, "computed")
    monkeypatch.setattr(FeatureCache, "computed", noting)
    monkeypatch.setattr(steps, "train_head", note_and_train)
    train(**settings(drawn_root, tmp_path, epochs=2, mode="frozen", select="holdout", weights="random"))
    config = Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config
    assert set(chosen_on) == {"train"}
    assert looked.count({"val"}) == 1
    assert config.metrics.selected_on == "a holdout"
    assert config.metrics.last is None
    assert config.data.train == {"ants": 10, "bees": 10}
    assert config.data.holdout == {"ants": 2, "bees": 2}
    assert config.metrics.kept.count == 16


def test_every_seed_of_a_repeated_run_counts_and_the_first_is_the_models(train, tiny_root, tmp_path):
    train(**settings(tiny_root, tmp_path / "two", epochs=2, mode="frozen", seeds=2, seed=5))
    metrics = metrics_of(tmp_path / "two")
    assert len(metrics.seeds.kept.values) == len(metrics.seeds.last.values) == 2
    assert metrics.seeds.kept.values[0] == metrics.kept.accuracy
    train(**settings(tiny_root, tmp_path / "one", epochs=2, mode="frozen", seed=6))
    assert metrics.seeds.kept.values[1] == metrics_of(tmp_path / "one").kept.accuracy


@pytest.fixture
def described():
    """What a run prints at its start."""

    def describe(data, **values):
        signals, distributed = DeferredSignals(), DistributedContext()
        context = prepare(data, Settings.checked(**values), distributed, signals, print)
        return "\n".join(summary.start_lines(context))

    return describe


def test_photos_on_both_sides_of_the_split_earn_a_warning_and_odd_names_stay_in_their_lines(
    described, tiny_root, tmp_path
):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    learned = next((root / "train" / "ants").iterdir())
    shutil.copy(learned, root / "val" / "ants" / "again.jpg")
    (root / "train" / "ants" / "a\n\x1b[31mb.txt").write_text("no photo")
    said = described(**settings(root, tmp_path, weights="random"))
    assert "1 of the 5 validation images are, byte for byte, among the training images" in said
    (line,) = [line for line in said.splitlines() if line.startswith("skipped")]
    assert line.startswith("skipped   train/ants/a \\x1b[31mb.txt: .txt file extension")


def test_a_class_with_many_damaged_photos_is_learned_from_only_where_that_is_asked_for(described, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    for name in ("one.jpg", "two.jpg"):
        (root / "train" / "bees" / name).write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"train/bees: 2 of 5 photos can't be used.*--allow-bad"):
        described(**settings(root, tmp_path, weights="random"))
    assert "bees: 3 train" in described(**settings(root, tmp_path, weights="random", allow_bad=True))


def test_excluded_photos_are_not_learned_from_and_the_score_is_told_with_and_without_them(
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
    assert "Without the images that were excluded" in (tmp_path / "frozen" / "README.md").read_text()


def test_a_set_worse_than_three_to_one_earns_a_warning_unless_it_is_balanced(described, tmp_path):
    root = write_drawn_set(
        tmp_path / "pictures", train={"ants": 2, "bees": 7}, val={"ants": 1, "bees": 1}, longest_side=64
    )
    arguments = settings(root, tmp_path, weights="random")
    assert "--balance weighs them the same" in described(**arguments)
    assert "--balance weighs them the same" not in described(**arguments, balance=True)


def test_the_modes_are_compared_photo_by_photo(whole_run):
    for mode in ("frozen", "finetune"):
        card = (whole_run[0] / mode / "README.md").read_text()
        assert re.search(r"Of 4 validation photos, only frozen got \d right and only finetune got \d", card)
        assert "exact test, p" in card


# ---- interrupted -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """What starts a process of its own for every line of flags, and the file with what they print on stderr."""

    process: subprocess.Popen
    errors: Path

    def ended(self, words, line="never", number=None):
        """A run's status and what it printed; it gets a signal once that has a line of a mode that starts so."""
        print(json.dumps(words), file=self.process.stdin, flush=True)
        started, mode, out = int(self.process.stdout.readline()), "", []
        for printed in map(str.strip, self.process.stdout):
            if printed.startswith("ended"):
                return int(printed.split()[1]), "\n".join(out)
            mode = printed if printed in ("frozen", "finetune") else mode
            if f"{mode} {printed}".startswith(line):
                os.kill(started, number)
            out.append(printed)
        raise AssertionError(self.errors.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Processes that run the script from another folder."""
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
    """The whole run again, killed in the frozen mode, resumed, stopped in the other by Ctrl-C, resumed and killed.

    Its flags, where it wrote, and how Ctrl-C left it: the status, what stood on stderr, and the models' folders.
    """
    output = tmp_path_factory.mktemp("interrupted")
    words = words_of(settings(tiny_root, output, epochs=3))
    assert runs.ended(words, "frozen epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    words.append("--resume")
    status, _ = runs.ended(words, "finetune epoch  1", signal.SIGINT)
    written = {path.name: files_of(path) for path in (output / ".training").iterdir() if path.is_dir()}
    assert [path.name for path in output.iterdir()] == [".training"]
    err = runs.errors.read_text()
    assert runs.ended(words, "finetune epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    return output, (status, err, written)


def test_a_run_killed_in_each_mode_is_resumed_to_the_very_weights_of_one_never_killed(
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


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(interrupted_run):
    _, (status, err, written) = interrupted_run
    assert status == 130
    assert err.strip() == "stopped: the same command with --resume goes on where it stopped"
    assert written == {"frozen": FILES}


def test_a_resumed_run_trains_no_finished_mode_again(whole_run, train, tiny_root, tmp_path, capsys):
    output = shutil.copytree(whole_run[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    train(**settings(tiny_root, output, epochs=3, resume=True))
    printed = capsys.readouterr().out
    assert "frozen: finished before" in printed
    assert "finetune: finished before" in printed
    assert "11,177,538" in printed
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


# ---- several processes -----------------------------------------------------------------------------------------------


def test_two_processes_train_what_one_does_and_only_the_first_prints_and_writes(runs, tiny_root, tmp_path, whole_run):
    words = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    words += ["--run-path", "--start-method", "fork"]  # what is imported is kept
    track = {"track": "tensorboard"} if importlib.util.find_spec("tensorboard") else {}
    words += [str(QUICK_SCRIPT), *words_of(settings(tiny_root, tmp_path, epochs=3, **track))]
    status, printed = runs.ended(words)
    assert status == 0, runs.errors.read_text()
    tracked = [path.parent.name.split()[0] for path in tmp_path.glob("tensorboard/*/events*")]
    assert sorted(tracked) == (["finetune", "frozen"] if track else [])
    assert printed.count("last epoch   seconds") == 1
    for mode in ("frozen", "finetune"):
        assert files_of(tmp_path / mode) == FILES
        one, two = (load_file(folder / mode / "model.safetensors") for folder in (whole_run[0], tmp_path))
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
        histories = [json.loads((folder / mode / "history.json").read_text()) for folder in (whole_run[0], tmp_path)]
        for left, right in zip(*histories, strict=True):
            assert right["train_loss"] == pytest.approx(left["train_loss"], rel=1e-3)
            assert right["val_accuracy"] == left["val_accuracy"]


# ---- without a network, and with what can't be used ------------------------------------------------------------------


def test_without_a_network_each_part_is_replaced_on_its_own_and_the_run_says_so_twice(
    train, tiny_root, tmp_path, monkeypatch, capsys
):
    def unreachable(parent):
        raise DownloadError("the photos can't be reached (no route to host)")

    def unreachable_weights(architecture):
        raise weights.WeightsUnreachableError("the weights can't be reached (no route to host)")

    monkeypatch.setattr(context, "hymenoptera_folder", unreachable)
    monkeypatch.setattr(context, "drawn_folder", lambda parent: tiny_root)
    monkeypatch.setattr(weights, "_imagenet_weights", unreachable_weights)
    train(output=tmp_path, epochs=1, mode="frozen", device="cpu")
    printed = " ".join(capsys.readouterr().out.replace("#", "").split())
    assert printed.count("DRAWN PICTURES stand in for the photos of ants and bees: the photos can't be reached") == 2
    assert printed.count("RANDOM WEIGHTS stand in for ImageNet's") == 2


def test_what_is_named_is_never_replaced(monkeypatch):
    def unreachable(architecture):
        raise weights.WeightsUnreachableError("can't be reached")

    monkeypatch.setattr(weights, "_imagenet_weights", unreachable)
    with pytest.raises(weights.WeightsUnreachableError):
        context.choose_weights("imagenet", "resnet18")
    assert context.choose_data("some/folder") == (Path("some/folder"), None)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"weights": "/nowhere.pth"}, "expected imagenet, random, or a .safetensors"),
        ({"device": "abacus"}, "no device 'abacus' here"),
        ({"backbone": "vgg11"}, "vgg11"),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"seed": 10**20}, "seed is 1"),
        ({"folds": 1}, "folds is 1"),
        ({"mode": "all"}, "mode is 'all'"),
    ],
)
def test_a_setting_that_can_not_be_used_is_an_error_of_one_line_before_anything_is_written(
    train, tiny_root, tmp_path, settings, remedy
):
    with pytest.raises(errors.InputError) as raised:
        train(data=tiny_root, output=tmp_path / "outputs", **settings)
    assert remedy in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.glob("outputs/f*"))


# ---- the Python API --------------------------------------------------------------------------------------------------


def test_a_run_returns_its_models_with_metrics_history_and_the_better_of_both(train, tiny_root, tmp_path):
    dataset = antbee.load_folder(tiny_root)
    run = train(**settings(tiny_root, tmp_path, epochs=1) | {"data": dataset})
    assert [model.mode for model in run.models] == ["frozen", "finetune"]
    assert [model.folder for model in run.models] == [tmp_path / "frozen", tmp_path / "finetune"]
    assert run.frozen.history.best.number == 1
    assert run.best in (run.frozen.classifier, run.finetune.classifier)
    accuracy = run.best.config.metrics.accuracy
    assert accuracy == max(model.metrics.accuracy for model in run.models)
    assert antbee.evaluate(run.best, dataset.val).accuracy == accuracy
    assert str(antbee.evaluate(run.best, dataset.val)).startswith(f"accuracy  {accuracy:.1%} (")


def test_a_run_in_another_thread_than_the_main_one_works_without_signal_handlers(train, tiny_root, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, **settings(tiny_root, tmp_path, epochs=1, mode="frozen")).result()
    assert run.finetune is None
    assert run.frozen.folder == tmp_path / "frozen"
