"""Interrupted runs: what they resume from, signals in the middle of a step, and checks before the start."""

import os
import signal
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from training_helpers import (
    Points,
    copied,
    misleading,
    new_head,
    new_network,
    run_of,
    same_tensors,
    shortened,
    train_on_cached_features,
)

from antbee.training import features as training_features
from antbee.training import trainer
from antbee.training.checkpoint import Checkpoint, DeferredSignals, check_space, deferring_signals, fingerprint
from antbee.training.modes import train_finetune
from antbee.training.recipe import FAST, TUTORIAL, Schedule, TrainingError
from antbee.training.trainer import fit

# ---- interrupted between two epochs ----------------------------------------------------------------------------------


class InterruptedRunError(Exception):
    pass


def interrupting(after):
    """A report that interrupts the run after an epoch."""

    def report(epoch):
        if epoch.number == after:
            raise InterruptedRunError

    return report


@pytest.fixture(scope="module", params=[train_on_cached_features, train_finetune])
def whole(request, few_photos):
    """A mode, a run, and the weights and statistics that it ends with, uninterrupted."""
    run, network = run_of(few_photos, shortened(FAST, 3)), new_network()
    request.param(network, run)
    return request.param, run, copied(network)


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_ends_with_the_same_bytes_as_an_uninterrupted_one(whole, tmp_path, after):
    train, run, state = whole
    checkpoint = Checkpoint(tmp_path / "mode.pt", "this run")
    with pytest.raises(InterruptedRunError):
        train(new_network(), replace(run, report=interrupting(after)), checkpoint)
    resumed, reported = new_network(), []
    fitted = train(resumed, replace(run, report=reported.append), checkpoint)

    assert [epoch.number for epoch in reported] == list(range(after + 1, 4))
    assert same_tensors(state, copied(resumed))
    assert len(fitted.history.epochs) == 3


def test_an_interrupted_run_that_keeps_the_last_epoch_resumes_to_the_same_weights(tmp_path):
    options = {"schedule": Schedule(4, 8, 0.1), "keep": "last"}
    whole = new_head()
    fit(whole, *misleading(), **options)
    for after in (1, 4):
        checkpoint = Checkpoint(tmp_path / f"{after}.pt", "this run")
        with pytest.raises(InterruptedRunError):
            fit(new_head(), *misleading(), **options, checkpoint=checkpoint, report=interrupting(after))
        resumed = new_head()
        fitted = fit(resumed, *misleading(), **options, checkpoint=checkpoint)
        assert same_tensors(copied(whole), copied(resumed))
        assert fitted.kept.number == 4


def test_a_finished_frozen_run_resumes_without_computing_features_again(few_photos, tmp_path, monkeypatch):
    run, checkpoint = run_of(few_photos, shortened(FAST, 2)), Checkpoint(tmp_path / "frozen.pt", "this run")
    first = train_on_cached_features(new_network(), run, checkpoint)
    monkeypatch.setattr(training_features, "compute_rows", None)  # calling it would fail
    again = train_on_cached_features(new_network(), run, checkpoint)
    assert again.history == first.history


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    fit(new_head(), Points(8), Points(4), Schedule(1, 8, 0.1), checkpoint=Checkpoint(tmp_path / "a.pt", "one run"))
    with pytest.raises(TrainingError, match=r"a\.pt belongs to a run with other flags.*without --resume"):
        Checkpoint(tmp_path / "a.pt", "another").load()


@pytest.mark.parametrize(
    ("seed", "recipe", "names"),
    [
        (1, shortened(FAST, 2), "--seed"),
        (0, shortened(FAST, 3), "--epochs"),  # of both modes
        (1, replace(FAST, balanced=True), "--epochs, --balance, --seed"),
        (0, TUTORIAL, "--recipe"),
        (0, replace(shortened(FAST, 2), channels_last=False), "channels_last"),
    ],
)
def test_what_differs_from_the_run_of_a_checkpoint_is_named(tmp_path, seed, recipe, names):
    decides = {"recipe": asdict(shortened(FAST, 2)), "seed": 0}
    Checkpoint(tmp_path / "a.pt", "one run", decides).save({"history": []})
    now = Checkpoint(tmp_path / "a.pt", "another", {"recipe": asdict(recipe), "seed": seed})
    with pytest.raises(TrainingError, match=f"a run with other {names}: repeat"):
        now.load()


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    torch.save({"fingerprint": "run", "history": []}, tmp_path / "a.pt")  # as version 0.1 wrote it
    with pytest.raises(TrainingError, match=r"another version of antbee.*without --resume"):
        Checkpoint(tmp_path / "a.pt", "run").load()


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    checkpoint.save({"history": []})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    with pytest.raises(TrainingError, match=r"a\.pt is damaged: delete it"):
        checkpoint.load()


def test_a_failed_save_leaves_the_previous_checkpoint_complete(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    checkpoint.save({"history": [1]})

    def fail(content, path):
        path.write_bytes(b"incomplete")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(TrainingError, match=r"a\.pt can't be written \(No space left on device\): free some space"):
        checkpoint.save({"history": [1, 2]})
    assert checkpoint.load()["history"] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.previous.pt"]


def test_the_previous_checkpoint_is_used_with_a_warning_where_the_last_is_damaged(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    for number in (1, 2):
        checkpoint.save({"history": [number]})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=r"a\.pt is damaged: resuming from the checkpoint before it"):
        assert checkpoint.load()["history"] == [1]


def test_resuming_with_another_thread_count_warns_that_the_weights_may_differ(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    with trainer.threads(1):
        checkpoint.save({})
    with trainer.threads(2), pytest.warns(UserWarning, match="started with threads 1 and resumes with 2"):
        checkpoint.load()


# ---- stopped in the middle of an epoch -------------------------------------------------------------------------------


class Signalled(Points):
    """Points; a signal arrives once, at the third batch of the second epoch."""

    def __init__(self, count, signals, number):
        super().__init__(count)
        self.signals, self.number = signals, number

    def batches(self, positions, epoch=0):
        for step, batch in enumerate(positions):
            if step == 2 and epoch == 2 and self.number:
                number, self.number = self.number, None
                self.signals.note(number, None)
            yield self.inputs[batch], self.labels[batch]


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_with_the_next_step(tmp_path, number, raised):
    schedule, val = Schedule(4, 8, 0.1, momentum=0.9), Points(8, seed=1)
    whole = new_head()
    expected = fit(whole, Points(40), val, schedule)
    checkpoint, signals = Checkpoint(tmp_path / "a.pt", "run"), DeferredSignals()
    with pytest.raises(raised):
        fit(new_head(), Signalled(40, signals, number), val, schedule, checkpoint=checkpoint, signals=signals)
    assert (checkpoint.load()["progress"]["epoch"], checkpoint.load()["progress"]["steps"]) == (2, 2)
    resumed = new_head()
    fitted = fit(resumed, Points(40), val, schedule, checkpoint=checkpoint)
    assert same_tensors(copied(whole), copied(resumed))
    for one, other in zip(fitted.history.epochs, expected.history.epochs, strict=True):
        assert (one.train.loss, one.train.accuracy, one.val.loss) == (
            other.train.loss,
            other.train.accuracy,
            other.val.loss,
        )


def test_fine_tuning_interrupted_between_two_steps_resumes_to_the_same_bytes(few_photos, tmp_path, monkeypatch):
    recipe = replace(FAST, finetune=replace(FAST.finetune, batch_size=3, epochs=2))
    run, whole = run_of(few_photos, recipe), new_network()
    train_finetune(whole, run)
    checkpoint, steps = Checkpoint(tmp_path / "a.pt", "run"), []

    def save(content):
        Checkpoint.save(checkpoint, content)
        steps.append(content["progress"]["steps"])
        if len(steps) == 3:
            raise InterruptedRunError

    interrupting = SimpleNamespace(save=save, load=lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY", -1.0)  # after every step
        with pytest.raises(InterruptedRunError):
            train_finetune(new_network(), run, interrupting)
    assert steps == [1, 2, 3]
    resumed = new_network()
    train_finetune(resumed, run, checkpoint)
    assert same_tensors(copied(whole), copied(resumed))


# ---- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_is_deferred_to_the_end_of_the_block_and_a_second_one_is_not(monkeypatch):
    signals, ended = DeferredSignals(), []
    monkeypatch.setattr(os, "_exit", ended.append)

    def block():
        with signals.deferred():
            signals.note(signal.SIGINT, None)
            ended.append("block")

    with pytest.raises(KeyboardInterrupt):
        block()
    with pytest.raises(SystemExit):  # as the patched os._exit returns
        signals.note(signal.SIGTERM, None)
    assert ended == ["block", 143]


def test_a_signal_whose_exception_python_drops_in_a_destructor_is_raised_at_the_next_check(capsys):
    with deferring_signals() as signals:

        class Interrupted:
            def __del__(self):
                signals.note(signal.SIGINT, None)

        Interrupted()
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        signals._number = None
    assert capsys.readouterr().err == ""


def test_signal_handlers_are_restored_after_the_run():
    before = signal.getsignal(signal.SIGINT)
    with deferring_signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_stays_ignored_if_it_was_ignored_before(ctrl_c_ignored):
    with deferring_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        signals.check()
    with pytest.raises(SystemExit), deferring_signals():
        os.kill(os.getpid(), signal.SIGTERM)


# ---- before the start ------------------------------------------------------------------------------------------------


def test_too_little_disk_space_is_an_error(tmp_path):
    check_space(tmp_path, 1000)
    with pytest.raises(TrainingError, match=r"MB free.*free some space, or choose another folder with --output"):
        check_space(tmp_path, 2**60)


def test_fingerprints_differ_between_runs_whatever_the_order_of_the_keys():
    one = fingerprint({"seed": 0, "mode": "frozen"})
    assert one == fingerprint({"mode": "frozen", "seed": 0})
    assert one != fingerprint({"mode": "frozen", "seed": 1})
