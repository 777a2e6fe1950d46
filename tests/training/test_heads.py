"""Heads that are trained several at once are those that are trained alone."""

from dataclasses import replace

import pytest
import torch

from antbee.training.crossvalidation import learning_curve, logits_of, trained_head
from antbee.training.features import Features
from antbee.training.heads import trained_heads
from antbee.training.recipe import FAST

CPU = torch.device("cpu")
RECIPE = replace(FAST, frozen=replace(FAST.frozen, epochs=3, batch_size=8, learning_rate=0.1))


def examples(count: int, *, seed: int, classes: int = 3) -> Features:
    """Features of classes that overlap, so that some examples are predicted wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = torch.randn(count, 12, generator=generator)
    features[torch.arange(count), labels] += 1.5
    return Features(features, labels)


def subsets(count: int, size: int) -> list[torch.Tensor]:
    """Four subsets with the same number of each of three classes."""
    of_class = [torch.arange(label, count, 3) for label in range(3)]
    orders = [torch.randperm(count // 3, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    return [torch.cat([members[order[: size // 3]] for members in of_class]).sort().values for order in orders]


@pytest.mark.parametrize("own_head", [True, False])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("size", [6, 21, 60])
def test_heads_trained_at_once_are_those_trained_alone_with_their_own_subset_and_seed(size, own_head, balanced):
    train, recipe = examples(60, seed=0), replace(RECIPE, own_head=own_head, balanced=balanced)
    chosen, seeds = subsets(60, size), [5, 6, 7, 9]
    together = trained_heads(train, chosen, 3, recipe, seeds=seeds, device=CPU)
    for head, positions, seed in zip(together, chosen, seeds, strict=True):
        alone = trained_head(train.subset(positions), 3, recipe, seed=seed, device=CPU)
        torch.testing.assert_close(head.state_dict(), alone.state_dict(), rtol=1e-5, atol=1e-6)
        assert not any(weights.requires_grad for weights in head.parameters())
    assert not torch.allclose(together[0].weight, together[1].weight)


def test_the_last_point_of_the_learning_curve_is_that_of_heads_trained_alone():
    train, val = examples(60, seed=0), examples(90, seed=1)
    last = learning_curve(train, val, RECIPE, seed=3, device=CPU)[-1]
    alone = [trained_head(train, 3, RECIPE, seed=seed, device=CPU) for seed in range(3, 3 + len(last.accuracies))]
    accuracies = [float((logits_of(head, val).argmax(1) == val.labels).float().mean()) for head in alone]
    assert last.accuracies == pytest.approx(accuracies)
    assert 0.4 < min(accuracies) < 1
