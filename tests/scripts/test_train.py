"""scripts/train.py: its flags are the arguments of antbee.train, and it ends as every command does."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

import antbee
from antbee.training.context import Settings

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train.py"


@pytest.fixture
def script(script_module):
    """The script as a module."""
    return script_module(SCRIPT)


def test_flags_have_the_names_and_defaults_of_the_arguments_of_train(script):
    flags = vars(script.parse_arguments([]))
    arguments = inspect.signature(antbee.train).parameters
    settings = Settings.checked(**{name: value for name, value in flags.items() if name not in ("data", "restore")})
    assert flags.keys() - {"restore"} == arguments.keys() - {"log"}
    assert settings == Settings.checked()
    for name in Settings.model_fields.keys() - {"output"}:
        assert arguments[name].default == getattr(settings, name), name


def literals(annotation):
    """The values of the literal types in an annotation."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return [value for part in get_args(annotation) for value in literals(part)]


def test_flags_have_the_choices_of_the_settings(script):
    choices = {name: literals(field.annotation) for name, field in Settings.model_fields.items()}
    assert {name for name, values in choices.items() if values} == {
        "fit",
        "mode",
        "recipe",
        "select",
        "precision",
        "replace",
        "track",
    }
    for name, values in choices.items():
        for value in values:
            assert getattr(script.parse_arguments([f"--{name}", value]), name) == value


def test_arch_is_another_name_of_the_flag_backbone(script):
    assert script.parse_arguments(["--arch", "resnet34"]).backbone == "resnet34"


def test_a_process_that_can_not_use_its_data_ends_with_one_line_and_status_2(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, SCRIPT, "--data", "/nowhere", "--weights", "random", "--output", tmp_path / "outputs"]
    ended = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "/nowhere is not there" in line


@pytest.mark.parametrize(
    ("words", "remedy"), [(["--epochs", "0"], "epochs is 0"), (["--restore", "yesterday"], "no version yesterday")]
)
def test_what_can_not_be_used_ends_with_one_line_and_status_2(command, error_of, words, remedy, tmp_path):
    status, error = error_of(command, "train", "--output", tmp_path / "outputs", *words)
    assert status == 2
    assert remedy in error


@pytest.mark.parametrize("words", [["--mode", "all"], ["--lr", "x"], ["--x"]])
def test_a_wrong_flag_ends_with_status_2_and_the_usage(script, words, capsys):
    with pytest.raises(SystemExit) as ended:
        script.parse_arguments(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
