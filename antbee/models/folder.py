"""The files of a model folder, and how a folder or a Hub repository is found."""

import re
from pathlib import Path

from antbee.data.files import is_address
from antbee.models.config import CONFIG_FILE, MODES, ModelFolderError
from antbee.text import printable

WEIGHTS_FILE = "model.safetensors"
DETECTOR_FILE = "neighbours.safetensors"
UNREAD_WEIGHTS = ("pytorch_model.bin", "model.bin", "model.pth", "model.pt", "pytorch_model.pth")  # pickles
HUB_ADDRESS = re.compile(r"https?:/+(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/(?:tree/main/?)?)?")
PREVIOUS = ".previous"  # suffix that version 0.1 gave to the folder of a replaced model


def find_folder(
    source: str | Path, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """The model folder `source`, or the local copy of a Hub repository such as "user/name".

    The repository's address will do too. Raises ModelFolderError where `source` is none of these, hub.HubError where
    the repository can't be downloaded.
    """
    source = model_name(source)
    folder = Path(source)
    if folder.is_dir():
        if not (folder / CONFIG_FILE).exists() and (models := model_folders(folder)):
            raise ModelFolderError(
                f"{folder} is a folder of models, expected one of them: {' or '.join(map(str, models))}"
            )
        return folder
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise ModelFolderError(f"no folder {source}: expected a model folder, or a Hub id such as user/name")
    from antbee import hub

    try:
        return hub.pull(str(source), revision=revision, token=token, local_files_only=local_files_only)
    except hub.HubError as error:
        raise hub.HubError(f"There is no folder {source} here, and no such model from the Hub. {error}") from error


def model_name(source: str | Path) -> str | Path:
    """A model folder or a Hub id as it is, and the Hub id in an address of the Hub.

    Raises ModelFolderError for other addresses, among them those of files, data sets, Spaces and of other revisions.
    """
    if not is_address(source):
        return source
    if (found := HUB_ADDRESS.fullmatch(str(source))) is None or found[1].startswith(("datasets/", "spaces/")):
        raise ModelFolderError(
            f"{printable(source)} is an address, and not that of a model on the Hub: download the model first, and "
            "name its folder, or give a Hub id such as user/name"
        )
    return found[1]


def model_folders(folder: Path) -> list[Path]:
    """The model folders in a folder, in the order of training, without replaced models of version 0.1."""
    found = [path.parent for path in folder.glob(f"[!.]*/{CONFIG_FILE}")]
    kept = [path for path in found if not path.name.endswith(PREVIOUS)]
    return sorted(kept, key=lambda path: (path.name != MODES[0], path.name))
