"""The whole page over HTTP: its API with real clients, what its tabs answer to a browser, and what it refuses."""

import csv
import io
import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from exhibits import SMALL, exhibition_of, serving, write_model
from gradio_client import Client, handle_file
from PIL import Image

from antbee import ui
from antbee.classifier import model_folders
from antbee.drawn import draw
from antbee.figures import MODE_COLOURS
from antbee.images import open_photo
from antbee.ui.classify import MOST_PHOTOS, classify, classify_several
from antbee.ui.exhibition import how_to_train
from antbee.ui.words import CHINESE, ENGLISH

ROOT = Path(__file__).resolve().parents[1]
FRIENDLY = "This file can't be used: not an uploaded file. Try a JPEG or PNG photo."
META = {"meta": {"_type": "gradio.FileData"}}  # by which Gradio knows a file


@pytest.fixture(scope="module")
def served(exhibit: ui.Exhibit, gradio_folder: Path) -> Iterator[str]:
    """The address of the page with both models and their photos."""
    with serving(ui.build_page(exhibition_of(exhibit.models, exhibit.photos))) as url:
        yield url


# ---- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(served: str, tmp_path: Path) -> Client:
    return Client(served, verbose=False, download_files=str(tmp_path / "downloads"), analytics_enabled=False)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_readmes_ways_to_ask_the_page_answer_as_the_classifier_does(served, models, tmp_path, language):
    if language == "sh" and (shutil.which("bash") is None or shutil.which("curl") is None):
        pytest.skip("needs bash and curl")
    readme = (ROOT / "README.md").read_text("utf-8")
    (code,) = (code for code in re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL) if "7860" in code)
    draw("bees", 0, 200).save(tmp_path / "photo.jpg", quality=95)
    command = {"python": [sys.executable, "-c"], "sh": ["bash", "-c"]}[language]
    asked = code.replace("http://127.0.0.1:7860", served.rstrip("/"))
    ended = subprocess.run([*command, asked], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    for shown in models:
        (prediction,) = shown.classifier.predict([open_photo(tmp_path / "photo.jpg")])
        for name, probability in prediction.probabilities.items():
            assert re.search(rf"['\"]{name}['\"]: {re.escape(f'{probability:.6f}'[:6])}", ended.stdout), ended.stdout


def test_the_api_has_one_endpoint_that_says_what_it_is_for(client):
    ((name, told),) = client.view_api(return_format="dict")["named_endpoints"].items()
    assert name == "/predict"
    assert [parameter["parameter_name"] for parameter in told["parameters"]] == ["photo"]
    assert "Says what is in a photo" in str(client.config["dependencies"])


def test_the_api_answers_as_the_classifier_does(client, models, tmp_path):
    path = tmp_path / "photo.png"
    draw("ants", 5, 300).save(path)
    answers = client.predict(handle_file(path), api_name="/predict")
    assert answers.keys() == {"frozen", "finetune"}
    for shown in models:
        (prediction,) = shown.classifier.predict([open_photo(path)])
        assert answers[shown.name]["label"] == prediction.label
        assert answers[shown.name]["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut", b"<svg/>"])
def test_what_is_no_photo_gets_a_sentence_with_a_remedy(client, tmp_path, content):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(Exception, match=r"This file can't be used: .*Try a JPEG or PNG photo") as raised:
        client.predict(handle_file(tmp_path / "photo.jpg"), api_name="/predict")
    assert str(tmp_path) not in str(raised.value)


# ---- what the browser asks for ---------------------------------------------------------------------------------------


class Caller:
    """A visitor without a browser, who can ask for whatever a browser can."""

    def __init__(self, url: str, language: str = "en") -> None:
        self.url = url
        self.session = secrets.token_hex(8)
        self.http = httpx.Client(base_url=url, headers={"Accept-Language": language}, timeout=30, verify=False)
        self.config = self.http.get("config").json()

    def parts(self, kind: str, key: str = "") -> list[int]:
        """The ids of the parts of a kind that bear a text of this key, in the page's order."""
        return [
            part["id"]
            for part in self.config["components"]
            if part["type"] == kind and f'"{key}"' in f'"" {part["props"].get("label")} {part["props"].get("value")}'
        ]

    def handlers(self, event: str, part: int | None = None) -> list[dict[str, Any]]:
        """What happens upon an event of a part, or of the whole page."""
        return [
            handler
            for handler in self.config["dependencies"]
            if any(target[1] == event and part in (None, target[0]) for target in handler["targets"])
        ]

    def call(self, handler: dict[str, Any], data: list[Any], event_data: Any = None) -> dict[str, Any]:
        """What a handler answers to values of its inputs: {"data": [...]} or {"error": ...}."""
        body = {"data": data, "event_data": event_data, "fn_index": handler["id"], "session_hash": self.session}
        self.http.post("gradio_api/queue/join", json=body).raise_for_status()
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as messages:
            for line in messages.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return message["output"]
        raise AssertionError("no answer came")

    def initial(self, handler: dict[str, Any]) -> list[Any]:
        """The values that a handler's inputs have when the page is opened."""
        props = {part["id"]: part["props"] for part in self.config["components"]}
        return [props[part].get("value") for part in handler["inputs"]]

    def upload(self, *paths: Path) -> list[dict[str, Any]]:
        """What a browser sends of files that it has uploaded."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        return [{"path": path, **META} for path in self.http.post("gradio_api/upload", files=files).json()]


@pytest.fixture(scope="module")
def call_at() -> Iterator[Callable[..., Caller]]:
    """Opens a page, as often as it is asked to."""
    callers: list[Caller] = []

    def begin(*words: str) -> Caller:
        callers.append(Caller(*words))
        return callers[-1]

    yield begin
    for caller in callers:
        caller.http.close()


@pytest.fixture(scope="module")
def caller(served: str, call_at: Callable[..., Caller]) -> Caller:
    return call_at(served)


@dataclass(frozen=True)
class Growing:
    """A page that was opened before there was anything, and where its models will lie."""

    url: str
    exhibition: ui.Exhibition
    outputs: Path


@pytest.fixture(scope="module")
def growing(gradio_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    outputs = tmp_path_factory.mktemp("outputs")
    exhibition = ui.Exhibition(lambda: model_folders(outputs), lambda models: None, device="cpu")
    with serving(ui.build_page(exhibition)) as url:
        yield Growing(url, exhibition, outputs)


def visible_texts(outputs: list[dict[str, Any]]) -> list[str]:
    """What handlers put on the page as text, without what they hide."""
    parts = [part for output in outputs for part in output["data"]]
    shown = [part.get("value") if isinstance(part, dict) and part.get("visible", True) else part for part in parts]
    return [text for text in shown if isinstance(text, str)]


@pytest.mark.parametrize("missing", ["models and photos", "models", "photos", "nothing"])
def test_the_page_opens_whatever_is_missing_and_says_what_to_do_in_the_visitors_language(
    growing, exhibit, call_at, missing
):
    models = () if "models" in missing else exhibit.models
    photos = None if "photos" in missing else exhibit.photos
    growing.exhibition.now = ui.Exhibit(models, photos)
    for language, speech in (("en-GB,en;q=0.9", ENGLISH), ("zh-CN,zh;q=0.9", CHINESE)):
        caller = call_at(growing.url, language)
        outputs = [caller.call(handler, caller.initial(handler)) for handler in caller.handlers("load")]
        assert [output["error"] for output in outputs if "error" in output] == []
        told = visible_texts(outputs)
        assert told.count(how_to_train(speech)) == ("models" in missing) * len(("classify", "report", "teach"))
        assert told.count(speech("page.no_photos", app="python app.py")) == ("photos" in missing)
        drawn = speech("page.drawn", names="frozen + finetune")
        assert any(drawn in text for text in told) == ("models" not in missing)


@pytest.mark.parametrize("missing", ["models and photos", "models", "photos", "nothing"])
def test_the_report_opens_whatever_is_missing(growing, exhibit, call_at, missing):
    models = () if "models" in missing else exhibit.models
    growing.exhibition.now = ui.Exhibit(models, None if "photos" in missing else exhibit.photos)
    caller = call_at(growing.url)
    (report,) = caller.parts("tabitem", "report.tab")
    (answer,) = [handler for handler in caller.handlers("select", report) if handler["inputs"]]
    told = str(caller.call(answer, [None])["data"])
    assert ("McNemar's exact test" in told) == (missing == "nothing")
    assert ("worst mistakes first" in told) == (missing == "nothing")


TRIES: dict[str, Any] = {
    "a picture elsewhere": {"path": "{private}"},
    "a file of the system": {"path": "/etc/passwd"},
    "a way out of the uploads": {"path": "{uploads}/../private.png"},
    "a relative path": {"path": "../private.png"},
    "a name that ends early": {"path": "{private}\0.png"},
    "an address": {"path": "http://127.0.0.1:9/private.png"},
    "an address alone": {"url": "http://127.0.0.1:9/private.png"},
    "a number as a path": {"path": 7},
    "a list as a path": {"path": ["/etc/passwd"]},
    "nothing as a path": {"path": None},
    "a number": 7,
    "a list": ["/etc/passwd"],
    "a text": "/etc/passwd",
}


@pytest.mark.parametrize("name", TRIES)
def test_a_call_that_names_a_file_that_was_not_uploaded_is_refused(caller, gradio_folder, name):
    private = gradio_folder.parent / "private.png"
    draw("bees", 0, 100).save(private)
    sent = TRIES[name]
    if isinstance(sent, dict) and isinstance(path := sent.get("path"), str):
        sent = {"path": path.format(private=private, uploads=gradio_folder)}
    (photo,) = caller.parts("image", "classify.photo")
    (several,) = caller.parts("file", "classify.several.files")
    (answer,), (answer_several,) = caller.handlers("change", photo)[:1], caller.handlers("change", several)
    (predict,) = [handler for handler in caller.config["dependencies"] if handler["api_name"] == "predict"]
    for marked in [sent, sent | META] if isinstance(sent, dict) else [sent]:
        outputs = [
            caller.call(predict, [marked]),
            caller.call(answer, [marked, ["frozen"]]),
            caller.call(answer_several, [[marked], ["frozen"]]),
            caller.call(answer_several, [marked, ["frozen"]]),
        ]
        for output in outputs:
            # What Gradio itself refuses, before antbee is asked, it refuses without a word.
            assert output["error"] in (None, FRIENDLY)
            assert "data" not in output
        if marked is sent and isinstance(sent, dict) and isinstance(sent.get("path", ""), str):
            assert [output["error"] for output in outputs[:2]] == [FRIENDLY] * 2


def test_a_photo_is_answered_in_a_place_for_each_model_beside_what_the_network_sees(caller, models, photos):
    path = photos.val.paths[1]
    (photo,), (crop,) = caller.parts("image", "classify.photo"), caller.parts("image", "classify.crop")
    (answer,) = [handler for handler in caller.handlers("change", photo) if crop in handler["outputs"]]
    seen, *places = caller.call(answer, [*caller.upload(path), None])["data"]
    assert seen["alt_text"] == ENGLISH("classify.crop.alt")
    with Image.open(io.BytesIO(caller.http.get(seen["value"]["url"]).content)) as shown:
        assert shown.size == (SMALL.crop, SMALL.crop)
    for expected, at in zip(classify(open_photo(path), models, photos), (0, 6), strict=True):
        column, title, verdict, _, label, likes = places[at : at + 6]
        assert (column["visible"], title, verdict) == (True, expected.title, expected.verdict)
        told = {one["label"]: one["confidence"] for one in label["confidences"]}
        assert told == pytest.approx(expected.probabilities, abs=1e-6)
        assert [one["caption"] for one in likes["value"]] == [caption for _, caption in expected.neighbours]

    _, *alone = caller.call(answer, [*caller.upload(path), ["finetune"]])["data"]
    assert [alone[at]["visible"] for at in (0, 6)] == [True, False]
    assert alone[1] == places[7]
    seen, *emptied = caller.call(answer, [None, None])["data"]
    assert seen is None
    assert [emptied[at]["visible"] for at in (0, 6)] == [False, False]
    assert "Neither" not in str(emptied)


def test_a_batch_fills_a_place_for_each_answer_and_a_click_opens_the_draws_of_a_photo(caller):
    (size,) = caller.parts("slider", "batches.size")
    (fill,) = caller.handlers("release", size)
    train, val, one = (
        caller.call(fill, [names, split, 4, 7])["data"]
        for names, split in ((None, "train"), (None, "val"), (["finetune"], "val"))
    )
    for filled, titles in (
        (train, ["drawn: train batch 7"]),
        (val, ["frozen: val batch 7", "finetune: val batch 7"]),
        (one, ["finetune: val batch 7"]),
    ):
        missing, *grids, draws = filled
        assert not missing["visible"]
        assert not draws["visible"], "those of another batch's photo"
        assert [grid["label"] for grid in grids if grid["visible"]] == titles
        assert [len(grid["value"]) for grid in grids if grid["visible"]] == [4] * len(titles)
    (drawn,) = caller.parts("gallery", "batches.draws")
    (draw_one,) = [handler for handler in caller.handlers("select") if handler["outputs"] == [drawn]]
    (opened,) = caller.call(draw_one, ["train", 4, 7], {"index": 2, "value": None})["data"]
    assert opened["visible"]
    assert [one["caption"] for one in opened["value"]] == [f"epoch {epoch}" for epoch in range(1, 9)]


def test_a_mode_is_as_reliable_in_its_own_colour_whichever_other_stands_beside_it(caller):
    (plot,) = caller.parts("nativeplot", "report.reliability")
    colour, *_ = [handler for handler in caller.handlers("then") if handler["outputs"] == [plot]]
    both, alone = (caller.call(colour, [names])["data"][0]["color_map"] for names in (None, ["finetune"]))
    assert both["finetune"] == alone["finetune"] == MODE_COLOURS["finetune"]
    assert both["frozen"] == MODE_COLOURS["frozen"]
    assert alone.keys() == {"finetune", "perfect"}


def test_a_visitor_who_chooses_other_models_or_is_shown_new_ones_keeps_the_photo(caller, photos):
    (photo,), (chosen,) = caller.parts("image", "classify.photo"), caller.parts("dropdown", "page.models.shown")
    assert not [handler for handler in caller.handlers("change", chosen) if photo in handler["outputs"]]
    (start,) = [handler for handler in caller.handlers("load") if photo in handler["outputs"]]
    place = start["outputs"].index(photo)
    first, later = (caller.call(start, [there])["data"][place] for there in (None, *caller.upload(photos.val.paths[1])))
    assert first["path"]
    assert later == {"__type__": "update"}, "it stays as it is"


def test_several_photos_are_answered_in_a_table_and_a_file_that_says_the_same(caller, models, photos, tmp_path):
    (tmp_path / "notes.png").write_text("These are notes.")
    paths = [*photos.val.paths[:2], tmp_path / "notes.png"]
    (several,) = caller.parts("file", "classify.several.files")
    (answer,) = caller.handlers("change", several)
    output = caller.call(answer, [caller.upload(*paths), ["frozen", "finetune"]])
    expected = classify_several([(path.name, path) for path in paths], models)
    gallery, table, download = (part["value"] for part in output["data"])
    assert table["headers"] == list(expected.columns)
    assert [tuple(row) for row in table["data"]] == list(expected.rows)
    assert [one["caption"] for one in gallery] == [caption for _, caption in expected.pictures]
    fetched = caller.http.get(download["url"])
    assert fetched.content.startswith(b"\xef\xbb\xbf"), "the mark by which spreadsheets know UTF-8"
    rows = list(csv.reader(io.StringIO(fetched.content.decode("utf-8-sig"), newline="")))
    assert rows == [list(expected.columns), *map(list, expected.rows)]


def test_the_table_of_one_visitor_stays_what_it_was_when_another_sends_the_same_photo(caller, call_at, served, photos):
    (several,) = caller.parts("file", "classify.several.files")
    (answer,) = caller.handlers("change", several)
    first = caller.call(answer, [caller.upload(photos.val.paths[0]), ["frozen"]])["data"][2]["value"]
    before = caller.http.get(first["url"]).content
    other = call_at(served)
    other.call(answer, [other.upload(*photos.val.paths[:3]), ["finetune"]])
    assert caller.http.get(first["url"]).content == before


def test_more_photos_than_are_answered_at_once_are_told_so(caller, photos):
    (several,) = caller.parts("file", "classify.several.files")
    (answer,) = caller.handlers("change", several)
    output = caller.call(answer, [caller.upload(photos.val.paths[0]) * (MOST_PHOTOS + 1), ["frozen"]])
    assert output["error"] == ENGLISH("classify.several.most", count=MOST_PHOTOS + 1, most=MOST_PHOTOS)


def test_a_click_on_a_number_of_the_confusion_matrix_shows_its_photos_however_the_table_is_sorted(caller, photos):
    select = [
        handler
        for handler in caller.config["dependencies"]
        if handler["targets"][0][0] in caller.parts("dataframe") and handler["targets"][0][1] == "select"
    ]
    assert len(select) == 2, "a matrix for each of two models"
    shown = []
    for row in (0, 1):
        for column in (1, 2):
            truth, answer = photos.class_names[row], photos.class_names[column - 1]
            clicked = {"index": [1 - row, column], "value": 0, "row_value": [truth, 0, 0]}  # in a table turned over
            (gallery,) = caller.call(select[0], [["frozen"]], clicked)["data"]
            assert gallery["label"] == f"frozen: {truth} taken for {answer}, {len(gallery['value'])}"
            shown += [one["caption"].partition(":")[0] for one in gallery["value"]]
    assert sorted(shown) == sorted(path.name for path in photos.val.paths)
    first = {"index": [0, 0], "value": "ants", "row_value": ["ants", 0, 0]}
    (names,) = caller.call(select[0], [["frozen"]], first)["data"]
    assert names["visible"] is False, "the first column holds the classes' names"
    (absent,) = caller.call(select[1], [["frozen"]], first | {"index": [0, 1]})["data"]
    assert absent["visible"] is False, "there is no second model"


def test_news_on_the_disk_are_offered_and_taken_and_what_is_broken_is_told(growing, call_at):
    growing.exhibition.renew()  # of which nothing is left that the tests above have shown
    caller = call_at(growing.url)
    (timer,), (button,) = caller.parts("timer"), caller.parts("button", "page.models.renew")
    (look,), (take,) = caller.handlers("tick", timer), caller.handlers("click", button)
    assert [part["visible"] for part in caller.call(look, [])["data"]] == [False, False]

    broken = write_model(growing.outputs / "<b>new**", "frozen") / "config.json"
    news, offer = caller.call(look, [])["data"]
    assert (news["visible"], offer["visible"]) == (True, True)
    assert news["value"].startswith("**There is something new on the disk:** ")
    assert "<b>" not in news["value"]
    assert "new**" not in news["value"]
    chosen, _, *offers = caller.call(take, [])["data"]
    assert [name for name, _ in chosen["choices"]] == chosen["value"] == ["frozen"]
    assert [part["visible"] for part in offers] == [False, False]
    assert [part["visible"] for part in caller.call(look, [])["data"]] == [False, False]

    broken.write_text("{broken")
    assert caller.call(look, [])["data"][1]["visible"] is True
    assert caller.call(take, [])["error"].startswith("The models shown stay: ")
    assert growing.exhibition.now.names == ["frozen"]
