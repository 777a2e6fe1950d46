"""Predictions for many image files, a batch at a time, and their heat maps."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from antbee.data.images import PHOTO_FORMATS, DataError, open_photo
from antbee.data.listing import Listing, list_photos, summary
from antbee.data.loading import LoaderOptions
from antbee.models.classifier import Classifier, Prediction
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


def load_classifier(model: Classifier | str | Path, *, device: str = "auto") -> Classifier:
    """The classifier itself, or the one in a model folder or a Hub repository, on `device`."""
    return model if isinstance(model, Classifier) else Classifier.from_pretrained(model, device=device)


def photos_of(path: Path, *, follow_links: bool = False) -> Listing:
    """The file itself, or the photos below a folder and what is left out. Raises DataError where a folder has none."""
    if not path.is_dir():
        return Listing((path,), ())
    if not (listing := list_photos(path, follow_links=follow_links)).files:
        left_out = "; ".join(summary(listing.skipped))
        found = f" (left out: {left_out})" if left_out else ""
        raise DataError(f"{path} has no photo{found}: expected files of {', '.join(PHOTO_FORMATS)}")
    return listing


def predict_batches(
    classifier: Classifier, batches: Iterable[Sequence[Path]], *, processes: int = 1
) -> Iterator[list[FilePrediction]]:
    """Yields the predictions for each batch of files; an unreadable file gets the reason instead.

    No more is kept in memory than the crops of the batches that are prepared while a GPU computes. `processes` is the
    number of those on this machine that do the same.
    """

    def crop(path: Path) -> Image.Image | DataError:
        try:
            return classifier.crop(open_photo(path))
        except DataError as error:
            return error

    options = LoaderOptions.for_device(classifier.device, processes=processes)
    with ThreadPoolExecutor(options.workers) as pool:
        pending: deque[tuple[Sequence[Path], list[Future[Image.Image | DataError]]]] = deque()
        for batch in batches:
            pending.append((batch, [pool.submit(crop, path) for path in batch]))
            if len(pending) > options.prefetch:
                yield _predicted(classifier, *pending.popleft())
        while pending:
            yield _predicted(classifier, *pending.popleft())


def _predicted(
    classifier: Classifier, paths: Sequence[Path], cropped: Sequence[Future[Image.Image | DataError]]
) -> list[FilePrediction]:
    crops = [crop.result() for crop in cropped]
    predictions = iter(classifier.predict_crops([crop for crop in crops if isinstance(crop, Image.Image)]))
    return [
        FilePrediction(path, None, str(crop))
        if isinstance(crop, DataError)
        else FilePrediction(path, next(predictions))
        for path, crop in zip(paths, crops, strict=True)
    ]


def write_heat_map(classifier: Classifier, path: Path, folder: Path) -> None:
    """Writes the heat map of a photo to a folder, named after the photo's folder and the photo."""
    heatmap = classifier.explain(path).heatmap
    target = folder / f"{path.resolve().parent.name}_{path.name}.png"
    try:
        file = target.open("xb")
    except FileExistsError:  # the heat map of another photo of the same name
        digest = hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]
        file = target.with_stem(f"{target.stem}_{digest}").open("wb")
    with file:
        heatmap.save(file, "PNG")
