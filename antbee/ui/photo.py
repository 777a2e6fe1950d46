"""How photos come to the page's handlers, and go back to the browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from antbee import figures
from antbee.classifier import Classifier, Explanation, Neighbour, Prediction
from antbee.data import PhotoFolder
from antbee.images import DataError, open_photo
from antbee.text import one_line
from antbee.ui.words import ENGLISH, Speech, in_toast

NEIGHBOUR_SIDE = 160  # pixels

Captioned = tuple[Image.Image, str]  # what a gallery shows


def photo_of(upload: dict[str, Any] | None, speech: Speech = ENGLISH) -> Image.Image | None:
    """The photo of an upload in Gradio's own form, which `preprocess=False` leaves as it came.

    Gradio's preprocessing opens the file before any handler runs, and fails with a message that tells a visitor nothing
    where it is no photo. Raises gr.Error, which the visitor reads, with what to do.
    """
    if not upload:
        return None
    try:
        return open_photo(uploaded(upload))
    except DataError as error:
        raise gr.Error(speech("classify.bad_photo", error=in_toast(error)), print_exception=False) from error


def files_of(uploads: Sequence[Any], speech: Speech = ENGLISH) -> list[Path]:
    """The files of several uploads. Raises gr.Error as `photo_of` does."""
    try:
        return [uploaded(upload) for upload in uploads]
    except DataError as error:
        raise gr.Error(speech("classify.bad_photo", error=in_toast(error)), print_exception=False) from error


def uploaded(upload: Any) -> Path:
    """The file of an upload. What a browser sends names any path: only those are opened that were uploaded here.

    Raises DataError for all others.
    """
    named = upload.get("path") if isinstance(upload, dict) else None
    if isinstance(named, str):
        path, uploads = Path(named).absolute(), Path(get_upload_folder()).absolute()
        # By the name first: to resolve //host/share would ask that host, on Windows.
        if uploads in path.parents and ".." not in path.parts:
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


def picture_of(image: Tensor) -> Image.Image:
    """An image (3, H, W) in 0..1 as a picture (H, W, 3) in 0..255."""
    return Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy())


def heat_map(classifier: Classifier, photo: Image.Image, explanation: Explanation, name: str) -> Image.Image:
    """The photo with the places glowing in it that speak for the class `name`."""
    activation_map = explanation.activation_maps[name]
    box = classifier.config.preprocessing.crop_box(photo.width, photo.height)
    return figures.heat_map(photo, activation_map, box, strongest=float(activation_map.max()))


def shown_probabilities(prediction: Prediction) -> dict[str, float]:
    """By names that a browser can be sent: a folder's need not be valid Unicode."""
    return {one_line(name): probability for name, probability in prediction.probabilities.items()}


def neighbour_pictures(neighbours: Sequence[Neighbour], photos: PhotoFolder | None) -> list[Captioned]:
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
