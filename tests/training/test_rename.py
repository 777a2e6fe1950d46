"""Classes with other names: everywhere in a model folder and nowhere else, as a whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from configs import CONFIG
from page_helpers import write_model
from PIL import Image, ImageChops

import antbee
from antbee import Classifier
from antbee.errors import InputError
from antbee.evaluation import plots
from antbee.hub.card import model_card
from antbee.models.config import read_config
from antbee.models.versions import OutputError, RunFolder, list_versions, place_models
from antbee.training.rename import RenameError, rename
from antbee.ui.registry import ModelRegistry

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"ants": "Ameisen", "bees": "Bienen"}
UMLAUT = "K\N{LATIN SMALL LETTER A WITH DIAERESIS}fer"


@pytest.fixture(scope="module")
def original(tmp_path_factory, photos):
    """A model folder with a card, all figures and a detector; its config has all that antbee writes."""
    return write_whole_model(tmp_path_factory.mktemp("outputs") / "frozen", photos)


def write_whole_model(folder, photos):
    write_model(folder, "frozen", seed=0, photos=photos, threshold=1.9)
    own = read_config(folder)
    config = replace(
        CONFIG, preprocessing=own.preprocessing, files=own.files, mode="frozen", architecture=own.architecture
    )
    (folder / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n")
    rows = [["mode", "accuracy"], ["frozen", "90%"], ["finetune", "95%"]]
    (folder / "README.md").write_text(model_card(config.to_json(), rows, "They differ."))
    (folder / "history.json").write_text("[]\n")
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("batch", "confusion", "curves", "photos", "mistakes", "differences"):
        Image.new("RGB", (8, 8)).save(folder / "figures" / f"{name}.png")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "outputs" / "frozen")


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# ---- everywhere, and nowhere else ------------------------------------------------------------------------------------


def test_no_file_that_has_class_names_has_the_old_ones_and_all_others_are_equal_to_the_byte(folder):
    before = tree(folder)
    done = rename(folder, NAMES)
    after = tree(folder)
    gone = {f"figures/{name}.png" for name in ("batch", "mistakes", "differences")}
    changed = {"config.json", "README.md", "figures/confusion.png"}
    assert before.keys() - after.keys() == gone == set(done.left_out)
    assert {name for name in after if after[name] != before[name]} == changed == set(done.changed)
    for name in ("config.json", "README.md"):
        text = after[name].decode()
        for of_photos in ("train/ants/imageNotFound.gif", "Photos of ants and bees", "among the bees"):
            text = text.replace(of_photos, "")
        assert "ants" not in text
        assert "bees" not in text
    assert [path.name for path in folder.parent.iterdir()] == ["frozen"]


def test_the_config_is_the_same_but_for_the_names(folder):
    before = json.loads((folder / "config.json").read_text())
    rename(folder, NAMES)
    after = json.loads((folder / "config.json").read_text())
    assert after["label_names"] == ["Ameisen", "Bienen"]
    assert after["antbee"]["data"]["train"] == {"Ameisen": 123, "Bienen": 121}
    assert after["antbee"]["data"]["val"] == {"Ameisen": 70, "Bienen": 83}
    undone = json.dumps(after).replace("Ameisen", "ants").replace("Bienen", "bees")
    assert json.loads(undone) == before


def test_the_card_is_the_one_of_the_new_names_with_the_comparison_and_without_lost_figures(folder, tmp_path):
    before = (folder / "README.md").read_text()
    rename(folder, NAMES)
    card = (folder / "README.md").read_text()
    assert card.startswith(before[: before.index("# Image classifier")])  # the front matter
    assert "# Image classifier: Ameisen or Bienen" in card
    assert "Ameisen 123, Bienen 121" in card
    assert "They differ." in card
    assert "figures/confusion.png" in card
    assert "figures/batch.png" not in card
    assert len(before.splitlines()) - len(card.splitlines()) == 2


def test_the_confusion_matrix_is_drawn_with_the_new_names(folder):
    rename(folder, NAMES)
    expected = plots.confusion_matrix(CONFIG.metrics.confusion, ["Ameisen", "Bienen"])
    with Image.open(folder / "figures" / "confusion.png") as drawn:
        assert ImageChops.difference(drawn.convert("RGB"), expected).getbbox() is None


def test_a_renamed_model_predicts_the_same_under_the_new_names(folder, photos):
    path = photos.val.paths[0]
    before = Classifier.from_pretrained(folder, device="cpu").explain(path)
    antbee.rename(folder, NAMES)
    after = Classifier.from_pretrained(folder, device="cpu").explain(path)
    assert {NAMES[name]: value for name, value in before.prediction.probabilities.items()} == (
        after.prediction.probabilities
    )
    assert [NAMES[one.label] for one in before.neighbours] == [one.label for one in after.neighbours]
    assert [one.name for one in before.neighbours] == [one.name for one in after.neighbours]  # files of photos


def test_names_of_timm_and_transformers_are_changed_too(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content |= {"id2label": {"0": "ants", "1": "bees"}, "label2id": {"ants": 0, "bees": 1}}
    content["pretrained_cfg"] |= {"label_names": ["ants", "bees"], "label_descriptions": {"ants": "small"}}
    path.write_text(json.dumps(content))
    rename(folder, {"ants": "Ameisen"})
    content = json.loads(path.read_text())
    assert content["id2label"] == {"0": "Ameisen", "1": "bees"}
    assert content["label2id"] == {"Ameisen": 0, "bees": 1}
    assert content["pretrained_cfg"]["label_names"] == ["Ameisen", "bees"]
    assert content["pretrained_cfg"]["label_descriptions"] == {"Ameisen": "small"}


def test_two_classes_change_places_and_back(folder):
    before = tree(folder)
    rename(folder, {"ants": "bees", "bees": "ants"})
    config = read_config(folder)
    assert config.label_names == ("bees", "ants")
    assert config.data.train == {"bees": 123, "ants": 121}
    assert "| bees | 66 | 4 |" in (folder / "README.md").read_text()
    rename(folder, {"ants": "bees", "bees": "ants"})
    after = tree(folder)
    assert after["config.json"] == before["config.json"]


def test_what_somebody_wrote_into_the_card_stays_and_is_named_where_it_has_old_names(folder):
    card = folder / "README.md"
    card.write_text("My ants.\n\n" + card.read_text() + "\nMine: ants, antsy.\n")
    done = rename(folder, NAMES)
    text = card.read_text()
    assert text.startswith("My ants.\n")
    assert text.endswith("Mine: ants, antsy.\n")
    assert "# Image classifier: Ameisen or Bienen" in text
    assert done.edited == (1, len(text.splitlines()))
    assert "README.md still has old names" in str(done)


def test_a_folder_without_card_figures_and_detector_is_renamed_too(folder):
    for name in ("README.md", "neighbours.safetensors", "history.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "figures")
    config = json.loads((folder / "config.json").read_text())
    del config["antbee"]
    (folder / "config.json").write_text(json.dumps(config))
    done = rename(folder, NAMES)
    assert (done.changed, done.left_out) == (("config.json",), ())
    assert read_config(folder).label_names == ("Ameisen", "Bienen")


def test_links_into_a_cache_are_replaced_and_what_they_lead_to_stays(folder, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name in ("config.json", "README.md", "model.safetensors"):
        shutil.move(folder / name, blobs)
        (folder / name).symlink_to(f"../../blobs/{name}")  # relative, as the Hub's client makes them
    before = tree(blobs)
    rename(folder, NAMES)
    assert tree(blobs) == before
    assert read_config(folder).label_names == ("Ameisen", "Bienen")
    assert "Ameisen" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").read_bytes() == before["model.safetensors"]


def test_a_renamed_model_becomes_a_version_under_the_time_of_its_training(folder):
    os.utime(folder / "config.json", (1e9, 1e9))
    rename(folder, NAMES)
    run = RunFolder(folder.parent)
    with run.locked(), run.writing("frozen") as new:
        shutil.copy(folder / "config.json", new)
    place_models(folder.parent, run, replace="always")
    (version,) = list_versions(folder.parent)
    assert version.name.startswith("2001-09-")


def test_the_page_notices_it(folder):
    registry = ModelRegistry(lambda: [folder], lambda models: None, device="cpu")
    assert registry.changed() == []
    rename(folder, NAMES)
    assert registry.changed() == ["frozen"]
    registry.reload()
    assert registry.snapshot.models[0].config.label_names == ("Ameisen", "Bienen")


# ---- names that can't be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"wasps": "Wespen"}, "no class 'wasps': expected one of ants, bees"),
        ({"ants": "bees"}, "two classes would be 'bees'"),
        ({"ants": "x", "bees": "x"}, "two classes would be 'x'"),
        ({"ants": " "}, "the new name of 'ants' is empty"),
        ({"ants": ""}, "the new name of 'ants' is empty"),
        ({"ants": "a" * 256}, "has 256 bytes: expected at most 255"),
        ({"ants": UMLAUT * 50}, "has 300 bytes"),
        ({"ants": "a\nb"}, "characters that can't be printed"),
        ({"ants": "a\udc80"}, "characters that can't be printed"),
        ({"ants": "\N{RIGHT-TO-LEFT OVERRIDE}a"}, "characters that can't be printed"),
        ({"ants": "ants"}, "nothing to rename"),
        ({}, "nothing to rename"),
    ],
)
def test_a_name_that_can_not_be_used_is_an_error_in_a_sentence_and_changes_nothing(folder, names, words):
    before = tree(folder.parent)
    with pytest.raises(RenameError) as raised:
        rename(folder, names)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert tree(folder.parent) == before


def test_names_are_in_normalisation_form_c(folder):
    rename(folder, {"ants": unicodedata.normalize("NFD", UMLAUT)})
    assert read_config(folder).label_names == (UMLAUT, "bees")
    rename(folder, {unicodedata.normalize("NFD", UMLAUT): " beetles "})
    assert read_config(folder).label_names == ("beetles", "bees")


@pytest.mark.parametrize("place", ["none", "user/name", "."])
def test_what_is_no_model_folder_is_an_error_in_a_sentence(folder, place, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(InputError, match=r"expected a model folder|is a folder of models"):
        rename(place, NAMES)


def test_while_a_training_writes_beside_the_model_nothing_is_renamed(folder):
    before = tree(folder)
    with RunFolder(folder.parent).locked(), pytest.raises(OutputError, match="another run is writing into"):
        rename(folder, NAMES)
    assert tree(folder) == before
    rename(folder, NAMES)


# ---- as a whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["copytree", "_write", "_rename_in_card", "_draw_figures"])
def test_what_stops_a_renaming_leaves_the_old_folder_and_nothing_beside_it(folder, monkeypatch, step):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    before = tree(folder.parent)
    monkeypatch.setattr(f"antbee.training.rename.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        rename(folder, NAMES)
    assert tree(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["frozen"]


def test_a_failure_of_the_last_step_puts_the_old_folder_back(folder, monkeypatch):
    move, before = Path.rename, tree(folder)

    def fail(path, target):
        if path.name == "after":
            raise OSError(28, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        rename(folder, NAMES)
    assert tree(folder) == before


def test_a_folder_that_was_lost_between_the_last_two_steps_is_put_back_by_the_next_renaming(folder):
    lost = folder.parent / ".frozen.renaming-abc" / "before"
    lost.parent.mkdir()
    folder.rename(lost)
    rename(folder, NAMES)
    assert read_config(folder).label_names == ("Ameisen", "Bienen")


# Kills itself before a step of renaming: in a process for each step, which are forked after the imports.
KILLED = """
import os, signal, sys
from pathlib import Path
from antbee.training import rename as module

def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

for step, folder in (argument.split("=", 1) for argument in sys.argv[1:]):
    if (process := os.fork()) == 0:
        move = Path.rename
        if step in ("to before", "to frozen"):
            Path.rename = lambda path, target: kill() if target.name == step[3:] else move(path, target)
        elif step != "end":
            setattr(module, step, kill)
        module.rename(folder, {"ants": "A"})
        kill()
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
"""
STEPS = ("copytree", "_write", "_rename_in_card", "_draw_figures", "to before", "to frozen", "end")


def test_a_killed_renaming_leaves_the_old_or_the_new_folder(original, tmp_path):
    old, new = tree(original), tree_of_renamed(original, tmp_path / "whole")
    folders = {step: shutil.copytree(original, tmp_path / step / "frozen") for step in STEPS}
    arguments = [f"{step}={folder}" for step, folder in folders.items()]
    subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, check=True, timeout=100)
    (lost,) = folders["to frozen"].parent.glob(".frozen.renaming-*/before")
    assert not folders["to frozen"].exists()
    assert tree(lost) == old
    for step in set(STEPS) - {"to frozen"}:
        assert tree(folders[step]) == (new if step == "end" else old), step


def tree_of_renamed(original, place):
    folder = shutil.copytree(original, place / "frozen")
    rename(folder, {"ants": "A"})
    return tree(folder)
