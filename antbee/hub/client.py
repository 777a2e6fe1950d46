"""Push and pull, by huggingface_hub's public API alone.

A model folder is already a complete Hub repository, so a push uploads it as it is: the files of REPOSITORY_FILES and no
other. A pull downloads what a classifier is made of, PULLED_FILES: safetensors and JSON, nothing that could run code
when it is opened.

Retries and time-outs are the client's own; HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the latter.
"""

import hashlib
from collections.abc import Mapping, Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

from antbee.hub.card import PLACEHOLDER
from antbee.hub.errors import (
    HubError,
    HubInputError,
    check_name,
    check_token,
    may_pass,
    one_sentence,
    reach_the_hub,
    token_to_write,
)
from antbee.hub.space import MODELS_VARIABLE
from antbee.installation import command_name
from antbee.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi, RepoFile
    from huggingface_hub.hf_api import RepoSibling


WEIGHTS_AND_CONFIG = ("model.safetensors", "config.json")
REQUIRED_FILES = (*WEIGHTS_AND_CONFIG, "README.md")
# Figures of mistakes and of differences show dozens of photos, which may not be the pusher's to publish.
FIGURES = tuple(f"figures/{name}.png" for name in ("batch", "curves", "confusion", "photos"))
REPOSITORY_FILES = (*REQUIRED_FILES, "neighbours.safetensors", "history.json", *FIGURES)
# transformers' preprocessing lies beside its config.json, see models/interop.py.
PULLED_FILES = (*WEIGHTS_AND_CONFIG, "neighbours.safetensors", "history.json", "preprocessor_config.json")

# The client sends uploads without a time-out. It applies to each read and write, not to a whole upload.
UPLOAD_TIMEOUT = 30.0  # seconds


# ---- push ------------------------------------------------------------------------------------------------------------
def repository_files(folder: Path) -> list[tuple[str, int]]:
    """The files of a model folder that a push uploads: relative POSIX path and size in bytes, sorted by path.

    Raises HubError when `folder` is not a complete model folder.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        what = "has no " + ", ".join(missing) if folder.is_dir() else "is not a folder"
        raise HubInputError(
            f"{folder} {what}: expected a model folder with {', '.join(REQUIRED_FILES)}; train a model with"
            f" `{command_name('train')}` and give the folder that it wrote."
        )
    return sorted((name, (folder / name).stat().st_size) for name in REPOSITORY_FILES if (folder / name).is_file())


def card_for(folder: Path, repo_id: str) -> str:
    """The model folder's card as a push uploads it: with the repository's name in place of PLACEHOLDER.

    Raises HubError when `repo_id` is not a valid name with an owner.
    """
    check_name(repo_id)
    with one_sentence(repo_id):
        return (folder / "README.md").read_text(encoding="utf-8").replace(PLACEHOLDER, repo_id)


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Push an antbee model",
) -> str:
    """Uploads a model folder to the Hub in one commit; the folder itself is not changed.

    A repository or branch (`revision`) that does not exist is created; `private` matters only then. If nothing changed,
    no commit is made. REPOSITORY_FILES that an earlier push left there and this model lacks are deleted in the same
    commit. Returns the address of the pull request, or of the branch's newest commit. Raises HubError.
    """
    from huggingface_hub import HfApi

    check_target(commit_message, create_pr=create_pr, revision=revision)
    content: dict[str, bytes | str] = {path: str(folder / path) for path, _ in repository_files(folder)}
    content["README.md"] = card_for(folder, repo_id).encode()
    token = token_to_write(token)
    with one_sentence(repo_id, revision):
        api = HfApi(token=token)
        present = open_branch(api, repo_id, private, revision)
        # Another model's nearest neighbours or figures beside these weights would be a mixture of two models.
        stale = sorted(present & set(REPOSITORY_FILES) - content.keys())
        commit = commit_files(
            api, repo_id, content, commit_message, stale=stale, revision=revision, create_pr=create_pr
        )
    return commit.pr_url or commit.commit_url


def push_space(
    files: Mapping[str, bytes],
    repo_id: str,
    model_ids: Sequence[str],
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Push the page of an antbee model",
) -> str:
    """Uploads a Gradio Space in one commit: the files by their path in it, README.md among them.

    Its variable MODELS_VARIABLE names the models to show; it is set only if it differs, since setting it restarts the
    Space. A Space that does not exist is created; `private` matters only then. If no file changed, no commit is made.
    Returns the Space's address. Raises HubError.
    """
    from huggingface_hub import HfApi

    check_name(repo_id)
    token = token_to_write(token)
    models = " ".join(model_ids)
    with one_sentence(repo_id):
        api = HfApi(token=token)
        _open_repository(api, repo_id, private, kind="space", space_variables={MODELS_VARIABLE: models})
        commit_files(api, repo_id, files, commit_message, kind="space")
        variable = api.get_space_variables(repo_id).get(MODELS_VARIABLE)
        if variable is None or variable.value != models:
            api.add_space_variable(repo_id, MODELS_VARIABLE, models)
    return f"{api.endpoint}/spaces/{repo_id}"


# ---- repositories and commits ----------------------------------------------------------------------------------------
def check_target(commit_message: str, *, create_pr: bool, revision: str | None) -> None:
    """Raises HubError for options of a push that exclude each other, and for an empty message."""
    if create_pr and revision is not None:
        raise HubError(f"A pull request always starts from main: give either a pull request or revision '{revision}'.")
    if not commit_message.strip():
        raise HubError("The commit message is empty: give one that is not, or leave it out.")


def open_branch(api: "HfApi", repo_id: str, private: bool, revision: str | None, *, kind: str = "model") -> set[str]:
    """Creates the repository and its branch where they don't exist; the paths of the files there.

    Raises HubError for a public repository where a private one is wanted.
    """
    from huggingface_hub import constants

    present = _open_repository(api, repo_id, private, kind=kind)
    if revision is None:
        return present
    if not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
    found = api.repo_info(repo_id, revision=revision, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return _paths(found)


def _open_repository(
    api: "HfApi",
    repo_id: str,
    private: bool,
    *,
    kind: str = "model",
    space_variables: Mapping[str, str] | None = None,
) -> set[str]:
    """Creates the repository if it does not exist, a Space with its variables; the paths of the files on main."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import RepositoryNotFoundError

    if (session := get_session()).timeout.read is None:  # else somebody has chosen one
        session.timeout = UPLOAD_TIMEOUT
    try:
        found = api.repo_info(repo_id, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RepositoryNotFoundError:
        variables = [{"key": key, "value": value} for key, value in (space_variables or {}).items()]
        api.create_repo(
            repo_id,
            repo_type=kind,
            # None leaves the choice to the owner's settings: an organisation may make its repositories private.
            private=private or None,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
            space_variables=variables or None,
        )
        # It may have existed all the same, hidden from the first look.
        found = api.repo_info(repo_id, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if private and not found.private:
        raise HubError(
            f"The {kind} '{repo_id}' exists and is public, and a push cannot change that: make it private in its"
            " settings on the Hub, choose another name, or push without asking for a private repository."
        )
    return _paths(found)


def commit_files(
    api: "HfApi",
    repo_id: str,
    content: Mapping[str, bytes | str],
    message: str,
    *,
    stale: Sequence[str] = (),
    kind: str = "model",
    revision: str | None = None,
    create_pr: bool = False,
) -> "CommitInfo":
    """Makes one commit that adds files, given as bytes or as a local path, and deletes the `stale` ones."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # Not upload_folder(): it may split a push into several commits, and one that breaks would leave half a model.
    additions = [CommitOperationAdd(path, data) for path, data in content.items()]
    return api.create_commit(
        repo_id,
        [*additions, *map(CommitOperationDelete, stale)],
        commit_message=message,
        repo_type=kind,
        revision=revision,
        create_pr=create_pr,
        num_threads=1,  # after a failed connection, one thread of the client closes the session that the others use
    )


def _paths(repository: Any) -> set[str]:
    """The paths of a repository's files, from what repo_info() returns."""
    return {file.rfilename for file in repository.siblings or []}


# ---- pull ------------------------------------------------------------------------------------------------------------
def pull(
    repo_id: str, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """Downloads a model into the Hub's cache and returns its folder there, with exactly the bytes that the Hub has.

    If the Hub cannot be reached, returns the copy downloaded earlier and warns about it; with `local_files_only` it is
    not even asked. Raises HubError, also for a repository without a model in the safetensors format.
    """
    from huggingface_hub import get_token

    check_token(token or get_token())
    if local_files_only:
        with one_sentence(repo_id, revision):
            if (folder := _cached_copy(repo_id, revision)) is None:
                raise HubError(f"There is no complete copy of '{repo_id}' in the cache: {reach_the_hub()}.")
            return folder
    try:
        with one_sentence(repo_id, revision):
            return _download(repo_id, revision, token)
    except HubError as error:
        if not may_pass(error):
            raise
        with one_sentence(repo_id, revision):
            folder = _cached_copy(repo_id, revision)
        if folder is None:
            raise
        warn(one_line(f"{error} Using the copy of '{repo_id}' downloaded earlier.", longest=1000), stacklevel=2)
        return folder


def _download(repo_id: str, revision: str | None, token: str | None) -> Path:
    """The folder in the cache of what the Hub has now, after downloading what is missing."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    found = HfApi(token=token).model_info(
        repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True
    )
    if missing := [name for name in WEIGHTS_AND_CONFIG if name not in _paths(found)]:
        raise HubError(
            f"The repository '{repo_id}' contains no model that antbee can read, {' and '.join(missing)} missing: check"
            " the name and the revision, or push the model again. Weights in other formats are never read."
        )
    # By the commit, not the branch: the client would let the branch stand for this commit at once, and a download that
    # breaks would hide the complete copy of an older one. Not by snapshot_download(): it lists files with no time-out.
    wanted = [file for file in found.siblings or [] if file.rfilename in PULLED_FILES]
    paths = [_download_file(repo_id, file, found.sha, token) for file in wanted]
    # Now the branch may stand for this commit where the Hub cannot be reached.
    hf_hub_download(repo_id, "config.json", revision=revision, token=token)
    return paths[0].parent


def _download_file(repo_id: str, file: "RepoSibling", commit: str | None, token: str | None) -> Path:
    """One file in the cache, compared with the Hub's checksum: the client compares sizes alone."""
    from huggingface_hub import hf_hub_download

    for force in (False, True):
        path = Path(hf_hub_download(repo_id, file.rfilename, revision=commit, token=token, force_download=force))
        with path.open("rb") as content:
            if is_as_published(content, file):
                return path
        path.unlink()
    raise OSError(f"the bytes of {file.rfilename} do not match the Hub's checksum")


def is_as_published(content: BufferedReader | BytesIO, file: "RepoSibling | RepoFile") -> bool:
    """Whether a file has the checksum that the Hub gives: SHA-256 of large files, git's SHA-1 of small ones."""
    if file.lfs is not None:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.lfs.sha256
    small = content.read()
    git = hashlib.sha1(b"blob %d\0" % len(small) + small, usedforsecurity=False)
    return file.blob_id in (None, git.hexdigest())


def _cached_copy(repo_id: str, revision: str | None) -> Path | None:
    """The folder in the cache of the last complete download, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=list(PULLED_FILES), local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None
    return folder if all((folder / name).is_file() for name in WEIGHTS_AND_CONFIG) else None
