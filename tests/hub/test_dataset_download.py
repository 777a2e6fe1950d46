"""Data sets of the Hub, by the real `datasets`: copied at one commit into class folders, or refused in one sentence."""

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from data_folders import photo_bytes
from hub_helpers import complaint

from antbee import hub
from antbee.data import sources
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.data.origin import hub_origin
from antbee.data.sources import located
from antbee.hub import dataset_download

datasets = pytest.importorskip("datasets")
NAME = "somebody/insects"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "HF_UPDATE_DOWNLOAD_COUNTS"}
ENVIRONMENT["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])


@pytest.fixture(autouse=True)
def own_library(server, monkeypatch):
    """The library `datasets`, pointed at the Hub on this computer."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    datasets.disable_progress_bars()


def image_folder(server, files=None, name=NAME):
    repository = server.add_repository(name, "dataset")
    if files is None:
        places = [f"{split}/{label}" for split in ("train", "test", "validation") for label in ("ants", "bees")]
        files = {f"{place}/{number}.jpg": photo_bytes(31 * number) for place in places for number in range(2)}
    for path, content in files.items():
        server.add_file(repository, path, content)
    return repository


def parquet(rows, **kinds):
    """A Parquet file of rows as `datasets` writes them."""
    buffer = io.BytesIO()
    features = datasets.Features(kinds)
    table = {name: [row[name] for row in rows] for name in kinds}
    datasets.Dataset.from_dict(table, features=features).to_parquet(buffer)
    return buffer.getvalue()


def as_parquet(rows, kinds):
    """A Parquet file of rows as they are: `datasets` would read the files that they name and write their bytes."""
    import pyarrow

    buffer = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows, schema=datasets.Features(kinds).arrow_schema)
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def labelled(count, **extra):
    return [{"image": {"bytes": photo_bytes(9 * n), "path": None}, "label": n % 2, **extra} for n in range(count)]


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())


def refusal(tmp_path, data=NAME):
    """The one line that says why a data set is not copied, which leaves no copy behind."""
    with pytest.raises(DataError) as raised:
        located(data, tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    assert NAME in str(raised.value)
    assert not [path for path in tmp_path.glob("hub/*") if path.is_dir()]
    return str(raised.value)


def test_an_image_folder_becomes_class_folders_with_the_bytes_of_the_hub(server, tmp_path):
    commit = image_folder(server).head.oid
    folder = located(NAME, tmp_path)
    assert folder == tmp_path / "hub" / f"somebody--insects@{commit}"
    rows = {"ants": (0, 1), "bees": (2, 3)}
    photos = [f"{label}/{number:06d}.jpg" for label, numbers in rows.items() for number in numbers]
    expected = [f"{split}/{photo}" for split in ("test", "train", "val") for photo in photos]
    assert files_in(folder) == [".antbee-origin.json", *expected]
    assert {path.read_bytes() for path in folder.rglob("*.jpg")} == {photo_bytes(0), photo_bytes(31)}
    assert read_folder(folder).class_names == ("ants", "bees")
    origin = hub_origin(folder)
    assert (origin.hub_id, origin.revision) == (NAME, commit)


def test_parquet_becomes_class_folders(server, tmp_path):
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", "bees"])}
    image_folder(server, {"data/train-00000-of-00001.parquet": parquet(labelled(6), **kinds)})
    folder = located(f"hf://datasets/{NAME}", tmp_path)
    assert [path.name for path in sorted(folder.glob("train/ants/*"))] == ["000000.jpg", "000002.jpg", "000004.jpg"]
    assert (folder / "train" / "bees" / "000005.jpg").read_bytes() == photo_bytes(45)


def test_labels_may_be_text_as_in_metadata_csv(server, tmp_path):
    table = b"file_name,label\na.jpg,ants\nb.jpg,bees\n"
    files = {"train/a.jpg": photo_bytes(1), "train/b.jpg": photo_bytes(2), "train/metadata.csv": table}
    image_folder(server, files)
    folder = located(NAME, tmp_path)
    assert (folder / "train" / "bees" / "000001.jpg").read_bytes() == photo_bytes(2)


def test_a_revision_is_pinned_and_its_copy_is_not_downloaded_again(server, tmp_path):
    repository = image_folder(server)
    first = located(NAME, tmp_path)
    old = repository.head.oid
    server.requests.clear()
    assert located(NAME, tmp_path) == first
    assert not [path for _, path, _ in server.requests if "/resolve/" in path]
    server.add_file(repository, "train/ants/new.jpg", photo_bytes(200))
    assert located(NAME, tmp_path) != first
    server.requests.clear()
    assert located(f"{NAME}@{old}", tmp_path) == first
    assert server.requests == []


def test_without_the_hub_the_copy_of_the_same_branch_is_used_with_a_warning(server, tmp_path):
    repository = image_folder(server)
    repository.references["other"] = repository.commits[-1].oid
    first = located(NAME, tmp_path)
    server.fault = 500
    try:
        with pytest.warns(UserWarning, match="Using the copy of 'somebody/insects' downloaded earlier"):
            assert located(NAME, tmp_path) == first
        text = complaint(located, f"{NAME}@other", tmp_path)
    finally:
        server.fault = None
    assert "There is no folder somebody/insects@other here" in text


def test_a_located_that_name_comes_first(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody" / "insects").mkdir(parents=True)
    assert str(located(NAME, tmp_path)) == NAME
    image_folder(server)
    assert located(f"hf://datasets/{NAME}", tmp_path) != NAME


def test_a_data_set_that_is_not_there_or_gated_is_said_so(server, tmp_path):
    assert "There is no repository" in complaint(located, "somebody/nothing", tmp_path)
    image_folder(server).gated = True
    text = complaint(located, NAME, tmp_path)
    assert f"is gated: ask its owner for access on {server.url}/datasets/{NAME}" in text
    assert "has no revision 'v9'" in complaint(located, f"hf://datasets/{NAME}@v9", tmp_path)


def test_without_a_network_it_is_said_in_one_sentence(tmp_path, server, monkeypatch):
    image_folder(server)
    server.fault = 503
    try:
        assert "internal error" in complaint(located, NAME, tmp_path)
    finally:
        server.fault = None


def test_the_hub_failing_halfway_leaves_no_copy(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_download, "THREADS", 1)  # one request after the other
    image_folder(server)
    for place in ("known", "counted"):  # `datasets` remembers the files of a commit
        server.requests.clear()
        located(NAME, tmp_path / place)
    downloads = [number for number, (_, path, _) in enumerate(server.requests) if path.endswith(".jpg")]
    server.requests.clear()
    server.fault, server.broken = 403, downloads[3]
    try:
        text = complaint(located, NAME, tmp_path / "broken")
    finally:
        server.fault = server.broken = None
    assert "denies access" in text
    assert not [path for path in (tmp_path / "broken" / "hub").iterdir() if path.is_dir()]


@pytest.mark.parametrize("fault", ["html", "wrong bytes", "length too small"])
def test_bytes_that_are_not_the_hubs_are_asked_for_again_and_refused(server, line, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", line.url)
    monkeypatch.setattr(dataset_download, "THREADS", 1)
    image_folder(server)
    located(NAME, tmp_path / "known")  # `datasets` remembers the files of a commit
    line.mend()
    located(NAME, tmp_path / "counted")
    first = next(number for number, asked in enumerate(line.requests) if asked.endswith(".jpg"))
    line.break_at(first, fault)
    photos = sorted(path.read_bytes() for path in located(NAME, tmp_path / "mended").rglob("*.jpg"))
    assert photos == sorted([photo_bytes(0), photo_bytes(31)] * 6)
    line.break_at(first, fault, lasting=True)
    with pytest.raises(hub.HubError):
        located(NAME, tmp_path / "broken")
    assert not [path for path in (tmp_path / "broken" / "hub").iterdir() if path.is_dir()]


def test_a_data_set_without_labels_or_without_images_is_refused(server, tmp_path):
    image_folder(server, {"train/1.jpg": photo_bytes(1), "train/2.jpg": photo_bytes(2)})
    assert "has no class-label column" in refusal(tmp_path)
    server.repositories.clear()
    image_folder(server, {"train.csv": b"text,label\nhello,1\n"})
    assert "has no image column" in refusal(tmp_path)


def test_several_label_columns_are_refused_unless_one_is_named_label(server, tmp_path):
    kinds = {"image": datasets.Image()}
    kinds |= {name: datasets.ClassLabel(names=["a", "b"]) for name in ("coarse", "fine")}
    image_folder(server, {"train.parquet": parquet(labelled(4, coarse=0, fine=1), **kinds)})
    assert "class-label columns coarse, fine" in refusal(tmp_path)
    server.repositories.clear()
    kinds["label"] = datasets.ClassLabel(names=["ants", "bees"])
    image_folder(server, {"train.parquet": parquet(labelled(4, coarse=0, fine=1), **kinds)})
    assert (located(NAME, tmp_path) / "train" / "ants").is_dir()


def test_a_data_set_without_a_training_split_is_refused(server, tmp_path):
    files = {f"{split}/{label}/1.jpg": photo_bytes(1) for split in ("validation", "test") for label in ("a", "b")}
    image_folder(server, files)
    assert "expected one named train" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", " ", "__MACOSX"])
def test_a_class_name_that_no_folder_may_have_is_refused(server, tmp_path, name):
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", name])}
    image_folder(server, {"train.parquet": parquet(labelled(4), **kinds)})
    assert "can't be the name of a folder" in refusal(tmp_path)
    assert not (tmp_path / "out").exists()


def test_rows_without_an_image_or_a_class_are_counted(server, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo_bytes(77))
    rows = labelled(4)
    rows += [{"image": None, "label": 0}, {"image": {"bytes": photo_bytes(1), "path": None}, "label": None}]
    rows += [{"image": {"bytes": None, "path": place}, "label": 0} for place in (str(secret), f"file://{secret}")]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", "bees"])}
    image_folder(server, {"train.parquet": as_parquet(rows, kinds)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = located(NAME, tmp_path)
    said = {str(warning.message) for warning in caught}
    assert f"{NAME}: 3 rows left out, without an image in the repository (or one of over 256 MB)" in said
    assert f"{NAME}: 1 row left out, without a class" in said
    assert len(list(folder.rglob("*.jpg"))) == 4


def test_rows_may_name_files_of_the_repository(server, tmp_path):
    places = [f"images/{number}.jpg" for number in range(4)]
    rows = [{"image": {"bytes": None, "path": place}, "label": n % 2} for n, place in enumerate(places)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", "bees"])}
    files = {place: photo_bytes(n) for n, place in enumerate(places)}
    image_folder(server, files | {"data/train.parquet": as_parquet(rows, kinds)})
    folder = located(NAME, tmp_path)
    assert (folder / "train" / "bees" / "000003.jpg").read_bytes() == photo_bytes(3)


def test_the_library_is_told_not_to_report_what_is_loaded(tmp_path):
    code = """
from pathlib import Path
from antbee.hub import dataset_download

def stop(*arguments):
    raise LookupError

dataset_download._published = stop
try:
    dataset_download.download_dataset("somebody/insects", "0" * 40, Path("copy"))
except LookupError:
    import datasets
    print(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr


def test_a_copy_that_was_changed_is_not_taken_for_the_hubs(server, tmp_path):
    image_folder(server)
    folder = located(NAME, tmp_path)
    (folder / "train" / "ants" / "mine.jpg").write_bytes(photo_bytes(3))
    assert hub_origin(folder) is None


def test_what_is_no_address_of_a_data_set_is_refused(tmp_path):
    for address in ("hf://user/name", "hf://datasets/name", "hf://datasets/a/b/c", "hf://datasets/../x"):
        with pytest.raises(DataError, match="names no data set of the Hub"):
            located(address, tmp_path)
    assert sources.hub_name("a/b/c") is None
    assert sources.hub_name("photos") is None


def test_without_the_library_one_sentence_says_how_to_install_it(server, tmp_path, monkeypatch):
    image_folder(server)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert 'pip install "datasets>=5.2"' in refusal(tmp_path)


def test_known_commits_of_a_damaged_file_are_forgotten(server, tmp_path):
    image_folder(server)
    located(NAME, tmp_path)
    (tmp_path / "hub" / "somebody--insects.json").write_text(json.dumps(["x"]))
    assert located(NAME, tmp_path).is_dir()
    assert hub.may_pass(hub.HubError("x")) is False
