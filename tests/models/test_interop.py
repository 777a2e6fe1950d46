"""Model folders of timm and transformers load with the logits and the class names that they have there."""

import json

import pytest
import torch
from safetensors.torch import save_file

from antbee import Classifier
from antbee.data.drawn import draw
from antbee.models.backbone import create_network
from antbee.models.config import ModelFolderError
from antbee.models.interop import RESNETS, in_timms_layout, timms_tensors
from antbee.models.tensors import WeightsError
from antbee.models.weights import build_network, choose_network

NAMES = ("ants", "bees", "wasps")
IMAGES = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 96},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "crop_size": None,
}
RESNET = {"model_type": "resnet", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}


def with_statistics(network):
    """The network with BatchNorm statistics that are not the initial ones, in evaluation mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def written(folder, tensors, config, **others):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def refused(content, folder, processor=PROCESSOR):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ModelFolderError) as raised:
        in_timms_layout(content, folder)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- transformers ----------------------------------------------------------------------------------------------------


def transformers_resnet(layer_type, depths, **options):
    transformers = pytest.importorskip("transformers")
    widths = [64, 128, 256, 512] if layer_type == "basic" else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(
        layer_type=layer_type, depths=list(depths), hidden_sizes=widths, id2label=dict(enumerate(NAMES)), **options
    )
    return transformers, transformers.ResNetForImageClassification(config)


@pytest.mark.filterwarnings("default")  # other people's warnings about each other
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_a_resnet_of_transformers_has_the_same_logits_names_and_preprocessing(tmp_path, architecture):
    ((layer_type, depths),) = [key for key, name in RESNETS.items() if name == architecture]
    transformers, network = transformers_resnet(layer_type, depths)
    with_statistics(network).save_pretrained(tmp_path)
    processor = transformers.ConvNextImageProcessor(**{key: PROCESSOR[key] for key in ("size", "crop_pct", "resample")})
    processor.save_pretrained(tmp_path)

    classifier = Classifier.from_pretrained(tmp_path, device="cpu")
    assert (classifier.config.architecture, classifier.config.label_names) == (architecture, NAMES)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.network(IMAGES), network(IMAGES).logits, rtol=1e-4, atol=1e-4)
        photo = draw("bees", 0, 320)
        theirs = network(processor(photo, return_tensors="pt")["pixel_values"]).logits
        torch.testing.assert_close(classifier.logits([photo]), theirs, rtol=0.05, atol=0.05)

    found, weights, _ = choose_network(None, str(tmp_path))  # to train from
    assert (found, weights.preprocessing) == (architecture, classifier.config.preprocessing)
    started = build_network(found, 2, weights, seed=0)
    state = classifier.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in started.state_dict().items() if name[:3] != "fc.")

    classifier.save_pretrained(tmp_path / "again")  # in timm's layout, with nothing of the other one
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert not saved.keys() & {"model_type", "architectures", "depths", "id2label"}
    again = Classifier.from_pretrained(tmp_path / "again", device="cpu")
    assert torch.equal(again.logits([photo]), classifier.logits([photo]))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("kind", "architecture"), RESNETS.items())
def test_every_tensor_of_a_resnet_of_transformers_is_one_of_timms(kind, architecture):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        _, theirs = transformers_resnet(*kind)
        ours = create_network(architecture, len(NAMES))
    shapes = {name: tensor.shape for name, tensor in timms_tensors(theirs.state_dict()).items()}
    assert shapes == {name: tensor.shape for name, tensor in ours.state_dict().items()}


@pytest.mark.filterwarnings("default")
def test_a_network_of_timm_that_transformers_saved_has_the_same_logits_and_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    pretrained = {
        "input_size": [3, 96, 96],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    content = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "label_names": list(NAMES),
        "pretrained_cfg": pretrained,
    }
    config = transformers.TimmWrapperConfig.from_dict(content)
    network = transformers.TimmWrapperForImageClassification(config)
    with_statistics(network).save_pretrained(tmp_path)
    assert '"model_type": "timm_wrapper"' in (tmp_path / "config.json").read_text()

    classifier = Classifier.from_pretrained(tmp_path, device="cpu")
    assert classifier.config.label_names == NAMES
    assert classifier.config.preprocessing.crop == 96
    found, weights, _ = choose_network(None, str(tmp_path))  # to train from
    assert (found, build_network(found, 2, weights, seed=0).num_classes) == ("test_resnet", 2)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.network(IMAGES), network(IMAGES).logits, rtol=1e-4, atol=1e-4)
    classifier.save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "neighbours.safetensors").unlink(missing_ok=True)
    reloaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "again").eval()
    with torch.inference_mode():
        torch.testing.assert_close(reloaded(IMAGES).logits, network(IMAGES).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depths": [1, 1, 1, 1]}, "has basic layers of depths (1, 1, 1, 1)"),
        ({"hidden_sizes": [8, 16, 32, 64]}, "and sizes (8, 16, 32, 64), expected one of timm's: resnet18, resnet34"),
        ({"layer_type": "bottleneck", "downsample_in_bottleneck": True}, "with the stride in its 1 x 1 convolutions"),
        ({"layer_type": "wide"}, "layer_type is 'wide', expected 'basic' or 'bottleneck'"),
        ({"embedding_size": 32}, "embedding_size is 32, expected 64"),
        ({"num_channels": 1}, "num_channels is 1, expected 3"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'relu'"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage is True, expected False"),
        ({"depths": "2222"}, "depths is '2222', expected"),
        ({"depths": [2] * 100_000}, "depths is [2, 2, 2, 2, 2, 2, ...], expected 8 entries"),
        ({"id2label": {"0": "ants", "2": "bees"}}, "id2label[1] is None"),
        ({"id2label": ["ants"]}, "id2label is ['ants'], expected 2 to 1000 different names"),
        ({"model_type": "vit"}, "this is a 'vit' of transformers, expected a ResNet of it, or a network of timm"),
    ],
)
def test_a_network_of_transformers_that_timm_does_not_have_is_refused(tmp_path, change, words):
    assert words in refused(RESNET | change, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is 'ViTImageProcessor', expected"),
        ({"size": {"shortest_edge": 384}}, "size is 384, at which transformers squeezes photos"),
        ({"size": {"height": 224, "width": 224}}, "size"),
        ({"resample": 0}, "resample is 0, expected 2 or 3"),
        ({"do_normalize": False}, "do_normalize is False, expected True"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
        ({"crop_pct": 0}, "crop_pct is 0, expected more than 0"),
    ],
)
def test_preprocessing_that_antbee_does_not_do_is_refused(tmp_path, change, words):
    text = refused(RESNET, tmp_path, PROCESSOR | change)
    assert text.startswith("preprocessor_config.")
    assert words in text


def test_a_resnet_without_its_preprocessing_is_refused(tmp_path):
    with pytest.raises(ModelFolderError, match=r"no preprocessor_config\.json beside it"):
        in_timms_layout(RESNET, tmp_path)


@pytest.mark.parametrize("junk", [None, [], "x", 3, [{}], {"size": []}])
def test_junk_in_the_preprocessing_is_refused(tmp_path, junk):
    assert "preprocessor_config" in refused(RESNET, tmp_path, junk)


def test_names_of_tensors_that_would_fall_together_stay_and_are_refused(tmp_path):
    tensors = {"resnet.embedder.embedder.convolution.weight": torch.zeros(1), "conv1.weight": torch.ones(1)}
    assert timms_tensors(tensors).keys() == tensors.keys()
    folder = written(tmp_path / "model", tensors, RESNET, preprocessor_config=PROCESSOR)
    with pytest.raises(WeightsError, match="is missing"):
        Classifier.from_pretrained(folder, device="cpu")


# ---- timm ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"num_classes": 3}, {"pretrained_cfg": {"num_classes": 3}}])
def test_classes_without_names_are_numbered(tmp_path, config):
    config = {"architecture": "test_resnet"} | config
    pretrained = config.get("pretrained_cfg")
    if pretrained is not None:
        pretrained |= {
            "input_size": [3, 96, 96],
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    folder = written(tmp_path / "model", create_network("test_resnet", 3).state_dict(), config)
    assert Classifier.from_pretrained(folder, device="cpu").config.label_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("count", [0, 1, 1001, -5, 10**100])
def test_too_few_or_too_many_classes_without_names_are_refused(tmp_path, count):
    assert "num_classes is" in refused({"architecture": "test_resnet", "num_classes": count}, tmp_path)


def test_equal_names_are_told_apart_by_their_numbers(tmp_path):
    content = {"architecture": "test_resnet", "label_names": ["crane", "bee", "crane"]}
    assert in_timms_layout(content, tmp_path)["label_names"] == ["crane (0)", "bee", "crane (2)"]


def test_a_config_of_antbees_own_stays_as_it_is(tmp_path):
    content = {"architecture": "test_resnet", "num_classes": 2, "antbee": {}, "model_type": "x"}
    assert in_timms_layout(content, tmp_path) == content
