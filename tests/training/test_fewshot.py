"""A classifier of one's own: lessons, photos from zips, honest figures, a shared backbone, and a model to take away."""

import io
import random
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import transformers
from PIL import Image

from antbee.data import archive as data_archive
from antbee.data.archive import FewShotError, ZipPhoto, photos_in_zip
from antbee.data.drawn import draw
from antbee.data.folder import SkippedFile
from antbee.data.transforms import Preprocessing
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation import ood
from antbee.evaluation.calibration import fit_temperature
from antbee.evaluation.report import comparison
from antbee.hub.card import model_card
from antbee.models.backbone import build_network
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig
from antbee.models.detector import kth_distance, threshold
from antbee.models.metrics import Found, Parameters
from antbee.models.weights import StartingWeights
from antbee.training import fewshot, fewshot_data
from antbee.training.crossvalidation import head_out_of_fold, stratified_folds, trained_head
from antbee.training.fewshot import fit_few_shot, write_zip
from antbee.training.fewshot_data import Example, FewShotDataset, embed
from antbee.training.recipe import FAST

EMPTY = FewShotDataset()
BASE = ClassifierConfig(
    architecture="resnet18",
    label_names=("cats", "dogs", "hens"),
    preprocessing=Preprocessing(crop=96, mean=(0.4, 0.5, 0.6)),
    mode="frozen",
    recipe=FAST.flat("frozen"),
    data={"name": "pets"},
    weights={"name": "imagenet", "digest": "e" * 64, "base_model": "timm/resnet18.tv_in1k"},
)


def new_base(config=BASE, seed=0):
    weights = StartingWeights("random")
    return Classifier(build_network("resnet18", len(config.label_names), weights, seed=seed), config)


@pytest.fixture(scope="module")
def base():
    return new_base()


def photo(kind, number):
    return draw(kind, number, 96)


@pytest.fixture(scope="module")
def dataset(base):
    """Twelve drawn ants under a Chinese name, and twelve bees."""
    dataset = FewShotDataset()
    for name, kind in (("蚂蚁", "ants"), ("bees", "bees")):
        photos = ((f"{number}.jpg", photo(kind, number)) for number in range(12))
        dataset = dataset.with_class(name).with_examples(name, embed(base, photos))
    return dataset


@pytest.fixture(scope="module")
def taught(base, dataset):
    return fit_few_shot(base, dataset)


def example(number, features=(1.0, 0.0), name=None, digest="backbone"):
    """One that nobody had to look at."""
    picture = Image.new("RGB", (4, 3))
    return Example(name or f"{number}.jpg", picture, torch.tensor(features), f"picture {number}", digest)


def examples(*numbers):
    return [example(number) for number in numbers]


def lesson_of(base, rows):
    """A lesson of features of one's own, by class."""
    dataset = FewShotDataset()
    for name, features in rows.items():
        made = [
            Example(f"{number}.jpg", Image.new("RGB", (2, 2)), row, f"{name} {number}", base.backbone_digest)
            for number, row in enumerate(features)
        ]
        dataset = dataset.with_class(name).with_examples(name, made)
    return dataset


def complaint(call, *arguments):
    with pytest.raises(FewShotError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- lessons ---------------------------------------------------------------------------------------------------------


def test_a_lesson_never_changes_and_gives_another_one():
    empty = FewShotDataset()
    two = empty.with_class("ants").with_class("bees")
    full = two.with_examples("bees", examples(1, 2)).with_examples("ants", examples(3))
    assert (empty.label_names, two.counts) == ((), {"ants": 0, "bees": 0})
    assert full.counts == {"ants": 1, "bees": 2}
    assert full.renamed("ants", "wasps").counts == {"wasps": 1, "bees": 2}
    assert full.without_class("ants").counts == {"bees": 2}
    assert full.without_example("bees", "1.jpg").counts == {"ants": 1, "bees": 1}
    assert full.counts == {"ants": 1, "bees": 2}
    assert list(full.thumbnails) == ["ants/3.jpg", "bees/1.jpg", "bees/2.jpg"]
    assert full.features(torch.device("cpu")).labels.tolist() == [0, 1, 1]


def test_a_lesson_can_be_hashed_and_compared_as_pages_do_with_what_they_keep():
    dataset = FewShotDataset().with_class("ants").with_examples("ants", examples(1))
    assert hash(dataset) == hash(FewShotDataset(dataset.classes))
    assert dataset == FewShotDataset(dataset.classes)
    assert dataset != dataset.with_examples("ants", examples(2))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("  ants ", "ants"),
        ("red\nants\t", "red ants"),
        ("蚂蚁\u3000", "蚂蚁"),
        ("Ka\u0308fer", "Käfer"),
        ("<b>", "<b>"),
        ("x" * 40, "x" * 40),
    ],
)
def test_class_names_are_one_line_without_spaces_around_it(text, name):
    assert FewShotDataset().with_class(text).label_names == (name,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 characters: expected 1 to 40"),
        (" \n", "has 0 characters"),
        ("x" * 41, "has 41 characters"),
        ("ants\u202e", "the class name ants\\u202e has characters that can't be seen"),
        ("\ud800", "can't be seen"),
        ("..", "can't be that of a folder"),
        ("../ants", "can't be that of a folder"),
        ("a/b", "has no slash"),
        ("a\\b", "has no slash"),
        ("__MACOSX", "can't be that of a folder"),
        ("bees", "there is a class bees already"),
        (" bees", "there is a class bees already"),
    ],
)
def test_a_class_name_that_will_not_do_is_refused_when_it_is_new_and_when_it_is_changed(text, words):
    dataset = FewShotDataset().with_class("bees").with_class("ants")
    assert words in complaint(dataset.with_class, text)
    assert words in complaint(dataset.renamed, "ants", text)


def test_a_class_may_keep_its_name_when_it_is_renamed():
    assert FewShotDataset().with_class("bees").renamed("bees", " bees ").label_names == ("bees",)


def test_an_unknown_class_or_photo_is_named_with_what_there_is():
    dataset = FewShotDataset().with_class("bees")
    assert "no class ants, the classes are: bees" in complaint(dataset.without_class, "ants")
    assert "no class ants, the classes are: none" in complaint(FewShotDataset().with_examples, "ants", [])
    assert "bees has no photo 1.jpg" in complaint(dataset.without_example, "bees", "1.jpg")


def test_files_of_one_name_get_numbers():
    dataset = FewShotDataset().with_class("ants")
    for number in range(3):
        dataset = dataset.with_examples("ants", [example(number, name="image.jpg")])
    assert [one.name for one in dataset.classes[0].examples] == ["image.jpg", "image (2).jpg", "image (3).jpg"]


def test_the_same_picture_is_learned_once_and_in_one_class():
    dataset = FewShotDataset().with_class("ants").with_class("bees").with_examples("ants", examples(1, 1, 2))
    assert dataset.with_examples("ants", examples(2)) == dataset
    assert dataset.counts == {"ants": 2, "bees": 0}
    assert "1.jpg is the same picture as one of ants" in complaint(dataset.with_examples, "bees", examples(3, 1))


def test_a_lesson_has_room_for_so_many_classes_and_photos_and_says_how_many_are_left():
    dataset = FewShotDataset()
    for number in range(10):
        dataset = dataset.with_class(f"class {number}")
    assert "there are 10 classes" in complaint(dataset.with_class, "one more")
    assert "choose 60" in complaint(dataset.with_examples, "class 0", examples(*range(61)))
    for number in range(6):
        dataset = dataset.with_examples(f"class {number}", examples(*range(60 * number, 60 * number + 60)))
    assert (dataset.room("class 0"), dataset.room("class 9")) == (0, 40)
    words = complaint(dataset.with_examples, "class 9", examples(*range(1000, 1041)))
    assert "41 more photos came for class 9, which has 0 of 360 in all" in words
    assert "choose 40" in words
    assert len(dataset.with_examples("class 9", examples(*range(1000, 1040)))) == 400


def test_features_of_two_backbones_are_never_mixed(base, dataset):
    other = new_base(seed=1)
    one = next(embed(other, [("x.jpg", photo("ants", 99))]))
    assert "looked at by another model" in complaint(dataset.with_examples, "bees", [one])
    assert "looked at by another model" in complaint(fit_few_shot, other, dataset)
    assert "looked at by another model" in complaint(fewshot_data.dataset_with_zip, other, dataset, io.BytesIO())


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (FewShotDataset(), "there are 0 of at least 2 classes: add another"),
        (FewShotDataset().with_class("ants").with_examples("ants", examples(1)), "there are 1 of at least 2 classes"),
        (
            FewShotDataset().with_class("ants").with_class("bees").with_examples("ants", examples(1)),
            "bees has no photos",
        ),
    ],
)
def test_what_a_lesson_lacks_is_said_before_anything_is_learned(base, dataset, words):
    assert words in complaint(dataset.check)
    assert words in complaint(fit_few_shot, base, dataset)


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_of_a_photo_only_small_things_are_kept(base):
    one, _ = embed(base, [("ants/1.jpg", draw("ants", 0, 320)), ("2.jpg", photo("bees", 1))])
    assert (one.name, max(one.thumbnail.size), one.thumbnail.mode) == ("1.jpg", 128, "RGB")
    assert one.features.untyped_storage().nbytes() == 512 * 4  # not the whole batch's
    torch.testing.assert_close(one.features, base.features([draw("ants", 0, 320)])[0])


def test_small_photos_are_not_enlarged_and_photos_stay_as_they_are(base):
    picture = photo("ants", 0)
    pixels = picture.tobytes()
    (one,) = embed(base, [("1.jpg", picture)])
    assert one.thumbnail.size == picture.size
    assert picture.tobytes() == pixels


def test_photos_are_taken_one_batch_at_a_time(base):
    taken = []

    def photos():
        for number in range(40):
            taken.append(number)
            yield f"{number}.jpg", Image.new("RGB", (32, 32))

    next(embed(base, photos()))
    assert len(taken) == 16


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("/root/a.jpg", "a.jpg"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("..", "photo"),
        ("", "photo"),
        (".hidden.jpg", "hidden.jpg"),
        ("a\n\x1b[31m\u202e.jpg", "a__[31m_.jpg"),
        ("caf\udce9.jpg", "caf_.jpg"),
        ("蚂蚁.jpg", "蚂蚁.jpg"),
        ("x" * 5000 + ".jpg", "x" * 96 + ".jpg"),
    ],
)
def test_a_photos_name_is_a_visible_file_name_whatever_came(base, text, name):
    (one,) = embed(base, [(text, Image.new("RGB", (32, 32)))])
    assert one.name == name


# ---- zips ------------------------------------------------------------------------------------------------------------


def packed(files, compression=zipfile.ZIP_DEFLATED):
    """The bytes of a zip with these files, by path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return bytearray(buffer.getvalue())


def jpeg(number=0):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, number // 256, 100)).save(buffer, "PNG")
    return buffer.getvalue()


def found_in(content, dataset=EMPTY):
    """(class, file) of the photos in a zip, and (file, reason) of what was skipped."""
    found = list(photos_in_zip(io.BytesIO(bytes(content)), dataset.counts))
    photos = [(one.class_name, one.name) for one in found if isinstance(one, ZipPhoto)]
    return photos, {one.file: one.reason for one in found if isinstance(one, SkippedFile)}


def headers(content, signature):
    """Where each header of a kind starts."""
    place = content.find(signature)
    while place >= 0:
        yield place
        place = content.find(signature, place + 1)


def with_fields(content, local, central, form, change):
    """The zip with a field of all its headers changed, at these offsets in the two kinds of header."""
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        for place in headers(content, signature):
            (value,) = struct.unpack_from(form, content, place + offset)
            struct.pack_into(form, content, place + offset, change(value))
    return content


def test_the_folder_that_a_photo_lies_in_is_its_class():
    paths = (
        "ants/1.jpg",
        "photos/bees/2.PNG",
        "train/wasps/3.jpg",
        "val/wasps/4.jpg",
        "a\\flies\\5.jpg",
        "./ants/6.jpg",
    )
    photos, skipped = found_in(packed({path: jpeg(number) for number, path in enumerate(paths)}))
    assert sorted(photos) == [
        ("ants", "1.jpg"),
        ("ants", "6.jpg"),
        ("bees", "2.PNG"),
        ("flies", "5.jpg"),
        ("wasps", "3.jpg"),
        ("wasps", "4.jpg"),
    ]
    assert skipped == {}


def test_what_can_not_be_used_is_skipped_with_its_reason():
    files = {
        "ants/1.jpg": jpeg(),
        "ants/same.jpg": jpeg(),
        "bees/same.jpg": jpeg(),
        "ants/readme.txt": b"ants",
        "ants/cut.jpg": jpeg(1)[:60],
        "ants/picture.svg": b"<svg/>",
        "ants/no.jpg": b"MZ",
        "ants/empty.jpg": b"",
        "1.jpg": jpeg(2),
        "__MACOSX/ants/._1.jpg": b"x",
        ".git/ants/1.jpg": jpeg(3),
        "ants/.DS_Store": b"x",
        "ants/": b"",
    }
    photos, skipped = found_in(packed(files))
    assert photos == [("ants", "1.jpg")]
    assert set(skipped) == set(files) - {"ants/1.jpg", "ants/"}
    assert skipped["ants/same.jpg"] == skipped["bees/same.jpg"] == "the same file as ants/1.jpg"
    assert skipped["ants/readme.txt"].startswith(".txt file extension, not one of .jpg")
    assert skipped["ants/picture.svg"].startswith(".svg file extension")
    assert "damaged photo" in skipped["ants/cut.jpg"]
    assert skipped["ants/no.jpg"].startswith("not a photo that can be read")
    assert skipped["1.jpg"] == "in no class folder"
    assert skipped["ants/.DS_Store"] == skipped["__MACOSX/ants/._1.jpg"] == skipped[".git/ants/1.jpg"] == "hidden"


def test_a_file_without_a_name_is_skipped():
    content = packed({"ants/1.jpg": jpeg(1), "bees/2.jpg": jpeg(2)}).replace(b"bees/2.jpg", b"\0ees/2.jpg")
    assert found_in(content) == ([("ants", "1.jpg")], {"": "in no class folder"})


def test_paths_that_lead_elsewhere_write_nothing_and_lead_nowhere(tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    files = {"../x/1.jpg": 1, "../../2.jpg": 2, "ants/../../3.jpg": 3, "/etc/4.jpg": 4, "C:/bees/5.jpg": 5}
    photos, skipped = found_in(packed({path: jpeg(number) for path, number in files.items()}))
    assert photos == [("etc", "4.jpg"), ("bees", "5.jpg")]
    assert set(skipped.values()) == {"hidden"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_classes_keep_their_names_in_chinese_and_as_macos_writes_them():
    said = packed({"蚂蚁/1.jpg": jpeg(1), "Ka\u0308fer/2.jpg": jpeg(2)})
    assert found_in(said)[0] == [("Käfer", "2.jpg"), ("蚂蚁", "1.jpg")]
    unsaid = with_fields(said, 6, 8, "<H", lambda flags: flags & ~0x800)  # UTF-8 that is not said to be
    assert found_in(unsaid)[0] == [("Käfer", "2.jpg"), ("蚂蚁", "1.jpg")]
    old = packed({"K\u0084fer/1.jpg": jpeg()})
    old = old.replace("K\u0084fer".encode(), b"K\x84\x84fer")
    old = with_fields(old, 6, 8, "<H", lambda flags: flags & ~0x800)  # code page 437, as of old
    assert found_in(old)[0] == [("Kääfer", "1.jpg")]


def test_a_zip_has_no_room_for_more_than_a_lesson_and_every_class_gets_the_same(monkeypatch):
    monkeypatch.setattr(data_archive, "MOST_PHOTOS", 7)
    monkeypatch.setattr(fewshot_data, "MOST_PHOTOS", data_archive.MOST_PHOTOS)
    monkeypatch.setattr(data_archive, "MOST_PHOTOS_OF_CLASS", 4)
    monkeypatch.setattr(fewshot_data, "MOST_PHOTOS_OF_CLASS", data_archive.MOST_PHOTOS_OF_CLASS)
    numbers = iter(range(100))
    content = packed({f"{name}/{n}.jpg": jpeg(next(numbers)) for name in ("a", "b", "c") for n in range(5)})
    photos, skipped = found_in(content)
    assert [name for name, _ in photos] == ["a", "a", "b", "b", "c", "c"]
    assert len(skipped) == 9
    assert skipped["a/4.jpg"] == "no room for more photos of a"
    begun = FewShotDataset().with_class("a").with_examples("a", examples(1, 2, 3))
    assert [name for name, _ in found_in(content, begun)[0]] == ["a", "b", "c"]


def test_a_zip_of_more_classes_than_a_lesson_takes_is_refused():
    content = packed({f"class {number}/1.jpg": jpeg(number) for number in range(10)})
    assert len(found_in(content)[0]) == 10
    assert "there would be 11 classes" in complaint(found_in, content, FewShotDataset().with_class("another"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no zip that can be read"),
        (b"GIF89a", "no zip that can be read"),
        (packed({"ants/1.jpg": jpeg()})[:-10], "no zip that can be read"),
        (packed({}), "no photo in a class folder"),
        (packed({"1.jpg": jpeg(), "ants/readme.txt": b"x"}), "no photo in a class folder"),
        (with_fields(packed({"ants/1.jpg": jpeg()}), 6, 8, "<H", lambda flags: flags | 1), "encrypted"),
        (packed({"x" * 50 + "/1.jpg": jpeg()}), "has 50 characters"),
    ],
)
def test_what_is_no_zip_of_class_folders_is_refused(content, words):
    assert words in complaint(found_in, content)


def test_a_zip_that_is_not_there_is_refused_without_its_path(tmp_path):
    words = complaint(list, photos_in_zip(tmp_path / "gone.zip"))
    assert "No such file" in words
    assert str(tmp_path) not in words


def test_a_zip_is_read_from_a_path_too_and_closed_again(tmp_path):
    (tmp_path / "photos.zip").write_bytes(packed({"ants/1.jpg": jpeg()}))
    assert len(list(photos_in_zip(tmp_path / "photos.zip"))) == 1


def test_a_damaged_file_does_not_spoil_the_others():
    content = packed({"ants/1.jpg": jpeg(1), "ants/2.jpg": jpeg(2)}, zipfile.ZIP_STORED)
    place = content.find(jpeg(2))
    content[place + 40] ^= 255
    photos, skipped = found_in(content)
    assert photos == [("ants", "1.jpg")]
    assert skipped["ants/2.jpg"].startswith("damaged in the zip (Bad CRC-32")


def peak(call, *arguments):
    """The most memory that a call took, in bytes, and what it gave."""
    tracemalloc.start()
    try:
        result = call(*arguments)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_a_bomb_is_unpacked_no_farther_than_the_limit(monkeypatch):
    monkeypatch.setattr(data_archive, "LARGEST_FILE_IN_ZIP", 1_000_000)
    content = packed({"ants/bomb.jpg": bytes(30_000_000), "ants/1.jpg": jpeg()})
    memory, (photos, skipped) = peak(found_in, content)
    assert photos == [("ants", "1.jpg")]
    assert skipped == {"ants/bomb.jpg": "larger than 1 MB"}
    assert memory < 8_000_000


def test_a_bomb_that_lies_about_its_size_is_no_danger(monkeypatch):
    content = packed({"ants/bomb.jpg": bytes(30_000_000)})
    content = with_fields(content, 22, 24, "<I", lambda size: 1000)
    memory, (photos, skipped) = peak(found_in, content)
    assert (photos, len(skipped)) == ([], 1)
    assert "damaged in the zip" in skipped["ants/bomb.jpg"]
    assert memory < 8_000_000


def test_many_small_bombs_are_stopped_by_their_sum(monkeypatch):
    monkeypatch.setattr(data_archive, "LARGEST_ZIP", 2_000_000)
    monkeypatch.setattr(data_archive, "LARGEST_FILE_IN_ZIP", 1_000_000)
    content = packed({f"ants/{number}.jpg": bytes(1_100_000) + bytes([number]) for number in range(4)})
    assert "unpacks to more than 2 MB" in complaint(found_in, content)


def test_a_method_whose_unpacking_can_not_be_bounded_is_never_used():
    words = complaint(found_in, packed({"ants/1.jpg": jpeg()}, zipfile.ZIP_LZMA))
    assert "no photo in a class folder (ants/1.jpg: packed by an unusual method)" in words


def test_a_long_list_of_files_is_refused_before_it_is_read(monkeypatch):
    content = packed({f"ants/{number}.jpg": b"" for number in range(60)})
    monkeypatch.setattr(data_archive, "MOST_FILES_IN_ZIP", 50)
    assert "lists more than 50 files" in complaint(found_in, content)
    monkeypatch.setattr(data_archive, "MOST_FILES_IN_ZIP", 1000)
    assert len(found_in(content)[1]) == 60
    monkeypatch.setattr(data_archive, "LARGEST_READ", 2000)
    monkeypatch.setattr(zipfile, "ZipInfo", None)  # none of its files is even looked at
    assert "lists more than 1000 files" in complaint(found_in, content)


def test_whatever_is_changed_in_a_zip_it_is_read_or_refused_in_one_line():
    whole = packed({"ants/1.jpg": jpeg(1), "蚂蚁/2.jpg": jpeg(2)})
    chance = random.Random(0)
    refusals = []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            found_in(content[: chance.choice((None, None, chance.randrange(len(content))))])
        except FewShotError as error:
            refusals.append(str(error))
    assert 50 < len(refusals) < 400
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals)


def test_a_zip_joins_a_lesson_and_says_what_was_left_out(base):
    begun = FewShotDataset().with_class("bees")
    content = packed({"ants/1.jpg": jpeg(1), "bees/1.jpg": jpeg(2), "bees/2.jpg": jpeg(3), "bees/x.txt": b""})
    shares = []
    dataset, skipped = fewshot_data.dataset_with_zip(
        base, begun, io.BytesIO(bytes(content)), lambda share, what: shares.append(share)
    )
    assert dataset.counts == {"bees": 2, "ants": 1}
    assert [one.file for one in skipped] == ["bees/x.txt"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    again, skipped = fewshot_data.dataset_with_zip(base, dataset, io.BytesIO(bytes(packed({"ants/b.jpg": jpeg(3)}))))
    assert again == dataset
    assert "same picture as one of bees" in skipped[0].reason


# ---- teaching --------------------------------------------------------------------------------------------------------


def state_of(holder):
    return {name: tensor.clone() for name, tensor in holder.network.state_dict().items()}


def test_teaching_leaves_the_base_as_it_was_byte_for_byte(dataset):
    base = new_base()
    before, answers = state_of(base), base.logits([photo("ants", 50)])
    head, config = base.network.fc, base.config
    taught = fit_few_shot(base, dataset)
    taught.classifier.predict([photo("ants", 50)])
    assert base.network.fc is head
    assert (base.config, base.detector) == (config, None)
    assert base.network.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in base.network.state_dict().items())
    assert torch.equal(base.logits([photo("ants", 50)]), answers)


def test_a_taught_classifier_needs_no_memory_but_its_heads(base, taught):
    for own, shared in ((taught.classifier.network, base.network), (taught.classifier._folded, base._folded)):
        for (name, tensor), other in zip(own.state_dict().items(), shared.state_dict().values(), strict=True):
            assert (tensor.data_ptr() == other.data_ptr()) == (not name.startswith("fc.")), name


def test_equal_lessons_and_seeds_give_equal_classifiers(base, dataset, taught):
    again = fit_few_shot(base, dataset)
    other = fit_few_shot(base, dataset, seed=1)
    weights = [one.classifier.network.fc.weight for one in (taught, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert taught.report == again.report


def test_teaching_leaves_threads_and_random_numbers_as_they_were(base, dataset):
    before = torch.random.get_rng_state(), torch.get_num_threads()
    fit_few_shot(base, dataset)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_progress_is_told_between_the_steps(base, dataset):
    told = []
    fit_few_shot(base, dataset, progress=lambda share, what: told.append((share, what)))
    assert [what for _, what in told] == ["learning from all photos", "cross-validating", "calibrating"]
    assert told == sorted(told)


def noise(count, seed, width=512):
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


def test_figures_are_of_photos_that_were_not_learned_from(base):
    dataset = lesson_of(base, {"heads": noise(30, 1), "tails": noise(30, 2)})  # which only a look at the labels tells
    taught = fit_few_shot(base, dataset)
    features = dataset.features(torch.device("cpu"))
    learned = evaluation_metrics.score(taught.classifier.network.fc(features.features).detach(), features.labels)
    assert learned.accuracy > 0.95
    assert taught.report.accuracy < 0.7
    assert taught.report.count == 60
    assert taught.classifier.config.metrics.kept.interval == list(
        evaluation_metrics.wilson_interval(taught.report.correct, 60)
    )


def test_no_fold_is_calibrated_with_its_own_answers(base):
    dataset = lesson_of(base, {"a": noise(20, 1), "b": noise(20, 2) + 0.2 * (torch.arange(512) < 100)})
    taught, features = fit_few_shot(base, dataset), dataset.features(torch.device("cpu"))
    folds = stratified_folds(features.labels, 5, 0)
    raw = head_out_of_fold(features, folds, FAST, seed=0, device=torch.device("cpu")).logits
    temperatures = set()
    for fold in range(5):
        others = folds != fold
        temperature = fit_temperature(raw[others], features.labels[others])
        torch.testing.assert_close(taught.left_out_logits[~others], raw[~others] / temperature)
        temperatures.add(temperature)
    assert len(temperatures) > 1
    assert evaluation_metrics.evaluate(taught.left_out_logits, features.labels) == taught.report


def test_the_head_gives_calibrated_probabilities_by_itself(base):
    dataset = lesson_of(base, {"a": noise(20, 1), "b": noise(20, 2)})
    taught, features = fit_few_shot(base, dataset), dataset.features(torch.device("cpu"))
    head = trained_head(features, 2, FAST, seed=0, device=torch.device("cpu"))
    temperature = taught.classifier.config.metrics.calibration.temperature
    assert temperature > 1.5  # of labels that can't be learned
    torch.testing.assert_close(taught.classifier.network.fc.weight * temperature, head.weight)


def test_classes_of_two_photos_are_cross_validated_in_two_parts(base):
    taught = fit_few_shot(base, lesson_of(base, {"a": noise(2, 1), "b": noise(9, 2)}))
    assert taught.folds == 2
    assert taught.classifier.config.data.split == "2-fold cross-validation"


def test_one_photo_of_a_class_gives_a_classifier_without_figures(base, tmp_path):
    taught = fit_few_shot(base, lesson_of(base, {"a": noise(1, 1), "b": noise(30, 2)}))
    assert (taught.report, taught.left_out_logits, taught.folds) == (None, None, None)
    assert taught.classifier.config.metrics is None
    assert taught.classifier.detector.limit is None
    prediction = taught.classifier.predict([photo("bees", 0)])[0]
    assert not prediction.is_out_of_distribution
    loaded = Classifier.from_pretrained(unpacked(taught.classifier, tmp_path), device="cpu")
    assert replace(loaded.config, files={}) == taught.classifier.config
    card = model_card(loaded.config.to_json())
    assert "too few photos to keep any back" in card
    assert "## Results" not in card


def test_features_that_are_no_numbers_are_refused(base):
    dataset = lesson_of(base, {"a": torch.full((3, 512), float("nan")), "b": noise(3, 2)})
    assert "nothing can be learned from this model's features" in complaint(fit_few_shot, base, dataset)


def test_the_config_says_what_was_learned_from_and_where_the_backbone_is_from(taught):
    config = taught.classifier.config
    assert (config.architecture, config.preprocessing) == (BASE.architecture, BASE.preprocessing)
    assert (config.label_names, config.mode) == (("蚂蚁", "bees"), "frozen")
    assert config.data.train == {"蚂蚁": 12, "bees": 12}
    assert config.data.val is None
    assert config.weights == BASE.weights
    assert config.recipe == FAST.flat("frozen")
    assert config.metrics.parameters == Parameters(total=11_177_538, trainable=1026)
    assert ClassifierConfig.from_json(config.to_json()) == config
    ((mode, trainable, accuracy, *_),) = comparison([config])
    assert (mode, trainable) == ("frozen", "1,026")
    assert accuracy.endswith("(cross-validated)")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"mode": "finetune"}, "finetune of pets, from imagenet"),
        ({"recipe": {"batch_norm": "adapting"}}, "frozen of pets, from imagenet"),  # its statistics are the pets'
        ({"mode": None, "data": {}, "weights": {}}, "a model of 3 classes, from unknown weights"),
        ({"recipe": {"batch_norm": "fixed"}}, "imagenet"),
    ],
)
def test_a_backbone_that_learned_more_than_its_start_is_told_as_such(dataset, changes, name):
    config = fit_few_shot(new_base(replace(BASE, **changes)), dataset).classifier.config
    assert config.weights.name == name
    assert config.weights.base_model == (BASE.weights.base_model if name == "imagenet" else None)


# ---- neither and nearest ---------------------------------------------------------------------------------------------


def test_neither_is_said_of_a_picture_of_nothing_and_the_nearest_photos_are_named_by_class_and_file(
    base, dataset, taught
):
    holder = taught.classifier
    learned, *_ = holder.predict([photo("ants", 3)])
    assert not learned.is_out_of_distribution
    assert holder.predict(ood.synthetic_images("flat colours", 1))[0].verdict == "neither"
    nearest = holder.explain(photo("ants", 3), 2).neighbours[0]
    assert (nearest.name, nearest.label) == ("蚂蚁/3.jpg", "蚂蚁")
    assert nearest.distance < 1e-3
    assert dataset.thumbnails[nearest.name] is dataset.classes[0].examples[3].thumbnail


def test_the_limit_is_that_of_photos_left_out(base, dataset, taught):
    features = dataset.features(torch.device("cpu")).features
    distances = kth_distance(features, features, same=True)
    assert taught.classifier.detector.threshold == threshold(distances)
    assert taught.classifier.config.metrics.neither.threshold == taught.classifier.detector.threshold


def test_photos_of_a_class_left_out_are_counted_only_where_that_says_something(base):
    apart = torch.eye(512)[:3].repeat_interleave(20, 0) + 0.1 * noise(60, 0)
    rows = {name: apart[20 * number : 20 * number + 20] for number, name in enumerate("abc")}
    metrics = fit_few_shot(base, lesson_of(base, rows)).classifier.config.metrics.neither
    assert metrics.left_out == Found(found=60, count=60)
    few = {name: features[:10] for name, features in rows.items() if name != "c"}  # 10 photos have no limit
    assert fit_few_shot(base, lesson_of(base, few)).classifier.config.metrics.neither.left_out is None
    learned = new_base(replace(BASE, mode="finetune"))  # a backbone that may know the classes
    assert fit_few_shot(learned, lesson_of(learned, rows)).classifier.config.metrics.neither.left_out is None


# ---- a model to take away --------------------------------------------------------------------------------------------


def unpacked(holder, folder):
    write_zip(holder, folder / "model.zip")
    with zipfile.ZipFile(folder / "model.zip") as archive:
        archive.extractall(folder)
    return folder / fewshot.MODEL_FOLDER


@pytest.fixture(scope="module")
def model_folder(taught, tmp_path_factory):
    return unpacked(taught.classifier, tmp_path_factory.mktemp("zip"))


def test_the_zip_holds_one_model_folder_without_any_picture(model_folder):
    assert sorted(path.name for path in model_folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "neighbours.safetensors",
    ]
    assert [path.name for path in model_folder.parent.iterdir() if path.name != "model.zip"] == ["taught-model"]


def test_the_card_in_the_zip_tells_what_its_figures_are_and_shows_no_picture_that_is_not_there(model_folder):
    card = (model_folder / "README.md").read_text("utf-8")
    assert "Cross-validated on the training images; there were no validation images" in card
    assert card.count("validation images") == 1
    assert "figures/" not in card
    assert "蚂蚁 or bees" in card


def test_antbee_timm_and_transformers_give_the_taught_classifiers_answers(taught, model_folder):
    pictures = [photo("ants", 70), photo("bees", 71)]
    expected = taught.classifier.logits(pictures)
    loaded = Classifier.from_pretrained(model_folder, device="cpu")
    torch.testing.assert_close(loaded.logits(pictures), expected, rtol=0, atol=1e-5)
    assert replace(loaded.config, files={}) == taught.classifier.config
    assert loaded.predict(pictures)[0].distance == pytest.approx(taught.classifier.predict(pictures)[0].distance)
    assert loaded.explain(pictures[0]).neighbours[0].name == taught.classifier.explain(pictures[0]).neighbours[0].name

    by_timm = timm.create_model(f"local-dir:{model_folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=by_timm), is_training=False)
    with torch.inference_mode():
        logits = by_timm(torch.stack([transform(picture) for picture in pictures]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert by_timm.pretrained_cfg["label_names"] == ["蚂蚁", "bees"]

    by_transformers = transformers.AutoModelForImageClassification.from_pretrained(model_folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(model_folder)
    with torch.inference_mode():
        logits = by_transformers(**processor(pictures, return_tensors="pt")).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert by_transformers.config.id2label == {0: "蚂蚁", 1: "bees"}


def test_a_zip_that_can_not_be_finished_leaves_nothing(taught, tmp_path, monkeypatch):
    def fail(card):
        raise OSError("no space left")

    monkeypatch.setattr(fewshot, "card_without_figures", fail)
    with pytest.raises(OSError, match="no space left"):
        write_zip(taught.classifier, tmp_path / "model.zip")
    assert list(Path(tmp_path).iterdir()) == []
