"""A folder is read as it is, its photos come as batches however they are loaded, and no download is half there."""

import dataclasses
import hashlib
import io
import os
import re
import shutil
import socket
import socketserver
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from antbee.data import download
from antbee.data import folder as data_folder
from antbee.data import loading as data_loading
from antbee.data.download import HYMENOPTERA_DIGEST, DownloadError, drawn_folder, hymenoptera_folder
from antbee.data.drawn import draw
from antbee.data.folder import ImageDataset, Split, divide, folder_digest, read_exclusions, read_folder, refuse_damaged
from antbee.data.images import DataError, open_photo
from antbee.data.loading import ImageCache, ImageLoader, LoaderOptions, keep_checked
from antbee.data.seeds import derived_seed, seeded_generator
from antbee.data.transforms import Augmentation, Preprocessing

RED, GREY = (200, 30, 40), (120, 120, 120)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photo_bytes(shade: int = 0) -> bytes:
    return encoded(Image.new("RGB", (8, 8), (shade % 256, 90, 60)))


def write_set(root: Path, counts: dict[str, int]) -> Path:
    """So many small photos in each folder below `root`."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number:03d}.jpg").write_bytes(photo_bytes(number))
    return root


def small_set(root: Path) -> Path:
    return write_set(root, {"train/ants": 3, "train/bees": 2, "val/ants": 1, "val/bees": 2})


def names(split: Split) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in split.paths]


def skipped(folder: ImageDataset) -> dict[str, str]:
    return {entry.file: entry.reason for entry in folder.skipped}


# ---------------------------------------------------------------------------------------------------------------------
# The classes


def test_both_splits_are_what_image_folder_reads_with_one_class_list(drawn_root: Path) -> None:
    folder = read_folder(drawn_root)
    assert (folder.name, folder.root, folder.split) == ("drawn", drawn_root, "val/ folder")
    assert folder.class_names == ("ants", "bees")
    assert folder.skipped == ()
    for split, name in ((folder.train, "train"), (folder.val, "val")):
        samples = ImageFolder(drawn_root / name).samples
        assert [(str(path), label) for path, label in zip(split.paths, split.labels, strict=True)] == samples
    assert folder.train.counts(folder.class_names) == {"ants": 12, "bees": 12}
    assert folder.val.counts(folder.class_names) == {"ants": 8, "bees": 8}


def test_three_classes_and_more_are_numbered_by_name(tmp_path: Path) -> None:
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
        ({"train/ants": 2, "val/ants": 1}, "train has 1 class folder"),
        ({"ants": 2}, " has 1 class folder"),
        ({"ants": 2, " ": 2}, "has a class folder whose name is blank, ' ': rename it"),
        ({"ants": 2, "bees": 0}, "bees has no photo that can be used"),
        ({"ants": 2, "bees": 1}, "class bees has a single photo"),
        ({"val/ants": 1, "val/bees": 1}, " has val/ but no train/"),
        ({".": 3}, " has 0 class folder"),
        ({"train": 3, "val": 3}, "train has 0 class folder"),
    ],
)
def test_class_lists_that_do_not_fit_are_named_by_their_folder(
    tmp_path: Path, counts: dict[str, int], named: str
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    if "." in counts:
        (root / "photo.jpg").write_bytes(photo_bytes())
    else:
        write_set(root, counts)
    with pytest.raises(DataError, match=re.escape(named)) as caught:
        read_folder(root)
    assert "class bees" in named or str(root) in str(caught.value)


def test_a_class_of_damaged_photos_is_named_by_its_folder(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "val/ants/000.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=re.escape(f"{root / 'val' / 'ants'} has no photo that can be used")):
        read_folder(root)


def test_what_is_no_data_folder_is_refused_with_the_layout_expected(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"PK")
    for root, reason in ((tmp_path / "nowhere", "is not there"), (archive, "is not a folder: unpack it first")):
        with pytest.raises(DataError, match=f"{re.escape(str(root))} {reason}.*DIR/train/CLASS"):
            read_folder(root)


ODD_NAMES = ("$fire$ ants", "蜜蜂", "<b>bees", "two\nlines", "-rf", "%s {0}", "Bees 🐝", "RTL\u202eseeb")


@pytest.mark.parametrize("layout", ["", "train"])
def test_odd_class_names_are_kept_letter_by_letter(tmp_path: Path, layout: str) -> None:
    splits = ["train", "val"] if layout else ["."]
    folder = read_folder(write_set(tmp_path, {f"{split}/{name}": 2 for split in splits for name in ODD_NAMES}))
    assert folder.class_names == tuple(sorted(ODD_NAMES))
    assert set(folder.val.labels) == set(range(len(ODD_NAMES)))


def test_class_names_that_are_no_unicode_can_be_divided_and_digested(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    try:
        write_set(tmp_path, {odd: 3, "bees": 3})
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    folder = read_folder(tmp_path)
    assert folder.class_names == ("bees", odd)
    assert len(folder.digest) == 64


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".git", "__MACOSX", "__pycache__"])
def test_hidden_folders_are_no_classes_and_hold_no_photos(tmp_path: Path, hidden: str) -> None:
    root = small_set(tmp_path)
    write_set(root, {f"train/{hidden}": 2, f"train/ants/{hidden}": 1})
    folder = read_folder(root)
    assert folder.class_names == ("ants", "bees")
    assert len(folder.train) == 5
    hidden_photos = [f"train/ants/{hidden}/000.jpg", f"train/{hidden}/000.jpg", f"train/{hidden}/001.jpg"]
    assert skipped(folder) == dict.fromkeys(hidden_photos, "in a hidden folder: move it out to use it")


# ---------------------------------------------------------------------------------------------------------------------
# The split where there is no val/


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_val_folder_a_fifth_of_each_class_is_kept_for_validation_and_said(
    tmp_path: Path, prefix: str
) -> None:
    root = write_set(tmp_path, {f"{prefix}ants": 10, f"{prefix}bees": 25, f"{prefix}wasps": 2})
    folder = read_folder(root)
    assert folder.split == "20% of each class, drawn with seed 0"
    assert folder.val.counts(folder.class_names) == {"ants": 2, "bees": 5, "wasps": 1}
    assert folder.train.counts(folder.class_names) == {"ants": 8, "bees": 20, "wasps": 1}
    assert set(folder.train.paths).isdisjoint(folder.val.paths)
    assert [path.parent.name for path in folder.val.paths] == [folder.class_names[label] for label in folder.val.labels]


def test_the_split_repeats_and_another_seed_gives_another_one(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"ants": 10, "bees": 10})
    torch.manual_seed(1)
    first, again, other = (read_folder(root, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert names(first.val) != names(other.val)
    assert other.split.endswith("seed 1")


def test_the_split_of_one_class_does_not_hang_on_the_others_or_on_the_place(tmp_path: Path) -> None:
    small = read_folder(write_set(tmp_path / "small", {"bees": 10, "wasps": 3}))
    large = read_folder(write_set(tmp_path / "large", {"ants": 30, "bees": 10, "wasps": 3}))
    assert [name for name in names(large.val) if "ants" not in name] == names(small.val)


@pytest.mark.parametrize(("val_share", "count"), [(0.0, 1), (0.5, 2), (1.0, 3)])
def test_each_side_of_the_split_has_a_photo_of_each_class(tmp_path: Path, val_share: float, count: int) -> None:
    folder = read_folder(write_set(tmp_path, {"ants": 4, "bees": 4}), val_share=val_share)
    assert folder.val.counts(folder.class_names) == {"ants": count, "bees": count}
    assert folder.train.counts(folder.class_names) == {"ants": 4 - count, "bees": 4 - count}


# ---------------------------------------------------------------------------------------------------------------------
# Files that are not used


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("imageNotFound.gif", encoded(Image.new("RGB", (8, 8)), "GIF"), ".gif file extension"),
        ("notes.txt", b"notes", ".txt file extension"),
        ("photo", photo_bytes(), "no file extension"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0", ".heic file extension, not one of .jpg .jpeg .png .ppm"),
        (".DS_Store", b"\0", "a hidden file"),
        ("._photo.jpg", b"\0\5\x16\7", "a hidden file"),
        ("cut.jpg", encoded(draw("ants", 0, 64))[:-400], "a damaged photo"),
        ("cut.png", encoded(draw("ants", 0, 64), "PNG")[:-400], "a damaged photo"),
        ("page.jpg", b"<html>404</html>", "not a photo that can be read"),
        ("empty.jpeg", b"", "not a photo that can be read"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0", "not a photo that can be read (it is HEIC"),
    ],
)
def test_a_file_that_can_not_be_used_is_listed_with_its_reason_and_does_no_harm(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    root = small_set(tmp_path)
    (root / "train" / "bees" / name).write_bytes(content)
    folder = read_folder(root)
    assert list(skipped(folder)) == [f"train/bees/{name}"]
    assert skipped(folder)[f"train/bees/{name}"].startswith(reason)
    assert folder.train.counts(folder.class_names) == {"ants": 3, "bees": 2}


def test_a_photo_with_another_photo_formats_extension_is_used(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees/really_png.JPG").write_bytes(encoded(Image.new("RGB", (8, 8)), "PNG"))
    (root / "train/bees/really_gif.jpg").write_bytes(encoded(Image.new("RGB", (8, 8)), "GIF"))
    assert len(read_folder(root).train) == 7


def test_a_photo_beside_the_class_folders_is_listed(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train" / "stray.jpg").write_bytes(photo_bytes())
    assert skipped(read_folder(root)) == {"train/stray.jpg": "not in a class folder: move it into one"}


def test_links_to_folders_or_to_nothing_and_devices_are_listed_and_never_waited_for(tmp_path: Path) -> None:
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
    assert all("copy" in reason or "give a file" in reason for reason in skipped(folder).values())
    assert len(folder.train) == 6
    assert folder.leaked == 3, "the link, and photos that small_set writes alike"


@pytest.mark.parametrize("target", [".", "..", "ants"])
def test_a_class_folder_that_is_a_link_into_the_data_folder_is_refused(tmp_path: Path, target: str) -> None:
    root = small_set(tmp_path)
    (root / "train" / "loop").symlink_to(target, target_is_directory=True)
    with pytest.raises(DataError, match=r"train/loop is a link into the data folder itself.*remove it"):
        read_folder(root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="somebody else's folder takes root to make")
def test_a_class_folder_without_the_right_to_read_it_is_named_with_what_to_do(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees").chmod(0)
    for folder in (*tmp_path.parents[:2], tmp_path):
        folder.chmod(folder.stat().st_mode | 0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"train/bees can't be read \(Permission denied\): run chmod u\+rx on it"):
            read_folder(root)
    finally:
        os.seteuid(0)


def test_over_a_tenth_of_damaged_photos_in_a_class_is_refused_by_name_and_a_tenth_is_not(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"train/ants": 9, "train/bees": 3, "val/ants": 1, "val/bees": 1})
    (root / "train/ants/cut.jpg").write_bytes(photo_bytes()[:-100])
    (root / "val/ants/cut.jpg").write_bytes(photo_bytes()[:-100])  # a single one is no class
    (root / "train/ants/notes.txt").write_bytes(b"no photo by its name")
    refuse_damaged(read_folder(root))
    (root / "train/ants/html.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"train/ants: 2 of 11 photos can't be used.*cut\.jpg \(a damaged.*--allow-bad"):
        refuse_damaged(read_folder(root))


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    (root / "val/bees").rename(tmp_path / "elsewhere")
    (root / "val/bees").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(read_folder(root).val) == 3


# ---------------------------------------------------------------------------------------------------------------------
# The digest


def test_the_digest_is_that_of_a_sorted_list_of_checksums(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/bees/notes.txt").write_text("notes")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    lines = "".join(f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert folder_digest(root) == read_folder(root).digest == expected


def test_the_digest_follows_the_content_and_the_names_and_not_the_place(tmp_path: Path) -> None:
    root = small_set(tmp_path / "here")
    before = read_folder(root).digest
    assert read_folder(Path(shutil.copytree(root, tmp_path / "there"))).digest == before
    (root / "val/ants/000.jpg").rename(root / "val/ants/renamed.jpg")
    renamed = read_folder(root).digest
    (root / "train/bees/notes.txt").write_text("")
    assert len({before, renamed, read_folder(root).digest}) == 3


def test_the_real_photos_are_the_published_set(real_photos: Path) -> None:
    folder = read_folder(real_photos)
    assert (len(folder.train), len(folder.val)) == (244, 153)
    assert folder.class_names == ("ants", "bees")
    assert folder.train.counts(folder.class_names) == {"ants": 123, "bees": 121}
    assert folder.val.counts(folder.class_names) == {"ants": 70, "bees": 83}
    assert {Path(file).name for file in skipped(folder)} == {"imageNotFound.gif"}
    assert folder.digest == HYMENOPTERA_DIGEST


# ---------------------------------------------------------------------------------------------------------------------
# Photos as batches


SMALL = Preprocessing(crop=32)


def looks(photos: ImageLoader, positions: Sequence[Sequence[int]], epoch: int = 0) -> dict[int, Tensor]:
    """The image of every position, however the positions are batched."""
    images: dict[int, Tensor] = {}
    for wanted, (batch, labels) in zip(
        positions, photos.batches([torch.tensor(batch) for batch in positions], epoch), strict=True
    ):
        assert batch.shape[0] == len(wanted)
        assert labels.tolist() == photos.labels[list(wanted)].tolist()
        images.update(zip(wanted, batch, strict=True))
    return images


def augmented(root: Path, *, seed: int = 0, **loading: Any) -> ImageLoader:
    augmentation = Augmentation(smallest_crop=0.08, sizes=(32,))
    if "cache" in loading:
        loading["cache"] = ImageCache(loading["cache"])
    return ImageLoader(read_folder(root).train, SMALL, augmentation, seed=seed, options=LoaderOptions(**loading))


def equal(one: dict[int, Tensor], other: dict[int, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[position], other[position]) for position in one)


def test_batches_are_normalised_images_and_class_indices(drawn_root: Path) -> None:
    photos = ImageLoader(read_folder(drawn_root).val, SMALL)
    ((images, labels),) = photos.batches([torch.tensor([0, 15, 3])])
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 0], torch.int64)
    assert len(photos) == len(photos.labels) == 16


def test_a_random_look_hangs_on_seed_epoch_and_position_alone(drawn_root: Path) -> None:
    photos = augmented(drawn_root)
    torch.manual_seed(1)
    first = looks(photos, [[0, 1, 2, 3], [20, 21]], epoch=3)
    torch.manual_seed(2)
    assert equal(first, looks(photos, [[21], [3, 0], [2, 20, 1]], epoch=3))
    assert equal(first, looks(augmented(drawn_root), [[0, 1, 2, 3, 20, 21]], epoch=3))


def test_every_epoch_seed_and_position_has_a_look_of_its_own(drawn_root: Path) -> None:
    photos, other_seed = augmented(drawn_root), augmented(drawn_root, seed=1)
    first, second, other = looks(photos, [[0, 1]], 0), looks(photos, [[0, 1]], 1), looks(other_seed, [[0, 1]], 0)
    for position in (0, 1):
        assert not torch.equal(first[position], second[position])
        assert not torch.equal(first[position], other[position])
    same_photo = dataclasses.replace(photos.split, paths=photos.split.paths[:1] * 2, labels=(0, 0))
    twice = looks(ImageLoader(same_photo, SMALL, photos.augmentation), [[0, 1]])
    assert not torch.equal(twice[0], twice[1])


@pytest.mark.parametrize("loading", [{"workers": 3}, {"workers": 2, "ahead": 2}, {"cache": 0}, {"cache": 100_000}])
def test_what_the_network_sees_does_not_hang_on_how_photos_are_loaded(
    drawn_root: Path, loading: dict[str, int]
) -> None:
    positions = [[5, 0], [23, 7, 11], [2], [5]]
    plain, other = augmented(drawn_root), augmented(drawn_root, **loading)
    for epoch in (1, 2):
        assert equal(looks(plain, positions, epoch), looks(other, positions, epoch))


def test_images_come_in_the_memory_layout_asked_for_with_equal_values(drawn_root: Path) -> None:
    ((plain, _),) = augmented(drawn_root).batches([torch.tensor([0, 1])])
    ((other, _),) = augmented(drawn_root, layout=torch.channels_last).batches([torch.tensor([0, 1])])
    assert plain.is_contiguous()
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, other)


@pytest.mark.parametrize("augmentation", [None, Augmentation(sizes=(32,))])
def test_a_photo_is_decoded_once_where_memory_allows(
    drawn_root: Path, monkeypatch: pytest.MonkeyPatch, augmentation: Augmentation | None
) -> None:
    opened: list[Path] = []

    def open_and_note(path: Path, **options: Any) -> Image.Image:
        opened.append(path)
        return open_photo(path, **options)

    monkeypatch.setattr(data_folder, "open_photo", open_and_note)
    monkeypatch.setattr(data_loading, "open_photo", data_folder.open_photo)
    split = read_folder(drawn_root).train
    for memory, times in ((10**9, 1), (0, 3)):
        opened.clear()
        photos = ImageLoader(split, SMALL, augmentation, options=LoaderOptions(cache=ImageCache(memory)))
        for epoch in range(3):
            looks(photos, [list(range(len(split)))], epoch)
        assert sorted(opened) == sorted(split.paths * times)


def test_looks_that_differ_in_anything_never_share_a_kept_picture(drawn_root: Path) -> None:
    split, memory = read_folder(drawn_root).train, ImageCache()
    sights = [SMALL, replace(SMALL, interpolation="bicubic"), replace(SMALL, crop_pct=0.5), replace(SMALL, crop=24)]
    for sight in sights:
        kept = ImageLoader(split, sight, options=LoaderOptions(cache=memory))
        assert equal(looks(kept, [[0, 1]]), looks(ImageLoader(split, sight), [[0, 1]]))
    assert len(memory) == 2 * len(sights)


def test_kept_pictures_never_take_more_than_the_memory_allowed(drawn_root: Path) -> None:
    split = read_folder(drawn_root).train
    width, height = open_photo(split.paths[0]).size
    memory = ImageCache(5 * 3 * width * height)
    looks(
        ImageLoader(split, SMALL, Augmentation(sizes=(32,)), options=LoaderOptions(workers=4, cache=memory)),
        [[*range(24)]],
    )
    kept = [picture for path in split.paths if (picture := memory.get((path, None)))]
    assert 0 < len(kept) == len(memory) < len(split)
    assert sum(3 * picture.width * picture.height for picture in kept) + memory.left == 5 * 3 * width * height


def test_what_is_kept_while_the_folder_is_checked_is_what_photos_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_set(tmp_path)
    draw("bees", 1, 200).save(root / "train/ants/large.jpg")
    sights = [SMALL, Augmentation(sizes=(32,), shorter_side=64)]
    memory = ImageCache()
    split = read_folder(root, seen=lambda path, photo: keep_checked(memory, path, photo, sights)).train
    # Every photo's crop, and all photos but the one that is decoded at another size where it is wanted small.
    assert len(memory) == 8 + 1 + 8
    for sight in (None, sights[1]):
        kept = ImageLoader(split, SMALL, sight, options=LoaderOptions(cache=memory))
        read = ImageLoader(split, SMALL, sight)
        positions = [[*range(len(split))]]
        assert equal(looks(kept, positions), looks(read, positions))
    monkeypatch.setattr(data_folder, "open_photo", None)
    monkeypatch.setattr(data_loading, "open_photo", data_folder.open_photo)  # not callable: reading anything would fail
    looks(ImageLoader(split, SMALL, options=LoaderOptions(cache=memory)), positions)


def test_batches_are_begun_ahead_of_their_use_and_no_further(drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    crop = ImageLoader.crop

    def crop_and_note(self: ImageLoader, position: int, epoch: int) -> Image.Image:
        begun.append(position)
        return crop(self, position, epoch)

    monkeypatch.setattr(ImageLoader, "crop", crop_and_note)
    for ahead in (0, 2):
        begun.clear()
        batches = augmented(drawn_root, ahead=ahead).batches([torch.tensor([number]) for number in range(8)])
        next(batches)
        batches.close()
        assert sorted(begun) == list(range(ahead + 1))


def test_a_cpu_prepares_no_batch_while_it_computes_and_a_gpu_has_some_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    beside = {name: LoaderOptions.for_device(torch.device(name), processes=4) for name in ("cpu", "cuda", "mps")}
    assert {name: (loading.workers, loading.ahead) for name, loading in beside.items()} == {
        "cpu": (3, 0),
        "cuda": (4, 4),
        "mps": (4, 4),
    }
    assert LoaderOptions.for_device(torch.device("cuda"), workers=7).workers == 7


def test_reading_photos_leaves_torchs_global_generator_as_it_was(drawn_root: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    looks(augmented(drawn_root), [[0, 1], [2]])
    read_folder(drawn_root)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_photo_that_vanished_since_is_named(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    photos = ImageLoader(read_folder(root).train, Preprocessing(crop=8))
    (root / "train/ants/001.jpg").unlink()
    with pytest.raises(DataError, match=re.escape(str(root / "train/ants/001.jpg"))):
        looks(photos, [[0, 1]])


def test_derived_seeds_are_the_same_on_every_machine_and_differ_by_every_part() -> None:
    assert derived_seed(0, "look", 1, 2) == 5806292493511177220
    assert len({derived_seed(*parts) for parts in ((0, 1), (1, 0), (0, 11), (0, "1", 1), (0,), (10,), (1,))}) == 7
    assert seeded_generator(4, "x").initial_seed() == derived_seed(4, "x")


# ---------------------------------------------------------------------------------------------------------------------
# The download


class OneAnswer(socketserver.ThreadingTCPServer):
    """A loopback server that says the same bytes to every request and notes what was asked for."""

    daemon_threads = True

    def __init__(self, answer: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answer = answer
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hymenoptera_data.zip"


class Answering(socketserver.StreamRequestHandler):
    server: OneAnswer

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().decode().split()[1])
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.answer)


Serve = Callable[[bytes], OneAnswer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers of one answer each, and stops them after the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[OneAnswer] = []

    def start(answer: bytes) -> OneAnswer:
        server = OneAnswer(answer)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def ok(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) if length is None else length, body)


FILES = {
    "train/ants/1.jpg": photo_bytes(1),
    "train/bees/2.jpg": photo_bytes(2),
    "val/ants/3.jpg": photo_bytes(3),
    "val/bees/4.jpg": photo_bytes(4),
}


def archive_of(entries: Iterable[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return content.getvalue()


HONEST = [(f"hymenoptera_data/{name}", body) for name, body in FILES.items()]
ARCHIVE = archive_of(HONEST)


@pytest.fixture
def digest() -> str:
    """Of the set that `ARCHIVE` holds."""
    lines = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(FILES.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_complete_set_lands_under_its_name_and_nothing_else_stays(tmp_path: Path, serve: Serve, digest: str) -> None:
    strays = [("__MACOSX/hymenoptera_data/train/._x", b"x"), ("hymenoptera_data/.DS_Store", b"x")]
    server = serve(ok(archive_of([*HONEST, *strays])))
    folder = hymenoptera_folder(tmp_path / "new" / "data", url=server.url, digest=digest)
    assert folder == tmp_path / "new" / "data" / "hymenoptera_data"
    assert tree(folder) == FILES
    assert list(folder.parent.iterdir()) == [folder]
    assert server.asked == ["/hymenoptera_data.zip"]
    assert read_folder(folder).digest == digest


def test_a_set_that_is_there_is_not_asked_for_again(tmp_path: Path, serve: Serve, digest: str) -> None:
    server = serve(ok(ARCHIVE))
    folders = [hymenoptera_folder(tmp_path, url=server.url, digest=digest) for _ in range(2)]
    assert folders[0] == folders[1]
    assert len(server.asked) == 1


def test_a_server_that_does_not_say_the_length_is_good_enough(tmp_path: Path, serve: Serve, digest: str) -> None:
    server = serve(b"HTTP/1.0 200 OK\r\n\r\n" + ARCHIVE)
    assert tree(hymenoptera_folder(tmp_path, url=server.url, digest=digest)) == FILES


BROKEN = bytearray(ARCHIVE)
BROKEN[45:60] = bytes(15)
ENCRYPTED = bytearray(ARCHIVE)
ENCRYPTED[6] |= 1
ENCRYPTED[ENCRYPTED.index(b"PK\x01\x02") + 8] |= 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(ARCHIVE[:300], len(ARCHIVE)), rf"cut off after 300 of {len(ARCHIVE)} bytes: try again"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFF\r\nPK",
            "can't be downloaded .*check the connection",
        ),
        (b"", "can't be downloaded .*check the connection"),
        (b"garbage\r\n\r\n", "can't be downloaded .*check the connection"),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            r"can't be downloaded \(HTTP 404 Not Found\): try again",
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", r"can't be downloaded \(HTTP 503 Busy\): try again"),
        (ok(b"<html>Log in to this network</html>"), "can't be unpacked .*try again"),
        (ok(b""), "can't be unpacked .*try again"),
        (ok(ARCHIVE[:-30]), "can't be unpacked .*try again"),
        (ok(bytes(BROKEN)), "can't be unpacked .*try again"),
        (ok(bytes(ENCRYPTED)), "can't be unpacked .*try again"),
        (ok(archive_of(HONEST[:-1])), "not the set it should be .*try again"),
        (ok(archive_of([*HONEST[:-1], (HONEST[-1][0], photo_bytes(9))])), "not the set it should be .*try again"),
        (ok(archive_of([("other/train/ants/1.jpg", b"x")])), "not the set it should be .*try again"),
        (ok(archive_of([])), "not the set it should be .*try again"),
    ],
)
def test_a_download_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, serve: Serve, digest: str, answer: bytes, reason: str
) -> None:
    with pytest.raises(DownloadError, match=reason) as caught:
        hymenoptera_folder(tmp_path, url=serve(answer).url, digest=digest)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match=r"can't be downloaded .*refused.*check the connection"):
        hymenoptera_folder(tmp_path, url=f"http://127.0.0.1:{port}/x.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_in_mid_download_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, digest: str
) -> None:
    def reset(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(shutil, "copyfileobj", reset)
    with pytest.raises(DownloadError, match=r"can't be downloaded .*reset by peer"):
        hymenoptera_folder(tmp_path, url=serve(ok(ARCHIVE)).url, digest=digest)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_can_not_write_beside_the_set(tmp_path: Path, serve: Serve, digest: str) -> None:
    parent = tmp_path / "one" / "two" / "data"
    evil = ["../evil", "../../hymenoptera_data/train/evil", f"{tmp_path}/absolute", "hymenoptera_data/../evil", "evil"]
    server = serve(ok(archive_of([*HONEST, *((name, b"evil") for name in evil)])))
    folder = hymenoptera_folder(parent, url=server.url, digest=digest)
    assert tree(tmp_path) == {f"one/two/data/hymenoptera_data/{name}": body for name, body in FILES.items()}
    shutil.rmtree(folder)
    climbing = "hymenoptera_data/train/" + "../" * 6 + "evil"
    with pytest.raises(DownloadError, match="not the set"):
        hymenoptera_folder(parent, url=serve(ok(archive_of([*HONEST, (climbing, b"evil")]))).url, digest=digest)
    assert tree(tmp_path) == {}


def test_what_a_killed_download_left_is_swept_away(tmp_path: Path, serve: Serve, digest: str) -> None:
    leftovers = tmp_path / ".hymenoptera_data.download" / "unpacked" / "hymenoptera_data" / "train"
    leftovers.mkdir(parents=True)
    (leftovers / "half.jpg").write_bytes(b"half")
    folder = hymenoptera_folder(tmp_path, url=serve(ok(ARCHIVE)).url, digest=digest)
    assert tree(folder) == FILES
    assert list(tmp_path.iterdir()) == [folder]


def test_the_drawn_folder_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []

    def write(folder: Path) -> Path:
        drawn.append(folder)
        folder.mkdir(parents=True)
        return folder

    monkeypatch.setattr(download, "write_drawn_set", write)
    assert drawn_folder(tmp_path / "data") == drawn_folder(tmp_path / "data") == tmp_path / "data" / "drawn"
    assert drawn == [tmp_path / "data" / "drawn"]


def test_these_tests_reach_nothing_beyond_loopback() -> None:
    for reach in (lambda: socket.create_connection(("192.0.2.1", 80)), lambda: socket.getaddrinfo("example.org", 80)):
        with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1|example\.org"):
            reach()
    with socket.socket() as plain, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        plain.connect_ex(("192.0.2.1", 80))


# ---------------------------------------------------------------------------------------------------------------------
# Parts of a split, and photos that are left out


def test_a_part_of_a_split_is_the_photos_asked_for_in_the_order_asked_for(tmp_path: Path) -> None:
    split = read_folder(small_set(tmp_path)).train
    part = split.subset(iter([4, 0, 0]))
    assert part == Split((split.paths[4], split.paths[0], split.paths[0]), (1, 0, 0))
    assert split.subset([]) == Split((), ())
    assert split.subset(range(len(split))) == split


def test_names_are_relative_to_the_data_folder_with_slashes(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    assert folder.val.names(tmp_path) == ["val/ants/000.jpg", "val/bees/000.jpg", "val/bees/001.jpg"]
    flat = read_folder(tmp_path / "train")
    assert sorted([*flat.train.names(flat.root), *flat.val.names(flat.root)]) == [
        *(f"ants/{number:03d}.jpg" for number in range(3)),
        *(f"bees/{number:03d}.jpg" for number in range(2)),
    ]


def numbered(labels: Sequence[int]) -> Split:
    return Split(tuple(Path(f"{number:03d}.jpg") for number in range(len(labels))), tuple(labels))


def test_a_divided_split_is_whole_in_order_and_has_the_share_of_every_class() -> None:
    split = numbered([0, 1] * 10 + [1] * 20)
    rest, drawn = divide(split, ("ants", "bees"), 0, 0.3)
    assert drawn.counts(("ants", "bees")) == {"ants": 3, "bees": 9}
    assert sorted([*rest.paths, *drawn.paths]) == list(split.paths)
    for side in (rest, drawn):
        assert list(side.paths) == sorted(side.paths)
        assert [split.labels[split.paths.index(path)] for path in side.paths] == list(side.labels)


def test_what_is_drawn_hangs_on_the_seed_alone() -> None:
    split = numbered([0, 1] * 20)
    drawn = [divide(split, ("ants", "bees"), seed, 0.5) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_class_of_a_single_photo_can_not_be_divided() -> None:
    with pytest.raises(DataError, match="class bees has a single photo: two are needed"):
        divide(numbered([0, 0, 1]), ("ants", "bees"), 0, 0.5)


def exclusions(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_exclusions(path)


@pytest.mark.parametrize(
    "content",
    [
        "train/ants/a 1.jpg\nval/bees/b.jpg\n",
        "# why\ntrain/ants/a 1.jpg\n\n   \n#val/ants/c.jpg\nval/bees/b.jpg",
        "train/ants/a 1.jpg\r\nval/bees/b.jpg\r\n",
        "  train/ants/a 1.jpg\t\nval/bees/b.jpg ",
        b"\xef\xbb\xbftrain/ants/a 1.jpg\nval/bees/b.jpg",
    ],
    ids=["plain", "comments", "Windows", "spaces around", "byte order mark"],
)
def test_a_list_names_a_file_a_line_whatever_wrote_it(tmp_path: Path, content: str | bytes) -> None:
    assert exclusions(tmp_path / "list.txt", content) == ["train/ants/a 1.jpg", "val/bees/b.jpg"]


def test_an_empty_list_names_nothing(tmp_path: Path) -> None:
    assert exclusions(tmp_path / "list.txt", "") == exclusions(tmp_path / "list.txt", "# nothing\n") == []


def test_a_list_names_files_whose_names_are_no_unicode(tmp_path: Path) -> None:
    assert exclusions(tmp_path / "list.txt", b"train/caf\xe9/a.jpg\n") == ["train/caf\udce9/a.jpg"]


def test_a_list_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=f"{re.escape(str(path))} can't be read .*: expected a list of files"):
            read_exclusions(path)


def test_excluded_photos_are_not_learned_from_and_all_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    less = folder.without(["val/bees/001.jpg", "train/ants/001.jpg", "train/ants/001.jpg"])
    assert names(less.train) == ["ants/000.jpg", "ants/002.jpg", "bees/000.jpg", "bees/001.jpg"]
    assert less.train.labels == (0, 0, 1, 1)
    assert less.excluded == ("train/ants/001.jpg", "val/bees/001.jpg")
    assert replace(less, train=folder.train, excluded=()) == folder


def test_validation_photos_are_all_measured_and_those_not_excluded_once_more(tmp_path: Path) -> None:
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
def test_a_name_that_is_no_photos_is_refused_with_an_example_of_one_that_is(tmp_path: Path, unknown: str) -> None:
    folder = read_folder(small_set(tmp_path))
    with pytest.raises(DataError, match=rf"no photo {re.escape(unknown)} in .*such as train/ants/000\.jpg"):
        folder.without(["train/ants/000.jpg", unknown])


def test_a_class_needs_a_photo_that_is_not_excluded(tmp_path: Path) -> None:
    folder = read_folder(small_set(tmp_path))
    with pytest.raises(DataError, match="every photo of bees to learn from is excluded"):
        folder.without(["train/bees/000.jpg", "train/bees/001.jpg"])


@pytest.mark.parametrize(
    "name",
    ["ants/a.jpg", " bees/b.png", "#ants/c.png", '"bees"/d.png', "a\nb/e.png", "a\u2028b/f.png", "caf\udce9.jpg"],
)
def test_a_list_names_whatever_a_file_is_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# why\n{data_folder.exclusion_line(name)}\n", "utf-8", errors="surrogateescape")
    assert data_folder.read_exclusions(path) == [name]


def test_a_line_in_quotes_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text('"ants/a.jpg\n')
    with pytest.raises(DataError, match="no JSON text"):
        data_folder.read_exclusions(tmp_path / "list.txt")
