"""Opens a photo, a file or what Python holds of it, as an upright RGB image, or raises DataError with the reason."""

import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from antbee.data.colour import in_srgb
from antbee.data.files import AN_ADDRESS, ENOUGH, FileError, is_address, kind_of, opened
from antbee.errors import InputError

# Detected by content, not by file extension. The list is short because rarely used decoders are an attack surface.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
# Limits of decoded size: a few kilobytes can decode to gigabytes, and so can a thin photo once its shorter side is
# resized to 256 pixels.
LARGEST_PHOTO = 60_000_000  # pixels
LARGEST_JPEG = 120_000_000  # pixels; decoded at half the size beyond LARGEST_PHOTO
THINNEST_PHOTO = 40  # longer side / shorter side
SIXTEENTH = 4095  # the largest value of 12 bits

# What Pillow's decoders raise for damaged files, found by fuzzing with a hundred thousand of them.
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
PHOTO_KINDS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "PPM", "TIFF")  # names that `kind_of` returns
EMPTY = "an empty file: copy it again"

Photo = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor  # what `picture_of` reads
CHANNELS = (1, 2, 3, 4)  # Pillow's L, LA, RGB, RGBA
EXPECTED = (
    "a path, a PIL image, a numpy array of uint8 (H, W) or (H, W, C), a tensor (C, H, W) of uint8 or of floats from 0 "
    "to 1, with 1 to 4 channels (grey, grey and alpha, RGB, RGBA)"
)


class DataError(InputError):
    """A data folder or an image file can't be used. The message says which, why, and what to do next."""


def open_photo(file: Path | BinaryIO, *, shorter_side: int | None = None) -> Image.Image:
    """The photo, fully decoded, in RGB, upright by its EXIF orientation; the first frame or page of several.

    Every image that training, scripts, page and API read comes through here. With `shorter_side`, in pixels, a larger
    photo is shrunk to it. For a large JPEG that is several times faster, since it is decoded at a lower resolution;
    the pixels differ slightly from resizing afterwards, so this is for training and thumbnails, not for prediction.
    Raises DataError if the file is no photo, damaged, too large, or of a format that is not read.
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
        raise DataError(_far_too_large(error)) from error
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"a damaged photo ({why:.150}): copy or export it again") from error
    if shorter_side is not None and min(photo.size) > shorter_side:
        photo = functional.resize(photo, [shorter_side])
    return photo


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a photo as its file has it, in pixels, from its first bytes; None for what is no photo."""
    try:
        with opened(path, largest=LARGEST_FILE) as content, Image.open(content, formats=PHOTO_FORMATS) as image:
            return image.size
    except (FileError, Image.DecompressionBombError, *UNREADABLE):
        return None


def uses_a_sixteenth(path: Path) -> bool:
    """Whether a file has greys of 16 bits and none above a sixteenth of their range, as 12-bit cameras write them.

    `open_photo` divides them by 256, so that such a photo is nearly black. Other files are not decoded.
    """
    try:
        with opened(path, largest=LARGEST_FILE) as content, Image.open(content, formats=PHOTO_FORMATS) as image:
            if not image.mode.startswith("I") or image.width * image.height > LARGEST_PHOTO:
                return False
            values = np.asarray(image)
            return bool(values.min() < values.max() <= SIXTEENTH)
    except (FileError, Image.DecompressionBombError, *UNREADABLE):
        return False


def are_several(photos: object) -> TypeGuard[Iterable[Photo]]:
    """Whether this is a list or another iterable of photos, not one photo and nothing that is taken for one."""
    one = (str, bytes, Mapping, Image.Image, np.ndarray, Tensor)
    return isinstance(photos, Iterable) and not isinstance(photos, one)


def picture_of(photo: object) -> Image.Image:
    """A `Photo` in RGB, as `open_photo` returns it, from whatever Python code has; the argument is not changed.

    That is a path, a PIL image of any mode, a numpy array or a tensor. An array is uint8 (H, W) or (H, W, C), as Pillow
    and imageio have it; OpenCV's channels are in another order. A tensor is (C, H, W), as torchvision has it: uint8, or
    floats from 0 to 1, that is not normalised. Raises DataError for a file that is no photo, which it names, and for
    anything else.
    """
    if isinstance(photo, str | os.PathLike):
        if is_address(photo):
            raise DataError(f"{photo} is {AN_ADDRESS}")
        try:
            return open_photo(Path(photo))
        except DataError as error:
            raise DataError(f"{photo}: {error}") from error
    if isinstance(photo, Tensor):
        photo = _of_tensor(photo)
    elif isinstance(photo, np.ndarray):
        photo = _of_array(photo)
    elif not isinstance(photo, Image.Image):
        raise _unexpected(photo)
    _refuse_size(*photo.size, LARGEST_JPEG)
    try:
        return upright_rgb(photo)
    except DataError:
        raise
    except UNREADABLE as error:  # an image whose file is read only now
        raise DataError(f"a damaged photo ({error or type(error).__name__}): copy or export it again") from error


def _of_tensor(image: Tensor) -> Image.Image:
    if image.ndim != 3 or not image.numel():
        raise _unexpected(image)
    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        lowest, highest = pixels.min().item(), pixels.max().item()
        if not (lowest >= 0 and highest <= 1):  # also where one is NaN
            raise DataError(
                f"{_named(image)} with values from {lowest:.3g} to {highest:.3g}: expected floats from 0 to 1, before "
                "they are normalised, or uint8"
            )
        pixels = pixels.float().mul(255).round().byte()
    if pixels.dtype != torch.uint8 or len(pixels) not in CHANNELS:
        raise _unexpected(image)
    return _of_array(pixels.movedim(0, -1).numpy())


def _of_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in CHANNELS or not pixels.size:
        raise _unexpected(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels)


def _unexpected(thing: object) -> DataError:
    return DataError(f"{_named(thing)} is no photo: expected {EXPECTED}, or a list of them")


def _named(thing: object) -> str:
    """What came, for an error message: a type, of arrays with dtype and shape."""
    if isinstance(thing, Tensor):
        return f"a tensor of {str(thing.dtype).removeprefix('torch.')} {tuple(thing.shape)}"
    if isinstance(thing, np.ndarray):
        return f"a numpy array of {thing.dtype} {thing.shape}"
    return "None" if thing is None else f"a value of type {type(thing).__name__}"


def _decoded(file: BinaryIO, shorter_side: int | None) -> Image.Image:
    with Image.open(file, formats=PHOTO_FORMATS) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        _refuse_size(*image.size, LARGEST_JPEG if is_jpeg else LARGEST_PHOTO)
        if image.width * image.height > LARGEST_PHOTO:
            image.draft(None, (image.width // 2, image.height // 2))
        elif shorter_side is not None:
            # Only the JPEG decoder shrinks, to 1/2, 1/4 or 1/8 of the size and not below what is asked for.
            image.draft(None, (shorter_side, shorter_side))
        image.load()
        _turn_upright(image)
        return _rgb(image)


def _refuse_size(width: int, height: int, largest: int) -> None:
    if not width * height:
        raise DataError("a picture without pixels")
    if width * height > largest:
        limit = f"at most {largest // 1_000_000} megapixels are read"
        raise DataError(f"too large a photo ({width} x {height} pixels, {limit}): make it smaller")
    if max(width, height) > THINNEST_PHOTO * min(width, height):
        raise DataError(
            f"too thin a photo ({width} x {height} pixels, at most {THINNEST_PHOTO} : 1 is read): crop it first"
        )


def _far_too_large(error: Exception) -> str:
    """The message for a photo beyond Pillow's own limit, whose error has the number of pixels in it."""
    found = re.search(r"\d+", str(error))
    size = f"{int(found[0]) // 1_000_000} megapixels, " if found else ""
    limits = f"at most {LARGEST_PHOTO // 1_000_000} are read, of a JPEG {LARGEST_JPEG // 1_000_000}"
    return f"too large a photo ({size}{limits}): make it smaller"


def _not_a_photo(file: BinaryIO) -> str:
    """The message for a file that no decoder accepts."""
    file.seek(0)
    start = file.read(ENOUGH)
    if not start:
        return EMPTY
    what = kind_of(start)
    if what in PHOTO_KINDS:
        return f"a damaged photo (it begins as {what} does): copy or export it again"
    found = f"it is {what}, " if what else ""
    return f"not a photo that can be read ({found}expected {', '.join(PHOTO_FORMATS)}): export it as JPEG or PNG"


def _turn_upright(image: Image.Image) -> None:
    """Applies the EXIF orientation in place; damaged or unknown values are ignored."""
    with suppress(*UNREADABLE):
        ImageOps.exif_transpose(image, in_place=True)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB, upright by its EXIF orientation, as `open_photo` returns it; the argument is not changed.

    Raises DataError for floating-point pixels, whose range is unknown.
    """
    with suppress(*UNREADABLE):
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    """RGB as an image viewer shows it, by the ICC profile.

    Pillow's conversion would clip 16-bit grey to white and ignore transparency and the profile.
    """
    if image.mode == "F":
        raise DataError("a picture of floating-point numbers, whose range is unknown: export it as JPEG or PNG")
    profile, is_grey = image.info.get("icc_profile"), image.getbands()[0] in ("1", "I", "L")
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a 16-bit value, which is out of range now
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
        if profile is not None:
            image.info["icc_profile"] = profile
    mode = "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB"
    return in_srgb(image if image.mode == mode else image.convert(mode))
