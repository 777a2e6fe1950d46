"""One photo, as the network sees it: file -> picture -> crop -> pixels -> normalised image.

Pictures are PIL's, in RGB. Pillow cuts and resizes them, so that training, scripts, page and every program that follows
torchvision's preset for the ImageNet weights see the same pixels. Only normalising is left to the network's device.
"""

import math
import random
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from antbee.files import ENOUGH, FileError, kind_of, opened

# Decided by content, never by a file's name; a short list keeps rarely tested decoders out of reach.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
# A few kilobytes can unpack to gigabytes, and so can a sliver of a photo whose shorter side is enlarged to 256 pixels.
LARGEST_PHOTO = 60_000_000  # pixels
LARGEST_JPEG = 120_000_000  # pixels, for its decoder can halve a photo on the way
THINNEST_PHOTO = 40  # longer side : shorter side
CROP_SHAPES = (3 / 4, 4 / 3)  # width : height that a random crop may have

# What Pillow's decoders raise at damage, found by feeding them a hundred thousand damaged photos.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
PHOTO_KINDS = ("JPEG", "PNG", "WebP", "GIF")  # as `kind_of` calls them

Interpolation = Literal["bilinear", "bicubic"]  # Pillow's, which average over all that a new pixel covers
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


class DataError(ValueError):
    """A data folder or a photo can't be used; the message says which, why, and what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# File -> picture


def open_photo(file: Path | BinaryIO, *, shorter_side: int | None = None) -> Image.Image:
    """The photo, fully decoded, in RGB and turned upright by its EXIF orientation; the first one of several.

    The one way in for pictures: of training, scripts, page and API. With `shorter_side`, in pixels, a larger photo
    comes shrunk to it. That is several times faster for a large JPEG, whose decoder can leave out the finest details:
    enough to learn from, but not to the pixel what a prediction sees.
    Raises DataError where the file is no photo, is cut short, is too large, or is of a kind that is not read here.
    """
    if isinstance(file, Path):
        try:
            with opened(file, largest=LARGEST_FILE) as content:
                return open_photo(content, shorter_side=shorter_side)
        except FileError as error:
            raise DataError(str(error)) from error
    try:
        photo = _decoded(file, shorter_side)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(_not_a_photo(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too large a photo ({error}): make it smaller") from error
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"a damaged photo ({why:.150}): copy or export it again") from error
    if shorter_side is not None and min(photo.size) > shorter_side:
        photo = functional.resize(photo, [shorter_side])
    return photo


def _decoded(file: BinaryIO, shorter_side: int | None) -> Image.Image:
    with Image.open(file, formats=PHOTO_FORMATS) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        _refuse_size(*image.size, LARGEST_JPEG if is_jpeg else LARGEST_PHOTO)
        if image.width * image.height > LARGEST_PHOTO:
            image.draft(None, (image.width // 2, image.height // 2))
        elif shorter_side is not None:
            image.draft(None, (shorter_side, shorter_side))  # JPEG alone: half, quarter or eighth, and not below
        image.load()
        _turn_upright(image)
        return _rgb(image)


def _refuse_size(width: int, height: int, largest: int) -> None:
    if width * height > largest:
        limit = f"at most {largest // 1_000_000} megapixels are read"
        raise DataError(f"too large a photo ({width} x {height} pixels, {limit}): make it smaller")
    if max(width, height) > THINNEST_PHOTO * min(width, height):
        raise DataError(
            f"too thin a photo ({width} x {height} pixels, at most {THINNEST_PHOTO} : 1 is read): crop it first"
        )


def _not_a_photo(file: BinaryIO) -> str:
    """Why bytes that no decoder knows are no photo."""
    file.seek(0)
    what = kind_of(file.read(ENOUGH))
    if what in PHOTO_KINDS:
        return f"a damaged photo (it begins as {what} does): copy or export it again"
    found = f"it is {what}, " if what else ""
    return f"not a photo that can be read ({found}expected {', '.join(PHOTO_FORMATS)}): export it as JPEG or PNG"


def _turn_upright(image: Image.Image) -> None:
    """Turns the photo as its EXIF orientation asks for; one that is damaged or unknown asks for nothing."""
    with suppress(*UNREADABLE):
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    """The colours as a viewer shows them; Pillow alone clips 16-bit grey to white and uncovers what is transparent."""
    if image.mode == "F":
        raise DataError("a picture of floating-point numbers, whose white nobody knows: export it as JPEG or PNG")
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a grey of 16 bits, which is none of these
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    # A copy of what is in RGB already would double the memory that a large photo takes.
    return image if image.mode == "RGB" else image.convert("RGB")


# ---------------------------------------------------------------------------------------------------------------------
# Picture -> crop -> image


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

    def place(self, width: int, height: int, random_numbers: random.Random) -> "Place":
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
                return Place((left, top, left + crop_width, top + crop_height), mirrored)
        return Place(_widest_crop(width, height), mirrored)


@dataclass(frozen=True)
class Place:
    """A crop of a photo: whole pixels left, top, right, bottom, and whether it is shown mirrored."""

    box: tuple[int, int, int, int]
    mirrored: bool

    def cut(self, photo: Image.Image, size: int) -> Image.Image:
        """The crop, `size` pixels a side."""
        crop = photo.crop(self.box).resize((size, size), Image.Resampling.BILINEAR)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else crop


def _widest_crop(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest crop from the centre of a photo that is too thin for the shapes allowed."""
    narrowest, widest = CROP_SHAPES
    crop_width, crop_height = min(width, round(height * widest)), min(height, round(width / narrowest))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size -> uint8 (N, 3, H, W) in 0..255, laid out in memory as pictures are: channels last."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
