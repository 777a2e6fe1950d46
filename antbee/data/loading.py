"""A split's photos as batches of images, from the disk or from a GPU's memory.

Decoding and cutting photos one by one on the CPU would keep a GPU waiting, epoch after epoch, for the same few photos:
a small set lies whole in its memory, where random crops and mirror images are cut, a batch at a time.
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


class ImageCache:
    """Decoded pictures that are kept for the next time they are asked for, as far as memory allows."""

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.left = limit  # bytes
        self._kept: dict[Hashable, Tensor] = {}
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Image.Image | None:
        """The picture of that key, if it is kept."""
        pixels = self._kept.get(key)
        return None if pixels is None else Image.fromarray(pixels.numpy())

    def keep(self, key: Hashable, picture: Image.Image) -> None:
        """Keeps a picture where there is room; those that came before stay."""
        if key in self._kept or 3 * picture.width * picture.height > self.left:
            return
        pixels = pixels_of([picture])[0].permute(1, 2, 0)  # three bytes a pixel; in Pillow they are four
        with self._counting:
            if pixels.nbytes <= self.left and key not in self._kept:
                self.left -= pixels.nbytes
                self._kept[key] = pixels


@dataclass(frozen=True)
class LoaderOptions:
    """How photos get to the network: a matter of time and memory alone, never of what the network sees."""

    device: torch.device = torch.device("cpu")  # where the images are wanted
    layout: torch.memory_format = torch.contiguous_format  # of the images
    workers: int = 1  # threads that decode and crop; Pillow lets them run beside each other
    ahead: int = 0  # batches prepared while the network computes
    cache: ImageCache = field(default_factory=ImageCache)

    @classmethod
    def for_device(cls, device: torch.device, *, workers: int | None = None, processes: int = 1) -> "LoaderOptions":
        """What suits a network on `device`, for one of so many `processes` on this machine.

        A GPU leaves the cores to the photos, some batches ahead. A CPU needs them itself, all of them, as soon as a
        batch is there: another thread beside them would keep them waiting for each other.
        """
        if device.type == "cpu":
            return cls(device, workers=workers or torch.get_num_threads())
        return cls(device, workers=workers or max(1, (os.cpu_count() or 1) // processes), ahead=4)


class ImageLoader:
    """A split's photos as batches of images: random crops with an `augmentation`, the evaluation's crop without one.

    A photo's random crop and mirror image hang on (seed, epoch, position) alone, so that a run repeats bit for bit,
    goes on after an interruption as if there had been none, and does not change with how the photos are loaded.
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
        self.options = options or LoaderOptions()  # a memory of its own
        self.labels = torch.tensor(split.labels)  # int64 (N,)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 images (B, 3, H, W) on the device wanted, and int64 labels (B,)."""
        with ThreadPoolExecutor(self.options.workers) as pool:
            begun: deque[tuple[Tensor, list[Future[Image.Image]]]] = deque()
            for batch in positions:
                begun.append((batch, [pool.submit(self.crop, position, epoch) for position in batch.tolist()]))
                if len(begun) > self.options.ahead:
                    yield self._finished(*begun.popleft())
            while begun:
                yield self._finished(*begun.popleft())

    def _finished(self, batch: Tensor, crops: Sequence[Future[Image.Image]]) -> tuple[Tensor, Tensor]:
        pixels = pixels_of([crop.result() for crop in crops]).contiguous(memory_format=self.options.layout)
        on_cuda = self.options.device.type == "cuda"
        if on_cuda:
            pixels = pixels.pin_memory()  # otherwise the copy would wait for the step before it
        pixels = pixels.to(self.options.device, non_blocking=on_cuda)  # as bytes: a quarter of what floats take
        return self.preprocessing.normalise(pixels), self.labels[batch]

    def crop(self, position: int, epoch: int) -> Image.Image:
        """What the network sees of a photo in an epoch, as a picture."""
        picture = self.picture(position)
        if self.augmentation is None:
            return picture
        return self.crop_box(position, picture.size, epoch).cut(picture, self.augmentation.size(epoch))

    def picture(self, position: int) -> Image.Image:
        """What is the same in every epoch: the photo that crops are cut from, or the evaluation's crop.

        Raises DataError, naming the file, where it can't be read any more.
        """
        path, memory = self.split.paths[position], self.options.cache
        key = picture_key(path, self.preprocessing if self.augmentation is None else self.augmentation)
        if (kept := memory.get(key)) is not None:
            return kept
        try:
            if self.augmentation is None:
                picture = self.preprocessing.cropped(open_photo(path))
            else:
                picture = open_photo(path, shorter_side=self.augmentation.shorter_side)
        except DataError as error:
            raise DataError(f"{path} has changed since the folder was read: {error}") from error
        memory.keep(key, picture)
        return picture

    def crop_box(self, position: int, size: tuple[int, int], epoch: int) -> CropBox:
        """The random crop of an epoch in a picture of `size`, width and height."""
        assert self.augmentation is not None
        return self.augmentation.crop_box(*size, random.Random(derived_seed(self.seed, "look", epoch, position)))


def picture_key(path: Path, look: Preprocessing | Augmentation) -> Hashable:
    """Under what a photo's unchanging picture is kept: all that decides its pixels."""
    if isinstance(look, Preprocessing):
        return path, look.crop, look.resize, look.interpolation
    return path, look.shorter_side


def keep_checked(
    memory: ImageCache, path: Path, photo: Image.Image, looks: Iterable[Preprocessing | Augmentation]
) -> None:
    """Keeps what `ImageLoader` would make of a decoded photo, where it would be the same to the pixel."""
    for look in looks:
        if isinstance(look, Preprocessing):
            memory.keep(picture_key(path, look), look.cropped(photo))
        elif look.shorter_side is None or min(photo.size) <= look.shorter_side:  # a larger one is decoded otherwise
            memory.keep(picture_key(path, look), photo)


LONGEST_SIDE = 896  # pixels; larger photos are shrunk to it, four times the side of a crop
LARGEST_SET = 4 * 2**30  # bytes; what is beyond is read from the disk, epoch after epoch


def choose_loader(photos: ImageLoader) -> "ImageLoader | GPUImageLoader":
    """The photos where they are best read from: a GPU's memory for a set that surely fits, else the disk."""
    if photos.options.device.type == "cuda" and len(photos) * 3 * LONGEST_SIDE**2 <= LARGEST_SET:
        return GPUImageLoader(photos)
    return photos


class GPUImageLoader:
    """The batches of `photos`, from pixels that lie on its device; random crops are the same but for two things.

    Pixels differ by a shade or two from Pillow's, which rounds between its two passes. And photos longer than
    LONGEST_SIDE are shrunk to it first, whatever the recipe.
    """

    def __init__(self, photos: ImageLoader) -> None:
        self.photos = photos
        self.labels = photos.labels  # int64 (N,), not on the device
        device = photos.options.device
        with ThreadPoolExecutor(photos.options.workers) as pool:
            pictures = list(pool.map(self._picture, range(len(photos))))
        self._sizes = [(picture.shape[2], picture.shape[1]) for picture in pictures]  # width, height
        width, height = (max(sides) for sides in zip(*self._sizes, strict=True))
        # uint8 (N, 3, height, width): every picture at the top left of a place that fits the largest
        self._pixels = torch.zeros(len(pictures), 3, height, width, dtype=torch.uint8, device=device)
        for place, picture in zip(self._pixels, pictures, strict=True):
            place[:, : picture.shape[1], : picture.shape[2]] = picture.to(device)
        self._labels = photos.labels.to(device)

    def _picture(self, position: int) -> Tensor:
        picture = self.photos.picture(position)
        if max(picture.size) > LONGEST_SIDE:
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return pixels_of([picture])[0]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 images (B, 3, H, W) and int64 labels (B,), on the device."""
        for batch in positions:
            chosen = batch.to(self._pixels.device, non_blocking=True)
            pixels = self._pixels[chosen]
            if self.photos.augmentation is not None:
                places = [self.photos.crop_box(position, self._sizes[position], epoch) for position in batch.tolist()]
                pixels = cut(pixels, places, self.photos.augmentation.size(epoch))
            pixels = pixels.contiguous(memory_format=self.photos.options.layout)
            yield self.photos.preprocessing.normalise(pixels), self._labels[chosen]


def cut(pixels: Tensor, places: Sequence[CropBox], size: int) -> Tensor:
    """A crop of each picture: uint8 (B, 3, H, W) -> uint8 (B, 3, size, size).

    Resizing is linear in each direction: a matrix that mixes rows, and one that mixes columns.
    """
    _, _, height, width = pixels.shape
    boxes = torch.tensor([place.box for place in places], dtype=torch.float32)
    mirrored = torch.tensor([place.mirrored for place in places])
    left, top, right, bottom = boxes.to(pixels.device, non_blocking=True).unbind(1)
    across = _mixing(left, right, width, size)
    across = torch.where(mirrored.to(pixels.device, non_blocking=True)[:, None, None], across.flip(1), across)
    down = _mixing(top, bottom, height, size)
    mixed = down[:, None] @ (pixels.float() @ across.transpose(1, 2)[:, None])
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


def _mixing(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """How much each of `length` pixels in a line gives to each of the `size` new ones: (B, size, length).

    The new ones lie between `start` and `end` (B,), which are whole pixels of the line. The filter is
    Pillow's bilinear one: a triangle as wide as what it covers, so that shrinking averages all and skips nothing.
    """
    step = ((end - start) / size)[:, None, None]
    here = torch.arange(length, device=start.device) + 0.5
    centre = start[:, None, None] + (torch.arange(size, device=start.device) + 0.5)[:, None] * step
    weight = (1 - ((here - centre) / step.clamp(min=1)).abs()).clamp(min=0)
    weight = weight * ((here > start[:, None, None]) & (here < end[:, None, None]))
    return weight / weight.sum(2, keepdim=True)
