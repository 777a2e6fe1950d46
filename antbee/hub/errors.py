"""What goes wrong with the Hub, each as one sentence that says what to do. Access tokens are never part of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from antbee.errors import AntbeeError
from antbee.hub.card import PLACEHOLDER
from antbee.text import one_line

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, which takes precedence over a login"
TOKENS_PAGE = "https://huggingface.co/settings/tokens"


class HubError(AntbeeError):
    """What went wrong with the Hub and what to do about it, in one sentence."""


class HubInputError(HubError):
    """A name or a folder can't be used, whatever the Hub says."""

    exit_status = 2


def check_name(repo_id: str) -> None:
    """Raises HubInputError for what cannot be the name of somebody's repository."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        with one_sentence(repo_id):
            validate_repo_id(repo_id)
    except HubError as error:
        raise HubInputError(str(error)) from error
    if "/" not in repo_id:
        raise HubInputError(
            f"'{repo_id}' does not name an owner: expected a user or an organisation on the Hub before it, as in"
            f" '{PLACEHOLDER}'."
        )


def token_to_write(token: str | None) -> str:
    """The access token given, or that of the login. Raises HubError where there is none, or none that can be sent."""
    from huggingface_hub import get_token

    if (token := token or get_token()) is None:
        raise HubError(f"You are not logged in to the Hub: {LOG_IN}; {TOKENS_PAGE} makes tokens that may write.")
    check_token(token)
    return token


def check_token(token: str | None) -> None:
    """Raises HubError for a token that cannot be sent; the client's own error would print it."""
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise HubError(
            "The access token contains a space, a line break or a letter that no token has: copy it again from"
            f" {TOKENS_PAGE}, then {LOG_IN}."
        )


def client_errors() -> tuple[type[Exception], ...]:
    """What the client raises for what happens to it."""
    from huggingface_hub.errors import HTTPError as NoAnswer  # type: ignore[attr-defined]

    # NoAnswer: no connection. OSError: the Hub's refusals, no token, the disk. ValueError: names, the card, an answer
    # that is not JSON. RuntimeError: an upload that broke. The others: an answer in JSON that is not the Hub's.
    return (NoAnswer, OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError)


@contextmanager
def one_sentence(repo_id: str, revision: str | None = None, *, kind: str = "model") -> Iterator[None]:
    """Turns whatever the client raises into a HubError; `kind` is that of the repository: model, dataset or space."""
    try:
        yield
    except client_errors() as error:
        raise HubError(one_line(explanation(error, repo_id, revision, kind), longest=1000)) from error


def root_of(error: BaseException) -> BaseException:
    """The failure that the client's own error was raised from."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    while (
        isinstance(error, LocalEntryNotFoundError | RuntimeError | ValueError)
        and not isinstance(error, HfHubHTTPError)
        and error.__cause__ is not None
    ):
        error = error.__cause__
    return error


def is_final(error: BaseException) -> bool:
    """Whether the Hub would answer the same when asked again: a refusal, or an invalid name."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status < 500 and status not in (408, 429)
    return isinstance(error, HFValidationError)


def may_pass(error: HubError) -> bool:
    """Whether trying again later may help: the Hub could not be reached, or is in trouble."""
    return error.__cause__ is not None and not is_final(root_of(error.__cause__))


def reach_the_hub() -> str:
    """What to do where the Hub could not be reached, for the end of a sentence."""
    from huggingface_hub import constants

    return f"check that this computer reaches {constants.ENDPOINT}, unset HF_HUB_OFFLINE, and try again"


def explanation(error: Exception, repo_id: str, revision: str | None, kind: str) -> str:
    """The sentence about what the client raised."""
    from huggingface_hub import constants, errors

    if "Invalid metadata in README.md" in (reason := one_line(str(error))):
        return f"The Hub does not accept the card ({reason}): correct the front matter of README.md."
    root = root_of(error)
    reason = one_line(str(root)) or type(root).__name__
    page = f"{constants.ENDPOINT}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}"
    for failure, sentence in (
        (errors.GatedRepoError, f"'{repo_id}' is gated: ask its owner for access on {page}, then {LOG_IN}."),
        (
            errors.RepositoryNotFoundError,
            f"There is no repository '{repo_id}' that you may read: check the name; if it is private, {LOG_IN}.",
        ),
        (
            errors.RevisionNotFoundError,
            f"'{repo_id}' has no revision '{revision or 'main'}': give a branch, tag or commit of {page}/tree/main, or"
            " leave the revision out for the newest.",
        ),
        (errors.LocalEntryNotFoundError, f"'{repo_id}' could not be downloaded ({reason}): {reach_the_hub()}."),
        (errors.OfflineModeIsEnabled, "The Hub's offline mode is on: unset HF_HUB_OFFLINE and try again."),
        (
            errors.HFValidationError,
            f"'{repo_id}' is not a valid name of a repository: expected one such as '{PLACEHOLDER}', of letters,"
            " digits, '-', '_' and '.'.",
        ),
    ):
        if isinstance(root, failure):
            return sentence
    if isinstance(root, errors.HfHubHTTPError):
        return _refusal(root.response.status_code, one_line(root.server_message or "no reason given"), repo_id)
    if isinstance(root, errors.HTTPError):  # type: ignore[attr-defined]
        return f"The Hub at {constants.ENDPOINT} cannot be reached ({reason}): check the network and try again."
    if isinstance(root, JSONDecodeError | LookupError | TypeError | AttributeError | AssertionError):
        return (
            f"{constants.ENDPOINT} does not answer as a Hub does ({reason}): check whether this network requires a"
            " login in the browser, check HF_ENDPOINT and the proxy, and try again."
        )
    return (
        f"The transfer of '{repo_id}' failed ({reason}): check the network, the free disk space and the folder's"
        " permissions, then try again."
    )


def _refusal(status: int, reason: str, repo_id: str) -> str:
    """What to do about an HTTP status of the Hub."""
    if status >= 500:
        return f"The Hub has an internal error (status {status}, {reason}): try again later."
    sentences = {
        401: f"The Hub does not accept your access token (status 401): make a new one on {TOKENS_PAGE}, then {LOG_IN}.",
        402: f"The Hub asks for a paid plan for '{repo_id}' (status 402, {reason}): see https://huggingface.co/pricing.",
        403: f"The Hub denies access to '{repo_id}' (status 403, {reason}): put your own user name or organisation"
        f" before the '/', and use a token with write permission from {TOKENS_PAGE}.",
        409: f"Another change of '{repo_id}' is in progress (status 409, {reason}): try again.",
        412: f"'{repo_id}' was changed during the push (status 412, {reason}): push again.",
        429: f"Too many requests (status 429, {reason}): wait a few minutes and try again.",
    }
    default = f"The Hub refuses '{repo_id}' (status {status}, {reason}): change that and try again."
    return sentences.get(status, default)
