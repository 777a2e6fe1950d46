"""Other names for the classes of a model: in its config, its card and its figures. The weights stay as they are."""

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

from antbee.errors import InputError
from antbee.evaluation import plots
from antbee.models.config import CONFIG_FILE, ClassifierConfig, read_config
from antbee.models.folder import find_folder
from antbee.models.versions import RUN_FOLDER, RunFolder
from antbee.text import one_line
from antbee.training.checkpoint import deferring_signals

LONGEST_NAME = 255  # bytes in UTF-8, as of the folder that a class is
CARD_FILE = "README.md"
# Figures whose titles are class names, and whose photos are not in the model folder.
OF_PHOTOS = ("batch", "mistakes", "differences")


class RenameError(InputError):
    """A class can't be renamed; the message says why, and nothing was changed."""


@dataclass(frozen=True)
class RenamedModel:
    """A model folder with other class names."""

    folder: Path
    names: Mapping[str, str]  # new names by the old ones
    changed: tuple[str, ...]  # files
    left_out: tuple[str, ...]  # figures that were removed
    edited: tuple[int, ...]  # lines of the card that somebody wrote and that still have an old name, from 1

    def __str__(self) -> str:
        """What was changed, a line for each kind."""
        pairs = ", ".join(f"{one_line(old)} -> {one_line(new)}" for old, new in self.names.items())
        lines = [f"renamed   {pairs}", f"in        {self.folder}: {', '.join(self.changed)}"]
        if self.left_out:
            figures = ", ".join(self.left_out)
            lines.append(f"left out  {figures}: old names are drawn into them, and their photos are not in the folder")
        if self.edited:
            numbers = ", ".join(map(str, self.edited))
            lines.append(f"edited    {CARD_FILE} still has old names in what antbee did not write: see line {numbers}")
        return "\n".join(lines)


def rename(folder: str | Path, names: Mapping[str, str]) -> RenamedModel:
    """Renames classes of a model folder; `names` are the new names by the old ones, which may change places.

    The config, the card and the confusion matrix get the new names. Figures of photos with class names are removed; all
    other files stay as they are, to the byte. The folder is replaced as a whole. Raises RenameError for names that
    can't be used, ModelFolderError for a folder that is no model, OutputError while a training writes beside it.
    """
    folder = _folder_of(folder)
    with _nobody_writing_beside(folder):
        config = read_config(folder)
        new_names = _checked(config.label_names, names)
        content = json.loads((folder / CONFIG_FILE).read_text("utf-8-sig"))
        renamed = ClassifierConfig.from_json(_renamed(content, new_names))
        with _replacing(folder) as copy:
            _write(copy, CONFIG_FILE, json.dumps(_renamed(content, new_names), indent=2) + "\n", folder)
            edited = _rename_in_card(folder, copy, config, renamed, new_names)
            is_drawn, left_out = _draw_figures(folder, copy, renamed)
    has_card = [CARD_FILE] if (folder / CARD_FILE).is_file() else []
    changed = (CONFIG_FILE, *has_card, *(["figures/confusion.png"] if is_drawn else []))
    return RenamedModel(folder, new_names, changed, left_out, edited)


def _folder_of(source: str | Path) -> Path:
    """The model folder, which is put back where an earlier renaming was killed at its last step."""
    folder = Path(source)
    for killed in folder.parent.glob(f".{folder.name}.renaming-*/before"):
        if not folder.exists():
            killed.rename(folder)
    if not folder.is_dir():
        raise RenameError(f"no folder {folder}: expected a model folder; `hf download` gets one from the Hub")
    return find_folder(folder).resolve()


@contextmanager
def _nobody_writing_beside(folder: Path) -> Iterator[None]:
    """Keeps trainings out of the output folder that the model may be in."""
    output = RunFolder(folder.parent)
    with output.locked() if (folder.parent / RUN_FOLDER).is_dir() else nullcontext():
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Names


def _checked(label_names: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """The new names by the model's own old ones, in Unicode normalisation form C. Raises RenameError."""
    own = {unicodedata.normalize("NFC", name): name for name in label_names}
    found = {}
    for old, new in names.items():
        if (known := own.get(unicodedata.normalize("NFC", old))) is None:
            some = ", ".join(one_line(name) for name in label_names[:10]) + ", ..." * (len(label_names) > 10)
            raise RenameError(f"no class {_shown(old)}: expected one of {some}")
        found[known] = _checked_name(new, known)
    if not {old: new for old, new in found.items() if old != new}:
        raise RenameError("nothing to rename: give the old and the new name of a class as OLD=NEW")
    after = [unicodedata.normalize("NFC", found.get(name, name)) for name in label_names]
    if twice := next((name for name in found.values() if after.count(name) > 1), None):
        raise RenameError(f"two classes would be {_shown(twice)}: give each a name of its own")
    return found


def _checked_name(new: str, old: str) -> str:
    name = unicodedata.normalize("NFC", new).strip()
    if not name:
        raise RenameError(f"the new name of {_shown(old)} is empty: give one that is not")
    if not name.isprintable():
        raise RenameError(f"the new name of {_shown(old)} has characters that can't be printed: leave them out")
    if (length := len(name.encode())) > LONGEST_NAME:
        raise RenameError(
            f"the new name of {_shown(old)} has {length} bytes: expected at most {LONGEST_NAME}, as of a folder, "
            "give a shorter one"
        )
    return name


def _shown(name: str) -> str:
    return f"'{one_line(name, longest=60)}'"


# ---------------------------------------------------------------------------------------------------------------------
# The files of a model folder


def _renamed(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The content of config.json with other class names, wherever antbee, timm and transformers write them."""
    own = content.get("antbee")
    return {
        **_with_labels(content, names),
        **{key: _with_labels(cfg, names) for key in ("pretrained_cfg",) if isinstance(cfg := content.get(key), dict)},
        **({"antbee": {**own, "data": _with_counts(own.get("data"), names)}} if isinstance(own, dict) else {}),
    }


def _with_labels(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An object with other names in the keys for class names."""
    changed = dict(content)
    for key in ("label_names", "labels", "id2label"):  # indexed by class
        if isinstance(labels := content.get(key), dict):
            changed[key] = {index: names.get(label, label) for index, label in labels.items()}
        elif isinstance(labels, list):
            changed[key] = [names.get(label, label) for label in labels]
    for key in ("label2id", "label_descriptions"):  # by name
        if isinstance(labels := content.get(key), dict):
            changed[key] = _with_keys(labels, names)
    return changed


def _with_counts(data: Any, names: Mapping[str, str]) -> Any:
    """The data set's part of the config: the number of photos of each class, for each split, is by class name."""
    if not isinstance(data, dict):
        return data
    splits = ("train", "holdout", "val", "test")
    return {
        key: _with_keys(value, names) if key in splits and isinstance(value, dict) else value
        for key, value in data.items()
    }


def _with_keys(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in content.items()}


def _rename_in_card(
    folder: Path, copy: Path, before: ClassifierConfig, after: ClassifierConfig, names: Mapping[str, str]
) -> tuple[int, ...]:
    """Renames classes in the lines of the card that antbee wrote; returns the numbers of others with an old name."""
    from antbee.hub.card import model_card

    path = folder / CARD_FILE
    if not path.is_file():
        return ()
    old, new = (model_card(config.to_json()).splitlines() for config in (before, after))
    line_of = dict(zip(old, new, strict=True))
    lines = [line_of.get(line, line) for line in path.read_text("utf-8").splitlines()]
    text = "\n".join(lines) + "\n"
    for name in OF_PHOTOS:
        text = re.sub(rf"^!\[[^\]]*\]\(figures/{name}\.png\)\n\n?", "", text, flags=re.MULTILINE)
    _write(copy, CARD_FILE, text, folder)
    gone = [re.escape(old) for old in names if old not in after.label_names]
    has_old_name = re.compile(rf"(?<!\w)(?:{'|'.join(gone)})(?!\w)") if gone else re.compile(r"(?!)")
    written = set(new)
    found = (number for number, line in enumerate(text.splitlines(), 1) if line not in written)
    return tuple(number for number in found if has_old_name.search(text.splitlines()[number - 1]))


def _draw_figures(folder: Path, copy: Path, config: ClassifierConfig) -> tuple[bool, tuple[str, ...]]:
    """Draws the confusion matrix again, if it is there; removes the figures of photos, and returns their names."""
    confusion = "figures/confusion.png"
    is_drawn = (folder / confusion).is_file() and config.metrics is not None
    if is_drawn and config.metrics is not None:
        (copy / confusion).unlink()  # it may be a link
        plots.confusion_matrix(config.metrics.confusion, config.label_names).save(copy / confusion)
    left_out = tuple(name for figure in OF_PHOTOS if (folder / (name := f"figures/{figure}.png")).is_file())
    for name in left_out:
        (copy / name).unlink()
    return is_drawn, left_out


def _write(copy: Path, name: str, text: str, folder: Path) -> None:
    """Writes a file of the copy anew, as it may be a link into the Hub's cache; its time stays that in the folder."""
    time = (folder / name).stat().st_mtime_ns
    (copy / name).unlink()
    (copy / name).write_text(text, "utf-8")
    os.utime(copy / name, ns=(time, time))


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A copy of a folder to change, which takes its place if the block succeeds. Until then relative links lead astray.

    Ctrl-C and SIGTERM wait for the last two steps. A process that is killed between them leaves the folder in
    `.NAME.renaming-*/before`, from where the next renaming puts it back.
    """
    with (
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.renaming-", dir=folder.parent) as temporary,
        deferring_signals() as signals,
    ):
        copy, before = Path(temporary) / "after", Path(temporary) / "before"
        copytree(folder, copy, symlinks=True)
        yield copy
        with signals.deferred():
            folder.rename(before)
            try:
                copy.rename(folder)
            except OSError:
                before.rename(folder)
                raise
