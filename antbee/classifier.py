"""The trained thing a person holds: photos in, class names and probabilities out; saved and loaded as one folder.

The folder is a complete Hub repository that torchvision, timm and transformers load too: plain torchvision keys in
`model.safetensors`, timm's `pretrained_cfg` in `config.json`, and everything of antbee's own under one key, "antbee".
"""

import contextlib
import copy
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet

from antbee import hub, model
from antbee.data import MOST_CLASSES
from antbee.files import FileError, content_of
from antbee.images import INTERPOLATIONS, Preprocessing, pixels_of
from antbee.installation import spoken
from antbee.neighbours import BankError, FeatureBank
from antbee.tensors import Tensors, TensorsError, read_tensors, write_tensors

WEIGHTS_FILE = "model.safetensors"
BANK_FILE = "neighbours.safetensors"
CONFIG_FILE = "config.json"
HISTORY_FILE = "history.json"
MODES = ("frozen", "finetune")  # in the order in which they are trained
UNREAD_WEIGHTS = ("pytorch_model.bin", "model.bin", "model.pth", "model.pt", "pytorch_model.pth")  # pickles
AGAIN = "train the model again, or download it again (`hf download USER/NAME --force-download`)"
LARGEST_CONFIG = 2**24  # bytes, of a thousand classes; see `_refuse_padding`
LARGEST_HISTORY = 2**22  # bytes: ten thousand epochs
PREVIOUS = ".previous"  # what the name of a model ends in that a new one took the place of


class ModelFolderError(ValueError):
    """A model folder can't be used; the message says which file, why, and what to do."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What `config.json` says: all that is needed to rebuild a classifier, and how it came to be."""

    architecture: str
    label_names: tuple[str, ...]  # in the order of the head's outputs
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    version: str | None = None  # of antbee, when it was trained
    mode: str | None = None  # "frozen" or "finetune"
    seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)  # training.Recipe, as a dict
    data: Mapping[str, Any] = field(default_factory=dict)  # name, photos of each class, digest, skipped files
    weights: Mapping[str, Any] = field(default_factory=dict)  # name and digest of the starting weights
    metrics: Mapping[str, Any] = field(default_factory=dict)  # how good it is and what it took, see _metrics_shape
    run: str | None = None  # training.fingerprint of all that decided its training
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the files of tensors beside it, by name

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json`: timm's and transformers' keys, and antbee's under its own."""
        size = self.preprocessing.crop
        return {
            "architecture": self.architecture,
            "num_classes": len(self.label_names),
            "num_features": model.feature_count(self.architecture),
            "global_pool": "avg",
            "label_names": list(self.label_names),
            "pretrained_cfg": {
                "tag": "antbee",
                "custom_load": False,
                "input_size": [3, size, size],
                "fixed_input_size": False,
                "interpolation": self.preprocessing.interpolation,
                "crop_pct": self.preprocessing.crop_pct,
                "crop_mode": "center",
                "mean": list(self.preprocessing.mean),
                "std": list(self.preprocessing.std),
                "num_classes": len(self.label_names),
                "pool_size": [size // 32, size // 32],
                "first_conv": "conv1",
                "classifier": "fc",
            },
            "antbee": {"format": FORMAT, **{key: getattr(self, key) for key in _OWN_KEYS}},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ClassifierConfig":
        """The config of a parsed `config.json`: antbee's own, or that of any ResNet that names network and labels.

        Others' configs are read as timm (https://huggingface.co/docs/timm/hf_hub) and transformers write them. One that
        says nothing of preprocessing gets that of torchvision's ImageNet weights. Raises ModelFolderError, naming the
        key that is missing or wrong.
        """
        architecture = _checked(content, "architecture", _is_text, "a network's name")
        label_names = _label_names(content)
        _check_network(content, len(label_names))
        config = cls(architecture, label_names, _preprocessing(content))
        return replace(config, **_own_values(content["antbee"], label_names)) if "antbee" in content else config


# ---------------------------------------------------------------------------------------------------------------------
# What config.json may say. It may come from anybody: every value is checked before it decides anything.

FORMAT = 1  # of what stands under "antbee"; another number means that it has to be read in another way
_OWN_KEYS = ("version", "mode", "recipe", "data", "weights", "metrics", "seed", "run", "files")
# Pixels a side: nobody's ResNet is made for more, and the memory that a thin photo takes grows with the square.
_LARGEST_CROP, _LARGEST_RESIZE = 1024, 1280
_LARGEST_NUMBER = 1e9  # of losses, seconds, epochs, counts: beyond it a plot or a plain float may fail


def _checked(content: Mapping[str, Any], key: str, right: Callable[[Any], bool], expected: str) -> Any:
    """The value under a key, which has to be there and right. Raises ModelFolderError, saying what was expected."""
    if key not in content:
        raise ModelFolderError(
            f"no {key!r} where {expected} should be: expected a config by antbee, or of a plain ResNet as timm saves it"
        )
    if not right(content[key]):
        raise ModelFolderError(f"{key} is {_shown(content[key])}, expected {expected}")
    return content[key]


def _check_given(content: Mapping[str, Any], keys: Iterable[str], right: Callable[[Any], bool], expected: str) -> None:
    """The same for keys that may be missing, or hold nothing."""
    for key in keys:
        if content.get(key) is not None:
            _checked(content, key, right, expected)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object, low: float = -_LARGEST_NUMBER, high: float = _LARGEST_NUMBER) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value, 0)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_count, value.values()))


def _label_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names, from wherever antbee, timm or transformers write them."""
    pretrained = content.get("pretrained_cfg")
    inside = pretrained if isinstance(pretrained, dict) else {}
    places = [(content, "label_names"), (inside, "label_names"), (content, "labels"), (content, "id2label")]
    place, key = next(((place, key) for place, key in places if key in place), places[0])
    names = _checked(place, key, lambda value: isinstance(value, list | dict), "a list of names")
    if isinstance(names, dict):  # by the head's outputs: {"0": "ants", "1": "bees"}
        names = [names.get(str(index)) for index in range(len(names))]
    if not 2 <= len(names) <= MOST_CLASSES or not all(map(_is_text, names)) or len(set(names)) < len(names):
        raise ModelFolderError(
            f"{key} is {_shown(place[key])} with {len(names)} entries, expected two names or more, "
            f"at most {MOST_CLASSES}, each another one"
        )
    return tuple(names)


def _check_network(content: Mapping[str, Any], class_count: int) -> None:
    """Refuses networks that the same weights fit, but that would compute something else."""
    arguments = content.get("model_args") or {}  # timm's; a plain ResNet needs none but these
    plain = {"num_classes": class_count, "in_chans": 3, "global_pool": "avg"}
    if not _is_object(arguments) or any(value != plain.get(key, value) for key, value in arguments.items()):
        raise ModelFolderError(f"model_args is {_shown(arguments)}, expected those of a plain ResNet: {plain}")
    if unknown := arguments.keys() - plain.keys() - {"zero_init_last"}:  # which says how training started
        raise ModelFolderError(f"model_args has {_shown(sorted(unknown))}: only a plain ResNet is known here")
    for key, value in {"num_classes": class_count, "global_pool": "avg"}.items():
        if content.get(key, value) != value:
            raise ModelFolderError(f"{key} is {_shown(content[key])}, expected {value!r}")


def _preprocessing(content: Mapping[str, Any]) -> Preprocessing:
    """How a photo wants to be prepared: as timm's pretrained_cfg says, or, where nothing is said, as torchvision does.

    timm once wrote these keys beside the architecture. Whoever leaves out one of them means timm's default, not ours.
    """

    def is_size(value: Any) -> bool:
        sides = value[1:] if isinstance(value, list) and len(value) == 3 and value[0] == 3 else [0]
        return all(_is_count(side) and 32 <= side <= _LARGEST_CROP and side == sides[0] for side in sides)

    def is_triple(low: float) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, list) and len(value) == 3 and all(_is_number(x, low, 1e3) for x in value)

    if "pretrained_cfg" in content:
        content = _checked(content, "pretrained_cfg", _is_object, "an object")
    elif content.keys().isdisjoint(("input_size", "crop_pct", "interpolation", "mean", "std")):
        return Preprocessing()
    if (mode := content.get("crop_mode", "center")) != "center":
        raise ModelFolderError(f"crop_mode is {_shown(mode)}, only 'center' is known here")
    preprocessing = Preprocessing(
        crop=_checked(content, "input_size", is_size, f"[3, side, side] of 32 to {_LARGEST_CROP} pixels")[1],
        crop_pct=float(_checked(content, "crop_pct", lambda value: _is_number(value, 0.1, 1), "0.1 to 1")),
        interpolation=_checked(
            content, "interpolation", lambda value: value in INTERPOLATIONS, " or ".join(INTERPOLATIONS)
        ),
        mean=tuple(_checked(content, "mean", is_triple(-1e3), "three numbers")),
        std=tuple(_checked(content, "std", is_triple(1e-3), "three numbers above zero")),
    )
    if preprocessing.resize > _LARGEST_RESIZE:
        raise ModelFolderError(f"crop_pct is {preprocessing.crop_pct}: photos larger than {_LARGEST_RESIZE} pixels")
    return preprocessing


def _own_values(own: Any, label_names: Sequence[str]) -> dict[str, Any]:
    """What stands under "antbee", as fields of ClassifierConfig."""
    if not _is_object(own):
        raise ModelFolderError(f"antbee is {_shown(own)}, expected an object")
    if own.get("format") != FORMAT:
        raise ModelFolderError(
            f"it is written in format {_shown(own.get('format'))}, this antbee reads {FORMAT}:"
            " install the antbee that wrote it, or train the model again"
        )
    values = {key: own[key] for key in _OWN_KEYS if own.get(key) is not None}
    _check_given(values, ("version", "run"), _is_text, "text")
    _check_given(values, ["mode"], lambda value: value in MODES, " or ".join(MODES))
    _check_given(values, ["seed"], lambda value: isinstance(value, int) and _is_number(value, 0, 2**32), "a seed")
    _check_given(values, ("recipe", "data", "weights", "metrics", "files"), _is_object, "an object")
    _check_given(values.get("files", {}), (WEIGHTS_FILE, BANK_FILE), _is_digest, "a SHA-256 in 64 hexadecimal digits")
    _check_recipe(values.get("recipe", {}))
    _check_data(values.get("data", {}))
    _check_given(values.get("weights", {}), ("name", "digest", "base_model"), _is_text, "text")
    if metrics := values.get("metrics"):
        _metrics_shape(len(label_names)).check(metrics, "metrics")
    return values


def _check_recipe(recipe: Mapping[str, Any]) -> None:
    _check_given(recipe, recipe, lambda value: isinstance(value, str | bool) or _is_number(value), "text or a number")
    _check_given(recipe, ["smallest_crop"], lambda value: _is_number(value, 0.01, 1), "0.01 to 1")


def _check_data(data: Mapping[str, Any]) -> None:
    def is_skipped(entry: object) -> bool:
        return isinstance(entry, dict) and _is_text(entry.get("file")) and _is_text(entry.get("reason"))

    _check_given(data, ("name", "split", "digest"), _is_text, "text")
    _check_given(data, ("train", "val", "holdout"), _are_counts, "the number of photos of each class")
    _check_given(
        data, ["excluded"], lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of files"
    )
    _check_given(
        data, ["skipped"], lambda value: isinstance(value, list) and all(map(is_skipped, value)), "files with reasons"
    )


class _Shape(Protocol):
    """What a part of the metrics must look like to be shown."""

    def check(self, value: Any, name: str) -> None:
        """Raises ModelFolderError, saying what was expected under which name."""
        ...


@dataclass(frozen=True)
class _Value:
    right: Callable[[Any], bool]
    expected: str

    def check(self, value: Any, name: str) -> None:
        if not self.right(value):
            raise ModelFolderError(f"{name} is {_shown(value)}, expected {self.expected}")


@dataclass(frozen=True)
class _Maybe:
    """It may be missing, or null."""

    inner: _Shape

    def check(self, value: Any, name: str) -> None:
        if value is not None:
            self.inner.check(value, name)


@dataclass(frozen=True)
class _Items:
    """A list of so many of one shape, or of any number."""

    inner: _Shape
    count: int | None = None

    def check(self, value: Any, name: str) -> None:
        _Value(lambda value: isinstance(value, list), "a list").check(value, name)
        if self.count not in (None, len(value)):
            raise ModelFolderError(f"{name} has {len(value)} entries, expected {self.count}")
        for item in value:
            self.inner.check(item, name)


@dataclass(frozen=True)
class _Named:
    """An object of one shape under names of any kind."""

    inner: _Shape

    def check(self, value: Any, name: str) -> None:
        _Value(_is_object, "an object").check(value, name)
        for key, item in value.items():
            _TEXT.check(key, name)
            self.inner.check(item, f"{name} of {_shown(key)}")


@dataclass(frozen=True)
class _Object:
    """An object of known keys; others may stand beside them."""

    shapes: Mapping[str, _Shape]

    def check(self, value: Any, name: str) -> None:
        _Value(_is_object, "an object").check(value, name)
        for key, shape in self.shapes.items():
            if key not in value and not isinstance(shape, _Maybe):
                raise ModelFolderError(f"{name} has no {key!r}, which it should tell")
            shape.check(value.get(key), key)


_SHARE = _Value(lambda value: _is_number(value, 0, 1), "0 to 1")
_COUNT = _Value(_is_count, "a count")
_AMOUNT = _Value(lambda value: _is_number(value, 0), "a number from 0 up")
_NUMBER = _Value(_is_number, "a number")
_TEXT = _Value(_is_text, "text")

_SCORE: dict[str, _Shape] = {
    "correct": _COUNT,
    "count": _COUNT,
    "accuracy": _SHARE,
    "interval": _Items(_SHARE, 2),
    "loss": _Maybe(_AMOUNT),
}
_EPOCH = _Object({**_SCORE, "epoch": _COUNT})
_CLASS = _Object({"precision": _SHARE, "recall": _SHARE, "f1": _SHARE})
_CALIBRATION = _Object({"temperature": _AMOUNT, "folds": _COUNT, "loss_before": _AMOUNT, "error_before": _SHARE})
_FOUND = _Object({"found": _COUNT, "count": _COUNT})
_NEITHER = _Object(
    {
        "threshold": _AMOUNT,
        "rate": _SHARE,
        "val": _Maybe(_FOUND),
        "foreign": _Named(_FOUND),
        "left_out": _Maybe(_FOUND),
    }
)
_POINT = _Object(dict[str, _Shape](per_class=_COUNT, photos=_COUNT, accuracies=_Items(_SHARE)))
_SPREAD = _Object(
    dict[str, _Shape](values=_Items(_NUMBER), mean=_NUMBER, deviation=_AMOUNT, interval=_Items(_NUMBER, 2))
)


def _metrics_shape(class_count: int) -> _Object:
    """What metrics tell: of the validation photos, where nothing else is said.

    With "cross_validation", a number of folds, there were none: it is of the photos learned from, each answered by a
    head that learned from the other folds.
    """
    return _Object(
        {
            "kept": _EPOCH,
            "last": _Maybe(_EPOCH),
            "selected_on": _Maybe(_TEXT),
            "cross_validation": _Maybe(_COUNT),
            "epochs": _COUNT,
            "seconds": _AMOUNT,
            "parameters": _Object({"total": _COUNT, "trainable": _COUNT}),
            "confusion": _Items(_Items(_COUNT, class_count), class_count),
            "macro": _Maybe(_CLASS),
            "per_class": _Maybe(_Items(_CLASS, class_count)),
            "auc": _Maybe(_SHARE),
            "calibration_error": _Maybe(_SHARE),
            "calibration": _Maybe(_CALIBRATION),
            "neither": _Maybe(_NEITHER),
            "zero_shot": _Maybe(_Object(_SCORE)),
            "cleaned": _Maybe(_Object(_SCORE)),
            "learning_curve": _Maybe(_Items(_POINT)),
            "enough_data": _Maybe(_TEXT),
            "seeds": _Maybe(_Object({"kept": _SPREAD, "last": _Maybe(_SPREAD)})),
        }
    )


# ---------------------------------------------------------------------------------------------------------------------
# How trained modes compare

COMPARISON_COLUMNS = ("mode", "trainable", "val", "95% interval", "kept epoch", "chosen on", "last epoch", "seconds")


def comparison(configs: Iterable[ClassifierConfig]) -> list[tuple[str, ...]]:
    """How trained modes compare: a row of COMPARISON_COLUMNS for each config that tells its metrics."""
    return [_comparison_row(config) for config in configs if config.metrics]


def _comparison_row(config: ClassifierConfig) -> tuple[str, ...]:
    metrics = config.metrics
    kept, last = metrics["kept"], metrics.get("last")
    low, high = kept["interval"]
    return (
        str(config.mode),
        f"{metrics['parameters']['trainable']:,}",
        f"{kept['accuracy']:.1%}" + (" (cross-validated)" if metrics.get("cross_validation") else ""),
        f"{low:.1%} to {high:.1%}",
        f"{kept['epoch']} of {metrics['epochs']}",
        str(metrics.get("selected_on") or "unknown"),
        f"{last['accuracy']:.1%}" if last else "not measured",
        f"{metrics['seconds']:.1f}",
    )


# ---------------------------------------------------------------------------------------------------------------------
# The trained thing


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
    def is_neither(self) -> bool:
        """Whether the photo is so unlike all that was learned from that no class should be believed."""
        return self.distance is not None and self.threshold is not None and self.distance > self.threshold

    @property
    def verdict(self) -> str:
        """The likeliest class, or "neither"."""
        return NEITHER if self.is_neither else self.label


@dataclass(frozen=True)
class Explanation:
    """A prediction, where in the photo it comes from, and what it looks like."""

    prediction: Prediction
    activation_maps: dict[
        str, Tensor
    ]  # by class: float32 (h, w) over the crop, in logits; see model.class_activation_map
    neighbours: tuple[Neighbour, ...]  # the nearest photos learned from, nearest first; none where none are kept


class Classifier:
    """A network with its class names and its preprocessing, and the features of the photos it learned from."""

    def __init__(self, network: ResNet, config: ClassifierConfig, bank: FeatureBank | None = None) -> None:
        self.network = network.eval()
        self.config = config
        self.bank = bank

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.network.fc.weight.device

    @cached_property
    def _folded(self) -> ResNet:
        """What answers: the network as it was at the first answer, quicker and equal but for rounding."""
        return model.folded(self.network)

    @cached_property
    def backbone_digest(self) -> str:
        """SHA-256 of the backbone: features of one backbone mean nothing to the head of another."""
        return model.backbone_digest(self.network)

    def crop(self, photo: Image.Image) -> Image.Image:
        """What the network sees of an RGB photo (see `images.open_photo`)."""
        return self.config.preprocessing.cropped(photo)

    def predict(self, photos: Sequence[Image.Image]) -> list[Prediction]:
        """RGB photos -> the likeliest class and every class's probability, for each."""
        return self.predict_crops([self.crop(photo) for photo in photos])

    def predict_crops(self, crops: Sequence[Image.Image]) -> list[Prediction]:
        """The same for what `crop` gave: many crops need less memory than many photos."""
        with torch.inference_mode():
            return self._predictions(model.pooled(self._folded, self._maps(crops)))

    def features(self, photos: Sequence[Image.Image]) -> Tensor:
        """RGB photos -> what the head sees of them: float32 (N, C) on the CPU, for another head to learn from."""
        return self.features_of_crops([self.crop(photo) for photo in photos])

    def features_of_crops(self, crops: Sequence[Image.Image]) -> Tensor:
        """The same for what `crop` gave: many crops need less memory than many photos."""
        with torch.inference_mode():
            features = model.pooled(self._folded, self._maps(crops)).cpu()
        return features.clone()  # out here, since nothing can learn from a tensor of inference mode

    def logits(self, photos: Sequence[Image.Image]) -> Tensor:
        """RGB photos -> float32 (N, classes) on the CPU, before the softmax."""
        with torch.inference_mode():
            maps = self._maps([self.crop(photo) for photo in photos])
            logits: Tensor = self._folded.fc(model.pooled(self._folded, maps))
        return logits.cpu()

    def explain(self, photo: Image.Image, neighbours: int = 4) -> Explanation:
        """One RGB photo -> its prediction, a class activation map for every class, and the nearest photos learned."""
        head = self._folded.fc
        with torch.inference_mode():
            maps = self._maps([self.crop(photo)])
            features = model.pooled(self._folded, maps)
            activation_maps = {
                name: model.class_activation_map(head, maps[0], index).cpu()
                for index, name in enumerate(self.config.label_names)
            }
            return Explanation(self._predictions(features)[0], activation_maps, self._nearest(features, neighbours))

    def _maps(self, crops: Sequence[Image.Image]) -> Tensor:
        """The last feature maps: float32 (B, C, h, w), on the device."""
        images = self.config.preprocessing.normalise(pixels_of(crops).to(self._folded.fc.weight.device))
        return model.feature_map(self._folded, images)

    def _predictions(self, features: Tensor) -> list[Prediction]:
        """Features (B, C) -> what is said of each."""
        logits = self._folded.fc(features).cpu()
        distances = [None] * len(features) if self.bank is None else self.bank.distance(features).tolist()
        threshold = None if self.bank is None else self.bank.limit
        names = self.config.label_names
        return [
            Prediction(names[int(row.argmax())], dict(zip(names, row.softmax(0).tolist(), strict=True)), far, threshold)
            for row, far in zip(logits, distances, strict=True)
        ]

    def _nearest(self, features: Tensor, count: int) -> tuple[Neighbour, ...]:
        """The photos learned from that are nearest to features (1, C)."""
        if self.bank is None:
            return ()
        found = self.bank.nearest(features, count)
        names = self.config.label_names
        return tuple(
            Neighbour(self.bank.names[position], names[int(self.bank.labels[position])], distance)
            for position, distance in zip(found.positions[0].tolist(), found.distances[0].tolist(), strict=True)
        )

    def with_head(self, head: nn.Linear, config: ClassifierConfig, bank: FeatureBank | None = None) -> "Classifier":
        """A classifier of other classes on the very same backbone: it needs no more memory than its head.

        This one stays as it is. The config has to name this one's architecture and preprocessing and a class for each
        of the head's outputs. Raises model.WeightsError for a head of another width.
        """
        head = copy.deepcopy(head).requires_grad_(False).to(self.device)
        other = Classifier(model.with_head(self.network, head), config, bank)
        other._folded = model.with_head(self._folded, head)
        return other

    # -- the folder ---------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path) -> None:
        """Writes weights, config and features into `folder`, which is made if it isn't there."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {WEIGHTS_FILE: write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())}
        if self.bank is not None:
            files[BANK_FILE] = self.bank.save(folder / BANK_FILE)
        config = replace(self.config, files=files)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=2) + "\n", "utf-8")

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

        Raises ModelFolderError where the folder is no model folder, model.WeightsError where the weights don't fit the
        config, hub.HubError where the repository can't be fetched.
        """
        folder = find_folder(source, revision=revision, token=token, local_files_only=local_files_only)
        config = read_config(folder)
        weights = _read_weights(folder)
        # First what is wrong by name, which says more than that the bytes are others.
        network = model.network_with(
            config.architecture, len(config.label_names), weights.tensors, f"the weights in {folder / WEIGHTS_FILE}"
        )
        if (expected := config.files.get(WEIGHTS_FILE, weights.digest)) != weights.digest:
            raise ModelFolderError(
                f"{folder / WEIGHTS_FILE} is damaged (checksum {weights.digest[:12]}, {CONFIG_FILE} says "
                f"{expected[:12]}): {AGAIN}"
            )
        return cls(network.to(model.choose_device(device)), config, _read_bank(folder, config))


def find_folder(
    source: str | Path, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """The model folder `source` itself, or the downloaded one of a Hub repository such as "user/name".

    Raises ModelFolderError where it is neither, hub.HubError where the repository can't be fetched.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise ModelFolderError(f"no folder {source}: expected a model folder, or a Hub id such as user/name")
    try:
        return hub.pull(str(source), revision=revision, token=token, local_files_only=local_files_only)
    except hub.HubError as error:
        raise hub.HubError(f"There is no folder {source} here, and no such model from the Hub. {error}") from error


def _read_bank(folder: Path, config: ClassifierConfig) -> FeatureBank | None:
    """The features in a model folder; None where it has none, as models that others trained."""
    path = folder / BANK_FILE
    if not path.exists() and BANK_FILE not in config.files:
        return None
    width, class_count = model.feature_count(config.architecture), len(config.label_names)
    try:
        return FeatureBank.load(path, feature_count=width, class_count=class_count, digest=config.files.get(BANK_FILE))
    except BankError as error:
        raise ModelFolderError(f"{error}: delete it to go without, or train or download the model again") from error


def model_folders(folder: Path) -> list[Path]:
    """The model folders in a folder, in the order in which modes are trained, without those that were put aside."""
    found = [path.parent for path in folder.glob(f"[!.]*/{CONFIG_FILE}")]
    kept = [path for path in found if not path.name.endswith(PREVIOUS)]
    return sorted(kept, key=lambda path: (path.name != MODES[0], path.name))


def read_config(folder: Path) -> ClassifierConfig:
    """The config of a model folder. Raises ModelFolderError where there is none, or none that can be read."""
    path = folder / CONFIG_FILE
    if not path.exists() and not path.is_symlink():
        raise ModelFolderError(f"{folder} has no {CONFIG_FILE}: expected a folder that `{spoken('train')}` wrote")
    content = _read_json(path, LARGEST_CONFIG)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object")
    try:
        config = ClassifierConfig.from_json(content)
    except ModelFolderError as error:
        raise ModelFolderError(f"{path} can't be used: {error}") from error
    try:
        model.check_architecture(config.architecture)
    except model.WeightsError as error:
        raise model.WeightsError(f"{path} can't be used: {error}") from error
    _refuse_padding(path, config)
    return config


def _refuse_padding(path: Path, config: ClassifierConfig) -> None:
    """Raises ModelFolderError for a config that is larger than what it tells explains.

    That is the names and counts of its classes, their confusion matrix, and the files that were not learned from.
    """
    classes = len(config.label_names)
    listed = len(config.data.get("skipped") or ()) + len(config.data.get("excluded") or ())
    largest = 2**18 + 512 * (classes + listed) + 16 * classes**2
    if (size := path.stat().st_size) > largest:
        raise ModelFolderError(
            f"{path} has {size:,} bytes, expected at most {largest:,} for {classes} classes and {listed} files: {AGAIN}"
        )


def read_history(folder: Path) -> tuple[dict[str, float], ...]:
    """The epochs of a model folder, as `training.History.to_records` gave them; none where it tells of none.

    Raises ModelFolderError where they can't be read.
    """
    path = folder / HISTORY_FILE
    records = _read_json(path, LARGEST_HISTORY) if path.exists() else []
    if not isinstance(records, list) or not all(_is_epoch(record) for record in records):
        raise ModelFolderError(f"{path} holds something else than epochs: delete it, or train the model again")
    return tuple(records)


def _is_epoch(record: object) -> bool:
    numbers = record.values() if isinstance(record, dict) and "epoch" in record else [None]
    return all(map(_is_number, numbers))


def _read_json(path: Path, largest: int) -> Any:
    try:
        return json.loads(content_of(path, largest=largest).decode("utf-8-sig"))
    except FileError as error:
        raise ModelFolderError(f"{path} can't be used ({error}): {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is no JSON ({error}): {AGAIN}") from error


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


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` once the block ends well.

    A reader never sees half a model: what is there already moves to `folder`.previous, and only one of those is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)  # of a writer that was killed
    beside.mkdir()
    try:
        yield beside
        if folder.exists():
            shutil.rmtree(previous(folder), ignore_errors=True)
            folder.rename(previous(folder))
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def previous(folder: Path) -> Path:
    """Where the model goes that a new one takes the place of."""
    return folder.with_name(f"{folder.name}{PREVIOUS}")
