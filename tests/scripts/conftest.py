"""What the tests of command lines share."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from antbee import errors


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs a script of scripts/ in this process, from another folder."""

    def run(name: str, *argv: Any) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
        errors.run(import_module(f"scripts.{name}").main)

    return run
