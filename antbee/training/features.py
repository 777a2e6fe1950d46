"""Training examples, images or their cached features; and inference over all examples of a split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from antbee.data.loading import GPUImageLoader, ImageLoader
from antbee.models.backbone import Network, feature_map, fuse_conv_bn, head_of, pooled
from antbee.models.device import Precision, autocast
from antbee.training.distributed import DistributedContext

# Images per batch of inference: a CPU's caches hold no more, a GPU is idle with fewer.
EVALUATION_BATCH = {"cpu": 16, "cuda": 256}


class Examples(Protocol):
    """Labelled training examples: images, or their cached features."""

    @property
    def labels(self) -> Tensor:
        """Class indices: int64 (N,)."""
        ...

    def __len__(self) -> int: ...

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 inputs (B, ...) and int64 labels (B,)."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of images and their labels, the same in every epoch."""

    features: Tensor  # float32 (N, C)
    labels: Tensor  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,)."""
        return [(self.features[batch.to(self.features.device)], self.labels[batch]) for batch in positions]

    def subset(self, positions: Tensor) -> "Features":
        """The examples at these positions."""
        return Features(self.features[positions.to(self.features.device)], self.labels[positions])


class FeatureCache:
    """The backbone's features of every image, computed on first use.

    A frozen backbone would compute the same features in every epoch. Several processes share the computation.
    """

    def __init__(
        self, network: Network, photos: ImageLoader | GPUImageLoader, *, context: DistributedContext, what: str
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
        """The features of all images, on the device of this process."""
        return compute_features(self.network, self.photos, self.context, what=self.what)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: features (B, C) and labels (B,); the same in every epoch."""
        return self.computed.batches(positions)


def compute_features(
    network: Network, photos: Examples, context: DistributedContext, *, what: str, precision: Precision = "float32"
) -> Features:
    """The backbone's features of all images, on the device of this process."""
    ((image, _),) = photos.batches([torch.zeros(1, dtype=torch.int64)])
    fused = fuse_conv_bn(network, image.to(context.device))

    def features(images: Tensor) -> Tensor:
        with autocast(precision, context.device):
            return pooled(fused, feature_map(fused, images))

    return Features(compute_rows(features, photos, head_of(network).in_features, context, what=what), photos.labels)


def evaluation_batch(device: torch.device) -> int:
    """The batch size of inference on a device."""
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
    """Applies `function` to every example: float32 (N, width), in their order.

    Rows are written by position, so that no example counts twice, whatever the number of processes.
    """
    rows = torch.zeros(len(examples), width, device=context.device)
    batches = torch.arange(len(examples)).split(evaluation_batch(context.device) * context.count)
    mine = [share for batch in batches if len(share := context.share(batch))]
    with torch.inference_mode():
        for share, (inputs, _) in zip(
            mine, progress_bar(examples.batches(mine, epoch), what, len(mine), context), strict=True
        ):
            rows[share.to(context.device)] = _apply(function, inputs, context.device).float()
    return context.total(rows)


def _apply(function: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device) -> Tensor:
    """Applies `function` to a batch, or to its halves where the batch does not fit into the device's memory."""
    try:
        return function(inputs.to(device))
    except (RuntimeError, MemoryError) as error:
        if len(inputs) < 2 or not is_out_of_memory(error):
            raise
    # Outside the handler: the exception keeps the batch's tensors alive.
    return torch.cat([_apply(function, half, device) for half in inputs.tensor_split(2)])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on CPUs torch raises a plain RuntimeError."""
    messages = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in messages)


Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], what: str, total: int, context: DistributedContext) -> Iterable[Item]:
    """Iterates with a progress bar, in a terminal or a notebook; work of under half a second shows none."""
    silent = None if context.is_first else True  # None: silent where the error stream is no terminal
    return tqdm(items, what, total, leave=False, delay=0.5, disable=silent)
