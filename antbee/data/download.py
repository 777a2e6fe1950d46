"""Where a data set is found: a folder, the classic ants and bees, or drawn ones."""

import http.client
import shutil
import struct
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from antbee.data.drawn import write_drawn_set
from antbee.data.folder import ImageDataset, folder_digest, read_exclusions, read_folder, refuse_damaged
from antbee.data.images import DataError
from antbee.installation import home

HYMENOPTERA_URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
# Of the list "SHA-256, two spaces, path", one line a file, sorted by path: 398 files (see `folder_digest`).
HYMENOPTERA_DIGEST = "b0e3506710bc375be5996e1c9b29818c80cdfc19bcc324e560091da6690149ec"


class DownloadError(DataError):
    """The default photos could not be fetched from the network."""

    exit_status = 1


def load_folder(
    path: str | Path, *, seed: int = 0, exclude: str | Path | None = None, allow_bad: bool = False
) -> ImageDataset:
    """The data set in a folder with train/ and val/, or with class folders, of which `seed` draws a fifth for val.

    "drawn" is the drawn ants and bees. Every photo is decoded once. `exclude` is a file that lists photos not to train
    on, one a line. Raises DataError where the folder can't be used, or over a tenth of a class is damaged, unless
    `allow_bad`.
    """
    dataset = read_folder(drawn_folder(home() / "data") if path == "drawn" else Path(path), seed=seed)
    if not allow_bad:
        refuse_damaged(dataset)
    return dataset if exclude is None else dataset.without(read_exclusions(Path(exclude)))


def hymenoptera_folder(parent: Path, *, url: str = HYMENOPTERA_URL, digest: str = HYMENOPTERA_DIGEST) -> Path:
    """The classic ants and bees below `parent`, downloaded where they aren't there yet.

    The folder has its final name only when it is complete and every file is what it should be.
    Raises DownloadError where the network or the download fails.
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
                f"{url} is not the set it should be (digest {found[:12]}, expected {digest[:12]}): try again"
            )
        (unpacked / folder.name).rename(folder)
    return folder


def _download(url: str, target: Path) -> None:
    title = url.rsplit("/", 1)[-1]
    try:
        with urllib.request.urlopen(url, timeout=20) as response, target.open("wb") as file:
            size = response.length  # None where the server doesn't say
            with tqdm.wrapattr(response, "read", total=size, desc=title, leave=False, disable=None) as body:
                shutil.copyfileobj(body, file)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url} can't be downloaded (HTTP {error.code} {error.reason}): try again later") from error
    except (OSError, http.client.HTTPException) as error:  # OSError is also every URLError, TLS error and reset
        cause = str(getattr(error, "reason", error)).strip()
        raise DownloadError(f"{url} can't be downloaded ({cause}): check the connection and try again") from error
    # http.client ends such a body without a word.
    if size is not None and (received := target.stat().st_size) < size:
        raise DownloadError(f"the download of {url} was cut off after {received} of {size} bytes: try again")


def _unpack(archive: Path, target: Path) -> None:
    """Unpacks `train/` and `val/` of the archive; zipfile itself strips `..` and absolute paths."""
    try:
        with zipfile.ZipFile(archive) as content:
            wanted = [
                name
                for name in content.namelist()
                if name.startswith(("hymenoptera_data/train/", "hymenoptera_data/val/"))
            ]
            content.extractall(target, wanted)
    # zipfile meets damage with all of these: an unknown method, a password, a name or a place that can't be.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DownloadError(f"the downloaded archive can't be unpacked ({error}): try again") from error


def folder_named(parent: Path, name: object) -> Path | None:
    """The folder of that name in `parent`, if it is there; a name that leads out of `parent` is none.

    Names come from models, and models from anybody.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return None
    return parent / name if (parent / name).is_dir() else None


def drawn_folder(parent: Path) -> Path:
    """The drawn ants and bees below `parent`, drawn where they aren't there yet: as many as the photos."""
    folder = parent / "drawn"
    return folder if folder.is_dir() else write_drawn_set(folder)
