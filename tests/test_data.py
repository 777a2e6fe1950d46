"""A folder is read as it is, a photo is seen as the network should see it, and no download is half there."""

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
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights

from antbee import data
from antbee.data import (
    HYMENOPTERA_DIGEST,
    DataError,
    DownloadError,
    PhotoFolder,
    Photos,
    Preprocessing,
    Split,
    derived_seed,
    drawn_folder,
    folder_digest,
    hymenoptera_folder,
    open_photo,
    read_folder,
    seeded_generator,
)
from antbee.drawn import draw

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


def skipped(folder: PhotoFolder) -> dict[str, str]:
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
    assert skipped(folder) == {f"train/ants/{hidden}/000.jpg": "in a hidden folder"}


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
        (".DS_Store", b"\0", "no file extension"),
        ("cut.jpg", encoded(draw("ants", 0, 64))[:-400], "damaged photo"),
        ("cut.png", encoded(draw("ants", 0, 64), "PNG")[:-400], "damaged photo"),
        ("page.jpg", b"<html>404</html>", "not a photo that can be read"),
        ("empty.jpeg", b"", "not a photo that can be read"),
        ("renamed.jpg", encoded(Image.new("RGB", (8, 8)), "GIF"), "not a photo that can be read"),
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
    assert len(read_folder(root).train) == 6


def test_links_to_folders_or_to_nothing_and_devices_are_listed_and_never_waited_for(tmp_path: Path) -> None:
    root = small_set(tmp_path / "photos")
    bees = root / "train" / "bees"
    (bees / "nothing.jpg").symlink_to(root / "gone.jpg")
    (bees / "round").symlink_to(bees, target_is_directory=True)
    os.mkfifo(bees / "pipe.jpg")
    folder = read_folder(root)
    assert sorted(skipped(folder)) == [f"train/bees/{name}" for name in ("nothing.jpg", "pipe.jpg", "round")]
    assert all(reason.startswith("not a file") for reason in skipped(folder).values())
    assert len(folder.train) == 5


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
# One photo


# Where a photo's top left corner belongs, by EXIF orientation: (right, bottom).
CORNERS = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("orientation", CORNERS)
def test_a_photo_is_turned_upright_by_its_exif_orientation(orientation: int) -> None:
    photo = Image.new("RGB", (64, 32), GREY)
    photo.paste(RED, (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_photo(io.BytesIO(encoded(photo, exif=exif, quality=95)))
    assert upright.size == ((64, 32) if orientation < 5 else (32, 64))
    right, bottom = CORNERS[orientation]
    reds = np.asarray(upright)[:: upright.height - 1, :: upright.width - 1, 0]
    assert np.argwhere(reds > 160).tolist() == [[bottom, right]]


def test_broken_exif_data_does_not_make_a_photo_useless() -> None:
    photo = encoded(Image.new("RGB", (8, 8), RED), exif=b"Exif\0\0 not EXIF at all")
    assert open_photo(io.BytesIO(photo)).size == (8, 8)


@pytest.mark.parametrize(
    ("photo", "kind", "expected"),
    [
        (Image.new("L", (8, 8), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (8, 8), 1), "PNG", (255, 255, 255)),
        (Image.new("RGB", (8, 8), (51, 102, 204)).convert("P"), "PNG", (51, 102, 204)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.fromarray(np.full((8, 8), 77 * 256, np.uint16)), "PNG", (77, 77, 77)),
        (Image.fromarray(np.full((8, 8), 77 * 256, np.uint16)), "TIFF", (77, 77, 77)),
        (Image.fromarray(np.full((8, 8), 77 * 256, np.int32)), "PPM", (77, 77, 77)),
        (Image.new("RGBA", (8, 8), (*RED, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (*RED, 255)), "WEBP", RED),
        (Image.new("LA", (8, 8), (10, 0)), "PNG", (255, 255, 255)),
    ],
)  # fmt: skip
def test_every_kind_of_pixel_becomes_rgb_as_a_viewer_shows_it(
    photo: Image.Image, kind: str, expected: tuple[int, int, int]
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = open_photo(io.BytesIO(encoded(photo, kind, **options)))
    assert (image.mode, image.getpixel((3, 3))) == ("RGB", expected)


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    photo = Image.new("RGB", (8, 8), RED).convert("P")
    content = encoded(photo, "PNG", transparency=photo.getpixel((0, 0)))
    assert open_photo(io.BytesIO(content)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("side", [7800, 10_000, 30_000])
def test_a_photo_that_would_fill_the_memory_is_refused_before_it_is_decoded(side: int) -> None:
    header = f"P6 {side} {side} 255\n".encode()
    with pytest.raises(DataError, match=r"too large a photo .*make it smaller"):
        open_photo(io.BytesIO(header + bytes(100)))


def test_a_sliver_that_resizing_would_blow_up_is_refused() -> None:
    with pytest.raises(DataError, match=r"too thin a photo \(1 x 500 pixels.*crop it first"):
        open_photo(io.BytesIO(encoded(Image.new("RGB", (1, 500)))))
    assert open_photo(io.BytesIO(encoded(Image.new("RGB", (1, 40))))).size == (1, 40)


def test_a_photo_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DataError, match=r"can't be opened \((No such file|Is a directory)"):
            open_photo(path)


# ---------------------------------------------------------------------------------------------------------------------
# What the network sees

TUTORIAL = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SIZES = [(320, 240), (240, 320), (256, 256), (130, 97), (700, 301), (224, 224), (40, 9)]


def resized_photo(size: tuple[int, int]) -> Image.Image:
    return draw("ants", 4, 320).resize(size)


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_sees_the_very_pixels_that_the_imagenet_weights_expect(size: tuple[int, int]) -> None:
    photo = resized_photo(size)
    expected = ResNet18_Weights.IMAGENET1K_V1.transforms()(photo)
    found = Preprocessing().evaluation()(photo)
    assert found.shape == (3, 224, 224)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_tutorials_normalisation_can_be_had_and_is_another_one() -> None:
    photo = resized_photo((320, 240))
    classic = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    found = TUTORIAL.evaluation()(photo)
    assert torch.equal(found, classic(photo))
    assert (found - Preprocessing().evaluation()(photo)).abs().mean() > 0.1


@pytest.mark.parametrize("preprocessing", [Preprocessing(), TUTORIAL])
@pytest.mark.parametrize("size", SIZES[:5])
def test_unnormalise_gives_back_the_pixels_of_the_crop(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    photo = resized_photo(size)
    cropped = preprocessing.cropped(photo)
    assert (cropped.size, cropped.mode) == ((224, 224), "RGB")
    seen = preprocessing.unnormalise(preprocessing.evaluation()(photo)[None])[0]
    assert torch.allclose(seen, torch.from_numpy(np.array(cropped)).permute(2, 0, 1) / 255, atol=1e-6)


def test_unnormalised_pixels_stay_between_0_and_1() -> None:
    seen = Preprocessing().unnormalise(torch.linspace(-9, 9, 2 * 3 * 4 * 4).view(2, 3, 4, 4))
    assert (float(seen.min()), float(seen.max())) == (0, 1)


@pytest.mark.parametrize("preprocessing", [Preprocessing(), Preprocessing(crop=128, crop_pct=0.95)])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (256, 256), (640, 160)])
def test_the_crop_box_says_where_the_crop_lies_in_the_photo(
    preprocessing: Preprocessing, size: tuple[int, int]
) -> None:
    # Red says how far right, green how far down a pixel of the photo is.
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    photo = Image.fromarray(np.stack([x * 255 / size[0], y * 255 / size[1], 0 * x], axis=2).astype(np.uint8))
    cropped = np.asarray(preprocessing.cropped(photo)).astype(float)
    left, top, right, bottom = preprocessing.crop_box(*size)
    places = [cropped[:, 0, 0], cropped[0, :, 1], cropped[:, -1, 0], cropped[-1, :, 1]]
    edges = [place.mean() / 255 * side for place, side in zip(places, size * 2, strict=True)]
    assert edges == pytest.approx([left, top, right, bottom], abs=max(2.0, max(size) / 128))


@pytest.mark.parametrize(("crop", "crop_pct", "resize"), [(224, 0.875, 256), (160, 0.875, 182), (288, 0.95, 303)])
def test_the_resized_side_is_rounded_down_as_timm_does(crop: int, crop_pct: float, resize: int) -> None:
    preprocessing = Preprocessing(crop=crop, crop_pct=crop_pct)
    assert preprocessing.resize == resize
    assert preprocessing.evaluation()(resized_photo((320, 240))).shape == (3, crop, crop)


# ---------------------------------------------------------------------------------------------------------------------
# Photos as batches


# Of machines with a single core, and of newer Pythons about threads that torch has started before the fork.
worker_warnings = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)


def looks(photos: Photos, positions: Sequence[Sequence[int]], epoch: int = 0) -> dict[int, Tensor]:
    """The image of every position, however the positions are batched."""
    images: dict[int, Tensor] = {}
    for wanted, (batch, labels) in zip(
        positions, photos.batches([torch.tensor(batch) for batch in positions], epoch), strict=True
    ):
        assert batch.shape[0] == len(wanted)
        assert labels.tolist() == photos.labels[list(wanted)].tolist()
        images.update(zip(wanted, batch, strict=True))
    return images


def augmented(root: Path, *, seed: int = 0, workers: int = 0) -> Photos:
    augmentation = Preprocessing(crop=32).augmentation(smallest_crop=0.08)
    return Photos(read_folder(root).train, augmentation, seed=seed, workers=workers)


def equal(one: dict[int, Tensor], other: dict[int, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[position], other[position]) for position in one)


def test_batches_are_normalised_images_and_class_indices(drawn_root: Path) -> None:
    photos = Photos(read_folder(drawn_root).val, Preprocessing(crop=32).evaluation())
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
    twice = looks(Photos(same_photo, photos.transform), [[0, 1]])
    assert not torch.equal(twice[0], twice[1])


@worker_warnings
def test_two_workers_see_what_none_sees_in_the_same_order(drawn_root: Path) -> None:
    positions = [[5, 0], [23, 7, 11], [2]]
    assert equal(
        looks(augmented(drawn_root), positions, epoch=2), looks(augmented(drawn_root, workers=2), positions, epoch=2)
    )


@worker_warnings
@pytest.mark.parametrize("workers", [0, 1])
def test_reading_photos_leaves_torchs_global_generator_as_it_was(drawn_root: Path, workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    looks(augmented(drawn_root, workers=workers), [[0, 1], [2]])
    read_folder(drawn_root)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_crops_as_small_as_asked_and_mirrors_half_of_the_time() -> None:
    # Red rises from left to right, so a crop's range tells its width and the direction tells a mirror image.
    gradient = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    photo = Image.fromarray(np.ascontiguousarray(gradient))
    augmentation = Preprocessing(crop=32).augmentation(smallest_crop=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reds = torch.stack([Preprocessing().unnormalise(augmentation(photo))[0, 16] for _ in range(200)])
    rises = reds[:, -1] - reds[:, 0]
    assert 70 < int((rises > 0).sum()) < 130
    # The narrowest crop allowed has half of the area and the shape 3:4: 0.61 of the width.
    assert 0.55 < float(rises.abs().min()) < 0.75
    assert float(rises.abs().max()) > 0.9


def test_a_photo_that_vanished_since_is_named(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    photos = Photos(read_folder(root).train, Preprocessing(crop=8).evaluation())
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

    monkeypatch.setattr(data, "write_drawn_set", write)
    assert drawn_folder(tmp_path / "data") == drawn_folder(tmp_path / "data") == tmp_path / "data" / "drawn"
    assert drawn == [tmp_path / "data" / "drawn"]


def test_these_tests_reach_nothing_beyond_loopback() -> None:
    for reach in (lambda: socket.create_connection(("192.0.2.1", 80)), lambda: socket.getaddrinfo("example.org", 80)):
        with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1|example\.org"):
            reach()
    with socket.socket() as plain, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        plain.connect_ex(("192.0.2.1", 80))
