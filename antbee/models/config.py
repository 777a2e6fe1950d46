"""config.json of a model folder as pydantic models: timm's keys, transformers' keys, and antbee's own under "antbee".

The file may come from an untrusted source: every value that is used is validated. Unknown keys are kept.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from antbee.data.files import FileError, content_of
from antbee.data.listing import SkippedFile as LeftOut
from antbee.data.listing import some_of_each
from antbee.data.origin import COMMIT, HUB_ID
from antbee.data.transforms import Preprocessing
from antbee.errors import InputError
from antbee.installation import command_name
from antbee.models.architectures import (
    CROP_MODES,
    FITS,
    check_architecture,
    preprocessing_of,
    published,
    takes_any_size,
)
from antbee.models.backbone import feature_count, pooling
from antbee.models.config_file import ClassNames, ConfigFile, ModelArgs, PretrainedCfg
from antbee.models.metrics import STRICT, Count, Digest, Metrics, Number, Part, Text
from antbee.models.provenance import WeightsInfo
from antbee.models.tensors import WeightsError
from antbee.models.validation import shown, validating

CONFIG_FILE = "config.json"
HISTORY_FILE = "history.json"
Mode = Literal["frozen", "finetune"]
MODES: tuple[Mode, ...] = get_args(Mode)  # in the order in which they are trained
AGAIN = "train the model again, or download it again (`hf download USER/NAME --force-download`)"
FORMAT = 1  # version of the layout of "antbee"
MAX_BYTES = 2**26  # a config with a thousand long names, or a history of 100,000 epochs
MAX_DEPTH = 32  # nested objects and lists: Python can't write JSON of a thousand
MAX_RESIZE = 1280  # pixels a side, see MAX_CROP
MAX_SKIPPED, MAX_EXCLUDED, MAX_REASONS = 100, 1000, 20  # files and reasons that a written config lists


class ModelFolderError(InputError):
    """A model folder can't be used; the message says which file, why, and what to do."""


# Its message completes the sentence "KEY is VALUE, expected ..."
def _recipe_value(value: Any) -> Any:
    # The comparison is false for NaN, and for an integer that fits no float.
    is_number = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    if not is_number and value is not None and not isinstance(value, str):
        raise ValueError("text, a finite number, true, false or null")
    return value


HubId = Annotated[str, Field(pattern=f"^{HUB_ID}$", max_length=200)]
Commit = Annotated[str, Field(pattern=f"^{COMMIT}$")]


class SkippedFile(Part):
    """A file of the data folder that could not be read."""

    file: Text
    reason: Text


class DataInfo(Part):
    """The data set of a training run; `listing` limits the number of listed files."""

    name: str | None = None
    hub_id: HubId | None = None  # of the Hub's data set, where it is one
    hub_revision: Commit | None = None
    train: dict[Text, Count] | None = None  # images of each class
    holdout: dict[Text, Count] | None = None
    val: dict[Text, Count] | None = None
    test: dict[Text, Count] | None = None
    split: Text | None = None
    digest: Text | None = None
    skipped: list[SkippedFile] | None = None
    skipped_count: Count | None = None  # all skipped files, where not all are listed
    skipped_reasons: dict[str, Count] | None = None  # their most common reasons
    excluded: list[Text] | None = None  # from training, by the user
    excluded_count: Count | None = None  # all excluded files, where not all are listed
    excluded_digest: Digest | None = None  # SHA-256 of all their names, one per line

    @classmethod
    def listing(cls, skipped: Sequence[LeftOut], excluded: Sequence[str], **known: Any) -> "DataInfo":
        """Data info with skipped files of each kind and the first excluded files; if there are more, with counts."""
        if len(skipped) > MAX_SKIPPED:
            reasons = Counter(entry.kind for entry in skipped)
            known |= {"skipped_count": len(skipped), "skipped_reasons": dict(reasons.most_common(MAX_REASONS))}
        if len(excluded) > MAX_EXCLUDED:
            names = "".join(f"{name}\n" for name in excluded).encode("utf-8", "surrogateescape")
            known |= {"excluded_count": len(excluded), "excluded_digest": sha256(names).hexdigest()}
        named = [SkippedFile(file=one.file, reason=one.reason) for one in some_of_each(skipped, MAX_SKIPPED)]
        return cls(**known, skipped=named, excluded=list(excluded[:MAX_EXCLUDED]))


# Keys that are read but written elsewhere: class names, and the preprocessing in timm's older, flat layout.
_READ = {"label_names", "labels", "id2label", "label2id", "model_args", *PretrainedCfg.model_fields}


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class ClassifierConfig:
    """The content of config.json: the network, its preprocessing and classes, its training and its metrics."""

    architecture: Text
    label_names: ClassNames  # in the order of the head's outputs
    preprocessing: Preprocessing = Preprocessing()
    version: Text | None = None  # of antbee
    mode: Mode | None = None
    recipe: dict[str, Annotated[Any, AfterValidator(_recipe_value)]] = Field(default_factory=dict)  # Recipe.flat
    data: DataInfo = DataInfo()
    weights: WeightsInfo = WeightsInfo()
    metrics: Metrics | None = None
    seed: Annotated[int, Field(ge=0, le=2**32)] | None = None
    run: Text | None = None  # fingerprint of the training run
    files: dict[Text, Digest] = Field(default_factory=dict)  # SHA-256 of the safetensors files of the model folder
    unknown: dict[str, Any] = Field(default_factory=dict)  # unknown keys of config.json

    def to_json(self) -> dict[str, Any]:
        """The JSON object of config.json: timm's and transformers' keys, and antbee's own under "antbee"."""
        size, class_count, timm = self.preprocessing.crop, len(self.label_names), published(self.architecture)
        is_resized = not takes_any_size(self.architecture) and size != timm["input_size"][-1]
        pretrained = {
            "tag": "antbee",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": not takes_any_size(self.architecture),
            "interpolation": self.preprocessing.interpolation,
            "crop_pct": self.preprocessing.crop_pct,
            "crop_mode": CROP_MODES[self.preprocessing.fit],
            "mean": list(self.preprocessing.mean),
            "std": list(self.preprocessing.std),
            "num_classes": class_count,
            "pool_size": [size // 32, size // 32] if timm.get("pool_size") else None,
            "first_conv": timm.get("first_conv"),
            "classifier": timm.get("classifier"),
        }
        own = {key: getattr(self, key) for key in _OWN_KEYS}
        own |= {key: part.model_dump(exclude_unset=True) for key, part in own.items() if isinstance(part, Part)}
        content = {
            "architecture": self.architecture,
            "num_classes": class_count,
            "num_features": feature_count(self.architecture),
            "global_pool": pooling(self.architecture),
            **({"model_args": {"img_size": size}} if is_resized else {}),
            "label_names": list(self.label_names),
            "pretrained_cfg": pretrained | self.unknown.get("pretrained_cfg", {}),
            "antbee": {"format": FORMAT} | own | {"metrics": own["metrics"] or {}} | self.unknown.get("antbee", {}),
        }
        return content | {key: value for key, value in self.unknown.items() if key not in content}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ClassifierConfig":
        """The config of a parsed config.json, by antbee or of any network of timm with an architecture and class names.

        Without preprocessing it gets that of the network's published weights. Raises ModelFolderError, with the missing
        or wrong key, and WeightsError for an architecture that is not supported.
        """
        _refuse_depth(content)
        flat = {key: content[key] for key in PretrainedCfg.model_fields if key in content}
        if content.get("pretrained_cfg") is None and flat.keys() - {"crop_mode"}:
            content = {**content, "pretrained_cfg": flat}
        with validating(ModelFolderError):
            file = ConfigFile.model_validate(content)
        check_architecture(file.architecture)
        own: dict[str, Any] = {"format": FORMAT} if file.antbee is None else file.antbee
        remedy = "install the antbee that wrote it, or train the model again"
        written_in = own.get("format")
        _expect(written_in == FORMAT and written_in is not True, "antbee.format", written_in, f"{FORMAT}: {remedy}")
        # null counts as missing, and so do metrics without keys.
        given = {key: own[key] for key in _OWN_KEYS if own.get(key) is not None and (key, own[key]) != ("metrics", {})}
        with validating(ModelFolderError, "antbee"):
            config = cls(file.architecture, file.label_names, _preprocessing(file), **given)
        _check_together(file, config)
        written = config.to_json()
        unknown = {key: content[key] for key in content if key not in {*written, *_READ}}
        for key, inside in (("pretrained_cfg", content.get("pretrained_cfg") or {}), ("antbee", own)):
            if others := {name: inside[name] for name in inside if name not in {*written[key], "label_names"}}:
                unknown[key] = others
        return replace(config, unknown=unknown)


_OWN_KEYS = ("version", "mode", "recipe", "data", "weights", "metrics", "seed", "run", "files")


def _preprocessing(file: ConfigFile) -> Preprocessing:
    if (cfg := file.pretrained_cfg) is None:
        return preprocessing_of(published(file.architecture))
    mean, std = ((values[0], values[1], values[2]) for values in (cfg.mean, cfg.std))
    found = Preprocessing(cfg.input_size[1], cfg.crop_pct, cfg.interpolation, mean, std, FITS[cfg.crop_mode])
    _expect(found.resize <= MAX_RESIZE, "crop_pct", cfg.crop_pct, f"no photos larger than {MAX_RESIZE} pixels")
    return found


def _check_together(file: ConfigFile, config: ClassifierConfig) -> None:
    """Raises ModelFolderError where values contradict each other."""
    classes, width = len(config.label_names), feature_count(config.architecture)
    arguments, side, pool = file.model_args or ModelArgs(), config.preprocessing.crop, pooling(config.architecture)
    _expect(file.global_pool in (None, pool), "global_pool", file.global_pool, pool)
    _expect(arguments.global_pool in (None, pool), "model_args.global_pool", arguments.global_pool, pool)
    _expect(arguments.img_size in (None, side, [side, side]), "model_args.img_size", arguments.img_size, str(side))
    _expect(file.num_classes in (None, classes), "num_classes", file.num_classes, str(classes))
    _expect(file.num_features in (None, width), "num_features", file.num_features, str(width))
    _expect(arguments.num_classes in (None, classes), "model_args.num_classes", arguments.num_classes, str(classes))
    crop = config.recipe.get("smallest_crop")
    is_share = crop is None or (type(crop) in (int, float) and 0.01 <= crop <= 1)
    _expect(is_share, "antbee.recipe.smallest_crop", crop, "0.01 to 1")
    mirror = config.recipe.get("mirror")
    _expect(mirror is None or isinstance(mirror, bool), "antbee.recipe.mirror", mirror, "true or false")
    if config.metrics is not None:
        epochs, kept = config.metrics.epochs, config.metrics.kept.epoch
        _expect(kept <= epochs, "antbee.metrics.kept.epoch", kept, f"at most {epochs}, the number of epochs")
        for key, found in (("metrics", config.metrics), ("metrics.test", config.metrics.test)):
            confusion, scores = (found.confusion, found.per_class) if found else ([[0] * classes] * classes, None)
            is_square = [len(row) for row in confusion] == [classes] * classes
            _expect(is_square, f"antbee.{key}.confusion", confusion, f"{classes} rows of {classes} counts")
            _expect(scores is None or len(scores) == classes, f"antbee.{key}.per_class", scores, f"{classes} entries")


def _expect(is_right: bool, key: str, value: object, expected: str) -> None:
    if not is_right:
        raise ModelFolderError(f"{key} is {shown(value)}, expected {expected}")


def _refuse_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        lists = [list(outer.values()) if isinstance(outer, dict) else outer for outer in level]
        level = [inner for outer in lists if isinstance(outer, list) for inner in outer]
    if level:
        raise ModelFolderError(f"objects and lists are nested more than {MAX_DEPTH} deep: {AGAIN}")


def read_config(folder: Path, translate: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> ClassifierConfig:
    """The config of a model folder, `translate`d from another layout. Raises what `ClassifierConfig.from_json` does."""
    path = folder / CONFIG_FILE
    if not path.exists() and not path.is_symlink():
        raise ModelFolderError(f"{folder} has no {CONFIG_FILE}: expected a folder that `{command_name('train')}` wrote")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object")
    try:
        config = ClassifierConfig.from_json(translate(content))
    except (ModelFolderError, WeightsError) as error:
        raise type(error)(f"{path} can't be used: {error}") from error
    _refuse_padding(path, config)
    return config


def _refuse_padding(path: Path, config: ClassifierConfig) -> None:
    """Raises ModelFolderError for a config that is larger than its classes, files and seeds explain."""
    data, seeds = config.data, config.metrics.seeds if config.metrics else None
    named = [config.label_names, data.model_dump(exclude=set(data.model_extra or ())), seeds and seeds.kept.values]
    largest = 2**18 + 32 * len(config.label_names) ** 2 + 8 * len(json.dumps(named))
    if (size := path.stat().st_size) > largest:
        raise ModelFolderError(f"{path} has {size:,} bytes, expected at most {largest:,} for its content: {AGAIN}")


def read_history(folder: Path) -> tuple[dict[str, float], ...]:
    """Reads the epochs of a model folder, as written by `History.to_records`; empty without a history file.

    Raises ModelFolderError where the file is invalid.
    """
    path = folder / HISTORY_FILE
    try:
        content = read_json(path) if path.exists() else []
        records = TypeAdapter(list[dict[str, Number]], config=STRICT).validate_python(content)
    except ValidationError:
        records = [{}]
    if not all("epoch" in record for record in records):
        raise ModelFolderError(f"{path} is not a list of epochs: delete it, or train the model again")
    return tuple(records)


def read_json(path: Path) -> Any:
    """The content of a JSON file of a model folder. Raises ModelFolderError."""
    try:
        return json.loads(content_of(path, largest=MAX_BYTES).decode("utf-8-sig"))
    except FileError as error:
        raise ModelFolderError(f"{path} can't be used ({error}): {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is no JSON ({error}): {AGAIN}") from error
