"""python scripts/evaluate.py MODEL [--data DIR] [--split val|train] [--json FILE]

Measures a model on a data folder: accuracy with its 95 % interval, loss, and what it takes for what. MODEL is a model
folder or a Hub id such as user/name; without --data its own data set is looked for in data/.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import cards, data, evaluation, hub, model, training
from antbee.classifier import Classifier, ModelFolderError
from antbee.installation import home


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
    root = arguments.data or data.folder_named(home() / "data", classifier.config.data.get("name"))
    if root is None:
        raise data.DataError("the model's own photos are not in data/: name a data folder with --data")
    # Without a val/ folder the model's own seed draws the photos that it was checked with, and not trained on.
    photos = data.read_folder_of(root, names, seed=classifier.config.seed or 0)
    result = {"model": arguments.model, "data": str(photos.root), "split": arguments.split}
    result |= measured(classifier, photos.val if arguments.split == "val" else photos.train)

    low, high = result["interval"]
    print(
        f"accuracy  {result['accuracy']:.1%} ({result['correct']} of {result['count']}), 95 % {low:.1%} to {high:.1%}"
    )
    print(f"loss      {result['loss']:.3f}")
    said = [cards.one_line(name) for name in names]
    for name, row in zip(said, result["confusion"], strict=True):
        print(f"{name}: " + ", ".join(f"{count} as {answer}" for answer, count in zip(said, row, strict=True)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"written to {arguments.json}")


def measured(classifier: Classifier, split: data.Split) -> dict[str, Any]:
    """How good the classifier is on a split's photos."""
    loading = data.Loading.beside(classifier.device)
    looks = data.Photos(split, classifier.config.preprocessing, loading=loading)
    process = training.Process(classifier.device)
    network = model.folded(classifier.network)
    logits = training.compute_rows(network, looks, len(classifier.config.label_names), process, what="predicting").cpu()
    result = evaluation.score(logits, looks.labels)
    return {
        "count": result.count,
        "correct": result.correct,
        "accuracy": result.accuracy,
        "interval": evaluation.wilson_interval(result.correct, result.count),
        "loss": result.loss,
        "confusion": evaluation.confusion_matrix(logits, looks.labels).tolist(),
    }


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid Unicode
    try:
        main()
    except (data.DataError, model.WeightsError, ModelFolderError, hub.HubError, OSError) as error:
        sys.exit(f"error: {error}")
