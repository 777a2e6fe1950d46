"""Push and pull, with the real Hub client against a Hub on this computer."""

import json
import logging
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import gradio_client
import httpx2
import huggingface_hub
import pytest
import torch
from filelock import FileLock
from huggingface_hub import constants
from huggingface_hub.utils import _http
from loopback_hub import FAULTS, FaultyLine, LoopbackHub
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file
from torchvision.models import get_model

from antbee import Classifier, cards, hub, ui
from antbee.classifier import ClassifierConfig
from antbee.drawn import draw
from antbee.images import Preprocessing, open_photo, pixels_of
from antbee.model import empty_network

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "hf_test"
CONFIG = {
    "architecture": "resnet18",
    "num_classes": 2,
    "label_names": ["ants", "bees"],
    "antbee": {"format": 1, "mode": "finetune"},
}


# ---- a client of its own, a Hub, a model folder ----------------------------------------------------------------------


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
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        point_client_at(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
    yield
    huggingface_hub.close_session()


def point_client_at(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


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
    (folder / "README.md").write_text(cards.model_card(CONFIG))
    for name in ("batch", "curves", "confusion"):
        (folder / "figures" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n\0" + name.encode())
    return folder


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


# ---- push and pull ---------------------------------------------------------------------------------------------------


def test_what_is_pushed_comes_back_byte_for_byte(either_server, model_folder):
    before = content(model_folder)
    address = hub.push(model_folder, "tester/bugs")
    repository = either_server.repositories["model", "tester/bugs"]
    pulled = content(hub.pull("tester/bugs"))

    assert address == f"{either_server.url}/tester/bugs/commit/{repository.head.oid}"
    assert repository.head.files["model.safetensors"].lfs
    assert bool(repository.head.files["model.safetensors"].xet) == either_server.xet
    assert repository.head.files.keys() == before.keys()
    assert pulled == {path: before[path] for path in hub.PULLED_FILES}
    assert content(model_folder) == before, "a push leaves the folder as it is"


def test_the_uploaded_card_names_its_repository_everywhere(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    card = uploaded_text(server.repositories["model", "tester/bugs"], "README.md", server)
    assert card.count("tester/bugs") == (model_folder / "README.md").read_text().count(cards.PLACEHOLDER) == 3
    assert cards.PLACEHOLDER not in card


def test_a_push_is_one_commit_and_an_unchanged_folder_none(either_server, model_folder):
    first = hub.push(model_folder, "tester/bugs", commit_message="The first bugs")
    commits = either_server.repositories["model", "tester/bugs"].commits
    assert [commit.title for commit in commits] == ["initial commit", "The first bugs"]

    assert hub.push(model_folder, "tester/bugs") == first
    assert len(commits) == 2

    (model_folder / "history.json").write_text("[1]")
    assert hub.push(model_folder, "tester/bugs") != first
    assert len(commits) == 3


def test_stray_files_of_the_folder_are_not_published(server, model_folder):
    (model_folder / "checkpoint.pt").write_bytes(b"everything")
    (model_folder / ".env").write_text("HF_TOKEN=hf_test")
    (model_folder / "figures" / "notes.txt").write_text("private")
    hub.push(model_folder, "tester/bugs")
    uploaded = server.repositories["model", "tester/bugs"].head.files
    assert list(uploaded) == [path for path, _ in hub.repository_files(model_folder)]
    assert not {"checkpoint.pt", ".env", "figures/notes.txt"} & uploaded.keys()


def test_only_safetensors_and_json_are_ever_downloaded(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    repository = server.repositories["model", "tester/bugs"]
    unwanted = (
        "pytorch_model.bin",
        "evil.bin",
        "modeling.py",
        "figures/page.html",
        "other/config.json",
        "a.safetensors.py",
    )
    for path in unwanted:
        server.add_file(repository, path, b"import os")
    assert content(hub.pull("tester/bugs")).keys() == set(hub.PULLED_FILES)
    fetched = [path for _, path, _ in server.requests if "/resolve/" in path]
    assert fetched
    assert all(path.endswith((".safetensors", ".json")) for path in fetched)


def test_files_to_push_are_listed_by_path_with_their_sizes(model_folder):
    files = hub.repository_files(model_folder)
    assert files == sorted((path, len(data)) for path, data in content(model_folder).items())


def test_a_new_repository_is_private_if_asked(server, model_folder):
    hub.push(model_folder, "tester/secret", private=True)
    hub.push(model_folder, "tester/open")
    assert server.repositories["model", "tester/secret"].private
    assert not server.repositories["model", "tester/open"].private


def test_a_private_push_never_goes_to_a_public_repository(server, model_folder):
    repository = server.add_repository("tester/open")
    assert "public" in complaint(hub.push, model_folder, "tester/open", private=True)
    assert len(repository.commits) == 1


def test_a_pull_request_leaves_main_as_it_is(either_server, model_folder):
    theirs = either_server.add_repository("other/bugs")
    address = hub.push(model_folder, "other/bugs", create_pr=True)
    assert address == f"{either_server.url}/other/bugs/discussions/1"
    assert theirs.head.files == {}
    assert "model.safetensors" in theirs.commit_at("refs/pr/1").files


def test_a_push_to_a_new_branch_creates_it_and_is_pulled_by_its_name(server, model_folder):
    hub.push(model_folder, "tester/bugs", revision="better/lighting")
    repository = server.repositories["model", "tester/bugs"]
    assert repository.head.files == {}
    hub.push(model_folder, "tester/bugs", revision="better/lighting")
    assert len(repository.commits) == 2
    pulled = hub.pull("tester/bugs", revision="better/lighting")
    assert pulled.name == repository.references["better/lighting"]


def test_a_pushed_model_is_loaded_back_by_its_name_with_equal_logits_and_shown(server, tmp_path):
    config = ClassifierConfig("resnet18", ("ants", "bees"), mode="frozen")
    classifier = Classifier(empty_network("resnet18", 2), config)
    classifier.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(cards.model_card(config.to_json()))
    hub.push(tmp_path / "model", "tester/bugs")
    photo = Image.effect_noise((300, 200), 64).convert("RGB")
    assert torch.equal(Classifier.from_pretrained("tester/bugs").logits([photo]), classifier.logits([photo]))
    (shown,) = ui.load_models(["tester/bugs"])
    assert shown.name == "frozen"
    assert "tester/bugs" in shown.card


def test_a_classifier_of_the_hub_can_be_had_at_a_revision_and_without_a_network(server, tmp_path, monkeypatch):
    config = ClassifierConfig("resnet18", ("ants", "bees"))
    for number, revision in enumerate(("main", "better")):
        torch.manual_seed(number)
        Classifier(empty_network("resnet18", 2), config).save_pretrained(tmp_path / revision)
        (tmp_path / revision / "README.md").write_text(cards.model_card(config.to_json()))
        hub.push(tmp_path / revision, "tester/bugs", revision=None if revision == "main" else revision)
    bias = {
        revision: Classifier.from_pretrained("tester/bugs", revision=revision, token=TOKEN).network.fc.bias
        for revision in ("main", "better")
    }
    assert not torch.equal(bias["main"], bias["better"])
    server.requests.clear()
    offline = Classifier.from_pretrained("tester/bugs", revision="better", local_files_only=True)
    assert torch.equal(offline.network.fc.bias, bias["better"])
    assert server.requests == []


def test_a_repository_that_antbee_did_not_make_is_loaded_where_it_is_a_plain_resnet(server, tmp_path):
    network = get_model("resnet18", num_classes=2).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    repository = server.add_repository("other/resnet")
    config = {"architecture": "resnet18", "label_names": ["cat", "dog"]}
    server.add_file(repository, "config.json", json.dumps(config).encode())
    server.add_file(repository, "model.safetensors", (tmp_path / "model.safetensors").read_bytes())
    server.add_file(repository, "pytorch_model.bin", b"a pickle")
    loaded = Classifier.from_pretrained("other/resnet")
    assert loaded.config == ClassifierConfig("resnet18", ("cat", "dog"))
    assert torch.equal(loaded.network.fc.weight, network.fc.weight)


# ---- broken off ------------------------------------------------------------------------------------------------------


def whole_push(server, model_folder):
    """The old model's files on the Hub, and how many requests a push of the new one takes there."""
    hub.push(model_folder, "tester/bugs")
    repository = server.repositories["model", "tester/bugs"]
    old = dict(repository.head.files)
    save_file({"fc.bias": torch.arange(1_500_000, dtype=torch.float32)}, model_folder / "model.safetensors")
    (model_folder / "config.json").write_text(json.dumps(CONFIG | {"num_features": 512}))
    return repository, old


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_push_that_breaks_off_anywhere_leaves_the_old_model_or_the_new_and_the_next_one_completes_it(
    server, model_folder, monkeypatch, answer_lost
):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's pauses between its tries
    repository, old = whole_push(server, model_folder)
    broken = 0
    while True:
        server.requests.clear()
        server.fault, server.broken, server.answer_lost = 418, broken, answer_lost
        try:
            hub.push(model_folder, "tester/bugs")
        except hub.HubError:
            pass
        finally:
            server.fault = None
        if len(server.requests) <= broken:  # it was done before the request that was to break
            break
        states = [commit.files for commit in repository.commits[2:]]
        assert all(files.keys() == old.keys() for files in states)
        assert repository.head.files == old or not set(CHANGED) & unchanged(repository.head.files, old)
        hub.push(model_folder, "tester/bugs")
        assert unchanged(repository.head.files, old) == old.keys() - set(CHANGED)
        repository.references["main"] = repository.commits[1].oid
        broken += 1
    assert broken >= 5


CHANGED = ("model.safetensors", "config.json")


@pytest.mark.parametrize(("revision", "create_pr"), [(None, False), ("better", False), (None, True)])
def test_what_an_earlier_model_left_on_the_hub_goes_in_the_commit_of_the_next_and_nothing_else_does(
    server, model_folder, revision, create_pr
):
    hub.push(model_folder, "tester/bugs")
    repository = server.repositories["model", "tester/bugs"]
    server.add_file(repository, "figures/mine.png", b"theirs")
    for name in ("neighbours.safetensors", "history.json", "figures/curves.png"):
        (model_folder / name).unlink()
    options = {"revision": revision, "create_pr": create_pr}
    address = hub.push(model_folder, "tester/bugs", **options)
    newest = repository.commit_at("refs/pr/1" if create_pr else revision or "main")
    assert newest.files.keys() == content(model_folder).keys() | {"figures/mine.png"}
    assert len(repository.commits) == 4
    if not create_pr:
        assert hub.push(model_folder, "tester/bugs", **options) == address
        assert len(repository.commits) == 4


def unchanged(files, old):
    return {path for path, stored in files.items() if stored == old[path]}


@pytest.mark.parametrize("place", ["preupload", "lfs/objects/batch", "_lfs/", "commit/main"])
def test_a_push_stopped_by_ctrl_c_leaves_the_old_model_whole(server, model_folder, monkeypatch, place):
    repository, old = whole_push(server, model_folder)
    send = httpx2.Client.send

    def stopped(client, request, **options):
        if place in str(request.url):
            raise KeyboardInterrupt
        return send(client, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(httpx2.Client, "send", stopped)
        with pytest.raises(KeyboardInterrupt):
            hub.push(model_folder, "tester/bugs")
    assert repository.head.files == old
    hub.push(model_folder, "tester/bugs")
    assert unchanged(repository.head.files, old) == old.keys() - set(CHANGED)


# ---- on a bad line ---------------------------------------------------------------------------------------------------
# Every fault at every request, as long as it takes in life: tests/endurance/hub_faults.py


@pytest.fixture
def line(server, monkeypatch):
    """A line to the Hub, for a client that is soon out of patience."""
    line, threshold = FaultyLine(server), server.lfs_threshold
    server.url, server.lfs_threshold = line.url, 1000
    point_client_at(monkeypatch, line.url)
    monkeypatch.setattr(hub, "SECONDS_OF_PATIENCE", 0.2)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's pauses between its tries
    yield line
    line.close()
    server.url, server.lfs_threshold = f"http://{line.host}", threshold


def small_model(folder, number):
    """A model folder that is sent in no time, its large file large for this Hub."""
    folder.mkdir()
    save_file({"fc.bias": torch.full((1000,), float(number))}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"number": number}))
    (folder / "README.md").write_text(cards.model_card(CONFIG))
    return folder


@pytest.mark.filterwarnings("ignore:.*downloaded earlier is used")
@pytest.mark.parametrize(
    ("fault", "lasting"), [(fault, index % 4 == 0) for index, fault in enumerate(FAULTS) if index % 2 == 0]
)
def test_whatever_happens_to_a_pull_it_gives_a_whole_model_or_one_sentence_and_the_next_one_heals_it(
    line, tmp_path, fault, lasting
):
    models = [small_model(tmp_path / f"model {number}", number) for number in (1, 2)]
    old, new = ({name: content(model)[name] for name in CHANGED} for model in models)
    hub.push(models[0], "tester/bugs")
    hub.pull("tester/bugs")
    hub.push(models[1], "tester/bugs")
    line.break_at(FAULTS.index(fault) % 6, fault, lasting=lasting)  # there are six requests
    start, text = time.monotonic(), ""
    try:
        assert content(hub.pull("tester/bugs")) in (old, new)
    except hub.HubError as error:
        text = str(error)
    assert len(text.splitlines()) <= 1
    assert TOKEN not in text
    assert time.monotonic() - start < 3
    assert line.met.is_set()
    line.heal()
    assert content(hub.pull("tester/bugs", local_files_only=True)) in (old, new)
    assert content(hub.pull("tester/bugs")) == new


@pytest.mark.parametrize("fault", FAULTS[1::2])  # endurance/hub_faults.py tries each at each request of both
def test_whatever_happens_to_a_push_the_hub_shows_the_old_model_or_the_new_and_the_next_one_completes_it(
    line, server, tmp_path, fault
):
    models = [small_model(tmp_path / f"model {number}", number) for number in (1, 2)]
    hub.push(models[0], "tester/bugs")
    repository = server.repositories["model", "tester/bugs"]
    old = dict(repository.head.files)
    line.break_at(FAULTS.index(fault) % 7, fault, lasting=True)  # there are seven requests
    start, text = time.monotonic(), ""
    try:
        hub.push(models[1], "tester/bugs")
    except hub.HubError as error:
        text = str(error)
    assert time.monotonic() - start < 3
    assert line.met.is_set()
    assert TOKEN not in text
    assert repository.head.files == old or not set(CHANGED) & unchanged(repository.head.files, old)
    assert text or repository.head.files != old
    line.heal()
    hub.push(models[1], "tester/bugs")
    assert unchanged(repository.head.files, old) == {"README.md"}


def test_a_download_that_breaks_off_again_and_again_is_given_up(line, tmp_path):
    hub.push(small_model(tmp_path / "model", 1), "tester/bugs")
    line.break_at(5, "cut short", lasting=True)
    assert f"it broke off {hub.MOST_BREAKS + 1} times" in complaint(hub.pull, "tester/bugs")


@pytest.mark.parametrize("fault", ["403 gated", "404 repository"])
def test_a_repository_that_was_there_all_the_same_gets_no_mixture_of_two_models(line, server, tmp_path, fault):
    model = small_model(tmp_path / "model", 1)
    (model / "history.json").write_text("[]")
    hub.push(model, "tester/bugs")
    (model / "history.json").unlink()
    line.break_at(0, fault)
    hub.push(model, "tester/bugs")
    assert server.repositories["model", "tester/bugs"].head.files.keys() == content(model).keys()
    line.break_at(0, fault)
    assert "is public" in complaint(hub.push, model, "tester/bugs", private=True)


def test_the_finest_log_shows_no_token(line, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "huggingface_hub")
    model = small_model(tmp_path / "model", 1)
    hub.push(model, "tester/bugs")
    hub.pull("tester/bugs")
    complaint(hub.push, model, "other/bugs")
    printed = "".join(capfd.readouterr())
    assert "curl" in caplog.text
    assert TOKEN not in caplog.text + printed


def test_another_programs_client_is_left_its_own_ways(line, tmp_path):
    made = []

    def make():
        made.append(httpx2.Client(headers={"X-Own": "1"}))
        return made[-1]

    huggingface_hub.set_client_factory(make)
    hub.push(small_model(tmp_path / "model", 1), "tester/bugs")
    assert made
    assert huggingface_hub.get_session() is made[-1]


# ---- the Space -------------------------------------------------------------------------------------------------------


FILES = {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"print()\n"}


def test_a_space_is_one_commit_and_is_told_which_models_to_show(server):
    address = hub.push_space(FILES, "tester/page", ["tester/a", "tester/b"])
    space = server.repositories["space", "tester/page"]
    assert address == f"{server.url}/spaces/tester/page"
    assert space.sdk == "gradio"
    assert space.variables == {cards.MODELS_VARIABLE: "tester/a tester/b"}
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
    assert space.variables == {cards.MODELS_VARIABLE: "tester/b"}


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
        assert space.variables == {cards.MODELS_VARIABLE: "tester/a"}
    assert broken >= 4


def test_what_a_space_is_given_starts_by_itself_and_answers_as_the_model_does(server, tmp_path, monkeypatch):
    """All that the Space's machine has: its files, its variable, the Hub, and the packages of requirements.txt."""
    for mode in ("frozen", "finetune"):
        config = ClassifierConfig("resnet18", ("ants", "bees"), mode=mode)
        folder = tmp_path / "outputs" / mode
        Classifier(empty_network("resnet18", 2), config).save_pretrained(folder)
        (folder / "README.md").write_text(cards.model_card(config.to_json()))
    push_script(monkeypatch, tmp_path / "outputs", "tester/bugs", "--space")
    space = server.repositories["space", "tester/bugs"]
    machine = tmp_path / "machine"
    for path, stored in space.head.files.items():
        (machine / path).parent.mkdir(parents=True, exist_ok=True)
        (machine / path).write_bytes((server.blobs / stored.sha256).read_bytes())
    metadata = huggingface_hub.RepoCard.load(machine / "README.md", repo_type="space").data
    port = str(free_port())
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "empty"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"GRADIO_SERVER_PORT": port, "PYTHONUNBUFFERED": "1"} | space.variables
    page = subprocess.Popen(
        [sys.executable, metadata.app_file], cwd=machine, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [page.stdout.readline().strip() for _ in range(3)]
        photo = tmp_path / "photo.png"
        draw("bees", 1, 320).save(photo)
        client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False)
        answers = client.predict(gradio_client.handle_file(photo), api_name="/predict")
    finally:
        page.terminate()
        page.communicate(timeout=20)
    assert lines[2] == f"page      http://127.0.0.1:{port}/"
    assert answers.keys() == {"frozen", "finetune"}
    for mode, answer in answers.items():
        classifier = Classifier.from_pretrained(tmp_path / "outputs" / mode)
        (own,) = classifier.predict([open_photo(photo)])
        assert answer["probabilities"] == pytest.approx(own.probabilities, abs=1e-6)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


# ---- loaded by others ------------------------------------------------------------------------------------------------


def pushed(folder, architecture, class_count):
    """A classifier that is on the Hub, with logits of a size that trained ones have."""
    torch.manual_seed(0)
    network = empty_network(architecture, class_count).train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))  # without statistics that fit, BatchNorm lets logits grow by thousands
    names = tuple(f"class {number}" for number in range(class_count))
    preprocessing = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    classifier = Classifier(network, ClassifierConfig(architecture, names, preprocessing))
    classifier.save_pretrained(folder)
    (folder / "README.md").write_text(cards.model_card(classifier.config.to_json()))
    hub.push(folder, "tester/bugs")
    return classifier


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes")
@pytest.mark.filterwarnings("default")  # other people's warnings about each other
@pytest.mark.parametrize(("architecture", "class_count"), [("resnet18", 7)])
def test_torchvision_timm_and_transformers_load_it_with_equal_preprocessing_logits_and_names(
    server, tmp_path, architecture, class_count
):
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    classifier = pushed(tmp_path / "model", architecture, class_count)
    photo, names = draw("bees", 0, 320), list(classifier.config.label_names)
    images = classifier.config.preprocessing.normalise(pixels_of([classifier.crop(photo)]))
    expected = classifier.logits([photo])
    assert 0.01 < expected.abs().max() < 100

    with torch.inference_mode():
        plain = get_model(architecture, num_classes=class_count).eval()
        plain.load_state_dict(load_file(hub.pull("tester/bugs") / "model.safetensors"), strict=True)
        torch.testing.assert_close(plain(images), expected, rtol=1e-5, atol=1e-5)

        for source in ("hf-hub:tester/bugs", f"local-dir:{tmp_path / 'model'}"):
            network = timm.create_model(source, pretrained=True).eval()
            settings = timm.data.resolve_data_config({}, model=network)
            assert torch.equal(timm.data.create_transform(**settings, is_training=False)(photo)[None], images)
            assert network.pretrained_cfg["label_names"] == names
            torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)

        for source in ("tester/bugs", str(tmp_path / "model")):
            network = transformers.AutoModelForImageClassification.from_pretrained(source).eval()
            prepared = transformers.AutoImageProcessor.from_pretrained(source)(photo, return_tensors="pt")
            torch.testing.assert_close(prepared["pixel_values"], images, rtol=0, atol=1e-6)
            assert list(network.config.id2label.values()) == names
            torch.testing.assert_close(network(images).logits, expected, rtol=1e-5, atol=1e-5)

    answers = transformers.pipeline("image-classification", model="tester/bugs", device="cpu")(photo, top_k=class_count)
    (own,) = classifier.predict([photo])
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(own.probabilities, abs=1e-5)


def test_the_code_in_the_card_runs_and_says_the_same_in_all_three_libraries(server, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path / "network"
    config = ClassifierConfig("resnet18", ("ants", "bees"))
    Classifier(empty_network("resnet18", 2), config).save_pretrained(folder)
    (folder / "README.md").write_text(cards.model_card(config.to_json()))
    hub.push(folder, "tester/bugs")
    sideways = Image.Exif()
    sideways[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").save(tmp_path / "photo.jpg", exif=sideways)  # neither upright nor RGB
    monkeypatch.chdir(tmp_path)

    printed = []
    card = uploaded_text(server.repositories["model", "tester/bugs"], "README.md", server)
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(code, {"print": lambda *values: printed.append(values)})
    ((antbee,),), (names, timm), (transformers,) = printed
    answers = (
        antbee.probabilities,
        dict(zip(names, timm[0].tolist(), strict=True)),
        {row["label"]: row["score"] for row in transformers},
    )
    assert answers[0].keys() == {"ants", "bees"}
    assert all(answer == pytest.approx(answers[0], abs=1e-4) for answer in answers)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_push_without_login_says_how_to_log_in(server, model_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    text = complaint(hub.push, model_folder, "tester/bugs")
    assert "hf auth login" in text
    assert "HF_TOKEN" in text
    assert server.requests == []


@pytest.mark.parametrize(
    ("repo_id", "options", "remedies"),
    [
        ("tester/bugs", {"token": "hf_test_wrong"}, ["status 401", "hf auth login"]),
        ("tester/bugs", {"token": "hf_test and more"}, ["token", "space", "copy it again"]),
        ("tester/bugs", {"token": "hf_test\n"}, ["token", "line break", "copy it again"]),
        ("other/bugs", {}, ["'other/bugs'", "status 403", "your own user name"]),
        ("bugs", {}, ["'bugs'", "user name or organisation", "your-name/model-name"]),
        ("tester/bugs/2", {}, ["'tester/bugs/2'", "your-name/model-name"]),
        ("tester/my bugs", {}, ["'tester/my bugs'", "letters, digits"]),
        ("tester/bugs", {"revision": "refs/pr/7"}, ["no revision 'refs/pr/7'", "leave the revision out"]),
        ("tester/bugs", {"revision": "v2", "create_pr": True}, ["either a pull request or revision 'v2'"]),
        ("tester/bugs", {"commit_message": " "}, ["commit message is empty", "leave the message out"]),
    ],
)
def test_a_refused_push_says_what_to_do(server, model_folder, repo_id, options, remedies):
    text = complaint(hub.push, model_folder, repo_id, **options)
    assert [remedy for remedy in remedies if remedy not in text] == []
    assert all(not repository.head.files for repository in server.repositories.values())


def test_a_card_with_broken_front_matter_is_refused_before_anything_is_uploaded(server, model_folder):
    (model_folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    text = complaint(hub.push, model_folder, "tester/bugs")
    assert "does not accept the card" in text
    assert "README.md" in text
    assert server.repositories["model", "tester/bugs"].head.files == {}


def test_an_incomplete_model_folder_is_named_with_what_it_lacks(model_folder, tmp_path):
    (model_folder / "config.json").unlink()
    text = complaint(hub.push, model_folder, "tester/bugs")
    assert f"{model_folder} has no config.json:" in text
    assert "scripts/train.py" in text
    assert "is not a folder" in complaint(hub.repository_files, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("repo_id", "options", "remedies"),
    [
        ("tester/none", {}, ["'tester/none'", "check the name", "log in"]),
        ("tester/hidden", {"token": "hf_test_wrong"}, ["status 401", "hf auth login"]),
        ("tester/bugs", {"revision": "v9"}, ["no revision 'v9'", "leave the revision out"]),
        ("tester/bugs", {"local_files_only": True}, ["No complete copy of 'tester/bugs'", "check the network"]),
        ("../bugs", {}, ["'../bugs'", "your-name/model-name"]),
        ("tester/gated", {}, ["ask for access", "tester/gated", "log in"]),
        ("tester/empty", {}, ["no model", "model.safetensors", "push the model again"]),
    ],
)
def test_a_refused_pull_says_what_to_do(server, repo_id, options, remedies):
    server.add_repository("tester/bugs")
    server.add_repository("tester/hidden", private=True)
    server.add_file(server.add_repository("tester/empty"), "README.md", b"# Nothing here\n")
    gated = server.add_repository("tester/gated")
    for name in ("config.json", "model.safetensors"):
        server.add_file(gated, name, b"{}")
    gated.gated = True
    text = complaint(hub.pull, repo_id, **options)
    assert [remedy for remedy in remedies if remedy not in text] == []


def test_an_unreachable_hub_is_reported_at_once(model_folder):
    start = time.monotonic()
    for text in (complaint(hub.push, model_folder, "tester/bugs"), complaint(hub.pull, "tester/bugs")):
        assert "cannot be reached" in text
        assert constants.ENDPOINT in text
        assert "check the network" in text
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up(model_folder, monkeypatch):
    monkeypatch.setattr(hub, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_client_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert "cannot be reached" in complaint(hub.push, model_folder, "tester/bugs")
        assert "cannot be reached" in complaint(hub.pull, "tester/bugs")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(("status", "remedy"), [(429, "wait a few minutes"), (503, "try again later")])
def test_a_hub_in_trouble_is_not_blamed_on_the_user(server, model_folder, status, remedy):
    server.fault = status
    for text in (complaint(hub.push, model_folder, "tester/bugs"), complaint(hub.pull, "tester/bugs")):
        assert f"status {status}" in text
        assert remedy in text


@pytest.mark.parametrize("trouble", ["no network", "offline mode", "503"])
def test_without_the_hub_the_copy_downloaded_earlier_is_used_and_said_so(server, model_folder, monkeypatch, trouble):
    hub.push(model_folder, "tester/bugs")
    folder = hub.pull("tester/bugs")
    if trouble == "no network":
        point_client_at(monkeypatch, "http://127.0.0.1:9")  # the port of the discard service, which nobody runs
    elif trouble == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        server.fault = 503
    with pytest.warns(UserWarning, match=r"the copy of 'tester/bugs' downloaded earlier is used\.$"):
        assert hub.pull("tester/bugs") == folder
    complaint(hub.pull, "tester/other")


def test_a_copy_downloaded_earlier_is_used_silently_when_asked_for(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    folder = hub.pull("tester/bugs")
    server.requests.clear()
    assert hub.pull("tester/bugs", local_files_only=True) == folder
    assert server.requests == []


def test_a_cut_download_is_refused_and_healed_by_the_next_one(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    blob = server.blobs / server.repositories["model", "tester/bugs"].head.files["model.safetensors"].sha256
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-100])
    assert "try again" in complaint(hub.pull, "tester/bugs")
    assert "No complete copy" in complaint(hub.pull, "tester/bugs", local_files_only=True)
    blob.write_bytes(whole)
    assert (hub.pull("tester/bugs") / "model.safetensors").read_bytes() == whole


def test_a_damaged_file_in_the_cache_is_never_used_and_downloaded_again(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    folder = hub.pull("tester/bugs")
    whole = content(folder)
    for name, data in whole.items():  # a large file and small ones: the Hub's digests are of two kinds
        (folder / name).resolve().write_bytes(data[:-1] + b"!")
        assert name in complaint(hub.pull, "tester/bugs", local_files_only=True)
        assert content(hub.pull("tester/bugs")) == whole


def test_a_download_is_repeated_when_asked_for_and_never_replaced_by_the_copy_that_is_doubted(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    hub.pull("tester/bugs")
    server.requests.clear()
    hub.pull("tester/bugs")
    assert not [path for _, path, _ in server.requests if "/resolve/" in path]
    hub.pull("tester/bugs", force_download=True)
    fetched = [
        path.rpartition("/")[2] for method, path, _ in server.requests if method == "GET" and "/resolve/" in path
    ]
    assert sorted(fetched) == sorted(hub.PULLED_FILES)
    server.fault = 503
    assert "try again later" in complaint(hub.pull, "tester/bugs", force_download=True)
    assert "without the network" in complaint(hub.pull, "tester/bugs", force_download=True, local_files_only=True)


def test_pieces_of_downloads_that_were_killed_are_swept_but_not_those_of_one_under_way(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    repository = hub.pull("tester/bugs").parents[1]
    pieces = [repository / "blobs" / f"{digest}.abcdef01.incomplete" for digest in ("0" * 40, "1" * 64)]
    for piece in pieces:
        piece.touch()
    with FileLock(repository.parent / ".locks" / repository.name / f"{'1' * 64}.lock"):
        hub.pull("tester/bugs")
        assert [piece.exists() for piece in pieces] == [False, True]
    hub.pull("tester/bugs")
    assert not pieces[1].exists()


@pytest.mark.parametrize("call", [lambda folder: hub.push(folder, "tester/bugs"), lambda folder: hub.pull("tester/a")])
def test_a_token_of_the_environment_that_fails_is_named_where_it_comes_from(server, model_folder, monkeypatch, call):
    for token in ("hf_test_wrong", "hf_test and more"):
        monkeypatch.setenv("HF_TOKEN", token)
        text = complaint(call, model_folder)
        assert "set the environment variable HF_TOKEN, where yours is from" in text
        assert "hf auth login" not in text
        monkeypatch.delenv("HF_TOKEN")
        login = Path(constants.HF_TOKEN_PATH)
        login.parent.mkdir(parents=True, exist_ok=True)
        login.write_text(token)
        assert "run `hf auth login`" in complaint(call, model_folder)
        login.unlink()


# ---- the script ------------------------------------------------------------------------------------------------------


def push_script(monkeypatch, *arguments):
    """Runs scripts/push.py in this process."""
    monkeypatch.setattr(sys, "argv", ["push.py", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(ROOT / "scripts" / "push.py"), run_name="__main__")


def push_in_child(server, folder, *arguments):
    """Runs scripts/push.py in a process of its own, from another folder, told about the Hub by its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "push.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_the_script_pushes_from_any_folder_and_says_how_to_load_it_back(server, model_folder, tmp_path):
    ended = push_in_child(server, tmp_path, "model", "tester/bugs", "--private", "--message", "By script")
    repository = server.repositories["model", "tester/bugs"]
    assert ended.returncode == 0, ended.stderr
    assert repository.private
    assert repository.head.title == "By script"
    assert f"{server.url}/tester/bugs/commit/{repository.head.oid}" in ended.stdout
    assert "python app.py tester/bugs" in ended.stdout
    assert TOKEN not in ended.stdout + ended.stderr


def test_the_script_fails_with_one_line_and_status_1(server, model_folder, monkeypatch, error_of):
    status, error = error_of(push_script, monkeypatch, model_folder, "other/bugs")
    assert status == 1
    assert "The Hub denies you 'other/bugs'" in error


def test_a_dry_run_shows_files_and_card_without_a_connection_or_a_login(model_folder, monkeypatch, capsys):
    def refuse(*arguments):
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    push_script(monkeypatch, model_folder, "tester/bugs", "--dry-run", "--private")
    printed = capsys.readouterr().out
    for path, size in hub.repository_files(model_folder):
        assert f"{size:,} bytes  {path}" in printed
    assert hub.card_for(model_folder, "tester/bugs") in printed
    assert "Nothing was uploaded" in printed


def test_a_folder_of_models_becomes_a_repository_for_each_mode(server, model_folder, tmp_path, monkeypatch, capsys):
    for name in ("frozen", "finetune", "frozen.previous"):
        shutil.copytree(model_folder, tmp_path / "outputs" / name)
    push_script(monkeypatch, tmp_path / "outputs", "tester/bugs", "--private")
    assert server.repositories.keys() == {("model", "tester/bugs-frozen"), ("model", "tester/bugs-finetune")}
    assert all(repository.private for repository in server.repositories.values())
    assert "python app.py tester/bugs-frozen tester/bugs-finetune" in capsys.readouterr().out


def test_a_space_gets_the_page_its_requirements_and_a_card_that_says_how_to_run_it(model_folder, script_module):
    files = script_module(ROOT / "scripts" / "push.py").space_files("tester/bugs", ["tester/bugs"])
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "antbee").rglob("*.py")}
    assert files.keys() == {"README.md", "app.py", "requirements.txt"} | package
    assert {"antbee/__init__.py", "antbee/ui/__init__.py", "antbee/ui/page.py"} <= package
    metadata = huggingface_hub.RepoCard(files["README.md"].decode()).data.to_dict()
    project = huggingface_hub.RepoCard((ROOT / "README.md").read_text("utf-8")).data.to_dict()
    for key in ("sdk", "sdk_version", "python_version", "app_file", "license"):
        assert metadata[key] == project[key]
    assert metadata["models"] == ["tester/bugs"]
    assert len(metadata["short_description"]) <= 60, "the Hub refuses longer ones"


def test_nothing_is_sent_where_one_of_several_models_is_incomplete(
    server, model_folder, tmp_path, monkeypatch, error_of
):
    for name in ("finetune", "frozen"):
        shutil.copytree(model_folder, tmp_path / "outputs" / name)
    (tmp_path / "outputs" / "finetune" / "README.md").unlink()
    _, error = error_of(push_script, monkeypatch, tmp_path / "outputs", "tester/bugs")
    assert "finetune has no README.md" in error
    assert server.requests == []


def test_a_space_and_a_pull_request_exclude_each_other(model_folder, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        push_script(monkeypatch, model_folder, "tester/bugs", "--space", "--create-pr")
    assert ended.value.code == 2


def test_a_dry_run_refuses_what_a_push_would_refuse(model_folder, monkeypatch, tmp_path, error_of):
    nothing = tmp_path / "nothing"
    for folder, repo_id in ((model_folder, "bugs"), (model_folder, "tester/my bugs"), (nothing, "tester/bugs")):
        assert error_of(push_script, monkeypatch, folder, repo_id, "--dry-run")[0] == 1


def test_a_wrong_flag_exits_with_status_2(model_folder, monkeypatch, capsys):
    for flags in (["--public"], ["--create-pr", "--revision", "v2"], ["--token", TOKEN]):
        with pytest.raises(SystemExit) as ended:
            push_script(monkeypatch, model_folder, "tester/bugs", *flags)
        assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
