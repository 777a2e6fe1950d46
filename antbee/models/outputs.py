"""The files that predictions are written to: row by row, by one or several processes, and resumed."""

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from antbee.data.files import ENOUGH, kind_of
from antbee.errors import InputError
from antbee.models.predict import FilePrediction
from antbee.models.tables import JSON_LINES, PARQUET, Format, Rows, require_parquet


@dataclass
class Output:
    """A file of predictions, and its parts: the files that several processes write, or the rows of a Parquet file.

    A part is named `FILE.part-RANK`. The parts of a run that was killed are taken up by --resume.
    """

    path: Path
    format: Format
    names: Sequence[str] = ()  # the model's classes

    @property
    def part_format(self) -> Format:
        """The format of the parts: one whose rows can be appended."""
        return self.format if self.format.append else JSON_LINES

    def check(self) -> None:
        """Makes the folder. Raises InputError where the file can't be written, or is something else."""
        if self.format is PARQUET:
            require_parquet()
        make_folder(self.path.parent)
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: expected a file to write")
        if self.path.exists():
            with self.path.open("rb") as file:
                kind = kind_of(file.read(ENOUGH))
            if kind not in (None, "text", "an empty file"):
                raise InputError(f"{self.path} is {kind}, which is not overwritten: name another file to write")

    def parts(self) -> list[Path]:
        """The parts that there are."""
        name = re.compile(re.escape(self.path.name) + r"\.part-\d+")
        return sorted(path for path in self.path.parent.iterdir() if name.fullmatch(path.name))

    def discard(self) -> None:
        """Removes the file and its parts."""
        for path in (self.path, *self.parts()):
            path.unlink(missing_ok=True)

    def rows(self) -> list[Iterator[FilePrediction]]:
        """The rows of the file and of each part."""
        whole = [self.format.read(self.path, self.names)] if self.path.exists() else []
        return [*whole, *(self.part_format.read(part, self.names) for part in self.parts())]

    def answered(self) -> set[str]:
        """The names of the photos with a prediction."""
        return {str(row.path) for rows in self.rows() for row in rows if row.prediction is not None}

    def collect(self, rows: Rows) -> None:
        """Writes rows, in which those of the file and its parts are, as one file, and removes the parts."""
        temporary = self.path.with_name(f"{self.path.name}.temporary")
        self.format.write(temporary, self.names, rows)
        temporary.replace(self.path)
        for part in self.parts():
            part.unlink()

    def opened(self, rank: int = 0, count: int = 1) -> FileIO:
        """The file that this one of `count` processes appends rows to: the file itself where it is the only one.

        It is not buffered, so that a killed process leaves whole rows.
        """
        alone = count == 1 and self.format.append is not None
        own = self.path if alone else self.path.with_name(f"{self.path.name}.part-{rank}")
        file = own.open("ab", buffering=0)
        if file.tell() == 0:
            file.write(self.part_format.head(self.names))
        return file

    def append(self, file: FileIO, rows: Sequence[FilePrediction]) -> None:
        """Appends rows to the file that `opened` returned."""
        assert self.part_format.append is not None
        content = memoryview(self.part_format.append(self.names, rows))
        while content:
            content = content[file.write(content) :]


def in_order(outputs: Iterable[Output], files: Iterable[Path]) -> Rows:
    """The rows of the outputs and their parts, in the order of the files."""
    position = {str(file): number for number, file in enumerate(files)}
    rows = (each for output in outputs for each in output.rows())
    return heapq.merge(*rows, key=lambda row: position.get(str(row.path), -1))


def one_for_each(photos: AbstractSet[str], rows: Rows) -> Rows:
    """The first prediction for each of the photos, which are given by name."""
    missing = set(photos)
    for row in rows:
        if row.prediction is not None and str(row.path) in missing:
            missing.discard(str(row.path))
            yield row


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it. Raises InputError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} can't be made ({error.strerror}): name another place to write"
        ) from error
