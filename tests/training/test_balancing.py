"""Classes of different size: what the weights of a balanced loss are, and what they do."""

from dataclasses import replace

import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from training_helpers import copied, new_head, same_tensors, shortened

from antbee.training.distributed import DistributedContext
from antbee.training.features import Features
from antbee.training.modes import Run, fit_mode_without_validation, train_head
from antbee.training.recipe import FAST, Schedule, balancing_weights
from antbee.training.trainer import fit, fit_without_validation


@pytest.mark.parametrize("counts", [(7, 7), (123, 121), (90, 10), (1, 2, 300)])
def test_balancing_weights_equal_scikit_learns_and_average_to_one(counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)]).flip(0)
    weights = balancing_weights(labels)
    expected = compute_class_weight("balanced", classes=labels.unique().numpy(), y=labels.numpy())
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected.tolist())
    assert float(weights[labels].mean()) == pytest.approx(1)


def overlapping(common, rare, *, seed=0):
    """Features of a common and a rare class that are not linearly separable."""
    labels = torch.tensor([0] * common + [1] * rare)
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
    return Features(noise + 0.5 * (2 * labels[:, None] - 1), labels)


def recall(head, val, label):
    """The share of a class's examples that are predicted right."""
    return float((head(val.features).argmax(1) == label)[val.labels == label].float().mean())


def test_balancing_gives_the_rare_class_the_recall_of_the_common_one():
    train, val = overlapping(270, 14), overlapping(200, 200, seed=1)
    plain, balanced = new_head(), new_head()
    for head, weights in ((plain, None), (balanced, balancing_weights(train.labels))):
        fit_without_validation(head, train, Schedule(20, 32, 0.1, momentum=0.9), class_weights=weights)
    assert recall(plain, val, 0) - recall(plain, val, 1) > 0.3
    assert abs(recall(balanced, val, 0) - recall(balanced, val, 1)) < 0.15
    assert recall(balanced, val, 1) > recall(plain, val, 1) + 0.2


def test_the_reported_loss_is_never_weighted():
    train, val = overlapping(40, 8), overlapping(10, 10, seed=1)
    with torch.no_grad():
        expected = float(functional.cross_entropy(new_head()(train.features), train.labels))
    head = new_head()
    whole = Schedule(1, 48, 0.1, decay="step")  # one step: the loss is that of the initial weights
    fitted = fit(head, train, val, whole, class_weights=torch.tensor([0.1, 30.0]))
    assert fitted.history.last.train.loss == pytest.approx(expected)
    with torch.no_grad():
        after = float(functional.cross_entropy(head(val.features), val.labels))
    assert fitted.history.last.val.loss == pytest.approx(after)


def test_a_weighted_step_is_a_gradient_step_on_the_mean_of_the_weighted_losses():
    head, expected, points = new_head(), new_head(), overlapping(6, 2)
    weights = balancing_weights(points.labels)
    losses = functional.cross_entropy(expected(points.features), points.labels, reduction="none")
    (losses * weights[points.labels]).mean().backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.sub_(0.5 * parameter.grad)
    fit_without_validation(head, points, Schedule(1, 8, 0.5, decay="step"), class_weights=weights)
    for one, other in zip(head.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_class_weights_of_one_change_nothing():
    heads = [new_head(), new_head()]
    for head, weights in zip(heads, (None, torch.ones(2)), strict=True):
        fit_without_validation(head, overlapping(20, 10), Schedule(2, 8, 0.1), class_weights=weights)
    assert same_tensors(*map(copied, heads))


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_balanced_recipe_weighs_the_classes_of_the_training_images(mode):
    train, recipe = overlapping(20, 5), replace(shortened(FAST, 2), balanced=True)
    heads = [new_head() for _ in range(3)]
    fit_without_validation(heads[0], train, recipe.schedule(mode), class_weights=balancing_weights(train.labels))
    for head, choice in zip(heads[1:], (recipe, replace(recipe, balanced=False)), strict=True):
        fit_mode_without_validation(head, train, mode, choice, seed=0, context=DistributedContext())
    states = [*map(copied, heads)]
    assert same_tensors(states[0], states[1])
    assert not same_tensors(states[0], states[2])


def test_training_with_a_balanced_recipe_weighs_the_classes():
    train, val = overlapping(20, 5), overlapping(4, 4, seed=1)
    heads = [new_head(), new_head()]
    for head, balanced in zip(heads, (True, False), strict=True):
        run = Run(replace(shortened(FAST, 2), balanced=balanced), train, val, keep="last")
        train_head(head, train, val, run)
    expected = new_head()
    fit_without_validation(expected, train, shortened(FAST, 2).frozen, class_weights=balancing_weights(train.labels))
    assert same_tensors(copied(heads[0]), copied(expected))
    assert not same_tensors(*map(copied, heads))
