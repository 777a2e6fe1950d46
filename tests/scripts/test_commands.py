"""scripts/predict.py, evaluate.py, check.py and export.py: flags, what is printed, exit status."""

import inspect
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import antbee
from antbee import Classifier
from antbee.data.transforms import Preprocessing
from antbee.models.config import ClassifierConfig
from antbee.models.weights import StartingWeights, build_network
from antbee.training.check import CheckResult

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """An untrained model of ants and bees with small crops."""
    network = build_network("resnet18", 2, StartingWeights("random"), seed=0)
    folder = tmp_path_factory.mktemp("models") / "frozen"
    Classifier(network, ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=64))).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(drawn_root):
    return next((drawn_root / "val" / "bees").iterdir())


@pytest.mark.parametrize(
    ("name", "call", "argv"),
    [
        ("predict", "predict_files", ["MODEL", "PATH"]),
        ("evaluate", "evaluate", ["MODEL"]),
        ("check", "check", ["PATH", "--json"]),
        ("export", "export", ["MODEL", "--onnx", "FILE"]),
        ("rename", "rename", ["MODEL", "ants=Ameisen"]),
    ],
)
def test_flags_have_the_names_and_defaults_of_the_arguments(name, call, argv, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    flags = vars(import_module(f"scripts.{name}").parse_arguments())
    arguments = inspect.signature(getattr(antbee, call)).parameters
    assert flags.keys() - {"paths", "json"} == arguments.keys() - {"path", "paths", "json", "log"}
    optional = {flag for flag in flags if flag in arguments and arguments[flag].default is not inspect.Parameter.empty}
    assert {flag: flags[flag] for flag in optional} == {flag: arguments[flag].default for flag in optional}


@pytest.mark.parametrize("name", ["check", "evaluate", "export", "predict", "push", "train"])
def test_a_flag_can_not_be_abbreviated(name, monkeypatch, capsys):
    required = {"export": ["model", "--onnx", "file"], "train": [], "push": ["model", "me/model"]}
    flag = {"check": "--she", "evaluate": "--spl", "export": "--int", "predict": "--exp", "push": "--rev"}
    argv = [*required.get(name, ["path", "path"][: 1 + (name == "predict")]), flag.get(name, "--epoch"), "1"]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    with pytest.raises(SystemExit) as ended:
        import_module(f"scripts.{name}").parse_arguments()
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_command_imports_nothing_slow_before_ctrl_c_can_end_it():
    code = """
import sys
from scripts import check, evaluate, export, predict, push, rename, train
print([name for name in ("torch", "numpy", "PIL", "pydantic", "huggingface_hub") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["predict", "evaluate", "export"])
def test_a_missing_model_is_one_line_and_status_2(command, error_of, tmp_path, drawn_root, name):
    argv = {"predict": [drawn_root], "evaluate": ["--data", drawn_root], "export": ["--onnx", tmp_path / "model.onnx"]}
    status, error = error_of(command, name, "/nowhere", *argv[name])
    assert status == 2
    assert "expected a model folder, or a Hub id" in error


# ---- predict.py ------------------------------------------------------------------------------------------------------


def test_predict_prints_a_line_for_each_photo_and_writes_heat_maps(command, model_folder, photo, tmp_path, capsys):
    command("predict", model_folder, photo, "--explain", "maps")
    line, end = capsys.readouterr().out.splitlines()
    assert line.endswith(f"%  {Classifier.from_pretrained(model_folder).predict(photo).label}  {photo}")
    assert end == "heat maps written to maps"
    assert (tmp_path / "maps" / f"bees_{photo.name}.png").exists()


def test_predict_writes_a_csv_file_instead(command, model_folder, photo, tmp_path, capsys):
    command("predict", model_folder, photo, "--csv", "predictions.csv")
    assert capsys.readouterr().out == "1 of 1 photo answered, written to predictions.csv\n"
    assert str(photo) in (tmp_path / "predictions.csv").read_text("utf-8")


def test_predict_prints_predictions_and_ends_with_status_2_and_the_unreadable_files(
    command, model_folder, photo, tmp_path, capsys, error_of
):
    (tmp_path / "bad.jpg").write_text("not a photo")
    status, error = error_of(command, "predict", model_folder, photo, tmp_path / "bad.jpg", tmp_path / "none.jpg")
    assert str(photo) in capsys.readouterr().out
    assert status == 2
    assert "1 of 3 photos answered, not " in error
    assert "bad.jpg: not a photo" in error
    assert "none.jpg: not there" in error


def test_predict_takes_a_pattern_as_windows_leaves_it(command, model_folder, photo, tmp_path, capsys):
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    command("predict", model_folder, "*.png")
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()] == ["a.png", "b.png"]


ADDRESS = "https://example.com/cat.jpg"


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("predict", ["MODEL", ADDRESS]),
        ("predict", [ADDRESS, "photo.jpg"]),
        ("evaluate", [ADDRESS]),
        ("export", [ADDRESS, "--onnx", "model.onnx"]),
        ("check", [ADDRESS]),
        ("push", [ADDRESS, "me/model"]),
    ],
)
def test_an_address_is_named_as_it_was_typed_in_every_command(command, error_of, model_folder, name, argv):
    argv = [model_folder if text == "MODEL" else text for text in argv]
    status, error = error_of(command, name, *argv)
    assert status == 2
    assert f"{ADDRESS} is an address, " in error
    assert "download" in error


# ---- evaluate.py -----------------------------------------------------------------------------------------------------


def test_evaluate_prints_a_table_and_writes_json(command, model_folder, drawn_root, tmp_path, capsys):
    command("evaluate", model_folder, "--data", drawn_root, "--json", "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["model"], result["data"], result["split"]) == (str(model_folder), str(drawn_root), "val")
    printed = capsys.readouterr().out
    assert f"({result['correct']} of 16)" in printed
    assert printed.endswith("written to result.json\n")


# ---- check.py --------------------------------------------------------------------------------------------------------


@pytest.fixture
def checked(monkeypatch):
    """The options that check.py passes to antbee.check, which is replaced: it can't use files named "bad"."""
    calls = []

    def check(path, *, log, **options):
        calls.append(options)
        if "list" in Path(path).name:
            log("list written")
        bad = Path(path).name == "bad"
        return CheckResult(str(path), "picture", ok=not bad, error=f"{path} is bad" if bad else None)

    monkeypatch.setattr(antbee, "check", check)
    return calls


def test_check_hands_on_what_train_takes_and_is_no_path(command, checked, capsys):
    for data in ("hf://datasets/user/name@v1.0", "drawn"):
        command("check", data)
        assert capsys.readouterr().out == f"{data}: picture: nothing found\n"


def test_check_prints_results_to_stdout_and_messages_to_stderr(command, checked, capsys):
    command("check", "one.jpg", "list.jpg")
    out, err = capsys.readouterr()
    assert out == "one.jpg: picture: nothing found\nlist.jpg: picture: nothing found\n"
    assert err == "list written\n"


def test_check_prints_a_json_object_per_path_with_the_same_keys(command, checked, capsys, error_of):
    status, error = error_of(command, "check", "--json", "one.jpg", "bad", "two.jpg")
    assert (status, error) == (2, "error: 1 of 3 can't be used: bad is bad")
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = ["path", "kind", "ok", "classes", "used", "skipped", "findings", "error"]
    assert [list(result) for result in results] == [keys] * 3
    assert [(result["path"], result["ok"]) for result in results] == [
        ("one.jpg", True),
        ("bad", False),
        ("two.jpg", True),
    ]


def test_check_writes_a_contact_sheet_only_where_a_folder_is_named_for_it(command, checked):
    for argv in (["a"], ["a", "--json"], ["a", "--sheets", "sheets"]):
        command("check", *argv)
    assert [call["sheets"] and call["sheets"].name for call in checked] == [None, None, "sheets"]


def test_check_takes_a_list_for_one_path_only(command, checked, capsys):
    with pytest.raises(SystemExit) as ended:
        command("check", "one", "two", "--list", "list.txt")
    assert ended.value.code == 2
    assert "--list is for one data folder" in capsys.readouterr().err
    assert checked == []


# ---- export.py -------------------------------------------------------------------------------------------------------


def test_export_without_a_file_to_write_ends_with_status_2_and_the_usage(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("export", "MODEL")
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--data", "photos"], ["--int8", "./a.onnx"]])
def test_export_with_arguments_that_do_not_fit_ends_with_one_line_and_status_2(command, error_of, argv):
    assert error_of(command, "export", "MODEL", "--onnx", "a.onnx", *argv)[0] == 2


# ---- rename.py -------------------------------------------------------------------------------------------------------


def test_rename_prints_what_was_changed(command, model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    command("rename", folder, "ants=bees", "bees=wasps = hornets")
    assert (
        capsys.readouterr().out == f"renamed   ants -> bees, bees -> wasps = hornets\nin        {folder}: config.json\n"
    )
    assert Classifier.from_pretrained(folder, device="cpu").config.label_names == ("bees", "wasps = hornets")


@pytest.mark.parametrize(
    ("names", "words"), [(["ants"], "expected OLD=NEW"), (["ants=a", "ants=b"], "two new names"), ([], "required")]
)
def test_rename_without_pairs_of_names_ends_with_status_2_and_the_usage(command, model_folder, capsys, names, words):
    with pytest.raises(SystemExit) as ended:
        command("rename", model_folder, *names)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_rename_to_a_name_that_is_there_ends_with_one_line_and_status_2(command, error_of, model_folder):
    status, error = error_of(command, "rename", model_folder, "ants=bees")
    assert status == 2
    assert "two classes would be 'bees'" in error
