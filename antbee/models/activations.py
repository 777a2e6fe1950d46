"""The way of one photo through the network, taken apart: what comes out of every stage, up to the loss.

The stages are those of the residual network of He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv
1512.03385, as torchvision builds it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet

from antbee.models.backbone import HEAD, count_parameters

# Stages whose output is a map, with the modules that make them.
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
    """One stage of the network: what came out of it, and what in it can learn."""

    name: str
    shape: tuple[int, ...]  # of what came out: (B, C, H, W)
    parameters: int
    learn_frozen: int  # of the parameters, those that learn where the backbone is frozen
    learn_finetune: int  # and where everything is trained
    activation: Tensor | None  # what came out: float32 (B, C, H, W), on the CPU; None where it is no map


@dataclass(frozen=True)
class Activations:
    """All that a network computes of one image, in order."""

    stages: tuple[Stage, ...]  # input, conv1, maxpool, layer1 to layer4, avgpool, fc
    features: Tensor  # float32 (C,): the means of the last feature map's channels
    logits: Tensor  # float32 (classes,)

    @property
    def probabilities(self) -> Tensor:
        """The softmax of the logits: float32 (classes,), which sum to 1."""
        return self.logits.softmax(0)

    @property
    def answer(self) -> int:
        """The class with the largest logit."""
        return int(self.logits.argmax())

    @property
    def losses(self) -> Tensor:
        """The cross-entropy if each class were the true one, -log of its probability: float32 (classes,), in nats."""
        class_count = len(self.logits)
        return functional.cross_entropy(
            self.logits.expand(class_count, -1), torch.arange(class_count), reduction="none"
        )

    def activation(self, name: str) -> Tensor:
        """The maps that came out of a stage: float32 (1, C, H, W). Raises KeyError where no maps did."""
        return {stage.name: stage.activation for stage in self.stages if stage.activation is not None}[name]


@torch.no_grad()
def record_activations(network: ResNet, image: Tensor) -> Activations:
    """The way of a normalised image (1, 3, H, W), on the network's device, through a network in evaluation mode.

    Every number is the network's own: the logits are those of `network(image)`.
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
    """The channels of an activation (1, C, H, W) that are the largest in the mean over all places, largest first."""
    means = activation[0].mean(dim=(1, 2))
    return means.topk(min(count, len(means))).indices.tolist()


def depth(network: ResNet) -> int:
    """Layers with weights that a photo passes one after another: the number in a ResNet's name."""
    convolutions = [name for name, _ in network.named_modules() if name.rpartition(".")[2].startswith("conv")]
    return len(convolutions) + 1  # the head; shortcuts run beside


def block_count(network: ResNet) -> int:
    """Residual blocks."""
    return sum(len(network.get_submodule(name)) for name in MAPS if name.startswith("layer"))
