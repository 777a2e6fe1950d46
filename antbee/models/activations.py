"""The activations of every stage of a ResNet for one image, up to the logits and the loss.

The stages are those of He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, in
torchvision's implementation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet

from antbee.models.backbone import HEAD, count_parameters

# The stages with feature maps as output, and their modules.
MAPS = {
    "conv1": ("conv1", "bn1", "relu"),
    "maxpool": ("maxpool",),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
    "layer3": ("layer3",),
    "layer4": ("layer4",),
}


@dataclass(frozen=True)
class Stage:
    """One stage of the network: its output and its weights."""

    name: str
    shape: tuple[int, ...]  # of the output
    parameters: int
    trainable_frozen: int  # parameters that the frozen mode trains
    trainable_finetune: int  # parameters that the finetune mode trains
    activation: Tensor | None  # feature maps: float32 (B, C, H, W), on the CPU; None for other outputs


@dataclass(frozen=True)
class Activations:
    """The activations of a network for one image."""

    stages: tuple[Stage, ...]  # input, conv1, maxpool, layer1 to layer4, avgpool, fc
    features: Tensor  # float32 (C,)
    logits: Tensor  # float32 (classes,)

    @property
    def probabilities(self) -> Tensor:
        """The softmax of the logits: float32 (classes,)."""
        return self.logits.softmax(0)

    @property
    def answer(self) -> int:
        """The index of the most probable class."""
        return int(self.logits.argmax())

    @property
    def losses(self) -> Tensor:
        """The cross-entropy for each class as the true class: float32 (classes,), in nats."""
        class_count = len(self.logits)
        return functional.cross_entropy(
            self.logits.expand(class_count, -1), torch.arange(class_count), reduction="none"
        )

    def activation(self, name: str) -> Tensor:
        """The feature maps of a stage: float32 (1, C, H, W). Raises KeyError for a stage without feature maps."""
        return {stage.name: stage.activation for stage in self.stages if stage.activation is not None}[name]


@torch.no_grad()
def record_activations(network: ResNet, image: Tensor) -> Activations:
    """Runs a network in evaluation mode on a normalised image (1, 3, H, W), on the network's device.

    The logits are those of `network(image)`.
    """
    x, stages = image, [_stage("input", [], image, image)]
    for name, parts in MAPS.items():
        modules = [network.get_submodule(part) for part in parts]
        for module in modules:
            x = module(x)
        stages.append(_stage(name, modules, x, x))
    means = network.avgpool(x)
    features = torch.flatten(means, 1)
    logits = network.fc(features)
    stages += [_stage("avgpool", [network.avgpool], means, None), _stage("fc", [network.fc], logits, None)]
    return Activations(tuple(stages), features[0].float().cpu(), logits[0].float().cpu())


def _stage(name: str, modules: list[nn.Module], output: Tensor, activation: Tensor | None) -> Stage:
    parameters = sum(count_parameters(module, trainable=False) for module in modules)
    return Stage(
        name,
        tuple(output.shape),
        parameters,
        parameters if f"{name}." == HEAD else 0,
        parameters,
        None if activation is None else activation.float().cpu(),
    )


def strongest_channels(activation: Tensor, count: int) -> list[int]:
    """The channels of an activation (1, C, H, W) with the largest means, largest first."""
    means = activation[0].mean(dim=(1, 2))
    return means.topk(min(count, len(means))).indices.tolist()


def depth(network: ResNet) -> int:
    """The number of convolutions and linear layers in sequence, as in the name of a ResNet."""
    convolutions = [name for name, _ in network.named_modules() if name.rpartition(".")[2].startswith("conv")]
    return len(convolutions) + 1  # the head; shortcuts are parallel


def block_count(network: ResNet) -> int:
    """The number of residual blocks."""
    return sum(len(network.get_submodule(name)) for name in MAPS if name.startswith("layer"))
