"""The trained classifier: photos in, class names and probabilities out.

It is saved as one folder, a complete Hub repository that torchvision, timm and transformers load too: torchvision's
keys in `model.safetensors`, timm's `pretrained_cfg` in `config.json`, and everything of antbee's own under "antbee".
"""

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet

from antbee.data.images import open_photo
from antbee.data.transforms import pixels_of
from antbee.models import backbone
from antbee.models.backbone import class_activation_map, feature_count, feature_map, fuse_conv_bn, network_with, pooled
from antbee.models.config import AGAIN, CONFIG_FILE, ClassifierConfig, ModelFolderError, read_config
from antbee.models.detector import DetectorError, KNNDetector
from antbee.models.device import choose_device
from antbee.models.folder import DETECTOR_FILE, UNREAD_WEIGHTS, WEIGHTS_FILE, find_folder
from antbee.models.weights import Tensors, TensorsError, read_tensors, write_tensors

Photo = str | Path | Image.Image
NEITHER = "neither"  # the verdict on a photo that is like none that was learned from


@dataclass(frozen=True)
class Neighbour:
    """A photo that was learned from."""

    name: str  # file, relative to the data folder
    label: str
    distance: float  # of its features, 0 (the same) to 2


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one photo."""

    label: str  # the likeliest class
    probabilities: dict[str, float]  # of every class, by name
    distance: float | None = None  # to the k-th nearest photo learned from; None: no features are kept
    threshold: float | None = None  # the distance beyond which a photo is like none of them; None: too little is known

    @property
    def is_out_of_distribution(self) -> bool:
        """Whether the photo is so unlike all that was learned from that no class should be believed."""
        return self.distance is not None and self.threshold is not None and self.distance > self.threshold

    @property
    def verdict(self) -> str:
        """The likeliest class, or "neither"."""
        return NEITHER if self.is_out_of_distribution else self.label


@dataclass(frozen=True)
class Explanation:
    """A prediction, where in the photo it comes from, and which training photos are nearest to it."""

    prediction: Prediction
    activation_maps: dict[str, Tensor]  # by class: float32 (h, w) over the crop, in logits; see class_activation_map
    neighbours: tuple[Neighbour, ...]  # training photos, nearest first; none where the model has no detector
    photo: Image.Image  # RGB
    crop_box: tuple[float, float, float, float]  # left, top, right, bottom of what the network saw, in pixels

    @property
    def heatmap(self) -> Image.Image:
        """The photo with what speaks for the predicted class glowing in it: RGB, of the photo's size."""
        from antbee.evaluation.plots import heat_map  # matplotlib takes half a second to import

        activation_map = self.activation_maps[self.prediction.label]
        return heat_map(self.photo, activation_map, self.crop_box, strongest=float(activation_map.max()))


class Classifier:
    """A network with its class names and its preprocessing, and the features of the photos it learned from."""

    def __init__(self, network: ResNet, config: ClassifierConfig, detector: KNNDetector | None = None) -> None:
        self.network = network.eval()
        self.config = config
        self.detector = detector

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.network.fc.weight.device

    @cached_property
    def _fused(self) -> ResNet:
        """What answers: the network as it was at the first answer, quicker and equal but for rounding."""
        return fuse_conv_bn(self.network)

    @cached_property
    def backbone_digest(self) -> str:
        """SHA-256 of the backbone: features of one backbone mean nothing to the head of another."""
        return backbone.backbone_digest(self.network)

    def crop(self, photo: Image.Image) -> Image.Image:
        """What the network sees of an RGB photo (see `images.open_photo`)."""
        return self.config.preprocessing.cropped(photo)

    @overload
    def predict(self, photos: Photo) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is a sequence
    @overload
    def predict(self, photos: Sequence[Photo]) -> list[Prediction]: ...
    def predict(self, photos: Photo | Sequence[Photo]) -> Prediction | list[Prediction]:
        """Paths or PIL images -> the likeliest class and every class's probability: one, or a list for a list.

        Raises DataError for a file that is no photo.
        """
        if isinstance(photos, str | Path | Image.Image):
            return self.predict([photos])[0]
        return self.predict_crops([self.crop(_opened(photo)) for photo in photos])

    def predict_crops(self, crops: Sequence[Image.Image]) -> list[Prediction]:
        """The same for what `crop` gave: many crops need less memory than many photos."""
        with torch.inference_mode():
            return self._predictions(pooled(self._fused, self._maps(crops)))

    def features(self, photos: Sequence[Image.Image]) -> Tensor:
        """RGB photos -> what the head sees of them: float32 (N, C) on the CPU, for another head to learn from."""
        return self.features_of_crops([self.crop(photo) for photo in photos])

    def features_of_crops(self, crops: Sequence[Image.Image]) -> Tensor:
        """The same for what `crop` gave: many crops need less memory than many photos."""
        with torch.inference_mode():
            features = pooled(self._fused, self._maps(crops)).cpu()
        return features.clone()  # out here, since nothing can learn from a tensor of inference mode

    def logits(self, photos: Sequence[Image.Image]) -> Tensor:
        """RGB photos -> float32 (N, classes) on the CPU, before the softmax."""
        with torch.inference_mode():
            maps = self._maps([self.crop(photo) for photo in photos])
            logits: Tensor = self._fused.fc(pooled(self._fused, maps))
        return logits.cpu()

    def explain(self, photo: Photo, neighbours: int = 4) -> Explanation:
        """A path or a PIL image -> its prediction, an activation map for every class, and the nearest training photos.

        Raises DataError for a file that is no photo.
        """
        photo, head = _opened(photo), self._fused.fc
        box = self.config.preprocessing.crop_box(photo.width, photo.height)
        with torch.inference_mode():
            maps = self._maps([self.crop(photo)])
            features = pooled(self._fused, maps)
            activation_maps = {
                name: class_activation_map(head, maps[0], index).cpu()
                for index, name in enumerate(self.config.label_names)
            }
            nearest = self._nearest(features, neighbours)
            return Explanation(self._predictions(features)[0], activation_maps, nearest, photo, box)

    def _maps(self, crops: Sequence[Image.Image]) -> Tensor:
        """The last feature maps: float32 (B, C, h, w), on the device."""
        images = self.config.preprocessing.normalise(pixels_of(crops).to(self._fused.fc.weight.device))
        return feature_map(self._fused, images)

    def _predictions(self, features: Tensor) -> list[Prediction]:
        """Features (B, C) -> what is said of each."""
        logits = self._fused.fc(features).cpu()
        distances = [None] * len(features) if self.detector is None else self.detector.distance(features).tolist()
        threshold = None if self.detector is None else self.detector.limit
        names = self.config.label_names
        return [
            Prediction(names[int(row.argmax())], dict(zip(names, row.softmax(0).tolist(), strict=True)), far, threshold)
            for row, far in zip(logits, distances, strict=True)
        ]

    def _nearest(self, features: Tensor, count: int) -> tuple[Neighbour, ...]:
        """The photos learned from that are nearest to features (1, C)."""
        if self.detector is None:
            return ()
        found = self.detector.nearest(features, count)
        names = self.config.label_names
        return tuple(
            Neighbour(self.detector.names[position], names[int(self.detector.labels[position])], distance)
            for position, distance in zip(found.positions[0].tolist(), found.distances[0].tolist(), strict=True)
        )

    def with_head(self, head: nn.Linear, config: ClassifierConfig, detector: KNNDetector | None = None) -> "Classifier":
        """A classifier of other classes on the very same backbone: it needs no more memory than its head.

        This one stays as it is. The config has to name this one's architecture and preprocessing and a class for each
        of the head's outputs. Raises WeightsError for a head of another width.
        """
        head = copy.deepcopy(head).requires_grad_(False).to(self.device)
        other = Classifier(backbone.with_head(self.network, head), config, detector)
        other._fused = backbone.with_head(self._fused, head)
        return other

    # -- the folder ---------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes weights, config and features into `folder`, which is made if it isn't there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {WEIGHTS_FILE: write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())}
        if self.detector is not None:
            files[DETECTOR_FILE] = self.detector.save(folder / DETECTOR_FILE)
        config = replace(self.config, files=files)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=2) + "\n", "utf-8")

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Pushes weights, config, features and a model card to a Hub repository in one commit; returns its address.

        Raises HubError.
        """
        from antbee import hub
        from antbee.hub.card import card_without_figures

        with tempfile.TemporaryDirectory(prefix="antbee-") as temporary:
            folder = Path(temporary)
            self.save_pretrained(folder)
            (folder / "README.md").write_text(card_without_figures(self.config.to_json()), "utf-8")
            return hub.push(folder, repo_id, private=private, token=token)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Classifier":
        """The classifier in a folder, or in a Hub repository such as "user/name".

        Raises ModelFolderError where the folder is no model folder, WeightsError where the weights don't fit the
        config, hub.HubError where the repository can't be fetched.
        """
        folder = find_folder(source, revision=revision, token=token, local_files_only=local_files_only)
        config = read_config(folder)
        weights = _read_weights(folder)
        # First what is wrong by name, which says more than that the bytes are others.
        network = network_with(
            config.architecture, len(config.label_names), weights.tensors, f"the weights in {folder / WEIGHTS_FILE}"
        )
        if (expected := config.files.get(WEIGHTS_FILE, weights.digest)) != weights.digest:
            raise ModelFolderError(
                f"{folder / WEIGHTS_FILE} is damaged (checksum {weights.digest[:12]}, {CONFIG_FILE} says "
                f"{expected[:12]}): {AGAIN}"
            )
        return cls(network.to(choose_device(device)), config, _read_detector(folder, config))


def _opened(photo: Photo) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo if photo.mode == "RGB" else photo.convert("RGB")
    return open_photo(Path(photo))


def _read_detector(folder: Path, config: ClassifierConfig) -> KNNDetector | None:
    """The features in a model folder; None where it has none, as models that others trained."""
    path = folder / DETECTOR_FILE
    if not path.exists() and DETECTOR_FILE not in config.files:
        return None
    width, class_count = feature_count(config.architecture), len(config.label_names)
    try:
        return KNNDetector.load(
            path, feature_count=width, class_count=class_count, digest=config.files.get(DETECTOR_FILE)
        )
    except DetectorError as error:
        raise ModelFolderError(f"{error}: delete it to go without, or train or download the model again") from error


def _read_weights(folder: Path) -> Tensors:
    path = folder / WEIGHTS_FILE
    try:
        return read_tensors(path)
    except TensorsError as error:
        if not path.exists() and (others := [name for name in UNREAD_WEIGHTS if (folder / name).exists()]):
            raise ModelFolderError(
                f"{folder} has {others[0]} and no {WEIGHTS_FILE}: pickles are never opened, save it as safetensors"
            ) from error
        what = f"is damaged ({error})" if path.exists() else "is not there"
        raise ModelFolderError(f"{path} {what}: {AGAIN}") from error
