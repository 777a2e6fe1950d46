"""The output folder of training runs: new models replace the current ones together, which are kept as a version.

    outputs/
      frozen/, finetune/                       the current models
      versions/2026-11-28_17-12-46/frozen/     other models, by the time of their training
      .training/                               the run in progress: its lock, checkpoints and finished models

Only files that antbee wrote are moved or removed; they are recognised by their content.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from antbee.data.listing import is_model_folder
from antbee.errors import InputError
from antbee.models.config import (
    CONFIG_FILE,
    HISTORY_FILE,
    MODES,
    ClassifierConfig,
    ModelFolderError,
    read_config,
)
from antbee.models.folder import DETECTOR_FILE, WEIGHTS_FILE
from antbee.models.tensors import WeightsError

VERSIONS = "versions"
RUN_FOLDER = ".training"
MARKER = "antbee.txt"
MARKER_TEXT = "A training of antbee in progress: its checkpoints, and the models that it has finished.\n"
MODEL_FILES = {WEIGHTS_FILE, DETECTOR_FILE, CONFIG_FILE, HISTORY_FILE, "README.md", "figures"}
# The files of a run: of each mode the model, complete and partial, and the checkpoints.
RUN_FILES = {f"{mode}{end}" for mode in MODES for end in ("", ".unfinished", ".pt", ".previous.pt", ".writing")}
ELSEWHERE = "or choose another folder with --output"

Replace = Literal["unless-worse", "always", "never"]


class OutputError(InputError):
    """An output folder is in use, or has files of others where a model is to be written; nothing was changed."""


@dataclass(frozen=True)
class Version:
    """Models of one training run, usually not the current ones."""

    folder: Path
    accuracies: Mapping[str, float | None]  # by mode, 0..1; None where the model has no metrics

    @property
    def name(self) -> str:
        """The name for `restore_version`."""
        return self.folder.name


@dataclass(frozen=True)
class Placement:
    """The folders to which a run's models were moved."""

    folders: Mapping[str, Path]  # by mode
    put_aside: Path | None = None  # the version folder of the previous models
    kept: str | None = None  # why the previous models stay in place; then `folders` are those of a version


def check_output(output: Path, modes: Sequence[str]) -> None:
    """Raises OutputError where files that antbee did not write are in the place of a model."""
    for place in (output / mode for mode in modes):
        if (place.exists() or place.is_symlink()) and not is_model_folder(place):
            what = f"is there and is no model of antbee's (no {CONFIG_FILE} that says so)"
            raise OutputError(f"{place} {what}: move it, {ELSEWHERE}")
    if (output / VERSIONS).exists() and not (output / VERSIONS).is_dir():
        raise OutputError(f"{output / VERSIONS} is no folder: move it, {ELSEWHERE}")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run in progress, with its lock, checkpoints and finished models."""

    output: Path

    @property
    def path(self) -> Path:
        """The folder."""
        return self.output / RUN_FOLDER

    def checkpoint(self, mode: str) -> Path:
        """The file of a mode's checkpoint."""
        return self.path / f"{mode}.pt"

    def model(self, mode: str) -> Path:
        """The folder of a mode's finished model, before it is put in place."""
        return self.path / mode

    @contextmanager
    def writing(self, mode: str) -> Iterator[Path]:
        """An empty folder for a model, which is renamed to `model(mode)` if the block succeeds."""
        unfinished = self.path / f"{mode}.unfinished"
        _remove_model(unfinished)
        unfinished.mkdir()
        yield unfinished
        _remove_model(self.model(mode))
        unfinished.rename(self.model(mode))

    def check(self) -> None:
        """Raises OutputError where the folder contains files that no training run wrote."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        marker = self.path / MARKER
        is_own = marker.is_file() and marker.read_bytes() == MARKER_TEXT.encode()
        others = sorted({path.name for path in self.path.iterdir()} - {MARKER, "lock", *RUN_FILES})
        if others or not is_own:
            what = f"holds {others[0]}" if others else f"has no {MARKER}"
            raise OutputError(f"{self.path} {what}, so it is not (only) a run of antbee's: move it, {ELSEWHERE}")

    def clear(self) -> None:
        """Removes checkpoints and models of a finished or cancelled run; the caller holds the lock.

        Raises OutputError, before anything is removed, where the folder contains files that no training run wrote.
        """
        self.check()
        for path in (self.path / name for name in sorted(RUN_FILES)):
            if path.is_dir():
                _remove_model(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def is_interrupted(self) -> bool:
        """Whether there is an interrupted run, which can be resumed."""
        return any(self.checkpoint(mode).exists() or self.model(mode).exists() for mode in MODES)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of the output folder during the block; the operating system frees it if the process dies.

        Raises OutputError where another run holds it, where the folder is not antbee's, or can't be written to.
        """
        try:
            self.check()
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / MARKER).exists():
                (self.path / MARKER).write_bytes(MARKER_TEXT.encode())
            lock = FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            message = f"another run is writing into {self.output}: wait until it ends, {ELSEWHERE}"
            raise OutputError(message) from error
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{self.output} can't be written to ({reason}): make it writable, {ELSEWHERE}") from error
        try:
            yield
        finally:
            lock.release()


def _remove_model(folder: Path) -> None:
    """Removes a complete or partial model folder of a run. Raises OutputError where it contains other files."""
    if not folder.exists():
        return
    if others := sorted({path.name for path in folder.iterdir()} - MODEL_FILES):
        raise OutputError(f"{folder} holds {others[0]}, which antbee did not write: move it")
    shutil.rmtree(folder)


def discard_run(output: Path) -> None:
    """Removes the files of a cancelled run. Raises OutputError while a run is in progress."""
    run = RunFolder(output)
    if run.path.exists():
        with run.locked():
            run.clear()


# ---------------------------------------------------------------------------------------------------------------------
# Versions


def list_versions(output: Path) -> list[Version]:
    """The versions of an output folder, latest first."""
    found = map(read_version, sorted((output / VERSIONS).glob("*"), reverse=True))
    return [version for version in found if version.accuracies]


def read_version(folder: Path) -> Version:
    """The models in a folder, which may be the output folder itself, with their accuracies."""
    return Version(folder, {mode: _accuracy(_read(path)) for mode, path in _models_in(folder).items()})


def place_models(output: Path, run: RunFolder, *, replace: Replace, is_stand_in: bool = False) -> Placement:
    """Puts the finished models of a run in place together; the previous models become a version.

    With "unless-worse" the previous models stay, and the new ones become a version, if they have the same classes and
    the best new model is significantly worse than the best of them, or was trained on drawn images or with another
    network in place of what could not be downloaded (`is_stand_in`); with "never" they always stay. The caller holds
    the lock.
    """
    finished, present = _models_in(run.path), _models_in(output)
    if not finished:  # resumed after its end: they are in place
        return Placement(present)
    kept = _why_to_keep(present, finished, replace, is_stand_in)
    return _swap(output, finished) if kept is None else Placement(_new_version(output, finished), kept=kept)


def restore_version(output: Path, name: str) -> Placement:
    """Puts the models of a version in place; the previous models become a version.

    Raises OutputError where there is no such version, while a run is in progress, or where files that antbee did not
    write are in their places.
    """
    names = [version.name for version in list_versions(output)]
    if name not in names:
        raise OutputError(f"no version {name} in {output / VERSIONS}, there are: {', '.join(names) or 'none'}")
    folder = output / VERSIONS / name
    with RunFolder(output).locked():
        placed = _swap(output, _models_in(folder))
    if not any(folder.iterdir()):
        folder.rmdir()
    return placed


def _models_in(folder: Path) -> dict[str, Path]:
    return {mode: folder / mode for mode in MODES if is_model_folder(folder / mode)}


def _swap(output: Path, models: Mapping[str, Path]) -> Placement:
    """Puts models in place, and moves the previous ones to a new version."""
    check_output(output, list(models))
    present = {mode: output / mode for mode in models if (output / mode).exists()}
    aside = next(iter(_new_version(output, present).values())).parent if present else None
    return Placement(_move(models, output), put_aside=aside)


def _new_version(output: Path, models: Mapping[str, Path]) -> dict[str, Path]:
    """Moves models to a new version folder, named after the time of their training."""
    trained = max((model / CONFIG_FILE).stat().st_mtime for model in models.values())
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(trained))
    names = (stamp if number == 1 else f"{stamp}_{number}" for number in count(1))
    folder = next(folder for name in names if not (folder := output / VERSIONS / name).exists())
    folder.mkdir(parents=True)
    return _move(models, folder)


def _move(models: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Renames model folders to `target`/MODE, which must not exist."""
    for mode, folder in models.items():
        folder.rename(target / mode)
    return {mode: target / mode for mode in models}


def _why_to_keep(
    present: Mapping[str, Path], new: Mapping[str, Path], replace: Replace, is_stand_in: bool
) -> str | None:
    before, after = _best(present), _best(new)
    if not present or replace == "always":
        return None
    if replace == "never":
        return "The models in place stay, as asked."
    if before is None or after is None or before.label_names != after.label_names:
        return None  # nothing to compare
    weights = before.weights
    if is_stand_in and not (before.data.name == "drawn" or weights.origin == "random" or weights.stands_in_for):
        return "The models in place stay: drawn pictures or another network stood in for those of the new ones."
    if before.metrics and after.metrics and after.metrics.accuracy < before.metrics.kept.interval[0]:
        low, high = before.metrics.kept.interval
        return (
            f"The models in place stay: the best of them has {before.metrics.accuracy:.1%} right (95% interval "
            f"{low:.1%} to {high:.1%}), the best new one {after.metrics.accuracy:.1%}."
        )
    return None


def _best(models: Mapping[str, Path]) -> ClassifierConfig | None:
    configs = [config for path in models.values() if (config := _read(path)) is not None]
    return max(configs, key=lambda config: _accuracy(config) or 0.0, default=None)


def _read(folder: Path) -> ClassifierConfig | None:
    """A model's config; None where it can't be read, for example after an edit."""
    with suppress(ModelFolderError, WeightsError):
        return read_config(folder)
    return None


def _accuracy(config: ClassifierConfig | None) -> float | None:
    return config.metrics.accuracy if config and config.metrics else None
