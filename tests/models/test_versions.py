"""New models replace the current ones together, which become a version; files of others are never touched."""

import ast
import json
from pathlib import Path

import pytest

from antbee.models.config import CONFIG_FILE, MODES, ClassifierConfig, DataInfo, read_config
from antbee.models.metrics import EpochScore, Metrics, Parameters
from antbee.models.provenance import WeightsInfo
from antbee.models.versions import (
    MARKER,
    RUN_FOLDER,
    OutputError,
    RunFolder,
    check_output,
    discard_run,
    list_versions,
    place_models,
    restore_version,
)

ROOT = Path(__file__).resolve().parents[2]


def write(folder, accuracy=0.8, *, classes=("ants", "bees"), data="photos", weights="imagenet", note=""):
    """Writes the config of a model, the only file that matters here."""
    interval = [accuracy - 0.06, min(1.0, accuracy + 0.06)]
    kept = EpochScore(correct=8, count=10, accuracy=accuracy, interval=interval, epoch=1)
    metrics = Metrics(
        kept=kept, confusion=[[4, 1], [1, 4]], epochs=1, seconds=1.0, parameters=Parameters(total=1, trainable=1)
    )
    config = ClassifierConfig(
        "resnet18", classes, data=DataInfo(name=data), weights=WeightsInfo(name=weights), metrics=metrics, run=note
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_json()))
    return folder


def finish(output, modes=MODES, **what):
    """A run with finished models of these modes."""
    run = RunFolder(output)
    with run.locked():
        for mode in modes:
            with run.writing(mode) as folder:
                write(folder, **{"note": "a run"} | what)
    return run


def note_of(folder):
    return read_config(folder).run


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if RUN_FOLDER not in path.parts
    }


# ---- putting models in place -----------------------------------------------------------------------------------------


def test_models_of_a_finished_run_are_put_in_place_and_the_previous_ones_become_a_version(tmp_path):
    place_models(tmp_path, finish(tmp_path, note="old"), replace="unless-worse")
    assert list_versions(tmp_path) == []
    placed = place_models(tmp_path, finish(tmp_path, note="new"), replace="unless-worse")
    assert [note_of(tmp_path / mode) for mode in MODES] == ["new", "new"]
    (version,) = list_versions(tmp_path)
    assert placed.put_aside == version.folder
    assert [note_of(version.folder / mode) for mode in MODES] == ["old", "old"]
    assert version.accuracies == {"frozen": 0.8, "finetune": 0.8}


def test_models_with_an_unreadable_config_become_a_version_too(tmp_path):
    place_models(tmp_path, finish(tmp_path), replace="always")
    config = tmp_path / "frozen" / CONFIG_FILE
    config.write_text(config.read_text().replace('"accuracy": 0.8', '"accuracy": "high"'))
    place_models(tmp_path, finish(tmp_path, note="new"), replace="unless-worse")
    assert note_of(tmp_path / "frozen") == "new"
    (version,) = list_versions(tmp_path)
    assert version.accuracies == {"frozen": None, "finetune": 0.8}


def test_a_run_in_progress_or_discarded_does_not_change_the_models_in_place(tmp_path):
    place_models(tmp_path, finish(tmp_path, note="old"), replace="always")
    before = tree(tmp_path)
    run = finish(tmp_path, modes=["frozen"], note="new")
    run.checkpoint("finetune").write_bytes(b"half a training")
    assert run.is_interrupted
    assert tree(tmp_path) == before
    discard_run(tmp_path)
    assert tree(tmp_path) == before
    assert not run.is_interrupted
    assert {path.name for path in run.path.iterdir()} <= {"lock", MARKER}


def test_every_run_keeps_the_previous_models_as_a_version(tmp_path):
    for number in range(5):
        place_models(tmp_path, finish(tmp_path, note=str(number)), replace="always")
    notes = {note_of(version.folder / "frozen") for version in list_versions(tmp_path)}
    assert notes == {"0", "1", "2", "3"}
    assert note_of(tmp_path / "frozen") == "4"


def test_restoring_a_version_makes_a_version_of_the_current_models(tmp_path):
    for note in ("old", "new"):
        place_models(tmp_path, finish(tmp_path, note=note), replace="always")
    (version,) = list_versions(tmp_path)
    restore_version(tmp_path, version.name)
    assert [note_of(tmp_path / mode) for mode in MODES] == ["old", "old"]
    (version,) = list_versions(tmp_path)
    assert note_of(version.folder / "finetune") == "new"
    restore_version(tmp_path, version.name)
    assert note_of(tmp_path / "finetune") == "new"


def test_an_unknown_version_is_refused_with_the_known_names(tmp_path):
    for note in ("old", "new"):
        place_models(tmp_path, finish(tmp_path, note=note), replace="always")
    (version,) = list_versions(tmp_path)
    for name in ("nonsense", "..", ""):
        with pytest.raises(OutputError, match=version.name):
            restore_version(tmp_path, name)


# ---- keeping better models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "replace", "takes_its_place"),
    [
        ({"accuracy": 0.5}, "unless-worse", False),
        ({"accuracy": 0.5}, "always", True),
        ({"accuracy": 0.75}, "unless-worse", True),  # within the interval: chance
        ({"accuracy": 0.9}, "unless-worse", True),
        ({"accuracy": 0.9}, "never", False),
        ({"accuracy": 0.5, "classes": ("cats", "dogs")}, "unless-worse", True),  # nothing to compare
    ],
)
def test_new_models_are_put_in_place_unless_they_are_significantly_worse(tmp_path, what, replace, takes_its_place):
    place_models(tmp_path, finish(tmp_path, accuracy=0.8, note="old"), replace="always")
    placed = place_models(tmp_path, finish(tmp_path, note="new", **what), replace=replace)
    assert note_of(tmp_path / "frozen") == ("new" if takes_its_place else "old")
    (version,) = list_versions(tmp_path)
    assert note_of(version.folder / "frozen") == ("old" if takes_its_place else "new")
    assert (placed.kept is None) == takes_its_place
    if not takes_its_place:
        assert placed.folders == {mode: version.folder / mode for mode in MODES}


@pytest.mark.parametrize(("before", "takes_its_place"), [("imagenet", False), ("random", True)])
def test_models_of_random_weights_do_not_replace_those_of_pretrained_weights(tmp_path, before, takes_its_place):
    place_models(tmp_path, finish(tmp_path, note="old", weights=before), replace="always")
    run = finish(tmp_path, accuracy=0.99, note="new", weights="random", data="drawn")
    place_models(tmp_path, run, replace="unless-worse", is_stand_in=True)
    assert note_of(tmp_path / "frozen") == ("new" if takes_its_place else "old")


# ---- files of others -------------------------------------------------------------------------------------------------


def photos_in(folder):
    folder.mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(b"a photo")


def config_of_another_program(folder):
    photos_in(folder)
    (folder / CONFIG_FILE).write_text('{"antbee": "my favourite"}')


def link_to_photos(folder):
    photos_in(folder.parent / "pool")
    folder.symlink_to(folder.parent / "pool", target_is_directory=True)


@pytest.mark.parametrize("put", [photos_in, config_of_another_program, link_to_photos, Path.touch])
def test_files_of_others_in_the_place_of_a_model_are_refused_by_name(tmp_path, put):
    put(tmp_path / "frozen")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"frozen is there and is no model of antbee's.*--output"):
        check_output(tmp_path, MODES)
    check_output(tmp_path, ["finetune"])
    run = finish(tmp_path)
    with pytest.raises(OutputError, match="frozen is there"):
        place_models(tmp_path, run, replace="always")
    assert {name: content for name, content in tree(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("stray", ["photo.jpg", "frozen.jpg", "album"])
def test_a_run_folder_with_files_of_others_is_never_cleared(tmp_path, stray):
    run = finish(tmp_path)
    photos_in(run.path / stray)
    for change in (run.clear, lambda: discard_run(tmp_path)):
        with pytest.raises(OutputError, match=f"holds {stray}"):
            change()
    assert (run.path / stray / "photo.jpg").read_bytes() == b"a photo"
    assert run.model("frozen").exists()


def test_a_run_folder_that_no_run_created_is_refused_before_training(tmp_path):
    (tmp_path / RUN_FOLDER).mkdir()
    (tmp_path / RUN_FOLDER / "frozen.pt").write_bytes(b"somebody else's")
    with pytest.raises(OutputError, match="it is not"), RunFolder(tmp_path).locked():
        pass
    assert (tmp_path / RUN_FOLDER / "frozen.pt").read_bytes() == b"somebody else's"


def test_a_finished_model_with_files_of_others_is_not_removed(tmp_path):
    run = finish(tmp_path)
    (run.model("frozen") / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        run.clear()
    assert (run.model("frozen") / "notes.txt").read_text() == "mine"


def test_files_of_others_in_a_model_folder_move_with_it_to_its_version(tmp_path):
    place_models(tmp_path, finish(tmp_path), replace="always")
    (tmp_path / "frozen" / "notes.txt").write_text("mine")
    placed = place_models(tmp_path, finish(tmp_path), replace="always")
    assert (placed.put_aside / "frozen" / "notes.txt").read_text() == "mine"


def test_only_one_run_at_a_time_writes_to_an_output_folder(tmp_path):
    with RunFolder(tmp_path / "outputs").locked():
        with RunFolder(tmp_path / "others").locked():
            pass
        second = RunFolder(tmp_path / "outputs").locked()
        with pytest.raises(OutputError, match="another run is writing into"), second:
            pass
    with RunFolder(tmp_path / "outputs").locked():
        pass


def test_an_output_folder_without_write_permission_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    run = RunFolder(tmp_path / "file" / "outputs").locked()
    with pytest.raises(OutputError, match=r"can.t be written to.*--output"), run:
        pass


# Every function of the project that moves or removes files, with the test or the reason why it spares files of others.
MOVES = {
    ("versions", "writing"): "test_a_finished_model_with_files_of_others_is_not_removed",
    ("versions", "clear"): "test_a_run_folder_with_files_of_others_is_never_cleared",
    ("versions", "_remove_model"): "test_a_finished_model_with_files_of_others_is_not_removed",
    ("versions", "_move"): "test_files_of_others_in_the_place_of_a_model_are_refused_by_name",
    ("versions", "restore_version"): "rmdir removes empty folders alone",
    ("checkpoint", "save"): "test_a_run_folder_that_no_run_created_is_refused_before_training",
    ("client", "_download_file"): "a file of the client's cache whose bytes are not the Hub's",
    ("download", "hymenoptera_folder"): "out of a temporary folder, to a name that is not there",
    ("drawn", "write_drawn_set"): "out of a temporary folder, to a name that is not there",
    ("unpack", "_unpack"): "out of a temporary folder, to a name that is not there",
    ("dataset_download", "download_dataset"): "out of a temporary folder, to a name that is not there",
    ("output", "write_comparison"): "a temporary file of its own, onto a card that is as antbee wrote it",
    ("rename", "_folder_of"): "to a name that is not there, of which it was taken",
    ("rename", "_replacing"): "a copy of all files of the folder takes its place, see tests/training/test_rename.py",
    ("rename", "_write"): "in that copy alone, the files of a model",
    ("rename", "_draw_figures"): "in that copy alone, figures of a model by their names",
    ("export", "replacing"): "a temporary file of its own, onto the file that the user named",
    ("outputs", "discard"): "the file that the user named, unless it is a picture, see tests/training/test_predict.py",
    ("outputs", "collect"): "a temporary file of its own, onto the file that the user named; its own parts, by name",
    ("classify", "example_file"): "a temporary file of its own, in the page's own folder",
    ("fewshot", "write_zip"): "a temporary file of its own, in the visitor's own folder",
    ("sessions", "start_again"): "the visitor's own folder, whose name nobody can guess",
    ("sessions", "clear"): "uploads alone, see tests/ui/test_uploads.py",
    ("teach", "add_zip"): "uploads alone, see tests/ui/test_uploads.py",
}
MOVING = {"rename", "unlink", "rmtree", "rmdir", "removedirs", "renames"}


def moves_of(path):
    """The functions of a file that move or remove files, also by Path.replace, which has one argument."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                is_replace = call.func.attr == "replace" and len(call.args) == 1 and not call.keywords
                is_of_a_class_name = ast.unparse(call.func) == "handlers.rename"
                is_move = call.func.attr in MOVING or ast.unparse(call.func) in ("os.remove", "shutil.move")
                if (is_move and not is_of_a_class_name) or is_replace:
                    yield path.stem, function.name


def test_every_function_that_moves_or_removes_files_is_listed():
    product = [ROOT / "app.py", *(ROOT / "antbee").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {move for path in product for move in moves_of(path)}
    assert found == MOVES.keys()
    own = {name for name in globals() if name.startswith("test_")}
    assert {why for why in MOVES.values() if why.startswith("test_")} <= own
