"""Tables of photos, as the Hub's imagefolder has them: which rows are used, which are counted, which are refused."""

import json
import re
from pathlib import Path

import pytest
from data_folders import photo_bytes

from antbee.data.folder import read_folder, read_folder_of, read_splits
from antbee.data.images import DataError
from antbee.data.layout import layout_of
from antbee.data.table import layout_at, read_rows

HEAD = "file_name,label\n"
ROWS = "".join(f"images/{n}.jpg,{'ants' if n % 2 else 'bees'}\n" for n in range(6))


@pytest.fixture
def folder(tmp_path):
    """A folder of six photos and no class folders."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(photo_bytes(number))
    return tmp_path


def table(folder, text, name="metadata.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path):
    with pytest.raises(DataError) as raised:
        layout_at(path)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def labels(layout):
    return {file.path.relative_to(layout.root).as_posix(): (file.class_name, file.split) for file in layout.files}


def reasons(layout):
    return {entry.file: entry.reason.partition(":")[0] for entry in layout.skipped}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["metadata.csv", "photos.CSV"])
def test_a_table_says_the_classes(folder, encoding, name):
    layout = layout_at(table(folder, HEAD + ROWS, name, encoding))
    assert labels(layout)["images/1.jpg"] == ("ants", None)
    assert len(layout.files) == 6
    assert layout.skipped == ()


def test_a_folder_with_a_table_is_read_by_it(folder):
    table(folder, HEAD + ROWS)
    dataset = read_folder(folder)
    assert dataset.class_names == ("ants", "bees")
    assert len(dataset.all) == 6
    assert dataset == read_folder(folder / "metadata.csv")
    assert read_folder_of(folder, ("bees", "ants")).class_names == ("bees", "ants")
    assert len(read_splits(folder, ("ants", "bees")).splits[None]) == 6


def test_json_lines_are_read_and_other_columns_are_not_used(folder):
    rows = [{"file_name": f"images/{n}.jpg", "label": n % 2, "text": "a caption"} for n in range(6)]
    table(folder, "\n".join(map(json.dumps, rows)) + "\n\n", "metadata.jsonl")
    assert {name for name, _ in labels(layout_at(folder)).values()} == {"0", "1"}


def test_a_column_divides_into_splits(folder):
    splits = ("train", "train", "Validation", "valid", "test", "test")
    rows = ROWS.splitlines()
    table(folder, "file_name,label,split\n" + "".join(f"{r},{s}\n" for r, s in zip(rows, splits, strict=True)))
    dataset = read_folder(folder)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [2, 2, 2]
    assert dataset.split == "the table's val split"


def test_each_split_folder_may_have_a_table(folder):
    for split in ("train", "val"):
        (folder / split).mkdir()
        for number in range(2):
            (folder / split / f"{number}.jpg").write_bytes(photo_bytes(number + ord(split[0])))
        table(folder / split, HEAD + "0.jpg,ants\n1.jpg,bees\n")
    (folder / "images" / "0.jpg").unlink()
    dataset = read_folder(folder)
    assert (len(dataset.train), len(dataset.val)) == (2, 2)
    assert "images/1.jpg" in {entry.file for entry in dataset.skipped}
    (folder / "val" / "metadata.csv").unlink()
    assert "val has no metadata.csv" in refusal(folder)


def test_a_table_without_labels_leaves_the_class_folders_in_charge(folder):
    (folder / "images").rename(folder / "ants")
    table(folder, "file_name,text\nants/1.jpg,hello\n")
    assert layout_at(folder) == layout_of(folder)


def test_other_labels_of_the_same_files_are_another_data_set(folder):
    table(folder, HEAD + ROWS)
    digest = read_folder(folder).digest
    table(folder, HEAD + ROWS.replace("ants", "x").replace("bees", "ants").replace("x", "bees"))
    assert read_folder(folder).digest != digest


def test_rows_that_cannot_be_used_are_counted_by_kind(folder):
    (folder / "images" / ".hidden.jpg").write_bytes(photo_bytes(9))
    (folder / "images" / "link.jpg").symlink_to("/etc/hostname")
    rows = "images/1.jpg,ants\nimages/3.jpg,ants\nimages/0.jpg,bees\nimages/2.jpg,\nimages/4.jpg, \ngone.jpg,ants\n"
    table(folder, HEAD + rows + "images/.hidden.jpg,ants\nimages/link.jpg,ants\nimages/1.jpg,ants\n")
    layout = layout_at(folder)
    assert sorted(labels(layout)) == ["images/0.jpg", "images/1.jpg", "images/3.jpg"]
    assert reasons(layout) == {
        "images/2.jpg": "no label in the table",
        "images/4.jpg": "no label in the table",
        "gone.jpg": "not there",
        "images/.hidden.jpg": "a hidden file",
        "images/link.jpg": "a link that leads out of the folder",
        "images/1.jpg": "listed more than once",
        "images/5.jpg": "a photo that the table does not list",
    }


def test_rows_without_a_split_are_counted_where_others_have_one(folder):
    table(folder, "file_name,label,split\nimages/1.jpg,ants,train\nimages/2.jpg,bees,\n")
    assert reasons(layout_at(folder))["images/2.jpg"] == "no split in the table, where others have one"


@pytest.mark.parametrize("name", ["../1.jpg", "images/../../1.jpg", "/etc/passwd", "C:\\1.jpg", "..\\1.jpg", ""])
def test_a_name_that_leads_out_is_refused(folder, name):
    assert "row 1: file_name is" in refusal(table(folder, f"{HEAD}{name},ants\n{ROWS}"))


def test_a_file_of_two_classes_is_refused(folder):
    assert "row 7: images/1.jpg is listed before" in refusal(table(folder, HEAD + ROWS + "images/1.jpg,bees\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no column file_name and no column label, but none: expected file_name and label"),
        ("filename,class\na,b\n", "no column file_name and no column label, but filename, class"),
        (HEAD, "has 0 rows"),
        (HEAD + "nothing.jpg,ants\n", "names no photo that can be used, such as nothing.jpg"),
        (HEAD + '"images/1.jpg,ants\n', "no CSV file"),
        (HEAD + "x" * 200_000 + ",ants\n", "no CSV file"),
        ("file_name,label,split\nimages/1.jpg,ants,maybe\n", "the split is maybe, expected train, val or test"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(folder, text, expected):
    assert expected in refusal(table(folder, text, "photos.csv"))


def test_a_table_in_another_encoding_is_refused(folder):
    assert "is not UTF-8" in refusal(table(folder, HEAD + "images/1.jpg,Käfer\n", encoding="latin-1"))


@pytest.mark.parametrize("line", ["{", "[1]", "[" * 100_000])
def test_lines_that_are_no_json_objects_are_refused(folder, line):
    rows = json.dumps({"file_name": "images/1.jpg", "label": "ants"})
    assert "line 2 is no JSON" in refusal(table(folder, f"{rows}\n{line}\n", "metadata.jsonl"))


def test_semicolons_of_spreadsheets_are_read(folder):
    assert len(read_rows(table(folder, (HEAD + ROWS).replace(",", ";")))) == 6


def test_accents_are_found_in_either_form(folder):
    (folder / "images" / "cafe\u0301.jpg").write_bytes(photo_bytes(8))
    layout = layout_at(table(folder, HEAD + "images/caf\u00e9.jpg,ants\n"))
    assert len(layout.files) == 1


def test_two_tables_in_a_folder_are_refused(folder):
    table(folder, HEAD + ROWS)
    table(folder, "{}", "metadata.jsonl")
    assert "expected one of them" in refusal(folder)


def test_the_table_that_the_docs_make_of_file_names_is_read(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "own-photos.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(import csv\n.*?)```", page, re.DOTALL)
    (tmp_path / "my_photos").mkdir()
    for name in ("ants_1.jpg", "ants_2.jpg", "honey_bees_1.jpg", "honey_bees_2.jpg"):
        (tmp_path / "my_photos" / name).write_bytes(photo_bytes())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert read_folder(Path("my_photos")).class_names == ("ants", "honey_bees")
