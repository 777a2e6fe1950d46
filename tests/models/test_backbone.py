"""Networks as a backbone and a head: building, freezing, fusing, heads."""

import pytest
import torch

from antbee.models.architectures import published
from antbee.models.backbone import (
    apply_temperature,
    backbone_digest,
    check_image_size,
    count_all_parameters,
    count_parameters,
    create_network,
    feature_count,
    feature_map,
    freeze_backbone,
    fuse_conv_bn,
    has_batch_norm,
    head_of,
    head_prefix,
    network_with,
    new_head,
    pooled,
    pooling,
    unfreeze,
    with_head,
)
from antbee.models.tensors import WeightsError

# One of each kind: BatchNorm and convolutions, without BatchNorm, a class token, mean of tokens, a layer after pooling,
# convolutions and attention, channels last.
KINDS = ("test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "test_vit", "test_vit2", "test_maxvit")


def network_of(name, class_count=3, seed=0, **options):
    """A network of random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return create_network(name, class_count, **options)


def images_for(name, count=2):
    side = published(name)["input_size"][-1]
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def complaint(call, *arguments, **options):
    with pytest.raises(WeightsError) as raised:
        call(*arguments, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize("name", [*KINDS, "test_mambaout", "mobilenetv3_small_050"])
def test_feature_map_pooling_and_head_together_are_the_network(name):
    network, images = network_of(name), images_for(name)
    with torch.inference_mode():
        features = pooled(network, feature_map(network, images))
        assert features.shape == (2, feature_count(name))
        assert torch.equal(head_of(network)(features), network(images))


@pytest.mark.parametrize("name", KINDS)
def test_a_fused_network_has_equal_outputs_and_fewer_batch_norms(name):
    network, images = network_of(name), images_for(name)
    network.train()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # its initial statistics are the identity
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
        network(images)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fused = fuse_conv_bn(network, images[:1])
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), network.eval()(images), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(head_of(fused)(pooled(fused, feature_map(fused, images))), fused(images))
    counts = [sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in one.modules()) for one in (network, fused)]
    assert counts[1] <= counts[0] // 2
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_every_batch_norm_of_a_resnet_is_fused():
    fused = fuse_conv_bn(network_of("test_resnet"), images_for("test_resnet", 1))
    assert not has_batch_norm(fused)


class Shared(torch.nn.Module):
    """A convolution whose output goes into BatchNorm and elsewhere too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
        torch.nn.init.constant_(self.norm.weight, 3.0)

    def get_classifier(self):
        return self.head

    def forward(self, images):
        x = self.conv(images)
        return self.head((x + self.norm(x)).mean((2, 3)))


def test_what_would_not_be_equal_is_not_fused():
    network, image = Shared().eval(), torch.rand(1, 3, 8, 8)
    fused = fuse_conv_bn(network, image)
    assert has_batch_norm(fused)
    with torch.inference_mode():
        torch.testing.assert_close(fused(image), network(image))


@pytest.mark.parametrize("name", KINDS)
def test_freezing_leaves_only_the_head_trainable(name):
    network = network_of(name)
    freeze_backbone(network)
    trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trainable == [f"{head_prefix(network)}weight", f"{head_prefix(network)}bias"]
    assert count_parameters(network, trainable=True) == 3 * (feature_count(name) + 1)
    unfreeze(network)
    assert count_parameters(network, trainable=True) == count_parameters(network, trainable=False)
    assert count_parameters(network, trainable=False) == count_all_parameters(name, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "unknown backbone 'resnet19': expected the name of a network of timm, such as resnet18"),
        ("../../etc/passwd", "unknown backbone"),
        ("repvit_m0_9", "repvit_m0_9 does not end in one linear layer"),
    ],
)
def test_what_is_no_network_with_one_linear_head_is_refused(name, words):
    assert words in complaint(create_network, name, 2)


def test_a_network_built_for_one_size_can_be_built_for_another_and_others_take_it_as_they_are():
    assert network_of("test_vit", image_size=96)(torch.rand(1, 3, 96, 96)).shape == (1, 3)
    assert network_of("test_resnet", image_size=96)(torch.rand(1, 3, 96, 96)).shape == (1, 3)


@pytest.mark.parametrize("name", [*KINDS, "test_vit_relpos"])  # the last has tensors that are not among its weights
def test_a_network_is_rebuilt_from_its_weights(name):
    network = network_of(name)
    other = network_with(name, 3, network.state_dict(), "the weights").eval()
    with torch.inference_mode():
        assert torch.equal(other(images_for(name)), network(images_for(name)))
    assert backbone_digest(other) == backbone_digest(network) != backbone_digest(network_of(name, seed=1))


@pytest.mark.parametrize(("name", "expected"), [("resnet18", "avg"), ("test_vit", "token"), ("test_vit2", "avg")])
def test_the_pooling_has_timms_name(name, expected):
    assert pooling(name) == expected


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


@pytest.mark.parametrize("name", KINDS)
def test_a_network_with_another_head_shares_the_backbone_and_does_not_change_the_first(name):
    network, images = network_of(name, 5), images_for(name)
    own_head, head, prefix = head_of(network), new_head(feature_count(name), 3, seed=1), head_prefix(network)
    other = with_head(network, head)
    assert head_of(network) is own_head
    assert head_of(other) is head
    assert list(other.state_dict()) == list(network.state_dict())
    for (name, one), two in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert (one.data_ptr() == two.data_ptr()) == (not name.startswith(prefix)), name
    with torch.inference_mode():
        features = pooled(network, feature_map(network, images))
        assert torch.equal(other(images), head(features))
        assert torch.equal(network(images), own_head(features))


def test_a_head_with_another_number_of_inputs_is_refused():
    words = complaint(with_head, network_of("test_resnet", 5), new_head(2048, 3, seed=1))
    assert "a head on 2048 features doesn't fit a backbone of 96" in words


def test_a_temperature_divides_the_logits():
    head, features = new_head(16, 3, seed=0), torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    before = head(features).detach()
    apply_temperature(head, 2.5)
    torch.testing.assert_close(head(features).detach(), before / 2.5)


@pytest.mark.parametrize(
    ("architecture", "side", "advice"),
    [
        ("vit_small_patch14_dinov2", 225, "give a multiple of 14, such as 224 or 238"),  # one pixel would be left out
        ("vit_small_patch16_dinov3", 225, "give a multiple of 16, such as 224 or 240"),  # fails at the first image
        ("vit_tiny_patch16_384", 15, "give a multiple of 16, such as 16"),
    ],
)
def test_an_image_size_that_patches_do_not_divide_is_refused_with_the_nearest_that_they_do(architecture, side, advice):
    with pytest.raises(WeightsError, match=f"does not take images of {side} pixels: {advice}$"):
        check_image_size(architecture, side)


@pytest.mark.parametrize(("architecture", "side"), [("test_resnet", 97), ("test_vit", 96), ("test_convnext", 50)])
def test_convolutions_take_any_image_size_and_patches_their_multiples(architecture, side):
    check_image_size(architecture, side)
