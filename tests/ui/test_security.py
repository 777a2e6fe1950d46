"""What may reach the page: how much at once, how many files, and for whom where it is for one computer alone."""

import asyncio
import json

import pytest

from antbee.ui import security
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.security import LARGEST_BODY, MOST_FILES, UPLOAD, RequestLimits

FORM = ("content-type", "multipart/form-data; boundary=b")
DISPOSITION = b'Content-Disposition: form-data; name="files"'


def asked(*pieces, path="/gradio_api/queue/join", headers=(), method="POST", local_only=False, ends=True):
    """The status and the text that a request in pieces is answered with, and what the app behind the gate has read."""
    seen, said = [], []
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends and waiting:
        waiting[-1]["more_body"] = False
    waiting.append({"type": "http.disconnect"})
    untouched = list(waiting)

    async def app(scope, receive, send):
        try:
            while (message := await receive())["type"] == "http.request":
                seen.append(message["body"])
                if not message["more_body"]:
                    break
        except Exception as error:  # noqa: BLE001  # as those do who read JSON
            seen.append(type(error).__name__)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

    async def receive():
        return untouched.pop(0)

    async def send(message):
        said.append(message)

    named = [(name.encode(), str(value).encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": named}
    asyncio.run(RequestLimits(app, local_only=local_only)(scope, receive, send))
    start, *bodies = said
    assert [message["type"] for message in said].count("http.response.start") == 1
    return start["status"], b"".join(body["body"] for body in bodies).decode(), seen


def part(*headers, content=b"x"):
    return b"--b\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + content + b"\r\n"


def files(count):
    return part(DISPOSITION + b'; filename="a.png"') * count + b"--b--\r\n"


# ---- how much at once ------------------------------------------------------------------------------------------------


def test_a_body_is_let_in_up_to_its_size_and_a_larger_one_is_answered_before_it_is_read():
    half = b"x" * (LARGEST_BODY // 2)
    assert asked(half, half) == (200, "read", [half, half])
    sentence = ENGLISH("security.large", most=1)
    assert asked(half, headers=[("content-length", LARGEST_BODY + 1)]) == (413, sentence, [])
    assert asked(half, half, b"x", half) == (413, sentence, [half, half, "TooMuchError"])


def test_the_largest_that_the_page_itself_sends_is_let_in():
    name = "照" * 80  # 240 bytes, as long as a file's name may be
    address = f"http://127.0.0.1:7860/gradio_api/file=/tmp/antbee-12345678/uploads/{'0' * 64}/"
    escaped = "%E7%85%A7" * 80
    image = {"path": address[37:] + name, "url": address + escaped, "orig_name": name, "size": 10**7, "mime_type": "x"}
    gallery = [{"image": image | {"meta": {"_type": "gradio.FileData"}}, "caption": None}] * MOST_FILES
    body = json.dumps({"data": [gallery], "fn_index": 1, "session_hash": "a" * 11}, ensure_ascii=False).encode()
    assert asked(body)[0] == 200


def test_files_may_be_larger_than_other_bodies_but_not_without_end(monkeypatch):
    photo = part(DISPOSITION + b'; filename="a.png"', content=b"x" * LARGEST_BODY) + b"--b--\r\n"
    assert asked(photo, path=UPLOAD, headers=[FORM])[0] == 200
    monkeypatch.setattr(security, "LARGEST_UPLOAD", 2 * LARGEST_BODY)
    status, message, _ = asked(photo, photo, path=UPLOAD, headers=[FORM])
    assert (status, message) == (413, ENGLISH("security.large", most=2))


def test_more_files_than_a_tab_takes_are_refused_in_the_visitors_language():
    assert asked(files(MOST_FILES), path=UPLOAD, headers=[FORM])[0] == 200
    status, message, seen = asked(
        files(MOST_FILES + 1), path=UPLOAD, headers=[FORM, ("accept-language", "zh-CN,zh;q=0.9")]
    )
    assert (status, message) == (413, CHINESE("security.many", most=MOST_FILES))
    assert seen == ["TooMuchError"]


@pytest.mark.parametrize("headers", [[DISPOSITION], [b'Content-Type: text/plain; filename="a"', DISPOSITION]])
def test_a_field_that_is_no_file_stays_small_whatever_its_other_headers_say(headers):
    field = part(*headers, content=b"x" * 100_000) + b"--b--\r\n"
    cut = len(field) // 2
    status, message, seen = asked(field[:cut], field[cut:], path=UPLOAD, headers=[FORM])
    assert (status, message) == (413, ENGLISH("security.fields"))
    assert seen == ["TooMuchError"]


def test_an_upload_that_breaks_off_ends_as_gradio_cleans_up_after():
    begun = part(DISPOSITION + b'; filename="a.png"')
    assert asked(begun, path=UPLOAD, headers=[FORM], ends=False)[2] == [begun, "InterruptedUploadError"]
    assert asked(begun, ends=False)[2] == [begun], "no upload"


# ---- for whom --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:7860", "127.0.0.1:7860", "127.8.9.1", "[::1]", "[::1]:7860", " localhost "]
)
def test_this_computer_is_known_by_all_its_names(host):
    assert asked(b"", headers=[("host", host), ("origin", f"http://{host.strip()}")], local_only=True)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "192.168.1.7",
        "0.0.0.0",
        "[::]",
        "[",
        "",
    ],
)
@pytest.mark.parametrize("name", ["host", "x-forwarded-host"])
def test_another_name_that_leads_to_this_computer_gets_nothing_where_the_page_is_for_it_alone(name, host):
    headers = [("host", "localhost"), (name, host)]
    assert asked(b"", method="GET", headers=headers, local_only=True) == (400, ENGLISH("security.host"), [])
    assert asked(b"", method="GET", headers=headers)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost.evil.example", "", "x"])
def test_another_sites_page_may_ask_nothing_of_a_page_for_this_computer_alone(origin):
    headers = [("host", "localhost:7860"), ("origin", origin)]
    for path in ("/gradio_api/queue/join", UPLOAD):
        assert asked(b"", path=path, headers=headers, local_only=True) == (403, ENGLISH("security.origin"), [])
        assert asked(b"", path=path, headers=headers)[0] == 200
    assert asked(b"", method="GET", headers=headers, local_only=True)[0] == 200
