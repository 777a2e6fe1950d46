"""The rules of imports: they point one way, fenced libraries stay in their places, importing is quick and quiet."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [ROOT / "app.py", *sorted((ROOT / "scripts").glob("*.py"))]

# Each row may import of the rows above it, and of its own.
ROWS = (
    {"text"},
    {"errors", "installation"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"hub"},
    {"ui"},
)
# What goes up a row, in functions alone: a model is fetched from the Hub, and a model folder has a card.
UPWARDS = {
    ("antbee.data.sources", "antbee.hub.__init__"),
    ("antbee.models.folder", "antbee.hub.__init__"),
    ("antbee.models.weights", "antbee.hub.__init__"),
    ("antbee.models.classifier", "antbee.hub.__init__"),
    ("antbee.models.classifier", "antbee.hub.card"),
    ("antbee.models.classifier", "antbee.evaluation.plots"),
    ("antbee.training.fewshot", "antbee.hub.card"),
    ("antbee.training.output", "antbee.hub.card"),
    ("antbee.training.rename", "antbee.hub.card"),
}
# The files of the page, in the same way.
PAGE = (
    {"texts.__init__", "texts.en", "texts.zh"},
    {"i18n"},
    {"registry", "sessions", "security", "memory", "batching"},
    {"components"},
    {"predictions"},
    {"tabs.batches", "tabs.classify", "tabs.inside", "tabs.publish", "tabs.report", "uploads"},
    {"tabs.train"},
    {"tabs.teach_layout"},  # shows as many neighbours as the Classify tab
    {"tabs.teach"},  # predicts as the Classify tab does, and takes its photo as a correction
    {"page"},
    {"__init__", "tabs.__init__"},
)
# Where alone a library may be imported: a folder, or a module.
FENCES = {
    "gradio": {"antbee.ui"},
    "pandas": {"antbee.ui"},
    "huggingface_hub": {"antbee.hub"},
    "datasets": {"antbee.hub.dataset_download"},
    "matplotlib": {"antbee.evaluation.fonts", "antbee.evaluation.plots"},
    "pyarrow": {"antbee.models.tables"},
    "safetensors": {"antbee.models.tensors"},
    "trackio": {"antbee.training.tracking"},
    "torch.distributed": {"antbee.training.distributed"},
}


def module_of(path):
    """The dotted name of a file of the project."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_of(path): path for path in sorted((ROOT / "antbee").rglob("*.py"))}
FILES = MODULES | {module_of(path): path for path in ENTRIES}


@functools.cache
def imports(path, *, everywhere=True):
    """The dotted names that a file imports, at its top or in functions too."""
    tree = ast.parse(path.read_text("utf-8"))
    names = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def ours(names):
    """Those that are modules of antbee, packages by their __init__."""
    return {name for name in names if name in MODULES} | {
        f"{name}.__init__" for name in names if f"{name}.__init__" in MODULES and name != "antbee"
    }


def row_of(module):
    """The number of a module's row."""
    return next(number for number, row in enumerate(ROWS) if module.split(".")[1] in row)


def is_below(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_file_and_folder_has_a_row():
    assert sorted(name for row in ROWS for name in row) == sorted(
        {module.split(".")[1] for module in MODULES} - {"__init__"}
    )


@pytest.mark.parametrize("module", [module for module in MODULES if module != "antbee.__init__"])
def test_imports_point_to_the_rows_above(module):
    found = {other for other in ours(imports(MODULES[module])) - {module} if other != "antbee.__init__"}
    upwards = {other for other in found if row_of(other) > row_of(module)}
    assert {(module, other) for other in upwards} <= UPWARDS
    assert not upwards & ours(imports(MODULES[module], everywhere=False))


def test_no_modules_import_each_other_in_a_circle():
    above = {module: ours(imports(path, everywhere=False)) - {module} for module, path in MODULES.items()}
    while above:
        lowest = {module for module, below in above.items() if not below & above.keys()}
        assert lowest, f"a circle among {sorted(above)}"
        above = {module: below for module, below in above.items() if module not in lowest}


def test_nobody_imports_the_page_or_the_scripts_but_the_page_and_app():
    for module, path in FILES.items():
        names = imports(path)
        assert not any(is_below(name, ["scripts", "app"]) for name in names), module
        if any(is_below(name, ["antbee.ui"]) for name in names):
            assert is_below(module, ["antbee.ui", "app", "scripts.benchmark"]), module


def test_the_files_of_the_page_import_one_way():
    files = {module.removeprefix("antbee.ui."): path for module, path in MODULES.items() if ".ui." in module}
    assert sorted(files) == sorted(name for row in PAGE for name in row)
    above = set()
    for row in PAGE:
        for name in row:
            theirs = {found.removeprefix("antbee.ui.") for found in ours(imports(files[name])) if ".ui." in found}
            assert theirs - {"__init__", "tabs.__init__", "texts.__init__"} <= above, name
        above |= row


@pytest.mark.parametrize("library", FENCES)
def test_fenced_libraries_stay_in_their_places(library):
    users = {module for module, path in FILES.items() if any(is_below(name, [library]) for name in imports(path))}
    assert users, library
    assert not {module for module in users if not is_below(module, FENCES[library])}
    for place in FENCES[library]:
        assert any(is_below(module, [place]) for module in users), f"{place} does not need it"


def test_several_processes_are_the_business_of_one_module_alone():
    users = {module for module, path in FILES.items() if "torch.distributed" in path.read_text("utf-8")}
    assert users == FENCES["torch.distributed"]


def test_nothing_is_ever_unpickled():
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                assert any(
                    keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in node.keywords
                ), f"{path}:{node.lineno}"


def test_importing_antbee_is_silent_and_leaves_the_page_the_hub_the_figures_and_the_trackers_alone():
    later = ("datasets", "gradio", "huggingface_hub", "matplotlib", "pandas", "tensorboard", "trackio")
    ours = "antbee, antbee.training.modes, antbee.training.tracking"
    check = f"import sys, {ours}; print([n for n in {later} if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
