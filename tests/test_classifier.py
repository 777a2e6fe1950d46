"""The model folder: what is saved is what is loaded, by antbee, torchvision, timm and transformers alike."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet18_Weights, resnet18

from antbee import Classifier, classifier, model
from antbee.classifier import ClassifierConfig, ModelFolderError, replacing
from antbee.drawn import draw
from antbee.hub.card import model_card
from antbee.images import Preprocessing, pixels_of

CONFIG = ClassifierConfig(
    architecture="resnet18",
    label_names=("ants", "bees"),
    preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    version="0.1.0",
    mode="finetune",
    seed=3,
    recipe={"name": "fast", "epochs": 5},
    data={"name": "drawn", "train": {"ants": 1, "bees": 1}, "skipped": []},
    weights={"name": "random", "digest": None, "base_model": None},
    metrics={
        "kept": {"epoch": 4, "accuracy": 0.9, "loss": 0.3, "correct": 9, "count": 10, "interval": [0.8, 0.95]},
        "last": {"epoch": 5, "accuracy": 0.8, "loss": 0.4, "correct": 8, "count": 10, "interval": [0.7, 0.9]},
        "confusion": [[5, 1], [0, 4]],
        "parameters": {"total": 11_177_538, "trainable": 11_177_538},
        "epochs": 5,
        "seconds": 12.34,
        "selected_on": "val",
        "macro": {"precision": 0.9, "recall": 0.92, "f1": 0.9},
        "per_class": [
            {"precision": 1.0, "recall": 0.83, "f1": 0.91},
            {"precision": 0.8, "recall": 1.0, "f1": 0.89},
        ],
        "auc": 0.95,
        "calibration_error": 0.05,
        "calibration": {"temperature": 1.5, "folds": 2, "loss_before": 0.5, "error_before": 0.1},
        "neither": {
            "threshold": 0.7,
            "rate": 0.05,
            "val": {"found": 1, "count": 10},
            "foreign": {"noise": {"found": 15, "count": 20}},
            "left_out": None,
        },
        "zero_shot": {"accuracy": 0.8, "correct": 8, "count": 10, "interval": [0.5, 0.9], "loss": 0.5},
        "cleaned": {"accuracy": 1.0, "correct": 8, "count": 8, "interval": [0.7, 1.0], "loss": 0.2},
        "learning_curve": [{"per_class": 5, "photos": 10, "accuracies": [0.6, 0.7]}],
        "enough_data": "More would help.",
        "seeds": {
            "kept": {"values": [0.8, 0.9], "mean": 0.85, "deviation": 0.07, "interval": [0.2, 1.4]},
            "last": None,
        },
    },
    run="abc",
)


UNMEASURED = {"format": 1}  # the least that stands under "antbee"


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
    assert replace(loaded.config, files={}) == CONFIG
    assert loaded.config.files.keys() == {"model.safetensors"}
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
    assert replace(Classifier.from_pretrained(tmp_path, device="cpu").config, files={}) == config


def test_class_names_that_are_no_valid_unicode_come_back(tmp_path):
    config = ClassifierConfig("resnet18", ("ants", os.fsdecode(b"b\xff")))
    new_classifier(config).save_pretrained(tmp_path)
    assert replace(Classifier.from_pretrained(tmp_path, device="cpu").config, files={}) == config


# ---- made by others --------------------------------------------------------------------------------------------------


def write_foreign(folder, config, network):
    folder.mkdir(exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "names", [{"label_names": ["cat", "dog", "owl"]}, {"id2label": {"0": "cat", "1": "dog", "2": "owl"}}]
)
def test_a_resnet_whose_config_names_only_network_and_labels_is_prepared_as_torchvision_does(tmp_path, names):
    network = resnet18(num_classes=3).eval()
    loaded = Classifier.from_pretrained(write_foreign(tmp_path, {"architecture": "resnet18"} | names, network))
    assert loaded.config == ClassifierConfig("resnet18", ("cat", "dog", "owl"))
    images = ResNet18_Weights.IMAGENET1K_V1.transforms()(photo())[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded.logits([photo()]), network(images), rtol=1e-4, atol=1e-4)


def test_a_resnet_that_timm_saved_is_loaded_with_timms_preprocessing_and_logits(tmp_path):
    timm = pytest.importorskip("timm")
    # Its pretrained_cfg is that of timm's own weights: bicubic, and another share for the crop.
    network = timm.create_model("resnet50", num_classes=3).train()
    network(torch.randn(4, 3, 64, 64))  # gives BatchNorm statistics with which logits stay small
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


def test_what_timm_saves_again_is_loaded_with_the_same_logits(folder, tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert (loaded.config.label_names, loaded.config.preprocessing) == (("ants", "bees"), CONFIG.preprocessing)
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


def test_timms_older_layout_of_one_object_is_read_with_its_preprocessing(tmp_path):
    timm = pytest.importorskip("timm")
    pretrained = {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95}
    pretrained |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "labels": ["cat", "dog"], "num_classes": 2}
    write_foreign(tmp_path, {"architecture": "resnet18"} | pretrained, resnet18(num_classes=2))
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.config.label_names == ("cat", "dog")
    assert torch.equal(
        loaded.config.preprocessing.normalise(pixels_of([loaded.crop(photo())])), transform(photo())[None]
    )


@pytest.mark.filterwarnings("default")  # other people's warnings about each other
def test_what_transformers_saves_again_is_loaded_with_the_same_logits(folder, tmp_path):
    pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    transformers.AutoModelForImageClassification.from_pretrained(folder).save_pretrained(tmp_path)
    loaded = Classifier.from_pretrained(tmp_path, device="cpu")
    assert loaded.config.label_names == ("ants", "bees")
    assert torch.equal(loaded.logits([photo()]), new_classifier().logits([photo()]))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}, "no 'architecture' where"),
        ({"architecture": "vit_base_patch16_224", "label_names": ["a", "b"]}, "unknown architecture 'vit_base"),
        ({"architecture": "resnet18", "num_classes": 1000}, "no 'label_names' where"),
    ],
)
def test_a_foreign_config_that_is_of_no_resnet_or_names_no_labels_is_a_clear_error(tmp_path, config, words):
    write_foreign(tmp_path, config, resnet18(num_classes=2))
    assert words in complaint(Classifier.from_pretrained, tmp_path, kind=ValueError)


# ---- predicting ------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_logits():
    holder = new_classifier()
    (prediction,) = holder.predict([photo()])
    expected = torch.softmax(holder.logits([photo()])[0], 0).tolist()
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


def test_features_are_what_the_head_answers_to_and_can_be_learned_from():
    holder = new_classifier()
    photos = [photo(seed) for seed in range(3)]
    features = holder.features(photos)
    assert (features.shape, features.dtype, features.device.type) == ((3, 512), torch.float32, "cpu")
    torch.testing.assert_close(holder.network.fc(features), holder.logits(photos))
    assert torch.equal(features, holder.features_of_crops([holder.crop(one) for one in photos]))
    head = torch.nn.Linear(512, 2)
    head(features).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_another_head_answers_on_the_very_same_backbone_and_leaves_the_first_as_it_is():
    holder = new_classifier()
    answers, weights = holder.logits([photo()]), holder.network.fc.weight.clone()
    head = model.new_head(512, 3, seed=1)
    config = replace(CONFIG, label_names=("a", "b", "c"), metrics={})
    other = holder.with_head(head, config)
    with torch.inference_mode():
        torch.testing.assert_close(other.logits([photo()]), head(holder.features([photo()])))
        head.weight.zero_()
    assert list(other.predict([photo()])[0].probabilities) == ["a", "b", "c"]
    assert other.network.fc.weight.any()  # nor does whoever gave the head change it any more
    assert torch.equal(holder.network.fc.weight, weights)
    assert torch.equal(holder.logits([photo()]), answers)
    for own, shared in ((other.network, holder.network), (other._folded, holder._folded)):
        places = {name: tensor.data_ptr() for name, tensor in shared.state_dict().items()}
        assert [n for n, t in own.state_dict().items() if t.data_ptr() != places[n]] == ["fc.weight", "fc.bias"]


def test_a_backbone_is_known_by_its_digest_whatever_its_head(folder):
    holder = new_classifier()
    assert len(holder.backbone_digest) == 64
    assert Classifier.from_pretrained(folder, device="cpu").backbone_digest == holder.backbone_digest
    config = replace(CONFIG, label_names=("a", "b", "c"))
    assert holder.with_head(model.new_head(512, 3, seed=1), config).backbone_digest == holder.backbone_digest
    with torch.no_grad():
        holder.network.layer4[1].bn2.running_mean[0] += 1e-3
    assert new_classifier().backbone_digest != Classifier(holder.network, CONFIG).backbone_digest


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
        (lambda c: c["pretrained_cfg"].pop("mean"), "no 'mean' where three numbers should be"),
        (lambda c: c.pop("architecture"), "no 'architecture' where a network's name should be: expected a config by"),
        (lambda c: c.update(architecture=["resnet18"]), "architecture is ['resnet18'], expected a network's name"),
        (lambda c: c.update(label_names="ants"), "label_names is 'ants', expected a list"),
        (lambda c: c.update(label_names=["ants"]), "expected two names or more"),
        (lambda c: c.update(label_names=["ants", "ants"]), "each another one"),
        (lambda c: c.update(label_names=["ants", " "]), "expected two names or more"),
        (lambda c: c.update(label_names={"0": "ants", "2": "bees"}), "expected two names or more"),
        (lambda c: c.update(label_names=None), "label_names is None, expected a list of names"),
        (lambda c: c.update(num_classes=3), "num_classes is 3, expected 2"),
        (lambda c: c.update(global_pool="max"), "global_pool is 'max', expected 'avg'"),
        (lambda c: c.update(model_args={"output_stride": 16}), "model_args has ['output_stride']"),
        (lambda c: c.update(model_args={"in_chans": 1}), "expected those of a plain ResNet"),
        (lambda c: c.update(pretrained_cfg=[]), "pretrained_cfg is [], expected an object"),
        (lambda c: c["pretrained_cfg"].update(interpolation="nearest"), "interpolation is 'nearest'"),
        (lambda c: c["pretrained_cfg"].update(interpolation=["bilinear"]), "interpolation is ['bilinear']"),
        (lambda c: c["pretrained_cfg"].update(crop_mode="squash"), "only 'center' is known"),
        (lambda c: c["pretrained_cfg"].update(input_size=[1, 224, 224]), "input_size is [1, 224, 224]"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 224, 192]), "input_size is [3, 224, 192]"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 10**9, 10**9]), "32 to 1024 pixels"),
        (lambda c: c["pretrained_cfg"].update(crop_pct=0), "crop_pct is 0, expected 0.1 to 1"),
        (lambda c: c["pretrained_cfg"].update(crop_pct="0.9"), "crop_pct is '0.9'"),
        (lambda c: c["pretrained_cfg"].update(std=[0, 0.2, 0.2]), "std is [0, 0.2, 0.2], expected three numbers above"),
        (lambda c: c["pretrained_cfg"].update(mean=[0.5, 0.5]), "mean is [0.5, 0.5], expected three numbers"),
        (lambda c: c["pretrained_cfg"].update(mean=[0.5, 0.5, float("nan")]), "mean is [0.5, 0.5, nan]"),
        (lambda c: c.update(antbee=[]), "antbee is [], expected an object"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, [], []]), "input_size is [3, [], []]"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 1024, 1024], crop_pct=0.1), "larger than 1280 pixels"),
        (lambda c: c["antbee"].update(format=2), "format 2, this antbee reads 1: install the antbee that wrote it"),
        (lambda c: c["antbee"].pop("format"), "format None, this antbee reads 1"),
        (lambda c: c["antbee"].update(seed="0"), "seed is '0', expected a seed"),
        (lambda c: c["antbee"].update(mode={}), "mode is {}, expected frozen or finetune"),
        (lambda c: c["antbee"].update(data="ants"), "data is 'ants', expected an object"),
        (lambda c: c["antbee"]["metrics"].pop("kept"), "no 'kept'"),
        (lambda c: c["antbee"]["metrics"]["last"].pop("accuracy"), "no 'accuracy'"),
        (lambda c: c["antbee"]["metrics"].update(seconds="12"), "seconds is '12'"),
        (lambda c: c["antbee"]["recipe"].update(smallest_crop=float("nan")), "smallest_crop is nan"),
        (lambda c: c["antbee"]["data"].update(skipped=[{}]), "skipped is [{}], expected files with reasons"),
        (lambda c: c["antbee"]["metrics"]["kept"].update(interval=[0]), "interval has 1 entries, expected 2"),
        (
            lambda c: c["antbee"]["metrics"].update(confusion=[[1, 2]]),
            "confusion has 1 entries, expected 2",
        ),
        (lambda c: c["antbee"]["metrics"].update(confusion=[[1], [2]]), "confusion has 1 entries, expected 2"),
        (lambda c: c["antbee"]["metrics"].update(confusion=[[1, 2], 3]), "confusion is 3, expected a list"),
        (lambda c: c["antbee"]["metrics"]["neither"].update(val=[]), "val is [], expected an object"),
        (lambda c: c["antbee"]["metrics"].update(cross_validation=2.5), "cross_validation is 2.5, expected a count"),
        (lambda c: c["antbee"]["metrics"]["neither"]["foreign"].update(noise=3), "foreign of 'noise' is 3, expected"),
        (lambda c: c["antbee"]["metrics"]["calibration"].update(temperature=-1), "temperature is -1, expected a num"),
        (lambda c: c["antbee"]["data"].update(excluded=[1]), "excluded is [1], expected a list of files"),
    ],
)
def test_a_config_that_says_something_wrong_is_refused_by_file_and_key(editable_config, change, words):
    folder = editable_config(change)
    text = complaint(Classifier.from_pretrained, folder)
    assert words in text
    assert text.startswith(f"{folder / 'config.json'} can't be used: ")


JUNK = (None, True, -1, 5, 10**400, 1e400, float("nan"), "", "x", "\ud800", [], {}, [[]], [{}], {"a": "b"}, [3, {}, {}])


def everywhere(content, path=()):
    """The way to every value of a JSON object, however deep."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from everywhere(value, (*path, key))


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize("of_its_own", [{}, {"cross_validation": 5}])
def test_whatever_stands_wherever_in_a_config_it_is_shown_or_refused_in_one_line(of_its_own):
    data = CONFIG.data | {"skipped": [{"file": "a", "reason": "b"}]}
    config = replace(CONFIG, data=data, metrics=CONFIG.metrics | of_its_own)
    whole = config.to_json() | {"model_args": {"num_classes": 2}}
    refusals = []
    for place_number, path in enumerate(everywhere(whole)):
        for junk_number, junk in enumerate((*JUNK, nested(500))):
            content = json.loads(json.dumps(whole))
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk
            try:
                read = ClassifierConfig.from_json(content)
                if (place_number + junk_number) % 4 == 0:  # a card takes a tenth of a second
                    model_card(read.to_json(), [classifier.COMPARISON_COLUMNS, *classifier.comparison([read])])
                model.check_architecture(read.architecture)
            except (ModelFolderError, model.WeightsError) as error:
                refusals.append(str(error))
    assert len(refusals) > 300
    assert all(len(refusal.splitlines()) == 1 and len(refusal) < 500 for refusal in refusals)


def test_a_history_is_read_or_refused_by_its_file(tmp_path):
    assert classifier.read_history(tmp_path) == ()
    (tmp_path / "history.json").write_text('[{"epoch": 1, "val_loss": 0.5}]')
    assert classifier.read_history(tmp_path) == ({"epoch": 1, "val_loss": 0.5},)
    for broken in ("{", "{}", "[1]", '[{"val_loss": 1}]', '[{"epoch": "1"}]'):
        (tmp_path / "history.json").write_text(broken)
        assert "history.json" in complaint(classifier.read_history, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(architecture="vgg11"), "unknown architecture 'vgg11'"),
        (lambda c: c.update(architecture="resnet34"), "layer1.2.conv1.weight is missing"),
        (lambda c: c.update(label_names=["a", "b", "c"], num_classes=3, antbee=UNMEASURED), "fc.weight is (2, 512)"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(editable_config, change, words):
    assert words in complaint(Classifier.from_pretrained, editable_config(change), kind=model.WeightsError)


def test_a_missing_tensor_is_never_filled_with_random_numbers(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    del state["layer4.1.bn2.running_var"]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    text = complaint(Classifier.from_pretrained, tmp_path, kind=model.WeightsError)
    assert "layer4.1.bn2.running_var is missing" in text


def changed_weights(folder, target, change):
    """The model folder with other tensors, and a config that takes them for its own."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    content["antbee"]["files"] = {}
    (target / "config.json").write_text(json.dumps(content))
    return target


def test_weights_in_half_precision_are_taken(folder, tmp_path):
    def halve(state):
        state.update({name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()})

    network = Classifier.from_pretrained(changed_weights(folder, tmp_path, halve), device="cpu").network
    assert network.fc.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_or_a_device_in_a_files_place_is_never_waited_for(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    os.mkfifo(tmp_path / "model" / name)
    assert "not a file" in complaint(Classifier.from_pretrained, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to("/dev/zero")
    assert "not a file" in complaint(Classifier.from_pretrained, tmp_path / "model")


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
    assert rows[0] == ("finetune", "11,177,538", "90.0%", "80.0% to 95.0%", "4 of 5", "val", "80.0%", "12.3")
    assert len(rows[0]) == len(classifier.COMPARISON_COLUMNS)


def test_the_comparison_says_which_accuracy_is_cross_validated():
    (row,) = classifier.comparison([replace(CONFIG, metrics=CONFIG.metrics | {"cross_validation": 5})])
    assert row[2] == "90.0% (cross-validated)"
