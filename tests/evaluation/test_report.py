"""Metrics as rows and sentences for the terminal, the card and the page."""

from dataclasses import replace

import pytest
import torch
from configs import CONFIG

from antbee.evaluation.metrics import evaluate, share
from antbee.evaluation.report import (
    COMPARISON_COLUMNS,
    TEST_COLUMNS,
    Row,
    aligned,
    comparison,
    conclusions,
    evaluation,
    metric_rows,
    with_interval,
)
from antbee.models.config import ClassifierConfig
from antbee.models.metrics import ClassMetrics, Evaluation, Found, Metrics

# Only the required metrics.
FEW = Metrics.model_validate(
    {key: getattr(CONFIG.metrics, key) for key in ("kept", "confusion", "epochs", "seconds", "parameters")}
)


def test_the_comparison_has_a_row_for_every_model_with_metrics():
    head, *rows = comparison([CONFIG, replace(CONFIG, mode="frozen"), ClassifierConfig("resnet18", ("a", "b"))])
    assert head == COMPARISON_COLUMNS
    assert [row[0] for row in rows] == ["finetune", "frozen"]
    assert rows[0] == ("finetune", "11,177,538", "94.8%", "90.0% to 97.3%", "3 of 5", "val", "94.1%", "143.2")
    assert len(rows[0]) == len(COMPARISON_COLUMNS)


def test_the_comparison_says_which_accuracy_is_cross_validated():
    _, row = comparison([replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"cross_validation": 5}))])
    assert row[2] == "94.8% (cross-validated)"


def test_test_images_have_columns_and_a_row_of_their_own_where_there_are_some():
    known = {name: getattr(CONFIG.metrics, name) for name in ("macro", "per_class", "confusion", "calibration_error")}
    tested = Evaluation(**share(9, 10).model_dump(exclude={"loss"}), loss=0.3, **known)
    with_test = replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"test": tested}))
    head, first, second = comparison([with_test, replace(CONFIG, mode="frozen")])
    assert head == (*COMPARISON_COLUMNS[:4], *TEST_COLUMNS, *COMPARISON_COLUMNS[4:])
    assert (first[4:6], second[4:6]) == (("90.0%", "59.6% to 98.2%"), ("not measured", ""))
    assert {row.key: row.value for row in metric_rows(with_test.metrics)}["test"] == "90.0% [59.6%, 98.2%]"


def test_a_class_without_images_is_said_to_have_none_and_does_not_count_in_the_mean():
    logits = torch.tensor([[2.0, 1, 0], [0, 2, 1], [1, 2, 0]])
    result = evaluate(logits, torch.tensor([0, 1, 0]))
    lines = evaluation(result, ["ants", "bees", "wasps"])
    (wasps,) = [line for line in lines if line.startswith("wasps")]
    assert wasps.split() == ["wasps", "no", "photo", "of", "this", "class"]
    assert result.macro.recall == (0.5 + 1) / 2


def test_every_known_metric_has_a_row_and_unknown_ones_have_none():
    rows = {row.key: row.value for row in metric_rows(CONFIG.metrics)}
    assert rows["accuracy"] == "94.8% [90.0%, 97.3%]"
    assert (rows["last"], rows["f1"], rows["auc"], rows["temperature"]) == ("94.1%", "0.948", "0.988", "1.37")
    assert (rows["alarms"], rows["kept"]) == (Found(found=6, count=153), Found(found=3, count=5))
    keys = [row.key for row in metric_rows(FEW)]
    assert keys == ["accuracy", "loss", "kept", "chosen_on", "trainable", "seconds"]


def test_a_metric_of_zero_has_a_row():
    zero = CONFIG.metrics.model_copy(update={"auc": 0.0, "calibration_error": 0.0})
    rows = {row.key: row.value for row in metric_rows(zero)}
    assert (rows["auc"], rows["calibration"]) == ("0.000", "0.000")


def test_each_kind_of_synthetic_images_has_a_row_with_its_detections():
    assert Row("found", Found(found=19, count=20), "noise") in metric_rows(CONFIG.metrics)


def test_conclusions_cover_every_mode_and_mention_the_data_once():
    other = replace(CONFIG, mode="frozen", metrics=FEW)
    assert conclusions([CONFIG, other, ClassifierConfig("resnet18", ("a", "b"))]) == [
        "finetune: mean of 2 seeds on these same photos 85.0% (20.0% to 100.0%)",
        "finetune: 100.0% on the 8 photos not excluded",
        'finetune: "neither" wrongly for 6 of 153 validation photos; rightly for noise 19 of 20, flat colours 18 of 20',
        'frozen: "neither" is not detected: there are too few photos for its threshold',
        "before any training the starting weights' own head has 91.5% right",
        "With *all* 244 photos: level.",
    ]


@pytest.mark.parametrize(
    ("mode", "folds", "calibrated", "reason"),
    [
        ("finetune", 0, False, "without folds no photo is left out of training"),
        ("finetune", 2, False, "too few photos"),  # a class has a single one
        ("finetune", 2, True, "too few photos"),
        ("frozen", 0, False, "too few photos"),  # its threshold needs no folds
    ],
)
def test_the_reason_for_a_missing_threshold_is_the_true_one(mode, folds, calibrated, reason):
    metrics = FEW.model_copy(update={"calibration": CONFIG.metrics.calibration if calibrated else None})
    (sentence, *_) = conclusions([replace(CONFIG, mode=mode, recipe={"folds": folds}, metrics=metrics)])
    assert sentence.startswith(f'{mode}: "neither" is not detected: ')
    assert reason in sentence


@pytest.mark.parametrize(
    ("found", "count", "is_warned_of"), [(12, 12, True), (24, 153, True), (8, 153, False), (1, 4, False)]
)
def test_far_more_false_alarms_than_meant_are_warned_of_unless_they_may_be_chance(found, count, is_warned_of):
    neither = CONFIG.metrics.neither.model_copy(update={"val": Found(found=found, count=count), "rate": 0.05})
    sentences = conclusions([replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"neither": neither}))])
    warnings = [sentence for sentence in sentences if "warning" in sentence]
    assert bool(warnings) == is_warned_of
    assert all("should be wrong for about 5% of them: more training photos help" in warning for warning in warnings)


def test_an_evaluation_is_printed_with_a_table_of_the_classes():
    one = ClassMetrics(precision=1, recall=0.83, f1=0.91)
    result = Evaluation(
        **CONFIG.metrics.zero_shot.model_dump(),
        macro=one,
        per_class=[one, one],
        confusion=[[5, 1], [0, 4]],
        calibration_error=0.05,
        neither=Found(found=1, count=10),
    )
    lines = evaluation(result, ["ants", "bees"])
    assert lines[0] == f"accuracy  {with_interval(result)}" == "accuracy  91.5% (140 of 153), 95% 86.0% to 95.0%"
    assert '"neither" of 1 of 10 photos' in lines
    assert lines[-3].split() == ["ants", "1.000", "0.830", "0.910", "5", "as", "ants,", "1", "as", "bees"]
    assert lines[-2].split()[-3:] == ["4", "as", "bees"]
    assert len({line.index("0.910") for line in lines[-3:]}) == 1


def test_rows_are_aligned_in_columns():
    assert aligned([("a", "bb"), ("ccc", "d")]) == "a     bb\nccc    d"
