"""Rows and sentences: what a terminal, a card and the page show of metrics."""

from dataclasses import replace

from configs import CONFIG

from antbee.evaluation.report import (
    COMPARISON_COLUMNS,
    Row,
    aligned,
    calibration,
    class_scores,
    comparison,
    conclusions,
    evaluation,
    metric_rows,
    out_of_distribution,
    with_interval,
)
from antbee.models.config import ClassifierConfig
from antbee.models.metrics import ClassMetrics, Evaluation, Found, Metrics

# The least that metrics tell.
FEW = Metrics.model_validate(
    {key: getattr(CONFIG.metrics, key) for key in ("kept", "confusion", "epochs", "seconds", "parameters")}
)


def test_the_comparison_has_a_row_for_every_trained_model():
    rows = comparison([CONFIG, replace(CONFIG, mode="frozen"), ClassifierConfig("resnet18", ("a", "b"))])
    assert [row[0] for row in rows] == ["finetune", "frozen"]
    assert rows[0] == ("finetune", "11,177,538", "90.0%", "80.0% to 95.0%", "4 of 5", "val", "80.0%", "12.3")
    assert len(rows[0]) == len(COMPARISON_COLUMNS)


def test_the_comparison_says_which_accuracy_is_cross_validated():
    (row,) = comparison([replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"cross_validation": 5}))])
    assert row[2] == "90.0% (cross-validated)"


def test_every_figure_has_a_row_and_what_is_not_known_has_none():
    rows = {row.key: row.value for row in metric_rows(CONFIG.metrics)}
    assert rows["accuracy"] == "90.0% [80.0%, 95.0%]"
    assert (rows["last"], rows["f1"], rows["auc"], rows["temperature"]) == ("80.0%", "0.900", "0.950", "1.50")
    assert (rows["alarms"], rows["found"]) == (Found(found=1, count=10), Found(found=15, count=20))
    assert rows["kept"] == Found(found=4, count=5)
    told = [row.key for row in metric_rows(FEW)]
    assert told == ["accuracy", "loss", "kept", "chosen_on", "trainable", "seconds"]


def test_a_figure_of_zero_is_known():
    zero = CONFIG.metrics.model_copy(update={"auc": 0.0, "calibration_error": 0.0})
    rows = {row.key: row.value for row in metric_rows(zero)}
    assert (rows["auc"], rows["calibration"]) == ("0.000", "0.000")


def test_a_kind_of_images_is_told_with_how_many_were_found():
    assert out_of_distribution(CONFIG.metrics)[1:] == [Row("found", Found(found=15, count=20), "noise")]
    assert out_of_distribution(FEW) == []


def test_calibration_is_told_before_and_after():
    assert calibration(CONFIG.metrics) == [("before", 0.5, 0.1), ("after", 0.3, 0.05)]
    assert calibration(FEW) == []


def test_the_conclusions_are_of_every_mode_and_of_the_data_once():
    other = replace(CONFIG, mode="frozen", metrics=FEW)
    assert conclusions([CONFIG, other, ClassifierConfig("resnet18", ("a", "b"))]) == [
        "finetune: mean of 2 seeds on these same photos 85.0% (20.0% to 100.0%)",
        "finetune: 100.0% on the 8 photos not excluded",
        'finetune: "neither" wrongly of 1 of 10 validation photos; rightly of noise 15 of 20',
        'frozen: too little is known to say "neither"',
        "before any training the starting weights' own head has 80.0% right",
        "More would help.",
    ]


def test_an_evaluation_is_told_in_lines_with_a_table_of_the_classes():
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
    assert lines[0] == f"accuracy  {with_interval(result)}" == "accuracy  80.0% (8 of 10), 95 % 50.0% to 90.0%"
    assert '"neither" of 1 of 10 photos' in lines
    assert lines[-3].split() == ["ants", "1.000", "0.830", "0.910", "5", "as", "ants,", "1", "as", "bees"]
    assert lines[-2].split()[-3:] == ["4", "as", "bees"]
    assert len({line.index("0.910") for line in lines[-3:]}) == 1


def test_rows_are_aligned_in_columns():
    assert aligned([("a", "bb"), ("ccc", "d")]) == "a     bb\nccc    d"
    assert class_scores(["a"], [ClassMetrics(precision=1, recall=0, f1=0.5)]) == [("a", "1.000", "0.000", "0.500")]
