"""Finding a data set: a download leaves the complete data set or nothing, and antbee.load_folder reads any folder."""

import hashlib
import io
import shutil
import socket
import socketserver
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from data_folders import photo_bytes, small_set, write_set

import antbee
from antbee.data import download
from antbee.data.download import DownloadError, drawn_folder, hymenoptera_folder
from antbee.data.folder import read_folder
from antbee.errors import InputError


class OneResponse(socketserver.ThreadingTCPServer):
    """A loopback server that sends the same bytes to every request and records the paths requested."""

    daemon_threads = True

    def __init__(self, response: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.response = response
        self.requested: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hymenoptera_data.zip"


class Handler(socketserver.StreamRequestHandler):
    server: OneResponse

    def handle(self) -> None:
        self.server.requested.append(self.rfile.readline().decode().split()[1])
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.response)


Serve = Callable[[bytes], OneResponse]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers, and stops them after the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[OneResponse] = []

    def start(response: bytes) -> OneResponse:
        server = OneResponse(response)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def ok(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) if length is None else length, body)


FILES = {
    "train/ants/1.jpg": photo_bytes(1),
    "train/bees/2.jpg": photo_bytes(2),
    "val/ants/3.jpg": photo_bytes(3),
    "val/bees/4.jpg": photo_bytes(4),
}


def archive_of(entries: Iterable[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return content.getvalue()


ENTRIES = [(f"hymenoptera_data/{name}", body) for name, body in FILES.items()]
ARCHIVE = archive_of(ENTRIES)


@pytest.fixture
def digest() -> str:
    """The digest of the set in `ARCHIVE`."""
    lines = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(FILES.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_download_leaves_the_complete_set_and_nothing_else(tmp_path: Path, serve: Serve, digest: str) -> None:
    strays = [("__MACOSX/hymenoptera_data/train/._x", b"x"), ("hymenoptera_data/.DS_Store", b"x")]
    server = serve(ok(archive_of([*ENTRIES, *strays])))
    folder = hymenoptera_folder(tmp_path / "new" / "data", url=server.url, digest=digest)
    assert folder == tmp_path / "new" / "data" / "hymenoptera_data"
    assert tree(folder) == FILES
    assert list(folder.parent.iterdir()) == [folder]
    assert server.requested == ["/hymenoptera_data.zip"]
    assert read_folder(folder).digest == digest


def test_a_set_is_downloaded_once(tmp_path: Path, serve: Serve, digest: str) -> None:
    server = serve(ok(ARCHIVE))
    folders = [hymenoptera_folder(tmp_path, url=server.url, digest=digest) for _ in range(2)]
    assert folders[0] == folders[1]
    assert len(server.requested) == 1


def test_a_response_without_a_content_length_is_accepted(tmp_path: Path, serve: Serve, digest: str) -> None:
    server = serve(b"HTTP/1.0 200 OK\r\n\r\n" + ARCHIVE)
    assert tree(hymenoptera_folder(tmp_path, url=server.url, digest=digest)) == FILES


BROKEN = bytearray(ARCHIVE)
BROKEN[45:60] = bytes(15)
ENCRYPTED = bytearray(ARCHIVE)
ENCRYPTED[6] |= 1
ENCRYPTED[ENCRYPTED.index(b"PK\x01\x02") + 8] |= 1


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (ok(ARCHIVE[:300], len(ARCHIVE)), rf"cut off after 300 of {len(ARCHIVE)} bytes: try again"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFF\r\nPK",
            "can't be downloaded .*check the connection",
        ),
        (b"", "can't be downloaded .*check the connection"),
        (b"garbage\r\n\r\n", "can't be downloaded .*check the connection"),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            r"can't be downloaded \(HTTP 404 Not Found\): try again",
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", r"can't be downloaded \(HTTP 503 Busy\): try again"),
        (ok(b"<html>Log in to this network</html>"), "can't be unpacked .*try again"),
        (ok(b""), "can't be unpacked .*try again"),
        (ok(ARCHIVE[:-30]), "can't be unpacked .*try again"),
        (ok(bytes(BROKEN)), "can't be unpacked .*try again"),
        (ok(bytes(ENCRYPTED)), "can't be unpacked .*try again"),
        (ok(archive_of(ENTRIES[:-1])), "not the published data set .*try again"),
        (ok(archive_of([*ENTRIES[:-1], (ENTRIES[-1][0], photo_bytes(9))])), "not the published data set .*try again"),
        (ok(archive_of([("other/train/ants/1.jpg", b"x")])), "not the published data set .*try again"),
        (ok(archive_of([])), "not the published data set .*try again"),
    ],
)
def test_a_failed_download_is_an_error_with_the_reason_and_leaves_no_files(
    tmp_path: Path, serve: Serve, digest: str, response: bytes, reason: str
) -> None:
    with pytest.raises(DownloadError, match=reason) as caught:
        hymenoptera_folder(tmp_path, url=serve(response).url, digest=digest)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_is_an_error_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match=r"can't be downloaded .*refused.*check the connection"):
        hymenoptera_folder(tmp_path, url=f"http://127.0.0.1:{port}/x.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_reset_is_an_error_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, digest: str
) -> None:
    def reset(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(shutil, "copyfileobj", reset)
    with pytest.raises(DownloadError, match=r"can't be downloaded .*reset by peer"):
        hymenoptera_folder(tmp_path, url=serve(ok(ARCHIVE)).url, digest=digest)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_can_not_write_outside_the_set(tmp_path: Path, serve: Serve, digest: str) -> None:
    parent = tmp_path / "one" / "two" / "data"
    evil = ["../evil", "../../hymenoptera_data/train/evil", f"{tmp_path}/absolute", "hymenoptera_data/../evil", "evil"]
    server = serve(ok(archive_of([*ENTRIES, *((name, b"evil") for name in evil)])))
    folder = hymenoptera_folder(parent, url=server.url, digest=digest)
    assert tree(tmp_path) == {f"one/two/data/hymenoptera_data/{name}": body for name, body in FILES.items()}
    shutil.rmtree(folder)
    climbing = "hymenoptera_data/train/" + "../" * 6 + "evil"
    with pytest.raises(DownloadError, match="not the published data set"):
        hymenoptera_folder(parent, url=serve(ok(archive_of([*ENTRIES, (climbing, b"evil")]))).url, digest=digest)
    assert tree(tmp_path) == {}


def test_an_interrupted_download_does_not_prevent_the_next_one(tmp_path: Path, serve: Serve, digest: str) -> None:
    leftovers = tmp_path / ".hymenoptera_data-abc" / "unpacked" / "hymenoptera_data" / "train"
    leftovers.mkdir(parents=True)
    (leftovers / "half.jpg").write_bytes(b"half")
    assert tree(hymenoptera_folder(tmp_path, url=serve(ok(ARCHIVE)).url, digest=digest)) == FILES


def test_the_drawn_set_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []

    def write(folder: Path) -> Path:
        drawn.append(folder)
        folder.mkdir(parents=True)
        return folder

    monkeypatch.setattr(download, "write_drawn_set", write)
    assert drawn_folder(tmp_path / "data") == drawn_folder(tmp_path / "data") == tmp_path / "data" / "drawn"
    assert drawn == [tmp_path / "data" / "drawn"]


def test_tests_can_connect_to_loopback_only() -> None:
    for reach in (lambda: socket.create_connection(("192.0.2.1", 80)), lambda: socket.getaddrinfo("example.org", 80)):
        with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1|example\.org"):
            reach()
    with socket.socket() as plain, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        plain.connect_ex(("192.0.2.1", 80))


# ---------------------------------------------------------------------------------------------------------------------
# antbee.load_folder


def test_load_folder_reads_a_path_as_read_folder_does(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants": 10, "bees": 10})
    assert antbee.load_folder(root) == antbee.load_folder(str(root), seed=0) == read_folder(root)
    assert antbee.load_folder(root, seed=1) == read_folder(root, seed=1) != read_folder(root)


def test_load_folder_draws_the_drawn_set_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "home", lambda: tmp_path)
    monkeypatch.setattr(download, "write_drawn_set", small_set)
    assert antbee.load_folder("drawn").root == tmp_path / "data" / "drawn"


def test_load_folder_leaves_out_the_photos_in_a_list(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    (tmp_path / "list.txt").write_text("train/ants/001.jpg\n")
    for listed in (tmp_path / "list.txt", str(tmp_path / "list.txt")):
        assert antbee.load_folder(root, exclude=listed) == read_folder(root).without(["train/ants/001.jpg"])


def test_load_folder_refuses_many_damaged_photos_unless_they_are_allowed(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    for number in (1, 2):
        (root / "train" / "ants" / f"{number:03d}.jpg").write_bytes(b"<html>")
    with pytest.raises(antbee.AntbeeError, match=r"train/ants: 2 of 3 photos can't be used.*--allow-bad"):
        antbee.load_folder(root)
    dataset = antbee.load_folder(root, allow_bad=True)
    assert isinstance(dataset, antbee.ImageDataset)
    assert dataset == read_folder(root)


def test_load_folder_raises_an_input_error_for_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not there: expected DIR/train/CLASS"):
        antbee.load_folder(tmp_path / "nowhere")
