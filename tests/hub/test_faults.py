"""Push and pull that break, or meet a faulty Hub or network; endurance/hub_faults.py tries every fault everywhere."""

import json
import logging
import time

import httpx2
import huggingface_hub
import pytest
import torch
from hub_helpers import (
    CHANGED,
    CONFIG,
    TOKEN,
    complaint,
    content,
    small_model,
    unchanged,
)
from huggingface_hub import constants
from loopback_hub import FAULTS
from safetensors.torch import save_file

from antbee import hub


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


# The client never gives up a download that comes a byte at a time: endurance/hub_faults.py waits for it.
QUICK = [fault for fault in FAULTS if fault != "slow"]


@pytest.mark.filterwarnings("ignore:.*Using the copy of .* downloaded earlier")
@pytest.mark.parametrize(("fault", "lasting"), [(fault, index % 2 == 0) for index, fault in enumerate(QUICK)])
def test_whatever_happens_to_a_pull_it_gives_a_whole_model_or_one_sentence_and_the_next_one_heals_it(
    line, tmp_path, fault, lasting
):
    models = [small_model(tmp_path / f"model {number}", number) for number in (1, 2)]
    old, new = ({name: content(model)[name] for name in CHANGED} for model in models)
    hub.push(models[0], "tester/bugs")
    hub.pull("tester/bugs")
    hub.push(models[1], "tester/bugs")
    # There are six requests. A lasting silence is met by the first, which has the client's shorter time-out.
    request = 0 if lasting and fault in ("silent", "stuck in the body") else QUICK.index(fault) % 6
    line.break_at(request, fault, lasting=lasting)
    text = ""
    try:
        assert content(hub.pull("tester/bugs")) in (old, new)
    except hub.HubError as error:
        text = str(error)
    assert len(text.splitlines()) <= 1
    assert TOKEN not in text
    assert line.met.is_set()
    line.heal()
    assert content(hub.pull("tester/bugs", local_files_only=True)) in (old, new)
    assert content(hub.pull("tester/bugs")) == new


@pytest.mark.parametrize("fault", QUICK[1::2])  # endurance/hub_faults.py tries each at each request of both
def test_whatever_happens_to_a_push_the_hub_shows_the_old_model_or_the_new_and_the_next_one_completes_it(
    line, server, tmp_path, fault
):
    models = [small_model(tmp_path / f"model {number}", number) for number in (1, 2)]
    hub.push(models[0], "tester/bugs")
    repository = server.repositories["model", "tester/bugs"]
    old = dict(repository.head.files)
    line.break_at(QUICK.index(fault) % 7, fault, lasting=True)  # there are seven requests
    text = ""
    try:
        hub.push(models[1], "tester/bugs")
    except hub.HubError as error:
        text = str(error)
    assert line.met.is_set()
    assert TOKEN not in text
    assert repository.head.files == old or not set(CHANGED) & unchanged(repository.head.files, old)
    assert text or repository.head.files != old
    line.heal()
    hub.push(models[1], "tester/bugs")
    assert unchanged(repository.head.files, old) == {"README.md"}


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


@pytest.mark.parametrize("place", range(1, 7))
def test_an_upload_to_a_hub_that_falls_silent_ends(line, tmp_path, place):
    hub.push(small_model(tmp_path / "model 1", 1), "tester/bugs")
    line.break_at(place, "silent", lasting=True)
    assert "cannot be reached" in complaint(hub.push, small_model(tmp_path / "model 2", 2), "tester/bugs")


def test_a_time_out_that_somebody_chose_for_the_client_stays(server, tmp_path):
    huggingface_hub.get_session().timeout = 7.0
    hub.push(small_model(tmp_path / "model", 1), "tester/bugs")
    assert huggingface_hub.get_session().timeout.read == 7.0
