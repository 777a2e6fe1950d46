"""python tests/endurance/hostile.py [--quick]

Sends the page what nobody who wants a photo answered would send: ways out of its folders, addresses to fetch, bodies
and headers of every wrong kind. Prints a verdict for each and what they cost in memory, and ends with 1 where one of
them was let through: where a file was read or written that is not the page's, somebody was called, or the page fell.
"""

import argparse
import http.server
import itertools
import json
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets it run from any folder
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
from page_helpers import META, Caller

from antbee.data.drawn import draw

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"what nobody may read 5f1c9d"
PATIENCE = 20  # seconds for an answer
MEGABYTE = 2**20
MOST_MEMORY = 50 * MEGABYTE  # that all of them may cost

REFUSED = frozenset(range(400, 500))
HARMLESS = REFUSED | {200, 204, 301, 302, 307, 308}  # where what comes back is the page's own
TOO_LARGE = frozenset({413, 422})  # 422: of what is not even read
STUMBLES = REFUSED | {500}  # where Gradio stumbles, and says no more than that


# ---------------------------------------------------------------------------------------------------------------------
# What must stay untouched


@dataclass
class Bait:
    """A private picture beside the page's folders, and a server that nobody should call."""

    folder: Path
    address: str
    calls: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """The private file."""
        return self.folder / "private.png"

    def is_untouched(self) -> bool:
        """Whether it is as it was, alone in its folder, and nobody called."""
        is_alone = list(self.folder.iterdir()) == [self.file]
        return is_alone and self.file.read_bytes().endswith(SECRET) and not self.calls


@contextmanager
def bait() -> Iterator[Bait]:
    """Something to steal, and somebody to call, for the length of the block."""
    calls: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        with tempfile.TemporaryDirectory(prefix="private-") as folder:
            found = Bait(Path(folder).resolve(), f"http://127.0.0.1:{server.server_port}", calls)
            draw("bees", 0, 100).save(found.file)
            found.file.write_bytes(found.file.read_bytes() + SECRET)
            yield found
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


# ---------------------------------------------------------------------------------------------------------------------
# Requests, to the letter


@dataclass(frozen=True)
class Request:
    """The bytes of a request, and which statuses are no harm; None stands for a connection that was closed."""

    name: str
    head: bytes
    body: Sequence[bytes] = ()
    allowed: frozenset[int | None] = REFUSED | {None}
    is_large: bool = False


def request(
    name: str,
    target: str,
    body: bytes = b"",
    headers: Sequence[str] = (),
    method: str | None = None,
    allowed: frozenset[int | None] = REFUSED | {None},
) -> Request:
    """One that is well-formed but for what it asks."""
    lines = [f"{method or ('POST' if body else 'GET')} {target} HTTP/1.1", *headers]
    named = {line.partition(":")[0].lower() for line in headers}
    if "host" not in named:
        lines.append("Host: 127.0.0.1")
    if body and not named & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    if body and "content-type" not in named:
        lines.append("Content-Type: application/json")
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")
    return Request(name, head, [body] if body else [], allowed)


def sent(url: str, what: Request) -> tuple[int | None, bytes]:
    """The status and all that came back; None where the connection was closed without a status."""
    address = urlsplit(url)
    came = b""
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        try:
            for part in (what.head, *what.body):
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all of it was read
        try:
            while piece := connection.recv(2**16):
                came += piece
        except ConnectionResetError:
            pass
        except TimeoutError:
            return 0, came  # it hangs
    words = came.split(maxsplit=2)
    return (int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else None), came


def files_elsewhere(bait: Bait) -> Iterator[Request]:
    """Ways to files that were not uploaded."""
    private = str(bait.file)
    targets = {
        "a private file": private,
        "a system's file": "/etc/passwd",
        "a climb": "../../../../../../../../etc/passwd",
        "an encoded climb": "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "an encoded climb and slashes": "..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "a climb encoded twice": "%252e%252e%252f%252e%252e%252f%252e%252e%252fetc%252fpasswd",
        "a climb with backslashes": "..%5c..%5c..%5c..%5cetc%5cpasswd",
        "dots and slashes that remain": "....//....//....//....//etc/passwd",
        "a name that ends early": quote(private) + "%00.png",
        "a file address": f"file://{private}",
        "two slashes": f"//{private}",
        "an endless device": "/dev/zero",
        "the process": "/proc/self/environ",
        "the program": str(ROOT / "app.py"),
        "home": "~/.bashrc",
    }
    routes = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/")
    for route, (name, target) in itertools.product(routes, targets.items()):
        if route in ("/gradio_api/file=", "/gradio_api/file/") or "climb" in name or "private" in name:
            yield request(f"{route} {name}", route + target)
    custom = "/gradio_api/custom_component/image/client/component/"
    for name, target in (("a private file", quote(private, "")), ("a climb", "..%2f..%2f..%2f..%2fapp.py")):
        yield request(f"{custom} {name}", custom + target)


def addresses(bait: Bait) -> Iterator[Request]:
    """Addresses that the page should fetch for somebody."""
    port = urlsplit(bait.address).port
    hosts = ("127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "127.1", "user@127.0.0.1", "0")
    for route, host in itertools.product(("/gradio_api/file=", "/gradio_api/proxy="), hosts):
        yield request(f"{route} an address of {host}", f"{route}http://{host}:{port}/private.png")
    for target in ("https://127.0.0.1:1/", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "//127.0.0.1/x", "data:,x"):
        yield request(f"fetch {target}", f"/gradio_api/file={target}")
        yield request(f"proxy {target}", f"/gradio_api/proxy={target}")


def bodies() -> Iterator[Request]:
    """What is no call of the page."""
    join = "/gradio_api/queue/join"
    good: dict[str, Any] = {"data": [None], "fn_index": 0, "session_hash": "hostile"}
    texts = {
        "nothing in it": b" ",
        "no JSON": b"{",
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 50_000,
        "deep data": b'{"fn_index": 0, "session_hash": "x", "data": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        "no Unicode": b'{"data": ["\xff\xfe"], "fn_index": 0, "session_hash": "x"}',
        "half a letter": b'{"data": ["\\ud800"], "fn_index": -5, "session_hash": "\\ud800"}',
        "UTF-16": json.dumps(good).encode("utf-16"),
        "a number without end": b'{"data": [], "fn_index": ' + b"9" * 5_000 + b', "session_hash": "x"}',
        "a form": b"data=1&fn_index=0",
        "a list": b"[]",
        "a text": b'"text"',
    }
    for name, text in texts.items():
        yield request(f"a body of {name}", join, text, allowed=STUMBLES | {200})
    changes: dict[str, dict[str, Any]] = {
        "no session": {"session_hash": None},
        "a session of another kind": {"session_hash": {"a": 1}},
        "a number as session": {"session_hash": 7},
        "no function": {"fn_index": None},
        "a negative function": {"fn_index": -1},
        "a large function": {"fn_index": 10**18},
        "a function's name": {"fn_index": "__init__"},
        "half a function": {"fn_index": 0.5},
        "data of another kind": {"data": "text"},
        "no data": {"data": None},
        "a trigger of another kind": {"trigger_id": [1]},
        "event data of another kind": {"event_data": 3, "data": 3},
    }
    for name, change in changes.items():
        yield request(f"a call with {name}", join, json.dumps(good | change).encode(), allowed=STUMBLES)
    for route in ("run/predict", "api/predict", "call/predict", "call/__class__", "run/", "call/..%2f..", "call/v2/x"):
        name = f"{route} with what is no data"
        yield request(name, f"/gradio_api/{route}", b'{"data": 3}', allowed=STUMBLES)
    yield request("a call around the queue", "/gradio_api/run/predict", b'{"data": [null]}')
    for name in ("__init__", "preprocess", "postprocess", "process_example", "__class__", "ls"):
        call = {"data": "/etc", "component_id": 1, "session_hash": "hostile", "fn_name": name}
        # 500: where other pages were built before in the same process, none of this one's parts has this number.
        yield request(
            f"a component's {name}", "/gradio_api/component_server", json.dumps(call).encode(), allowed=STUMBLES
        )


def uploads(bait: Bait) -> Iterator[Request]:
    """Files with names that lead elsewhere, and bodies that are no uploads."""
    route = "/gradio_api/upload"
    kind = "Content-Type: multipart/form-data; boundary=b"
    names = {
        "a private file": str(bait.file),
        "a climb": "../../../../../../../../tmp/climbed.png",
        "a climb with backslashes": "..\\..\\private.png",
        "two dots": "..",
        "a slash": "/",
        "nothing": "",
        "an early end": "a\0.png",
        "a line": "a%0d%0aX-Injected: 1.png",
        "a script": "<script>alert(1)</script>.png",
        "no Unicode": "\udcff\udcfe.png",
        "turned text": "\u202egnp.exe",
        "600 letters": "a" * 600,
        "a device": "CON",
        "a hidden file": ".htaccess",
    }
    for name, file in names.items():
        yield request(f"an upload called {name}", route, form(file), [kind], allowed=HARMLESS | {None})
    for name, body, headers in (
        ("no boundary", form("a.png"), ["Content-Type: multipart/form-data"]),
        ("another boundary", form("a.png"), ["Content-Type: multipart/form-data; boundary=other"]),
        ("a long boundary", form("a.png"), [f"Content-Type: multipart/form-data; boundary={'b' * 10_000}"]),
        ("no disposition", b"--b\r\n\r\nx\r\n--b--\r\n", [kind]),
        ("no name", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", [kind]),
        ("many headers", b"--b\r\n" + b"X: 1\r\n" * 1_000 + b"\r\nx\r\n--b--\r\n", [kind]),
        ("a long header", b"--b\r\nX: " + b"1" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n", [kind]),
        ("no form", b"hello", [kind]),
        ("JSON", b"{}", []),
        ("401 files", form(*["a.png"] * 401), [kind]),
        ("a large field", form("a.png", content=b"x" * 100_000, is_file=False), [kind]),
        ("a large field that says it is a file", disguised(), [kind]),
    ):
        yield request(f"an upload with {name}", route, body, headers, allowed=STUMBLES)
    yield request(
        "an upload in pieces of a wrong size", route, b"zz\r\nx\r\n0\r\n\r\n", [kind, "Transfer-Encoding: chunked"]
    )


def form(*names: str, content: bytes = b"x", is_file: bool = True) -> bytes:
    """A form of files, as browsers send it."""
    said = "filename" if is_file else "note"
    parts = [f'--b\r\nContent-Disposition: form-data; name="files"; {said}="{name}"\r\n\r\n' for name in names]
    bodies = [part.encode("utf-8", "surrogateescape") + content + b"\r\n" for part in parts]
    return b"".join([*bodies, b"--b--\r\n"])


def disguised() -> bytes:
    """A field that another of its headers calls a file."""
    headers = b'--b\r\nContent-Type: text/plain; filename="a"\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
    return headers + b"x" * 100_000 + b"\r\n--b--\r\n"


def headers() -> Iterator[Request]:
    """Headers of other sites, and of no site at all."""
    call = json.dumps({"data": [None], "fn_index": 0, "session_hash": "hostile"}).encode()
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "",
        "[",
        "a b",
    ):
        yield request(f"for the host {host!r}", "/config", headers=[f"Host: {host}"])
    yield request("for two hosts", "/config", headers=["Host: 127.0.0.1", "Host: evil.example"])
    yield request("for the host of a proxy", "/config", headers=["X-Forwarded-Host: evil.example"])
    yield request("for an address at another host", "http://evil.example/config", headers=["Host: evil.example"])
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "https://localhost@evil.example",
        "x",
    ):
        yield request(f"a call from {origin}", "/gradio_api/queue/join", call, [f"Origin: {origin}"])
        file = ["Content-Type: multipart/form-data; boundary=b", f"Origin: {origin}"]
        yield request(f"an upload from {origin}", "/gradio_api/upload", form("a.png"), file)
    yield request(
        "a simple call from elsewhere", "/gradio_api/queue/join", call, ["Content-Type: text/plain", "Origin: null"]
    )
    yield request("a long header", "/config", headers=[f"X-Long: {'a' * 200_000}"], allowed=HARMLESS | {None})
    many = [f"X-{number}: a" for number in range(20_000)]
    yield request("thousands of headers", "/", headers=many, allowed=HARMLESS | {None})
    yield request("a long address", "/" + "a" * 200_000)
    yield request("a long query", "/?" + "a" * 60_000, allowed=HARMLESS | {None})
    for length in ("-1", "abc", "1, 2", "99999999999999999999", "+5", "0x10"):
        yield request(f"a length of {length}", "/gradio_api/queue/join", call, [f"Content-Length: {length}"])
    both = ["Content-Length: 4", "Transfer-Encoding: chunked"]
    yield request("two ways to say a length", "/gradio_api/queue/join", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", both)
    yield request("an encoding nobody knows", "/gradio_api/queue/join", call, ["Transfer-Encoding: magic"])
    yield request("a login nobody asked for", "/login", b"username=a&password=b", allowed=HARMLESS)
    yield request("a way out", "/logout", headers=["Referer: http://evil.example"], allowed=HARMLESS)


def methods() -> Iterator[Request]:
    """Other methods and protocols."""
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "GET\t", "G" * 5_000):
        yield request(f"{method[:10]} of a call", "/gradio_api/queue/join", method=method)
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13"]
    for route in ("/", "/queue/join", "/gradio_api/queue/join", "/gradio_api/file=/etc/passwd"):
        yield request(f"a websocket at {route}", route, headers=upgrade, allowed=HARMLESS | {None})
    for name, head in (
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\n\r\n"),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 100 + b"\r\n\r\n"),
        ("no method", b" / HTTP/1.1\r\n\r\n"),
        ("folded headers", b"GET /config HTTP/1.1\r\nHost: evil\r\n .example\r\nConnection: close\r\n\r\n"),
        ("no end of lines", b"GET / HTTP/1.1\nHost: evil.example\nConnection: close\n\n"),
        ("zeros", b"\0" * 1_000 + b"\r\n\r\n"),
    ):
        yield Request(name, head, allowed=HARMLESS | {None})


def corners() -> Iterator[Request]:
    """Parts of Gradio that nobody needs here."""
    for target in (
        "/monitoring",
        "/monitoring/summary",
        "/monitoring/x",
        "/gradio_api/runs",
        "/gradio_api/upload_progress?upload_id=../../x",
        "/gradio_api/queue/data",
        "/gradio_api/call/predict/unknown",
        "/gradio_api/stream/x/y/1/playlist.m3u8",
        "/gradio_api/profiling/traces",
        "/gradio_api/vibe-code",
        "/docs",
        "/pwa_icon/..%2f..",
        "/__proto__",
        "/%ff%fe",
        "/?view=api&__theme=<script>alert(1)</script>",
        "/gradio_api/deep_link?session_hash=../../x",
        "/gradio_api/token",
    ):
        yield request(f"GET {target}", target, allowed=HARMLESS | {None})
    for target, body in (
        ("cancel", b'{"session_hash": "x", "fn_index": 0, "event_id": "x"}'),
        ("reset", b'{"event_id": "../x"}'),
        ("stream/x", b'{"data": []}'),
        ("stream/x/close", b"{}"),
        ("process_recording", b"{}"),
        ("vibe-edit", b'{"prompt": "x"}'),
        ("run-history/connect", b"{}"),
    ):
        yield request(f"POST {target}", f"/gradio_api/{target}", body, allowed=HARMLESS)


def large() -> Iterator[Request]:
    """Bodies of a hundred megabytes and more: answered with 413 before they are read."""
    kind = "Content-Type: multipart/form-data; boundary=b"
    piece, count = b"x" * MEGABYTE, 120
    json_size = f"Content-Length: {count * MEGABYTE + 2}"
    file, chunked = form("a.png", content=b"").removesuffix(b"\r\n--b--\r\n"), "Transfer-Encoding: chunked"
    field = form("a.png", content=b"", is_file=False).removesuffix(b"\r\n--b--\r\n")
    in_chunks = [b"%x\r\n%s\r\n" % (len(piece), piece)] * count
    join, upload = "/gradio_api/queue/join", "/gradio_api/upload"
    for name, target, lines, body in (
        ("JSON of 120 MB", join, [json_size], [b'"', *[piece] * count, b'"']),
        ("JSON of 120 MB in chunks", join, [chunked], [b'1\r\n"\r\n', *in_chunks]),
        ("a call of 120 MB in chunks", "/gradio_api/call/predict", [chunked], [b'1\r\n"\r\n', *in_chunks]),
        ("a login of 120 MB", "/login", [chunked], in_chunks),
        ("a file of 100 MB", upload, [kind, chunked], [b"%x\r\n%s\r\n" % (len(file), file), *in_chunks[:100]]),
        ("a field of 120 MB", upload, [kind, chunked], [b"%x\r\n%s\r\n" % (len(field), field), *in_chunks]),
        ("1,000 files", upload, [kind], [form(*["a.png"] * 1_000)]),
        ("a file name of 1 MB", upload, [kind], [form("a" * MEGABYTE)]),
        ("2 GB announced", upload, [kind, "Content-Length: 2000000000"], [b"--b\r\n"]),
    ):
        length = (
            [] if any("Length" in line or "chunked" in line for line in lines) else [f"Content-Length: {len(body[0])}"]
        )
        head = "\r\n".join(
            [f"POST {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines, *length, "", ""]
        ).encode()
        yield Request(name, head, body, TOO_LARGE, is_large=True)


def all_requests(bait: Bait) -> list[Request]:
    """Every request there is, the quick ones first."""
    plain = (files_elsewhere(bait), addresses(bait), bodies(), uploads(bait), headers(), methods(), corners())
    return [*itertools.chain(*plain), *large()]


def verdict(url: str, what: Request) -> str | None:
    """What went wrong with a request; None where nothing did."""
    status, came = sent(url, what)
    if SECRET in came or b"root:x:" in came:
        return "it was shown what it asked for"
    if status == 0:
        return "no answer came"
    if b"Traceback" in came:
        return "it was shown a traceback"
    # Without a status the connection was closed; a server that can read nothing else says so in no other way.
    return None if status in what.allowed else f"it was answered with {status}: {came[-120:]!r}"


# ---------------------------------------------------------------------------------------------------------------------
# Calls with values that no browser would send


def photos_elsewhere(bait: Bait, uploads: Path) -> dict[str, Any]:
    """What is sent as a photo, and is none that was uploaded."""
    private, address = str(bait.file), f"{bait.address}/private.png"
    paths: dict[str, Any] = {
        "a picture elsewhere": private,
        "a file of the system": "/etc/passwd",
        "an endless device": "/dev/zero",
        "a way out of the uploads": f"{uploads}/../{bait.folder.name}/private.png",
        "the folder of uploads": str(uploads),
        "a relative path": "../private.png",
        "a name that ends early": f"{private}\0.png",
        "half a letter": f"{uploads}/\ud800.png",
        "an address": address,
        "an address of a file": f"file://{private}",
        "a picture in the address": "data:image/png;base64,iVBORw0KGgo=",
        "what is no base64": "data:image/png;base64,%%%%",
        "a long name": "a" * 100_000,
        "a number": 10**30,
        "a list": [private],
        "nothing": None,
    }
    sent: dict[str, Any] = {f"{name} as a path": {"path": path} for name, path in paths.items()}
    sent |= {f"{name} as a path, marked": {"path": path, **META} for name, path in paths.items()}
    sent |= {
        "an address alone": {"url": address},
        "an address alone, marked": {"url": address, **META},
        "an address beside no path": {"path": None, "url": address, **META},
        "an address beside another path": {"path": private, "url": address, "orig_name": "a.png", **META},
        "a stream": {"path": address, "url": address, "is_stream": True, **META},
        "a nested one": {"path": {"path": private, **META}, **META},
        "a nested one in a list": [[{"path": private, **META}]],
        "a number alone": 7,
        "a large number": 10**400,
        "a text": "/etc/passwd",
        "a picture as text": "data:image/png;base64,iVBORw0KGgo=",
        "an address as text": address,
        "true": True,
        "an empty list": [],
        "a list of nothing": [None],
        "a prototype": {"__proto__": {"path": private}},
    }
    return sent


Sink = tuple[dict[str, Any], Callable[[Any], list[Any]]]


def sinks(caller: Caller) -> dict[str, Sink]:
    """Every handler that takes a file, by a name, and how a file is put among its inputs."""
    (photo,) = caller.parts("image", "classify.photo")
    (tried,) = caller.parts("image", "teach.try")
    (several,) = caller.parts("file", "classify.several.files")
    (zipped,) = caller.parts("uploadbutton")
    classes = caller.parts("gallery", "teach.photos")
    (inside,) = caller.parts("tabitem", "inside.tab")
    corrections = [
        handler
        for handler in caller.handlers("click")
        if handler["inputs"][:1] == [photo] and len(handler["inputs"]) == 2
    ]
    walks = [handler for handler in caller.handlers("select", inside) if handler["inputs"][:1] == [photo]]
    return {
        "predict": (caller.predict, lambda file: [file]),
        "classify": (caller.handlers("change", photo)[0], lambda file: [file, ["frozen"]]),
        "several": (caller.handlers("change", several)[0], lambda file: [[file], ["frozen"]]),
        "inside": (walks[0], lambda file: [file, ["frozen"], "frozen"]),
        "correct": (corrections[0], lambda file: [file, "ants"]),
        "try": (caller.handlers("change", tried)[0], lambda file: [file]),
        "zip": (caller.handlers("upload", zipped)[0], lambda file: [file]),
        "class": (caller.handlers("upload", classes[0])[0], lambda file: [None, [{"image": file, "caption": None}]]),
        "class without one": (
            caller.handlers("delete", classes[0])[0],
            lambda file: [None, [{"image": file, "caption": None}]],
        ),
    }


def call_verdict(caller: Caller, handler: dict[str, Any], data: list[Any], bait: Bait) -> str | None:
    """What went wrong with a call; None where nothing did."""
    try:
        answer = caller.call(handler, data)
    except httpx.HTTPStatusError as error:
        return None if error.response.status_code in REFUSED else f"it was answered with {error.response.status_code}"
    output = json.dumps(answer)
    if SECRET.decode() in output or str(bait.folder) in output:
        return f"it was shown what it asked for: {output[:200]}"
    if "error" not in answer and not is_nothing(answer["data"]):
        return f"it was taken for a photo: {output[:200]}"
    return None


def is_nothing(data: list[Any]) -> bool:
    """Whether a handler answered as it does where no photo came."""
    return not any(isinstance(part, dict) and part.get("value") not in (None, [], "") for part in data)


# ---------------------------------------------------------------------------------------------------------------------
# The program


def main() -> None:
    """Start the page, send it all, say how it went."""
    from served import served_page

    parser = argparse.ArgumentParser(description="Send the page what nobody should.")
    parser.add_argument("--quick", action="store_true", help="without the large bodies")
    is_quick = parser.parse_args().quick
    problems = count = 0

    def report(name: str, problem: str | None) -> None:
        nonlocal problems, count
        count += 1
        problems += problem is not None
        print(f"{'safe' if problem is None else 'NOT SAFE'}  {name}{f': {problem}' if problem else ''}", flush=True)

    with served_page() as page, bait() as private:
        caller = Caller(page.url)
        before = page.usage()
        for what in all_requests(private):
            if not (is_quick and what.is_large):
                report(what.name, verdict(page.url, what))
        photos = photos_elsewhere(private, page.uploads)
        for (sink, (handler, among)), (name, photo) in itertools.product(sinks(caller).items(), photos.items()):
            report(f"{sink}: {name}", call_verdict(caller, handler, among(photo), private))
        report(
            "nothing was read, written or called that is not the page's", None if private.is_untouched() else "it was"
        )
        cost = page.usage().peak - before.peak
        report(f"they cost {cost / MEGABYTE:.0f} MB at most", None if cost <= MOST_MEMORY else "too much")
        (upload,) = caller.upload(private.file)
        report("and a photo is answered", None if "data" in caller.call(caller.predict, [upload]) else "it is not")
        caller.http.close()
        if said := page.log.read_text().strip():
            print(f"the page's own output, at its end:\n{said[-1500:]}")
    print(f"{count} tries, {problems} not safe")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
