"""Cards: what a repository says of itself to whoever finds it, as README.md with the Hub's front matter.

All of a model's card is filled from its config.json, so that it says nothing that was not measured.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Stands in a card for the repository's name, which is only known when the model is pushed.
PLACEHOLDER = "your-name/model-name"

# What a model may be passed on under, by its starting weights; of weights from a file nobody here knows it.
LICENCES = {"imagenet": "bsd-3-clause", "random": "mit"}

TUTORIAL_PAGE = "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html"

# The environment variable that tells the page, where it is a Space, which models of the Hub to show: ids with spaces.
MODELS_VARIABLE = "ANTBEE_MODELS"

# What a Space runs with: Spaces start with Python 3.10, which is too old, unless they are told otherwise.
SPACE_GRADIO, SPACE_PYTHON = "6.31.0", "3.12"

# A confusion matrix of more classes is too wide for a table: the picture shows it.
LARGEST_CONFUSION_TABLE = 10


def space_card(repo_id: str, model_ids: Sequence[str]) -> str:
    """The README.md of a Space that shows models of the Hub.

    Front matter as https://huggingface.co/docs/hub/spaces-config-reference describes it.
    """
    from huggingface_hub import SpaceCardData

    metadata = SpaceCardData(
        title=one_line(repo_id.partition("/")[2], longest=60),
        emoji="\N{ANT}",
        colorFrom="yellow",
        colorTo="gray",
        sdk="gradio",
        sdk_version=SPACE_GRADIO,
        python_version=SPACE_PYTHON,
        app_file="app.py",
        license="mit",
        models=list(model_ids),
        hf_oauth=True,  # visitors may push what they taught under their own name
        hf_oauth_scopes=["manage-repos"],
        tags=["antbee", "image-classification"],
        short_description="An image classifier, shown in both modes of training",
    )
    links = _bullets([f"[{model_id}](https://huggingface.co/{model_id})" for model_id in model_ids])
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n"
        "The page of antbee: drop a photo, and see what the models answer and which places in the photo speak for it."
        f" It shows\n\n{links}\n\nTo show other models, change the variable {MODELS_VARIABLE} in this Space's settings:"
        " ids of model repositories, with a space in between.\n"
    )


def model_card(config: Mapping[str, Any], comparison: Sequence[Sequence[str]] = (), modes_differ: str = "") -> str:
    """The text of README.md, filled from the content of config.json.

    `comparison` is a table of what the modes of one run came to: its head, then a row for each mode; `modes_differ`
    says whether by more than chance. Front matter as
    https://huggingface.co/docs/hub/model-cards describes it. Everything under "antbee" may be missing or None; the card
    then leaves out what it cannot tell.
    """
    antbee = _known(config.get("antbee", {}))
    parts = [
        f"---\n{_front_matter(config['architecture'], antbee)}\n---",
        *_notices(antbee),
        *_introduction(config["architecture"], config["label_names"], antbee.get("mode")),
        *_results(antbee, config["label_names"]),
        *_calibration(antbee),
        *_neither(antbee),
        *_comparison(comparison, modes_differ),
        *_enough_data(antbee),
        *_data(antbee),
        *_training(antbee),
        *_usage(),
        *_limits(antbee),
    ]
    return "\n\n".join(parts) + "\n"


def _known(value: Any, depth: int = 4) -> Any:
    """A part of the config without what is None in it; nothing that a card tells lies deeper than `depth`."""
    if not isinstance(value, Mapping) or depth == 0:
        return value
    return {key: _known(item, depth - 1) for key, item in value.items() if item is not None}


def _front_matter(architecture: str, antbee: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    weights, results = antbee.get("weights", {}), _evaluation_results(antbee)
    metadata = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["antbee", "timm", "transformers", "image-classification"],
        license=LICENCES.get(weights.get("name")),
        base_model=weights.get("base_model") if weights.get("name") == "imagenet" else None,
        metrics=["accuracy"] if results else None,
        model_name=one_line(f"antbee {architecture} {antbee.get('mode', '')}") if results else None,
        eval_results=results,
    )
    return metadata.to_yaml()


def _evaluation_results(antbee: Mapping[str, Any]) -> "list[EvalResult] | None":
    """The accuracies for the Hub's own display of results, with all that says how far to trust them."""
    from huggingface_hub import EvalResult

    metrics, data = antbee.get("metrics", {}), antbee.get("data", {})
    chosen_on, folds = metrics.get("selected_on"), metrics.get("cross_validation")
    how = {"kept": "Accuracy, kept epoch", "last": "Accuracy, last epoch, not chosen"}
    if folds:
        how = {"kept": f"Accuracy, {folds}-fold cross-validation"}
    elif chosen_on == "nothing":  # both are one epoch
        how = {"last": how["last"]}
    elif chosen_on:
        how["kept"] = f"Accuracy, best epoch as chosen on {one_line(chosen_on)}"
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=one_line(data.get("name", "own photos")),
            dataset_split="train" if folds else "val",
            dataset_revision=data.get("digest"),
            metric_type="accuracy",
            metric_name=words,
            metric_value=metrics[name]["accuracy"],
            metric_args=_how_measured(metrics[name]),
        )
        for name, words in how.items()
        if "accuracy" in metrics.get(name, {})
    ] or None


def _how_measured(epoch: Mapping[str, Any]) -> dict[str, Any]:
    known = {"n": epoch.get("count"), "interval_95_wilson": epoch.get("interval"), "epoch": epoch.get("epoch")}
    return {key: list(value) if key.startswith("interval") else value for key, value in known.items() if value}


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


def _introduction(architecture: str, label_names: Sequence[str], mode: str | None) -> list[str]:
    classes = [as_text(name) for name in label_names]
    does = "learned by transfer learning to tell" if mode else "tells"
    title = " or ".join(classes) if len(classes) <= 5 else f"{len(classes)} classes"
    return [
        f"# {title}: an image classifier",
        f"A {as_text(architecture)} that {does} the pictures of {len(classes)} classes apart.",
        f"It predicts: {', '.join(classes)}.",
    ]


def _results(antbee: Mapping[str, Any], label_names: Sequence[str]) -> list[str]:
    metrics = antbee.get("metrics", {})
    rows = [_result_row(words, metrics[words]) for words in ("kept", "last") if "accuracy" in metrics.get(words, {})]
    if not rows:
        return []
    parts = ["## Results", _table(("epoch", "accuracy", "right", "95 % interval (Wilson)", "loss"), rows)]
    parts += _measured_on(metrics)
    parts += _other_scores(metrics)
    start = antbee.get("weights", {}).get("name")
    if start not in (None, *LICENCES):
        parts.append(f"The accuracy is that of a start from {as_text(start)}: from other weights it is another.")
    parts += _classes(metrics, label_names)
    if "confusion" in metrics:
        parts += _confusion(metrics["confusion"], label_names)
    return [*parts, "![Loss and accuracy by epoch](figures/curves.png)"]


def _measured_on(metrics: Mapping[str, Any]) -> list[str]:
    """Of which pictures the figures are, and what those decided."""
    if folds := metrics.get("cross_validation"):
        return [
            f"**Cross-validated on the pictures it learned from; there were no val pictures.** They were divided into"
            f" {folds} parts, and each part was answered by a head that learned from the other parts alone. This"
            " model's own head learned from all of them, so that no picture is left to measure it with."
        ]
    match metrics.get("selected_on"):
        case "val":
            return [
                "The kept epoch was chosen on the same val pictures that it is scored on here, so its figure is"
                " optimistic; the last epoch was not chosen."
            ]
        case "nothing":
            return ["The last epoch was kept without looking: the val pictures decided nothing."]
        case str(elsewhere):
            return [
                f"The kept epoch was chosen on {as_text(elsewhere)} taken from the training pictures; the val pictures"
                " were looked at once."
            ]
    return []


def _other_scores(metrics: Mapping[str, Any]) -> list[str]:
    """What puts the accuracy into proportion."""
    facts = []
    if zero_shot := metrics.get("zero_shot"):
        facts.append(
            f"Before any training: the starting weights' own head, asked for these classes alone, has"
            f" {_of(zero_shot)} right."
        )
    if cleaned := metrics.get("cleaned"):
        facts.append(f"Without the pictures that were excluded as wrong: {_of(cleaned)} right.")
    if seeds := metrics.get("seeds"):
        low, high = seeds["kept"]["interval"]
        facts.append(
            f"Repeated with {len(seeds['kept']['values'])} seeds, on these same pictures:"
            f" {_percent(seeds['kept']['mean'])} on average (standard deviation"
            f" {100 * seeds['kept']['deviation']:.1f} points, 95 % interval of the mean {_percent(max(0, low))} to"
            f" {_percent(min(1, high))}). For new pictures the wider interval above stands."
        )
    if "auc" in metrics:
        facts.append(f"Area under the ROC curve: {metrics['auc']:.3f}.")
    return [_bullets(facts)] if facts else []


def _of(result: Mapping[str, Any]) -> str:
    low, high = result["interval"]
    return (
        f"{_percent(result['accuracy'])} ({result['correct']} of {result['count']}, 95 % interval {_percent(low)} to"
        f" {_percent(high)})"
    )


def _classes(metrics: Mapping[str, Any], label_names: Sequence[str]) -> list[str]:
    """Precision, recall and F1 of each class, and on average."""
    if not {"per_class", "macro"} <= metrics.keys():
        return []
    scores = list(zip(map(as_text, label_names), metrics["per_class"], strict=True))
    shown = scores if len(scores) <= LARGEST_CONFUSION_TABLE else []
    rows = [
        [name, *(f"{score[key]:.3f}" for key in ("precision", "recall", "f1"))]
        for name, score in [*shown, ("mean of all classes (macro)", metrics["macro"])]
    ]
    return [_table(("class", "precision", "recall", "F1"), rows)]


def _calibration(antbee: Mapping[str, Any]) -> list[str]:
    metrics = antbee.get("metrics", {})
    calibration = metrics.get("calibration")
    if not calibration or "loss" not in metrics["kept"] or "calibration_error" not in metrics:
        return []
    measured = "On the val pictures, which had no part in it:"
    if metrics.get("cross_validation"):
        measured = "On each of these parts, with the temperature of the others:"
    return [
        "## Whether 80 % means 80 %",
        f"The head's weights are divided by a temperature of {calibration['temperature']:.2f}, fitted to"
        f" {calibration['folds']} parts of the training pictures, each answered by a training on the others"
        " ([Guo et al. 2017](https://arxiv.org/abs/1706.04599)). So every program that loads the model gives these"
        f" probabilities. {measured}",
        _table(
            ("", "negative log-likelihood", "expected calibration error"),
            [
                ["before", f"{calibration['loss_before']:.3f}", f"{calibration['error_before']:.3f}"],
                ["after", f"{metrics['kept']['loss']:.3f}", f"{metrics['calibration_error']:.3f}"],
            ],
        ),
    ]


def _neither(antbee: Mapping[str, Any]) -> list[str]:
    metrics = antbee.get("metrics", {})
    if not (neither := metrics.get("neither")):
        return []

    def found(result: Mapping[str, Any]) -> str:
        return f"{result['found']} of {result['count']}"

    facts = [f"Wrongly of {found(neither['val'])} val pictures."] if "val" in neither else []
    facts += [f"Rightly of {found(result)} pictures of {as_text(kind)}." for kind, result in neither["foreign"].items()]
    if left_out := neither.get("left_out"):
        whose = "pictures learned from" if metrics.get("cross_validation") else "val pictures"
        facts.append(
            f"Of {found(left_out)} {whose}, each asked where no picture of its own class was known: this is how"
            " well a kind is recognised as foreign that is close to what was learned."
        )
    return [
        "## Neither",
        "With antbee the answer is *neither* where a picture's features are farther than"
        f" {neither['threshold']:.3f} from those of the pictures it learned from: the distance to the k-th nearest"
        " ([Sun et al. 2022](https://arxiv.org/abs/2204.06507)), set so that it happens to about"
        f" {neither['rate']:.0%} of pictures like those." + (" It was said" if facts else ""),
        *([_bullets(facts)] if facts else []),
        "timm, transformers and torchvision know nothing of it: they always name a class.",
    ]


def _enough_data(antbee: Mapping[str, Any]) -> list[str]:
    metrics = antbee.get("metrics", {})
    if "enough_data" not in metrics:
        return []
    return [
        "## Would more pictures help?",
        as_text(metrics["enough_data"], longest=500),
        "![Accuracy by number of pictures](figures/photos.png)",
    ]


def _result_row(words: str, epoch: Mapping[str, Any]) -> list[str]:
    right = f"{epoch['correct']} of {epoch['count']}" if {"correct", "count"} <= epoch.keys() else "unknown"
    interval = " to ".join(map(_percent, epoch["interval"])) if "interval" in epoch else "unknown"
    loss = f"{epoch['loss']:.3f}" if "loss" in epoch else ""
    return [f"{words} ({epoch.get('epoch', 'unknown')})", _percent(epoch["accuracy"]), right, interval, loss]


def _confusion(confusion: Sequence[Sequence[int]], label_names: Sequence[str]) -> list[str]:
    picture = "![Confusion matrix](figures/confusion.png)"
    if len(label_names) > LARGEST_CONFUSION_TABLE:
        return [picture]
    classes = [as_text(name) for name in label_names]
    rows = [[actual, *map(str, counts)] for actual, counts in zip(classes, confusion, strict=True)]
    return [
        "How often each class (a row) was taken for which (a column):",
        _table(["", *classes], rows),
        picture,
    ]


COMPARISON_TITLE = "## Both modes of the run compared"


def without_comparison(card: str) -> str:
    """The card as it was before it was known how the modes of its run compare."""
    return re.sub(rf"^{COMPARISON_TITLE}\n.*?(?=^## )", "", card, flags=re.MULTILINE | re.DOTALL)


def without_figures(card: str) -> str:
    """The card without the pictures of its repository, for where those are not."""
    return re.sub(r"^!\[[^\]]*\]\(figures/[^)]*\)\n*", "", card, flags=re.MULTILINE)


def _comparison(table: Sequence[Sequence[str]], modes_differ: str) -> list[str]:
    if len(table) < 3:  # a head and one mode: nothing to compare
        return []
    head, *rows = table
    return [
        COMPARISON_TITLE,
        f"Of the same photos, starting weights and seed. *frozen* taught the head alone, *finetune* every weight."
        f" {modes_differ}".rstrip(),
        _table([as_text(cell) for cell in head], [[as_text(cell) for cell in row] for row in rows]),
    ]


TAUGHT_DATA = "photos chosen in the page"  # the name of what a classifier of one's own was taught with

# What is known of a data set by its name; of a folder of somebody's own only the counts are known.
ABOUT_DATA = {
    "hymenoptera_data": "Photos of ants and of bees from the web, the set of PyTorch's"
    f" [transfer learning tutorial]({TUTORIAL_PAGE}), which calls it a very small subset of ImageNet. It is no survey"
    " of species: it holds close-ups, swarms, flowers with an insect somewhere, a few other insects and a scene from"
    " a game, and photos of one session lie on both sides of the split. The photographers' licences are not known, so"
    " no photo is part of this repository but the small ones in its sample grid.",
    "drawn": "Pictures of ants and bees that a program drew, every one from its number. They are not photos, and what a"
    " network learns from them does not carry over to photos.",
    TAUGHT_DATA: "Photos that somebody chose in antbee's page, of which no more was kept than what is listed here and"
    " their features. Whoever publishes this model should add where the photos come from, who may use them, and whom or"
    " what they leave out.",
}
OWN_DATA = (
    "A folder of the trainer's own, of which the program knows what is listed here and no more. Whoever publishes this"
    " model should add where the photos come from, who may use them, and whom or what they leave out."
)


def _data(antbee: Mapping[str, Any]) -> list[str]:
    data = antbee.get("data", {})
    if not (facts := _data_facts(data)):
        return []
    about = ABOUT_DATA.get(data.get("name"), OWN_DATA)
    return ["## What it learned from", about, _bullets(facts), "![A batch of training pictures](figures/batch.png)"]


def _training(antbee: Mapping[str, Any]) -> list[str]:
    recipe = antbee.get("recipe", {})
    parts = _what_learned(antbee.get("mode"), recipe)
    facts = [*_weights_facts(antbee.get("weights", {})), *_run_facts(antbee)]
    if facts:
        parts.append(_bullets(facts))
    if recipe:
        parts.append(_table(("recipe", "value"), [[as_text(name), as_text(value)] for name, value in recipe.items()]))
    return ["## How it was trained", *parts] if parts else []


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
        facts.append(f"Data: {as_text(data['name'])}" + (f" ({as_text(data['split'])})." if "split" in data else "."))
    for split in ("train", "holdout", "val"):
        if counts := data.get(split):
            classes = ", ".join(f"{as_text(name)} {count}" for name, count in counts.items())
            facts.append(f"{sum(counts.values())} pictures in {split}: {classes}.")
    if "digest" in data:
        facts.append(f"SHA-256 digest of the data: {as_text(data['digest'])}.")
    if excluded := data.get("excluded"):
        files = "; ".join(map(as_text, excluded[:10]))
        facts.append(
            f"{len(excluded)} excluded, neither learned from nor in the score without them: {files}"
            + ("; ..." if len(excluded) > 10 else ".")
        )
    if skipped := data.get("skipped"):
        files = "; ".join(f"{as_text(entry['file'])} ({as_text(entry['reason'])})" for entry in skipped[:10])
        facts.append(f"{len(skipped)} skipped, could not be used: {files}" + ("; ..." if len(skipped) > 10 else "."))
    return facts


def _weights_facts(weights: Mapping[str, Any]) -> list[str]:
    if "name" not in weights:
        return []
    digest = f", SHA-256 digest {as_text(weights['digest'])}" if "digest" in weights else ""
    return [f"Starting weights: {as_text(weights['name'])}{digest}."]


def _run_facts(antbee: Mapping[str, Any]) -> list[str]:
    metrics, facts = antbee.get("metrics", {}), []
    if parameters := metrics.get("parameters"):
        facts.append(f"{parameters['total']:,} parameters, of which {parameters['trainable']:,} learned.")
    if "seed" in antbee:
        facts.append(f"Seed: {antbee['seed']}.")
    if "seconds" in metrics:
        facts.append(f"Training took {metrics['seconds']:.0f} seconds.")
    if "version" in antbee:
        facts.append(f"Trained with antbee {as_text(antbee['version'])}.")
    return facts


def _usage() -> list[str]:
    return [
        "## How to use it",
        "With antbee:",
        f"""```python
from pathlib import Path

from antbee import Classifier
from antbee.images import open_photo

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
    limits = ["A picture of none of the classes often gets the name of one of them."]
    if count := antbee.get("metrics", {}).get("kept", {}).get("count"):
        limits.append(
            f"It was measured on {count} pictures only: one of them is {100 / count:.1f} percentage points, and the"
            " interval beside the accuracy says how far chance alone reaches."
        )
    if antbee.get("metrics", {}).get("cross_validation"):
        limits.append(
            "It was measured on the same few pictures that it learned from, though each by a head that had not seen it:"
            " pictures of one occasion resemble each other, so fewer are likely to be right of pictures from elsewhere."
        )
    if antbee.get("weights", {}).get("name") == "imagenet":
        limits.append(
            "The backbone learned from ImageNet, which holds pictures of this kind, perhaps some of the very same:"
            " scores on new photos are likely to be lower."
        )
    if antbee.get("data", {}).get("name") == "hymenoptera_data":
        limits.append(
            "Some photos show something else than their folder's name says, in training (a spider that looks like an"
            " ant, hover flies among the bees) and in validation (a game's screenshot): a score of 100 % would repeat"
            " those mistakes."
        )
    return ["## Limits", _bullets(limits)]


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def as_text(value: object, longest: int = 100) -> str:
    """A value from somebody's folder, such as a class name, as Markdown that shows it letter by letter.

    Punctuation becomes character references, which neither Markdown nor HTML takes for markup
    (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references). A comma or % means nothing to them,
    nor does a hyphen, underscore, slash or full stop between letters, but for the www. that becomes a link: those stay.
    """
    harmless = r"[,%]|(?<=[^\W_])(?:[-_/]|(?<![wW])\.)(?=[^\W_])"
    punctuation = r"[!-/:-@\[-`{-~]"
    line = one_line(str(value), longest=longest)
    return re.sub(f"(?!{harmless}){punctuation}", lambda found: f"&#{ord(found[0])};", line)


def one_line(text: str, longest: int = 200) -> str:
    """Text with runs of white space as one space, and what cannot be printed as an escape.

    That covers terminal codes, letters that turn the reading direction, and the halves of letters that stand for bytes
    in file names that are not UTF-8.
    """
    line = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return printable if len(printable) <= longest else f"{printable[: longest - 3]}..."
