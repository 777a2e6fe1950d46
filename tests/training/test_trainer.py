"""The training loop and its two modes, resuming, signals, memory, and several processes."""

import math
import os
import signal
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.models.backbone import build_network, feature_map, freeze_backbone, pooled
from antbee.models.weights import StartingWeights
from antbee.training import features as training_features
from antbee.training import trainer
from antbee.training.checkpoint import Checkpoint, DeferredSignals, check_space, deferring_signals, fingerprint
from antbee.training.distributed import DistributedContext, joined
from antbee.training.features import FeatureCache, Features
from antbee.training.history import Epoch, EpochMetrics, History
from antbee.training.modes import Run, fit_mode_without_validation, train_finetune, train_frozen, train_head
from antbee.training.recipe import FAST, TUTORIAL, Schedule, TrainingError, balancing_weights, learning_rate
from antbee.training.trainer import DivergedError, fit, fit_without_validation


class Points:
    """Points of two linearly separable classes, in batches."""

    def __init__(self, count, seed=0):
        self.labels = torch.arange(count) % 2
        noise = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        self.inputs = noise + 2 * (2 * self.labels[:, None] - 1)

    def __len__(self):
        return len(self.labels)

    def batches(self, positions, epoch=0):
        return [(self.inputs[batch], self.labels[batch]) for batch in positions]


def new_head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 2)


def new_network():
    return build_network("resnet18", 2, StartingWeights("random"), seed=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("few") / "drawn"
    return read_folder(write_drawn_set(root, train={"ants": 6, "bees": 6}, val={"ants": 4, "bees": 4}, longest_side=96))


def run_of(photos, recipe, *, seed=0, mode="finetune", **options):
    """A run on crops of 32 pixels, a tenth of a second an epoch, in float32 on every machine."""
    recipe = replace(
        recipe,
        preprocessing=replace(recipe.preprocessing, crop=32),
        finetune_sizes=(),
        precision=options.pop("precision", "float32"),
    )
    loading = LoaderOptions(layout=recipe.layout)
    return Run(
        recipe=recipe,
        train=ImageLoader(photos.train, recipe.preprocessing, recipe.augmentation(mode), seed=seed, options=loading),
        val=ImageLoader(photos.val, recipe.preprocessing, options=loading),
        seed=seed,
        **options,
    )


def train_on_cached_features(network, run, checkpoint=None):
    """Frozen mode as in the fast recipe."""
    freeze_backbone(network)
    train, val = (FeatureCache(network, images, context=run.context, what="") for images in (run.train, run.val))
    return train_head(network.fc, train, val, run, checkpoint)


def shortened(recipe, epochs):
    return replace(
        recipe, frozen=replace(recipe.frozen, epochs=epochs), finetune=replace(recipe.finetune, epochs=epochs)
    )


def copied(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed_tensors(before, module):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- frozen and fine-tuned -------------------------------------------------------------------------------------------


def test_cached_features_leave_every_backbone_tensor_byte_equal(photos):
    network = new_network().to(memory_format=torch.channels_last)
    before = copied(network)
    train_on_cached_features(network, run_of(photos, shortened(FAST, 3)))
    assert changed_tensors(before, network) == {"fc.weight", "fc.bias"}


def test_the_frozen_mode_of_the_tutorial_updates_batch_norm_statistics_as_the_original_does(photos):
    network = new_network()
    before = copied(network)
    train_frozen(network, run_of(photos, shortened(TUTORIAL, 1)))
    changed = changed_tensors(before, network)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == {"fc.weight", "fc.bias"} | statistics
    # 12 photos in batches of four: updated in every training step, never in validation.
    assert int(network.bn1.num_batches_tracked) == 3


def test_fast_fine_tuning_changes_every_weight_but_no_batch_norm_statistics(photos):
    network = new_network()
    before = copied(network)
    train_finetune(network, run_of(photos, shortened(FAST, 1)))
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed_tensors(before, network) == before.keys() - statistics


def test_training_on_cached_features_equals_training_the_head_of_the_whole_network(photos):
    """Cached, fused and channels last, against every photo through the plain network in every epoch."""
    heads, losses = [], []
    for train, is_fast in ((train_on_cached_features, True), (train_frozen, False)):
        network = new_network()
        run = run_of(photos, replace(shortened(FAST, 10), channels_last=is_fast), mode="frozen")
        fitted = train(network, run)
        heads.append(network.fc.weight)
        losses.append([epoch.val.loss for epoch in fitted.history.epochs])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-3, atol=1e-4)


def test_cached_features_equal_those_of_the_whole_network_for_every_photo(photos):
    run, network = run_of(photos, FAST, mode="frozen"), new_network()
    cached = FeatureCache(network, run.train, context=run.context, what="features")
    ((images, labels),) = run.train.batches([torch.arange(len(run.train))])
    network.eval()
    with torch.inference_mode():
        expected = pooled(network, feature_map(network, images))
    assert cached.computed.features.dtype == torch.float32
    torch.testing.assert_close(cached.computed.features, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(cached.computed.labels, labels)


def test_training_in_bfloat16_stays_close_to_float32(photos):
    losses, states = [], []
    for precision in ("float32", "bfloat16"):
        network = new_network()
        fitted = train_finetune(network, run_of(photos, shortened(FAST, 2), precision=precision))
        losses.append([epoch.train.loss for epoch in fitted.history.epochs])
        states.append(copied(network))
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert {tensor.dtype for tensor in states[1].values()} == {torch.float32, torch.int64}


def test_validation_is_in_float32_whatever_the_training_precision(photos):
    network = new_network()
    run = run_of(photos, shortened(FAST, 1), precision="bfloat16")
    fitted = train_finetune(network, run)
    ((images, labels),) = run.val.batches([torch.arange(len(run.val))])
    with torch.inference_mode():
        loss = float(functional.cross_entropy(network.eval()(images), labels))
    assert fitted.kept.val.loss == pytest.approx(loss, rel=1e-5)


def test_a_compiled_run_gives_the_same_weights(photos, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or nn.Sequential(module))
    networks = [new_network() for _ in range(2)]
    for network, choice in zip(networks, (False, True), strict=True):
        train_finetune(network, run_of(photos, shortened(FAST, 1), compiled=choice))
    assert compiled == networks[1:]
    assert same_tensors(*map(copied, networks))


def test_the_frozen_mode_learns_to_classify_drawn_ants_and_bees(drawn_root):
    network = new_network()
    fitted = train_on_cached_features(network, run_of(read_folder(drawn_root), FAST))
    assert fitted.history.last.train.accuracy > 0.7


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_fit_learns_separable_classes():
    fitted = fit(new_head(), Points(64), Points(32, seed=1), Schedule(5, 8, 0.1))
    assert fitted.history.best.val.accuracy == 1.0
    assert fitted.history.last.train.loss < fitted.history.epochs[0].train.loss


def test_the_weights_of_the_kept_epoch_are_restored():
    head, train, val = new_head(), Points(64), Points(32, seed=1)
    train.labels, val.labels = train.labels.flip(0).sort().values, val.labels.sort().values  # random labels
    states = []
    fitted = fit(head, train, val, Schedule(6, 8, 3.0), report=lambda epoch: states.append(copied(head)))
    kept = fitted.history.best
    assert same_tensors(copied(head), states[kept.number - 1])
    loss = float(functional.cross_entropy(head(val.inputs).detach(), val.labels))
    assert kept.val.loss == pytest.approx(loss)
    assert kept.val.loss < max(epoch.val.loss for epoch in fitted.history.epochs)


def test_only_weights_that_require_gradients_are_trained():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    before = copied(module)
    fit(module, Points(16), Points(8), Schedule(1, 8, 0.1))
    assert changed_tensors(before, module) == {"1.weight", "1.bias"}


def test_every_batch_is_one_gradient_step_on_the_mean_loss():
    head, points = new_head(), Points(8)
    expected = new_head()
    loss = functional.cross_entropy(expected(points.inputs), points.labels)
    loss.backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.sub_(0.5 * parameter.grad)
    fit(head, points, Points(4), Schedule(1, 8, 0.5, decay="step"))
    for one, other in zip(head.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_diverged_training_stops_and_suggests_a_lower_learning_rate():
    points = Points(16)
    points.inputs = points.inputs * float("inf")
    message = r"training diverged: the loss is nan in epoch 1, step 1, at learning rate 0\.1; try --lr 0\.01"
    with pytest.raises(TrainingError, match=message):
        fit(new_head(), points, Points(8), Schedule(1, 8, 0.1, decay="step"))


def test_a_loss_of_nan_changes_no_weights_and_names_the_examples_of_its_batch():
    points, head, expected = Points(16), new_head(), new_head()
    batches = trainer.shuffled_batches(16, 8, 0, 1)
    fit(expected, Points(16), Points(8), Schedule(1, 8, 0.0, decay="step"))
    points.inputs[batches[1][0]] = torch.nan
    with pytest.raises(DivergedError, match="step 2") as raised:
        fit(head, points, Points(8), Schedule(1, 8, 0.0, decay="step"))
    assert set(raised.value.positions) == set(batches[1].tolist())
    assert same_tensors(copied(head), copied(expected))


# ---- memory ----------------------------------------------------------------------------------------------------------


def limited_to(most):
    """A function that runs out of memory for batches of more than `most` examples."""

    def function(inputs):
        if len(inputs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs

    return function


def test_inference_splits_a_batch_that_does_not_fit_into_memory():
    points = Points(23)
    rows = training_features.compute_rows(limited_to(3), points, 4, DistributedContext())
    assert torch.equal(rows, points.inputs)
    with pytest.raises(torch.OutOfMemoryError):
        training_features.compute_rows(limited_to(0), points, 4, DistributedContext())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_training_suggests_a_smaller_batch_where_one_does_not_fit_into_memory(error):
    class Large(nn.Linear):
        def forward(self, inputs):
            raise error

    with pytest.raises(TrainingError, match=r"a batch of 8 doesn't fit into the memory of cpu: try --batch-size 4"):
        fit(Large(4, 2), Points(16), Points(8), Schedule(1, 8, 0.1))


def test_equal_seeds_repeat_a_run_bit_for_bit_and_other_seeds_do_not(photos):
    states = []
    for seed in (1, 1, 2):
        network = new_network()
        train_finetune(network, run_of(photos, shortened(FAST, 1), seed=seed))
        states.append(copied(network))
    assert same_tensors(states[0], states[1])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


@pytest.mark.parametrize(("count", "batch_size"), [(244, 4), (244, 16), (7, 3), (5, 8)])
def test_an_epoch_has_every_photo_once_in_batches_whose_sizes_differ_by_one_at_most(count, batch_size):
    batches = trainer.shuffled_batches(count, batch_size, 0, 1)
    sizes = [len(batch) for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_seed_and_epoch():
    orders = [torch.cat(trainer.shuffled_batches(50, 8, *key)).tolist() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_training_without_validation_ends_at_the_weights_of_fits_last_epoch():
    heads = [new_head(), new_head()]
    schedule = Schedule(4, 8, 0.3, momentum=0.9, weight_decay=0.01, warmup=1.0)
    options = {"seed": 3, "class_weights": torch.tensor([0.5, 2.0])}
    fit(heads[0], Points(30), Points(8, seed=1), schedule, keep="last", **options)
    fit_without_validation(heads[1], Points(30), schedule, **options)
    assert same_tensors(*map(copied, heads))
    assert not heads[1].training


@pytest.mark.parametrize("recipe", [FAST, TUTORIAL])
def test_a_network_trained_without_validation_gets_the_same_weights_and_statistics(photos, recipe):
    run = run_of(photos, shortened(recipe, 1), keep="last")
    networks = [new_network(), new_network()]
    train_finetune(networks[0], run)
    fit_mode_without_validation(networks[1], run.train, "finetune", run.recipe, seed=run.seed, context=run.context)
    assert same_tensors(*map(copied, networks))


def misleading():
    """Training and validation points with opposite labels: validation gets worse with every epoch."""
    train, val = Points(64), Points(32, seed=1)
    val.labels = 1 - val.labels
    return train, val


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_or_the_last_epoch_is_kept_with_its_weights(keep):
    head, (train, val), states = new_head(), misleading(), []
    fitted = fit(head, train, val, Schedule(6, 8, 0.1), keep=keep, report=lambda epoch: states.append(copied(head)))
    assert (fitted.history.best.number, fitted.history.last.number) == (1, 6)
    assert fitted.kept == getattr(fitted.history, keep)
    assert same_tensors(copied(head), states[fitted.kept.number - 1])


def test_the_choice_of_the_kept_epoch_does_not_change_training():
    losses = []
    for keep in ("best", "last"):
        fitted = fit(new_head(), *misleading(), Schedule(3, 8, 0.1), keep=keep)
        losses.append([(epoch.train.loss, epoch.val.loss) for epoch in fitted.history.epochs])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_frozen_mode_keeps_the_epoch_that_the_run_asks_for(photos, keep):
    network = new_network()
    fitted = train_on_cached_features(network, run_of(photos, shortened(FAST, 8), mode="frozen", keep=keep))
    assert fitted.kept == getattr(fitted.history, keep)


def test_an_interrupted_run_that_keeps_the_last_epoch_resumes_to_the_same_weights(tmp_path):
    options = {"schedule": Schedule(4, 8, 0.1), "keep": "last"}
    whole = new_head()
    fit(whole, *misleading(), **options)
    for after in (1, 4):
        checkpoint = Checkpoint(tmp_path / f"{after}.pt", "this run")
        with pytest.raises(InterruptedRunError):
            fit(new_head(), *misleading(), **options, checkpoint=checkpoint, report=interrupting(after))
        resumed = new_head()
        fitted = fit(resumed, *misleading(), **options, checkpoint=checkpoint)
        assert same_tensors(copied(whole), copied(resumed))
        assert fitted.kept.number == 4


# ---- classes of different size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(7, 7), (123, 121), (90, 10), (1, 2, 300)])
def test_balancing_weights_equal_scikit_learns_and_average_to_one(counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)]).flip(0)
    weights = balancing_weights(labels)
    expected = compute_class_weight("balanced", classes=labels.unique().numpy(), y=labels.numpy())
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected.tolist())
    assert float(weights[labels].mean()) == pytest.approx(1)


def overlapping(common, rare, *, seed=0):
    """Features of a common and a rare class that are not linearly separable."""
    labels = torch.tensor([0] * common + [1] * rare)
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
    return Features(noise + 0.5 * (2 * labels[:, None] - 1), labels)


def recall(head, val, label):
    """The share of a class's examples that are predicted right."""
    return float((head(val.features).argmax(1) == label)[val.labels == label].float().mean())


def test_balancing_gives_the_rare_class_the_recall_of_the_common_one():
    train, val = overlapping(270, 14), overlapping(200, 200, seed=1)
    plain, balanced = new_head(), new_head()
    for head, weights in ((plain, None), (balanced, balancing_weights(train.labels))):
        fit_without_validation(head, train, Schedule(20, 32, 0.1, momentum=0.9), class_weights=weights)
    assert recall(plain, val, 0) - recall(plain, val, 1) > 0.3
    assert abs(recall(balanced, val, 0) - recall(balanced, val, 1)) < 0.15
    assert recall(balanced, val, 1) > recall(plain, val, 1) + 0.2


def test_the_reported_loss_is_never_weighted():
    train, val = overlapping(40, 8), overlapping(10, 10, seed=1)
    with torch.no_grad():
        expected = float(functional.cross_entropy(new_head()(train.features), train.labels))
    head = new_head()
    whole = Schedule(1, 48, 0.1, decay="step")  # one step: the loss is that of the initial weights
    fitted = fit(head, train, val, whole, class_weights=torch.tensor([0.1, 30.0]))
    assert fitted.history.last.train.loss == pytest.approx(expected)
    with torch.no_grad():
        after = float(functional.cross_entropy(head(val.features), val.labels))
    assert fitted.history.last.val.loss == pytest.approx(after)


def test_a_weighted_step_is_a_gradient_step_on_the_mean_of_the_weighted_losses():
    head, expected, points = new_head(), new_head(), overlapping(6, 2)
    weights = balancing_weights(points.labels)
    losses = functional.cross_entropy(expected(points.features), points.labels, reduction="none")
    (losses * weights[points.labels]).mean().backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.sub_(0.5 * parameter.grad)
    fit_without_validation(head, points, Schedule(1, 8, 0.5, decay="step"), class_weights=weights)
    for one, other in zip(head.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_class_weights_of_one_change_nothing():
    heads = [new_head(), new_head()]
    for head, weights in zip(heads, (None, torch.ones(2)), strict=True):
        fit_without_validation(head, overlapping(20, 10), Schedule(2, 8, 0.1), class_weights=weights)
    assert same_tensors(*map(copied, heads))


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_balanced_recipe_weighs_the_classes_of_the_training_images(mode):
    train, recipe = overlapping(20, 5), replace(shortened(FAST, 2), balanced=True)
    heads = [new_head() for _ in range(3)]
    fit_without_validation(heads[0], train, recipe.schedule(mode), class_weights=balancing_weights(train.labels))
    for head, choice in zip(heads[1:], (recipe, replace(recipe, balanced=False)), strict=True):
        fit_mode_without_validation(head, train, mode, choice, seed=0, context=DistributedContext())
    states = [*map(copied, heads)]
    assert same_tensors(states[0], states[1])
    assert not same_tensors(states[0], states[2])


def test_training_with_a_balanced_recipe_weighs_the_classes():
    train, val = overlapping(20, 5), overlapping(4, 4, seed=1)
    heads = [new_head(), new_head()]
    for head, balanced in zip(heads, (True, False), strict=True):
        run = Run(replace(shortened(FAST, 2), balanced=balanced), train, val, keep="last")
        train_head(head, train, val, run)
    expected = new_head()
    fit_without_validation(expected, train, shortened(FAST, 2).frozen, class_weights=balancing_weights(train.labels))
    assert same_tensors(copied(heads[0]), copied(expected))
    assert not same_tensors(*map(copied, heads))


def test_a_subset_of_features_has_the_chosen_rows_and_labels():
    features = Features(torch.arange(12.0).view(6, 2), torch.arange(6))
    subset = features.subset(torch.tensor([4, 0, 4]))
    assert subset.features.tolist() == [[8, 9], [0, 1], [8, 9]]
    assert subset.labels.tolist() == [4, 0, 4]
    assert len(subset) == 3
    assert len(features.subset(torch.tensor([], dtype=torch.int64))) == 0


# ---- recipes and rates -----------------------------------------------------------------------------------------------


def test_the_tutorial_recipe_has_the_hyperparameters_of_the_tutorial():
    for schedule, momentum in ((TUTORIAL.frozen, 0.9), (TUTORIAL.finetune, 0.0)):
        assert schedule == Schedule(25, 4, 0.001, momentum=momentum, weight_decay=0.0, decay="step")
    assert (TUTORIAL.preprocessing.mean, TUTORIAL.preprocessing.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (TUTORIAL.preprocessing.resize, TUTORIAL.preprocessing.crop) == (256, 224)
    assert (TUTORIAL.smallest_crop, TUTORIAL.shorter_side, TUTORIAL.cached_features) == (0.08, None, False)
    assert (TUTORIAL.head_first, TUTORIAL.batch_norm) == (False, "adapting")


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (224,)), (2, (160, 224)), (3, (128, 160, 224)), (6, (128, 128, 160, 160, 224, 224))],
)
def test_crops_grow_to_full_size_in_the_last_epochs_of_fine_tuning(epochs, expected):
    recipe = shortened(replace(FAST, finetune_sizes=(128, 160, 224)), epochs)
    assert recipe.augmentation("finetune").sizes == expected
    assert recipe.augmentation("frozen") is None
    assert set(TUTORIAL.augmentation("frozen").sizes) == set(TUTORIAL.augmentation("finetune").sizes) == {224}


def test_the_learning_rate_of_the_tutorial_is_that_of_steplr():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.001)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for epoch in range(25):
        for step in (0, 60):
            rate = learning_rate(TUTORIAL.finetune, epoch * 61 + step, 61)
            assert rate == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


def test_the_cosine_schedule_rises_to_the_highest_rate_and_falls_to_nearly_zero():
    schedule = Schedule(epochs=5, batch_size=16, learning_rate=0.01, warmup=1.0)
    rates = [learning_rate(schedule, step, 16) for step in range(5 * 16)]
    assert rates[:16] == sorted(rates[:16])
    assert rates[16:] == sorted(rates[16:], reverse=True)
    assert max(rates) == rates[16] == 0.01
    assert 0 < rates[-1] < 0.01 / 100
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)


def test_a_flat_recipe_has_the_schedule_of_one_mode():
    flat = FAST.flat("finetune")
    assert flat["name"] == "fast"
    assert flat["epochs"] == FAST.finetune.epochs
    assert flat["batch_norm"] == "fixed"
    assert not [value for value in flat.values() if isinstance(value, dict | tuple)]


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_flat_recipe_has_its_folds_and_whether_classes_are_balanced(mode):
    for recipe in (FAST, TUTORIAL, replace(FAST, balanced=True)):
        flat = recipe.flat(mode)
        assert flat["folds"] == recipe.schedule(mode).folds
        assert flat["balanced"] is recipe.balanced
    assert FAST.flat("frozen")["folds"] != FAST.flat("finetune")["folds"]
    assert TUTORIAL.flat(mode)["folds"] == 0


# ---- history ---------------------------------------------------------------------------------------------------------


def history_of(*results):
    metrics = [EpochMetrics(loss, accuracy, 1.0) for accuracy, loss in results]
    return History(tuple(Epoch(number, 0.1, one, one) for number, one in enumerate(metrics, start=1)))


def test_the_best_epoch_has_the_highest_accuracy_and_of_equals_the_lowest_loss():
    assert history_of((0.8, 0.1), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (0.7, 0.01)).best.number == 3


def test_a_history_survives_its_records():
    history = history_of((0.5, 0.7), (0.9, 0.2))
    assert History.from_records(history.to_records()) == history
    assert history.to_records()[1]["val_accuracy"] == 0.9


# ---- interrupted runs ------------------------------------------------------------------------------------------------


class InterruptedRunError(Exception):
    pass


def interrupting(after):
    """A report that interrupts the run after an epoch."""

    def report(epoch):
        if epoch.number == after:
            raise InterruptedRunError

    return report


@pytest.fixture(scope="module", params=[train_on_cached_features, train_finetune])
def whole(request, photos):
    """A mode, a run, and the weights and statistics that it ends with, uninterrupted."""
    run, network = run_of(photos, shortened(FAST, 3)), new_network()
    request.param(network, run)
    return request.param, run, copied(network)


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_ends_with_the_same_bytes_as_an_uninterrupted_one(whole, tmp_path, after):
    train, run, state = whole
    checkpoint = Checkpoint(tmp_path / "mode.pt", "this run")
    with pytest.raises(InterruptedRunError):
        train(new_network(), replace(run, report=interrupting(after)), checkpoint)
    resumed, reported = new_network(), []
    fitted = train(resumed, replace(run, report=reported.append), checkpoint)

    assert [epoch.number for epoch in reported] == list(range(after + 1, 4))
    assert same_tensors(state, copied(resumed))
    assert len(fitted.history.epochs) == 3


def test_a_finished_frozen_run_resumes_without_computing_features_again(photos, tmp_path, monkeypatch):
    run, checkpoint = run_of(photos, shortened(FAST, 2)), Checkpoint(tmp_path / "frozen.pt", "this run")
    first = train_on_cached_features(new_network(), run, checkpoint)
    monkeypatch.setattr(training_features, "compute_rows", None)  # calling it would fail
    again = train_on_cached_features(new_network(), run, checkpoint)
    assert again.history == first.history


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    fit(new_head(), Points(8), Points(4), Schedule(1, 8, 0.1), checkpoint=Checkpoint(tmp_path / "a.pt", "one run"))
    with pytest.raises(TrainingError, match=r"a\.pt belongs to a run with other flags.*without --resume"):
        Checkpoint(tmp_path / "a.pt", "another").load()


@pytest.mark.parametrize(
    ("seed", "recipe", "names"),
    [
        (1, shortened(FAST, 2), "seed"),
        (0, shortened(FAST, 3), "epochs"),  # of both modes
        (1, replace(FAST, balanced=True), "epochs, balanced, seed"),
        (0, TUTORIAL, "recipe"),
    ],
)
def test_what_differs_from_the_run_of_a_checkpoint_is_named(tmp_path, seed, recipe, names):
    decides = {"recipe": asdict(shortened(FAST, 2)), "seed": 0}
    Checkpoint(tmp_path / "a.pt", "one run", decides).save({"history": []})
    now = Checkpoint(tmp_path / "a.pt", "another", {"recipe": asdict(recipe), "seed": seed})
    with pytest.raises(TrainingError, match=f"a run with other {names}: repeat"):
        now.load()


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    torch.save({"fingerprint": "run", "history": []}, tmp_path / "a.pt")  # as version 0.1 wrote it
    with pytest.raises(TrainingError, match=r"another version of antbee.*without --resume"):
        Checkpoint(tmp_path / "a.pt", "run").load()


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    checkpoint.save({"history": []})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    with pytest.raises(TrainingError, match=r"a\.pt is damaged: delete it"):
        checkpoint.load()


def test_a_failed_save_leaves_the_previous_checkpoint_complete(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    checkpoint.save({"history": [1]})

    def fail(content, path):
        path.write_bytes(b"incomplete")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(TrainingError, match=r"a\.pt can't be written \(No space left on device\): free some space"):
        checkpoint.save({"history": [1, 2]})
    assert checkpoint.load()["history"] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.previous.pt"]


def test_the_previous_checkpoint_is_used_with_a_warning_where_the_last_is_damaged(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    for number in (1, 2):
        checkpoint.save({"history": [number]})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=r"a\.pt is damaged: resuming from the checkpoint before it"):
        assert checkpoint.load()["history"] == [1]


def test_resuming_with_another_thread_count_warns_that_the_weights_may_differ(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.pt", "run")
    with trainer.threads(1):
        checkpoint.save({})
    with trainer.threads(2), pytest.warns(UserWarning, match="started with threads 1 and resumes with 2"):
        checkpoint.load()


# ---- stopped ---------------------------------------------------------------------------------------------------------


class Signalled(Points):
    """Points; a signal arrives once, at the third batch of the second epoch."""

    def __init__(self, count, signals, number):
        super().__init__(count)
        self.signals, self.number = signals, number

    def batches(self, positions, epoch=0):
        for step, batch in enumerate(positions):
            if step == 2 and epoch == 2 and self.number:
                number, self.number = self.number, None
                self.signals.note(number, None)
            yield self.inputs[batch], self.labels[batch]


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_with_the_next_step(tmp_path, number, raised):
    schedule, val = Schedule(4, 8, 0.1, momentum=0.9), Points(8, seed=1)
    whole = new_head()
    expected = fit(whole, Points(40), val, schedule)
    checkpoint, signals = Checkpoint(tmp_path / "a.pt", "run"), DeferredSignals()
    with pytest.raises(raised):
        fit(new_head(), Signalled(40, signals, number), val, schedule, checkpoint=checkpoint, signals=signals)
    assert (checkpoint.load()["progress"]["epoch"], checkpoint.load()["progress"]["steps"]) == (2, 2)
    resumed = new_head()
    fitted = fit(resumed, Points(40), val, schedule, checkpoint=checkpoint)
    assert same_tensors(copied(whole), copied(resumed))
    for one, other in zip(fitted.history.epochs, expected.history.epochs, strict=True):
        assert (one.train.loss, one.train.accuracy, one.val.loss) == (
            other.train.loss,
            other.train.accuracy,
            other.val.loss,
        )


def test_fine_tuning_interrupted_between_two_steps_resumes_to_the_same_bytes(photos, tmp_path, monkeypatch):
    run, whole = run_of(photos, replace(FAST, finetune=replace(FAST.finetune, batch_size=3, epochs=2))), new_network()
    train_finetune(whole, run)
    checkpoint, steps = Checkpoint(tmp_path / "a.pt", "run"), []

    def save(content):
        Checkpoint.save(checkpoint, content)
        steps.append(content["progress"]["steps"])
        if len(steps) == 3:
            raise InterruptedRunError

    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)  # after every step
    interrupting = SimpleNamespace(save=save, load=lambda: None)
    with pytest.raises(InterruptedRunError):
        train_finetune(new_network(), run, interrupting)
    assert steps == [1, 2, 3]
    resumed = new_network()
    train_finetune(resumed, run, checkpoint)
    assert same_tensors(copied(whole), copied(resumed))


def test_a_signal_is_deferred_to_the_end_of_the_block_and_a_second_one_is_not(monkeypatch):
    signals, ended = DeferredSignals(), []
    monkeypatch.setattr(os, "_exit", ended.append)

    def block():
        with signals.deferred():
            signals.note(signal.SIGINT, None)
            ended.append("block")

    with pytest.raises(KeyboardInterrupt):
        block()
    with pytest.raises(SystemExit):  # as the patched os._exit returns
        signals.note(signal.SIGTERM, None)
    assert ended == ["block", 143]


def test_a_signal_whose_exception_python_drops_in_a_destructor_is_raised_at_the_next_check(capsys):
    with deferring_signals() as signals:

        class Interrupted:
            def __del__(self):
                signals.note(signal.SIGINT, None)

        Interrupted()
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        signals._number = None
    assert capsys.readouterr().err == ""


def test_signal_handlers_are_restored_after_the_run():
    before = signal.getsignal(signal.SIGINT)
    with deferring_signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_stays_ignored_if_it_was_ignored_before(ctrl_c_ignored):
    with deferring_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        signals.check()
    with pytest.raises(SystemExit), deferring_signals():
        os.kill(os.getpid(), signal.SIGTERM)


# ---- before the start ------------------------------------------------------------------------------------------------


def test_too_little_disk_space_is_an_error(tmp_path):
    check_space(tmp_path, 1000)
    with pytest.raises(TrainingError, match=r"MB free.*free some space, or choose another folder with --output"):
        check_space(tmp_path, 2**60)


def test_fingerprints_differ_between_runs_whatever_the_order_of_the_keys():
    one = fingerprint({"seed": 0, "mode": "frozen"})
    assert one == fingerprint({"mode": "frozen", "seed": 0})
    assert one != fingerprint({"mode": "frozen", "seed": 1})


# ---- several processes -----------------------------------------------------------------------------------------------


def test_processes_share_a_batch_without_omission_or_overlap():
    batch = torch.arange(11)
    shares = [DistributedContext(rank=rank, count=3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_lost_process_is_a_training_error_and_other_exceptions_stay_as_they_are(monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(torch.distributed.HashStore(), 0, 2)]))
    for name in ("init_process_group", "is_initialized", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *arguments, **options: False)

    def join_and_raise(error):
        with joined(torch.device("cpu")):
            raise error

    with pytest.raises(TrainingError, match="another process of this run was lost: start it again with --resume"):
        join_and_raise(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    with pytest.raises(RuntimeError, match="another error"):
        join_and_raise(RuntimeError("another error"))


def test_a_single_process_joins_no_process_group(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with joined(torch.device("cpu")) as process, process.in_turn():
        assert process.is_first
        assert process.from_first("a value") == "a value"
    assert not torch.distributed.is_initialized()


def test_more_processes_than_examples_in_a_batch_are_an_error():
    context = DistributedContext(count=3)
    with pytest.raises(TrainingError, match="batches of 2 can't be shared by 3 processes: raise --batch-size"):
        trainer.fit_without_validation(new_head(), Points(4), Schedule(1, 2, 0.1), context=context)
