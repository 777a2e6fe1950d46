"""Networks as a backbone and a linear head: building, freezing, features, class activation maps.

The networks are timm's (https://huggingface.co/docs/timm), which all have one interface. The head is the last layer, a
linear one; the backbone is everything before it.

    images (B, 3, H, W) -> feature map -> features (B, C) -> logits (B, classes)

The feature map is (B, C, h, w) for convolutional networks, and (B, tokens, C) for most vision transformers.
"""

import copy
import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from antbee.models.architectures import check_architecture, published, takes_any_size
from antbee.models.device import fastest_layout
from antbee.models.tensors import WeightsError, load_strictly

if TYPE_CHECKING:

    class Network(nn.Module):
        """The interface of timm's networks."""

        feature_info: Any

        def forward_features(self, images: Tensor) -> Tensor:  # noqa: D102
            ...

        def forward_head(self, maps: Tensor, *, pre_logits: bool) -> Tensor:  # noqa: D102
            ...

        def get_classifier(self) -> nn.Module:  # noqa: D102
            ...

else:
    Network = nn.Module


def create_network(
    architecture: str, class_count: int, *, image_size: int | None = None, state: Mapping[str, Tensor] | None = None
) -> Network:
    """A network of timm, in evaluation mode; with `state`, the tensors of its weights at the published image size.

    Raises WeightsError for an unknown network, one without a single linear head, or one that does not take the size.
    """
    import timm

    check_architecture(architecture)
    size = published(architecture)["input_size"][-1]
    arguments: dict[str, Any] = {"num_classes": class_count}
    if image_size not in (None, size) and not takes_any_size(architecture):
        arguments["img_size"] = image_size
    if state is not None:
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
    try:
        network = cast(Network, timm.create_model(architecture, **arguments))
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        if "img_size" not in arguments:
            raise
        raise WeightsError(
            f"{architecture} does not take images of {image_size} pixels: leave out --image-size"
        ) from error
    get_classifier = getattr(network, "get_classifier", nn.Identity)  # encoders have none
    if not isinstance(get_classifier(), nn.Linear):
        raise WeightsError(
            f"{architecture} does not end in one linear layer, which antbee trains: choose another backbone"
        )
    return network.eval()


def check_image_size(architecture: str, side: int) -> None:
    """Raises WeightsError, with the nearest sizes, where a network does not take images of `side` x `side` pixels.

    A network of patches would leave out the pixels beyond the last whole patch without a word.
    """
    with torch.device("meta"):
        network = create_network(architecture, 2, image_size=side)
        steps = [level["reduction"] for level in network.feature_info]  # pixels that become one position
        try:
            network(torch.empty(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise WeightsError(_nearest_sizes(architecture, side, steps[-1])) from error
    if side % steps[0] and not takes_any_size(architecture):
        raise WeightsError(_nearest_sizes(architecture, side, steps[-1]))


def _nearest_sizes(architecture: str, side: int, step: int) -> str:
    below = side // step * step
    such = " or ".join(str(size) for size in (below, below + step) if size)
    advice = f"give a multiple of {step}, such as {such}" if side % step else "leave out --image-size"
    return f"{architecture} does not take images of {side} pixels: {advice}"


def network_with(
    architecture: str, class_count: int, state: Mapping[str, Tensor], source: str, *, image_size: int | None = None
) -> Network:
    """A network with the weights `state`, which errors call `source`. Raises WeightsError where they don't fit."""
    with torch.device("meta"):  # random initialisation would take most of the time
        network = create_network(architecture, class_count, image_size=image_size)
    if any(name not in network.state_dict() for name, _ in network.named_buffers()):
        # Such buffers are computed when the network is built, and not in its weights.
        network = create_network(architecture, class_count, image_size=image_size)
    else:
        network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # may be missing in `state`
            buffer.zero_()
    load_strictly(network, state, source)
    return network


# ---------------------------------------------------------------------------------------------------------------------
# The head


def head_of(network: Network) -> nn.Linear:
    """The last layer."""
    return cast(nn.Linear, network.get_classifier())


def head_prefix(network: Network) -> str:
    """The beginning of the names of the head's tensors, as in "fc." or "head.fc."."""
    head = network.get_classifier()
    return next(f"{name}." for name, module in network.named_modules() if module is head)


def new_head(width: int, class_count: int, *, seed: int) -> nn.Linear:
    """A new head on `width` features, initialised with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Linear(width, class_count)


def zero_head(width: int, class_count: int) -> nn.Linear:
    """A new head whose weights are zero: every class is equally probable, and training finds the same minimum."""
    head = nn.utils.skip_init(nn.Linear, width, class_count)  # draws no random numbers
    for weights in head.parameters():
        nn.init.zeros_(weights)
    return head


def with_head(network: Network, head: nn.Linear) -> Network:
    """A network with another head, which shares the backbone with `network`: training or moving one changes both.

    Raises WeightsError for a head with another number of inputs.
    """
    if head.in_features != (width := head_of(network).in_features):
        raise WeightsError(
            f"a head on {head.in_features} features doesn't fit a backbone of {width}: is it of another architecture?"
        )
    tensors = [*network.parameters(), *network.buffers()]
    other = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})  # copies the modules alone
    other.set_submodule(head_prefix(network).removesuffix("."), head)
    return other


def apply_temperature(head: nn.Linear, temperature: float) -> None:
    """Divides the head's weights, and so its logits, by the temperature."""
    with torch.no_grad():
        for weights in head.parameters():
            weights.div_(temperature)


# ---------------------------------------------------------------------------------------------------------------------
# The backbone


def feature_map(network: Network, images: Tensor) -> Tensor:
    """The output of the backbone before pooling: images (B, 3, H, W) -> (B, C, h, w), or tokens (B, N, C)."""
    return network.forward_features(images)


def pooled(network: Network, maps: Tensor) -> Tensor:
    """The head's input: feature maps -> features (B, C)."""
    return network.forward_head(maps, pre_logits=True)


def freeze_backbone(network: Network) -> None:
    """Makes only the head trainable. For BatchNorm's running statistics see `trainer.set_training_mode`."""
    network.requires_grad_(False)
    head_of(network).requires_grad_(True)


def unfreeze(network: Network) -> None:
    """Makes every weight trainable."""
    network.requires_grad_(True)


def has_batch_norm(network: Network) -> bool:
    """Whether a network normalises by BatchNorm; others, by LayerNorm mostly, are fine-tuned in another way."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def has_depthwise_convolutions(network: Network) -> bool:
    """Whether some convolutions have a filter for each channel alone, as in networks for phones."""
    return any(isinstance(one, nn.Conv2d) and one.groups == one.in_channels > 1 for one in network.modules())


def crashes_channels_last(network: Network) -> bool:
    """Whether torch 2.14 crashes on CPUs in the network's backward pass in the channels-last layout.

    A 1 x 1 convolution with a stride, on fewer than 8 channels, writes outside its memory there. FastViT and RepVGG
    begin with one.
    """
    return any(
        isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1) != one.stride and one.in_channels < 8
        for one in network.modules()
    )


def backbone_digest(network: Network) -> str:
    """SHA-256 of the backbone's tensors: equal digests give equal features."""
    digest, head = hashlib.sha256(), head_prefix(network)
    for name, tensor in network.state_dict().items():
        if not name.startswith(head) and not name.endswith("num_batches_tracked"):  # not used by the network
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def fuse_conv_bn(network: Network, image: Tensor) -> Network:
    """A copy for inference: BatchNorm is fused into the convolution before it, in the fastest memory layout.

    Which BatchNorm follows which convolution is seen in a pass of `image` (1, 3, H, W): its input is that layer's very
    output. The outputs are equal except for rounding: where a convolution's output is used elsewhere too, both stay.
    https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html
    """
    # Weights that are copied in inference mode can't take part in gradients, which some explanations need.
    with torch.inference_mode(False), torch.no_grad():
        network = copy.deepcopy(network).eval().requires_grad_(False)
        pairs, expected = _consecutive(network, image)
        fused = _fused(network, pairs)
        if not _is_close(fused(image), expected):
            fused = _fused(network, [pair for pair in pairs if _is_close(_fused(network, [pair])(image), expected)])
        return fused.to(memory_format=fastest_layout(image.device))


def _is_close(logits: Tensor, expected: Tensor) -> bool:
    return torch.allclose(logits, expected, rtol=1e-3, atol=1e-4)


def _fused(network: Network, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> Network:
    fused, names = copy.deepcopy(network), {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        fused.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        # timm's BatchNormAct2d is the activation too.
        parts = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        fused.set_submodule(names[norm], nn.Sequential(*parts))
    return fused


def _consecutive(network: Network, image: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Convolutions with the BatchNorm that follows each of them, each used once; and the logits of the image."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by identity; the tensor is kept, or its identity is reused
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[nn.Module] = Counter()

    def after_convolution(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        outputs[id(output)] = module, output

    def before_norm(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if (found := outputs.get(id(inputs[0]))) is not None:
            pairs.append((found[0], module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
    logits = network(image)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1], logits


# ---------------------------------------------------------------------------------------------------------------------
# Sizes


def count_parameters(module: nn.Module, *, trainable: bool) -> int:
    """The number of trainable weights, or of all."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def count_all_parameters(architecture: str, class_count: int) -> int:
    """The number of weights of an architecture, without allocating them."""
    with torch.device("meta"):
        return count_parameters(create_network(architecture, class_count), trainable=False)


@functools.cache
def outline(architecture: str) -> Network:
    """A network without memory for its weights, to read layers and shapes from; shared, so it must not be changed."""
    with torch.device("meta"):
        return create_network(architecture, 2)


def feature_count(architecture: str) -> int:
    """The number of features, the head's inputs."""
    return head_of(outline(architecture)).in_features


def pooling(architecture: str) -> str:
    """timm's name for how a network makes features of its feature map: "avg" is the mean, "token" the class token."""
    name = getattr(outline(architecture), "global_pool", None)
    return name if isinstance(name, str) else "avg"
