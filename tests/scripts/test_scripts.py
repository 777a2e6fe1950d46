"""The smaller scripts: they answer just as the classifier does, and end clearly where they can't."""

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import app
from antbee import Classifier, ui
from antbee.data import folder as data_folder
from antbee.data.images import open_photo
from antbee.data.transforms import Preprocessing
from antbee.models.backbone import build_network
from antbee.models.config import ClassifierConfig
from antbee.models.weights import StartingWeights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """An untrained model of ants and bees, which looks at small crops."""
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    folder = tmp_path_factory.mktemp("models") / "frozen"
    Classifier(network, ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=64))).save_pretrained(folder)
    return folder


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Runs a script of scripts/ in this process, from another folder."""

    def run(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")

    return run


def test_predict_answers_for_folders_and_files_just_as_the_classifier(script, model_folder, drawn_root, tmp_path):
    folder, file = drawn_root / "val" / "ants", next((drawn_root / "val" / "bees").iterdir())
    script("predict.py", model_folder, folder, file, "--csv", "answers.csv")
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text("utf-8").splitlines()))
    assert [Path(row["file"]) for row in rows] == [*sorted(folder.iterdir()), file]
    classifier = Classifier.from_pretrained(model_folder)
    for row in rows:
        (prediction,) = classifier.predict([open_photo(Path(row["file"]))])
        assert row["label"] == prediction.label
        assert float(row["ants"]) == pytest.approx(prediction.probabilities["ants"], abs=1e-5)


def test_predict_prints_a_line_for_each_photo_and_writes_heat_maps(script, model_folder, drawn_root, tmp_path, capsys):
    photo = next((drawn_root / "val" / "bees").iterdir())
    script("predict.py", model_folder, photo, "--explain", "maps")
    assert str(photo) in capsys.readouterr().out
    with Image.open(tmp_path / "maps" / f"bees_{photo.name}.png") as heat, Image.open(photo) as original:
        assert heat.size == original.size


def test_predict_answers_the_good_files_and_names_the_bad_ones(
    script, model_folder, drawn_root, tmp_path, capsys, error_of
):
    good = next((drawn_root / "val" / "bees").iterdir())
    (tmp_path / "bad.jpg").write_text("no photo")
    status, error = error_of(script, "predict.py", model_folder, good, tmp_path / "bad.jpg", tmp_path / "none.jpg")
    assert str(good) in capsys.readouterr().out
    assert status == 2
    assert "bad.jpg: not a photo" in error
    assert "none.jpg: not there" in error


def test_evaluate_measures_what_the_classifier_answers(script, model_folder, drawn_root, tmp_path, capsys):
    script("evaluate.py", model_folder, "--data", drawn_root, "--json", "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    photos = data_folder.read_folder(drawn_root)
    predictions = Classifier.from_pretrained(model_folder).predict([open_photo(path) for path in photos.val.paths])
    truth = [photos.class_names[label] for label in photos.val.labels]
    right = sum(prediction.label == name for prediction, name in zip(predictions, truth, strict=True))
    assert (result["correct"], result["count"], result["split"]) == (right, 16, "val")
    assert sum(map(sum, result["confusion"])) == 16
    assert f"({right} of 16)" in capsys.readouterr().out


def test_a_folder_without_val_is_divided_as_it_was_in_the_models_training(script, drawn_root, tmp_path):
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    config = ClassifierConfig("resnet18", ("ants", "bees"), seed=3)
    Classifier(network, config).save_pretrained(tmp_path / "model")
    seen = []
    read = data_folder.read_folder

    def read_and_note(root, **options):
        seen.append(read(root, **options))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_folder, "read_folder", read_and_note)
        script("evaluate.py", tmp_path / "model", "--data", drawn_root / "train")
        app.choose_photos(drawn_root / "train", ui.load_models([tmp_path / "model"]), tmp_path)
    assert [photos.val for photos in seen] == [read(drawn_root / "train", seed=3).val] * 2
    assert seen[0].val != read(drawn_root / "train", seed=0).val


def test_evaluate_measures_the_training_photos_too(script, model_folder, drawn_root, capsys):
    script("evaluate.py", model_folder, "--data", drawn_root, "--split", "train")
    assert "of 24)" in capsys.readouterr().out


def test_evaluate_goes_by_names_where_a_model_has_the_classes_in_another_order(
    script, model_folder, drawn_root, tmp_path
):
    state = load_file(model_folder / "model.safetensors")
    turned = state | {name: state[name].flip(0).contiguous() for name in ("fc.weight", "fc.bias")}
    (tmp_path / "turned").mkdir()
    save_file(turned, tmp_path / "turned" / "model.safetensors")
    config = json.loads((model_folder / "config.json").read_text()) | {"label_names": ["bees", "ants"]}
    config["antbee"]["files"] = {}
    (tmp_path / "turned" / "config.json").write_text(json.dumps(config))
    results = []
    for folder in (model_folder, tmp_path / "turned"):
        script("evaluate.py", folder, "--data", drawn_root, "--json", "result.json")
        results.append(json.loads((tmp_path / "result.json").read_text()))
    assert results[0]["correct"] == results[1]["correct"]
    assert results[0]["confusion"] == [row[::-1] for row in results[1]["confusion"]][::-1]


def test_evaluate_refuses_photos_of_other_classes(script, model_folder, tmp_path, error_of):
    for split in ("train", "val"):
        for name in ("cats", "dogs"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / name / "a.png")
    status, error = error_of(script, "evaluate.py", model_folder, "--data", tmp_path / "pets")
    assert status == 2
    assert "cats, dogs, the model ants, bees" in error


def test_a_model_that_is_not_there_is_one_clear_line(script, error_of, drawn_root):
    for name, words in (("predict.py", [drawn_root]), ("evaluate.py", ["--data", drawn_root])):
        status, error = error_of(script, name, "/nowhere", *words)
        assert status == 2
        assert "expected a model folder, or a Hub id" in error
