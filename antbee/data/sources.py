"""What --data names, a folder of photos, a table, an archive or a data set of the Hub, and where its photos are."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

from antbee.data.files import FileError, content_of
from antbee.data.images import DataError
from antbee.data.listing import is_named_as_photo
from antbee.data.origin import COMMIT, HUB_ID
from antbee.data.paths import local_path
from antbee.data.table import is_table
from antbee.data.unpack import archive_suffix, unpacked
from antbee.text import one_line

HUB_PREFIX = "hf://datasets/"
HUB_FOLDER = "hub"  # in data/, where copies of the Hub's data sets lie
LARGEST_REFERENCES = 2**20  # bytes


@dataclass(frozen=True)
class HubName:
    """A data set of the Hub: hf://datasets/user/name@revision."""

    repo_id: str
    revision: str | None = None  # a branch, a tag or a commit; None: the newest

    def __str__(self) -> str:
        return f"{HUB_PREFIX}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_pinned(self) -> bool:
        """Whether it names a commit, which never changes."""
        return self.revision is not None and re.fullmatch(COMMIT, self.revision) is not None


def hub_name(data: str | Path) -> HubName | None:
    """The data set of the Hub that `data` names, as hf://datasets/user/name[@revision] or as user/name.

    None for a file or a folder, and for what can be nothing else. Raises DataError for an address that names no
    data set.
    """
    # A Path has one slash where an address has two.
    text = str(data) if isinstance(data, str) else re.sub("^hf:/(?=[^/])", "hf://", str(data))
    if text.startswith("hf://"):
        found = re.fullmatch(rf"{HUB_PREFIX}({HUB_ID})(?:@(\S+))?", text.rstrip("/"))
        if found is None:
            raise DataError(f"{one_line(text)} names no data set of the Hub: expected {HUB_PREFIX}user/name[@revision]")
        return HubName(found[1], found[2])
    path = Path(text)
    if path.exists() or archive_suffix(path) is not None or is_table(path) or is_named_as_photo(path.name):
        return None
    found = re.fullmatch(rf"({HUB_ID})(?:@(\S+))?", text)
    return HubName(found[1], found[2]) if found else None


def pinned(data: str | Path, parent: Path) -> str | Path:
    """`data`; a data set of the Hub by the commit that it has now.

    Where the Hub can't be reached, by that of the copy in `parent` that was made last, with a warning. Raises HubError
    where there is none, and for a data set that is not there or may not be read.
    """
    name = hub_name(data)
    if name is None or name.is_pinned:
        return data
    from antbee import hub

    try:
        commit = hub.dataset_commit(name.repo_id, name.revision)
    except hub.HubError as error:
        copied = _remembered_copy(name, parent) if hub.may_pass(error) else None
        if copied is None:
            is_address = str(data).startswith("hf:")
            absent = "" if is_address else f"There is no folder {data} here, and no such data set from the Hub. "
            raise hub.HubError(f"{absent}{error}") from error
        warn(one_line(f"{error} Using the copy of '{name.repo_id}' downloaded earlier.", longest=1000), stacklevel=2)
        commit = copied
    else:
        _remember(name, commit, parent)
    return str(HubName(name.repo_id, commit))


def located(data: str | Path, parent: Path) -> Path:
    """The folder or the table of the photos that `data` names, itself or a copy that is made where there is none.

    An archive is unpacked beside itself, a data set of the Hub is downloaded into hub/ in `parent`. Whether a folder is
    there is for its reader to say. Raises DataError and HubError, as `unpacked`, `pinned` and `hub.download_dataset`.
    """
    data = pinned(data, parent)
    if (name := hub_name(data)) is not None:
        return _hub_folder(name, parent)
    path = local_path(data)
    return unpacked(path) if archive_suffix(path) is not None and path.is_file() else path


def hub_copy(parent: Path, repo_id: str, commit: str) -> Path:
    """Where the copy of a data set of the Hub lies, or would lie, in `parent`."""
    return parent / HUB_FOLDER / f"{repo_id.replace('/', '--')}@{commit}"


def _hub_folder(name: HubName, parent: Path) -> Path:
    assert name.revision is not None, "the commit is known by now"
    folder = hub_copy(parent, name.repo_id, name.revision)
    if not folder.is_dir():
        from antbee import hub

        hub.download_dataset(name.repo_id, name.revision, folder)
    return folder


# ---- the commits of branches, for when the Hub can't be reached ------------------------------------------------------
def _references(name: HubName, parent: Path) -> Path:
    return parent / HUB_FOLDER / f"{name.repo_id.replace('/', '--')}.json"


def _known_commits(name: HubName, parent: Path) -> dict[str, str]:
    """The commits that the branches and tags of a data set stood for last; an empty text is the default branch."""
    try:
        content = json.loads(content_of(_references(name, parent), largest=LARGEST_REFERENCES))
    except (FileError, ValueError, RecursionError):
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {branch: commit for branch, commit in pairs if re.fullmatch(COMMIT, str(commit))}


def _remember(name: HubName, commit: str, parent: Path) -> None:
    known = _known_commits(name, parent)
    if known.get(name.revision or "") != commit:
        path = _references(name, parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {name.revision or "": commit}, indent=1) + "\n", "utf-8")


def _remembered_copy(name: HubName, parent: Path) -> str | None:
    """The commit that a branch stood for last, if there is a copy of it."""
    commit = _known_commits(name, parent).get(name.revision or "")
    return commit if commit is not None and hub_copy(parent, name.repo_id, commit).is_dir() else None
