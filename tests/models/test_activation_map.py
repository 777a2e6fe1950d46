"""Class activation maps, exact ones and those weighted by gradients."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from antbee.models.activation_map import class_activation_map, gradient_weighted_maps, is_exact
from antbee.models.architectures import published
from antbee.models.backbone import create_network, feature_map, head_of


def network_of(name):
    torch.manual_seed(0)
    return create_network(name, 3).requires_grad_(False)


def image_for(name):
    side = published(name)["input_size"][-1]
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet", "test_byobnet", "test_nfnet"])
def test_the_mean_of_an_exact_map_plus_the_bias_is_the_logit(name):
    network, image = network_of(name), image_for(name)
    assert is_exact(network, image)
    maps, logits, head = feature_map(network, image)[0], network(image)[0], head_of(network)
    for index in range(3):
        activation_map = class_activation_map(head, maps, index)
        assert activation_map.shape == maps.shape[1:]
        torch.testing.assert_close(activation_map.mean() + head.bias[index], logits[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_vit2", "mobilenetv3_small_050", "test_mambaout"])
def test_a_map_is_not_exact_where_more_than_a_mean_lies_before_the_head(name):
    assert not is_exact(network_of(name), image_for(name))


@pytest.mark.parametrize("name", ["test_convnext", "mobilenetv3_small_050"])
def test_gradient_weighted_maps_are_those_of_captum(name):
    network, image = network_of(name), image_for(name)
    maps = gradient_weighted_maps(network, image, [0, 2])
    layer = {"test_convnext": "norm_pre", "mobilenetv3_small_050": "blocks"}[name]
    for index, one in zip([0, 2], maps, strict=True):
        network.requires_grad_(True)
        expected = LayerGradCam(network, network.get_submodule(layer)).attribute(image, index)[0, 0].relu()
        torch.testing.assert_close(one, expected.detach(), rtol=1e-3, atol=1e-6)


class OnGrid(nn.Module):
    """Tokens as a feature map and back, for captum, which takes the second dimension for channels."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.grid = norm, nn.Identity()

    def forward(self, tokens):
        normed = self.norm(tokens)
        grid = self.grid(normed[:, 1:].transpose(1, 2).reshape(1, -1, 10, 10))
        return torch.cat([normed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])  # pooled by the class token, by the mean of the tokens
def test_tokens_are_laid_on_their_grid_without_the_class_token(name):
    network, image = network_of(name), image_for(name)
    index = 1 if name == "test_vit" else 2  # for which some places speak, with these random weights
    (found,) = gradient_weighted_maps(network, image, [index])
    network.blocks[-1].norm1 = OnGrid(network.blocks[-1].norm1)
    network.requires_grad_(True)
    expected = LayerGradCam(network, network.blocks[-1].norm1.grid).attribute(image, index)[0, 0].relu()
    assert found.shape == (10, 10)
    assert found.max() > 0
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-6)
