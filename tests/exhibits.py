"""What the page's tests show: models that learned nothing, quick ones, and the page around them."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from antbee import Classifier, model, ui
from antbee.classifier import ClassifierConfig
from antbee.data import PhotoFolder, open_photo
from antbee.images import Preprocessing
from antbee.neighbours import FeatureBank, build_bank

SMALL = Preprocessing(crop=96)  # pixels: quick, and as good as any where nothing was learned
HISTORY = [
    {"epoch": epoch, "learning_rate": 0.1}
    | {f"{split}_{name}": epoch / 10 for split in ("train", "val") for name in ("loss", "accuracy", "seconds")}
    for epoch in (1, 2, 3)
]
RESULT = {"epoch": 2, "accuracy": 0.75, "loss": 0.5, "correct": 12, "count": 16, "interval": [0.51, 0.9]}
METRICS = {
    "kept": RESULT,
    "last": RESULT,
    "selected_on": "val",
    "confusion": [[6, 2], [2, 6]],
    "epochs": 3,
    "seconds": 1.5,
    "parameters": {"total": 11_177_538, "trainable": 1_026},
}


def write_model(
    folder: Path,
    mode: str | None = None,
    *,
    seed: int = 0,
    label_names: Sequence[str] = ("ants", "bees"),
    photos: PhotoFolder | None = None,
    threshold: float = 1.9,
    **config: Any,
) -> Path:
    """An untrained model in a folder, which knows the photos given and answers half of them with either class."""
    network = model.build_network("resnet18", len(label_names), model.StartingWeights("random"), seed=seed)
    drawn = {"name": "drawn", "train": {"ants": 12, "bees": 12}, "val": {"ants": 8, "bees": 8}, "skipped": []}
    told: dict[str, Any] = {
        "data": drawn | {"digest": photos.digest if photos else None},
        "weights": {"name": "random", "digest": None, "base_model": None},
        "metrics": METRICS,
    }
    classifier = Classifier(
        network, ClassifierConfig("resnet18", tuple(label_names), SMALL, mode=mode, **told | config)
    )
    bank = None if photos is None else _acquainted(classifier, photos, threshold)
    Classifier(network, classifier.config, bank).save_pretrained(folder)
    (folder / "history.json").write_text(json.dumps(HISTORY))
    return folder


def _acquainted(classifier: Classifier, photos: PhotoFolder, threshold: float) -> FeatureBank:
    """The features of the training photos; the head is moved so that neither of its classes has all answers."""
    features = classifier.features([open_photo(path) for path in photos.train.paths])
    with torch.no_grad():
        head = classifier.network.fc
        head.bias -= head(features).median(0).values
    return build_bank(features, torch.tensor(photos.train.labels), photos.train.names(photos.root), threshold)


def exhibition_of(models: Sequence[ui.Shown], photos: PhotoFolder | None) -> ui.Exhibition:
    """An exhibition of models that are in memory already."""
    exhibition = ui.Exhibition(list, lambda models: photos)
    exhibition.now = ui.Exhibit(tuple(models), photos)
    return exhibition


@contextmanager
def serving(page: gr.Blocks) -> Iterator[str]:
    """The address of a page, on a free loopback port while the block lasts."""
    (address,) = ui.launch(page, host="127.0.0.1", port=free_port(), share=False)
    yield address
    page.close(verbose=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
