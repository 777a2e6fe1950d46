"""scripts/check.py finds what was planted, says it in a table, a sheet, a list or JSON, and changes nothing."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from antbee import Classifier
from antbee.data.drawn import draw, write_drawn_set
from antbee.data.exclusions import read_exclusions
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.data.loading import ImageCache, ImageLoader
from antbee.data.quality import UNWANTED
from antbee.data.transforms import Preprocessing
from antbee.models import weights
from antbee.models.backbone import build_network, feature_map, pooled
from antbee.models.config import ClassifierConfig
from antbee.models.detector import build_detector

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check.py"
KEYS = ["path", "kind", "ok", "classes", "used", "skipped", "findings", "error"]
UNREACHABLE = "the weights can't be reached (no route to host)"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Drawn pictures among which there is one of each: blank, copied, leaked, damaged, tiny. Read it alone."""
    root = tmp_path_factory.mktemp("planted") / "photos"
    write_drawn_set(root, train={"ants": 6, "bees": 6}, val={"ants": 3, "bees": 3}, longest_side=192)
    train, val = root / "train", root / "val"
    Image.new("RGB", (200, 160), "white").save(train / "ants" / "blank.png")
    shutil.copy(train / "bees" / "drawn_bee_0001.jpg", train / "bees" / "twice.jpg")
    shutil.copy(val / "bees" / "drawn_bee_0007.jpg", train / "ants" / "leaked.jpg")
    whole = (train / "ants" / "drawn_ant_0000.jpg").read_bytes()
    (val / "ants" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    draw("bees", 99, 60).save(val / "bees" / "tiny.jpg")
    return root


PLANTED = {
    "train/ants/blank.png": "placeholder",
    "train/ants/leaked.jpg": "leak",
    "train/bees/twice.jpg": "copy",
    "val/bees/tiny.jpg": "tiny",
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """An untrained model of ants and bees that keeps the features of five photos."""
    network = build_network("resnet18", 2, weights.StartingWeights("random"), seed=0)
    features = torch.rand(5, 512, generator=torch.Generator().manual_seed(0))
    bank = build_detector(features, torch.tensor([0, 0, 1, 1, 1]), [f"train/{i}.jpg" for i in range(5)], 0.5)
    folder = tmp_path_factory.mktemp("models") / "frozen"
    Classifier(network, ClassifierConfig("resnet18", ("ants", "bees")), bank).save_pretrained(folder)
    return folder


@pytest.fixture
def script(script_module):
    """The script as a module."""
    return script_module(SCRIPT)


@pytest.fixture
def check(script, monkeypatch, tmp_path):
    """Runs the script in this process, from another folder, where it also writes what it is not told where to."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(script, "home", lambda: tmp_path)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        script.main()

    return run


@pytest.fixture
def unreachable(monkeypatch):
    """No ImageNet weights on this machine, and no network to fetch them from."""

    def refuse(architecture):
        raise weights.WeightsUnreachableError(UNREACHABLE)

    monkeypatch.setattr(weights, "_imagenet_weights", refuse)


def objects(capsys):
    """What stands on stdout, an object a line."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def tree(root):
    """Every file's time and content."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def planted_in(findings):
    """The planted faults among findings, whatever a network that knows nothing says of labels and features."""
    return {
        finding["file"]: finding["kind"]
        for finding in findings
        if PLANTED.get(finding["file"]) == finding["kind"] and "features" not in finding["reason"]
    }


# ---- a data folder ---------------------------------------------------------------------------------------------------


def test_planted_faults_stand_in_the_table_and_on_the_sheet_and_nothing_in_the_folder_is_changed(
    check, planted, tmp_path, capsys
):
    before = tree(planted)
    check(planted, "--weights", "random", "--sheets", tmp_path / "new" / "sheets")
    assert tree(planted) == before
    rows = capsys.readouterr().out.splitlines()
    assert f"{planted}: data, ants, bees, 22 photos, 1 skipped" in rows
    for file, kind in (PLANTED | {"val/ants/cut.jpg": "skipped"}).items():
        assert [row for row in rows if row.split()[:2] == [kind, file]], f"{file} is not told to be {kind}"
    sheet = tmp_path / "new" / "sheets" / "check-photos.png"
    assert f"contact sheet written to {sheet}" in rows
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200


def test_json_is_an_object_a_line_for_each_path_with_the_same_keys_and_nothing_else(
    check, planted, model_folder, tmp_path, capsys
):
    photo = planted / "val" / "bees" / "tiny.jpg"
    check(planted, model_folder, photo, "--json", "--weights", "random")
    checked = objects(capsys)
    assert [list(one) for one in checked] == [KEYS] * 3
    assert [(one["path"], one["kind"], one["ok"], one["error"]) for one in checked] == [
        (str(planted), "data", True, None),
        (str(model_folder), "model", True, None),
        (str(photo), "picture", True, None),
    ]
    folder = checked[0]
    assert (folder["classes"], folder["used"]) == (["ants", "bees"], 22)
    (skipped,) = folder["skipped"]
    assert skipped.keys() == {"file", "reason"}
    assert skipped["file"] == "val/ants/cut.jpg"
    assert skipped["reason"].startswith("a damaged photo")
    assert planted_in(folder["findings"]) == PLANTED
    assert all(finding.keys() == {"kind", "file", "reason", "score", "other"} for finding in folder["findings"])
    (leak,) = [finding for finding in folder["findings"] if "hash" in finding["reason"] and finding["kind"] == "leak"]
    assert (leak["file"], leak["other"]) == ("train/ants/leaked.jpg", "val/bees/drawn_bee_0007.jpg")


def test_the_list_can_be_read_as_exclusions_and_names_what_teaches_wrong_things(
    check, planted, tmp_path, capsys, unreachable
):
    check(planted, "--json", "--list", tmp_path / "list.txt")
    excluded = read_exclusions(tmp_path / "list.txt")
    assert excluded == [file for file, kind in PLANTED.items() if kind in UNWANTED]
    photos = read_folder(planted)
    cleaned = photos.without(excluded)
    assert set(photos.train.paths) - set(cleaned.train.paths) == {planted / file for file in excluded}
    assert cleaned.val == photos.val
    out, err = capsys.readouterr()
    assert f"list written to {tmp_path / 'list.txt'}" in err
    assert "list written" not in out


def test_a_list_is_of_one_folder(check, planted, tmp_path):
    with pytest.raises(DataError, match="one data folder"):
        check(planted, planted, "--list", tmp_path / "list.txt")


def test_the_list_says_of_every_file_why_it_is_there_and_asks_a_person(check, planted, tmp_path, unreachable):
    check(planted, "--json", "--list", tmp_path / "list.txt")
    first, *lines = (tmp_path / "list.txt").read_text("utf-8").splitlines()
    assert first.startswith("# What train.py --exclude leaves out. Look at each")
    for reason, file in zip(lines[::2], lines[1::2], strict=True):
        assert reason.startswith(f"# {PLANTED[file]}: ")


@pytest.mark.parametrize("file", ["train/ants/drawn_ant_0002.jpg", "val/bees/drawn_bee_0010.jpg"])
def test_a_swapped_label_is_found_by_what_a_network_sees_and_listed(check, script, tmp_path, monkeypatch, capsys, file):
    root = tmp_path / "photos"
    counts = {"ants": 8, "bees": 8}
    write_drawn_set(root, train=counts, val=counts, longest_side=128)
    wrong = {"ants": "bees", "bees": "ants"}
    split, kind, name = file.split("/")
    (root / file).rename(root / split / wrong[kind] / name)

    def seen_truly(split, *_):
        """A direction for each kind of insect, which the file's name tells."""
        noise = torch.randn(len(split), 8, generator=torch.Generator().manual_seed(0))
        true = torch.tensor([int("bee" in path.name) for path in split.paths])
        return 3 * torch.eye(8)[true] + 0.4 * noise

    monkeypatch.setattr(script, "features_of", seen_truly)
    check(root, "--json", "--list", tmp_path / "list.txt")
    found = [finding for finding in objects(capsys)[0]["findings"] if finding["kind"] == "label"]
    assert [finding["file"] for finding in found] == [f"{split}/{wrong[kind]}/{name}"]
    assert found[0]["reason"].startswith(f"looks like {kind} more than {wrong[kind]}")
    assert f"{split}/{wrong[kind]}/{name}" in read_exclusions(tmp_path / "list.txt")


def test_features_are_those_of_the_networks_own_view_of_every_photo(script, planted):
    photos = read_folder(planted)
    features = script.features_of(photos.val, Preprocessing(), ImageCache(), "random")
    assert (features.shape, features.dtype) == ((len(photos.val), 512), torch.float32)
    network = build_network("resnet18", 2, weights.StartingWeights("random"), seed=0).eval()
    ((images, _),) = ImageLoader(photos.val, Preprocessing()).batches([torch.arange(len(photos.val))])
    with torch.inference_mode():
        expected = pooled(network, feature_map(network, images))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_without_reachable_weights_labels_are_not_judged_and_it_is_said(check, planted, capsys, unreachable):
    check(planted, "--json")
    out, err = capsys.readouterr()
    (folder,) = map(json.loads, out.splitlines())
    assert {finding["file"]: finding["kind"] for finding in folder["findings"]} == PLANTED
    assert f"labels are not judged, and copies found by hash alone: {UNREACHABLE}" in err
    assert "--weights" in err


def test_weights_that_were_asked_for_are_never_done_without(check, planted, capsys, unreachable):
    with pytest.raises(DataError, match="no route to host"):
        check(planted, "--json", "--weights", "imagenet")
    (folder,) = objects(capsys)
    assert (folder["ok"], folder["error"]) == (False, UNREACHABLE)


def test_of_a_folder_in_order_it_is_said_that_nothing_was_found_and_no_sheet_is_written(
    check, tmp_path, capsys, unreachable
):
    counts = {"ants": 2, "bees": 2}
    root = write_drawn_set(tmp_path / "fine", train=counts, val=counts, longest_side=192)
    check(root, "--sheets", tmp_path / "sheets")
    assert capsys.readouterr().out == f"{root}: data, ants, bees, 8 photos: nothing found\n"
    assert not (tmp_path / "sheets").exists()


def test_a_folder_without_a_val_folder_is_checked_under_its_own_names(check, tmp_path, capsys, unreachable):
    for kind in ("ants", "bees"):
        (tmp_path / "flat" / kind).mkdir(parents=True)
        for seed in range(4):
            draw(kind, seed, 192).save(tmp_path / "flat" / kind / f"{seed}.png")
    Image.new("RGB", (200, 160), "white").save(tmp_path / "flat" / "bees" / "blank.png")
    check(tmp_path / "flat", "--json")
    (folder,) = objects(capsys)
    assert [(finding["kind"], finding["file"]) for finding in folder["findings"]] == [("placeholder", "bees/blank.png")]
    assert folder["used"] == 9


def test_names_and_classes_can_not_add_lines_to_the_table(check, tmp_path, capsys, unreachable):
    for kind in ("ants\nfake: data", "bees"):
        (tmp_path / "odd" / kind).mkdir(parents=True)
        for seed in range(2):
            draw("ants" if "ants" in kind else "bees", seed, 192).save(tmp_path / "odd" / kind / f"{seed}.png")
    Image.new("RGB", (200, 160), "white").save(tmp_path / "odd" / "bees" / "bla\nnk.png")
    check(tmp_path / "odd")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if not line.startswith("contact sheet")]) == 2
    assert (tmp_path / "outputs" / "check-odd.png").exists()


# ---- a picture, a model folder ---------------------------------------------------------------------------------------


def test_a_pictures_own_faults_are_told(check, tmp_path, capsys):
    draw("bees", 0, 60).save(tmp_path / "tiny.png")
    draw("bees", 0, 192).save(tmp_path / "fine.png")
    check(tmp_path / "tiny.png", tmp_path / "fine.png")
    tiny, finding, fine = capsys.readouterr().out.splitlines()
    assert tiny.startswith(f"{tmp_path / 'tiny.png'}: picture")
    assert finding.split()[:2] == ["tiny", "tiny.png"]
    assert fine.startswith(f"{tmp_path / 'fine.png'}: picture")
    assert fine.endswith("nothing found")


def test_a_model_tells_its_classes_and_how_many_photos_it_keeps_the_features_of(check, model_folder, capsys):
    check(model_folder, "--json")
    (checked,) = objects(capsys)
    assert (checked["kind"], checked["ok"], checked["classes"], checked["used"]) == ("model", True, ["ants", "bees"], 5)
    assert checked["findings"] == checked["skipped"] == []


@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "fc.bias", "bn1.running_var"])
def test_weights_that_are_no_numbers_can_not_be_used(check, model_folder, tmp_path, capsys, name):
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    state = load_file(broken / "model.safetensors")
    state[name].view(-1)[0] = float("nan")
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=f"1 of 1 can't be used: .*{name} has numbers that are NaN or infinite"):
        check(broken, "--json")
    (checked,) = objects(capsys)
    assert (checked["kind"], checked["ok"]) == ("model", False)
    assert name in checked["error"]


def test_a_model_folder_without_weights_can_not_be_used(check, model_folder, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    shutil.copy(model_folder / "config.json", tmp_path / "half")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        check(tmp_path / "half", "--json")
    assert [(one["kind"], one["ok"]) for one in objects(capsys)] == [("model", False)]


# ---- what can't be used ----------------------------------------------------------------------------------------------


def test_what_can_not_be_used_is_said_and_the_rest_is_checked_all_the_same(check, model_folder, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "none", tmp_path / "text.jpg", tmp_path / "empty", model_folder]
    with pytest.raises(DataError, match=r"3 of 4 can't be used: .*none is not there"):
        check(*paths, "--json")
    checked = objects(capsys)
    assert [list(one) for one in checked] == [KEYS] * 4
    assert [(one["path"], one["kind"], one["ok"]) for one in checked] == [
        (str(paths[0]), "data", False),
        (str(paths[1]), "picture", False),
        (str(paths[2]), "data", False),
        (str(paths[3]), "model", True),
    ]
    assert "not a photo that can be read" in checked[1]["error"]
    assert "0 class folder" in checked[2]["error"]
    assert checked[3]["error"] is None


def test_run_as_a_script_it_ends_with_one_clear_line_and_the_status_of_bad_input(
    monkeypatch, tmp_path, capsys, error_of
):
    (tmp_path / "text.jpg").write_text("no photo")
    monkeypatch.setattr(sys, "argv", ["check.py", str(tmp_path / "text.jpg")])
    monkeypatch.setattr(sys, "path", list(sys.path))
    status, error = error_of(lambda: runpy.run_path(str(SCRIPT), run_name="__main__"))
    assert status == 2
    assert error.startswith("error: 1 of 1 can't be used: ")
    assert "not a photo that can be read" in error
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'text.jpg'}: picture, can't be used")
