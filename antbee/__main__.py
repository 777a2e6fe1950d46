"""antbee COMMAND ...: the scripts under one name, for an installed antbee.

Every command is a script of its own, run as it is: its flags and its help are written nowhere else.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from antbee.installation import commands


def main() -> None:
    """Run the command that is named; exit as its script does, or with status 2 where there is none of that name."""
    known = commands()
    usage = f"usage: antbee {{{','.join(sorted(known))}}} ...\n\n`antbee COMMAND --help` tells a command's flags."
    match sys.argv[1:]:
        case [name, *words] if name in known:
            sys.argv = [f"antbee {name}", *words]
            run(known[name])
        case ["--help" | "-h", *_]:
            print(usage)
        case _:
            print(usage, file=sys.stderr)
            sys.exit(2)


def run(script: Path) -> None:
    """Run a script as Python would, but for sys.argv, which runpy would change: help and errors name the command."""
    spec = spec_from_file_location("__main__", script)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["__main__"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["__main__"])


if __name__ == "__main__":
    main()
