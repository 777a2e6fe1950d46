"""One rule says which files below a folder may be photos, which links are followed, and what is left out and why."""

import os
from pathlib import Path

import pytest
from data_folders import encoded, photo_bytes, write_set
from PIL import Image

from antbee.data.listing import (
    SkippedFile,
    is_own_folder,
    list_files,
    list_photos,
    some_of_each,
    summary,
    why_no_photo,
)

HEIC, AVIF = b"\0\0\0\x18ftypheic\0\0", b"\0\0\0\x1cftypavif\0\0"


def found(root: Path, **options: bool) -> tuple[list[str], dict[str, str]]:
    """The names of the photos below a folder, and the reason for everything else."""
    listing = list_photos(root, **options)
    names = [path.relative_to(root).as_posix() for path in listing.files]
    return names, {entry.file: entry.reason for entry in listing.skipped}


def test_the_content_decides_whether_a_file_is_a_photo(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    content = {
        "a.JPG": photo_bytes(),
        "b.jfif": photo_bytes(),
        "c.jpe": photo_bytes(),
        "d.gif": encoded(image, "GIF"),
        "e": encoded(image, "PNG"),
        "f.dat": encoded(image, "WEBP"),
        "g.dib": encoded(image, "BMP"),
        "h.pnm": encoded(image, "PPM"),
        "i.tif": encoded(image, "TIFF"),
        "j.jpg": b"<html>404</html>",
    }
    others = {"k.heic": HEIC, "l.avif": AVIF, "m.nef": encoded(image, "TIFF"), "n.jpg.json": b"{}", "o": b""}
    for name, data in (content | others).items():
        (tmp_path / name).write_bytes(data)
    names, reasons = found(tmp_path)
    assert names == list(content)
    assert {file: reason.partition(":")[0] for file, reason in reasons.items()} == {
        "k.heic": "HEIC, a format that is not read",
        "l.avif": "AVIF, a format that is not read",
        "m.nef": "a .nef file, not a photo (TIFF, as cameras' raw files are)",
        "n.jpg.json": "a .json file, not a photo (text)",
        "o": "an empty file",
    }


def test_a_gif_is_predicted_and_not_trained_on() -> None:
    gif = encoded(Image.new("RGB", (8, 8)), "GIF")
    assert why_no_photo("a.gif", gif) is None
    assert (why_no_photo("a.gif", gif, for_training=True) or "").startswith("a GIF, which is not trained on")
    assert why_no_photo("a.jpg", gif, for_training=True) is None
    assert why_no_photo("a.jfif", photo_bytes(), for_training=True) is None


@pytest.mark.parametrize("litter", ["._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", ".hidden.jpg"])
def test_files_of_an_operating_system_are_no_photos(tmp_path: Path, litter: str) -> None:
    (write_set(tmp_path, {"ants": 1}) / "ants" / litter).write_bytes(photo_bytes())
    assert found(tmp_path) == (["ants/000.jpg"], {f"ants/{litter}": "a hidden file: rename it to use it"})


@pytest.mark.parametrize("litter", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", ".cache/huggingface", "__pycache__"])
def test_folders_of_tools_are_not_entered_and_named_where_they_hold_photos(tmp_path: Path, litter: str) -> None:
    write_set(tmp_path, {"ants": 1, f"ants/{litter}": 2, f"bees/{litter}": 0})
    reason = "a hidden folder with 2 photos: move them out to use them"
    assert found(tmp_path) == (["ants/000.jpg"], {f"ants/{litter.partition('/')[0]}": reason})


def test_links_out_of_the_folder_are_followed_if_asked_to_and_loops_and_devices_never(tmp_path: Path) -> None:
    pool, root = write_set(tmp_path, {"pool": 2}) / "pool", write_set(tmp_path / "root", {"ants": 1})
    ants = root / "ants"
    for name, target in {
        "link.jpg": pool / "000.jpg",
        "pool": pool,
        "up": root,
        "again": pool,
        "inside.jpg": ants / "000.jpg",
        "self.jpg": ants / "self.jpg",
        "gone.jpg": ants / "gone.png",
        "zero.jpg": Path("/dev/zero"),
    }.items():
        (ants / name).symlink_to(target)
    os.mkfifo(ants / "pipe.jpg")
    always = {"ants/gone.jpg", "ants/self.jpg", "ants/pipe.jpg", "ants/zero.jpg", "ants/up"}
    names, reasons = found(root)
    assert names == ["ants/000.jpg", "ants/inside.jpg"]
    assert set(reasons) == {*always, "ants/link.jpg", "ants/pool", "ants/again"}
    assert "--follow-links" in reasons["ants/link.jpg"]
    names, reasons = found(root, follow_links=True)
    assert set(names) == {"ants/000.jpg", "ants/inside.jpg", "ants/link.jpg"} | (
        {"ants/pool/000.jpg", "ants/pool/001.jpg"}
        if "ants/again" in reasons
        else {"ants/again/000.jpg", "ants/again/001.jpg"}
    )
    assert always < set(reasons)


def test_links_into_the_cache_of_the_hub_are_followed(tmp_path: Path) -> None:
    download = write_set(tmp_path, {"blobs/ab": 1, "datasets--me--ants/blobs": 2}) / "datasets--me--ants"
    (download / "blobs/shared").symlink_to("../../blobs/ab/000.jpg")
    ants = download / "snapshots/1234/train/ants"
    ants.mkdir(parents=True)
    for number, blob in enumerate(("000.jpg", "001.jpg", "shared")):
        (ants / f"{number}.jpg").symlink_to(f"../../../../blobs/{blob}")
    (ants / "out.jpg").symlink_to("/etc/hostname")
    names, reasons = found(download / "snapshots/1234")
    assert names == [f"train/ants/{number}.jpg" for number in range(3)]
    assert list(reasons) == ["train/ants/out.jpg"]
    assert len(list_files(ants).files) == 3, "a folder in a download"


def test_what_antbee_wrote_is_no_folder_of_photos(tmp_path: Path) -> None:
    write_set(tmp_path, {"ants": 1, "outputs/frozen/figures": 1, "outputs/versions/1/frozen/figures": 1, "run": 0})
    (tmp_path / "run/.training").mkdir()
    (tmp_path / "run/.training/antbee.txt").write_text("A training")
    for model in ("frozen", "versions/1/frozen"):
        (tmp_path / "outputs" / model / "config.json").write_text('{"antbee": {}}')
    names, reasons = found(tmp_path)
    assert names == ["ants/000.jpg"]
    assert set(reasons) == {"outputs", "run"}
    assert is_own_folder(tmp_path / "outputs/frozen")
    (tmp_path / "outputs/mine.jpg").write_bytes(photo_bytes())
    assert not is_own_folder(tmp_path / "outputs"), "somebody's photo is in it"
    assert found(tmp_path)[0] == ["ants/000.jpg", "outputs/mine.jpg"]
    (tmp_path / "outputs/frozen/config.json").write_text('{"architecture": "resnet18"}')
    assert "outputs/frozen/figures/000.jpg" in found(tmp_path)[0], "another program's"


def test_many_files_of_a_kind_are_a_line_and_none_of_a_kind_hides_another() -> None:
    skipped = [SkippedFile(f"ants/{number}.jpg.json", "a .json file, not a photo (text)") for number in range(3000)]
    skipped += [SkippedFile("bees/1.heic", "HEIC, a format that is not read: export it as JPEG to use it")]
    assert summary(skipped) == [
        "3,000 times a .json file, not a photo, such as ants/0.jpg.json, ants/1.jpg.json, ants/2.jpg.json",
        "bees/1.heic: HEIC, a format that is not read: export it as JPEG to use it",
    ]
    assert some_of_each(skipped, 3) == [*skipped[:2], skipped[-1]]
    odd = [SkippedFile(f"{number}", f"a .{number} file, not a photo") for number in range(50)]
    assert summary(odd)[-1] == "42 more, of 42 other kinds"


def test_many_files_of_a_kind_share_the_advice_where_it_is_the_same() -> None:
    skipped = [
        SkippedFile(f"{number}.heic", "HEIC, a format that is not read: export it as JPEG") for number in range(4)
    ]
    assert summary(skipped) == [
        "4 times HEIC, a format that is not read (export it as JPEG), such as 0.heic, 1.heic, 2.heic"
    ]
