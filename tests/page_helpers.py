"""What the page's tests show: models that learned nothing, quick ones, the page around them, and who calls it."""

import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import torch

from antbee import Classifier, ui
from antbee.data.folder import ImageDataset
from antbee.data.images import open_photo
from antbee.data.transforms import Preprocessing
from antbee.models.config import ClassifierConfig
from antbee.models.detector import KNNDetector, build_detector
from antbee.models.weights import StartingWeights, build_network

SMALL = Preprocessing(crop=96)  # pixels: quick, and as good as any where nothing was learned
JSON = {"Content-Type": "application/json"}
META = {"meta": {"_type": "gradio.FileData"}}  # by which Gradio knows a file
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
    photos: ImageDataset | None = None,
    threshold: float = 1.9,
    preprocessing: Preprocessing = SMALL,
    **config: Any,
) -> Path:
    """An untrained model in a folder, which knows the photos given and answers half of them with either class."""
    network = build_network("resnet18", len(label_names), StartingWeights("random"), seed=seed)
    drawn = {"name": "drawn", "train": {"ants": 12, "bees": 12}, "val": {"ants": 8, "bees": 8}, "skipped": []}
    values: dict[str, Any] = {
        "data": drawn | {"digest": photos.digest if photos else None},
        "weights": {"name": "random", "digest": None, "base_model": None},
        "metrics": METRICS,
    }
    classifier = Classifier(
        network, ClassifierConfig("resnet18", tuple(label_names), preprocessing, mode=mode, **values | config)
    )
    detector = None if photos is None else _acquainted(classifier, photos, threshold)
    Classifier(network, classifier.config, detector).save_pretrained(folder)
    (folder / "history.json").write_text(json.dumps(HISTORY))
    return folder


def _acquainted(classifier: Classifier, photos: ImageDataset, threshold: float) -> KNNDetector:
    """The features of the training photos; the head is moved so that neither of its classes has all answers."""
    features = classifier.features([open_photo(path) for path in photos.train.paths])
    with torch.no_grad():
        head = classifier.network.fc
        head.bias -= head(features).median(0).values
    return build_detector(features, torch.tensor(photos.train.labels), photos.train.names(photos.root), threshold)


def registry_of(models: Sequence[ui.LoadedModel], photos: ImageDataset | None) -> ui.ModelRegistry:
    """A registry of models that are in memory already."""
    registry = ui.ModelRegistry(list, lambda models: photos)
    registry.snapshot = ui.Snapshot(tuple(models), photos)
    return registry


@contextmanager
def serving(page: gr.Blocks, **settings: Any) -> Iterator[str]:
    """The address of a page, on a free loopback port while the block lasts."""
    (address,) = ui.launch(page, host="127.0.0.1", port=free_port(), share=False, **settings)
    yield address
    page.close(verbose=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Caller:
    """A visitor without a browser, who can ask for whatever a browser can."""

    def __init__(self, url: str, language: str = "en", password: str | None = None) -> None:
        self.url = url
        self.session = secrets.token_hex(8)
        self.http = httpx.Client(base_url=url, headers={"Accept-Language": language}, timeout=30, verify=False)
        if password is not None:
            self.http.post("login", data={"username": "antbee", "password": password}).raise_for_status()
        self.config = self.http.get("config").json()

    def parts(self, kind: str, key: str = "") -> list[int]:
        """The ids of the parts of a kind that bear a text of this key, in the page's order."""
        return [
            part["id"]
            for part in self.config["components"]
            if part["type"] == kind and f'"{key}"' in f'"" {part["props"].get("label")} {part["props"].get("value")}'
        ]

    def handlers(self, event: str, part: int | None = None) -> list[dict[str, Any]]:
        """What happens upon an event of a part, or of the whole page."""
        return [
            handler
            for handler in self.config["dependencies"]
            if any(target[1] == event and part in (None, target[0]) for target in handler["targets"])
        ]

    def call(self, handler: dict[str, Any], data: list[Any], event_data: Any = None) -> dict[str, Any]:
        """What a handler answers to values of its inputs: {"data": [...]} or {"error": ...}."""
        self.join(handler, data, event_data).raise_for_status()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer to what this visitor asked."""
        *_, last = self.messages()
        return last["output"]

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the page says until the next answer, and the answer."""
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message:
                    yield message
                if message.get("msg") == "process_completed":
                    return
        raise AssertionError("no answer came")

    def join(self, handler: dict[str, Any], data: list[Any], event_data: Any = None) -> httpx.Response:
        """Asks a handler, without waiting for its answer."""
        body = {"data": data, "event_data": event_data, "fn_index": handler["id"], "session_hash": self.session}
        text = json.dumps(body)  # which has a way to write half a letter; httpx has none
        return self.http.post("gradio_api/queue/join", content=text, headers=JSON)

    @property
    def predict(self) -> dict[str, Any]:
        """The handler that is the page's API."""
        (found,) = [handler for handler in self.config["dependencies"] if handler["api_name"] == "predict"]
        return found

    def initial(self, handler: dict[str, Any]) -> list[Any]:
        """The values that a handler's inputs have when the page is opened."""
        props = {part["id"]: part["props"] for part in self.config["components"]}
        return [props[part].get("value") for part in handler["inputs"]]

    def upload(self, *paths: Path) -> list[dict[str, Any]]:
        """What a browser sends of files that it has uploaded."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        return [{"path": path, **META} for path in self.http.post("gradio_api/upload", files=files).json()]
