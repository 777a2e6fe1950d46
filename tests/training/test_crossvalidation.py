"""Stratified folds, out-of-fold predictions of heads and networks, and the learning curve."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from antbee.models.backbone import feature_map, new_head, pooled
from antbee.models.weights import StartingWeights, build_network
from antbee.training import crossvalidation
from antbee.training.crossvalidation import (
    NEIGHBOURS,
    CurvePoint,
    choose_neighbours,
    distances_left_out,
    enough_data,
    head_out_of_fold,
    learning_curve,
    stratified_folds,
)
from antbee.training.distributed import DistributedContext
from antbee.training.features import Features
from antbee.training.recipe import FAST
from antbee.training.trainer import threads

CPU = torch.device("cpu")
RECIPE = replace(FAST, frozen=replace(FAST.frozen, epochs=4, batch_size=8, learning_rate=0.1))


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small take a hundred times as long if two threads wait for each other on a busy machine."""
    with threads(1):
        yield


def clusters(counts, *, seed=0):
    """Features of classes with `counts` photos each, clustered around a direction of each class."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    return Features(3 * one_hot(labels, 8) + 0.5 * noise, labels)


# ---- folds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("counts", [(10, 10), (7, 23), (5, 6, 100), (123, 121)])
def test_every_class_is_spread_evenly_over_all_folds(counts, count):
    labels = clusters(counts).labels
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    folds = stratified_folds(labels, count, seed=0)
    assert folds.dtype == torch.int64
    assert folds.shape == labels.shape
    for label in range(len(counts)):
        sizes = torch.bincount(folds[labels == label], minlength=count).tolist()
        assert len(sizes) == count
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("smallest", "expected"), [(2, 2), (4, 4), (5, 5), (6, 5)])
def test_the_number_of_folds_is_limited_by_the_smallest_class(smallest, expected):
    labels = clusters((40, smallest)).labels
    folds = stratified_folds(labels, 5, seed=0)
    assert folds.unique().tolist() == list(range(expected))
    for fold in range(expected):  # every class is in each fold and in the others
        assert labels[folds == fold].unique().tolist() == labels[folds != fold].unique().tolist() == [0, 1]


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1], [0, 0, 2, 2]])
def test_a_class_of_one_photo_gives_a_single_fold(labels):
    assert stratified_folds(torch.tensor(labels), 5, seed=0).tolist() == [0] * len(labels)


def test_folds_are_drawn_by_the_seed_and_by_class():
    labels = clusters((30, 30)).labels
    folds = stratified_folds(labels, 5, seed=0)
    assert torch.equal(stratified_folds(labels, 5, seed=0), folds)
    assert not torch.equal(stratified_folds(labels, 5, seed=1), folds)
    assert not torch.equal(folds[:30], folds[30:])
    assert torch.equal(stratified_folds(clusters((30, 12)).labels, 5, seed=0)[:30], folds[:30])


# ---- out-of-fold predictions -----------------------------------------------------------------------------------------


def predict_by_heads(features, folds, recipe=RECIPE, seed=0):
    return head_out_of_fold(features, folds, recipe, seed=seed, device=CPU)


@pytest.mark.parametrize("position", [0, 11, 25])
def test_the_label_of_a_photo_does_not_affect_its_own_prediction(position):
    features = clusters((14, 16))
    folds = stratified_folds(features.labels, 3, seed=0)
    swapped = features.labels.clone()
    swapped[position] = 1 - swapped[position]
    before, after = predict_by_heads(features, folds), predict_by_heads(Features(features.features, swapped), folds)
    assert torch.equal(before.logits[folds == folds[position]], after.logits[folds == folds[position]])
    # The heads of the other folds were trained on it.
    assert (before.logits != after.logits)[folds != folds[position]].all()
    # Distances are those of the features alone; only k depends on the labels.
    for found in (before, after):
        assert torch.equal(found.distances, distances_left_out(features, found.neighbours))


def test_every_photo_is_predicted_by_a_head_trained_on_the_other_folds():
    features = clusters((9, 12, 10))
    folds = stratified_folds(features.labels, 3, seed=0)
    found = predict_by_heads(features, folds)
    assert found.logits.shape == (31, 3)
    assert found.logits.dtype == torch.float32
    for fold in range(3):
        trained_on, held = (folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0]
        head = crossvalidation.trained_head(features.subset(trained_on), 3, RECIPE, seed=0, device=CPU)
        torch.testing.assert_close(found.logits[held], head(features.features[held]))
    assert not found.logits.requires_grad


def test_distances_on_a_frozen_backbone_are_to_all_other_photos():
    features = clusters((20, 20))
    found = predict_by_heads(features, stratified_folds(features.labels, 4, seed=0))
    rows = normalize(features.features.double())
    apart = torch.cdist(rows, rows).fill_diagonal_(math.inf)
    expected = apart.sort(dim=1).values[:, found.neighbours - 1]
    assert found.neighbours in NEIGHBOURS
    torch.testing.assert_close(found.distances, expected, rtol=0, atol=1e-6)


def test_predictions_are_right_for_separable_classes_and_chance_for_random_labels():
    features = clusters((40, 40))
    folds = stratified_folds(features.labels, 5, seed=0)
    assert (predict_by_heads(features, folds).logits.argmax(1) == features.labels).double().mean() > 0.95
    noise = torch.randn(80, 60, generator=torch.Generator().manual_seed(0))
    random_labels = Features(noise, features.labels)
    recipe = replace(RECIPE, frozen=replace(RECIPE.frozen, epochs=30))
    head = crossvalidation.trained_head(random_labels, 2, recipe, seed=0, device=CPU)
    # With 60 features a head memorises the labels it is trained on.
    assert (head(noise).argmax(1) == random_labels.labels).double().mean() > 0.95
    assert (
        predict_by_heads(random_labels, folds, recipe).logits.argmax(1) == random_labels.labels
    ).double().mean() < 0.7


def test_a_balanced_recipe_weighs_the_classes_of_the_other_folds():
    features = clusters((5, 40))
    folds = stratified_folds(features.labels, 3, seed=0)
    plain, balanced = (
        predict_by_heads(features, folds, replace(RECIPE, balanced=balanced)).logits for balanced in (False, True)
    )
    assert (balanced[:, 0] - balanced[:, 1] > plain[:, 0] - plain[:, 1]).double().mean() > 0.9


def test_the_seed_draws_the_initial_weights_of_a_head_and_the_order_of_photos(monkeypatch):
    features = clusters((10, 10))
    recipe = replace(RECIPE, own_head=False)
    at_once = replace(recipe, frozen=replace(RECIPE.frozen, batch_size=20))  # where the order does not matter

    def weights(recipe, seed):
        head = crossvalidation.trained_head(features, 2, recipe, seed=seed, device=CPU)
        assert not any(parameter.requires_grad for parameter in head.parameters())
        return head.weight

    assert not torch.allclose(weights(at_once, 0), weights(at_once, 1), atol=1e-3)
    draw = new_head
    monkeypatch.setattr(crossvalidation, "new_head", lambda width, class_count, seed: draw(width, class_count, seed=0))
    torch.testing.assert_close(weights(at_once, 0), weights(at_once, 1))
    assert not torch.allclose(weights(recipe, 0), weights(recipe, 1), atol=1e-4)


def test_a_head_of_the_fast_recipe_starts_equal_for_all_seeds_from_zeros_or_as_a_copy_of_another():
    features = clusters((10, 10))
    unchanged = replace(RECIPE, frozen=replace(RECIPE.frozen, learning_rate=1e-30))
    other = new_head(8, 2, seed=5)
    for seed in range(2):
        zeros = crossvalidation.trained_head(features, 2, unchanged, seed=seed, device=CPU)
        assert float(zeros.weight.abs().max()) < 1e-20
        assert float(zeros.bias.abs().max()) < 1e-20
        copied = crossvalidation.trained_head(features, 2, unchanged, seed=seed, device=CPU, start=other)
        assert torch.equal(copied.weight, other.weight)
        assert torch.equal(copied.bias, other.bias)
    trained = crossvalidation.trained_head(features, 2, RECIPE, seed=0, device=CPU, start=other)
    assert not torch.equal(trained.weight, other.weight)
    assert torch.equal(other.weight, new_head(8, 2, seed=5).weight)


def test_heads_left_out_start_from_the_given_head():
    features = clusters((10, 10))
    folds, start = stratified_folds(features.labels, 2, seed=0), new_head(8, 2, seed=5)
    unchanged = replace(RECIPE, frozen=replace(RECIPE.frozen, learning_rate=1e-30))
    found = head_out_of_fold(features, folds, unchanged, seed=0, device=CPU, start=start)
    torch.testing.assert_close(found.logits, start(features.features).detach())


def test_equal_seeds_give_equal_predictions():
    features = clusters((10, 10))
    folds = stratified_folds(features.labels, 2, seed=0)
    assert torch.equal(predict_by_heads(features, folds).logits, predict_by_heads(features, folds).logits)
    assert not torch.equal(predict_by_heads(features, folds).logits, predict_by_heads(features, folds, seed=1).logits)


class Images:
    """Random images of 32 pixels a side and their labels, in batches."""

    def __init__(self, labels):
        self.labels = torch.tensor(labels)
        self.inputs = torch.rand(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.labels)

    def batches(self, positions, epoch=0):
        return [(self.inputs[batch], self.labels[batch]) for batch in positions]


IMAGES = Images([0, 1, 1, 0, 1, 0, 0, 1, 1])
FOLDS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])


@pytest.fixture(scope="module")
def networks():
    """One for each fold."""
    return [build_network("resnet18", 2, StartingWeights("random"), seed=seed) for seed in range(3)]


def predict_by_networks(train_on, precision="float32", neighbours=3):
    return crossvalidation.network_out_of_fold(train_on, IMAGES, FOLDS, DistributedContext(), precision, neighbours)


def test_a_network_is_trained_on_the_other_folds(networks):
    trained_on = []

    def train_on(positions):
        trained_on.append(positions.tolist())
        return networks[len(trained_on) - 1]

    predict_by_networks(train_on)
    assert trained_on == [[p for p in range(9) if int(FOLDS[p]) != fold] for fold in range(3)]


def test_every_photo_is_predicted_by_the_network_of_its_fold(networks):
    queue = iter(networks)
    found = predict_by_networks(lambda positions: next(queue))
    assert (found.logits.dtype, found.distances.dtype) == (torch.float32, torch.float64)
    for fold, network in enumerate(networks):
        held = torch.eq(FOLDS, fold)
        network.eval()
        with torch.inference_mode():
            features = pooled(network, feature_map(network, IMAGES.inputs))
            torch.testing.assert_close(found.logits[held], network.fc(features)[held], rtol=1e-3, atol=1e-4)
        # k is 3 of all nine photos, so it is 2 of the six that each network was trained on.
        rows = normalize(features.double())
        expected = torch.cdist(rows[held], rows[~held]).sort(dim=1).values[:, 1]
        torch.testing.assert_close(found.distances[held], expected, rtol=1e-3, atol=1e-4)


def test_a_network_in_training_mode_predicts_in_evaluation_mode_and_is_not_changed(networks):
    network = networks[0].eval()
    expected = predict_by_networks(lambda positions: network)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = predict_by_networks(lambda positions: network)
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_predictions_in_lower_precision_are_close_and_in_float32(networks):
    full, lower = (
        predict_by_networks(lambda positions: networks[0], precision) for precision in ("float32", "bfloat16")
    )
    assert lower.logits.dtype == torch.float32
    assert not torch.equal(lower.logits, full.logits)
    torch.testing.assert_close(lower.logits, full.logits, rtol=0.1, atol=0.1)


# ---- the detector's k ------------------------------------------------------------------------------------------------


def twins(pairs):
    """Three classes of pairs of nearly equal features, and nothing else in common."""
    generator = torch.Generator().manual_seed(0)
    firsts = torch.randn(3 * pairs, 64, generator=generator)
    rows = firsts.repeat_interleave(2, 0) + 0.05 * torch.randn(6 * pairs, 64, generator=generator)
    return Features(rows, torch.arange(3).repeat_interleave(2 * pairs))


def strays():
    """Three clusters, each with one image that bears the label of the next class."""
    features = clusters((20, 20, 20))
    labels = features.labels.clone()
    labels[[0, 20, 40]] = torch.tensor([1, 2, 0])
    return Features(features.features, labels)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (twins(8), 1),  # the second nearest is as far as that of an unknown class
        (strays(), 2),  # the nearest of an unknown class is its own stray
        (clusters((20, 20, 20)), 1),  # all are right, so the smallest
    ],
    ids=["twins", "strays", "clusters"],
)
def test_the_k_that_recognises_a_class_left_out_best_is_chosen_the_smallest_of_equal_ones(features, expected):
    shuffled = features.subset(torch.randperm(len(features), generator=torch.Generator().manual_seed(1)))
    assert choose_neighbours(features) == choose_neighbours(shuffled) == expected


@pytest.mark.parametrize("counts", [(2, 2), (2, 9), (1, 5), (1, 1), (1, 1, 1)])
def test_a_k_is_chosen_for_the_smallest_classes(counts):
    assert choose_neighbours(clusters(counts)) in NEIGHBOURS


@pytest.mark.parametrize("neighbours", [1, 10])
def test_the_chosen_k_is_given_with_distances_to_that_neighbour_of_fewer_photos(networks, neighbours):
    queue = iter(networks)
    found = predict_by_networks(lambda positions: next(queue), neighbours=neighbours)
    assert found.neighbours == neighbours
    for fold, network in enumerate(networks):
        held = torch.eq(FOLDS, fold)
        with torch.inference_mode():
            rows = normalize(pooled(network.eval(), feature_map(network, IMAGES.inputs)).double())
        ordered = torch.cdist(rows[held], rows[~held]).sort(dim=1).values
        expected = ordered[:, {1: 0, 10: -1}[neighbours]]  # the tenth would be the seventh of six photos
        torch.testing.assert_close(found.distances[held], expected, rtol=1e-3, atol=1e-4)


# ---- learning curve --------------------------------------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch):
    """Features, recipe and seed of each head that is trained."""
    calls, train = [], crossvalidation.trained_heads

    def recorded(features, chosen, class_count, recipe, *, seeds, device):
        calls.extend((features.subset(one), recipe, seed) for one, seed in zip(chosen, seeds, strict=True))
        return train(features, chosen, class_count, recipe, seeds=seeds, device=device)

    monkeypatch.setattr(crossvalidation, "trained_heads", recorded)
    return calls


def curve_of(counts, sizes, recipe=RECIPE, seed=0):
    return learning_curve(
        clusters(counts), clusters((6,) * len(counts), seed=1), recipe, seed=seed, device=CPU, sizes=sizes
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((30, 30), [(2, 4), (5, 10), (30, 60)]),
        ((3, 30), [(2, 4), (5, 8), (30, 33)]),
        ((20, 20), [(2, 4), (5, 10), (20, 40)]),
        ((4, 3, 2), [(2, 6), (4, 9)]),
        ((2, 2), [(2, 4)]),
    ],
)
def test_a_curve_has_the_given_sizes_and_ends_with_all_photos_at_least_doubled(counts, expected):
    points = curve_of(counts, (2, 5, 20))
    assert [(point.per_class, point.photos) for point in points] == expected
    assert {len(point.accuracies) for point in points} == {crossvalidation.CURVE_DRAWS}
    assert all(0 <= accuracy <= 1 for point in points for accuracy in point.accuracies)


def test_every_size_is_trained_for_as_many_steps_as_the_full_set(trainings):
    recipe = replace(RECIPE, frozen=replace(RECIPE.frozen, epochs=20))
    curve_of((30, 10), (2, 5, 8, 20), recipe)
    wanted = 20 * math.ceil(40 / 8)
    for features, lengthened, _ in trainings:
        steps_per_epoch = math.ceil(len(features) / 8)
        assert abs(lengthened.frozen.epochs * steps_per_epoch - wanted) <= steps_per_epoch / 2
        assert replace(lengthened, frozen=replace(lengthened.frozen, epochs=20)) == recipe
    assert trainings[-1][1] == recipe


def test_every_draw_has_other_photos_and_another_head_and_no_photo_twice(trainings):
    curve_of((30, 12), (5,))
    *drawn, everything = ([tuple(row) for row in features.features.tolist()] for features, _, _ in trainings[:6])
    assert len({frozenset(rows) for rows in drawn}) == crossvalidation.CURVE_DRAWS
    assert all(len(set(rows)) == len(rows) == 10 for rows in drawn)
    assert len(set(everything)) == 42
    assert [seed for _, _, seed in trainings] == 2 * list(range(crossvalidation.CURVE_DRAWS))
    for features, _, _ in trainings[:5]:
        assert torch.bincount(features.labels).tolist() == [5, 5]


def test_equal_seeds_give_equal_curves_and_more_photos_a_higher_accuracy():
    noisy, val = (
        Features(
            part.features + torch.randn(part.features.shape, generator=torch.Generator().manual_seed(2)), part.labels
        )
        for part in (clusters((100, 100)), clusters((100, 100), seed=1))
    )
    points, again = (learning_curve(noisy, val, RECIPE, seed=0, device=CPU, sizes=(1,)) for _ in range(2))
    assert points == again
    assert points != learning_curve(noisy, val, RECIPE, seed=1, device=CPU, sizes=(1,))
    assert points[0].accuracy < points[-1].accuracy


def point(per_class, *accuracies):
    """A point without variance over the validation photos: each is right equally often."""
    return CurvePoint(per_class, 2 * per_class, accuracies, torch.full((50,), sum(accuracies) / len(accuracies)))


def test_the_accuracy_of_a_point_is_the_mean_of_its_draws():
    assert point(5, 0.5, 0.75, 1.0).accuracy == 0.75


@pytest.mark.parametrize(
    ("before", "last", "verdict"),
    [
        (
            (0.80, 0.81, 0.79, 0.80, 0.80),
            (0.90, 0.90, 0.90, 0.90, 0.90),
            "still rising, so more photos are likely to help",
        ),
        (
            (0.80, 0.70, 0.90, 0.60, 0.95),
            (0.82, 0.82, 0.82, 0.82, 0.82),
            "rising if it is not chance, so more photos may help",
        ),
        ((0.90, 0.90, 0.90, 0.90, 0.90), (0.905, 0.905, 0.905, 0.905, 0.905), "level"),
        ((0.90, 0.80, 0.95, 0.90, 0.90), (0.80, 0.80, 0.80, 0.80, 0.80), "level"),
    ],
)
def test_the_verdict_on_more_photos_depends_on_the_last_gain_and_its_standard_error(before, last, verdict):
    sentence = enough_data([point(5, *[0.5] * 5), point(10, *before), point(25, *last)])
    assert f": {verdict}" in sentence
    assert sentence.endswith(".")
    assert sum(word in sentence for word in ("still rising", "if it is not chance", "level")) == 1


def test_the_sentence_has_both_ends_of_the_curve_and_the_last_gain_with_its_standard_error():
    sentence = enough_data(
        [point(5, *[0.6] * 5), point(10, 0.7, 0.8, 0.9, 0.8, 0.8), point(25, 0.92, 0.9, 0.88, 0.9, 0.9)]
    )
    assert "60.0% right after training on 5 photos a class, and 90.0% after all 50 photos." in sentence
    # Deviations of 0.0707 and 0.0141, together 0.0721, over the root of five draws.
    assert "The step from 20 photos to all is +10.0 points (standard error 3.2)" in sentence


def test_with_few_validation_photos_a_gain_may_be_chance():
    before, last = (
        replace(point(size, *[share] * 5), right=torch.tensor([share] * 8)) for size, share in ((5, 0.5), (10, 0.75))
    )
    last = replace(last, right=torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0]))
    assert "if it is not chance" in enough_data([before, last])


def test_the_steps_on_a_large_set_are_limited(trainings, monkeypatch):
    monkeypatch.setattr(crossvalidation, "CURVE_STEPS", 30)
    curve_of((30, 10), (2,))
    for features, lengthened, _ in trainings:
        assert lengthened.frozen.epochs * math.ceil(len(features) / 8) <= 30


def test_a_single_point_gives_no_verdict():
    assert enough_data([point(4, *[0.9] * 5)]) == (
        "With 8 photos in all there are too few to tell whether more would help."
    )
