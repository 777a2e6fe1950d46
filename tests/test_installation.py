"""The installed package runs the scripts of the clone as commands, with data/ and outputs/ in the current folder."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from antbee.data.drawn import write_drawn_set
from antbee.installation import home, is_installed, main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site-packages folder with the built wheel."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("built")
    source = place / "source"  # a copy, since setuptools writes build files next to the source
    for path in (ROOT / "antbee", ROOT / "scripts", *ROOT.glob("*.*")):
        for file in [path] if path.is_file() else (*path.rglob("*.py"), *path.rglob("*.jinja")):
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, place]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(place.glob("antbee-*.whl"))) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


COMMANDS = {
    "train": "train --data mine --weights random --mode frozen --epochs 1 --folds 0",
    "push": "push outputs me/bugs --space --dry-run",
    "help": "predict --help",
}
# Runs all commands in one interpreter, since starting one takes longer than a command; without figures for that reason.
ENTRY = """
import sys
from antbee.evaluation import ood
from antbee.installation import main
from antbee.training import output
ood.COUNT, output.figures_of = 1, lambda *run: {}
for line in sys.stdin:
    sys.argv = ["antbee", *line.split()]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    print(end=chr(0))
"""


@pytest.fixture(scope="module")
def printed(site, tmp_path_factory):
    """The folder where the commands were run one after the other, and the output of each."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_drawn_set(folder / "mine", train={"ants": 2, "bees": 2}, val={"ants": 2, "bees": 2}, longest_side=64)
    ended = subprocess.run(
        [sys.executable, "-c", ENTRY],
        input="\n".join(COMMANDS.values()),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, dict(zip(COMMANDS, ended.stdout.split("\0"), strict=False))


def test_a_clone_keeps_its_data_and_outputs_in_its_own_folder():
    assert not is_installed()
    assert home() == ROOT


def test_the_wheel_contains_every_module_every_script_and_the_files_of_a_space(site):
    for path in (ROOT / "app.py", *(ROOT / "scripts").glob("*.py")):
        assert (site / "antbee" / "project" / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path
    assert (site / "antbee" / "project" / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()
    for path in (*(ROOT / "antbee").rglob("*.py"), *(ROOT / "antbee").rglob("*.jinja")):
        assert (site / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "antbee = antbee.installation:main" in entry_points.read_text()
    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info")) == ["antbee"]


def test_an_installed_command_trains_in_the_current_folder_and_prints_the_next_command(printed):
    folder, output = printed
    assert (folder / "outputs" / "frozen" / "model.safetensors").is_file()
    assert "see them  antbee app --data mine" in output["train"]


def test_a_space_pushed_by_an_installed_command_gets_the_package_alone(printed):
    _, output = printed
    for module in ("installation.py", "hub/card.md.jinja", "ui/page.py"):
        assert f"bytes  antbee/{module}" in output["push"]
    assert "antbee/project" not in output["push"]


def test_the_help_of_a_command_is_that_of_its_script_with_the_name_of_the_command(printed):
    _, output = printed
    assert output["help"].startswith("usage: antbee predict ")
    assert "--explain" in output["help"]


@pytest.mark.parametrize(
    ("argv", "status"), [([], 2), (["trian"], 2), (["../app"], 2), (["--version", "train"], 2), (["--help"], 0)]
)
def test_a_missing_or_unknown_command_ends_with_status_2_and_the_usage(monkeypatch, capsys, argv, status):
    monkeypatch.setattr(sys, "argv", ["antbee", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    captured = capsys.readouterr()
    assert (captured.err if status else captured.out).startswith("usage: antbee [-h] COMMAND ...\n")


def test_the_help_lists_every_script_of_the_clone_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["antbee", "--help"])
    with pytest.raises(SystemExit):
        main()
    commands = sorted({"app", *(path.stem for path in (ROOT / "scripts").glob("*.py"))})
    assert ", ".join(commands) in " ".join(capsys.readouterr().out.split())


def test_the_locked_versions_satisfy_the_requirements():
    requirements = pytest.importorskip("packaging.requirements")
    locked = {}
    for line in (ROOT / "requirements-lock.txt").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pinned = requirements.Requirement(line)
            (pin,) = pinned.specifier
            assert pin.operator == "=="
            locked[pinned.name.replace("_", "-").lower()] = pin.version
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if line.strip() and not line.startswith(("#", "-r")):
                wanted = requirements.Requirement(line)
                assert locked[wanted.name.replace("_", "-").lower()] in wanted.specifier, line


def test_the_extras_require_what_the_tests_run_with():
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    tested = set((ROOT / "requirements-dev.txt").read_text().splitlines())
    for name in ("onnx", "trackio", "tensorboard"):
        assert set(map(str, map(requirements.Requirement, project[name]))) <= tested, name
