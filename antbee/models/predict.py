"""Predictions for many image files: as a list, a CSV file, heat maps."""

import csv as csv_format
import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from antbee.data.images import DataError, open_photo
from antbee.models.classifier import BATCH_SIZE, Classifier, Prediction
from antbee.text import one_line, printable


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for a file, or the reason why the file can't be read; printed, it is one line."""

    path: Path
    prediction: Prediction | None
    error: str | None = None

    def __str__(self) -> str:
        """The probability, the most probable class, and the file."""
        if self.prediction is None:
            return f"{printable(self.path)}: {self.error}"
        label = one_line(self.prediction.label)
        answer = label
        if self.prediction.is_out_of_distribution:
            distance, threshold = self.prediction.distance, self.prediction.threshold
            answer = f"neither (most probable: {label}; distance {distance:.2f}, threshold {threshold:.2f})"
        return f"{self.prediction.probabilities[self.prediction.label]:6.1%}  {answer}  {printable(self.path)}"


def predict_files(
    model: Classifier | str | Path,
    paths: str | Path | Iterable[str | Path],
    *,
    csv: str | Path | None = None,
    explain: str | Path | None = None,
) -> list[FilePrediction]:
    """Predicts image files and all images below folders; one entry per file, in their order.

    `model` is a classifier, a model folder or a Hub id. `csv` is a file to write with a row for each prediction,
    `explain` a folder for a heat map of each. An unreadable file gets the reason instead of a prediction. Raises
    DataError for a folder without images, and what `Classifier.from_pretrained` raises.
    """
    classifier = load_classifier(model)
    paths = [paths] if isinstance(paths, str | Path) else paths
    files = [file for path in paths for file in image_files(Path(path))]
    results = _predict(classifier, files)
    if csv is not None:
        write_csv(Path(csv), classifier.config.label_names, results)
    if explain is not None:
        write_heat_maps(classifier, [result.path for result in results if result.prediction], Path(explain))
    return results


def load_classifier(model: Classifier | str | Path, *, device: str = "auto") -> Classifier:
    """The classifier itself, or the one in a model folder or a Hub repository, on `device`."""
    return model if isinstance(model, Classifier) else Classifier.from_pretrained(model, device=device)


def image_files(path: Path) -> list[Path]:
    """The file itself, or all images below a folder, sorted. Raises DataError where a folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS and not file.is_dir())
    if not files:
        raise DataError(f"{path} has no photo: expected files that end in {' '.join(IMG_EXTENSIONS)}")
    return files


def _predict(classifier: Classifier, files: Sequence[Path]) -> list[FilePrediction]:
    def crop(path: Path) -> Image.Image | DataError:
        try:
            return classifier.crop(open_photo(path))
        except DataError as error:
            return error

    results: list[FilePrediction] = []
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        tqdm(total=len(files), desc="photos", leave=False, delay=0.5, disable=None) as progress,
    ):
        for start in range(0, len(files), BATCH_SIZE):
            batch = files[start : start + BATCH_SIZE]
            crops = list(pool.map(crop, batch))
            readable = [crop for crop in crops if isinstance(crop, Image.Image)]
            predictions = iter(classifier.predict_crops(readable))
            for path, cropped in zip(batch, crops, strict=True):
                if isinstance(cropped, DataError):
                    results.append(FilePrediction(path, None, str(cropped)))
                else:
                    results.append(FilePrediction(path, next(predictions)))
            progress.update(len(batch))
    return results


def write_csv(path: Path, label_names: Sequence[str], results: Iterable[FilePrediction]) -> None:
    """Writes a row per prediction: file, label, the probability of every class, verdict, distance, threshold."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv_format.writer(file)
        writer.writerow(["file", "label", *label_names, "verdict", "distance", "threshold"])
        for result in results:
            if (found := result.prediction) is not None:
                row = [result.path, found.label, *found.probabilities.values()]
                writer.writerow([*row, found.verdict, found.distance, found.threshold])


def write_heat_maps(classifier: Classifier, paths: Iterable[Path], folder: Path) -> None:
    """Writes a heat map of each photo, named after the photo's folder and the photo."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, "heat maps", leave=False, delay=0.5, disable=None):
        target = folder / f"{path.resolve().parent.name}_{path.name}.png"
        if target.exists():  # the heat map of another photo of the same name
            target = target.with_stem(f"{target.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}")
        classifier.explain(path).heatmap.save(target)
