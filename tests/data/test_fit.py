"""A photo becomes a square by a crop, squashed or padded: in evaluation as timm does it, and in training."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config

from antbee.data.drawn import draw
from antbee.data.folder import Split
from antbee.data.images import open_photo
from antbee.data.loading import GPUImageLoader, ImageCache, ImageLoader, LoaderOptions, cache_photo
from antbee.data.transforms import LARGEST_PADDED, Augmentation, Fit, Preprocessing, pixels_of
from antbee.models.architectures import CROP_MODES

SIZES = [(252, 30), (30, 252), (223, 225), (97, 31), (31, 98), (64, 64), (1, 40), (7, 5)]
GREY = (117, 118, 119)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def places(width: int, height: int) -> Image.Image:
    """A picture whose red says how far right, and whose green says how far down a pixel is."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=2).astype(np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("crop", "crop_pct"), [(64, 1.0), (64, 0.875), (33, 0.777), (161, 0.95)])
@pytest.mark.parametrize("fit", CROP_MODES)
def test_the_networks_input_equals_that_of_timms_crop_mode(fit: Fit, crop: int, crop_pct: float, interpolation) -> None:
    ours = Preprocessing(crop, crop_pct, interpolation, (0.485, 0.456, 0.406), (0.2, 0.3, 0.4), fit)
    cfg = {
        "input_size": (3, crop, crop),
        "crop_pct": crop_pct,
        "crop_mode": CROP_MODES[fit],
        "interpolation": interpolation,
        "mean": ours.mean,
        "std": ours.std,
    }
    theirs = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
    for size in SIZES:
        photo = noise(*size)
        assert torch.equal(ours.normalise(pixels_of([ours.cropped(photo)]))[0], theirs(photo)), size


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (252, 30)])
def test_the_box_of_a_squashed_photo_is_the_whole_photo_and_of_a_padded_one_the_square_around_it(size) -> None:
    width, height = size
    assert Preprocessing(crop_pct=1, fit="squash").crop_box(width, height) == (0, 0, width, height)
    left, top, right, bottom = Preprocessing(crop_pct=1, fit="pad").crop_box(width, height)
    assert right - left == bottom - top == max(size)
    assert (left + right, top + bottom) == (width, height)


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_the_box_is_where_the_pixels_of_the_input_come_from_also_where_edges_are_cut(fit: Fit) -> None:
    preprocessing = Preprocessing(crop_pct=0.8, fit=fit)
    left, top, right, bottom = preprocessing.crop_box(400, 200)
    middle = np.asarray(preprocessing.cropped(places(400, 200)), float)[112, :, 0] * 400 / 255
    assert middle[0] == pytest.approx(left, abs=3)
    assert middle[-1] == pytest.approx(right, abs=3)
    assert (top, bottom) == ((20, 180) if fit == "squash" else (-60, 260))


def test_the_padding_is_the_mean_and_only_where_the_photo_is_not() -> None:
    preprocessing = Preprocessing(crop=64, crop_pct=1, fit="pad")
    cropped = np.asarray(preprocessing.cropped(Image.new("RGB", (64, 16), "white")))
    is_photo = (cropped == 255).all(axis=2)
    assert is_photo[24:40].all()
    assert is_photo.sum() == 16 * 64
    assert {tuple(colour) for colour in cropped[~is_photo].tolist()} == {preprocessing.padding}
    shown = preprocessing.normalise(pixels_of([preprocessing.cropped(Image.new("RGB", (64, 16), "white"))]))
    assert shown[0, :, 0, 0].abs().max() < 0.01
    assert Preprocessing(mean=(-3.0, 0.5, 9.0), fit="pad").padding == (0, 128, 255), "a config may hold any mean"


def test_the_share_of_a_photo_that_is_seen_is_that_of_its_area() -> None:
    assert Preprocessing(crop_pct=1).share_seen(400, 100) == pytest.approx(0.25)
    assert Preprocessing(crop_pct=0.875).share_seen(100, 100) == pytest.approx(0.875**2, abs=0.01)
    assert Preprocessing(crop_pct=1, fit="squash").share_seen(400, 100) == 1
    assert Preprocessing(crop_pct=1, fit="pad").share_seen(400, 100) == 1
    assert Preprocessing(crop_pct=0.8, fit="pad").share_seen(400, 100) == pytest.approx(0.8)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def boxes(augmentation: Augmentation, width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [augmentation.crop_box(width, height, random.Random(seed)).box for seed in range(200)]


def test_random_crops_of_a_squashed_photo_have_its_aspect_ratio_and_cover_most_of_it() -> None:
    for left, top, right, bottom in boxes(Augmentation(0.8, squash=True), 252, 30):
        assert 0 <= left < right <= 252
        assert 0 <= top < bottom <= 30
        across, down = (right - left) / 252, (bottom - top) / 30
        assert 0.75 <= across * down <= 1
        assert 0.7 < across / down < 1.5


@pytest.mark.parametrize("size", [(1, 1), (40, 1), (1, 40)])
def test_random_crops_of_a_squashed_photo_always_have_pixels(size: tuple[int, int]) -> None:
    for left, top, right, bottom in boxes(Augmentation(0.08, squash=True), *size):
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (101, 40), (3000, 80)])
def test_random_crops_of_a_padded_photo_are_cut_from_the_square_around_it(size: tuple[int, int]) -> None:
    source = Augmentation(padding=GREY).source(Image.new("RGB", size, "white"))
    side = min(max(size), LARGEST_PADDED)
    assert source.size == (side, side)
    shown = Image.fromarray((np.asarray(source) == 255).all(axis=2)).getbbox()
    expected = [round(own * side / max(size)) for own in size]
    assert shown is not None
    assert [shown[2] - shown[0], shown[3] - shown[1]] == expected
    assert source.getpixel((0, 0) if min(size) < side else (0, side - 1)) == GREY


def test_the_square_around_a_large_photo_is_shrunk_to_the_side_that_crops_are_cut_from() -> None:
    assert Augmentation(padding=GREY, shorter_side=50).source(noise(300, 80)).size == (50, 50)
    photo = noise(300, 80)
    assert Augmentation(shorter_side=50).source(photo) is photo, "a crop is cut from the photo itself"


def test_without_mirroring_no_crop_is_mirrored_and_the_boxes_stay_the_same() -> None:
    for seed in range(50):
        plain = Augmentation(mirror=False).crop_box(300, 200, random.Random(seed))
        assert not plain.mirrored
        assert plain.box == Augmentation().crop_box(300, 200, random.Random(seed)).box


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Four photos, wide, tall, small, and large enough to be shrunk."""
    root = tmp_path_factory.mktemp("strips")
    sizes = [(252, 30), (30, 252), (20, 20), (400, 160)]
    for number, size in enumerate(sizes):
        ImageOps.fit(draw("ants", number, 320), size).save(root / f"{number}.png")
    return Split(tuple(root / f"{number}.png" for number in range(len(sizes))), (0, 1, 0, 1))


AUGMENTATIONS = [
    Augmentation(0.8, (32,), 64, squash=True),
    Augmentation(0.8, (32,), 64, padding=GREY),
    Augmentation(0.8, (32,), None, padding=GREY),
]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_squashed_and_padded_crops_from_device_memory_differ_by_two_levels_at_most(strips, augmentation) -> None:
    loader = ImageLoader(strips, Preprocessing(crop=32), augmentation)
    level = 1 / 255 / min(loader.preprocessing.std)
    for epoch in (1, 2, 3):
        ((one, _),), ((other, _),) = (
            each.batches([torch.arange(4)], epoch) for each in (loader, GPUImageLoader(loader))
        )
        assert (one - other).abs().max() <= 2.01 * level


@pytest.mark.parametrize(
    "transform", [*AUGMENTATIONS, *(Preprocessing(crop=32, crop_pct=1, fit=fit) for fit in CROP_MODES)]
)
def test_what_is_cached_while_a_folder_is_read_equals_what_the_loader_reads(strips, transform) -> None:
    cache = ImageCache()
    for path in strips.paths:
        cache_photo(cache, path, open_photo(path), [transform])
    augmentation = transform if isinstance(transform, Augmentation) else None
    preprocessing = transform if isinstance(transform, Preprocessing) else Preprocessing(crop=32)
    plain, cached = (
        ImageLoader(strips, preprocessing, augmentation, options=options)
        for options in (LoaderOptions(), LoaderOptions(cache=cache))
    )
    for position in range(len(strips)):
        assert cached.picture(position).tobytes() == plain.picture(position).tobytes()


def test_the_three_ways_share_no_cached_image(strips) -> None:
    options = LoaderOptions()
    pictures = {
        fit: ImageLoader(strips, Preprocessing(crop=32, crop_pct=1, fit=fit), options=options).picture(0).tobytes()
        for fit in CROP_MODES
    }
    pictures |= {
        f"{augmentation}": ImageLoader(strips, Preprocessing(), augmentation, options=options).picture(3).tobytes()
        for augmentation in AUGMENTATIONS
    }
    assert len(set(pictures.values())) == len(pictures)


def test_a_padded_photo_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    assert Augmentation(padding=GREY).source(Image.new("RGB", (24_000, 600))).size == (LARGEST_PADDED,) * 2
