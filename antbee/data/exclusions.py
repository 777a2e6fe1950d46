"""Text files that list photos to exclude from training: one file name a line, relative to the data folder.

Blank lines and lines that start with # are ignored. A name that would be read as something else, such as one with a
line break, is written as a JSON string.
"""

import json
from pathlib import Path

from antbee.data.images import DataError


def read_exclusions(path: Path) -> list[str]:
    """The file names in a list. Raises DataError if the list can't be read."""
    try:
        lines = path.read_text("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}): expected a list of files, one a line") from error
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    try:
        return [json.loads(line) if line.startswith('"') else line for line in named]
    except ValueError as error:
        raise DataError(f"{path} has a line in quotes that is no JSON text ({error}): write the plain name") from error


def exclusion_line(name: str) -> str:
    """The line, without its end, from which `read_exclusions` reads this file name."""
    plain = name == name.strip() and name.splitlines() == [name] and not name.startswith(("#", '"'))
    return name if plain else json.dumps(name)
