"""Patterns list the networks of timm that antbee can train, and say what they leave out."""

import pytest

from antbee.models import search
from antbee.models.architectures import published
from antbee.models.search import matching
from antbee.models.tensors import WeightsError


def test_a_pattern_lists_what_fits_with_parameters_and_image_size_up_to_a_number(monkeypatch):
    (line,) = str(matching("test_resnet")).splitlines()
    assert line.split() == ["test_resnet", "0.4", "million", "parameters", "160", "pixels"]
    monkeypatch.setattr(search, "MOST_LISTED", 2)
    found = matching("resnet??")
    assert [architecture.name for architecture in found.usable] == ["resnet18", "resnet26"]
    assert str(found).splitlines()[2:] == [f"and {found.rest} more: give a narrower pattern"]
    with pytest.raises(WeightsError, match="no backbone fits 'nothing\\*'"):
        matching("nothing*")


@pytest.mark.parametrize("name", ["repvit_m0_9", "dla46_c", "mobilenetv5_300m_enc"])  # two heads, a convolution, none
def test_networks_that_can_not_be_trained_are_left_out_with_the_reason(name):
    found = matching(name)
    assert (found.usable, found.rest) == ((), 0)
    assert str(found) == "left out: 1 network without a single linear layer at the end"


def test_networks_whose_images_can_not_be_made_are_left_out_with_the_reason(monkeypatch):
    cfg = {**published("test_resnet"), "crop_mode": "naflex"}
    monkeypatch.setattr(search, "published", lambda *_: cfg)
    assert str(matching("test_resnet")).startswith("left out: 1 network for other images than antbee's")


def test_a_pattern_with_a_dot_lists_the_tags_of_a_networks_weights():
    found = matching("resnet18.*")
    assert {architecture.name for architecture in found.usable} >= {"resnet18.tv_in1k", "resnet18.a1_in1k"}
    sizes = {architecture.name: architecture.image_size for architecture in found.usable}
    assert sizes["resnet18.a3_in1k"] == 160
