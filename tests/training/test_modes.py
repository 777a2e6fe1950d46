"""Both modes on a few drawn pictures: which weights they change, and that equal runs end equal."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from training_helpers import (
    changed_tensors,
    copied,
    new_network,
    run_of,
    same_tensors,
    shortened,
    train_on_cached_features,
)

from antbee.data.folder import read_folder
from antbee.models.backbone import feature_map, pooled
from antbee.models.weights import PACKAGED, build_network, load_starting_weights
from antbee.training.features import FeatureCache, Features
from antbee.training.modes import fit_mode_without_validation, train_finetune, train_frozen
from antbee.training.recipe import FAST, TUTORIAL


def test_cached_features_leave_every_backbone_tensor_byte_equal(few_photos):
    network = new_network().to(memory_format=torch.channels_last)
    before = copied(network)
    train_on_cached_features(network, run_of(few_photos, shortened(FAST, 3)))
    assert changed_tensors(before, network) == {"fc.weight", "fc.bias"}


def test_the_frozen_mode_of_the_tutorial_updates_batch_norm_statistics_as_the_original_does(few_photos):
    network = new_network()
    before = copied(network)
    train_frozen(network, run_of(few_photos, shortened(TUTORIAL, 1)))
    changed = changed_tensors(before, network)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == {"fc.weight", "fc.bias"} | statistics
    # 12 photos in batches of four: updated in every training step, never in validation.
    assert int(network.bn1.num_batches_tracked) == 3


def test_fast_fine_tuning_changes_every_weight_but_no_batch_norm_statistics(few_photos):
    network = new_network()
    before = copied(network)
    # Two steps: timm's residual branches end in zero weights at first, before which no gradient arrives.
    train_finetune(network, run_of(few_photos, shortened(FAST, 2)))
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed_tensors(before, network) == before.keys() - statistics


def test_training_on_cached_features_equals_training_the_head_of_the_whole_network(few_photos):
    """Cached, fused and channels last, against every photo through the plain network in every epoch."""
    heads, losses = [], []
    for train, is_fast in ((train_on_cached_features, True), (train_frozen, False)):
        network = new_network()
        run = run_of(few_photos, replace(shortened(FAST, 10), channels_last=is_fast), mode="frozen")
        fitted = train(network, run)
        heads.append(network.fc.weight)
        losses.append([epoch.val.loss for epoch in fitted.history.epochs])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-3, atol=1e-4)


def test_cached_features_equal_those_of_the_whole_network_for_every_photo(few_photos):
    run, network = run_of(few_photos, FAST, mode="frozen"), new_network()
    cached = FeatureCache(network, run.train, context=run.context, what="features")
    ((images, labels),) = run.train.batches([torch.arange(len(run.train))])
    network.eval()
    with torch.inference_mode():
        expected = pooled(network, feature_map(network, images))
    assert cached.computed.features.dtype == torch.float32
    torch.testing.assert_close(cached.computed.features, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(cached.computed.labels, labels)


def test_training_in_bfloat16_stays_close_to_float32(few_photos):
    losses, states = [], []
    for precision in ("float32", "bfloat16"):
        network = new_network()
        fitted = train_finetune(network, run_of(few_photos, shortened(FAST, 2), precision=precision))
        losses.append([epoch.train.loss for epoch in fitted.history.epochs])
        states.append(copied(network))
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert {tensor.dtype for tensor in states[1].values()} == {torch.float32, torch.int64}


def test_validation_is_in_float32_whatever_the_training_precision(few_photos):
    network = new_network()
    run = run_of(few_photos, shortened(FAST, 1), precision="bfloat16")
    fitted = train_finetune(network, run)
    ((images, labels),) = run.val.batches([torch.arange(len(run.val))])
    with torch.inference_mode():
        loss = float(functional.cross_entropy(network.eval()(images), labels))
    assert fitted.kept.val.loss == pytest.approx(loss, rel=1e-5)


def test_a_compiled_run_gives_the_same_weights(few_photos, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or nn.Sequential(module))
    networks = [new_network() for _ in range(2)]
    for network, choice in zip(networks, (False, True), strict=True):
        train_finetune(network, run_of(few_photos, shortened(FAST, 1), compiled=choice))
    assert compiled == networks[1:]
    assert same_tensors(*map(copied, networks))


def test_the_frozen_mode_learns_to_classify_drawn_ants_and_bees(drawn_root):
    network = build_network(PACKAGED, 2, load_starting_weights("imagenet", PACKAGED), seed=0)
    fitted = train_on_cached_features(network, run_of(read_folder(drawn_root), FAST, mode="frozen"))
    assert fitted.history.last.train.accuracy > 0.8
    assert fitted.history.last.val.accuracy > 0.7


def test_equal_seeds_repeat_a_run_bit_for_bit_and_other_seeds_do_not(few_photos):
    states = []
    for seed in (1, 1, 2):
        network = new_network()
        train_finetune(network, run_of(few_photos, shortened(FAST, 1), seed=seed))
        states.append(copied(network))
    assert same_tensors(states[0], states[1])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


@pytest.mark.parametrize("recipe", [FAST, TUTORIAL])
def test_a_network_trained_without_validation_gets_the_same_weights_and_statistics(few_photos, recipe):
    run = run_of(few_photos, shortened(recipe, 1), keep="last")
    networks = [new_network(), new_network()]
    train_finetune(networks[0], run)
    fit_mode_without_validation(networks[1], run.train, "finetune", run.recipe, seed=run.seed, context=run.context)
    assert same_tensors(*map(copied, networks))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_frozen_mode_keeps_the_epoch_that_the_run_asks_for(few_photos, keep):
    network = new_network()
    fitted = train_on_cached_features(network, run_of(few_photos, shortened(FAST, 8), mode="frozen", keep=keep))
    assert fitted.kept == getattr(fitted.history, keep)


def test_a_subset_of_features_has_the_chosen_rows_and_labels():
    features = Features(torch.arange(12.0).view(6, 2), torch.arange(6))
    subset = features.subset(torch.tensor([4, 0, 4]))
    assert subset.features.tolist() == [[8, 9], [0, 1], [8, 9]]
    assert subset.labels.tolist() == [4, 0, 4]
    assert len(subset) == 3
    assert len(features.subset(torch.tensor([], dtype=torch.int64))) == 0
