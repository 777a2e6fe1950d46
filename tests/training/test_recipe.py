"""Recipes: the tutorial's hyperparameters, learning rates, growing crops, and the flat record."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from training_helpers import shortened

from antbee.training.recipe import FAST, TUTORIAL, Schedule, learning_rate


def test_the_tutorial_recipe_has_the_hyperparameters_of_the_tutorial():
    for schedule, momentum in ((TUTORIAL.frozen, 0.9), (TUTORIAL.finetune, 0.0)):
        assert schedule == Schedule(25, 4, 0.001, momentum=momentum, weight_decay=0.0, decay="step")
    assert (TUTORIAL.preprocessing.mean, TUTORIAL.preprocessing.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (TUTORIAL.preprocessing.resize, TUTORIAL.preprocessing.crop) == (256, 224)
    assert (TUTORIAL.smallest_crop, TUTORIAL.shorter_side, TUTORIAL.cached_features) == (0.08, None, False)
    assert (TUTORIAL.head_first, TUTORIAL.batch_norm) == (False, "adapting")


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (224,)), (2, (160, 224)), (3, (128, 160, 224)), (6, (128, 128, 160, 160, 224, 224))],
)
def test_crops_grow_to_full_size_in_the_last_epochs_of_fine_tuning(epochs, expected):
    recipe = shortened(replace(FAST, finetune_sizes=(128, 160, 224)), epochs)
    assert recipe.augmentation("finetune").sizes == expected
    assert recipe.augmentation("frozen") is None
    assert set(TUTORIAL.augmentation("frozen").sizes) == set(TUTORIAL.augmentation("finetune").sizes) == {224}


def test_the_learning_rate_of_the_tutorial_is_that_of_steplr():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.001)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for epoch in range(25):
        for step in (0, 60):
            rate = learning_rate(TUTORIAL.finetune, epoch * 61 + step, 61)
            assert rate == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


def test_the_cosine_schedule_rises_to_the_highest_rate_and_falls_to_nearly_zero():
    schedule = Schedule(epochs=5, batch_size=16, learning_rate=0.01, warmup=1.0)
    rates = [learning_rate(schedule, step, 16) for step in range(5 * 16)]
    assert rates[:16] == sorted(rates[:16])
    assert rates[16:] == sorted(rates[16:], reverse=True)
    assert max(rates) == rates[16] == 0.01
    assert 0 < rates[-1] < 0.01 / 100
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)


def test_a_flat_recipe_has_the_schedule_of_one_mode():
    flat = FAST.flat("finetune")
    assert flat["name"] == "fast"
    assert flat["epochs"] == FAST.finetune.epochs
    assert flat["batch_norm"] == "fixed"
    assert not [value for value in flat.values() if isinstance(value, dict | tuple)]


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_flat_recipe_has_its_folds_and_whether_classes_are_balanced(mode):
    for recipe in (FAST, TUTORIAL, replace(FAST, balanced=True)):
        flat = recipe.flat(mode)
        assert flat["folds"] == recipe.schedule(mode).folds
        assert flat["balanced"] is recipe.balanced
    assert FAST.flat("frozen")["folds"] != FAST.flat("finetune")["folds"]
    assert TUTORIAL.flat(mode)["folds"] == 0
