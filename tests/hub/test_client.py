"""Push and pull, with the real Hub client against a Hub on this computer."""

import json
import os
import shutil
import socket
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from hub_helpers import ROOT, TOKEN, complaint, content, point_client_at, push_script, short_timeouts, uploaded_text
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model

from antbee import Classifier, hub, ui
from antbee.hub.card import PLACEHOLDER, model_card
from antbee.hub.client import PULLED_FILES
from antbee.models.backbone import create_network
from antbee.models.config import ClassifierConfig, ModelFolderError


def test_what_is_pushed_comes_back_byte_for_byte(either_server, model_folder):
    before = content(model_folder)
    address = hub.push(model_folder, "tester/bugs")
    repository = either_server.repositories["model", "tester/bugs"]
    pulled = content(hub.pull("tester/bugs"))

    assert address == f"{either_server.url}/tester/bugs/commit/{repository.head.oid}"
    assert repository.head.files["model.safetensors"].lfs
    assert bool(repository.head.files["model.safetensors"].xet) == either_server.xet
    assert repository.head.files.keys() == before.keys()
    assert pulled == {path: before[path] for path in PULLED_FILES if path in before}
    assert content(model_folder) == before, "a push leaves the folder as it is"


def test_the_uploaded_card_names_its_repository_everywhere(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    card = uploaded_text(server.repositories["model", "tester/bugs"], "README.md", server)
    assert card.count("tester/bugs") == (model_folder / "README.md").read_text().count(PLACEHOLDER) == 3
    assert PLACEHOLDER not in card


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
    server.add_file(repository, "preprocessor_config.json", b"{}")  # as transformers leaves it
    assert content(hub.pull("tester/bugs")).keys() == set(PULLED_FILES)
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
    classifier = Classifier(create_network("resnet18", 2), config)
    classifier.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(model_card(config.to_json()))
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
        Classifier(create_network("resnet18", 2), config).save_pretrained(tmp_path / revision)
        (tmp_path / revision / "README.md").write_text(model_card(config.to_json()))
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
        ("bugs", {}, ["'bugs'", "does not name an owner", "your-name/model-name"]),
        ("tester/bugs/2", {}, ["'tester/bugs/2'", "your-name/model-name"]),
        ("tester/my bugs", {}, ["'tester/my bugs'", "letters, digits"]),
        ("tester/bugs", {"revision": "refs/pr/7"}, ["no revision 'refs/pr/7'", "leave the revision out"]),
        ("tester/bugs", {"revision": "v2", "create_pr": True}, ["either a pull request or revision 'v2'"]),
        ("tester/bugs", {"commit_message": " "}, ["commit message is empty", "leave it out"]),
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
        ("tester/none", {}, ["no repository 'tester/none'", "check the name", "log in"]),
        ("tester/hidden", {"token": "hf_test_wrong"}, ["status 401", "hf auth login"]),
        ("tester/bugs", {"revision": "v9"}, ["no revision 'v9'", "leave the revision out"]),
        ("tester/bugs", {"local_files_only": True}, ["no complete copy of 'tester/bugs'", "unset HF_HUB_OFFLINE"]),
        ("../bugs", {}, ["'../bugs'", "your-name/model-name"]),
        ("tester/gated", {}, ["ask its owner for access", "tester/gated", "log in"]),
        ("tester/empty", {}, ["no model that antbee can read", "model.safetensors", "push the model again"]),
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


def test_an_unreachable_hub_is_reported(model_folder):
    for text in (complaint(hub.push, model_folder, "tester/bugs"), complaint(hub.pull, "tester/bugs")):
        assert "cannot be reached" in text
        assert constants.ENDPOINT in text
        assert "check the network" in text


@pytest.mark.parametrize(
    ("status", "remedy"), [(429, "wait a few minutes"), (500, "try again later"), (503, "try again later")]
)
def test_an_error_of_the_hub_is_not_blamed_on_the_user(server, model_folder, monkeypatch, status, remedy):
    short_timeouts(monkeypatch)
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
    with pytest.warns(UserWarning, match=r"Using the copy of 'tester/bugs' downloaded earlier\.$"):
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
    assert "no complete copy" in complaint(hub.pull, "tester/bugs", local_files_only=True)
    blob.write_bytes(whole)
    assert (hub.pull("tester/bugs") / "model.safetensors").read_bytes() == whole


def test_other_bytes_in_the_cache_than_those_of_the_hub_are_downloaded_again(either_server, model_folder):
    hub.push(model_folder, "tester/bugs")
    folder = hub.pull("tester/bugs")
    whole = content(folder)
    for name, data in whole.items():  # a large file and small ones: the Hub's checksums are of two kinds
        (folder / name).resolve().write_bytes(data[:-1] + b"!")
        assert content(hub.pull("tester/bugs")) == whole


def test_a_model_that_is_in_the_cache_is_not_downloaded_again(server, model_folder):
    hub.push(model_folder, "tester/bugs")
    hub.pull("tester/bugs")
    server.requests.clear()
    hub.pull("tester/bugs")
    assert [method for method, _, _ in server.requests] == ["GET", "HEAD"]


def test_weights_with_other_bytes_are_refused_also_without_the_hub(server, tmp_path):
    config = ClassifierConfig("resnet18", ("ants", "bees"))
    Classifier(create_network("resnet18", 2), config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(model_card(config.to_json()))
    hub.push(tmp_path / "model", "tester/bugs")
    weights = hub.pull("tester/bugs") / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelFolderError, match="is damaged"):
        Classifier.from_pretrained("tester/bugs", local_files_only=True)
    Classifier.from_pretrained("tester/bugs")


def test_a_partial_copy_that_another_program_left_is_not_taken_for_a_model(server, model_folder, monkeypatch):
    hub.push(model_folder, "tester/bugs")
    huggingface_hub.hf_hub_download("tester/bugs", "config.json")
    assert "no complete copy" in complaint(hub.pull, "tester/bugs", local_files_only=True)
    point_client_at(monkeypatch, "http://127.0.0.1:9")
    assert "cannot be reached" in complaint(hub.pull, "tester/bugs")


# ---- the script ------------------------------------------------------------------------------------------------------


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
    assert "The Hub denies access to 'other/bugs'" in error


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
        assert error_of(push_script, monkeypatch, folder, repo_id, "--dry-run")[0] == 2


def test_a_wrong_flag_exits_with_status_2(model_folder, monkeypatch, capsys):
    for flags in (["--public"], ["--create-pr", "--revision", "v2"], ["--token", TOKEN]):
        with pytest.raises(SystemExit) as ended:
            push_script(monkeypatch, model_folder, "tester/bugs", *flags)
        assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
