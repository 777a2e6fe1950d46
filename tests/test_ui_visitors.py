"""What visitors bring: each one's own, found by its session alone, bounded, and gone when they leave."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from antbee.teaching import THUMBNAIL_SIDE, Example, Lesson
from antbee.ui import visitors
from antbee.ui.visitors import Desk, Desks


@pytest.fixture
def desks(tmp_path):
    return Desks(tmp_path / "visitors")


def example(number, side=THUMBNAIL_SIDE):
    picture = Image.effect_noise((side, side), 64).convert("RGB")
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Example(f"{number}.jpg", picture, torch.ones(2), digest, "backbone")


def settle(desk, uploads):
    """A desk with one of everything; gives the files that belong to it."""
    desk.lesson = Lesson().with_class("ants").with_examples("ants", [example(1)])
    desk.taught = object()
    upload = uploads / f"{desk.folder.name}.jpg"
    upload.touch()
    desk.uploads.add(upload)
    desk.place_for("model.zip").touch()
    return [upload, desk.picture_of(example(1)), desk.place_for("model.zip"), desk.folder]


# ---- whose is whose --------------------------------------------------------------------------------------------------


def test_a_session_finds_its_own_desk_and_never_anothers(desks):
    first, second = desks.of("a"), desks.of("b")
    assert desks.of("a") is first
    assert desks.of("b") is second
    assert first is not second
    assert first.folder != second.folder
    assert desks.of("a ") is not first


def test_many_requests_of_one_session_at_once_find_one_desk(desks):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: desks.of("a"), range(200)))
    assert {id(desk) for desk in found} == {id(found[0])}
    assert len(desks) == 1


def test_a_folders_name_can_not_be_guessed_and_is_another_for_each(tmp_path):
    folders = [Desks(tmp_path).of(session).folder for session in ("a", "a", "b")]
    assert {folder.parent for folder in folders} == {tmp_path}
    assert len({folder.name for folder in folders}) == 3, "not even the same session has the same name again"
    assert all(len(bytes.fromhex(folder.name)) >= 16 for folder in folders), "128 bits"


def test_nothing_is_written_before_a_visitor_brings_something(desks, tmp_path):
    desks.of("a")
    assert list(tmp_path.iterdir()) == []


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_small_file_for_the_same_photo_and_another_for_another(desks):
    desk = desks.of("a")
    path = desk.picture_of(example(1))
    written = path.stat().st_mtime_ns
    assert desk.picture_of(example(1)) == path
    assert path.stat().st_mtime_ns == written
    assert desk.picture_of(example(2)) != path
    assert path.stat().st_size < 40_000, "noise, which packs worst"
    with Image.open(path) as picture:
        assert picture.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE)


def test_a_picture_that_was_swept_away_comes_back(desks):
    desk = desks.of("a")
    desk.picture_of(example(1)).unlink()
    assert desk.picture_of(example(1)).is_file()


def test_a_desk_shows_its_own_pictures_and_no_other_files(desks, tmp_path):
    desk, other = desks.of("a"), desks.of("b")
    assert desk.shows(desk.picture_of(example(1)))
    assert not desk.shows(other.picture_of(example(1)))
    assert not desk.shows(tmp_path / "photo.jpg")
    assert not desk.shows(desk.folder)


def test_a_desk_knows_its_pictures_where_its_folder_is_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    desk = Desk(tmp_path / "link" / "desk")
    assert desk.shows(desk.picture_of(example(1)).resolve())


# ---- gone ------------------------------------------------------------------------------------------------------------


def test_leaving_removes_what_is_in_memory_the_pictures_and_the_uploads_and_no_one_elses(desks, tmp_path):
    mine, others = desks.of("a"), desks.of("b")
    files, kept = settle(mine, tmp_path), settle(others, tmp_path)
    desks.leave("a")
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in kept)
    assert (len(mine.lesson), mine.taught, mine.uploads) == (0, None, set())
    assert desks.of("a") is not mine
    assert desks.of("b") is others


def test_whoever_leaves_twice_or_was_never_here_changes_nothing(desks, tmp_path):
    kept = settle(desks.of("b"), tmp_path)
    for session in ("a", "a", ""):
        desks.leave(session)
    assert all(path.exists() for path in kept)
    assert len(desks) == 1


def test_a_cleared_desk_can_be_worked_at_again(desks, tmp_path):
    desk = desks.of("a")
    files = settle(desk, tmp_path)
    desk.clear()
    assert not any(path.exists() for path in files)
    assert desk.picture_of(example(1)).is_file()


def test_of_more_visitors_than_there_are_desks_the_one_away_longest_goes(desks, tmp_path, monkeypatch):
    monkeypatch.setattr(visitors, "MOST_VISITORS", 3)
    first, second, third = (desks.of(session) for session in "abc")
    files = {desk.folder.name: settle(desk, tmp_path) for desk in (first, second, third)}
    assert desks.of("a") is first
    fourth = desks.of("d")
    assert len(desks) == 3
    assert not any(path.exists() for path in files[second.folder.name])
    assert [desks.of(session) for session in "acd"] == [first, third, fourth]
    assert all(path.exists() for desk in (first, third) for path in files[desk.folder.name])


def test_visitors_are_bounded_by_a_number_that_memory_and_disk_can_bear(desks):
    for number in range(3 * visitors.MOST_VISITORS):
        desks.of(str(number))
    assert len(desks) == visitors.MOST_VISITORS <= 100


def test_whoever_was_away_too_long_is_cleared_when_the_next_one_comes(desks, tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(visitors, "time", SimpleNamespace(monotonic=lambda: now))
    away, here = desks.of("a"), desks.of("b")
    files, kept = settle(away, tmp_path), settle(here, tmp_path)
    now += visitors.LONGEST_ABSENCE
    assert desks.of("b") is here
    assert all(path.exists() for path in files), "not longer than that"
    now += 1
    desks.of("c")
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in kept)
    assert (len(away.lesson), away.taught) == (0, None)
    assert len(desks) == 2


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
def watched(desks):
    """The desk of session a, which tells when somebody waits for it."""
    desk = desks.of("a")
    desk.busy = NoticedLock()
    return desk


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as started:
        yield started


def test_two_requests_of_one_visitor_are_met_one_after_the_other_and_two_visitors_side_by_side(desks, watched, pool):
    log = []

    def work(session):
        with desks.at(session) as desk:
            log.append(session)
            return desk

    with desks.at("a") as desk:
        assert desk is watched
        assert watched.busy.wanted.acquire(timeout=10)
        again = pool.submit(work, "a")
        assert watched.busy.wanted.acquire(timeout=10)
        pool.submit(work, "b").result(10)
        assert log == ["b"]
        log.append("done")
    assert again.result(10) is watched
    assert log == ["b", "done", "a"]


def test_a_request_that_fails_leaves_the_desk_free(desks):
    with pytest.raises(ZeroDivisionError), desks.at("a"):
        raise ZeroDivisionError
    assert not desks.of("a").busy.locked()


def leave(desks, monkeypatch):
    desks.leave("a")


def make_room(desks, monkeypatch):
    monkeypatch.setattr(visitors, "MOST_VISITORS", 1)
    desks.of("b")


@pytest.mark.parametrize("end", [leave, make_room])
def test_what_is_under_way_when_a_visitor_goes_leaves_nothing_behind(desks, watched, pool, tmp_path, monkeypatch, end):
    with desks.at("a"):
        assert watched.busy.wanted.acquire(timeout=10)
        ending = pool.submit(end, desks, monkeypatch)
        assert watched.busy.wanted.acquire(timeout=10)
        files = settle(watched, tmp_path)
    ending.result(10)
    assert not any(path.exists() for path in files)
    assert (len(watched.lesson), watched.taught) == (0, None)


def test_a_request_that_waited_while_the_visitor_left_gets_a_desk_that_can_be_cleared(desks, watched, pool, tmp_path):
    def work():
        with desks.at("a") as desk:
            return settle(desk, tmp_path)

    with desks.at("a"):
        assert watched.busy.wanted.acquire(timeout=10)
        waiting = pool.submit(work)
        assert watched.busy.wanted.acquire(timeout=10)
        leaving = pool.submit(desks.leave, "a")
        assert watched.busy.wanted.acquire(timeout=10)
    leaving.result(10)
    files = waiting.result(10)
    assert watched.folder not in files
    assert all(path.exists() for path in files)
    desks.leave("a")
    assert not any(path.exists() for path in files)
    assert not watched.folder.exists()
