"""What may be wrong with a photo by itself, and with the balance of the classes.

The limits were set on the classic ants and bees, of whose 397 photos they flag none but one that is thin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antbee.data.folder import ImageDataset

Kind = Literal["placeholder", "leak", "copy", "label", "tiny", "thin", "dark", "blurred", "imbalance"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNWANTED: tuple[Kind, ...] = ("placeholder", "leak", "copy", "label")  # what a model may learn wrong things from

SMALLEST_SIDE = 112  # pixels; the network's crop would be an enlargement to twice the size
THINNEST = 3  # longer : shorter side; the centre crop shows little of it
DARKEST = 25  # mean brightness of 0..255
LEAST_SHARP = 45  # variance of the Laplacian of a photo of 256 pixels
FLATTEST = 0.9  # share of one colour
HASH_SIDE = 16  # of 16 x 16 bits
LEAST_CHANGE = 3  # grey levels from place to place; what changes less, such as a plain background, says nothing

UNBALANCED = 3  # photos of the largest class for each of the smallest


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at."""

    kind: Kind
    file: str  # relative to the data folder; of a pair the one to do without
    reason: str
    score: float  # how sure, or how bad: the highest first
    other: str | None = None  # the other file of a pair


@dataclass(frozen=True)
class PhotoFacts:
    """What can be measured of a photo without a network."""

    width: int  # pixels
    height: int
    brightness: float  # mean, 0..255
    sharpness: float  # variance of the Laplacian
    flatness: float  # share of the most frequent colour, of 16 x 16 x 16
    changes: Tensor  # float32 (256,) of -1, 0 and 1, see `_changes`
    mirrored_changes: Tensor  # the same of the mirror image


def measure(photo: Image.Image) -> PhotoFacts:
    """An RGB photo -> its facts."""
    small = photo.copy()
    small.thumbnail((256, 256))
    grey = np.asarray(small.convert("L"), np.float32)
    return PhotoFacts(
        width=photo.width,
        height=photo.height,
        brightness=float(grey.mean()),
        sharpness=_sharpness(grey),
        flatness=_flatness(small),
        changes=_changes(photo),
        mirrored_changes=_changes(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    )


def _sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian, which grows with every edge that is in focus (Pech-Pacheco et al. 2000)."""
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * grey[1:-1, 1:-1] - around).var())


def _flatness(photo: Image.Image) -> float:
    pixels = np.asarray(photo.resize((64, 64), Image.Resampling.BOX)).astype(np.int64) // 16
    colours = pixels @ np.array([256, 16, 1])
    return float(np.bincount(colours.ravel()).max() / colours.size)


def _changes(photo: Image.Image) -> Tensor:
    """Whether brightness falls, stays or grows from each of 16 x 16 places to the next: a difference hash.

    It survives what leaves the picture as it is: another size, format or brightness.
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    grey = photo.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    values = torch.from_numpy(np.asarray(grey).astype(np.int16))
    steps = (values[:, 1:] - values[:, :-1]).flatten()
    return steps.sign().float() * (steps.abs() >= LEAST_CHANGE)


def photo_findings(file: str, facts: PhotoFacts) -> list[Finding]:
    """What is wrong with a photo by itself."""
    if facts.flatness >= FLATTEST:
        reason = f"{facts.flatness:.0%} of it is one colour: no photo of anything"
        return [Finding("placeholder", file, reason, facts.flatness)]
    findings = []
    shorter, longer = sorted((facts.width, facts.height))
    if shorter < SMALLEST_SIDE:
        findings.append(Finding("tiny", file, f"{facts.width} x {facts.height} pixels", 1 / shorter))
    if longer > THINNEST * shorter:
        reason = f"{facts.width} x {facts.height} pixels: the centre crop shows {shorter / longer:.0%} of it"
        findings.append(Finding("thin", file, reason, longer / shorter))
    if facts.brightness < DARKEST:
        reason = f"mean brightness {facts.brightness:.0f} of 255"
        findings.append(Finding("dark", file, reason, DARKEST - facts.brightness))
    elif facts.sharpness < LEAST_SHARP:  # in the dark every edge is faint
        reason = f"sharpness {facts.sharpness:.0f}, most photos have {10 * LEAST_SHARP} or more"
        findings.append(Finding("blurred", file, reason, LEAST_SHARP - facts.sharpness))
    return findings


def unbalanced(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """The largest and the smallest class, by their photos; None where the set is balanced well enough."""
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (largest, smallest) if counts[largest] > UNBALANCED * counts[smallest] else None


def imbalance(photos: ImageDataset) -> list[Finding]:
    """The smallest class, where it has too few training photos beside the largest; else nothing."""
    counts = photos.train.counts(photos.class_names)
    if (found := unbalanced(counts)) is None:
        return []
    largest, smallest = found
    ratio = counts[largest] / counts[smallest]
    reason = (
        f"{counts[smallest]} training photos, {largest} has {counts[largest]}: train.py --balance weighs them alike"
    )
    return [Finding("imbalance", smallest, reason, ratio)]
