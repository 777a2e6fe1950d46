"""python scripts/check.py PATH ... [--weights NAME|FILE] [--sheets DIR] [--list FILE] [--allow-bad] [--json]

Checks data folders, model folders and pictures, and changes nothing in them. In a data folder it finds files that can't
be used, placeholders, duplicates, photos in both splits, suspicious labels, tiny, thin, dark and blurred photos, and
classes of very different size, and prints a table of them.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the flags are the arguments of `antbee.check`, except --json."""
    parser = argparse.ArgumentParser(description="Check photos or models.", allow_abbrev=False)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what train.py --data takes, model folder or picture")
    parser.add_argument("--weights", metavar="NAME|FILE", help="starting weights of the network that compares photos")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write a contact sheet of the findings to a folder")
    parser.add_argument("--list", type=Path, metavar="FILE", help="write a list of photos for train.py --exclude")
    parser.add_argument("--allow-bad", action="store_true", help="accept a class with over a tenth of damaged files")
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of a data folder")
    parser.add_argument("--json", action="store_true", help="print a JSON object per PATH instead of tables")
    arguments = parser.parse_args()
    if arguments.list is not None and len(arguments.paths) > 1:
        parser.error("--list is for one data folder: check the others without it")
    return arguments


def main() -> None:
    """Checks every path; ends with status 2 if one can't be used."""
    options = vars(parse_arguments())
    paths, as_json = options.pop("paths"), options.pop("json")
    with errors.importing():
        from antbee.data.paths import expanded

        check = antbee.check
    results = []
    for path in [path for text in paths for path in expanded(text)]:
        results.append(check(path, **options, log=log))
        print(json.dumps(asdict(results[-1])) if as_json else results[-1], flush=True)
    if unusable := [str(result.error) for result in results if not result.ok]:
        raise errors.InputError(f"{len(unusable)} of {len(results)} can't be used: {'; '.join(unusable)}")


def log(message: str) -> None:
    """Prints a message to the error stream: the output stream has the results alone."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
