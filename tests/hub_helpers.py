"""What the tests of antbee.hub share: the client pointed at a Hub on this computer, folders, errors."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from antbee import hub
from antbee.hub import client
from antbee.hub.card import model_card

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "hf_test"
CONFIG = {
    "architecture": "resnet18",
    "num_classes": 2,
    "label_names": ["ants", "bees"],
    "antbee": {"format": 1, "mode": "finetune"},
}
CHANGED = ("model.safetensors", "config.json")


def point_client_at(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def short_timeouts(monkeypatch):
    """A client that waits a fifth of a second for an answer, and not at all before it tries again."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "UPLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def uploaded_text(repository, path, server):
    return (server.blobs / repository.head.files[path].sha256).read_text("utf-8")


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complaint(call, *arguments, **options):
    """The text of the HubError that a call ends in: one line, without the token, as is what caused it."""
    with pytest.raises(hub.HubError) as raised:
        call(*arguments, **options)
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    causes, error = [], raised.value
    while error is not None:
        assert error not in causes, "an error that caused itself"
        assert TOKEN not in str(error)
        causes.append(error)
        error = error.__cause__ or error.__context__
    return text


def unchanged(files, old):
    return {path for path, stored in files.items() if stored == old[path]}


def small_model(folder, number):
    """A model folder that is sent in no time, its large file large for this Hub."""
    folder.mkdir()
    save_file({"fc.bias": torch.full((1000,), float(number))}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"number": number}))
    (folder / "README.md").write_text(model_card(CONFIG))
    return folder


def push_script(monkeypatch, *arguments):
    """Runs scripts/push.py in this process."""
    monkeypatch.setattr(sys, "argv", ["push.py", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(ROOT / "scripts" / "push.py"), run_name="__main__")
