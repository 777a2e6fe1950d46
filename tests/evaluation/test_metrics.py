"""Metrics against scikit-learn, scipy and published values."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from antbee.evaluation.calibration import (
    CALIBRATION_BINS,
    COOLEST,
    HOTTEST,
    calibration_error,
    fit_temperature,
    reliability,
)
from antbee.evaluation.metrics import (
    NORMAL_QUANTILE,
    T_QUANTILES,
    class_metrics,
    confusion_matrix,
    difference,
    evaluate,
    macro_average,
    roc_auc,
    score,
    share,
    spread,
    wilson_interval,
)
from antbee.models.metrics import ClassMetrics, Evaluation, Metrics, Score, Spread

# Predicts 1, 0, 2, 2, 1.
LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.0, 4.0], [1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
LABELS = torch.tensor([1, 0, 2, 0, 0])


def drawn(class_count, count=300, *, seed=0, strength=1.5):
    """Random labels, and logits that are better than chance."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(class_count, (count,), generator=generator)
    noise = torch.randn(count, class_count, generator=generator)
    return strength * (noise + torch.nn.functional.one_hot(labels, class_count)), labels


def with_forgotten_classes(class_count):
    """The same, but the last class has no images and the one before it is never predicted."""
    logits, labels = drawn(class_count)
    labels[labels == class_count - 1] = 0
    logits[:, class_count - 2] = -100.0
    return logits, labels


def surely(labels, class_count, margin=30.0):
    """Logits that predict every label correctly."""
    return margin * torch.nn.functional.one_hot(labels, class_count).float()


def test_the_score_counts_correct_predictions_and_images() -> None:
    result = score(LOGITS, LABELS)
    assert (result.correct, result.count) == (3, 5)
    assert result.accuracy == 0.6


def test_the_loss_is_the_mean_of_minus_log_probability_in_nats() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
    expected = -(math.log(0.9) + math.log(0.25) + math.log(0.5)) / 3
    assert score(probabilities.log(), torch.tensor([0, 0, 1])).loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("class_count", [2, 5, 30])
def test_the_loss_is_that_of_scikit_learn(class_count: int) -> None:
    logits, labels = drawn(class_count)
    expected = metrics.log_loss(labels, logits.double().softmax(1).numpy(), labels=range(class_count))
    assert score(logits, labels).loss == pytest.approx(expected, rel=1e-5)


def test_a_score_survives_json() -> None:
    result = score(LOGITS, LABELS)
    assert Score.model_validate_json(result.model_dump_json()) == result


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
def test_the_interval_of_0_starts_at_0_and_that_of_1_ends_at_1(count: int) -> None:
    none, every = wilson_interval(0, count), wilson_interval(count, count)
    assert none[0] == 0.0
    assert every[1] == 1.0
    assert 0 < none[1] < 1
    assert 0 < every[0] < 1


@pytest.mark.parametrize("correct", range(31))
def test_the_interval_contains_the_proportion_and_mirrors_that_of_the_complement(correct: int) -> None:
    low, high = wilson_interval(correct, 30)
    assert 0 <= low <= correct / 30 <= high <= 1
    assert wilson_interval(30 - correct, 30) == pytest.approx((1 - high, 1 - low))


def test_a_share_has_its_counts_its_accuracy_and_its_interval_and_no_loss() -> None:
    assert share(145, 153).model_dump(exclude_unset=True) == {
        "correct": 145,
        "count": 153,
        "accuracy": 145 / 153,
        "interval": list(wilson_interval(145, 153)),
    }


def test_the_interval_is_that_of_95_percent() -> None:
    expected = stats.binomtest(81, 263).proportion_ci(0.95, method="wilson")
    assert wilson_interval(81, 263) == pytest.approx((expected.low, expected.high), abs=1e-7)
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-6) == NORMAL_QUANTILE


# ---- metrics of classes ----------------------------------------------------------------------------------------------


def test_rows_of_the_confusion_matrix_are_true_classes_and_columns_are_predicted_classes() -> None:
    assert confusion_matrix(LOGITS, LABELS).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_the_confusion_matrix_keeps_classes_that_never_occur() -> None:
    matrix = confusion_matrix(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([0]))
    assert matrix.dtype == torch.int64
    assert matrix.shape == (4, 4)
    assert matrix.sum() == matrix[0, 0] == 1


def test_the_trace_of_the_confusion_matrix_is_the_number_of_correct_predictions() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    matrix = confusion_matrix(logits, labels)
    assert matrix.trace() == score(logits, labels).correct
    assert matrix.sum(1).tolist() == torch.bincount(labels, minlength=5).tolist()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [drawn(2), drawn(3, 40), drawn(7), drawn(5, 6), with_forgotten_classes(4), with_forgotten_classes(9)],
)
def test_precision_recall_and_f1_of_classes_and_of_their_mean_are_those_of_scikit_learn(
    logits: torch.Tensor, labels: torch.Tensor
) -> None:
    scores = class_metrics(confusion_matrix(logits, labels).tolist())
    macro = macro_average(scores)
    arguments = {"labels": range(logits.shape[1]), "zero_division": 0}
    predicted = logits.argmax(1)
    columns = metrics.precision_recall_fscore_support(labels, predicted, **arguments)[:3]
    means = metrics.precision_recall_fscore_support(labels, predicted, average="macro", **arguments)[:3]
    for name, column, mean in zip(("precision", "recall", "f1"), columns, means, strict=True):
        assert [getattr(one, name) for one in scores] == pytest.approx(column.tolist())
        assert getattr(macro, name) == pytest.approx(mean)


def test_metrics_of_a_class_without_images_and_without_predictions_are_zero() -> None:
    perfect, empty = (ClassMetrics(precision=value, recall=value, f1=value) for value in (1.0, 0.0))
    assert class_metrics([[3, 0], [0, 0]]) == [perfect, empty]


def test_every_class_has_the_same_weight_in_the_macro_average() -> None:
    assert macro_average(class_metrics([[99, 0], [1, 0]])).recall == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_is_that_of_scikit_learn_with_and_without_ties(seed: int) -> None:
    logits, labels = drawn(2, 80, seed=seed)
    for values in (logits, logits.round(), torch.zeros_like(logits)):
        expected = metrics.roc_auc_score(labels, values[:, 1] - values[:, 0])
        assert roc_auc(values, labels) == pytest.approx(expected, abs=1e-12)


def test_the_auc_is_1_for_a_perfect_ranking_0_for_its_reverse_and_half_for_ties() -> None:
    logits, labels = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]]), torch.tensor([0, 0, 1, 1])
    assert roc_auc(logits, labels) == 1.0
    assert roc_auc(-logits, labels) == 0.0
    assert roc_auc(torch.zeros(4, 2), labels) == 0.5


def test_the_auc_depends_only_on_the_ranking_of_probabilities() -> None:
    logits, labels = drawn(2, 80)
    assert roc_auc(logits, labels) == roc_auc(logits.double().softmax(1), labels)
    assert roc_auc(logits + 5, labels) == pytest.approx(roc_auc(logits / 3, labels), abs=1e-3)
    assert roc_auc(logits.flip(1), 1 - labels) == pytest.approx(roc_auc(logits, labels))


# ---- calibration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_count", [2, 3, 10])
@pytest.mark.parametrize("strength", [0.1, 1.5, 20.0])
def test_the_calibration_error_is_that_of_scikit_learns_bins(class_count: int, strength: float) -> None:
    logits, labels = drawn(class_count, strength=strength)
    confidence, predicted = (values.numpy() for values in logits.softmax(1).max(1))
    right = predicted == labels.numpy()
    share_right, mean_confidence = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    inner_edges = np.linspace(0, 1, 16)[1:-1]
    counts = np.bincount(np.searchsorted(inner_edges, confidence), minlength=15)
    expected = (counts[counts > 0] * abs(share_right - mean_confidence)).sum() / len(labels)
    assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_confident_predictions_have_calibration_error_0_if_all_are_correct_and_1_if_none_is() -> None:
    labels = torch.arange(12) % 3
    assert calibration_error(surely(labels, 3), labels) == pytest.approx(0, abs=1e-9)
    assert calibration_error(surely(labels, 3), (labels + 1) % 3) == pytest.approx(1, abs=1e-9)


def test_predictions_with_probability_80_percent_of_which_four_in_five_are_correct_are_calibrated() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log().expand(5, 2)
    assert calibration_error(logits, torch.tensor([0, 0, 1, 0, 0])) == pytest.approx(0, abs=1e-6)
    assert calibration_error(logits, torch.tensor([0, 1, 1, 0, 0])) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("class_count", [2, 3, 10])
@pytest.mark.parametrize("bins", [1, 8, 15])
def test_the_reliability_diagram_is_that_of_scikit_learn_and_counts_each_prediction_once(
    class_count: int, bins: int
) -> None:
    logits, labels = drawn(class_count)
    confidence, predicted = (values.numpy() for values in logits.softmax(1).max(1))
    share_right, mean_confidence = calibration_curve(predicted == labels.numpy(), confidence, n_bins=bins)
    found = reliability(logits, labels, bins)
    assert [one.accuracy for one in found] == pytest.approx(share_right.tolist())
    assert [one.confidence for one in found] == pytest.approx(mean_confidence.tolist())
    assert sum(one.count for one in found) == len(labels)
    assert sum(one.count * one.accuracy for one in found) == pytest.approx(score(logits, labels).correct)


def test_reliability_bins_are_ascending_of_equal_width_and_never_empty() -> None:
    logits, labels = drawn(3)
    found = reliability(logits, labels, 8)
    places = [math.ceil(one.confidence * 8) for one in found]
    assert places == sorted(set(places))
    assert all(one.count > 0 for one in found)
    assert reliability(logits, labels) == reliability(logits, labels, CALIBRATION_BINS)


def test_the_calibration_error_is_the_weighted_mean_distance_of_accuracy_and_confidence_of_bins() -> None:
    logits, labels = drawn(4)
    distances = [one.count * abs(one.accuracy - one.confidence) for one in reliability(logits, labels)]
    assert calibration_error(logits, labels) == pytest.approx(sum(distances) / len(labels))


@pytest.mark.parametrize(("margin", "confidence"), [(0.0, 0.5), (200.0, 1.0)])
def test_the_lowest_and_the_highest_probability_have_a_bin(margin: float, confidence: float) -> None:
    labels = torch.tensor([0, 0, 1, 1])
    logits = torch.tensor([[margin, 0.0]]).expand(4, 2)
    (one,) = reliability(logits, labels)
    assert (one.count, one.accuracy) == (4, 0.5)
    assert one.confidence == pytest.approx(confidence)


def test_a_probability_at_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    assert [one.count for one in reliability(logits, torch.tensor([0, 0]), 2)] == [1, 1]


def test_a_reliability_bin_has_plain_numbers() -> None:
    (one, *_) = reliability(LOGITS, LABELS)
    assert [type(value) for value in (one.count, one.confidence, one.accuracy)] == [int, float, float]


@pytest.mark.parametrize("class_count", [2, 5, 100])
@pytest.mark.parametrize("strength", [0.7, 2.0, 10.0])
def test_the_temperature_is_where_a_general_minimiser_finds_the_lowest_loss(class_count: int, strength: float) -> None:
    logits, labels = drawn(class_count, strength=strength)

    def loss(temperature: float) -> float:
        log_probabilities = special.log_softmax(logits.double().numpy() / temperature, axis=1)
        return -log_probabilities[np.arange(len(labels)), labels.numpy()].mean()

    assert score(logits, labels).loss == pytest.approx(loss(1.0))
    expected = optimize.minimize_scalar(loss, bounds=(COOLEST, HOTTEST), method="bounded", options={"xatol": 1e-7}).x
    assert COOLEST < expected < HOTTEST
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_the_temperature_of_larger_logits_is_larger_by_the_same_factor(factor: float) -> None:
    logits, labels = drawn(4)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-6)


@pytest.mark.parametrize("class_count", [2, 3, 10])
def test_a_temperature_changes_no_prediction_and_lowers_the_loss_it_was_fitted_to(class_count: int) -> None:
    logits, labels = drawn(class_count, strength=4.0)
    temperature = fit_temperature(logits, labels)
    assert torch.equal((logits / temperature).argmax(1), logits.argmax(1))
    assert score(logits / temperature, labels).loss < score(logits, labels).loss
    assert calibration_error(logits / temperature, labels) < calibration_error(logits, labels)


def test_the_temperature_is_1_if_all_predictions_are_correct_and_at_the_upper_bound_if_none_is() -> None:
    labels = torch.arange(12) % 3
    assert fit_temperature(surely(labels, 3, margin=1.0), labels) == 1.0
    nearly_right = torch.cat([surely(labels, 3, margin=0.01)] * 9 + [torch.tensor([[0.0, 0.001, 0.0]])])
    assert fit_temperature(nearly_right, torch.cat([labels] * 9 + [torch.tensor([0])])) == pytest.approx(COOLEST)
    assert fit_temperature(surely(labels, 3, margin=1.0), (labels + 1) % 3) == pytest.approx(HOTTEST)


# ---- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits_and_labels", [drawn(2), drawn(6), with_forgotten_classes(4)])
def test_an_evaluation_has_each_metric_as_it_is_computed_alone(
    logits_and_labels: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = logits_and_labels
    confusion = confusion_matrix(logits, labels).tolist()
    per_class = class_metrics(confusion)
    assert evaluate(logits, labels) == Evaluation(
        **score(logits, labels).model_dump(),
        macro=macro_average([one for one, row in zip(per_class, confusion, strict=True) if any(row)]),
        per_class=per_class,
        confusion=confusion,
        calibration_error=calibration_error(logits, labels),
        auc=roc_auc(logits, labels) if logits.shape[1] == 2 else None,
    )


def test_an_evaluation_has_the_keys_of_the_metrics_of_a_kept_epoch() -> None:
    result = evaluate(*drawn(3))
    cost = {"epochs": 5, "seconds": 1.0, "parameters": {"total": 2, "trainable": 1}}
    found = Metrics.model_validate(result.as_metrics(4) | cost)
    assert (found.kept.epoch, found.kept.correct, found.kept.loss) == (4, result.correct, result.loss)
    assert (found.macro, found.per_class, found.confusion) == (result.macro, result.per_class, result.confusion)
    assert not found.model_extra


def test_there_is_an_auc_only_of_two_classes_that_both_have_images() -> None:
    assert evaluate(*drawn(2)).auc is not None
    assert evaluate(*drawn(3)).auc is None
    assert evaluate(torch.randn(4, 3), torch.tensor([0, 1, 0, 1])).auc is None
    assert evaluate(torch.randn(4, 2), torch.ones(4, dtype=torch.int64)).auc is None


# ---- comparison and spread -------------------------------------------------------------------------------------------


def right_of(both: int, first: int, second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether two classifiers predict images correctly, given how many both, only one and neither do."""
    counts = torch.tensor([both, first, second, neither])
    rows = torch.tensor([[True, True], [True, False], [False, True], [False, False]]).repeat_interleave(counts, dim=0)
    return rows[:, 0], rows[:, 1]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (5, 5), (3, 9), (10, 0), (60, 40), (700, 500)])
def test_mcnemars_p_value_is_that_of_the_two_sided_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second, 0.5).pvalue
    assert difference(*right_of(20, first, second, 7)).p == pytest.approx(expected, rel=1e-9)


def test_the_p_value_of_equal_predictions_is_1() -> None:
    assert difference(*right_of(30, 0, 0, 10)).p == 1.0


def test_the_p_value_depends_neither_on_the_order_nor_on_images_on_which_both_agree() -> None:
    assert difference(*right_of(0, 2, 11, 0)).p == difference(*right_of(500, 11, 2, 300)).p


def test_a_difference_counts_images_that_only_one_predicts_correctly_and_is_significant_below_five_percent() -> None:
    first, second = right_of(20, 3, 9, 7)
    found = difference(first, second)
    assert (found.count, found.first_alone, found.second_alone) == (39, 3, 9)
    assert [difference(*right_of(0, alone, 0, 0)).is_significant for alone in (5, 6)] == [False, True]


def test_the_p_value_does_not_overflow_for_many_images() -> None:
    assert difference(*right_of(0, 2000, 0, 0)).p == 0.0  # 2**-1999 underflows
    assert difference(*right_of(0, 1000, 1000, 0)).p == 1.0


def test_students_quantiles_are_those_of_scipy() -> None:
    expected = [round(stats.t.ppf(0.975, freedom), 3) for freedom in range(1, len(T_QUANTILES) + 1)]
    assert list(T_QUANTILES) == expected


@pytest.mark.parametrize("count", [2, 3, 5, 12, 31])
def test_the_interval_of_few_values_is_that_of_students_t(count: int) -> None:
    values = torch.rand(count, dtype=torch.double, generator=torch.Generator().manual_seed(count)).tolist()
    result = spread(values)
    assert result.values == values
    assert result.mean == pytest.approx(np.mean(values))
    assert result.deviation == pytest.approx(np.std(values, ddof=1))
    expected = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert result.interval == pytest.approx(expected, abs=1e-3)


def test_the_interval_of_many_values_is_that_of_students_t() -> None:
    values = torch.rand(400, dtype=torch.double, generator=torch.Generator().manual_seed(0)).tolist()
    expected = stats.t.interval(0.95, 399, loc=np.mean(values), scale=stats.sem(values))
    assert spread(values).interval == pytest.approx(expected, abs=1e-3)


def test_equal_values_have_no_spread() -> None:
    assert spread([0.9, 0.9, 0.9]).interval == pytest.approx((0.9, 0.9))


def test_a_spread_survives_json() -> None:
    result = spread([0.8, 0.9])
    assert Spread.model_validate_json(result.model_dump_json()) == result
