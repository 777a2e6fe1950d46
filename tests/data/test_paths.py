"""Paths as people type them: patterns and addresses."""

from pathlib import Path

import pytest

from antbee.data.images import DataError, picture_of
from antbee.data.paths import local_path, local_paths


def test_a_pattern_that_the_shell_left_is_what_fits_it_sorted(tmp_path):
    for name in ("b.jpg", "a.jpg", ".hidden.jpg", "c.png"):
        (tmp_path / name).touch()
    assert local_paths([tmp_path / "*.jpg", tmp_path / "gone.jpg"]) == [
        tmp_path / "a.jpg",
        tmp_path / "b.jpg",
        tmp_path / "gone.jpg",
    ]
    with pytest.raises(DataError, match=r"nothing fits .*\*\.gif: expected a file, a folder or a pattern"):
        local_paths([tmp_path / "*.gif"])


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_this_file(tmp_path):
    for name in ("photo[1].jpg", "photo1.jpg"):
        (tmp_path / name).touch()
    assert local_paths([str(tmp_path / "photo[1].jpg")]) == [tmp_path / "photo[1].jpg"]


@pytest.mark.parametrize("address", ["https://example.com/cat.jpg", "HTTP://example.com/*.jpg", "s3://bucket/cat.jpg"])
def test_an_address_in_the_place_of_a_file_is_named_as_it_was_typed(address):
    for call in (local_path, picture_of, lambda text: local_paths([text])):
        with pytest.raises(DataError) as raised:
            call(address)
        assert str(raised.value) == f"{address} is an address, not a file: download it first, and name the file"


def test_drives_and_files_with_a_colon_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:").mkdir()
    (tmp_path / "odd:" / "cat.jpg").touch()
    for text in ("C:/photos/cat.jpg", "C:\\photos\\cat.jpg", "odd:/cat.jpg", "cat:.jpg"):
        assert local_path(text) == Path(text)
