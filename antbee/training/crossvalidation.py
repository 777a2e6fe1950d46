"""Cross-validation and the learning curve: the same training on folds or subsets of the images.

The temperature and the detector's threshold are fitted to out-of-fold predictions. Predictions on training images are
overconfident: fitted to them, a temperature made the probabilities of a fine-tuned network worse.
"""

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from antbee.data.seeds import seeded_generator
from antbee.evaluation.metrics import area_under_roc
from antbee.models.backbone import Network, head_of, new_head, zero_head
from antbee.models.detector import LARGEST_SAMPLE, directions, kth_distance, nearest, sample
from antbee.models.device import Precision
from antbee.training.distributed import DistributedContext
from antbee.training.features import Examples, Features, compute_features
from antbee.training.heads import trained_heads
from antbee.training.modes import fit_mode_without_validation
from antbee.training.recipe import Recipe

NEIGHBOURS = (1, 2, 3, 5, 10)  # that the detector's k is chosen from
MOST_LEFT_OUT = 10  # classes
CURVE_SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # images of each class; the last point has all of them
CURVE_DRAWS = 5  # subsets for each size, each with a new head
CURVE_STEPS = 1000  # gradient steps of each head at most, so that the curve of a large set takes minutes, not hours
FLAT = 0.01  # a smaller gain in accuracy is called level


def stratified_folds(labels: Tensor, count: int, seed: int) -> Tensor:
    """The fold of each image, int64 (N,) in 0..count-1, drawn by `seed` and stratified by class.

    There are fewer folds where a class has fewer images than `count`, and a single one where a class has one image.
    """
    count = max(1, min(count, int(torch.bincount(labels).min())))
    folds = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=seeded_generator(seed, "folds", label))
        folds[members[order]] = (torch.arange(len(members)) + label) % count  # small classes start at other folds
    return folds


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for every training image by a network that was trained on the other folds."""

    folds: int  # number of folds
    logits: Tensor  # float32 (N, classes)
    distances: Tensor  # float64 (<= N,), to the k-th nearest training image, of those that a detector keeps
    neighbours: int  # k


def head_out_of_fold(
    features: Features,
    folds: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    max_epochs: int | None = None,
    start: torch.nn.Linear | None = None,
) -> OutOfFold:
    """Out-of-fold predictions of heads on a frozen backbone, trained for `max_epochs`, or for all epochs.

    The backbone was not trained on the labels, so all folds share its features.
    """
    class_count = int(features.labels.max()) + 1
    logits = torch.zeros(len(features), class_count)
    for fold in folds.unique().tolist():
        trained_on, held = (folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0]
        subset = features.subset(trained_on)
        head = trained_head(subset, class_count, recipe, seed=seed, device=device, max_epochs=max_epochs, start=start)
        logits[held] = logits_of(head, features.subset(held))
    count = choose_neighbours(features)
    return OutOfFold(len(folds.unique()), logits, distances_left_out(features, count), count)


def choose_neighbours(features: Features) -> int:
    """The k of NEIGHBOURS by whose nearest neighbour a detector best recognises a class that it lacks.

    Each class in turn, of at most MOST_LEFT_OUT, is left out; the score is the mean area under the ROC curve of its
    images against those of the other classes. Only images that are trained on take part.
    """
    kept = features.subset(sample(len(features), LARGEST_SAMPLE))
    rows, scores = directions(kept.features), torch.zeros(len(NEIGHBOURS))
    for label in kept.labels.unique()[:MOST_LEFT_OUT]:
        own, others = rows[kept.labels == label], rows[kept.labels != label]
        if len(others) < 2:
            continue
        known = nearest(others, others, max(NEIGHBOURS), same=True).distances
        unknown = nearest(own, others, known.shape[1]).distances
        for place, count in enumerate(NEIGHBOURS):
            column = min(count, known.shape[1]) - 1
            scores[place] += area_under_roc(known[:, column], unknown[:, column])
    return NEIGHBOURS[int(scores.argmax())]  # the smallest of equal ones


def distances_left_out(features: Features, count: int) -> Tensor:
    """The distance of each image that a detector keeps to its `count`-th nearest neighbour: float64 (<= N,)."""
    kept = features.subset(sample(len(features))).features
    return kth_distance(kept, kept, count=count, same=True)


def trained_head(
    features: Features,
    class_count: int,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    max_epochs: int | None = None,
    start: torch.nn.Linear | None = None,
) -> torch.nn.Linear:
    """A head trained on `features` as in the recipe's frozen mode, for `max_epochs` or for all epochs.

    It starts as a copy of `start`; without one it is new, as the recipe says.
    """
    width = features.features.shape[1]
    first = start or (zero_head(width, class_count) if recipe.own_head else new_head(width, class_count, seed=seed))
    head = copy.deepcopy(first).requires_grad_(True).to(device)
    fit_mode_without_validation(
        head, features, "frozen", recipe, seed=seed, context=DistributedContext(device), max_epochs=max_epochs
    )
    return head.requires_grad_(False)


def logits_of(head: torch.nn.Linear, features: Features) -> Tensor:
    """The logits of features: float32 (N, classes), on the CPU."""
    with torch.inference_mode():
        return head(features.features).float().cpu()


def network_out_of_fold(
    train_on: Callable[[Tensor], Network],
    photos: Examples,
    folds: Tensor,
    context: DistributedContext,
    precision: Precision,
    neighbours: int,
) -> OutOfFold:
    """Out-of-fold predictions of whole networks: `train_on` trains one on the images at these positions.

    `photos` are all training images, in evaluation crops. Distances are in each network's own features.
    """
    logits = torch.zeros(len(folds), int(photos.labels.max()) + 1)
    distances = torch.zeros(len(folds), dtype=torch.double)
    for fold in folds.unique().tolist():
        trained_on, held = (folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0]
        network = train_on(trained_on)
        features = compute_features(network, photos, context, what="left-out photos", precision=precision)
        logits[held] = logits_of(head_of(network), features.subset(held))
        kept = trained_on[sample(len(trained_on))]
        # Among fewer images the k-th nearest is farther away, so k shrinks with their number.
        count = max(1, round(neighbours * len(kept) / len(sample(len(folds)))))
        distances[held] = kth_distance(features.subset(held).features, features.subset(kept).features, count=count)
    return OutOfFold(len(folds.unique()), logits, distances, neighbours)


@dataclass(frozen=True)
class CurvePoint:
    """Accuracies of heads that were trained on a subset of the images."""

    per_class: int  # images of each class at most
    photos: int  # in all
    accuracies: tuple[float, ...]  # on the validation images, of each draw
    right: Tensor = field(compare=False)  # float32 (validation images,): share of the draws that predict each right

    @property
    def accuracy(self) -> float:
        """The mean over the draws."""
        return statistics.fmean(self.accuracies)


def learning_curve(
    train: Features,
    val: Features,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    sizes: Sequence[int] = CURVE_SIZES,
) -> list[CurvePoint]:
    """Accuracy on `val` of heads on frozen features, by the number of training images of each class.

    Every size has CURVE_DRAWS draws, and as many gradient steps as the full set. The last size is at least double the
    one before it, so that its gain is meaningful.
    """
    counts = torch.bincount(train.labels)
    largest = int(counts.max())
    points = []
    for per_class in [*(size for size in sizes if 2 * size <= largest), largest]:
        subsets = [_drawn(train.labels, per_class, seed, draw) for draw in range(CURVE_DRAWS)]
        lengthened = _as_many_steps(recipe, len(subsets[0]), len(train))
        seeds = [seed + draw for draw in range(CURVE_DRAWS)]
        heads = trained_heads(train, subsets, len(counts), lengthened, seeds=seeds, device=device)
        right = [(logits_of(head, val).argmax(1) == val.labels).float() for head in heads]
        accuracies = tuple(float(draw.mean()) for draw in right)
        points.append(CurvePoint(per_class, len(subsets[0]), accuracies, torch.stack(right).mean(0)))
    return points


def _drawn(labels: Tensor, per_class: int, seed: int, draw: int) -> Tensor:
    """Positions of at most `per_class` images of each class, int64, ascending."""
    chosen = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=seeded_generator(seed, "curve", draw, label))
        chosen.append(members[order[:per_class]])
    return torch.cat(chosen).sort().values


def _as_many_steps(recipe: Recipe, photos: int, all_photos: int) -> Recipe:
    schedule = recipe.frozen
    steps, all_steps = (math.ceil(count / schedule.batch_size) for count in (photos, all_photos))
    wanted = min(schedule.epochs * all_steps, CURVE_STEPS)
    return replace(recipe, frozen=replace(schedule, epochs=max(1, round(wanted / steps))))


def enough_data(points: Sequence[CurvePoint]) -> str:
    """Whether more data would help, in a sentence."""
    first, last = points[0], points[-1]
    if len(points) < 2:
        return f"With {last.photos} photos in all there are too few to tell whether more would help."
    before = points[-2]
    gain = last.accuracy - before.accuracy
    # The standard error of the difference: over the draws of training images, and over the validation images.
    by_draws = [statistics.stdev(point.accuracies) / math.sqrt(CURVE_DRAWS) for point in (before, last)]
    by_photos = float((last.right - before.right).std()) / math.sqrt(len(last.right)) if len(last.right) > 1 else 1.0
    error = math.hypot(*by_draws, by_photos)
    sentence = (
        f"A head on frozen features has {first.accuracy:.1%} right after training on {first.per_class} photos a class, "
        f"and {last.accuracy:.1%} after all {last.photos} photos. The step from {before.photos} photos to all is "
        f"{round(100 * gain, 1) + 0.0:+.1f} points (standard error {100 * error:.1f}): "
    )
    if gain > max(FLAT, 2 * error):
        return sentence + "still rising, so more photos are likely to help."
    if gain > FLAT:
        return sentence + "rising if it is not chance, so more photos may help."
    return sentence + "level, so more photos of the same kind are not likely to help much."
