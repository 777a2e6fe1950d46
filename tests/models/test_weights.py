"""Starting weights: published ones, random ones, files; and the networks built from them."""

import io
import json
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model
from training_helpers import same_tensors

from antbee import hub
from antbee.models import weights as models_weights
from antbee.models.backbone import create_network, head_of
from antbee.models.statedict import unwrapped
from antbee.models.tensors import WeightsError
from antbee.models.weights import (
    PACKAGED,
    StartingWeights,
    WeightsUnreachableError,
    _category_of,
    build_network,
    choose_network,
    load_starting_weights,
    zero_shot_head,
)

RANDOM = StartingWeights("random")


def state_of(architecture="resnet18", class_count=1000):
    """The state_dict of a random network."""
    return dict(build_network(architecture, class_count, RANDOM, seed=1).state_dict())


def complaint(call, *arguments):
    with pytest.raises(WeightsError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- building --------------------------------------------------------------------------------------------------------


def test_a_new_head_depends_on_the_seed_and_does_not_change_the_global_generator():
    weights = StartingWeights("some.safetensors", state_of())
    before = torch.random.get_rng_state()
    heads = [build_network("resnet18", 2, weights, seed=seed).fc.weight for seed in (3, 3, 4)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_backbone_is_loaded_without_the_head_of_the_file():
    state = state_of()
    network = build_network("resnet18", 1000, StartingWeights("some.safetensors", state), seed=9)
    built = network.state_dict()
    assert all(torch.equal(built[name], state[name]) for name in state if not name.startswith("fc."))
    assert not torch.equal(built["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
        (lambda state: state.update({"net.conv1.weight": torch.zeros(1)}), "net.conv1.weight is unknown"),
        (lambda state: state.update({"conv1.weight": torch.zeros(1)}), "conv1.weight is (1,), expected (64, 3, 7, 7)"),
    ],
)
def test_a_backbone_that_does_not_fit_exactly_is_refused(change, words):
    state = state_of()
    change(state)
    text = complaint(lambda: build_network("resnet18", 2, StartingWeights("odd.pth", state), seed=0))
    assert "odd.pth" in text
    assert words in text


def test_weights_without_batch_norms_step_counters_are_loaded():
    state = {name: tensor for name, tensor in state_of().items() if not name.endswith("num_batches_tracked")}
    assert len(state) == 102
    network = build_network("resnet18", 2, StartingWeights("old.pth", state), seed=0)
    assert torch.equal(network.layer4[1].bn2.running_var, state["layer4.1.bn2.running_var"])


def test_weights_of_another_architecture_are_refused_with_three_misfits_and_the_number_of_others():
    weights = StartingWeights("large.pth", state_of("resnet34"))
    text = complaint(lambda: build_network("resnet18", 2, weights, seed=0))
    assert text.count(" is unknown") == 3
    assert "more. Is it another architecture?" in text


# ---- starting weights ------------------------------------------------------------------------------------------------


def test_safetensors_and_torch_files_give_equal_weights(tmp_path):
    state = state_of()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    loaded = [load_starting_weights(str(tmp_path / name), "resnet18") for name in ("a.safetensors", "a.pth")]
    assert [weights.name for weights in loaded] == ["a.safetensors", "a.pth"]
    for weights in loaded:
        assert weights.digest is not None
        assert weights.state.keys() == state.keys()
        assert all(torch.equal(weights.state[name], tensor) for name, tensor in state.items())


class Intruder:
    """A pickle that runs code when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        pickle.dump(Intruder(tmp_path / "marker"), file, protocol=2)
    assert name in complaint(load_starting_weights, str(tmp_path / name), "resnet18")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", b""),
        ("a.pth", b"<html>"),
        ("a.pth", b"hello world"),
        ("a.safetensors", b""),
        ("a.safetensors", b"\xff" * 99),
    ],
)
def test_a_file_without_weights_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    text = complaint(load_starting_weights, str(tmp_path / name), "resnet18")
    assert name in text
    assert "expected .safetensors or a torchvision .pth" in text


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module._orig_mod."])
def test_weights_in_a_checkpoint_and_under_a_wrappers_names_are_those_of_the_bare_file(tmp_path, key, prefix):
    state = state_of("test_resnet")
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({key: wrapped, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "checkpoint.pth")
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    for name in ("checkpoint.pth", "wrapped.safetensors"):
        weights = load_starting_weights(str(tmp_path / name), "test_resnet")
        assert same_tensors(dict(weights.state), state)
        build_network("test_resnet", 2, weights, seed=0)


def test_averaged_weights_of_a_checkpoint_are_taken_before_the_last_ones(tmp_path):
    last, averaged = state_of("test_resnet"), {"conv1.weight": torch.ones(1)}
    torch.save({"state_dict": last, "state_dict_ema": averaged}, tmp_path / "run.pth")
    assert same_tensors(dict(load_starting_weights(str(tmp_path / "run.pth"), "test_resnet").state), averaged)


def test_a_prefix_that_not_all_names_have_is_a_part_of_them():
    names = ("model.conv1.weight", "fc.weight")
    assert unwrapped(dict.fromkeys(names, torch.zeros(1))).keys() == set(names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weight_of_it": {"conv1.weight": torch.zeros(1)}, "epoch": 3}, "with the keys weight_of_it, epoch: expected"),
        ({"model": {"conv1.weight": 1.0}}, "with the keys model: expected"),
        ({number: number for number in range(9)}, "with the keys 0, 1, 2, 3, 4, ...: expected"),
        ({}, "holds nothing: expected"),
        ([torch.zeros(1)], "holds a list: expected"),
    ],
)
def test_a_file_without_named_tensors_is_refused_with_what_was_found(tmp_path, content, words):
    torch.save(content, tmp_path / "run.pth")
    text = complaint(load_starting_weights, str(tmp_path / "run.pth"), "resnet18")
    assert words in text
    assert "a torchvision state_dict of named tensors, alone or under state_dict" in text


def test_a_real_weights_file_is_loaded_without_its_head_of_a_thousand_classes(standin_weights):
    weights = load_starting_weights(str(standin_weights), "resnet18")
    network = build_network("resnet18", 2, weights, seed=0)
    assert weights.state["fc.weight"].shape == (1000, 512)
    assert torch.equal(network.layer4[1].bn2.running_var, weights.state["layer4.1.bn2.running_var"])
    assert head_of(network).weight.shape == (2, 512)


def test_a_missing_file_is_refused_with_the_accepted_values(tmp_path):
    text = complaint(load_starting_weights, str(tmp_path / "none.pth"), "resnet18")
    assert "none.pth: check the name; expected imagenet, random, a tag of timm's" in text


def unreachable(repository):
    raise hub.HubError("The Hub cannot be reached: check the network.")


def published_folder(folder, config, state):
    """A model folder as it comes from the Hub."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture
def weight_cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


def test_a_changed_file_in_torchs_cache_is_refused_by_its_hash(weight_cache):
    with (weight_cache / "resnet18-f37072fd.pth").open("wb") as file:
        pickle.dump(Intruder(weight_cache / "marker"), file)
    text = complaint(load_starting_weights, "imagenet", "resnet18")
    assert "expected f37072fd" in text
    assert "delete it" in text
    assert not (weight_cache / "marker").exists()


def test_unreachable_imagenet_weights_are_another_error_than_invalid_ones(weight_cache, monkeypatch):
    monkeypatch.setattr(hub, "pull", unreachable)

    def refuse(url, path, hash_prefix):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        models_weights.WeightsUnreachableError, match=r"resnet34-b627a593\.pth can't be reached \(no route"
    ):
        load_starting_weights("imagenet", "resnet34")
    assert list(weight_cache.iterdir()) == []


def test_a_cut_download_of_imagenet_weights_never_counts_as_complete(weight_cache, monkeypatch):
    monkeypatch.setattr(hub, "pull", unreachable)
    body = io.BytesIO(b"half of the file")
    body.headers = {"Content-Length": "1000"}
    body.info = lambda: body
    body.get_all = lambda name: [body.headers[name]] if name in body.headers else []
    monkeypatch.setattr(torch.hub, "urlopen", lambda *arguments, **options: body)
    with pytest.raises(models_weights.WeightsUnreachableError, match="was cut off or changed"):
        load_starting_weights("imagenet", "resnet18")
    assert list(weight_cache.iterdir()) == []


def test_imagenet_weights_in_the_cache_need_no_network(weight_cache, monkeypatch):
    # The real file is not to be had here: its hash is taken from a stand-in instead.
    torch.save(state_of(), weight_cache / "resnet18-f37072fd.pth")
    monkeypatch.setattr(models_weights, "digest_of", lambda path: "f37072fd" + "0" * 56)
    weights = load_starting_weights("imagenet", "resnet18")
    assert weights.name == "imagenet"
    assert weights.base_model == "timm/resnet18.tv_in1k"
    build_network("resnet18", 2, weights, seed=0)


def test_tensor_names_are_torchvisions():
    assert state_of().keys() == get_model("resnet18", weights=None).state_dict().keys()
    assert len(state_of()) == 122


@pytest.mark.parametrize(
    ("choice", "repository"),
    [("imagenet", "timm/test_resnet.r160_in1k"), ("r160_in1k", "timm/test_resnet.r160_in1k"), ("me/mine", "me/mine")],
)
def test_published_weights_come_from_the_hub_with_their_preprocessing(tmp_path, monkeypatch, choice, repository):
    state = create_network("test_resnet", 1000).state_dict()
    cfg = {"input_size": [3, 128, 128], "mean": [0.1, 0.2, 0.3], "num_classes": 1000}
    folder = published_folder(tmp_path / "model", {"architecture": "test_resnet", "pretrained_cfg": cfg}, state)
    asked = []
    monkeypatch.setattr(hub, "pull", lambda name: asked.append(name) or folder)
    weights = load_starting_weights(choice, "test_resnet")
    assert set(asked) == {repository}
    assert weights.base_model == repository
    assert weights.state.keys() == state.keys()
    assert (weights.preprocessing.crop, weights.preprocessing.mean[0]) == ((128, 0.1) if "/" in choice else (160, 0.5))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "resnet34"}, "give --backbone 'resnet34'"),
        ({"model_type": "bert"}, "me/mine can't be used: this is a 'bert' of transformers, expected a ResNet of it"),
        ({"num_classes": 2}, "is no model of antbee or timm: expected a config.json with its architecture"),
        ([], "is no model of antbee or timm"),
    ],
)
def test_a_hub_model_of_another_network_is_refused(tmp_path, monkeypatch, config, words):
    folder = published_folder(tmp_path / "model", config, {"a": torch.zeros(1)})
    monkeypatch.setattr(hub, "pull", lambda name: folder)
    assert words in complaint(load_starting_weights, "me/mine", "resnet18")


def test_a_network_without_published_weights_says_so():
    assert "test_coatnet has no published weights" in complaint(load_starting_weights, "imagenet", "test_coatnet")


def test_a_tag_is_part_of_timms_name_of_a_network(monkeypatch):
    asked = []

    def pull(name):
        asked.append(name)
        raise hub.HubError("The Hub cannot be reached.")

    monkeypatch.setattr(hub, "pull", pull)
    with pytest.raises(WeightsUnreachableError):
        choose_network("resnet18.a1_in1k", None)
    assert asked == ["timm/resnet18.a1_in1k"]
    for named in (("resnet18.a9_in1k", None), ("resnet18", "a9_in1k")):
        message = complaint(choose_network, *named)
        assert "no weights 'a9_in1k'" in message
        assert "a tag of timm's (a1_in1k, " in message


# ---- the weights that come by pip ------------------------------------------------------------------------------------


def test_the_packaged_tensors_fit_timms_network_by_name_and_shape_and_need_no_network():
    weights = load_starting_weights("imagenet", PACKAGED)
    expected = create_network(PACKAGED, 1000).state_dict()
    assert {name: tensor.shape for name, tensor in weights.state.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert (weights.license, weights.preprocessing.interpolation) == ("apache-2.0", "bicubic")
    network = build_network(PACKAGED, 2, weights, seed=0).eval()
    assert torch.equal(network.state_dict()["bn2.running_var"], weights.state["bn2.running_var"])


def test_a_changed_file_of_the_package_is_refused(monkeypatch):
    monkeypatch.setattr(models_weights, "digest_of", lambda path: "0" * 64)
    assert "is damaged" in complaint(load_starting_weights, "imagenet", PACKAGED)


def test_they_stand_in_where_nothing_is_named_and_nothing_can_be_reached(weight_cache, monkeypatch):
    monkeypatch.setattr(hub, "pull", unreachable)
    monkeypatch.setattr(models_weights, "_download", lambda *arguments: unreachable_weights())
    backbone, weights, notice = choose_network(None, None)
    assert (backbone, weights.stands_in_for) == (PACKAGED, "resnet18")
    assert "stands in for ResNet-18" in notice
    for named in (("resnet18", None), (None, "imagenet")):
        with pytest.raises(WeightsUnreachableError):
            choose_network(*named)
    assert choose_network("resnet18", "random")[0] == "resnet18"


def unreachable_weights():
    raise WeightsUnreachableError("no route to host")


# ---- the weights' own head ------------------------------------------------------------------------------------------


def thousand_rows(count=1000):
    """Weights whose head has the number of the row as every value."""
    rows = torch.arange(float(count))
    return StartingWeights("imagenet", {"fc.weight": rows[:, None].repeat(1, 4), "fc.bias": -rows})


def rows_of(*label_names, weights=None):
    """The rows of the ImageNet head that are used for the classes, or None."""
    head = zero_shot_head(weights or thousand_rows(), "resnet18", label_names)
    if head is None:
        return None
    assert torch.equal(head.weight, -head.bias[:, None].expand(-1, 4))
    return head.weight[:, 0].int().tolist()


def test_the_zero_shot_head_of_ants_and_bees_has_the_rows_of_ant_and_bee():
    assert rows_of("ants", "bees") == [310, 309]
    assert rows_of("bees", "ants") == [309, 310]


def test_the_zero_shot_head_is_not_trainable_and_gives_the_logits_of_the_whole_head():
    network = build_network("resnet18", 1000, RANDOM, seed=0)
    weights = StartingWeights("imagenet", {name: tensor.clone() for name, tensor in network.state_dict().items()})
    head = zero_shot_head(weights, "resnet18", ["ants", "bees"])
    features = torch.rand(5, 512)
    with torch.no_grad():
        torch.testing.assert_close(head(features), head_of(network)(features)[:, [310, 309]])
        head.weight.zero_()
    assert torch.equal(weights.state["fc.weight"], head_of(network).weight)  # a copy of the rows, not the file's own
    assert not any(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("ant", 310),
        ("Ants", 310),
        ("daisies", 985),
        ("torches", 862),
        ("red_foxes", 277),
        ("tiger-cat", 282),
        ("  school   buses ", 779),
        ("goldfish", 1),
    ],
)
def test_a_category_is_found_by_its_name_in_singular_or_plural(name, category):
    assert rows_of(name, "bees") == [category, 309]


@pytest.mark.parametrize(
    "name",
    [
        "hymenoptera",  # none of the thousand
        "wasps",
        "an",  # the beginning of one
        "",
        "sunglasses",  # two of them: in singular and in plural
        "cardigan",  # two of them: a dog and a garment
        "Bee",  # that of the other class
    ],
)
def test_without_a_unique_category_for_each_class_there_is_no_zero_shot_head(name):
    assert rows_of(name, "bees") is None
    assert rows_of("bees", name) is None


def test_a_name_of_two_categories_matches_none():
    categories = ["crane", "ant", "crane", "maillot", "Maillot"]
    found = [_category_of(name, categories) for name in ("cranes", "maillot", "ants")]
    assert found == [None, None, 1]


@pytest.mark.parametrize(
    "weights",
    [
        RANDOM,
        thousand_rows(999),
        thousand_rows(2),
        StartingWeights("backbone.safetensors", {"conv1.weight": torch.zeros(64, 3, 7, 7)}),
    ],
    ids=["random", "999 classes", "2 classes", "no head"],
)
def test_weights_without_an_imagenet_head_have_no_zero_shot_head(weights):
    assert rows_of("ants", "bees", weights=weights) is None


def test_weights_are_named_once():
    assert "name them once" in complaint(choose_network, "resnet18.a1_in1k", "random")
