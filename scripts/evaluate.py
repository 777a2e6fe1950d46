"""python scripts/evaluate.py MODEL [--data DIR] [--split val|train] [--json FILE]

Measures a model on a data folder: accuracy with its 95 % interval, loss, calibration, what it takes for what, and how
often it says "neither". MODEL is a model
folder or a Hub id such as user/name; without --data its own data set is looked for in data/.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import errors
from antbee.data.download import folder_named
from antbee.data.folder import read_folder_of
from antbee.data.images import DataError
from antbee.installation import home
from antbee.models.classifier import Classifier
from antbee.training.evaluate import evaluate


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Measure a model on a data folder.")
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: the model's own in data/)")
    parser.add_argument("--split", default="val", choices=("val", "train"), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    return parser.parse_args()


def main() -> None:
    """Load the model and the photos, measure, tell."""
    arguments = parse_arguments()
    classifier = Classifier.from_pretrained(arguments.model)
    names = classifier.config.label_names
    root = arguments.data or folder_named(home() / "data", classifier.config.data.name)
    if root is None:
        raise DataError("the model's own photos are not in data/: name a data folder with --data")
    # Without a val/ folder the model's own seed draws the photos that it was checked with, and not trained on.
    photos = read_folder_of(root, names, seed=classifier.config.seed or 0)
    split = photos.val if arguments.split == "val" else photos.train
    own = photos.digest == classifier.config.data.digest  # else another photo may have an excluded one's name
    result = evaluate(classifier, split, names=split.names(photos.root) if own else ())
    print(result)
    if arguments.json is not None:
        of_what = {"model": arguments.model, "data": str(photos.root), "split": arguments.split}
        content = json.dumps(of_what | result.model_dump(exclude_unset=True, exclude={"label_names"}), indent=1)
        arguments.json.write_text(content + "\n", "utf-8")
        print(f"written to {arguments.json}")


if __name__ == "__main__":
    errors.run(main)
