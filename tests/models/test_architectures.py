"""timm's networks by name."""

import pytest

from antbee.models.architectures import preprocessing_of, published, split_tag, takes_any_size
from antbee.models.tensors import WeightsError


def test_the_default_weights_of_torchvisions_resnets_are_torchvisions():
    assert published("resnet50")["tag"] == "tv_in1k"
    assert published("convnext_atto")["tag"] == "d2_in1k"
    assert split_tag("resnet50.a1_in1k") == ("resnet50", "a1_in1k")


def test_preprocessing_is_the_weights_own_and_an_unusual_one_is_refused():
    assert preprocessing_of(published("resnet18")).interpolation == "bilinear"
    assert preprocessing_of(published("tf_efficientnet_lite0"), 128).crop == 128
    with pytest.raises(WeightsError, match="resized by nearest"):
        preprocessing_of({**published("resnet18"), "interpolation": "nearest"})


def test_convolutional_networks_take_images_of_any_size():
    assert takes_any_size("resnet18")
    assert not takes_any_size("test_vit")
