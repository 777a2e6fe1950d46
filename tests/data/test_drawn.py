"""The drawn data set: repeatable, varied, complete on disk, and not separable by mean colour alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from antbee.data import drawn
from antbee.data.drawn import CLASSES, draw, write_drawn_set

TINY = 64
TRAIN = {"ants": 6, "bees": 5}
VAL = {"ants": 3, "bees": 4}


def write_tiny_set(root: Path, seed: int = 0) -> Path:
    return write_drawn_set(root, train=TRAIN, val=VAL, seed=seed, longest_side=TINY)


def pixel_digests(root: Path) -> list[str]:
    return [hashlib.sha256(Image.open(path).tobytes()).hexdigest() for path in sorted(root.rglob("*.jpg"))]


def mean_colours(kind: str, seeds: range) -> np.ndarray:
    return np.array([np.asarray(draw(kind, seed, TINY)).mean(axis=(0, 1)) for seed in seeds])


@pytest.mark.parametrize("kind", CLASSES)
def test_equal_arguments_give_equal_pixels(kind: str) -> None:
    assert draw(kind, 3, TINY).tobytes() == draw(kind, 3, TINY).tobytes()


@pytest.mark.parametrize("kind", CLASSES)
def test_different_seeds_give_different_pictures(kind: str) -> None:
    assert len({draw(kind, seed, TINY).tobytes() for seed in range(12)}) == 12


def test_the_two_classes_differ_for_equal_seeds() -> None:
    assert all(draw("ants", seed, TINY).tobytes() != draw("bees", seed, TINY).tobytes() for seed in range(6))


@pytest.mark.parametrize("longest_side", [64, 97, 320])
def test_pictures_are_rgb_with_the_given_longest_side(longest_side: int) -> None:
    pictures = [draw(kind, 5, longest_side) for kind in CLASSES]
    assert [picture.mode for picture in pictures] == ["RGB", "RGB"]
    assert [max(picture.size) for picture in pictures] == [longest_side, longest_side]


def test_the_four_aspect_ratios_all_occur() -> None:
    ratios = {picture.width / picture.height for picture in (draw("ants", seed, 60) for seed in range(30))}
    assert ratios == {4 / 3, 3 / 4, 1, 3 / 2}


def test_another_longest_side_scales_the_same_picture() -> None:
    large, small = draw("bees", 8, 256), draw("bees", 8, 128)
    other = draw("bees", 9, 256)
    difference = mean_difference(large, small)
    assert difference < 12
    assert difference < mean_difference(other, small) / 2


def mean_difference(picture: Image.Image, small: Image.Image) -> float:
    return float(np.asarray(ImageChops.difference(picture.resize(small.size), small)).mean())


def test_an_unknown_class_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"wasps.*ants.*bees"):
        draw("wasps", 0, TINY)


def test_the_set_has_the_given_counts_and_the_image_folder_layout(tmp_path: Path) -> None:
    root = tmp_path / "new" / "drawn"
    assert write_tiny_set(root) == root
    for split, counts in (("train", TRAIN), ("val", VAL)):
        assert {folder.name: len(list(folder.iterdir())) for folder in (root / split).iterdir()} == counts
    assert {path.suffix for path in root.rglob("*.*")} == {".jpg"}


def test_the_default_counts_are_those_of_the_classic_photo_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "draw", lambda kind, seed, longest_side: Image.new("RGB", (2, 2)))
    root = write_drawn_set(tmp_path / "drawn")
    counts = [len(list((root / split / kind).iterdir())) for split in ("train", "val") for kind in CLASSES]
    assert counts == [123, 121, 70, 83]


def test_no_picture_and_no_file_name_occurs_in_both_splits(tmp_path: Path) -> None:
    root = write_tiny_set(tmp_path / "drawn")
    names = [path.name for path in root.rglob("*.jpg")]
    assert len(names) == len(set(names)) == 18
    assert len(set(pixel_digests(root))) == 18


def test_equal_seeds_write_equal_sets_and_other_seeds_other_pictures(tmp_path: Path) -> None:
    first, again, other = (pixel_digests(write_tiny_set(tmp_path / f"{number}", number // 2)) for number in range(3))
    assert first == again
    assert not set(first) & set(other)


def test_an_existing_folder_is_refused_and_not_changed(tmp_path: Path) -> None:
    root = write_tiny_set(tmp_path / "drawn")
    before = pixel_digests(root)
    with pytest.raises(FileExistsError, match="drawn"):
        write_tiny_set(root, seed=1)
    assert pixel_digests(root) == before


def test_an_interrupted_write_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_and_be_interrupted(kind: str, seed: int, longest_side: int) -> Image.Image:
        if kind == "bees" and seed == 3:
            raise KeyboardInterrupt
        assert not (tmp_path / "drawn").exists()
        return Image.new("RGB", (longest_side, longest_side))

    monkeypatch.setattr(drawn, "draw", draw_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tiny_set(tmp_path / "drawn")
    assert list(tmp_path.iterdir()) == []


def test_the_set_has_the_permissions_of_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    root = write_tiny_set(tmp_path / "drawn")
    assert root.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_mean_colour_alone_does_not_separate_the_classes() -> None:
    centres = [mean_colours(kind, range(40)).mean(axis=0) for kind in CLASSES]
    hits = []
    for label, kind in enumerate(CLASSES):
        unseen = mean_colours(kind, range(100, 130))
        distances = [np.linalg.norm(unseen - centre, axis=1) for centre in centres]
        hits.extend(np.argmin(distances, axis=0) == label)
    assert np.mean(hits) < 0.8
