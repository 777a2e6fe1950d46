"""The Hugging Face Hub: the model card, push and pull.

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
from typing import TYPE_CHECKING, Any
from warnings import warn

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, HfApi

REQUIRED_FILES = ("model.safetensors", "config.json", "README.md")
REPOSITORY_FILES = (*REQUIRED_FILES, "history.json", "figures/*.png")
PULLED_FILES = ("model.safetensors", "config.json", "history.json")

# Stands in a card for the repository's name, which is only known when the model is pushed.
PLACEHOLDER = "your-name/model-name"

# The client itself waits for ever for a Hub that does not answer. It tries each of the Hub's addresses (four on
# huggingface.co) this long, so that a missing network is reported within half a minute.
SECONDS_TO_ANSWER = 5.0

# What a model may be passed on under, by its starting weights; of weights from a file nobody here knows it.
LICENCES = {"imagenet": "bsd-3-clause", "random": "mit"}

TUTORIAL_PAGE = "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html"

# A confusion matrix of more classes is too wide for a table: the picture shows it.
LARGEST_CONFUSION_TABLE = 10


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
            " train a model with `python scripts/train.py` and give the folder that it wrote."
        )
    paths = [path for pattern in REPOSITORY_FILES for path in folder.glob(pattern) if path.is_file()]
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)


def card_for(folder: Path, repo_id: str) -> str:
    """The model folder's card as a push uploads it: naming the repository instead of the placeholder.

    Raises HubError when `repo_id` cannot be the name of somebody's repository.
    """
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _one_sentence(repo_id, None):
        validate_repo_id(repo_id)
        card = (folder / "README.md").read_text(encoding="utf-8")
    if "/" not in repo_id:
        raise HubError(
            f"'{repo_id}' does not say whose repository it is: expected your user name or organisation on the Hub"
            f" before it, as in '{PLACEHOLDER}'."
        )
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

    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if (token := token or get_token()) is None:
        raise HubError(
            "You are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token with write permission"
            " from https://huggingface.co/settings/tokens."
        )
    _refuse_unusable_token(token)
    with _one_sentence(repo_id, revision):
        api = HfApi(token=token)
        _open_repository(api, repo_id, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # Not upload_folder(): it reads the card from the folder, and may split a push into several commits.
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(path, card.encode() if path == "README.md" else str(folder / path)) for path in paths],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )
    return commit.pr_url or commit.commit_url


def _open_repository(api: "HfApi", repo_id: str, private: bool) -> None:
    """Makes sure that the repository exists, and that nothing meant to be private goes to a public one."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        existing = api.model_info(repo_id, timeout=SECONDS_TO_ANSWER)
    except RepositoryNotFoundError:
        # None leaves the choice to the owner's settings: an organisation may make its repositories private by default.
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        return
    if private and not existing.private:
        raise HubError(
            f"'{repo_id}' exists and is public, and a push cannot hide it: make it private in its settings on the Hub,"
            " give a new name, or push without asking for a private repository."
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
            _one_line(f"{why} Until then the copy of '{repo_id}' downloaded earlier is used.", longest=1000),
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
        raise HubError(_one_line(_explanation(error, repo_id, revision), longest=1000)) from error


def _explanation(error: Exception, repo_id: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    sentences: dict[type[Exception], str] = {
        errors.GatedRepoError: f"'{repo_id}' is open only to those its owner admits: ask for access on {page}, then"
        " log in with `hf auth login`.",
        errors.RepositoryNotFoundError: f"The Hub shows you no model repository '{repo_id}': check the name, or, if it"
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
        return _refusal(error.response.status_code, _one_line(error.server_message or "no reason given"), repo_id)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return _explanation(error.__cause__, repo_id, revision)  # the client's word for an upload that broke off
    reason = _one_line(str(error)) or type(error).__name__
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
        403: f"The Hub denies you '{repo_id}' (status 403, {reason}): put your own user name or organisation before the"
        " '/', and use a token with write permission from https://huggingface.co/settings/tokens.",
        409: f"Another change of '{repo_id}' is under way (status 409, {reason}): push again.",
        412: f"'{repo_id}' was changed during the push (status 412, {reason}): push again.",
        429: f"The Hub asks for a pause (status 429, {reason}): wait a few minutes and try again.",
    }
    return sentences.get(status, f"The Hub refuses '{repo_id}' (status {status}, {reason}): change that and try again.")


# ---- the card --------------------------------------------------------------------------------------------------------


def model_card(config: Mapping[str, Any]) -> str:
    """The text of README.md, filled from the content of config.json.

    Front matter as https://huggingface.co/docs/hub/model-cards describes it. Everything under "antbee" may be missing
    or None; the card then leaves out what it cannot tell.
    """
    antbee = _known(config.get("antbee", {}))
    parts = [
        f"---\n{_front_matter(config['architecture'], antbee)}\n---",
        *_notices(antbee),
        *_introduction(config["architecture"], config["label_names"]),
        *_results(antbee, config["label_names"]),
        *_training(antbee),
        *_usage(),
        *_limits(antbee),
    ]
    return "\n\n".join(parts) + "\n"


def _known(value: Any) -> Any:
    """A part of the config without what is None in it."""
    if not isinstance(value, Mapping):
        return value
    return {key: _known(item) for key, item in value.items() if item is not None}


def _front_matter(architecture: str, antbee: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    weights = antbee.get("weights", {})
    metadata = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["antbee", "timm", "transformers", "image-classification"],
        license=LICENCES.get(weights.get("name")),
        base_model=weights.get("base_model") if weights.get("name") == "imagenet" else None,
        metrics=["accuracy"],
        model_name=_one_line(f"antbee {architecture} {antbee.get('mode', '')}"),
        eval_results=_evaluation_results(antbee),
    )
    return metadata.to_yaml()


def _evaluation_results(antbee: Mapping[str, Any]) -> "list[EvalResult] | None":
    """The kept epoch's accuracy, for the Hub's own display of results."""
    from huggingface_hub import EvalResult

    kept = antbee.get("metrics", {}).get("kept", {})
    if "accuracy" not in kept:
        return None
    result = EvalResult(
        task_type="image-classification",
        dataset_type="imagefolder",
        dataset_name=_one_line(antbee.get("data", {}).get("name", "own photos")),
        dataset_split="val",
        metric_type="accuracy",
        metric_value=kept["accuracy"],
    )
    return [result]


def _notices(antbee: Mapping[str, Any]) -> list[str]:
    notices = []
    if antbee.get("data", {}).get("name") == "drawn":
        notices.append(
            "> **Trained on drawn pictures.** This model learned from pictures that a program drew, because no photos"
            " were at hand or drawn ones were asked for. Do not expect it to recognise photos."
        )
    if antbee.get("weights", {}).get("name") == "random":
        notices.append(
            "> **Started from random weights.** This model started without anything learned from ImageNet, because"
            " those weights were not at hand or random ones were asked for, and a few hundred pictures do not teach a"
            " network to see. Do not expect it to recognise photos."
        )
    return notices


def _introduction(architecture: str, label_names: Sequence[str]) -> list[str]:
    classes = [_text(name) for name in label_names]
    title = " or ".join(classes) if len(classes) <= 5 else f"{len(classes)} classes"
    return [
        f"# {title}: an image classifier",
        f"A {_text(architecture)} that learned by transfer learning to tell the pictures of {len(classes)} classes"
        " apart.",
        f"It predicts: {', '.join(classes)}.",
    ]


def _results(antbee: Mapping[str, Any], label_names: Sequence[str]) -> list[str]:
    metrics = antbee.get("metrics", {})
    rows = [_result_row(words, metrics[words]) for words in ("kept", "last") if "accuracy" in metrics.get(words, {})]
    if not rows:
        return []
    parts = ["## Results", _table(("epoch", "accuracy", "right", "95 % interval (Wilson)", "loss"), rows)]
    if "selected_on" in metrics:
        parts.append(
            f"The kept epoch was chosen on the same {_text(metrics['selected_on'])} pictures that it is scored on here,"
            " so its figure is optimistic; the last epoch was not chosen."
        )
    start = antbee.get("weights", {}).get("name")
    if start not in (None, *LICENCES):
        parts.append(f"The accuracy is that of a start from the file {_text(start)}: from other weights it is another.")
    if "confusion" in metrics:
        parts += _confusion(metrics["confusion"], label_names)
    return [*parts, "![Loss and accuracy by epoch](figures/curves.png)"]


def _result_row(words: str, epoch: Mapping[str, Any]) -> list[str]:
    right = f"{epoch['correct']} of {epoch['count']}" if {"correct", "count"} <= epoch.keys() else "unknown"
    interval = " to ".join(map(_percent, epoch["interval"])) if "interval" in epoch else "unknown"
    loss = f"{epoch['loss']:.3f}" if "loss" in epoch else "unknown"
    return [f"{words} ({epoch.get('epoch', 'unknown')})", _percent(epoch["accuracy"]), right, interval, loss]


def _confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str]) -> list[str]:
    picture = "![Confusion matrix](figures/confusion.png)"
    if len(label_names) > LARGEST_CONFUSION_TABLE:
        return [picture]
    classes = [_text(name) for name in label_names]
    rows = [[actual, *map(str, counts)] for actual, counts in zip(classes, confusion, strict=True)]
    return [
        "How often each class (a row) was taken for which (a column):",
        _table(["", *classes], rows),
        picture,
    ]


def _training(antbee: Mapping[str, Any]) -> list[str]:
    recipe = antbee.get("recipe", {})
    parts = _what_learned(antbee.get("mode"), recipe)
    facts = [
        *_data_facts(antbee.get("data", {})),
        *_weights_facts(antbee.get("weights", {})),
        *_run_facts(antbee),
    ]
    if facts:
        parts.append(_bullets(facts))
    if recipe:
        parts.append(_table(("recipe", "value"), [[_text(name), _text(value)] for name, value in recipe.items()]))
    return ["## How it was trained", *parts, "![A batch of training pictures](figures/batch.png)"] if parts else []


def _what_learned(mode: str | None, recipe: Mapping[str, Any]) -> list[str]:
    # Cached features come from a network that is not training, and whose statistics stand still whatever the recipe.
    adapting = recipe.get("batch_norm") == "adapting" and not recipe.get("cached_features")
    match mode:
        case "finetune":
            return ["Every weight of the network learned, the backbone's as well as the head's."]
        case "frozen" if adapting:
            return [
                "The backbone was frozen: its weights are its starting weights, and only the head learned. The running"
                " statistics of its BatchNorm layers were replaced all the same by those of the training pictures, as"
                f" in the classic [transfer learning tutorial]({TUTORIAL_PAGE})."
            ]
        case "frozen":
            return ["The backbone was frozen: it is byte for byte its starting weights, and only the head learned."]
    return []


def _data_facts(data: Mapping[str, Any]) -> list[str]:
    facts = []
    if "name" in data:
        facts.append(f"Data: {_text(data['name'])}" + (f" ({_text(data['split'])})." if "split" in data else "."))
    for split in ("train", "val"):
        if counts := data.get(split):
            classes = ", ".join(f"{_text(name)} {count}" for name, count in counts.items())
            facts.append(f"{sum(counts.values())} pictures in {split}: {classes}.")
    if "digest" in data:
        facts.append(f"SHA-256 digest of the data: {_text(data['digest'])}.")
    if skipped := data.get("skipped"):
        files = "; ".join(f"{_text(entry['file'])} ({_text(entry['reason'])})" for entry in skipped[:10])
        facts.append(f"{len(skipped)} skipped, could not be used: {files}" + ("; ..." if len(skipped) > 10 else "."))
    return facts


def _weights_facts(weights: Mapping[str, Any]) -> list[str]:
    if "name" not in weights:
        return []
    digest = f", SHA-256 digest {_text(weights['digest'])}" if "digest" in weights else ""
    return [f"Starting weights: {_text(weights['name'])}{digest}."]


def _run_facts(antbee: Mapping[str, Any]) -> list[str]:
    metrics, facts = antbee.get("metrics", {}), []
    if parameters := metrics.get("parameters"):
        facts.append(f"{parameters['total']:,} parameters, of which {parameters['trainable']:,} learned.")
    if "seed" in antbee:
        facts.append(f"Seed: {antbee['seed']}.")
    if "seconds" in metrics:
        facts.append(f"Training took {metrics['seconds']:.0f} seconds.")
    if "version" in antbee:
        facts.append(f"Trained with antbee {_text(antbee['version'])}.")
    return facts


def _usage() -> list[str]:
    return [
        "## How to use it",
        "With antbee:",
        f"""```python
from pathlib import Path

from antbee import Classifier
from antbee.data import open_photo

classifier = Classifier.from_pretrained("{PLACEHOLDER}")
print(classifier.predict([open_photo(Path("photo.jpg"))]))
```""",
        "With timm:",
        f"""```python
import timm
import torch
from PIL import Image, ImageOps

model = timm.create_model("hf-hub:{PLACEHOLDER}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model), is_training=False)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(photo).unsqueeze(0)).softmax(dim=1)
print(model.pretrained_cfg["label_names"], probabilities)
```""",
        "With transformers, which needs timm beside it:",
        f"""```python
from transformers import pipeline

classifier = pipeline("image-classification", model="{PLACEHOLDER}")
print(classifier("photo.jpg"))
```""",
    ]


def _limits(antbee: Mapping[str, Any]) -> list[str]:
    limits = ["A picture of none of the classes still gets the name of one of them."]
    if count := antbee.get("metrics", {}).get("kept", {}).get("count"):
        limits.append(f"It was measured on {count} pictures only: one of them is {100 / count:.1f} percentage points.")
    if antbee.get("weights", {}).get("name") == "imagenet":
        limits.append(
            "The backbone learned from ImageNet, which holds pictures of this kind, perhaps some of the very same:"
            " scores on new photos are likely to be lower."
        )
    if antbee.get("data", {}).get("name") == "hymenoptera_data":
        limits.append("Some of the photos it learned from show something else than their folder's name says.")
    if (temperature := antbee.get("temperature", 1.0)) != 1.0:
        limits.append(
            f"antbee divides the logits by a temperature of {temperature:.3g}; timm and transformers do not, so their"
            " probabilities are others, of the same classes."
        )
    return ["## Limits", _bullets(limits)]


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _text(value: object) -> str:
    """A value from somebody's folder, such as a class name, as Markdown that shows it letter by letter.

    Punctuation becomes character references, which neither Markdown nor HTML takes for markup
    (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references). A comma means nothing to them, nor
    does a hyphen, underscore, slash or full stop between letters, but for the www. that becomes a link: those stay.
    """
    harmless = r",|(?<=[^\W_])(?:[-_/]|(?<![wW])\.)(?=[^\W_])"
    punctuation = r"[!-/:-@\[-`{-~]"
    line = _one_line(str(value), longest=100)
    return re.sub(f"(?!{harmless}){punctuation}", lambda found: f"&#{ord(found[0])};", line)


def _one_line(text: str, longest: int = 200) -> str:
    """Text with runs of white space as one space, and what cannot be printed as an escape.

    That covers terminal codes, letters that turn the reading direction, and the halves of letters that stand for bytes
    in file names that are not UTF-8.
    """
    line = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return printable if len(printable) <= longest else f"{printable[: longest - 3]}..."
