"""Finds a data set: a folder, the drawn ants and bees, or the classic ants and bees, which are downloaded."""

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from antbee.data.archive import ZIP_ERRORS
from antbee.data.digest import folder_digest
from antbee.data.drawn import write_drawn_set
from antbee.data.exclusions import read_exclusions
from antbee.data.folder import ImageDataset, read_folder, refuse_damaged
from antbee.data.images import DataError
from antbee.data.sources import HUB_FOLDER, located
from antbee.installation import home

HYMENOPTERA_URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
# `folder_digest` of its 398 files
HYMENOPTERA_DIGEST = "b0e3506710bc375be5996e1c9b29818c80cdfc19bcc324e560091da6690149ec"


class DownloadError(DataError):
    """The classic ants and bees could not be downloaded; trying again may help."""

    exit_status = 1


def load_folder(
    path: str | Path,
    *,
    seed: int = 0,
    exclude: str | Path | None = None,
    allow_bad: bool = False,
    follow_links: bool = False,
) -> ImageDataset:
    """Loads a data folder with train/ and val/, or with class folders, of which a fifth, drawn by `seed`, becomes val.

    `path` may be "drawn" for the drawn ants and bees, a table or an archive of photos, or a data set of the Hub such as
    "user/name", see `data_root`. `exclude` is a text file that lists images not to train on, one a line. Links are
    followed where they stay in the folder or lead into the Hub's cache and, with `follow_links`, anywhere. Every photo
    is decoded once to check it; no pixels are kept. Raises DataError if the folder can't be used and, unless
    `allow_bad`, if over a tenth of a class is damaged, and what `data_root` raises.
    """
    dataset = read_folder(data_root(path), seed=seed, follow_links=follow_links)
    if not allow_bad:
        refuse_damaged(dataset)
    return dataset if exclude is None else dataset.without(read_exclusions(Path(exclude)))


def data_root(data: str | Path) -> Path:
    """The folder or the table of the photos that `data` names: those of "drawn" are the drawn ants and bees.

    All else is for `located`, with data/ for copies; it raises what that does.
    """
    return drawn_folder(home() / "data") if data == "drawn" else located(data, home() / "data")


def hymenoptera_folder(parent: Path, *, url: str = HYMENOPTERA_URL, digest: str = HYMENOPTERA_DIGEST) -> Path:
    """The folder of the classic ants and bees in `parent`, downloaded if it does not exist.

    It gets its name only once it is complete and its digest is right. Raises DownloadError if the download fails.
    """
    folder = parent / "hymenoptera_data"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=parent) as temporary:
        archive, unpacked = Path(temporary) / "archive.zip", Path(temporary) / "unpacked"
        _download(url, archive)
        _unpack(archive, unpacked)
        if (found := folder_digest(unpacked / folder.name)) != digest:
            raise DownloadError(
                f"{url} is not the published data set (digest {found[:12]}, expected {digest[:12]}): try again"
            )
        (unpacked / folder.name).rename(folder)
    return folder


def _download(url: str, target: Path) -> None:
    title = url.rsplit("/", 1)[-1]
    try:
        with urllib.request.urlopen(url, timeout=20) as response, target.open("wb") as file:
            size = response.length  # None without a Content-Length
            with tqdm.wrapattr(response, "read", total=size, desc=title, leave=False, disable=None) as body:
                shutil.copyfileobj(body, file)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url} can't be downloaded (HTTP {error.code} {error.reason}): try again later") from error
    except (OSError, http.client.HTTPException) as error:  # OSError includes URLError, TLS errors and resets
        cause = str(getattr(error, "reason", error)).strip()
        raise DownloadError(f"{url} can't be downloaded ({cause}): check the connection and try again") from error
    # http.client does not report a body that ends early.
    if size is not None and (received := target.stat().st_size) < size:
        raise DownloadError(f"the download of {url} was cut off after {received} of {size} bytes: try again")


def _unpack(archive: Path, target: Path) -> None:
    """Extracts `train/` and `val/`; zipfile itself strips `..` and absolute paths."""
    try:
        with zipfile.ZipFile(archive) as content:
            splits = ("hymenoptera_data/train/", "hymenoptera_data/val/")
            wanted = [name for name in content.namelist() if name.startswith(splits)]
            content.extractall(target, wanted)
    except ZIP_ERRORS as error:
        raise DownloadError(f"the downloaded archive can't be unpacked ({error}): try again") from error


def folder_named(parent: Path, name: object) -> Path | None:
    """The folder `name` in `parent`, or among the copies of the Hub's data sets there; None if there is none.

    The name comes from a model's untrusted config, so anything but a plain folder name gives None.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return None
    return next((place / name for place in (parent, parent / HUB_FOLDER) if (place / name).is_dir()), None)


def drawn_folder(parent: Path) -> Path:
    """The folder of the drawn ants and bees in `parent`, drawn if it does not exist: as many as the photos."""
    folder = parent / "drawn"
    return folder if folder.is_dir() else write_drawn_set(folder)
