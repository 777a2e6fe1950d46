"""What the page shows: models, and the photos they learned from; looked up again when their folders change."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from antbee.data.download import folder_named
from antbee.data.drawn import CLASSES, write_drawn_set
from antbee.data.folder import ImageDataset, read_folder
from antbee.data.images import DataError
from antbee.hub.card import PLACEHOLDER, page_text
from antbee.installation import command_name, home
from antbee.models.classifier import Classifier
from antbee.models.config import CONFIG_FILE, ClassifierConfig, read_history
from antbee.models.folder import WEIGHTS_FILE, find_folder, model_folders
from antbee.text import as_text, one_line
from antbee.ui.i18n import ENGLISH, Translator

SIDE_BY_SIDE = 2  # models
DRAWN_EXAMPLES = 8  # of each class in each split, where the models' own photos are not there


@dataclass(frozen=True)
class LoadedModel:
    """One model of the page, with all that its folder tells."""

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
    """Models and photos that belong together; both may be missing."""

    models: tuple[LoadedModel, ...] = ()
    photos: ImageDataset | None = None

    def chosen(self, names: Sequence[str] | None) -> list[LoadedModel]:
        """The models of these names; without any that is here, the first ones."""
        found = [shown for shown in self.models if shown.name in (names or ())]
        return (found or list(self.models))[:SIDE_BY_SIDE]

    @property
    def names(self) -> list[str]:
        """What the models are called."""
        return [shown.name for shown in self.models]


def load_models(sources: Sequence[str | Path], *, device: str = "auto") -> tuple[LoadedModel, ...]:
    """The models in folders or Hub repositories, under names that tell them apart.

    Raises what `Classifier.from_pretrained` raises.
    """
    folders = [find_folder(source) for source in sources]
    classifiers = [Classifier.from_pretrained(folder, device=device) for folder in folders]
    names = _names([classifier.config.mode for classifier in classifiers], sources)
    # Where somebody else trained a model, a history.json would be one of their own kind.
    histories = [
        read_history(folder) if classifier.config.mode else ()
        for folder, classifier in zip(folders, classifiers, strict=True)
    ]
    written = [_card(classifier.config, source) for classifier, source in zip(classifiers, sources, strict=True)]
    return tuple(map(LoadedModel, names, classifiers, histories, written))


def _names(modes: Sequence[str | None], sources: Sequence[str | Path]) -> list[str]:
    """What visitors know the models by: the mode where it tells them apart, else the Hub id or the folder's name.

    Never the whole path of a folder, which is nobody's business but its owner's.
    """
    paths = [Path(source).resolve() if Path(source).is_dir() else Path(source) for source in sources]
    folders = [one_line("/".join(path.parts[-2:])) for path in paths]
    names = [mode or folder for mode, folder in zip(modes, folders, strict=True)]
    names = names if len(set(names)) == len(names) else folders
    return [
        name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def _card(config: ClassifierConfig, source: str | Path) -> str:
    """The model's card, written anew from its config: nothing but weights and JSON is downloaded of a model."""
    return page_text(config.to_json(), PLACEHOLDER if Path(source).is_dir() else str(source))


def of_classes(models: Sequence[LoadedModel], photos: ImageDataset) -> list[LoadedModel]:
    """The models that know the photos' classes, in whatever order."""
    return [shown for shown in models if set(shown.config.label_names) == set(photos.class_names)]


def choose_photos(choice: Path | None, models: Sequence[LoadedModel], temporary: Path) -> ImageDataset | None:
    """The photos to show: the folder named, else the models' own data set, else drawn ones where those fit.

    Raises DataError where the folder named can't be used or has other classes than the models.
    """
    # Without a val/ folder the model's own seed draws the validation photos that it was not trained on.
    seeds = [shown.config.seed or 0 for shown in models] or [0]
    if choice is not None:
        photos = read_folder(choice, seed=seeds[0])
        if models and not of_classes(models, photos):
            raise DataError(f"{choice} has the classes {', '.join(photos.class_names)}, the models others")
        return photos
    names = [shown.config.data.name for shown in models]
    for name, seed in (*zip(names, seeds, strict=False), ("hymenoptera_data", seeds[0])):
        if folder := folder_named(home() / "data", name):
            photos = read_folder(folder, seed=seed)
            if not models or of_classes(models, photos):
                return photos
    if models and all(set(shown.config.label_names) != set(CLASSES) for shown in models):
        return None
    if not (folder := temporary / "drawn").exists():  # it is there where models are loaded again
        counts = dict.fromkeys(CLASSES, DRAWN_EXAMPLES)
        write_drawn_set(folder, train=counts, val=counts)
    return read_folder(folder)


def learned_from(shown: LoadedModel, photos: ImageDataset | None) -> bool:
    """Whether these are the very photos that a model learned from; others may be called the same."""
    return photos is not None and shown.config.data.digest == photos.digest


def notices(models: Sequence[LoadedModel], translate: Translator = ENGLISH) -> list[str]:
    """What a visitor has to know before believing a prediction, as Markdown."""
    said = []
    joint = " + "
    if drawn := [as_text(shown.name) for shown in models if shown.config.data.name == "drawn"]:
        said.append(translate("page.drawn", names=joint.join(drawn)))
    if random := [as_text(shown.name) for shown in models if shown.config.weights.name == "random"]:
        said.append(translate("page.random", names=joint.join(random)))
    return said


def how_to_train(translate: Translator = ENGLISH) -> str:
    """What stands where a model would be shown, as Markdown."""
    return translate("page.no_model", train=command_name("train"), app=command_name("app"))


FindModels = Callable[[], Sequence[str | Path]]
ChoosePhotos = Callable[[Sequence[LoadedModel]], ImageDataset | None]
Stamp = tuple[tuple[int, int], ...]  # of the files that make a model: when they were written, and which they are


def stamp_of(source: str | Path) -> Stamp:
    """Another one once a folder was written anew; always the same for a repository of the Hub."""
    files = [Path(source) / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return tuple((found.st_mtime_ns, found.st_ino) for path in files if path.is_file() for found in [path.stat()])


class ModelRegistry:
    """What a running page shows now. Visitors who are being answered keep what they began with."""

    def __init__(
        self,
        find: FindModels,
        choose_photos: ChoosePhotos,
        *,
        device: str = "auto",
    ) -> None:
        self._find = find
        self._choose_photos = choose_photos
        self._device = device
        self._renewing = threading.Lock()
        self._stamps: dict[str, Stamp] = {}
        self.now = Snapshot()
        self.version = 0  # counts how often what is shown was looked up
        self.renew()

    def changed(self) -> list[str]:
        """The folders' names of models that were trained, or trained anew, since they were loaded."""
        found = {str(source): stamp_of(source) for source in self._find()}
        return [one_line(Path(source).name) for source in found if found[source] != self._stamps.get(source)]

    def turn_to(self, outputs: Path, data: Path | None) -> None:
        """Shows the models in a folder of model folders from now on, and the photos they learned from.

        Raises what `renew` raises, and stays with what is shown then.
        """
        choose_photos = self._choose_photos if data is None else lambda models: read_folder(data)
        self._show(lambda: model_folders(outputs), choose_photos)

    def renew(self) -> None:
        """Loads what is there now, all or nothing: where it raises, the models shown stay.

        Raises what `load_models` raises, and data.DataError where the photos can't be used.
        """
        self._show(self._find, self._choose_photos)

    def _show(self, find: FindModels, choose_photos: ChoosePhotos) -> None:
        with self._renewing:
            sources = list(find())
            stamps = {str(source): stamp_of(source) for source in sources}  # before: what is written meanwhile is news
            models = load_models(sources, device=self._device)
            self.now = Snapshot(models, choose_photos(models))
            self._find, self._choose_photos, self._stamps = find, choose_photos, stamps
            self.version += 1
