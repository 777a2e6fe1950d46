"""Quality checks that need no network: blank, tiny, thin, dark and blurred photos, crops, and class imbalance.

The thresholds were chosen on the classic ants and bees: of its 397 photos they flag one, which is thin.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.images import uses_a_sixteenth
from antbee.data.transforms import Preprocessing

Kind = Literal["placeholder", "leak", "copy", "label", "range", "tiny", "thin", "dark", "blurred", "crop", "imbalance"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_THE_WHOLE: tuple[Kind, ...] = ("crop", "imbalance")  # of a data set: the file is a split, or a class
UNWANTED: tuple[Kind, ...] = ("placeholder", "leak", "copy", "label")  # findings that can spoil training or evaluation

SMALLEST_SIDE = 112  # pixels; smaller photos are enlarged more than twice for the network's crop
LEAST_SEEN = 0.4  # median share of a photo's area; the centre crop sees 0.43 of 16 : 9, and 0.57 of 4 : 3
SAMPLE = 100  # photos of a split that are looked at for a warning before training
THINNEST = 3  # longer side / shorter side; the centre crop leaves out most of a thinner photo
DARK = 64  # of 255; a photo with brighter pixels is not opened again for `PhotoFacts.has_narrow_range`
DARKEST = 25  # mean brightness, 0..255
LEAST_SHARP = 45  # variance of the Laplacian at a longer side of 256 pixels
FLATTEST = 0.9  # fraction of the pixels that have one colour
HASH_SIDE = 16  # the difference hash has 16 x 16 values
LEAST_CHANGE = 3  # grey levels; smaller differences, as in a plain background, count as none

UNBALANCED = 3  # ratio of the largest to the smallest class


@dataclass(frozen=True)
class Finding:
    """A photo, a pair of photos or a class that a person should check."""

    kind: Kind
    file: str  # relative to the data folder; of a pair, the one to remove; see OF_THE_WHOLE
    reason: str
    score: float  # sort key within a kind, worst first
    other: str | None = None  # the other file of a pair


@dataclass(frozen=True)
class PhotoFacts:
    """Measurements of a photo that need no network."""

    width: int  # pixels
    height: int
    brightness: float  # mean, 0..255
    sharpness: float  # variance of the Laplacian
    flatness: float  # fraction of the pixels with the most frequent of 16 x 16 x 16 colours
    changes: Tensor  # difference hash: float32 (256,) of -1, 0 and 1, see `_changes`
    mirrored_changes: Tensor  # difference hash of the mirror image
    has_narrow_range: bool = False  # see `uses_a_sixteenth`


def measure(photo: Image.Image, path: Path | None = None) -> PhotoFacts:
    """Measures an RGB image; its file is opened again where the image is so dark that its 16 bits may be half empty."""
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
        has_narrow_range=path is not None and grey.max() < DARK and uses_a_sixteenth(path),
    )


def _sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of float32 (H, W): higher for sharper edges (Pech-Pacheco et al. 2000)."""
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * grey[1:-1, 1:-1] - around).var())


def _flatness(photo: Image.Image) -> float:
    pixels = np.asarray(photo.resize((64, 64), Image.Resampling.BOX)).astype(np.int64) // 16
    colours = pixels @ np.array([256, 16, 1])
    return float(np.bincount(colours.ravel()).max() / colours.size)


def _changes(photo: Image.Image) -> Tensor:
    """Difference hash: the sign of the brightness change from each of 16 x 16 cells to the next in its row.

    It hardly changes when a photo is resized, re-encoded or brightened. float32 (256,) of -1, 0 and 1.
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    grey = photo.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    values = torch.from_numpy(np.asarray(grey).astype(np.int16))
    steps = (values[:, 1:] - values[:, :-1]).flatten()
    return steps.sign().float() * (steps.abs() >= LEAST_CHANGE)


def photo_findings(file: str, facts: PhotoFacts) -> list[Finding]:
    """The findings of a single photo; a placeholder, and a photo that is black by its range, as that alone."""
    if facts.has_narrow_range:
        reason = (
            "16 bits, of which it uses a sixteenth of the range or less, so it is nearly black: scale its values to "
            "the whole range, or export it with 8 bits"
        )
        return [Finding("range", file, reason, 1.0)]
    if facts.flatness >= FLATTEST:
        reason = f"{facts.flatness:.0%} of it is one colour: a placeholder, not a photo"
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
    elif facts.sharpness < LEAST_SHARP:  # dark photos have low contrast, so they would count as blurred
        reason = f"sharpness {facts.sharpness:.0f}, most photos have {10 * LEAST_SHARP} or more"
        findings.append(Finding("blurred", file, reason, LEAST_SHARP - facts.sharpness))
    return findings


def sample(paths: Sequence[Path]) -> Sequence[Path]:
    """Some of the photos, evenly spread: SAMPLE at most."""
    return paths[:: max(1, math.ceil(len(paths) / SAMPLE))]


def median_seen(sizes: Iterable[tuple[int, int]], preprocessing: Preprocessing) -> float:
    """The median share of the photos' area that the network sees, 0..1, by width and height; 1 without photos."""
    return statistics.median([preprocessing.share_seen(*size) for size in sizes] or [1.0])


def cropped_away(photos: ImageDataset, facts: Mapping[str, PhotoFacts]) -> list[Finding]:
    """One finding for the training split, if the usual centre crop leaves out most of most of its photos."""
    sizes = [(facts[name].width, facts[name].height) for name in photos.train.names(photos.root)]
    if (seen := median_seen(sizes, Preprocessing())) >= LEAST_SEEN:
        return []
    reason = (
        f"of half of the training photos the centre crop sees {seen:.0%} of the area or less: train.py --fit squash "
        "trains on the whole of them"
    )
    return [Finding("crop", "train", reason, 1 - seen)]


def unbalanced(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """The largest and the smallest class if their sizes differ by more than UNBALANCED times, else None."""
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (largest, smallest) if counts[largest] > UNBALANCED * counts[smallest] else None


def imbalance(photos: ImageDataset) -> list[Finding]:
    """One finding, named after the smallest class, if the training split is unbalanced."""
    counts = photos.train.counts(photos.class_names)
    if (found := unbalanced(counts)) is None:
        return []
    largest, smallest = found
    ratio = counts[largest] / counts[smallest]
    reason = (
        f"{counts[smallest]} training photos, {largest} has {counts[largest]}: "
        "train.py --balance weights the classes equally"
    )
    return [Finding("imbalance", smallest, reason, ratio)]
