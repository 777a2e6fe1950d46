"""antbee.check finds planted faults, gives table, contact sheet and list of them, and changes nothing."""

import json
import re
import shutil
from dataclasses import asdict

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from antbee import Classifier, check
from antbee.data.drawn import draw, write_drawn_set
from antbee.data.exclusions import read_exclusions
from antbee.data.folder import read_folder
from antbee.data.loading import ImageCache, ImageLoader
from antbee.data.quality import UNWANTED
from antbee.errors import InputError
from antbee.models import weights
from antbee.models.backbone import feature_map, head_of, pooled
from antbee.models.config import ClassifierConfig
from antbee.models.detector import build_detector
from antbee.models.weights import build_network
from antbee.training import check as check_module


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


def tree(root):
    """Every file's time and content."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def planted_in(findings):
    """The planted faults among findings, whatever an untrained network says of labels and features."""
    return {
        finding.file: finding.kind
        for finding in findings
        if PLANTED.get(finding.file) == finding.kind and "features" not in finding.reason
    }


@pytest.fixture
def messages():
    """The logged messages, in a list whose append is the log."""
    return []


# ---- a data folder ---------------------------------------------------------------------------------------------------


def test_planted_faults_are_in_the_table_and_on_the_sheet_and_the_folder_is_unchanged(planted, tmp_path, messages):
    before = tree(planted)
    result = check(planted, weights="random", sheets=tmp_path / "new" / "sheets", log=messages.append)
    assert tree(planted) == before
    rows = str(result).splitlines()
    assert rows[0] == f"{planted}: data, ants, bees, 22 photos, 1 skipped"
    for file, kind in (PLANTED | {"val/ants/cut.jpg": "skipped"}).items():
        assert [row for row in rows if row.split()[:2] == [kind, file]], f"{file} is not listed as {kind}"
    sheet = tmp_path / "new" / "sheets" / "check-photos.png"
    assert messages == [f"contact sheet written to {sheet}"]
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200


def test_the_result_has_classes_skipped_files_and_findings_and_can_be_written_as_json(planted):
    result = check(planted, weights="random")
    assert (result.path, result.kind, result.ok, result.error) == (str(planted), "data", True, None)
    assert (result.classes, result.used) == (("ants", "bees"), 22)
    (skipped,) = result.skipped
    assert skipped.file == "val/ants/cut.jpg"
    assert skipped.reason.startswith("a damaged photo")
    assert planted_in(result.findings) == PLANTED
    (leak,) = [finding for finding in result.findings if "hash" in finding.reason and finding.kind == "leak"]
    assert (leak.file, leak.other) == ("train/ants/leaked.jpg", "val/bees/drawn_bee_0007.jpg")
    record = json.loads(json.dumps(asdict(result)))
    assert record["findings"][0].keys() == {"kind", "file", "reason", "score", "other"}


def test_the_list_can_be_read_as_exclusions_and_names_the_images_that_mislead_training(
    planted, tmp_path, messages, unreachable
):
    check(planted, list=tmp_path / "list.txt", log=messages.append)
    excluded = read_exclusions(tmp_path / "list.txt")
    assert set(excluded) == {file for file, kind in PLANTED.items() if kind in UNWANTED}
    photos = read_folder(planted)
    cleaned = photos.without(excluded)
    assert set(photos.train.paths) - set(cleaned.train.paths) == {planted / file for file in excluded}
    assert cleaned.val == photos.val
    assert messages[-1] == f"list written to {tmp_path / 'list.txt'}"


def test_where_no_sheet_can_be_written_the_findings_stand_and_a_message_says_so(planted, tmp_path, messages):
    (tmp_path / "file").write_text("in the way")
    result = check(planted, weights="random", sheets=tmp_path / "file" / "sheets", log=messages.append)
    assert {finding.file for finding in result.findings} >= set(PLANTED)
    assert any("no contact sheet" in message and "--sheets" in message for message in messages)


def test_a_list_that_can_not_be_written_is_an_error_before_the_photos_are_read(planted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="file can't be made"):
        check(planted, list=tmp_path / "file" / "list.txt")


def test_of_a_folder_that_can_not_be_read_no_list_is_written(tmp_path):
    (tmp_path / "photos").mkdir()
    result = check(tmp_path / "photos", weights="random", list=tmp_path / "list.txt")
    assert not result.ok
    assert not (tmp_path / "list.txt").exists()


def test_a_list_is_only_made_of_a_data_folder(model_folder, tmp_path):
    with pytest.raises(InputError, match="is a model"):
        check(model_folder, list=tmp_path / "list.txt")
    assert not (tmp_path / "list.txt").exists()


def test_the_list_gives_the_reason_above_every_file_and_asks_a_person(planted, tmp_path, unreachable):
    check(planted, list=tmp_path / "list.txt")
    first, *lines = (tmp_path / "list.txt").read_text("utf-8").splitlines()
    assert first.startswith("# What train.py --exclude leaves out. Look at each")
    listed = list(zip(lines[::2], lines[1::2], strict=True))
    assert {file for _, file in listed} == {file for file, kind in PLANTED.items() if kind in UNWANTED}
    for reason, file in listed:
        is_mislabelled = file == "train/ants/leaked.jpg"  # a bee
        assert reason.startswith((f"# {PLANTED[file]}: ", "# label: ") if is_mislabelled else f"# {PLANTED[file]}: ")


@pytest.mark.parametrize("file", ["train/ants/drawn_ant_0002.jpg", "val/bees/drawn_bee_0010.jpg"])
def test_a_swapped_label_is_found_by_its_features_and_listed(tmp_path, monkeypatch, unreachable, file):
    root = tmp_path / "photos"
    counts = {"ants": 8, "bees": 8}
    write_drawn_set(root, train=counts, val=counts, longest_side=128)
    wrong = {"ants": "bees", "bees": "ants"}
    split, kind, name = file.split("/")
    (root / file).rename(root / split / wrong[kind] / name)

    def separable_features(split, *_):
        """A direction for each kind of insect, which the file's name tells, and noise."""
        noise = torch.randn(len(split), 8, generator=torch.Generator().manual_seed(0))
        true = torch.tensor([int("bee" in path.name) for path in split.paths])
        return 3 * torch.eye(8)[true] + 0.4 * noise

    monkeypatch.setattr(check_module, "features_of", separable_features)
    result = check(root, list=tmp_path / "list.txt")
    found = [finding for finding in result.findings if finding.kind == "label"]
    assert [finding.file for finding in found] == [f"{split}/{wrong[kind]}/{name}"]
    assert found[0].reason.startswith(f"looks like {kind} more than {wrong[kind]}")
    assert f"{split}/{wrong[kind]}/{name}" in read_exclusions(tmp_path / "list.txt")


def test_features_are_computed_from_the_evaluation_crop_of_the_networks_own_preprocessing(planted):
    photos = read_folder(planted)
    start = weights.load_starting_weights("random", "test_resnet")
    assert (start.preprocessing.crop, start.preprocessing.crop_pct) == (160, 0.95)
    features = check_module.features_of(photos.val, "test_resnet", start, ImageCache())
    network = build_network("test_resnet", 2, start, seed=0)
    assert (features.shape, features.dtype) == ((len(photos.val), head_of(network).in_features), torch.float32)
    ((images, _),) = ImageLoader(photos.val, start.preprocessing).batches([torch.arange(len(photos.val))])
    with torch.inference_mode():
        expected = pooled(network, feature_map(network, images))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)


def test_without_reachable_weights_features_of_the_packaged_network_are_compared_and_a_message_says_so(
    planted, messages, unreachable, monkeypatch
):
    compared, features_of = [], check_module.features_of

    def record(split, backbone, start, cache):
        compared.append((backbone, start.name, features_of(split, backbone, start, cache)))
        return compared[-1][-1]

    monkeypatch.setattr(check_module, "features_of", record)
    result = check(planted, log=messages.append)
    ((backbone, name, features),) = compared
    assert (backbone, name, features.shape) == (weights.PACKAGED, "imagenet", (22, 1280))
    assert planted_in(result.findings) == PLANTED
    (message,) = messages
    assert "EFFICIENTNET-LITE0" in message
    assert unreachable in message


def test_named_weights_that_are_unreachable_are_an_error(planted, unreachable):
    with pytest.raises(weights.WeightsUnreachableError, match=re.escape(unreachable)):
        check(planted, weights="imagenet")


def test_a_folder_of_models_is_not_taken_for_photos_and_its_models_are_named(model_folder):
    result = check(model_folder.parent, weights="random")
    assert (result.kind, result.ok) == ("data", False)
    assert result.error == f"{model_folder.parent} holds models, not photos: name them, {model_folder}"


def test_a_missing_folder_is_found_before_weights_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(check_module, "choose_network", None)  # calling it would fail
    assert "none is not there" in check(tmp_path / "none").error


def test_a_flawless_folder_has_no_findings_and_no_sheet(tmp_path, unreachable):
    counts = {"ants": 2, "bees": 2}
    root = write_drawn_set(tmp_path / "fine", train=counts, val=counts, longest_side=192)
    assert str(check(root, sheets=tmp_path / "sheets")) == f"{root}: data, ants, bees, 8 photos: nothing found"
    assert not (tmp_path / "sheets").exists()


def test_files_of_a_folder_without_val_are_named_relative_to_the_folder(tmp_path, unreachable):
    for kind in ("ants", "bees"):
        (tmp_path / "flat" / kind).mkdir(parents=True)
        for seed in range(4):
            draw(kind, seed, 192).save(tmp_path / "flat" / kind / f"{seed}.png")
    Image.new("RGB", (200, 160), "white").save(tmp_path / "flat" / "bees" / "blank.png")
    result = check(tmp_path / "flat")
    assert [(finding.kind, finding.file) for finding in result.findings] == [("placeholder", "bees/blank.png")]
    assert result.used == 9


def test_names_of_files_and_classes_can_not_add_lines_to_the_table(tmp_path, unreachable):
    for kind in ("ants\nfake: data", "bees"):
        (tmp_path / "odd" / kind).mkdir(parents=True)
        for seed in range(2):
            draw("ants" if "ants" in kind else "bees", seed, 192).save(tmp_path / "odd" / kind / f"{seed}.png")
    Image.new("RGB", (200, 160), "white").save(tmp_path / "odd" / "bees" / "bla\nnk.png")
    result = check(tmp_path / "odd", sheets=tmp_path / "sheets")
    assert len(str(result).splitlines()) == 2
    assert (tmp_path / "sheets" / "check-odd.png").exists()


def test_over_a_tenth_of_damaged_files_is_an_error_unless_allowed(tmp_path, unreachable):
    root = write_drawn_set(tmp_path / "bad", train={"ants": 4, "bees": 4}, val={"ants": 2, "bees": 2}, longest_side=64)
    for path in sorted((root / "train" / "ants").iterdir())[:2]:
        path.write_bytes(b"no photo")
    result = check(root)
    assert not result.ok
    assert "over a tenth" in result.error
    assert check(root, allow_bad=True).ok


# ---- a picture, a model folder ---------------------------------------------------------------------------------------


def test_a_pictures_own_faults_are_found(tmp_path):
    draw("bees", 0, 60).save(tmp_path / "tiny.png")
    draw("bees", 0, 192).save(tmp_path / "fine.png")
    first, finding = str(check(tmp_path / "tiny.png")).splitlines()
    assert first.startswith(f"{tmp_path / 'tiny.png'}: picture")
    assert finding.split()[:2] == ["tiny", "tiny.png"]
    assert str(check(tmp_path / "fine.png")) == f"{tmp_path / 'fine.png'}: picture, 1 photo: nothing found"


def test_of_a_model_the_classes_and_the_number_of_images_of_its_detector_are_given(model_folder):
    result = check(model_folder)
    assert (result.kind, result.ok, result.classes, result.used) == ("model", True, ("ants", "bees"), 5)
    assert result.findings == result.skipped == ()


@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "fc.bias", "bn1.running_var"])
def test_a_model_with_nan_in_its_weights_can_not_be_used(model_folder, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    state = load_file(broken / "model.safetensors")
    state[name].view(-1)[0] = float("nan")
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    result = check(broken)
    assert (result.kind, result.ok) == ("model", False)
    assert f"{name} has numbers that are NaN or infinite" in result.error


def test_a_model_folder_without_weights_can_not_be_used(model_folder, tmp_path):
    (tmp_path / "half").mkdir()
    shutil.copy(model_folder / "config.json", tmp_path / "half")
    result = check(tmp_path / "half")
    assert (result.kind, result.ok) == ("model", False)
    assert "model.safetensors" in result.error


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("none", "data", "none is not there"),
        ("text.jpg", "picture", "not a photo that can be read"),
        ("empty", "data", "no class folder"),
        ("model.safetensors", "model", "name its folder"),
    ],
)
def test_what_can_not_be_used_is_a_result_with_the_reason(tmp_path, unreachable, name, kind, error):
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty").mkdir()
    result = check(tmp_path / name)
    assert (result.kind, result.ok) == (kind, False)
    assert error in result.error
    assert str(result).startswith(f"{tmp_path / name}: {kind}, can't be used: ")
