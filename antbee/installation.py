"""Where antbee's files are, and the `antbee` command of the installed package.

The commands are scripts: `python app.py` and `python scripts/NAME.py` in a clone. The installed package carries these
scripts in its folder project/ (see pyproject.toml) and runs them as `antbee NAME`.
"""

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from antbee import errors

PACKAGE = Path(__file__).resolve().parent


def is_installed() -> bool:
    """Whether antbee runs as an installed package, not from a clone."""
    return (PACKAGE / "project").is_dir()


def project() -> Path:
    """The folder with app.py, scripts/ and requirements.txt."""
    return PACKAGE / "project" if is_installed() else PACKAGE.parent


def home() -> Path:
    """The folder for data/ and outputs/: the clone or, for the installed package, the current folder."""
    return Path.cwd() if is_installed() else PACKAGE.parent


def command_name(name: str) -> str:
    """The command line that runs a script, for messages: `antbee train` or `python scripts/train.py`."""
    if is_installed():
        return f"antbee {name}"
    return "python app.py" if name == "app" else f"python scripts/{name}.py"


def main() -> None:
    """Runs `antbee COMMAND ...`: the script of that name, with its own flags, help and exit status."""
    scripts = {path.stem: path for path in (project() / "app.py", *(project() / "scripts").glob("[!_]*.py"))}
    epilog = "`antbee COMMAND --help` lists the flags of a command."
    parser = argparse.ArgumentParser("antbee", epilog=epilog, allow_abbrev=False)
    parser.add_argument("command", metavar="COMMAND", choices=sorted(scripts), help=", ".join(sorted(scripts)))
    parser.add_argument("flags", metavar="...", nargs=argparse.REMAINDER, help="the flags of the command")
    arguments = parser.parse_args()
    # Not by runpy, which sets sys.argv[0] to the script's path: its help has to name the command.
    sys.argv = [f"antbee {arguments.command}", *arguments.flags]
    spec = spec_from_file_location("__main__", scripts[arguments.command])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["__main__"] = module_from_spec(spec)
    loader, module = spec.loader, sys.modules["__main__"]
    errors.run(lambda: loader.exec_module(module))  # also while the script imports what it needs
