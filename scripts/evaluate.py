"""python scripts/evaluate.py MODEL [--data DIR] [--split val|test|train|all] [--json FILE]

Evaluates a model on a data folder: accuracy with its 95% interval, loss, calibration error, the confusion matrix, and
how often the model answers "neither". MODEL is a model folder or a Hub id such as user/name; without --data its own
data set in data/ is used.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the flags are the arguments of `antbee.evaluate`."""
    parser = argparse.ArgumentParser(description="Evaluate a model on a data folder.", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("--data", metavar="DATA", help="what train.py --data takes (default: the model's own in data/)")
    parser.add_argument(
        "--split", choices=("val", "test", "train", "all"), help="default: val, else test, else all class folders"
    )
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    return parser.parse_args()


def main() -> None:
    """Prints the evaluation."""
    arguments = parse_arguments()
    with errors.importing():
        evaluate = antbee.evaluate
    print(evaluate(**vars(arguments)))
    if arguments.json is not None:
        print(f"written to {arguments.json}")


if __name__ == "__main__":
    errors.run(main)
