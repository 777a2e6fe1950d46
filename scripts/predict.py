"""python scripts/predict.py MODEL PATH ... [--csv FILE] [--explain DIR]

Says what is in photos: a line for each, or a CSV file with every class's probability. PATH is a photo or a folder of
photos, MODEL a model folder or a Hub id such as user/name. --explain writes each photo with the places glowing that
speak for the answer.
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from antbee import errors
from antbee.data.images import DataError, open_photo
from antbee.models.classifier import Classifier, Prediction
from antbee.text import one_line

BATCH = 32  # photos predicted at once


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Say what is in photos.")
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the answers to a CSV file")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="write a heat map for each photo")
    return parser.parse_args()


def main() -> None:
    """Predict every photo; say which files are none, and end with status 2 if there were any."""
    arguments = parse_arguments()
    classifier = Classifier.from_pretrained(arguments.model)
    paths = [photo for path in arguments.paths for photo in photos_in(path)]
    unusable: list[str] = []
    answers: list[tuple[Path, Prediction]] = []
    for batch in batched(cropped(classifier, paths, unusable)):
        predictions = classifier.predict_crops([crop for _, crop in batch])
        answers += [(path, prediction) for (path, _), prediction in zip(batch, predictions, strict=True)]
    if arguments.explain is not None:
        for path, _ in tqdm(answers, "heat maps", leave=False, delay=0.5, disable=None):
            explain(classifier, path, arguments.explain)
    if arguments.csv is None:
        for path, prediction in answers:
            probability = prediction.probabilities[prediction.label]
            print(f"{probability:6.1%}  {answer(prediction)}  {one_line(str(path), longest=4096)}")
    else:
        write_csv(arguments.csv, classifier.config.label_names, answers)
        print(f"{len(answers)} answers written to {arguments.csv}")
    if arguments.explain is not None:
        print(f"heat maps written to {arguments.explain}")
    if unusable:
        raise DataError("not answered: " + "; ".join(unusable))


def photos_in(path: Path) -> list[Path]:
    """The file itself, or every photo below a folder."""
    if not path.is_dir():
        return [path]
    photos = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS and not file.is_dir())
    if not photos:
        raise DataError(f"{path} has no photo: expected files that end in {' '.join(IMG_EXTENSIONS)}")
    return photos


def cropped(classifier: Classifier, paths: Sequence[Path], unusable: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """What the network sees of each photo, BATCH photos decoded beside each other; `unusable` takes what is none."""

    def crop(path: Path) -> Image.Image | DataError:
        try:
            return classifier.crop(open_photo(path))
        except DataError as error:
            return error

    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        tqdm(paths, "photos", leave=False, delay=0.5, disable=None) as progress,
    ):
        for group in batched(progress):
            for path, seen in zip(group, pool.map(crop, group), strict=True):
                if isinstance(seen, DataError):
                    unusable.append(f"{path}: {seen}")
                else:
                    yield path, seen


Item = TypeVar("Item")


def batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, BATCH at a time."""
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        yield batch


def explain(classifier: Classifier, path: Path, folder: Path) -> None:
    """Writes the photo with its class activation map, named after its folder and itself."""
    from antbee.evaluation import plots  # matplotlib takes half a second to import

    folder.mkdir(parents=True, exist_ok=True)
    photo = open_photo(path)
    explanation = classifier.explain(photo)
    activation_map = explanation.activation_maps[explanation.prediction.label]
    box = classifier.config.preprocessing.crop_box(photo.width, photo.height)
    picture = plots.heat_map(photo, activation_map, box, strongest=float(activation_map.max()))
    target = folder / f"{path.resolve().parent.name}_{path.name}.png"
    if target.exists():  # of another photo of that name
        target = target.with_stem(f"{target.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}")
    picture.save(target)


def answer(prediction: Prediction) -> str:
    """The likeliest class, and a warning where the photo is like none that was learned from."""
    label = one_line(prediction.label)
    if not prediction.is_out_of_distribution:
        return label
    return f"neither (likeliest: {label}; distance {prediction.distance:.2f}, limit {prediction.threshold:.2f})"


def write_csv(path: Path, label_names: Sequence[str], answers: Sequence[tuple[Path, Prediction]]) -> None:
    """A row for each photo: its file, the likeliest class, the probability of every class, and what tells "neither"."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", *label_names, "verdict", "distance", "threshold"])
        for photo, prediction in answers:
            told = (prediction.verdict, prediction.distance, prediction.threshold)
            writer.writerow([photo, prediction.label, *prediction.probabilities.values(), *told])


if __name__ == "__main__":
    errors.run(main)
