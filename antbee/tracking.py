"""Where a run's epochs are told beside history.json, for whoever compares many runs.

The trackers are optional packages, imported only when one is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TRACKERS = ("trackio", "tensorboard")
PROJECT = "antbee"  # what trackio keeps the runs under

Log = Callable[[Mapping[str, float]], None]  # of an epoch's record, see training.Epoch.to_record


class TrackerError(RuntimeError):
    """A tracker can't be used; the message says which, and what to do."""


def check_tracker(name: str) -> None:
    """Raises TrackerError where the tracker is not installed: before anything is trained."""
    if find_spec(name) is None:
        raise TrackerError(f"{name} is not installed: `pip install {name}`, or leave out --track {name}")


@contextmanager
def tracked(name: str, run: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    """A run of a tracker while the block lasts, as a function that logs an epoch.

    trackio (https://github.com/gradio-app/trackio) keeps its runs in a database in the Hub's home, unless one of its
    own variables, such as TRACKIO_SPACE_ID, names another place; tensorboard (https://www.tensorflow.org/tensorboard)
    keeps them below `folder`. Raises TrackerError where the tracker can't start.
    """
    match name:
        case "trackio":
            with _trackio(run, settings) as log:
                yield log
        case "tensorboard":
            with _tensorboard(settings, folder / run) as log:
                yield log
        case _:
            raise TrackerError(f"no tracker {name!r}: expected {' or '.join(TRACKERS)}")


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
        writer.flush()  # so that an epoch is seen when it ends

    try:
        yield log
    finally:
        writer.close()
