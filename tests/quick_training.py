"""Training with small crops, few synthetic images and no figures, for tests of how a run behaves, not how good it is.

As a program it runs scripts/train.py so, for tests that need processes: with flags it trains once; without any it
trains once for each line on stdin, which is a JSON list of flags, or of "torchrun" and its own arguments. Each of these
runs is a process that is forked after the imports, which take longer than training. It prints its process ID first;
when it has ended, the program prints "ended" and its exit status. With DRAW_FIGURES in the environment
figures are drawn.
"""

import json
import os
import runpy
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
sys.path.insert(0, str(ROOT))

from antbee.evaluation import ood  # noqa: E402 (needs the path)
from antbee.training import context, output, pipeline  # noqa: E402, F401 (pipeline for its imports, before the forks)
from antbee.training.recipe import Recipe  # noqa: E402

SMALL = 64  # pixels a side of the crops
TIMEOUT = 120  # seconds, after which a run is ended
NO_FIGURES = (output, "figures_of", lambda *run: {})


def quickening() -> list[tuple[Any, str, Any]]:
    """The patches that make a run quick: modules and classes, the names in them, and their values."""
    recipes = {name: getattr(context, name) for name in ("RECIPES", "RECIPES_FROM_RANDOM")}
    smaller = {name: {key: small(recipe) for key, recipe in known.items()} for name, known in recipes.items()}
    as_it_is = (Recipe, "for_images", lambda recipe, preprocessing, *, grow: recipe)  # not in the network's own size
    without = [] if "DRAW_FIGURES" in os.environ else [NO_FIGURES]
    return [(ood, "COUNT", 1), *without, as_it_is, *((context, name, known) for name, known in smaller.items())]


def small(recipe: Recipe) -> Recipe:
    """The recipe with crops of a twelfth of the pixels, which grow in the same epochs."""
    sizes = tuple(size * SMALL // recipe.preprocessing.crop for size in recipe.finetune_sizes)
    return replace(recipe, preprocessing=replace(recipe.preprocessing, crop=SMALL), finetune_sizes=sizes)


def run(arguments: list[str]) -> None:
    """Runs the script with these flags."""
    for patch in quickening():
        setattr(*patch)
    sys.argv = [SCRIPT, *arguments]
    runpy.run_path(SCRIPT, run_name="__main__")


def end(status: int) -> None:
    """Ends a forked process; an ordinary end would first copy all the memory that it shares, which takes a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_lines() -> None:
    """Runs the script in one or several new processes for every line of flags."""
    from torch.distributed import run as torchrun

    for line in sys.stdin:
        if (process := os.fork()) == 0:
            signal.alarm(TIMEOUT)
            print(os.getpid(), flush=True)
            arguments = json.loads(line)
            try:
                torchrun.main(arguments[1:]) if arguments[0] == "torchrun" else run(arguments)
            except SystemExit as ended:
                end(ended.code)
            end(0)
        _, status = os.waitpid(process, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1:])
    else:
        run_lines()
