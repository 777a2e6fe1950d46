"""A Space: its files, its one commit, and that it runs."""

import os
import socket
import subprocess
import sys
import time

import gradio_client
import huggingface_hub
import pytest
from hub_helpers import ROOT, complaint, push_script

from antbee import Classifier, hub
from antbee.data.drawn import draw
from antbee.hub.card import model_card
from antbee.hub.space import MODELS_VARIABLE, space_files
from antbee.models.backbone import create_network
from antbee.models.config import ClassifierConfig

FILES = {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"print()\n"}


def test_a_space_is_one_commit_and_is_told_which_models_to_show(server):
    address = hub.push_space(FILES, "tester/page", ["tester/a", "tester/b"])
    space = server.repositories["space", "tester/page"]
    assert address == f"{server.url}/spaces/tester/page"
    assert space.sdk == "gradio"
    assert space.variables == {MODELS_VARIABLE: "tester/a tester/b"}
    assert space.head.files.keys() == FILES.keys()
    assert len(space.commits) == 2


def test_a_space_that_is_there_already_gets_no_commit_and_no_restart_but_what_changed(server):
    hub.push_space(FILES, "tester/page", ["tester/a"])
    space = server.repositories["space", "tester/page"]
    server.requests.clear()
    hub.push_space(FILES, "tester/page", ["tester/a"])
    assert len(space.commits) == 2
    assert not [path for method, path, _ in server.requests if method == "POST" and "variables" in path]
    hub.push_space(FILES | {"app.py": b"print(1)\n"}, "tester/page", ["tester/b"])
    assert len(space.commits) == 3
    assert space.variables == {MODELS_VARIABLE: "tester/b"}


def test_a_private_push_never_goes_to_a_public_space(server):
    server.add_repository("tester/page", "space", sdk="gradio")
    assert "The space 'tester/page' exists and is public" in complaint(
        hub.push_space, FILES, "tester/page", ["tester/a"], private=True
    )
    hub.push_space(FILES, "tester/hidden", ["tester/a"], private=True)
    assert server.repositories["space", "tester/hidden"].private


def test_a_space_that_breaks_off_anywhere_is_completed_by_the_next_push(server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for broken in range(20):
        server.repositories.clear()
        server.requests.clear()
        server.fault, server.broken = 418, broken
        try:
            hub.push_space(FILES, "tester/page", ["tester/a"])
        except hub.HubError:
            pass
        finally:
            server.fault = None
        if len(server.requests) <= broken:
            break
        hub.push_space(FILES, "tester/page", ["tester/a"])
        space = server.repositories["space", "tester/page"]
        assert space.head.files.keys() == FILES.keys()
        assert space.variables == {MODELS_VARIABLE: "tester/a"}
    assert broken >= 4


def test_what_a_space_is_given_starts_by_itself_and_answers_as_the_model_does(server, tmp_path, monkeypatch):
    """All that the Space's machine has: its files, its variable, the Hub, and the packages of requirements.txt."""
    config = ClassifierConfig("resnet18", ("ants", "bees"), mode="frozen")
    classifier = Classifier(create_network("resnet18", 2), config)
    classifier.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(model_card(config.to_json()))
    push_script(monkeypatch, tmp_path / "model", "tester/bugs", "--space")
    space = server.repositories["space", "tester/bugs"]
    machine = tmp_path / "machine"
    for path, stored in space.head.files.items():
        (machine / path).parent.mkdir(parents=True, exist_ok=True)
        (machine / path).write_bytes((server.blobs / stored.sha256).read_bytes())
    metadata = huggingface_hub.RepoCard.load(machine / "README.md", repo_type="space").data
    port = str(free_port())
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "empty"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"GRADIO_SERVER_PORT": port, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"} | space.variables
    page = subprocess.Popen(
        [sys.executable, metadata.app_file], cwd=machine, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = next((line.split()[1] for line in page.stdout if line.startswith("page ")), None)
        photo = tmp_path / "photo.png"
        draw("bees", 1, 320).save(photo)
        assert address == f"http://127.0.0.1:{port}/"
        client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        answers = client.predict(gradio_client.handle_file(photo), api_name="/predict")
    finally:
        page.terminate()
        page.communicate(timeout=20)
    assert answers.keys() == {"frozen"}
    assert answers["frozen"]["probabilities"] == pytest.approx(classifier.predict(photo).probabilities, abs=1e-6)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_a_space_gets_the_page_its_requirements_and_a_card_that_says_how_to_run_it():
    files = space_files("tester/bugs", ["tester/bugs"])
    code = [path for pattern in ("*.py", "*.jinja") for path in (ROOT / "antbee").rglob(pattern)]
    package = {path.relative_to(ROOT).as_posix() for path in code}
    assert files.keys() == {"README.md", "app.py", "requirements.txt"} | package
    assert {"antbee/__init__.py", "antbee/hub/card.md.jinja", "antbee/ui/__init__.py", "antbee/ui/page.py"} <= package
    metadata = huggingface_hub.RepoCard(files["README.md"].decode()).data.to_dict()
    project = huggingface_hub.RepoCard((ROOT / "README.md").read_text("utf-8")).data.to_dict()
    for key in ("sdk", "sdk_version", "python_version", "app_file", "license"):
        assert metadata[key] == project[key]
    assert metadata["models"] == ["tester/bugs"]
    assert len(metadata["short_description"]) <= 60, "the Hub refuses longer ones"
