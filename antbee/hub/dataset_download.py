"""Copies a data set of the Hub into a folder of class folders, one commit of it, by the `datasets` library.

Rows are streamed, and the bytes of each image are written as they are. No code of a repository is ever run: `datasets`
5 can't, and reads files alone. A path in a row is only followed into the repository itself.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from warnings import warn

from tqdm.auto import tqdm

from antbee.data.files import ENOUGH, kind_of
from antbee.data.folder import MOST_CLASSES
from antbee.data.images import LARGEST_FILE, DataError
from antbee.data.layout import SPLITS, split_named
from antbee.data.listing import is_hidden_folder, is_named_as_photo
from antbee.data.origin import Origin, listing_of, write_origin
from antbee.data.unpack import LARGEST_UNPACKED, MOST_FILES
from antbee.hub.client import is_as_published
from antbee.hub.errors import HubError, client_errors, explanation, one_sentence
from antbee.text import counted, one_line

if TYPE_CHECKING:
    from datasets import Features, IterableDataset
    from huggingface_hub import RepoFile

INSTALL = 'pip install "datasets>=5.2"'
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "class")  # taken where there are several
EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp", "PPM": ".ppm", "TIFF": ".tif"}
THREADS = 16  # images that are downloaded at once, where each is a file of its own


def dataset_commit(repo_id: str, revision: str | None = None) -> str:
    """The commit that a branch or a tag of a data set stands for now; None is the newest of main.

    Raises HubError, also where the data set is gated and the access token may not read it.
    """
    from huggingface_hub import HfApi, constants

    with one_sentence(repo_id, revision, kind="dataset"):
        api = HfApi()
        found = api.dataset_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if found.gated:
            api.auth_check(repo_id, repo_type="dataset")
        if not found.sha:
            raise LookupError("an answer without a commit")
        return found.sha


def download_dataset(repo_id: str, commit: str, folder: Path) -> None:
    """Writes the images of a data set to SPLIT/CLASS/ROW.jpg in a new `folder`, which appears when all are there.

    SPLIT is train, val or test, by the name that the split has there, CLASS a name of its class-label column, ROW the
    number of the row in its split. Rows without an image or a label are left out with a warning. Raises HubError where
    the Hub fails, and DataError for a data set without images, labels or a training split.
    """
    # Else it reports the name of each data set to another server, and waits for that where it can't be reached.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    try:
        import datasets  # noqa: F401 - its absence is said before anything is downloaded
    except ImportError as error:
        raise DataError(f"to read '{repo_id}' from the Hub the library datasets is needed: {INSTALL}") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        copy = _Copy(repo_id, commit, Path(temporary) / folder.name, _published(repo_id, commit))
        for name, split in _splits(repo_id, commit, Path(temporary) / "cache").items():
            copy.write(name, split)
        for reason, count in copy.left_out.items():
            warn(f"{repo_id}: {counted(count, 'row')} left out, {reason}", stacklevel=2)
        write_origin(copy.folder, Origin(hub_id=repo_id, revision=commit, listing=listing_of(copy.folder)))
        if not folder.is_dir():  # another run may have copied the same commit meanwhile
            copy.folder.rename(folder)


def can_be_folder(class_name: str) -> bool:
    """Whether a folder may have the name of a class: on any system, and so that it is not taken for a hidden one."""
    is_plain = class_name.isprintable() and not set("/\\") & set(class_name) and bool(class_name.strip())
    return is_plain and len(class_name.encode()) <= 255 and not is_hidden_folder(class_name)


def _published(repo_id: str, commit: str) -> dict[str, "RepoFile"]:
    from huggingface_hub import HfApi, RepoFile

    with one_sentence(repo_id, commit, kind="dataset"):
        tree = HfApi().list_repo_tree(repo_id, recursive=True, revision=commit, repo_type="dataset")
        return {file.path: file for file in tree if isinstance(file, RepoFile)}


# ---- splits and columns ----------------------------------------------------------------------------------------------
def _splits(repo_id: str, commit: str, cache: Path) -> dict[str, "IterableDataset"]:
    """The splits of a data set by the names of their folders."""
    from datasets import load_dataset

    with _explained(repo_id):
        # By the address: a folder of this name in the current one would be read instead. In a cache of its own: where
        # the Hub can't be reached, another version of the data set would be taken from the user's.
        found = load_dataset(f"hf://datasets/{repo_id}", revision=commit, streaming=True, cache_dir=str(cache))
    names = list(map(str, found))
    chosen = {split: name for name in reversed(names) if (split := split_named(name)) is not None}
    if len(names) == 1:
        chosen = {"train": names[0]}
    if "train" not in chosen:
        raise DataError(f"the data set '{repo_id}' has the splits {', '.join(names)}: expected one named train")
    if unused := set(names).difference(chosen.values()):
        warn(f"{repo_id}: the splits {', '.join(sorted(unused))} are not used", stacklevel=3)
    return {split: found[chosen[split]] for split in SPLITS if split in chosen}


@dataclass(frozen=True)
class _Columns:
    """The columns of the images and of their classes."""

    image: str
    label: str
    class_names: tuple[str, ...] | None  # by the number in the column; None where the column has the names themselves

    def class_of(self, value: object) -> str | None:
        """The class that a value of the column stands for; None where it stands for none."""
        if self.class_names is None:
            return value.strip() or None if isinstance(value, str) else None
        return self.class_names[value] if isinstance(value, int) and 0 <= value < len(self.class_names) else None


def _columns(repo_id: str, features: "Features | None") -> _Columns:
    """Raises DataError for a data set of which nobody can say what is an image and what is its class."""
    from datasets import ClassLabel, Image, Value

    known = features or {}
    image = _column(repo_id, "image", [name for name, kind in known.items() if isinstance(kind, Image)], IMAGE_COLUMNS)
    labels = [name for name, kind in known.items() if isinstance(kind, ClassLabel)]
    if not labels:
        is_text = {name for name, kind in known.items() if isinstance(kind, Value) and "string" in kind.dtype}
        labels = [name for name in LABEL_COLUMNS if name in is_text]
    label = _column(repo_id, "class-label", labels, LABEL_COLUMNS)
    names = tuple(known[label].names) if isinstance(known[label], ClassLabel) else None
    if names is not None and not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"the data set '{repo_id}' has {counted(len(names), 'class')}: expected 2 to {MOST_CLASSES}")
    return _Columns(image, label, names)


def _column(repo_id: str, what: str, found: list[str], preferred: tuple[str, ...]) -> str:
    if not found:
        raise DataError(
            f"the data set '{repo_id}' has no {what} column: expected one for image classification, with an image and"
            " a class label in each row"
        )
    if len(found) == 1:
        return found[0]
    if chosen := [name for name in preferred if name in found]:
        return chosen[0]
    raise DataError(
        f"the data set '{repo_id}' has the {what} columns {', '.join(map(one_line, found))}: expected one alone, or one"
        f" named {preferred[0]}"
    )


# ---- rows ------------------------------------------------------------------------------------------------------------
@dataclass
class _Copy:
    """A copy of a data set that is being written."""

    repo_id: str
    commit: str
    folder: Path
    published: Mapping[str, "RepoFile"]  # the files of the commit by their paths, with the Hub's checksums
    left_out: Counter[str] = field(default_factory=Counter)
    files: int = 0
    size: int = 0  # bytes

    def write(self, name: str, split: "IterableDataset") -> None:
        """Writes the images of a split, several at a time where each has to be fetched."""
        columns = _columns(self.repo_id, split.features)
        class_folders: dict[str, Path] = {}
        rows = tqdm(self._rows(split.decode(False)), f"{self.repo_id} {name}", leave=False, disable=None)
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in _batches(enumerate(rows), THREADS):
                with _explained(self.repo_id):
                    contents = list(pool.map(self._content, [row.get(columns.image) for _, row in batch]))
                for (number, row), content in zip(batch, contents, strict=True):
                    class_name = columns.class_of(row.get(columns.label))
                    if class_name is None:
                        self.left_out["without a class"] += 1
                    elif content is None:
                        self.left_out["without an image in the repository (or one of over 256 MB)"] += 1
                    else:
                        if class_name not in class_folders:
                            class_folders[class_name] = self._class_folder(name, class_name)
                        suffix = _extension(content, row[columns.image].get("path"))
                        self._write_file(class_folders[class_name] / f"{number:06d}{suffix}", content)

    def _rows(self, split: "IterableDataset") -> Iterator[Mapping[str, Any]]:
        with _explained(self.repo_id):
            yield from split

    def _class_folder(self, split: str, class_name: str) -> Path:
        if not can_be_folder(class_name):
            raise DataError(
                f"the data set '{self.repo_id}' has the class {one_line(class_name)!r}, which can't be the name of a"
                " folder: copy the data set under other names"
            )
        folder = self.folder / split / class_name
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:  # where upper and lower case are the same
            raise DataError(
                f"the data set '{self.repo_id}' has two classes that are one folder here, {folder.name}: rename one"
            ) from error
        return folder

    def _content(self, image: Mapping[str, Any] | None) -> bytes | None:
        """The bytes of an image in a row; None where there are none."""
        if not image:
            return None
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        # A row may name any file of this computer: only those of the repository are read.
        file = self.published.get(str(image.get("path") or "").removeprefix(self._address))
        return None if file is None or file.size > LARGEST_FILE else self._downloaded(file)

    @property
    def _address(self) -> str:
        return f"hf://datasets/{self.repo_id}@{self.commit}/"

    def _downloaded(self, file: "RepoFile") -> bytes:
        from huggingface_hub import HfFileSystem

        for _ in range(2):
            with HfFileSystem().open(self._address + file.path, "rb") as stream:
                content: bytes = stream.read()
            if is_as_published(BytesIO(content), file):
                return content
        raise HubError(
            f"The bytes of {one_line(file.path)} in '{self.repo_id}' do not match the Hub's checksum: check whether"
            " this network requires a login in the browser, and try again."
        )

    def _write_file(self, path: Path, content: bytes) -> None:
        self.files += 1
        self.size += len(content)
        if self.files > MOST_FILES or self.size > LARGEST_UNPACKED:
            raise DataError(
                f"the data set '{self.repo_id}' has more than {MOST_FILES:,} images or {LARGEST_UNPACKED // 10**9} GB:"
                " download a part of it yourself, and name its folder"
            )
        path.write_bytes(content)


def _batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch


def _extension(content: bytes, path: object) -> str:
    """The extension of an image by its content; that of its name where the content is unknown, so that it is named."""
    name = PurePosixPath(str(path or ""))
    own = name.suffix.lower() if is_named_as_photo(name.name) else ".jpg"
    return EXTENSIONS.get(kind_of(content[:ENOUGH]) or "", own)


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turns what `datasets` raises into a HubError where the Hub failed, into a DataError where the data set does."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except DatasetNotFoundError as error:  # it was there when its commit was looked up
        raise HubError(f"'{repo_id}' may not be read any more ({one_line(str(error))}): try again.") from error
    except (DatasetsError, *client_errors()) as error:
        if (failure := _failure_of_the_hub(error)) is not None:
            raise HubError(one_line(explanation(failure, repo_id, None, "dataset"), longest=1000)) from error
        raise DataError(
            f"the data set '{repo_id}' can't be read ({one_line(str(error)) or type(error).__name__}): expected one of"
            " image files in class folders, or of Parquet files with an image and a class label in each row"
        ) from error


def _failure_of_the_hub(error: BaseException | None) -> Exception | None:
    """The answer of the Hub, or the lack of one, that an error came from."""
    from huggingface_hub import errors

    # JSONDecodeError: an answer that is not the Hub's. Of OSErrors, a file that is not there is none of the Hub's
    # failures: `datasets` looks for several, such as README.md.
    lost = (errors.HTTPError, errors.LocalEntryNotFoundError, JSONDecodeError, OSError)  # type: ignore[attr-defined]
    while error is not None:
        is_missing = isinstance(error, FileNotFoundError | errors.EntryNotFoundError)
        if isinstance(error, lost) and (not is_missing or isinstance(error, errors.LocalEntryNotFoundError)):
            return error
        error = error.__cause__ or error.__context__
    return None
