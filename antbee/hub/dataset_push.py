"""Publishes a folder of photos as a data set of the Hub, in the layout that `datasets` and the Hub call imagefolder.

    README.md, the card, and SPLIT/CLASS/photo.jpg

Only photos that can be used go up, with their bytes as they are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from antbee.data.files import ENOUGH, FileError, kind_of, opened
from antbee.data.folder import ImageDataset
from antbee.data.images import LARGEST_FILE
from antbee.data.layout import SPLITS
from antbee.data.listing import is_named_as_photo
from antbee.hub.client import check_target, commit_files, open_branch
from antbee.hub.dataset_download import EXTENSIONS, can_be_folder
from antbee.hub.errors import HubError, check_name, one_sentence, token_to_write
from antbee.text import as_text, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TEMPLATE = Path(__file__).with_name("dataset_card.md.jinja")
TAG = "antbee"  # by which a later push knows that a data set is antbee's
UNKNOWN = "unknown"  # the Hub's name of a licence that nobody knows
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}  # the Hub's names by the folders'
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"
MOST_NAMED = 20  # classes that the first sentence of a card names
# One commit shows a data set whole or not at all; the Hub refuses those of very many files.
LARGEST_COMMIT = 10_000  # files
OTHER_FILES = {".gitattributes", "README.md"}  # what an empty data set of the Hub may have


@dataclass(frozen=True)
class DatasetFiles:
    """What a push uploads: the photos by their paths in the repository, and the card."""

    photos: Mapping[str, Path]
    card: str


def dataset_files(dataset: ImageDataset, repo_id: str, *, license: str | None = None) -> DatasetFiles:  # noqa: A002
    """The photos and the card of a data set of the Hub; `license` is None where it is not known.

    Raises HubError for a name that is no repository's, and for a class that can't be a folder.
    """
    check_name(repo_id)
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise HubError(
            f"The licence is {one_line(license)!r}: give one as the Hub names it, such as cc-by-4.0 or cc0-1.0, from"
            " https://huggingface.co/docs/hub/repositories-licenses."
        )
    for name in dataset.class_names:
        if not can_be_folder(name):
            raise HubError(f"The class {one_line(name)!r} can't be the name of a folder: rename it.")
    return DatasetFiles(_photos(dataset), _card(dataset, repo_id, license or UNKNOWN))


def push_dataset(
    dataset: ImageDataset,
    repo_id: str,
    *,
    license: str | None = None,  # noqa: A002 - as the flag and the card have it
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Push an antbee data set",
) -> str:
    """Uploads the photos of a data set to the Hub, in one commit, or in several of LARGEST_COMMIT files, the card last.

    A repository or branch (`revision`) that does not exist is created; `private` matters only then. If nothing changed,
    no commit is made. Photos that an earlier push left there and this one lacks are deleted. `license` is as the Hub
    names it; None says in the card that it is unknown. Returns the address of the pull request, or of the branch's
    newest commit. Raises HubError, also for a data set that was not pushed by antbee.
    """
    from huggingface_hub import HfApi

    check_target(commit_message, create_pr=create_pr, revision=revision)
    files = dataset_files(dataset, repo_id, license=license)
    token = token_to_write(token)
    with one_sentence(repo_id, revision, kind="dataset"):
        api = HfApi(token=token)
        present = open_branch(api, repo_id, private, revision, kind="dataset")
        _require_own(api, repo_id, revision, present)
        stale = sorted(path for path in present - files.photos.keys() if path.partition("/")[0] in SPLITS)
        return _push(api, repo_id, files, stale, commit_message, revision=revision, create_pr=create_pr)


def _push(
    api: "HfApi",
    repo_id: str,
    files: DatasetFiles,
    stale: Sequence[str],
    message: str,
    *,
    revision: str | None,
    create_pr: bool,
) -> str:
    photos = {path: str(local) for path, local in files.photos.items()}
    *first, last = _parts(photos)
    proposed = None  # the address of the pull request
    for part in first:
        commit = commit_files(api, repo_id, part, message, kind="dataset", revision=revision, create_pr=create_pr)
        if commit.pr_url:  # none where this part has not changed
            proposed, revision, create_pr = commit.pr_url, commit.pr_revision, False
    content = {**last, "README.md": files.card.encode()}
    commit = commit_files(
        api, repo_id, content, message, stale=stale, kind="dataset", revision=revision, create_pr=create_pr
    )
    return proposed or commit.pr_url or commit.commit_url


def _parts(photos: Mapping[str, str]) -> Iterator[dict[str, bytes | str]]:
    remaining = iter(photos.items())
    while part := dict(islice(remaining, LARGEST_COMMIT)):
        yield {**part}


def _require_own(api: "HfApi", repo_id: str, revision: str | None, present: set[str]) -> None:
    """Raises HubError for a data set that somebody filled otherwise, whose card and photos would be replaced."""
    from huggingface_hub import DatasetCard

    if not present - OTHER_FILES:
        return
    tags: object = None
    if "README.md" in present:
        path = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision)
        tags = DatasetCard.load(path, ignore_metadata_errors=True).data.to_dict().get("tags")
    if not isinstance(tags, list) or TAG not in tags:
        raise HubError(
            f"The data set '{repo_id}' has files that antbee did not push: choose another name, or delete them there."
        )


# ---- photos ----------------------------------------------------------------------------------------------------------
def _photos(dataset: ImageDataset) -> dict[str, Path]:
    """The photos by SPLIT/CLASS/NAME: all as deep, since `datasets` takes folders of one depth alone for classes."""
    photos: dict[str, Path] = {}
    for split_name, split in dataset.splits.items():
        for path, label in sorted(zip(split.paths, split.labels, strict=True)):
            folder = f"{split_name}/{dataset.class_names[label]}"
            name = Path(_safe_name(path))
            place, number = f"{folder}/{name}", 1
            while place in photos:
                number += 1
                place = f"{folder}/{name.stem}-{number}{name.suffix}"
            photos[place] = path
    return photos


def _safe_name(path: Path) -> str:
    """The name of a photo, without what an address can't have, and with the extension that `datasets` looks for."""
    name = re.sub(r"[^\w .()+,=@-]", "_", path.name)
    if is_named_as_photo(name):
        return name
    try:
        with opened(path, largest=LARGEST_FILE) as file:
            return name + EXTENSIONS.get(kind_of(file.read(ENOUGH)) or "", "")
    except FileError as error:
        raise HubError(f"{path} is {error}") from error


# ---- card ------------------------------------------------------------------------------------------------------------
def _card(dataset: ImageDataset, repo_id: str, license_name: str) -> str:
    """The text of README.md, with the front matter of https://huggingface.co/docs/hub/datasets-cards."""
    from huggingface_hub import DatasetCard, DatasetCardData

    counts = {HUB_SPLITS[name or "train"]: split.counts(dataset.class_names) for name, split in dataset.splits.items()}
    total = sum(sum(split.values()) for split in counts.values())
    patterns = [{"split": HUB_SPLITS[name or "train"], "path": f"{name}/**"} for name in dataset.splits]
    rendered = DatasetCard.from_template(
        DatasetCardData(
            license=license_name,
            task_categories=["image-classification"],
            size_categories=[next((name for limit, name in SIZES if total < limit), LARGEST_SIZE)],
            pretty_name=one_line(repo_id.partition("/")[2], longest=60),
            tags=[TAG, "imagefolder"],
            configs=[{"config_name": "default", "data_files": patterns}],
        ),
        template_str=TEMPLATE.read_text("utf-8"),
        name=as_text(repo_id.partition("/")[2]),
        total=f"{total:,}",
        classes=dataset.class_names,
        most_named=MOST_NAMED,
        counts=counts,
        split=dataset.split,
        repo_id=repo_id,
        license=license_name,
        text=as_text,
    )
    rendered.text = "\n" + re.sub(r"\n{3,}", "\n\n", rendered.text).strip() + "\n"
    return str(rendered)
