"""The trained thing a person holds: photos in, class names and probabilities out; saved and loaded as one folder.

The folder is a complete Hub repository that torchvision, timm and transformers load too: plain torchvision keys in
`model.safetensors`, timm's `pretrained_cfg` in `config.json`, and everything of antbee's own under one key, "antbee".
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torchvision.models import ResNet

from antbee import hub, model
from antbee.images import Preprocessing, pixels_of

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class ModelFolderError(ValueError):
    """A model folder can't be used; the message says which file, why, and what to do."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What `config.json` says: all that is needed to rebuild a classifier, and how it came to be."""

    architecture: str
    label_names: tuple[str, ...]  # in the order of the head's outputs
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    temperature: float = 1.0  # logits are divided by it before the softmax
    version: str | None = None  # of antbee, when it was trained
    mode: str | None = None  # "frozen" or "finetune"
    seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)  # training.Recipe, as a dict
    data: Mapping[str, Any] = field(default_factory=dict)  # name, photos of each class, digest, skipped files
    weights: Mapping[str, Any] = field(default_factory=dict)  # name and digest of the starting weights
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of the kept and the last epoch, confusion, seconds
    run: str | None = None  # training.fingerprint of all that decided its training

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
                "crop_pct": self.preprocessing.crop_pct,
                **_FIXED_PREPROCESSING,
                "mean": list(self.preprocessing.mean),
                "std": list(self.preprocessing.std),
                "num_classes": len(self.label_names),
                "pool_size": [size // 32, size // 32],
                "first_conv": "conv1",
                "classifier": "fc",
            },
            "antbee": {
                "temperature": self.temperature,
                **{key: getattr(self, key) for key in _OWN_KEYS},
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ClassifierConfig":
        """The config of a parsed `config.json`. Raises ModelFolderError, naming the key that is missing or wrong."""
        try:
            names, pretrained = content["label_names"], content["pretrained_cfg"]
            own = content.get("antbee", {})
            config = cls(
                architecture=content["architecture"],
                label_names=tuple(names),
                preprocessing=Preprocessing(
                    crop=pretrained["input_size"][1],
                    crop_pct=pretrained["crop_pct"],
                    mean=tuple(pretrained["mean"]),
                    std=tuple(pretrained["std"]),
                ),
                temperature=own.get("temperature", 1.0),
                **{key: own[key] for key in _OWN_KEYS if key in own},
            )
        except KeyError as error:
            raise ModelFolderError(f"{CONFIG_FILE} has no {error}: expected the config of an antbee model") from error
        except (TypeError, IndexError, AttributeError) as error:
            raise ModelFolderError(f"{CONFIG_FILE} is not the config of an antbee model ({error})") from error
        for key, value in _FIXED_PREPROCESSING.items():
            if pretrained.get(key, value) != value:
                raise ModelFolderError(
                    f"{CONFIG_FILE}: {key} is {pretrained[key]!r:.100}, only {value!r} is known here"
                )
        if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise ModelFolderError(
                f"{CONFIG_FILE}: label_names is {names!r:.100}, expected a list of two names or more"
            )
        return config


_FIXED_PREPROCESSING = {"interpolation": "bilinear", "crop_mode": "center"}
_OWN_KEYS = ("version", "mode", "recipe", "data", "weights", "metrics", "seed", "run")


COMPARISON_COLUMNS = ("mode", "trainable", "best val", "95 % interval", "kept epoch", "last val", "seconds")


def comparison(configs: Iterable[ClassifierConfig]) -> list[tuple[str, ...]]:
    """How trained modes compare: a row of COMPARISON_COLUMNS for each config that tells its metrics."""
    return [_comparison_row(config) for config in configs if config.metrics]


def _comparison_row(config: ClassifierConfig) -> tuple[str, ...]:
    metrics = config.metrics
    kept, last = metrics["kept"], metrics["last"]
    low, high = kept["interval"]
    return (
        str(config.mode),
        f"{metrics['parameters']['trainable']:,}",
        f"{kept['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{kept['epoch']} of {metrics['epochs']}",
        f"{last['accuracy']:.1%}",
        f"{metrics['seconds']:.1f}",
    )


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one photo."""

    label: str
    probabilities: dict[str, float]  # of every class, by name


@dataclass(frozen=True)
class Explanation:
    """A prediction, and where in the photo it comes from."""

    prediction: Prediction
    activation_maps: dict[
        str, Tensor
    ]  # by class: float32 (h, w) over the crop, in logits; see model.class_activation_map


class Classifier:
    """A network with its class names and its preprocessing."""

    def __init__(self, network: ResNet, config: ClassifierConfig) -> None:
        self.network = network.eval()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.network.fc.weight.device

    @cached_property
    def _folded(self) -> ResNet:
        """What answers: the network as it was at the first answer, quicker and equal but for rounding."""
        return model.folded(self.network)

    def crop(self, photo: Image.Image) -> Image.Image:
        """What the network sees of an RGB photo (see `images.open_photo`)."""
        return self.config.preprocessing.cropped(photo)

    def predict(self, photos: Sequence[Image.Image]) -> list[Prediction]:
        """RGB photos -> the likeliest class and every class's probability, for each."""
        return self.predict_crops([self.crop(photo) for photo in photos])

    def predict_crops(self, crops: Sequence[Image.Image]) -> list[Prediction]:
        """The same for what `crop` gave: many crops need less memory than many photos."""
        return [self._prediction(row) for row in self._logits(crops)]

    def logits(self, photos: Sequence[Image.Image]) -> Tensor:
        """RGB photos -> float32 (N, classes) on the CPU, before temperature and softmax."""
        return self._logits([self.crop(photo) for photo in photos])

    def _logits(self, crops: Sequence[Image.Image]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self._folded(self._images(crops))
        return logits.cpu()

    def explain(self, photo: Image.Image) -> Explanation:
        """One RGB photo -> its prediction and a class activation map for every class."""
        network = self._folded
        with torch.inference_mode():
            maps = model.feature_map(network, self._images([self.crop(photo)]))
            logits = network.fc(model.pooled(network, maps))[0].cpu()
            activation_maps = {
                name: model.class_activation_map(network.fc, maps[0], index).cpu()
                for index, name in enumerate(self.config.label_names)
            }
        return Explanation(self._prediction(logits), activation_maps)

    def _images(self, crops: Sequence[Image.Image]) -> Tensor:
        return self.config.preprocessing.normalise(pixels_of(crops).to(self._folded.fc.weight.device))

    def _prediction(self, logits: Tensor) -> Prediction:
        probabilities = torch.softmax(logits / self.config.temperature, 0).tolist()
        by_name = dict(zip(self.config.label_names, probabilities, strict=True))
        return Prediction(self.config.label_names[int(logits.argmax())], by_name)

    # -- the folder ---------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path) -> None:
        """Writes the weights and the config into `folder`, which is made if it isn't there."""
        folder.mkdir(parents=True, exist_ok=True)
        # channels_last weights would be refused: the format knows no memory layout but the plain one.
        state = {name: tensor.contiguous().cpu() for name, tensor in self.network.state_dict().items()}
        # Through bytes, since save_file makes a file that only its owner can read, whatever the umask says.
        (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(state, {"format": "pt"}))
        (folder / CONFIG_FILE).write_text(json.dumps(self.config.to_json(), indent=2) + "\n", "utf-8")

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
        network = model.empty_network(config.architecture, len(config.label_names))
        model.load_strictly(network, _read_weights(folder / WEIGHTS_FILE), f"the weights in {folder}")
        return cls(network.to(model.choose_device(device)), config)


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


def read_config(folder: Path) -> ClassifierConfig:
    """The config of a model folder. Raises ModelFolderError where there is none, or none that can be read."""
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise ModelFolderError(
            f"{folder} has no {CONFIG_FILE}: expected a folder written by scripts/train.py"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is no JSON ({error}): train or download the model again") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object")
    config = ClassifierConfig.from_json(content)
    model.check_architecture(config.architecture)
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path} is not there: train or download the model again") from error
    except SafetensorError as error:
        raise ModelFolderError(f"{path} is damaged ({error}): train or download the model again") from error


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
    return folder.with_name(f"{folder.name}.previous")
