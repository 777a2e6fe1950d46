"""A small set of photos, whole in a GPU's memory: random crops and mirror images are cut there, a batch at a time.

Decoding and cutting photos one by one on the CPU would keep a GPU waiting, epoch after epoch, for the same few photos.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from antbee.data import Photos
from antbee.images import Place, pixels_of

LONGEST_SIDE = 896  # pixels; larger photos are shrunk to it, four times the side of a crop
LARGEST_SET = 4 * 2**30  # bytes; what is beyond is read from the disk, epoch after epoch


def placed(photos: Photos) -> "Photos | ResidentPhotos":
    """The photos where they are best read from: a GPU's memory for a set that surely fits, else the disk."""
    if photos.loading.device.type == "cuda" and len(photos) * 3 * LONGEST_SIDE**2 <= LARGEST_SET:
        return ResidentPhotos(photos)
    return photos


class ResidentPhotos:
    """The batches of `photos`, from pixels that lie on its device; random crops are the same but for two things.

    Pixels differ by a shade or two from Pillow's, which rounds between its two passes. And photos longer than
    LONGEST_SIDE are shrunk to it first, whatever the recipe.
    """

    def __init__(self, photos: Photos) -> None:
        self.photos = photos
        self.labels = photos.labels  # int64 (N,), not on the device
        device = photos.loading.device
        with ThreadPoolExecutor(photos.loading.workers) as pool:
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
                places = [self.photos.place(position, self._sizes[position], epoch) for position in batch.tolist()]
                pixels = cut(pixels, places, self.photos.augmentation.size(epoch))
            pixels = pixels.contiguous(memory_format=self.photos.loading.layout)
            yield self.photos.preprocessing.normalise(pixels), self._labels[chosen]


def cut(pixels: Tensor, places: Sequence[Place], size: int) -> Tensor:
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
