"""antbee.check accepts odd but valid inputs, and refuses bad ones with one line that names the file and a remedy.

The inputs are known to break image classifiers, loaders and file formats.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from page_helpers import write_model
from PIL import Image, ImageOps
from safetensors.torch import load_file, save

import antbee
from antbee import Classifier
from antbee.data.drawn import draw, write_drawn_set
from antbee.data.images import open_photo
from antbee.models.config import CONFIG_FILE
from antbee.models.folder import WEIGHTS_FILE

REMEDIES = (
    *("export", "copy", "crop", "make it smaller", "give", "check the name", "run chmod", "remove", "add", "rename"),
    *("unpack", "train", "download", "expected", "move", "name", "delete", "save it"),
)
PHOTO = draw("bees", 1, 160)


@pytest.fixture(scope="module")
def check() -> Callable[[Path], dict]:
    """The result of antbee.check, as check.py --json prints it."""
    return lambda path: asdict(antbee.check(path, weights="random"))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # a copy, since Pillow stores the encoder's settings in the image
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with a few bytes of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def oversized_jpeg(side: int) -> bytes:
    content = bytearray(encoded(PHOTO, "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PHOTO, "JPEG", exif=exif, quality=95)


def assert_refused(checked: dict, path: Path) -> None:
    assert not checked["ok"]
    assert path.name in checked["error"], "the error names the file"
    assert any(remedy in checked["error"] for remedy in REMEDIES), checked["error"]
    assert "\n" not in checked["error"]


# ---- pictures --------------------------------------------------------------------------------------------------------


def several(kind: str) -> bytes:
    return encoded(PHOTO, kind, save_all=True, append_images=[ImageOps.mirror(PHOTO), ImageOps.flip(PHOTO)])


SIXTEEN = Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257)
USED: dict[str, Callable[[], bytes]] = {
    "one-pixel.png": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "two-pixels.png": lambda: encoded(Image.new("RGB", (2, 2)), "PNG"),
    "animated.gif": lambda: several("GIF"),
    "animated.webp": lambda: several("WEBP"),
    "animated.png": lambda: several("PNG"),
    "several.mpo": lambda: several("MPO"),
    "pages.tiff": lambda: several("TIFF"),
    "broken-exif.jpg": lambda: encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "broken-icc.jpg": lambda: encoded(PHOTO, "JPEG", icc_profile=b"no profile"),
    "orientation-99.jpg": lambda: oriented(99),
    "png-called.jpg": lambda: encoded(PHOTO, "PNG"),
    "jpeg-called.png": lambda: encoded(PHOTO, "JPEG"),
    "no-extension": lambda: encoded(PHOTO, "JPEG"),
    "photo.jfif": lambda: encoded(PHOTO, "JPEG"),
    "-rf.jpg": lambda: encoded(PHOTO, "JPEG"),
    "🐝 蜜蜂 \u202egpj\x1b[31m'\"\n.jpg": lambda: encoded(PHOTO, "JPEG"),
    "a" * 236 + ".jpg": lambda: encoded(PHOTO, "JPEG"),
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "empty.jpg": lambda: b"",
    "cut.jpg": lambda: encoded(PHOTO, "JPEG")[:-600],
    "cut.png": lambda: encoded(PHOTO, "PNG")[:-600],
    "cut.webp": lambda: encoded(PHOTO, "WEBP")[:-600],
    "text.jpg": lambda: b"no photo at all",
    "page.jpg": lambda: b"<!DOCTYPE html><title>404</title>",
    "script.svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "paper.pdf": lambda: b"%PDF-1.7 ...",
    "drawing.eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "phone.heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "phone.avif": lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    "zeros.jpg": lambda: bytes(1000),
    "pointer.jpg": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "nothing-by-nothing.png": lambda: png_of(0, 0),
    "50k.png": lambda: png_of(50_000, 50_000),
    "13k.png": lambda: png_of(13_000, 13_000),
    "oversized.jpg": lambda: oversized_jpeg(12_000),
    "oversized.bmp": lambda: (
        b"BM" + bytes(8) + struct.pack("<IIiiHHIIiiII", 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "oversized.gif": lambda: b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
    "sliver.png": lambda: png_of(1, 65_000),
    "thin.png": lambda: encoded(Image.new("RGB", (1, 5_000)), "PNG"),
    "floats.tiff": lambda: encoded(PHOTO.convert("F"), "TIFF"),
}


@pytest.mark.parametrize("name", USED)
def test_an_odd_picture_is_used(check, tmp_path, name):
    (tmp_path / name).write_bytes(USED[name]())
    checked = check(tmp_path / name)
    assert (checked["kind"], checked["ok"], checked["error"]) == ("picture", True, None)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_picture_is_refused_by_name_and_with_a_remedy(check, tmp_path, name):
    (tmp_path / name).write_bytes(REFUSED[name]())
    assert_refused(check(tmp_path / name), tmp_path / name)


def test_links_to_nothing_devices_and_pipes_are_refused_without_blocking(check, tmp_path):
    (tmp_path / "nothing.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("nothing.jpg", "self.jpg", "endless.jpg", "pipe.jpg", "gone.jpg"):
        assert_refused(check(tmp_path / name), tmp_path / name)


# Pairs of the same picture, and the largest difference of their colours, of 255.
GREY = PHOTO.convert("L").convert("RGB")
ALPHA = PHOTO.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
ON_WHITE = Image.composite(PHOTO, Image.new("RGB", PHOTO.size, "white"), ALPHA.getchannel("A"))
PALETTE = PHOTO.quantize(64)
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TWINS: dict[str, tuple[Callable[[], bytes], Image.Image, int]] = {
    "16-bit grey PNG": (lambda: encoded(SIXTEEN, "PNG"), GREY, 1),
    "16-bit grey TIFF": (lambda: encoded(SIXTEEN, "TIFF"), GREY, 1),
    "grey JPEG": (lambda: encoded(PHOTO.convert("L"), "JPEG", quality=95), GREY, 24),
    "1 bit": (lambda: encoded(PHOTO.convert("1"), "PNG"), PHOTO.convert("1").convert("RGB"), 0),
    "palette": (lambda: encoded(PALETTE, "PNG"), PALETTE.convert("RGB"), 0),
    "RGBA on white": (lambda: encoded(ALPHA, "PNG"), ON_WHITE, 2),
    "RGBA WebP on white": (lambda: encoded(ALPHA, "WEBP", lossless=True, exact=True), ON_WHITE, 2),
    "LA on white": (
        lambda: encoded(ALPHA.convert("LA"), "PNG"),
        Image.composite(GREY, Image.new("RGB", PHOTO.size, "white"), ALPHA.getchannel("A")),
        2,
    ),
    "CMYK JPEG": (lambda: encoded(PHOTO.convert("CMYK"), "JPEG", quality=95), PHOTO, 64),
    "CMYK TIFF": (lambda: encoded(PHOTO.convert("CMYK"), "TIFF"), PHOTO, 1),
    "progressive JPEG": (lambda: encoded(PHOTO, "JPEG", quality=95, progressive=True), PHOTO, 64),
    "lossless WebP": (lambda: encoded(PHOTO, "WEBP", lossless=True), PHOTO, 0),
    "BMP": (lambda: encoded(PHOTO, "BMP"), PHOTO, 0),
    "PPM": (lambda: encoded(PHOTO, "PPM"), PHOTO, 0),
    "first of several": (lambda: several("PNG"), PHOTO, 0),
} | {
    f"orientation {code}": (lambda code=code: oriented(code), PHOTO.transpose(turn), 64)
    for code, turn in TURNED.items()
}


@pytest.mark.parametrize("name", TWINS)
def test_the_format_of_a_picture_does_not_change_the_prediction(snapshot, name):
    content, twin, tolerance = TWINS[name]
    photo = open_photo(io.BytesIO(content()))
    assert photo.size == twin.size
    off = np.abs(np.asarray(photo).astype(int) - np.asarray(twin).astype(int))
    assert off.max() <= tolerance
    classifier = snapshot.models[0].classifier
    found, expected = classifier.predict([photo, twin])
    assert found.probabilities["ants"] == pytest.approx(
        expected.probabilities["ants"], abs=0.1 if tolerance > 2 else 0.02
    )


# ---- data folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data folder to damage."""
    counts = {"ants": 3, "bees": 3}
    return write_drawn_set(tmp_path / "photos", train=counts, val=counts, longest_side=32)


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def overwritten(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"no photo")


def moved(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


FAULTS: dict[str, Callable[[Path], object]] = {
    "no train": lambda root: moved(root / "train", root.parent / "elsewhere"),
    "an empty class": lambda root: emptied(root / "train" / "ants"),
    "a class in val alone": lambda root: (root / "val" / "wasps").mkdir(),
    "a class in train alone": lambda root: moved(root / "val" / "bees", root.parent / "bees"),
    "every photo of a class bad": lambda root: overwritten(root / "val" / "bees"),
    "most photos of a class bad": lambda root: [
        path.write_bytes(b"no photo") for path in sorted((root / "train" / "bees").iterdir())[:2]
    ],
    "one class": lambda root: [moved(root / split / "bees", root.parent / split) for split in ("train", "val")],
    "a class folder that leads in a circle": lambda root: (root / "train" / "loop").symlink_to(".."),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_data_folder_is_refused_by_name_and_with_a_remedy(check, folder, name):
    FAULTS[name](folder)
    checked = check(folder)
    assert checked["kind"] == "data"
    assert_refused(checked, folder)


def test_a_folder_that_is_no_data_folder_is_refused(check, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "photo.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    for name in ("empty", "flat", "missing"):
        assert_refused(check(tmp_path / name), tmp_path / name)


# ---- model folders ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of the model folder to damage; the weights are a link, since most faults are in other files."""
    target = tmp_path / "model"
    target.mkdir()
    for path in whole.iterdir():
        if path.name == WEIGHTS_FILE:
            (target / path.name).symlink_to(path)
        elif path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def header_of(content: bytes, change: Callable[[dict], object]) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def doubled(content: bytes) -> bytes:
    """The header with a tensor's name twice, which JSON allows."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].rstrip()
    text = header[:-1] + b',"fc.bias":' + json.dumps(json.loads(header)["fc.bias"]).encode() + b"}"
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def overlapping(header: dict) -> None:
    header["fc.bias"]["data_offsets"] = [0, 8]


WEIGHTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-1000],
    "bytes too many": lambda content: content + b"more",
    "a header of 2^63 bytes": lambda content: (2**63).to_bytes(8, "little") + content[8:],
    "a header of 2^64 - 1 bytes": lambda content: b"\xff" * 8 + content[8:],
    "a header one byte short": lambda content: (
        (int.from_bytes(content[:8], "little") - 1).to_bytes(8, "little") + content[8:]
    ),
    "a header in UTF-16": lambda content: (20).to_bytes(8, "little") + "{}".encode("utf-16").ljust(20) + content[8:],
    "a name twice": doubled,
    "tensors that overlap": lambda content: header_of(content, overlapping),
    "a shape that does not fit": lambda content: header_of(content, lambda header: header["fc.bias"].update(shape=[3])),
    "a type that is none": lambda content: header_of(content, lambda header: header["fc.bias"].update(dtype="F99")),
    "no tensors": lambda content: b"\x02\0\0\0\0\0\0\0{}",
    "empty": lambda content: b"",
    "a pickle": lambda content: b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    "a zip": lambda content: b"PK\x03\x04" + bytes(100),
    "gzip": lambda content: b"\x1f\x8b" + bytes(100),
    "an LFS pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 44\n",
    "an HTML page": lambda content: b"<!doctype html><title>404</title>",
    "a flipped bit": lambda content: content[:-7] + bytes([content[-7] ^ 1]) + content[-6:],
    "a zeroed body": lambda content: content[:20_000] + bytes(len(content) - 20_000),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_damaged_weights_are_refused_by_name_and_with_a_remedy(check, whole, broken, name):
    (broken / WEIGHTS_FILE).unlink()
    (broken / WEIGHTS_FILE).write_bytes(WEIGHTS[name]((whole / WEIGHTS_FILE).read_bytes()))
    checked = check(broken)
    assert checked["kind"] == "model"
    assert_refused(checked, broken / WEIGHTS_FILE)


def without(state: dict, name: str) -> None:
    del state[name]


TENSORS: dict[str, Callable[[dict], object]] = {
    "layer1.0.bn1.running_var": lambda state: without(state, "layer1.0.bn1.running_var"),
    "extra": lambda state: state.update(extra=torch.zeros(1)),
    "fc.weight": lambda state: state.update({"fc.weight": torch.zeros(3, 512)}),
    "conv1.weight": lambda state: state["conv1.weight"].fill_(torch.nan),
    "fc.bias": lambda state: state["fc.bias"].fill_(torch.inf),
    "bn1.running_var": lambda state: state["bn1.running_var"].neg_(),
    "bn1.weight": lambda state: state.update({"bn1.weight": state["bn1.weight"].int()}),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused_by_their_names(check, whole, broken, name):
    state = load_file(whole / WEIGHTS_FILE)
    TENSORS[name](state)
    (broken / WEIGHTS_FILE).unlink()
    (broken / WEIGHTS_FILE).write_bytes(save(state))
    checked = check(broken)
    assert_refused(checked, broken)
    assert name in checked["error"]


Config = dict
CONFIGS: dict[str, bytes | Callable[[Config], object]] = {
    "empty": b"",
    "cut": b'{"architecture": "resn',
    "a comma": b'{"architecture": "resnet18",}',
    "UTF-16": "{}".encode("utf-16"),
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "a list": b"[]",
    "padded": lambda config: config.update(padding="x" * 300_000),
    "no classes": lambda config: config.pop("label_names"),
    "classes are text": lambda config: config.update(label_names="ants"),
    "classes are null": lambda config: config.update(label_names=None),
    "classes are a number": lambda config: config.update(label_names=2),
    "no class": lambda config: config.update(label_names=[]),
    "one class less": lambda config: config.update(label_names=["ants"]),
    "one class more": lambda config: config.update(label_names=["ants", "bees", "wasps"]),
    "20,000 classes": lambda config: config.update(label_names=[str(number) for number in range(20_000)]),
    "mixed classes": lambda config: config.update(label_names=["ants", 2]),
    "a class twice": lambda config: config.update(label_names=["ants", "ants"]),
    "an unknown network": lambda config: config.update(architecture="resnet19"),
    "a path as a network": lambda config: config.update(architecture="../../evil"),
    "mean of NaN": lambda config: config["pretrained_cfg"].update(mean=[0.5, 0.5, float("nan")]),
    "std of zero": lambda config: config["pretrained_cfg"].update(std=[0, 0.2, 0.2]),
    "no pixels": lambda config: config["pretrained_cfg"].update(input_size=[3, 0, 0]),
    "fewer than no pixels": lambda config: config["pretrained_cfg"].update(input_size=[3, -224, -224]),
    "a billion pixels": lambda config: config["pretrained_cfg"].update(input_size=[3, 10**9, 10**9]),
    "crop of nothing": lambda config: config["pretrained_cfg"].update(crop_pct=0),
    "another format": lambda config: config["antbee"].update(format=99),
    "a checksum that is none": lambda config: config["antbee"].update(files={"model.safetensors": "abc"}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_config_is_refused_by_name_and_with_a_remedy(check, broken, name):
    content = CONFIGS[name]
    if callable(content):
        config = json.loads((broken / CONFIG_FILE).read_text())
        content(config)
        content = json.dumps(config).encode()
    (broken / CONFIG_FILE).write_bytes(content)
    checked = check(broken)
    assert_refused(checked, broken / CONFIG_FILE if name != "one class more" else broken)


def test_a_byte_order_mark_and_unusual_class_names_are_accepted(check, broken):
    names = ["<script>alert(1)</script>", "\u202eseeb\x1b[31m" + "x" * 20_000]
    config = json.loads((broken / CONFIG_FILE).read_text())
    config["label_names"] = names
    del config["antbee"]
    (broken / CONFIG_FILE).write_bytes(b"\xef\xbb\xbf" + json.dumps(config).encode())
    checked = check(broken)
    assert (checked["ok"], checked["classes"]) == (True, tuple(names))


def test_a_pickle_in_a_model_folder_is_never_run(broken, tmp_path):
    (broken / WEIGHTS_FILE).unlink()
    (broken / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch %s'\ntR." % bytes(tmp_path / "marker"))
    with pytest.raises(ValueError, match="pickles are never opened"):
        Classifier.from_pretrained(broken)
    assert not (tmp_path / "marker").exists()
