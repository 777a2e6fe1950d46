"""Metrics as rows and sentences for the terminal, the card and the page."""

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

# Only the required metrics.
FEW = Metrics.model_validate(
    {key: getattr(CONFIG.metrics, key) for key in ("kept", "confusion", "epochs", "seconds", "parameters")}
)


def test_the_comparison_has_a_row_for_every_model_with_metrics():
    rows = comparison([CONFIG, replace(CONFIG, mode="frozen"), ClassifierConfig("resnet18", ("a", "b"))])
    assert [row[0] for row in rows] == ["finetune", "frozen"]
    assert rows[0] == ("finetune", "11,177,538", "94.8%", "90.0% to 97.3%", "3 of 5", "val", "94.1%", "143.2")
    assert len(rows[0]) == len(COMPARISON_COLUMNS)


def test_the_comparison_says_which_accuracy_is_cross_validated():
    (row,) = comparison([replace(CONFIG, metrics=CONFIG.metrics.model_copy(update={"cross_validation": 5}))])
    assert row[2] == "94.8% (cross-validated)"


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
    assert out_of_distribution(CONFIG.metrics)[1:3] == [
        Row("found", Found(found=19, count=20), "noise"),
        Row("found", Found(found=18, count=20), "flat colours"),
    ]
    assert out_of_distribution(FEW) == []


def test_calibration_has_rows_for_before_and_after():
    assert calibration(CONFIG.metrics) == [("before", 0.2001, 0.0702), ("after", 0.17, 0.0301)]
    assert calibration(FEW) == []


def test_conclusions_cover_every_mode_and_mention_the_data_once():
    other = replace(CONFIG, mode="frozen", metrics=FEW)
    assert conclusions([CONFIG, other, ClassifierConfig("resnet18", ("a", "b"))]) == [
        "finetune: mean of 2 seeds on these same photos 85.0% (20.0% to 100.0%)",
        "finetune: 100.0% on the 8 photos not excluded",
        'finetune: "neither" wrongly for 6 of 153 validation photos; rightly for noise 19 of 20, flat colours 18 of 20',
        'frozen: too few images to detect "neither"',
        "before any training the starting weights' own head has 91.5% right",
        "With *all* 244 photos: level.",
    ]


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
    assert class_scores(["a"], [ClassMetrics(precision=1, recall=0, f1=0.5)]) == [("a", "1.000", "0.000", "0.500")]
