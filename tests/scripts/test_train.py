"""scripts/train.py as a person runs it: what it writes and says, interrupted, in several processes, offline."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from train_quickly import quickening

from antbee import Classifier
from antbee.data import download
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.images import DataError, open_photo
from antbee.models import weights
from antbee.models.backbone import build_network
from antbee.models.device import DeviceError
from antbee.models.versions import MARKER, VERSIONS, OutputError, RunFolder, versions
from antbee.training import modes, tracking
from antbee.training.checkpoint import DeferredSignals
from antbee.training.distributed import DistributedContext
from antbee.training.features import FeatureCache
from antbee.training.trainer import threads

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
QUICK_SCRIPT = ROOT / "tests" / "train_quickly.py"
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


def flags(root, output, *more):
    start = ["--data", root, "--weights", root.parent / "untrained.safetensors", "--device", "cpu"]
    return [str(word) for word in [*start, "--output", output, "--batch-size", 4, *more]]


@pytest.fixture
def script(script_module):
    """The script as a module."""
    return script_module(SCRIPT)


@pytest.fixture
def train(script, monkeypatch):
    """Runs the script in this process, without the pictures, which the whole run makes."""
    monkeypatch.setattr(script, "figures_of", lambda *job: {})
    return functools.partial(run_main, script, monkeypatch)


def run_main(script, patch, *words):
    patch.setattr(sys, "argv", [str(SCRIPT), *words])
    for change in quickening():
        patch.setattr(*change)
    script.main()


def files_of(folder):
    """The files of a model folder, but for pictures of mistakes, which not every run makes."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - WHERE_MODES_ERR


# ---- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def whole_run(load_script, tiny_root, tmp_path_factory):
    """A run of both modes that nobody interrupted: where it wrote, and what it printed."""
    output, printed = tmp_path_factory.mktemp("whole"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, threads(1), contextlib.redirect_stdout(printed):
        run_main(load_script(SCRIPT, patch), patch, *flags(tiny_root, output, "--epochs", 3))
    return output, printed.getvalue()


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
def flagged_run(load_script, tiny_root, tmp_path_factory):
    """A run of both modes with flags of many kinds: where it wrote, what it printed, what it told the tracker."""
    output, told = tmp_path_factory.mktemp("flagged"), []

    @contextlib.contextmanager
    def tracked(name, run, settings, folder):
        yield lambda record: told.append((name, run.split()[0], record["epoch"], settings["epochs"]))

    words = ["--epochs", 2, "--folds", 0, "--weights", "random", "--precision", "bfloat16", "--track", "tensorboard"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        script = load_script(SCRIPT, patch)
        patch.setattr(tracking, "tracked", tracked)
        patch.setattr(tracking, "check_tracker", lambda name: None)
        patch.setattr(script, "figures_of", lambda *job: {})
        run_main(script, patch, *flags(tiny_root, output, *words))
    return output, printed.getvalue(), told


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


def test_a_card_that_somebody_changed_is_not_written_again(script, whole_run, tmp_path):
    shutil.copytree(whole_run[0] / "frozen", tmp_path / "frozen")
    card = tmp_path / "frozen" / "README.md"
    card.write_text("my own words")
    classifier = Classifier.from_pretrained(tmp_path / "frozen", device="cpu")
    job = SimpleNamespace(arguments=SimpleNamespace(output=tmp_path), run_folder=RunFolder(tmp_path))
    script.compare_in_folders(job, [script.Outcome(classifier, torch.zeros(4, 2))])
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
def finetuned_alone(load_script, tiny_root, tmp_path_factory):
    """The whole run again, but of fine-tuning alone: where it wrote, and the head that fine-tuning began with."""
    output, heads = tmp_path_factory.mktemp("finetuned"), []
    with pytest.MonkeyPatch.context() as patch, threads(1):
        script = load_script(SCRIPT, patch)
        train_finetune = modes.train_finetune

        def note_and_train(network, run, checkpoint):
            heads.append(network.fc.weight.detach().clone())
            return train_finetune(network, run, checkpoint)

        patch.setattr(modes, "train_finetune", note_and_train)
        patch.setattr(script, "figures_of", lambda *job: {})
        run_main(script, patch, *flags(tiny_root, output, "--epochs", 3, "--mode", "finetune"))
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
        words = ["--epochs", 1, "--mode", "frozen", "--seed", seed, "--replace", "always"]
        train(*flags(tiny_root, tmp_path, *words))
        assert ("--resume would have gone on with it" in (printed := capsys.readouterr().out)) == bool(seed)
    (version,) = versions(tmp_path)
    assert f"versions  1 in {tmp_path / VERSIONS}, kept until you delete them" in printed
    assert f"--restore {version.name} --output {tmp_path}" in printed
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 1
    assert Classifier.from_pretrained(version.folder / "frozen", device="cpu").config.seed == 0
    train("--restore", version.name, "--output", str(tmp_path))
    assert "versions  1 in" in capsys.readouterr().out
    assert Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config.seed == 0


def test_photos_in_a_models_place_end_the_run_before_it_starts_and_stay(script, train, tiny_root, tmp_path):
    album = tmp_path / "food" / "frozen"
    album.mkdir(parents=True)
    (album / "soup.jpg").write_bytes(b"a photo of a soup")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"food/frozen is there and is no model of antbee's"):
            train(*flags(tiny_root, tmp_path / "food", "--epochs", 1, "--mode", "frozen"))
    assert [path.name for path in (tmp_path / "food").rglob("*")] == ["frozen", "soup.jpg"]


def test_skipped_files_are_listed_in_the_summary_the_config_and_the_card(train, tmp_path, capsys):
    counts = {"ants": 3, "bees": 3}
    root = write_drawn_set(tmp_path / "pictures", train=counts, val=counts, longest_side=64)
    (root / "train" / "ants" / "imageNotFound.gif").write_bytes(b"GIF89a")
    train(*flags(root, tmp_path / "out", "--epochs", 1, "--mode", "frozen", "--weights", "random"))
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
    train(*flags(tiny_root, tmp_path, "--epochs", 1, "--recipe", "tutorial", "--mode", "frozen"))
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
def plain_run(load_script, tiny_root, tmp_path_factory):
    """A run of the frozen mode that chooses no epoch and calibrates nothing: where it wrote, and its head."""
    output, heads = tmp_path_factory.mktemp("plain"), []
    with pytest.MonkeyPatch.context() as patch:
        script = load_script(SCRIPT, patch)
        fit_mode = script.fit_mode

        def note_and_fit(network, *rest):
            fitted = fit_mode(network, *rest)
            heads.append(network.fc.weight.detach().clone())
            return fitted

        patch.setattr(script, "fit_mode", note_and_fit)
        patch.setattr(script, "figures_of", lambda *job: {})
        words = ["--epochs", 3, "--mode", "frozen", "--folds", 0, "--select", "last"]
        run_main(script, patch, *flags(tiny_root, output, *words))
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
    train, script, drawn_root, tiny_root, tmp_path, monkeypatch
):
    looked, chosen_on = [], []
    computed = FeatureCache.computed.func

    def note_and_compute(cached):
        looked.append({path.parent.parent.name for path in cached.photos.split.paths})
        return computed(cached)

    def note_and_train(head, train, val, run, checkpoint=None):
        chosen_on.extend(path.parent.parent.name for path in val.photos.split.paths)
        return train_head(head, train, val, run, checkpoint)

    train_head = modes.train_head
    noting = functools.cached_property(note_and_compute)
    noting.__set_name__(FeatureCache, "computed")
    monkeypatch.setattr(FeatureCache, "computed", noting)
    monkeypatch.setattr(modes, "train_head", note_and_train)
    words = flags(drawn_root, tmp_path, "--epochs", 2, "--mode", "frozen", "--select", "holdout", "--weights", "random")
    train(*words)
    config = Classifier.from_pretrained(tmp_path / "frozen", device="cpu").config
    assert set(chosen_on) == {"train"}
    assert looked.count({"val"}) == 1
    assert config.metrics.selected_on == "a holdout"
    assert config.metrics.last is None
    assert config.data.train == {"ants": 10, "bees": 10}
    assert config.data.holdout == {"ants": 2, "bees": 2}
    assert config.metrics.kept.count == 16


def test_every_seed_of_a_repeated_run_counts_and_the_first_is_the_models(train, tiny_root, tmp_path):
    train(*flags(tiny_root, tmp_path / "two", "--epochs", 2, "--mode", "frozen", "--seeds", 2, "--seed", 5))
    metrics = metrics_of(tmp_path / "two")
    assert len(metrics.seeds.kept.values) == len(metrics.seeds.last.values) == 2
    assert metrics.seeds.kept.values[0] == metrics.kept.accuracy
    train(*flags(tiny_root, tmp_path / "one", "--epochs", 2, "--mode", "frozen", "--seed", 6))
    assert metrics.seeds.kept.values[1] == metrics_of(tmp_path / "one").kept.accuracy


@pytest.fixture
def described(script, monkeypatch, capsys):
    """What a run says that it starts from."""

    def describe(*words):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        arguments = script.parse_arguments(words)
        script.describe(script.prepare(arguments, DistributedContext(), DeferredSignals()))
        return capsys.readouterr().out

    return describe


def test_photos_on_both_sides_of_the_split_earn_a_warning_and_odd_names_stay_in_their_lines(
    described, tiny_root, tmp_path
):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    learned = next((root / "train" / "ants").iterdir())
    shutil.copy(learned, root / "val" / "ants" / "again.jpg")
    (root / "train" / "ants" / "a\n\x1b[31mb.txt").write_text("no photo")
    said = described(*flags(root, tmp_path, "--weights", "random"))
    assert "1 of the 5 validation photos are, byte for byte, among those to learn from" in said
    (line,) = [line for line in said.splitlines() if line.startswith("skipped")]
    assert line.startswith("skipped   train/ants/a \\x1b[31mb.txt: .txt file extension")


def test_a_class_with_many_damaged_photos_is_learned_from_only_where_that_is_asked_for(described, tiny_root, tmp_path):
    root = shutil.copytree(tiny_root, tmp_path / "pictures")
    for name in ("one.jpg", "two.jpg"):
        (root / "train" / "bees" / name).write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"train/bees: 2 of 5 photos can't be used.*--allow-bad"):
        described(*flags(root, tmp_path, "--weights", "random"))
    assert "bees: 3 train" in described(*flags(root, tmp_path, "--weights", "random", "--allow-bad"))


def test_excluded_photos_are_not_learned_from_and_the_score_is_told_with_and_without_them(
    train, tiny_root, tmp_path, capsys
):
    photos = read_folder(tiny_root)
    excluded = [photos.train.names(tiny_root)[0], photos.val.names(tiny_root)[1]]
    (tmp_path / "list.txt").write_text("# no ants\n" + "\n".join(excluded))
    words = ["--epochs", 1, "--mode", "frozen", "--exclude", tmp_path / "list.txt"]
    train(*flags(tiny_root, tmp_path, *words))
    assert "excluded  2 files" in capsys.readouterr().out
    classifier = Classifier.from_pretrained(tmp_path / "frozen", device="cpu")
    assert classifier.config.data.excluded == sorted(excluded)
    assert len(classifier.detector.names) == 5
    assert excluded[0] not in classifier.detector.names
    assert classifier.config.metrics.kept.count == 4
    assert classifier.config.metrics.cleaned.count == 3
    assert "Without the pictures that were excluded" in (tmp_path / "frozen" / "README.md").read_text()


def test_a_set_worse_than_three_to_one_earns_a_warning_unless_it_is_balanced(described, tmp_path):
    root = write_drawn_set(
        tmp_path / "pictures", train={"ants": 2, "bees": 7}, val={"ants": 1, "bees": 1}, longest_side=64
    )
    words = flags(root, tmp_path, "--weights", "random")
    assert "--balance weighs them the same" in described(*words)
    assert "--balance weighs them the same" not in described(*words, "--balance")


def test_the_modes_are_compared_photo_by_photo(whole_run):
    for mode in ("frozen", "finetune"):
        card = (whole_run[0] / mode / "README.md").read_text()
        assert re.search(r"Of 4 validation photos \d are right with frozen alone and \d with finetune alone", card)
        assert "exact test, p" in card


# ---- interrupted -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """What starts a process of its own for every line of flags, and the file with what they print on stderr."""

    context: subprocess.Popen
    errors: Path

    def ended(self, words, line="never", number=None):
        """A run's status and what it printed; it gets a signal once that has a line of a mode that starts so."""
        print(json.dumps(words), file=self.context.stdin, flush=True)
        started, mode, out = int(self.context.stdout.readline()), "", []
        for printed in map(str.strip, self.context.stdout):
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
    words = flags(tiny_root, output, "--epochs", 3)
    assert runs.ended(words, "frozen epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    words.append("--resume")
    status, _ = runs.ended(words, "finetune epoch  1", signal.SIGINT)
    written = {path.name: files_of(path) for path in (output / ".training").iterdir() if path.is_dir()}
    assert [path.name for path in output.iterdir()] == [".training"]
    err = runs.errors.read_text()
    assert runs.ended(words, "finetune epoch  2", signal.SIGKILL)[0] == -signal.SIGKILL
    return words, output, (status, err, written)


def test_a_run_killed_in_each_mode_is_resumed_to_the_very_weights_of_one_never_killed(
    interrupted_run, whole_run, train, capsys
):
    words, output, _ = interrupted_run
    with threads(1):
        train(*words)
    printed = capsys.readouterr().out
    assert "frozen: finished before" in printed
    assert "epoch  1" not in printed
    assert "epoch  3" in printed
    for mode in ("frozen", "finetune"):
        resumed, whole = (folder / mode / "model.safetensors" for folder in (output, whole_run[0]))
        assert resumed.read_bytes() == whole.read_bytes()
        assert len(json.loads((output / mode / "history.json").read_text())) == 3


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(interrupted_run):
    *_, (status, err, written) = interrupted_run
    assert status == 130
    assert err.strip() == "stopped: the same command with --resume goes on where it stopped"
    assert written == {"frozen": FILES}


def test_a_resumed_run_trains_no_finished_mode_again(whole_run, train, tiny_root, tmp_path, capsys):
    output = shutil.copytree(whole_run[0], tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    train(*flags(tiny_root, output, "--epochs", 3, "--resume"))
    printed = capsys.readouterr().out
    assert "frozen: finished before" in printed
    assert "finetune: finished before" in printed
    assert "11,177,538" in printed
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


# ---- several processes -----------------------------------------------------------------------------------------------


def test_two_processes_train_what_one_does_and_only_the_first_prints_and_writes(runs, tiny_root, tmp_path, whole_run):
    words = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    words += ["--run-path", "--start-method", "fork"]  # what is imported is kept
    track = ["--track", "tensorboard"] if importlib.util.find_spec("tensorboard") else []
    words += [str(QUICK_SCRIPT), *flags(tiny_root, tmp_path, "--epochs", 3, *track)]
    status, printed = runs.ended(words)
    assert status == 0, runs.errors.read_text()
    tracked = [path.parent.name.split()[0] for path in tmp_path.glob("tensorboard/*/events*")]
    assert sorted(tracked) == (["finetune", "frozen"] if track else [])
    assert printed.count("95% interval") == 1
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
    script, train, tiny_root, tmp_path, monkeypatch, capsys
):
    def unreachable(parent):
        raise download.DownloadError("the photos can't be reached (no route to host)")

    def unreachable_weights(architecture):
        raise weights.WeightsUnreachableError("the weights can't be reached (no route to host)")

    monkeypatch.setattr(download, "hymenoptera_folder", unreachable)
    monkeypatch.setattr(download, "drawn_folder", lambda parent: tiny_root)
    monkeypatch.setattr(weights, "_imagenet_weights", unreachable_weights)
    train("--output", str(tmp_path), "--epochs", "1", "--mode", "frozen", "--device", "cpu")
    printed = " ".join(capsys.readouterr().out.replace("#", "").split())
    assert printed.count("DRAWN PICTURES stand in for the photos of ants and bees: the photos can't be reached") == 2
    assert printed.count("RANDOM WEIGHTS stand in for ImageNet's") == 2


def test_what_a_flag_names_is_never_replaced(script, monkeypatch):
    def unreachable(architecture):
        raise weights.WeightsUnreachableError("can't be reached")

    monkeypatch.setattr(weights, "_imagenet_weights", unreachable)
    with pytest.raises(weights.WeightsUnreachableError):
        script.choose_weights("imagenet", "resnet18")
    assert script.choose_data("some/folder") == (Path("some/folder"), None)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--weights", "/nowhere.pth", "--data", "PHOTOS"], "expected imagenet, random, or a .safetensors"),
        (["--device", "abacus", "--data", "PHOTOS"], "no device 'abacus' here"),
    ],
)
def test_what_can_not_be_used_is_told_in_one_line_with_what_was_expected(train, tiny_root, words, remedy):
    with pytest.raises((DataError, weights.WeightsError, DeviceError)) as raised:
        train(*[str(tiny_root) if word == "PHOTOS" else word for word in words])
    assert remedy in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_what_can_not_be_used_ends_with_one_line_and_status_2(monkeypatch, error_of):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--data", "/nowhere", "--weights", "random"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    status, error = error_of(lambda: runpy.run_path(str(SCRIPT), run_name="__main__"))
    assert status == 2
    assert "/nowhere is not there" in error


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "0"],
        ["--lr", "nan"],
        ["--workers", "0"],
        ["--precision", "half"],
        ["--seed", "9" * 20],
        ["--arch", "vgg11"],
        ["--mode", "all"],
        ["--x"],
    ],
)
def test_a_wrong_flag_ends_with_status_2(script, words, capsys):
    with pytest.raises(SystemExit) as ended:
        script.parse_arguments(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
