"""Reads which photo has which class from a table, as the Hub's imagefolder has them: metadata.csv or metadata.jsonl.

    file_name,label,split
    images/1.jpg,ants,train
    images/2.jpg,bees,val

`file_name` is relative to the folder of the table; `split` may be left out, and other columns are not used. Each split
folder may have a table of its own. https://huggingface.co/docs/datasets/image_dataset describes the layout.
"""

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from antbee.data.files import FileError, content_of
from antbee.data.images import DataError
from antbee.data.layout import Labelled, Layout, SplitName, layout_of, split_named
from antbee.data.listing import Listing, SkippedFile, class_name_of_folder, is_named_as_photo, list_files
from antbee.text import one_line

TABLES = (".csv", ".jsonl")
TABLE_NAMES = ("metadata.csv", "metadata.jsonl")  # those that are looked for in a folder
FILE, LABEL, SPLIT = "file_name", "label", "split"
LARGEST_TABLE = 2**28  # bytes
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Row:
    """A row of a table, its texts stripped."""

    table: Path
    number: int  # counted from 1, without the head of a CSV file
    file_name: str
    label: str
    split: SplitName | None = None

    @property
    def place(self) -> str:
        """What to call the row in a message."""
        return f"{self.table}, row {self.number}"


def is_table(path: Path) -> bool:
    """Whether a path names a table, by its name."""
    return path.suffix.lower() in TABLES and not path.is_dir()


def layout_at(path: Path, *, follow_links: bool = False) -> Layout:
    """The layout of a table, of a folder with tables, or of a folder of class folders.

    A folder's own table comes before its class folders, if it has both columns. Raises DataError for a table that can't
    be read, for one without the columns, and as `layout_of` does.
    """
    if is_table(path):
        return table_layout(path.parent, read_rows(path), follow_links=follow_links)
    if rows := _rows_in(path):
        return table_layout(path, rows, follow_links=follow_links)
    return layout_of(path, follow_links=follow_links)


def _rows_in(folder: Path) -> list[Row]:
    """The rows of the table in a folder, or of those in its split folders; none where there is no table with labels."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return []  # `layout_of` says so
    if (table := _table_in(folder)) is not None:
        return read_rows(table)
    splits = {path: split for path in sorted(folder.iterdir()) if path.is_dir() and (split := split_named(path.name))}
    tables = {path: _table_in(path) for path in splits}
    if not any(tables.values()):
        return []
    rows: list[Row] = []
    for path, table in tables.items():
        if table is None:
            raise DataError(
                f"{path} has no {TABLE_NAMES[0]}, which another split has: add it, with file_name and label"
            )
        rows += read_rows(table, split=splits[path])
    return rows


def _table_in(folder: Path) -> Path | None:
    """The table in a folder that says the classes of its photos; one of captions or boxes, for instance, does not."""
    found = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(TABLE_NAMES)}: expected one of them, remove the other")
    return found[0] if found and {FILE, LABEL} <= set(_columns(found[0])) else None


# ---- rows ------------------------------------------------------------------------------------------------------------
def read_rows(table: Path, *, split: SplitName | None = None) -> list[Row]:
    """The rows of a table, all of one `split` where its folder is one.

    Raises DataError for a file that can't be read, without the two columns or without rows, and for an unknown split.
    """
    columns = _columns(table)
    if missing := [name for name in (FILE, LABEL) if name not in columns]:
        found = ", ".join(map(one_line, columns[:8])) or "none"
        raise DataError(
            f"{table} has no column {' and no column '.join(missing)}, but {found}: expected {FILE} and {LABEL}"
        )
    rows = [_row(table, number, record, split) for number, record in enumerate(_records(table), 1)]
    if not 0 < len(rows) <= MOST_ROWS:
        raise DataError(f"{table} has {len(rows):,} rows: expected 1 to {MOST_ROWS:,}")
    return rows


def _row(table: Path, number: int, record: Mapping[str, Any], split: SplitName | None) -> Row:
    row = Row(table, number, _text(record.get(FILE)), _text(record.get(LABEL)), split)
    named = _text(record.get(SPLIT))
    if not named:
        return row
    found = split_named(named)
    if found is None or split not in (None, found):
        expected = f"{split}, as its folder" if split else "train, val or test"
        raise DataError(f"{row.place}: the split is {one_line(named)}, expected {expected}")
    return Row(table, number, row.file_name, row.label, found)


def _text(value: object) -> str:
    """A value as text; an empty one for what is neither text nor a whole number."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _columns(table: Path) -> list[str]:
    """The names of a table's columns; of JSON lines, those of its first row."""
    if table.suffix.lower() != ".csv":
        return list(next(_json_lines(table), {}))
    with _csv_errors(table):
        return [name.strip() for name in _csv_reader(table).fieldnames or ()]


def _records(table: Path) -> Iterator[Mapping[str, Any]]:
    if table.suffix.lower() != ".csv":
        yield from _json_lines(table)
        return
    with _csv_errors(table):
        reader = _csv_reader(table)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        yield from reader


def _csv_reader(table: Path) -> "csv.DictReader[str]":
    content = _content(table)
    head = content.partition("\n")[0]
    # Some spreadsheets put semicolons where commas are decimal points.
    delimiter = ";" if ";" in head and "," not in head else ","
    return csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)


@contextmanager
def _csv_errors(table: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(f"{table} is no CSV file that can be read ({error}): export it again") from error


def _json_lines(table: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_content(table).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number} is no JSON ({error}): expected an object on each line") from error
        if not isinstance(record, dict):
            raise DataError(f"{table}, line {number} is no JSON object: expected one with {FILE} and {LABEL}")
        yield record


def _content(table: Path) -> str:
    try:
        return content_of(table, largest=LARGEST_TABLE).decode("utf-8-sig")
    except FileError as error:
        raise DataError(f"{table} can't be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


# ---- files -----------------------------------------------------------------------------------------------------------
def table_layout(root: Path, rows: Sequence[Row], *, follow_links: bool = False) -> Layout:
    """The files that rows name, with their classes; those that can't be used, and the photos that no row names.

    Raises DataError for a name that leads out of the table's folder, for a file that is listed with two classes or
    splits, and where no row names a file that is there.
    """
    listing = list_files(root, follow_links=follow_links)
    there = _Files.of(root, listing)
    chosen: dict[Path, Labelled] = {}
    skipped: list[SkippedFile] = []
    has_splits = any(row.split for row in rows)
    for row in rows:
        name = _name_below(root, row)
        path = there.found(name)
        reason = there.why_not(name) if path is None else _why_not_row(row, has_splits)
        if path is not None and reason is None:
            file = Labelled(path, class_name_of_folder(row.label), row.split)
            if path not in chosen:
                chosen[path] = file
                continue
            if chosen[path] != file:
                raise DataError(f"{row.place}: {one_line(name)} is listed before with another class or split")
            reason = "listed more than once"
        skipped.append(SkippedFile(name, reason or ""))
    if not chosen:
        first = f", such as {one_line(skipped[0].file)} ({skipped[0].reason})"
        raise DataError(f"{rows[0].table} names no photo that can be used{first}: expected paths below {root}")
    named = {entry.file for entry in skipped}
    skipped += [
        SkippedFile(name, "a photo that the table does not list: add a row for it")
        for name, path in there.paths.items()
        if path not in chosen and name not in named and is_named_as_photo(path.name)
    ]
    names = {file.split: file.split for file in chosen.values() if file.split is not None}
    files = tuple(sorted(chosen.values(), key=lambda file: file.path))
    return Layout(root, files, tuple(skipped), names=names)


@dataclass(frozen=True)
class _Files:
    """The files below a folder by their names there."""

    paths: Mapping[str, Path]
    by_normal_form: Mapping[str, Path]  # macOS stores accents in another form than most tables have
    refused: Mapping[str, str]  # reasons

    @classmethod
    def of(cls, root: Path, listing: Listing) -> "_Files":
        paths = {path.relative_to(root).as_posix(): path for path in listing.files}
        normal = {unicodedata.normalize("NFC", name): path for name, path in paths.items()}
        return cls(paths, normal, {entry.file: entry.reason for entry in listing.skipped})

    def found(self, name: str) -> Path | None:
        return self.paths.get(name) or self.by_normal_form.get(unicodedata.normalize("NFC", name))

    def why_not(self, name: str) -> str:
        return self.refused.get(name, "not there: correct file_name in the table, or add the file")


def _why_not_row(row: Row, has_splits: bool) -> str | None:
    if not row.label:
        return "no label in the table: add it"
    return "no split in the table, where others have one: add it" if has_splits and row.split is None else None


def _name_below(root: Path, row: Row) -> str:
    """The name of a row's file below `root`. Raises DataError for one that leads elsewhere."""
    name = row.file_name.replace("\\", "/")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        shown = one_line(row.file_name) or "empty"
        raise DataError(f"{row.place}: {FILE} is {shown}, expected a path below {row.table.parent}")
    return (row.table.parent / path).relative_to(root).as_posix()
