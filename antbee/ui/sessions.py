"""What visitors bring to the page: each one's own, bounded, and gone when they leave."""

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

MOST_VISITORS = 50  # with a lesson at a time; the one who was away longest loses theirs to the next
LONGEST_ABSENCE = 3600  # seconds, for those whose leaving nobody noticed


@dataclass
class Session:
    """One visitor's lesson, and the pictures of it that the visitor's browser shows."""

    folder: Path  # whose name nobody can guess, below the one that the page may serve files from
    dataset: FewShotDataset = field(default_factory=FewShotDataset)
    taught: FewShotResult | None = None
    uploads: set[Path] = field(default_factory=set)  # photos that came here, which other tabs may still show
    last_used: float = 0.0  # seconds, of a clock that never goes back
    busy: threading.Lock = field(default_factory=threading.Lock)  # one thing at a time

    def picture_of(self, example: Example) -> Path:
        """A picture that the visitor's browser can fetch; the same file for the same photo."""
        path = self.place_for(f"{example.crop_digest[:32]}.jpg")
        if not path.exists():
            example.thumbnail.save(path, quality=90)
        return path

    def shows(self, path: Path) -> bool:
        """Whether a picture is one of those that `picture_of` gave."""
        return path.parent.resolve() == self.folder.resolve()

    def place_for(self, name: str) -> Path:
        """Where a file of this name lies, or may be written, for the visitor alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def start_again(self) -> None:
        """Forgets the lesson and what was taught, with the pictures of it."""
        self.dataset, self.taught = FewShotDataset(), None
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Forgets all of it, in memory and on disk."""
        self.start_again()
        for path in self.uploads:
            path.unlink(missing_ok=True)
        self.uploads.clear()


class Sessions:
    """The desks of all visitors, each found by its session alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._desks: OrderedDict[str, Session] = OrderedDict()  # the one away longest first
        self._finding = threading.Lock()

    @contextmanager
    def at(self, session_id: str) -> Iterator[Session]:
        """This session's desk for the block, alone: nobody else works at it meanwhile, and nobody clears it."""
        while True:
            session = self.of(session_id)
            with session.busy:
                if self._desks.get(session_id) is session:  # else the visitor left while this waited
                    yield session
                    return

    def of(self, session_id: str) -> Session:
        """This session's desk, an empty one at first."""
        with self._finding:
            now = time.monotonic()
            session = self._desks.pop(session_id, None) or Session(self._folder / secrets.token_hex(16))
            session.last_used = now
            away = [name for name, other in self._desks.items() if now - other.last_used > LONGEST_ABSENCE]
            too_many = list(self._desks)[: max(0, len(self._desks) + 1 - MOST_VISITORS)]
            gone = [self._desks.pop(name) for name in dict.fromkeys([*away, *too_many])]
            self._desks[session_id] = session
        for other in gone:
            with other.busy:
                other.clear()
        return session

    def leave(self, session_id: str) -> None:
        """Clears the desk of a session that is over."""
        with self._finding:
            session = self._desks.pop(session_id, None)
        if session is not None:
            with session.busy:  # what it is doing would else write pictures into a folder that nobody clears any more
                session.clear()

    def __len__(self) -> int:
        return len(self._desks)
