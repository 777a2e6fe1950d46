"""Converts photos with an embedded ICC profile to sRGB, the colours that published weights were trained on.

Phones save photos in Display P3, cameras in Adobe RGB. Without conversion the same pixels are paler, or shifted in hue.
"""

import functools
import io
from itertools import product

import numpy as np
from PIL import Image, ImageCms

LARGEST_PROFILE = 4 * 2**20  # bytes; a larger one is ignored. Those of printers have up to three megabytes
KEPT = 16  # profiles whose transform is kept: building one takes longer than to convert a small photo
LEAST_CHANGE = 2  # levels of 255; a profile that changes no colour by more counts as sRGB

# The picture modes of Pillow that a profile of a colour space is for.
MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def in_srgb(picture: Image.Image) -> Image.Image:
    """An image of mode L, RGB or CMYK in RGB, converted to sRGB if it has an ICC profile of another colour space.

    A profile is ignored if it is damaged, larger than LARGEST_PROFILE, or of another mode than the image. Without a
    profile the pixels stay as they are. The argument is not changed.
    """
    profile = picture.info.get("icc_profile")
    transform = None
    if isinstance(profile, bytes) and 0 < len(profile) <= LARGEST_PROFILE:
        transform = _transform(profile, picture.mode)
    if transform is None:
        # Converting RGB to RGB would copy it and double the memory of a large photo.
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    converted = transform.apply(picture)
    converted.info.pop("icc_profile", None)  # Pillow adds that of sRGB
    return converted


@functools.lru_cache(KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB, for threads to share; None: nothing is to be done.

    By LittleCMS (https://www.littlecms.com), which keeps the last pixel in the transform unless told not to.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if MODES.get(source.profile.xcolor_space) != mode:
            return None
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, target, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # damaged
        return None
    return transform if _changes_colours(transform, mode) else None


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return True
    levels = np.array(list(product(range(0, 256, 15), repeat=3)) if mode == "RGB" else range(256), np.uint8)
    samples = Image.fromarray(levels[None])
    change = np.asarray(transform.apply(samples), np.int16) - np.asarray(samples.convert("RGB"), np.int16)
    return bool(np.abs(change).max() > LEAST_CHANGE)
