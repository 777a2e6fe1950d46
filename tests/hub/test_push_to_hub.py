"""Classifier.push_to_hub, and loading what it pushed from the Hub."""

import json

import pytest
from configs import CONFIG
from PIL import Image

from antbee import Classifier
from antbee.hub import HubError
from antbee.models.detector import build_detector
from antbee.models.weights import StartingWeights, build_network


@pytest.fixture(scope="module")
def classifier():
    """An untrained classifier with a detector."""
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    photos = [Image.new("RGB", (64, 64), (60 * number, 90, 120)) for number in range(4)]
    untrained = Classifier(network, CONFIG)
    labels = untrained.features(photos).argmax(1) % 2
    return Classifier(
        network, CONFIG, build_detector(untrained.features(photos), labels, [f"{n}.jpg" for n in range(4)], 0.1)
    )


def test_weights_config_detector_and_card_are_pushed_in_one_commit(server, classifier):
    url = classifier.push_to_hub("tester/bugs", private=True)
    repository = server.repositories["model", "tester/bugs"]
    assert url == f"{server.url}/tester/bugs/commit/{repository.head.oid}"
    assert repository.private
    assert len(repository.commits) == 2  # the first one created the repository
    assert repository.head.files.keys() >= {"model.safetensors", "config.json", "neighbours.safetensors", "README.md"}
    config = json.loads((server.blobs / repository.head.files["config.json"].sha256).read_text())
    for name in ("model.safetensors", "neighbours.safetensors"):
        assert config["antbee"]["files"][name] == repository.head.files[name].sha256
    card = (server.blobs / repository.head.files["README.md"].sha256).read_text()
    assert "figures/" not in card
    assert "library_name: timm" in card


def test_a_pushed_classifier_is_loaded_from_the_hub_with_equal_predictions(server, classifier):
    photo = Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50)
    classifier.push_to_hub("tester/bugs")
    loaded = Classifier.from_pretrained("tester/bugs", device="cpu")
    assert loaded.predict(photo) == classifier.predict(photo)
    assert loaded.explain(photo).neighbours == classifier.explain(photo).neighbours


def test_the_address_of_a_models_page_on_the_hub_loads_it_as_its_id_does(server, classifier):
    photo = Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50)
    classifier.push_to_hub("tester/bugs")
    loaded = Classifier.from_pretrained("https://huggingface.co/tester/bugs", device="cpu")
    assert loaded.predict(photo) == classifier.predict(photo)


def test_pushing_without_a_connection_is_an_error_of_the_hub(classifier):
    with pytest.raises(HubError):
        classifier.push_to_hub("tester/bugs")
