"""Networks: backbone and head, freezing, starting weights, device and precision."""

import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from antbee.models import weights as models_weights
from antbee.models.backbone import (
    _category_of,
    apply_temperature,
    build_network,
    class_activation_map,
    count_parameters,
    empty_network,
    feature_count,
    feature_map,
    freeze_backbone,
    fuse_conv_bn,
    new_head,
    pooled,
    unfreeze,
    with_head,
    zero_shot_head,
)
from antbee.models.device import PRECISIONS, DeviceError, autocast, choose_device, choose_precision
from antbee.models.weights import StartingWeights, WeightsError, load_starting_weights

RANDOM = StartingWeights("random")
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def state_of(architecture="resnet18", class_count=1000):
    """The state_dict of a random network."""
    return dict(build_network(architecture, class_count, RANDOM, seed=1).state_dict())


def complaint(call, *arguments):
    with pytest.raises(WeightsError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- forward pass ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet18", "resnext50_32x4d"])
def test_feature_map_pooling_and_head_together_are_the_network(architecture):
    network = build_network(architecture, 3, RANDOM, seed=0).eval()
    with torch.inference_mode():
        maps = feature_map(network, IMAGES)
        features = pooled(network, maps)
        assert maps.shape == (2, feature_count(architecture), 2, 2)
        assert features.shape == (2, feature_count(architecture))
        assert torch.equal(network.fc(features), network(IMAGES))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_mean_of_a_class_activation_map_plus_the_bias_is_the_logit(architecture):
    network = build_network(architecture, 3, RANDOM, seed=0).eval()
    with torch.inference_mode():
        maps, logits = feature_map(network, IMAGES), network(IMAGES)
        for index in range(3):
            activation_map = class_activation_map(network.fc, maps, index)
            assert activation_map.shape == (2, 2, 2)
            torch.testing.assert_close(activation_map.mean((1, 2)) + network.fc.bias[index], logits[:, index])


@pytest.mark.parametrize("architecture", ["resnet18", "resnext50_32x4d"])  # both blocks, and convolutions in groups
def test_a_fused_network_has_equal_outputs_and_no_batch_norm(architecture):
    network = build_network(architecture, 3, RANDOM, seed=0)
    network.train()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # its initial statistics are the identity
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
        network(IMAGES)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fused = fuse_conv_bn(network)
    with torch.inference_mode():
        torch.testing.assert_close(fused(IMAGES), network.eval()(IMAGES), rtol=1e-3, atol=1e-4)
        maps = feature_map(fused, IMAGES)
        torch.testing.assert_close(fused.fc(pooled(fused, maps)), fused(IMAGES))
    assert not [layer for layer in fused.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_freezing_leaves_only_the_head_trainable():
    network = build_network("resnet18", 2, RANDOM, seed=0)
    freeze_backbone(network)
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert learning == ["fc.weight", "fc.bias"]
    assert count_parameters(network, trainable=True) == 1_026
    unfreeze(network)
    assert count_parameters(network, trainable=True) == 11_177_538
    assert count_parameters(network, trainable=False) == 11_177_538


@pytest.mark.parametrize("architecture", models_weights.ARCHITECTURES)
def test_every_architecture_has_a_linear_head_called_fc(architecture):
    with torch.device("meta"):
        network = empty_network(architecture, 7)
    assert network.fc.out_features == 7
    assert network.fc.in_features == feature_count(architecture)


def test_an_unknown_architecture_is_refused_with_the_supported_ones():
    text = complaint(empty_network, "vgg11", 2)
    assert "'vgg11'" in text
    assert "resnet18" in text


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


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "epoch": 3}, tmp_path / "run.pth")
    assert "expected a torchvision state_dict" in complaint(
        load_starting_weights, str(tmp_path / "run.pth"), "resnet18"
    )


def test_a_real_weights_file_is_loaded_without_its_head_of_a_thousand_classes(standin_weights):
    weights = load_starting_weights(str(standin_weights), "resnet18")
    network = build_network("resnet18", 2, weights, seed=0)
    assert weights.state["fc.weight"].shape == (1000, 512)
    assert torch.equal(network.layer4[1].bn2.running_var, weights.state["layer4.1.bn2.running_var"])
    assert network.fc.weight.shape == (2, 512)


def test_a_missing_file_is_refused_with_the_accepted_values(tmp_path):
    text = complaint(load_starting_weights, str(tmp_path / "none.pth"), "resnet18")
    assert "expected imagenet, random, or a .safetensors or .pth file" in text


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
    def refuse(url, path, hash_prefix):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        models_weights.WeightsUnreachableError, match=r"resnet34-b627a593\.pth can't be reached \(no route"
    ):
        load_starting_weights("imagenet", "resnet34")
    assert list(weight_cache.iterdir()) == []


def test_a_cut_download_of_imagenet_weights_never_counts_as_complete(weight_cache, monkeypatch):
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
    monkeypatch.setattr(models_weights, "_digest", lambda path: "f37072fd" + "0" * 56)
    weights = load_starting_weights("imagenet", "resnet18")
    assert weights.name == "imagenet"
    assert weights.base_model == "timm/resnet18.tv_in1k"
    build_network("resnet18", 2, weights, seed=0)


def test_tensor_names_are_torchvisions():
    assert state_of().keys() == get_model("resnet18", weights=None).state_dict().keys()
    assert len(state_of()) == 122


# ---- the device ------------------------------------------------------------------------------------------------------


def test_auto_is_the_cpu_where_there_is_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert choose_device("auto") == torch.device("cpu")


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert choose_device("auto") == torch.device("mps")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "abacus", "", "cpu:abc"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(monkeypatch, name):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    with pytest.raises(DeviceError, match=f"no device '{name}'.*cpu"):
        choose_device(name)


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({}, "float32"),
        ({"avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_that_has_instructions_for_it_alone(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert choose_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_named_is_the_precision_taken(name):
    assert choose_precision(name, torch.device("cpu")) == name


def test_auto_is_float32_on_devices_that_are_not_known_to_be_faster():
    assert choose_precision("auto", torch.device("mps")) == "float32"


def test_an_unknown_precision_is_refused_with_the_accepted_ones():
    with pytest.raises(DeviceError, match="no precision 'half': expected auto, float32 or bfloat16"):
        choose_precision("half", torch.device("cpu"))


def test_only_bfloat16_rounds_the_inputs():
    layer = torch.nn.Linear(64, 64, bias=False)
    inputs = torch.rand(4, 64)
    with torch.no_grad():
        exact = layer(inputs)
        with autocast("float32", torch.device("cpu")):
            assert torch.equal(layer(inputs), exact)
        with autocast("bfloat16", torch.device("cpu")):
            rounded = layer(inputs)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)


# ---- heads -----------------------------------------------------------------------------------------------------------


def test_a_head_depends_on_the_seed_and_does_not_change_the_global_generator():
    before = torch.random.get_rng_state()
    heads = [new_head(16, 3, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert (heads[0].in_features, heads[0].out_features) == (16, 3)
    for one, same, other in zip(*(head.parameters() for head in heads), strict=True):
        assert one.requires_grad
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_a_network_with_another_head_shares_the_backbone_and_does_not_change_the_first():
    network = build_network("resnet18", 5, RANDOM, seed=0).eval()
    own_head, head = network.fc, new_head(512, 3, seed=1)
    other = with_head(network, head)
    assert network.fc is own_head
    assert other.fc is head
    assert list(other.state_dict()) == list(network.state_dict())
    for (name, one), two in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert (one.data_ptr() == two.data_ptr()) == (not name.startswith("fc.")), name
    with torch.inference_mode():
        features = pooled(network, feature_map(network, IMAGES))
        assert torch.equal(other(IMAGES), head(features))
        assert torch.equal(network(IMAGES), own_head(features))


def test_a_head_with_another_number_of_inputs_is_refused():
    network = build_network("resnet18", 5, RANDOM, seed=0)
    words = complaint(with_head, network, new_head(2048, 3, seed=1))
    assert "a head on 2048 features doesn't fit a backbone of 512" in words


def test_a_temperature_divides_the_logits():
    head, features = new_head(16, 3, seed=0), torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    before = head(features).detach()
    apply_temperature(head, 2.5)
    torch.testing.assert_close(head(features).detach(), before / 2.5)


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
        torch.testing.assert_close(head(features), network.fc(features)[:, [310, 309]])
        head.weight.zero_()
    assert torch.equal(weights.state["fc.weight"], network.fc.weight)  # a copy of the rows, not the file's own
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
