"""Findings in a data set: duplicates, leaks between the splits, suspicious labels. Nothing is changed or deleted.

How many are found depends on the network whose features are compared.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.quality import KINDS, Finding, Kind, PhotoFacts, cropped_away, imbalance, photo_findings
from antbee.evaluation.calibration import fit_temperature
from antbee.models.detector import Neighbours, Pair, directions, label_doubt, nearest, pairs_within
from antbee.training.crossvalidation import head_out_of_fold, stratified_folds
from antbee.training.features import Features
from antbee.training.recipe import FAST

LEAST_ALIKE = 0.75  # cosine of two hashes: re-encoded, resized and brightened copies lie above, other images below 0.6
NEAR = 0.6  # of the median nearest-neighbour distance: cropped copies lie within, other images beyond
ALONE = 0.45  # see `_alone_together`
DOUBT = 0.7  # see label_doubt
MIRRORED = "the mirror image"  # in the reason of a duplicate


def folder_findings(
    photos: ImageDataset, facts: Mapping[str, PhotoFacts], features: Tensor | None, *, seed: int = 0
) -> list[Finding]:
    """All findings in a data set, sorted by kind, then by descending score.

    `facts` are keyed by file name. `features` (N, C) are those of the images in `photos.all`, from a backbone that was
    not trained on them. Without features labels are not checked, and duplicates are found by their hashes only.
    """
    names, labels = photos.all.names(photos.root), torch.tensor(photos.all.labels)
    findings = [finding for name in names for finding in photo_findings(name, facts[name])]
    pairs = {**_near_features(names, findings, features), **_near_hashes(names, findings, facts)}
    findings += _duplicates(photos, names, labels, pairs)
    if features is not None:
        real = _without(names, findings, ["placeholder", "range"])
        real_names = [names[position] for position in real]
        findings += _suspicious_labels(photos, real_names, labels[real], features[real], seed)
    findings += [*cropped_away(photos, facts), *imbalance(photos)]
    findings.sort(key=lambda finding: (KINDS.index(finding.kind), -finding.score, finding.file))
    best: dict[tuple[str, str], Finding] = {}  # a file with many duplicates is listed once, with its best match
    for finding in findings:
        best.setdefault((finding.kind, finding.file), finding)
    return list(best.values())


Pairs = dict[tuple[int, int], tuple[str, float]]  # positions, the lower first -> the reason and the score


def _duplicates(photos: ImageDataset, names: Sequence[str], labels: Tensor, pairs: Pairs) -> list[Finding]:
    """Duplicates; those in two splits are leaks."""
    findings = []
    split_of = [name for name, split in photos.splits.items() for _ in range(len(split))]
    for (first, second), (how, score) in pairs.items():
        across = split_of[first] != split_of[second]
        # Of a leak, exclude the training image: the other splits stay comparable with published results.
        excluded, other = (first, second) if across else (second, first)
        label = "" if labels[first] == labels[second] else f", labelled {photos.class_names[labels[other]]}"
        sides = "; train.py --no-mirror if left and right tell the classes apart" * (bool(label) and MIRRORED in how)
        reason = f"duplicate of {names[other]}{label}: {how}{sides}"
        findings.append(Finding("leak" if across else "copy", names[excluded], reason, score, names[other]))
    return findings


def _without(names: Sequence[str], findings: Sequence[Finding], kinds: Sequence[Kind]) -> list[int]:
    """The positions of images without findings of these kinds."""
    found = {finding.file for finding in findings if finding.kind in kinds}
    return [position for position, name in enumerate(names) if name not in found]


def _near_hashes(names: Sequence[str], findings: Sequence[Finding], facts: Mapping[str, PhotoFacts]) -> Pairs:
    """Pairs whose hashes agree, also with the mirror image; without placeholders, whose hashes all agree."""
    real = _without(names, findings, ["placeholder", "range"])
    if not real:
        return {}
    straight = [facts[names[position]].changes for position in real]
    mirrored = [facts[names[position]].mirrored_changes for position in real]
    found = pairs_within(torch.stack(straight + mirrored), (2 - 2 * LEAST_ALIKE) ** 0.5)
    pairs: Pairs = {}
    for pair in found:
        first, second = sorted((real[pair.first % len(real)], real[pair.second % len(real)]))
        if first != second:  # an image and its own mirror image
            alike = 1 - pair.distance**2 / 2
            turned = f"{MIRRORED}, " if (pair.first < len(real)) != (pair.second < len(real)) else ""
            how = f"{turned}the pictures' hashes agree to {alike:.0%}"
            pairs.setdefault((first, second), (how, 1 + alike))
    return pairs


def _near_features(names: Sequence[str], findings: Sequence[Finding], features: Tensor | None) -> Pairs:
    """Pairs with nearly equal features; without dark and blurred images, whose features are all similar."""
    real = _without(names, findings, ["placeholder", "range", "dark", "blurred", "tiny"])
    if features is None or len(real) < 2:
        return {}
    rows = features[real]
    found = nearest(directions(rows), directions(rows), 2, same=True)
    near = pairs_within(rows, NEAR * float(found.distances[:, 0].median()))
    return {
        (real[pair.first], real[pair.second]): (f"features at a distance of {pair.distance:.2f}", 1 - pair.distance / 2)
        for pair in [*near, *_alone_together(found)]
    }


def _alone_together(found: Neighbours) -> list[Pair]:
    """Pairs that are each other's nearest, and near both by the median and beside the second nearest.

    A photo and a part of it lie alone together, while photos of one kind have several neighbours at like distances. It
    is the ratio test of Lowe 2004, "Distinctive Image Features from Scale-Invariant Keypoints", for whole images.
    `found` are the two nearest of each image.
    """
    if found.distances.shape[1] < 2:
        return []
    distance, nearest_row = found.distances[:, 0], found.positions[:, 0]
    ratio = distance / found.distances[:, 1].clamp(min=1e-6)
    isolation = torch.maximum(ratio, ratio[nearest_row]) * distance / distance.median().clamp(min=1e-6)
    rows = torch.arange(len(distance))
    mutual = (nearest_row[nearest_row] == rows) & (rows < nearest_row) & (isolation < ALONE)
    return [Pair(row, int(nearest_row[row]), float(distance[row])) for row in mutual.nonzero()[:, 0].tolist()]


def _suspicious_labels(
    photos: ImageDataset, names: Sequence[str], labels: Tensor, features: Tensor, seed: int
) -> list[Finding]:
    """Images whose nearest neighbours and out-of-fold predictions point to another class."""
    if len(labels.unique()) < 2:  # the other classes have only placeholders
        return []
    folds = stratified_folds(labels, FAST.frozen.folds, seed)
    if len(folds.unique()) < 2:
        return []
    logits = head_out_of_fold(Features(features, labels), folds, FAST, seed=seed, device=features.device).logits
    probabilities = (logits / fit_temperature(logits, labels)).softmax(1)
    doubt = label_doubt(features, labels, probabilities)
    findings = []
    for position in (doubt > DOUBT).nonzero()[:, 0].tolist():
        own = photos.class_names[labels[position]]
        most_probable = photos.class_names[int(probabilities[position].argmax())]
        like = "no class" if most_probable == own else most_probable
        reason = f"looks like {like} more than {own}: doubt {doubt[position]:.2f}"
        findings.append(Finding("label", names[position], reason, float(doubt[position])))
    return findings
