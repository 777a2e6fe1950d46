"""One file -> one upright RGB picture, or the reason why not."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional

from antbee.data.files import ENOUGH, FileError, kind_of, opened
from antbee.errors import InputError

# Decided by content, never by a file's name; a short list keeps rarely tested decoders out of reach.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
LARGEST_FILE = 256 * 2**20  # bytes
# A few kilobytes can unpack to gigabytes, and so can a sliver of a photo whose shorter side is enlarged to 256 pixels.
LARGEST_PHOTO = 60_000_000  # pixels
LARGEST_JPEG = 120_000_000  # pixels, for its decoder can halve a photo on the way
THINNEST_PHOTO = 40  # longer side : shorter side

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


class DataError(InputError):
    """A data folder or a photo can't be used; the message says which, why, and what to do."""


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
