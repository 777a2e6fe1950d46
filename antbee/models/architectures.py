"""The networks of timm by name: which there are, their published weights, their preprocessing.

timm (https://huggingface.co/docs/timm) takes a second to import, so it is imported in functions.
"""

import functools
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from antbee.data.transforms import INTERPOLATIONS, Fit, Preprocessing
from antbee.models.tensors import WeightsError

TORCHVISION_TAG = "tv_in1k"  # of the weights that torchvision publishes, and the tutorial uses
NEAREST_NAMES = 5  # in the message for an unknown name
CROP_MODES: dict[Fit, str] = {"crop": "center", "squash": "squash", "pad": "border"}  # timm's names
FITS: dict[str, Fit] = {name: fit for fit, name in CROP_MODES.items()}


def check_architecture(name: str) -> None:
    """Raises WeightsError, with the nearest names, where timm has no network of this name."""
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name[:100], timm.list_models(), NEAREST_NAMES, cutoff=0.5)
        such = f", such as {', '.join(near)}" if near else ", such as resnet18 or convnext_atto"
        raise WeightsError(
            f"unknown backbone {name!r:.100}: expected the name of a network of timm{such}; a pattern such as "
            "'vit*dinov2*' lists those that fit"
        )


def split_tag(name: str) -> tuple[str, str | None]:
    """A backbone and the tag of its weights, which timm writes as one name: resnet18.a1_in1k."""
    architecture, _, tag = name.partition(".")
    return architecture, tag or None


def tags_of(architecture: str) -> list[str]:
    """The tags of the published weights of a network."""
    import timm

    return [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]


@functools.cache
def published(architecture: str, tag: str | None = None) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` of the published weights with this tag, or of the default ones.

    The default of torchvision's ResNets are the weights of torchvision, as in the tutorial; of other networks those
    that timm chooses. Raises WeightsError for an unknown network or tag.
    """
    import timm

    check_architecture(architecture)
    tags = tags_of(architecture)
    if tag is not None and tag not in tags:
        raise WeightsError(
            f"{architecture} has no weights {tag!r:.100}: expected {', '.join(tags) or 'random or a file'}"
        )
    if tag is None and TORCHVISION_TAG in tags:
        tag = TORCHVISION_TAG
    cfg = timm.get_pretrained_cfg(architecture if tag is None else f"{architecture}.{tag}")
    return cfg.to_dict(remove_source=False, remove_null=True) if cfg else {}


def takes_any_size(architecture: str) -> bool:
    """Whether a network takes images of any size as it is; others are built for one size."""
    return not published(architecture).get("fixed_input_size", False)


def preprocessing_of(cfg: Mapping[str, Any], image_size: int | None = None) -> Preprocessing:
    """The preprocessing in timm's `pretrained_cfg`, at another size if given.

    Raises WeightsError where antbee's images can't be made so.
    """
    from timm.data import resolve_data_config

    found = resolve_data_config(pretrained_cfg=dict(cfg))
    channels, interpolation, crop_mode = found["input_size"][0], found["interpolation"], found["crop_mode"]
    if channels != 3 or interpolation not in INTERPOLATIONS or crop_mode not in FITS:
        raise WeightsError(
            f"{cfg.get('architecture')} takes images of {channels} channels, resized by {interpolation} with a "
            f"{crop_mode} crop: expected 3, {' or '.join(INTERPOLATIONS)} and {' or '.join(FITS)}, choose another "
            "backbone"
        )
    side = image_size or found["input_size"][-1]
    mean, std = tuple(found["mean"]), tuple(found["std"])
    return Preprocessing(side, found["crop_pct"], found["interpolation"], mean, std, FITS[crop_mode])
