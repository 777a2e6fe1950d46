"""What the tests of the training loop share: points, heads, quick runs, and comparisons of weights."""

from dataclasses import replace

import torch
from torch import nn

from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.models.backbone import freeze_backbone, head_of
from antbee.models.weights import StartingWeights, build_network
from antbee.training.features import FeatureCache
from antbee.training.modes import Run, train_head


class Points:
    """Points of two linearly separable classes, in batches."""

    def __init__(self, count, seed=0):
        self.labels = torch.arange(count) % 2
        noise = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        self.inputs = noise + 2 * (2 * self.labels[:, None] - 1)

    def __len__(self):
        return len(self.labels)

    def batches(self, positions, epoch=0):
        return [(self.inputs[batch], self.labels[batch]) for batch in positions]


def new_head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 2)


def new_network():
    return build_network("resnet18", 2, StartingWeights("random"), seed=0)


def run_of(photos, recipe, *, seed=0, mode="finetune", **options):
    """A run on crops of 32 pixels, a tenth of a second an epoch, in float32 on every machine."""
    recipe = replace(
        recipe,
        preprocessing=replace(recipe.preprocessing, crop=32),
        finetune_sizes=(),
        precision=options.pop("precision", "float32"),
    )
    loading = LoaderOptions(layout=recipe.layout)
    return Run(
        recipe=recipe,
        train=ImageLoader(photos.train, recipe.preprocessing, recipe.augmentation(mode), seed=seed, options=loading),
        val=ImageLoader(photos.val, recipe.preprocessing, options=loading),
        seed=seed,
        **options,
    )


def train_on_cached_features(network, run, checkpoint=None):
    """Frozen mode as in the fast recipe."""
    freeze_backbone(network)
    train, val = (FeatureCache(network, images, context=run.context, what="") for images in (run.train, run.val))
    return train_head(head_of(network), train, val, run, checkpoint)


def shortened(recipe, epochs):
    return replace(
        recipe, frozen=replace(recipe.frozen, epochs=epochs), finetune=replace(recipe.finetune, epochs=epochs)
    )


def copied(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed_tensors(before, module):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def misleading():
    """Training and validation points with opposite labels: validation gets worse with every epoch."""
    train, val = Points(64), Points(32, seed=1)
    val.labels = 1 - val.labels
    return train, val
