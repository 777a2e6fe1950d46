"""A data folder is read as ImageFolder reads it, and every file that can't be used is listed with the reason."""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_folders import encoded, photo_bytes, small_set, write_set
from PIL import Image
from torchvision.datasets import ImageFolder

from antbee.data.digest import folder_digest
from antbee.data.download import HYMENOPTERA_DIGEST
from antbee.data.drawn import draw
from antbee.data.folder import (
    ImageDataset,
    Split,
    read_folder,
    read_folder_of,
    refuse_damaged,
    stratified_split,
)
from antbee.data.images import DataError


def names(split: Split) -> list[str]:
    """The class folder and the name of every file."""
    return [f"{path.parent.name}/{path.name}" for path in split.paths]


def skipped(folder: ImageDataset) -> dict[str, str]:
    """The reason for every file that is skipped."""
    return {entry.file: entry.reason for entry in folder.skipped}


# ---------------------------------------------------------------------------------------------------------------------
# The classes


def test_both_splits_equal_what_image_folder_reads(drawn_root: Path) -> None:
    folder = read_folder(drawn_root)
    assert (folder.name, folder.root, folder.split) == ("drawn", drawn_root, "val/ folder")
    assert folder.class_names == ("ants", "bees")
    assert folder.skipped == ()
    for split, name in ((folder.train, "train"), (folder.val, "val")):
        samples = ImageFolder(drawn_root / name).samples
        assert [(str(path), label) for path, label in zip(split.paths, split.labels, strict=True)] == samples
    assert folder.train.counts(folder.class_names) == {"ants": 12, "bees": 12}
    assert folder.val.counts(folder.class_names) == {"ants": 8, "bees": 8}


def test_class_indices_follow_the_sorted_class_names(tmp_path: Path) -> None:
    kinds = ["wasps", "ants", "hover flies", "bees"]
    counts = {f"{split}/{kind}": 2 for split in ("train", "val") for kind in kinds}
    folder = read_folder(write_set(tmp_path, counts))
    assert folder.class_names == ("ants", "bees", "hover flies", "wasps")
    assert folder.train.labels == folder.val.labels == (0, 0, 1, 1, 2, 2, 3, 3)
    assert [path.parent.name for path in folder.val.paths[::2]] == list(folder.class_names)


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ({"train/ants": 1, "train/bees": 1, "val/ants": 1}, "val/bees is not there, but "),
        ({"train/ants": 1, "train/bees": 1, "val/ants": 1, "val/bees": 1, "val/wasps": 1}, "val/wasps is a class"),
        ({"train/ants": 1, "train/bees": 0, "val/ants": 1, "val/bees": 1}, "train/bees has no photo that can be used"),
        ({"train/ants": 1, "train/bees": 1, "val/ants": 0, "val/bees": 1}, "val/ants has no photo that can be used"),
        ({"train/ants": 2, "val/ants": 1}, "train has 1 class folder (ants): expected"),
        ({"ants": 2}, " has 1 class folder (ants): expected"),
        ({"ants": 2, " ": 2}, "has a class folder whose name is blank, ' ': rename it"),
        ({"ants": 2, "bees": 0}, "bees has no photo that can be used"),
        ({"ants": 2, "bees": 1}, "class bees has a single photo"),
        ({"val/ants": 1, "val/bees": 1}, " has val/ but no train/"),
        ({".": 3}, " has no class folder: expected"),
        ({"train": 3, "val": 3}, "train has no class folder"),
    ],
)
def test_an_error_about_the_classes_names_the_folder(tmp_path: Path, counts: dict[str, int], named: str) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    if "." in counts:
        (root / "photo.jpg").write_bytes(photo_bytes())
    else:
        write_set(root, counts)
    with pytest.raises(DataError, match=re.escape(named)) as caught:
        read_folder(root)
    assert "class bees" in named or str(root) in str(caught.value)


def test_a_class_with_damaged_photos_only_is_an_error_that_names_its_folder(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "val/ants/000.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=re.escape(f"{root / 'val' / 'ants'} has no photo that can be used")):
        read_folder(root)


def test_a_class_whose_photos_are_links_that_are_not_followed_says_so_and_how_to_follow_them(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    (root / "val/ants/000.jpg").rename(tmp_path / "pool.jpg")
    (root / "val/ants/000.jpg").symlink_to(tmp_path / "pool.jpg")
    with pytest.raises(DataError, match=r"such as 000\.jpg: a link that leads out of the folder: .*--follow-links"):
        read_folder(root)
    assert len(read_folder(root, follow_links=True).val) == 3


def test_an_error_about_another_path_shows_the_expected_layout(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"PK")
    nowhere = [(tmp_path / name, "is not there: expected") for name in ("nowhere", "nowhere.zip")]
    for root, reason in (*nowhere, (archive, "is not a folder: unpack it first")):
        with pytest.raises(DataError, match=f"{re.escape(str(root))} {reason}.*DIR/train/CLASS"):
            read_folder(root)


ODD_NAMES = ("$fire$ ants", "蜜蜂", "<b>bees", "two\nlines", "-rf", "%s {0}", "Bees 🐝", "RTL\u202eseeb")


@pytest.mark.parametrize("layout", ["", "train"])
def test_unusual_class_names_are_kept_unchanged(tmp_path: Path, layout: str) -> None:
    splits = ["train", "val"] if layout else ["."]
    folder = read_folder(write_set(tmp_path, {f"{split}/{name}": 2 for split in splits for name in ODD_NAMES}))
    assert folder.class_names == tuple(sorted(ODD_NAMES))
    assert set(folder.val.labels) == set(range(len(ODD_NAMES)))


def test_class_names_that_are_not_unicode_can_be_split_and_digested(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    try:
        write_set(tmp_path, {odd: 3, "bees": 3})
    except OSError:
        pytest.skip("this file system accepts Unicode names only")
    folder = read_folder(tmp_path)
    assert folder.class_names == ("bees", odd)
    assert len(folder.digest) == 64


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".git", "__MACOSX", "__pycache__", "@eaDir"])
def test_hidden_folders_are_no_classes_and_are_listed_if_they_hold_photos(tmp_path: Path, hidden: str) -> None:
    root = small_set(tmp_path)
    write_set(root, {f"train/{hidden}": 2, f"train/ants/{hidden}/deeper": 1, f"val/{hidden}": 0})
    (root / "val" / hidden / "._000.jpg").write_bytes(b"")
    folder = read_folder(root)
    assert folder.class_names == ("ants", "bees")
    assert len(folder.train) == 5
    assert skipped(folder) == {
        f"train/{hidden}": "a hidden folder with 2 photos: move them out to use them",
        f"train/ants/{hidden}": "a hidden folder with 1 photo: move them out to use them",
    }


def test_hidden_folders_do_not_change_the_digest(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    before = read_folder(root).digest
    write_set(root, {"train/__MACOSX": 1, "train/ants/.cache": 1})
    assert read_folder(root).digest == before


@pytest.mark.parametrize("name", ["__ants", "_ants", "__", "eaDir"])
def test_a_class_name_may_begin_with_underscores(tmp_path: Path, name: str) -> None:
    folder = read_folder(write_set(tmp_path, {name: 2, "bees": 2}))
    assert set(folder.class_names) == {name, "bees"}
    assert folder.skipped == ()


def test_a_hidden_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    write_set(tmp_path / "other", {"": 1})
    for folder in (root / "train", root / "train" / "ants"):
        (folder / ".link").symlink_to(tmp_path / "other", target_is_directory=True)
    assert list(skipped(read_folder(root))) == ["train/ants/.link"]


# ---------------------------------------------------------------------------------------------------------------------
# Splitting without val/


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_val_folder_a_fifth_of_each_class_becomes_the_validation_split(tmp_path: Path, prefix: str) -> None:
    root = write_set(tmp_path, {f"{prefix}ants": 10, f"{prefix}bees": 25, f"{prefix}wasps": 2})
    folder = read_folder(root)
    assert folder.split == "20% of each class, drawn with seed 0"
    assert folder.val.counts(folder.class_names) == {"ants": 2, "bees": 5, "wasps": 1}
    assert folder.train.counts(folder.class_names) == {"ants": 8, "bees": 20, "wasps": 1}
    assert set(folder.train.paths).isdisjoint(folder.val.paths)
    assert [path.parent.name for path in folder.val.paths] == [folder.class_names[label] for label in folder.val.labels]


def test_the_split_is_repeatable_and_differs_for_another_seed(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants": 10, "bees": 10})
    torch.manual_seed(1)
    first, again, other = (read_folder(root, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert names(first.val) != names(other.val)
    assert other.split.endswith("seed 1")


def test_the_split_of_a_class_depends_neither_on_other_classes_nor_on_the_location(tmp_path: Path) -> None:
    small = read_folder(write_set(tmp_path / "small", {"bees": 10, "wasps": 3}))
    large = read_folder(write_set(tmp_path / "large", {"ants": 30, "bees": 10, "wasps": 3}))
    assert [name for name in names(large.val) if "ants" not in name] == names(small.val)


@pytest.mark.parametrize(("val_share", "count"), [(0.0, 1), (0.5, 2), (1.0, 3)])
def test_each_class_has_a_photo_in_both_splits_for_any_fraction(tmp_path: Path, val_share: float, count: int) -> None:
    folder = read_folder(write_set(tmp_path, {"ants": 4, "bees": 4}), val_share=val_share)
    assert folder.val.counts(folder.class_names) == {"ants": count, "bees": count}
    assert folder.train.counts(folder.class_names) == {"ants": 4 - count, "bees": 4 - count}


# ---------------------------------------------------------------------------------------------------------------------
# Skipped files


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("imageNotFound.gif", encoded(Image.new("RGB", (8, 8)), "GIF"), "a GIF, which is not trained on"),
        ("notes.txt", b"notes", "a .txt file, not a photo"),
        ("notes", b"notes", "a file without an extension, not a photo"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0", "HEIC, a format that is not read: export it as JPEG"),
        (".DS_Store", b"\0", "a hidden file"),
        ("._photo.jpg", b"\0\5\x16\7", "a hidden file"),
        ("cut.jpg", encoded(draw("ants", 0, 64))[:-400], "a damaged photo"),
        ("cut.png", encoded(draw("ants", 0, 64), "PNG")[:-400], "a damaged photo"),
        ("page.jpg", b"<html>404</html>", "not a photo that can be read"),
        ("empty.jpeg", b"", "an empty file: copy it again"),
        ("empty.heic", b"", "an empty file: copy it again"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0", "not a photo that can be read (it is HEIC"),
    ],
)
def test_an_unusable_file_is_listed_with_the_reason_and_the_others_are_used(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    root = small_set(tmp_path)
    (root / "train" / "bees" / name).write_bytes(content)
    folder = read_folder(root)
    assert list(skipped(folder)) == [f"train/bees/{name}"]
    assert skipped(folder)[f"train/bees/{name}"].startswith(reason)
    assert folder.train.counts(folder.class_names) == {"ants": 3, "bees": 2}


def test_a_photo_with_the_extension_of_another_format_is_used(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees/really_png.JPG").write_bytes(encoded(Image.new("RGB", (8, 8)), "PNG"))
    (root / "train/bees/really_gif.jpg").write_bytes(encoded(Image.new("RGB", (8, 8)), "GIF"))
    assert len(read_folder(root).train) == 7


def test_a_photo_outside_the_class_folders_is_listed(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train" / "stray.jpg").write_bytes(photo_bytes())
    assert skipped(read_folder(root)) == {"train/stray.jpg": "not in a class folder: move it into one"}


def test_pipes_devices_and_links_out_of_the_folder_are_listed_without_being_read(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    bees = root / "train" / "bees"
    (bees / "nothing.jpg").symlink_to(root / "gone.jpg")
    (bees / "round").symlink_to(bees, target_is_directory=True)
    (bees / "self.jpg").symlink_to("self.jpg")
    (bees / "endless.jpg").symlink_to("/dev/zero")
    (bees / "outside.jpg").symlink_to(write_set(tmp_path / "other", {"": 1}) / "000.jpg")
    (bees / "inside.jpg").symlink_to(root / "val/bees/000.jpg")
    os.mkfifo(bees / "pipe.jpg")
    folder = read_folder(root)
    refused = ("endless.jpg", "nothing.jpg", "outside.jpg", "pipe.jpg", "round", "self.jpg")
    assert sorted(skipped(folder)) == [f"train/bees/{name}" for name in refused]
    assert all("copy" in reason or "remove it" in reason for reason in skipped(folder).values())
    assert len(folder.train) == 6
    assert folder.leaked == 3, "the link, and the two other validation photos, which small_set writes the same"


def test_a_training_photo_with_the_bytes_of_one_of_another_class_is_named_after_it(tmp_path: Path) -> None:
    root = write_set(tmp_path / "photos", {"train/ants": 1, "train/bees": 1, "val/ants": 1, "val/bees": 1})
    train = root / "train"
    assert read_folder(root).contradictory == ((train / "ants/000.jpg", train / "bees/000.jpg"),)
    (train / "bees/000.jpg").write_bytes(photo_bytes(7))
    (train / "ants/again.jpg").write_bytes(photo_bytes(0))
    assert read_folder(root).contradictory == (), "of one class, or in another split"


@pytest.mark.parametrize("target", [".", "..", "ants"])
def test_a_class_folder_that_is_a_link_into_the_data_folder_is_refused(tmp_path: Path, target: str) -> None:
    root = small_set(tmp_path)
    (root / "train" / "loop").symlink_to(target, target_is_directory=True)
    with pytest.raises(DataError, match=r"train/loop is a link into the data folder itself.*remove it"):
        read_folder(root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_an_unreadable_class_folder_is_an_error_that_says_how_to_make_it_readable(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees").chmod(0)
    for folder in (*tmp_path.parents[:3], tmp_path):  # the third is a worker's of several
        folder.chmod(folder.stat().st_mode | 0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"train/bees can't be read \(Permission denied\): run chmod u\+rx on it"):
            read_folder(root)
    finally:
        os.seteuid(0)


def test_more_than_a_tenth_of_damaged_photos_in_a_class_is_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"train/ants": 9, "train/bees": 3, "val/ants": 1, "val/bees": 1})
    (root / "train/ants/cut.jpg").write_bytes(photo_bytes()[:-100])
    (root / "val/ants/cut.jpg").write_bytes(photo_bytes()[:-100])  # a single one is never refused
    (root / "train/ants/notes.txt").write_bytes(b"not named as a photo")
    refuse_damaged(read_folder(root))
    (root / "train/ants/html.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"train/ants: 2 of 11 photos can't be used.*cut\.jpg \(a damaged.*--allow-bad"):
        refuse_damaged(read_folder(root))


def test_damaged_photos_are_counted_by_class_whatever_folders_they_are_in(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants/few": 5, "ants/many": 40, "bees": 40})
    for number in range(2):
        (root / f"ants/few/cut-{number}.jpg").write_bytes(photo_bytes()[:-100])
    refuse_damaged(read_folder(root))
    rows = [f"{path.relative_to(root)},{'ants' if 'few' in str(path) else 'bees'}" for path in root.rglob("*.jpg")]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    with pytest.raises(DataError, match=r"ants: 2 of 7 photos can't be used"):
        refuse_damaged(read_folder(root))


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    (root / "val/bees").rename(tmp_path / "elsewhere")
    (root / "val/bees").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(read_folder(root).val) == 3


# ---------------------------------------------------------------------------------------------------------------------
# The digest


def test_the_digest_is_that_of_the_sorted_list_of_checksums(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees/notes.txt").write_text("notes")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    lines = "".join(f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert folder_digest(root) == read_folder(root).digest == expected


def test_the_digest_depends_on_content_and_names_but_not_on_the_location(tmp_path: Path) -> None:
    root = small_set(tmp_path / "here")
    before = read_folder(root).digest
    assert read_folder(Path(shutil.copytree(root, tmp_path / "there"))).digest == before
    (root / "val/ants/000.jpg").rename(root / "val/ants/renamed.jpg")
    renamed = read_folder(root).digest
    (root / "train/bees/notes.txt").write_text("")
    assert len({before, renamed, read_folder(root).digest}) == 3


def test_the_real_photos_are_the_published_data_set(real_photos: Path) -> None:
    folder = read_folder(real_photos)
    assert (len(folder.train), len(folder.val)) == (244, 153)
    assert folder.class_names == ("ants", "bees")
    assert folder.train.counts(folder.class_names) == {"ants": 123, "bees": 121}
    assert folder.val.counts(folder.class_names) == {"ants": 70, "bees": 83}
    assert {Path(file).name for file in skipped(folder)} == {"imageNotFound.gif"}
    assert folder.digest == HYMENOPTERA_DIGEST


# ---------------------------------------------------------------------------------------------------------------------
# Subsets and exclusions


def test_a_subset_has_the_images_at_the_positions_in_their_order(tmp_path: Path) -> None:
    split = read_folder(small_set(tmp_path)).train
    subset = split.subset(iter([4, 0, 0]))
    assert subset == Split((split.paths[4], split.paths[0], split.paths[0]), (1, 0, 0), ("ants", "bees"))
    assert split.subset([]) == Split((), (), ("ants", "bees"))
    assert split.subset(range(len(split))) == split


def test_names_are_relative_to_the_data_folder_with_slashes(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    assert folder.val.names(tmp_path) == ["val/ants/000.jpg", "val/bees/000.jpg", "val/bees/001.jpg"]
    flat = read_folder(tmp_path / "train")
    assert sorted([*flat.train.names(flat.root), *flat.val.names(flat.root)]) == [
        *(f"ants/{number:03d}.jpg" for number in range(3)),
        *(f"bees/{number:03d}.jpg" for number in range(2)),
    ]


def test_labels_in_the_order_of_a_model_index_its_class_names(tmp_path: Path) -> None:
    split = read_folder(small_set(tmp_path)).train
    assert split.class_names == ("ants", "bees")
    reordered = split.in_order_of(["bees", "ants"])
    assert reordered == Split(split.paths, (1, 1, 1, 0, 0), ("bees", "ants"))
    assert reordered.in_order_of(split.class_names) == split


@pytest.mark.parametrize("others", [["ants"], ["ants", "wasps"]])
def test_a_split_can_not_be_put_in_the_order_of_other_classes(tmp_path: Path, others: list[str]) -> None:
    with pytest.raises(DataError, match=f"have the classes ants, bees, the model {', '.join(others)}: name a folder"):
        read_folder(small_set(tmp_path)).val.in_order_of(others)


def test_a_split_may_lack_some_of_a_models_classes(tmp_path: Path) -> None:
    split = read_folder(small_set(tmp_path)).val.in_order_of(["wasps", "bees", "ants"])
    assert (split.labels, split.class_names) == ((2, 1, 1), ("wasps", "bees", "ants"))


def test_every_split_knows_its_class_names(tmp_path: Path) -> None:
    for root in (small_set(tmp_path), tmp_path / "train"):
        folder = read_folder(root)
        splits = [folder.train, folder.val, folder.all, folder.train.subset([0]), folder.without([]).train]
        assert {split.class_names for split in splits} == {("ants", "bees")}


def test_a_folder_read_for_a_model_has_the_labels_of_the_model_and_no_other_classes(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    folder = read_folder_of(root, ["bees", "ants"])
    assert folder.class_names == folder.train.class_names == folder.val.class_names == ("bees", "ants")
    assert (folder.train.labels, folder.val.labels) == ((1, 1, 1, 0, 0), (1, 0, 0))
    with pytest.raises(DataError, match=rf"{re.escape(str(root))}: .*classes ants, bees, the model cats, dogs.*rename"):
        read_folder_of(root, ["cats", "dogs"])


def numbered(labels: Sequence[int]) -> Split:
    return Split(tuple(Path(f"{number:03d}.jpg") for number in range(len(labels))), tuple(labels))


def test_a_stratified_split_keeps_the_order_and_the_fraction_of_every_class() -> None:
    split = numbered([0, 1] * 10 + [1] * 20)
    rest, drawn = stratified_split(split, ("ants", "bees"), 0, 0.3)
    assert drawn.counts(("ants", "bees")) == {"ants": 3, "bees": 9}
    assert sorted([*rest.paths, *drawn.paths]) == list(split.paths)
    for side in (rest, drawn):
        assert list(side.paths) == sorted(side.paths)
        assert [split.labels[split.paths.index(path)] for path in side.paths] == list(side.labels)


def test_a_stratified_split_depends_on_the_seed_alone() -> None:
    split = numbered([0, 1] * 20)
    drawn = [stratified_split(split, ("ants", "bees"), seed, 0.5) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_class_with_a_single_photo_can_not_be_split() -> None:
    with pytest.raises(DataError, match="class bees has a single photo: two are needed"):
        stratified_split(numbered([0, 0, 1]), ("ants", "bees"), 0, 0.5)


def test_excluded_photos_leave_the_training_split_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    less = folder.without(["val/bees/001.jpg", "train/ants/001.jpg", "train/ants/001.jpg"])
    assert names(less.train) == ["ants/000.jpg", "ants/002.jpg", "bees/000.jpg", "bees/001.jpg"]
    assert less.train.labels == (0, 0, 1, 1)
    assert less.excluded == ("train/ants/001.jpg", "val/bees/001.jpg")
    assert replace(less, train=folder.train, excluded=()) == folder


def test_the_validation_split_keeps_excluded_photos_and_cleaned_leaves_them_out(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    assert folder.cleaned == [0, 1, 2]
    less = folder.without(["val/bees/000.jpg", "train/bees/000.jpg"])
    assert less.val == folder.val
    assert less.cleaned == [0, 2]
    assert names(less.val.subset(less.cleaned)) == ["ants/000.jpg", "bees/001.jpg"]


def test_excluding_nothing_changes_nothing(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    assert folder.without([]) == folder


def test_a_skipped_file_may_be_excluded_too(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train" / "bees" / "cut.jpg").write_bytes(b"no photo")
    folder = read_folder(root)
    assert folder.without(["train/bees/cut.jpg"]).train == folder.train


@pytest.mark.parametrize("unknown", ["train/ants/999.jpg", "ants/000.jpg", "train/ants", "./train/ants/000.jpg"])
def test_an_unknown_name_is_refused_with_an_example_of_a_known_one(tmp_path: Path, unknown: str) -> None:
    folder = read_folder(small_set(tmp_path))
    with pytest.raises(DataError, match=rf"no photo {re.escape(unknown)} in .*such as train/ants/000\.jpg"):
        folder.without(["train/ants/000.jpg", unknown])


def test_a_class_may_not_be_excluded_entirely(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    with pytest.raises(DataError, match="every training photo of bees is excluded: keep some"):
        folder.without(["train/bees/000.jpg", "train/bees/001.jpg"])


def test_where_there_are_no_class_folders_but_a_table_the_error_says_how_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo_bytes())
    (tmp_path / "photos.csv").write_text("file_name,label\n")
    with pytest.raises(
        DataError, match=r"no class folder: .*; if photos\.csv says the classes, name it: .*photos\.csv"
    ):
        read_folder(tmp_path)
