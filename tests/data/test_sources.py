"""What --data names: folders, archives, tables and data sets of the Hub are told apart, and read as one data set."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import antbee
from antbee.data import download
from antbee.data.folder import read_folder
from antbee.data.images import DataError
from antbee.data.sources import HubName, hub_name, located
from antbee.training import check
from antbee.training.evaluate import dataset_of


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("user/name", HubName("user/name")),
        ("user/name@v1.0", HubName("user/name", "v1.0")),
        ("hf://datasets/user/name", HubName("user/name")),
        ("hf://datasets/user/name/", HubName("user/name")),
        ("hf://datasets/user/name@refs/pr/1", HubName("user/name", "refs/pr/1")),
        (Path("hf://datasets/user/name"), HubName("user/name")),  # which has one slash less
        ("photos", None),
        ("./user/name", None),
        ("/user/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("photos/missing.jpg", None),
        ("photos/missing.zip", None),
        ("photos/missing.csv", None),
        ("../photos", None),
        ("drawn", None),
    ],
)
def test_names_of_the_hub_are_told_from_paths(data, name):
    assert hub_name(data) == name


def test_a_name_is_an_address_with_and_without_its_commit():
    assert str(HubName("user/name")) == "hf://datasets/user/name"
    assert hub_name(str(HubName("user/name", "0" * 40))) == HubName("user/name", "0" * 40)
    assert HubName("user/name", "0" * 40).is_pinned
    assert not HubName("user/name", "main").is_pinned


@pytest.fixture(params=["zip", "gztar", "table"])
def source(request, drawn_root, tmp_path):
    """The drawn set as an archive or a table."""
    if request.param != "table":
        return Path(shutil.make_archive(str(tmp_path / "photos"), request.param, drawn_root.parent, drawn_root.name))
    rows = []
    for path in sorted(drawn_root.rglob("*.jpg")):
        split, label = path.relative_to(drawn_root).parts[:2]
        name = f"{split}-{label}-{path.name}"
        shutil.copy(path, tmp_path / name)
        rows.append((name, label, split))
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "split"), *rows])
    return tmp_path / "mine.csv"


def test_every_source_is_the_same_data_set(source, drawn_root):
    drawn, loaded = read_folder(drawn_root), antbee.load_folder(source)
    for split in ("train", "val"):
        expected, found = getattr(drawn, split), getattr(loaded, split)
        assert found.counts(loaded.class_names) == expected.counts(drawn.class_names)
        assert {path.read_bytes() for path in found.paths} == {path.read_bytes() for path in expected.paths}


@pytest.fixture
def no_network(monkeypatch):
    """Features that take no time: which are found to be alike is not what is asked here."""
    monkeypatch.setattr(check, "features_of", lambda split, *others: torch.eye(len(split)))


def test_every_source_can_be_checked(source, no_network):
    result = antbee.check(str(source), weights="random", log=lambda line: None)
    assert result.ok
    assert result.used == 40


def test_the_drawn_set_can_be_checked_and_evaluated_on_by_its_name(drawn_root, no_network, monkeypatch):
    monkeypatch.setattr(download, "drawn_folder", lambda parent: drawn_root)
    assert antbee.check("drawn", weights="random", log=lambda line: None).used == 40
    labels = SimpleNamespace(config=SimpleNamespace(label_names=("ants", "bees"), seed=0))
    assert dataset_of(labels, "drawn").root == drawn_root


def test_a_file_that_is_not_there_is_said_as_before(tmp_path):
    for name in ("missing.zip", "missing.csv", "missing"):
        assert located(tmp_path / name, tmp_path) == tmp_path / name
        with pytest.raises(DataError, match="is not there"):
            antbee.load_folder(tmp_path / name)
