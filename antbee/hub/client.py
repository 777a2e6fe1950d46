"""The Hugging Face Hub: push and pull.

A model folder is already a complete Hub repository, so a push uploads it as it is: the files of REPOSITORY_FILES and
no stray one. A pull brings back what a classifier is made of, PULLED_FILES: safetensors and JSON, nothing that could
run code when it is opened.

huggingface_hub is imported inside the functions that use it: its import takes half a second, which nobody who only
trains or predicts should wait for.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any
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
# How long a request that was begun may go on without success, its repetitions included: see _Patience.
SECONDS_OF_PATIENCE = 20.0
SLOWEST = 1000  # bytes a second; what comes slower counts as nothing coming
MOST_BREAKS = 5  # of one file's download; the client goes on for ever where every piece brings some bytes

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


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
    with _one_sentence(repo_id, None, None):
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
    is on the Hub already makes no commit. Files that an earlier push left there and this model has none of are deleted
    in the same commit. Returns the address of the pull request, or of the branch's newest commit. Raises HubError.
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
    with _one_sentence(repo_id, revision, token):
        api = HfApi(token=token)
        there = _open_repository(api, repo_id, private)
        if revision is not None:
            if not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            there = _files_of(api.model_info(repo_id, revision=revision, timeout=SECONDS_TO_ANSWER))
        # Another model's neighbours or figures beside this one's weights would be a mixture of two models.
        stale = sorted(there & set(REPOSITORY_FILES) - content.keys())
        return _commit(api, repo_id, content, commit_message, stale=stale, revision=revision, create_pr=create_pr)


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
    with _one_sentence(repo_id, None, token):
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
    stale: Sequence[str] = (),
    kind: str = "model",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """One commit of files by path, given as bytes or as a path here, which also deletes those that are `stale`.

    Returns the address of it, or of its pull request.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # Not upload_folder(): it may split a push into several commits, and one that breaks off would leave half a model.
    additions = [CommitOperationAdd(path, data) for path, data in content.items()]
    deletions = [CommitOperationDelete(path) for path in stale]
    commit = api.create_commit(
        repo_id,
        [*additions, *deletions],
        commit_message=message,
        repo_type=kind,
        revision=revision,
        create_pr=create_pr,
    )
    return commit.pr_url or commit.commit_url


def _files_of(repository: Any) -> set[str]:
    """The paths that repo_info() tells of."""
    return {file.rfilename for file in repository.siblings or []}


def _open_repository(
    api: "HfApi", repo_id: str, private: bool, space_variables: Mapping[str, str] | None = None
) -> set[str]:
    """Makes sure that the repository exists, and that nothing meant to be private goes to a public one.

    With `space_variables` it is a Space, which starts with them. Returns the paths of the files on its main branch.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    kind = "model" if space_variables is None else "space"
    try:
        found = api.repo_info(repo_id, repo_type=kind, timeout=SECONDS_TO_ANSWER)
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
        # It may have been there all the same, and what is known of it decides what goes there.
        found = api.repo_info(repo_id, repo_type=kind, timeout=SECONDS_TO_ANSWER)
    if private and not found.private:
        raise HubError(
            f"The {kind} '{repo_id}' exists and is public, and a push cannot hide it: make it private in its settings"
            " on the Hub, give a new name, or push without asking for a private repository."
        )
    return _files_of(found)


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Downloads a model into the Hub's cache and returns its folder there, complete and byte for byte the Hub's.

    With `force_download` also what is there already. Where the Hub cannot be had, the copy downloaded earlier is
    returned with a warning that says so. Raises HubError, also for a repository without a model in the safetensors
    format.
    """
    from huggingface_hub import get_token

    if force_download and local_files_only:
        raise HubError("A download cannot be had without the network: ask for force_download or local_files_only.")
    _refuse_unusable_token(token or get_token())
    with _one_sentence(repo_id, revision, token):
        if local_files_only:
            return _copy_downloaded_earlier(repo_id, revision)
        try:
            return _downloaded(repo_id, revision, token, force_download)
        except _client_errors() as error:
            if force_download or _refused(_root(error)):
                raise
            try:
                folder = _copy_downloaded_earlier(repo_id, revision)
            except (OSError, HubError):  # there is none, or it is damaged: that is not what went wrong
                folder = None
            if folder is None:
                raise
            trouble = error
    why = _explanation(trouble, repo_id, revision, token)
    warn(one_line(f"{why} Until then the copy of '{repo_id}' downloaded earlier is used.", longest=1000), stacklevel=2)
    return folder


def _downloaded(repo_id: str, revision: str | None, token: str | None, force: bool) -> Path:
    """The folder in the cache of what the Hub has just now, downloaded where it is not there yet."""
    from huggingface_hub import HfApi, snapshot_download

    found = HfApi(token=token).model_info(repo_id, revision=revision, timeout=SECONDS_TO_ANSWER)
    wanted = [name for name in PULLED_FILES if name in _files_of(found)]
    _refuse_without_model(repo_id, wanted)
    for attempt in (1, 2):
        # By the commit, not by the branch: the client would let the branch's name stand for this commit at once, and a
        # download that breaks off would hide the whole copy downloaded earlier.
        folder = Path(
            snapshot_download(
                repo_id, revision=found.sha, token=token, allow_patterns=wanted, force_download=force and attempt == 1
            )
        )
        _sweep(folder)
        if missing := [name for name in wanted if not (folder / name).is_file()]:
            # The client believes for ever what it was once told that a commit holds.
            (folder.parents[1] / "trees" / f"{folder.name}.json").unlink(missing_ok=True)
            raise OSError(f"{' and '.join(missing)} did not come, which the Hub says it has")
        if not (damaged := _damaged(folder)):
            _remember(folder, revision)
            return folder
        for name in damaged:
            (folder / name).resolve().unlink(missing_ok=True)  # else the client would take it for the Hub's
    raise OSError(f"what came for {' and '.join(damaged)} does not have the checksum that the Hub gives")


def _copy_downloaded_earlier(repo_id: str, revision: str | None) -> Path:
    """The folder in the cache of the last complete download."""
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(repo_id, revision=revision, allow_patterns=list(PULLED_FILES), local_files_only=True)
    )
    _refuse_without_model(repo_id, [name for name in PULLED_FILES if (folder / name).is_file()])
    if damaged := _damaged(folder):
        raise OSError(f"{folder / damaged[0]} is not what was downloaded: with a network it is downloaded again")
    return folder


def _refuse_without_model(repo_id: str, files: Sequence[str]) -> None:
    """Raises HubError where there is no model among the files."""
    if missing := [name for name in ("model.safetensors", "config.json") if name not in files]:
        raise HubError(
            f"The repository '{repo_id}' holds no model that antbee can read, {' and '.join(missing)} missing: check"
            " the name and the revision, or push the model again. Weights in other formats are never read."
        )


# ---- the cache -------------------------------------------------------------------------------------------------------
# https://huggingface.co/docs/huggingface_hub/guides/manage-cache describes it. A model's folder snapshots/COMMIT holds
# links to blobs/DIGEST; refs/main names the commit that the branch stood for; a lock for each digest lies elsewhere.


def _damaged(folder: Path) -> list[str]:
    """The pulled files whose bytes are not those of the Hub; the client compares only their number.

    The Hub's digest is in the name of what the file links to: SHA-256 of large files, git's SHA-1 of small ones. Where
    a system knows no links, or another server has digests of its own, there is nothing to compare with.
    """
    return [name for name in PULLED_FILES if (folder / name).is_symlink() and not _as_named(folder / name)]


def _as_named(link: Path) -> bool:
    digest = link.readlink().name
    if not link.exists() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        return link.exists()
    with link.open("rb") as file:
        if len(digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
        git = hashlib.sha1(b"blob %d\0" % link.stat().st_size, usedforsecurity=False)
        git.update(file.read())
        return git.hexdigest() == digest


def _remember(folder: Path, revision: str | None) -> None:
    """Lets a branch's name stand for this complete copy where the Hub cannot be asked."""
    reference = folder.parents[1] / "refs" / (revision or "main")
    if (revision or "main") == folder.name or (reference.is_file() and reference.read_text("utf-8") == folder.name):
        return
    reference.parent.mkdir(parents=True, exist_ok=True)
    beside = reference.with_name(f"{reference.name}.{os.getpid()}.{threading.get_ident()}")
    beside.write_text(folder.name, encoding="utf-8")
    beside.replace(reference)


def _sweep(folder: Path) -> None:
    """Deletes the pieces that downloads left which were killed; the client does so only where it can end in order."""
    from filelock import FileLock, Timeout

    repository = folder.parents[1]
    for piece in (repository / "blobs").glob("*.incomplete"):
        digest = piece.name.partition(".")[0]
        lock = repository.parent / ".locks" / repository.name / f"{digest}.lock"
        try:
            with FileLock(lock, timeout=0):  # whoever is downloading it holds this
                piece.unlink(missing_ok=True)
        except (Timeout, OSError, NotImplementedError):
            continue  # it is no harm, only space


# ---- patience --------------------------------------------------------------------------------------------------------


class _Attempts(threading.local):
    """What a thread knows of the request that it makes, or makes again."""

    request: tuple[str, str] | None = None
    since = 0.0  # the first attempt, or the last time that something came of one
    last = 0.0  # the last attempt
    breaks = 0  # how often the answer broke off in its midst
    stalled = 0.0  # seconds that went by before it did


@dataclass(frozen=True)
class _Patience:
    """Makes the clients that huggingface_hub sends with, and gives them an end.

    Left alone they wait for ever for an answer, repeat a request for minutes where the Hub is in trouble, for hours
    where it asks for that, and read on where one byte comes in a second. httpx2.TransportError is what they don't
    repeat.
    """

    make: Callable[[], Any]  # an httpx2.Client
    attempts: _Attempts = field(default_factory=_Attempts)

    def __call__(self) -> Any:
        client = self.make()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self.before],
            "response": [*hooks["response"], self.after],
        }
        return client

    def start_anew(self) -> None:
        """Forgets what this thread did before."""
        self.attempts.request = None

    def before(self, request: Any) -> None:
        """Gives a request no more time than is left for it."""
        from httpx2 import TransportError

        this, now, attempts = (request.method, str(request.url)), time.monotonic(), self.attempts
        # The longest pause of the client's is shorter; after that it is not the same request repeated.
        if attempts.request != this or now - attempts.last > SECONDS_OF_PATIENCE + 10:
            attempts.request, attempts.since, attempts.breaks, attempts.stalled = this, now, 0, 0.0
        attempts.last = now
        left = SECONDS_OF_PATIENCE - max(now - attempts.since, attempts.stalled)
        if left <= 0:
            raise TransportError(f"no answer in {SECONDS_OF_PATIENCE:.0f} seconds", request=request)
        given = request.extensions.get("timeout", {})
        most = {"connect": min(left, SECONDS_TO_ANSWER), "read": left, "write": left, "pool": left}
        request.extensions["timeout"] = {
            phase: seconds if given.get(phase) is None else min(seconds, given[phase])
            for phase, seconds in most.items()
        }

    def after(self, response: Any) -> None:
        """Lets the client repeat a refused request only while there is time, and watches over an answer's coming."""
        from huggingface_hub import hf_raise_for_status

        if not _passing(response.status_code):
            response.stream = self.watched(response.stream, response.request)
            return
        # Its next pause is as long as all before it and a second; a Hub that names one may name an hour.
        elapsed = time.monotonic() - self.attempts.since
        if response.status_code == 429 or "retry-after" in response.headers or 2 * elapsed + 1 > SECONDS_OF_PATIENCE:
            hf_raise_for_status(response)

    def watched(self, stream: Any, request: Any) -> Any:
        """The bytes of an answer, for as long as they come at some speed."""
        from httpx2 import SyncByteStream, TransportError

        attempts = self.attempts

        class Watched(SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                count, latest = 0, time.monotonic()
                try:
                    for piece in stream:
                        count, latest = count + len(piece), time.monotonic()
                        if count >= SLOWEST * SECONDS_OF_PATIENCE:
                            count, attempts.since = 0, latest
                        elif latest - attempts.since > SECONDS_OF_PATIENCE:
                            raise TransportError(f"no more than {count} bytes came for long", request=request)
                        yield piece
                except TransportError as error:
                    attempts.breaks += 1
                    attempts.stalled += time.monotonic() - latest
                    if attempts.breaks > MOST_BREAKS or attempts.stalled > SECONDS_OF_PATIENCE:
                        raise TransportError(f"it broke off {attempts.breaks} times", request=request) from error
                    raise
                attempts.request = None  # it is done

            def close(self) -> None:
                stream.close()

        return Watched()


def _be_patient() -> None:
    """Gives every request that this thread makes from now on an end."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    patience = _http._GLOBAL_CLIENT_FACTORY
    if not isinstance(patience, _Patience):
        # Around the one that is there: somebody's own may know a proxy or a certificate.
        patience = _Patience(patience)
        set_client_factory(patience)
    patience.start_anew()


# ---- errors ----------------------------------------------------------------------------------------------------------


def _refuse_unusable_name(repo_id: str) -> None:
    """Raises HubError for what cannot be the name of somebody's repository."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _one_sentence(repo_id, None, None):
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
            f" https://huggingface.co/settings/tokens; then {_way_to_log_in(token)}."
        )


def _way_to_log_in(token: str | None) -> str:
    """What to do for another token than this one, None for the one that the client finds by itself."""
    found = next(((name, os.environ[name]) for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    if found is not None and token in (None, found[1], "".join(found[1].splitlines()).strip()):
        name = found[0]  # as long as it is set, a login has no effect
        return (
            f"set the environment variable {name}, where yours is from, to a token of your own, or unset it and log in"
        )
    return "run `hf auth login`, or set HF_TOKEN to your token"


def _client_errors() -> tuple[type[Exception], ...]:
    """What the client raises for what happens to it."""
    from huggingface_hub.errors import HTTPError as NoAnswer  # type: ignore[attr-defined]

    # NoAnswer: no connection. OSError: the Hub's refusals, no token, the disk. ValueError: names, the card, an answer
    # that is not JSON. RuntimeError: an upload that broke off. The others: an answer in JSON that is not the Hub's.
    return (NoAnswer, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError)


@contextmanager
def _one_sentence(repo_id: str, revision: str | None, token: str | None) -> Iterator[None]:
    """Gives what the client does an end, and turns whatever it raises into a HubError."""
    _be_patient()
    try:
        yield
    except _client_errors() as error:
        raise HubError(one_line(_explanation(error, repo_id, revision, token), longest=1000)) from error


def _root(error: Exception) -> Exception:
    """What the client's words for a failure were raised from."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    while (
        isinstance(error, LocalEntryNotFoundError | RuntimeError | ValueError)
        and not isinstance(error, HfHubHTTPError)
        and isinstance(error.__cause__, Exception)
    ):
        error = error.__cause__
    return error


def _refused(error: Exception) -> bool:
    """Whether the Hub answered, and will answer the same when asked again."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError):
        return not _passing(error.response.status_code)
    return isinstance(error, HFValidationError)


def _explanation(error: Exception, repo_id: str, revision: str | None, token: str | None) -> str:
    from huggingface_hub import constants, errors

    if "Invalid metadata in README.md" in (reason := one_line(str(error))):
        return f"The Hub does not accept the card ({reason}): correct the lines between the two --- of README.md."
    error = _root(error)
    page = f"{constants.ENDPOINT}/{repo_id}"
    log_in = _way_to_log_in(token)
    sentences: dict[type[Exception], str] = {
        errors.GatedRepoError: f"'{repo_id}' is open only to those its owner admits: ask for access on {page}, then"
        f" {log_in}.",
        errors.RepositoryNotFoundError: f"The Hub shows you no repository '{repo_id}': check the name, or, if it"
        f" is private, {log_in}, one that may read it.",
        errors.RevisionNotFoundError: f"'{repo_id}' has no revision '{revision or 'main'}': give a branch, tag or"
        f" commit listed on {page}/tree/main, or leave the revision out for the newest.",
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
        reason = one_line(error.server_message or "no reason given")
        return _refusal(error.response.status_code, reason, repo_id, log_in)
    reason = one_line(str(error)) or type(error).__name__
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        return f"The Hub at {constants.ENDPOINT} cannot be reached ({reason}): check the network and try again."
    if isinstance(error, JSONDecodeError | LookupError | TypeError | AttributeError | AssertionError):
        return (
            f"What answers at {constants.ENDPOINT} does not speak as the Hub does ({reason}): check whether this"
            " network wants you to log in on a page of its own, check HF_ENDPOINT and the proxy, and try again."
        )
    return (
        f"The work with '{repo_id}' broke off ({reason}): check the network, the free disk space and the folder's"
        " permissions, then try again."
    )


def _passing(status: int) -> bool:
    """Whether an HTTP status is the Hub's own trouble, which waiting cures."""
    return status in (408, 429) or status >= 500


def _refusal(status: int, reason: str, repo_id: str, log_in: str) -> str:
    """What an HTTP status of the Hub means for a person."""
    if status >= 500:
        return f"The Hub is in trouble (status {status}, {reason}): try again later."
    sentences = {
        401: "The Hub does not accept your access token (status 401): make a new one on"
        f" https://huggingface.co/settings/tokens, then {log_in}.",
        402: f"The Hub asks for a paid plan before it opens '{repo_id}' (status 402, {reason}): choose one on"
        " https://huggingface.co/pricing, or push without what costs.",
        403: f"The Hub denies you '{repo_id}' (status 403, {reason}): put your own user name or organisation before the"
        " '/', and use a token with write permission from https://huggingface.co/settings/tokens.",
        409: f"Another change of '{repo_id}' is under way (status 409, {reason}): try again.",
        412: f"'{repo_id}' was changed during the push (status 412, {reason}): push again.",
        429: f"The Hub asks for a pause (status 429, {reason}): wait a few minutes and try again.",
    }
    return sentences.get(status, f"The Hub refuses '{repo_id}' (status {status}, {reason}): change that and try again.")
