"""Predictions for many files: in order, a reason for each unreadable one, written as they come, resumed, shared."""

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import weakref
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from antbee import Classifier, iter_predictions, predict_files
from antbee.data.images import DataError, open_photo
from antbee.data.listing import summary
from antbee.data.transforms import Preprocessing
from antbee.errors import InputError
from antbee.models.classifier import Prediction
from antbee.models.config import ClassifierConfig
from antbee.models.detector import build_detector
from antbee.models.outputs import Output
from antbee.models.predict import FilePrediction
from antbee.models.tables import CSV, JSON_LINES, PARQUET
from antbee.models.weights import StartingWeights, build_network
from antbee.training import predict
from antbee.training.distributed import DistributedContext


@pytest.fixture(scope="module")
def classifier():
    """An untrained classifier of ants and bees with small crops."""
    network = build_network("test_resnet", 2, StartingWeights("random"), seed=0)
    return Classifier(network, ClassifierConfig("test_resnet", ("ants", "bees"), Preprocessing(crop=64)))


@pytest.fixture
def ants(drawn_root):
    """Eight photos, sorted."""
    return sorted((drawn_root / "val" / "ants").iterdir())


def test_folders_and_files_get_the_classifiers_own_predictions_in_order(classifier, drawn_root, ants):
    file = next((drawn_root / "val" / "bees").iterdir())
    results = predict_files(classifier, [ants[0].parent, file])
    assert [result.path for result in results] == [*ants, file]
    for result in results:
        expected = classifier.predict(result.path)
        assert result.prediction.label == expected.label
        assert result.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_model_folder_and_a_single_path_do_as_well(classifier, ants, tmp_path):
    classifier.save_pretrained(tmp_path / "model")
    (result,) = predict_files(str(tmp_path / "model"), str(ants[0]))
    assert result.prediction.label == classifier.predict(ants[0]).label


def test_unreadable_files_keep_their_places_in_every_batch_and_get_the_reason(classifier, ants, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 3)
    (tmp_path / "bad.jpg").write_text("not a photo")
    bad, missing = tmp_path / "bad.jpg", tmp_path / "none.jpg"
    paths = [ants[0], bad, ants[1], missing, bad, missing, ants[2], ants[3]]
    results = predict_files(classifier, paths, csv=tmp_path / "predictions.csv")
    assert [result.path for result in results] == paths
    for result in results:
        if result.path in (bad, missing):
            assert result.prediction is None
            assert "not " in result.error
        else:
            assert result.error is None
            expected = classifier.predict(result.path).probabilities
            assert result.prediction.probabilities == pytest.approx(expected, abs=1e-5)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    assert [row["error"] for row in rows] == [result.error or "" for result in results]


def test_a_csv_row_has_the_probability_of_every_class_and_the_distance(classifier, ants, tmp_path):
    (result,) = predict_files(classifier, ants[0], csv=tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["file", "label", "ants", "bees", "verdict", "distance", "threshold", "error"]
    assert float(row["ants"]) == result.prediction.probabilities["ants"]
    assert (row["label"], row["distance"]) == (result.prediction.label, "")


def test_content_decides_which_files_of_a_folder_are_photos_and_litter_is_left_out(classifier, ants, tmp_path):
    photo = Image.open(ants[0])
    for name in ("a.JPG", "b.jfif", "c.jpe", "d"):
        shutil.copy(ants[0], tmp_path / name)
    photo.save(tmp_path / "e.gif")
    (tmp_path / "f.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for litter in ("._a.JPG", ".DS_Store", "__MACOSX/._a.JPG", ".ipynb_checkpoints/a-checkpoint.jpg", "a.JPG.json"):
        (tmp_path / litter).parent.mkdir(exist_ok=True)
        (tmp_path / litter).write_bytes(b"{}" if litter.endswith("json") else ants[0].read_bytes())
    run = iter_predictions(classifier, tmp_path)
    assert [(result.path.name, result.error is None) for result in run] == [
        *((name, True) for name in ("a.JPG", "b.jfif", "c.jpe", "d", "e.gif")),
    ]
    assert str(run.summary) == "5 of 5 photos answered"
    assert {entry.file for entry in run.left_out} == {
        *("._a.JPG", ".DS_Store", ".ipynb_checkpoints", "a.JPG.json", "f.heic")
    }
    assert "f.heic: HEIC, a format that is not read: export it as JPEG to use it" in summary(run.left_out)


def test_a_folder_without_images_is_refused(classifier, tmp_path):
    with pytest.raises(DataError, match="has no photo"):
        predict_files(classifier, tmp_path)


def test_photos_of_the_same_name_get_heat_maps_of_their_own_size_in_files_of_their_own(classifier, ants, tmp_path):
    first, second = tmp_path / "a" / "ants" / "x.jpg", tmp_path / "b" / "ants" / "x.jpg"
    for target, source in ((first, ants[0]), (second, ants[1])):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    predict_files(classifier, [first, second], explain=tmp_path / "maps")
    maps = sorted((tmp_path / "maps").iterdir())
    assert len(maps) == 2
    assert "ants_x.jpg.png" in {path.name for path in maps}
    with Image.open(tmp_path / "maps" / "ants_x.jpg.png") as heat_map:
        assert heat_map.size == open_photo(first).size


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0.5, " 75.0%  ants  a.jpg"),
        (1.5, " 75.0%  neither (most probable: ants; distance 1.50, threshold 1.00)  a.jpg"),
    ],
)
def test_printed_it_is_one_line_that_says_neither_out_of_distribution(distance, expected):
    prediction = Prediction("ants", {"ants": 0.75, "bees": 0.25}, distance, 1.0)
    assert str(FilePrediction(Path("a.jpg"), prediction)) == expected
    assert str(FilePrediction(Path("a\nb.jpg"), None, "not a photo")) == "a b.jpg: not a photo"


# -- files that are written as they come, and resumed ------------------------------------------------------------------


FORMATS = {"csv": CSV, "json": JSON_LINES, "parquet": PARQUET}
ROOT = Path(__file__).resolve().parents[2]


def files_in(folder):
    """The options for a file of each kind, where pyarrow is installed also Parquet, in a folder that is not there."""
    kinds = ["csv", "json"]
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        pass
    else:
        kinds.append("parquet")
    return {kind: folder / "new" / f"predictions.{kind}" for kind in kinds}


def rows_of(files, names=("ants", "bees")):
    """The rows of each file, read back."""
    return [list(FORMATS[kind].read(path, names)) for kind, path in files.items()]


def test_all_files_have_the_rows_that_the_call_returns_and_their_folders_are_made(classifier, ants, tmp_path):
    (tmp_path / "bad.jpg").write_text("not a photo")
    files = files_in(tmp_path)
    results = predict_files(classifier, [*ants[:3], tmp_path / "bad.jpg"], **files)
    assert rows_of(files) == [results] * len(files)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files.values())


@pytest.mark.parametrize("option", ["csv", "json", "explain"])
def test_what_can_not_be_written_is_refused_before_any_work_and_never_overwritten(ants, tmp_path, option):
    photo = shutil.copy(ants[0], tmp_path / "photo.jpg")
    for target in [photo / "deeper" / "file", *([photo, tmp_path] if option != "explain" else [photo])]:
        before = ants[0].read_bytes()
        with pytest.raises(InputError, match=r"can't be made|is a folder|is JPEG, which is not overwritten"):
            iter_predictions("no model", ants[0], **{option: target})
        assert photo.read_bytes() == before


def test_two_tables_in_one_file_and_resuming_without_a_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="one file"):
        iter_predictions("no model", "a.jpg", csv=tmp_path / "a", json=tmp_path / "a")
    with pytest.raises(InputError, match="name it with --csv"):
        iter_predictions("no model", "a.jpg", resume=True)


def test_a_stopped_run_has_kept_its_rows_and_resumes_to_the_bytes_of_a_whole_one(
    classifier, ants, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    whole, files = files_in(tmp_path / "whole"), files_in(tmp_path / "stopped")
    expected = predict_files(classifier, ants, **whole)
    run = iter(iter_predictions(classifier, ants, **files))
    started = list(islice(run, 3))
    assert [len(Path(files[kind]).read_text("utf-8").splitlines()) for kind in ("csv", "json")] == [5, 4]
    run.close()
    for file in files["csv"].parent.iterdir():  # as a process leaves them that is killed while it writes
        file.write_bytes(file.read_bytes()[:-20])
    resumed = iter_predictions(classifier, ants, resume=True, **files)
    assert [result.path for result in resumed] == ants[3:]
    assert str(resumed.summary) == "8 of 8 photos answered"
    assert [path.read_bytes() for path in files.values()] == [path.read_bytes() for path in whole.values()]
    assert rows_of(files)[0][:3] == started == expected[:3]
    assert not [path for path in (tmp_path / "stopped" / "new").iterdir() if path not in files.values()]


def test_resuming_a_whole_run_predicts_nothing_and_tries_again_what_was_unreadable(classifier, ants, tmp_path):
    late, files = tmp_path / "late.jpg", files_in(tmp_path)
    paths = [ants[0], late, ants[1]]
    assert predict_files(classifier, paths, **files)[1].error == "not there: check the name"
    shutil.copy(ants[2], late)
    assert [result.path for result in predict_files(classifier, paths, resume=True, **files)] == [late]
    assert predict_files(classifier, paths, resume=True, **files) == []
    for rows in rows_of(files):
        assert sorted(row.path for row in rows) == sorted(paths)
        assert all(row.prediction for row in rows)


def test_a_file_that_is_new_when_a_run_is_resumed_gets_the_rows_of_the_others(classifier, ants, tmp_path):
    files = files_in(tmp_path)
    results = predict_files(classifier, ants[:2], csv=files["csv"])
    assert [result.path for result in predict_files(classifier, ants[:4], resume=True, **files)] == ants[2:4]
    assert all(rows[:2] == results and len(rows) == 4 for rows in rows_of(files))


def test_another_models_file_is_not_resumed_and_stays_as_it_is(classifier, ants, tmp_path):
    file = tmp_path / "predictions.csv"
    predict_files(classifier, ants[:2], csv=file)
    before = file.read_bytes()
    config = ClassifierConfig("test_resnet", ("ants", "bees"), Preprocessing(crop=64))
    other = Classifier(build_network("test_resnet", 2, StartingWeights("random"), seed=1, head_seed=5), config)
    with torch.no_grad():
        other.network.fc.bias += torch.tensor([3.0, 0.0])
    renamed = Classifier(classifier.network, ClassifierConfig("test_resnet", ("a", "b"), Preprocessing(crop=64)))
    for model, message in ((other, "was written with another model"), (renamed, "has other columns")):
        with pytest.raises(InputError, match=message):
            predict_files(model, ants, csv=file, resume=True)
        assert file.read_bytes() == before


def test_a_model_that_differs_by_its_threshold_alone_is_another_one(classifier, ants, tmp_path):
    features = classifier.features([open_photo(path) for path in ants[:3]])
    first, second = (
        Classifier(
            classifier.network, classifier.config, build_detector(features, torch.tensor([0, 0, 1]), ["a"] * 3, limit)
        )
        for limit in (0.9, 0.9001)
    )
    predict_files(first, ants[:2], csv=tmp_path / "table.csv")
    with pytest.raises(InputError, match="was written with another model"):
        predict_files(second, ants, csv=tmp_path / "table.csv", resume=True)
    assert len(predict_files(first, ants, csv=tmp_path / "table.csv", resume=True)) == len(ants) - 2


def test_the_summary_groups_the_reasons_and_names_a_few_files_of_each(classifier, ants, tmp_path):
    for number in range(5):
        (tmp_path / f"bad{number}.jpg").write_text("not a photo")
    run = iter_predictions(classifier, [ants[0], *sorted(tmp_path.iterdir()), tmp_path / "none.jpg"])
    assert len(list(run)) == 7
    assert str(run.summary) == "1 of 7 photos answered"
    first, second = run.summary.reasons.split("; ")
    assert "bad0.jpg, " in first
    assert "bad2.jpg and 2 more: not a photo that can be read (it is text" in first
    assert second == f"{tmp_path / 'none.jpg'}: not there: check the name"


def test_a_run_keeps_no_more_results_than_those_of_a_batch(classifier, ants, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    given = [weakref.ref(result) for result in iter_predictions(classifier, ants)]
    assert len(given) == 8
    alive = []
    for result in iter_predictions(classifier, ants):
        given.append(weakref.ref(result))
        del result
        alive.append(sum(one() is not None for one in given))
    assert max(alive) <= 2


# -- several processes -------------------------------------------------------------------------------------------------


TORCHRUN = """
import sys
from torch.distributed import run

import antbee.training.predict  # before the fork, which keeps the imports
from antbee.training import predict
from antbee.training.distributed import DistributedContext

predict.BATCH_SIZE = 3
run.main(sys.argv[1:])
"""


def test_two_processes_write_the_same_files_as_one_and_take_up_the_parts_of_a_killed_run(
    classifier, drawn_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict, "BATCH_SIZE", 3)
    classifier.save_pretrained(tmp_path / "model")
    paths, one, two = [drawn_root / "val", tmp_path / "none.jpg"], files_in(tmp_path / "1"), files_in(tmp_path / "2")
    results = predict_files(classifier, paths, **one)
    for kind, path in two.items():
        output = Output(path, FORMATS[kind], ("ants", "bees"))
        output.check()
        for rank, rows in ((0, results[:3]), (5, results[9:12])):  # whole batches, so that the others are the same
            with output.opened(rank, 6) as file:
                output.append(file, rows)
    flags = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    flags += ["--run-path", "--start-method", "fork", ROOT / "scripts" / "predict.py", tmp_path / "model", *paths]
    flags += ["--resume", *(word for kind, path in two.items() for word in (f"--{kind}", path))]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    ended = subprocess.run(
        [sys.executable, "-c", TORCHRUN, *map(str, flags)],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.stdout == f"16 of 17 photos answered, written to {' and '.join(map(str, two.values()))}\n"
    assert ended.stderr.count("16 of 17 photos answered, not ") == 1
    for kind, path in one.items():
        assert two[kind].read_bytes() == path.read_bytes()
    assert len(list(two["csv"].parent.iterdir())) == len(two)


class WithoutTheOther(DistributedContext):
    """The first of two processes, whose other writes its part on a disk that is not shared."""

    def from_first(self, value):
        return value

    def gathered(self, value):
        return [value, value]

    def in_turn(self):
        return contextlib.nullcontext()


def test_where_a_processs_part_is_missing_no_table_is_written_and_the_other_parts_are_kept(
    classifier, drawn_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        predict, "joined", lambda device, patience: contextlib.nullcontext(WithoutTheOther(count=2, local_count=2))
    )
    with pytest.raises(InputError, match=r"table\.csv was not written: the parts of 1 of 2 processes are here"):
        predict_files(classifier, drawn_root / "val", csv=tmp_path / "table.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv.part-0"]
