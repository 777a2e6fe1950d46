"""What a run starts from: the recipe for its network, the image size, and the first head."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from antbee.data.drawn import write_drawn_set
from antbee.data.images import DataError
from antbee.data.transforms import Preprocessing
from antbee.models.backbone import create_network, head_of
from antbee.models.device import choose_precision
from antbee.models.weights import StartingWeights, build_network, load_starting_weights
from antbee.training import context
from antbee.training.checkpoint import FLAGS, DeferredSignals
from antbee.training.context import Settings, SettingsError, prepare, recipe_of
from antbee.training.distributed import DistributedContext
from antbee.training.pipeline import checkpoint_of
from antbee.training.recipe import FAST, LAYER_NORM, TUTORIAL, TrainingError

CPU = torch.device("cpu")
ROWS = [310, 309]  # ImageNet's ant and bee


@pytest.fixture(scope="module")
def imagenet_like(tmp_path_factory):
    """A file of random weights with a head of 1000 categories, as ImageNet's."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(build_network("test_resnet", 1000, StartingWeights("random"), seed=5).state_dict(), path)
    return path


def drawn(folder, *names):
    """A data folder whose classes have these names, and drawn pictures of ants and bees."""
    root = write_drawn_set(folder, train={"ants": 3, "bees": 3}, val={"ants": 2, "bees": 2}, longest_side=64)
    for split in ("train", "val"):
        for kind, name in zip(("ants", "bees"), names, strict=True):
            (root / split / kind).rename(root / split / name)
    return root


def context_of(root, weights, output, *, backbone="test_resnet", **more):
    settings = Settings.checked(backbone=backbone, weights=str(weights), output=output, device="cpu", **more)
    return prepare(root, settings, DistributedContext(), DeferredSignals(), lambda line: None)


# ---- the first head --------------------------------------------------------------------------------------------------


def heads_of(context):
    return [head_of(context.starting_network(seed)) for seed in range(3)]


def test_the_fast_recipe_starts_from_the_rows_of_the_weights_own_head_where_the_classes_are_imagenets(
    imagenet_like, tmp_path
):
    heads = heads_of(context_of(drawn(tmp_path / "data", "ants", "bees"), imagenet_like, tmp_path))
    state = load_file(imagenet_like)
    for head in heads:
        assert torch.equal(head.weight, state["fc.weight"][ROWS])
        assert torch.equal(head.bias, state["fc.bias"][ROWS])
        assert head.weight.requires_grad


@pytest.mark.parametrize(("names", "weights"), [(("ants", "ferns"), None), (("ants", "bees"), "random")])
def test_the_fast_recipe_starts_from_zeros_where_the_weights_do_not_know_the_classes(
    imagenet_like, tmp_path, names, weights
):
    context = context_of(drawn(tmp_path / "data", *names), weights or imagenet_like, tmp_path)
    assert context.own_head is None
    for head in heads_of(context):
        assert not head.weight.any()
        assert not head.bias.any()


def test_the_tutorials_recipe_starts_from_a_head_that_the_seed_draws(tmp_path):
    root = drawn(tmp_path / "data", "ants", "bees")
    heads, again = (
        heads_of(context_of(root, "random", tmp_path, backbone="resnet18", recipe="tutorial")) for _ in range(2)
    )
    assert not torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].weight, again[0].weight)


def test_the_first_head_draws_no_random_numbers(imagenet_like, tmp_path):
    for names in (("ants", "bees"), ("ants", "ferns")):
        context = context_of(drawn(tmp_path / names[1], *names), imagenet_like, tmp_path)
        before = torch.random.get_rng_state()
        assert context.first_head(0) is not None
        assert torch.equal(torch.random.get_rng_state(), before)


def test_a_missing_folder_is_found_before_weights_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(context, "choose_network", None)  # calling it would fail
    with pytest.raises(DataError, match="none is not there"):
        context_of(tmp_path / "none", "imagenet", tmp_path)


# ---- the recipe for a network ----------------------------------------------------------------------------------------


def recipe_for(backbone, **settings):
    weights = load_starting_weights("random", backbone)
    return recipe_of(Settings.checked(**settings), backbone, weights, CPU)


@pytest.mark.parametrize(
    ("backbone", "settings", "sizes"),
    [
        ("resnet18", {}, (128, 160, 224)),
        ("test_resnet", {}, (96, 128, 160)),
        ("test_convnext", {}, (96, 128, 160)),
        ("test_resnet", {"image_size": 96}, (64, 64, 96)),
        ("test_resnet", {"image_size": 100}, (64, 64, 100)),
        ("test_resnet", {"image_size": 32}, (32, 32, 32)),
        ("test_vit", {}, (160,)),
        ("test_vit", {"image_size": 96}, (96,)),
    ],
)
def test_crops_grow_in_multiples_of_32_up_to_the_networks_size_where_it_takes_any(backbone, settings, sizes):
    recipe = recipe_for(backbone, **settings)
    assert recipe.finetune_sizes == sizes
    assert recipe.preprocessing.crop == sizes[-1]
    assert recipe.shorter_side == round(FAST.shorter_side * sizes[-1] / FAST.preprocessing.crop)
    assert all(size % 32 == 0 for size in sizes[:-1])
    augmentation = recipe.augmentation("finetune")
    assert list(augmentation.sizes) == sorted(augmentation.sizes)
    assert augmentation.sizes[-1] == sizes[-1]


def test_the_preprocessing_is_that_of_the_weights_except_in_the_tutorials_recipe():
    for backbone in ("test_vit", "test_resnet"):
        published = load_starting_weights("random", backbone).preprocessing
        assert recipe_for(backbone).preprocessing == published
    assert recipe_for("resnet18", recipe="tutorial").preprocessing == TUTORIAL.preprocessing
    assert recipe_for("resnet18", recipe="tutorial", image_size=96).preprocessing.crop == 96


def test_photos_seen_as_a_whole_are_not_cut_and_their_random_crops_keep_most_of_them():
    weights = StartingWeights("random", preprocessing=Preprocessing(crop=96, crop_pct=0.9))
    for fit in ("squash", "pad"):
        recipe = recipe_of(Settings(fit=fit), "resnet18", weights, torch.device("cpu"))
        assert recipe.preprocessing == Preprocessing(crop=96, crop_pct=1.0, fit=fit)
        augmentation = recipe.augmentation("finetune")
        assert (augmentation.smallest_crop, augmentation.squash) == (0.8, fit == "squash")
        assert augmentation.padding == recipe.preprocessing.padding
    plain = recipe_of(Settings(), "resnet18", weights, torch.device("cpu"))
    assert plain.preprocessing == weights.preprocessing
    assert plain.augmentation("finetune").smallest_crop == FAST.smallest_crop


def test_photos_are_made_square_as_the_weights_were_trained_unless_another_way_is_asked_for():
    own = Preprocessing(crop=96, crop_pct=0.9, fit="squash")
    weights = StartingWeights("random", preprocessing=own)
    plain, cropped = (recipe_of(Settings(fit=fit), "resnet18", weights, torch.device("cpu")) for fit in (None, "crop"))
    assert plain.preprocessing == own
    assert plain.smallest_crop == 0.8
    assert cropped.preprocessing == replace(own, fit="crop")
    assert cropped.smallest_crop == FAST.smallest_crop


@pytest.mark.parametrize("recipe", ["fast", "tutorial"])
def test_without_mirroring_no_mode_mirrors_and_the_config_says_so(recipe):
    weights = StartingWeights("random")
    plain, unmirrored = (
        recipe_of(Settings(recipe=recipe, mirror=mirror), "resnet18", weights, torch.device("cpu"))
        for mirror in (True, False)
    )
    assert (plain.augmentation("finetune").mirror, unmirrored.augmentation("finetune").mirror) == (True, False)
    assert (plain.flat("finetune")["mirror"], unmirrored.flat("finetune")["mirror"]) == (True, False)
    assert unmirrored.flat("frozen")["mirror"] is False


@pytest.mark.parametrize(("backbone", "is_layer_norm"), [("test_convnext", 1), ("test_vit", 1), ("test_resnet", 0)])
def test_only_networks_without_batch_norm_are_fine_tuned_by_adamw(backbone, is_layer_norm):
    recipe = recipe_for(backbone)
    assert recipe.finetune.optimiser == ("adamw" if is_layer_norm else "sgd")
    assert (recipe.finetune == LAYER_NORM) == bool(is_layer_norm)
    assert recipe.frozen == FAST.frozen
    changed = recipe_for(backbone, epochs=7, lr=0.5, batch_size=3, folds=0).finetune
    assert (changed.epochs, changed.learning_rate, changed.batch_size, changed.folds) == (7, 0.5, 3, 0)
    assert changed.optimiser == recipe.finetune.optimiser


def test_the_tutorials_recipe_with_another_network_than_a_resnet_is_an_error():
    with pytest.raises(SettingsError, match="the tutorial's recipe is for a ResNet, not for test_vit"):
        recipe_for("test_vit", recipe="tutorial")


def test_a_network_takes_images_of_the_size_that_was_asked_for(imagenet_like, tmp_path):
    root = drawn(tmp_path / "data", "ants", "bees")
    for backbone, weights in (("test_resnet", imagenet_like), ("test_vit", "random")):
        context = context_of(root, weights, tmp_path, backbone=backbone, image_size=96)
        ((images, _),) = context.loader(context.dataset.val).batches([torch.arange(4)])
        assert images.shape == (4, 3, 96, 96)
        assert context.starting_network(0)(images).shape == (4, 2)
    assert create_network("test_vit", 2)(torch.zeros(1, 3, 160, 160)).shape == (1, 2)


def test_only_networks_on_which_torch_crashes_in_channels_last_are_trained_in_the_contiguous_layout():
    layouts = {}
    for name in ("resnet18", "tf_efficientnet_lite0", "fastvit_t8", "repvgg_a0"):
        weights = load_starting_weights("random", name)
        layouts[name] = recipe_of(Settings(), name, weights, torch.device("cpu")).layout
    assert [name for name, layout in layouts.items() if layout == torch.contiguous_format] == [
        "fastvit_t8",
        "repvgg_a0",
    ]


# ---- resuming --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a data set, and a checkpoint of a run on it without flags of its own."""
    root = drawn(tmp_path_factory.mktemp("data") / "data", "ants", "bees")
    saved = checkpoint_of(context_of(root, "random", root.parent / "outputs"), "finetune")
    saved.save({"history": []})
    return root, saved


CHANGES = {
    "--backbone": {"backbone": "test_efficientnet"},  # of other mean, crop and optimiser
    "--image-size": {"image_size": 96},
    "--fit": {"fit": "squash"},
    "--epochs": {"epochs": 7},
    "--batch-size": {"batch_size": 7},
    "--lr": {"lr": 0.7},
    "--folds": {"folds": 7},
    "--balance": {"balance": True},
    "--mirror": {"mirror": False},
    "--precision": {"precision": "float32" if choose_precision("auto", CPU) == "bfloat16" else "bfloat16"},
    "--select": {"select": "last"},
    "--seeds": {"seeds": 2},
    "--seed": {"seed": 7},
    "--lr, --seed": {"lr": 0.7, "seed": 7},
}


@pytest.mark.parametrize(("flags", "settings"), CHANGES.items())
def test_a_run_that_resumes_with_other_flags_is_refused_and_names_them_alone(checkpoint, flags, settings):
    root, saved = checkpoint
    now = checkpoint_of(context_of(root, "random", root.parent / "outputs", **settings), "finetune")
    assert now.path == saved.path
    with pytest.raises(TrainingError, match=f"a run with other {flags}: repeat"):
        now.load()


def test_other_weights_and_photos_are_named_too(checkpoint, imagenet_like, tmp_path):
    _, saved = checkpoint
    assert CHANGES.keys() >= set(FLAGS.values()) - {"--weights", "--recipe", "photos"}
    other = checkpoint_of(context_of(drawn(tmp_path / "data", "ants", "ferns"), imagenet_like, tmp_path), "finetune")
    with pytest.raises(TrainingError, match="a run with other --weights, photos: repeat"):
        replace(saved, fingerprint=other.fingerprint, decides=other.decides).load()
