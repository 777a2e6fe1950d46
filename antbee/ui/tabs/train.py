"""The Train tab: a training in a child process, for the owner of the computer."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from antbee.data.sources import HUB_PREFIX
from antbee.errors import AntbeeError
from antbee.models import versions
from antbee.models.config import MODES
from antbee.models.folder import model_folders
from antbee.models.versions import VERSIONS, Version
from antbee.text import as_text
from antbee.training.background import BackgroundError, BackgroundTraining, TrainingRequest, TrainingState
from antbee.training.recipe import RECIPES
from antbee.ui.components import NEWEST, Choice, empty_epoch_plots, epoch_colours, epoch_plots, newly_chosen
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label, translator_of
from antbee.ui.registry import ModelRegistry, Stamp, stamp_of
from antbee.ui.tabs.publish import publish_section

POLL_SECONDS = 1.0  # between two updates while a training runs
LINES = 24  # of its output that are shown, the last ones


def request_of(folder: str, recipe: str, mode: str, output: Path) -> TrainingRequest:
    """The request of the form's values; "drawn" and the Hub's addresses are what they are with `--data`."""
    typed = folder.strip()
    if typed == "drawn" or typed.startswith(HUB_PREFIX):
        return TrainingRequest(output, data=typed, recipe=recipe, mode=mode)
    data = Path(typed).expanduser() if typed else None
    return TrainingRequest(output, data=data, recipe=recipe, mode=mode)


def histories_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The epoch records of each mode."""
    modes = dict.fromkeys(record["mode"] for record in epochs)
    return {mode: [record for record in epochs if record["mode"] == mode] for mode in modes}


def status_sentence(state: TrainingState, translate: Translator = ENGLISH) -> str:
    """The status of a training, as Markdown."""
    values = {"seconds": f"{state.seconds:.0f}", "epochs": len(state.epochs), "error": as_text(str(state.error))}
    return translate(f"train.{state.status}", **values)


def version_title(version: Version) -> str:
    """A version's label: when it was trained, and the accuracy of its models."""
    scores = [f"{mode} {'?' if share is None else f'{share:.1%}'}" for mode, share in version.accuracies.items()]
    return f"{version.name}: {', '.join(scores)}"


class TrainingJob:
    """The training that the page runs, and the models it writes."""

    def __init__(self, registry: ModelRegistry, training: BackgroundTraining, output: Path) -> None:
        self.registry = registry
        self.training = training
        self.output = output
        self._lock = threading.Lock()
        self._loaded: TrainingState | None = None
        self._error = ""
        self._before: dict[str, Stamp] = {}

    def start(self, folder: str, recipe: str, mode: str) -> None:
        """Starts a training. Raises BackgroundError where one is running."""
        self._before = self._in_place()
        self.training.start(request_of(folder, recipe, mode, self.output))

    def versions(self) -> list[tuple[str, str]]:
        """The label and the name of every version, the latest first."""
        return [(version_title(version), version.name) for version in versions.list_versions(self.output)]

    def restore(self, name: str, translate: Translator = ENGLISH) -> str:
        """Puts a version in place and loads it; returns a sentence about it.

        Raises OutputError where it can't be put in place, and what `ModelRegistry.switch_to` raises.
        """
        versions.restore_version(self.output, name)
        self.registry.switch_to(self.output, None)
        return translate("train.restored", name=as_text(name))

    def _in_place(self) -> dict[str, Stamp]:
        return {folder.name: stamp_of(folder) for folder in model_folders(self.output)}

    def poll(self, translate: Translator = ENGLISH) -> tuple[TrainingState, str]:
        """The state of the training and a sentence about it; once it has finished, its models are loaded."""
        state = self.training.state()
        if state.status == "finished":
            self._load(state)
            if self._error:
                return state, translate("train.not_shown", folder=as_text(str(self.output)), error=as_text(self._error))
            if self._in_place() == self._before:
                return state, translate("train.not_placed", folder=as_text(str(self.output / VERSIONS)))
        return state, status_sentence(state, translate)

    def _load(self, state: TrainingState) -> None:
        with self._lock:
            if state is self._loaded or state.request is None:
                return
            self._loaded, self._error = state, ""
            try:
                data = state.request.data if self._in_place() != self._before else None
                self.registry.switch_to(self.output, data)
            except (AntbeeError, OSError) as error:
                self._error = str(error)


def train_tab(registry: ModelRegistry, choice: Choice, training: BackgroundTraining, output: Path) -> None:
    """The form, its buttons, the status with curves and output, and the other versions."""
    job = TrainingJob(registry, training, output)
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
        texts: dict[str, Any] = {"label": label("train.versions"), "info": label("train.versions.info")}
        known = job.versions()
        version = gr.Dropdown(known, value=None, visible=bool(known), scale=3, **texts)
        restore = gr.Button(label("train.restore"), visible=bool(known))
    lines: dict[str, Any] = {"lines": LINES, "max_lines": LINES, "elem_classes": "log"}
    log = gr.Textbox(label=label("train.log"), interactive=False, visible=False, **lines)
    publish_section(folder)
    epochs_drawn = gr.State(-1)
    timer = gr.Timer(POLL_SECONDS, active=False)

    def poll(drawn: int, version: int, request: gr.Request) -> list[Any]:
        state, text = job.poll(translator_of(request))
        is_new, is_reloaded = len(state.epochs) != drawn, version != registry.version
        return [
            text,
            *(epoch_plots(histories_of(state.epochs)) if is_new else [gr.skip(), gr.skip()]),
            gr.Textbox("\n".join(state.lines[-LINES:]), visible=bool(state.lines)),
            len(state.epochs),
            gr.Button(interactive=not state.running),
            gr.Button(interactive=state.status == "running"),
            gr.Timer(active=state.running),
            *(newly_chosen(registry) if is_reloaded else [gr.skip(), gr.skip()]),
            *([gr.skip(), gr.skip()] if state.running else list_versions()),
        ]

    def list_versions() -> list[Any]:
        known = job.versions()
        return [gr.Dropdown(known, value=None, visible=bool(known)), gr.Button(visible=bool(known))]

    def restore_version(name: str | None, request: gr.Request) -> list[Any]:
        if name is None:
            return [gr.skip()] * 5
        try:
            text = job.restore(name, translator_of(request))
        except (AntbeeError, OSError) as error:
            raise gr.Error(in_toast(error), print_exception=False) from error
        return [text, *newly_chosen(registry), *list_versions()]

    def colour_plots() -> list[gr.LinePlot]:
        return epoch_colours(histories_of(training.state().epochs))

    def start_training(folder: str, recipe: str, mode: str) -> None:
        try:
            job.start(folder, recipe, mode)
        except BackgroundError as error:
            raise gr.Error(in_toast(error), print_exception=False) from error

    # Those that may load models are queued: of other calls the browser is not told that `choice.version` has changed.
    quiet: dict[str, Any] = NEWEST | {"show_progress": "hidden"}
    known_to_page = [epochs_drawn, choice.version]
    models = [choice.models, choice.version, version, restore]
    updated = [status, *plots, log, epochs_drawn, start, cancel, timer, *models]
    polled = gr.on([timer.tick, choice.changes[0]], poll, known_to_page, updated, **quiet)
    polled.then(colour_plots, None, plots, queue=False, **quiet)
    started = start.click(start_training, [folder, recipe, mode], None, queue=False, **quiet)
    cancelled = cancel.click(training.cancel, None, None, queue=False, **quiet)
    for changed in (started, cancelled):
        changed.then(poll, known_to_page, updated, **quiet)
    restore.click(restore_version, version, [status, *models], **quiet)
