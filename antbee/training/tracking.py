"""Experiment trackers, which a run logs its epochs to in addition to history.json.

trackio and tensorboard are optional packages, imported only when they are used; the third is a file of JSON lines.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from antbee.errors import InputError

PROJECT = "antbee"  # trackio's project
EPOCHS_FILE = "epochs.jsonl"  # in the output folder

Log = Callable[[Mapping[str, float]], None]  # logs an epoch's record, see Epoch.to_record


class TrackerError(InputError):
    """A tracker can't be used; the message names it and says what to do."""


def check_tracker(name: str) -> None:
    """Raises TrackerError where the tracker is not installed, before training starts."""
    if name != "jsonl" and find_spec(name) is None:
        raise TrackerError(f"{name} is not installed: `pip install {name}`, or leave out --track {name}")


@contextmanager
def tracked(name: str, run: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    """Opens a run of a tracker for the block; yields a function that logs an epoch.

    `folder` is the output folder; `settings` hold the run's "mode" and "epochs", and whatever else is logged once.
    trackio (https://github.com/gradio-app/trackio) keeps its runs in a database in the Hub's home, unless
    one of its own variables, such as TRACKIO_SPACE_ID, names another place; tensorboard
    (https://www.tensorflow.org/tensorboard) keeps them in `folder`/tensorboard; jsonl appends to `folder`/epochs.jsonl.
    Raises TrackerError where the tracker can't start.
    """
    match name:
        case "trackio":
            with _trackio(run, settings) as log:
                yield log
        case "tensorboard":
            with _tensorboard(settings, folder / "tensorboard" / run) as log:
                yield log
        case "jsonl":
            with _jsonl(settings, folder / EPOCHS_FILE) as log:
                yield log


@contextmanager
def _trackio(run: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    import trackio

    try:
        trackio.init(project=PROJECT, name=run, config=dict(settings), embed=False)
    except ValueError as error:
        raise TrackerError(f"trackio can't start ({error}): check the variables TRACKIO_... or unset them") from error
    try:
        yield lambda record: trackio.log(dict(record), step=int(record["epoch"]))
    finally:
        trackio.finish()


@contextmanager
def _tensorboard(settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)
    writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))

    def log(record: Mapping[str, float]) -> None:
        for name, value in record.items():
            writer.add_scalar(name, value, int(record["epoch"]))
        writer.flush()  # readers see each epoch as it ends

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _jsonl(settings: Mapping[str, Any], path: Path) -> Iterator[Log]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:

        def log(record: Mapping[str, float]) -> None:
            line = {"mode": settings["mode"], "epochs": settings["epochs"], **record}
            file.write(json.dumps(line) + "\n")
            file.flush()  # readers see each epoch as it ends

        yield log


def empty_epochs(folder: Path) -> None:
    """Empties `folder`/epochs.jsonl for a new run, whose modes append to it, as does a resumed run.

    The file is truncated, not replaced, so that `tail -f` keeps following it. Raises TrackerError where it holds
    anything but epochs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        is_own = all("epoch" in record for record in read_epochs(folder))
    except (ValueError, TypeError):
        is_own = False
    if not is_own:
        raise TrackerError(f"{folder / EPOCHS_FILE} holds something else than the epochs of a run: move it")
    (folder / EPOCHS_FILE).write_bytes(b"")


def read_epochs(folder: Path) -> tuple[dict[str, Any], ...]:
    """The records logged so far in `folder`/epochs.jsonl, in order; none where there is no file.

    Each has its "mode", the number of "epochs" of that mode, and the keys of `Epoch.to_record`.
    """
    path = folder / EPOCHS_FILE
    text = path.read_text("utf-8") if path.is_file() else ""
    complete = text[: text.rfind("\n") + 1]  # the last line may still be incomplete
    return tuple(json.loads(line) for line in complete.splitlines())
