"""Which folders of a data folder are splits and which are classes is told by their usual names, or asked for."""

import shutil
import unicodedata
from pathlib import Path

import pytest
from data_folders import photo_bytes, small_set, write_set

from antbee.data.folder import read_folder, read_splits
from antbee.data.images import DataError
from antbee.data.layout import layout_of, split_named


def splits_of(root: Path) -> dict[str | None, int]:
    """The number of photos of each split, as training sees them."""
    return {name: len(split) for name, split in read_folder(root).splits.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "dev", "eval"),
    ],
)
def test_the_usual_names_of_splits_are_known_in_any_case(tmp_path: Path, train: str, val: str, test: str) -> None:
    counts = {f"{split}/{name}": 2 for split in (train, val, test) for name in ("ants", "bees")}
    dataset = read_folder(write_set(tmp_path, counts))
    assert dataset.class_names == ("ants", "bees")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert dataset.split == f"{val}/ folder"


def test_the_splits_have_one_order_wherever_they_are_read(tmp_path: Path) -> None:
    root = write_set(tmp_path, {f"{split}/{name}": 2 for split in ("test", "val", "train") for name in ("a", "b")})
    assert layout_of(root).splits == ["train", "val", "test"]
    assert list(read_splits(root, ["a", "b"]).splits) == list(read_folder(root).splits) == ["train", "val", "test"]


def test_with_a_test_split_and_no_val_split_the_latter_is_drawn_from_train(tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 10 for split in ("Train", "Test") for name in ("ants", "bees")}
    dataset = read_folder(write_set(tmp_path, counts))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "val": 4, "test": 20}
    assert {path.parts[-3] for path in dataset.val.paths} == {"Train"}
    assert {path.parts[-3] for path in dataset.test.paths} == {"Test"}


def test_two_folders_of_one_split_are_an_error_that_names_both(tmp_path: Path) -> None:
    root = write_set(tmp_path, {f"{split}/{name}": 1 for split in ("train", "val", "Valid") for name in ("a", "b")})
    with pytest.raises(DataError, match="Valid/ and val/, which both name its val split: put them together"):
        read_folder(root)


def test_folders_beside_the_splits_are_named_as_not_used(tmp_path: Path) -> None:
    root = write_set(small_set(tmp_path), {"extra/ants": 3, "images": 2})
    skipped = {entry.file: entry.reason for entry in read_folder(root).skipped}
    assert list(skipped) == ["extra", "images"]
    assert "a folder beside train/, val/, which is not used" in skipped["extra"]


def test_a_split_beside_class_folders_without_a_training_split_is_an_error(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants": 2, "bees": 2, "test": 2})
    with pytest.raises(DataError, match=r"test is named as a split, but lies beside ants/ .* or rename test"):
        read_folder(root)


def test_split_folders_in_class_folders_are_the_same_data_set(tmp_path: Path) -> None:
    counts = {"ants/train": 3, "ants/test": 2, "bees/Train": 2, "bees/val": 1, "bees/test": 1, "ants/val": 1}
    dataset = read_folder(write_set(tmp_path, counts))
    assert dataset.class_names == ("ants", "bees")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 5, "val": 2, "test": 3}
    assert dataset.train.counts(dataset.class_names) == {"ants": 3, "bees": 2}


def test_a_class_without_a_training_split_among_others_with_one_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants/train": 2, "ants/test": 2, "bees": 2})
    with pytest.raises(DataError, match=r"ants/train is named as a split, but .*bees/train is not there"):
        read_folder(root)


def test_what_lies_beside_the_splits_of_a_class_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants/train": 2, "ants/val": 2, "bees/train": 2, "bees/val": 2})
    (root / "ants" / "stray.jpg").write_bytes(photo_bytes())
    write_set(root, {"bees/extra": 2})
    (root / "notes.txt").write_text("notes")
    skipped = {entry.file: entry.kind for entry in read_folder(root).skipped}
    assert skipped == {
        "bees/extra": "a folder beside train/, val/, which is not used",
        "notes.txt": "a file beside the class folders",
        "ants/stray.jpg": "not in a class folder",
    }


def test_class_names_are_compared_in_one_normalisation_form(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "abeille dorée") for form in ("NFC", "NFD"))
    root = write_set(tmp_path, {f"train/{composed}": 2, f"val/{decomposed}": 1, "train/bees": 2, "val/bees": 1})
    dataset = read_folder(root)
    assert dataset.class_names == (composed, "bees")
    assert dataset.val.counts(dataset.class_names) == {composed: 1, "bees": 1}


def test_a_test_split_may_lack_classes_but_has_no_others(tmp_path: Path) -> None:
    root = write_set(small_set(tmp_path), {"test/bees": 2})
    assert splits_of(root) == {"train": 5, "val": 3, "test": 2}
    write_set(root, {"test/wasps": 1})
    with pytest.raises(DataError, match=r"test/wasps is a class that .*train doesn't have"):
        read_folder(root)


def test_an_output_folder_is_no_class(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants": 5, "bees": 5})
    run = root / "outputs" / ".training"
    run.mkdir(parents=True)
    (run / "antbee.txt").write_text("")
    assert read_folder(root).class_names == ("ants", "bees")


def test_photos_are_told_by_content_and_a_gif_is_not_trained_on(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    for name in ("a.JPG", "b.jfif", "c.jpe", "d"):
        (root / "train/ants" / name).write_bytes(photo_bytes())
    assert splits_of(root)["train"] == 5 + 4


def test_photos_linked_into_the_hubs_cache_are_read_and_other_links_out_are_not(tmp_path: Path) -> None:
    download = tmp_path / "datasets--user--name"
    root = download / "snapshots" / "0123abc"
    (download / "blobs").mkdir(parents=True)
    shutil.copytree(small_set(tmp_path / "photos"), root)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.rename(download / "blobs" / str(number))
        path.symlink_to(download / "blobs" / str(number))
    assert splits_of(root) == {"train": 5, "val": 3}
    (root / "train/ants/out.jpg").symlink_to(tmp_path / "photos/train/ants/000.jpg")
    assert [entry.kind for entry in read_folder(root).skipped] == ["a link that leads out of the folder"]
    layout = layout_of(root, follow_links=True)
    assert len(read_folder(root, layout=layout).train) == 6


@pytest.mark.parametrize("name", ["ants", "trains", "my val", "Tests", ""])
def test_other_names_are_no_splits(name: str) -> None:
    assert split_named(name) is None


# ---- to be evaluated on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"ants": 3, "bees": 1}, {None: 4}),
        ({"bees": 2}, {None: 2}),
        ({"test/ants": 1, "test/bees": 0}, {"test": 1}),
        ({"val/ants": 1}, {"val": 1}),
        ({"train/ants": 2, "Testing/bees": 1}, {"train": 2, "test": 1}),
    ],
)
def test_any_splits_and_any_of_the_classes_can_be_evaluated_on(
    tmp_path: Path, counts: dict[str, int], expected: dict[str | None, int]
) -> None:
    found = read_splits(write_set(tmp_path, counts), ["bees", "ants"])
    assert {name: len(split) for name, split in found.splits.items()} == expected
    assert all(split.class_names == ("bees", "ants") for split in found.splits.values())


def test_a_folder_to_evaluate_on_has_photos_and_no_other_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the model cats, dogs: name a folder of the model's classes, or rename"):
        read_splits(write_set(tmp_path / "other", {"ants": 1}), ["cats", "dogs"])
    with pytest.raises(DataError, match="has no photo that can be used"):
        read_splits(write_set(tmp_path / "empty", {"test/ants": 0}), ["ants", "bees"])
