"""python scripts/predict.py MODEL PATH ... [--csv FILE] [--explain DIR]

Predicts photos: prints a line for each, or writes a CSV file with the probability of every class. PATH is a photo or a
folder of photos, MODEL a model folder or a Hub id such as user/name. --explain writes a heat map of each photo, which
shows the regions that support the prediction.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the flags are the arguments of `antbee.predict_files`."""
    parser = argparse.ArgumentParser(description="Predict photos.", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the predictions to a CSV file")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="write a heat map of each photo")
    return parser.parse_args()


def main() -> None:
    """Prints the predictions; ends with status 2 if a file can't be read."""
    arguments = parse_arguments()
    with errors.importing():
        predict_files = antbee.predict_files
    results = predict_files(**vars(arguments))
    predicted = [result for result in results if result.prediction is not None]
    if arguments.csv is None:
        for result in predicted:
            print(result)
    else:
        print(f"{len(predicted)} predictions written to {arguments.csv}")
    if arguments.explain is not None:
        print(f"heat maps written to {arguments.explain}")
    if unreadable := [str(result) for result in results if result.prediction is None]:
        raise errors.InputError("not predicted: " + "; ".join(unreadable))


if __name__ == "__main__":
    errors.run(main)
