"""Report: figures from what config.json tells and from the answers, cells that hold their photos, photos at fault."""

from dataclasses import replace

import pytest
import torch
from exhibits import METRICS, RESULT
from PIL import Image

from antbee import Classifier, ui
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import read_folder
from antbee.data.images import DataError, open_photo
from antbee.data.quality import Finding
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation.calibration import reliability
from antbee.ui import predictions
from antbee.ui.i18n import CHINESE
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
)

MARKUP = "<img src=x>**a**"


def told_by(shown, **metrics):
    """A model with other metrics; those of None are left out."""
    kept = {name: value for name, value in (METRICS | metrics).items() if value is not None}
    config = replace(shown.config, metrics=kept or None)
    return replace(shown, classifier=Classifier(shown.classifier.network, config))


def column(table, name):
    return dict(zip(table.iloc[:, 0], table[name], strict=True))


# ---- what config.json tells ------------------------------------------------------------------------------------------


def test_the_measures_stand_side_by_side_in_the_words_of_the_visitors_language(models):
    table = metrics_table(models)
    assert list(table.columns) == ["measure", "frozen", "finetune"]
    told = column(table, "frozen")
    assert told["accuracy, kept epoch (95 % interval)"] == "75.0% [51.0%, 90.0%]"
    assert told["accuracy, last epoch"] == "75.0%"
    assert told["log loss, in nats"] == "0.500"
    assert told["kept epoch"] == "2 of 3"
    assert told["chosen on"] == "val"
    assert told["weights that learned"] == "1,026"
    assert told["seconds of training"] == "1.5"
    chinese = metrics_table(models, CHINESE)
    assert list(chinese.columns) == ["指标", "frozen", "finetune"]
    assert chinese["frozen"].tolist() == [value.replace("2 of 3", "2 / 3") for value in table["frozen"]]


def test_all_that_a_config_tells_has_a_row_and_what_one_model_lacks_stays_empty(models):
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
    table = metrics_table([told_by(models[0], **more), models[1]])
    told, other = (column(table, name) for name in ("frozen", "finetune"))
    assert told["F1, mean of the classes"] == "0.745"
    assert told["area under the ROC curve"] == "0.875"
    assert told["calibration error"] == "0.062"
    assert told["temperature, divided into the head"] == "1.25"
    assert told["“neither” said wrongly of validation photos"] == "1 of 16"
    assert told["“neither” said rightly of drawn scenes"] == "7 of 8"
    assert told["before any training: the starting weights' own head"] == "50.0%"
    assert told.keys() == other.keys()
    assert [other[row] for row in told if row not in column(metrics_table(models), "finetune")] == [""] * 7


def test_a_cross_validated_accuracy_is_called_so_and_has_no_last_epoch(models):
    told = column(
        metrics_table([told_by(models[0], cross_validation=5, selected_on="nothing", last=None)]),
        "frozen",
    )
    assert told["accuracy, cross-validated (95 % interval)"] == "75.0% [51.0%, 90.0%]"
    assert "accuracy, kept epoch (95 % interval)" not in told
    assert "accuracy, last epoch" not in told


def test_a_model_that_tells_nothing_has_a_column_without_measures(models):
    silent = told_by(models[1], **dict.fromkeys(METRICS))
    assert silent.config.metrics is None
    table = metrics_table([models[0], silent])
    assert set(table["finetune"]) == {""}
    assert len(metrics_table([silent])) == 0


def test_accuracy_by_photos_is_the_mean_and_the_bounds_of_the_draws(models):
    points = [
        {"per_class": 5, "photos": 10, "accuracies": [0.5, 0.75, 0.25]},
        {"per_class": 10, "photos": 20, "accuracies": [0.75]},
    ]
    table = learning_curve_table([models[0], told_by(models[1], learning_curve=points)])
    found = {(row.photos, row.curve): row.accuracy for row in table.itertuples()}
    assert found == {
        (5, "mean of the draws"): 0.5,
        (5, "lowest"): 0.25,
        (5, "highest"): 0.75,
        **{(10, curve): 0.75 for curve in ("mean of the draws", "lowest", "highest")},
    }
    assert len(learning_curve_table(models)) == 0


# ---- what the models answer ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(models, photos):
    return [predict_validation(shown, photos) for shown in models]


def made_up(shown, photos, right):
    """Predictions that are right on the photos told, and sure of it."""
    labels = torch.tensor(photos.val.labels)
    given = torch.where(torch.tensor(right), labels, 1 - labels)
    return Predictions(shown, photos, 4.0 * torch.nn.functional.one_hot(given, 2).float())


def test_answers_are_the_classifiers_logits_of_every_validation_photo_in_order(answers, models, photos):
    opened = [open_photo(path) for path in photos.val.paths]
    for given, shown in zip(answers, models, strict=True):
        assert given.logits.shape == (16, 2)
        assert torch.allclose(given.logits, shown.classifier.logits(opened), atol=1e-4)
        assert given.labels.tolist() == list(photos.val.labels)


def test_answers_are_in_the_photos_order_of_classes_whatever_the_models_is(models, photos, answers):
    turned = replace(models[0].config, label_names=models[0].config.label_names[::-1])
    other = replace(models[0], classifier=Classifier(models[0].classifier.network, turned))
    assert torch.allclose(predict_validation(other, photos).logits, answers[0].logits.flip(1), atol=1e-6)


def test_asking_tells_how_far_it_is_and_ends_at_all(models, photos):
    shares = []
    predict_validation(models[0], replace(photos, val=photos.val.subset([*range(16), *range(4)])), shares.append)
    assert shares == [pytest.approx(16 / 20), 1]


def test_the_confusion_table_counts_every_photo_once(answers, photos):
    for given in answers:
        table = confusion_table(given)
        assert list(table.columns) == ["true class", "ants", "bees"]
        assert table["true class"].tolist() == ["ants", "bees"]
        counts = table[["ants", "bees"]].to_numpy()
        assert counts.sum() == len(photos.val)
        assert counts.sum(1).tolist() == [8, 8]
        right = (given.logits.argmax(1) == given.labels).sum()
        assert counts.trace() == right
        assert 0 < right < 16, "right and wrong ones have to be among them"
    assert confusion_table(answers[0], CHINESE).columns[0] == "真实类别"


@pytest.mark.parametrize("names", [("true class", "bees"), ("a b", "a  b"), ("b\udcff", "bees")])
def test_odd_class_names_cost_the_confusion_table_no_column(answers, photos, names):
    table = confusion_table(replace(answers[0], photos=replace(photos, class_names=names)))
    assert table.shape == (2, 3)
    assert table.iloc[:, 1:].to_numpy().sum() == 16
    assert "\udcff" not in "".join(map(str, table.columns))


def test_a_cell_holds_exactly_its_photos_the_surest_answers_first(answers, photos):
    for given in answers:
        probabilities, chosen = given.logits.softmax(1), given.logits.argmax(1)
        shown = []
        for truth in range(2):
            for answer in range(2):
                pictures = cell_photos(given, truth, answer)
                assert len(pictures) == given.confusion[truth][answer]
                expected = [
                    (float(probabilities[at, answer]), photos.val.paths[at].name)
                    for at in range(16)
                    if photos.val.labels[at] == truth and chosen[at] == answer
                ]
                ordered = sorted(expected, key=lambda one: -one[0])
                assert [caption for _, caption in pictures] == [f"{name}: {share:.0%}" for share, name in ordered]
                shown += [name for _, name in ordered]
        assert sorted(shown) == sorted(path.name for path in photos.val.paths)


def test_a_large_cell_shows_its_surest_photos_alone(models, photos):
    many = replace(photos, val=photos.val.subset([0] * (CELL_PHOTOS + 3)))
    logits = torch.stack([torch.arange(CELL_PHOTOS + 3) / 10, torch.zeros(CELL_PHOTOS + 3)], 1)
    pictures = cell_photos(Predictions(models[0], many, logits), 0, 0)
    assert len(pictures) == CELL_PHOTOS
    assert pictures[0][1].endswith(f": {float(logits[-1].softmax(0)[0]):.0%}")


@pytest.fixture(scope="module")
def mistaken(answers):
    return [error_pictures(given) for given in answers]


def test_mistakes_are_wrong_all_of_them_and_the_surest_come_first(answers, photos, mistaken):
    for given, pictures in zip(answers, mistaken, strict=True):
        confidence, chosen = given.logits.softmax(1).max(1)
        wrong = [at for at in range(16) if chosen[at] != photos.val.labels[at]]
        ordered = sorted(wrong, key=lambda at: -float(confidence[at]))
        assert [caption for _, caption in pictures] == [
            f"is {photos.class_names[photos.val.labels[at]]}, answered {photos.class_names[int(chosen[at])]}"
            f" {float(confidence[at]):.0%}"
            for at in ordered[:LARGEST_ERRORS]
        ]


def test_a_mistake_stands_beside_what_spoke_for_its_answer(answers, photos, mistaken):
    given = answers[0]
    confidence, chosen = given.logits.softmax(1).max(1)
    wrong = (chosen != given.labels).nonzero()[:, 0]
    worst = int(wrong[confidence[wrong].argmax()])
    picture, _ = mistaken[0][0]
    photo = open_photo(photos.val.paths[worst])
    assert picture.crop((0, 0, photo.width, photo.height)).tobytes() == photo.tobytes()
    assert picture.height == photo.height
    assert picture.width == pytest.approx(2 * photo.width, abs=1)


def test_a_model_without_mistakes_shows_none_and_a_poor_one_the_worst_alone(models, photos, monkeypatch):
    assert error_pictures(made_up(models[0], photos, [True] * 16)) == []
    monkeypatch.setattr(predictions, "LARGEST_ERRORS", 2)
    assert len(error_pictures(made_up(models[0], photos, [False] * 16))) == 2
    assert "实际" in error_pictures(made_up(models[0], photos, [False, *[True] * 15]), CHINESE)[0][1]


def test_the_reliability_of_each_model_is_that_of_the_evaluation_and_the_diagonal_goes_with_it(answers):
    table = reliability_table(answers)
    for given in answers:
        points = table[table["curve"] == given.model.name]
        expected = reliability(given.logits, given.labels, RELIABILITY_BINS)
        assert points["confidence"].tolist() == [one.confidence for one in expected]
        assert points["right"].tolist() == [one.accuracy for one in expected]
    perfect = table[table["curve"] == "perfect"]
    assert perfect["confidence"].tolist() == perfect["right"].tolist() == [table["confidence"].min(), 1.0]
    assert reliability_table(answers, CHINESE)["curve"].iloc[-1] == "理想"
    assert len(reliability_table([])) == 0


def test_whether_the_modes_differ_is_mcnemars_word(models, photos):
    first, second = [True] * 10 + [False] * 6, [True] * 3 + [False] * 9 + [True] * 4
    told = significance([made_up(models[0], photos, first), made_up(models[1], photos, second)])
    p = evaluation_metrics.mcnemar(torch.tensor(first), torch.tensor(second))
    assert told == (
        "Of 16 validation photos 7 are right with frozen alone and 4 with finetune alone: no more than chance explains"
        f" (McNemar's exact test, p = {p:.2g})."
    )


def test_a_difference_that_chance_hardly_explains_is_told_as_one(models, photos):
    first, second = [True] * 16, [True] * 8 + [False] * 8
    assert evaluation_metrics.mcnemar(torch.tensor(first), torch.tensor(second)) < 0.05
    both = [made_up(models[0], photos, first), made_up(models[1], photos, second)]
    assert "a difference that chance hardly explains" in significance(both)
    assert "很难用偶然性解释的差异" in significance(both, CHINESE)
    assert "p = 1)" in significance([both[0], both[0]])


def test_one_model_alone_differs_from_nothing(answers):
    assert significance(answers[:1]) == significance([]) == ""


def test_names_of_models_that_are_markup_are_text_in_how_they_differ(answers):
    odd = [replace(given, model=replace(given.model, name=MARKUP)) for given in answers]
    for told in (significance(odd), significance(odd, CHINESE)):
        assert "<img" not in told
        assert "**" not in told


# ---- answers that are kept -------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """The names of the models that are really asked, in order."""
    names = []

    def note(shown, photos, progress):
        names.append(shown.name)
        progress(1)
        return Predictions(shown, photos, torch.zeros(len(photos.val), 2))

    monkeypatch.setattr(predictions, "predict_validation", note)
    return names


def ignored(share):
    """A visitor's progress bar that nobody looks at."""


def test_every_model_is_asked_once_however_many_visitors_come(exhibit, asked):
    cache = PredictionCache()
    first = cache.get(exhibit, None, ignored)
    assert asked == ["frozen", "finetune"]
    assert cache.get(exhibit, None, ignored) == first
    assert [given.model.name for given in cache.get(exhibit, ["finetune"], ignored)] == ["finetune"]
    assert asked == ["frozen", "finetune"]


def test_only_the_models_that_are_looked_at_are_asked(exhibit, asked):
    cache = PredictionCache()
    cache.get(exhibit, ["finetune"], ignored)
    assert asked == ["finetune"]
    cache.get(exhibit, None, ignored)
    assert asked == ["finetune", "frozen"]


def test_models_that_are_shown_no_more_are_forgotten(exhibit, asked):
    cache = PredictionCache()
    cache.get(exhibit, None, ignored)
    anew = told_by(exhibit.models[0])
    renewed = ui.Snapshot((anew, exhibit.models[1]), exhibit.photos)
    assert cache.get(renewed, None, ignored)[0].model is anew
    assert asked == ["frozen", "finetune", "frozen"], "the model that stayed is not asked again"
    cache.get(exhibit, None, ignored)
    assert asked == ["frozen", "finetune", "frozen", "frozen"], "its answers are kept no longer than it is shown"


def test_other_photos_are_asked_about_anew(exhibit, asked, photos):
    cache = PredictionCache()
    cache.get(exhibit, ["frozen"], ignored)
    (given,) = cache.get(replace(exhibit, photos=replace(photos, digest="other")), ["frozen"], ignored)
    assert given.photos.digest == "other"
    assert asked == ["frozen", "frozen"]


def test_without_photos_or_with_those_of_other_classes_nobody_is_asked(exhibit, asked, photos):
    cache = PredictionCache()
    assert cache.get(replace(exhibit, photos=None), None, ignored) == []
    assert cache.get(replace(exhibit, photos=replace(photos, class_names=("cats", "dogs"))), None, ignored) == []
    assert asked == []


def test_the_progress_of_asking_two_models_runs_once_from_nothing_to_all(exhibit, asked):
    shares = []
    PredictionCache().get(exhibit, None, shares.append)
    assert shares == [0.5, 1]


# ---- photos that may be wrong ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A small folder with a photo that is in both splits and a blank one."""
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


def test_a_copy_across_the_split_and_a_blank_picture_are_found(found, faulty):
    findings, _ = found
    _, copied = faulty
    by_kind = {finding.kind: finding for finding in reversed(findings)}
    assert by_kind["placeholder"].file == "train/bees/zz-blank.png"
    leaks = {(finding.file, finding.other) for finding in findings if finding.kind == "leak"}
    assert (f"train/ants/{copied}", "val/ants/zz-copy.jpg") in leaks


def test_looking_for_faults_tells_how_far_it_is_and_ends_at_all(found, faulty):
    _, shares = found
    assert shares == [pytest.approx(4 / 14), pytest.approx(8 / 14), pytest.approx(12 / 14), 1]


def test_faults_are_told_in_a_table_and_shown_as_pictures_a_pair_side_by_side(found, faulty):
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


def test_an_imbalance_is_in_the_table_and_has_no_picture(photos):
    imbalance = Finding("imbalance", "ants", "3 training photos, bees has 12", 4.0)
    assert findings_table([imbalance])["file"].tolist() == ["ants"]
    assert findings_pictures([imbalance], photos) == []


def test_of_very_many_faults_the_first_are_shown(photos):
    name = photos.train.names(photos.root)[0]
    findings = [Finding("dark", name, f"mean brightness {number}", number) for number in range(FINDING_PICTURES + 5)]
    pictures = findings_pictures(findings, photos)
    assert [caption for _, caption in pictures] == [
        f"dark: {name}: mean brightness {number}" for number in range(FINDING_PICTURES)
    ]
    assert len(findings_table(findings)) == FINDING_PICTURES + 5


def test_a_photo_that_was_taken_away_meanwhile_is_an_error_that_says_so(models, faulty):
    photos, _ = faulty
    gone = replace(photos, val=replace(photos.val, paths=(photos.root / "gone.jpg", *photos.val.paths[1:])))
    with pytest.raises(DataError, match="not there"):
        inspect_photos(models[0], gone)


def test_file_names_that_are_no_unicode_reach_a_browser_as_text():
    finding = Finding("dark", "train/b\udcff.png", "mean brightness 3 of 255", 1.0)
    assert findings_table([finding])["file"].tolist() == ["train/b\\udcff.png"]


def test_faults_are_judged_by_a_backbone_that_learned_none_of_the_labels(exhibit, models, photos):
    assert frozen_model(exhibit) is models[0]
    assert frozen_model(ui.Snapshot(models[::-1], photos)) is models[0]
    assert frozen_model(ui.Snapshot(models[1:], photos)) is None, "a fine-tuned one learned the labels it would judge"
    assert frozen_model(ui.Snapshot(models, None)) is None
    assert frozen_model(ui.Snapshot(models, replace(photos, class_names=("cats", "dogs")))) is None
    assert frozen_model(ui.Snapshot()) is None
