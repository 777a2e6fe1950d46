"""The Teach tab: what visitors do, from the first photo to the download, and that sessions stay separate."""

import io
import itertools
import json
import socket
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import huggingface_hub
import pytest
from data_folders import zip_with_names
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from page_helpers import registry_of, serving, write_model
from PIL import ExifTags, Image

import antbee.hub
from antbee import Classifier, ui
from antbee.data import archive as data_archive
from antbee.data.archive import MOST_CLASSES
from antbee.data.drawn import draw
from antbee.models.weights import PACKAGED
from antbee.training import fewshot_data
from antbee.training.fewshot import MODEL_FOLDER
from antbee.training.fewshot_data import THUMBNAIL_SIDE
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.sessions import Sessions
from antbee.ui.tabs import teach
from antbee.ui.tabs.classify import NEIGHBOURS
from antbee.ui.tabs.teach import FewShotForm, result_sentence

pytestmark = pytest.mark.usefixtures("gradio_folder")
CLASSES = [ENGLISH("teach.default", number=number) for number in (1, 2)]  # of an empty form
SOMETHING_ELSE = Image.new("RGB", (96, 96), "red")
MACHINES, VISITORS = "hf_machines", "hf_visitors"  # tokens


# ---- visitors, and what their browsers send --------------------------------------------------------------------------


@dataclass(frozen=True)
class Visitor:
    """Somebody at the page: `visitor.upload(...)` is what their browser sends to the handler `upload`."""

    room: FewShotForm
    request: Any

    def __getattr__(self, name):
        return lambda *values: getattr(self.room, name)(*values, self.request)

    @property
    def session(self):
        return self.room.sessions.get(self.request.session_hash)

    def rename(self, place, name):
        """The board after a class was called so."""
        self.room.rename(place, name, self.request)
        return self.room.start(self.request)[1:]

    def upload(self, place, pictures):
        """The board after a gallery got more pictures."""
        return self._board_with(place, self.room.upload(place, pictures, self.request))

    def delete(self, place, pictures):
        """The board after a gallery lost some."""
        return self._board_with(place, self.room.delete(place, pictures, self.request))

    def train(self, upload=None):
        """What was learned, and the model; with a photo also what it says of it."""
        learned = self.room.train(upload, self.request)
        return learned if upload else learned[:2]

    def _board_with(self, place, answer):
        said, pictures = answer
        board = self.room.start(self.request)[1:]
        assert list(classes_of(board).values())[place] == pictures
        return [said, *board[1:]]

    def add(self, place, *photos):
        """The board after photos were dropped on a class."""
        return self.upload(place, [*shown_on(self, place), *map(in_gallery, photos)])

    def push(self, repo_id="visitor/mine", typed="", private=False, signed_in=None):
        """Where the model was pushed to."""
        return self.room.push(repo_id, typed, private, self.request, signed_in)


def in_gallery(file):
    return {"image": sent(file), "caption": None}


def sent(file):
    return {"path": str(file), "orig_name": Path(file).name, "meta": {"_type": "gradio.FileData"}}


def shown_on(visitor, place):
    """What the gallery of a class shows, as the browser sends it."""
    return [in_gallery(visitor.session.thumbnail_path(one)) for one in visitor.session.dataset.classes[place].examples]


def classes_of(board):
    """What a board shows: the pictures of each class, by name."""
    _, *parts = board
    assert len(parts) == 3 * MOST_CLASSES
    return {parts[at + 1]: parts[at + 2] for at in range(0, len(parts), 3) if parts[at].visible}


def counts_of(board):
    return {name: len(pictures) for name, pictures in classes_of(board).items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One untrained frozen model."""
    folder = write_model(tmp_path_factory.mktemp("models") / "frozen", "frozen")
    return ui.load_models([folder], device="cpu")


@pytest.fixture(scope="module")
def room(models, gradio_folder):
    """One form for all tests, each of which uses sessions of its own."""
    return FewShotForm(registry_of(models, None), Sessions(gradio_folder / "visitors"))


sessions = map("session{}".format, itertools.count())


def visitor_of(room, language="en-GB"):
    """Somebody who just opened the page."""
    visitor = Visitor(room, SimpleNamespace(session_hash=next(sessions), headers={"accept-language": language}))
    visitor.start()
    return visitor


@pytest.fixture
def visitor(room):
    return visitor_of(room)


@pytest.fixture(scope="module")
def upload(gradio_folder):
    """Puts a file where Gradio puts uploads, each in a folder of its own."""
    numbers = itertools.count()

    def put(picture, name="photo.png"):
        folder = gradio_folder / f"upload{next(numbers)}"
        folder.mkdir()
        if isinstance(picture, Image.Image):
            picture.save(folder / name)
        else:
            (folder / name).write_bytes(picture)
        return folder / name

    return put


def photo(kind, number):
    return draw(kind, number, 96)


@pytest.fixture(scope="module")
def drawn(upload):
    """Uploads photos of the drawn kinds: as many as numbers are named."""

    def put(kind, *numbers):
        return [upload(photo(kind, number), f"{kind}{number}.png") for number in numbers]

    return put


@pytest.fixture(scope="module")
def learned(room, drawn):
    """A visitor whose classifier learned twelve ants and twelve bees, and what they were told."""
    visitor = visitor_of(room)
    for place, kind in enumerate(("ants", "bees")):
        visitor.rename(place, kind)
        visitor.add(place, *drawn(kind, *range(12)))
    return visitor, visitor.train()


def complaint(call, *values):
    """The message that a visitor reads."""
    with pytest.raises(gr.Error) as raised:
        call(*values)
    assert raised.value.print_exception is False
    return raised.value.message


def zip_of(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in files.items():
            archive.writestr(name, file if isinstance(file, bytes) else encoded(file))
    return content.getvalue()


def encoded(picture):
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


# ---- classes ---------------------------------------------------------------------------------------------------------


def test_an_empty_form_has_two_classes_named_in_the_visitors_language(room, visitor):
    intro, *board = visitor.start()
    assert intro == ENGLISH("teach.intro", name="frozen")
    assert classes_of(board) == {name: [] for name in CLASSES}
    assert "0 photos of 2 classes" in board[0]
    intro, *board = visitor_of(room, "zh-CN").start()
    assert intro == CHINESE("teach.intro", name="frozen")
    assert list(classes_of(board)) == ["类别 1", "类别 2"]


def test_opening_the_page_again_changes_nothing(visitor, drawn):
    board = visitor.add(0, *drawn("ants", 0))
    assert classes_of(visitor.start()[1:]) == classes_of(board)


def test_classes_can_be_added_up_to_a_number_under_names_that_are_free(visitor):
    visitor.rename(0, "class 3")
    boards = [visitor.add_class() for _ in range(MOST_CLASSES - 2)]
    names = list(classes_of(boards[-1]))
    assert names[:3] == ["class 3", "class 2", "class 4"]
    assert len(set(names)) == MOST_CLASSES
    assert "remove one first" in complaint(visitor.add_class)


def test_a_class_gets_another_name_and_keeps_its_photos(visitor, drawn):
    before = classes_of(visitor.add(1, *drawn("bees", 0)))
    board = visitor.rename(1, "  wild\nbees ")
    assert classes_of(board) == {CLASSES[0]: [], "wild bees": before[CLASSES[1]]}
    assert classes_of(visitor.rename(1, "wild bees")) == classes_of(board), "leaving the field changes nothing"


@pytest.mark.parametrize("name", ["", " ", "x" * 41, "a/b", CLASSES[0]])
def test_a_name_that_will_not_do_is_refused_and_the_old_one_stays(visitor, name):
    assert complaint(visitor.rename, 1, name).startswith("That did not work: ")
    assert list(visitor.session.dataset.label_names) == CLASSES


def test_a_class_goes_with_its_photos_and_two_are_always_there(visitor, drawn):
    visitor.add(0, *drawn("ants", 0))
    visitor.add(1, *drawn("bees", 0))
    board = visitor.remove(0)
    assert counts_of(board) == {CLASSES[1]: 1, "class 3": 0}
    assert counts_of(visitor.remove(0)) == {"class 3": 0, "class 2": 0}


@pytest.mark.parametrize("call", ["rename", "remove", "upload", "delete"])
def test_what_is_asked_of_a_class_that_is_gone_is_said_and_changes_nothing(visitor, drawn, call):
    board = visitor.add(1, *drawn("bees", 0))
    values = {"rename": ["ants"], "remove": [], "upload": [[]], "delete": [[]]}[call]
    assert "this class is gone already" in complaint(getattr(visitor, call), 2, *values)
    assert classes_of(visitor.start()[1:]) == classes_of(board)


# ---- photos ----------------------------------------------------------------------------------------------------------


def test_photos_join_the_class_that_they_were_dropped_on_and_the_uploads_go_with_the_visitor(visitor, drawn):
    ants, bees = drawn("ants", 0, 1), drawn("bees", 0)
    assert counts_of(visitor.add(0, *ants)) == {CLASSES[0]: 2, CLASSES[1]: 0}
    board = visitor.add(1, *bees)
    assert counts_of(board) == {CLASSES[0]: 2, CLASSES[1]: 1}
    assert board[0].startswith(ENGLISH("teach.added", count=1))
    assert "3 photos of 2 classes" in board[0]
    assert all(file.exists() for file in (*ants, *bees)), "another tab may show them"
    assert [one.name for one in visitor.session.dataset.classes[0].examples] == ["ants0.png", "ants1.png"]
    visitor.leave()
    assert not any(file.exists() for file in (*ants, *bees))


def test_a_photo_is_shown_small_and_without_what_its_camera_wrote_into_it(visitor, upload):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    exif[ExifTags.Base.Model] = "camera"
    path = upload(b"", "photo.jpg")
    draw("ants", 0, 900).save(path, exif=exif)
    assert b"camera" in path.read_bytes()
    ((shown,), _) = classes_of(visitor.add(0, path)).values()
    with Image.open(shown) as picture:
        assert max(picture.size) <= THUMBNAIL_SIDE
        assert dict(picture.getexif()) == {}
    assert b"camera" not in Path(shown).read_bytes()
    assert Path(shown).parent == visitor.session.folder


def test_what_is_no_photo_is_left_out_with_the_reason_and_the_others_join(visitor, drawn, upload, gradio_folder):
    broken = upload(b"no photo at all", "<b>notes.png")
    (ant,) = drawn("ants", 0)
    board = visitor.add(0, broken, ant)
    assert counts_of(board)[CLASSES[0]] == 1
    assert "1 photos were added, 1 files were not" in board[0]
    assert "notes" in board[0]
    assert "<b>" not in board[0]
    assert str(gradio_folder) not in board[0]


def test_the_pictures_that_a_gallery_shows_already_are_not_added_again_and_stay(visitor, drawn):
    before = classes_of(visitor.add(0, *drawn("ants", 0, 1)))
    board = visitor.add(0, *drawn("ants", 2))
    assert counts_of(board)[CLASSES[0]] == 3
    assert classes_of(board)[CLASSES[0]][:2] == before[CLASSES[0]]
    assert all(Path(path).is_file() for path in classes_of(board)[CLASSES[0]])
    assert classes_of(visitor.upload(0, shown_on(visitor, 0))) == classes_of(board)


def test_the_same_photo_is_added_once(visitor, drawn):
    (ant,) = drawn("ants", 0)
    assert counts_of(visitor.add(0, ant, ant))[CLASSES[0]] == 1
    board = visitor.add(0, *drawn("ants", 0))
    assert counts_of(board)[CLASSES[0]] == 1
    assert board[0].startswith(ENGLISH("teach.added", count=0))


def test_a_photo_of_another_class_is_left_out_with_the_reason_and_the_others_join(visitor, drawn):
    visitor.add(0, *drawn("ants", 0))
    board = visitor.add(1, *drawn("ants", 0), *drawn("bees", 0))
    assert counts_of(board) == {CLASSES[0]: 1, CLASSES[1]: 1}
    assert "the same picture as one of class 1" in board[0]


def test_of_too_many_photos_as_many_join_as_there_is_room_for(visitor, drawn, monkeypatch):
    monkeypatch.setattr(data_archive, "MOST_PHOTOS_OF_CLASS", 2)
    monkeypatch.setattr(fewshot_data, "MOST_PHOTOS_OF_CLASS", data_archive.MOST_PHOTOS_OF_CLASS)
    board = visitor.add(0, *drawn("ants", 0, 1, 2, 3))
    assert counts_of(board)[CLASSES[0]] == 2
    assert "2 photos were added, 2 files were not" in board[0]
    assert "at most 2 of a class" in board[0]


def test_deleting_takes_out_exactly_the_photo_that_disappeared(visitor, drawn):
    before = classes_of(visitor.add(0, *drawn("ants", 0, 1, 2)))[CLASSES[0]]
    visitor.add(1, *drawn("bees", 0))
    left = shown_on(visitor, 0)
    del left[1]
    board = visitor.delete(0, left)
    assert classes_of(board)[CLASSES[0]] == [before[0], before[2]]
    assert counts_of(board)[CLASSES[1]] == 1
    assert counts_of(visitor.delete(0, [])) == {CLASSES[0]: 0, CLASSES[1]: 1}


def test_photos_are_found_again_where_the_folder_of_uploads_is_reached_through_a_link(
    models, tmp_path, drawn, gradio_folder, monkeypatch
):
    (tmp_path / "link").symlink_to(gradio_folder)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "link"))
    visitor = visitor_of(FewShotForm(registry_of(models, None), Sessions(tmp_path / "link" / "linked")))
    visitor.add(0, *drawn("ants", 0))
    assert counts_of(visitor.add(0, *drawn("ants", 1)))[CLASSES[0]] == 2
    assert counts_of(visitor.delete(0, shown_on(visitor, 0)))[CLASSES[0]] == 2
    assert counts_of(visitor.delete(0, shown_on(visitor, 0)[:1]))[CLASSES[0]] == 1


def test_features_of_two_models_are_never_mixed(visitor, drawn, models, tmp_path):
    board = visitor.add(0, *drawn("ants", 0))
    others = ui.load_models([write_model(tmp_path / "frozen", "frozen", seed=1)], device="cpu")
    later = Visitor(FewShotForm(registry_of(others, None), visitor.room.sessions), visitor.request)
    assert "embedded by another model" in complaint(later.add, 0, *drawn("ants", 1))
    assert classes_of(visitor.start()[1:]) == classes_of(board)


# ---- a zip -----------------------------------------------------------------------------------------------------------


def test_a_zips_folders_join_the_classes_and_those_without_photos_make_way(visitor, drawn, upload):
    visitor.rename(0, "ants")
    visitor.add(0, *drawn("ants", 0))
    files = {f"{kind}/{number}.png": photo(kind, number) for kind in ("ants", "bees") for number in (1, 2)}
    path = upload(zip_of(**files, **{"bees/notes.txt": b"notes"}), "photos.zip")
    board = visitor.unzip(sent(path))
    assert counts_of(board) == {"ants": 3, "bees": 2}
    assert "4 photos were added, 1 files were not: bees/notes.txt" in board[0]
    assert not path.exists()


@pytest.mark.parametrize(
    ("classes", "sentence"), [(("蚂蚁", "蜜蜂", "瓢虫"), "read as GBK."), (("蜜蜂",), "is not sure")]
)
def test_class_names_in_another_encoding_are_read_and_the_page_says_which(visitor, upload, classes, sentence):
    files = {f"{name}/1.png".encode("gbk"): encoded(photo("ants", number)) for number, name in enumerate(classes, 1)}
    board = visitor.unzip(sent(upload(zip_with_names(files), "photos.zip")))
    assert {name: count for name, count in counts_of(board).items() if count} == dict.fromkeys(classes, 1)
    assert sentence in board[0]


def test_the_visitors_language_decides_how_names_in_doubt_are_read(room, upload):
    zipped = zip_with_names(
        {"개미/1.png".encode("cp949"): encoded(photo("ants", 1)), "벌/1.png".encode("cp949"): encoded(photo("bees", 1))}
    )
    board = visitor_of(room, "ko-KR,ko;q=0.9").unzip(sent(upload(zipped, "photos.zip")))
    assert set(counts_of(board)) >= {"개미", "벌"}


def test_what_is_no_zip_is_said_deleted_and_changes_nothing(visitor, drawn, upload):
    board = visitor.add(0, *drawn("ants", 0))
    path = upload(b"no zip", "photos.zip")
    assert "no zip that can be read" in complaint(visitor.unzip, sent(path))
    assert not path.exists()
    assert classes_of(visitor.start()[1:]) == classes_of(board)


# ---- a correction ----------------------------------------------------------------------------------------------------


@pytest.fixture
def messages(monkeypatch):
    """What the page says beside what it shows."""
    said = []
    monkeypatch.setattr(teach.gr, "Info", said.append)
    return said


def test_a_correction_takes_the_place_of_an_empty_class_then_makes_one_then_joins(visitor, drawn, messages):
    visitor.add(0, *drawn("ants", 0))
    (first, second) = drawn("bees", 0, 1)
    assert counts_of(visitor.correct(sent(first), "bees")) == {CLASSES[0]: 1, "bees": 1}
    assert counts_of(visitor.correct(sent(second), "wasps")) == {CLASSES[0]: 1, "bees": 1, "wasps": 1}
    (third,) = drawn("bees", 2)
    assert counts_of(visitor.correct(sent(third), "bees")) == {CLASSES[0]: 1, "bees": 2, "wasps": 1}
    assert messages[-1] == ENGLISH("teach.corrected", name="bees", count=2)
    assert first.exists(), "the other tab still shows it"


def test_a_correction_finds_its_class_however_the_name_is_spelled(visitor, drawn, messages):
    (first, second) = drawn("bees", 0, 1)
    visitor.correct(sent(first), "Ka\u0308fer")
    assert counts_of(visitor.correct(sent(second), "Ka\u0308fer")) == {"Käfer": 2, CLASSES[1]: 0}


def test_a_correction_without_a_photo_or_a_class_asks_for_it(visitor, drawn):
    (bee,) = drawn("bees", 0)
    for values in ((sent(bee), None), (None, "bees")):
        assert complaint(visitor.correct, *values) == ENGLISH("teach.failed", error=ENGLISH("teach.which"))
    assert visitor.session.dataset.counts == dict.fromkeys(CLASSES, 0)


def test_a_correction_that_another_class_has_changes_nothing(visitor, drawn):
    board = visitor.add(0, *drawn("bees", 0))
    assert "the same picture as one of class 1" in complaint(visitor.correct, sent(drawn("bees", 0)[0]), "bees")
    assert classes_of(visitor.start()[1:]) == classes_of(board)


# ---- training and prediction -----------------------------------------------------------------------------------------


def test_the_result_has_the_accuracy_and_its_interval(learned):
    visitor, (message, download) = learned
    record = visitor.session.result.report.model_dump()
    low, high = record["interval"]
    values = {"accuracy": f"{record['accuracy']:.0%}", "count": 24, "low": f"{low:.0%}", "high": f"{high:.0%}"}
    assert message == ENGLISH("teach.result", **values)
    assert low < record["accuracy"] < high
    assert result_sentence(visitor.session.result, CHINESE) == CHINESE("teach.result", **values)
    assert download.interactive


def test_of_one_photo_a_class_nothing_is_known_and_of_few_no_neither(visitor, drawn):
    for place, kind in enumerate(("ants", "bees")):
        visitor.add(place, *drawn(kind, 0))
    assert visitor.train()[0] == ENGLISH("teach.result.unknown")
    for place, kind in enumerate(("ants", "bees")):
        visitor.add(place, *drawn(kind, 1))
    message, _ = visitor.train()
    assert "of 4 photos" in message
    assert ENGLISH("teach.result.no_limit") in message
    verdict, *_ = visitor.predict(sent(drawn("ants", 5)[0]))
    assert ENGLISH("classify.unknown") in verdict


def test_training_without_photos_of_a_class_is_refused_with_the_reason(visitor, drawn):
    visitor.add(0, *drawn("ants", 0))
    assert complaint(visitor.train) == ENGLISH(
        "teach.failed", error="class 2 has no photos: add some, or remove the class"
    )
    assert visitor.session.result is None


def test_a_photo_is_answered_with_the_nearest_of_the_visitors_own_pictures(learned, drawn):
    visitor, _ = learned
    (path,) = drawn("bees", 3)
    verdict, probabilities, gallery = visitor.predict(sent(path))
    explanation = visitor.session.result.classifier.explain(photo("bees", 3), NEIGHBOURS)
    assert explanation.prediction.label in verdict
    assert probabilities.value["label"] == explanation.prediction.label
    assert probabilities.visible
    own = [
        str(visitor.session.thumbnail_path(one)) for known in visitor.session.dataset.classes for one in known.examples
    ]
    shown = [(item["image"]["path"], item["caption"]) for item in gallery.value]
    assert {path for path, _ in shown} <= set(own)
    assert [caption for _, caption in shown] == [f"{one.label} {one.distance:.2f}" for one in explanation.neighbours]
    assert shown[0][0] == own[12 + 3], "the photo itself is the nearest"
    assert path.exists(), "it is still shown"


def test_an_out_of_distribution_photo_is_neither(learned, upload):
    visitor, _ = learned
    verdict, *_ = visitor.predict(sent(upload(SOMETHING_ELSE)))
    assert ENGLISH("classify.neither") in verdict


def test_pictures_that_were_taken_out_since_are_no_neighbours(visitor, drawn):
    for place, kind in enumerate(("ants", "bees")):
        visitor.add(place, *drawn(kind, 0, 1))
    visitor.train()
    visitor.delete(0, [])
    *_, gallery = visitor.predict(sent(drawn("ants", 0)[0]))
    assert [item["caption"].split()[0] for item in gallery.value] == ["class"] * 2
    assert {item["image"]["path"] for item in gallery.value} == {
        str(visitor.session.thumbnail_path(one)) for one in visitor.session.dataset.classes[1].examples
    }


def test_a_photo_that_was_asked_about_is_asked_again_once_more_was_learned_and_though_it_was_learned(visitor, drawn):
    for place, kind in enumerate(("ants", "bees")):
        visitor.add(place, *drawn(kind, 0))
    visitor.train()
    (asked,) = drawn("ants", 7)
    visitor.predict(sent(asked))
    visitor.add(0, asked)
    _, _, verdict, *_ = visitor.train(sent(asked))
    assert verdict.startswith("#")
    visitor.leave()
    assert not asked.exists()


def test_without_a_photo_there_is_no_answer(learned):
    visitor, _ = learned
    verdict, probabilities, gallery = visitor.predict(None)
    assert (verdict, probabilities.visible, gallery.visible) == ("", False, False)
    _, _, verdict, probabilities, gallery = visitor.room.train(None, visitor.request)
    assert (verdict, probabilities.visible, gallery.visible) == ("", False, False)


def test_a_photo_that_is_gone_costs_nothing_of_what_was_learned(visitor, drawn):
    for place, kind in enumerate(("ants", "bees")):
        visitor.add(place, *drawn(kind, 0))
    (asked,) = drawn("ants", 7)
    asked.unlink()
    with pytest.warns(UserWarning, match="not there"):  # what a browser would show
        message, download, verdict, *_ = visitor.train(sent(asked))
    assert message == ENGLISH("teach.result.unknown")
    assert Path(download.value["path"]).is_file()
    assert verdict == ""


@pytest.mark.parametrize(("language", "translate"), [("en", ENGLISH), ("zh-CN,en;q=0.5", CHINESE)])
def test_before_training_prediction_and_push_are_refused_in_the_visitors_language(room, drawn, language, translate):
    visitor = visitor_of(room, language)
    message = translate("teach.failed", error=translate("teach.untrained"))
    assert complaint(visitor.predict, sent(drawn("ants", 0)[0])) == message
    assert complaint(visitor.push, "visitor/mine", VISITORS) == message


# ---- the base model --------------------------------------------------------------------------------------------------


def test_the_base_model_is_a_frozen_one_if_any_else_the_first():
    shown = [SimpleNamespace(config=SimpleNamespace(mode=mode)) for mode in ("finetune", None, "frozen")]
    registry = registry_of((), None)
    for models, expected in ((shown, shown[2]), (shown[:2], shown[0])):
        registry.snapshot = ui.Snapshot(tuple(models))
        assert registry.base_model() is expected


def test_without_a_model_photos_are_embedded_by_the_weights_that_come_by_pip(tmp_path):
    visitor = visitor_of(FewShotForm(registry_of((), None), Sessions(tmp_path)))
    intro, *board = visitor.start()
    assert "EfficientNet-Lite0" in intro
    assert len(classes_of(board)) == 2
    base = visitor.room.registry.base_model().classifier
    assert base.config.architecture == PACKAGED
    assert base.features([photo("ants", 3)]).shape == (1, 1280)


# ---- a model to take away --------------------------------------------------------------------------------------------


def test_the_zip_is_a_whole_model_that_answers_the_same_and_holds_no_picture(learned, tmp_path):
    visitor, (_, download) = learned
    path = Path(download.value["path"])
    assert path.parent == visitor.session.folder
    with zipfile.ZipFile(path) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".md", ".safetensors"}
        archive.extractall(tmp_path)
    loaded = Classifier.from_pretrained(tmp_path / MODEL_FOLDER, device="cpu")
    photos = [photo("ants", 3), photo("bees", 50), SOMETHING_ELSE]
    assert loaded.predict(photos) == visitor.session.result.classifier.predict(photos)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that is logged in to the Hub, by an account that must never be used; with no Hub to reach yet."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", MACHINES)
    monkeypatch.delenv("HF_OIDC_RESOURCE", raising=False)
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "AGENT_HARNESSES_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / "home" / name))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    yield monkeypatch
    huggingface_hub.close_session()


@pytest.fixture
def hub(machine, tmp_path):
    """A Hub that knows the machine's account and the visitor's as two."""
    with LoopbackHub(tmp_path / "hub", tokens=(VISITORS,), user="visitor") as running:
        machine.setattr(constants, "ENDPOINT", running.url)
        yield running


@pytest.mark.parametrize("typed", ["", "  \n"])
def test_nothing_is_pushed_without_the_visitors_own_token_though_the_machine_has_one(learned, machine, typed):
    machine.setattr(antbee.hub, "push", lambda *values, **options: pytest.fail("it was pushed"))
    assert huggingface_hub.get_token() == MACHINES
    visitor, _ = learned
    message = complaint(visitor.push, "visitor/mine", typed)
    assert message == ENGLISH("teach.failed", error=ENGLISH("teach.no_token"))


SIGNED_IN = gr.OAuthToken(VISITORS, "write-repos", 0)


@pytest.mark.parametrize(("typed", "signed_in"), [(f" {VISITORS}\n", None), (VISITORS, gr.OAuthToken("hf_old", "", 0))])
def test_a_model_lands_on_the_hub_with_the_visitors_token_which_nobody_is_told(learned, hub, typed, signed_in):
    visitor, _ = learned
    message, field = visitor.push(" visitor/mine ", typed, private=True, signed_in=signed_in)
    repository = hub.repositories["model", "visitor/mine"]
    assert message == ENGLISH("teach.pushed", address=f"{hub.url}/visitor/mine/commit/{repository.head.oid}")
    assert field == ""
    assert repository.private
    assert repository.head.files.keys() == {"README.md", "config.json", "model.safetensors", "neighbours.safetensors"}
    assert all(status < 400 or status == 404 for _, _, status in hub.requests)
    assert VISITORS not in str(hub.requests)


def test_whoever_signed_in_needs_to_type_no_token(learned, machine):
    used = []
    machine.setattr(antbee.hub, "push", lambda *values, **options: used.append(options) or "address")
    visitor, _ = learned
    assert visitor.push(signed_in=SIGNED_IN) == [ENGLISH("teach.pushed", address="address"), ""]
    assert used == [{"private": False, "token": VISITORS}]


@pytest.mark.parametrize("token", ["hf_unknown", MACHINES, "hf_with a space"])
def test_a_token_that_the_hub_refuses_is_said_without_it(learned, hub, token):
    visitor, _ = learned
    message = complaint(visitor.push, "visitor/mine", token)
    assert message.startswith("That did not work: ")
    assert "token" in message
    assert token not in message
    assert hub.repositories == {}


def test_a_name_that_no_repository_can_have_is_said(learned, machine):
    visitor, _ = learned
    assert "does not name an owner" in complaint(visitor.push, "mine", VISITORS)


# ---- what is not theirs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["upload", "delete", "unzip", "correct", "predict"])
def test_a_file_that_was_not_uploaded_is_refused_and_left_alone(visitor, tmp_path, call):
    path = tmp_path / "private.png"
    photo("ants", 0).save(path)
    values = {"upload": [0, [in_gallery(path)]], "delete": [0, [in_gallery(path)]], "correct": [sent(path), "ants"]}
    message = complaint(getattr(visitor, call), *values.get(call, [sent(path)]))
    assert "not an uploaded file" in message
    assert "private" not in message
    assert path.exists()
    assert len(visitor.session.dataset) == 0


def test_a_folder_of_uploads_is_no_photo_and_is_left_alone(visitor, drawn):
    (ant,) = drawn("ants", 0)
    board = visitor.add(0, ant.parent)
    assert counts_of(board)[CLASSES[0]] == 0
    assert "1 files were not" in board[0]
    assert ant.exists()


def test_what_goes_wrong_is_said_in_the_visitors_language(room, upload):
    visitor = visitor_of(room, "zh-CN")
    for message in (complaint(visitor.rename, 0, ""), complaint(visitor.unzip, sent(upload(b"", "a.zip")))):
        assert message.startswith(CHINESE("teach.failed", error=""))


def test_two_visitors_see_nothing_of_each_other(learned, room, drawn):
    first, _ = learned
    second = visitor_of(room)
    before = classes_of(first.start()[1:])
    board = second.add(0, *drawn("ants", 0), *drawn("bees", 20))
    pictures = [{path for shown in classes_of(one).values() for path in shown} for one in (first.start()[1:], board)]
    assert not pictures[0] & pictures[1], "not even of the photo that both have"
    assert ENGLISH("teach.untrained") in complaint(second.predict, sent(drawn("ants", 0)[0]))
    second.clear()
    second.leave()
    assert classes_of(first.start()[1:]) == before
    assert all(Path(path).is_file() for path in pictures[0])
    assert first.session.result is not None


def test_starting_again_and_leaving_delete_everything(visitor, drawn):
    for end in (visitor.clear, visitor.leave):
        for place, kind in enumerate(("ants", "bees")):
            visitor.add(place, *drawn(kind, 0))
        _, download = visitor.train()
        (asked,) = drawn("bees", 5)
        visitor.predict(sent(asked))
        files = [Path(download.value["path"]), *visitor.session.folder.iterdir()]
        assert all(path.exists() for path in files)
        session, shown = visitor.session, end()
        assert (len(session.dataset), session.result) == (0, None)
        assert not any(path.exists() for path in files)
        assert asked.exists() == (shown is not None), "it is still shown with the new form"
        assert ENGLISH("teach.untrained") in complaint(visitor.predict, sent(drawn("ants", 0)[0]))
        if shown is not None:
            *board, result, download = shown
            assert classes_of(board) == {name: [] for name in CLASSES}
            assert (result, download.interactive) == ("", False)


NO_SESSION = [None, ""]
REQUESTS = {
    "start": [],
    "add_class": [],
    "clear": [],
    "rename": [0, "ants"],
    "remove": [0],
    "upload": [0, []],
    "delete": [0, []],
    "unzip": [None],
    "correct": [None, "ants"],
    "train": [],
    "predict": [None],
}


@pytest.mark.parametrize("session", NO_SESSION)
def test_requests_without_a_session_hash_are_refused(room, session):
    nobody = Visitor(room, SimpleNamespace(session_hash=session, headers={}))
    sessions = len(room.sessions)
    for name, values in REQUESTS.items():
        assert "no session came" in complaint(getattr(nobody, name), *values), name
    assert "no session came" in complaint(nobody.push, "visitor/mine", VISITORS)
    assert nobody.leave() is None
    assert len(room.sessions) == sessions


# ---- over HTTP -------------------------------------------------------------------------------------------------------


def ask_page(url, page, name, values, session):
    """What a handler gives to a browser of this session, through Gradio's queue."""
    number = next(number for number, one in page.fns.items() if getattr(one.fn, "__qualname__", "") == name)
    body = json.dumps({"data": values, "fn_index": number, "session_hash": session}).encode()
    asked = urllib.request.Request(f"{url}gradio_api/queue/join", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(asked, timeout=20).close()
    with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash={session}", timeout=20) as answer:
        for line in answer:
            message = json.loads(line.removeprefix(b"data: ") or b"{}") if line.startswith(b"data: ") else {}
            if message.get("msg") == "process_completed":
                return message["output"]
    return pytest.fail("no answer came")


def test_what_a_browser_was_shown_is_gone_once_it_is_closed_and_pictures_are_nobody_elses_to_find(
    models, drawn, gradio_folder
):
    page = ui.build_page(registry_of(models, None))
    visitors = gradio_folder / "visitors"
    before = set(visitors.iterdir()) if visitors.exists() else set()
    with serving(page) as url:
        with urllib.request.urlopen(f"{url}gradio_api/heartbeat/closing", timeout=20) as heart:
            heart.readline()
            output = ask_page(url, page, "FewShotForm.upload", [None, [in_gallery(drawn("ants", 0)[0])]], "closing")
            (folder,) = set(visitors.iterdir()) - before
            (picture,) = output["data"][1]
            address = f"{url}gradio_api/file={picture['image']['path']}"
            assert Path(picture["image"]["path"]).parent == folder, "no copy of it is made"
            with urllib.request.urlopen(address, timeout=20) as shown:
                assert shown.read() == next(folder.iterdir()).read_bytes()
            for path in (folder, visitors):
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(f"{url}gradio_api/file={path}", timeout=20)
        deadline = time.monotonic() + 20
        while folder.exists():
            assert time.monotonic() < deadline
            ask_page(url, page, "FewShotForm.start", [], "another")


def test_every_handler_fills_what_the_page_shows_of_it_and_says_what_it_can_not_do(models, drawn, upload):
    page = ui.build_page(registry_of(models, None))
    (ant, bee, asked) = drawn("ants", 0)[0], drawn("bees", 0)[0], drawn("bees", 1)[0]
    zipped = sent(upload(zip_of(**{"wasps/1.png": photo("bees", 2)}), "photos.zip"))
    calls = [
        ("FewShotForm.start", []),
        ("FewShotForm.rename", [None, "ants"]),
        ("FewShotForm.upload", [None, [in_gallery(ant)]]),
        ("FewShotForm.delete", [None, []]),
        ("FewShotForm.remove", [None]),
        ("FewShotForm.add_class", []),
        ("FewShotForm.correct", [sent(bee), "bees"]),
        ("FewShotForm.unzip", [zipped]),
        ("FewShotForm.train", [sent(asked)]),
        ("FewShotForm.predict", [sent(asked)]),
        ("FewShotForm.clear", []),
    ]
    with serving(page) as url:
        for name, values in calls:
            output = ask_page(url, page, name, values, "visitor")
            assert "error" not in output, name
            assert None not in output["data"][:1], name
        output = ask_page(url, page, "FewShotForm.push", ["visitor/mine", "", False], "visitor")
        assert output["error"] == ENGLISH("teach.failed", error=ENGLISH("teach.untrained"))
