"""What visitors bring: each one's own, found by its session alone, bounded, and gone when they leave."""

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


def settle(session, uploads):
    """A desk with one of everything; gives the files that belong to it."""
    session.dataset = FewShotDataset().with_class("ants").with_examples("ants", [example(1)])
    session.result = object()
    upload = uploads / f"{session.folder.name}.jpg"
    upload.touch()
    session.uploads.add(upload)
    session.path_of("model.zip").touch()
    return [upload, session.thumbnail_path(example(1)), session.path_of("model.zip"), session.folder]


# ---- whose is whose --------------------------------------------------------------------------------------------------


def test_a_session_finds_its_own_desk_and_never_anothers(sessions):
    first, second = sessions.get("a"), sessions.get("b")
    assert sessions.get("a") is first
    assert sessions.get("b") is second
    assert first is not second
    assert first.folder != second.folder
    assert sessions.get("a ") is not first


def test_many_requests_of_one_session_at_once_find_one_desk(sessions):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: sessions.get("a"), range(200)))
    assert {id(session) for session in found} == {id(found[0])}
    assert len(sessions) == 1


def test_a_folders_name_can_not_be_guessed_and_is_another_for_each(tmp_path):
    folders = [Sessions(tmp_path).get(session_id).folder for session_id in ("a", "a", "b")]
    assert {folder.parent for folder in folders} == {tmp_path}
    assert len({folder.name for folder in folders}) == 3, "not even the same session has the same name again"
    assert all(len(bytes.fromhex(folder.name)) >= 16 for folder in folders), "128 bits"


def test_nothing_is_written_before_a_visitor_brings_something(sessions, tmp_path):
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


def test_a_desk_shows_its_own_pictures_and_no_other_files(sessions, tmp_path):
    session, other = sessions.get("a"), sessions.get("b")
    assert session.owns(session.thumbnail_path(example(1)))
    assert not session.owns(other.thumbnail_path(example(1)))
    assert not session.owns(tmp_path / "photo.jpg")
    assert not session.owns(session.folder)


def test_a_desk_knows_its_pictures_where_its_folder_is_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    session = Session(tmp_path / "link" / "desk")
    assert session.owns(session.thumbnail_path(example(1)).resolve())


# ---- gone ------------------------------------------------------------------------------------------------------------


def test_leaving_removes_what_is_in_memory_the_pictures_and_the_uploads_and_no_one_elses(sessions, tmp_path):
    mine, others = sessions.get("a"), sessions.get("b")
    files, kept = settle(mine, tmp_path), settle(others, tmp_path)
    sessions.leave("a")
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in kept)
    assert (len(mine.dataset), mine.result, mine.uploads) == (0, None, set())
    assert sessions.get("a") is not mine
    assert sessions.get("b") is others


def test_whoever_leaves_twice_or_was_never_here_changes_nothing(sessions, tmp_path):
    kept = settle(sessions.get("b"), tmp_path)
    for session_id in ("a", "a", ""):
        sessions.leave(session_id)
    assert all(path.exists() for path in kept)
    assert len(sessions) == 1


def test_a_cleared_desk_can_be_worked_at_again(sessions, tmp_path):
    session = sessions.get("a")
    files = settle(session, tmp_path)
    session.clear()
    assert not any(path.exists() for path in files)
    assert session.thumbnail_path(example(1)).is_file()


def test_of_more_visitors_than_there_are_desks_the_one_away_longest_goes(sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(ui_sessions, "MOST_SESSIONS", 3)
    first, second, third = (sessions.get(session_id) for session_id in "abc")
    files = {session.folder.name: settle(session, tmp_path) for session in (first, second, third)}
    assert sessions.get("a") is first
    fourth = sessions.get("d")
    assert len(sessions) == 3
    assert not any(path.exists() for path in files[second.folder.name])
    assert [sessions.get(session_id) for session_id in "acd"] == [first, third, fourth]
    assert all(path.exists() for session in (first, third) for path in files[session.folder.name])


def test_visitors_are_bounded_by_a_number_that_memory_and_disk_can_bear(sessions):
    for number in range(3 * ui_sessions.MOST_SESSIONS):
        sessions.get(str(number))
    assert len(sessions) == ui_sessions.MOST_SESSIONS <= 100


def test_whoever_was_away_too_long_is_cleared_when_the_next_one_comes(sessions, tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(ui_sessions, "time", SimpleNamespace(monotonic=lambda: now))
    away, here = sessions.get("a"), sessions.get("b")
    files, kept = settle(away, tmp_path), settle(here, tmp_path)
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
    """A lock that tells when somebody wants it."""

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
    """The desk of session a, which tells when somebody waits for it."""
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


def test_a_request_that_fails_leaves_the_desk_free(sessions):
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
        files = settle(watched, tmp_path)
    ending.result(10)
    assert not any(path.exists() for path in files)
    assert (len(watched.dataset), watched.result) == (0, None)


def test_a_request_that_waited_while_the_visitor_left_gets_a_desk_that_can_be_cleared(
    sessions, watched, pool, tmp_path
):
    def work():
        with sessions.locked("a") as session:
            return settle(session, tmp_path)

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
