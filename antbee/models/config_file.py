"""The keys of config.json outside "antbee", as pydantic models: timm's, in its two layouts, and transformers'."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, AliasPath, BeforeValidator, ConfigDict, Field

from antbee.data.folder import MOST_CLASSES
from antbee.data.transforms import Interpolation
from antbee.models.metrics import Part, Text

MAX_CROP = 1024  # pixels a side: the memory for a narrow photo grows with the square


# Validators. Their messages complete the sentence "KEY is VALUE, expected ..."
def _square_of_colours(sides: list[int]) -> list[int]:
    if sides != [3, sides[-1], sides[-1]] or not 32 <= sides[-1] <= MAX_CROP:
        raise ValueError(f"[3, side, side] of 32 to {MAX_CROP} pixels")
    return sides


def in_order(names: Any) -> Any:
    """Names as a list; transformers writes {"0": "ants", "1": "bees"}."""
    return [names.get(str(index)) for index in range(len(names))] if isinstance(names, dict) else names


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not 2 <= len(names) <= MOST_CLASSES or len(set(names)) < len(names):
        raise ValueError(f"2 to {MOST_CLASSES} different names, not {len(names)}")
    return names


ClassNames = Annotated[tuple[Text, ...], Field(strict=False), BeforeValidator(in_order), AfterValidator(_different)]


class PretrainedCfg(Part):
    """The preprocessing in timm's pretrained_cfg."""

    model_config = ConfigDict(extra="ignore")
    input_size: Annotated[list[int], Field(min_length=3, max_length=3), AfterValidator(_square_of_colours)]
    crop_pct: Annotated[float, Field(ge=0.1, le=1)]
    interpolation: Interpolation
    mean: Annotated[list[Annotated[float, Field(ge=-1e3, le=1e3)]], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(ge=1e-3, le=1e3)]], Field(min_length=3, max_length=3)]
    crop_mode: Literal["center", "squash", "border"] = "center"  # see CROP_MODES


class ModelArgs(Part):
    """timm's model arguments; those that would change the network are not supported."""

    model_config = ConfigDict(extra="forbid")
    num_classes: int | None = None
    in_chans: Literal[3] = 3
    global_pool: Text | None = None
    img_size: int | list[int] | None = None
    zero_init_last: Any = None  # only used for initialisation


class ConfigFile(Part):
    """config.json in the layouts of antbee, timm (https://huggingface.co/docs/timm/hf_hub) and transformers."""

    model_config = ConfigDict(extra="ignore")
    architecture: Text
    label_names: ClassNames = Field(
        validation_alias=AliasChoices("label_names", AliasPath("pretrained_cfg", "label_names"), "labels", "id2label")
    )
    num_classes: int | None = None
    num_features: int | None = None
    global_pool: Text | None = None
    model_args: ModelArgs | None = None
    pretrained_cfg: PretrainedCfg | None = None
    antbee: dict[str, Any] | None = None
