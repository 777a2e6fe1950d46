"""scripts/train.py as it is, but for fewer pictures of nothing, for tests that start it as a process of its own."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from antbee import foreign  # noqa: E402 (it is found once the path is there)

if __name__ == "__main__":
    foreign.COUNT = 1
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
