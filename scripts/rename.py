"""python scripts/rename.py MODEL OLD=NEW [OLD=NEW ...]

Gives classes of a model other names, as in `outputs/frozen ants=Ameisen`: in its config, its card and its confusion
matrix. MODEL is a model folder, which is replaced as a whole; its weights stay as they are, to the byte. Two classes
may change places: ants=bees bees=ants. Figures of photos with class names are removed, as the folder lacks the photos.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the arguments are those of `antbee.rename`."""
    parser = argparse.ArgumentParser(description="Give classes of a model other names.", allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="MODEL", help="model folder")
    parser.add_argument("names", type=pair, metavar="OLD=NEW", nargs="+", help="the old and the new name of a class")
    arguments = parser.parse_args()
    if len(dict(arguments.names)) < len(arguments.names):
        parser.error("a class is given two new names")
    arguments.names = dict(arguments.names)
    return arguments


def pair(text: str) -> tuple[str, str]:
    """The old and the new name in OLD=NEW."""
    old, sign, new = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} has no '=': expected OLD=NEW, as in ants=Ameisen")
    return old, new


def main() -> None:
    """Renames the classes and prints what was changed."""
    arguments = vars(parse_arguments())
    with errors.importing():
        rename = antbee.rename
    print(rename(**arguments))


if __name__ == "__main__":
    errors.run(main)
