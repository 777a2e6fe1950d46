"""What the page shows: models under names of their own, looked up again when their folders change, all or nothing."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from page_helpers import write_model
from safetensors.torch import save_file

from antbee import ui
from antbee.data.drawn import draw
from antbee.data.images import DataError
from antbee.models.config import ModelFolderError
from antbee.models.folder import model_folders
from antbee.models.tensors import WeightsError
from antbee.ui import registry as ui_registry
from antbee.ui.batching import DynamicBatches
from antbee.ui.i18n import CHINESE
from antbee.ui.registry import how_to_train, notices, was_trained_on
from antbee.ui.tabs.batches import batch
from antbee.ui.tabs.classify import crops_of, predict

MARKUP = "<img src=x>**"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A model folder to copy, which is quicker than to write another."""
    return write_model(tmp_path_factory.mktemp("untrained") / "frozen", "frozen", seed=0)


@pytest.fixture
def place(untrained):
    """Puts a model into a folder, in the place of what is there, with other values in its config."""

    def place_model(folder, mode="frozen", **config):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(untrained, folder)
        content = json.loads((folder / "config.json").read_text())
        content["antbee"] |= {"mode": mode} | config
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    return place_model


# ---- what is loaded --------------------------------------------------------------------------------------------------


def test_models_are_called_by_their_modes_and_by_their_sources_where_modes_repeat(models, tmp_path, place):
    assert [shown.name for shown in models] == ["frozen", "finetune"]
    folders = [place(tmp_path / name / "frozen") for name in ("a", "b")]
    assert [shown.name for shown in ui.load_models(folders, device="cpu")] == ["a/frozen", "b/frozen"]
    twice = ui.load_models([folders[0], folders[0] / ".." / "frozen"], device="cpu")
    assert [shown.name for shown in twice] == ["a/frozen 1", "a/frozen 2"]


def test_a_model_of_somebody_elses_making_is_shown_beside_antbees_own(models, photos, tmp_path, untrained):
    shutil.copytree(untrained, tmp_path / "pets")
    config = {"architecture": "resnet18", "label_names": ["cat", "dog"]}
    (tmp_path / "pets" / "config.json").write_text(json.dumps(config))
    (tmp_path / "pets" / "history.json").write_text('{"loss": [1, 2]}')  # of a form of its own
    (foreign,) = ui.load_models([tmp_path / "pets"], device="cpu")
    assert foreign.name.endswith("/pets")
    assert foreign.history == ()
    assert "trained by transfer learning" not in foreign.card
    snapshot = ui.Snapshot((foreign, models[0]), photos)
    crops = crops_of(draw("bees", 0, 100), snapshot.models)
    assert predict(crops, snapshot.models, DynamicBatches()).keys() == {foreign.name, "frozen"}
    drawn = batch(snapshot, None, "val", 4, 0)
    assert [grid.title for grid in drawn] == ["frozen: val batch 0"], "the other knows no ants and bees"


def test_a_card_is_written_from_the_config_without_front_matter_and_pictures_the_page_does_not_have(models):
    assert "library_name" not in models[0].card
    assert "![" not in models[0].card
    assert "## Results" in models[0].card


def test_class_names_that_are_markup_are_none_in_a_card(tmp_path):
    write_model(tmp_path, "frozen", label_names=("<img src=x onerror=alert(1)>", "**bees**"))
    (shown,) = ui.load_models([tmp_path], device="cpu")
    assert "<img src=x" not in shown.card
    assert "**bees**" not in shown.card


def test_a_folder_of_weights_and_config_alone_is_shown(tmp_path, place):
    (place(tmp_path / "model") / "history.json").unlink()
    (shown,) = ui.load_models([tmp_path / "model"], device="cpu")
    assert shown.history == ()
    assert "Classes: ants, bees." in shown.card


def test_models_of_the_photos_classes_are_those_of_the_same_names_in_whatever_order(models, photos):
    turned = replace(photos, class_names=photos.class_names[::-1])
    more = replace(photos, class_names=(*photos.class_names, "wasps"))
    assert [len(ui.of_classes(models, known)) for known in (photos, turned, more)] == [2, 2, 0]


def test_photos_of_the_same_names_in_another_folder_are_not_those_trained_on(models, photos):
    assert was_trained_on(models[0], photos)
    assert not was_trained_on(models[0], replace(photos, digest="f" * 64))
    assert not was_trained_on(models[0], None)


# ---- what is chosen, and what is said first --------------------------------------------------------------------------


def test_the_models_chosen_are_those_named_or_else_the_first_and_two_at_most(models):
    many = ui.Snapshot(tuple(replace(models[0], name=name) for name in "abc"))
    assert many.names == ["a", "b", "c"]
    for names, expected in (
        (["c"], "c"),
        (["c", "b"], "bc"),
        ([], "ab"),
        (None, "ab"),
        (["gone"], "ab"),
    ):
        assert [shown.name for shown in many.chosen(names)] == list(expected)
    assert ui.Snapshot().chosen(["a"]) == []


def test_drawn_pictures_and_random_weights_are_announced(models):
    drawn, random = notices(models)
    assert "frozen + finetune: trained on pictures that a program drew" in drawn
    assert "Random weights" in random
    assert "随机权重" in notices(models, CHINESE)[1]


def test_models_of_photos_and_pretrained_weights_need_no_notice(models):
    config = replace(models[0].config, data={"name": "hymenoptera_data"}, weights={"name": "imagenet"})
    trained = replace(models[0], classifier=models[0].classifier.with_head(models[0].classifier.network.fc, config))
    assert notices([trained]) == []
    assert [said.count("finetune") for said in notices([trained, models[1]])] == [1, 1]
    assert not any("frozen" in said for said in notices([trained, models[1]]))


def test_names_of_models_that_are_markup_are_none_in_what_is_announced(models):
    for said in notices([replace(models[0], name=MARKUP)]):
        assert MARKUP not in said
        assert "<img" not in said


def test_where_no_model_is_the_commands_are_named(photos):
    assert "python scripts/train.py" in how_to_train()
    assert "python app.py" in how_to_train(CHINESE)


# ---- a model that is trained while the page is open ------------------------------------------------------------------


@pytest.fixture
def outputs(tmp_path, place):
    return place(tmp_path / "outputs" / "frozen").parent


@pytest.fixture
def registry(outputs, photos):
    """What shows every model in a folder that is this test's own."""
    return ui.ModelRegistry(lambda: model_folders(outputs), lambda models: photos, device="cpu")


def seeds_of(registry):
    """By which the models that these tests put in a place are told apart."""
    return [shown.config.seed for shown in registry.snapshot.models]


def test_models_that_stay_as_they_are_are_no_news(registry):
    assert registry.changed() == []
    shown, version = registry.snapshot, registry.version
    registry.reload()
    assert registry.changed() == []
    assert registry.version == version + 1
    assert registry.snapshot.names == shown.names


def test_a_model_that_is_trained_anew_is_noticed_and_shown_once_it_is_asked_for(registry, outputs, place):
    before = registry.snapshot
    place(outputs / "frozen", seed=1)
    assert registry.changed() == ["frozen"]
    assert registry.snapshot is before, "visitors keep what they look at until they ask for the new one"
    registry.reload()
    assert registry.changed() == []
    assert seeds_of(registry) == [1]


def test_new_weights_under_the_old_config_are_noticed(registry, outputs):
    weights = outputs / "frozen" / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert registry.changed() == ["frozen"]


def test_a_folder_that_takes_the_place_of_another_is_noticed_even_if_it_is_as_old(registry, outputs):
    copy = shutil.copytree(outputs / "frozen", outputs / ".copy")  # with its times
    (outputs / "frozen").rename(outputs / ".old")
    copy.rename(outputs / "frozen")
    assert registry.changed() == ["frozen"]


def test_a_new_model_in_the_folder_is_noticed_and_shown(registry, outputs, place):
    place(outputs / "finetune", "finetune")
    assert registry.changed() == ["finetune"]
    registry.reload()
    assert registry.snapshot.names == ["frozen", "finetune"]


def test_the_first_model_is_noticed_by_a_page_that_was_opened_without_any(tmp_path, photos, place):
    registry = ui.ModelRegistry(lambda: model_folders(tmp_path), lambda models: photos, device="cpu")
    assert (registry.snapshot.models, registry.snapshot.photos, registry.changed()) == ((), photos, [])
    place(tmp_path / "frozen")
    assert registry.changed() == ["frozen"]
    registry.reload()
    assert registry.snapshot.names == ["frozen"]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_broken_model_leaves_those_that_are_shown_in_their_place(registry, outputs, place, file):
    before, version = registry.snapshot, registry.version
    (outputs / "frozen" / file).write_text("{broken")
    with pytest.raises(ModelFolderError, match=file):
        registry.reload()
    assert registry.snapshot is before
    assert registry.version == version
    assert registry.changed() == ["frozen"], "it stays news until it can be shown"
    place(outputs / "frozen", seed=1)
    registry.reload()
    assert registry.changed() == []
    assert seeds_of(registry) == [1]


def test_one_broken_model_of_two_keeps_the_other_from_being_shown_alone(registry, outputs, place):
    before = registry.snapshot
    place(outputs / "frozen", seed=1)
    weights = place(outputs / "finetune", "finetune") / "model.safetensors"
    save_file({"fc.weight": torch.zeros(2, 512)}, weights)
    with pytest.raises(WeightsError):
        registry.reload()
    assert registry.snapshot is before


def test_photos_that_can_not_be_used_leave_the_models_in_their_place(outputs, photos, place):
    def choose_photos(models):
        if models[0].config.seed == 1:
            raise DataError("gone")
        return photos

    registry = ui.ModelRegistry(lambda: [outputs / "frozen"], choose_photos, device="cpu")
    before = registry.snapshot
    place(outputs / "frozen", seed=1)
    with pytest.raises(DataError, match="gone"):
        registry.reload()
    assert registry.snapshot is before
    assert registry.changed() == ["frozen"]


def test_a_model_of_the_hub_is_no_news_for_as_long_as_the_page_is_open(outputs, photos, place, monkeypatch):
    monkeypatch.setattr(ui_registry, "find_folder", lambda source: outputs / "frozen")
    registry = ui.ModelRegistry(lambda: ["tester/bugs"], lambda models: photos, device="cpu")
    place(outputs / "frozen", seed=1)
    assert registry.changed() == []
    assert "tester/bugs" in registry.snapshot.models[0].card


def test_a_new_model_is_announced_by_its_folders_name_and_never_by_its_path(registry, outputs, place):
    place(outputs / "a\tb", "finetune")
    assert registry.changed() == ["a b"]


def test_a_registry_switches_to_another_folder_of_models_and_stays_there(registry, tmp_path, drawn_root, place):
    place(tmp_path / "other" / "finetune", "finetune")
    registry.switch_to(tmp_path / "other", drawn_root)
    assert registry.snapshot.names == ["finetune"]
    assert registry.snapshot.photos.root == drawn_root
    place(tmp_path / "other" / "frozen")
    assert registry.changed() == ["frozen"]
    registry.reload()
    assert registry.snapshot.names == ["frozen", "finetune"]


def test_a_page_that_can_not_turn_to_another_folder_stays_with_its_own(registry, tmp_path, outputs, drawn_root, place):
    before = registry.snapshot
    place(tmp_path / "other" / "frozen")
    with pytest.raises(DataError):
        registry.switch_to(tmp_path / "other", drawn_root / "train" / "ants")
    assert registry.snapshot is before
    place(outputs / "finetune", "finetune")
    assert registry.changed() == ["finetune"]
