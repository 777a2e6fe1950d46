"""Examples to learn from: labelled photos, or their features, computed once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torchvision.models import ResNet
from tqdm import tqdm

from antbee.data.loading import GPUImageLoader, ImageLoader
from antbee.models.backbone import feature_map, fuse_conv_bn, pooled
from antbee.models.device import Precision, autocast
from antbee.training.distributed import DistributedContext

# Photos at a time, where nothing is learned: a CPU's caches hold no more, a GPU is idle with less.
EVALUATION_BATCH = {"cpu": 16, "cuda": 256}


class Examples(Protocol):
    """What `fit` learns from: labelled photos, or their cached features."""

    @property
    def labels(self) -> Tensor:
        """The class index of each: int64 (N,)."""
        ...

    def __len__(self) -> int: ...

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 inputs (B, ...) and int64 labels (B,)."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of photos and their labels: what a head learns from, the same in every epoch."""

    features: Tensor  # float32 (N, C)
    labels: Tensor  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,)."""
        return [(self.features[batch.to(self.features.device)], self.labels[batch]) for batch in positions]

    def subset(self, positions: Tensor) -> "Features":
        """Some of them, by position."""
        return Features(self.features[positions.to(self.features.device)], self.labels[positions])


class FeatureCache:
    """The backbone's features of every photo, computed when they are first asked for.

    A frozen backbone would compute the same ones again in every epoch; processes compute shards and exchange them.
    """

    def __init__(
        self, network: ResNet, photos: ImageLoader | GPUImageLoader, *, context: DistributedContext, what: str
    ) -> None:
        self.network = network
        self.photos = photos
        self.context = context
        self.what = what
        self.labels = photos.labels  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def computed(self) -> Features:
        """All of them, on the process's device."""
        return compute_features(self.network, self.photos, self.context, what=self.what)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,); the same in every epoch."""
        return self.computed.batches(positions)


def compute_features(
    network: ResNet, photos: Examples, context: DistributedContext, *, what: str, precision: Precision = "float32"
) -> Features:
    """The backbone's features of all photos, computed now, on the process's device."""
    folded = fuse_conv_bn(network)

    def features(images: Tensor) -> Tensor:
        with autocast(precision, context.device):
            return pooled(folded, feature_map(folded, images))

    return Features(compute_rows(features, photos, network.fc.in_features, context, what=what), photos.labels)


def evaluation_batch(device: torch.device) -> int:
    """Photos that a device computes at a time, where nothing is learned."""
    return EVALUATION_BATCH.get(device.type, 64)


def compute_rows(
    function: Callable[[Tensor], Tensor],
    examples: Examples,
    width: int,
    context: DistributedContext,
    *,
    epoch: int = 0,
    what: str = "",
) -> Tensor:
    """`function` of every example, in order: float32 (N, width).

    Rows are written by position, so that no number of processes counts an example twice.
    """
    rows = torch.zeros(len(examples), width, device=context.device)
    batches = torch.arange(len(examples)).split(evaluation_batch(context.device) * context.count)
    mine = [share for batch in batches if len(share := context.share(batch))]
    with torch.inference_mode():
        for share, (inputs, _) in zip(
            mine, progress_bar(examples.batches(mine, epoch), what, len(mine), context), strict=True
        ):
            rows[share.to(context.device)] = _in_parts(function, inputs, context.device).float()
    return context.total(rows)


def _in_parts(function: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device) -> Tensor:
    """`function` of a batch, in halves of it where the whole does not fit into the device's memory."""
    try:
        return function(inputs.to(device))
    except (RuntimeError, MemoryError) as error:
        if len(inputs) < 2 or not is_out_of_memory(error):
            raise
    # Out here, where the exception keeps nothing of the whole in memory any more.
    return torch.cat([_in_parts(function, half, device) for half in inputs.tensor_split(2)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on CPUs torch has no exception of its own for it."""
    said = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], what: str, total: int, context: DistributedContext) -> Iterable[Item]:
    """The items, under a progress bar where somebody watches; short work shows none."""
    silent = None if context.is_first else True  # None: only where the error stream is no terminal
    return tqdm(items, what, total, leave=False, delay=0.5, disable=silent)
