"""Loads the images of a split in batches, from files or from GPU memory.

`ImageLoader` is data set and loader in one: `crop` is the `__getitem__` of a torch `Dataset`, `batches` the loop over a
`DataLoader` with the caller's batch sampler. Threads decode, not processes: Pillow releases the GIL, and threads share
the cache.
"""

import os
import random
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from antbee.data.folder import Split
from antbee.data.images import DataError, open_photo
from antbee.data.seeds import derived_seed
from antbee.data.transforms import Augmentation, CropBox, Preprocessing, pixels_of

LONGEST_SIDE = 896  # pixels; four times the side of a crop; larger images are shrunk to it in GPU memory
LARGEST_SET = 4 * 2**30  # bytes of GPU memory that a data set may take


class ImageCache:
    """Decoded RGB images by key, up to a number of bytes. Nothing is evicted; what no longer fits is not kept."""

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.free = limit  # bytes
        self._kept: dict[Hashable, Tensor] = {}  # uint8 (H, W, 3): Pillow would take a fourth byte for each pixel
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Image.Image | None:
        """The image stored under a key, or None."""
        pixels = self._kept.get(key)
        return None if pixels is None else Image.fromarray(pixels.numpy())

    def put(self, key: Hashable, picture: Image.Image) -> None:
        """Stores an RGB image if it fits and the key is new."""
        if key in self._kept or 3 * picture.width * picture.height > self.free:
            return
        pixels = pixels_of([picture])[0].permute(1, 2, 0)
        with self._lock:
            if pixels.nbytes <= self.free and key not in self._kept:
                self.free -= pixels.nbytes
                self._kept[key] = pixels


@dataclass(frozen=True)
class LoaderOptions:
    """How images are loaded. It changes speed and memory, never the values of a batch."""

    device: torch.device = torch.device("cpu")  # of the batches
    layout: torch.memory_format = torch.contiguous_format  # of the batches
    workers: int = 1  # threads that decode and crop
    prefetch: int = 0  # batches that are prepared while the network computes
    cache: ImageCache = field(default_factory=ImageCache)

    @classmethod
    def for_device(cls, device: torch.device, *, workers: int | None = None, processes: int = 1) -> "LoaderOptions":
        """The options for a network on `device`, in one of `processes` processes on this machine.

        With a GPU, the cores prefetch. On a CPU, nothing is prefetched: the network needs all cores, and threads that
        decode meanwhile would slow down both.
        """
        if device.type == "cpu":
            return cls(device, workers=workers or torch.get_num_threads())
        return cls(device, workers=workers or max(1, (os.cpu_count() or 1) // processes), prefetch=4)


class ImageLoader:
    """Batches of a split's images: random crops with an `augmentation`, the evaluation crop without one.

    The random crop of an image depends on (seed, epoch, position) alone. A run is therefore repeatable to the bit, can
    be resumed, and does not depend on batches or threads.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        options: LoaderOptions | None = None,
    ) -> None:
        self.split = split
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.options = options or LoaderOptions()  # not a default value: its cache would be shared
        self.labels = torch.tensor(split.labels)  # int64 (N,), on the CPU

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields a batch for each tensor of positions, which is int64 (B,).

        A batch is normalised images, float32 (B, 3, H, W) on the options' device, and labels, int64 (B,) on the CPU.
        """
        with ThreadPoolExecutor(self.options.workers) as pool:
            pending: deque[tuple[Tensor, list[Future[Image.Image]]]] = deque()
            for batch in positions:
                pending.append((batch, [pool.submit(self.crop, position, epoch) for position in batch.tolist()]))
                if len(pending) > self.options.prefetch:
                    yield self._collated(*pending.popleft())
            while pending:
                yield self._collated(*pending.popleft())

    def _collated(self, batch: Tensor, crops: Sequence[Future[Image.Image]]) -> tuple[Tensor, Tensor]:
        pixels = pixels_of([crop.result() for crop in crops]).contiguous(memory_format=self.options.layout)
        on_cuda = self.options.device.type == "cuda"
        if on_cuda:
            pixels = pixels.pin_memory()  # otherwise the copy would wait for the step before it
        pixels = pixels.to(self.options.device, non_blocking=on_cuda)  # uint8: a quarter of float32's bytes
        return self.preprocessing.normalise(pixels), self.labels[batch]

    def crop(self, position: int, epoch: int) -> Image.Image:
        """The crop of an image in an epoch, as an RGB image of the network's input size."""
        picture = self.picture(position)
        if self.augmentation is None:
            return picture
        return self.crop_box(position, picture.size, epoch).cut(picture, self.augmentation.size(epoch))

    def picture(self, position: int) -> Image.Image:
        """What is the same in every epoch, from the cache: the image to crop at random, or the evaluation crop.

        Raises DataError, naming the file, if it can't be read any more.
        """
        path = self.split.paths[position]
        key = _cache_key(path, self.augmentation or self.preprocessing)
        if (cached := self.options.cache.get(key)) is not None:
            return cached
        try:
            if self.augmentation is None:
                picture = self.preprocessing.cropped(open_photo(path))
            else:
                picture = self.augmentation.source(open_photo(path, shorter_side=self.augmentation.shorter_side))
        except DataError as error:
            raise DataError(f"{path} has changed since the folder was read: {error}") from error
        self.options.cache.put(key, picture)
        return picture

    def crop_box(self, position: int, size: tuple[int, int], epoch: int) -> CropBox:
        """The random crop in an epoch of an image of `size`, width and height."""
        assert self.augmentation is not None
        return self.augmentation.crop_box(*size, random.Random(derived_seed(self.seed, "look", epoch, position)))


def _cache_key(path: Path, transform: Preprocessing | Augmentation) -> Hashable:
    """The path with all parameters that decide the pixels of `ImageLoader.picture`."""
    if isinstance(transform, Preprocessing):
        return path, transform.crop, transform.resize, transform.interpolation, transform.fit, transform.padding
    return path, transform.shorter_side, transform.padding


def cache_photo(
    cache: ImageCache, path: Path, photo: Image.Image, transforms: Iterable[Preprocessing | Augmentation]
) -> None:
    """Caches what `ImageLoader.picture` would read for each transform, from a photo that is decoded already."""
    for transform in transforms:
        if isinstance(transform, Preprocessing):
            cache.put(_cache_key(path, transform), transform.cropped(photo))
        # A larger photo is shrunk by its decoder, which gives other pixels.
        elif transform.shorter_side is None or min(photo.size) <= transform.shorter_side:
            cache.put(_cache_key(path, transform), transform.source(photo))


def choose_loader(loader: ImageLoader) -> "ImageLoader | GPUImageLoader":
    """The loader itself, or a `GPUImageLoader` of it if it is for a CUDA device and the images fit for certain."""
    if loader.options.device.type == "cuda" and len(loader) * 3 * LONGEST_SIDE**2 <= LARGEST_SET:
        return GPUImageLoader(loader)
    return loader


class GPUImageLoader:
    """The batches of an `ImageLoader` from images that are all kept on its device, and randomly cropped there.

    For small data sets, whose decoding on the CPU would keep a GPU waiting. The crops are the same with two exceptions:
    pixels may differ by one or two of 255 from Pillow's, which rounds between its two passes, and images larger than
    LONGEST_SIDE are shrunk to it first.
    """

    def __init__(self, loader: ImageLoader) -> None:
        self.loader = loader
        self.labels = loader.labels  # int64 (N,), on the CPU
        device = loader.options.device
        with ThreadPoolExecutor(loader.options.workers) as pool:
            images = list(pool.map(self._pixels_at, range(len(loader))))
        self._sizes = [(image.shape[2], image.shape[1]) for image in images]  # width, height
        width, height = (max(sides) for sides in zip(*self._sizes, strict=True))
        # uint8 (N, 3, max height, max width), each image at the top left, padded with zeros
        self._pixels = torch.zeros(len(images), 3, height, width, dtype=torch.uint8, device=device)
        for padded, image in zip(self._pixels, images, strict=True):
            padded[:, : image.shape[1], : image.shape[2]] = image.to(device)
        self._labels = loader.labels.to(device)

    def _pixels_at(self, position: int) -> Tensor:
        picture = self.loader.picture(position)
        if max(picture.size) > LONGEST_SIDE:
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return pixels_of([picture])[0]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields what `ImageLoader.batches` yields, with the labels on the device too."""
        loader = self.loader
        for batch in positions:
            chosen = batch.to(self._pixels.device, non_blocking=True)
            pixels = self._pixels[chosen]
            if loader.augmentation is not None:
                boxes = [loader.crop_box(position, self._sizes[position], epoch) for position in batch.tolist()]
                pixels = crop_batch(pixels, boxes, loader.augmentation.size(epoch))
            pixels = pixels.contiguous(memory_format=loader.options.layout)
            yield loader.preprocessing.normalise(pixels), self._labels[chosen]


def crop_batch(pixels: Tensor, crops: Sequence[CropBox], size: int) -> Tensor:
    """Crops and resizes each image to `size` x `size`: uint8 (B, 3, H, W) -> uint8 (B, 3, size, size).

    Resizing is linear in each direction: one matrix product for the rows, one for the columns.
    """
    _, _, height, width = pixels.shape
    boxes = torch.tensor([crop.box for crop in crops], dtype=torch.float32)
    mirrored = torch.tensor([crop.mirrored for crop in crops])
    left, top, right, bottom = boxes.to(pixels.device, non_blocking=True).unbind(1)
    across = _resize_weights(left, right, width, size)
    across = torch.where(mirrored.to(pixels.device, non_blocking=True)[:, None, None], across.flip(1), across)
    down = _resize_weights(top, bottom, height, size)
    resized = down[:, None] @ (pixels.float() @ across.transpose(1, 2)[:, None])
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _resize_weights(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """The weight of each of `length` pixels of a line in each of `size` new pixels: float32 (B, size, length).

    The new pixels cover `start` to `end`, float32 (B,), whole pixels of the line. The filter is Pillow's bilinear one:
    a triangle that widens when the line is shrunk, so that all pixels are averaged (antialiasing).
    """
    step = ((end - start) / size)[:, None, None]
    old = torch.arange(length, device=start.device) + 0.5
    new = start[:, None, None] + (torch.arange(size, device=start.device) + 0.5)[:, None] * step
    weight = (1 - ((old - new) / step.clamp(min=1)).abs()).clamp(min=0)
    weight = weight * ((old > start[:, None, None]) & (old < end[:, None, None]))
    return weight / weight.sum(2, keepdim=True)
