"""Lists of photos to exclude: any file name can be written and read back."""

import re
from pathlib import Path

import pytest

from antbee.data.exclusions import exclusion_line, read_exclusions
from antbee.data.images import DataError


def exclusions(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_exclusions(path)


@pytest.mark.parametrize(
    "content",
    [
        "train/ants/a 1.jpg\nval/bees/b.jpg\n",
        "# why\ntrain/ants/a 1.jpg\n\n   \n#val/ants/c.jpg\nval/bees/b.jpg",
        "train/ants/a 1.jpg\r\nval/bees/b.jpg\r\n",
        "  train/ants/a 1.jpg\t\nval/bees/b.jpg ",
        b"\xef\xbb\xbftrain/ants/a 1.jpg\nval/bees/b.jpg",
    ],
    ids=["plain", "comments", "Windows", "spaces around", "byte order mark"],
)
def test_a_list_has_one_file_name_a_line_in_any_text_format(tmp_path: Path, content: str | bytes) -> None:
    assert exclusions(tmp_path / "list.txt", content) == ["train/ants/a 1.jpg", "val/bees/b.jpg"]


def test_an_empty_list_has_no_names(tmp_path: Path) -> None:
    assert exclusions(tmp_path / "list.txt", "") == exclusions(tmp_path / "list.txt", "# nothing\n") == []


def test_file_names_in_a_list_need_not_be_unicode(tmp_path: Path) -> None:
    assert exclusions(tmp_path / "list.txt", b"train/caf\xe9/a.jpg\n") == ["train/caf\udce9/a.jpg"]


def test_an_unreadable_list_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=f"{re.escape(str(path))} can't be read .*: expected a list of files"):
            read_exclusions(path)


@pytest.mark.parametrize(
    "name",
    ["ants/a.jpg", " bees/b.png", "#ants/c.png", '"bees"/d.png', "a\nb/e.png", "a\u2028b/f.png", "caf\udce9.jpg"],
)
def test_any_file_name_can_be_written_to_a_list_and_read_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# why\n{exclusion_line(name)}\n", "utf-8", errors="surrogateescape")
    assert read_exclusions(path) == [name]


def test_a_quoted_line_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text('"ants/a.jpg\n')
    with pytest.raises(DataError, match="no JSON text"):
        read_exclusions(tmp_path / "list.txt")
