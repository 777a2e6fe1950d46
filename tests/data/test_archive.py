"""Zips of class folders: the class of each photo, skipped files, limits, damaged and hostile zips."""

import io
import random
import struct
import tracemalloc
import zipfile

import pytest
from PIL import Image

from antbee.data import archive
from antbee.data.archive import FewShotError, ZipPhoto, photos_in_zip
from antbee.data.folder import SkippedFile


def error_of(call, *arguments):
    with pytest.raises(FewShotError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    """The bytes of a zip with these files, by path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return bytearray(buffer.getvalue())


def image(number=0):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, number // 256, 100)).save(buffer, "PNG")
    return buffer.getvalue()


def found_in(content, counts=None):
    """(class, file) of the photos in a zip, and the reason of each skipped file, by its path."""
    found = list(photos_in_zip(io.BytesIO(bytes(content)), counts or {}))
    photos = [(one.class_name, one.name) for one in found if isinstance(one, ZipPhoto)]
    return photos, {one.file: one.reason for one in found if isinstance(one, SkippedFile)}


def headers(content, signature):
    """The offset of each header of a kind."""
    offset = content.find(signature)
    while offset >= 0:
        yield offset
        offset = content.find(signature, offset + 1)


def with_fields(content, local, central, form, change):
    """The zip with a field changed in every header; `local` and `central` are its offsets in the two kinds."""
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        for start in headers(content, signature):
            (value,) = struct.unpack_from(form, content, start + offset)
            struct.pack_into(form, content, start + offset, change(value))
    return content


def test_the_folder_of_a_photo_is_its_class():
    paths = (
        "ants/1.jpg",
        "photos/bees/2.PNG",
        "train/wasps/3.jpg",
        "val/wasps/4.jpg",
        "a\\flies\\5.jpg",
        "./ants/6.jpg",
        "bees/Train/7.jpg",
        "photos/bees/test/8.jpg",
    )
    photos, skipped = found_in(zip_of({path: image(number) for number, path in enumerate(paths)}))
    assert sorted(photos) == [
        ("ants", "1.jpg"),
        ("ants", "6.jpg"),
        ("bees", "2.PNG"),
        ("bees", "7.jpg"),
        ("bees", "8.jpg"),
        ("flies", "5.jpg"),
        ("wasps", "3.jpg"),
        ("wasps", "4.jpg"),
    ]
    assert skipped == {}


def test_unusable_files_are_skipped_with_the_reason():
    files = {
        "ants/1.jpg": image(),
        "ants/same.jpg": image(),
        "bees/same.jpg": image(),
        "ants/readme.txt": b"ants",
        "ants/cut.jpg": image(1)[:60],
        "ants/picture.svg": b"<svg/>",
        "ants/no.jpg": b"MZ",
        "ants/empty.jpg": b"",
        "1.jpg": image(2),
        "train/1.jpg": image(4),
        "__MACOSX/ants/._1.jpg": b"x",
        ".git/ants/1.jpg": image(3),
        "ants/.DS_Store": b"x",
        "ants/": b"",
    }
    photos, skipped = found_in(zip_of(files))
    assert photos == [("ants", "1.jpg")]
    assert set(skipped) == set(files) - {"ants/1.jpg", "ants/"}
    assert skipped["ants/same.jpg"] == skipped["bees/same.jpg"] == "the same file as ants/1.jpg"
    assert skipped["ants/readme.txt"].startswith("a .txt file, not a photo")
    assert skipped["ants/picture.svg"].startswith("a .svg file, not a photo")
    assert "damaged photo" in skipped["ants/cut.jpg"]
    assert skipped["ants/no.jpg"].startswith("not a photo that can be read")
    assert skipped["1.jpg"] == skipped["train/1.jpg"] == "in no class folder"
    assert skipped["ants/.DS_Store"] == skipped["__MACOSX/ants/._1.jpg"] == skipped[".git/ants/1.jpg"] == "hidden"


def test_photos_are_told_by_their_content_where_their_names_do_not():
    names = ("a.jfif", "b.jpe", "c", "d.JPG")
    photos, skipped = found_in(zip_of({f"ants/{name}": image(number) for number, name in enumerate(names)}))
    assert [name for _, name in photos] == sorted(names)
    assert skipped == {}


def test_a_file_without_a_name_is_skipped():
    content = zip_of({"ants/1.jpg": image(1), "bees/2.jpg": image(2)}).replace(b"bees/2.jpg", b"\0ees/2.jpg")
    assert found_in(content) == ([("ants", "1.jpg")], {"": "in no class folder"})


def test_paths_outside_the_zip_write_no_files(tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    files = {"../x/1.jpg": 1, "../../2.jpg": 2, "ants/../../3.jpg": 3, "/etc/4.jpg": 4, "C:/bees/5.jpg": 5}
    photos, skipped = found_in(zip_of({path: image(number) for path, number in files.items()}))
    assert photos == [("etc", "4.jpg"), ("bees", "5.jpg")]
    assert set(skipped.values()) == {"hidden"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_class_names_in_chinese_macos_and_old_encodings_are_read():
    utf8 = zip_of({"蚂蚁/1.jpg": image(1), "Ka\u0308fer/2.jpg": image(2)})
    assert found_in(utf8)[0] == [("Käfer", "2.jpg"), ("蚂蚁", "1.jpg")]
    unflagged = with_fields(utf8, 6, 8, "<H", lambda flags: flags & ~0x800)  # UTF-8 without its flag
    assert found_in(unflagged)[0] == [("Käfer", "2.jpg"), ("蚂蚁", "1.jpg")]
    old = zip_of({"K\u0084fer/1.jpg": image()})
    old = old.replace("K\u0084fer".encode(), b"K\x84\x84fer")
    old = with_fields(old, 6, 8, "<H", lambda flags: flags & ~0x800)  # code page 437
    assert found_in(old)[0] == [("Kääfer", "1.jpg")]


def test_a_zip_adds_as_many_photos_as_fit_and_as_many_to_each_class(monkeypatch):
    monkeypatch.setattr(archive, "MOST_PHOTOS", 7)
    monkeypatch.setattr(archive, "MOST_PHOTOS_OF_CLASS", 4)
    numbers = iter(range(100))
    content = zip_of({f"{name}/{n}.jpg": image(next(numbers)) for name in ("a", "b", "c") for n in range(5)})
    photos, skipped = found_in(content)
    assert [name for name, _ in photos] == ["a", "a", "b", "b", "c", "c"]
    assert len(skipped) == 9
    assert skipped["a/4.jpg"] == "no room for more photos of a"
    assert [name for name, _ in found_in(content, {"a": 3})[0]] == ["a", "b", "c"]


def test_too_many_classes_are_an_error():
    content = zip_of({f"class {number}/1.jpg": image(number) for number in range(10)})
    assert len(found_in(content)[0]) == 10
    assert "there would be 11 classes" in error_of(found_in, content, {"another": 0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no zip that can be read"),
        (b"GIF89a", "no zip that can be read"),
        (zip_of({"ants/1.jpg": image()})[:-10], "no zip that can be read"),
        (zip_of({}), "no photo in a class folder"),
        (zip_of({"1.jpg": image(), "ants/readme.txt": b"x"}), "no photo in a class folder"),
        (with_fields(zip_of({"ants/1.jpg": image()}), 6, 8, "<H", lambda flags: flags | 1), "encrypted"),
        (zip_of({"x" * 50 + "/1.jpg": image()}), "has 50 characters"),
    ],
)
def test_a_file_that_is_no_zip_of_class_folders_is_an_error(content, message):
    assert message in error_of(found_in, content)


def test_a_missing_zip_is_an_error_that_does_not_show_its_path(tmp_path):
    message = error_of(list, photos_in_zip(tmp_path / "gone.zip"))
    assert "No such file" in message
    assert str(tmp_path) not in message


def test_a_zip_can_be_read_from_a_path(tmp_path):
    (tmp_path / "photos.zip").write_bytes(zip_of({"ants/1.jpg": image()}))
    found = list(photos_in_zip(tmp_path / "photos.zip"))
    assert [one.name for one in found if isinstance(one, ZipPhoto)] == ["1.jpg"]


def test_a_damaged_file_is_skipped_and_the_others_are_read():
    content = zip_of({"ants/1.jpg": image(1), "ants/2.jpg": image(2)}, zipfile.ZIP_STORED)
    start = content.find(image(2))
    content[start + 40] ^= 255
    photos, skipped = found_in(content)
    assert photos == [("ants", "1.jpg")]
    assert skipped["ants/2.jpg"].startswith("damaged in the zip (Bad CRC-32")


def peak(call, *arguments):
    """The peak memory of a call in bytes, and its result."""
    tracemalloc.start()
    try:
        result = call(*arguments)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_a_zip_bomb_is_unpacked_up_to_the_limit_only(monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_FILE_IN_ZIP", 1_000_000)
    content = zip_of({"ants/bomb.jpg": bytes(30_000_000), "ants/1.jpg": image()})
    memory, (photos, skipped) = peak(found_in, content)
    assert photos == [("ants", "1.jpg")]
    assert skipped == {"ants/bomb.jpg": "larger than 1 MB"}
    assert memory < 8_000_000


def test_a_zip_bomb_with_a_false_size_in_its_header_takes_no_memory(monkeypatch):
    content = zip_of({"ants/bomb.jpg": bytes(30_000_000)})
    content = with_fields(content, 22, 24, "<I", lambda size: 1000)
    memory, (photos, skipped) = peak(found_in, content)
    assert (photos, len(skipped)) == ([], 1)
    assert "damaged in the zip" in skipped["ants/bomb.jpg"]
    assert memory < 8_000_000


def test_the_total_unpacked_size_is_limited(monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_ZIP", 2_000_000)
    monkeypatch.setattr(archive, "LARGEST_FILE_IN_ZIP", 1_000_000)
    content = zip_of({f"ants/{number}.jpg": bytes(1_100_000) + bytes([number]) for number in range(4)})
    assert "unpacks to more than 2 MB" in error_of(found_in, content)


def test_a_compression_method_with_unbounded_memory_is_not_used():
    message = error_of(found_in, zip_of({"ants/1.jpg": image()}, zipfile.ZIP_LZMA))
    assert "no photo in a class folder (ants/1.jpg: packed by an unusual method)" in message


def test_a_long_list_of_files_is_an_error_before_it_is_read(monkeypatch):
    content = zip_of({f"ants/{number}.jpg": b"" for number in range(60)})
    monkeypatch.setattr(archive, "MOST_FILES_IN_ZIP", 50)
    assert "lists more than 50 files" in error_of(found_in, content)
    monkeypatch.setattr(archive, "MOST_FILES_IN_ZIP", 1000)
    assert len(found_in(content)[1]) == 60
    monkeypatch.setattr(archive, "LARGEST_READ", 2000)
    monkeypatch.setattr(zipfile, "ZipInfo", None)  # the list itself is not parsed
    assert "lists more than 1000 files" in error_of(found_in, content)


def test_a_zip_with_random_damage_is_read_or_is_an_error_of_one_line():
    whole = zip_of({"ants/1.jpg": image(1), "蚂蚁/2.jpg": image(2)})
    chance = random.Random(0)
    errors = []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            found_in(content[: chance.choice((None, None, chance.randrange(len(content))))])
        except FewShotError as error:
            errors.append(str(error))
    assert 50 < len(errors) < 400
    assert all(len(error.splitlines()) == 1 for error in errors)
