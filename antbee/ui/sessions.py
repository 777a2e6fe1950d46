"""Visitors' sessions: the few-shot data set, result and files of each visitor, deleted when the visitor leaves."""

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from antbee.training.fewshot import FewShotResult
from antbee.training.fewshot_data import Example, FewShotDataset

MOST_SESSIONS = 50  # a new one closes the one that was idle longest
LONGEST_IDLE = 3600  # seconds, for visitors who left unnoticed


@dataclass
class Session:
    """One visitor's few-shot data set, the result of training on it, and the files of both."""

    folder: Path  # with a random name, in the folder that the page serves files from
    dataset: FewShotDataset = field(default_factory=FewShotDataset)
    result: FewShotResult | None = None
    uploads: set[Path] = field(default_factory=set)  # uploaded photos, which other tabs may still show
    last_used: float = 0.0  # seconds, time.monotonic()
    lock: threading.Lock = field(default_factory=threading.Lock)  # held by one handler at a time

    def thumbnail_path(self, example: Example) -> Path:
        """The file of an example's thumbnail, which is written first if it is missing."""
        path = self.path_of(f"{example.crop_digest[:32]}.jpg")
        if not path.exists():
            example.thumbnail.save(path, quality=90)
        return path

    def owns(self, path: Path) -> bool:
        """Whether a file is in this session's folder, as thumbnails are."""
        return path.parent.resolve() == self.folder.resolve()

    def path_of(self, name: str) -> Path:
        """The path of a file of this name in the session's folder, which exists from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def start_again(self) -> None:
        """Deletes the data set, the result and the session's folder."""
        self.dataset, self.result = FewShotDataset(), None
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Deletes everything, uploads included."""
        self.start_again()
        for path in self.uploads:
            path.unlink(missing_ok=True)
        self.uploads.clear()


class Sessions:
    """All visitors' sessions, by Gradio's session hash. Safe for use by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()  # of _sessions; never held while a session's lock is waited for

    @contextmanager
    def locked(self, session_id: str) -> Iterator[Session]:
        """The session, with its lock held: nobody else changes or clears it within the block."""
        while True:
            session = self.get(session_id)
            with session.lock:
                if self._sessions.get(session_id) is session:  # else the visitor left while this waited
                    yield session
                    return

    def get(self, session_id: str) -> Session:
        """The session, empty at first. Clears idle sessions, and the least recently used where there are too many."""
        with self._lock:
            now = time.monotonic()
            session = self._sessions.pop(session_id, None) or Session(self._folder / secrets.token_hex(16))
            session.last_used = now
            idle = [name for name, other in self._sessions.items() if now - other.last_used > LONGEST_IDLE]
            too_many = list(self._sessions)[: max(0, len(self._sessions) + 1 - MOST_SESSIONS)]
            closed = [self._sessions.pop(name) for name in dict.fromkeys([*idle, *too_many])]
            self._sessions[session_id] = session
        for other in closed:
            with other.lock:
                other.clear()
        return session

    def leave(self, session_id: str) -> None:
        """Closes a session and clears it; does nothing where there is none."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            with session.lock:  # a handler that still runs could otherwise write files after the folder was deleted
                session.clear()

    def __len__(self) -> int:
        return len(self._sessions)
