"""Which regions of an image speak for a class, as a map over the network's input.

Where the head follows the mean of the feature map, the class activation map is exact: its mean plus the bias is the
logit. Elsewhere the feature map is weighted by its gradient, which is an approximation.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from antbee.models.backbone import Network, feature_map, head_of, pooled


def is_exact(network: Network, image: Tensor) -> bool:
    """Whether the head follows the mean of the feature map, by the numbers of one image (1, 3, H, W)."""
    with torch.inference_mode():
        maps = feature_map(network, image)
        features = pooled(network, maps)
        if maps.ndim != 4 or maps.shape[:2] != features.shape:
            return False
        return torch.allclose(maps.mean((2, 3)), features, rtol=1e-3, atol=1e-4)


def class_activation_map(head: nn.Linear, maps: Tensor, class_index: int) -> Tensor:
    """The class activation map of a class: feature maps (..., C, h, w) -> (..., h, w), in logits.

    The mean of the map plus the head's bias is the logit of the class. Zhou et al. 2016, "Learning Deep Features for
    Discriminative Localization", arXiv 1512.04150.
    """
    return torch.einsum("c,...chw->...hw", head.weight[class_index], maps)


def gradient_weighted_maps(network: Network, image: Tensor, class_indices: Sequence[int]) -> list[Tensor]:
    """A map for each class: the feature map (C, h, w), each channel weighted by the mean gradient of the logit to it.

    float32 (h, w) on the CPU, not negative. Selvaraju et al. 2017, "Grad-CAM", arXiv 1610.02391. In a vision
    transformer the feature map are the patch tokens that enter the last block's attention, on their grid: the head may
    see none of those that leave it.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # the graph begins here
        return kept[-1]

    blocks = getattr(network, "blocks", None)
    layer = getattr(blocks[-1], "norm1", None) if isinstance(blocks, nn.Sequential | nn.ModuleList) else None
    with torch.enable_grad():
        if isinstance(layer, nn.Module):
            hook = layer.register_forward_hook(keep)
            try:
                logits = network(image)[0]
            finally:
                hook.remove()
        else:
            maps = feature_map(network, image)
            logits = head_of(network)(pooled(network, keep(network, (), maps)))[0]
        (activation,) = kept
        gradients = [torch.autograd.grad(logits[index], activation, retain_graph=True)[0] for index in class_indices]
    positions = on_grid(network, activation.detach())
    weighted = [(on_grid(network, gradient).mean((1, 2), keepdim=True) * positions).sum(0) for gradient in gradients]
    return [one.relu().float().cpu() for one in weighted]


def on_grid(network: Network, values: Tensor) -> Tensor:
    """A feature map of one image as (C, h, w): tokens (1, N, C) on their grid, or (1, h, w, C), channels first."""
    if values.ndim == 3:
        tokens = values[0, getattr(network, "num_prefix_tokens", 0) :]  # class and register tokens have no place
        height, width = getattr(network.patch_embed, "grid_size", (0, 0))
        if height * width != len(tokens):
            height = width = math.isqrt(len(tokens))
        return tokens.reshape(height, width, -1).permute(2, 0, 1)
    is_channels_last = values.shape[1] == values.shape[2]  # square images have square maps
    return values[0].permute(2, 0, 1) if is_channels_last else values[0]
