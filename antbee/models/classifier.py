"""Classifier: predicts and explains images, is saved to a model folder, loaded from it, and pushed to the Hub.

A prediction is the most probable class, or "neither" for an image unlike the training images: this is decided by
`Prediction.is_out_of_distribution`, with the distance and the threshold of the model's `detector.KNNDetector`.

A model folder is a complete Hub repository, which torchvision, timm and transformers load too: torchvision's keys in
`model.safetensors`, timm's `pretrained_cfg` in `config.json`, and the keys of antbee under "antbee".
"""

import copy
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import overload

import torch
from PIL import Image
from torch import Tensor, nn

from antbee.data.images import Photo, are_several, picture_of
from antbee.data.seeds import seeded_generator
from antbee.data.transforms import pixels_of
from antbee.models import backbone
from antbee.models.activation_map import class_activation_map, gradient_weighted_maps, is_exact
from antbee.models.backbone import (
    Network,
    feature_count,
    feature_map,
    fuse_conv_bn,
    head_of,
    network_with,
    pooled,
)
from antbee.models.config import AGAIN, CONFIG_FILE, ClassifierConfig, ModelFolderError, read_config
from antbee.models.detector import DetectorError, KNNDetector
from antbee.models.device import choose_device
from antbee.models.folder import DETECTOR_FILE, UNREAD_WEIGHTS, WEIGHTS_FILE, find_folder
from antbee.models.interop import in_timms_layout, timms_tensors
from antbee.models.tensors import Tensors, TensorsError, read_tensors, write_tensors

BATCH_SIZE = 32  # photos that go through the network together
MOST_GRADIENTS = 5  # classes, the likeliest, that get a map where each costs a backward pass
NEITHER = "neither"  # the verdict on an out-of-distribution image


@dataclass(frozen=True)
class Neighbour:
    """A training image that is near a predicted one."""

    name: str  # file, relative to the data folder
    label: str
    distance: float  # between normalised features: 0 (equal) to 2


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    label: str  # the most probable class
    probabilities: dict[str, float]  # of every class, by name
    distance: float | None = None  # to the k-th nearest training image; None: the model has no detector
    threshold: float | None = None  # of the detector; None: no images, or too few, were left out of training for it

    @property
    def is_out_of_distribution(self) -> bool:
        """Whether the image is "neither": farther from the training images than the detector's threshold.

        The distance and the threshold are those of `KNNDetector.distance` and `KNNDetector.limit`. Without a detector
        or a threshold no image is out of distribution.
        """
        return self.distance is not None and self.threshold is not None and self.distance > self.threshold

    @property
    def verdict(self) -> str:
        """The most probable class, or "neither" for an out-of-distribution image."""
        return NEITHER if self.is_out_of_distribution else self.label


@dataclass(frozen=True)
class Explanation:
    """A prediction, a class activation map for every class, and the nearest training images."""

    prediction: Prediction
    activation_maps: dict[str, Tensor]  # by class: float32 (h, w) over the crop, see `activation_map`
    neighbours: tuple[Neighbour, ...]  # nearest first; empty where the model has no detector
    photo: Image.Image  # RGB
    crop_box: tuple[float, float, float, float]  # of the network's input in the photo, see `Preprocessing.crop_box`
    is_exact: bool = True  # whether the maps are the logits' own parts, or weighted by gradients

    @property
    def heatmap(self) -> Image.Image:
        """The activation map of the predicted class, drawn over the photo: RGB, of the photo's size."""
        from antbee.evaluation.plots import heat_map  # matplotlib takes half a second to import

        activation_map = self.activation_maps[self.prediction.label]
        return heat_map(self.photo, activation_map, self.crop_box, strongest=float(activation_map.max()))


class Classifier:
    """A network with its config and its out-of-distribution detector.

    The config has the class names and the preprocessing. Without a detector no prediction is "neither".
    """

    def __init__(self, network: Network, config: ClassifierConfig, detector: KNNDetector | None = None) -> None:
        self.network = network.eval()
        self.config = config
        self.detector = detector

    def __repr__(self) -> str:
        """The network, the classes and the accuracy."""
        config = self.config
        accuracy = f", accuracy {config.metrics.accuracy:.1%}" if config.metrics else ""
        classes = ", ".join(config.label_names[:5]) + ", ..." * (len(config.label_names) > 5)
        return f"<Classifier {config.architecture} ({config.mode or 'unknown mode'}): {classes}{accuracy}>"

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return head_of(self.network).weight.device

    @cached_property
    def _fused(self) -> Network:
        """The network fused for inference, made at its first use: later changes of `network` have no effect."""
        return fuse_conv_bn(self.network, self._blank)

    @property
    def _blank(self) -> Tensor:
        """An image (1, 3, H, W) of the network's size, of noise."""
        side = self.config.preprocessing.crop
        return torch.randn(1, 3, side, side, generator=seeded_generator(0, "blank")).to(self.device)

    @cached_property
    def explains_exactly(self) -> bool:
        """Whether activation maps are exact: their mean plus the bias is the logit; see `activation_map`."""
        return is_exact(self._fused, self._blank)

    @cached_property
    def backbone_digest(self) -> str:
        """SHA-256 of the backbone; a head fits features of the same backbone only."""
        return backbone.backbone_digest(self.network)

    def crop(self, photo: Image.Image) -> Image.Image:
        """The square that the network sees of an RGB photo, from which `predict_crops` predicts."""
        return self.config.preprocessing.cropped(photo)

    @overload
    def predict(self, photos: Photo) -> Prediction: ...  # type: ignore[overload-overlap]  # a str is an iterable
    @overload
    def predict(self, photos: Iterable[Photo]) -> list[Prediction]: ...
    def predict(self, photos: Photo | Iterable[Photo]) -> Prediction | list[Prediction]:
        """Predicts a photo, or several: one prediction, or a list in their order.

        A photo is whatever `data.images.picture_of` reads: a path, a PIL image of any mode, a numpy array, a tensor.
        Raises DataError for a file that is not a photo, and for anything else.
        """
        if not are_several(photos):
            return self.predict_crops([self.crop(picture_of(photos))])[0]
        predictions, remaining = list[Prediction](), iter(photos)
        while crops := [self.crop(picture_of(photo)) for photo in islice(remaining, BATCH_SIZE)]:
            predictions += self.predict_crops(crops)
        return predictions

    def predict_crops(self, crops: Sequence[Image.Image]) -> list[Prediction]:
        """Predicts crops made by `crop`, which take less memory than the photos."""
        if not crops:
            return []
        with torch.inference_mode():
            return self._predictions(self._pooled(crops))

    def features(self, photos: Sequence[Image.Image]) -> Tensor:
        """The head's input for RGB photos: float32 (N, C), on the CPU; other heads can be trained on it."""
        return self.features_of_crops([self.crop(photo) for photo in photos])

    def features_of_crops(self, crops: Sequence[Image.Image]) -> Tensor:
        """The features of crops made by `crop`, which take less memory than the photos."""
        with torch.inference_mode():
            features = self._pooled(crops).cpu()
        return features.clone()  # inference tensors can't be used for training

    def logits(self, photos: Sequence[Image.Image]) -> Tensor:
        """The logits of RGB photos: float32 (N, classes), on the CPU."""
        with torch.inference_mode():
            logits: Tensor = head_of(self._fused)(self._pooled([self.crop(photo) for photo in photos]))
        return logits.cpu()

    def explain(self, photo: Photo, neighbours: int = 4) -> Explanation:
        """Predicts one photo, as `predict` takes it, with an activation map for every class and the nearest training
        images.

        Raises DataError as `predict` does.
        """
        photo, names = picture_of(photo), self.config.label_names
        box = self.config.preprocessing.crop_box(photo.width, photo.height)
        image = self._images([self.crop(photo)])
        with torch.inference_mode():
            maps = feature_map(self._fused, image)
            features = pooled(self._fused, maps)
            (prediction,), nearest = self._predictions(features), self._nearest(features, neighbours)
        if self.explains_exactly:
            head = head_of(self._fused)
            found = {name: class_activation_map(head, maps[0], index).cpu() for index, name in enumerate(names)}
        else:
            likeliest = sorted(names, key=lambda name: -prediction.probabilities[name])[:MOST_GRADIENTS]
            indices = [names.index(name) for name in likeliest]
            found = dict(zip(likeliest, gradient_weighted_maps(self._fused, image, indices), strict=True))
        return Explanation(prediction, found, nearest, photo, box, self.explains_exactly)

    def _images(self, crops: Sequence[Image.Image]) -> Tensor:
        """The network's input: float32 (B, 3, H, W), on the device."""
        return self.config.preprocessing.normalise(pixels_of(crops).to(self.device))

    def _maps(self, crops: Sequence[Image.Image]) -> Tensor:
        """The feature maps of crops, on the device."""
        return feature_map(self._fused, self._images(crops))

    def _pooled(self, crops: Sequence[Image.Image]) -> Tensor:
        return pooled(self._fused, self._maps(crops))

    def _predictions(self, features: Tensor) -> list[Prediction]:
        """Predictions from features (B, C)."""
        logits = head_of(self._fused)(features).cpu()
        distances = [None] * len(features) if self.detector is None else self.detector.distance(features).tolist()
        threshold = None if self.detector is None else self.detector.limit
        names = self.config.label_names
        return [
            Prediction(names[int(row.argmax())], dict(zip(names, row.softmax(0).tolist(), strict=True)), far, threshold)
            for row, far in zip(logits, distances, strict=True)
        ]

    def _nearest(self, features: Tensor, count: int) -> tuple[Neighbour, ...]:
        """The training images nearest to features (1, C)."""
        if self.detector is None:
            return ()
        found = self.detector.nearest(features, count)
        names = self.config.label_names
        return tuple(
            Neighbour(self.detector.names[position], names[int(self.detector.labels[position])], distance)
            for position, distance in zip(found.positions[0].tolist(), found.distances[0].tolist(), strict=True)
        )

    def with_head(self, head: nn.Linear, config: ClassifierConfig, detector: KNNDetector | None = None) -> "Classifier":
        """A classifier with a copy of `head` on the same backbone, which both share; this one does not change.

        The config must have the architecture and the preprocessing of this one, and a class for each output of the
        head. Raises WeightsError for a head with another number of inputs.
        """
        head = copy.deepcopy(head).requires_grad_(False).to(self.device)
        other = Classifier(backbone.with_head(self.network, head), config, detector)
        other._fused = backbone.with_head(self._fused, head)
        return other

    # -- model folders and the Hub ------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes weights, config and detector to a model folder, which is created if necessary."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {WEIGHTS_FILE: write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())}
        if self.detector is not None:
            files[DETECTOR_FILE] = self.detector.save(folder / DETECTOR_FILE)
        config = replace(self.config, files=files)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=2) + "\n", "utf-8")

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Pushes weights, config, detector and a model card to a Hub repository in one commit.

        Returns the URL of the commit. Raises HubError.
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
        """Loads a classifier from a model folder or a Hub repository such as "user/name".

        Raises ModelFolderError where the folder is not a model folder, WeightsError where the weights don't fit the
        config, DeviceError for an unavailable device, and hub.HubError where the repository can't be downloaded.
        """
        folder = find_folder(source, revision=revision, token=token, local_files_only=local_files_only)
        config = read_config(folder, lambda content: in_timms_layout(content, folder))
        weights = _read_weights(folder)
        # Before the checksum: an error that names a tensor says more than one about the whole file.
        network = network_with(
            config.architecture,
            len(config.label_names),
            timms_tensors(weights.tensors),
            f"the weights in {folder / WEIGHTS_FILE}",
            image_size=config.preprocessing.crop,
        )
        if (expected := config.files.get(WEIGHTS_FILE, weights.digest)) != weights.digest:
            raise ModelFolderError(
                f"{folder / WEIGHTS_FILE} is damaged (checksum {weights.digest[:12]}, {CONFIG_FILE} says "
                f"{expected[:12]}): {AGAIN}"
            )
        return cls(network.to(choose_device(device)), config, _read_detector(folder, config))


def _read_detector(folder: Path, config: ClassifierConfig) -> KNNDetector | None:
    """The detector of a model folder; None where it has none, as models that antbee did not train."""
    path = folder / DETECTOR_FILE
    if not path.exists() and DETECTOR_FILE not in config.files:
        return None
    counts = {"feature_count": feature_count(config.architecture), "class_count": len(config.label_names)}
    try:
        return KNNDetector.load(path, **counts, digest=config.files.get(DETECTOR_FILE))
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
