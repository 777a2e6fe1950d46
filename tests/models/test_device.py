"""The device and the precision of computations."""

import pytest
import torch

from antbee.models.device import PRECISIONS, DeviceError, autocast, choose_device, choose_precision

# ---- the device ------------------------------------------------------------------------------------------------------


def test_auto_is_the_cpu_where_there_is_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert choose_device("auto") == torch.device("cpu")


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert choose_device("auto") == torch.device("mps")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "abacus", "", "cpu:abc"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(monkeypatch, name):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    with pytest.raises(DeviceError, match=f"no device '{name}'.*cpu"):
        choose_device(name)


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({}, "float32"),
        ({"avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_that_has_instructions_for_it_alone(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert choose_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_named_is_the_precision_taken(name):
    assert choose_precision(name, torch.device("cpu")) == name


def test_auto_is_float32_on_devices_that_are_not_known_to_be_faster():
    assert choose_precision("auto", torch.device("mps")) == "float32"


def test_an_unknown_precision_is_refused_with_the_accepted_ones():
    with pytest.raises(DeviceError, match="no precision 'half': expected auto, float32 or bfloat16"):
        choose_precision("half", torch.device("cpu"))


def test_only_bfloat16_rounds_the_inputs():
    layer = torch.nn.Linear(64, 64, bias=False)
    inputs = torch.rand(4, 64)
    with torch.no_grad():
        exact = layer(inputs)
        with autocast("float32", torch.device("cpu")):
            assert torch.equal(layer(inputs), exact)
        with autocast("bfloat16", torch.device("cpu")):
            rounded = layer(inputs)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
