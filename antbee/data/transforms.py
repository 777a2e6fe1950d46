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
# How a photo becomes a square: its shorter side resized and the centre cut out, both sides resized, or its longer side
# resized and the rest filled with one colour.
Fit = Literal["crop", "squash", "pad"]
LARGEST_PADDED = 896  # pixels; side of the padded square that random crops are cut from, unless a recipe has another


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation of a model, stored in its `config.json` as timm's `pretrained_cfg`."""

    crop: int = 224  # pixels; side of the square input of the network
    crop_pct: float = 0.875  # fraction that the crop keeps of the resized photo, by side
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # per channel, for pixels in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fit: Fit = "crop"

    @property
    def resize(self) -> int:
        """The resized side, in pixels, before the centre crop; which side is decided by `fit`. Rounded down as timm."""
        return math.floor(self.crop / self.crop_pct)

    @property
    def padding(self) -> tuple[int, int, int] | None:
        """The RGB colour around a padded photo: the mean, which normalised is about 0, as in timm; None: no padding."""
        if self.fit != "pad":
            return None
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue

    def cropped(self, photo: Image.Image) -> Image.Image:
        """The evaluation crop of an RGB image: resized as `fit` says, then cut to `crop` x `crop` at the centre.

        The pixels are those of timm's evaluation transform, whose crop modes are "center", "squash" and "border".
        """
        size = self._resized(photo.width, photo.height)
        resized = functional.resize(photo, size, InterpolationMode(self.interpolation))
        if self.padding is not None:
            return _padded(resized, self.crop, self.padding)
        return functional.center_crop(resized, [self.crop])

    def _resized(self, width: int, height: int) -> list[int]:
        """The height and width of the resized photo, or its shorter side alone."""
        match self.fit:
            case "crop":
                return [self.resize]
            case "squash":
                return [self.resize, self.resize]
            case "pad":
                ratio = max(width, height) / self.resize
                return [round(height / ratio), round(width / ratio)]

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the network's input, in pixels of a photo of `width` x `height`.

        With padding the box is larger than the photo, and begins at negative values.
        """
        whole = {
            "crop": (min(width, height),) * 2,
            "squash": (width, height),
            "pad": (max(width, height),) * 2,
        }[self.fit]
        across, down = (side * self.crop / self.resize for side in whole)
        left, top = (width - across) / 2, (height - down) / 2
        return left, top, left + across, top + down

    def share_seen(self, width: int, height: int) -> float:
        """The share of the area of a photo of `width` x `height` that is in the network's input, 0..1."""
        left, top, right, bottom = self.crop_box(width, height)
        return min(right - left, width) * min(bottom - top, height) / (width * height)

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


def _padded(photo: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB image at the centre of a square of one colour; what lies outside the square is cut off."""
    square = Image.new("RGB", (side, side), colour)
    # timm rounds in this way: down where it pads, to even numbers where it cuts.
    left, top = ((side - own) // 2 if own < side else -round((own - side) / 2) for own in photo.size)
    square.paste(photo, (left, top))
    return square


@dataclass(frozen=True)
class Augmentation:
    """Random crop and horizontal flip for training, as `torchvision.transforms.RandomResizedCrop` draws it."""

    smallest_crop: float = 0.08  # smallest fraction of the image's area that a crop keeps
    sizes: tuple[int, ...] = (224,)  # side of the crop in pixels in epoch 1, 2, ...; the last one is used from then on
    shorter_side: int | None = None  # pixels; larger photos are shrunk to it first, see `open_photo`
    mirror: bool = True  # flip half of the crops horizontally
    squash: bool = False  # crops of the photo squashed to a square: their aspect ratio follows the photo's
    padding: tuple[int, int, int] | None = None  # crops of the photo padded to a square with this RGB colour

    def source(self, photo: Image.Image) -> Image.Image:
        """What crops are cut from: an RGB image itself or, with padding, the square around it.

        The side of the square is that of the photo's longer side, at most `shorter_side` or LARGEST_PADDED.
        """
        if self.padding is None:
            return photo
        side = min(max(photo.size), self.shorter_side or LARGEST_PADDED)
        ratio = max(photo.size) / side
        resized = functional.resize(photo, [max(1, round(photo.height / ratio)), max(1, round(photo.width / ratio))])
        return _padded(resized, side, self.padding)

    def size(self, epoch: int) -> int:
        """The side of an epoch's crops in pixels. Epochs count from 1; 0, before the first, gets the first size."""
        return self.sizes[min(max(epoch, 1), len(self.sizes)) - 1]

    def crop_box(self, width: int, height: int, random_numbers: random.Random) -> "CropBox":
        """A random crop of an image of `width` x `height` pixels (Szegedy et al. 2015, arXiv 1409.4842).

        Unlike torchvision it draws from `random_numbers`, not from a global generator.
        """
        mirrored = random_numbers.random() < 0.5 and self.mirror
        if not self.squash:
            return CropBox(self._random_box(width, height, random_numbers), mirrored)
        side = max(width, height)
        left, top, right, bottom = self._random_box(side, side, random_numbers)
        across, down = width / side, height / side
        box = math.floor(left * across), math.floor(top * down), math.ceil(right * across), math.ceil(bottom * down)
        return CropBox(box, mirrored)

    def _random_box(self, width: int, height: int, random_numbers: random.Random) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * random_numbers.uniform(self.smallest_crop, 1)
            shape = math.exp(random_numbers.uniform(*map(math.log, CROP_SHAPES)))
            crop_width, crop_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left = int(random_numbers.random() * (width - crop_width + 1))
                top = int(random_numbers.random() * (height - crop_height + 1))
                return left, top, left + crop_width, top + crop_height
        return widest_crop(width, height)


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
