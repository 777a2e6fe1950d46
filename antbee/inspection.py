"""What may be wrong with the photos of a folder: nothing is changed or deleted, a person decides.

The limits were set on the classic ants and bees, of whose 397 photos they flag none but one that is thin; labels are
another matter, since how many are doubted hangs on the network that judges them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antbee import evaluation, neighbours, resampling
from antbee.data import PhotoFolder
from antbee.training import FAST, Features

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
LEAST_ALIKE = 0.75  # cosine of two hashes: re-encoded, resized and brightened copies lie above, other photos below 0.6
NEAR = 0.45  # of the median distance of a photo to its nearest: cropped copies lie within, other photos beyond
DOUBT = 0.7  # see neighbours.label_doubt
UNBALANCED = 3  # photos of the largest class for each of the smallest


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at."""

    kind: Kind
    file: str  # relative to the data folder; of a pair the one to do without
    reason: str
    score: float  # how sure, or how bad: the highest first
    other: str | None = None  # the other file of a pair


# ---------------------------------------------------------------------------------------------------------------------
# One photo


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


# ---------------------------------------------------------------------------------------------------------------------
# All photos of a folder


def folder_findings(
    photos: PhotoFolder, facts: Mapping[str, PhotoFacts], features: Tensor | None, *, seed: int = 0
) -> list[Finding]:
    """Everything, by kind and then the surest first.

    `facts` by the photos' names; `features` (N, C) of those of the training split and then of the validation split,
    from a backbone that learned from neither. Without them labels are not judged, and copies are found by hash alone.
    """
    names, labels = photos.both.names(photos.root), torch.tensor(photos.both.labels)
    findings = [finding for name in names for finding in photo_findings(name, facts[name])]
    pairs = {**_same_features(names, findings, features), **_same_pictures(names, findings, facts)}
    findings += _copies(photos, names, labels, pairs)
    if features is not None:
        real = _without(names, findings, ["placeholder"])
        real_names = [names[position] for position in real]
        findings += _suspicious_labels(photos, real_names, labels[real], features[real], seed)
    findings += _imbalance(photos)
    surest: dict[tuple[str, str], Finding] = {}  # of a file that has many copies one is told
    for finding in findings:
        told = surest.setdefault((finding.kind, finding.file), finding)
        if finding.score > told.score:
            surest[finding.kind, finding.file] = finding
    findings = list(surest.values())
    return sorted(findings, key=lambda finding: (KINDS.index(finding.kind), -finding.score, finding.file))


Pairs = dict[tuple[int, int], tuple[str, float]]  # positions, the lower first: how they are known, and how surely


def _copies(photos: PhotoFolder, names: Sequence[str], labels: Tensor, pairs: Pairs) -> list[Finding]:
    """Photos that are there twice; those that are on both sides of the split are leaks."""
    findings = []
    for (first, second), (how, score) in pairs.items():
        across = first < len(photos.train) <= second
        # Of a leak the training photo: without it the validation photos stay those that others report on.
        unwanted, other = (first, second) if across else (second, first)
        where = "in val as well" if across else "there twice"
        under = "" if labels[first] == labels[second] else f", under {photos.class_names[labels[other]]}"
        reason = f"{where}{under}, as {names[other]}: {how}"
        findings.append(Finding("leak" if across else "copy", names[unwanted], reason, score, names[other]))
    return findings


def _without(names: Sequence[str], findings: Sequence[Finding], kinds: Sequence[Kind]) -> list[int]:
    """The positions of photos of which no such thing was found."""
    found = {finding.file for finding in findings if finding.kind in kinds}
    return [position for position, name in enumerate(names) if name not in found]


def _same_pictures(names: Sequence[str], findings: Sequence[Finding], facts: Mapping[str, PhotoFacts]) -> Pairs:
    """Pairs of photos that are one picture or its mirror image, by their hashes; blank ones are all alike."""
    real = _without(names, findings, ["placeholder"])
    if not real:
        return {}
    straight = [facts[names[position]].changes for position in real]
    mirrored = [facts[names[position]].mirrored_changes for position in real]
    found = neighbours.pairs_within(torch.stack(straight + mirrored), (2 - 2 * LEAST_ALIKE) ** 0.5)
    pairs: Pairs = {}
    for pair in found:
        first, second = sorted((real[pair.first % len(real)], real[pair.second % len(real)]))
        if first != second:  # not a photo and its own mirror image
            alike = 1 - pair.distance**2 / 2
            turned = "the mirror image, " if (pair.first < len(real)) != (pair.second < len(real)) else ""
            how = f"{turned}the pictures' hashes agree to {alike:.0%}"
            pairs.setdefault((first, second), (how, 1 + alike))
    return pairs


def _same_features(names: Sequence[str], findings: Sequence[Finding], features: Tensor | None) -> Pairs:
    """Pairs of photos that a network can hardly tell apart; in the dark, or out of focus, all are alike."""
    real = _without(names, findings, ["placeholder", "dark", "blurred", "tiny"])
    if features is None or len(real) < 2:
        return {}
    rows = features[real]
    return {
        (real[pair.first], real[pair.second]): (f"features at a distance of {pair.distance:.2f}", 1 - pair.distance / 2)
        for pair in neighbours.pairs_within(rows, NEAR * _usual_distance(rows))
    }


def _usual_distance(features: Tensor) -> float:
    """The median distance of a photo to its nearest."""
    rows = neighbours.directions(features)
    return float(neighbours.nearest(rows, rows, 1, same=True).distances.median())


def _suspicious_labels(
    photos: PhotoFolder, names: Sequence[str], labels: Tensor, features: Tensor, seed: int
) -> list[Finding]:
    """Photos whose neighbours, and a head that never saw them, take them for another class."""
    if len(labels.unique()) < 2:  # the others have placeholders alone
        return []
    folds = resampling.stratified_folds(labels, FAST.frozen.folds, seed)
    if len(folds.unique()) < 2:
        return []
    on_device = Features(features, labels)
    logits = resampling.head_out_of_fold(on_device, folds, FAST, seed=seed, device=features.device).logits
    probabilities = (logits / evaluation.fit_temperature(logits, labels)).softmax(1)
    doubt = neighbours.label_doubt(features, labels, probabilities)
    findings = []
    for position in (doubt > DOUBT).nonzero()[:, 0].tolist():
        own = photos.class_names[labels[position]]
        likeliest = photos.class_names[int(probabilities[position].argmax())]
        like = "no class" if likeliest == own else likeliest
        reason = f"looks like {like} more than {own}: doubt {doubt[position]:.2f}"
        findings.append(Finding("label", names[position], reason, float(doubt[position])))
    return findings


def unbalanced(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """The largest and the smallest class, by their photos; None where the set is balanced well enough."""
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (largest, smallest) if counts[largest] > UNBALANCED * counts[smallest] else None


def _imbalance(photos: PhotoFolder) -> list[Finding]:
    counts = photos.train.counts(photos.class_names)
    if (found := unbalanced(counts)) is None:
        return []
    largest, smallest = found
    ratio = counts[largest] / counts[smallest]
    reason = (
        f"{counts[smallest]} training photos, {largest} has {counts[largest]}: train.py --balance weighs them alike"
    )
    return [Finding("imbalance", smallest, reason, ratio)]
