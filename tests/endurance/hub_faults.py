"""python tests/endurance/hub_faults.py [--faults F ...] [--operations O ...] [--workers N] [--json FILE]

Lets every kind of fault of the Hub, or of the network before it, meet every request of a pull and of a push in turn,
once and from that request on, and prints what became of each: a table of fault, operation, request, verdict, seconds.
A pull is tried with nothing in the cache and with an older model in it. It ends with status 1 where one went wrong.

How long the client takes to give up is up to the client: it is measured here, not judged. A lasting fault ends after
--longest seconds, for some are never given up; the seconds of such a case say so. It takes minutes to hours.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TOKEN = "hf_secret_of_the_test"
os.environ["HF_TOKEN"] = TOKEN
os.environ["HF_HUB_DISABLE_XET"] = "1"  # hf_xet's own connections go to a folder here: see loopback_hub.py
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from loopback_hub import FAULTS, FaultyLine, LoopbackHub

from antbee import hub

OPERATIONS = ("pull into an empty cache", "pull of a new model", "push")
KILLED = "client killed"
REPOSITORY = "tester/bugs"
FAITHFUL = ("model.safetensors", "config.json", "neighbours.safetensors", "history.json")


@dataclass(frozen=True)
class Case:
    """One fault at one request of one operation."""

    fault: str
    operation: str
    request: int
    lasting: bool
    longest: float  # seconds after which the fault ends


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `wrong` is empty where all is well."""

    case: Case
    asked: str  # what the request asked for
    verdict: str
    seconds: float
    wrong: tuple[str, ...]


# ---- a model, old and new --------------------------------------------------------------------------------------------


def write_model(folder: Path, version: int) -> None:
    """A model folder whose large files travel as large ones; the new one has other bytes and no history."""
    (folder / "figures").mkdir(parents=True)
    noise = b"".join(hashlib.sha256(b"%d %d" % (version, block)).digest() for block in range(2000))
    (folder / "model.safetensors").write_bytes(b"\0" + noise)
    (folder / "neighbours.safetensors").write_bytes(b"\0" + noise[:4000])
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "version": version}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nyour-name/model-name\n")
    (folder / "figures" / "curves.png").write_bytes(b"\x89PNG\0" + noise[:900])
    if version == 1:
        (folder / "history.json").write_text("[1]")


def content(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, bytes]:
    """The files of a folder by their path in it."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if names is None or name in names}


# ---- one place to try in ---------------------------------------------------------------------------------------------


class Place:
    """A Hub, a faulty line to it, and folders of one case's own."""

    def __init__(self, root: Path) -> None:
        """Starts the Hub."""
        self.root = root
        self.server = LoopbackHub(root / "unused", tokens=(TOKEN,), lfs_threshold=3000)
        self.server.__enter__()
        self.line = FaultyLine(self.server)
        for version in (1, 2):
            write_model(root / f"model {version}", version)
        self.old, self.new = (content(root / f"model {version}") for version in (1, 2))
        self.count = 0

    def furnish(self, operation: str) -> Path:
        """A Hub with the old model on it, or the new one and the old in the cache; gives the home of the client."""
        import huggingface_hub
        from huggingface_hub import constants

        self.line.heal()
        self.count += 1
        self.server.start_anew(self.root / f"server {self.count}")
        home = self.root / f"home {self.count}"
        constants.ENDPOINT = self.line.url
        constants.HUGGINGFACE_CO_URL_TEMPLATE = self.line.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants.HF_HUB_CACHE = str(home / "hub")
        constants.HF_TOKEN_PATH = str(home / "token")
        constants.HF_STORED_TOKENS_PATH = str(home / "stored_tokens")
        constants.AGENT_HARNESSES_PATH = str(home / "harnesses.json")
        constants.HF_DEBUG = True
        huggingface_hub.close_session()
        said = Said()
        with listened_to(said):
            hub.push(self.root / "model 1", REPOSITORY)
            if operation == "pull of a new model":
                hub.pull(REPOSITORY)
            if operation != "push":
                hub.push(self.root / "model 2", REPOSITORY)
        assert not said.error, said.error
        return home

    def published(self) -> dict[str, bytes]:
        """What is on the Hub's main branch."""
        files = self.server.repositories["model", REPOSITORY].head.files
        return {path: (self.server.blobs / stored.sha256).read_bytes() for path, stored in files.items()}

    def as_published(self, model: dict[str, bytes]) -> dict[str, bytes]:
        """A model as a push puts it on the Hub."""
        card = model["README.md"].decode().replace("your-name/model-name", REPOSITORY)
        return model | {"README.md": card.encode()}

    def pulled(self, model: dict[str, bytes]) -> dict[str, bytes]:
        """A model as a pull brings it."""
        return {name: data for name, data in model.items() if name in FAITHFUL}

    def close(self) -> None:
        """Stops the Hub."""
        self.line.close()
        self.server.__exit__()


# ---- one case --------------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """What an operation ended in and all that it printed and logged."""

    folder: Path | None = None
    warned: str = ""
    error: str = ""
    printed: str = ""
    wrong: tuple[str, ...] = ()


@contextlib.contextmanager
def listened_to(said: Said) -> Iterator[None]:
    """Everything that is printed, logged at the finest level, warned of or raised."""
    log, stream = logging.getLogger("huggingface_hub"), io.StringIO()
    handler = logging.StreamHandler(stream)
    level, log.propagate = log.level, False
    others, log.handlers = log.handlers, [handler]
    log.setLevel(logging.DEBUG)
    try:
        with (
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield
    except hub.HubError as error:
        said.error = str(error)
        stream.write("".join(traceback.format_exception(error)))
    except Exception as error:  # noqa: BLE001  # whatever else comes through is the fault to find
        said.error = f"{type(error).__name__}: {error}"
        said.wrong += ("an error that is no HubError",)
        stream.write("".join(traceback.format_exception(error)))
    finally:
        log.handlers = others
        log.setLevel(level)
        ours = [str(warning.message) for warning in caught if warning.category is UserWarning]
        said.warned = " ".join(ours)
        said.printed = stream.getvalue() + said.warned + said.error


def operate(operation: str, place: Place) -> Said:
    """One pull or push of the new model."""
    said = Said()
    with listened_to(said):
        if operation == "push":
            hub.push(place.root / "model 2", REPOSITORY)
        else:
            said.folder = hub.pull(REPOSITORY)
    return said


def try_out(place: Place, case: Case) -> Outcome:
    """Lets it happen, and looks at what is left of it."""
    home = place.furnish(case.operation)
    if case.fault == KILLED:
        seconds, said, asked = killed(place, case, home)
    else:
        place.line.break_at(case.request, case.fault, lasting=case.lasting)
        end = threading.Timer(case.longest, place.line.heal)
        end.start()
        start = time.monotonic()
        said = operate(case.operation, place)
        seconds = time.monotonic() - start
        end.cancel()
        asked = place.line.asked
        place.line.heal()
    wrong = [*said.wrong]
    if TOKEN in said.printed:
        wrong.append("the token is shown")
    if said.error and len(said.error.splitlines()) != 1:
        wrong.append("more than one line")
    push = case.operation == "push"
    verdict = judge_push(place, said, wrong) if push else judge_pull(place, said, wrong)
    return Outcome(case, asked, verdict, seconds, tuple(wrong))


def judge_pull(place: Place, said: Said, wrong: list[str]) -> str:
    """Whether what is used is a whole model, and the next pull brings the new one."""
    old, new = place.pulled(place.old), place.pulled(place.new)
    verdict = said.error
    if said.folder is not None:
        found = content(said.folder, FAITHFUL)
        verdict = "the new model" if found == new else "the old one, and says so"
        if found not in (old, new) or (found == old and not said.warned):
            wrong.append("half a model, or an old one without a word")
    offline = Said()
    with listened_to(offline):
        offline.folder = hub.pull(REPOSITORY, local_files_only=True)
    if offline.folder is not None and content(offline.folder, FAITHFUL) not in (old, new):
        wrong.append("half a model in the cache")
    if said.folder is not None and offline.folder is None:  # it may be the older one, if the last request failed
        wrong.append("nothing is there without a network")
    after = operate("pull", place)
    if after.folder is None or content(after.folder, FAITHFUL) != new or after.warned:
        wrong.append(f"not healed: {after.error or after.warned}")
    return verdict


def judge_push(place: Place, said: Said, wrong: list[str]) -> str:
    """Whether the old model or the new one is on the Hub, and the next push completes it."""
    old, new = place.as_published(place.old), place.as_published(place.new)
    published = place.published()
    if published not in (old, new):
        wrong.append("a part of a model on the Hub")
    if not said.error and published != new:
        wrong.append("a push that says it is done and is not")
    if content(place.root / "model 2") != place.new:
        wrong.append("the local files are changed")
    after = operate("push", place)
    if after.error or place.published() != new:
        wrong.append(f"not healed: {after.error}")
    return said.error or "pushed"


def killed(place: Place, case: Case, home: Path) -> tuple[float, Said, str]:
    """Kills a process in the midst of a request; its answer has come by half, or (lasting) does not come.

    The seconds are those of the request.
    """
    place.line.break_at(case.request, "silent" if case.lasting else "stuck in the body", lasting=True)
    call = f"push(__import__('pathlib').Path({str(place.root / 'model 2')!r}), {REPOSITORY!r})"
    code = f"from antbee.hub import client; client.{call if case.operation == 'push' else f'pull({REPOSITORY!r})'}"
    environment = os.environ | {"HF_ENDPOINT": place.line.url, "HF_HOME": str(home), "HF_DEBUG": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    met = place.line.met.wait(120)  # many start at a time
    start = time.monotonic()
    time.sleep(0.3)  # until the half has arrived
    seconds = time.monotonic() - start
    os.kill(child.pid, signal.SIGKILL)
    printed = child.communicate()[0].decode()
    asked = place.line.asked
    place.line.heal()
    wrong = () if met else ("the request never came",)
    left = len([*home.rglob("*.incomplete")])
    return seconds, Said(error=f"killed, {left} pieces left", printed=printed, wrong=wrong), asked


# ---- all of them -----------------------------------------------------------------------------------------------------

_place: list[Place] = []


def begin() -> None:
    """A worker process gets its place."""
    _place.append(Place(Path(tempfile.mkdtemp(prefix="hub_faults_"))))


def run(case: Case) -> Outcome:
    """One case in a worker process."""
    return try_out(_place[0], case)


def requests_of(operation: str) -> int:
    """How many requests an operation takes where nothing happens."""
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        place.furnish(operation)
        place.line.mend()
        said = operate(operation, place)
        assert not said.error, said.error
        place.close()
        return len(place.line.requests)


def main() -> None:
    """Every case, the table, and the status."""
    parser = argparse.ArgumentParser(description="Faults of the Hub at every request of a pull and of a push.")
    parser.add_argument("--faults", nargs="+", default=[*FAULTS, KILLED], choices=[*FAULTS, KILLED], metavar="F")
    parser.add_argument("--operations", nargs="+", default=OPERATIONS, choices=OPERATIONS, metavar="O")
    parser.add_argument("--workers", type=int, default=12, help="cases at a time: they mostly wait")
    parser.add_argument("--longest", type=float, default=120, help="seconds after which a fault ends")
    parser.add_argument("--only", nargs="+", choices=("once", "lasting"), default=("lasting", "once"))
    parser.add_argument("--requests", type=int, nargs="+", metavar="N", help="at these requests alone, from 0")
    parser.add_argument("--repeat", type=int, default=1, help="how often to try each case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there")
    arguments = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(1) as pool:
        counts = dict(zip(arguments.operations, pool.map(requests_of, arguments.operations), strict=True))
    cases = [
        Case(fault, operation, request, lasting, arguments.longest)
        for lasting in (True, False)  # the long ones first
        if ("lasting" if lasting else "once") in arguments.only
        for _ in range(arguments.repeat)
        for fault in arguments.faults
        for operation in arguments.operations
        for request in range(counts[operation])
        if arguments.requests is None or request in arguments.requests
    ]
    print(f"{len(cases)} cases, requests: {counts}")
    with processes.Pool(min(arguments.workers, len(cases)), initializer=begin) as pool:
        outcomes = []
        for outcome in pool.imap_unordered(run, cases):
            outcomes.append(outcome)
            show(outcome)
    summarise(outcomes)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    sys.exit(any(outcome.wrong for outcome in outcomes))


def show(outcome: Outcome) -> None:
    """A row of the table."""
    case, scope = outcome.case, "from it on" if outcome.case.lasting else "once"
    wrong = f"  WRONG: {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    print(
        f"{case.fault:20} {case.operation:25} {case.request:2} {scope:10} {outcome.seconds:5.1f} s  "
        f"{outcome.asked[:60]:60} {outcome.verdict}{wrong}",
        flush=True,
    )


def summarise(outcomes: list[Outcome]) -> None:
    """How many places each kind was tried at, the median and longest time, and how many went wrong."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.case.fault, outcome.case.operation.split()[0]].append(outcome)
    print(f"\n{'fault':20} {'operation':9} {'cases':>5} {'median':>9} {'longest':>9} {'wrong':>5}")
    for (fault, operation), group in sorted(groups.items()):
        seconds, wrong = [outcome.seconds for outcome in group], sum(bool(outcome.wrong) for outcome in group)
        print(f"{fault:20} {operation:9} {len(group):5} {median(seconds):7.1f} s {max(seconds):7.1f} s {wrong:5}")
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    print(f"{len(outcomes)} cases, {wrong} wrong, longest {max(outcome.seconds for outcome in outcomes):.1f} s")


if __name__ == "__main__":
    main()
