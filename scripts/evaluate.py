"""python scripts/evaluate.py MODEL [--data DIR] [--split val|train] [--json FILE]

Measures a model on a data folder: accuracy with its 95 % interval, loss, calibration, what it takes for what, and how
often it says "neither". MODEL is a model
folder or a Hub id such as user/name; without --data its own data set is looked for in data/.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import data, ending, evaluation, hub, model, report, resampling, training
from antbee.classifier import Classifier
from antbee.installation import home
from antbee.models.config import ModelFolderError
from antbee.models.metrics import Evaluation
from antbee.text import one_line


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
    root = arguments.data or data.folder_named(home() / "data", classifier.config.data.name)
    if root is None:
        raise data.DataError("the model's own photos are not in data/: name a data folder with --data")
    # Without a val/ folder the model's own seed draws the photos that it was checked with, and not trained on.
    photos = data.read_folder_of(root, names, seed=classifier.config.seed or 0)
    split = photos.val if arguments.split == "val" else photos.train
    own = photos.digest == classifier.config.data.digest  # else another photo may have an excluded one's name
    result = measured(classifier, split, split.names(photos.root) if own else ())

    for line in report.evaluation(result, [one_line(name) for name in names]):
        print(line)
    if arguments.json is not None:
        of_what = {"model": arguments.model, "data": str(photos.root), "split": arguments.split}
        content = json.dumps(of_what | result.model_dump(exclude_unset=True), indent=1)
        arguments.json.write_text(content + "\n", "utf-8")
        print(f"written to {arguments.json}")


def measured(classifier: Classifier, split: data.Split, names: Sequence[str]) -> Evaluation:
    """How good the classifier is on a split's photos, and on those of them that its training did not exclude."""
    loading = data.Loading.beside(classifier.device)
    looks = data.Photos(split, classifier.config.preprocessing, loading=loading)
    process = training.Process(classifier.device)
    computed = training.features_of(classifier.network, looks, process, what="predicting")
    features, labels = computed.features, computed.labels
    logits = resampling.logits_of(classifier.network.fc, computed)
    result = evaluation.report(logits, labels).to_record()
    if (bank := classifier.bank) is not None and bank.limit is not None:
        found = int((bank.distance(features) > bank.limit).sum())
        result["neither"] = {"threshold": bank.limit, "found": found, "count": len(labels)}
    told = classifier.config.data
    excluded = set(told.excluded or ()) if told.excluded_count is None else set()  # else not all of them are known
    kept = [position for position, name in enumerate(names) if name not in excluded]
    if 0 < len(kept) < len(names):
        result["cleaned"] = evaluation.score(logits[kept], labels[kept]).to_record()
    return Evaluation.model_validate(result)


if __name__ == "__main__":
    ending.run(
        main,
        bad_input=(data.DataError, model.WeightsError, model.DeviceError, ModelFolderError),
        faults=(data.DownloadError, hub.HubError),
    )
