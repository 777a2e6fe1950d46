"""Networks as a backbone and a linear head: building, freezing, feature maps, class activation maps.

The networks are torchvision's ResNets, whose weights torchvision, timm and transformers load. The head is the last
layer, `fc`; the backbone is everything before it.

    images (B, 3, H, W) -> feature map (B, C, H/32, W/32) -> features (B, C) -> logits (B, classes)
"""

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models import ResNet, get_model, get_model_weights

from antbee.models.device import fastest_layout
from antbee.models.weights import StartingWeights, WeightsError, check_architecture, load_strictly

HEAD = "fc."  # prefix of the names of the head's tensors


def build_network(architecture: str, class_count: int, weights: StartingWeights, *, seed: int) -> ResNet:
    """A network with the backbone of `weights`, and a new head for `class_count` classes, initialised with `seed`.

    The head of `weights` is not used. Raises WeightsError where the others don't fit the backbone exactly.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = empty_network(architecture, class_count)
    if weights.state is not None:
        backbone = {name: tensor for name, tensor in weights.state.items() if not name.startswith(HEAD)}
        load_strictly(network, backbone | _head_state(network), f"the weights {weights.name}")
    return network


def empty_network(architecture: str, class_count: int) -> ResNet:
    """A network with random weights. Raises WeightsError for an architecture that is not supported."""
    check_architecture(architecture)
    network: ResNet = get_model(architecture, weights=None, num_classes=class_count)
    return network


def network_with(architecture: str, class_count: int, state: Mapping[str, Tensor], source: str) -> ResNet:
    """A network with the weights `state`, which errors call `source`. Raises WeightsError where they don't fit."""
    with torch.device("meta"):  # random initialisation would take most of the time
        network = empty_network(architecture, class_count)
    network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # may be missing in `state`
            buffer.zero_()
    load_strictly(network, state, source)
    return network


def _head_state(network: ResNet) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name.startswith(HEAD)}


def feature_map(network: ResNet, images: Tensor) -> Tensor:
    """The output of the last stage: images (B, 3, H, W) -> (B, C, H/32, W/32)."""
    x = network.relu(network.bn1(network.conv1(images)))
    x = network.maxpool(x)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
    return x


def pooled(network: ResNet, maps: Tensor) -> Tensor:
    """Global average pooling: feature maps (B, C, h, w) -> features (B, C)."""
    return torch.flatten(network.avgpool(maps), 1)


def class_activation_map(head: nn.Linear, maps: Tensor, class_index: int) -> Tensor:
    """The class activation map of a class: feature maps (..., C, h, w) -> (..., h, w), in logits.

    The mean of the map plus the head's bias is the logit of the class. Zhou et al. 2016, "Learning Deep Features for
    Discriminative Localization", arXiv 1512.04150.
    """
    return torch.einsum("c,...chw->...hw", head.weight[class_index], maps)


def fuse_conv_bn(network: ResNet) -> ResNet:
    """A copy for inference: every BatchNorm is fused into the convolution before it, in the fastest memory layout.

    The outputs are equal except for rounding.
    https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        layers = dict(module.named_children())
        # The layers of a block are conv1, bn1, conv2, bn2, ...; its shortcut has the layers "0" and "1".
        names = [(name, name.replace("conv", "bn")) for name in layers if name.startswith("conv")]
        if isinstance(module, nn.Sequential) and isinstance(layers.get("0"), nn.Conv2d):
            names = [("0", "1")]
        for convolution, norm in names:
            setattr(module, convolution, fuse_conv_bn_eval(layers[convolution], layers[norm]))
            setattr(module, norm, nn.Identity())
    return network.to(memory_format=fastest_layout(network.fc.weight.device))


def freeze_backbone(network: ResNet) -> None:
    """Makes only the head trainable. For BatchNorm's running statistics see `trainer.set_training_mode`."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))


def unfreeze(network: ResNet) -> None:
    """Makes every weight trainable."""
    network.requires_grad_(True)


def count_parameters(module: nn.Module, *, trainable: bool) -> int:
    """The number of trainable weights, or of all."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def count_all_parameters(architecture: str, class_count: int) -> int:
    """The number of weights of an architecture, without allocating them."""
    with torch.device("meta"):
        return count_parameters(empty_network(architecture, class_count), trainable=False)


def new_head(width: int, class_count: int, *, seed: int) -> nn.Linear:
    """A new head on `width` features, initialised with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Linear(width, class_count)


def with_head(network: ResNet, head: nn.Linear) -> ResNet:
    """A network with another head, which shares the backbone with `network`: training or moving one changes both.

    Raises WeightsError for a head with another number of inputs.
    """
    if head.in_features != network.fc.in_features:
        raise WeightsError(
            f"a head on {head.in_features} features doesn't fit a backbone of {network.fc.in_features}: "
            "is it of another architecture?"
        )
    other = copy.copy(network)
    # A shallow copy shares the dict of layers: assigning the head would change `network` too.
    other._modules = dict(network._modules)
    other.fc = head
    return other


def apply_temperature(head: nn.Linear, temperature: float) -> None:
    """Divides the head's weights, and so its logits, by the temperature."""
    with torch.no_grad():
        for weights in head.parameters():
            weights.div_(temperature)


def backbone_digest(network: ResNet) -> str:
    """SHA-256 of the backbone's tensors: equal digests give equal features."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not name.startswith(HEAD) and not name.endswith("num_batches_tracked"):  # not used by the network
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def zero_shot_head(weights: StartingWeights, architecture: str, label_names: Sequence[str]) -> nn.Linear | None:
    """The rows of the starting weights' ImageNet head for these classes, as a zero-shot baseline.

    None where the weights have no head of ImageNet's 1000 categories, or where a class does not have, in singular or
    plural, the name of exactly one of them.
    """
    state = weights.state or {}
    categories: list[str] = get_model_weights(architecture)["IMAGENET1K_V1"].meta["categories"]
    shapes = [tuple(state[f"{HEAD}{name}"].shape) if f"{HEAD}{name}" in state else () for name in ("weight", "bias")]
    if [shape[:1] for shape in shapes] != [(len(categories),)] * 2:
        return None
    rows = [_category_of(name, categories) for name in label_names]
    if None in rows or len(set(rows)) < len(rows):
        return None
    head = nn.Linear(state[f"{HEAD}weight"].shape[1], len(rows))
    head.load_state_dict({name: state[f"{HEAD}{name}"][rows] for name in ("weight", "bias")})
    return head.requires_grad_(False)


def _category_of(name: str, categories: Sequence[str]) -> int | None:
    """The index of the only category with the name of a class, as "ant" for "ants"; None where it is not unique."""
    name = _words(name)
    singulars = {name, name.removesuffix("s"), name.removesuffix("es")}
    if name.endswith("ies"):
        singulars.add(name.removesuffix("ies") + "y")
    found = [index for index, category in enumerate(categories) if _words(category) in singulars]
    return found[0] if len(found) == 1 else None


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


@functools.cache
def feature_count(architecture: str) -> int:
    """The number of channels of the last feature map, the head's inputs."""
    with torch.device("meta"):  # only shapes
        return int(empty_network(architecture, 2).fc.in_features)
