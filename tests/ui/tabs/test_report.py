"""Report: metrics from config.json, predictions for the validation photos, and photos that may be faulty."""

from dataclasses import replace

import pytest
import torch
from page_helpers import METRICS, RESULT
from PIL import Image

from antbee import Classifier, ui
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.images import DataError, open_photo
from antbee.data.quality import Finding
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation.calibration import reliability
from antbee.ui import predictions
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.predictions import LARGEST_ERRORS, PredictionCache, Predictions, predict_validation
from antbee.ui.tabs.report import (
    CELL_PHOTOS,
    FINDING_PICTURES,
    RELIABILITY_BINS,
    cell_photos,
    confusion_table,
    error_pictures,
    findings_pictures,
    findings_table,
    frozen_model,
    inspect_photos,
    learning_curve_table,
    metrics_table,
    reliability_table,
    significance,
    unmeasured,
)

MARKUP = "<img src=x>**a**"


def with_metrics(shown, **metrics):
    """A model with other metrics; None removes a metric."""
    kept = {name: value for name, value in (METRICS | metrics).items() if value is not None}
    config = replace(shown.config, metrics=kept or None)
    return replace(shown, classifier=Classifier(shown.classifier.network, config))


def column(table, name):
    return dict(zip(table.iloc[:, 0], table[name], strict=True))


# ---- metrics from config.json ----------------------------------------------------------------------------------------


def test_the_metrics_of_all_models_are_in_one_table_in_the_visitors_language(models):
    table = metrics_table(models)
    assert list(table.columns) == ["metric", "frozen", "finetune"]
    cells = column(table, "frozen")
    assert cells["accuracy, kept epoch (95 % interval)"] == "75.0% [51.0%, 90.0%]"
    assert cells["accuracy, last epoch"] == "75.0%"
    assert cells["log loss, in nats"] == "0.500"
    assert cells["kept epoch"] == "2 of 3"
    assert cells["chosen on"] == "val"
    assert cells["trained weights"] == "1,026"
    assert cells["training time in seconds"] == "1.5"
    chinese = metrics_table(models, CHINESE)
    assert list(chinese.columns) == ["指标", "frozen", "finetune"]
    assert chinese["frozen"].tolist() == [value.replace("2 of 3", "2 / 3") for value in table["frozen"]]


def test_every_metric_has_a_row_and_those_that_a_model_lacks_are_empty(models):
    more = {
        "macro": {"precision": 0.7, "recall": 0.8, "f1": 0.745},
        "auc": 0.875,
        "calibration_error": 0.0625,
        "calibration": {"temperature": 1.25, "folds": 5, "loss_before": 0.6, "error_before": 0.1},
        "neither": {
            "threshold": 0.5,
            "rate": 0.05,
            "val": {"found": 1, "count": 16},
            "foreign": {"drawn scenes": {"found": 7, "count": 8}},
        },
        "zero_shot": RESULT | {"accuracy": 0.5},
    }
    table = metrics_table([with_metrics(models[0], **more), models[1]])
    cells, other = (column(table, name) for name in ("frozen", "finetune"))
    assert cells["F1, mean of the classes"] == "0.745"
    assert cells["area under the ROC curve"] == "0.875"
    assert cells["calibration error"] == "0.062"
    assert cells["temperature, divided into the head"] == "1.25"
    assert cells["wrongly called “neither”: validation photos"] == "1 of 16"
    assert cells["correctly called “neither”: drawn scenes"] == "7 of 8"
    assert cells["before any training: the starting weights' own head"] == "50.0%"
    assert cells.keys() == other.keys()
    assert [other[row] for row in cells if row not in column(metrics_table(models), "finetune")] == [""] * 7


def test_a_cross_validated_accuracy_is_labelled_so_and_has_no_last_epoch(models):
    cells = column(
        metrics_table([with_metrics(models[0], cross_validation=5, selected_on="nothing", last=None)]),
        "frozen",
    )
    assert cells["accuracy, cross-validated (95 % interval)"] == "75.0% [51.0%, 90.0%]"
    assert "accuracy, kept epoch (95 % interval)" not in cells
    assert "accuracy, last epoch" not in cells


def test_a_model_without_metrics_has_an_empty_column(models):
    silent = with_metrics(models[1], **dict.fromkeys(METRICS))
    assert silent.config.metrics is None
    table = metrics_table([models[0], silent])
    assert set(table["finetune"]) == {""}
    assert len(metrics_table([silent])) == 0


def test_the_learning_curve_is_the_mean_minimum_and_maximum_of_the_random_subsets(models):
    points = [
        {"per_class": 5, "photos": 10, "accuracies": [0.5, 0.75, 0.25]},
        {"per_class": 10, "photos": 20, "accuracies": [0.75]},
    ]
    table = learning_curve_table([models[0], with_metrics(models[1], learning_curve=points)])
    found = {(row.photos, row.curve): row.accuracy for row in table.itertuples()}
    assert found == {
        (5, "mean of random subsets"): 0.5,
        (5, "lowest"): 0.25,
        (5, "highest"): 0.75,
        **{(10, curve): 0.75 for curve in ("mean of random subsets", "lowest", "highest")},
    }
    assert len(learning_curve_table(models)) == 0


# ---- predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(models, photos):
    return [predict_validation(shown, photos) for shown in models]


def made_up(model, photos, right):
    """Confident predictions that are right where `right`, bool (N,), is true."""
    labels = torch.tensor(photos.val.labels)
    predicted = torch.where(torch.tensor(right), labels, 1 - labels)
    return Predictions(model, photos, 4.0 * torch.nn.functional.one_hot(predicted, 2).float())


def test_predictions_are_the_classifiers_logits_of_every_validation_photo_in_order(predicted, models, photos):
    opened = [open_photo(path) for path in photos.val.paths]
    for one, model in zip(predicted, models, strict=True):
        assert one.logits.shape == (16, 2)
        assert torch.allclose(one.logits, model.classifier.logits(opened), atol=1e-4)
        assert one.labels.tolist() == list(photos.val.labels)


def test_logits_are_in_the_photos_class_order_for_any_class_order_of_the_model(models, photos, predicted):
    turned = replace(models[0].config, label_names=models[0].config.label_names[::-1])
    other = replace(models[0], classifier=Classifier(models[0].classifier.network, turned))
    assert torch.allclose(predict_validation(other, photos).logits, predicted[0].logits.flip(1), atol=1e-6)


def test_predicting_reports_its_progress_up_to_one(models, photos):
    shares = []
    predict_validation(models[0], replace(photos, val=photos.val.subset([*range(16), *range(4)])), shares.append)
    assert shares == [pytest.approx(16 / 20), 1]


def test_the_confusion_table_counts_every_photo_once(predicted, photos):
    for one in predicted:
        table = confusion_table(one)
        assert list(table.columns) == ["true class", "ants", "bees"]
        assert table["true class"].tolist() == ["ants", "bees"]
        counts = table[["ants", "bees"]].to_numpy()
        assert counts.sum() == len(photos.val)
        assert counts.sum(1).tolist() == [8, 8]
        right = (one.logits.argmax(1) == one.labels).sum()
        assert counts.trace() == right
        assert 0 < right < 16, "the test needs right and wrong predictions"
    assert confusion_table(predicted[0], CHINESE).columns[0] == "真实类别"


@pytest.mark.parametrize("names", [("true class", "bees"), ("a b", "a  b"), ("b\udcff", "bees")])
def test_the_confusion_table_has_every_column_for_unusual_class_names(predicted, photos, names):
    table = confusion_table(replace(predicted[0], photos=replace(photos, class_names=names)))
    assert table.shape == (2, 3)
    assert table.iloc[:, 1:].to_numpy().sum() == 16
    assert "\udcff" not in "".join(map(str, table.columns))


def test_a_cell_has_exactly_its_photos_highest_confidence_first(predicted, photos):
    for one in predicted:
        probabilities, chosen = one.logits.softmax(1), one.logits.argmax(1)
        shown = []
        for truth in range(2):
            for answer in range(2):
                pictures = cell_photos(one, truth, answer)
                assert len(pictures) == one.confusion[truth][answer]
                expected = [
                    (float(probabilities[at, answer]), photos.val.paths[at].name)
                    for at in range(16)
                    if photos.val.labels[at] == truth and chosen[at] == answer
                ]
                ordered = sorted(expected, key=lambda pair: -pair[0])
                assert [caption for _, caption in pictures] == [f"{name}: {share:.0%}" for share, name in ordered]
                shown += [name for _, name in ordered]
        assert sorted(shown) == sorted(path.name for path in photos.val.paths)


def test_a_large_cell_shows_only_its_most_confident_photos(models, photos):
    many = replace(photos, val=photos.val.subset([0] * (CELL_PHOTOS + 3)))
    logits = torch.stack([torch.arange(CELL_PHOTOS + 3) / 10, torch.zeros(CELL_PHOTOS + 3)], 1)
    pictures = cell_photos(Predictions(models[0], many, logits), 0, 0)
    assert len(pictures) == CELL_PHOTOS
    assert pictures[0][1].endswith(f": {float(logits[-1].softmax(0)[0]):.0%}")


@pytest.fixture(scope="module")
def errors(predicted):
    return [error_pictures(one) for one in predicted]


def test_errors_are_the_wrong_predictions_highest_confidence_first(predicted, photos, errors):
    for one, pictures in zip(predicted, errors, strict=True):
        confidence, chosen = one.logits.softmax(1).max(1)
        wrong = [at for at in range(16) if chosen[at] != photos.val.labels[at]]
        ordered = sorted(wrong, key=lambda at: -float(confidence[at]))
        assert [caption for _, caption in pictures] == [
            f"is {photos.class_names[photos.val.labels[at]]}, predicted {photos.class_names[int(chosen[at])]}"
            f" {float(confidence[at]):.0%}"
            for at in ordered[:LARGEST_ERRORS]
        ]


def test_an_error_is_shown_with_the_photo_and_its_activation_map(predicted, photos, errors):
    one = predicted[0]
    confidence, chosen = one.logits.softmax(1).max(1)
    wrong = (chosen != one.labels).nonzero()[:, 0]
    worst = int(wrong[confidence[wrong].argmax()])
    picture, _ = errors[0][0]
    photo = open_photo(photos.val.paths[worst])
    assert picture.crop((0, 0, photo.width, photo.height)).tobytes() == photo.tobytes()
    assert picture.height == photo.height
    assert picture.width == pytest.approx(2 * photo.width, abs=1)


def test_a_model_without_errors_shows_none_and_a_poor_one_only_the_largest(models, photos, monkeypatch):
    assert error_pictures(made_up(models[0], photos, [True] * 16)) == []
    monkeypatch.setattr(predictions, "LARGEST_ERRORS", 2)
    assert len(error_pictures(made_up(models[0], photos, [False] * 16))) == 2
    assert "实际" in error_pictures(made_up(models[0], photos, [False, *[True] * 15]), CHINESE)[0][1]


def test_the_reliability_diagram_has_a_curve_for_each_model_and_the_diagonal(predicted):
    table = reliability_table(predicted)
    for one in predicted:
        points = table[table["curve"] == one.model.name]
        expected = reliability(one.logits, one.labels, RELIABILITY_BINS)
        assert points["confidence"].tolist() == [one.confidence for one in expected]
        assert points["right"].tolist() == [one.accuracy for one in expected]
    perfect = table[table["curve"] == "perfect"]
    assert perfect["confidence"].tolist() == perfect["right"].tolist() == [table["confidence"].min(), 1.0]
    assert reliability_table(predicted, CHINESE)["curve"].iloc[-1] == "理想"
    assert len(reliability_table([])) == 0


def test_the_difference_of_two_models_is_tested_with_mcnemars_test(models, photos):
    first, second = [True] * 10 + [False] * 6, [True] * 3 + [False] * 9 + [True] * 4
    message = significance([made_up(models[0], photos, first), made_up(models[1], photos, second)])
    p = evaluation_metrics.difference(torch.tensor(first), torch.tensor(second)).p
    assert message == (
        "Of 16 validation photos 7 are right with frozen only, 4 with finetune only: no significant difference"
        f" (McNemar's exact test, p = {p:.2g})."
    )


def test_a_significant_difference_is_reported_as_one(models, photos):
    first, second = [True] * 16, [True] * 8 + [False] * 8
    assert evaluation_metrics.difference(torch.tensor(first), torch.tensor(second)).p < 0.05
    both = [made_up(models[0], photos, first), made_up(models[1], photos, second)]
    assert ": a significant difference (" in significance(both)
    assert "差异显著" in significance(both, CHINESE)
    assert "p = 1)" in significance([both[0], both[0]])


def test_a_model_whose_classes_have_other_names_than_the_photos_is_said_to_be_left_out(models, photos):
    renamed = replace(photos, class_names=("Ameisen", "Bienen"))
    assert unmeasured(models, photos) == unmeasured(models, None) == ""
    for translate in (ENGLISH, CHINESE):
        names = ", ".join(model.name for model in models)
        expected = translate("report.other_classes", names=names, classes="Ameisen, Bienen")
        assert unmeasured(models, renamed, translate) == expected


def test_one_model_has_no_difference_to_report(predicted):
    assert significance(predicted[:1]) == significance([]) == ""


def test_markup_in_model_names_is_escaped(predicted):
    odd = [replace(one, model=replace(one.model, name=MARKUP)) for one in predicted]
    for message in (significance(odd), significance(odd, CHINESE)):
        assert "<img" not in message
        assert "**" not in message


# ---- the cache of predictions ----------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """The names of the models that predict, in order."""
    names = []

    def note(shown, photos, progress):
        names.append(shown.name)
        progress(1)
        return Predictions(shown, photos, torch.zeros(len(photos.val), 2))

    monkeypatch.setattr(predictions, "predict_validation", note)
    return names


def ignored(fraction):
    """Ignores the progress."""


def test_every_model_predicts_once_for_all_visitors(snapshot, computed):
    cache = PredictionCache()
    first = cache.get(snapshot, None, ignored)
    assert computed == ["frozen", "finetune"]
    assert cache.get(snapshot, None, ignored) == first
    assert [one.model.name for one in cache.get(snapshot, ["finetune"], ignored)] == ["finetune"]
    assert computed == ["frozen", "finetune"]


def test_only_the_chosen_models_predict(snapshot, computed):
    cache = PredictionCache()
    cache.get(snapshot, ["finetune"], ignored)
    assert computed == ["finetune"]
    cache.get(snapshot, None, ignored)
    assert computed == ["finetune", "frozen"]


def test_predictions_of_models_that_are_no_longer_loaded_are_dropped(snapshot, computed):
    cache = PredictionCache()
    cache.get(snapshot, None, ignored)
    anew = with_metrics(snapshot.models[0])
    renewed = ui.Snapshot((anew, snapshot.models[1]), snapshot.photos)
    assert cache.get(renewed, None, ignored)[0].model is anew
    assert computed == ["frozen", "finetune", "frozen"], "the model that is still loaded does not predict again"
    cache.get(snapshot, None, ignored)
    assert computed == ["frozen", "finetune", "frozen", "frozen"], "its predictions are kept only while it is loaded"


def test_other_photos_are_predicted_again(snapshot, computed, photos):
    cache = PredictionCache()
    cache.get(snapshot, ["frozen"], ignored)
    (one,) = cache.get(replace(snapshot, photos=replace(photos, digest="other")), ["frozen"], ignored)
    assert one.photos.digest == "other"
    assert computed == ["frozen", "frozen"]


def test_nothing_is_predicted_without_photos_of_the_models_classes(snapshot, computed, photos):
    cache = PredictionCache()
    assert cache.get(replace(snapshot, photos=None), None, ignored) == []
    assert cache.get(replace(snapshot, photos=replace(photos, class_names=("cats", "dogs"))), None, ignored) == []
    assert computed == []


def test_the_progress_of_two_models_runs_once_from_zero_to_one(snapshot, computed):
    shares = []
    PredictionCache().get(snapshot, None, shares.append)
    assert shares == [0.5, 1]


# ---- photos that may be faulty ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A small data set with a photo that is in both splits and a blank one."""
    root = tmp_path_factory.mktemp("faulty") / "drawn"
    write_drawn_set(root, train={"ants": 4, "bees": 4}, val={"ants": 2, "bees": 2}, longest_side=160)
    copied = sorted((root / "train" / "ants").iterdir())[0]
    (root / "val" / "ants" / "zz-copy.jpg").write_bytes(copied.read_bytes())
    Image.new("RGB", (160, 160), "white").save(root / "train" / "bees" / "zz-blank.png")
    return read_folder(root), copied.name


@pytest.fixture(scope="module")
def found(faulty, models):
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "CHUNK", 4)
        return inspect_photos(models[0], faulty[0], shares.append), shares


def test_a_leak_between_the_splits_and_a_blank_picture_are_found(found, faulty):
    findings, _ = found
    _, copied = faulty
    by_kind = {finding.kind: finding for finding in reversed(findings)}
    assert by_kind["placeholder"].file == "train/bees/zz-blank.png"
    leaks = {(finding.file, finding.other) for finding in findings if finding.kind == "leak"}
    assert (f"train/ants/{copied}", "val/ants/zz-copy.jpg") in leaks


def test_inspecting_photos_reports_its_progress_up_to_one(found, faulty):
    _, shares = found
    assert shares == [pytest.approx(4 / 14), pytest.approx(8 / 14), pytest.approx(12 / 14), 1]


def test_findings_have_a_table_and_pictures_with_pairs_side_by_side(found, faulty):
    findings, _ = found
    photos, _ = faulty
    table = findings_table(findings)
    assert list(table.columns) == ["kind", "file", "reason"]
    assert table["file"].tolist() == [finding.file for finding in findings]
    assert list(findings_table(findings, CHINESE).columns) == ["类型", "文件", "原因"]
    pictures = findings_pictures(findings, photos)
    shown = [finding for finding in findings if finding.kind != "imbalance"]
    assert len(pictures) == len(shown)
    for (picture, caption), finding in zip(pictures, shown, strict=True):
        assert caption == f"{finding.kind}: {finding.file}: {finding.reason}"
        alone = open_photo(photos.root / finding.file, shorter_side=320)
        assert (picture.width > alone.width) == (finding.other is not None)
        assert picture.height == alone.height


def test_an_imbalance_has_a_row_but_no_picture(photos):
    imbalance = Finding("imbalance", "ants", "3 training photos, bees has 12", 4.0)
    assert findings_table([imbalance])["file"].tolist() == ["ants"]
    assert findings_pictures([imbalance], photos) == []


def test_only_the_first_of_many_findings_have_pictures(photos):
    name = photos.train.names(photos.root)[0]
    findings = [Finding("dark", name, f"mean brightness {number}", number) for number in range(FINDING_PICTURES + 5)]
    pictures = findings_pictures(findings, photos)
    assert [caption for _, caption in pictures] == [
        f"dark: {name}: mean brightness {number}" for number in range(FINDING_PICTURES)
    ]
    assert len(findings_table(findings)) == FINDING_PICTURES + 5


def test_a_deleted_photo_is_an_error(models, faulty):
    photos, _ = faulty
    gone = replace(photos, val=replace(photos.val, paths=(photos.root / "gone.jpg", *photos.val.paths[1:])))
    with pytest.raises(DataError, match="not there"):
        inspect_photos(models[0], gone)


def test_file_names_that_are_not_unicode_are_escaped():
    finding = Finding("dark", "train/b\udcff.png", "mean brightness 3 of 255", 1.0)
    assert findings_table([finding])["file"].tolist() == ["train/b\\udcff.png"]


def test_photos_are_inspected_by_a_backbone_that_was_not_trained_on_their_labels(snapshot, models, photos):
    assert frozen_model(snapshot) is models[0]
    assert frozen_model(ui.Snapshot(models[::-1], photos)) is models[0]
    assert frozen_model(ui.Snapshot(models[1:], photos)) is None, "a fine-tuned backbone was trained on the labels"
    assert frozen_model(ui.Snapshot(models, None)) is None
    assert frozen_model(ui.Snapshot(models, replace(photos, class_names=("cats", "dogs")))) is None
    assert frozen_model(ui.Snapshot()) is None
