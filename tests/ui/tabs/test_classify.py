"""The Classify tab: predictions and verdicts for one photo, and a table for several photos."""

import csv
import io
import json
import re
from dataclasses import replace

import gradio as gr
import pytest
from configs import CONFIG
from page_helpers import write_model
from PIL import ImageChops

from antbee import Classifier, ui
from antbee.data.drawn import draw
from antbee.data.images import open_photo
from antbee.models.classifier import Prediction
from antbee.models.metrics import Found
from antbee.ui.batching import DynamicBatches
from antbee.ui.components import neighbour_pictures
from antbee.ui.i18n import CHINESE, ENGLISH
from antbee.ui.tabs.classify import (
    BatchPredictions,
    classify,
    crops_of,
    example_paths,
    predict,
    predict_batch,
    title_of,
    verdict_sentence,
)

MARKUP = '<img src=x onerror="alert(1)">**bees**[a](b)'
PREDICTION = Prediction("ants", {"ants": 0.875, "bees": 0.125})


def text_of(verdict):
    """A verdict without the Markdown of its heading."""
    assert re.match(r"#+ ", verdict)
    return verdict.lstrip("# ")


@pytest.fixture(scope="module")
def odd_models(tmp_path_factory):
    """A model with class names that are markup and no valid Unicode."""
    folder = write_model(tmp_path_factory.mktemp("odd") / "model", "frozen", label_names=(MARKUP, "b\udcff"))
    return ui.load_models([folder], device="cpu")


# ---- one photo -------------------------------------------------------------------------------------------------------


def test_an_answer_has_every_models_verdict_probabilities_map_and_neighbours(models, photos):
    photo = draw("ants", 1, 320)
    answers = classify(photo, models, photos)
    assert len(answers) == 2
    for shown, answer in zip(models, answers, strict=True):
        explanation = shown.classifier.explain(photo)
        assert answer.verdict == verdict_sentence(explanation.prediction)
        assert answer.probabilities == pytest.approx(shown.classifier.predict([photo])[0].probabilities, abs=1e-5)
        assert [caption for _, caption in answer.neighbours] == [
            caption for _, caption in neighbour_pictures(explanation.neighbours, photos)
        ]
        assert len(answer.neighbours) == 4
        seen, heat = answer.photo_and_map
        assert seen.tobytes() == photo.tobytes()
        assert heat.size == photo.size
        assert ImageChops.difference(heat, photo).getbbox() is not None
    assert "similar to the training photos" in answers[0].verdict
    assert text_of(answers[1].verdict).startswith("Neither\n")


def test_titles_and_verdicts_are_in_the_visitors_language(models, photos):
    photo = draw("ants", 1, 320)
    assert [answer.title for answer in classify(photo, models, photos)] == [
        "**frozen: only the head was trained**",
        "**finetune: all weights were trained**",
    ]
    chinese = classify(photo, models, photos, CHINESE)
    assert "只训练分类头" in chinese[0].title
    assert "与训练照片相似" in chinese[0].verdict
    assert text_of(chinese[1].verdict).startswith("都不是\n")


def test_photos_of_the_same_names_in_another_folder_are_shown_as_no_neighbours(models, photos):
    (answer,) = classify(draw("ants", 1, 320), models[:1], replace(photos, digest="f" * 64))
    assert answer.neighbours == []
    (answer,) = classify(draw("ants", 1, 320), models[:1], None)
    assert answer.neighbours == []


def test_without_a_detector_the_verdict_is_the_prediction_alone(models, photos):
    alone = Classifier(models[0].classifier.network, models[0].config)
    (answer,) = classify(draw("ants", 1, 320), [replace(models[0], classifier=alone)], photos)
    assert re.fullmatch(r"(ants|bees) · \d+%", text_of(answer.verdict))
    assert answer.neighbours == []
    assert answer.probabilities.keys() == {"ants", "bees"}


@pytest.mark.parametrize(("found", "is_doubtful"), [(1, False), (30, True)])
def test_neither_of_a_model_that_says_it_far_too_often_is_doubted(models, photos, found, is_doubtful):
    one = models[1]
    metrics = one.config.metrics or CONFIG.metrics
    neither = CONFIG.metrics.neither.model_copy(update={"val": Found(found=found, count=60)})
    config = replace(one.config, metrics=metrics.model_copy(update={"neither": neither}))
    detector = replace(one.classifier.detector, threshold=0.0)  # everything is farther
    classifier = Classifier(one.classifier.network, config, detector)
    (answer,) = classify(draw("ants", 1, 320), [replace(one, classifier=classifier)], photos)
    assert text_of(answer.verdict).startswith("Neither")
    assert (f"{found} of 60 validation photos" in answer.verdict) == is_doubtful


def test_without_a_model_there_is_no_answer(photos):
    assert classify(draw("ants", 1, 100), [], photos) == []


# ---- verdicts --------------------------------------------------------------------------------------------------------

NEAR = replace(PREDICTION, distance=0.25, threshold=0.5)
FAR = replace(PREDICTION, distance=0.75, threshold=0.5)


def test_a_verdict_says_the_answer_how_sure_it_is_and_how_near_the_photo_is_to_training_photos():
    assert text_of(verdict_sentence(PREDICTION)) == "ants · 88%"
    assert text_of(verdict_sentence(NEAR)) == (
        "ants · 88%\nsimilar to the training photos (distance 0.25, threshold 0.50)"
    )
    assert text_of(verdict_sentence(FAR)) == (
        "Neither\nout-of-distribution: unlike all training photos (distance 0.75, threshold 0.50); "
        "don't trust the classes below"
    )
    assert text_of(verdict_sentence(replace(NEAR, threshold=None))) == (
        "ants · 88%\nnot checked for out-of-distribution: too few training photos"
    )


@pytest.mark.parametrize("prediction", [PREDICTION, NEAR, FAR, replace(NEAR, threshold=None)])
def test_a_verdict_says_the_same_in_chinese(prediction):
    english, chinese = verdict_sentence(prediction), verdict_sentence(prediction, CHINESE)
    for part in ("## ", "ants · 88%", "0.25", "0.75", "0.50"):
        assert (part in english) == (part in chinese)
    assert (english == chinese) == (prediction is PREDICTION), "it has no word to translate"


@pytest.mark.parametrize("name", ["Neither", "neither", "都不是"])
def test_a_class_that_is_called_neither_is_told_from_no_class_at_all(name):
    own = Prediction(name, {name: 1.0}, distance=0.25, threshold=0.5)
    for translate in (ENGLISH, CHINESE):
        assert "· 100%" in verdict_sentence(own, translate)
        assert "· 100%" not in verdict_sentence(replace(own, distance=0.75), translate)


@pytest.mark.parametrize("translate", [ENGLISH, CHINESE])
@pytest.mark.parametrize("far", [{}, {"distance": 0.25, "threshold": 0.5}, {"distance": 0.25, "threshold": None}])
def test_class_names_that_are_markup_are_text_in_a_verdict(translate, far):
    message = verdict_sentence(Prediction(MARKUP, {MARKUP: 1.0}, **far), translate)
    for markup in ("<img", "**", "](", 'src=x onerror="'):
        assert markup not in message
    assert "bees" in message


def test_names_of_models_that_are_markup_are_text_in_their_titles(models):
    message = title_of(replace(models[0], name="<b>a</b>/*b*"), ENGLISH)
    assert message == "**&#60;b&#62;a&#60;&#47;b&#62;&#47;&#42;b&#42;**"


def test_class_names_that_are_markup_or_no_unicode_reach_a_browser_as_text(odd_models):
    (answer,) = classify(draw("bees", 0, 100), odd_models, None)
    assert answer.probabilities.keys() == {MARKUP, "b\\udcff"}  # gr.Label shows its labels as text
    assert "<img" not in answer.verdict
    answer = predict(crops_of(draw("bees", 0, 100), odd_models), odd_models, DynamicBatches())["frozen"]
    assert answer["probabilities"].keys() == {MARKUP, "b\\udcff"}
    assert json.dumps(answer, ensure_ascii=False).encode()


# ---- the page's API --------------------------------------------------------------------------------------------------


def test_predict_returns_every_models_prediction(models):
    photo = draw("bees", 2, 200)
    answers = predict(crops_of(photo, models), models, DynamicBatches())
    assert list(answers) == ["frozen", "finetune"]
    for shown in models:
        (prediction,) = shown.classifier.predict([photo])
        assert answers[shown.name] == {
            "label": prediction.label,
            "probabilities": prediction.probabilities,
            "verdict": prediction.verdict,
            "distance": prediction.distance,
            "threshold": prediction.threshold,
        }
    assert answers["frozen"]["verdict"] == answers["frozen"]["label"]
    assert answers["finetune"]["verdict"] == "neither"


def test_predict_without_a_photo_is_an_error(models):
    with pytest.raises(gr.Error, match="No photo came"):
        crops_of(None, models)


def test_examples_take_the_classes_in_turn(photos):
    assert [path.parent.name for path in example_paths(photos)] == ["ants", "bees"] * 4
    assert [path.parent.name for path in example_paths(photos, per_class=1)] == ["ants", "bees"]
    assert set(example_paths(photos)) <= set(photos.val.paths)


# ---- many photos -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(photos, tmp_path_factory):
    """Three photos and one that is none, as they were uploaded."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "notes.png").write_text("These are notes.")
    paths = [*photos.val.paths[:2], folder / "notes.png", photos.val.paths[-1]]
    return [(path.name, path) for path in paths]


@pytest.fixture(scope="module")
def several(files, models):
    return predict_batch(iter(files), models)


def test_the_table_of_several_photos_tells_what_each_model_predicts(several, files, models):
    assert several.columns == (
        "file",
        *("frozen", "frozen: ants", "frozen: bees"),
        *("finetune", "finetune: ants", "finetune: bees"),
    )
    assert [row[0] for row in several.rows] == [name for name, _ in files]
    for row, (name, path) in zip(several.rows, files, strict=True):
        if name == "notes.png":
            continue
        cells = dict(zip(several.columns, row, strict=True))
        for shown in models:
            (prediction,) = shown.classifier.predict([open_photo(path)])
            assert cells[shown.name] == prediction.verdict
            for class_name, probability in prediction.probabilities.items():
                assert float(cells[f"{shown.name}: {class_name}"]) == pytest.approx(probability, abs=1e-4)


def test_the_table_is_the_same_as_when_each_photo_comes_alone(several, files, models):
    assert tuple(row for file in files for row in predict_batch([file], models).rows) == several.rows


def test_an_unreadable_file_has_the_reason_in_its_row_and_the_others_are_predicted(several):
    (bad,) = [row for row in several.rows if row[0] == "notes.png"]
    assert bad[1].startswith("not a photo that can be read")
    assert bad[2:] == ("",) * 5
    assert len(several.rows) == 4
    assert len(several.pictures) == 3


def test_the_pictures_of_several_photos_are_small_and_tell_the_answers_once_where_they_agree(several, files):
    names = [name for name, _ in files if name != "notes.png"]
    verdicts = {row[0]: (row[1], row[4]) for row in several.rows}
    for (picture, caption), name in zip(several.pictures, names, strict=True):
        assert max(picture.size) <= 320
        assert caption == f"{name}: {' / '.join(dict.fromkeys(verdicts[name]))}"


def test_without_a_model_the_table_has_the_files_alone(files):
    several = predict_batch(files[:1], [])
    assert (several.columns, several.rows) == (("file",), ((files[0][0],),))


def test_several_photos_take_names_that_are_no_valid_unicode(odd_models, files):
    several = predict_batch([("b\udcff.png", files[0][1])], odd_models)
    assert several.rows[0][0] == "b\\udcff.png"
    assert several.columns[-1] == "frozen: b\\udcff"
    assert several.to_csv()


def read_back(several):
    return list(csv.reader(io.StringIO(several.to_csv().decode("utf-8-sig"), newline="")))


def test_a_csv_reader_reads_the_table_back(several):
    assert read_back(several) == [list(several.columns), *map(list, several.rows)]


@pytest.mark.parametrize("cell", ['a "quoted" name', "a, b", "a\nb", "蚂蚁", " ", ";"])
def test_a_csv_reader_reads_odd_names_back(cell):
    assert read_back(BatchPredictions((cell,), ((cell,),), ())) == [[cell], [cell]]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_the_csv_is_taken_for_a_formula(sign):
    formula = f"{sign}HYPERLINK(A1)"
    ((column,), (cell,)) = read_back(BatchPredictions((formula,), ((formula,),), ()))
    assert column == cell == f"'{formula}"


def test_what_is_no_formula_stays_as_it_is_in_the_csv():
    cells = ("a=b", "0.5", "ant-bee.png", "a+b", "b@c")
    assert read_back(BatchPredictions(cells, (cells,), ())) == [list(cells)] * 2
