"""Several heads trained at once, each on its own subset: a step so small takes little longer for all than for one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from antbee.models.backbone import new_head, zero_head
from antbee.training.distributed import DistributedContext
from antbee.training.features import Features
from antbee.training.modes import fit_mode_without_validation
from antbee.training.recipe import Recipe
from antbee.training.trainer import shuffled_batches


class HeadStack(nn.Module):
    """Linear layers of the same size, K of them: features (B, K, C) -> logits (B, classes, K), as losses take them."""

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in heads]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads]))

    def forward(self, features: Tensor) -> Tensor:
        """A batch of logits for each head's own batch of features."""
        logits = torch.baddbmm(self.bias[:, None], features.transpose(0, 1), self.weight.mT)
        return logits.permute(1, 2, 0)


@dataclass(frozen=True)
class Subsets:
    """Subsets of the same size and class counts, each in an order of its own seed: the examples of a HeadStack."""

    features: Features
    chosen: Sequence[Tensor]  # positions, int64 (N,) for each head
    seeds: Sequence[int]
    batch_size: int

    @property
    def labels(self) -> Tensor:
        """Class indices of the first subset, as often as in all others: int64 (N,)."""
        return self.features.labels[self.chosen[0]]

    def __len__(self) -> int:
        return len(self.chosen[0])

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """For each of an epoch's batches: features (B, K, C) and labels (B, K), the same as each head has alone."""
        orders = [shuffled_batches(len(self), self.batch_size, seed, epoch) for seed in self.seeds]
        assert len(positions) == len(orders[0])  # a whole epoch: only a checkpoint goes on within one
        features, labels = self.features.features, self.features.labels
        for batches in zip(*orders, strict=True):
            rows = torch.stack([chosen[batch] for chosen, batch in zip(self.chosen, batches, strict=True)], dim=1)
            yield features[rows.to(features.device)], labels[rows]


def trained_heads(
    features: Features,
    chosen: Sequence[Tensor],
    class_count: int,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    device: torch.device,
) -> list[nn.Linear]:
    """A head trained on each subset, with its seed, as `crossvalidation.trained_head` does one after the other.

    `chosen` are positions in `features`, as many in each subset and as many of each class. Equal except for rounding.
    """
    width = features.features.shape[1]
    heads = [zero_head(width, class_count) if recipe.own_head else new_head(width, class_count, seed=s) for s in seeds]
    stack = HeadStack(heads).to(device)
    subsets = Subsets(features, chosen, seeds, recipe.frozen.batch_size)
    fit_mode_without_validation(stack, subsets, "frozen", recipe, seed=seeds[0], context=DistributedContext(device))
    for head, weight, bias in zip(heads, stack.weight, stack.bias, strict=True):
        head.load_state_dict({"weight": weight, "bias": bias})
    return [head.to(device).requires_grad_(False) for head in heads]
