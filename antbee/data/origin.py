"""Where a folder of photos that antbee made came from: the archive it was unpacked from, or a data set of the Hub.

The origin stands in a hidden file of the folder itself, so that both get their name by one rename.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from antbee.data.files import FileError, content_of

ORIGIN_FILE = ".antbee-origin.json"
LARGEST_ORIGIN = 2**16  # bytes
HUB_ID = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
COMMIT = r"[0-9a-f]{40}"


@dataclass(frozen=True)
class Origin:
    """What a folder was made from; `listing` tells whether its files have been changed since."""

    archive: str | None = None  # SHA-256 of the archive
    hub_id: str | None = None  # of the data set, user/name
    revision: str | None = None  # its commit
    listing: str | None = None  # see `listing_of`


def write_origin(folder: Path, origin: Origin) -> None:
    """Writes the origin of a folder into it."""
    (folder / ORIGIN_FILE).write_text(json.dumps(asdict(origin), indent=1) + "\n", "utf-8")


def read_origin(folder: Path) -> Origin | None:
    """The origin of a folder that antbee made; None of any other."""
    try:
        content = json.loads(content_of(folder / ORIGIN_FILE, largest=LARGEST_ORIGIN))
    except (FileError, ValueError, RecursionError):
        return None
    fields = Origin.__dataclass_fields__
    if not isinstance(content, dict) or not all(isinstance(value, str | None) for value in content.values()):
        return None
    return Origin(**{name: value for name, value in content.items() if name in fields})


def hub_origin(folder: Path) -> Origin | None:
    """The data set of the Hub that a folder is a copy of; None where it is none, or where files were changed since."""
    origin = read_origin(folder)
    if origin is None or origin.hub_id is None or origin.revision is None:
        return None
    if not (re.fullmatch(HUB_ID, origin.hub_id) and re.fullmatch(COMMIT, origin.revision)):
        return None
    return origin if origin.listing == listing_of(folder) else None


def listing_of(folder: Path) -> str:
    """SHA-256 of the paths and sizes of all files in a folder but its origin: quick, and no file is opened."""
    lines = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        paths = [Path(parent, name) for name in sorted(names) if name != ORIGIN_FILE]
        lines += [f"{path.lstat().st_size}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
