"""Photos published as a data set of the Hub: what goes up, its card, and the way back by `datasets` and by --data."""

import json

import pytest
import yaml
from data_folders import encoded, photo_bytes, write_set
from hub_helpers import complaint, push_script, uploaded_text
from loopback_hub import front_matter
from PIL import ExifTags, Image

import antbee
from antbee import hub
from antbee.data.folder import read_folder
from antbee.data.position import has_position
from antbee.data.sources import located
from antbee.hub import dataset_push

NAME = "tester/insects"


@pytest.fixture
def photos(tmp_path):
    """A data folder of both splits, with what does not go up: litter, a damaged photo, a note, a nested folder."""
    counts = {"train/ants": 3, "train/bees #1, 100% Käfer": 3, "val/ants": 2, "val/bees #1, 100% Käfer": 2}
    root = write_set(tmp_path / "photos", counts)
    (root / "train" / "ants" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "ants" / "damaged.jpg").write_bytes(photo_bytes()[:200])
    (root / "train" / "ants" / "note.txt").write_text("hello")
    (root / "train" / "ants" / "more").mkdir()
    (root / "train" / "ants" / "more" / "000.jpg").write_bytes(photo_bytes(99))
    (root / "train" / "ants" / "more" / "what: a name?.JPG").write_bytes(photo_bytes(98))
    return read_folder(root)


@pytest.fixture
def library(server, monkeypatch):
    """The library `datasets`, pointed at the Hub on this computer."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_ENDPOINT", server.url)
    for name in ("HF_UPDATE_DOWNLOAD_COUNTS", "USE_PARQUET_EXPORT"):  # they would ask other servers
        monkeypatch.setattr(library.config, name, False)
    library.disable_progress_bars()
    return library


def repository_of(server):
    return server.repositories["dataset", NAME]


def test_photos_that_can_be_used_go_up_in_one_commit_and_nothing_else(server, photos):
    address = hub.push_dataset(photos, NAME)
    repository = repository_of(server)
    assert len(repository.commits) == 2
    assert address == f"{server.url}/datasets/{NAME}/commit/{repository.head.oid}"
    other = "bees #1, 100% Käfer"
    assert sorted(repository.head.files) == sorted(
        [
            "README.md",
            *(f"train/ants/{name}" for name in ("000.jpg", "000-2.jpg", "001.jpg", "002.jpg", "what_ a name_.JPG")),
            *(f"train/{other}/{number:03d}.jpg" for number in range(3)),
            *(f"val/{name}/{number:03d}.jpg" for name in ("ants", other) for number in range(2)),
        ]
    )
    stored = repository.head.files["train/ants/000-2.jpg"]
    assert (server.blobs / stored.sha256).read_bytes() == photo_bytes(99)


def test_the_card_says_what_is_known(server, photos):
    hub.push_dataset(photos, NAME)
    card = uploaded_text(repository_of(server), "README.md", server)
    metadata = yaml.safe_load(front_matter(card))
    assert metadata["license"] == "unknown"
    assert metadata["task_categories"] == ["image-classification"]
    assert metadata["size_categories"] == ["n<1K"]
    (config,) = metadata["configs"]
    assert config["data_files"] == [
        {"split": "train", "path": "train/**"},
        {"split": "validation", "path": "val/**"},
    ]
    assert "The licence is **unknown**" in card
    assert "| ants | 5 | 2 |" in card
    assert "| all | 8 | 4 |" in card
    hub.push_dataset(photos, NAME, license="cc-by-4.0")
    card = uploaded_text(repository_of(server), "README.md", server)
    assert yaml.safe_load(front_matter(card))["license"] == "cc-by-4.0"
    assert "unknown" not in card


def test_what_has_not_changed_makes_no_commit_and_removed_photos_go(server, photos):
    hub.push_dataset(photos, NAME)
    repository = repository_of(server)
    before = repository.head
    hub.push_dataset(photos, NAME)
    assert repository.head == before
    (photos.root / "val" / "ants" / "001.jpg").unlink()
    hub.push_dataset(read_folder(photos.root), NAME)
    assert before.files.keys() - repository.head.files.keys() == {"val/ants/001.jpg"}


def test_very_many_files_go_in_several_commits_the_card_in_the_last(server, photos, monkeypatch):
    monkeypatch.setattr(dataset_push, "LARGEST_COMMIT", 5)
    hub.push_dataset(photos, NAME)
    repository = repository_of(server)
    assert ["README.md" in commit.files for commit in repository.commits] == [False, False, False, True]
    whole = repository.head.files
    address = hub.push_dataset(photos, NAME, license="mit", create_pr=True)
    assert repository.head.files == whole
    assert address.endswith("/discussions/1")
    assert len(repository.commit_at("refs/pr/1").files) == len(whole)


def test_a_data_set_of_somebody_elses_making_is_not_overwritten(server, photos):
    repository = server.add_repository(NAME, "dataset")
    server.add_file(repository, "train/ants/theirs.jpg", b"x")
    before = repository.head
    assert "has files that antbee did not push" in complaint(hub.push_dataset, photos, NAME)
    server.add_file(repository, "README.md", b"---\ntags: [cats]\n---\n")
    before = repository.head
    assert "has files that antbee did not push" in complaint(hub.push_dataset, photos, NAME)
    assert repository.head == before


def test_a_public_data_set_is_not_pushed_to_as_private_and_a_branch_is_made(server, photos):
    hub.push_dataset(photos, NAME, revision="new")
    repository = repository_of(server)
    assert repository.head.files == {}
    assert "README.md" in repository.commit_at("new").files
    assert "exists and is public" in complaint(hub.push_dataset, photos, NAME, private=True)
    assert hub.push_dataset(photos, "tester/other", private=True)
    assert server.repositories["dataset", "tester/other"].private


def test_what_fails_is_said_in_one_sentence(server, photos):
    assert "not a valid name" in complaint(hub.push_dataset, photos, "a/b/c")
    assert "The licence is" in complaint(hub.push_dataset, photos, NAME, license="my own!")
    assert "denies access" in complaint(hub.push_dataset, photos, "somebody/insects")
    server.fault = 500
    try:
        assert "internal error" in complaint(hub.push_dataset, photos, NAME)
    finally:
        server.fault = None


def test_a_pushed_data_set_is_loaded_by_datasets_with_its_splits_and_classes(server, photos, library, tmp_path):
    hub.push_dataset(photos, NAME)
    loaded = library.load_dataset(NAME, cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 8, "validation": 4}
    assert loaded["train"].features["label"].names == list(photos.class_names)


def test_a_pushed_data_set_comes_back_byte_for_byte(server, photos, library, tmp_path):
    hub.push_dataset(photos, NAME)
    copied = read_folder(located(NAME, tmp_path))

    def content(dataset):
        return {
            name: sorted(
                (path.read_bytes(), dataset.class_names[label])
                for path, label in zip(split.paths, split.labels, strict=True)
            )
            for name, split in dataset.splits.items()
        }

    assert content(copied) == content(photos)


def with_position(path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[2] = (48.0, 8.0, 0.0)
    path.write_bytes(encoded(Image.new("RGB", (8, 8), "red"), exif=exif))


def test_a_dry_run_lists_the_files_and_counts_the_photos_with_a_position(photos, monkeypatch, capsys):
    path = photos.root / "train" / "ants" / "001.jpg"
    with_position(path)
    assert has_position(path)
    assert not has_position(photos.root / "train" / "ants" / "002.jpg")
    assert not has_position(photos.root / "nothing.jpg")
    push_script(monkeypatch, "--dataset", photos.root, NAME, "--dry-run")
    printed = capsys.readouterr().out
    assert "13 files" in printed
    assert "train/ants/000-2.jpg" in printed
    assert "1 photo would tell everybody where they were taken" in printed
    assert "left out  train/ants/damaged.jpg" in printed
    assert "The licence is **unknown**" in printed
    assert "Nothing was uploaded" in printed


def test_the_script_pushes_a_data_set(server, photos, monkeypatch, capsys):
    push_script(monkeypatch, "--dataset", photos.root, NAME, "--license", "cc0-1.0", "--message", "First")
    assert repository_of(server).head.title == "First"
    assert f"The data set is at {server.url}/datasets/{NAME}/commit/" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [NAME],
        ["model", "--dataset", "x", NAME],
        ["model", NAME, "--license", "mit"],
        ["--dataset", "x", NAME, "--space"],
    ],
)
def test_flags_that_do_not_fit_are_refused(monkeypatch, arguments):
    with pytest.raises(SystemExit) as ended:
        push_script(monkeypatch, *arguments)
    assert ended.value.code == 2


def test_a_model_trained_on_a_data_set_of_the_hub_names_it_and_its_commit(
    server, library, drawn_root, tmp_path, monkeypatch
):
    from antbee.data import download
    from antbee.training import context, evaluate

    hub.push_dataset(read_folder(drawn_root), NAME)
    commit = repository_of(server).head.oid
    for module in (context, evaluate, download):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    antbee.train(
        NAME,
        backbone="test_resnet",
        weights="random",
        image_size=64,
        mode="frozen",
        epochs=1,
        folds=0,
        output=tmp_path / "outputs",
        device="cpu",
    )
    folder = tmp_path / "outputs" / "frozen"
    data = json.loads((folder / "config.json").read_text())["antbee"]["data"]
    assert (data["hub_id"], data["hub_revision"]) == (NAME, commit)
    assert data["train"] == {"ants": 12, "bees": 12}
    card = (folder / "README.md").read_text()
    metadata = yaml.safe_load(front_matter(card))
    assert metadata["datasets"] == [NAME]
    (model,) = metadata["model-index"]
    dataset = model["results"][0]["dataset"]
    assert (dataset["type"], dataset["name"], dataset["revision"]) == (NAME, NAME, commit)
    assert dataset["split"] == "validation"
    assert f"https://huggingface.co/datasets/{NAME}/tree/{commit}" in card
    assert antbee.evaluate(folder).count == 16  # its own copy in data/ is found
