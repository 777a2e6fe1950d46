"""Photos are decoded as an image viewer shows them, and preprocessed as torchvision and timm do."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.models import ResNet18_Weights

from antbee.data.drawn import draw
from antbee.data.images import DataError, open_photo, picture_of, size_of, uses_a_sixteenth
from antbee.data.transforms import Augmentation, CropBox, Preprocessing, pixels_of

RED, GREY = (200, 30, 40), (120, 120, 120)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


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


@pytest.mark.parametrize("grey", [(6, 8), (6, 8, 1)])
def test_grey_arrays_with_and_without_a_channel_are_read(grey: tuple[int, ...]) -> None:
    picture = picture_of(np.full(grey, 77, np.uint8))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (8, 6), (77, 77, 77))


def test_a_float_tensor_gives_the_pixels_that_it_was_made_from() -> None:
    pixels = torch.arange(3 * 256, dtype=torch.int64).reshape(3, 16, 16).remainder(256).byte()
    for image in (pixels, pixels.float() / 255, pixels.double() / 255):
        assert torch.equal(torch.from_numpy(np.array(picture_of(image))).movedim(-1, 0), pixels)


@pytest.mark.parametrize(
    ("thing", "what"),
    [
        (None, "None is no photo: expected a path, a PIL image, a numpy array of uint8 (H, W) or (H, W, C), a tensor"),
        (7, "a value of type int is no photo"),
        (b"a.jpg", "a value of type bytes is no photo"),
        (np.zeros((3, 64, 48), np.uint8), "a numpy array of uint8 (3, 64, 48) is no photo"),
        (np.zeros((64, 48, 3)), "a numpy array of float64 (64, 48, 3) is no photo"),
        (np.zeros((0, 48, 3), np.uint8), "a numpy array of uint8 (0, 48, 3) is no photo"),
        (np.zeros((2, 64, 48, 3), np.uint8), "or a list of them"),
        (torch.zeros(64, 48, 3, dtype=torch.uint8), "a tensor of uint8 (64, 48, 3) is no photo"),
        (torch.zeros(3, 64, 48, dtype=torch.int64), "a tensor of int64 (3, 64, 48) is no photo"),
        (torch.zeros(64, 48), "a tensor of float32 (64, 48) is no photo"),
        (torch.full((3, 8, 8), -2.0), "values from -2 to -2: expected floats from 0 to 1, before they are normalised"),
        (torch.full((3, 8, 8), torch.nan), "values from nan to nan"),
        (Image.new("RGB", (0, 8)), "a picture without pixels"),
        (Image.new("L", (1, 5000)), "too thin a photo"),
    ],
)
def test_what_is_no_photo_is_an_error_of_one_sentence_that_names_it_and_what_is_expected(
    thing: object, what: str
) -> None:
    with pytest.raises(DataError) as error:
        picture_of(thing)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_whose_file_turns_out_damaged_is_an_error_of_one_sentence() -> None:
    whole = encoded(Image.effect_noise((300, 300), 50))
    with (
        Image.open(io.BytesIO(whole[: len(whole) // 2])) as image,
        pytest.raises(DataError, match=r"a damaged photo \(image file is truncated .*: copy or export it again"),
    ):
        picture_of(image)


def test_damaged_exif_data_is_ignored() -> None:
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
def test_every_pixel_format_is_converted_to_rgb_as_a_viewer_shows_it(
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
def test_a_huge_photo_is_refused_before_it_is_decoded(side: int) -> None:
    header = f"P6 {side} {side} 255\n".encode()
    with pytest.raises(DataError, match=r"too large a photo .*make it smaller"):
        open_photo(io.BytesIO(header + bytes(100)))


@pytest.mark.parametrize("side", [10_000, 14_143, 60_000])
def test_the_message_for_a_huge_photo_is_antbees_own_also_beyond_pillows_limit(side: int) -> None:
    with pytest.raises(DataError, match=r"too large a photo \(.*60") as caught:
        open_photo(io.BytesIO(f"P6 {side} {side} 255\n".encode() + bytes(100)))
    assert "DOS" not in str(caught.value)
    if side > 13_400:
        assert f"{side * side // 1_000_000} megapixels, at most 60 are read, of a JPEG 120" in str(caught.value)


def test_the_size_of_a_photo_is_read_from_its_header(tmp_path: Path) -> None:
    content = encoded(resized_photo((320, 200)))
    (tmp_path / "cut.jpg").write_bytes(content[:2000])
    (tmp_path / "text.jpg").write_text("no photo")
    assert size_of(tmp_path / "cut.jpg") == (320, 200)
    assert size_of(tmp_path / "text.jpg") is None
    assert size_of(tmp_path / "nothing.jpg") is None


@pytest.mark.parametrize(
    ("highest", "expected"), [(255, True), (4095, True), (4096, False), (65535, False), (0, False)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_16_bits_that_use_a_sixteenth_of_them_are_told_from_others(
    tmp_path: Path, highest: int, expected: bool, kind: str
) -> None:
    path = tmp_path / f"photo.{kind.lower()}"
    values = np.zeros((8, 8), np.uint16)
    values[3, 3] = highest
    Image.fromarray(values).save(path, kind)
    assert uses_a_sixteenth(path) == expected
    Image.new("L", (8, 8), 3).save(path, kind)
    assert not uses_a_sixteenth(path), "8 bits"


def test_a_thin_photo_that_resizing_would_make_huge_is_refused() -> None:
    with pytest.raises(DataError, match=r"too thin a photo \(1 x 500 pixels.*crop it first"):
        open_photo(io.BytesIO(encoded(Image.new("RGB", (1, 500)))))
    assert open_photo(io.BytesIO(encoded(Image.new("RGB", (1, 40))))).size == (1, 40)


def test_a_missing_file_and_a_folder_are_errors_with_the_reason(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DataError, match=r"not there: check the name|a folder, not a file"):
            open_photo(path)


# ---------------------------------------------------------------------------------------------------------------------
# Preprocessing

IMAGENET = Preprocessing()
TUTORIAL = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SIZES = [(320, 240), (240, 320), (256, 256), (130, 97), (700, 301), (224, 224), (40, 9)]


def resized_photo(size: tuple[int, int]) -> Image.Image:
    return draw("ants", 4, 320).resize(size)


def seen(photo: Image.Image, preprocessing: Preprocessing = IMAGENET) -> Tensor:
    """The network's input for a photo: float32 (3, crop, crop)."""
    return preprocessing.normalise(pixels_of([preprocessing.cropped(photo)]))[0]


@pytest.mark.parametrize("size", SIZES)
def test_the_evaluation_crop_equals_torchvisions_preset_for_the_imagenet_weights(size: tuple[int, int]) -> None:
    photo = resized_photo(size)
    expected = ResNet18_Weights.IMAGENET1K_V1.transforms()(photo)
    found = seen(photo)
    assert found.shape == (3, 224, 224)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_tutorials_normalisation_equals_its_transforms() -> None:
    photo = resized_photo((320, 240))
    classic = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    found = seen(photo, TUTORIAL)
    assert torch.equal(found, classic(photo))
    assert (found - seen(photo)).abs().mean() > 0.1


@pytest.mark.parametrize("preprocessing", [Preprocessing(), TUTORIAL])
@pytest.mark.parametrize("size", SIZES[:5])
def test_unnormalise_restores_the_pixels_of_the_crop(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    photo = resized_photo(size)
    cropped = preprocessing.cropped(photo)
    assert (cropped.size, cropped.mode) == ((224, 224), "RGB")
    shown = preprocessing.unnormalise(seen(photo, preprocessing)[None])[0]
    assert torch.allclose(shown, torch.from_numpy(np.array(cropped)).permute(2, 0, 1) / 255, atol=1e-6)


def test_unnormalised_pixels_stay_between_0_and_1() -> None:
    shown = Preprocessing().unnormalise(torch.linspace(-9, 9, 2 * 3 * 4 * 4).view(2, 3, 4, 4))
    assert (float(shown.min()), float(shown.max())) == (0, 1)


@pytest.mark.parametrize("preprocessing", [Preprocessing(), Preprocessing(crop=128, crop_pct=0.95)])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (256, 256), (640, 160)])
def test_the_crop_box_is_the_position_of_the_crop_in_the_photo(
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
    assert seen(resized_photo((320, 240)), preprocessing).shape == (3, crop, crop)


def test_bicubic_interpolation_equals_torchvisions() -> None:
    photo = resized_photo((320, 240))
    resized = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)(photo)
    expected = transforms.CenterCrop(224)(resized)
    assert Preprocessing(interpolation="bicubic").cropped(photo).tobytes() == expected.tobytes()
    assert Preprocessing().cropped(photo).tobytes() != expected.tobytes()


def test_normalising_does_not_change_its_input() -> None:
    pixels = pixels_of([resized_photo((32, 32))])
    before = pixels.clone()
    Preprocessing().normalise(pixels)
    assert torch.equal(pixels, before)


def test_pixels_are_those_of_the_images_channels_first() -> None:
    pictures = [resized_photo((20, 10)), Image.new("RGB", (20, 10), (1, 2, 3))]
    pixels = pixels_of(pictures)
    assert (pixels.shape, pixels.dtype) == ((2, 3, 10, 20), torch.uint8)
    for one, picture in zip(pixels, pictures, strict=True):
        assert np.array_equal(one.permute(1, 2, 0).numpy(), np.asarray(picture))


# ---------------------------------------------------------------------------------------------------------------------
# Shrinking while decoding


def test_only_larger_photos_are_shrunk_to_the_shorter_side() -> None:
    large, small = encoded(resized_photo((900, 600))), encoded(resized_photo((90, 60)))
    assert open_photo(io.BytesIO(large), shorter_side=100).size == (150, 100)
    assert open_photo(io.BytesIO(large)).size == (900, 600)
    assert open_photo(io.BytesIO(small), shorter_side=100).size == (90, 60)


def test_shrinking_while_decoding_hardly_differs_from_resizing_afterwards() -> None:
    content = encoded(resized_photo((1200, 900)), quality=95)
    quick = np.asarray(open_photo(io.BytesIO(content), shorter_side=200), float)
    careful = np.asarray(open_photo(io.BytesIO(content)).resize((266, 200), Image.Resampling.BILINEAR), float)
    assert quick.shape == careful.shape
    assert np.abs(quick - careful).mean() < 2  # shades of 256


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_shrunk_photo_is_turned_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(resized_photo((800, 400)), exif=exif)
    assert open_photo(io.BytesIO(content), shorter_side=100).size == ((200, 100) if orientation == 1 else (100, 200))


# ---------------------------------------------------------------------------------------------------------------------
# Random crops


def crops(width: int, height: int, count: int = 300, **options: float) -> list[CropBox]:
    return [Augmentation(**options).crop_box(width, height, random.Random(seed)) for seed in range(count)]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (1, 1), (40, 1), (1000, 25)])
def test_a_random_crop_lies_in_the_photo(size: tuple[int, int]) -> None:
    for place in crops(*size):
        left, top, right, bottom = place.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_random_crops_stay_within_the_limits_of_area_and_aspect_ratio() -> None:
    boxes = [place.box for place in crops(400, 300, smallest_crop=0.35)]
    areas = [(right - left) * (bottom - top) / (400 * 300) for left, top, right, bottom in boxes]
    shapes = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
    assert 0.34 < min(areas) < 0.4
    assert 0.9 < max(areas) <= 1
    assert 0.74 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.35


def test_random_crops_are_distributed_as_torchvisions() -> None:
    ours = torch.tensor([place.box for place in crops(500, 375, 3000)], dtype=torch.float)
    ours = torch.stack([ours[:, 0], ours[:, 1], ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw_one = transforms.RandomResizedCrop.get_params
        photo = torch.empty(3, 375, 500)
        drawn = [draw_one(photo, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs = torch.tensor([(left, top, width, height) for top, left, height, width in drawn], dtype=torch.float)
    for part in (0.1, 0.5, 0.9):
        gap = (ours.quantile(part, 0) - theirs.quantile(part, 0)).abs()
        assert gap.max() < 20, f"{part}: pixels of 500 apart"


def test_half_of_the_crops_are_mirrored() -> None:
    assert 120 < sum(place.mirrored for place in crops(300, 200)) < 180


def test_a_crop_is_resized_and_mirrored() -> None:
    # Red says how far right, green how far down a pixel is.
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    photo = Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))
    plain = np.asarray(CropBox((40, 20, 80, 60), mirrored=False).cut(photo, 10), float)
    mirrored = np.asarray(CropBox((40, 20, 80, 60), mirrored=True).cut(photo, 10), float)
    assert plain.shape == (10, 10, 3)
    assert plain[0, :, 0] == pytest.approx(np.arange(41.5, 80, 4), abs=1)
    assert plain[:, 0, 1] == pytest.approx(np.arange(21.5, 60, 4), abs=1)
    assert np.array_equal(mirrored, plain[:, ::-1])


def test_a_crop_equals_torchvisions_resized_crop() -> None:
    photo = resized_photo((320, 240))
    expected = transforms.functional.resized_crop(photo, 30, 20, 150, 200, [64, 64])
    assert np.array_equal(np.asarray(CropBox((20, 30, 220, 180), mirrored=False).cut(photo, 64)), np.asarray(expected))


def test_the_crop_size_follows_the_schedule_and_keeps_its_last_value() -> None:
    augmentation = Augmentation(sizes=(128, 160, 224))
    assert [augmentation.size(epoch) for epoch in range(6)] == [128, 128, 160, 224, 224, 224]
