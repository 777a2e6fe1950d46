"""Opens an image file as an upright RGB image, or raises DataError with the reason."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional

from antbee.data.files import ENOUGH, FileError, kind_of, opened
from antbee.errors import InputError

# Detected by content, not by file extension. The list is short because rarely used decoders are an attack surface.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
# Limits of decoded size: a few kilobytes can decode to gigabytes, and so can a thin photo once its shorter side is
# resized to 256 pixels.
LARGEST_PHOTO = 60_000_000  # pixels
LARGEST_JPEG = 120_000_000  # pixels; decoded at half the size beyond LARGEST_PHOTO
THINNEST_PHOTO = 40  # longer side / shorter side

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
PHOTO_KINDS = ("JPEG", "PNG", "WebP", "GIF")  # names that `kind_of` returns
EMPTY = "an empty file: copy it again"


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
            # Only the JPEG decoder shrinks, to 1/2, 1/4 or 1/8 of the size and not below what is asked for.
            image.draft(None, (shorter_side, shorter_side))
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
    """RGB as an image viewer shows it; Pillow's conversion would clip 16-bit grey to white and ignore transparency."""
    if image.mode == "F":
        raise DataError("a picture of floating-point numbers, whose range is unknown: export it as JPEG or PNG")
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
        image.info.pop("transparency", None)  # a 16-bit value, which is out of range now
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    # Converting RGB to RGB would copy it and double the memory of a large photo.
    return image if image.mode == "RGB" else image.convert("RGB")
