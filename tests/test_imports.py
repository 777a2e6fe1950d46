"""The rules of the house: imports point one way, fenced libraries stay in their rooms, importing is quick and quiet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room is a file, or a package of files.
ROOMS = sorted(
    path.stem
    for path in (ROOT / "antbee").iterdir()
    if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
)
ENTRIES = [ROOT / "app.py", *sorted((ROOT / "scripts").glob("*.py"))]

# What each room may import of the others.
ALLOWED = {
    "drawn": set(),
    "tensors": {"files"},
    "model": {"files", "tensors"},
    "evaluation": set(),
    "figures": set(),
    "installation": set(),
    "tracking": set(),
    "background": {"installation", "tracking"},
    "__main__": {"installation"},
    "text": set(),
    "ending": {"text"},
    "hub": {"installation", "text"},
    "files": set(),
    "images": {"files"},
    "data": {"drawn", "files", "images"},
    "resident": {"data", "images"},
    "foreign": set(),
    "neighbours": {"tensors"},
    "training": {"data", "images", "resident", "model", "evaluation"},
    "inspection": {"data", "training", "evaluation", "neighbours", "resampling"},
    "resampling": {"data", "training", "model", "evaluation", "neighbours"},
    "models": {"data", "files", "images", "installation", "model"},
    "report": {"models"},
    "classifier": {"images", "model", "models", "tensors", "hub", "neighbours"},
    "teaching": {
        "classifier",
        "data",
        "evaluation",
        "hub",
        "images",
        "model",
        "models",
        "neighbours",
        "resampling",
        "text",
        "training",
    },
    "anatomy": {"model"},
    "ui": {
        "anatomy",
        "background",
        "classifier",
        "data",
        "evaluation",
        "figures",
        "hub",
        "images",
        "inspection",
        "installation",
        "model",
        "models",
        "report",
        "teaching",
        "text",
        "training",
    },
}
# The files of the page: each may import of those in the rows above it.
PAGE = (
    {"words"},
    {"exhibition", "visitors"},
    {"choice", "gate", "photo", "plots"},
    {"batches", "classify", "inside", "report", "teach", "train", "uploads"},
    {"page"},
    {"__init__"},
)
TABS_IMPORTED = {"teach": {"classify"}}  # what is taught is answered as on the other tab, and takes up its photo
# Where alone a library may be imported.
FENCES = {
    "gradio": {"ui"},
    "pandas": {"ui"},
    "huggingface_hub": {"hub"},
    "matplotlib": {"figures"},
    "safetensors": {"tensors"},
    "trackio": {"tracking"},
}


def imported(path):
    """The dotted names that a file imports anywhere, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files_of(room):
    """The file that a room is, or those of its package."""
    package = ROOT / "antbee" / room
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def room_of(path):
    """The room that a file belongs to; of what is no room's its own name."""
    inside = path.relative_to(ROOT)
    return inside.parts[1] if inside.parts[0] == "antbee" and len(inside.parts) > 2 else path.stem


def every_file():
    return [*sorted((ROOT / "antbee").rglob("*.py")), *ENTRIES]


def rooms_imported(room):
    names = {name for path in files_of(room) for name in imported(path)}
    return ({name.split(".")[1] for name in names if name.startswith("antbee.")} & set(ROOMS)) - {room}


def test_every_room_is_known():
    assert sorted(ALLOWED) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room):
    assert rooms_imported(room) <= ALLOWED[room]


def test_the_allowed_ways_have_no_circle():
    above = {room: set(below) for room, below in ALLOWED.items()}
    while above:
        lowest = {room for room, below in above.items() if not below}
        assert lowest, f"a circle among {sorted(above)}"
        above = {room: below - lowest for room, below in above.items() if room not in lowest}


def test_every_room_that_is_a_package_is_looked_at_file_by_file():
    assert [path.name for path in files_of("text")] == ["text.py"]
    assert {path.name for path in files_of("ui")} >= {"__init__.py", "page.py", "words.py"}
    assert {room_of(path) for path in every_file()} == {*ROOMS, "__init__", *(path.stem for path in ENTRIES)}


def test_the_files_of_the_page_import_one_way():
    files = {path.stem: path for path in files_of("ui")}
    assert sorted(files) == sorted(name for row in PAGE for name in row)
    above = set()
    for row in PAGE:
        for name in row:
            theirs = {found.split(".")[2] for found in imported(files[name]) if found.startswith("antbee.ui.")}
            assert theirs & files.keys() <= above | TABS_IMPORTED.get(name, set()), name
        above |= row


@pytest.mark.parametrize("library", FENCES)
def test_fenced_libraries_stay_in_their_rooms(library):
    users = {room_of(path) for path in every_file() if any(name.split(".")[0] == library for name in imported(path))}
    assert users == FENCES[library]


def test_several_processes_are_the_business_of_training_alone():
    users = {
        room_of(path)
        for path in every_file()
        if any(name.startswith("torch.distributed") for name in imported(path))
        or "torch.distributed" in path.read_text()
    }
    assert users == {"training"}


def test_nothing_is_ever_unpickled():
    for path in every_file():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                assert any(
                    keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in node.keywords
                ), f"{path}:{node.lineno}"


def test_importing_antbee_is_silent_and_leaves_the_page_the_hub_the_figures_and_the_trackers_alone():
    later = ("gradio", "huggingface_hub", "matplotlib", "pandas", "tensorboard", "trackio")
    check = f"import sys, antbee, antbee.training, antbee.tracking; print([n for n in {later} if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
