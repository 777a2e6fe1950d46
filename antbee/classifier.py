"""The trained thing a person holds: photos in, class names and probabilities out; saved and loaded as one folder.

The folder is a complete Hub repository that torchvision, timm and transformers load too: plain torchvision keys in
`model.safetensors`, timm's `pretrained_cfg` in `config.json`, and everything of antbee's own under one key, "antbee".
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from antbee.images import INTERPOLATIONS, Preprocessing, pixels_of
from antbee.installation import spoken

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
HISTORY_FILE = "history.json"
PREVIOUS = ".previous"  # what the name of a model ends in that a new one took the place of


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
            "antbee": {
                "format": FORMAT,
                "temperature": self.temperature,
                **{key: getattr(self, key) for key in _OWN_KEYS},
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ClassifierConfig":
        """The config of a parsed `config.json`: antbee's own, or that of any ResNet that names network and labels.

        Of others' configs timm's keys are read as https://huggingface.co/docs/timm/hf_hub describes them, and
        "id2label" where there are no "label_names". Without "pretrained_cfg" the preprocessing is that of torchvision's
        ImageNet weights. Raises ModelFolderError, naming the key that is missing or wrong.
        """
        architecture = _checked(content, "architecture", lambda value: isinstance(value, str), "a network's name")
        label_names = _label_names(content)
        _check_network(content, len(label_names))
        preprocessing = Preprocessing()
        if "pretrained_cfg" in content:
            preprocessing = _preprocessing(_checked(content, "pretrained_cfg", _is_object, "an object"))
        config = cls(architecture, label_names, preprocessing)
        return replace(config, **_own_values(content["antbee"], label_names)) if "antbee" in content else config


# ---------------------------------------------------------------------------------------------------------------------
# What config.json may say. It may come from anybody: every value is checked before it decides anything.

FORMAT = 1  # of what stands under "antbee"; another number means that it has to be read in another way
_OWN_KEYS = ("version", "mode", "recipe", "data", "weights", "metrics", "seed", "run")
_LARGEST_CROP = 1024  # pixels a side; nobody's ResNet is made for more, and memory grows with its square


def _checked(content: Mapping[str, Any], key: str, right: Callable[[Any], bool], expected: str) -> Any:
    """The value under a key, which has to be there and right. Raises ModelFolderError, saying what was expected."""
    if key not in content:
        raise ModelFolderError(
            f"no {key!r} in it: expected a config by antbee, or of a ResNet with architecture and label_names"
        )
    if not right(content[key]):
        raise ModelFolderError(f"{key} is {_shown(content[key])}, expected {expected}")
    return content[key]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _label_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    key = "label_names" if "label_names" in content or "id2label" not in content else "id2label"
    names = _checked(content, key, lambda value: isinstance(value, list | dict), "a list of names")
    if isinstance(names, dict):  # by the head's outputs: {"0": "ants", "1": "bees"}
        names = [names.get(str(index)) for index in range(len(names))]
    if len(names) < 2 or len(set(map(str, names))) < len(names) or not all(map(_is_text, names)):
        raise ModelFolderError(f"{key} is {_shown(content[key])}, expected two names or more, each another one")
    return tuple(names)


def _check_network(content: Mapping[str, Any], class_count: int) -> None:
    """Refuses networks that the same weights fit, but that would compute something else."""
    arguments = content.get("model_args") or {}  # timm's; a plain ResNet needs none but these
    plain = {"num_classes": class_count, "in_chans": 3, "global_pool": "avg"}
    if not _is_object(arguments) or any(value != plain.get(key, value) for key, value in arguments.items()):
        raise ModelFolderError(f"model_args is {_shown(arguments)}, expected those of a plain ResNet: {plain}")
    if unknown := arguments.keys() - plain.keys() - {"zero_init_last"}:  # which says how training started
        raise ModelFolderError(f"model_args has {', '.join(sorted(unknown))}: only a plain ResNet is known here")
    for key, value in {"num_classes": class_count, "global_pool": "avg"}.items():
        if content.get(key, value) != value:
            raise ModelFolderError(f"{key} is {_shown(content[key])}, expected {value!r}")


def _preprocessing(pretrained: Mapping[str, Any]) -> Preprocessing:
    """How timm's pretrained_cfg wants a photo to be prepared; whoever leaves a value out means timm's, not ours."""

    def is_size(value: Any) -> bool:
        sides = value[1:] if isinstance(value, list) and len(value) == 3 and value[0] == 3 else []
        return len(set(sides)) == 1 and isinstance(sides[0], int) and 32 <= sides[0] <= _LARGEST_CROP

    def is_triple(low: float) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, list) and len(value) == 3 and all(_is_number(x, low, 1e3) for x in value)

    if (mode := pretrained.get("crop_mode", "center")) != "center":
        raise ModelFolderError(f"crop_mode is {_shown(mode)}, only 'center' is known here")
    return Preprocessing(
        crop=_checked(pretrained, "input_size", is_size, f"[3, side, side] of 32 to {_LARGEST_CROP} pixels")[1],
        crop_pct=float(_checked(pretrained, "crop_pct", lambda value: _is_number(value, 0.1, 1), "0.1 to 1")),
        interpolation=_checked(
            pretrained, "interpolation", lambda value: value in INTERPOLATIONS, " or ".join(INTERPOLATIONS)
        ),
        mean=tuple(_checked(pretrained, "mean", is_triple(-1e3), "three numbers")),
        std=tuple(_checked(pretrained, "std", is_triple(1e-3), "three numbers above zero")),
    )


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
    for key in ("recipe", "data", "weights", "metrics"):
        if key in values:
            _checked(values, key, _is_object, "an object")
    for key in ("version", "mode", "run"):
        if key in values:
            _checked(values, key, _is_text, "text")
    if "seed" in values:
        _checked(values, "seed", _is_count, "a whole number")
    if values.get("metrics"):
        _check_metrics(values["metrics"], len(label_names))
    temperature = _checked(own, "temperature", lambda value: _is_number(value, 1e-3, 1e3), "0.001 to 1000")
    return values | {"temperature": float(temperature)}


def _check_metrics(metrics: Mapping[str, Any], class_count: int) -> None:
    """Refuses metrics that can't be shown."""
    for name in ("kept", "last"):
        epoch = _checked(metrics, name, _is_object, "an epoch's result")
        for key in ("accuracy", "loss"):
            _checked(epoch, key, lambda value: _is_number(value, 0, math.inf), "a number")
        for key in ("epoch", "correct", "count"):
            _checked(epoch, key, _is_count, "a whole number")
        interval = _checked(epoch, "interval", lambda value: isinstance(value, list), "two shares")
        if len(interval) != 2 or not all(_is_number(bound, 0, 1) for bound in interval):
            raise ModelFolderError(f"interval is {_shown(interval)}, expected two shares of 1")
    parameters = _checked(metrics, "parameters", _is_object, "counts of weights")
    for counts, key in ((metrics, "epochs"), (parameters, "total"), (parameters, "trainable")):
        _checked(counts, key, _is_count, "a whole number")
    _checked(metrics, "seconds", lambda value: _is_number(value, 0, math.inf), "a time")
    rows = _checked(metrics, "confusion", lambda value: isinstance(value, list), "a row for each class")
    for row in rows:
        if not isinstance(row, list) or len(row) != class_count or not all(map(_is_count, row)):
            raise ModelFolderError(f"a row of confusion is {_shown(row)}, expected {class_count} counts")
    if len(rows) != class_count:
        raise ModelFolderError(f"confusion has {len(rows)} rows, expected {class_count}")


# ---------------------------------------------------------------------------------------------------------------------
# How trained modes compare

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


def model_folders(folder: Path) -> list[Path]:
    """The model folders in a folder, in the order in which modes are trained, without those that were put aside."""
    found = [path.parent for path in folder.glob(f"[!.]*/{CONFIG_FILE}")]
    kept = [path for path in found if not path.name.endswith(PREVIOUS)]
    return sorted(kept, key=lambda path: (path.name != "frozen", path.name))


def read_config(folder: Path) -> ClassifierConfig:
    """The config of a model folder. Raises ModelFolderError where there is none, or none that can be read."""
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ModelFolderError(f"{folder} has no {CONFIG_FILE}: expected a folder that `{spoken('train')}` wrote")
    content = _read_json(path)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object")
    try:
        config = ClassifierConfig.from_json(content)
    except ModelFolderError as error:
        raise ModelFolderError(f"{path} can't be used: {error}") from error
    model.check_architecture(config.architecture)
    return config


def read_history(folder: Path) -> tuple[dict[str, float], ...]:
    """The epochs of a model folder, as `training.History.to_records` gave them; none where it tells of none.

    Raises ModelFolderError where they can't be read.
    """
    path = folder / HISTORY_FILE
    records = _read_json(path) if path.exists() else []
    if not isinstance(records, list) or not all(_is_epoch(record) for record in records):
        raise ModelFolderError(f"{path} holds something else than epochs: delete it, or train the model again")
    return tuple(records)


def _is_epoch(record: object) -> bool:
    numbers = record.values() if isinstance(record, dict) and "epoch" in record else [None]
    return all(_is_number(value, -math.inf, math.inf) for value in numbers)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is no JSON ({error}): train or download the model again") from error


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
    return folder.with_name(f"{folder.name}{PREVIOUS}")
