"""Picture -> crop -> pixels -> normalised image, in evaluation and in training.

Pictures are PIL's, in RGB. Pillow cuts and resizes them, so that training, scripts, page and every program that follows
torchvision's preset for the ImageNet weights see the same pixels. Only normalising is left to the network's device.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

CROP_SHAPES = (3 / 4, 4 / 3)  # width : height that a random crop may have

Interpolation = Literal["bilinear", "bicubic"]  # Pillow's, which average over all that a new pixel covers
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photo before the network: the same in training, evaluation, scripts and page.

    It travels in `config.json` in timm's terms, and means the same pixels wherever the model goes.
    """

    crop: int = 224  # pixels a side of the square the network sees
    crop_pct: float = 0.875  # of the resized photo's shorter side that the crop keeps
    interpolation: Interpolation = "bilinear"  # bicubic: of many networks trained elsewhere
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # per channel, of pixels in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def resize(self) -> int:
        """Pixels of the shorter side before the centre crop; timm's rounding, so that both see the same pixels."""
        return math.floor(self.crop / self.crop_pct)

    def cropped(self, photo: Image.Image) -> Image.Image:
        """The crop that the network sees of a photo, without randomness: resized, then cut from the centre."""
        resized = functional.resize(photo, [self.resize], InterpolationMode(self.interpolation))
        return functional.center_crop(resized, [self.crop])

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of `cropped`, in the pixels of a photo of `width` x `height`."""
        side = min(width, height) * self.crop / self.resize
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (..., 3, H, W) in 0..255 -> what the network is given: float32, on the same device."""
        # Dividing, as torchvision's preset for the ImageNet weights and timm do: v2.ToDtype multiplies by 1 / 255.
        images = pixels.float().div_(255)
        return images.sub_(_spread(self.mean, images)).div_(_spread(self.std, images))

    def unnormalise(self, images: Tensor) -> Tensor:
        """Normalised float images (..., 3, H, W) -> the same in 0..1, to be looked at."""
        return (images * _spread(self.std, images) + _spread(self.mean, images)).clamp(0, 1)


def _spread(values: tuple[float, float, float], images: Tensor) -> Tensor:
    """A value for each channel as a picture of its own, (3, H, W), laid out in memory as the images are.

    Three values alone would be as right, and several times slower where the channels come last.
    """
    one = torch.empty_like(images.flatten(0, -4)[0] if images.ndim > 3 else images)
    for channel, value in zip(one, values, strict=True):
        channel.fill_(value)  # on the device: copying the values there would make a GPU wait
    return one


@dataclass(frozen=True)
class Augmentation:
    """The random crop and the random mirror image that a network learns from: of another kind in every epoch."""

    smallest_crop: float = 0.08  # least share of the photo's area that a crop keeps
    sizes: tuple[int, ...] = (224,)  # pixels a side of the crop in epoch 1, 2, ...; the last one stays
    shorter_side: int | None = None  # photos larger than this are shrunk to it first, see `open_photo`

    def size(self, epoch: int) -> int:
        """Pixels a side of an epoch's crops; epochs count from 1, and 0 stands before the first."""
        return self.sizes[min(max(epoch, 1), len(self.sizes)) - 1]

    def crop_box(self, width: int, height: int, random_numbers: random.Random) -> "CropBox":
        """Where in a photo of `width` x `height` the random crop lies.

        Area and shape are drawn as `torchvision.transforms.RandomResizedCrop` draws them (Szegedy et al. 2015,
        arXiv 1409.4842), from random numbers that are the photo's own instead of the process's.
        """
        mirrored = random_numbers.random() < 0.5
        for _ in range(10):
            area = width * height * random_numbers.uniform(self.smallest_crop, 1)
            shape = math.exp(random_numbers.uniform(*map(math.log, CROP_SHAPES)))
            crop_width, crop_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left = int(random_numbers.random() * (width - crop_width + 1))
                top = int(random_numbers.random() * (height - crop_height + 1))
                return CropBox((left, top, left + crop_width, top + crop_height), mirrored)
        return CropBox(widest_crop(width, height), mirrored)


@dataclass(frozen=True)
class CropBox:
    """A crop of a photo: whole pixels left, top, right, bottom, and whether it is shown mirrored."""

    box: tuple[int, int, int, int]
    mirrored: bool

    def cut(self, photo: Image.Image, size: int) -> Image.Image:
        """The crop, `size` pixels a side."""
        crop = photo.crop(self.box).resize((size, size), Image.Resampling.BILINEAR)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else crop


def widest_crop(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest crop from the centre of a photo that is too thin for the shapes allowed."""
    narrowest, widest = CROP_SHAPES
    crop_width, crop_height = min(width, round(height * widest)), min(height, round(width / narrowest))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size -> uint8 (N, 3, H, W) in 0..255, laid out in memory as pictures are: channels last."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
