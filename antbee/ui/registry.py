"""The models that the page shows and their photos, reloaded when their folders change."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from antbee.data.download import data_root, folder_named
from antbee.data.drawn import CLASSES, write_drawn_set
from antbee.data.folder import ImageDataset, read_folder
from antbee.data.images import DataError
from antbee.hub.card import PLACEHOLDER, page_text
from antbee.installation import command_name, home
from antbee.models.classifier import Classifier
from antbee.models.config import CONFIG_FILE, ClassifierConfig, read_history
from antbee.models.folder import WEIGHTS_FILE, find_folder, model_folders, model_name
from antbee.text import as_text, one_line
from antbee.training.fewshot import pretrained_base
from antbee.ui.i18n import ENGLISH, Translator

SIDE_BY_SIDE = 2  # models
DRAWN_EXAMPLES = 8  # of each class in each split, where the models' own photos are not there


@dataclass(frozen=True)
class LoadedModel:
    """A model and the contents of its folder."""

    name: str
    classifier: Classifier
    history: tuple[dict[str, float], ...]  # see History.to_records
    card: str  # Markdown, without front matter and pictures

    @property
    def config(self) -> ClassifierConfig:
        """What config.json says."""
        return self.classifier.config


@dataclass(frozen=True)
class Snapshot:
    """Models and photos that were loaded together; both may be missing."""

    models: tuple[LoadedModel, ...] = ()
    photos: ImageDataset | None = None

    def chosen(self, names: Sequence[str] | None) -> list[LoadedModel]:
        """The models with these names; the first ones where there is none."""
        found = [model for model in self.models if model.name in (names or ())]
        return (found or list(self.models))[:SIDE_BY_SIDE]

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return [model.name for model in self.models]


def load_models(sources: Sequence[str | Path], *, device: str = "auto") -> tuple[LoadedModel, ...]:
    """The models in folders or Hub repositories, under unique names.

    Raises what `Classifier.from_pretrained` raises.
    """
    sources = [model_name(source) for source in sources]
    folders = [find_folder(source) for source in sources]
    classifiers = [Classifier.from_pretrained(folder, device=device) for folder in folders]
    names = _unique_names([classifier.config.mode for classifier in classifiers], sources)
    models = []
    for name, classifier, folder, source in zip(names, classifiers, folders, sources, strict=True):
        # A model that antbee did not train may have a history.json of another format.
        history = read_history(folder) if classifier.config.mode else ()
        # The card is rendered from the config: of a Hub repository only weights and JSON are downloaded.
        card = page_text(classifier.config.to_json(), PLACEHOLDER if Path(source).is_dir() else str(source))
        models.append(LoadedModel(name, classifier, history, card))
    return tuple(models)


def _unique_names(modes: Sequence[str | None], sources: Sequence[str | Path]) -> list[str]:
    """The mode where it is unique, else the Hub id or the last two parts of the path.

    Never the whole path: visitors must not see where the owner keeps files.
    """
    paths = [Path(source).resolve() if Path(source).is_dir() else Path(source) for source in sources]
    folders = [one_line("/".join(path.parts[-2:])) for path in paths]
    names = [mode or folder for mode, folder in zip(modes, folders, strict=True)]
    names = names if len(set(names)) == len(names) else folders
    return [
        name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def of_classes(models: Sequence[LoadedModel], photos: ImageDataset) -> list[LoadedModel]:
    """The models with the photos' classes, in any order."""
    return [model for model in models if set(model.config.label_names) == set(photos.class_names)]


def choose_photos(
    choice: str | Path | None, models: Sequence[LoadedModel], temporary: Path, *, follow_links: bool = False
) -> ImageDataset | None:
    """The photos to show: the folder named, else the models' own data set, else drawn ones where those fit.

    Raises DataError where the folder named can't be used or has other classes than the models.
    """
    # Without a val/ folder the model's own seed draws the validation photos that it was not trained on.
    seeds = [model.config.seed or 0 for model in models] or [0]
    if choice is not None:
        photos = read_folder(data_root(choice), seed=seeds[0], follow_links=follow_links)
        if models and not of_classes(models, photos):
            raise DataError(f"{choice} has the classes {', '.join(photos.class_names)}, the models others")
        return photos
    names = [model.config.data.name for model in models]
    for name, seed in (*zip(names, seeds, strict=False), ("hymenoptera_data", seeds[0])):
        if folder := folder_named(home() / "data", name):
            photos = read_folder(folder, seed=seed, follow_links=follow_links)
            if not models or of_classes(models, photos):
                return photos
    if models and all(set(model.config.label_names) != set(CLASSES) for model in models):
        return None
    if not (folder := temporary / "drawn").exists():  # it is there where models are loaded again
        counts = dict.fromkeys(CLASSES, DRAWN_EXAMPLES)
        write_drawn_set(folder, train=counts, val=counts)
    return read_folder(folder)


def was_trained_on(model: LoadedModel, photos: ImageDataset | None) -> bool:
    """Whether a model was trained on these very photos, by the digest: another set may have the same name."""
    return photos is not None and model.config.data.digest == photos.digest


def notices(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> list[str]:
    """Warnings about models of drawn pictures or random weights, as Markdown."""
    drawn = [as_text(model.name) for model in models if model.config.data.name == "drawn"]
    random = [as_text(model.name) for model in models if model.config.weights.origin == "random"]
    texts = (("page.drawn", drawn), ("page.random", random))
    return [translate(key, names=" + ".join(names)) for key, names in texts if names]


def how_to_train(translate: Translator = ENGLISH) -> str:
    """How to train a model, as Markdown, where there is none."""
    return translate("page.no_model", train=command_name("train"), app=command_name("app"))


FindModels = Callable[[], Sequence[str | Path]]
ChoosePhotos = Callable[[Sequence[LoadedModel]], ImageDataset | None]
Stamp = tuple[tuple[int, int], ...]  # modification time and inode of the config and the weights


def stamp_of(source: str | Path) -> Stamp:
    """Differs once a folder was written again; constant for a Hub repository."""
    files = [Path(source) / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return tuple((found.st_mtime_ns, found.st_ino) for path in files if path.is_file() for found in [path.stat()])


class ModelRegistry:
    """The models and photos that the page shows. A request keeps the snapshot that it began with."""

    def __init__(self, find: FindModels, choose_photos: ChoosePhotos, *, device: str = "auto") -> None:
        self._find = find
        self._choose_photos = choose_photos
        self._device = device
        self._lock = threading.Lock()  # of loading
        self._stamps: dict[str, Stamp] = {}
        self.snapshot = Snapshot()
        self.version = 0  # counts the loads
        self.reload()

    @cached_property
    def _pretrained(self) -> LoadedModel:
        return LoadedModel("EfficientNet-Lite0", pretrained_base(self._device), (), "")

    def base_model(self) -> LoadedModel:
        """The model whose backbone embeds visitors' photos: a frozen one, not adapted to classes of its own, if any.

        Where there is no model at all, one with the ImageNet weights that come by pip.
        """
        models = self.snapshot.models
        frozen = next((model for model in models if model.config.mode == "frozen"), None)
        return frozen or next(iter(models), None) or self._pretrained

    def changed(self) -> list[str]:
        """The names of the folders whose models are new or changed since they were loaded."""
        found = {str(source): stamp_of(source) for source in self._find()}
        return [one_line(Path(source).name) for source in found if found[source] != self._stamps.get(source)]

    def switch_to(self, outputs: Path, data: str | Path | None) -> None:
        """Loads the models in a folder of model folders, and the photos in `data`; from now on they are shown.

        Raises what `reload` raises; the current snapshot then stays.
        """
        choose_photos = self._choose_photos if data is None else lambda models: read_folder(data_root(data))
        self._load(lambda: model_folders(outputs), choose_photos)

    def reload(self) -> None:
        """Loads models and photos again; where it raises, the current snapshot stays.

        Raises what `load_models` raises, and DataError where the photos can't be used.
        """
        self._load(self._find, self._choose_photos)

    def _load(self, find: FindModels, choose_photos: ChoosePhotos) -> None:
        with self._lock:
            sources = list(find())
            # Taken before loading: a write meanwhile is a change.
            stamps = {str(source): stamp_of(source) for source in sources}
            models = load_models(sources, device=self._device)
            self.snapshot = Snapshot(models, choose_photos(models))
            self._find, self._choose_photos, self._stamps = find, choose_photos, stamps
            self.version += 1
