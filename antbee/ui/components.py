"""What several tabs are made of: the choice of models, photos and their pictures, plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import pandas
from gradio.i18n import I18nData
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.data.images import DataError, open_photo
from antbee.errors import AntbeeError
from antbee.evaluation import plots
from antbee.evaluation.plots import MODE_COLOURS
from antbee.models.classifier import Classifier, Explanation, Neighbour, Prediction
from antbee.text import one_line
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label
from antbee.ui.registry import SIDE_BY_SIDE, ModelRegistry

# Settings of events, none of which is part of the page's API. While the handler of an event runs, Gradio drops further
# ones unless `trigger_mode` says otherwise.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
NEWEST: dict[str, Any] = PRIVATE | {"trigger_mode": "always_last"}  # runs again, with the newest values
# Of events that carry data, such as the place of a click: "always_last" would run again with the first one's.
EACH: dict[str, Any] = PRIVATE | {"trigger_mode": "multiple"}


@dataclass(frozen=True)
class Choice:
    """The models that a visitor looks at, for every tab."""

    models: gr.Dropdown  # their names
    version: gr.State  # see ModelRegistry.version: the one that the visitor's browser shows
    changes: list[Callable[..., Any]]  # events: the page was opened (it comes first), others were chosen or are there


def newly_chosen(registry: ModelRegistry) -> list[Any]:
    """What stands in `models` and `version` where a visitor has chosen nothing yet."""
    names = registry.snapshot.names
    return [gr.Dropdown(names, value=names[:SIDE_BY_SIDE]), registry.version]


NEIGHBOUR_SIDE = 160  # pixels
PHOTO_SOURCES: list[Literal["upload", "webcam", "clipboard"]] = ["upload", "webcam", "clipboard"]

Captioned = tuple[Image.Image, str]  # what a gallery shows


@dataclass(frozen=True)
class Pictures:
    """The title and the captioned pictures of a gallery."""

    title: str
    pictures: list[Captioned]


def photo_of(upload: dict[str, Any] | None, translate: Translator = ENGLISH) -> Image.Image | None:
    """The photo of an upload in Gradio's own form, which `preprocess=False` leaves as it came.

    Gradio's preprocessing opens the file before any handler runs, and fails with a message that tells a visitor nothing
    where it is no photo. Raises gr.Error, which the visitor reads, with what to do.
    """
    with errors_in_toasts("classify.bad_photo", translate):
        return open_photo(uploaded(upload)) if upload else None


def files_of(uploads: Sequence[Any], translate: Translator = ENGLISH) -> list[Path]:
    """The files of several uploads. Raises gr.Error as `photo_of` does."""
    with errors_in_toasts("classify.bad_photo", translate):
        return [uploaded(upload) for upload in uploads]


@contextmanager
def errors_in_toasts(key: str, translate: Translator) -> Iterator[None]:
    """Turns an AntbeeError into a gr.Error, whose text is that of `key` with the error filled in."""
    try:
        yield
    except AntbeeError as error:
        raise gr.Error(translate(key, error=in_toast(error)), print_exception=False) from error


def uploaded(upload: Any) -> Path:
    """The file of an upload. What a browser sends names any path: only those are opened that were uploaded here.

    Raises DataError for all others.
    """
    named = upload.get("path") if isinstance(upload, dict) else None
    if isinstance(named, str):
        path, uploads = Path(named).absolute(), Path(get_upload_folder()).absolute()
        # By the name first: to resolve //host/share would ask that host, on Windows.
        if {uploads, uploads.resolve()} & set(path.parents) and ".." not in path.parts:
            try:
                path = path.resolve()
            except (OSError, ValueError) as error:  # a name that no file can have
                raise DataError("not an uploaded file") from error
            if uploads.resolve() in path.parents:
                return path
    raise DataError("not an uploaded file")


def gallery(*classes: str, **settings: Any) -> gr.Gallery:
    """Pictures to look at, each in full with its caption below: see .pictures in the page's style."""
    usual: dict[str, Any] = {"interactive": False, "height": "auto", "buttons": []}
    return gr.Gallery(elem_classes=["pictures", *classes], **usual | settings)


def photo_input(key: str, elem_id: str) -> gr.Image:
    """Where a visitor puts a photo in; as PNG, so that examples keep their pixels."""
    return gr.Image(label=label(key), sources=PHOTO_SOURCES, height=300, format="png", elem_id=elem_id)


def picture_of(image: Tensor) -> Image.Image:
    """An image (3, H, W) in 0..1 as a picture (H, W, 3) in 0..255."""
    return Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy())


def heat_map(classifier: Classifier, photo: Image.Image, explanation: Explanation, name: str) -> Image.Image:
    """The photo with the places glowing in it that speak for the class `name`."""
    activation_map = explanation.activation_maps[name]
    box = classifier.config.preprocessing.crop_box(photo.width, photo.height)
    return plots.heat_map(photo, activation_map, box, strongest=float(activation_map.max()))


def shown_probabilities(prediction: Prediction) -> dict[str, float]:
    """By names that a browser can be sent: a folder's need not be valid Unicode."""
    return {one_line(name): probability for name, probability in prediction.probabilities.items()}


def neighbour_pictures(neighbours: Sequence[Neighbour], photos: ImageDataset | None) -> list[Captioned]:
    """The training photos named, small, with class and distance; those that are not here are left out.

    Names come from models, and models from anybody: only files of the folder that is shown anyhow are opened.
    """
    if photos is None:
        return []
    paths = dict(zip(photos.train.names(photos.root), photos.train.paths, strict=True))
    pictures = []
    for neighbour in neighbours:
        if (path := paths.get(neighbour.name)) is not None and path.is_file():
            picture = open_photo(path, shorter_side=NEIGHBOUR_SIDE)
            pictures.append((picture, f"{one_line(neighbour.label)} {neighbour.distance:.2f}"))
    return pictures


QUANTITIES = ("accuracy", "loss")
STRONG = tuple(MODE_COLOURS.values())  # validation
PALE = ("#8fd3bf", "#c3aee0")  # training

Histories = Mapping[str, Sequence[Mapping[str, Any]]]  # epochs' records by name, see Epoch.to_record


def epoch_table(histories: Histories, quantity: str) -> pandas.DataFrame:
    """Accuracy or loss of both splits by epoch, a row for each point of each curve."""
    rows = [
        {"epoch": record["epoch"], "curve": f"{name}, {split}", "value": value}
        for name, records in histories.items()
        for record in records
        for split in ("train", "val")
        if (value := record.get(f"{split}_{quantity}")) is not None
    ]
    return pandas.DataFrame(rows, columns=["epoch", "curve", "value"])


def curve_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each curve: validation in one of the name's own, training in a paler one.

    Both modes have theirs; other names get what is left, two of them each another.
    """
    modes = list(MODE_COLOURS)
    free = cycle([mode for mode in modes if mode not in names] or modes)
    colours: dict[str, str] = {}
    for name in names:
        place = modes.index(name if name in modes else next(free))
        colours |= {f"{name}, val": STRONG[place], f"{name}, train": PALE[place]}
    return colours


def epoch_plots(histories: Histories) -> list[gr.LinePlot]:
    """What `empty_epoch_plots` shows from now on; `epoch_colours` has to follow."""
    tables = [epoch_table(histories, quantity) for quantity in QUANTITIES]
    return [gr.LinePlot(table, visible=bool(len(table))) for table in tables]


def epoch_colours(histories: Histories) -> list[gr.LinePlot]:
    """The colours of what `epoch_plots` gave, in an event of their own after it.

    The front end takes curves that were not there before into a plot only once its colours change after its values.
    """
    return [gr.LinePlot(color_map=curve_colours(list(histories))) for _ in QUANTITIES]


def line_plot(x: str, y: str, title: I18nData, **settings: Any) -> gr.LinePlot:
    """An empty plot of these columns, with a line for each value of the column "curve"."""
    return gr.LinePlot(x=x, y=y, color="curve", tooltip="all", label=title, min_width=280, visible=False, **settings)


def empty_epoch_plots() -> list[gr.LinePlot]:
    """Accuracy and loss, side by side; of their own height, else the front end cuts the legend off."""
    with gr.Row():
        return [
            line_plot("epoch", "value", label(f"plots.{quantity}"), y_title=quantity, color_title="mode, split")
            for quantity in QUANTITIES
        ]
