"""Properties that hold for any name, image size, pixel format and bytes, checked with generated examples."""

import io
import random
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from antbee.data.files import kind_of
from antbee.data.images import DataError, open_photo
from antbee.data.transforms import Augmentation, Preprocessing
from antbee.data.zip_names import UTF_8_FLAG, names_in_zip
from antbee.models.tensors import TensorsError, read_tensors
from antbee.text import as_text

# The same examples in every run; tests/endurance/fuzz.py searches at random.
repeatable = settings(derandomize=True, deadline=None, max_examples=25, database=None)


@settings(repeatable, max_examples=200)
@given(st.text(alphabet=st.sampled_from("<>&[]()!*_`#|{}/:;.ab1wh \n\t\u202e\x1b\"'=-~^$@"), max_size=40))
def test_any_name_is_escaped_in_markdown_and_in_html(name: str) -> None:
    markdown = MarkdownIt("commonmark").enable("table")
    assert not re.search(r"www\.|:/|@", as_text(name)), "a bare address, which the Hub makes a link of"
    for place in ("{}", "a {} z", "a\n{}"):
        rendered = markdown.render(place.format(as_text(name)))
        inner = rendered.strip().removeprefix("<p>").removesuffix("</p>")
        assert "<" not in inner, "a tag was rendered"


@settings(repeatable, max_examples=100)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=20), st.booleans()), max_size=5))
def test_any_bytes_are_names_in_a_zip(found: list[tuple[bytes, bytes, bool]]) -> None:
    entries = []
    for name, extra, is_utf_8 in found:
        entry = zipfile.ZipInfo("name")
        entry.orig_filename = name.decode("utf-8", "replace") if is_utf_8 else name.decode("cp437")
        entry.extra, entry.flag_bits = extra, UTF_8_FLAG * is_utf_8
        entries.append(entry)
    assert len(names_in_zip(entries).paths) == len(entries)


def test_a_sentence_without_markup_is_left_as_it_is() -> None:
    for text in (
        "The step from 100 photos to all is -0.1 points (standard error 0.2): level, so that's enough.",
        "a .gif file extension, not one of .jpg .jpeg",
        "val/ folder",
        "1.5 million; 20% more",
    ):
        assert as_text(text) == text


@repeatable
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 2**32))
def test_a_random_crop_lies_in_the_photo(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = Augmentation(0.08).crop_box(width, height, random.Random(seed)).box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@repeatable
@given(
    st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "LAB", "HSV"]),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "ICO", "PDF"]),
)
def test_any_pixels_in_any_format_are_read_as_rgb_or_refused(mode: str, width: int, height: int, kind: str) -> None:
    written = io.BytesIO()
    try:
        Image.new(mode, (width, height)).save(written, kind)
    except (OSError, ValueError, KeyError):  # Pillow does not write these
        return
    try:
        photo = open_photo(io.BytesIO(written.getvalue()))
    except DataError as error:
        assert kind in ("ICO", "PDF") or mode in ("F", "LAB") or "thin" in str(error)  # noqa: PT017
        return
    assert (photo.mode, photo.size) == ("RGB", (width, height))
    assert Preprocessing(crop=32).cropped(photo).size == (32, 32)


@repeatable
@given(st.binary(max_size=600))
def test_random_bytes_are_refused_as_a_photo_and_as_tensors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "any"
    path.write_bytes(content)
    kind_of(content)
    with pytest.raises(DataError):
        open_photo(path)
    with pytest.raises(TensorsError):
        read_tensors(path)


def test_null_as_metadata_of_tensors_is_read_as_none(tmp_path: Path) -> None:
    header = b'{"__metadata__": null}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_tensors(tmp_path / "a").metadata == {}
