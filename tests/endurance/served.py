"""A page in a process of its own, to be worn out: what it shows, and what it takes of the machine meanwhile."""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets these programs run from any folder
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from page_helpers import free_port, write_model

from antbee.data.drawn import draw, write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.transforms import Preprocessing

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 2**20


@dataclass(frozen=True)
class Usage:
    """What a process takes of the machine, and its uploads of the disk."""

    memory: int  # bytes
    peak: int  # bytes, since the process began
    files: int  # open ones, sockets and pipes too
    threads: int
    uploads: int  # bytes

    def __str__(self) -> str:
        return (
            f"{self.memory / MEGABYTE:.0f} MB (peak {self.peak / MEGABYTE:.0f}), {self.files} open files, "
            f"{self.threads} threads, {self.uploads / MEGABYTE:.1f} MB of uploads"
        )


@dataclass(frozen=True)
class Served:
    """A page that is running."""

    url: str
    process: int
    uploads: Path
    log: Path  # all that it prints

    def usage(self) -> Usage:
        """What it takes now. Linux tells it in /proc."""
        about = Path(f"/proc/{self.process}")
        lines = (line.split(":") for line in (about / "status").read_text().splitlines())
        status = {name: value.split()[0] for name, value in lines if value.split()}
        return Usage(
            memory=1024 * int(status["VmRSS"]),
            peak=1024 * int(status["VmHWM"]),
            files=len(list((about / "fd").iterdir())),
            threads=int(status["Threads"]),
            uploads=sum(path.stat().st_size for path in self.uploads.rglob("*") if path.is_file()),
        )


@contextmanager
def served_page(*words: str) -> Iterator[Served]:
    """app.py with two untrained ResNet-18 of real size and drawn photos, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="antbee-endurance-") as workshop:
        folder = Path(workshop)
        counts = {"ants": 8, "bees": 8}
        photos = read_folder(write_drawn_set(folder / "drawn", train=counts, val=counts, longest_side=320))
        models = [
            write_model(folder / mode, mode, seed=seed, photos=photos, preprocessing=Preprocessing())
            for seed, mode in enumerate(("frozen", "finetune"))
        ]
        port, uploads, log = free_port(), folder / "uploads", folder / "log"
        command = [sys.executable, ROOT / "app.py", *models, "--data", photos.root, "--port", str(port), *words]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(uploads)}
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=output, text=True)
            try:
                started = [process.stdout.readline() for _ in range(3)]
                if not started[-1].startswith("page"):
                    raise SystemExit(f"the page did not start:\n{log.read_text()}")
                yield Served(f"http://127.0.0.1:{port}/", process.pid, uploads, log)
            finally:
                process.terminate()
                process.wait(20)


def photo_bytes(number: int, width: int = 500) -> bytes:
    """A photo as JPEG, of about 50 kB at the usual width."""
    file = io.BytesIO()
    draw(("ants", "bees")[number % 2], number, width).save(file, "JPEG", quality=92)
    return file.getvalue()


def unique(photo: bytes, number: int) -> bytes:
    """The same photo as a file of other bytes: with a comment, which JPEG has a segment for."""
    comment = f"{number:020}".encode()
    return photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]
