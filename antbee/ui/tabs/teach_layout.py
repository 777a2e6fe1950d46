"""The components of the Teach tab, without their events."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import gradio as gr
from gradio.utils import get_space

from antbee.data.archive import LONGEST_CLASS_NAME, MOST_CLASSES
from antbee.ui.components import PHOTO_SOURCES, gallery, photo_input
from antbee.ui.i18n import label
from antbee.ui.tabs.classify import NEIGHBOURS


@dataclass(frozen=True)
class ClassSlot:
    """The components of one class."""

    index: gr.State
    column: gr.Column
    name: gr.Textbox
    photos: gr.Gallery
    remove: gr.Button


@dataclass(frozen=True)
class TeachLayout:
    """All components of the tab."""

    intro: gr.Markdown
    slots: tuple[ClassSlot, ...]
    add_class: gr.Button
    zip: gr.UploadButton
    clear: gr.Button
    status: gr.Markdown
    train: gr.Button
    result: gr.Markdown
    photo: gr.Image  # to try the trained classifier with
    prediction: list[gr.blocks.Block]  # verdict, probabilities and neighbours
    download: gr.DownloadButton
    push_inputs: list[gr.blocks.Block]  # repository, token and whether it is private
    push: gr.Button
    pushed: gr.Markdown

    @property
    def form(self) -> list[gr.blocks.Block]:
        """The status, then column, name and photos of each slot."""
        return [self.status, *(part for slot in self.slots for part in (slot.column, slot.name, slot.photos))]


def teach_layout() -> TeachLayout:
    """Adds the components to the current gr.Blocks, and returns them."""
    intro = gr.Markdown()
    with gr.Row():
        slots = tuple(map(_class_slot, range(MOST_CLASSES)))
    with gr.Row():
        add_class = gr.Button(label("teach.add"))
        zipped = gr.UploadButton(str(label("teach.zip")), file_types=[".zip"])
        clear = gr.Button(label("teach.clear"))
    status = gr.Markdown()
    train = gr.Button(label("teach.train"), variant="primary")
    result = gr.Markdown(elem_classes="verdict")
    photo, prediction = _trial()
    with gr.Accordion(label("teach.take"), open=False):
        return TeachLayout(intro, slots, add_class, zipped, clear, status, train, result, photo, prediction, *_export())


def _class_slot(index: int) -> ClassSlot:
    with gr.Column(visible=False, min_width=280) as column:
        name = gr.Textbox(label=label("teach.class"), max_length=LONGEST_CLASS_NAME)
        photos = gallery(
            label=label("teach.photos"),
            columns=4,
            interactive=True,
            sources=PHOTO_SOURCES,
            file_types=["image"],
            format="png",
            allow_preview=False,
        )
        return ClassSlot(gr.State(index), column, name, photos, gr.Button(label("teach.remove"), size="sm"))


def _trial() -> tuple[gr.Image, list[gr.blocks.Block]]:
    with gr.Row():
        with gr.Column(min_width=280):
            photo = photo_input("teach.try", "try")
        with gr.Column(min_width=280):
            verdict = gr.Markdown(elem_classes="verdict")
            probabilities = gr.Label(label=label("teach.try.prediction"), show_heading=False, visible=False)
            neighbours = gallery(label=label("teach.try.neighbours"), columns=NEIGHBOURS, visible=False)
    return photo, [verdict, probabilities, neighbours]


def _export() -> tuple[gr.DownloadButton, list[gr.blocks.Block], gr.Button, gr.Markdown]:
    gr.Markdown(label("teach.take.info"))
    download = gr.DownloadButton(str(label("teach.download")), interactive=False)
    with gr.Row():
        # A line below both labels, so that the fields stand level.
        texts: dict[str, Any] = {"label": label("teach.repository"), "info": label("teach.repository.info")}
        repository = gr.Textbox(placeholder="your-name/my-classifier", min_width=280, **texts)
        texts = {"label": label("teach.token"), "info": label("teach.token.info")}
        token = gr.Textbox(type="password", min_width=280, **texts)
    private = gr.Checkbox(label=label("teach.private"))
    if _sign_in_is_available():
        gr.LoginButton()
    return download, [repository, token, private], gr.Button(label("teach.push")), gr.Markdown()


def _sign_in_is_available() -> bool:
    """Whether this is a Space with `hf_oauth: true`, and gradio[oauth] is installed."""
    is_allowed = get_space() is not None and "OAUTH_CLIENT_ID" in os.environ
    return is_allowed and all(map(find_spec, ("authlib", "itsdangerous")))
