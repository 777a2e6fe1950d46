"""The names in a zip: as they are marked, else guessed from all of them together."""

import io
import random
import struct
import zipfile
import zlib

import pytest
from data_folders import zip_with_names

from antbee.data.archive import photos_in_zip
from antbee.data.zip_names import CODE_PAGES, ZipNames, names_in_zip

CHINESE = (
    "蚂蚁 蜜蜂 猫 狗 苹果 香蕉 葡萄 玫瑰 向日葵 郁金香 汽车 自行车 飞机 椅子 桌子 老虎 大象 熊猫 兔子 蝴蝶 蜘蛛 瓢虫"
)
TRADITIONAL = (
    "螞蟻 蜜蜂 貓 狗 蘋果 香蕉 葡萄 玫瑰 向日葵 鬱金香 汽車 腳踏車 飛機 椅子 桌子 老虎 大象 熊貓 兔子 蝴蝶 蜘蛛"
)
JAPANESE = "アリ ハチ 蟻 蜂 猫 犬 りんご バナナ ぶどう バラ ひまわり 自転車 飛行機 電車 椅子 机 虎 象 パンダ 兎 蝶 クモ"
KOREAN = (
    "개미 꿀벌 고양이 개 사과 바나나 포도 장미 해바라기 튤립 "
    "자동차 자전거 비행기 의자 책상 호랑이 코끼리 토끼 나비 거미"
)
RUSSIAN = "Муравьи Пчёлы кошка собака яблоко банан виноград роза подсолнух машина самолёт стул стол тигр слон заяц Ёж"
GERMAN = "Käfer Bär Löwe Vögel Hühner Äpfel Kühe Kätzchen Mücke Tür Schlüssel Bäume Kürbis Brötchen Straße Frösche"
FRENCH = "café pâté forêt chêne bûche hêtre érable châtaigne pêche éléphant chèvre araignée pâquerette"


def entries_of(files, extra=b""):
    with zipfile.ZipFile(io.BytesIO(zip_with_names(dict.fromkeys(files, b""), extra))) as archive:
        return archive.infolist()


def names_of(*names, language="", extra=b""):
    return names_in_zip(entries_of(names, extra), language)


def share_read(words, codec, count, language=""):
    """How many of 100 random lists of class names are read right, and how many are wrong without a word of doubt."""
    drawn, right, misled = random.Random(0), 0, 0
    for _ in range(100):
        paths = tuple(f"{word}/IMG_0001.jpg" for word in drawn.sample(words.split(), count))
        found = names_of(*(path.encode(codec) for path in paths), language=language)
        right += found.paths == paths
        misled += found.paths != paths and found.is_sure
    return right, misled


# As few as are right; measured on longer lists of words too.
@pytest.mark.parametrize(
    ("words", "codec", "of_two", "of_five"),
    [
        (CHINESE, "gbk", 85, 95),
        (TRADITIONAL, "cp950", 90, 98),
        (JAPANESE, "cp932", 85, 95),
        (RUSSIAN, "cp866", 98, 98),
        (GERMAN, "cp437", 98, 98),
        (GERMAN, "cp850", 98, 98),
        (FRENCH, "cp850", 98, 98),
        (KOREAN, "cp949", 30, 98),
    ],
)
def test_class_names_are_read_in_the_code_page_that_they_were_written_in(words, codec, of_two, of_five):
    right, misled = share_read(words, codec, 2)
    assert right >= of_two
    assert misled <= 3
    right, misled = share_read(words, codec, 5)
    assert right >= of_five
    assert misled <= 1


@pytest.mark.parametrize(
    ("words", "codec", "language"),
    [
        (CHINESE, "gbk", "zh-CN,zh;q=0.9,en;q=0.8"),
        (TRADITIONAL, "cp950", "zh-TW"),
        (KOREAN, "cp949", "ko_KR.UTF-8"),
        (RUSSIAN, "cp866", "ru"),
    ],
)
def test_the_readers_language_makes_its_code_page_likelier(words, codec, language):
    right, misled = share_read(words, codec, 2, language)
    assert right >= max(95, share_read(words, codec, 2)[0])
    assert misled <= 3


def test_a_wrong_reading_is_a_doubt():
    found = names_of("개미/1.jpg".encode("cp949"))
    assert not found.is_sure
    assert "make the zip again with names in UTF-8" in str(found)


def test_names_in_ascii_or_utf_8_are_not_guessed():
    assert names_of(b"ants/1.jpg", b"bees/2.jpg") == ZipNames(("ants/1.jpg", "bees/2.jpg"))
    assert names_of("Käfer/1.jpg".encode(), "蚂蚁/2.jpg".encode()) == ZipNames(("Käfer/1.jpg", "蚂蚁/2.jpg"))
    assert str(names_of("蚂蚁/1.jpg".encode())) == ""


def test_a_name_with_the_flag_for_utf_8_is_taken_as_it_is_beside_names_without():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("蚂蚁/1.jpg", b"")
    with zipfile.ZipFile(buffer) as archive:
        entries = [*entries_of(["猫/1.jpg".encode("gbk"), "狗狗/1.jpg".encode("gbk")]), *archive.infolist()]
    found = names_in_zip(entries)
    assert (found.paths, found.encoding) == (("猫/1.jpg", "狗狗/1.jpg", "蚂蚁/1.jpg"), "GBK")


def unicode_path(name, stands_for):
    content = struct.pack("<BL", 1, zlib.crc32(stands_for)) + name
    return struct.pack("<HH", 0x5455, 1) + b"\0" + struct.pack("<HH", 0x7075, len(content)) + content


def test_the_unicode_path_field_goes_before_the_name():
    raw = b"Pers?/1.jpg"
    found = names_of(raw, extra=unicode_path("Персы/1.jpg".encode(), raw))
    assert found == ZipNames(("Персы/1.jpg",))


@pytest.mark.parametrize(
    "extra",
    [
        unicode_path(b"bees/1.jpg", b"another name"),
        unicode_path(b"\xff\xfe", b"ants/1.jpg"),
        unicode_path(b"", b"ants/1.jpg"),
        struct.pack("<HH", 0x7075, 3) + b"\1\2\3",
    ],
)
def test_a_unicode_path_field_that_is_damaged_or_for_another_name_is_left(extra):
    assert names_of(b"ants/1.jpg", extra=extra).paths == ("ants/1.jpg",)


def test_a_letter_with_a_backslash_among_its_bytes_is_one_letter():
    names = [name.encode("cp932") for name in ("ソース/表.jpg", "りんご\\1.jpg")]
    assert b"\\" in names[0]
    assert names_of(*names).paths == ("ソース/表.jpg", "りんご/1.jpg")


def test_bytes_that_fit_no_code_page_become_some_letters():
    found = names_of(bytes(range(128, 256)) + b"/1.jpg")
    assert len(found.paths) == 1
    assert not found.is_sure or found.encoding in {page.name for page in CODE_PAGES}


def test_many_names_are_guessed_as_few():
    names = [f"{word}/照片{number}.jpg".encode("gbk") for number in range(3000) for word in ("蚂蚁", "蜜蜂")]
    found = names_of(*names)
    assert (found.encoding, found.is_sure, found.paths[0]) == ("GBK", True, "蚂蚁/照片0.jpg")


def test_photos_in_zip_gives_the_names_first():
    zipped = zip_with_names({"蚂蚁/1.txt".encode("gbk"): b"", "蜜蜂/1.jpg".encode("gbk"): b"no photo"})
    first, *others = photos_in_zip(io.BytesIO(zipped))
    assert str(first) == "the names in the zip were read as GBK"
    assert [one.file for one in others] == ["蚂蚁/1.txt", "蜜蜂/1.jpg"]
