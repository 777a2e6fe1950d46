"""Where antbee lies: in a clone of its repository, or installed among Python's packages.

An installed antbee carries the clone's commands and requirements.txt in its folder project/ (see pyproject.toml).
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def is_installed() -> bool:
    """Whether antbee lies among Python's packages."""
    return (PACKAGE / "project").is_dir()


def project() -> Path:
    """The folder that holds app.py, scripts/ and requirements.txt."""
    return PACKAGE / "project" if is_installed() else PACKAGE.parent


def home() -> Path:
    """The folder that holds data/ and outputs/: the clone or, for an installed antbee, the current folder."""
    return Path.cwd() if is_installed() else PACKAGE.parent


def commands() -> dict[str, Path]:
    """The script of every command, by the command's name."""
    scripts = sorted((project() / "scripts").glob("[!_]*.py"))
    return {script.stem: script for script in (project() / "app.py", *scripts)}


def command_name(name: str) -> str:
    """How a command is called here, for a person to type."""
    if is_installed():
        return f"antbee {name}"
    return "python app.py" if name == "app" else f"python scripts/{name}.py"
