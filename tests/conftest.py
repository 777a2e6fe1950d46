"""What several test files share: a small drawn set, the real photos and weights where there are any, and no network."""

import copy
import functools
import importlib.util
import io
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

# Before torch is imported, whose threads would spin while they wait for each other: where other programs run too, small
# networks take several times as long. Processes that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers share the processor's cores already

import timm
import torch

from antbee.data.drawn import write_drawn_set
from antbee.data.folder import ImageDataset, read_folder

if TYPE_CHECKING:  # the page's imports take seconds: they are where they are used
    from antbee.ui import LoadedModel, Snapshot


CLEANING_UP = 30  # seconds that the fixtures of a test have once it failed


def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Limits a failed test's fixtures, whom its own limit holds no more: what made it hang may hold them as well."""
    if isinstance(node, pytest.Item) and hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _fail_to_clean_up)
        signal.setitimer(signal.ITIMER_REAL, CLEANING_UP)  # pytest-timeout stops it at the test's end


def _fail_to_clean_up(number: int, frame: object) -> None:
    pytest.fail(f"the fixtures had not ended {CLEANING_UP} s after the test failed")


@pytest.fixture(scope="session", autouse=True)
def compiled_templates() -> Iterator[None]:
    """Compiles the template of the model cards once: for each card anew it takes twenty times as long as the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Template", functools.cache(jinja2.Template))
        yield


@pytest.fixture(scope="session", autouse=True)
def copied_networks() -> Iterator[None]:
    """Copies random weights that were drawn before with the same seed, in a third of the time."""
    draw = timm.create_model

    @functools.lru_cache(4)
    def drawn(architecture: str, class_count: int, state: bytes) -> torch.nn.Module:
        return draw(architecture, num_classes=class_count)

    def create_model(architecture: str, **options: object) -> torch.nn.Module:
        if torch.get_default_device().type == "meta" or options.keys() != {"num_classes"}:
            return draw(architecture, **options)
        state = torch.default_generator.get_state().numpy().tobytes()
        return copy.deepcopy(drawn(architecture, options["num_classes"], state))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", create_model)
        yield


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of drawn pictures: 12 + 12 to learn from, 8 + 8 to check with. Read it, don't write into it."""
    root = tmp_path_factory.mktemp("pictures") / "drawn"
    return write_drawn_set(root, train={"ants": 12, "bees": 12}, val={"ants": 8, "bees": 8}, longest_side=96)


@pytest.fixture(scope="session")
def photos(drawn_root: Path) -> ImageDataset:
    """The drawn set, read."""
    return read_folder(drawn_root)


@pytest.fixture(scope="session")
def models(photos: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> "tuple[LoadedModel, ...]":
    """Both modes, untrained, as the page holds them; one of them takes everything for "neither"."""
    from page_helpers import write_model

    from antbee import ui

    outputs = tmp_path_factory.mktemp("outputs")
    folders = [
        write_model(outputs / mode, mode, seed=seed, photos=photos, threshold=threshold)
        for seed, (mode, threshold) in enumerate((("frozen", 1.9), ("finetune", 0.0)))
    ]
    return ui.load_models(folders, device="cpu")


@pytest.fixture(scope="session")
def snapshot(models: "tuple[LoadedModel, ...]", photos: ImageDataset) -> "Snapshot":
    """Both with the photos they learned from."""
    from antbee import ui

    return ui.Snapshot(models, photos)


@pytest.fixture(scope="module")
def gradio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gradio with a folder of this test file's own for uploads, and without a word to anybody."""
    from huggingface_hub import constants
    from uvicorn.config import LOOP_FACTORIES

    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        # The client, not the page, would ask the Hub who is calling and tell Gradio that somebody does.
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        # Where uvloop is installed it looks names up by itself, unseen by `loopback_only`.
        patch.setitem(LOOP_FACTORIES, "auto", LOOP_FACTORIES["asyncio"])
        yield folder


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder hymenoptera_data with the real ants and bees."""
    return _named_by("ANTBEE_TEST_DATA", "the unpacked folder hymenoptera_data")


@pytest.fixture(scope="session")
def standin_weights() -> Path:
    """A file of ResNet-18 weights that stands in for the ImageNet weights."""
    return _named_by("ANTBEE_TEST_WEIGHTS", "a .safetensors file of ResNet-18 weights")


def _named_by(variable: str, content: str) -> Path:
    if not (value := os.environ.get(variable)):
        pytest.skip(f"set {variable} to {content}")
    path = Path(value)
    assert path.exists(), f"{variable}={value} is not there; expected {content}"
    return path


@pytest.fixture(scope="session")
def load_script() -> Callable[[Path, pytest.MonkeyPatch], ModuleType]:
    """Loads a script as a module, without running it, for as long as the patch lasts."""

    def load(script: Path, patch: pytest.MonkeyPatch) -> ModuleType:
        patch.setattr(sys, "path", list(sys.path))
        spec = importlib.util.spec_from_file_location(script.stem, script)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, script.stem, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def script_module(
    load_script: Callable[[Path, pytest.MonkeyPatch], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], ModuleType]:
    """Loads a script as a module, without running it."""
    return lambda script: load_script(script, monkeypatch)


@pytest.fixture
def error_of() -> Callable[..., tuple[int, str]]:
    """Runs what ends a program with an error, and gives the exit status and the one line that says why."""

    def end(run: Callable[..., Any], *words: Any) -> tuple[int, str]:
        said = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with redirect_stderr(said), pytest.raises(SystemExit) as ended:
            run(*words)
        said.flush()
        (line,) = said.buffer.getvalue().decode().splitlines()
        assert line.startswith("error: ")
        return ended.value.code, line

    return end


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_processes() -> Iterator[None]:
    """Lets processes that tests start hear Ctrl-C, though a script started the tests in the background, deaf to it."""
    if (before := signal.getsignal(signal.SIGINT)) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)  # no program inherits a handler
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ctrl_c_ignored() -> Iterator[None]:
    """Ctrl-C is ignored by this process and by those that it starts, as where a script starts it in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whatever would reach beyond this machine, and names the host."""
    look_up = socket.getaddrinfo

    def guarded_look_up(host: bytes | str | None, *args: Any, **kwargs: Any) -> Any:
        _fail_beyond_loopback(host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    monkeypatch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded_connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _fail_beyond_loopback(address[0])
        return connect(self, address)

    return guarded_connect


def _fail_beyond_loopback(host: bytes | str | None) -> None:
    # Not an Exception: code under test that goes on without a network would swallow it.
    if not _is_loopback(host.decode() if isinstance(host, bytes) else host):
        pytest.fail(f"a test tried to reach {host!r}: only loopback is allowed")


def _is_loopback(host: str | None) -> bool:
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
