"""A photo with an ICC profile has the pixels of its sRGB version wherever it is opened; others stay as they are."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from icc_profiles import DISPLAY_P3, SRGB, grey_profile, in_primaries, rgb_profile
from PIL import Image, ImageCms, ImageEnhance

from antbee.data import colour
from antbee.data.drawn import draw
from antbee.data.images import open_photo, picture_of

P3 = rgb_profile(DISPLAY_P3)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    content.seek(0)
    return content


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures, in levels of 255."""
    assert (one.mode, one.size) == (other.mode, other.size) == ("RGB", other.size)
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


@pytest.fixture(scope="module")
def srgb() -> Image.Image:
    return ImageEnhance.Color(draw("bees", 3, 200)).enhance(1.6)


@pytest.fixture(scope="module")
def wide(srgb: Image.Image) -> Image.Image:
    """The same picture with the numbers of Display P3."""
    return in_primaries(srgb, DISPLAY_P3)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_a_photo_in_display_p3_has_the_pixels_of_its_srgb_version(srgb, wide, kind, options) -> None:
    assert difference(wide, srgb) > 10
    assert difference(open_photo(encoded(wide, kind, icc_profile=P3, **options)), srgb) <= 2


def test_a_jpeg_is_converted_too_also_where_it_is_decoded_at_a_lower_resolution(wide) -> None:
    large = wide.resize((1200, 900), Image.Resampling.BICUBIC)
    content = encoded(large, "JPEG", quality=95, icc_profile=P3)
    plain = encoded(large, "JPEG", quality=95)
    for shorter_side in (None, 200):
        found, without = (open_photo(file, shorter_side=shorter_side) for file in (content, plain))
        without.info["icc_profile"] = P3
        assert difference(found, without) > 10
        assert difference(found, colour.in_srgb(without)) <= 3, "converted before or after it is shrunk"


def test_prediction_from_a_file_and_from_an_opened_picture_see_the_same_pixels(wide, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    wide.save(path, icc_profile=P3)
    from_file = picture_of(path)
    with Image.open(path) as opened:
        before = opened.tobytes()
        assert picture_of(opened).tobytes() == from_file.tobytes()
        assert opened.tobytes() == before, "the argument is not changed"


def test_a_converted_photo_is_not_converted_again(wide) -> None:
    once = open_photo(encoded(wide, icc_profile=P3))
    assert "icc_profile" not in once.info
    assert picture_of(once).tobytes() == once.tobytes()


def test_a_profile_of_srgb_changes_nothing_and_costs_no_copy(srgb) -> None:
    for profile in (rgb_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        photo = Image.open(encoded(srgb, icc_profile=profile))
        photo.load()
        assert colour.in_srgb(photo) is photo


def test_without_a_profile_littlecms_is_never_called(srgb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "_transform", None)
    assert open_photo(encoded(srgb)).tobytes() == srgb.tobytes()


@pytest.mark.parametrize("profile", [b"", b"x", b"no profile" * 100, P3[:200], P3[:-30], bytes(500), P3 + b"x" * 2**22])
def test_a_damaged_or_huge_profile_is_ignored(srgb, profile) -> None:
    content = encoded(srgb, "TIFF", icc_profile=profile)
    assert open_photo(content).tobytes() == srgb.tobytes()


def test_a_profile_of_another_kind_of_picture_is_ignored(srgb) -> None:
    assert open_photo(encoded(srgb, icc_profile=grey_profile(1.0))).tobytes() == srgb.tobytes()
    grey = srgb.convert("L")
    assert open_photo(encoded(grey, icc_profile=P3)).tobytes() == grey.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_are_converted_by_a_profile_of_greys(mode: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    photo = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    found = np.asarray(open_photo(encoded(photo, "TIFF", icc_profile=grey_profile(1.8))), int)
    linear = (np.arange(256) / 255) ** 1.8
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert (found == found[..., :1]).all(), "grey stays grey"
    assert np.abs(found[..., 0].ravel() - expected).max() <= 2


def test_transparency_is_put_on_white_and_the_rest_is_converted(srgb, wide) -> None:
    see_through = wide.convert("RGBA")
    see_through.putalpha(255)
    see_through.paste((9, 9, 9, 0), (0, 0, 20, 20))
    found = open_photo(encoded(see_through, icc_profile=P3))
    expected = srgb.copy()
    expected.paste((255, 255, 255), (0, 0, 20, 20))
    assert difference(found, expected) <= 2


def test_cmyk_without_its_profile_is_converted_as_before() -> None:
    photo = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for options in ({}, {"icc_profile": P3}):
        assert open_photo(encoded(photo, "TIFF", **options)).getpixel((3, 3)) == (255, 0, 0)


def test_threads_that_share_a_transform_give_the_pixels_of_one(wide) -> None:
    content = encoded(wide, icc_profile=P3).getvalue()
    expected = open_photo(io.BytesIO(content)).tobytes()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: open_photo(io.BytesIO(content)).tobytes(), range(64))) == {expected}
