"""The network: images -> feature map -> features -> logits.

It is torchvision's ResNet, untouched, so that its weights fit torchvision, timm and transformers alike. The backbone is
everything before `fc`; the head is `fc`, one linear layer on the pooled features.

    images (B, 3, H, W) -> feature map (B, C, H/32, W/32) -> features (B, C) -> logits (B, classes)
"""

import copy
import functools
import hashlib
import http.client
import pickle  # for the name of its error alone: nothing is ever unpickled
import ssl
import struct
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models import ResNet, WeightsEnum, get_model, get_model_weights

from antbee.files import FileError, opened
from antbee.tensors import LARGEST, TensorsError, read_tensors

# The torchvision networks whose head is called `fc` and whose backbone ends in one pooled feature map.
ARCHITECTURES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
HEAD = "fc."  # what the names of the head's tensors start with
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what weights may be kept in

Precision = Literal["float32", "bfloat16"]  # of the factors of convolutions; weights and losses stay float32
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

WEIGHTS_EXPECTED = "expected .safetensors or a torchvision .pth, give such a file"
NO_WEIGHTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError)


class WeightsError(ValueError):
    """Starting weights can't be used; the message says which, why, and what to do."""


class DeviceError(ValueError):
    """The device asked for is not there; the message says which ones are."""


class WeightsUnreachableError(WeightsError):
    """The ImageNet weights are not on this machine and could not be fetched from the network."""


@dataclass(frozen=True)
class StartingWeights:
    """What a network knows before training."""

    name: str  # "imagenet", "random", or a file's name
    state: Mapping[str, Tensor] | None = None  # torchvision's keys; None: random
    digest: str | None = None  # SHA-256 of the file the tensors came from
    base_model: str | None = None  # the same weights on the Hub


def build_network(architecture: str, class_count: int, weights: StartingWeights, *, seed: int) -> ResNet:
    """A network with the backbone of `weights` and a new head for `class_count` classes, drawn by `seed`.

    Raises WeightsError where `weights` do not fill the backbone exactly; their own head is always left out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = empty_network(architecture, class_count)
    if weights.state is not None:
        backbone = {name: tensor for name, tensor in weights.state.items() if not name.startswith(HEAD)}
        load_strictly(network, backbone | _head_state(network), f"the weights {weights.name}")
    return network


def empty_network(architecture: str, class_count: int) -> ResNet:
    """A network with weights that know nothing yet. Raises WeightsError for an architecture that isn't known."""
    check_architecture(architecture)
    network: ResNet = get_model(architecture, weights=None, num_classes=class_count)
    return network


def network_with(architecture: str, class_count: int, state: Mapping[str, Tensor], source: str) -> ResNet:
    """A network with the weights `state`. Raises WeightsError as `empty_network` and `load_strictly` do."""
    with torch.device("meta"):  # without drawing weights that would be overwritten, which takes most of the time
        network = empty_network(architecture, class_count)
    network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # the one thing that a file need not have
            buffer.zero_()
    load_strictly(network, state, source)
    return network


def check_architecture(architecture: str) -> None:
    """Raises WeightsError for a network that antbee does not know, naming those it does."""
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"unknown architecture {architecture!r:.100}: expected one of {', '.join(ARCHITECTURES)}")


def _head_state(network: ResNet) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name.startswith(HEAD)}


def load_strictly(network: ResNet, state: Mapping[str, Tensor], source: str) -> None:
    """Fills every tensor of `network`; raises WeightsError, naming `source` and up to three misfits, if it can't."""
    own = network.state_dict()
    # BatchNorm's step counters are in no file older than they are; nothing here reads them.
    state = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")} | dict(state)
    misfits = [f"{name} is missing" for name in own if name not in state]
    misfits += [f"{name} is unknown" for name in state if name not in own]
    misfits += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise WeightsError(
            f"{source} don't fit this network: {'; '.join(misfits[:3])}{more}. Is it another architecture? "
            "Name the right one, or train or download it again"
        )
    for name in own:
        if (wrong := _wrong_numbers(name, state[name])) is not None:
            raise WeightsError(f"{source} are damaged: {name} {wrong}; train or download them again")
    network.load_state_dict(state)


def _wrong_numbers(name: str, tensor: Tensor) -> str | None:
    """What is wrong with the numbers of a tensor of this name: torch itself takes any, and answers with NaN later."""
    if name.endswith("num_batches_tracked"):  # which nothing reads
        return None if tensor.dtype == torch.int64 else f"is of {tensor.dtype}, expected torch.int64"
    if tensor.dtype not in FLOATS:
        return f"is of {tensor.dtype}, expected torch.float32"
    numbers = tensor.float()
    if not torch.isfinite(numbers).all():
        return "has numbers that are NaN or infinite"
    if name.endswith("running_var") and bool((numbers < 0).any()):
        return "has negative numbers, and variances have none"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# The way through the network


def feature_map(network: ResNet, images: Tensor) -> Tensor:
    """The backbone up to its last stage: images (B, 3, H, W) -> (B, C, H/32, W/32)."""
    x = network.relu(network.bn1(network.conv1(images)))
    x = network.maxpool(x)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
    return x


def pooled(network: ResNet, maps: Tensor) -> Tensor:
    """Feature maps (B, C, h, w) -> features (B, C): the mean over all places."""
    return torch.flatten(network.avgpool(maps), 1)


def class_activation_map(head: nn.Linear, maps: Tensor, class_index: int) -> Tensor:
    """How much each place speaks for a class: feature maps (..., C, h, w) -> (..., h, w), in logits.

    The head is linear and pooling is a mean, so no gradient is needed: the map's mean plus the head's bias is the
    class's logit. Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", arXiv 1512.04150.
    """
    return torch.einsum("c,...chw->...hw", head.weight[class_index], maps)


def folded(network: ResNet) -> ResNet:
    """A copy for answering alone: every BatchNorm folded into the convolution before it, in the fastest memory layout.

    With fixed statistics BatchNorm scales and shifts each channel, and so can the convolution's own weights and bias
    (https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html). Equal but for rounding.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        layers = dict(module.named_children())
        # A block's layers are called conv1, bn1, conv2, bn2, ...; its shortcut is a pair "0", "1".
        names = [(name, name.replace("conv", "bn")) for name in layers if name.startswith("conv")]
        if isinstance(module, nn.Sequential) and isinstance(layers.get("0"), nn.Conv2d):
            names = [("0", "1")]
        for convolution, norm in names:
            setattr(module, convolution, fuse_conv_bn_eval(layers[convolution], layers[norm]))
            setattr(module, norm, nn.Identity())
    return network.to(memory_format=fastest_layout(network.fc.weight.device))


def fastest_layout(device: torch.device) -> torch.memory_format:
    """How images and convolutions' weights lie in memory: channels last on CPUs and on tensor cores."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def choose_precision(name: str, device: torch.device) -> Precision:
    """ "auto" is bfloat16 where the device multiplies it faster than float32: not on CPUs that have to emulate it.

    Raises DeviceError for a name that is none.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise DeviceError(f"no precision {name!r}: expected auto, {' or '.join(PRECISIONS)}")
    if device.type == "cpu":
        instructions = torch.cpu.get_capabilities()
        faster = instructions.get("avx512_bf16") or instructions.get("amx_bf16")
    else:
        faster = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if faster else "float32"


def multiplying_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products take their factors in `precision` and add up in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def freeze_backbone(network: ResNet) -> None:
    """Leaves only the head to the optimiser. BatchNorm's statistics are not weights: see `training.set_learning`."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))


def unfreeze(network: ResNet) -> None:
    """Gives every weight to the optimiser."""
    network.requires_grad_(True)


def count_parameters(module: nn.Module, *, trainable: bool) -> int:
    """Weights that the optimiser moves, or all of them."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def count_all_parameters(architecture: str, class_count: int) -> int:
    """Weights of a network that need not be built for it."""
    with torch.device("meta"):
        return count_parameters(empty_network(architecture, class_count), trainable=False)


def new_head(width: int, class_count: int, *, seed: int) -> nn.Linear:
    """A head that knows nothing yet, on `width` features, drawn by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Linear(width, class_count)


def with_head(network: ResNet, head: nn.Linear) -> ResNet:
    """The network with another head on the very same backbone, which is shared and not copied.

    Whoever trains or moves one of them changes the backbone of both. Raises WeightsError for a head of another width.
    """
    if head.in_features != network.fc.in_features:
        raise WeightsError(
            f"a head on {head.in_features} features doesn't fit a backbone of {network.fc.in_features}: "
            "is it of another architecture?"
        )
    other = copy.copy(network)
    # A shallow copy shares the dict in which a module keeps its layers: the new head would be the other's as well.
    other._modules = dict(network._modules)
    other.fc = head
    return other


def divide_logits(head: nn.Linear, temperature: float) -> None:
    """Makes the head's logits smaller by that factor."""
    with torch.no_grad():
        for weights in head.parameters():
            weights.div_(temperature)


def backbone_digest(network: ResNet) -> str:
    """SHA-256 of all that decides a network's features: equal digests, equal features."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not name.startswith(HEAD) and not name.endswith("num_batches_tracked"):  # a counter that nothing reads
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def zero_shot_head(weights: StartingWeights, architecture: str, label_names: Sequence[str]) -> nn.Linear | None:
    """What the starting weights know of the classes by themselves: their own head's rows for these classes.

    None where the weights bring no head of ImageNet's 1000 categories, or where a class is not by its name, in singular
    or plural, exactly one of them.
    """
    state = weights.state or {}
    categories: list[str] = get_model_weights(architecture)["IMAGENET1K_V1"].meta["categories"]
    shapes = [tuple(state[f"{HEAD}{name}"].shape) if f"{HEAD}{name}" in state else () for name in ("weight", "bias")]
    if [shape[:1] for shape in shapes] != [(len(categories),)] * 2:
        return None
    rows = [_category_of(name, categories) for name in label_names]
    if None in rows or len(set(rows)) < len(rows):
        return None
    head = nn.Linear(state[f"{HEAD}weight"].shape[1], len(rows))
    head.load_state_dict({name: state[f"{HEAD}{name}"][rows] for name in ("weight", "bias")})
    return head.requires_grad_(False)


def _category_of(name: str, categories: Sequence[str]) -> int | None:
    """The one category that a class is called after, "ants" or "ant"; None where there is none or more than one."""
    name = _words(name)
    singulars = {name, name.removesuffix("s"), name.removesuffix("es")}
    if name.endswith("ies"):
        singulars.add(name.removesuffix("ies") + "y")
    found = [index for index, category in enumerate(categories) if _words(category) in singulars]
    return found[0] if len(found) == 1 else None


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


@functools.cache
def feature_count(architecture: str) -> int:
    """Channels of the last feature map, which are the features that the head sees."""
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        return int(empty_network(architecture, 2).fc.in_features)


def choose_device(name: str) -> torch.device:
    """ "auto" is the accelerator that torch finds (CUDA, MPS, ...), else the CPU; other names as torch spells them.

    Raises DeviceError where the device named is not there.
    """
    # Without check_available a CUDA build of torch answers "cuda" on machines that have no GPU.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    here = ("cpu", accelerator.type) if accelerator else ("cpu",)
    if name.partition(":")[0] not in here:
        raise DeviceError(f"no device {name!r} here: this machine has {' and '.join(here)}; choose one, or auto")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device {name!r}: expected {' or '.join(here)}, or auto") from error


# ---------------------------------------------------------------------------------------------------------------------
# Where the starting weights come from


def load_starting_weights(choice: str, architecture: str) -> StartingWeights:
    """Starting weights: "imagenet", "random", or the path of a .safetensors or a torchvision .pth file.

    Nothing is unpickled: files are safetensors, or are read by torch with `weights_only=True`.
    Raises WeightsError, and WeightsUnreachableError where ImageNet's weights can't be fetched.
    """
    check_architecture(architecture)
    if choice == "random":
        return StartingWeights("random")
    if choice == "imagenet":
        return _imagenet_weights(architecture)
    path = Path(choice)
    if not path.exists():
        raise WeightsError(f"no weights file {path}: expected imagenet, random, or a .safetensors or .pth file")
    return StartingWeights(path.name, *_read_weights(path))


def _imagenet_weights(architecture: str) -> StartingWeights:
    """torchvision's first ImageNet weights of a network, which are those of the tutorial."""
    enum: WeightsEnum = get_model_weights(architecture)["IMAGENET1K_V1"]
    name = enum.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    expected = name.partition("-")[2].partition(".")[0]  # the hash's beginning is part of the file's name
    if not path.is_file():
        _download(enum.url, path, expected)
    # torch checks it only while it downloads, and never that of a file already in its cache.
    if not (digest := _digest(path)).startswith(expected):
        raise WeightsError(f"{path} is damaged (SHA-256 {digest[:8]}, expected {expected}): delete it and try again")
    return StartingWeights("imagenet", _read_state(path), digest, base_model=f"timm/{architecture}.tv_in1k")


def _download(url: str, path: Path, expected: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=expected)  # to a temporary name, then renamed
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise WeightsUnreachableError(f"{url} can't be reached ({getattr(error, 'reason', error)})") from error
    except RuntimeError as error:  # what arrived has another hash
        raise WeightsUnreachableError(f"the download of {url} was cut off or changed ({error}): try again") from error


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and its SHA-256. Raises WeightsError for a file that holds something else."""
    if path.suffix == ".safetensors":
        try:
            read = read_tensors(path)
        except TensorsError as error:
            raise WeightsError(f"{path} can't be read as weights ({error}): {WEIGHTS_EXPECTED}") from error
        return read.tensors, read.digest
    digest = _digest(path)
    return _read_state(path), digest


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torchvision .pth file by name. Raises WeightsError for a file that holds something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # What torch's reader meets in a file that is none of its own, found by feeding it such files.
    except (pickle.UnpicklingError, struct.error, OSError, RuntimeError, EOFError, *NO_WEIGHTS) as error:
        reason = "more than tensors, or none" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise WeightsError(f"{path} can't be read as weights ({reason}): {WEIGHTS_EXPECTED}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds something else than named tensors: expected a torchvision state_dict")
    return dict(state)


def _digest(path: Path) -> str:
    try:
        with opened(path, largest=LARGEST) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileError as error:
        raise WeightsError(f"{path} can't be read as weights ({error}): {WEIGHTS_EXPECTED}") from error
