"""Dynamic batches: photos that visitors send at the same time go through the network together."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from antbee.models.classifier import Classifier, Prediction

LARGEST_BATCH = 8  # photos


@dataclass(frozen=True, eq=False)
class _Request:
    classifier: Classifier
    crop: Image.Image
    answer: "Future[Prediction]" = field(default_factory=Future)


class DynamicBatches:
    """Predictions in batches of the crops that wait, by one thread; none waits for others to come.

    One thread only, since every thread that computes has working threads and scratch memory of its own in torch.
    """

    def __init__(self) -> None:
        self._waiting: list[_Request] = []  # the oldest first
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")

    def predict(self, classifier: Classifier, crop: Image.Image) -> Prediction:
        """The prediction for a crop made by `classifier.crop`, up to rounding that of `predict_crops` for it alone.

        Raises what `predict_crops` raises for this crop.
        """
        request = _Request(classifier, crop)
        with self._lock:
            self._waiting.append(request)
        self._thread.submit(self._answer_oldest)  # finds nothing to do where an earlier batch took this one along
        return request.answer.result()

    def _answer_oldest(self) -> None:
        """Answers the request that has waited longest, with others of its classifier."""
        with self._lock:
            same = [request for request in self._waiting if request.classifier is self._waiting[0].classifier]
            batch = same[:LARGEST_BATCH]
            self._waiting = [request for request in self._waiting if request not in batch]
        if batch:
            _answer(batch)


def _answer(batch: Sequence[_Request]) -> None:
    """Answers every request of a batch; where the batch fails, each alone."""
    try:
        predictions = batch[0].classifier.predict_crops([request.crop for request in batch])
    except Exception as error:  # noqa: BLE001 - raised where the answer is waited for, without which it never comes
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
            return
        for request in batch:
            _answer([request])
    else:
        for request, prediction in zip(batch, predictions, strict=True):
            request.answer.set_result(prediction)
