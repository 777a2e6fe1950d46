"""Predictions for many files: in order, with a reason for each unreadable file, as CSV and as heat maps."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from antbee import Classifier, predict_files
from antbee.data.images import DataError, open_photo
from antbee.data.transforms import Preprocessing
from antbee.models import predict
from antbee.models.classifier import Prediction
from antbee.models.config import ClassifierConfig
from antbee.models.predict import FilePrediction
from antbee.models.weights import StartingWeights, build_network


@pytest.fixture(scope="module")
def classifier():
    """An untrained classifier of ants and bees with small crops."""
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    return Classifier(network, ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=64)))


@pytest.fixture
def ants(drawn_root):
    """Eight photos, sorted."""
    return sorted((drawn_root / "val" / "ants").iterdir())


def test_folders_and_files_get_the_classifiers_own_predictions_in_order(classifier, drawn_root, ants):
    file = next((drawn_root / "val" / "bees").iterdir())
    results = predict_files(classifier, [ants[0].parent, file])
    assert [result.path for result in results] == [*ants, file]
    for result in results:
        expected = classifier.predict(result.path)
        assert result.prediction.label == expected.label
        assert result.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_model_folder_and_a_single_path_do_as_well(classifier, ants, tmp_path):
    classifier.save_pretrained(tmp_path / "model")
    (result,) = predict_files(str(tmp_path / "model"), str(ants[0]))
    assert result.prediction.label == classifier.predict(ants[0]).label


def test_unreadable_files_keep_their_places_in_every_batch_and_get_the_reason(classifier, ants, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 3)
    (tmp_path / "bad.jpg").write_text("not a photo")
    bad, missing = tmp_path / "bad.jpg", tmp_path / "none.jpg"
    paths = [ants[0], bad, ants[1], missing, bad, missing, ants[2], ants[3]]
    results = predict_files(classifier, paths, csv=tmp_path / "predictions.csv")
    assert [result.path for result in results] == paths
    for result in results:
        if result.path in (bad, missing):
            assert result.prediction is None
            assert "not " in result.error
        else:
            assert result.error is None
            expected = classifier.predict(result.path).probabilities
            assert result.prediction.probabilities == pytest.approx(expected, abs=1e-5)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [str(path) for path in paths if path in ants]


def test_a_csv_row_has_the_probability_of_every_class_and_the_distance(classifier, ants, tmp_path):
    (result,) = predict_files(classifier, ants[0], csv=tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["file", "label", "ants", "bees", "verdict", "distance", "threshold"]
    assert float(row["ants"]) == result.prediction.probabilities["ants"]
    assert (row["label"], row["distance"]) == (result.prediction.label, "")


def test_a_folder_without_images_is_refused(classifier, tmp_path):
    with pytest.raises(DataError, match="has no photo"):
        predict_files(classifier, tmp_path)


def test_photos_of_the_same_name_get_heat_maps_of_their_own_size_in_files_of_their_own(classifier, ants, tmp_path):
    first, second = tmp_path / "a" / "ants" / "x.jpg", tmp_path / "b" / "ants" / "x.jpg"
    for target, source in ((first, ants[0]), (second, ants[1])):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    predict_files(classifier, [first, second], explain=tmp_path / "maps")
    maps = sorted((tmp_path / "maps").iterdir())
    assert len(maps) == 2
    assert "ants_x.jpg.png" in {path.name for path in maps}
    with Image.open(tmp_path / "maps" / "ants_x.jpg.png") as heat_map:
        assert heat_map.size == open_photo(first).size


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0.5, " 75.0%  ants  a.jpg"),
        (1.5, " 75.0%  neither (most probable: ants; distance 1.50, threshold 1.00)  a.jpg"),
    ],
)
def test_printed_it_is_one_line_that_says_neither_out_of_distribution(distance, expected):
    prediction = Prediction("ants", {"ants": 0.75, "bees": 0.25}, distance, 1.0)
    assert str(FilePrediction(Path("a.jpg"), prediction)) == expected
    assert str(FilePrediction(Path("a\nb.jpg"), None, "not a photo")) == "a b.jpg: not a photo"
