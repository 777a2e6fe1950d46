"""The model folder: what is saved is what is loaded, by antbee, torchvision, timm and transformers alike."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from antbee import Classifier, classifier, model
from antbee.classifier import ClassifierConfig, ModelFolderError, replacing
from antbee.drawn import draw
from antbee.images import Preprocessing, pixels_of

CONFIG = ClassifierConfig(
    architecture="resnet18",
    label_names=("ants", "bees"),
    preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    temperature=1.5,
    version="0.1.0",
    mode="finetune",
    seed=3,
    recipe={"name": "fast", "epochs": 5},
    data={"name": "drawn", "train": {"ants": 1, "bees": 1}, "skipped": []},
    weights={"name": "random", "digest": None, "base_model": None},
    metrics={
        "kept": {"accuracy": 0.9, "epoch": 4, "interval": [0.8, 0.95]},
        "last": {"accuracy": 0.85},
        "parameters": {"trainable": 11_177_538},
        "epochs": 5,
        "seconds": 12.34,
    },
    run="abc",
)


def new_classifier(config=CONFIG):
    network = model.build_network(config.architecture, len(config.label_names), model.StartingWeights("random"), seed=0)
    return Classifier(network, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of two classes."""
    folder = tmp_path_factory.mktemp("models") / "finetune"
    new_classifier().save_pretrained(folder)
    return folder


@pytest.fixture
def editable_config(folder, tmp_path):
    """A function that writes the model folder anew with changed config.json content, and returns it."""

    def write(change):
        content = json.loads((folder / "config.json").read_text())
        change(content)
        (tmp_path / "config.json").write_text(json.dumps(content))
        os.link(folder / "model.safetensors", tmp_path / "model.safetensors")
        return tmp_path

    return write


def photo(seed=0):
    return draw("bees", seed, 320)


def complaint(call, *arguments, kind=ModelFolderError):
    with pytest.raises(kind) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- saved and loaded ------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(folder):
    loaded = Classifier.from_pretrained(folder, device="cpu")
    assert loaded.config == CONFIG
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


def test_channels_last_weights_are_saved_plainly(tmp_path, folder):
    trained = new_classifier()
    trained.network.to(memory_format=torch.channels_last)
    trained.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_weights_file_holds_torchvisions_122_tensors_and_says_it_is_of_torch(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert len(list(file.keys())) == 122
        assert file.metadata() == {"format": "pt"}


def test_model_files_are_as_open_to_other_users_as_any_new_file(folder, tmp_path):
    (tmp_path / "ordinary").touch()
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_any_number_of_classes_and_any_known_architecture_come_back(tmp_path):
    names = tuple(f"class {number}" for number in range(7))
    config = ClassifierConfig("resnet34", names)
    new_classifier(config).save_pretrained(tmp_path)
    assert Classifier.from_pretrained(tmp_path, device="cpu").config == config


def test_class_names_that_are_no_valid_unicode_come_back(tmp_path):
    config = ClassifierConfig("resnet18", ("ants", os.fsdecode(b"b\xff")))
    new_classifier(config).save_pretrained(tmp_path)
    assert Classifier.from_pretrained(tmp_path, device="cpu").config == config


# ---- loaded by others ------------------------------------------------------------------------------------------------


def preprocessed(image):
    preprocessing = CONFIG.preprocessing
    return preprocessing.normalise(pixels_of([preprocessing.cropped(image)]))


def test_torchvision_loads_the_folder_with_equal_logits(folder):
    network = resnet18(num_classes=2).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            network(preprocessed(photo())), new_classifier().logits([photo()]), rtol=0, atol=1e-5
        )


def test_timm_loads_the_folder_with_equal_preprocessing_and_logits(folder):
    timm = pytest.importorskip("timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    torch.testing.assert_close(transform(photo())[None], preprocessed(photo()), rtol=0, atol=1e-6)
    assert network.pretrained_cfg["label_names"] == ["ants", "bees"]
    with torch.inference_mode():
        torch.testing.assert_close(
            network(preprocessed(photo())), new_classifier().logits([photo()]), rtol=0, atol=1e-5
        )


@pytest.mark.filterwarnings("default")  # other people's warnings about each other
def test_transformers_loads_the_folder_with_equal_logits_and_class_names(folder):
    pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = network(preprocessed(photo())).logits
    torch.testing.assert_close(logits, new_classifier().logits([photo()]), rtol=0, atol=1e-5)

    answers = transformers.pipeline("image-classification", model=str(folder), device="cpu")(photo())
    expected = torch.softmax(new_classifier().logits([photo()])[0], 0)
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
        {"ants": float(expected[0]), "bees": float(expected[1])}, abs=1e-5
    )


# ---- predicting ------------------------------------------------------------------------------------------------------


def test_probabilities_are_a_softmax_at_the_configs_temperature():
    holder = new_classifier()
    (prediction,) = holder.predict([photo()])
    expected = torch.softmax(holder.logits([photo()])[0] / 1.5, 0).tolist()
    assert list(prediction.probabilities) == ["ants", "bees"]
    assert list(prediction.probabilities.values()) == pytest.approx(expected)
    assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)


def test_a_photo_gets_the_same_answer_alone_and_among_others():
    holder = new_classifier()
    together = holder.logits([photo(seed) for seed in range(3)])
    torch.testing.assert_close(together[1:2], holder.logits([photo(1)]), rtol=1e-4, atol=1e-5)


def test_an_explanation_is_the_prediction_and_maps_whose_mean_and_bias_are_the_logits():
    holder = new_classifier()
    explanation = holder.explain(photo())
    assert explanation.prediction.label == holder.predict([photo()])[0].label
    logits = holder.logits([photo()])[0]
    for index, name in enumerate(CONFIG.label_names):
        activation_map = explanation.activation_maps[name]
        assert activation_map.shape == (7, 7)
        torch.testing.assert_close(activation_map.mean() + holder.network.fc.bias[index].detach(), logits[index])


def test_prediction_leaves_the_network_as_it_is():
    holder = new_classifier()
    before = {name: tensor.clone() for name, tensor in holder.network.state_dict().items()}
    holder.predict([photo()])
    holder.explain(photo())
    assert all(torch.equal(before[name], tensor) for name, tensor in holder.network.state_dict().items())


def test_a_photo_of_any_shape_is_answered():
    for size in ((1, 1), (40, 300), (1200, 90)):
        image = Image.fromarray(np.full((size[1], size[0], 3), 128, np.uint8))
        (prediction,) = new_classifier().predict([image])
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all", "./user/name", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_says_what_was_expected(source):
    assert "expected a model folder, or a Hub id such as user/name" in complaint(Classifier.from_pretrained, source)


def test_a_folder_without_a_model_is_named(tmp_path):
    assert "has no config.json" in complaint(Classifier.from_pretrained, tmp_path)


def test_a_folder_without_weights_is_named(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert "model.safetensors is not there" in complaint(Classifier.from_pretrained, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[]", "null", '"text"', "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert "config.json" in complaint(Classifier.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("label_names"), "no 'label_names'"),
        (lambda c: c.pop("pretrained_cfg"), "no 'pretrained_cfg'"),
        (lambda c: c["pretrained_cfg"].pop("mean"), "no 'mean'"),
        (lambda c: c.update(label_names="ants"), "label_names is 'ants', expected a list"),
        (lambda c: c.update(label_names=["ants"]), "expected a list of two names or more"),
        (lambda c: c.update(label_names=None), "not the config of an antbee model"),
        (lambda c: c["pretrained_cfg"].update(interpolation="bicubic"), "interpolation is 'bicubic'"),
    ],
)
def test_a_config_that_lacks_what_is_needed_is_refused_by_key(editable_config, change, words):
    assert words in complaint(Classifier.from_pretrained, editable_config(change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(architecture="vgg11"), "unknown architecture 'vgg11'"),
        (lambda c: c.update(architecture="resnet34"), "layer1.2.conv1.weight is missing"),
        (lambda c: c.update(label_names=["a", "b", "c"]), "fc.weight is (2, 512), expected (3, 512)"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(editable_config, change, words):
    assert words in complaint(Classifier.from_pretrained, editable_config(change), kind=model.WeightsError)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x02 a pickle", b"\x00" * 500])
def test_weights_that_are_not_safetensors_are_refused(folder, tmp_path, content):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors is damaged" in complaint(Classifier.from_pretrained, tmp_path)


def test_weights_that_are_cut_short_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    assert "model.safetensors is damaged" in complaint(Classifier.from_pretrained, tmp_path)


def test_a_missing_tensor_is_never_filled_with_random_numbers(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    del state["layer4.1.bn2.running_var"]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    text = complaint(Classifier.from_pretrained, tmp_path, kind=model.WeightsError)
    assert "layer4.1.bn2.running_var is missing" in text


# ---- written beside and renamed --------------------------------------------------------------------------------------


def test_a_new_model_takes_the_place_of_an_older_one_which_is_kept(tmp_path):
    folder = tmp_path / "frozen"
    for text in ("first", "second", "third"):
        with replacing(folder) as beside:
            (beside / "model").write_text(text)
    assert (folder / "model").read_text() == "third"
    assert (classifier.previous(folder) / "model").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frozen", "frozen.previous"]


def test_a_writer_that_fails_leaves_the_older_model_and_nothing_else(tmp_path):
    folder = tmp_path / "frozen"
    with replacing(folder) as beside:
        (beside / "model").write_text("whole")

    def be_interrupted():
        with replacing(folder) as beside:
            (beside / "model").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert (folder / "model").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["frozen"]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    (tmp_path / ".frozen.writing").mkdir()
    (tmp_path / ".frozen.writing" / "stray").touch()
    with replacing(tmp_path / "frozen") as beside:
        assert list(beside.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["frozen"]


# ---- compared --------------------------------------------------------------------------------------------------------


def test_the_comparison_has_a_row_for_every_trained_model():
    rows = classifier.comparison([CONFIG, replace(CONFIG, mode="frozen"), ClassifierConfig("resnet18", ("a", "b"))])
    assert [row[0] for row in rows] == ["finetune", "frozen"]
    assert rows[0] == ("finetune", "11,177,538", "90.0%", "80.0% to 95.0%", "4 of 5", "85.0%", "12.3")
    assert len(rows[0]) == len(classifier.COMPARISON_COLUMNS)
