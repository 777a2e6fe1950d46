"""Model folders of other libraries in antbee's layout, which is timm's: names of tensors, config.json, class names.

Read are image classifiers of timm, the same as transformers saves them (TimmWrapper), and transformers' own ResNets.
What these files say comes from anybody, so it is validated, here or as antbee's own in `models.config`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field
from torch import Tensor

from antbee.data.folder import MOST_CLASSES
from antbee.models.config import ModelFolderError, read_json
from antbee.models.config_file import ClassNames, in_order
from antbee.models.metrics import Part
from antbee.models.validation import validating

PROCESSOR_FILE = "preprocessor_config.json"
NAMES = ("label_names", "labels", "id2label")
# Of transformers, without a meaning for a network of timm; antbee writes the folder in timm's layout.
TRANSFORMERS_KEYS = ("architectures", "model_type", "dtype", "torch_dtype", "transformers_version")
WRAPPER_PREFIX = "timm_model."
LARGEST_CROP = 383  # pixels: from the next on, transformers' ConvNextImageProcessor squeezes photos and crops nothing

# timm's ResNets by their blocks, as https://arxiv.org/abs/1512.03385 has them.
RESNETS: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
WIDTHS = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}
_BLOCK = r"resnet\.encoder\.stages\.(\d)\.layers\.(\d+)"
# Patterns of names in transformers' ResNets, and the name in timm; stages and layers count from 1 in timm.
RENAMED: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"resnet\.embedder\.embedder\.convolution", lambda found: "conv1"),
    (r"resnet\.embedder\.embedder\.normalization", lambda found: "bn1"),
    (rf"{_BLOCK}\.layer\.(\d)\.convolution", lambda found: f"{_block(found)}.conv{int(found[3]) + 1}"),
    (rf"{_BLOCK}\.layer\.(\d)\.normalization", lambda found: f"{_block(found)}.bn{int(found[3]) + 1}"),
    (rf"{_BLOCK}\.shortcut\.convolution", lambda found: f"{_block(found)}.downsample.0"),
    (rf"{_BLOCK}\.shortcut\.normalization", lambda found: f"{_block(found)}.downsample.1"),
    (r"classifier\.1", lambda found: "fc"),
)


def _block(found: re.Match[str]) -> str:
    return f"layer{int(found[1]) + 1}.{found[2]}"


Sizes = Annotated[tuple[int, ...], Field(strict=False, max_length=8)]


class ResNetConfig(Part):
    """transformers' config of a ResNet, with its defaults; values that no network of timm has are refused."""

    model_config = ConfigDict(extra="ignore")
    id2label: ClassNames = ("LABEL_0", "LABEL_1")
    num_channels: Literal[3] = 3
    embedding_size: Literal[64] = 64
    hidden_sizes: Sizes = (256, 512, 1024, 2048)
    depths: Sizes = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Literal["relu"] = "relu"
    downsample_in_first_stage: Literal[False] = False
    downsample_in_bottleneck: bool = False

    @property
    def architecture(self) -> str:
        """The same network in timm. Raises ModelFolderError where there is none."""
        architecture = RESNETS.get((self.layer_type, self.depths))
        is_strided = self.layer_type == "bottleneck" and self.downsample_in_bottleneck
        if architecture is None or self.hidden_sizes != WIDTHS[self.layer_type] or is_strided:
            stride = " with the stride in its 1 x 1 convolutions" if is_strided else ""
            raise ModelFolderError(
                f"this ResNet of transformers has {self.layer_type} layers of depths {self.depths!s:.60} and sizes "
                f"{self.hidden_sizes!s:.60}{stride}, expected one of timm's: {', '.join(RESNETS.values())}"
            )
        return architecture


class ProcessorConfig(Part):
    """transformers' preprocessor_config.json of its ResNets: resize to size / crop_pct, centre crop, normalise."""

    model_config = ConfigDict(extra="ignore")
    kind: Literal[
        "ConvNextImageProcessor", "ConvNextImageProcessorFast", "ConvNextImageProcessorPil", "ConvNextFeatureExtractor"
    ] = Field(validation_alias=AliasChoices("image_processor_type", "feature_extractor_type"))
    size: int | dict[Literal["shortest_edge"], int]
    crop_pct: Annotated[float, Field(gt=0)] = 224 / 256
    resample: Literal[2, 3] = 3  # Pillow's numbers
    image_mean: list[float]
    image_std: list[float]
    do_resize: Literal[True] = True
    do_center_crop: Literal[False] = False  # another one, after that of the resizing
    do_rescale: Literal[True] = True
    rescale_factor: Annotated[float, Field(ge=1 / 256, le=1 / 254)] = 1 / 255
    do_normalize: Literal[True] = True

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The same in timm's keys. Raises ModelFolderError for a size at which nothing is cropped."""
        side = self.size if isinstance(self.size, int) else self.size.get("shortest_edge", 0)
        if side > LARGEST_CROP:
            raise ModelFolderError(
                f"preprocessor_config.size is {side}, at which transformers squeezes photos to a square: expected "
                f"{LARGEST_CROP} at most"
            )
        return {
            "input_size": [3, side, side],
            "crop_pct": self.crop_pct,
            "interpolation": "bilinear" if self.resample == 2 else "bicubic",
            "mean": self.image_mean,
            "std": self.image_std,
        }


def in_timms_layout(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The object in config.json of a model folder, in timm's layout and with class names; antbee's own as it is.

    Classes without names become "class 0", "class 1"; of equal names each gets its number. Raises ModelFolderError for
    networks of transformers that timm does not have.
    """
    if "antbee" in content:
        return dict(content)
    if "architecture" not in content and isinstance(kind := content.get("model_type"), str):
        if kind != "resnet":
            raise ModelFolderError(
                f"this is a {kind!r:.50} of transformers, expected a ResNet of it, or a network of timm: choose another"
            )
        return _resnet(content, folder)
    return _with_names({key: value for key, value in content.items() if key not in TRANSFORMERS_KEYS})


def _resnet(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    with validating(ModelFolderError):
        config = ResNetConfig.model_validate(_without_nulls(_with_names(content, names=("id2label",))))
    path = folder / PROCESSOR_FILE
    if not path.is_file():
        raise ModelFolderError(
            f"there is no {PROCESSOR_FILE} beside it, which says how photos are prepared: download it too"
        )
    content = _without_nulls(read_json(path))
    with validating(ModelFolderError, path.stem):
        processor = ProcessorConfig.model_validate(content)
    return {
        "architecture": config.architecture,
        "label_names": list(config.id2label),
        "num_classes": len(config.id2label),
        "pretrained_cfg": processor.pretrained_cfg,
    }


def _without_nulls(content: Any) -> Any:
    """transformers writes null for what has its default."""
    is_object = isinstance(content, Mapping)
    return {key: value for key, value in content.items() if value is not None} if is_object else content


def _with_names(content: Mapping[str, Any], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """A config with different class names, if it has any or says how many classes there are."""
    inside = content.get("pretrained_cfg")
    inside = inside if isinstance(inside, Mapping) else {}
    places = [key for key in names if content.get(key) is not None]
    given = in_order(content[places[0]]) if places else inside.get("label_names")
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return {**content, (places or names)[0]: _told_apart(given)}
    count = content.get("num_classes", inside.get("num_classes"))
    if given is not None or type(count) is not int or "num_classes" not in {*content, *inside}:
        return dict(content)
    if not 2 <= count <= MOST_CLASSES:
        raise ModelFolderError(f"num_classes is {count!s:.20}, expected 2 to {MOST_CLASSES}: choose another model")
    return {**content, names[0]: [f"class {number}" for number in range(count)]}


def _told_apart(names: list[str]) -> list[str]:
    """ImageNet has two cranes: a bird and a machine."""
    counts = Counter(names)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]


def timms_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model under timm's names; those with other names than transformers' stay as they are."""
    names = {name: name for name in tensors}
    if all(name.startswith(WRAPPER_PREFIX) for name in names):
        names = {name: name.removeprefix(WRAPPER_PREFIX) for name in names}
    elif any(name.startswith("resnet.") for name in names):
        names = {name: _renamed(name) for name in names}
    if len(set(names.values())) < len(names):  # two would be one, so the file is no such model
        return dict(tensors)
    return {names[name]: tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    module, _, kind = name.rpartition(".")
    for pattern, rename in RENAMED:
        if (found := re.fullmatch(pattern, module)) is not None:
            return f"{rename(found)}.{kind}"
    return name
