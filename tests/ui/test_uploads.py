"""What may be named as a file: an upload alone, at every endpoint, in every shape, and before anybody is asked."""

import asyncio
import itertools
import json
import socket

import httpx
import pytest
from endurance import hostile
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from page_helpers import JSON, META, Caller, registry_of, serving

from antbee import ui
from antbee.training.background import BackgroundTraining
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.uploads import UploadsOnly

PIXEL = "data:image/png;base64,iVBORw0KGgo="
DISCARD = 9  # a port that nobody listens on
HOLD_FILES = {"image", "file", "uploadbutton", "gallery", "imageslider", "downloadbutton"}  # parts of the page


@pytest.fixture(scope="module")
def page(snapshot, gradio_folder):
    """All that the page ever has, its owner's tab included."""
    training = BackgroundTraining()
    yield ui.build_page(registry_of(snapshot.models, snapshot.photos), training)
    training.close()


@pytest.fixture(scope="module")
def served(page):
    with serving(page) as url:
        yield url


@pytest.fixture(scope="module")
def caller(served):
    caller = Caller(served)
    yield caller
    caller.http.close()


@pytest.fixture(scope="module")
def photo(caller, photos):
    (photo,) = caller.upload(photos.val.paths[0])
    return photo


@pytest.fixture
def asked(loopback_only, monkeypatch):
    """Every name that is looked up and every address that is connected to, but for pages of tests; none answers."""
    names, look_up = [], socket.getaddrinfo

    def is_asked(host, port):
        if host == "127.0.0.1" and port not in (None, DISCARD):
            return False
        names.append((host, port))
        return True

    def counted_look_up(host, port, *args, **kwargs):
        if is_asked(host, port):
            raise socket.gaierror("nobody is asked in tests")
        return look_up(host, port, *args, **kwargs)

    def counted(connect):
        def counted_connect(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and is_asked(*address[:2]):
                raise ConnectionRefusedError
            return connect(self, address)

        return counted_connect

    monkeypatch.setattr(socket, "getaddrinfo", counted_look_up)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, counted(getattr(socket.socket, name)))
    return names


def targets(photo):
    """What leads anywhere but to an upload."""
    return {
        "a public name": "http://example.com/photo.png",
        "a public name, encrypted": "https://huggingface.co/photo.png",
        "a public address": "https://93.184.216.34/photo.png",
        "this computer": f"http://127.0.0.1:{DISCARD}/photo.png",
        "this computer's name": f"http://localhost:{DISCARD}/photo.png",
        "a name that only looks like an upload's": f"http://example.com{photo['path']}",
        "data": PIXEL,
        "a file": "/etc/passwd",
        "a share": "//example.com/share/photo.png",
        "a way out": f"{photo['path']}/../../../../../../etc/passwd",
        "nothing": "",
    }


def files(target, photo):
    """The ways to name it as a file."""
    return [
        {"path": target, **META},
        {"path": target},
        {"path": target, "url": target, "orig_name": "photo.png", **META},
        {"url": target},
        {"url": target, **META},
        {"path": None, "url": target, **META},
        {"path": photo["path"], "url": target},
        {"path": photo["path"], "url": target, **META},
    ]


def arguments(target, photo):
    """A file, and one wherever else Gradio looks for it."""
    for file in files(target, photo):
        yield from (file, [file], [{"image": file, "caption": None}], [[{"video": file}]], {"value": {"a": file}})


def refusals(response):
    """The status, and the sentences that Gradio's clients show of the answer."""
    if response.status_code != 422:
        return response.status_code, response.text
    return 422, [one["message"] for one in response.json()["detail"]]


REFUSED = (422, [ENGLISH("security.file")])


# ---- every endpoint --------------------------------------------------------------------------------------------------


def places(caller):
    """Every argument of every function that the page has: the function, its number of inputs, which one, its kind."""
    kinds = {part["id"]: part["type"] for part in caller.config["components"]}
    for function in caller.config["dependencies"]:
        for place, part in enumerate(function["inputs"]):
            yield function, place, kinds[part]


def data(function, place, value):
    return [value if place == at else None for at in range(len(function["inputs"]))]


def test_a_file_that_is_no_upload_is_refused_by_every_function_in_every_argument_and_nobody_is_asked(
    caller, photo, asked
):
    tried = 0
    for function, place, kind in places(caller):
        for name, target in targets(photo).items():
            wrong = [files(target, photo)[tried % 8], *([target] * (kind in HOLD_FILES))]
            for value in wrong:
                response = caller.join(function, data(function, place, value))
                if response.is_success:
                    caller.answer()  # whoever is asked is asked by then
                assert asked == [], (function["api_name"], place, name, value)
                assert refusals(response) == REFUSED, (function["api_name"], place, name, value)
                tried += 1
    assert tried > 1_000


def routes(name, index):
    """Every way to call a function: an address, and how its data are put into the body."""
    for route in (f"call/{name}", f"run/{name}", f"api/{name}"):
        yield route, lambda value: {"data": [value]}
        yield f"{route}/", lambda value: {"data": [value], "fn_index": index}
    for route in (f"call/v2/{name}", f"call/v2/{name}/"):
        yield route, lambda value: {"photo": value}
    yield "queue/join", lambda value: {"data": [value], "fn_index": "8.0", "session_hash": "a"}
    yield "stream/a", lambda value: {"data": [{"image": value}]}
    yield "component_server", lambda value: {"data": {"a": value}, "component_id": 1, "fn_name": "a"}


def test_every_shape_is_refused_at_every_address_that_takes_a_call_and_nobody_is_asked(caller, photo, asked):
    shapes = [shape for target in targets(photo).values() for shape in arguments(target, photo)]
    for at, (route, body) in enumerate(routes("predict", caller.predict["id"])):
        for shape in shapes[at % 5 :: 5]:  # every one at two addresses at least
            response = caller.http.post(f"gradio_api/{route}", json=body(shape))
            assert refusals(response) == REFUSED, (route, shape)
    assert asked == []


@pytest.mark.parametrize("value", ["photo.png", 7, True, [], [[]], {"image": None, "size": "x"}, {"path": 10**30}])
def test_what_is_no_file_at_all_is_refused_where_a_file_belongs(caller, value):
    wrong = {"size": "x"} if isinstance(value, dict) and "image" in value else value
    for route, body in itertools.islice(routes("predict", caller.predict["id"]), 8):
        assert refusals(caller.http.post(f"gradio_api/{route}", json=body(wrong))) == REFUSED, route


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-16", "application/x+json", None])
def test_a_call_is_known_by_what_it_says_and_not_by_its_headers(caller, kind):
    body = json.dumps({"data": [{"path": "http://example.com/a.png", **META}]})
    headers = {} if kind is None else {"Content-Type": kind}
    for encoded in (body.encode(), body.encode("utf-16")):
        response = caller.http.post("gradio_api/call/predict", content=encoded, headers=headers)
        assert refusals(response) == REFUSED


def test_what_is_too_deep_to_be_read_is_refused(caller):
    body = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert refusals(caller.http.post("gradio_api/call/predict", content=body, headers=JSON)) == REFUSED


def test_gradios_own_client_shows_the_sentence_and_a_browser_gets_it_in_its_language(served, caller, asked):
    client = Client(served, verbose=False, analytics_enabled=False)
    with pytest.raises(ValidationError) as raised:
        client.predict(handle_file("http://example.com/photo.png"), api_name="/predict")
    assert ENGLISH("security.file") in str(raised.value)
    response = caller.http.post("gradio_api/call/predict", json={"data": [PIXEL]}, headers={"Accept-Language": "zh-CN"})
    assert refusals(response) == (422, [CHINESE("security.file")])
    assert asked == []


@pytest.mark.parametrize("route", ["file=", "file/"])
def test_nothing_is_downloaded_for_whoever_asks_for_it_but_uploads(caller, photo, asked, route):
    for name, target in targets(photo).items():
        for method in ("GET", "HEAD"):
            response = caller.http.request(method, f"gradio_api/{route}{target}")
            assert asked == [], name
            assert response.status_code in (403, 405), name  # 405: Gradio's own, of a HEAD that it doesn't know
            if method == "GET" and not target.startswith("/"):
                assert response.text == ENGLISH("security.file"), name
    assert caller.http.get(f"gradio_api/{route}{photo['path']}").status_code == 200
    assert asked == []


def test_no_other_address_of_gradios_asks_anybody(caller, asked):
    for target in ("http://example.com/a.png", "https://huggingface.co/a", "http://user.hf.space/a", "//example.com/a"):
        for route in (
            "proxy=",
            "custom_component/",
            "stream/",
            "deep_link?session_hash=",
        ):
            caller.http.get(f"gradio_api/{route}{target}")
        caller.http.get(f"?deep_link={target}&__theme={target}", headers={"Cookie": f"access-token={target}"})
    assert asked == []


def test_below_a_root_path_all_is_as_it_is_without(snapshot, photos, gradio_folder, asked):
    page = ui.build_page(registry_of(snapshot.models, snapshot.photos))
    with serving(page, root_path="/antbee") as url:
        for root in ("", "antbee/"):  # proxies may take it away, or leave it
            visitor = httpx.Client(base_url=f"{url}{root}gradio_api/")
            for value in ("http://example.com/a.png", {"path": "http://example.com/a.png", **META}):
                for route in ("call/predict", "run/predict"):
                    assert refusals(visitor.post(route, json={"data": [value]})) == REFUSED
            assert visitor.get("file=http://example.com/a.png").status_code == 403
            large = photos.val.paths[0].read_bytes() + b"\0" * 2_000_000
            assert visitor.post("upload", files={"files": ("a.png", large)}).status_code == 200
            visitor.close()
    assert asked == []


# ---- what is let through ---------------------------------------------------------------------------------------------


@pytest.fixture
def reached(page):
    """Sends a call to an app that keeps what it reads, and gives that; None where it was not asked."""

    def send(route, body, method="POST"):
        seen = []

        async def app(scope, receive, send):
            seen.append((await receive())["body"])
            seen.append((await receive())["type"])

        half = len(body) // 2
        waiting = [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:], "more_body": False},
        ]
        waiting.append({"type": "http.disconnect"})

        async def receive():
            return waiting.pop(0)

        async def answer(message):
            pass

        scope = {"type": "http", "method": method, "path": f"/gradio_api/{route}", "headers": []}
        asyncio.run(UploadsOnly(app, page)(scope, receive, answer))
        assert seen in ([], [body, "http.disconnect"])
        return seen[0] if seen else None

    return send


def test_text_stays_text_whatever_it_looks_like(caller, photo, reached):
    tried = 0
    for function, place, kind in places(caller):
        if kind not in HOLD_FILES:
            for text in targets(photo).values():
                body = json.dumps({"data": data(function, place, text), "fn_index": function["id"]}).encode()
                assert reached("queue/join", body) == body, function["api_name"]
                tried += 1
    assert tried > 100


def test_a_class_may_be_called_like_an_address(caller, asked):
    (rename, *_) = [one for one in caller.config["dependencies"] if one["api_name"] == "rename"]
    assert "data" in caller.call(rename, [None, "data:ants"])
    error = caller.call(rename, [None, "http://example.com/ants"])["error"]
    assert "http://example.com/ants can't be that of a folder" in error
    assert asked == []


def test_what_the_page_itself_sends_is_let_through_to_the_byte(caller, served, photo, reached):
    url = f"{served}gradio_api/file={photo['path']}"
    file = photo | {"url": url, "orig_name": "照片 1.png", "size": 10, "mime_type": "image/png", "is_stream": False}
    encoded = file | {"url": url.replace(".png", "%2Epng")}
    behind = file | {"url": f"https://example.com/antbee/gradio_api/file={photo['path']}"}  # a proxy's name
    gallery = [{"image": one, "caption": "http://example.com"} for one in (file, encoded)]
    fit = {
        "image": [None, photo, {"path": photo["path"]}, file, encoded, behind],
        "file": [None, [], [file, encoded]],
        "uploadbutton": [None, file],
        "gallery": [None, [], gallery],
    }
    met = set()
    for function, place, kind in places(caller):
        for value in fit.get(kind, []):
            call = {"data": data(function, place, value), "fn_index": function["id"], "event_data": {"value": gallery}}
            body = json.dumps(call).encode()
            assert reached("queue/join", body) == body, (function["api_name"], value)
            met.add(kind)
    assert met == fit.keys()


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("queue/join", b""),
        ("queue/join", b"username=a&password=http://example.com"),
        ("queue/join", b"{"),
        ("queue/join", b'"http://example.com"'),
        ("queue/join", b'{"data": 3, "fn_index": "x"}'),
        ("cancel", b'{"session_hash": "a", "fn_index": 0, "event_id": "b"}'),
        ("call/v2/predict", b"{}"),
        ("call/nothing", b'{"data": ["http://example.com"]}'),
        ("upload", b"--b\r\n"),
    ],
)
def test_what_names_no_file_is_gradios_to_judge(reached, route, body):
    if route == "upload":
        with pytest.raises(AssertionError):  # an upload is not read whole: it comes in pieces
            reached(route, body)
    else:
        assert reached(route, body) == body


def test_whoever_leaves_before_the_end_is_not_answered(page):
    async def app(scope, receive, send):
        raise AssertionError("a call that is not whole")

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(UploadsOnly(app, page)(scope, receive, app))


def test_files_of_others_stay_theirs_where_a_private_file_lies_beside(caller, gradio_folder):
    with hostile.bait() as private:
        for shape in hostile.photos_elsewhere(private, gradio_folder).values():
            response = caller.join(caller.predict, [shape])
            assert response.status_code == 422 or is_nothing(caller.answer())
        assert private.is_untouched()


def is_nothing(answer):
    """Whether no photo was found in what was sent."""
    return answer.get("data") == [{}] or "error" in answer


def test_a_call_outside_the_queue_is_taken_as_its_index_says(caller):
    unqueued = [one for one in caller.config["dependencies"] if one["queue"] is False and one["inputs"]]
    assert unqueued
    for handler in unqueued:
        body = {"data": ["text"] * len(handler["inputs"]), "fn_index": handler["id"], "session_hash": caller.session}
        response = caller.http.post("gradio_api/run/predict", json=body)
        assert ENGLISH("security.file") not in response.text, handler["id"]
