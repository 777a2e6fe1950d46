"""The models of an output folder: they take their places together, and the ones before them stay.

    outputs/
      frozen/, finetune/                       the models in place
      versions/2026-11-28_17-12-46/frozen/     models that are not in place, under the time they were trained
      .training/                               the run in progress: its lock, checkpoints and finished models

Only what antbee wrote is ever moved or removed, and it is recognised by its content.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from antbee.data.files import FileError, content_of
from antbee.errors import InputError
from antbee.models.config import (
    CONFIG_FILE,
    HISTORY_FILE,
    MAX_BYTES,
    MODES,
    ClassifierConfig,
    ModelFolderError,
    read_config,
)
from antbee.models.folder import DETECTOR_FILE, WEIGHTS_FILE
from antbee.models.weights import WeightsError

VERSIONS = "versions"
RUN_FOLDER = ".training"
MARKER = "antbee.txt"
MARKER_TEXT = "A training of antbee in progress: its checkpoints, and the models that it has finished.\n"
MODEL_FILES = {WEIGHTS_FILE, DETECTOR_FILE, CONFIG_FILE, HISTORY_FILE, "README.md", "figures"}

Replace = Literal["unless-worse", "always", "never"]
REPLACE: tuple[Replace, ...] = ("unless-worse", "always", "never")


class OutputError(InputError):
    """An output folder holds what antbee did not write where a model should go, or is in use; nothing was changed."""


@dataclass(frozen=True)
class Version:
    """Models that were trained together and are not in place."""

    folder: Path
    accuracies: Mapping[str, float | None]  # by mode, 0..1; None where the model doesn't say

    @property
    def name(self) -> str:
        """What `restore_version` calls it."""
        return self.folder.name


@dataclass(frozen=True)
class Placement:
    """Where a run's models are now."""

    folders: Mapping[str, Path]  # by mode
    put_aside: Path | None = None  # the version folder of the models that were in place before
    kept: str | None = None  # why the models in place stay, in a sentence; then `folders` are those of a version


def is_model_folder(folder: Path) -> bool:
    """Whether antbee wrote this folder: its config.json says so."""
    try:
        content = json.loads(content_of(folder / CONFIG_FILE, largest=MAX_BYTES))
    except (FileError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("antbee"), dict)


def check_output(output: Path, modes: Sequence[str]) -> None:
    """Raises OutputError where a model could not take its place without moving what antbee did not write."""
    for place in (output / mode for mode in modes):
        if (place.exists() or place.is_symlink()) and not is_model_folder(place):
            raise OutputError(
                f"{place} is there and is no model of antbee's (no {CONFIG_FILE} that says so): "
                "move it, or choose another folder with --output"
            )
    if (output / VERSIONS).exists() and not (output / VERSIONS).is_dir():
        raise OutputError(f"{output / VERSIONS} is no folder: move it, or choose another folder with --output")


@dataclass(frozen=True)
class RunFolder:
    """Where a run in progress keeps its lock, its checkpoints and its finished models."""

    output: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.output / RUN_FOLDER

    def checkpoint(self, mode: str) -> Path:
        """The file of a mode's checkpoint."""
        return self.path / f"{mode}.pt"

    def model(self, mode: str) -> Path:
        """The folder of a mode's finished model, until it takes its place."""
        return self.path / mode

    @contextmanager
    def writing(self, mode: str) -> Iterator[Path]:
        """An empty folder to write a model into, which is `model(mode)` once the block ends well."""
        unfinished = self._unfinished(mode)
        _remove_model(unfinished)
        unfinished.mkdir()
        yield unfinished
        _remove_model(self.model(mode))
        unfinished.rename(self.model(mode))

    def check(self) -> None:
        """Raises OutputError where the folder holds anything that no run of antbee's wrote."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        marker = self.path / MARKER
        is_own = marker.is_file() and marker.read_bytes() == MARKER_TEXT.encode()
        strangers = sorted({path.name for path in self.path.iterdir()} - self._own_names())
        if strangers or not is_own:
            what = f"holds {strangers[0]}" if strangers else f"has no {MARKER}"
            raise OutputError(
                f"{self.path} {what}, so it is not (only) a run of antbee's: move it, or choose another folder "
                "with --output"
            )

    def clear(self) -> None:
        """Removes checkpoints and models of a run that is over or given up; the caller holds the lock.

        Raises OutputError, before anything is removed, where the folder holds what no run wrote.
        """
        self.check()
        for mode in MODES:
            _remove_model(self.model(mode))
            _remove_model(self._unfinished(mode))
            for suffix in (".pt", ".previous.pt", ".writing"):
                (self.path / f"{mode}{suffix}").unlink(missing_ok=True)

    @property
    def is_interrupted(self) -> bool:
        """Whether a run was interrupted here that could be resumed."""
        return any(self.checkpoint(mode).exists() or self.model(mode).exists() for mode in MODES)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """This process alone writes into the output folder during the block; the lock ends with the process.

        Raises OutputError where another run holds it, where the folder is not antbee's or can't be written to.
        """
        try:
            self.check()
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / MARKER).exists():
                (self.path / MARKER).write_bytes(MARKER_TEXT.encode())
            lock = FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"another run is writing into {self.output}: wait until it ends, or choose another folder with --output"
            ) from error
        except OSError as error:
            raise OutputError(
                f"{self.output} can't be written to ({error.strerror or error}): choose another folder with --output"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _unfinished(self, mode: str) -> Path:
        return self.path / f"{mode}.unfinished"

    @staticmethod
    def _own_names() -> set[str]:
        suffixes = ("", ".unfinished", ".pt", ".previous.pt", ".writing")
        return {MARKER, "lock", *(f"{mode}{suffix}" for mode in MODES for suffix in suffixes)}


def _remove_model(folder: Path) -> None:
    """Removes a model that a run wrote, whole or in part. Raises OutputError where it holds anything else."""
    if not folder.exists():
        return
    if strangers := sorted({path.name for path in folder.iterdir()} - MODEL_FILES):
        raise OutputError(f"{folder} holds {strangers[0]}, which antbee did not write: move it")
    shutil.rmtree(folder)


def discard_run(output: Path) -> None:
    """Leaves no trace of a run that was cancelled. Raises OutputError where one is still going on."""
    run = RunFolder(output)
    if run.path.exists():
        with run.locked():
            run.clear()


# ---------------------------------------------------------------------------------------------------------------------
# Versions


def list_versions(output: Path) -> list[Version]:
    """The models of an output folder that are not in place, the latest first."""
    found = {folder: _models_in(folder) for folder in sorted((output / VERSIONS).glob("*"), reverse=True)}
    return [
        Version(folder, {mode: _accuracy(_read(path)) for mode, path in models.items()})
        for folder, models in found.items()
        if models
    ]


def place_models(output: Path, run: RunFolder, *, replace: Replace, is_stand_in: bool = False) -> Placement:
    """Puts the finished models of a run in their places, together; those that were there become a version.

    With "unless-worse" those in place stay where the best of the new models is significantly worse than the best of
    them, for the same classes, or where drawn pictures or random weights stood in for the run's data (`is_stand_in`);
    with "never" they stay where there are any. Then the new models become the version. The caller holds the lock.
    """
    finished, present = _models_in(run.path), _models_in(output)
    if not finished:  # resumed after its end: they are in place
        return Placement(present)
    kept = _why_to_keep(present, finished, replace, is_stand_in)
    return _swap(output, finished) if kept is None else Placement(_new_version(output, finished), kept=kept)


def restore_version(output: Path, name: str) -> Placement:
    """Puts the models of a version in place; those that were there become a version.

    Raises OutputError where there is no such version, where a run is writing into the folder, or where something that
    antbee did not write is in their places.
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
    """Moves models into their places, and what is there into a new version."""
    check_output(output, list(models))
    present = {mode: output / mode for mode in models if (output / mode).exists()}
    aside = next(iter(_new_version(output, present).values())).parent if present else None
    return Placement(_move(models, output), put_aside=aside)


def _new_version(output: Path, models: Mapping[str, Path]) -> dict[str, Path]:
    """Moves models into a new version folder, named after the time when they were trained."""
    trained = max((model / CONFIG_FILE).stat().st_mtime for model in models.values())
    name = stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(trained))
    for number in count(2):
        with suppress(FileExistsError):
            (output / VERSIONS / name).mkdir(parents=True)
            break
        name = f"{stamp}_{number}"
    return _move(models, output / VERSIONS / name)


def _move(models: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Renames model folders to `target`/MODE, where none may be."""
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
    if is_stand_in and not (before.data.name == "drawn" or before.weights.name == "random"):
        return "The models in place stay: drawn pictures or random weights stood in for the data of the new ones."
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
    """A model's config; None where it can't be read, as after an edit by hand."""
    with suppress(ModelFolderError, WeightsError):
        return read_config(folder)
    return None


def _accuracy(config: ClassifierConfig | None) -> float | None:
    return config.metrics.accuracy if config and config.metrics else None
