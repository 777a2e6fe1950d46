"""python tests/endurance/kills.py [kills|row|signals|disk|refusals|ranks ...] [--count N] [--seed N]

Interrupts short trainings in every way and resumes them: they must end with the same bytes as an uninterrupted run.
Prints a line for each result, and ends with status 1 if one is not as expected.

    kills      SIGKILL at a random moment, then --resume                                          (100 times)
    row        ten such kills of one run, one after the other                                     (10 runs)
    signals    SIGINT and SIGTERM at a random moment: exit status, seconds to the end             (20 times each)
    disk       a full disk at a checkpoint: one error message, then --resume                      (20 times)
    refusals   an output folder that can't be written, a second run, a loss of NaN: one message   (20 times each)
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

from PIL import Image

from antbee.data.drawn import write_drawn_set
from antbee.models.versions import MARKER, RunFolder

QUICK_SCRIPT = ROOT / "tests" / "quick_training.py"
COUNTS = {"kills": 100, "row": 10, "signals": 20, "disk": 20, "refusals": 20, "ranks": 10}
LONGEST_STOP = 5.0  # seconds from a signal to the end
LONGEST_LOSS = 30.0  # seconds from the loss of a process to the end of all


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    seconds: float
    stderr: str


class Server:
    """Runs scripts/train.py in processes that are forked after its imports, see tests/quick_training.py."""

    def __init__(self, folder: Path) -> None:
        self.stderr = folder / "stderr.txt"
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "DRAW_FIGURES": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(QUICK_SCRIPT)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr.open("w"),
            text=True,
        )

    def run(self, arguments: list[str], meanwhile: Callable[[int], None] = lambda pid: None) -> Ended:
        """Runs with these flags; calls `meanwhile` with the process ID in a thread, and waits for it too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = self.stderr.stat().st_size
        started = time.monotonic()
        print(json.dumps(arguments), file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        thread = threading.Thread(target=meanwhile, args=(pid,))
        thread.start()
        for line in self.process.stdout:
            if line.startswith("ended"):
                seconds = time.monotonic() - started
                thread.join()
                return Ended(int(line.split()[1]), seconds, self.stderr.read_text()[before:])
        raise RuntimeError(self.stderr.read_text())

    def close(self) -> None:
        """Ends the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Bench:
    """The server, its folder and data set, and the result of an uninterrupted run."""

    server: Server
    folder: Path
    data: Path
    chance: random.Random
    expected: dict[str, str]  # digests
    seconds: float  # duration

    def arguments(self, output: Path, *more: str) -> list[str]:
        """The flags of a run."""
        return arguments_of(self.data, output, *more)

    @contextmanager
    def output(self) -> Iterator[Path]:
        """A temporary output folder, which does not exist yet."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder) / "outputs"

    def ends_equal(self, output: Path) -> bool:
        """Whether a resumed run in `output` ends as the uninterrupted one, and leaves no unfinished files."""
        ended = self.server.run(self.arguments(output, "--resume"))
        left = [path for path in RunFolder(output).path.iterdir() if path.name not in ("lock", MARKER)]
        equal = ended.status == 0 and digests(output) == self.expected and not left
        if not equal:
            print(f"  resumed: status {ended.status}, {digests(output)}, {left}: {ended.stderr}", flush=True)
        return equal


def arguments_of(data: Path, output: Path, *more: str) -> list[str]:
    """The flags of a run of seconds in both modes."""
    usual = ["--data", str(data), "--weights", "random", "--device", "cpu", "--output", str(output)]
    return [*usual, "--batch-size", "4", "--epochs", "3", "--folds", "0", "--precision", "float32", *more]


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each mode's weights, and the names of its figures."""
    paths = {mode: output / mode / "model.safetensors" for mode in ("frozen", "finetune")}
    weights = {mode: hashlib.sha256(path.read_bytes()).hexdigest() for mode, path in paths.items() if path.exists()}
    return weights | {f"{mode}'s figures": figures_in(output / mode) for mode in weights}


def figures_in(folder: Path) -> str:
    """The names of a model's figures, each of which is a whole picture."""
    figures = sorted((folder / "figures").iterdir())
    for figure in figures:
        Image.open(figure).verify()
    return ", ".join(figure.name for figure in figures)


def sending(number: int, after: float, sent: list[float] | None = None) -> Callable[[int], None]:
    """A function that sends a signal to a process after some seconds, and appends the time to `sent`."""

    def send(pid: int) -> None:
        time.sleep(after)
        if sent is not None:
            sent.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    return send


# ---- results ---------------------------------------------------------------------------------------------------------


def kills(bench: Bench, count: int) -> bool:
    """Kills a run once."""
    equal = 0
    for _ in range(count):
        with bench.output() as output:
            after = bench.chance.uniform(0, bench.seconds)
            bench.server.run(bench.arguments(output), sending(signal.SIGKILL, after))
            equal += bench.ends_equal(output)
    return result(f"killed once and resumed, equal bytes of both modes: {equal} of {count}", equal == count)


def row(bench: Bench, count: int) -> bool:
    """Kills a run ten times."""
    equal = 0
    for _ in range(count):
        with bench.output() as output:
            for _ in range(10):
                after = bench.chance.uniform(0.1, bench.seconds / 2)
                bench.server.run(bench.arguments(output, "--resume"), sending(signal.SIGKILL, after))
            equal += bench.ends_equal(output)
    return result(f"killed ten times in a row, equal bytes of both modes: {equal} of {count}", equal == count)


def signals(bench: Bench, count: int) -> bool:
    """Stops a run by SIGINT and SIGTERM."""
    right = True
    for number in (signal.SIGINT, signal.SIGTERM):
        good, slowest = 0, 0.0
        for _ in range(count):
            with bench.output() as output:
                sent: list[float] = []
                # Not before its handlers are installed: until then Python itself ends the process.
                after = bench.chance.uniform(0.3, bench.seconds)
                ended = bench.server.run(bench.arguments(output), sending(number, after, sent))
                slowest = max(slowest, time.monotonic() - sent[0])
                # 0, or the signal itself: the run was over already, and Python was shutting down.
                stopped = ended.status in (128 + number, -number, 0) and "Traceback" not in ended.stderr
                stopped &= ended.status == 128 + number or digests(output) == bench.expected
                equal = bench.ends_equal(output)
                if not (stopped and equal):
                    print(f"  after {after:.2f} s: status {ended.status}, equal bytes {equal}: {ended.stderr}")
                good += stopped and equal
        right &= result(
            f"{number.name}: right status, equal bytes once resumed: {good} of {count}, slowest end {slowest:.1f} s",
            good == count and slowest < LONGEST_STOP,
        )
    return right


def disk(bench: Bench, count: int) -> bool:
    """Fills the disk: files may have 20 MB at most, and a checkpoint of fine-tuning has more."""

    def limit(pid: int) -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

    good = 0
    for _ in range(count):
        with bench.output() as output:
            good += is_one_message(bench.server.run(bench.arguments(output), limit)) and bench.ends_equal(output)
    return result(f"a full disk: one line, status 1, and equal bytes after --resume: {good} of {count}", good == count)


def refusals(bench: Bench, count: int) -> bool:
    """Runs that can't succeed."""
    right = True
    good = sum(is_one_message(bench.server.run(bench.arguments(Path("/proc/antbee")))) for _ in range(count))
    right &= result(f"an output that can't be written: one line, status 1 or 2: {good} of {count}", good == count)
    with bench.output() as output, RunFolder(output).locked():
        good = sum(is_one_message(bench.server.run(bench.arguments(output))) for _ in range(count))
    right &= result(f"a second run in a folder: one line, status 1 or 2: {good} of {count}", good == count)
    with bench.output() as output:
        bench.server.run(bench.arguments(output))
        before = digests(output)
        ends = [bench.server.run(bench.arguments(output, "--lr", "1e30")) for _ in range(count)]
        good = sum(is_one_message(ended) and "--lr" in ended.stderr for ended in ends)
        kept = digests(output) == before
    return right & result(
        f"a loss of NaN: one line, status 1 or 2: {good} of {count}; models kept: {kept}", good == count and kept
    )


def ranks(bench: Bench, count: int) -> bool:
    """Kills one of two processes under torchrun."""

    def torchrun(output: Path, restarts: int) -> list[str]:
        usual = ["torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        usual += ["--max-restarts", str(restarts), "--monitor-interval", "0.5", "--run-path", "--start-method", "fork"]
        return [*usual, str(QUICK_SCRIPT), *bench.arguments(output)]

    with bench.output() as output:
        whole = bench.server.run(torchrun(output, 0))
        expected = digests(output)
    gone, slowest, equal = 0, 0.0, 0
    for _ in range(count):
        with bench.output() as output:
            sent: list[float] = []
            after = bench.chance.uniform(1, whole.seconds)
            ended = bench.server.run(torchrun(output, 0), killing_a_rank(after, bench.chance, sent))
            if sent:
                slowest = max(slowest, time.monotonic() - sent[0])
            gone += ended.status != 0 or not sent
        with bench.output() as output:
            ended = bench.server.run(torchrun(output, 3), killing_a_rank(after, bench.chance, []))
            good = ended.status == 0 and digests(output) == expected
            if not good:
                print(f"  status {ended.status}, killed after {after:.1f} s: {ended.stderr}")
            equal += good
    right = result(
        f"a rank killed: all ended, {gone} of {count}, slowest {slowest:.1f} s",
        gone == count and slowest < LONGEST_LOSS,
    )
    return right & result(
        f"... and restarted by torchrun, equal bytes of both modes: {equal} of {count}", equal == count
    )


def killing_a_rank(after: float, chance: random.Random, sent: list[float]) -> Callable[[int], None]:
    """A function that kills one of the child processes of torchrun after some seconds."""

    def kill(pid: int) -> None:
        time.sleep(after)
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        if children:
            sent.append(time.monotonic())
            with suppress(ProcessLookupError):
                os.kill(int(chance.choice(children)), signal.SIGKILL)

    return kill


def is_one_message(ended: Ended) -> bool:
    """Whether a run ended with status 1 or 2 and one line on stderr, its error message."""
    lines = ended.stderr.strip().splitlines()
    good = ended.status in (1, 2) and len(lines) == 1 and lines[0].startswith("error: ")
    if not good:
        print(f"  status {ended.status}: {ended.stderr}")
    return good


def result(text: str, is_right: bool) -> bool:
    """Prints a result, and returns whether it is as expected."""
    print(f"{'' if is_right else 'MISSED  '}{text}", flush=True)
    return is_right


RESULTS = {"kills": kills, "row": row, "signals": signals, "disk": disk, "refusals": refusals, "ranks": ranks}


def main() -> None:
    """Prints the chosen results; ends with status 1 if one is not as expected."""
    parser = argparse.ArgumentParser(description="Interrupt trainings, and compare what they resume to.")
    parser.add_argument("results", nargs="*", metavar="RESULT", help=f"of {', '.join(RESULTS)} (default: all)")
    parser.add_argument("--count", type=int, metavar="N", help="repetitions (default: see above)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments")
    arguments = parser.parse_args()
    right = True
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pictures"
        write_drawn_set(data, train={"ants": 6, "bees": 6}, val={"ants": 2, "bees": 2}, longest_side=64)
        server = Server(Path(folder))
        server.run(["--help"])  # waits for the imports
        whole = server.run(arguments_of(data, Path(folder) / "whole"))
        if whole.status:
            raise RuntimeError(whole.stderr)
        expected = digests(Path(folder) / "whole")
        bench = Bench(server, Path(folder), data, random.Random(arguments.seed), expected, whole.seconds)
        print(f"a run of both modes takes {whole.seconds:.1f} s", flush=True)
        for name in arguments.results or RESULTS:
            started = time.monotonic()
            right &= RESULTS[name](bench, arguments.count or COUNTS[name])
            print(f"  {time.monotonic() - started:.0f} s", flush=True)
        server.close()
    sys.exit(int(not right))


if __name__ == "__main__":
    main()
