"""Files of predictions: whatever was written is read back, and spreadsheets take no cell for a formula."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import file_names

from antbee import iter_predictions
from antbee.models.classifier import Prediction
from antbee.models.predict import FilePrediction
from antbee.models.tables import CSV, JSON_LINES, PARQUET, TableError, csv_bytes, csv_rows, csv_text, escaped, unescaped

# Whatever a file system takes for a name: bytes, of which those that are no UTF-8 become surrogates. Some are likelier
# here than by chance: quotes, line ends, signs of formulas, and what looks like an escaped byte.
ODD = [
    "=1+1.jpg",
    "'=1.jpg",
    "a\nb",
    "a\r\nb",
    '"',
    "\\udcff",
    "\\\\udcff",
    "\udcff",
    "\\\udcff",
    "udc80",
    ",",
    "\ufeff",
    "\u2028",
]
NAMES = file_names(ODD)
NUMBERS = st.floats(min_value=0, max_value=2, allow_subnormal=True)
LIMITS = st.none() | NUMBERS


@st.composite
def tables(draw):
    """The names of a model's classes, and rows."""
    names = draw(st.lists(NAMES, min_size=2, max_size=3, unique=True))
    predictions = st.builds(
        Prediction, st.sampled_from(names), st.fixed_dictionaries(dict.fromkeys(names, NUMBERS)), LIMITS, LIMITS
    )
    answered = st.builds(FilePrediction, NAMES.map(Path), predictions)
    unreadable = st.builds(FilePrediction, NAMES.map(Path), st.none(), NAMES)
    return names, draw(st.lists(answered | unreadable, max_size=4))


@given(tables())
@pytest.mark.parametrize("kind", [CSV, JSON_LINES], ids=["CSV", "JSON lines"])
def test_rows_of_any_file_names_and_classes_are_read_back_equal_written_at_once_or_appended(
    kind, tmp_path_factory, table
):
    names, rows = table
    file = tmp_path_factory.getbasetemp() / "table"
    kind.write(file, names, rows)
    assert list(kind.read(file, names)) == rows
    file.write_bytes(kind.head(names) + b"".join(kind.append(names, [row]) for row in rows))
    assert list(kind.read(file, names)) == rows
    file.read_bytes().decode()  # UTF-8, whatever the names are


def test_parquet_files_are_read_back_equal(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet files need pyarrow: pip install pyarrow")
    names = ["ants", "b\udcff"]
    rows = [
        *(FilePrediction(Path(name), Prediction(names[1], {names[0]: 0.1, names[1]: 0.9}, 0.5)) for name in ODD),
        FilePrediction(Path("a.jpg"), None, "not there"),
    ]
    for written in (rows, []):
        PARQUET.write(tmp_path / "table", names, written)
        assert list(PARQUET.read(tmp_path / "table", names)) == written
    (tmp_path / "table").write_text("file,label")
    with pytest.raises(TableError, match="is no Parquet file"):
        list(PARQUET.read(tmp_path / "table", names))


@given(st.text(st.sampled_from(["\\", "u", "d", "c", "8", "0", "\udc80", "\ud800", "x"])))
def test_escaped_text_has_no_surrogates_and_is_unescaped_to_what_it_was(text):
    escaped(text).encode()
    assert unescaped(escaped(text)) == text


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=3), max_size=3))
def test_no_cell_is_a_formula_and_cells_are_read_back(tmp_path_factory, rows):
    file = tmp_path_factory.getbasetemp() / "cells.csv"
    file.write_bytes(csv_bytes(rows))
    assert list(csv_rows(file)) == rows
    for row in csv.reader(io.StringIO(csv_text(rows), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


def test_a_spreadsheet_knows_the_csv_file_as_utf_8_and_takes_no_file_name_for_a_formula(tmp_path):
    names = ["abeille dorée", "ants"]
    CSV.write(
        tmp_path / "a.csv", names, [FilePrediction(Path("=1+1.jpg"), Prediction("ants", dict.fromkeys(names, 0.5)))]
    )
    content = (tmp_path / "a.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.decode("utf-8-sig").splitlines() == [
        "file,label,abeille dorée,ants,verdict,distance,threshold,error",
        "'=1+1.jpg,ants,0.5,0.5,ants,,,",
    ]


def test_a_json_line_is_an_object_with_the_probabilities_by_class():
    prediction = Prediction("ants", {"ants": 0.75, "bees": 0.25}, 0.5, 0.4)
    assert json.loads(JSON_LINES.append(["ants", "bees"], [FilePrediction(Path("a/b.jpg"), prediction)])) == {
        "file": "a/b.jpg",
        "label": "ants",
        "probabilities": {"ants": 0.75, "bees": 0.25},
        "verdict": "neither",
        "distance": 0.5,
        "threshold": 0.4,
        "error": None,
    }


@pytest.mark.parametrize("kind", [CSV, JSON_LINES], ids=["CSV", "JSON lines"])
def test_a_file_that_was_cut_off_anywhere_is_read_up_to_there(kind, tmp_path):
    names = ["ants", "b\né"]
    rows = [FilePrediction(Path(f"{n}\n.jpg"), Prediction("ants", dict.fromkeys(names, 0.125 * n))) for n in range(3)]
    content = kind.head(names) + kind.append(names, rows)
    for end in range(len(kind.head(names)), len(content) + 1):
        (tmp_path / "table").write_bytes(content[:end])
        found = list(kind.read(tmp_path / "table", names))
        assert found == rows[: len(found)]
        assert len(found) >= len(rows) * (end - len(kind.head(names))) // len(content)
    (tmp_path / "table").write_bytes(content.replace(b"ants,0.125" if kind is CSV else b"0.125", b"", 1))
    with pytest.raises(TableError, match=r"row 2 of .* is not complete|has other columns"):
        list(kind.read(tmp_path / "table", names))


@pytest.mark.parametrize("kind", [CSV, JSON_LINES], ids=["CSV", "JSON lines"])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"file,label\na,b\n", b'{"file": 1}\n', b"[1]\n", b"7\n"])
def test_another_file_is_an_error_that_says_so(kind, content, tmp_path):
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(TableError, match="has other columns than this model's predictions"):
        list(kind.read(tmp_path / "table", ["ants", "bees"]))


def test_without_pyarrow_a_parquet_file_is_refused_in_a_sentence_that_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TableError, match="which is not installed: pip install pyarrow"):
        iter_predictions("no model", "a.jpg", parquet=tmp_path / "a.parquet")
