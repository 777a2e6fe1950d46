"""scripts/train.py as it is, but for small crops and fewer synthetic images.

For tests that need processes it is a script too: with flags it runs once; without any it runs once for every line on
stdin, a JSON list of flags, or of "torchrun" and its own, one after the other. Those runs are processes forked off once
everything is imported, which takes longer than to train. Each prints its process ID before anything else, and once it
is over the script prints "ended" and its status.
"""

import json
import os
import runpy
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
sys.path.insert(0, str(ROOT))

from antbee.evaluation import ood  # noqa: E402 (it is found once the path is there)
from antbee.training import context  # noqa: E402
from antbee.training.recipe import Recipe  # noqa: E402

SMALL = 64  # pixels a side of the crops
PATIENCE = 120  # seconds, after which a run that hangs is ended


def quickening() -> list[tuple[ModuleType, str, Any]]:
    """What makes a run quick: modules, the names in them, and their values."""
    found = [(name, getattr(context, name)) for name in ("RECIPES", "RECIPES_FROM_RANDOM")]
    smaller = [(context, name, {key: small(recipe) for key, recipe in known.items()}) for name, known in found]
    return [(ood, "COUNT", 1), *smaller]


def small(recipe: Recipe) -> Recipe:
    """The recipe with crops of a twelfth of the pixels, which grow where they grew before."""
    sizes = tuple(size * SMALL // recipe.preprocessing.crop for size in recipe.finetune_sizes)
    return replace(recipe, preprocessing=replace(recipe.preprocessing, crop=SMALL), finetune_sizes=sizes)


def run(words: list[str]) -> None:
    """Runs the script with these flags."""
    for change in quickening():
        setattr(*change)
    sys.argv = [SCRIPT, *words]
    runpy.run_path(SCRIPT, run_name="__main__")


def run_lines() -> None:
    """Runs the script in a process of its own, or in several, for every line of flags."""
    from torch.distributed import run as torchrun

    runpy.run_path(SCRIPT)  # imports what it needs, and runs nothing
    for line in sys.stdin:
        if (process := os.fork()) == 0:
            signal.alarm(PATIENCE)
            print(os.getpid(), flush=True)
            words = json.loads(line)
            if words[0] == "torchrun":
                torchrun.main(words[1:])
            else:
                run(words)
            sys.exit()
        _, status = os.waitpid(process, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1:])
    else:
        run_lines()
