"""Classifier: predictions, explanations, and model folders that antbee, timm and transformers save and load."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from configs import CONFIG
from PIL import ExifTags, Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet18_Weights, resnet18

from antbee import Classifier
from antbee.data.drawn import draw
from antbee.data.images import DataError
from antbee.data.transforms import pixels_of
from antbee.evaluation.plots import heat_map
from antbee.models.backbone import new_head
from antbee.models.classifier import Prediction
from antbee.models.config import ClassifierConfig, ModelFolderError
from antbee.models.tensors import WeightsError
from antbee.models.weights import StartingWeights, build_network, load_starting_weights

UNMEASURED = {"format": 1}  # the only required key of "antbee"


def new_classifier(config=CONFIG):
    network = build_network(config.architecture, len(config.label_names), StartingWeights("random"), seed=0)
    return Classifier(network, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of two classes."""
    folder = tmp_path_factory.mktemp("models") / "finetune"
    new_classifier().save_pretrained(folder)
    return folder


@pytest.fixture
def editable_config(folder, tmp_path):
    """A function that copies the model folder with a changed config.json, and returns the copy."""

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


# ---- saving and loading ----------------------------------------------------------------------------------------------


def test_a_saved_classifier_is_loaded_with_equal_config_and_logits(folder):
    loaded = Classifier.from_pretrained(folder, device="cpu")
    assert replace(loaded.config, files={}) == CONFIG
    assert loaded.config.files.keys() == {"model.safetensors"}
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


def test_channels_last_weights_are_saved_like_contiguous_ones(tmp_path, folder):
    trained = new_classifier()
    trained.network.to(memory_format=torch.channels_last)
    trained.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_weights_file_has_torchvisions_122_tensors_and_the_format_pt(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert len(list(file.keys())) == 122
        assert file.metadata() == {"format": "pt"}


def test_model_files_have_the_permissions_of_any_new_file(folder, tmp_path):
    (tmp_path / "ordinary").touch()
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_another_architecture_with_seven_classes_is_saved_and_loaded(tmp_path):
    names = tuple(f"class {number}" for number in range(7))
    config = ClassifierConfig("resnet34", names)
    new_classifier(config).save_pretrained(tmp_path)
    assert replace(Classifier.from_pretrained(tmp_path, device="cpu").config, files={}) == config


def test_class_names_that_are_not_valid_unicode_are_saved_and_loaded(tmp_path):
    config = ClassifierConfig("resnet18", ("ants", os.fsdecode(b"b\xff")))
    new_classifier(config).save_pretrained(tmp_path)
    assert replace(Classifier.from_pretrained(tmp_path, device="cpu").config, files={}) == config


# ---- models of other libraries ---------------------------------------------------------------------------------------


def write_model(folder, config, network):
    folder.mkdir(exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "names", [{"label_names": ["cat", "dog", "owl"]}, {"id2label": {"0": "cat", "1": "dog", "2": "owl"}}]
)
def test_a_config_with_only_architecture_and_labels_gets_torchvisions_preprocessing(tmp_path, names):
    network = resnet18(num_classes=3).eval()
    loaded = Classifier.from_pretrained(write_model(tmp_path, {"architecture": "resnet18"} | names, network))
    assert loaded.config == ClassifierConfig("resnet18", ("cat", "dog", "owl"))
    images = ResNet18_Weights.IMAGENET1K_V1.transforms()(photo())[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded.logits([photo()]), network(images), rtol=1e-4, atol=1e-4)


def test_a_model_saved_by_timm_is_loaded_with_equal_preprocessing_and_logits(tmp_path):
    timm = pytest.importorskip("timm")
    # Its pretrained_cfg differs from torchvision's: bicubic, and another crop_pct.
    network = timm.create_model("resnet50", num_classes=3).train()
    network(torch.randn(4, 3, 64, 64))  # sets BatchNorm statistics, which keep the logits small
    labels = {"label_names": ["cat", "dog", "owl"]}
    timm.models.save_for_hf(network.eval(), tmp_path, model_config=labels, safe_serialization=True)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.config.label_names == ("cat", "dog", "owl")
    assert (loaded.config.preprocessing.interpolation, loaded.config.preprocessing.crop_pct) == ("bicubic", 0.95)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    images = transform(photo())[None]
    assert torch.equal(loaded.config.preprocessing.normalise(pixels_of([loaded.crop(photo())])), images)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.logits([photo()]), network(images), rtol=0, atol=1e-5)


def test_a_model_that_timm_loads_and_saves_has_equal_logits(folder, tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert (loaded.config.label_names, loaded.config.preprocessing) == (("ants", "bees"), CONFIG.preprocessing)
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


def test_timms_older_flat_config_is_read_with_its_preprocessing(tmp_path):
    timm = pytest.importorskip("timm")
    pretrained = {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95}
    pretrained |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "labels": ["cat", "dog"], "num_classes": 2}
    write_model(tmp_path, {"architecture": "resnet18"} | pretrained, resnet18(num_classes=2))
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.config.label_names == ("cat", "dog")
    assert torch.equal(
        loaded.config.preprocessing.normalise(pixels_of([loaded.crop(photo())])), transform(photo())[None]
    )


@pytest.mark.filterwarnings("default")  # of the libraries, about each other
def test_a_model_that_transformers_loads_and_saves_has_equal_logits(folder, tmp_path):
    pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    transformers.AutoModelForImageClassification.from_pretrained(folder).save_pretrained(tmp_path)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.config.label_names == ("ants", "bees")
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"architectures": ["ResNetForImageClassification"]},
            "architecture is missing: expected a config by antbee",
        ),
        ({"architecture": "vit_tiny_patch16_224", "label_names": ["a", "b"]}, "don't fit this network"),
        ({"architecture": "resnet18"}, "label_names is missing"),
    ],
)
def test_a_config_of_another_architecture_or_without_labels_is_refused(tmp_path, config, words):
    write_model(tmp_path, config, resnet18(num_classes=2))
    assert words in complaint(Classifier.from_pretrained, tmp_path, kind=ValueError)


# ---- predicting ------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_logits():
    classifier = new_classifier()
    (prediction,) = classifier.predict([photo()])
    expected = torch.softmax(classifier.logits([photo()])[0], 0).tolist()
    assert list(prediction.probabilities) == ["ants", "bees"]
    assert list(prediction.probabilities.values()) == pytest.approx(expected)
    assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)


def test_logits_do_not_depend_on_the_other_photos_of_a_batch():
    classifier = new_classifier()
    together = classifier.logits([photo(seed) for seed in range(3)])
    torch.testing.assert_close(together[1:2], classifier.logits([photo(1)]), rtol=1e-4, atol=1e-5)


def test_the_mean_of_an_activation_map_plus_the_bias_is_the_logit():
    classifier = new_classifier()
    explanation = classifier.explain(photo())
    assert explanation.prediction.label == classifier.predict([photo()])[0].label
    logits = classifier.logits([photo()])[0]
    for index, name in enumerate(CONFIG.label_names):
        activation_map = explanation.activation_maps[name]
        assert activation_map.shape == (7, 7)
        torch.testing.assert_close(activation_map.mean() + classifier.network.fc.bias[index].detach(), logits[index])


def test_predictions_do_not_change_the_network():
    classifier = new_classifier()
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    classifier.predict([photo()])
    classifier.explain(photo())
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.state_dict().items())


def test_features_are_the_inputs_of_the_head_and_can_be_trained_on():
    classifier = new_classifier()
    photos = [photo(seed) for seed in range(3)]
    features = classifier.features(photos)
    assert (features.shape, features.dtype, features.device.type) == ((3, 512), torch.float32, "cpu")
    torch.testing.assert_close(classifier.network.fc(features), classifier.logits(photos))
    assert torch.equal(features, classifier.features_of_crops([classifier.crop(one) for one in photos]))
    head = torch.nn.Linear(512, 2)
    head(features).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_a_classifier_with_another_head_shares_the_backbone_and_does_not_change_the_first():
    classifier = new_classifier()
    logits, weights = classifier.logits([photo()]), classifier.network.fc.weight.clone()
    head = new_head(512, 3, seed=1)
    config = replace(CONFIG, label_names=("a", "b", "c"), metrics=None)
    other = classifier.with_head(head, config)
    with torch.inference_mode():
        torch.testing.assert_close(other.logits([photo()]), head(classifier.features([photo()])))
        head.weight.zero_()
    assert list(other.predict([photo()])[0].probabilities) == ["a", "b", "c"]
    assert other.network.fc.weight.any()  # the head was copied
    assert torch.equal(classifier.network.fc.weight, weights)
    assert torch.equal(classifier.logits([photo()]), logits)
    for own, shared in ((other.network, classifier.network), (other._fused, classifier._fused)):
        places = {name: tensor.data_ptr() for name, tensor in shared.state_dict().items()}
        assert [n for n, t in own.state_dict().items() if t.data_ptr() != places[n]] == ["fc.weight", "fc.bias"]


def test_the_backbone_digest_depends_on_the_backbone_and_not_on_the_head(folder):
    classifier = new_classifier()
    assert len(classifier.backbone_digest) == 64
    assert Classifier.from_pretrained(folder, device="cpu").backbone_digest == classifier.backbone_digest
    config = replace(CONFIG, label_names=("a", "b", "c"))
    assert classifier.with_head(new_head(512, 3, seed=1), config).backbone_digest == classifier.backbone_digest
    with torch.no_grad():
        classifier.network.layer4[1].bn2.running_mean[0] += 1e-3
    assert new_classifier().backbone_digest != Classifier(classifier.network, CONFIG).backbone_digest


def test_a_photo_of_any_shape_is_predicted():
    for size in ((1, 1), (40, 300), (1200, 90)):
        image = Image.fromarray(np.full((size[1], size[0], 3), 128, np.uint8))
        (prediction,) = new_classifier().predict([image])
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_path_or_an_image_gets_one_prediction_and_a_list_gets_a_list(tmp_path):
    classifier, path = new_classifier(), tmp_path / "photo.png"
    photo().save(path)
    expected = classifier.predict(photo())
    assert isinstance(expected, Prediction)
    for source in (path, str(path)):
        assert classifier.predict(source) == expected
    for sources in ([path], [str(path), photo()], (photo(),), []):
        found = classifier.predict(sources)
        assert isinstance(found, list)
        assert [one.label for one in found] == [expected.label] * len(sources)
        assert all(one.probabilities == pytest.approx(expected.probabilities) for one in found)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK"])
def test_an_image_of_any_mode_is_predicted_as_rgb(mode):
    classifier, image = new_classifier(), photo().convert(mode)
    assert classifier.predict(image) == classifier.predict(image.convert("RGB"))
    assert classifier.explain(image).prediction == classifier.predict(image)


def transparent():
    image = photo().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def grey_of_16_bits():
    return Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 256)


def rotated_by_exif():
    image = photo()
    image.getexif()[ExifTags.Base.Orientation] = 6
    return image


@pytest.mark.parametrize("make", [transparent, grey_of_16_bits, rotated_by_exif])
def test_an_image_is_predicted_as_its_file_is(make, tmp_path):
    image, path, classifier = make(), tmp_path / "photo.png", new_classifier()
    image.save(path, exif=image.getexif())
    before = image.tobytes()
    with Image.open(path) as opened:
        assert classifier.predict(image) == classifier.predict(path) == classifier.predict(opened)
    assert image.tobytes() == before


def as_array(image):
    return np.asarray(image)


def as_tensor(image):
    return torch.from_numpy(np.array(image)).movedim(-1, 0)


def as_floats(image):
    return as_tensor(image).float() / 255


def alpha_of(image):
    return np.dstack([as_array(image), np.full(image.size[::-1], 255, np.uint8)])


def test_arrays_and_tensors_are_predicted_as_the_image_alone_and_in_a_list_and_explained():
    classifier, image = new_classifier(), photo()
    expected = classifier.predict(image)
    for form in (as_array, as_tensor, as_floats, alpha_of):
        assert classifier.predict(form(image)) == expected
    forms = iter([as_array(image), as_floats(image), image])
    assert [one.label for one in classifier.predict(forms)] == [expected.label] * 3
    assert classifier.explain(as_tensor(image)).prediction == expected


def test_what_is_no_photo_is_refused_in_a_list_and_for_an_explanation_too():
    classifier = new_classifier()
    for thing in (7, [photo(), 7], [[photo()]], {"a.jpg": 1}, b"a.jpg"):
        assert "is no photo: expected a path, a PIL image, " in complaint(classifier.predict, thing, kind=DataError)
    assert "a value of type list is no photo" in complaint(classifier.explain, [photo()], kind=DataError)


def test_many_photos_go_through_the_network_in_batches(monkeypatch):
    classifier, sizes = new_classifier(), []
    monkeypatch.setattr("antbee.models.classifier.BATCH_SIZE", 3)
    monkeypatch.setattr(classifier, "predict_crops", lambda crops: sizes.append(len(crops)) or crops)
    assert len(classifier.predict([photo()] * 7)) == 7
    assert sizes == [3, 3, 1]


def test_a_file_that_is_not_a_photo_is_an_error_that_names_it(tmp_path):
    (tmp_path / "photo.jpg").write_text("not a photo")
    for call in (new_classifier().predict, new_classifier().explain):
        assert "photo" in complaint(call, tmp_path / "photo.jpg", kind=DataError)


def test_the_heatmap_colours_the_crop_and_darkens_the_rest_of_the_photo():
    explanation = new_classifier().explain(photo().resize((400, 240)))
    heatmap = explanation.heatmap
    assert (heatmap.mode, heatmap.size) == ("RGB", (400, 240))
    left = np.asarray(explanation.photo.crop((0, 0, 40, 240)))
    assert np.array_equal(np.asarray(heatmap.crop((0, 0, 40, 240))), left // 3)
    activation_map = explanation.activation_maps[explanation.prediction.label]
    expected = heat_map(explanation.photo, activation_map, explanation.crop_box, float(activation_map.max()))
    assert heatmap.tobytes() == expected.tobytes()


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all", "./user/name", "a/b/c"])
def test_a_source_that_is_neither_a_folder_nor_a_hub_id_is_refused(source):
    assert "expected a model folder, or a Hub id such as user/name" in complaint(Classifier.from_pretrained, source)


def test_a_folder_of_models_is_refused_with_the_models_in_it(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "outputs" / "frozen")
    assert complaint(Classifier.from_pretrained, tmp_path / "outputs").endswith(f"expected one of them: {model}")


def test_a_photo_that_can_not_be_opened_is_named(folder, tmp_path):
    classifier = Classifier.from_pretrained(folder)
    for call in (classifier.predict, classifier.explain):
        with pytest.raises(DataError, match=r"nope\.jpg: not there"):
            call(tmp_path / "nope.jpg")


def test_a_folder_without_a_model_is_named(tmp_path):
    assert "has no config.json" in complaint(Classifier.from_pretrained, tmp_path)


def test_a_folder_without_weights_is_named(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert "model.safetensors is not there" in complaint(Classifier.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(architecture="resnet19"), "unknown backbone 'resnet19'"),
        (lambda c: c.update(architecture="resnet34"), "layer1.2.conv1.weight is missing"),
        (lambda c: c.update(label_names=["a", "b", "c"], num_classes=3, antbee=UNMEASURED), "fc.weight is (2, 512)"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(editable_config, change, words):
    assert words in complaint(Classifier.from_pretrained, editable_config(change), kind=WeightsError)


def test_a_missing_tensor_is_never_filled_with_random_numbers(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    del state["layer4.1.bn2.running_var"]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    text = complaint(Classifier.from_pretrained, tmp_path, kind=WeightsError)
    assert "layer4.1.bn2.running_var is missing" in text


def changed_weights(folder, target, change):
    """The model folder with other tensors, and a config without their checksums."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    content["antbee"]["files"] = {}
    (target / "config.json").write_text(json.dumps(content))
    return target


def test_weights_in_half_precision_are_loaded_as_float32(folder, tmp_path):
    def halve(state):
        state.update({name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()})

    network = Classifier.from_pretrained(changed_weights(folder, tmp_path, halve), device="cpu").network
    assert network.fc.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_or_a_device_instead_of_a_file_is_refused(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    os.mkfifo(tmp_path / "model" / name)
    assert "not a file" in complaint(Classifier.from_pretrained, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to("/dev/zero")
    assert "not a file" in complaint(Classifier.from_pretrained, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "is_exact"), [("test_resnet", True), ("mobilenetv3_small_050", False), ("test_vit", False)]
)
def test_every_kind_of_network_is_explained_also_after_it_has_predicted(name, is_exact):
    weights = load_starting_weights("random", name)
    network = build_network(name, 2, weights, seed=0)
    config = ClassifierConfig(name, ("ants", "bees"), preprocessing=weights.preprocessing)
    classifier = Classifier(network, config)
    classifier.predict(photo())
    explanation = classifier.explain(photo())
    assert explanation.is_exact == is_exact
    assert explanation.activation_maps.keys() == {"ants", "bees"}
    assert explanation.heatmap.size == explanation.photo.size
