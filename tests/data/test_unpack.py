"""Archives of photos: unpacked once, completely or not at all, and never over what is there or outside their folder."""

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from data_folders import photo_bytes

from antbee.data import unpack
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.data.unpack import unpacked

PHOTOS = {f"{name}/{number}.jpg": photo_bytes(16 * number) for name in ("ants", "bees") for number in range(3)}


def zip_at(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_at(path: Path, files: dict[str, bytes], *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry)
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def refusal(archive: Path) -> str:
    """The one line that says why an archive is not unpacked, which leaves nothing behind."""
    before = sorted(archive.parent.iterdir())
    with pytest.raises(DataError) as raised:
        unpacked(archive)
    assert sorted(archive.parent.iterdir()) == before
    assert len(str(raised.value).splitlines()) == 1
    assert str(archive) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ["photos.zip", "photos.ZIP", "photos.tar", "photos.tar.gz", "photos.tgz"])
def test_an_archive_is_unpacked_beside_itself_and_read_as_a_folder(tmp_path, name):
    archive = (zip_at if name.lower().endswith("zip") else tar_at)(tmp_path / name, PHOTOS)
    root = unpacked(archive)
    assert root == tmp_path / "photos"
    assert files_in(root) == PHOTOS
    assert len(read_folder(root).all) == 6
    assert sorted(tmp_path.iterdir()) == [root, archive]


def test_a_single_folder_at_the_top_is_the_root(tmp_path):
    archive = zip_at(tmp_path / "photos.zip", {f"mine/{name}": content for name, content in PHOTOS.items()})
    assert unpacked(archive) == tmp_path / "photos" / "mine"
    assert files_in(unpacked(archive)) == PHOTOS


def test_a_split_alone_at_the_top_is_not_taken_for_the_root(tmp_path):
    archive = zip_at(tmp_path / "photos.zip", {f"train/{name}": content for name, content in PHOTOS.items()})
    assert unpacked(archive) == tmp_path / "photos"


def test_the_litter_of_systems_stays_packed(tmp_path):
    litter = {"__MACOSX/ants/._0.jpg": b"x", "ants/.DS_Store": b"x", "Thumbs.db": b"x"}
    assert files_in(unpacked(zip_at(tmp_path / "photos.zip", PHOTOS | litter))) == PHOTOS


def test_the_same_archive_is_not_unpacked_again(tmp_path):
    archive = zip_at(tmp_path / "photos.zip", PHOTOS)
    (unpacked(archive) / "ants" / "0.jpg").unlink()  # somebody removed a bad photo
    assert len(files_in(unpacked(archive))) == len(PHOTOS) - 1


def test_another_archive_of_the_same_name_does_not_overwrite_what_was_unpacked(tmp_path):
    unpacked(zip_at(tmp_path / "photos.zip", PHOTOS))
    assert "unpacked from another photos.zip" in refusal(zip_at(tmp_path / "photos.zip", {"ants/9.jpg": b"9"}))
    assert files_in(tmp_path / "photos") == PHOTOS


@pytest.mark.parametrize("make", ["folder", "file", "link"])
def test_what_is_there_already_is_left_alone(tmp_path, make):
    place = tmp_path / "photos"
    if make == "folder":
        (place / "mine").mkdir(parents=True)
    elif make == "file":
        place.write_bytes(b"mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    assert "is there already" in refusal(zip_at(tmp_path / "photos.zip", PHOTOS))


@pytest.mark.parametrize("name", ["../out.jpg", "ants/../../out.jpg", "/tmp/out.jpg", "C:/out.jpg", "..\\out.jpg"])
@pytest.mark.parametrize("make", [zip_at, tar_at])
def test_a_name_that_leads_out_is_refused(tmp_path, name, make):
    suffix = "zip" if make is zip_at else "tar"
    place = tmp_path / "below" / "here"
    place.mkdir(parents=True)
    assert "leads out" in refusal(make(place / f"photos.{suffix}", PHOTOS | {name: b"x"}))
    assert sorted(tmp_path.rglob("*.jpg")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    entry = tarfile.TarInfo("ants/link.jpg")
    entry.type, entry.linkname = kind, "/etc/passwd"
    assert "a link or a device, ants/link.jpg" in refusal(tar_at(tmp_path / "photos.tgz", PHOTOS, entry))


def test_a_link_in_a_zip_is_refused(tmp_path):
    entry = zipfile.ZipInfo("ants/link.jpg")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = zip_at(tmp_path / "photos.zip", PHOTOS)
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr(entry, "/etc/passwd")
    assert "a link or a device, ants/link.jpg" in refusal(archive)


def test_a_bomb_stops_at_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "ALWAYS_ALLOWED", 10_000)
    monkeypatch.setattr(unpack, "COPIED_AT_ONCE", 1000)
    for archive in (
        zip_at(tmp_path / "photos.zip", {"ants/0.ppm": bytes(5_000_000)}),
        tar_at(tmp_path / "photos.tgz", {"ants/0.ppm": bytes(5_000_000)}),
    ):
        assert "times its own size" in refusal(archive)


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MOST_FILES", 5)
    assert "more than 5 files" in refusal(zip_at(tmp_path / "photos.zip", PHOTOS))
    assert "more than 5 files" in refusal(tar_at(tmp_path / "photos.tar", PHOTOS))
    folders = [tarfile.TarInfo(str(number)) for number in range(6)]
    for folder in folders:
        folder.type = tarfile.DIRTYPE
    assert "more than 5 files" in refusal(tar_at(tmp_path / "photos.tgz", {}, *folders))


def test_a_header_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "LARGEST_HEADER", 100_000)
    monkeypatch.setattr(unpack, "COPIED_AT_ONCE", 100_000)
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10_000_000
    with gzip.open(tmp_path / "photos.tgz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000_000))
    assert "can't be unpacked" in refusal(tmp_path / "photos.tgz")


def test_headers_of_all_files_do_not_fill_the_memory(tmp_path):
    header = tarfile.TarInfo("all")
    records = [f" key{number:05d}=x\n" for number in range(20_000)]
    content = "".join(f"{len(record) + 2}{record}" for record in records).encode()
    header.type, header.size = tarfile.XGLTYPE, len(content)
    files = [tarfile.TarInfo(f"ants/{number}.jpg").tobuf(tarfile.USTAR_FORMAT) for number in range(200)]
    with gzip.open(tmp_path / "photos.tgz", "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        file.write(b"".join(files) + bytes(1024))
    tracemalloc.start()
    unpacked(tmp_path / "photos.tgz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000  # 200 dictionaries of 20,000 keys take more than twice as much


def test_a_name_longer_than_any_path_is_refused(tmp_path):
    folder = tarfile.TarInfo("." + "x" * 5000)
    folder.type = tarfile.DIRTYPE
    assert "a name of over 4,096 characters" in refusal(tar_at(tmp_path / "photos.tar", PHOTOS, folder))


def test_a_file_that_is_listed_twice_is_refused(tmp_path):
    assert "can't be unpacked" in refusal(tar_at(tmp_path / "photos.tar", PHOTOS | {"./ants/0.jpg": b"x"}))


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, name, share):
    archive = (zip_at if name.endswith("zip") else tar_at)(tmp_path / name, PHOTOS)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content) * (0.3 if name.endswith("tar") else 1))])
    if share == 0 and name == "photos.tar.gz":
        archive.write_bytes(b"no archive")
    assert "can't be unpacked" in refusal(archive)


def test_an_interruption_leaves_nothing_behind_and_the_next_time_is_complete(tmp_path, monkeypatch):
    archive = zip_at(tmp_path / "photos.zip", PHOTOS)
    with monkeypatch.context() as patch:
        patch.setattr(unpack, "write_origin", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            unpacked(archive)
    assert sorted(tmp_path.iterdir()) == [archive]
    assert files_in(unpacked(archive)) == PHOTOS


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = zip_at(tmp_path / "photos.zip", PHOTOS)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(content)
    assert "encrypted" in refusal(archive)


def test_a_folder_that_may_not_be_written_to_is_said_so(tmp_path):
    archive = zip_at(tmp_path / "photos.zip", PHOTOS)
    tmp_path.chmod(0o500)
    try:
        if (tmp_path / "x").parent.stat().st_uid == 0:
            pytest.skip("root may write everywhere")
        assert "may be written to" in refusal(archive)
    finally:
        tmp_path.chmod(0o700)
