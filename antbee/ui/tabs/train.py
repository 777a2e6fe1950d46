"""Train: the command `train`, run from the page by whoever the computer belongs to."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from antbee.data.images import DataError
from antbee.models import versions
from antbee.models.config import MODES, ModelFolderError
from antbee.models.folder import model_folders
from antbee.models.versions import VERSIONS, OutputError, Version
from antbee.models.weights import WeightsError
from antbee.text import as_text
from antbee.training.background import BackgroundError, BackgroundTraining, TrainingRequest, TrainingState
from antbee.training.recipe import RECIPES
from antbee.ui.components import Choice, empty_epoch_plots, epoch_colours, epoch_plots, newly_chosen
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label, translator_of
from antbee.ui.registry import ModelRegistry, Stamp, stamp_of

LOOK = 1.0  # seconds between two looks at a training
LINES = 24  # of its output that are shown, the last ones


def request_of(folder: str, recipe: str, mode: str, output: Path) -> TrainingRequest:
    """What a visitor asks to be trained."""
    data = Path(folder.strip()).expanduser() if folder.strip() else None
    return TrainingRequest(output, data=data, recipe=recipe, mode=mode)


def histories_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The epochs of each mode."""
    modes = dict.fromkeys(record["mode"] for record in epochs)
    return {mode: [record for record in epochs if record["mode"] == mode] for mode in modes}


def status_sentence(state: TrainingState, translate: Translator = ENGLISH) -> str:
    """How a training is getting on, as Markdown."""
    match state.status:
        case "running":
            return translate("train.running", seconds=f"{state.seconds:.0f}", epochs=len(state.epochs))
        case "stopping":
            return translate("train.cancelling")
        case "cancelled":
            return translate("train.cancelled")
        case "failed":
            return translate("train.failed", error=as_text(str(state.error)))
        case "finished":
            return translate("train.done")
    return translate("train.idle")


def version_title(version: Version) -> str:
    """What a version is called on the page: when it was trained, and how good its models are."""
    scores = [f"{mode} {'?' if share is None else f'{share:.1%}'}" for mode, share in version.accuracies.items()]
    return f"{version.name}: {', '.join(scores)}"


class Shop:
    """The one training that may run, and the models that it leaves."""

    def __init__(self, registry: ModelRegistry, training: BackgroundTraining, output: Path) -> None:
        self.registry = registry
        self.training = training
        self.output = output
        self._taking = threading.Lock()
        self._taken: TrainingState | None = None
        self._trouble = ""
        self._before: dict[str, Stamp] = {}

    def start(self, folder: str, recipe: str, mode: str) -> None:
        """Starts a training. Raises BackgroundError where one is running."""
        self._before = self._in_place()
        self.training.start(request_of(folder, recipe, mode, self.output))

    def versions(self) -> list[tuple[str, str]]:
        """The models that are not in place: what they are called, and their names, the latest first."""
        return [(version_title(version), version.name) for version in versions.list_versions(self.output)]

    def restore(self, name: str, translate: Translator = ENGLISH) -> str:
        """Puts a version in place and shows it; what happened, in a sentence.

        Raises versions.OutputError where it can't be, and what `ModelRegistry.turn_to` raises.
        """
        versions.restore_version(self.output, name)
        self.registry.turn_to(self.output, None)
        return translate("train.restored", name=as_text(name))

    def _in_place(self) -> dict[str, Stamp]:
        return {folder.name: stamp_of(folder) for folder in model_folders(self.output)}

    def look(self, translate: Translator = ENGLISH) -> tuple[TrainingState, str]:
        """How it is getting on, and that in a sentence; once it is done, its models are those that are shown."""
        state = self.training.state()
        if state.status == "finished":
            self._take(state)
            if self._trouble:
                told = {"folder": as_text(str(self.output)), "error": as_text(self._trouble)}
                return state, translate("train.not_shown", **told)
            if self._in_place() == self._before:
                return state, translate("train.not_placed", folder=as_text(str(self.output / VERSIONS)))
        return state, status_sentence(state, translate)

    def _take(self, state: TrainingState) -> None:
        with self._taking:
            if state is self._taken or state.request is None:
                return
            self._taken, self._trouble = state, ""
            try:
                is_placed = self._in_place() != self._before
                self.registry.turn_to(self.output, state.request.data if is_placed else None)
            except (ModelFolderError, WeightsError, DataError, OSError) as error:
                self._trouble = str(error)


def train_tab(registry: ModelRegistry, choice: Choice, training: BackgroundTraining, output: Path) -> None:
    """What to train, a button that starts it and one that stops it, and how it is getting on."""
    shop = Shop(registry, training, output)
    gr.Markdown(label("train.intro"))
    with gr.Row():
        folder = gr.Textbox(label=label("train.folder"), info=label("train.folder.info"), scale=3, min_width=280)
        recipe = gr.Radio(sorted(RECIPES), value="fast", label=label("train.recipe"), info=label("train.recipe.info"))
        mode = gr.Radio(["both", *MODES], value="both", label=label("train.mode"))
    with gr.Row():
        start = gr.Button(label("train.start"), variant="primary")
        cancel = gr.Button(label("train.cancel"), variant="stop", interactive=False)
    status = gr.Markdown()
    plots = empty_epoch_plots()
    with gr.Row():
        known = shop.versions()
        version = gr.Dropdown(
            known,
            value=None,
            label=label("train.versions"),
            info=label("train.versions.info"),
            visible=bool(known),
            scale=3,
        )
        restore = gr.Button(label("train.restore"), visible=bool(known))
    log = gr.Textbox(
        label=label("train.log"), lines=LINES, max_lines=LINES, interactive=False, visible=False, elem_classes="log"
    )
    epochs_seen = gr.State(-1)
    timer = gr.Timer(LOOK, active=False)

    def look(seen: int, version: int, request: gr.Request) -> list[Any]:
        state, told = shop.look(translator_of(request))
        drawn: list[Any] = [gr.skip(), gr.skip()]
        if len(state.epochs) != seen:
            drawn = list(epoch_plots(histories_of(state.epochs)))
        newly = newly_chosen(registry) if version != registry.version else [gr.skip(), gr.skip()]
        return [
            told,
            *drawn,
            gr.Textbox("\n".join(state.lines[-LINES:]), visible=bool(state.lines)),
            len(state.epochs),
            gr.Button(interactive=not state.running),
            gr.Button(interactive=state.status == "running"),
            gr.Timer(active=state.running),
            *newly,
            *([gr.skip(), gr.skip()] if state.running else offered()),
        ]

    def offered() -> list[Any]:
        known = shop.versions()
        return [gr.Dropdown(known, value=None, visible=bool(known)), gr.Button(visible=bool(known))]

    def go_back(name: str | None, request: gr.Request) -> list[Any]:
        if name is None:
            return [gr.skip()] * 5
        try:
            told = shop.restore(name, translator_of(request))
        except (OutputError, ModelFolderError, WeightsError, DataError, OSError) as error:
            raise gr.Error(in_toast(error), print_exception=False) from error
        return [told, *newly_chosen(registry), *offered()]

    def colour() -> list[gr.LinePlot]:
        return epoch_colours(histories_of(training.state().epochs))

    def begin(folder: str, recipe: str, mode: str) -> None:
        try:
            shop.start(folder, recipe, mode)
        except BackgroundError as error:
            raise gr.Error(in_toast(error), print_exception=False) from error

    # Not in the queue: a look must not wait for anything.
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    seen = [epochs_seen, choice.version]
    told = [choice.models, choice.version, version, restore]
    shown = [status, *plots, log, epochs_seen, start, cancel, timer, *told]
    gr.on([timer.tick, choice.changes[0]], look, seen, shown, **quiet).then(colour, None, plots, **quiet)
    start.click(begin, [folder, recipe, mode], None, **quiet).then(look, seen, shown, **quiet)
    restore.click(go_back, version, [status, *told], **quiet)
    cancel.click(training.cancel, None, None, **quiet).then(look, seen, shown, **quiet)
