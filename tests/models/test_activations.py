"""Recorded activations are those of the network, stage by stage."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from antbee.models.activations import Activations, record_activations, residual_blocks, strongest_channels
from antbee.models.backbone import Network, count_parameters, create_network, freeze_backbone
from antbee.models.weights import StartingWeights, build_network

NAMES = ["input", "act1", "layer1", "layer2", "layer3", "layer4", "pooling", "head"]
KINDS = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_mambaout")
CLASSES = 3


def network_of(architecture: str = "test_resnet") -> Network:
    """An untrained network with random BatchNorm statistics."""
    network = build_network(architecture, CLASSES, StartingWeights("random"), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def image_of(height: int = 160, width: int = 160) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of()


@pytest.fixture(scope="module")
def parts(network: Network) -> Activations:
    return record_activations(network, image_of())


@pytest.mark.parametrize("architecture", KINDS)
def test_the_logits_are_those_of_the_network_to_the_last_bit(architecture: str) -> None:
    network = network_of(architecture)
    with torch.no_grad():
        expected = network(image_of())
    assert torch.equal(record_activations(network, image_of()).logits, expected[0])


def test_the_stages_are_in_the_order_of_computation(parts: Activations) -> None:
    assert [stage.name for stage in parts.stages] == NAMES


def test_every_stage_has_the_shape_of_its_output_and_the_kinds_of_its_modules() -> None:
    stages = record_activations(network_of("resnet18"), image_of(64, 96)).stages
    assert {stage.name: (stage.shape, stage.parts) for stage in stages} == {
        "input": ((1, 3, 64, 96), ""),
        "act1": ((1, 64, 32, 48), "ReLU"),
        "layer1": ((1, 64, 16, 24), "2 BasicBlock"),
        "layer2": ((1, 128, 8, 12), "2 BasicBlock"),
        "layer3": ((1, 256, 4, 6), "2 BasicBlock"),
        "layer4": ((1, 512, 2, 3), "2 BasicBlock"),
        "pooling": ((1, 512), ""),
        "head": ((1, CLASSES), ""),
    }
    assert {stage.name: stage.parameters for stage in stages}["act1"] == 64 * 3 * 7 * 7 + 2 * 64


def test_of_a_long_row_of_equal_blocks_some_are_stages_and_their_tokens_lie_on_their_grid() -> None:
    stages = record_activations(network_of("test_vit"), image_of()).stages
    assert [stage.name for stage in stages] == ["input", "blocks.1", "blocks.3", "blocks.5", "pooling", "head"]
    assert [stage.activation.shape for stage in stages[1:-2]] == [(64, 10, 10)] * 3


@pytest.mark.parametrize("architecture", KINDS)
def test_parameters_sum_to_those_of_the_network_and_of_each_mode(architecture: str) -> None:
    network = network_of(architecture)
    stages = record_activations(network, image_of()).stages
    assert sum(stage.parameters for stage in stages) == count_parameters(network, trainable=False)
    assert sum(stage.trainable_finetune for stage in stages) == count_parameters(network, trainable=True)
    freeze_backbone(network)
    assert sum(stage.trainable_frozen for stage in stages) == count_parameters(network, trainable=True)
    assert [stage.name for stage in stages if stage.trainable_frozen] == ["head"]


@pytest.mark.parametrize("architecture", KINDS)
def test_only_stages_with_places_have_an_activation(architecture: str) -> None:
    parts = record_activations(network_of(architecture), image_of())
    assert [stage.name for stage in parts.stages if stage.activation is None] == ["pooling", "head"]
    for stage in parts.stages[:-2]:
        assert (stage.activation.ndim, stage.activation.dtype) == (3, torch.float32)
        assert stage.activation.device.type == "cpu"
    assert list(parts.maps) == [stage.name for stage in parts.stages[1:-2]]


def test_activations_are_the_outputs_of_the_networks_modules(network: Network, parts: Activations) -> None:
    given = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: given.update({name: out}))
        for name in NAMES[1:6]
    ]
    with torch.no_grad():
        network(image_of())
    for hook in hooks:
        hook.remove()
    for name, activation in given.items():
        assert torch.equal(parts.maps[name], activation[0]), name


def test_features_are_the_means_of_the_last_maps_and_the_inputs_of_the_head(
    network: Network, parts: Activations
) -> None:
    torch.testing.assert_close(parts.features, parts.maps["layer4"].mean(dim=(1, 2)))
    with torch.no_grad():
        torch.testing.assert_close(network.fc(parts.features), parts.logits)


def test_recording_keeps_no_gradient_and_does_not_change_the_network() -> None:
    network = network_of()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parts = record_activations(network, image_of())
    outputs = [parts.features, parts.logits, *(stage.activation for stage in parts.stages[:-2])]
    assert [output for output in outputs if output.requires_grad] == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


LOGITS = torch.tensor([0.5, 3.0, -1.0])


def test_the_answer_is_the_most_probable_class() -> None:
    assert Activations((), torch.zeros(4), LOGITS).answer == 1


def test_probabilities_are_the_softmax_and_losses_their_negative_logarithms() -> None:
    parts = Activations((), torch.zeros(4), LOGITS)
    assert float(parts.probabilities.sum()) == pytest.approx(1)
    torch.testing.assert_close(parts.probabilities, LOGITS.exp() / LOGITS.exp().sum())
    torch.testing.assert_close(parts.losses, -parts.probabilities.log())
    for truth in range(3):
        alone = functional.cross_entropy(LOGITS[None], torch.tensor([truth]))
        assert float(parts.losses[truth]) == pytest.approx(float(alone))


def test_the_loss_is_finite_if_the_probability_underflows() -> None:
    parts = Activations((), torch.zeros(4), torch.tensor([0.0, 200.0]))
    assert parts.probabilities.tolist() == [0, 1]
    assert parts.losses.tolist() == [200, 0]


def test_the_strongest_channels_have_the_largest_means_largest_first() -> None:
    activation = torch.zeros(5, 2, 2)
    activation[1] = 1
    activation[4] = 2
    activation[3, 0, 0] = 7  # the largest value, and a mean of 1.75
    assert strongest_channels(activation, 3) == [4, 3, 1]


def test_there_are_no_more_strongest_channels_than_channels() -> None:
    assert sorted(strongest_channels(torch.rand(3, 2, 2), 8)) == [0, 1, 2]


@pytest.mark.parametrize(("architecture", "blocks"), [("resnet18", 8), ("resnet50", 16), ("test_vit", 0)])
def test_residual_blocks_are_those_of_a_resnet(architecture: str, blocks: int) -> None:
    with torch.device("meta"):
        assert residual_blocks(create_network(architecture, 2)) == blocks
