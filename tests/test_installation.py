"""The commands of an installed antbee: the very scripts of the clone, with data/ and outputs/ in the current folder."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from antbee.__main__ import main
from antbee.data.drawn import write_drawn_set
from antbee.installation import commands, home, is_installed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of packages into which the built antbee was unpacked."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("built")
    source = place / "source"  # setuptools leaves its own files where it builds
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
# Each is what `antbee WORDS ...` runs, but for the interpreter, which takes longer to start than they to run.
ENTRY = """
import sys
from antbee.__main__ import main
for line in sys.stdin:
    sys.argv = ["antbee", *line.split()]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    print(end=chr(0))
"""


@pytest.fixture(scope="module")
def answered(site, tmp_path_factory):
    """The folder where the commands were run one after the other, and what each printed."""
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


def test_every_script_of_the_clone_is_a_command():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert commands().keys() == scripts | {"app"}
    assert not is_installed()
    assert home() == ROOT


def test_the_package_holds_every_room_every_script_and_what_a_space_needs(site):
    for name, path in commands().items():
        packed = site / "antbee" / "project" / path.relative_to(ROOT)
        assert packed.read_bytes() == path.read_bytes(), name
    assert (site / "antbee" / "project" / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()
    for path in (*(ROOT / "antbee").rglob("*.py"), *(ROOT / "antbee").rglob("*.jinja")):
        assert (site / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "antbee = antbee.__main__:main" in entry_points.read_text()
    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info")) == ["antbee"]


def test_an_installed_command_trains_in_the_current_folder_and_says_how_to_go_on(answered):
    folder, printed = answered
    assert (folder / "outputs" / "frozen" / "model.safetensors").is_file()
    assert "see them  antbee app --data mine" in printed["train"]


def test_an_installed_command_that_pushes_gives_a_space_the_package_alone(answered):
    _, printed = answered
    for room in ("installation.py", "hub/card.md.jinja", "ui/page.py"):
        assert f"bytes  antbee/{room}" in printed["push"]
    assert "antbee/project" not in printed["push"]


def test_a_commands_help_is_its_scripts_own_under_the_commands_name(answered):
    _, printed = answered
    assert printed["help"].startswith("usage: antbee predict ")
    assert "--explain" in printed["help"]


@pytest.mark.parametrize("words", [[], ["trian"], ["../app"], ["--help"]])
def test_no_command_and_an_unknown_one_list_those_there_are(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["antbee", *words])
    if words == ["--help"]:
        main()
        assert capsys.readouterr().out.startswith("usage: antbee {app,")
    else:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("usage: antbee {app,")


def test_the_lock_is_within_the_bounds_of_the_requirements():
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


def test_the_extras_ask_for_what_the_tests_run_with():
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    tried = set((ROOT / "requirements-dev.txt").read_text().splitlines())
    for name in ("onnx", "trackio", "tensorboard"):
        assert set(map(str, map(requirements.Requirement, project[name]))) <= tried, name
