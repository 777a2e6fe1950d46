"""Evaluation counts the classifier's own predictions: on a split, a data set, a folder, or the model's own data set."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from antbee import Classifier, evaluate
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.data.transforms import Preprocessing
from antbee.models.config import ClassifierConfig, DataInfo
from antbee.models.detector import build_detector
from antbee.models.weights import StartingWeights, build_network
from antbee.training import evaluate as evaluate_module


@pytest.fixture(scope="module")
def classifier():
    """An untrained classifier of ants and bees with small crops."""
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    return Classifier(network, ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=64)))


def with_config(classifier, **changes):
    return Classifier(classifier.network, replace(classifier.config, **changes))


def test_the_classifiers_own_predictions_are_counted(classifier, photos):
    result = evaluate(classifier, photos.val)
    predicted = [prediction.label for prediction in classifier.predict(photos.val.paths)]
    expected = [photos.class_names[label] for label in photos.val.labels]
    correct = sum(one == other for one, other in zip(predicted, expected, strict=True))
    assert (result.correct, result.count) == (correct, 16)
    assert sum(map(sum, result.confusion)) == 16
    assert f"({correct} of 16)" in str(result)


def test_a_split_a_data_set_and_a_folder_give_the_same(classifier, photos, drawn_root, tmp_path):
    classifier.save_pretrained(tmp_path / "model")
    expected = evaluate(classifier, photos.val)
    for model, data in ((classifier, photos), (tmp_path / "model", drawn_root), (str(tmp_path / "model"), photos)):
        result = evaluate(model, data)
        assert (result.correct, result.confusion) == (expected.correct, expected.confusion)
        assert result.loss == pytest.approx(expected.loss, abs=1e-5)
        assert (result.model, result.data) == (None if model is classifier else str(model), str(drawn_root))


def test_the_training_split_can_be_evaluated(classifier, photos):
    assert evaluate(classifier, photos, split="train").count == 24


def test_the_json_file_has_the_metrics_and_what_was_evaluated(classifier, photos, drawn_root, tmp_path):
    result = evaluate(classifier, photos, json=tmp_path / "result.json")
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["data"], record["split"], record["correct"]) == (str(drawn_root), "val", result.correct)
    assert "label_names" not in record
    assert record["accuracy"] == result.accuracy


def test_without_data_the_models_own_data_set_is_used_and_its_excluded_images_left_out(
    classifier, photos, drawn_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate_module, "home", lambda: tmp_path)
    with pytest.raises(DataError, match="name a data folder with --data"):
        evaluate(classifier)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own").symlink_to(drawn_root)
    own = DataInfo(name="own", digest=photos.digest, excluded=photos.val.names(drawn_root)[:3])
    result = evaluate(with_config(classifier, data=own))
    assert (result.count, result.cleaned.count) == (16, 13)
    other = own.model_copy(update={"digest": "0" * 64})
    assert evaluate(with_config(classifier, data=other)).cleaned is None, "another image may have the name"


def test_a_folder_without_val_is_split_with_the_seed_of_training(classifier, drawn_root):
    dataset = evaluate_module.dataset_of(with_config(classifier, seed=3), drawn_root / "train")
    assert dataset.val == read_folder(drawn_root / "train", seed=3).val
    assert dataset.val != read_folder(drawn_root / "train", seed=0).val


def test_classes_are_matched_by_name(classifier, photos, drawn_root):
    head = nn.Linear(512, 2)
    with torch.no_grad():
        head.weight.copy_(classifier.network.fc.weight.flip(0))
        head.bias.copy_(classifier.network.fc.bias.flip(0))
    swapped = classifier.with_head(head, replace(classifier.config, label_names=("bees", "ants")))
    expected = evaluate(classifier, photos.val)
    for data in (photos.val, photos, drawn_root):
        result = evaluate(swapped, data)
        assert result.correct == expected.correct
        assert result.confusion == [row[::-1] for row in expected.confusion][::-1]
    dataset = evaluate_module.dataset_of(swapped, drawn_root)
    for split, other in ((dataset.train, photos.train), (dataset.val, photos.val)):
        assert split.paths == other.paths
        assert split.labels == tuple(1 - label for label in other.labels)


def test_other_classes_are_refused(classifier, tmp_path):
    for split in ("train", "val"):
        for name in ("cats", "dogs"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / name / "a.png")
    pets = read_folder(tmp_path / "pets")
    for data in (tmp_path / "pets", pets, pets.val):
        with pytest.raises(DataError, match="cats, dogs, the model ants, bees"):
            evaluate(classifier, data)


# ---- which photos ----------------------------------------------------------------------------------------------------


@pytest.fixture
def new_photos(drawn_root, tmp_path):
    """Class folders that the model never saw: 8 + 8 photos."""
    return shutil.copytree(drawn_root / "val", tmp_path / "new")


def test_all_photos_of_class_folders_that_the_model_never_saw_are_evaluated(classifier, new_photos):
    result = evaluate(classifier, new_photos)
    assert (result.count, result.split, result.trained_on) == (16, "all", None)
    assert str(result).startswith(f"photos    {new_photos}: 16 photos (all)\n")


def test_of_its_own_class_folders_the_photos_are_evaluated_that_it_was_not_trained_on(classifier, new_photos):
    dataset = read_folder(new_photos, seed=5)
    own = with_config(classifier, data=DataInfo(digest=dataset.digest), seed=5)
    result = evaluate(own, new_photos)
    assert (result.count, result.split) == (len(dataset.val), "val")
    assert evaluate(own, new_photos, split="all").count == 16


def test_a_folder_with_a_test_split_alone_is_evaluated_and_a_missing_class_is_said_to_have_none(classifier, new_photos):
    shutil.move(new_photos / "ants", new_photos / "test" / "ants")
    shutil.rmtree(new_photos / "bees")
    result = evaluate(classifier, new_photos)
    assert (result.count, result.split) == (8, "test")
    assert "no photo of this class" in str(result)


def test_any_split_that_there_is_can_be_chosen_and_another_is_refused_with_those_there_are(classifier, drawn_root):
    assert [evaluate(classifier, drawn_root, split=split).count for split in (None, "val", "train", "all")] == [
        16,
        16,
        24,
        40,
    ]
    with pytest.raises(
        DataError, match=r"has no photos for --split test, but train, val: name another, or --split all"
    ):
        evaluate(classifier, drawn_root, split="test")


def test_photos_with_the_names_of_training_photos_are_warned_of(classifier, new_photos):
    features = classifier.features([Image.open(path) for path in sorted(new_photos.rglob("*.jpg"))[:3]])
    names = [path.relative_to(new_photos).as_posix() for path in sorted(new_photos.rglob("*.jpg"))[:3]]
    detector = build_detector(features, torch.tensor([0, 0, 0]), names, 1.0, 1)
    result = evaluate(Classifier(classifier.network, classifier.config, detector), new_photos)
    assert result.trained_on == 3
    assert "warning   3 of these have the names of photos that the model was trained on" in str(result)
