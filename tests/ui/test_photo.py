"""How photos come to the page's handlers, and go back: only what was uploaded is opened."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image, ImageChops

from antbee.data.drawn import draw
from antbee.data.images import DataError, open_photo
from antbee.models.classifier import Neighbour, Prediction
from antbee.ui.components import (
    NEIGHBOUR_SIDE,
    files_of,
    heat_map,
    neighbour_pictures,
    photo_of,
    shown_probabilities,
    uploaded,
)
from antbee.ui.i18n import CHINESE

pytestmark = pytest.mark.usefixtures("gradio_folder")


def upload(folder, name="photo.png"):
    """A photo as a browser's upload leaves it: the file, and what the browser then sends."""
    path = folder / "0123456789abcdef" / name
    path.parent.mkdir(exist_ok=True)
    draw("bees", 0, 64).save(path)
    return path, {"path": str(path), "meta": {"_type": "gradio.FileData"}}


# ---- uploads ---------------------------------------------------------------------------------------------------------


def test_an_upload_is_opened_and_no_upload_is_no_photo(gradio_folder):
    path, sent = upload(gradio_folder)
    assert photo_of(sent).tobytes() == open_photo(path).tobytes()
    assert files_of([sent, sent]) == [path, path]
    assert photo_of(None) is None


@pytest.mark.parametrize("content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut", b"<svg/>"])
def test_what_is_no_photo_is_told_in_a_sentence_with_a_remedy_in_the_visitors_language(gradio_folder, content):
    path, sent = upload(gradio_folder)
    path.write_bytes(content)
    with pytest.raises(gr.Error, match=r"This file can't be used: .*\. Try a JPEG or PNG photo\.") as raised:
        photo_of(sent)
    assert str(gradio_folder) not in raised.value.message
    with pytest.raises(gr.Error, match=r"无法使用这个文件.*请换一张 JPEG 或 PNG 照片"):
        photo_of(sent, CHINESE)


@pytest.mark.parametrize("name", ["gone.png", ".", "a" * 5000])
def test_an_upload_that_is_no_file_any_more_is_told_so(gradio_folder, name):
    with pytest.raises(gr.Error, match=r"This file can't be used: .*\. Try a JPEG or PNG photo\."):
        photo_of({"path": str(gradio_folder / name)})


OUTSIDE = {
    "a file of the system": "/etc/passwd",
    "a picture elsewhere": "{elsewhere}",
    "a path that climbs out": "{uploads}/../private.png",
    "a relative path": "private.png",
    "a relative path that climbs": "../private.png",
    "a folder whose name begins alike": "{uploads}-private/private.png",
    "an address": "http://127.0.0.1/private.png",
    "a name that ends early": "{uploads}/private.png\0.png",
    "half a letter": "{uploads}/\ud800.png",
    "nothing": "",
}


@pytest.fixture
def private(gradio_folder, monkeypatch):
    """A picture that lies beside the uploads under every name that a call might try."""
    path = gradio_folder.parent / "private.png"
    others = [path, gradio_folder.with_name(f"{gradio_folder.name}-private") / path.name]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        draw("ants", 0, 64).save(other)
    monkeypatch.chdir(path.parent)
    yield path
    for other in others:
        other.unlink()


def refuses(sent):
    with pytest.raises(DataError, match=r"^not an uploaded file$"):
        uploaded(sent)
    with pytest.raises(gr.Error, match="This file can't be used: not an uploaded file") as raised:
        files_of([sent])
    assert "private" not in raised.value.message
    return True


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_file_that_was_not_uploaded_is_never_opened(gradio_folder, private, name):
    path = OUTSIDE[name].format(elsewhere=private, uploads=gradio_folder)
    assert refuses({"path": path})
    assert refuses({"path": path, "meta": {"_type": "gradio.FileData"}})
    with pytest.raises(gr.Error, match="not an uploaded file"):
        photo_of({"path": path})


def test_a_link_in_the_uploads_leads_nowhere_else(gradio_folder, private):
    link = gradio_folder / "link.png"
    link.symlink_to(private)
    assert refuses({"path": str(link)})


@pytest.mark.parametrize(
    "sent", [7, True, "photo.png", [1, 2], ["/etc/passwd"], {"path": 7}, {"path": None}, {"path": ["a"]}, {"url": "/"}]
)
def test_what_is_no_upload_at_all_is_refused_in_the_same_words(sent):
    assert refuses(sent)
    with pytest.raises(gr.Error, match="not an uploaded file"):
        photo_of(sent)


def test_one_file_from_elsewhere_among_uploads_stops_them_all(gradio_folder, private):
    _, sent = upload(gradio_folder)
    with pytest.raises(gr.Error, match="not an uploaded file"):
        files_of([sent, {"path": str(private)}])


# ---- what goes back --------------------------------------------------------------------------------------------------


def test_the_neighbours_are_shown_small_with_their_class_and_their_distance(models, photos):
    found = models[0].classifier.explain(draw("ants", 1, 320)).neighbours
    pictures = neighbour_pictures(found, photos)
    assert [caption for _, caption in pictures] == [f"{one.label} {one.distance:.2f}" for one in found]
    for (picture, _), neighbour in zip(pictures, found, strict=True):
        assert min(picture.size) <= NEIGHBOUR_SIDE
        assert picture.tobytes() == open_photo(photos.root / neighbour.name, shorter_side=NEIGHBOUR_SIDE).tobytes()


def test_a_neighbour_is_never_a_file_from_outside_the_folder_that_is_shown(photos, tmp_path):
    draw("ants", 0, 64).save(tmp_path / "private.png")
    named = [*photos.train.names(photos.root)[:1], "../private.png", str(tmp_path / "private.png"), "val/../x.png"]
    neighbours = [Neighbour(name, "ants", 0.5) for name in named]
    assert len(neighbour_pictures(neighbours, photos)) == 1
    assert neighbour_pictures(neighbours, None) == []


def test_a_training_photo_that_is_gone_costs_no_answer(photos):
    gone = replace(photos, train=replace(photos.train, paths=tuple(path / "gone" for path in photos.train.paths)))
    names = photos.train.names(photos.root)
    assert neighbour_pictures([Neighbour(f"{names[0]}/gone", "ants", 0.1)], gone) == []


def test_a_heat_map_is_the_photo_with_the_places_of_one_class_glowing_in_it(models):
    photo, classifier = draw("bees", 3, 200), models[0].classifier
    explanation = classifier.explain(photo)
    ants, bees = (heat_map(classifier, photo, explanation, name) for name in ("ants", "bees"))
    assert ants.size == bees.size == photo.size
    for glowing in (ants, bees):
        assert ImageChops.difference(glowing, photo).getbbox() is not None
    assert ants.tobytes() != bees.tobytes()


def test_a_heat_map_glows_fully_where_the_class_is_strongest_however_weak_that_is(models):
    photo, classifier = Image.new("RGB", (200, 200), "grey"), models[0].classifier
    explanation = classifier.explain(photo)
    weaker = {name: places / 10 for name, places in explanation.activation_maps.items()}
    strong, weak = (
        heat_map(classifier, photo, one, "ants") for one in (explanation, replace(explanation, activation_maps=weaker))
    )
    assert strong.tobytes() == weak.tobytes()


def test_class_names_that_are_no_valid_unicode_reach_a_browser_as_text():
    prediction = Prediction("ants", {"ants": 0.25, "b\udcff": 0.75})
    assert shown_probabilities(prediction) == {"ants": 0.25, "b\\udcff": 0.75}


def test_the_folder_of_uploads_is_the_one_that_gradio_uses(gradio_folder):
    path, sent = upload(gradio_folder)
    assert uploaded(sent) == path.resolve()
    assert uploaded({"path": str(Path(sent["path"]).parent / "." / path.name)}) == path.resolve()
