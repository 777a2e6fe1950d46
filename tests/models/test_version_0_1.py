"""Model folders written by version 0.1 are loaded, and give the predictions that version 0.1 gave.

The configs are files of version 0.1. Weights, detector and photo come from exact integer arithmetic, so that they need
not be stored. `predictions_0_1.json` is what `predictions` returned for these folders with version 0.1.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torchvision.models import resnet18

from antbee import Classifier

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "predictions_0_1.json").read_text())
THRESHOLDS = {"frozen": 0.3, "finetune": 1.2}  # one below the photo's distance to the training images, one above


def uniform(shape, seed):
    """Pseudorandom multiples of 2**-16 in 0..1: float32, equal on every machine."""
    numbers = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64) + np.uint64(seed << 32)
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # the mixing function of SplitMix64
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(multiplier)
    return torch.from_numpy((numbers >> np.uint64(48)).astype(np.float32) / 2**16).reshape(shape)


def weights(seed):
    """Weights of a ResNet-18 of two classes, with activations of about unit scale."""
    state = {}
    for number, (name, tensor) in enumerate(resnet18(num_classes=2).state_dict().items()):
        values = uniform(tuple(tensor.shape), 1000 * seed + number)
        if tensor.dim() > 1:  # zero mean, and the variance of He's initialisation
            values = (values - 0.5) * (24 / tensor[0].numel()) ** 0.5
        elif name.endswith(("weight", "running_var")):
            values = 0.5 + values / 2
        else:
            values = (values - 0.5) / 4
        if name.startswith("fc."):  # for probabilities away from 0 and 1
            values = values / 8
        state[name] = torch.tensor(7) if name.endswith("num_batches_tracked") else values
    return state


def detector(seed, threshold):
    """The features, labels and threshold of a detector with 15 training images."""
    features = torch.nn.functional.normalize(uniform((15, 512), 1000 * seed + 999).double()).float()
    return {
        "features": features,
        "labels": torch.arange(15) % 2,
        "threshold": torch.tensor(threshold, dtype=torch.float64),
    }


def photo():
    """A photo that is larger than the network's input, and not square."""
    y, x, channel = np.ogrid[:260, :340, :3]
    return Image.fromarray(((3 * x + 5 * y + x * y // 50 + 60 * channel) % 256).astype(np.uint8))


def write_folder(folder, mode):
    """A model folder with the config of version 0.1 and the digests of its files."""
    seed = len(mode)
    names = json.dumps([f"train/{'bees' if number % 2 else 'ants'}/{number}.jpg" for number in range(15)])
    files = {
        "model.safetensors": safetensors.torch.save(weights(seed), {"format": "pt"}),
        "neighbours.safetensors": safetensors.torch.save(
            detector(seed, THRESHOLDS[mode]), {"format": "pt", "names": names}
        ),
    }
    config = json.loads((HERE / f"config_0_1_{mode}.json").read_text())
    config["antbee"]["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def predictions(folder):
    """What a classifier computes for the photo, as JSON; both versions have these methods."""
    classifier = Classifier.from_pretrained(folder, device="cpu")
    (prediction,) = classifier.predict([photo()])
    return {
        "logits": classifier.logits([photo()])[0].tolist(),
        "probabilities": prediction.probabilities,
        "verdict": prediction.verdict,
        "distance": prediction.distance,
        "threshold": prediction.threshold,
        "neighbours": [[one.name, one.label, one.distance] for one in classifier.explain(photo()).neighbours],
    }


@pytest.mark.parametrize("mode", THRESHOLDS)
def test_a_folder_of_version_0_1_gives_the_predictions_of_version_0_1(mode, tmp_path):
    expected, found = EXPECTED[mode], predictions(write_folder(tmp_path, mode))
    for key in ("logits", "probabilities", "distance"):
        assert found[key] == pytest.approx(expected[key], abs=1e-6)
    assert (found["verdict"], found["threshold"]) == (expected["verdict"], expected["threshold"])
    for near, old in zip(found["neighbours"], expected["neighbours"], strict=True):
        assert near[:2] == old[:2]
        assert near[2] == pytest.approx(old[2], abs=1e-6)


def test_the_folders_of_version_0_1_cover_a_class_and_neither():
    assert [EXPECTED[mode]["verdict"] in ("ants", "bees") for mode in THRESHOLDS] == [False, True]


@pytest.mark.parametrize("mode", THRESHOLDS)
def test_a_folder_of_version_0_1_that_is_saved_again_gives_the_same_predictions(mode, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    Classifier.from_pretrained(write_folder(old, mode), device="cpu").save_pretrained(new)
    assert predictions(new) == predictions(old)
