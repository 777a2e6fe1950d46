"""python tests/endurance/kills.py [kills|row|signals|disk|refusals|ranks ...] [--count N] [--seed N]

Breaks trainings of seconds off in every way and looks at what is left: resumed, they have to end with the very bytes of
a run that nobody broke off. Prints a line for each figure, and ends with status 1 where one is missed.

    kills      SIGKILL at a random moment, then --resume                                          (100 times)
    row        ten such kills of one run, one after the other                                     (10 runs)
    signals    SIGINT and SIGTERM at a random moment: the status, the seconds to the end          (20 times each)
    disk       a disk that is full at a save: one clear error, then --resume                      (20 times)
    refusals   an output nobody can write to, a second run, a loss of NaN: one clear error each   (20 times each)
    ranks      one of two processes of torchrun is killed: all end; and with --max-restarts 3     (10 times each)
"""

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from antbee.data.drawn import write_drawn_set
from antbee.models.versions import MARKER, RunFolder

COUNTS = {"kills": 100, "row": 10, "signals": 20, "disk": 20, "refusals": 20, "ranks": 10}
LONGEST_STOP = 5.0  # seconds from a signal to the end
LONGEST_LOSS = 30.0  # seconds from the loss of a process to the end of all


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    seconds: float
    said: str  # on stderr


class Server:
    """Runs of train.py, each in a process that is forked off where everything is imported already."""

    def __init__(self, folder: Path) -> None:
        self.errors = folder / "errors.txt"
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "train_quickly.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )

    def run(self, words: list[str], meanwhile: Callable[[int], None] = lambda process: None) -> Ended:
        """A run with these flags; `meanwhile` is told its process, and what it does is over when it returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = self.errors.stat().st_size
        started = time.monotonic()
        print(json.dumps(words), file=self.process.stdin, flush=True)
        process = int(self.process.stdout.readline())
        doing = threading.Thread(target=meanwhile, args=(process,))
        doing.start()
        for line in self.process.stdout:
            if line.startswith("ended"):
                doing.join()
                said = self.errors.read_text()[before:]
                return Ended(int(line.split()[1]), time.monotonic() - started, said)
        raise RuntimeError(self.errors.read_text())

    def close(self) -> None:
        """Ends the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Bench:
    """Where runs happen, what they are of, and what one gives that nobody breaks off."""

    server: Server
    folder: Path
    data: Path
    chance: random.Random
    expected: dict[str, str]
    seconds: float  # that such a run takes

    def words(self, output: Path, *more: str) -> list[str]:
        """The flags of a run."""
        return words_of(self.data, output, *more)

    @contextmanager
    def output(self) -> Iterator[Path]:
        """A folder for the models, for a while."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder) / "outputs"

    def ends_equal(self, output: Path) -> bool:
        """Whether a run that goes on in `output` ends as one that nobody broke off, and leaves nothing half written."""
        ended = self.server.run(self.words(output, "--resume"))
        strays = [path for path in RunFolder(output).path.iterdir() if path.name not in ("lock", MARKER)]
        equal = ended.status == 0 and digests(output) == self.expected and not strays
        if not equal:
            print(f"  resumed: status {ended.status}, {digests(output)}, {strays}: {ended.said}", flush=True)
        return equal


def words_of(data: Path, output: Path, *more: str) -> list[str]:
    """The flags of a run of seconds in both modes."""
    usual = ["--data", str(data), "--weights", "random", "--device", "cpu", "--output", str(output)]
    return [*usual, "--batch-size", "4", "--epochs", "3", "--folds", "0", "--precision", "float32", *more]


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each mode's weights."""
    paths = {mode: output / mode / "model.safetensors" for mode in ("frozen", "finetune")}
    return {mode: hashlib.sha256(path.read_bytes()).hexdigest() for mode, path in paths.items() if path.exists()}


def sending(number: int, after: float, sent: list[float] | None = None) -> Callable[[int], None]:
    """What sends a signal to a process once it has run for so many seconds."""

    def send(process: int) -> None:
        time.sleep(after)
        if sent is not None:
            sent.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(process, number)

    return send


# ---- the figures -----------------------------------------------------------------------------------------------------


def kills(bench: Bench, count: int) -> bool:
    """Killed once."""
    equal = 0
    for _ in range(count):
        with bench.output() as output:
            bench.server.run(bench.words(output), sending(signal.SIGKILL, bench.chance.uniform(0, bench.seconds)))
            equal += bench.ends_equal(output)
    return said(f"killed once and resumed, equal bytes of both modes: {equal} of {count}", equal == count)


def row(bench: Bench, count: int) -> bool:
    """Killed ten times."""
    equal = 0
    for _ in range(count):
        with bench.output() as output:
            for _ in range(10):
                after = bench.chance.uniform(0.1, bench.seconds / 2)
                bench.server.run(bench.words(output, "--resume"), sending(signal.SIGKILL, after))
            equal += bench.ends_equal(output)
    return said(f"killed ten times in a row, equal bytes of both modes: {equal} of {count}", equal == count)


def signals(bench: Bench, count: int) -> bool:
    """Stopped as people and systems stop programs."""
    right = True
    for number in (signal.SIGINT, signal.SIGTERM):
        good, slowest = 0, 0.0
        for _ in range(count):
            with bench.output() as output:
                sent: list[float] = []
                # Not before it is there to hear it: until then Python itself ends the process.
                after = bench.chance.uniform(0.3, bench.seconds)
                ended = bench.server.run(bench.words(output), sending(number, after, sent))
                slowest = max(slowest, time.monotonic() - sent[0])
                # 0, or the signal itself: it was over already, and Python was closing down.
                stopped = ended.status in (128 + number, -number, 0) and "Traceback" not in ended.said
                stopped &= ended.status == 128 + number or digests(output) == bench.expected
                equal = bench.ends_equal(output)
                if not (stopped and equal):
                    print(f"  after {after:.2f} s: status {ended.status}, equal bytes {equal}: {ended.said}")
                good += stopped and equal
        right &= said(
            f"{number.name}: right status, equal bytes once resumed: {good} of {count}, slowest end {slowest:.1f} s",
            good == count and slowest < LONGEST_STOP,
        )
    return right


def disk(bench: Bench, count: int) -> bool:
    """No room for what is saved: files may have 20 MB at most, and a checkpoint of fine-tuning has more."""
    good = 0
    for _ in range(count):
        with bench.output() as output:

            def limit(process: int) -> None:
                with suppress(ProcessLookupError):
                    resource.prlimit(process, resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

            ended = bench.server.run(bench.words(output), limit)
            good += is_one_line(ended) and bench.ends_equal(output)
    return said(f"a full disk: one line, status 1, and equal bytes after --resume: {good} of {count}", good == count)


def refusals(bench: Bench, count: int) -> bool:
    """What can't go well."""
    right = True
    good = sum(is_one_line(bench.server.run(bench.words(Path("/proc/antbee")))) for _ in range(count))
    right &= said(f"an output that nobody can write to: one line, status 1 or 2: {good} of {count}", good == count)
    with bench.output() as output, RunFolder(output).locked():
        good = sum(is_one_line(bench.server.run(bench.words(output))) for _ in range(count))
    right &= said(f"a second run in a folder: one line, status 1 or 2: {good} of {count}", good == count)
    with bench.output() as output:
        bench.server.run(bench.words(output))
        before = digests(output)
        ends = [bench.server.run(bench.words(output, "--lr", "1e30")) for _ in range(count)]
        good = sum(is_one_line(ended) and "--lr" in ended.said for ended in ends)
        kept = digests(output) == before
    return right & said(
        f"a loss of NaN: one line, status 1 or 2: {good} of {count}; models kept: {kept}", good == count and kept
    )


def ranks(bench: Bench, count: int) -> bool:
    """Two processes under torchrun, one of which is killed."""

    def launched(output: Path, restarts: int, *more: str) -> list[str]:
        usual = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        usual += ["--max-restarts", str(restarts), "--monitor-interval", "0.5", "--run-path", "--start-method", "fork"]
        return [*usual, str(ROOT / "tests" / "train_quickly.py"), *bench.words(output, *more)]

    with bench.output() as output:
        whole = bench.server.run(launched(output, 0))
        expected = digests(output)
    gone, slowest, equal = 0, 0.0, 0
    for _ in range(count):
        with bench.output() as output:
            sent: list[float] = []
            after = bench.chance.uniform(1, whole.seconds)
            ended = bench.server.run(launched(output, 0), killing_a_rank(after, bench.chance, sent))
            if sent:
                slowest = max(slowest, time.monotonic() - sent[0])
            gone += ended.status != 0 or not sent
        with bench.output() as output:
            ended = bench.server.run(launched(output, 3), killing_a_rank(after, bench.chance, []))
            good = ended.status == 0 and digests(output) == expected
            if not good:
                print(f"  status {ended.status}, killed after {after:.1f} s: {ended.said}")
            equal += good
    right = said(f"a rank killed: all ended, {gone} of {count}, slowest {slowest:.1f} s", slowest < LONGEST_LOSS)
    return right & said(f"... and restarted by torchrun, equal bytes of both modes: {equal} of {count}", equal == count)


def killing_a_rank(after: float, chance: random.Random, sent: list[float]) -> Callable[[int], None]:
    """What kills one of the processes that torchrun has started."""

    def kill(agent: int) -> None:
        time.sleep(after)
        listed = subprocess.run(["pgrep", "-P", str(agent)], capture_output=True, text=True, check=False).stdout.split()
        if listed:
            sent.append(time.monotonic())
            with suppress(ProcessLookupError):
                os.kill(int(chance.choice(listed)), signal.SIGKILL)

    return kill


def is_one_line(ended: Ended) -> bool:
    """Whether a run ended as it should where it can't go on: status 1 or 2, and one line that says why."""
    lines = ended.said.strip().splitlines()
    good = ended.status in (1, 2) and len(lines) == 1 and lines[0].startswith("error: ")
    if not good:
        print(f"  status {ended.status}: {ended.said}")
    return good


def said(text: str, right: bool) -> bool:
    """Prints a figure, and gives whether it is reached."""
    print(f"{'' if right else 'MISSED  '}{text}", flush=True)
    return right


FIGURES = {"kills": kills, "row": row, "signals": signals, "disk": disk, "refusals": refusals, "ranks": ranks}


def main() -> None:
    """Measure the figures asked for; end with status 1 where one is missed."""
    parser = argparse.ArgumentParser(description="Break trainings off, and look at what is left.")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)} (default: all)")
    parser.add_argument("--count", type=int, metavar="N", help="times of each (default: see above)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    arguments = parser.parse_args()
    right = True
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pictures"
        write_drawn_set(data, train={"ants": 6, "bees": 6}, val={"ants": 2, "bees": 2}, longest_side=64)
        server = Server(Path(folder))
        server.run(["--help"])  # the first one waits for the imports
        whole = server.run(words_of(data, Path(folder) / "whole"))
        if whole.status:
            raise RuntimeError(whole.said)
        expected = digests(Path(folder) / "whole")
        bench = Bench(server, Path(folder), data, random.Random(arguments.seed), expected, whole.seconds)
        print(f"a run of both modes takes {whole.seconds:.1f} s", flush=True)
        for name in arguments.figures or FIGURES:
            started = time.monotonic()
            right &= FIGURES[name](bench, arguments.count or COUNTS[name])
            print(f"  {time.monotonic() - started:.0f} s", flush=True)
        server.close()
    sys.exit(int(not right))


if __name__ == "__main__":
    main()
