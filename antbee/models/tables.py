"""Files of predictions: CSV and JSON lines, which are written row by row, and Parquet. Each is read back as written.

A row is a photo: file, label, the probability of every class, verdict, distance, threshold, and the error where there
is no prediction.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from antbee.errors import InputError
from antbee.models.classifier import Prediction
from antbee.models.predict import FilePrediction

CHUNK = 1024  # rows that are in memory together
Rows = Iterable[FilePrediction]
RowT = TypeVar("RowT")


class TableError(InputError):
    """A file of predictions can't be read or written. The message says which, and what to do next."""


@dataclass(frozen=True)
class Format:
    """How rows become a file, and a file rows, of a model with certain classes.

    `read` raises TableError where the file has other columns. It leaves out a last row that is not complete.
    """

    write: Callable[[Path, Sequence[str], Rows], None]
    read: Callable[[Path, Sequence[str]], Iterator[FilePrediction]]
    append: Callable[[Sequence[str], Rows], bytes] | None = None  # None: the file is written as a whole
    head: Callable[[Sequence[str]], bytes] = lambda names: b""


def chunks(rows: Rows) -> Iterator[list[FilePrediction]]:
    """The rows, `CHUNK` at a time."""
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


# -- CSV --------------------------------------------------------------------------------------------------------------

BOM = "\ufeff"  # by which spreadsheets recognise UTF-8
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # https://owasp.org/www-community/attacks/CSV_Injection


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as CSV. Text that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_no_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """A whole CSV file: rows of cells as `csv_text` gives them, after a byte order mark."""
    return (BOM + csv_text(rows)).encode()


def csv_rows(path: Path) -> Iterator[list[str]]:
    """The rows of cells of a CSV file by `csv_text`, with or without a byte order mark."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:  # half a letter may be the last
        for row in csv.reader(file):
            yield [cell[1:] if FORMULA.match(cell) and cell[0] == "'" else cell for cell in row]


def _no_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _csv_columns(names: Sequence[str]) -> list[str]:
    return ["file", "label", *map(escaped, names), "verdict", "distance", "threshold", "error"]


def _csv_head(names: Sequence[str]) -> bytes:
    return csv_bytes([_csv_columns(names)])


def _csv_append(names: Sequence[str], rows: Rows) -> bytes:
    return csv_text(_csv_row(names, row) for row in rows).encode()


def _csv_row(names: Sequence[str], row: FilePrediction) -> list[object]:
    file, found = escaped(str(row.path)), row.prediction
    if found is None:
        return [file, *[""] * (len(names) + 4), escaped(str(row.error))]
    probabilities = [found.probabilities[name] for name in names]
    return [file, escaped(found.label), *probabilities, escaped(found.verdict), found.distance, found.threshold, ""]


def _write_csv(path: Path, names: Sequence[str], rows: Rows) -> None:
    with path.open("wb") as file:
        file.write(_csv_head(names))
        file.writelines(_csv_append(names, chunk) for chunk in chunks(rows))


def _read_csv(path: Path, names: Sequence[str]) -> Iterator[FilePrediction]:
    rows, columns = csv_rows(path), _csv_columns(names)
    try:
        if next(rows, columns) != columns:
            raise _other_columns(path)
        for cells in _but_an_incomplete_last(rows, lambda row: len(row) == len(columns), path):
            yield _row_of_cells(cells, names)
    except TableError:
        raise
    except (csv.Error, ValueError) as error:
        raise _other_columns(path) from error


def _row_of_cells(cells: Sequence[str], names: Sequence[str]) -> FilePrediction:
    file, label, *probabilities, _, distance, threshold, error = cells
    if error:
        return FilePrediction(Path(unescaped(file)), None, unescaped(error))
    by_name = dict(zip(names, map(float, probabilities), strict=True))
    limits = [float(value) if value else None for value in (distance, threshold)]
    return FilePrediction(Path(unescaped(file)), Prediction(unescaped(label), by_name, *limits))


def _but_an_incomplete_last(rows: Iterable[RowT], is_complete: Callable[[RowT], bool], path: Path) -> Iterator[RowT]:
    """The rows but for the last, if it was cut off when the process that wrote it was killed."""
    incomplete = False
    for number, row in enumerate(rows, start=1):
        if incomplete:
            raise TableError(f"row {number - 1} of {path} is not complete: delete it, or name another file")
        if not (incomplete := not is_complete(row)):
            yield row


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _object(row: FilePrediction) -> dict[str, Any]:
    found = row.prediction
    answer = {
        "label": found and found.label,
        "probabilities": found and found.probabilities,
        "verdict": found and found.verdict,
        "distance": found and found.distance,
        "threshold": found and found.threshold,
    }
    return {"file": str(row.path), **answer, "error": row.error}


def _row_of(content: dict[str, Any], names: Sequence[str], path: Path) -> FilePrediction:
    try:
        if (error := content["error"]) is not None:
            return FilePrediction(Path(content["file"]), None, error)
        probabilities = {name: content["probabilities"].pop(name) for name in names}
        found = Prediction(content["label"], probabilities, content["distance"], content["threshold"])
        file = Path(content["file"])
    except (AttributeError, KeyError, TypeError) as problem:
        raise _other_columns(path) from problem
    if content["probabilities"]:
        raise _other_columns(path)
    return FilePrediction(file, found)


def _other_columns(path: Path) -> TableError:
    return TableError(
        f"{path} has other columns than this model's predictions: name another file, or leave out --resume, which "
        "writes it anew"
    )


def _json_append(names: Sequence[str], rows: Rows) -> bytes:
    text = "".join(json.dumps(_object(row), ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")  # bytes of file names that are no UTF-8, as JSON escapes them


def _write_json(path: Path, names: Sequence[str], rows: Rows) -> None:
    with path.open("wb") as file:
        file.writelines(_json_append(names, chunk) for chunk in chunks(rows))


def _read_json(path: Path, names: Sequence[str]) -> Iterator[FilePrediction]:
    with path.open("rb") as file:
        for line in _but_an_incomplete_last(file, lambda line: line.endswith(b"\n"), path):
            try:
                content = json.loads(line)
            except ValueError as error:
                raise _other_columns(path) from error
            yield _row_of(content, names, path)


# -- Parquet ----------------------------------------------------------------------------------------------------------


def require_parquet() -> None:
    """Raises TableError where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise TableError(
            "Parquet files need pyarrow, which is not installed: pip install pyarrow, or write CSV or JSON"
        )


def _write_parquet(path: Path, names: Sequence[str], rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float64()
    probabilities = pyarrow.struct([(escaped(name), number) for name in names])
    columns = {"file": text, "label": text, "probabilities": probabilities, "verdict": text}
    schema = pyarrow.schema(columns | {"distance": number, "threshold": number, "error": text})
    with parquet.ParquetWriter(path, schema) as file:
        for chunk in chunks(rows):
            file.write_table(pyarrow.Table.from_pylist([_mapped(_object(row), escaped) for row in chunk], schema))


def _read_parquet(path: Path, names: Sequence[str]) -> Iterator[FilePrediction]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK):
                for content in batch.to_pylist():
                    yield _row_of(_mapped(content, unescaped), names, path)
    except ArrowException as error:
        raise TableError(f"{path} is no Parquet file: name another file, or leave out --resume") from error


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` applied to every text in it."""
    if isinstance(value, dict):
        return {change(key): _mapped(content, change) for key, content in value.items()}
    return change(value) if isinstance(value, str) else value


# -- File names that are no UTF-8 -------------------------------------------------------------------------------------

SURROGATE = r"ud[89a-f][0-9a-f]{2}"


def escaped(text: str) -> str:
    r"""Text without surrogates, which stand for the bytes of a file name that are no UTF-8: as \udc80 to \udcff.

    Backslashes before what looks so are doubled, so that `unescaped` gives the same text again.
    """
    doubled = re.sub(rf"(\\+)(?={SURROGATE}|[\ud800-\udfff])", r"\1\1", text)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", doubled)


def unescaped(text: str) -> str:
    """The text that `escaped` was given."""
    return re.sub(rf"(\\+)({SURROGATE})", _unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    backslashes, code = found.groups()
    kept = "\\" * (len(backslashes) // 2)
    return kept + (chr(int(code[1:], 16)) if len(backslashes) % 2 else code)


CSV = Format(_write_csv, _read_csv, _csv_append, _csv_head)
JSON_LINES = Format(_write_json, _read_json, _json_append)
PARQUET = Format(_write_parquet, _read_parquet)
