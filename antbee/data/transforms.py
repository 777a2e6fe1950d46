"""Preprocessing and augmentation: PIL image -> crop -> uint8 pixels -> normalised float32 images, and back.

PIL images are RGB. Pillow crops and resizes them, which gives the pixels of torchvision's preset for its ImageNet
weights (`ResNet18_Weights.IMAGENET1K_V1.transforms()`). Only normalising runs on the network's device.
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

CROP_SHAPES = (3 / 4, 4 / 3)  # smallest and largest aspect ratio, width / height, of a random crop

Interpolation = Literal["bilinear", "bicubic"]  # Pillow's, with antialiasing
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of a model, stored in its `config.json` as timm's `pretrained_cfg`."""

    crop: int = 224  # pixels; side of the square input of the network
    crop_pct: float = 0.875  # fraction of the resized photo's shorter side that the crop keeps
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # per channel, for pixels in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def resize(self) -> int:
        """The shorter side, in pixels, before the centre crop. Rounded down as timm does."""
        return math.floor(self.crop / self.crop_pct)

    def cropped(self, photo: Image.Image) -> Image.Image:
        """The evaluation crop of an RGB image: resized, then cropped to `crop` x `crop` pixels at the centre."""
        resized = functional.resize(photo, [self.resize], InterpolationMode(self.interpolation))
        return functional.center_crop(resized, [self.crop])

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the evaluation crop, in pixels of a photo of `width` x `height`."""
        side = min(width, height) * self.crop / self.resize
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (..., 3, H, W) in 0..255 -> normalised float32 images of this shape, on the same device."""
        # Division, as in torchvision's preset and timm: v2.ToDtype multiplies by 1 / 255, which rounds differently.
        images = pixels.float().div_(255)
        return images.sub_(_spread(self.mean, images)).div_(_spread(self.std, images))

    def unnormalise(self, images: Tensor) -> Tensor:
        """Normalised float32 images (..., 3, H, W) -> float32 in 0..1, for display."""
        return (images * _spread(self.std, images) + _spread(self.mean, images)).clamp(0, 1)


def _spread(values: tuple[float, float, float], images: Tensor) -> Tensor:
    """One value a channel, expanded to (3, H, W) in the memory layout of `images`.

    Broadcasting (3, 1, 1) gives the same values, but is several times slower for channels-last images.
    """
    expanded = torch.empty_like(images.flatten(0, -4)[0] if images.ndim > 3 else images)
    for channel, value in zip(expanded, values, strict=True):
        channel.fill_(value)  # runs on the device: a copy from the host would make a GPU wait
    return expanded


@dataclass(frozen=True)
class Augmentation:
    """Random crop and horizontal flip for training, as `torchvision.transforms.RandomResizedCrop` draws it."""

    smallest_crop: float = 0.08  # smallest fraction of the image's area that a crop keeps
    sizes: tuple[int, ...] = (224,)  # side of the crop in pixels in epoch 1, 2, ...; the last one is used from then on
    shorter_side: int | None = None  # pixels; larger photos are shrunk to it first, see `open_photo`

    def size(self, epoch: int) -> int:
        """The side of an epoch's crops in pixels. Epochs count from 1; 0, before the first, gets the first size."""
        return self.sizes[min(max(epoch, 1), len(self.sizes)) - 1]

    def crop_box(self, width: int, height: int, random_numbers: random.Random) -> "CropBox":
        """A random crop of an image of `width` x `height` pixels (Szegedy et al. 2015, arXiv 1409.4842).

        Unlike torchvision it draws from `random_numbers`, not from a global generator.
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
    """A crop of an image, in whole pixels, and whether it is flipped horizontally."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    mirrored: bool

    def cut(self, photo: Image.Image, size: int) -> Image.Image:
        """The crop of an RGB image, resized to `size` x `size` pixels."""
        crop = photo.crop(self.box).resize((size, size), Image.Resampling.BILINEAR)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else crop


def widest_crop(width: int, height: int) -> tuple[int, int, int, int]:
    """The box of the largest central crop with an aspect ratio within CROP_SHAPES, as torchvision falls back to."""
    narrowest, widest = CROP_SHAPES
    crop_width, crop_height = min(width, round(height * widest)), min(height, round(width / narrowest))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size -> uint8 (N, 3, H, W) in 0..255, channels last in memory."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
