"""What may be wrong with the photos of a folder: nothing is changed or deleted.

Copies, leaks between the splits, and labels that are doubted; how many hangs on the network that judges them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.quality import KINDS, Finding, Kind, PhotoFacts, imbalance, photo_findings
from antbee.evaluation.calibration import fit_temperature
from antbee.models.detector import directions, label_doubt, nearest, pairs_within
from antbee.training.crossvalidation import head_out_of_fold, stratified_folds
from antbee.training.features import Features
from antbee.training.recipe import FAST

LEAST_ALIKE = 0.75  # cosine of two hashes: re-encoded, resized and brightened copies lie above, other photos below 0.6
NEAR = 0.45  # of the median distance of a photo to its nearest: cropped copies lie within, other photos beyond
DOUBT = 0.7  # see label_doubt


def folder_findings(
    photos: ImageDataset, facts: Mapping[str, PhotoFacts], features: Tensor | None, *, seed: int = 0
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
    findings += imbalance(photos)
    surest: dict[tuple[str, str], Finding] = {}  # of a file that has many copies one is told
    for finding in findings:
        told = surest.setdefault((finding.kind, finding.file), finding)
        if finding.score > told.score:
            surest[finding.kind, finding.file] = finding
    findings = list(surest.values())
    return sorted(findings, key=lambda finding: (KINDS.index(finding.kind), -finding.score, finding.file))


Pairs = dict[tuple[int, int], tuple[str, float]]  # positions, the lower first: how they are known, and how surely


def _copies(photos: ImageDataset, names: Sequence[str], labels: Tensor, pairs: Pairs) -> list[Finding]:
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
    found = pairs_within(torch.stack(straight + mirrored), (2 - 2 * LEAST_ALIKE) ** 0.5)
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
        for pair in pairs_within(rows, NEAR * _usual_distance(rows))
    }


def _usual_distance(features: Tensor) -> float:
    """The median distance of a photo to its nearest."""
    rows = directions(features)
    return float(nearest(rows, rows, 1, same=True).distances.median())


def _suspicious_labels(
    photos: ImageDataset, names: Sequence[str], labels: Tensor, features: Tensor, seed: int
) -> list[Finding]:
    """Photos whose neighbours, and a head that never saw them, take them for another class."""
    if len(labels.unique()) < 2:  # the others have placeholders alone
        return []
    folds = stratified_folds(labels, FAST.frozen.folds, seed)
    if len(folds.unique()) < 2:
        return []
    on_device = Features(features, labels)
    logits = head_out_of_fold(on_device, folds, FAST, seed=seed, device=features.device).logits
    probabilities = (logits / fit_temperature(logits, labels)).softmax(1)
    doubt = label_doubt(features, labels, probabilities)
    findings = []
    for position in (doubt > DOUBT).nonzero()[:, 0].tolist():
        own = photos.class_names[labels[position]]
        likeliest = photos.class_names[int(probabilities[position].argmax())]
        like = "no class" if likeliest == own else likeliest
        reason = f"looks like {like} more than {own}: doubt {doubt[position]:.2f}"
        findings.append(Finding("label", names[position], reason, float(doubt[position])))
    return findings
