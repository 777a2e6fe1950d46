"""Synthetic out-of-distribution images, with which detection of "neither" is measured."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from PIL import Image, ImageDraw

SIDE = 256  # pixels
COUNT = 20  # images of each kind, generated in a second
CELLS = (1, 2, 8, 32)  # pixels a side of the patches of `noise`


def noise(chance: Random) -> Image.Image:
    """Square patches of random colours, from single pixels to large ones, sharp or interpolated."""
    side = SIDE // chance.choice(CELLS)
    patches = Image.frombytes("RGB", (side, side), chance.randbytes(3 * side * side))
    return patches.resize((SIDE, SIDE), chance.choice((Image.Resampling.NEAREST, Image.Resampling.BICUBIC)))


def flat(chance: Random) -> Image.Image:
    """A single random colour."""
    return Image.new("RGB", (SIDE, SIDE), _colour(chance))


def shapes(chance: Random) -> Image.Image:
    """Random ellipses, rectangles and lines on a single colour."""
    picture = flat(chance)
    brush = ImageDraw.Draw(picture)
    for _ in range(chance.randint(3, 12)):
        (left, right), (top, bottom) = (sorted(chance.sample(range(SIDE), 2)) for _ in range(2))
        match chance.randrange(3):
            case 0:
                brush.ellipse((left, top, right, bottom), fill=_colour(chance))
            case 1:
                brush.rectangle((left, top, right, bottom), fill=_colour(chance))
            case 2:
                brush.line((left, top, right, bottom), fill=_colour(chance), width=chance.randint(1, 12))
    return picture


def _colour(chance: Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


KINDS: Mapping[str, Callable[[Random], Image.Image]] = MappingProxyType(
    {"noise": noise, "flat colours": flat, "drawn shapes": shapes}
)


def synthetic_images(kind: str, count: int) -> list[Image.Image]:
    """`count` RGB images of one of KINDS; equal arguments give equal pixels."""
    return [KINDS[kind](Random(f"{kind}/{number}")) for number in range(count)]
