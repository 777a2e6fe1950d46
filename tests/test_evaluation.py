"""Figures of merit against values worked out elsewhere."""

import math

import pytest
import torch

from antbee.evaluation import Score, confusion_matrix, score, wilson_interval

# Answers 1, 0, 2, 2, 1.
LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.0, 4.0], [1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
LABELS = torch.tensor([1, 0, 2, 0, 0])


def test_score_counts_right_answers_and_photos() -> None:
    result = score(LOGITS, LABELS)
    assert (result.correct, result.count) == (3, 5)
    assert result.accuracy == 0.6


def test_the_loss_is_the_mean_of_minus_log_probability_in_nats() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
    expected = -(math.log(0.9) + math.log(0.25) + math.log(0.5)) / 3
    assert score(probabilities.log(), torch.tensor([0, 0, 1])).loss == pytest.approx(expected, abs=1e-6)


def test_a_score_is_plain_numbers_that_json_can_hold() -> None:
    result = score(LOGITS, LABELS)
    assert [type(value) for value in (result.correct, result.count, result.loss)] == [int, int, float]


def test_the_accuracy_of_whole_numbers_is_exact() -> None:
    assert Score(correct=145, count=153, loss=0.0).accuracy == 145 / 153


# The first four: Newcombe 1998, Statistics in Medicine 17, table I, method 3. The last: a classic result on 153 photos.
@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (145, 153, 0.900, 0.973),
    ],
)
def test_the_wilson_interval_agrees_with_published_values(correct: int, count: int, low: float, high: float) -> None:
    digits = 3 if count == 153 else 4
    assert tuple(round(bound, digits) for bound in wilson_interval(correct, count)) == (low, high)


@pytest.mark.parametrize("count", [1, 7, 49, 153, 1000])
def test_the_interval_of_none_starts_at_0_and_that_of_all_ends_at_1(count: int) -> None:
    none, every = wilson_interval(0, count), wilson_interval(count, count)
    assert none[0] == 0.0
    assert every[1] == 1.0
    assert 0 < none[1] < 1
    assert 0 < every[0] < 1


@pytest.mark.parametrize("correct", range(31))
def test_the_interval_holds_its_share_and_mirrors_that_of_the_wrong_answers(correct: int) -> None:
    low, high = wilson_interval(correct, 30)
    assert 0 <= low <= correct / 30 <= high <= 1
    assert wilson_interval(30 - correct, 30) == pytest.approx((1 - high, 1 - low))


def test_rows_of_the_confusion_matrix_are_true_classes_and_columns_are_answers() -> None:
    assert confusion_matrix(LOGITS, LABELS).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_the_confusion_matrix_keeps_classes_that_never_occur() -> None:
    matrix = confusion_matrix(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([0]))
    assert matrix.dtype == torch.int64
    assert matrix.shape == (4, 4)
    assert matrix.sum() == matrix[0, 0] == 1


def test_the_diagonal_of_the_confusion_matrix_is_what_the_score_counts_as_right() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    matrix = confusion_matrix(logits, labels)
    assert matrix.trace() == score(logits, labels).correct
    assert matrix.sum(1).tolist() == torch.bincount(labels, minlength=5).tolist()
