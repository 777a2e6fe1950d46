"""Publish: what would be uploaded is said before it is, and uploaded as the command does it."""

import pytest
from data_folders import photo_bytes, small_set
from PIL import ExifTags, Image

from antbee.data.images import DataError
from antbee.hub import HubError
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.tabs import publish
from antbee.ui.tabs.publish import prepared, preview


@pytest.fixture
def folder(tmp_path):
    """Photos of two classes, of which one says where it was taken, and a file that is none."""
    root = small_set(tmp_path / "photos")
    located = Image.new("RGB", (8, 8))
    exif = located.getexif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[2] = (48.0, 8.0, 0.0)
    located.save(root / "train/ants/here.jpg", exif=exif)
    (root / "train/ants/notes.txt").write_text("notes")
    return root


@pytest.mark.parametrize("translate", [ENGLISH, CHINESE])
def test_the_preview_tells_the_photos_what_is_left_out_and_who_says_where_it_was_taken(folder, translate):
    text = preview(*prepared(f" {folder} ", " somebody/photos ", ""), translate)
    assert translate("publish.photos", count=9, splits="train 6, val 3", megabytes="0.0") in text
    assert "notes.txt: a .txt file, not a photo" in text
    assert translate("publish.positions", count=1) in text


def test_the_photos_are_pushed_with_what_was_typed_and_the_computers_token_otherwise(folder, monkeypatch):
    pushed = []
    monkeypatch.setattr(publish, "push_dataset", lambda *values, **options: pushed.append((values, options)) or "there")
    assert publish.publish(str(folder), " me/photos ", " cc0-1.0 ", " hf_mine ", True) == "there"
    assert publish.publish(str(folder), "me/photos", "", "", False) == "there"
    ((first, options), (_, others)) = pushed
    assert (len(first[0].all), first[1]) == (9, "me/photos")
    assert options == {"license": "cc0-1.0", "token": "hf_mine", "private": True}
    assert others == {"license": None, "token": None, "private": False}


def test_a_folder_or_a_name_that_can_not_be_used_is_an_error_before_anything_is_uploaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "push_dataset", lambda *values, **options: pytest.fail("it was pushed"))
    with pytest.raises(HubError):
        publish.publish(str(folder), "no owner", "", "", False)
    (tmp_path / "photo.jpg").write_bytes(photo_bytes())
    with pytest.raises(DataError):
        publish.publish(str(tmp_path / "photo.jpg"), "me/photos", "", "", False)
