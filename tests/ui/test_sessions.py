"""Sessions: found by session hash alone, bounded in number, and deleted when the visitor leaves."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from antbee.training.fewshot_data import THUMBNAIL_SIDE, Example, FewShotDataset
from antbee.ui import sessions as ui_sessions
from antbee.ui.sessions import Session, Sessions


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path / "visitors")


def example(number, side=THUMBNAIL_SIDE):
    picture = Image.effect_noise((side, side), 64).convert("RGB")
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Example(f"{number}.jpg", picture, torch.ones(2), digest, "backbone")


def fill(session, uploads):
    """Fills a session with one of everything; returns its files."""
    session.dataset = FewShotDataset().with_class("ants").with_examples("ants", [example(1)])
    session.result = object()
    upload = uploads / f"{session.folder.name}.jpg"
    upload.touch()
    session.uploads.add(upload)
    session.path_of("model.zip").touch()
    return [upload, session.thumbnail_path(example(1)), session.path_of("model.zip"), session.folder]


# ---- sessions are separate -------------------------------------------------------------------------------------------


def test_a_session_hash_finds_its_own_session_and_never_anothers(sessions):
    first, second = sessions.get("a"), sessions.get("b")
    assert sessions.get("a") is first
    assert sessions.get("b") is second
    assert first is not second
    assert first.folder != second.folder
    assert sessions.get("a ") is not first


def test_concurrent_requests_of_one_visitor_find_one_session(sessions):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: sessions.get("a"), range(200)))
    assert {id(session) for session in found} == {id(found[0])}
    assert len(sessions) == 1


def test_a_folders_name_can_not_be_guessed_and_is_another_for_each(tmp_path):
    folders = [Sessions(tmp_path).get(session_id).folder for session_id in ("a", "a", "b")]
    assert {folder.parent for folder in folders} == {tmp_path}
    assert len({folder.name for folder in folders}) == 3, "not even the same session has the same name again"
    assert all(len(bytes.fromhex(folder.name)) >= 16 for folder in folders), "128 bits"


def test_a_new_session_writes_nothing(sessions, tmp_path):
    sessions.get("a")
    assert list(tmp_path.iterdir()) == []


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_small_file_for_the_same_photo_and_another_for_another(sessions):
    session = sessions.get("a")
    path = session.thumbnail_path(example(1))
    written = path.stat().st_mtime_ns
    assert session.thumbnail_path(example(1)) == path
    assert path.stat().st_mtime_ns == written
    assert session.thumbnail_path(example(2)) != path
    assert path.stat().st_size < 40_000, "noise, which packs worst"
    with Image.open(path) as picture:
        assert picture.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE)


def test_a_picture_that_was_swept_away_comes_back(sessions):
    session = sessions.get("a")
    session.thumbnail_path(example(1)).unlink()
    assert session.thumbnail_path(example(1)).is_file()


def test_a_session_owns_its_thumbnails_and_no_other_files(sessions, tmp_path):
    session, other = sessions.get("a"), sessions.get("b")
    assert session.owns(session.thumbnail_path(example(1)))
    assert not session.owns(other.thumbnail_path(example(1)))
    assert not session.owns(tmp_path / "photo.jpg")
    assert not session.owns(session.folder)


def test_a_session_owns_its_thumbnails_through_a_symbolic_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    session = Session(tmp_path / "link" / "session")
    assert session.owns(session.thumbnail_path(example(1)).resolve())


# ---- gone ------------------------------------------------------------------------------------------------------------


def test_leaving_removes_what_is_in_memory_the_pictures_and_the_uploads_and_no_one_elses(sessions, tmp_path):
    mine, others = sessions.get("a"), sessions.get("b")
    files, kept = fill(mine, tmp_path), fill(others, tmp_path)
    sessions.leave("a")
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in kept)
    assert (len(mine.dataset), mine.result, mine.uploads) == (0, None, set())
    assert sessions.get("a") is not mine
    assert sessions.get("b") is others


def test_leaving_twice_or_without_a_session_changes_nothing(sessions, tmp_path):
    kept = fill(sessions.get("b"), tmp_path)
    for session_id in ("a", "a", ""):
        sessions.leave(session_id)
    assert all(path.exists() for path in kept)
    assert len(sessions) == 1


def test_a_cleared_session_can_be_used_again(sessions, tmp_path):
    session = sessions.get("a")
    files = fill(session, tmp_path)
    session.clear()
    assert not any(path.exists() for path in files)
    assert session.thumbnail_path(example(1)).is_file()


def test_beyond_the_limit_the_least_recently_used_session_is_cleared(sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(ui_sessions, "MOST_SESSIONS", 3)
    first, second, third = (sessions.get(session_id) for session_id in "abc")
    files = {session.folder.name: fill(session, tmp_path) for session in (first, second, third)}
    assert sessions.get("a") is first
    fourth = sessions.get("d")
    assert len(sessions) == 3
    assert not any(path.exists() for path in files[second.folder.name])
    assert [sessions.get(session_id) for session_id in "acd"] == [first, third, fourth]
    assert all(path.exists() for session in (first, third) for path in files[session.folder.name])


def test_the_number_of_sessions_is_bounded(sessions):
    for number in range(3 * ui_sessions.MOST_SESSIONS):
        sessions.get(str(number))
    assert len(sessions) == ui_sessions.MOST_SESSIONS <= 100


def test_idle_sessions_are_cleared_at_the_next_request(sessions, tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(ui_sessions, "time", SimpleNamespace(monotonic=lambda: now))
    away, here = sessions.get("a"), sessions.get("b")
    files, kept = fill(away, tmp_path), fill(here, tmp_path)
    now += ui_sessions.LONGEST_IDLE
    assert sessions.get("b") is here
    assert all(path.exists() for path in files), "not longer than that"
    now += 1
    sessions.get("c")
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in kept)
    assert (len(away.dataset), away.result) == (0, None)
    assert len(sessions) == 2


# ---- one thing at a time ---------------------------------------------------------------------------------------------


class NoticedLock:
    """A lock that counts attempts to acquire it."""

    def __init__(self):
        self.wanted = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self):
        self.wanted.release()
        self._lock.acquire()

    def __exit__(self, *raised):
        self._lock.release()


@pytest.fixture
def watched(sessions):
    """The session a, with a lock that notices who waits for it."""
    session = sessions.get("a")
    session.lock = NoticedLock()
    return session


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as started:
        yield started


def test_two_requests_of_one_visitor_are_met_one_after_the_other_and_two_visitors_side_by_side(sessions, watched, pool):
    log = []

    def work(session_id):
        with sessions.locked(session_id) as session:
            log.append(session_id)
            return session

    with sessions.locked("a") as session:
        assert session is watched
        assert watched.lock.wanted.acquire(timeout=10)
        again = pool.submit(work, "a")
        assert watched.lock.wanted.acquire(timeout=10)
        pool.submit(work, "b").result(10)
        assert log == ["b"]
        log.append("done")
    assert again.result(10) is watched
    assert log == ["b", "done", "a"]


def test_a_failed_request_releases_the_lock(sessions):
    with pytest.raises(ZeroDivisionError), sessions.locked("a"):
        raise ZeroDivisionError
    assert not sessions.get("a").lock.locked()


def leave(sessions, monkeypatch):
    sessions.leave("a")


def make_room(sessions, monkeypatch):
    monkeypatch.setattr(ui_sessions, "MOST_SESSIONS", 1)
    sessions.get("b")


@pytest.mark.parametrize("end", [leave, make_room])
def test_what_is_under_way_when_a_visitor_goes_leaves_nothing_behind(
    sessions, watched, pool, tmp_path, monkeypatch, end
):
    with sessions.locked("a"):
        assert watched.lock.wanted.acquire(timeout=10)
        ending = pool.submit(end, sessions, monkeypatch)
        assert watched.lock.wanted.acquire(timeout=10)
        files = fill(watched, tmp_path)
    ending.result(10)
    assert not any(path.exists() for path in files)
    assert (len(watched.dataset), watched.result) == (0, None)


def test_a_request_that_waited_while_the_visitor_left_gets_a_new_session(sessions, watched, pool, tmp_path):
    def work():
        with sessions.locked("a") as session:
            return fill(session, tmp_path)

    with sessions.locked("a"):
        assert watched.lock.wanted.acquire(timeout=10)
        waiting = pool.submit(work)
        assert watched.lock.wanted.acquire(timeout=10)
        leaving = pool.submit(sessions.leave, "a")
        assert watched.lock.wanted.acquire(timeout=10)
    leaving.result(10)
    files = waiting.result(10)
    assert watched.folder not in files
    assert all(path.exists() for path in files)
    sessions.leave("a")
    assert not any(path.exists() for path in files)
    assert not watched.folder.exists()
