"""The training loop: its steps, the epoch that it keeps, its history, and batches that do not fit into memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from training_helpers import Points, changed_tensors, copied, misleading, new_head, same_tensors

from antbee.training import features as training_features
from antbee.training import trainer
from antbee.training.distributed import DistributedContext
from antbee.training.history import Epoch, EpochMetrics, History
from antbee.training.recipe import Schedule, TrainingError
from antbee.training.trainer import DivergedError, fit, fit_without_validation


def test_fit_learns_separable_classes():
    fitted = fit(new_head(), Points(64), Points(32, seed=1), Schedule(5, 8, 0.1))
    assert fitted.history.best.val.accuracy == 1.0
    assert fitted.history.last.train.loss < fitted.history.epochs[0].train.loss


def test_the_weights_of_the_kept_epoch_are_restored():
    head, train, val = new_head(), Points(64), Points(32, seed=1)
    train.labels, val.labels = train.labels.flip(0).sort().values, val.labels.sort().values  # random labels
    states = []
    fitted = fit(head, train, val, Schedule(6, 8, 3.0), report=lambda epoch: states.append(copied(head)))
    kept = fitted.history.best
    assert same_tensors(copied(head), states[kept.number - 1])
    loss = float(functional.cross_entropy(head(val.inputs).detach(), val.labels))
    assert kept.val.loss == pytest.approx(loss)
    assert kept.val.loss < max(epoch.val.loss for epoch in fitted.history.epochs)


def test_only_weights_that_require_gradients_are_trained():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    before = copied(module)
    fit(module, Points(16), Points(8), Schedule(1, 8, 0.1))
    assert changed_tensors(before, module) == {"1.weight", "1.bias"}


def test_every_batch_is_one_gradient_step_on_the_mean_loss():
    head, points = new_head(), Points(8)
    expected = new_head()
    loss = functional.cross_entropy(expected(points.inputs), points.labels)
    loss.backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.sub_(0.5 * parameter.grad)
    fit(head, points, Points(4), Schedule(1, 8, 0.5, decay="step"))
    for one, other in zip(head.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_diverged_training_stops_and_suggests_a_lower_learning_rate():
    points = Points(16)
    points.inputs = points.inputs * float("inf")
    message = r"training diverged: the loss is nan in epoch 1, step 1, at learning rate 0\.1; try --lr 0\.01"
    with pytest.raises(TrainingError, match=message):
        fit(new_head(), points, Points(8), Schedule(1, 8, 0.1, decay="step"))


def test_a_loss_of_nan_changes_no_weights_and_names_the_examples_of_its_batch():
    points, head, expected = Points(16), new_head(), new_head()
    batches = trainer.shuffled_batches(16, 8, 0, 1)
    fit(expected, Points(16), Points(8), Schedule(1, 8, 0.0, decay="step"))
    points.inputs[batches[1][0]] = torch.nan
    with pytest.raises(DivergedError, match="step 2") as raised:
        fit(head, points, Points(8), Schedule(1, 8, 0.0, decay="step"))
    assert set(raised.value.positions) == set(batches[1].tolist())
    assert same_tensors(copied(head), copied(expected))


@pytest.mark.parametrize(("count", "batch_size"), [(244, 4), (244, 16), (7, 3), (5, 8)])
def test_an_epoch_has_every_photo_once_in_batches_whose_sizes_differ_by_one_at_most(count, batch_size):
    batches = trainer.shuffled_batches(count, batch_size, 0, 1)
    sizes = [len(batch) for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_seed_and_epoch():
    orders = [torch.cat(trainer.shuffled_batches(50, 8, *key)).tolist() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_training_without_validation_ends_at_the_weights_of_fits_last_epoch():
    heads = [new_head(), new_head()]
    schedule = Schedule(4, 8, 0.3, momentum=0.9, weight_decay=0.01, warmup=1.0)
    options = {"seed": 3, "class_weights": torch.tensor([0.5, 2.0])}
    fit(heads[0], Points(30), Points(8, seed=1), schedule, keep="last", **options)
    fit_without_validation(heads[1], Points(30), schedule, **options)
    assert same_tensors(*map(copied, heads))
    assert not heads[1].training


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_or_the_last_epoch_is_kept_with_its_weights(keep):
    head, (train, val), states = new_head(), misleading(), []
    fitted = fit(head, train, val, Schedule(6, 8, 0.1), keep=keep, report=lambda epoch: states.append(copied(head)))
    assert (fitted.history.best.number, fitted.history.last.number) == (1, 6)
    assert fitted.kept == getattr(fitted.history, keep)
    assert same_tensors(copied(head), states[fitted.kept.number - 1])


def test_the_choice_of_the_kept_epoch_does_not_change_training():
    losses = []
    for keep in ("best", "last"):
        fitted = fit(new_head(), *misleading(), Schedule(3, 8, 0.1), keep=keep)
        losses.append([(epoch.train.loss, epoch.val.loss) for epoch in fitted.history.epochs])
    assert losses[0] == losses[1]


# ---- memory ----------------------------------------------------------------------------------------------------------


def limited_to(most):
    """A function that runs out of memory for batches of more than `most` examples."""

    def function(inputs):
        if len(inputs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs

    return function


def test_inference_splits_a_batch_that_does_not_fit_into_memory():
    points = Points(23)
    rows = training_features.compute_rows(limited_to(3), points, 4, DistributedContext())
    assert torch.equal(rows, points.inputs)
    with pytest.raises(torch.OutOfMemoryError):
        training_features.compute_rows(limited_to(0), points, 4, DistributedContext())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_training_suggests_a_smaller_batch_where_one_does_not_fit_into_memory(error):
    class Large(nn.Linear):
        def forward(self, inputs):
            raise error

    with pytest.raises(TrainingError, match=r"a batch of 8 doesn't fit into the memory of cpu: try --batch-size 4"):
        fit(Large(4, 2), Points(16), Points(8), Schedule(1, 8, 0.1))


# ---- history ---------------------------------------------------------------------------------------------------------


def history_of(*results):
    metrics = [EpochMetrics(loss, accuracy, 1.0) for accuracy, loss in results]
    return History(tuple(Epoch(number, 0.1, one, one) for number, one in enumerate(metrics, start=1)))


def test_the_best_epoch_has_the_highest_accuracy_and_of_equals_the_lowest_loss():
    assert history_of((0.8, 0.1), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (0.7, 0.01)).best.number == 3


def test_a_history_survives_its_records():
    history = history_of((0.5, 0.7), (0.9, 0.2))
    assert History.from_records(history.to_records()) == history
    assert history.to_records()[1]["val_accuracy"] == 0.9
