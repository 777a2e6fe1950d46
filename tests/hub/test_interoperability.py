"""A pushed model in other libraries: timm, transformers, torchvision."""

import re

import pytest
import torch
from hub_helpers import uploaded_text
from PIL import ExifTags, Image
from safetensors.torch import load_file
from torchvision.models import get_model

from antbee import Classifier, hub
from antbee.data.drawn import draw
from antbee.data.transforms import Preprocessing, pixels_of
from antbee.hub.card import model_card
from antbee.models.backbone import create_network
from antbee.models.config import ClassifierConfig


def pushed(folder, architecture, class_count):
    """A classifier that is on the Hub, with logits of a size that trained ones have."""
    torch.manual_seed(0)
    network = create_network(architecture, class_count).train()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))  # without statistics that fit, BatchNorm lets logits grow by thousands
    names = tuple(f"class {number}" for number in range(class_count))
    preprocessing = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    classifier = Classifier(network, ClassifierConfig(architecture, names, preprocessing))
    classifier.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(classifier.config.to_json()))
    hub.push(folder, "tester/bugs")
    return classifier


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes")
@pytest.mark.filterwarnings("default")  # other people's warnings about each other
@pytest.mark.parametrize(("architecture", "class_count"), [("resnet18", 7)])
def test_torchvision_timm_and_transformers_load_it_with_equal_preprocessing_logits_and_names(
    server, tmp_path, architecture, class_count
):
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    classifier = pushed(tmp_path / "model", architecture, class_count)
    photo, names = draw("bees", 0, 320), list(classifier.config.label_names)
    images = classifier.config.preprocessing.normalise(pixels_of([classifier.crop(photo)]))
    expected = classifier.logits([photo])
    assert 0.01 < expected.abs().max() < 100

    with torch.inference_mode():
        plain = get_model(architecture, num_classes=class_count).eval()
        plain.load_state_dict(load_file(hub.pull("tester/bugs") / "model.safetensors"), strict=True)
        torch.testing.assert_close(plain(images), expected, rtol=1e-5, atol=1e-5)

        for source in ("hf-hub:tester/bugs", f"local-dir:{tmp_path / 'model'}"):
            network = timm.create_model(source, pretrained=True).eval()
            settings = timm.data.resolve_data_config({}, model=network)
            assert torch.equal(timm.data.create_transform(**settings, is_training=False)(photo)[None], images)
            assert network.pretrained_cfg["label_names"] == names
            torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)

        for source in ("tester/bugs", str(tmp_path / "model")):
            network = transformers.AutoModelForImageClassification.from_pretrained(source).eval()
            prepared = transformers.AutoImageProcessor.from_pretrained(source)(photo, return_tensors="pt")
            torch.testing.assert_close(prepared["pixel_values"], images, rtol=0, atol=1e-6)
            assert list(network.config.id2label.values()) == names
            torch.testing.assert_close(network(images).logits, expected, rtol=1e-5, atol=1e-5)

    answers = transformers.pipeline("image-classification", model="tester/bugs", device="cpu")(photo, top_k=class_count)
    (own,) = classifier.predict([photo])
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(own.probabilities, abs=1e-5)


@pytest.mark.filterwarnings("default")  # other people's warnings about each other
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_timm_and_transformers_make_photos_square_as_antbee_does(tmp_path, fit):
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    preprocessing = Preprocessing(crop=96, crop_pct=1.0, fit=fit)
    config = ClassifierConfig("test_resnet", ("ants", "bees"), preprocessing)
    Classifier(create_network("test_resnet", 2), config).save_pretrained(tmp_path)
    classifier = Classifier.from_pretrained(tmp_path, device="cpu")
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    processor = transformers.AutoImageProcessor.from_pretrained(str(tmp_path))
    for size in [(252, 30), (31, 98), (96, 96)]:
        photo = draw("bees", 0, 320).resize(size)
        images = preprocessing.normalise(pixels_of([classifier.crop(photo)]))
        assert torch.equal(transform(photo)[None], images)
        prepared = processor(photo, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(prepared, images, rtol=0, atol=1e-6)


def test_the_code_in_the_card_runs_and_says_the_same_in_all_three_libraries(server, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path / "network"
    config = ClassifierConfig("resnet18", ("ants", "bees"))
    Classifier(create_network("resnet18", 2), config).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(config.to_json()))
    hub.push(folder, "tester/bugs")
    sideways = Image.Exif()
    sideways[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").save(tmp_path / "photo.jpg", exif=sideways)  # neither upright nor RGB
    monkeypatch.chdir(tmp_path)

    printed = []
    card = uploaded_text(server.repositories["model", "tester/bugs"], "README.md", server)
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(code, {"print": lambda *values: printed.append(values)})
    (antbee,), (names, timm), (transformers,) = printed
    answers = (
        antbee.probabilities,
        dict(zip(names, timm[0].tolist(), strict=True)),
        {row["label"]: row["score"] for row in transformers},
    )
    assert answers[0].keys() == {"ants", "bees"}
    assert all(answer == pytest.approx(answers[0], abs=1e-4) for answer in answers)
