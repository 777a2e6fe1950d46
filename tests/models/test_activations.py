"""A network taken apart computes what the whole network computes, stage by stage."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import ResNet

from antbee.models import activations
from antbee.models.activations import Activations, block_count, record_activations, strongest_channels
from antbee.models.backbone import build_network, count_parameters, empty_network, freeze_backbone
from antbee.models.weights import StartingWeights

NAMES = ["input", "conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
CLASSES = 3


def network_of(architecture: str = "resnet18") -> ResNet:
    """An untrained network whose BatchNorm does something else in every channel."""
    network = build_network(architecture, CLASSES, StartingWeights("random"), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def image_of(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def network() -> ResNet:
    return network_of()


@pytest.fixture(scope="module")
def parts(network: ResNet) -> Activations:
    return record_activations(network, image_of())


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_logits_are_those_of_the_network_to_the_last_bit(architecture: str) -> None:
    network = network_of(architecture)
    with torch.no_grad():
        expected = network(image_of())
    assert torch.equal(record_activations(network, image_of()).logits, expected[0])


def test_the_stages_come_in_the_order_in_which_a_photo_passes_them(parts: Activations) -> None:
    assert [stage.name for stage in parts.stages] == NAMES


def test_every_stage_tells_the_shape_that_came_out_of_it_here() -> None:
    shapes = {stage.name: stage.shape for stage in record_activations(network_of(), image_of(64, 96)).stages}
    assert shapes == {
        "input": (1, 3, 64, 96),
        "conv1": (1, 64, 32, 48),
        "maxpool": (1, 64, 16, 24),
        "layer1": (1, 64, 16, 24),
        "layer2": (1, 128, 8, 12),
        "layer3": (1, 256, 4, 6),
        "layer4": (1, 512, 2, 3),
        "avgpool": (1, 512, 1, 1),
        "fc": (1, CLASSES),
    }


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_parameters_sum_to_those_of_the_network_and_of_each_mode(architecture: str) -> None:
    network = network_of(architecture)
    stages = record_activations(network, image_of()).stages
    assert sum(stage.parameters for stage in stages) == count_parameters(network, trainable=False)
    assert sum(stage.trainable_finetune for stage in stages) == count_parameters(network, trainable=True)
    freeze_backbone(network)
    assert sum(stage.trainable_frozen for stage in stages) == count_parameters(network, trainable=True)
    assert [stage.name for stage in stages if stage.trainable_frozen] == ["fc"]


def test_maps_alone_have_an_activation_which_has_the_shape_told(parts: Activations) -> None:
    assert [stage.name for stage in parts.stages if stage.activation is None] == ["avgpool", "fc"]
    for stage in parts.stages[:-2]:
        assert stage.activation.shape == stage.shape
        assert stage.activation.dtype == torch.float32
        assert stage.activation.device.type == "cpu"
        assert torch.equal(parts.activation(stage.name), stage.activation)
    with pytest.raises(KeyError):
        parts.activation("fc")


def test_activations_are_what_the_networks_own_modules_gave(network: ResNet, parts: Activations) -> None:
    given = {"input": image_of()}
    hooks = [
        network.get_submodule(module).register_forward_hook(lambda _, __, out, name=name: given.update({name: out}))
        for name, module in {"conv1": "relu", **{name: name for name in NAMES[2:7]}}.items()
    ]
    with torch.no_grad():
        network(image_of())
    for hook in hooks:
        hook.remove()
    assert given.keys() == set(NAMES[:7])
    for name, activation in given.items():
        assert torch.equal(parts.activation(name), activation), name


def test_features_are_the_means_of_the_last_maps_and_what_the_head_makes_the_logits_of(
    network: ResNet, parts: Activations
) -> None:
    torch.testing.assert_close(parts.features, parts.activation("layer4").mean(dim=(2, 3))[0])
    with torch.no_grad():
        torch.testing.assert_close(network.fc(parts.features), parts.logits)


def test_nothing_has_a_gradient_and_the_network_is_left_as_it_was() -> None:
    network = network_of()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parts = record_activations(network, image_of())
    outputs = [parts.features, parts.logits, *(stage.activation for stage in parts.stages[:-2])]
    assert [output for output in outputs if output.requires_grad] == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


LOGITS = torch.tensor([0.5, 3.0, -1.0])


def test_the_answer_is_the_class_with_the_largest_logit() -> None:
    assert Activations((), torch.zeros(4), LOGITS).answer == 1


def test_probabilities_are_the_softmax_and_losses_their_negative_logarithms() -> None:
    parts = Activations((), torch.zeros(4), LOGITS)
    assert float(parts.probabilities.sum()) == pytest.approx(1)
    torch.testing.assert_close(parts.probabilities, LOGITS.exp() / LOGITS.exp().sum())
    torch.testing.assert_close(parts.losses, -parts.probabilities.log())
    for truth in range(3):
        alone = functional.cross_entropy(LOGITS[None], torch.tensor([truth]))
        assert float(parts.losses[truth]) == pytest.approx(float(alone))


def test_a_loss_stays_finite_where_the_probability_is_too_small_for_a_number() -> None:
    parts = Activations((), torch.zeros(4), torch.tensor([0.0, 200.0]))
    assert parts.probabilities.tolist() == [0, 1]
    assert parts.losses.tolist() == [200, 0]


def test_the_strongest_channels_have_the_largest_means_and_come_largest_first() -> None:
    activation = torch.zeros(1, 5, 2, 2)
    activation[0, 1] = 1
    activation[0, 4] = 2
    activation[0, 3, 0, 0] = 7  # the largest value, and a mean of 1.75
    assert strongest_channels(activation, 3) == [4, 3, 1]


def test_no_more_channels_are_named_than_there_are() -> None:
    assert sorted(strongest_channels(torch.rand(1, 3, 2, 2), 8)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("architecture", "depth", "blocks"), [("resnet18", 18, 8), ("resnet34", 34, 16), ("resnet50", 50, 16)]
)
def test_the_depth_is_the_number_in_the_networks_name(architecture: str, depth: int, blocks: int) -> None:
    with torch.device("meta"):
        network = empty_network(architecture, 2)
    assert (activations.depth(network), block_count(network)) == (depth, blocks)
