"""The whole page over HTTP: its API with real clients, what its tabs answer to a browser, and what it refuses."""

import csv
import http.server
import io
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from endurance import hostile
from gradio_client import Client, handle_file
from page_helpers import SMALL, Caller, registry_of, serving, write_model
from PIL import Image

import app
from antbee import ui
from antbee.data.drawn import draw
from antbee.data.images import open_photo
from antbee.evaluation.plots import MODE_COLOURS
from antbee.models.folder import model_folders
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.registry import how_to_train
from antbee.ui.tabs.classify import CONCURRENT_CALLS, MOST_PHOTOS, classify, predict_batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served(snapshot: ui.Snapshot, gradio_folder: Path) -> Iterator[str]:
    """The address of the page with both models and their photos."""
    page = ui.build_page(registry_of(snapshot.models, snapshot.photos))
    with serving(page, local_only=True) as url:
        yield url


# ---- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(served: str, tmp_path: Path) -> Client:
    return Client(served, verbose=False, download_files=str(tmp_path / "downloads"), analytics_enabled=False)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_documented_ways_to_ask_the_page_answer_as_the_classifier_does(served, models, tmp_path, language):
    if language == "sh" and (shutil.which("bash") is None or shutil.which("curl") is None):
        pytest.skip("needs bash and curl")
    page = (ROOT / "docs" / "page.md").read_text("utf-8")
    (code,) = (code for code in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) if "7860" in code)
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
    ((name, endpoint),) = client.view_api(return_format="dict")["named_endpoints"].items()
    assert name == "/predict"
    assert [parameter["parameter_name"] for parameter in endpoint["parameters"]] == ["photo"]
    assert "Predicts the class of a photo" in str(client.config["dependencies"])


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
    registry: ui.ModelRegistry
    outputs: Path


@pytest.fixture(scope="module")
def growing(gradio_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    outputs = tmp_path_factory.mktemp("outputs")
    registry = ui.ModelRegistry(lambda: model_folders(outputs), lambda models: None, device="cpu")
    with serving(ui.build_page(registry)) as url:
        yield Growing(url, registry, outputs)


def visible_texts(outputs: list[dict[str, Any]]) -> list[str]:
    """What handlers put on the page as text, without what they hide."""
    parts = [part for output in outputs for part in output["data"]]
    shown = [part.get("value") if isinstance(part, dict) and part.get("visible", True) else part for part in parts]
    return [text for text in shown if isinstance(text, str)]


@pytest.mark.parametrize("missing", ["models and photos", "models", "photos", "nothing"])
def test_the_page_opens_whatever_is_missing_and_says_what_to_do_in_the_visitors_language(
    growing, snapshot, call_at, missing
):
    models = () if "models" in missing else snapshot.models
    photos = None if "photos" in missing else snapshot.photos
    growing.registry.snapshot = ui.Snapshot(models, photos)
    for language, translate in (("en-GB,en;q=0.9", ENGLISH), ("zh-CN,zh;q=0.9", CHINESE)):
        caller = call_at(growing.url, language)
        outputs = [caller.call(handler, caller.initial(handler)) for handler in caller.handlers("load")]
        assert [output["error"] for output in outputs if "error" in output] == []
        texts = visible_texts(outputs)
        assert texts.count(how_to_train(translate)) == ("models" in missing) * len(("classify", "report"))
        assert texts.count(translate("page.no_photos", app="python app.py")) == ("photos" in missing)
        drawn = translate("page.drawn", names="frozen + finetune")
        assert any(drawn in text for text in texts) == ("models" not in missing)


@pytest.mark.parametrize("missing", ["models and photos", "models", "photos", "nothing"])
def test_the_report_opens_whatever_is_missing(growing, snapshot, call_at, missing):
    models = () if "models" in missing else snapshot.models
    growing.registry.snapshot = ui.Snapshot(models, None if "photos" in missing else snapshot.photos)
    caller = call_at(growing.url)
    (report,) = caller.parts("tabitem", "report.tab")
    (count,) = caller.handlers("select", report)
    (show,) = caller.handlers("change", *count["outputs"])
    assert "errors by confidence" not in str(caller.call(show, [None, None])["data"]), (
        "nothing before the tab is opened"
    )
    caller.call(count, [None])
    output = str(caller.call(show, [None, None])["data"])
    assert ("McNemar's exact test" in output) == (missing == "nothing")
    assert ("errors by confidence" in output) == (missing == "nothing")


# ---- what it refuses -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private() -> Iterator[hostile.Bait]:
    """A picture that nobody may see, and a server that nobody may call."""
    with hostile.bait() as found:
        yield found


def test_nothing_but_the_page_is_reached_by_any_request(served, private):
    requests = [request for request in hostile.all_requests(private) if not request.is_large]
    assert len(requests) > 100
    some = requests[::3]  # endurance/hostile.py sends all of them
    assert {what.name: problem for what in some if (problem := hostile.verdict(served, what))} == {}
    assert private.is_untouched()


TRIED = (
    "a picture elsewhere as a path, marked",
    "a way out of the uploads as a path",
    "an address as a path",
    "an address alone, marked",
    "an address beside another path",
    "what is no base64 as a path",
    "a name that ends early as a path",
    "a number as a path, marked",
    "nothing as a path, marked",
    "a nested one in a list",
    "a large number",
    "a picture as text",
)  # the others are sent by endurance/hostile.py
SINKS = ("predict", "classify", "several", "inside", "correct", "try", "zip", "class", "class without one")


@pytest.mark.parametrize("sink", SINKS)
def test_a_call_that_names_a_file_that_was_not_uploaded_is_refused(caller, gradio_folder, private, sink):
    sent = hostile.photos_elsewhere(private, gradio_folder)
    handler, among = hostile.sinks(caller)[sink]
    verdicts = {name: hostile.call_verdict(caller, handler, among(sent[name]), private) for name in TRIED}
    assert {name: problem for name, problem in verdicts.items() if problem} == {}
    assert private.is_untouched()
    refused = caller.join(handler, among(sent["a picture elsewhere as a path"]))
    assert (refused.status_code, ENGLISH("security.file") in refused.text) == (422, True)


def test_every_sink_of_files_is_tried(caller):
    assert hostile.sinks(caller).keys() == set(SINKS)


def png(width: int, height: int) -> bytes:
    """A picture of few bytes that says it is of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
XXE = b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
REMOTE = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x.png"/></svg>'
UNREADABLE = {
    "nothing.jpg": b"",
    "text.jpg": b"no photo at all",
    "cut.jpg": encoded(draw("bees", 1, 200), "JPEG")[:2000],
    "cut.gif": encoded(draw("bees", 1, 200), "GIF")[:2000],
    "script.svg": SVG,
    "entity.svg": XXE,
    "remote.svg": REMOTE,
    "script.png": SVG,
    "paper.pdf": b"%PDF-1.7\n%%EOF",
    "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
    "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100,
    "thin.png": png(1, 65_000),
    "vast.png": png(30_000, 30_000),
}


@pytest.mark.parametrize("sink", ["predict", "classify", "inside", "correct", "try"])
def test_a_file_that_is_no_photo_gets_a_sentence_with_a_remedy_wherever_it_is_dropped(caller, unreadable, sink):
    handler, among = hostile.sinks(caller)[sink]
    for file in unreadable:
        message = caller.call(handler, among(file))["error"]
        assert re.fullmatch(r"This file can't be used: .+\. Try a JPEG or PNG photo\.", message), file["path"]
        assert "/" not in message.replace("image/", ""), "no path"


@pytest.fixture(scope="module")
def unreadable(caller, tmp_path_factory):
    """Files that are no photos, uploaded."""
    folder = tmp_path_factory.mktemp("unreadable")
    for name, content in UNREADABLE.items():
        (folder / name).write_bytes(content)
    return caller.upload(*(folder / name for name in UNREADABLE))


def test_files_that_are_no_photos_cost_the_others_of_their_drop_nothing(caller, unreadable, photos):
    good = caller.upload(photos.val.paths[3])
    handler, _ = hostile.sinks(caller)["several"]
    _, table, _ = caller.call(handler, [[*unreadable, *good], ["frozen"]])["data"]
    rows = table["value"]["data"]
    assert [row[0] for row in rows] == [*UNREADABLE, photos.val.paths[3].name]
    assert all(row[1] and not any(row[2:]) for row in rows[:-1]), "a reason each"
    assert all(rows[-1])
    handler, _ = hostile.sinks(caller)["class"]
    message, shown = caller.call(handler, [None, [{"image": file, "caption": None} for file in (*unreadable, *good)]])[
        "data"
    ]
    assert len(shown) == 1
    assert str(len(UNREADABLE)) in message
    (svg,) = [file for file in unreadable if file["path"].endswith("script.svg")]
    fetched = caller.http.get(f"gradio_api/file={svg['path']}")
    assert fetched.headers["content-disposition"].startswith("attachment")


# ---- events while a handler runs -------------------------------------------------------------------------------------


def test_no_event_with_several_triggers_is_dropped_while_its_handler_runs(caller):
    modes = {
        f"{handler['api_name']}: {handler['targets']}": handler["trigger_mode"]
        for handler in caller.config["dependencies"]
        if len(handler["targets"]) > 1
    }
    assert len(modes) > 5
    assert {name: mode for name, mode in modes.items() if mode == "once"} == {}


def test_every_click_with_a_place_is_handled_since_the_browser_would_repeat_the_first_ones_place(caller):
    modes = [handler["trigger_mode"] for handler in caller.config["dependencies"] if handler["collects_event_data"]]
    assert modes == ["multiple"] * 4, "examples, a photo of a batch, and the confusion matrices of two models"


def test_another_batch_is_asked_for_without_waiting_in_the_queue(caller):
    (button,) = caller.parts("button", "batches.new")
    (click,) = caller.handlers("click", button)
    assert click["queue"] is False


# ---- how it is served ------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_requests_and_visitors_who_leave_make_room(
    snapshot, photos, gradio_folder, call_at, monkeypatch
):
    started, go_on = threading.Semaphore(0), threading.Event()

    def slow(crops: Any, models: Any, batches: Any) -> dict[str, Any]:
        started.release()
        assert go_on.wait(30)
        return {}

    monkeypatch.setattr("antbee.ui.page.LONGEST_QUEUE", 1)
    monkeypatch.setattr("antbee.ui.tabs.classify.predict", slow)
    with serving(ui.build_page(registry_of(snapshot.models, snapshot.photos))) as url:
        *running, waiting, another = (call_at(url) for _ in range(CONCURRENT_CALLS + 2))
        photo = another.upload(photos.val.paths[0])
        for visitor in running:
            assert visitor.join(visitor.predict, photo).is_success
            assert started.acquire(timeout=20)
        assert waiting.join(waiting.predict, photo).is_success
        refused = another.join(another.predict, photo)
        assert refused.status_code == 503
        assert "Queue is full" in refused.text
        for visitor in (*running, waiting):
            with visitor.http.stream(
                "GET", "gradio_api/queue/data", params={"session_hash": visitor.session}
            ) as stream:
                next(stream.iter_lines())
        until = time.monotonic() + 2
        while not another.join(another.predict, photo).is_success:
            assert time.monotonic() < until, "whoever left is still waited for"
        go_on.set()
        began = time.monotonic()
        assert another.answer()["data"] == [{}]
        assert time.monotonic() - began < 2


def test_those_who_wait_get_no_message_whenever_another_visitor_is_answered(
    snapshot, photos, gradio_folder, call_at, monkeypatch
):
    go_on = threading.Event()
    monkeypatch.setattr("antbee.ui.page.QUEUE_SECONDS", 3600)
    monkeypatch.setattr("antbee.ui.tabs.classify.predict", lambda *asked: {"waited": go_on.wait(30)})
    with serving(ui.build_page(registry_of(snapshot.models, snapshot.photos))) as url:
        visitors = [call_at(url) for _ in range(CONCURRENT_CALLS + 4)]
        photo = visitors[0].upload(photos.val.paths[0])
        for visitor in visitors:
            assert visitor.join(visitor.predict, photo).is_success
        go_on.set()
        for visitor in visitors:
            messages = [message["msg"] for message in visitor.messages()]
            assert messages == ["estimation", "process_starts", "process_completed"]


def test_the_page_makes_no_table_of_its_requests(snapshot, photos, gradio_folder, call_at, tmp_path, monkeypatch):
    for name, value in app.gradio_settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    page, tables = ui.build_page(registry_of(snapshot.models, snapshot.photos)), []
    monkeypatch.setattr(type(page._queue), "_get_df", tables.append)
    with serving(page) as url:
        visitor = call_at(url)
        assert "data" in visitor.call(visitor.predict, visitor.upload(photos.val.paths[0]))
        until = time.monotonic() + 10
        while page._queue.event_ids_to_events:
            assert time.monotonic() < until, "the request is never done with"
    assert tables == []


def test_a_call_goes_through_the_queue_and_not_around_it(caller):
    assert caller.http.post("gradio_api/run/predict", json={"data": [None]}).status_code == 404


REQUESTS, MOST = 6, 4  # of a census; sessions that are remembered


def test_nothing_grows_with_the_number_of_requests(snapshot, photos, gradio_folder, call_at, monkeypatch):
    monkeypatch.setattr("antbee.ui.page.MOST_SESSIONS", MOST)
    monkeypatch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", "10")
    page = ui.build_page(registry_of(snapshot.models, snapshot.photos))
    with serving(page) as url:
        visitor = call_at(url)

        def census() -> dict[str, int]:
            for number in range(REQUESTS):
                (photo,) = visitor.upload(photos.val.paths[number % 2])
                assert "data" in visitor.call(visitor.predict, [photo])
            counted = {name: value for name, value in vars(page._queue).items() if isinstance(value, list | dict | set)}
            counted |= {"iterators": page.app.iterators, "uploads": page.upload_file_set}
            counted |= {"files": list(gradio_folder.rglob("*")), "threads": threading.enumerate()}
            return {name: len(value) for name, value in counted.items()}

        census()
        first, second = census(), census()
        # The last answer's own bookkeeping may or may not be done.
        assert {name: (first[name], count) for name, count in second.items() if count > first[name] + 1} == {}
        for _ in range(2 * MOST):  # each call without a session is one of its own
            asked = visitor.http.post("gradio_api/call/predict", json={"data": [None]}).json()
            assert "error" in visitor.http.get(f"gradio_api/call/predict/{asked['event_id']}").text
        assert len(page.app.state_holder.session_data) <= MOST
        assert len(page.app.state_holder.time_last_used) <= MOST + 1


def test_behind_a_proxy_and_a_password_the_page_is_itself_at_its_path_and_closed_to_others(
    snapshot, photos, gradio_folder, proxied, call_at
):
    page = ui.build_page(registry_of(snapshot.models, snapshot.photos))
    with serving(page, root_path="/antbee", password="open sesame") as url, proxied(url, "/antbee") as shown:
        stranger = httpx.Client(base_url=shown, verify=False)
        assert stranger.get("config").status_code == 401
        assert stranger.post("login", data={"username": "antbee", "password": "sesame"}).status_code == 400
        assert stranger.get("config").status_code == 401
        for closed in (
            "gradio_api/info",
            "gradio_api/queue/data?session_hash=a",
            f"gradio_api/file={photos.val.paths[0]}",
        ):
            assert stranger.get(closed).status_code == 401
        assert stranger.post("gradio_api/upload", files={"files": ("a.png", b"")}).status_code == 401
        stranger.close()
        visitor = call_at(shown, "en", "open sesame")
        assert visitor.config["root"] == shown.rstrip("/")
        (several,) = visitor.parts("file", "classify.several.files")
        (answer,) = visitor.handlers("change", several)
        *_, download = visitor.call(answer, [visitor.upload(photos.val.paths[0]), ["frozen"]])["data"]
        address = download["value"]["url"]
        assert address.startswith(shown)
        assert photos.val.paths[0].name in visitor.http.get(address).text


@pytest.fixture
def proxied():
    """A small proxy that shows a page below a path, and what the page's own server knows nothing of."""

    @contextmanager
    def show(url: str, path: str) -> Iterator[str]:
        behind = httpx.Client(base_url=url, verify=False, timeout=30)

        class Proxy(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path.startswith(f"{path}/")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target = self.path.removeprefix(path).removeprefix("/")
                got = behind.request(self.command, target, content=body, headers=dict(self.headers.items()))
                self.send_response(got.status_code)
                for name, value in got.headers.multi_items():
                    if name in ("content-type", "set-cookie"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(got.content)))
                self.end_headers()
                self.wfile.write(got.content)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *words: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{path}/"
        server.shutdown()
        thread.join()
        server.server_close()
        behind.close()

    return show


# ---- what it answers -------------------------------------------------------------------------------------------------


def test_a_photo_gets_a_prediction_of_each_model_beside_the_networks_input(caller, models, photos):
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
        probabilities = {one["label"]: one["confidence"] for one in label["confidences"]}
        assert probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert [one["caption"] for one in likes["value"]] == [caption for _, caption in expected.neighbours]

    _, *alone = caller.call(answer, [*caller.upload(path), ["finetune"]])["data"]
    assert [alone[at]["visible"] for at in (0, 6)] == [True, False]
    assert alone[1] == places[7]
    seen, *emptied = caller.call(answer, [None, None])["data"]
    assert seen is None
    assert [emptied[at]["visible"] for at in (0, 6)] == [False, False]
    assert "Neither" not in str(emptied)


def test_a_batch_fills_a_grid_for_each_model_and_a_click_opens_augmented_versions_of_a_photo(caller):
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


def test_a_mode_keeps_its_colour_in_the_reliability_diagram_whichever_models_are_chosen(caller):
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


def test_predictions_for_several_photos_are_equal_in_the_table_and_the_csv_file(caller, models, photos, tmp_path):
    (tmp_path / "notes.png").write_text("These are notes.")
    paths = [*photos.val.paths[:2], tmp_path / "notes.png"]
    (several,) = caller.parts("file", "classify.several.files")
    (answer,) = caller.handlers("change", several)
    output = caller.call(answer, [caller.upload(*paths), ["frozen", "finetune"]])
    expected = predict_batch([(path.name, path) for path in paths], models)
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


def test_more_photos_than_the_limit_are_refused_with_the_limit(caller, photos):
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
            assert gallery["label"] == f"frozen: {truth} predicted as {answer}, {len(gallery['value'])}"
            shown += [one["caption"].partition(":")[0] for one in gallery["value"]]
    assert sorted(shown) == sorted(path.name for path in photos.val.paths)
    first = {"index": [0, 0], "value": "ants", "row_value": ["ants", 0, 0]}
    (names,) = caller.call(select[0], [["frozen"]], first)["data"]
    assert names["visible"] is False, "the first column holds the classes' names"
    (absent,) = caller.call(select[1], [["frozen"]], first | {"index": [0, 1]})["data"]
    assert absent["visible"] is False, "there is no second model"


def test_changed_models_are_offered_and_loaded_and_a_broken_one_is_an_error(growing, call_at):
    growing.registry.reload()  # of which nothing is left that the tests above have shown
    caller = call_at(growing.url)
    (timer,), (button,) = caller.parts("timer"), caller.parts("button", "page.models.reload")
    (look,), (take,) = caller.handlers("tick", timer), caller.handlers("click", button)
    assert [part["visible"] for part in caller.call(look, [])["data"]] == [False, False]

    broken = write_model(growing.outputs / "<b>new**", "frozen") / "config.json"
    news, offer = caller.call(look, [])["data"]
    assert (news["visible"], offer["visible"]) == (True, True)
    assert news["value"].startswith("**New or changed models on the disk:** ")
    assert "<b>" not in news["value"]
    assert "new**" not in news["value"]
    chosen, _, *offers = caller.call(take, [])["data"]
    assert [name for name, _ in chosen["choices"]] == chosen["value"] == ["frozen"]
    assert [part["visible"] for part in offers] == [False, False]
    assert [part["visible"] for part in caller.call(look, [])["data"]] == [False, False]

    broken.write_text("{broken")
    assert caller.call(look, [])["data"][1]["visible"] is True
    assert caller.call(take, [])["error"].startswith("The current models stay: ")
    assert growing.registry.snapshot.names == ["frozen"]
