"""The networks of timm whose names fit a pattern, and that antbee can train."""

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from antbee.models.architectures import preprocessing_of, published, split_tag
from antbee.models.backbone import count_parameters, outline
from antbee.models.tensors import WeightsError
from antbee.text import counted

MOST_LISTED = 40  # networks


@dataclass(frozen=True)
class Architecture:
    """A network of timm, or one with the tag of some of its weights; printed, it is a line of a list."""

    name: str
    parameters: int  # with a head of two classes
    image_size: int  # pixels a side

    def __str__(self) -> str:
        """The name, the number of parameters and the image size."""
        return f"{self.name:45} {self.parameters / 1e6:8.1f} million parameters   {self.image_size:4} pixels"


@dataclass(frozen=True)
class SearchResult:
    """The networks that fit a pattern; printed, it is a list of them."""

    usable: tuple[Architecture, ...]  # sorted by name, MOST_LISTED at most
    left_out: Mapping[str, int]  # how many are not, by the reason
    rest: int  # how many fit too and were not looked at

    def __str__(self) -> str:
        """A line for each network, for each reason why some are left out, and for the rest."""
        lines = [str(architecture) for architecture in self.usable]
        lines += [f"left out: {counted(number, 'network')} {reason}" for reason, number in self.left_out.items()]
        return "\n".join(lines + [f"and {self.rest} more: give a narrower pattern"] * (self.rest > 0))


def matching(pattern: str) -> SearchResult:
    """The networks whose names fit a pattern with * and ?; of one with a dot, networks with the tags of their weights.

    Raises WeightsError where none fits.
    """
    import timm

    known = timm.list_pretrained() if "." in pattern else timm.list_models()
    names = sorted(fnmatch.filter(known, pattern))
    if not names:
        raise WeightsError(
            f"no backbone fits {pattern!r:.100}: expected a pattern such as 'resnet*', 'vit*dinov2*' or, for the tags "
            "of a network's weights, 'resnet18.*'"
        )
    usable: list[Architecture] = []
    left_out: Counter[str] = Counter()
    for place, name in enumerate(names):
        if len(usable) == MOST_LISTED:
            return SearchResult(tuple(usable), left_out, len(names) - place)
        found = _described(name)
        if isinstance(found, Architecture):
            usable.append(found)
        else:
            left_out[found] += 1
    return SearchResult(tuple(usable), left_out, 0)


def _described(name: str) -> Architecture | str:
    """A network by name, or the reason why antbee can't train it."""
    architecture, tag = split_tag(name)
    try:
        preprocessing = preprocessing_of(published(architecture, tag))
    except WeightsError:
        return "for other images than antbee's, which are square and of three channels"
    try:
        network = outline(architecture)
    except WeightsError:
        return "without a single linear layer at the end"
    return Architecture(name, count_parameters(network, trainable=False), preprocessing.crop)
