"""The Hugging Face Hub: push and pull.

A model folder is already a complete Hub repository, so a push uploads it as it is: the files of REPOSITORY_FILES and
no stray one. A pull brings back what a classifier is made of, PULLED_FILES: safetensors and JSON, nothing that could
run code when it is opened.

huggingface_hub is imported inside the functions that use it: its import takes half a second, which nobody who only
trains or predicts should wait for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import warn

from antbee import installation
from antbee.cards import MODELS_VARIABLE, PLACEHOLDER, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REQUIRED_FILES = ("model.safetensors", "config.json", "README.md")
# Those of mistakes and of differences show dozens of photos, which may not be the pusher's to publish.
FIGURES = tuple(f"figures/{name}.png" for name in ("batch", "curves", "confusion", "photos"))
REPOSITORY_FILES = (*REQUIRED_FILES, "neighbours.safetensors", "history.json", *FIGURES)
PULLED_FILES = ("model.safetensors", "config.json", "neighbours.safetensors", "history.json")

# The client itself waits for ever for a Hub that does not answer. It tries each of the Hub's addresses (four on
# huggingface.co) this long, so that a missing network is reported within half a minute.
SECONDS_TO_ANSWER = 5.0


class HubError(Exception):
    """What went wrong with the Hub and what to do about it, in one sentence for a person."""


# ---- push and pull ---------------------------------------------------------------------------------------------------


def repository_files(folder: Path) -> list[tuple[str, int]]:
    """The files of a model folder that a push uploads: relative POSIX path and size in bytes, sorted by path.

    Raises HubError when `folder` is not a complete model folder.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        what = "has no " + ", ".join(missing) if folder.is_dir() else "is not a folder"
        raise HubError(
            f"{folder} {what}: expected a model folder with {', '.join(REQUIRED_FILES)};"
            f" train a model with `{installation.spoken('train')}` and give the folder that it wrote."
        )
    paths = [path for pattern in REPOSITORY_FILES for path in folder.glob(pattern) if path.is_file()]
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)


def card_for(folder: Path, repo_id: str) -> str:
    """The model folder's card as a push uploads it: naming the repository instead of the placeholder.

    Raises HubError when `repo_id` cannot be the name of somebody's repository.
    """
    _refuse_unusable_name(repo_id)
    with _one_sentence(repo_id, None):
        card = (folder / "README.md").read_text(encoding="utf-8")
    return card.replace(PLACEHOLDER, repo_id)


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
    """Uploads a model folder to the Hub in one commit; the folder itself is left as it is.

    A repository or branch (`revision`) that does not exist yet is created; `private` has a say only then. A folder that
    is on the Hub already makes no commit. Returns the address of the pull request, or of the branch's newest commit.
    Raises HubError.
    """
    if create_pr and revision is not None:
        raise HubError(f"A pull request always starts from main: give either a pull request or revision '{revision}'.")
    if not commit_message.strip():
        raise HubError("The commit message is empty: say in a few words what this push is, or leave the message out.")
    paths = [path for path, _ in repository_files(folder)]
    card = card_for(folder, repo_id)
    content = {path: card.encode() if path == "README.md" else str(folder / path) for path in paths}

    from huggingface_hub import HfApi

    token = _token_to_write(token)
    with _one_sentence(repo_id, revision):
        api = HfApi(token=token)
        _open_repository(api, repo_id, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return _commit(api, repo_id, content, commit_message, revision=revision, create_pr=create_pr)


def push_space(
    files: Mapping[str, bytes],
    repo_id: str,
    model_ids: Sequence[str],
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Push the page of an antbee model",
) -> str:
    """Uploads a Gradio Space in one commit: the files by their path there, README.md among them.

    The Space is told by its variable MODELS_VARIABLE which models of the Hub to show. One that does not exist yet is
    created; `private` has a say only then. Files that are there already make no commit, and a variable that is right
    already is not set again, which would restart the Space. Returns its address. Raises HubError.
    """
    from huggingface_hub import HfApi

    _refuse_unusable_name(repo_id)
    token = _token_to_write(token)
    models = " ".join(model_ids)
    with _one_sentence(repo_id, None):
        api = HfApi(token=token)
        _open_repository(api, repo_id, private, space_variables={MODELS_VARIABLE: models})
        _commit(api, repo_id, files, commit_message, kind="space")
        variable = api.get_space_variables(repo_id).get(MODELS_VARIABLE)
        if variable is None or variable.value != models:
            api.add_space_variable(repo_id, MODELS_VARIABLE, models)
    return f"{api.endpoint}/spaces/{repo_id}"


def _commit(
    api: "HfApi",
    repo_id: str,
    content: Mapping[str, bytes | str],
    message: str,
    *,
    kind: str = "model",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """One commit of files by path, given as bytes or as a path here; the address of it, or of its pull request."""
    from huggingface_hub import CommitOperationAdd

    # Not upload_folder(): it may split a push into several commits, and one that breaks off would leave half a model.
    additions = [CommitOperationAdd(path, data) for path, data in content.items()]
    commit = api.create_commit(
        repo_id, additions, commit_message=message, repo_type=kind, revision=revision, create_pr=create_pr
    )
    return commit.pr_url or commit.commit_url


def _open_repository(
    api: "HfApi", repo_id: str, private: bool, space_variables: Mapping[str, str] | None = None
) -> None:
    """Makes sure that the repository exists, and that nothing meant to be private goes to a public one.

    With `space_variables` it is a Space, which starts with them.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    kind = "model" if space_variables is None else "space"
    try:
        existing = api.repo_info(repo_id, repo_type=kind, timeout=SECONDS_TO_ANSWER)
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
        return
    if private and not existing.private:
        raise HubError(
            f"The {kind} '{repo_id}' exists and is public, and a push cannot hide it: make it private in its settings"
            " on the Hub, give a new name, or push without asking for a private repository."
        )


def pull(
    repo_id: str, *, revision: str | None = None, token: str | None = None, local_files_only: bool = False
) -> Path:
    """Downloads a model into the Hub's cache and returns its folder there.

    When the Hub cannot be reached, the copy downloaded earlier is returned with a warning that says so. Raises
    HubError, also for a repository without a model in the safetensors format.
    """
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    _refuse_unusable_token(token or get_token())
    with _one_sentence(repo_id, revision):
        trouble = None if local_files_only else _trouble_in_reaching(repo_id, revision, token)
        try:
            snapshot = snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                allow_patterns=list(PULLED_FILES),
                local_files_only=local_files_only or trouble is not None,
            )
        except LocalEntryNotFoundError as nothing_here:
            if trouble is None:
                raise
            raise trouble from nothing_here
    if trouble is not None:
        why = _explanation(trouble, repo_id, revision)
        warn(
            one_line(f"{why} Until then the copy of '{repo_id}' downloaded earlier is used.", longest=1000),
            stacklevel=2,
        )
    folder = Path(snapshot)
    missing = [name for name in ("model.safetensors", "config.json") if not (folder / name).is_file()]
    if missing:
        raise HubError(
            f"The repository '{repo_id}' holds no model that antbee can read, {' and '.join(missing)} missing: check"
            " the name and the revision, or push the model again. Weights in other formats are never read."
        )
    return folder


def _trouble_in_reaching(repo_id: str, revision: str | None, token: str | None) -> Exception | None:
    """Why the Hub cannot answer for a repository just now; None when it answers. Raises what it answers with."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as NoAnswer  # type: ignore[attr-defined]

    try:
        HfApi(token=token).model_info(repo_id, revision=revision, timeout=SECONDS_TO_ANSWER)
    except (NoAnswer, OfflineModeIsEnabled) as error:
        if isinstance(error, HfHubHTTPError) and not _passing(error.response.status_code):
            raise
        return error
    return None


# ---- errors ----------------------------------------------------------------------------------------------------------


def _refuse_unusable_name(repo_id: str) -> None:
    """Raises HubError for what cannot be the name of somebody's repository."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _one_sentence(repo_id, None):
        validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise HubError(
            f"'{repo_id}' does not say whose repository it is: expected your user name or organisation on the Hub"
            f" before it, as in '{PLACEHOLDER}'."
        )


def _token_to_write(token: str | None) -> str:
    """The access token given, or that of the login. Raises HubError where there is none, or none that can be sent."""
    from huggingface_hub import get_token

    if (token := token or get_token()) is None:
        raise HubError(
            "You are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token with write permission"
            " from https://huggingface.co/settings/tokens."
        )
    _refuse_unusable_token(token)
    return token


def _refuse_unusable_token(token: str | None) -> None:
    """Raises HubError for a token that cannot be sent; the client's own error would print it."""
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise HubError(
            "The access token contains a space, a line break or a letter that no token has: copy it again from"
            " https://huggingface.co/settings/tokens into HF_TOKEN, or run `hf auth login`."
        )


@contextmanager
def _one_sentence(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns whatever the client raises into a HubError."""
    from huggingface_hub.errors import HTTPError as NoAnswer  # type: ignore[attr-defined]

    try:
        yield
    # NoAnswer: no connection. OSError: the Hub's refusals, no token, the disk. ValueError: names, the card, an answer
    # that is not JSON. RuntimeError: an upload that broke off.
    except (NoAnswer, OSError, ValueError, RuntimeError) as error:
        raise HubError(one_line(_explanation(error, repo_id, revision), longest=1000)) from error


def _explanation(error: Exception, repo_id: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    sentences: dict[type[Exception], str] = {
        errors.GatedRepoError: f"'{repo_id}' is open only to those its owner admits: ask for access on {page}, then"
        " log in with `hf auth login`.",
        errors.RepositoryNotFoundError: f"The Hub shows you no repository '{repo_id}': check the name, or, if it"
        " is private, run `hf auth login` or set HF_TOKEN to a token that may read it.",
        errors.RevisionNotFoundError: f"'{repo_id}' has no revision '{revision}': give a branch, tag or commit listed"
        f" on {page}/tree/main, or leave the revision out for the newest.",
        errors.LocalEntryNotFoundError: f"No complete copy of '{repo_id}' is on this computer and none could be"
        f" downloaded from {constants.ENDPOINT}: check the network, unset HF_HUB_OFFLINE, and try again.",
        errors.OfflineModeIsEnabled: "The Hub's offline mode is on: unset HF_HUB_OFFLINE and try again.",
        errors.HFValidationError: f"'{repo_id}' cannot be the name of a repository: expected a name such as"
        f" '{PLACEHOLDER}', of letters, digits, '-', '_' and '.'.",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error.response.status_code, one_line(error.server_message or "no reason given"), repo_id)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return _explanation(error.__cause__, repo_id, revision)  # the client's word for an upload that broke off
    reason = one_line(str(error)) or type(error).__name__
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"The Hub at {constants.ENDPOINT} cannot be reached ({reason}): check the network and try again."
    if "Invalid metadata in README.md" in reason:
        return f"The Hub does not accept the card ({reason}): correct the lines between the two --- of README.md."
    return (
        f"The work with '{repo_id}' broke off ({reason}): check the network, the free disk space and the folder's"
        " permissions, then try again."
    )


def _passing(status: int) -> bool:
    """Whether an HTTP status is the Hub's own trouble, which waiting cures."""
    return status == 429 or status >= 500


def _refusal(status: int, reason: str, repo_id: str) -> str:
    """What an HTTP status of the Hub means for a person."""
    if status >= 500:
        return f"The Hub is in trouble (status {status}, {reason}): try again later."
    sentences = {
        401: "The Hub does not accept your access token (status 401): run `hf auth login`, or set HF_TOKEN to a valid"
        " token from https://huggingface.co/settings/tokens.",
        402: f"The Hub asks for a paid plan before it opens '{repo_id}' (status 402, {reason}): choose one on"
        " https://huggingface.co/pricing, or push without what costs.",
        403: f"The Hub denies you '{repo_id}' (status 403, {reason}): put your own user name or organisation before the"
        " '/', and use a token with write permission from https://huggingface.co/settings/tokens.",
        409: f"Another change of '{repo_id}' is under way (status 409, {reason}): push again.",
        412: f"'{repo_id}' was changed during the push (status 412, {reason}): push again.",
        429: f"The Hub asks for a pause (status 429, {reason}): wait a few minutes and try again.",
    }
    return sentences.get(status, f"The Hub refuses '{repo_id}' (status {status}, {reason}): change that and try again.")
