"""The activations of the stages of a network for one image, up to the logits and the loss.

The stages are those that timm's `feature_info` names, five at most: of a long row of equal blocks, as in a vision
transformer, the last and some before it.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from antbee.models.activation_map import on_grid
from antbee.models.backbone import Network, count_parameters, feature_map, head_of, pooled

MOST_STAGES = 5


@dataclass(frozen=True)
class Stage:
    """A part of the network up to a point: what leaves it, and the weights since the stage before."""

    name: str  # as in the network's own code
    parts: str  # the kinds of its modules, with their numbers
    shape: tuple[int, ...]  # of the output
    parameters: int
    trainable_frozen: int  # parameters that the frozen mode trains
    trainable_finetune: int  # parameters that the finetune mode trains
    activation: Tensor | None  # float32 (C, h, w), on the CPU; None for outputs without places


@dataclass(frozen=True)
class Activations:
    """The activations of a network for one image."""

    stages: tuple[Stage, ...]  # "input", those of feature_info, "pooling", "head"
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

    @property
    def maps(self) -> dict[str, Tensor]:
        """The feature maps by stage: float32 (C, h, w)."""
        return {one.name: one.activation for one in self.stages[1:] if one.activation is not None}


def stage_names(network: Network) -> list[str]:
    """The names of the modules after which the stages end."""
    names = [str(one["module"]) for one in getattr(network.feature_info, "info", network.feature_info)]
    step = -(-len(names) // MOST_STAGES)
    return names[::-1][::step][::-1]


@torch.no_grad()
def record_activations(network: Network, image: Tensor) -> Activations:
    """Runs a network in evaluation mode on a normalised image (1, 3, H, W), on the network's device.

    The logits are those of `network(image)`.
    """
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name in stage_names(network):

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            outputs[name] = output

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        maps = feature_map(network, image)
    finally:
        for hook in hooks:
            hook.remove()
    features, head = pooled(network, maps), head_of(network)
    logits = head(features)
    in_head, seen = count_parameters(head, trainable=False), 0
    stages = [Stage("input", "", tuple(image.shape), 0, 0, 0, image[0].float().cpu())]
    for name, output in outputs.items():
        before, seen = seen, _parameters_up_to(network, name)
        own, grid = seen - before, on_grid(network, output).float().cpu()
        stages.append(Stage(name, _parts(network.get_submodule(name)), tuple(output.shape), own, 0, own, grid))
    rest = count_parameters(network, trainable=False) - seen - in_head
    stages.append(Stage("pooling", "", tuple(features.shape), rest, 0, rest, None))
    stages.append(Stage("head", "", tuple(logits.shape), in_head, in_head, in_head, None))
    return Activations(tuple(stages), features[0].float().cpu(), logits[0].float().cpu())


def _parameters_up_to(network: Network, name: str) -> int:
    """The number of parameters of the modules that are registered before the end of this one, and its own."""
    prefix = f"{name}."
    own = [key for key, _ in network.named_parameters()]
    inside = [position for position, key in enumerate(own) if key.startswith(prefix)]
    if not inside:  # an activation function: all modules before it count
        order = [key for key, _ in network.named_modules()]
        before = set(order[: order.index(name)])
        inside = [position for position, key in enumerate(own) if key.rpartition(".")[0] in before]
    counts = [parameter.numel() for parameter in network.parameters()]
    return sum(counts[: max(inside, default=-1) + 1])


def _parts(module: nn.Module) -> str:
    """The kinds of a sequence's modules, or that of a single module, as in "2 BasicBlock"."""
    if not isinstance(module, nn.Sequential):
        return type(module).__name__
    return ", ".join(f"{count} {kind}" for kind, count in Counter(type(child).__name__ for child in module).items())


def residual_blocks(network: Network) -> int:
    """The number of residual blocks of a ResNet; 0 of other networks."""
    from timm.models.resnet import BasicBlock, Bottleneck

    return sum(isinstance(module, BasicBlock | Bottleneck) for module in network.modules())


def strongest_channels(activation: Tensor, count: int) -> list[int]:
    """The channels of an activation (C, h, w) with the largest means, largest first."""
    means = activation.mean(dim=(1, 2))
    return means.topk(min(count, len(means))).indices.tolist()
