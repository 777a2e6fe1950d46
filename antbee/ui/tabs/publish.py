"""Publishing a folder of photos as a data set of the Hub, in the Train tab: for the owner of the computer."""

from pathlib import Path
from typing import Any

import gradio as gr

from antbee.data.download import load_folder
from antbee.data.folder import ImageDataset
from antbee.data.listing import summary
from antbee.data.position import has_position
from antbee.errors import AntbeeError
from antbee.hub import DatasetFiles, dataset_files, push_dataset
from antbee.text import as_text
from antbee.ui.components import NEWEST
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label, translator_of


def prepared(folder: str, repo_id: str, license: str) -> tuple[ImageDataset, DatasetFiles]:  # noqa: A002
    """The photos that a folder's publication would upload, and the card. Raises DataError and HubError."""
    data = str(Path(folder.strip()).expanduser()) if not folder.strip().startswith("hf:") else folder.strip()
    dataset = load_folder(data, allow_bad=True)
    return dataset, dataset_files(dataset, repo_id.strip(), license=license.strip() or None)


def preview(dataset: ImageDataset, files: DatasetFiles, translate: Translator = ENGLISH) -> str:
    """What would be uploaded, left out and told to everybody, as Markdown."""
    photos = files.photos.values()
    splits = ", ".join(f"{name} {len(split)}" for name, split in dataset.splits.items())
    megabytes = f"{sum(path.stat().st_size for path in photos) / 1e6:.1f}"
    lines = [translate("publish.photos", count=len(photos), splits=splits, megabytes=megabytes)]
    lines += [translate("publish.left_out", what=as_text(line, longest=300)) for line in summary(dataset.skipped)]
    if positions := sum(map(has_position, photos)):
        lines.append(translate("publish.positions", count=positions))
    return "\n\n".join(lines)


def publish(folder: str, repo_id: str, license: str, token: str, private: bool) -> str:  # noqa: A002
    """Uploads the photos; returns their address. Without a token it is that of the computer, which is its owner's."""
    dataset, _ = prepared(folder, repo_id, license)
    license_name, own_token = license.strip() or None, token.strip() or None
    return push_dataset(dataset, repo_id.strip(), license=license_name, private=private, token=own_token)


def publish_section(folder: gr.Textbox) -> None:
    """The form: what would be published is shown first, and uploaded by a button of its own."""
    with gr.Accordion(label("publish.title"), open=False):
        gr.Markdown(label("publish.info"))
        with gr.Row():
            texts: dict[str, Any] = {"label": label("teach.repository"), "info": label("publish.repository.info")}
            repository = gr.Textbox(placeholder="your-name/my-photos", min_width=280, **texts)
            texts = {"label": label("publish.license"), "info": label("publish.license.info")}
            license_name = gr.Textbox(placeholder="cc-by-4.0", min_width=280, **texts)
            texts = {"label": label("teach.token"), "info": label("publish.token.info")}
            token = gr.Textbox(type="password", min_width=280, **texts)
        private = gr.Checkbox(label=label("teach.private"))
        with gr.Row():
            look = gr.Button(label("publish.look"))
            push = gr.Button(label("publish.push"))
        message = gr.Markdown()

    def show(folder: str, repo_id: str, license_name: str, request: gr.Request) -> str:
        try:
            return preview(*prepared(folder, repo_id, license_name), translator_of(request))
        except (AntbeeError, OSError) as error:
            raise gr.Error(in_toast(error), print_exception=False) from error

    def upload(
        folder: str, repo_id: str, license_name: str, typed: str, private: bool, request: gr.Request
    ) -> tuple[str, str]:
        try:
            address = publish(folder, repo_id, license_name, typed, private)
        except (AntbeeError, OSError) as error:
            raise gr.Error(in_toast(error), print_exception=False) from error
        return translator_of(request)("publish.pushed", address=address), ""

    what = [folder, repository, license_name]
    look.click(show, what, message, **NEWEST)
    push.click(upload, [*what, token, private], [message, token], **NEWEST)
