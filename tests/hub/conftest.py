"""A client of its own for every test, a Hub on this computer, and a model folder."""

import json
import socket

import huggingface_hub
import pytest
import torch
from hub_helpers import CONFIG, TOKEN, point_client_at, short_timeouts
from huggingface_hub import constants
from loopback_hub import FaultyLine, LoopbackHub
from safetensors.torch import save_file

from antbee.hub.card import model_card


@pytest.fixture(autouse=True)
def own_client(tmp_path, monkeypatch):
    """The client, logged in, with a cache of this test's own, and with no Hub to reach yet.

    It reads its environment once, at import, into `constants`, where it looks the values up from then on.
    """
    home = tmp_path / "home"
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_OIDC_RESOURCE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(home / "harnesses.json"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()  # whoever had one before may have set its time-out
    with socket.create_server(("127.0.0.1", 0)) as closed:
        point_client_at(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
    yield
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def running_server(tmp_path_factory):
    """The server that the tests share; each starts anew with an empty Hub."""
    with LoopbackHub(tmp_path_factory.mktemp("server") / "unused") as running:
        yield running


@pytest.fixture
def server(running_server, tmp_path, monkeypatch):
    """A Hub whose large files travel by git-LFS."""
    running_server.start_anew(tmp_path / "server")
    point_client_at(monkeypatch, running_server.url)
    return running_server


@pytest.fixture(params=["lfs", "xet"])
def either_server(request, running_server, tmp_path, monkeypatch):
    """A Hub whose large files travel one way or the other; xet depends on an undocumented scheme of hf_xet."""
    if request.param == "xet":
        pytest.importorskip("hf_xet")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    running_server.start_anew(tmp_path / "server", xet=request.param == "xet")
    point_client_at(monkeypatch, running_server.url)
    return running_server


@pytest.fixture
def model_folder(tmp_path):
    """A model folder made by hand, its weights large enough (6 MB) to travel as a large file."""
    folder = tmp_path / "model"
    (folder / "figures").mkdir(parents=True)
    weights = {"conv1.weight": torch.arange(1_500_000, dtype=torch.float32), "fc.bias": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"features": torch.eye(4)}, folder / "neighbours.safetensors")
    (folder / "history.json").write_text("[]")
    (folder / "README.md").write_text(model_card(CONFIG))
    for name in ("batch", "curves", "confusion"):
        (folder / "figures" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n\0" + name.encode())
    return folder


# Every fault at every request, as long as it takes in life: tests/endurance/hub_faults.py


@pytest.fixture
def line(server, monkeypatch):
    """A line to the Hub, for a client with short time-outs and no pauses between its retries."""
    line, threshold = FaultyLine(server), server.lfs_threshold
    server.url, server.lfs_threshold = line.url, 1000
    point_client_at(monkeypatch, line.url)
    short_timeouts(monkeypatch)
    yield line
    line.close()
    server.url, server.lfs_threshold = f"http://{line.host}", threshold
