"""Crops that wait at the same time are predicted together, and each is answered as it would be alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from antbee.data.drawn import draw
from antbee.ui.batching import LARGEST_BATCH, DynamicBatches

COUNT = LARGEST_BATCH + 3  # crops that wait


class Watched:
    """A classifier that notes its batches, and does not begin with the first one before it is let."""

    def __init__(self, classifier, bad=None):
        self.classifier, self.bad, self.batches = classifier, bad, []
        self.threads = set()
        self.began, self.go_on = threading.Event(), threading.Event()

    def predict_crops(self, crops):
        self.batches.append(list(crops))
        self.threads.add(threading.get_ident())
        self.began.set()
        assert self.go_on.wait(30)
        if self.bad in crops:
            raise ValueError("this one")
        return self.classifier.predict_crops(crops)


@pytest.fixture
def classifier(models):
    return models[0].classifier


@pytest.fixture
def crops(classifier):
    return [classifier.crop(draw(("ants", "bees")[number % 2], number, 100)) for number in range(COUNT)]


def all_at_once(asked):
    """The answers, or errors, to (classifier, crop) pairs that come while a batch with the first is computed."""
    batches, first = DynamicBatches(), asked[0][0]
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(batches.predict, *asked[0])]
        assert first.began.wait(30)
        futures += [pool.submit(batches.predict, *one) for one in asked[1:]]
        while len(batches._waiting) < len(asked) - 1:
            assert not any(future.done() for future in futures)
        for watched, _ in asked:
            watched.go_on.set()
        return [future.exception(30) or future.result() for future in futures]


def assert_equal(answer, alone):
    assert answer.label == alone.label
    assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert answer.distance == pytest.approx(alone.distance, abs=1e-6)


def test_crops_that_wait_go_together_and_each_gets_the_answer_that_it_gets_alone(classifier, crops):
    watched = Watched(classifier)
    answers = all_at_once([(watched, crop) for crop in crops])
    assert [len(batch) for batch in watched.batches] == [1, LARGEST_BATCH, COUNT - 1 - LARGEST_BATCH]
    for answer, crop in zip(answers, crops, strict=True):
        assert_equal(answer, classifier.predict_crops([crop])[0])


def test_a_crop_that_fails_fails_alone(classifier, crops):
    watched = Watched(classifier, bad=crops[2])
    answers = all_at_once([(watched, crop) for crop in crops[:4]])
    assert isinstance(answers[2], ValueError)
    for number in (0, 1, 3):
        assert_equal(answers[number], classifier.predict_crops([crops[number]])[0])


def test_each_crop_is_answered_by_the_model_that_was_asked(models, crops):
    old, new = (Watched(model.classifier) for model in models)
    asked = [(old, crops[0]), (new, crops[0]), (old, crops[1]), (new, crops[1])]
    for answer, (watched, crop) in zip(all_at_once(asked), asked, strict=True):
        assert_equal(answer, watched.classifier.predict_crops([crop])[0])
    assert [len(batch) for batch in new.batches] == [2]


def test_a_visitor_alone_is_answered_at_once_and_one_thread_computes_whoever_asks(classifier, crops):
    watched, batches = Watched(classifier), DynamicBatches()
    watched.go_on.set()
    for crop in crops[:3]:
        with ThreadPoolExecutor(1) as visitor:
            answer = visitor.submit(batches.predict, watched, crop).result(30)
        assert answer == classifier.predict_crops([crop])[0]
    assert watched.batches == [[crop] for crop in crops[:3]]
    assert len(watched.threads) == 1
