"""Both modes with small networks of timm, with and without BatchNorm: trained, written, and loaded again."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import antbee
from antbee import Classifier
from antbee.data.images import open_photo
from antbee.models.backbone import head_of, head_prefix
from antbee.models.weights import StartingWeights, build_network, load_starting_weights

WITHOUT_BATCH_NORM = ("test_convnext", "test_vit")


@pytest.fixture(scope="module")
def trained(few_photos, tmp_path_factory):
    """Runs of one epoch at 96 pixels by network: what `train` returns, its starting weights, and what AdamW got."""
    runs = {}

    def run(backbone):
        if backbone not in runs:
            folder = tmp_path_factory.mktemp(backbone)
            file = folder / "start.safetensors"
            save_file(build_network(backbone, 1000, StartingWeights("random"), seed=5).state_dict(), file)
            optimisers = []

            class Recorded(torch.optim.AdamW):
                def __init__(self, *arguments, **options):
                    super().__init__(*arguments, **options)
                    optimisers.append(self)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch.optim, "AdamW", Recorded)
                more = {"backbone": backbone, "weights": str(file), "image_size": 96, "batch_size": 4}
                result = antbee.train(few_photos, **more, output=folder, epochs=1, device="cpu", log=lambda line: None)
            start = build_network(backbone, 2, load_starting_weights(str(file), backbone), seed=0, image_size=96)
            runs[backbone] = result, start.state_dict(), optimisers
        return runs[backbone]

    return run


@pytest.mark.parametrize("backbone", [*WITHOUT_BATCH_NORM, "test_resnet"])
def test_both_modes_are_written_and_give_equal_logits_when_they_are_loaded(trained, few_photos, backbone):
    result, *_ = trained(backbone)
    photos = [open_photo(path) for path in few_photos.val.paths]
    assert [model.mode for model in result.models] == ["frozen", "finetune"]
    for model in result.models:
        loaded = Classifier.from_pretrained(model.folder, device="cpu")
        assert (loaded.config.architecture, loaded.config.preprocessing.crop) == (backbone, 96)
        torch.testing.assert_close(loaded.logits(photos), model.classifier.logits(photos), rtol=0, atol=1e-6)
        torch.testing.assert_close(loaded.logits(photos), model.val_logits, rtol=1e-3, atol=1e-4)
        assert loaded.detector.neighbours == model.classifier.detector.neighbours
    frozen, finetune = (model.classifier.detector for model in result.models)
    assert frozen.neighbours == finetune.neighbours


@pytest.mark.parametrize("backbone", [*WITHOUT_BATCH_NORM, "test_resnet"])
def test_the_frozen_mode_changes_the_head_alone_and_fine_tuning_the_backbone_too(trained, backbone):
    result, start, _ = trained(backbone)
    head = head_prefix(result.frozen.classifier.network)
    frozen, finetune = (load_file(model.folder / "model.safetensors") for model in result.models)
    changed = {name for name, tensor in frozen.items() if not name.startswith(head) and not tensor.equal(start[name])}
    assert not changed
    assert frozen.keys() == finetune.keys()
    weights = [name for name, _ in result.finetune.classifier.network.named_parameters() if not name.startswith(head)]
    same = [name for name in weights if finetune[name].equal(start[name])]
    assert len(same) < 0.1 * len(weights)


@pytest.mark.parametrize("backbone", WITHOUT_BATCH_NORM)
def test_a_network_without_batch_norm_is_fine_tuned_by_adamw_with_rates_that_fall_towards_the_input(trained, backbone):
    result, _, optimisers = trained(backbone)
    assert result.finetune.classifier.config.recipe["optimiser"] == "adamw"
    assert len(optimisers) == 1 + 2  # the training, and two folds
    classifier = result.finetune.classifier
    shapes = [tuple(parameter.shape) for parameter in classifier.network.parameters()]
    groups = optimisers[0].param_groups
    assert sorted(tuple(one.shape) for group in groups for one in group["params"]) == sorted(shapes)
    highest = max(group["lr"] / group["lr_scale"] for group in groups)
    for group in groups:
        assert group["lr"] == pytest.approx(highest * group["lr_scale"])
        assert all(one.ndim > 1 for one in group["params"]) or group["weight_decay"] == 0
    rates = rates_by_name(result, groups)
    first = next(name for name in rates if name.startswith(("stem", "patch_embed")))
    assert rates[first] == min(rates.values())
    assert rates[first] < 0.75 * highest
    assert {rates[name] for name in rates if name.startswith(head_prefix(classifier.network))} == {highest}
    blocks = [rate for name, rate in rates.items() if name.startswith(("stages", "blocks"))]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) > 1


def rates_by_name(result, groups):
    """The last learning rate of each parameter of the fine-tuned network, which the optimiser holds."""
    rates = {id(one): group["lr"] for group in groups for one in group["params"]}
    return {name: rates[id(one)] for name, one in result.finetune.classifier.network.named_parameters()}


def test_a_network_with_batch_norm_is_fine_tuned_by_sgd(trained):
    result, _, optimisers = trained("test_resnet")
    assert not optimisers
    assert result.finetune.classifier.config.recipe["optimiser"] == "sgd"
    assert head_of(result.finetune.classifier.network).out_features == 2
