"""The model card: README.md of a model repository, with the Hub's front matter. Its prose stands in card.md.jinja.

All of it is filled from config.json, so that a card says nothing that was not measured. Front matter as
https://huggingface.co/docs/hub/model-cards describes it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antbee.evaluation.report import has_false_alarms
from antbee.text import as_text, one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData


TEMPLATE = Path(__file__).with_name("card.md.jinja")

# Stands in a card for the repository's name, which is only known when the model is pushed.
PLACEHOLDER = "your-name/model-name"

# The license of a model by its starting weights; for weights from a file it is unknown.
LICENSES = {"imagenet": "bsd-3-clause", "random": "mit"}

# The name of the data that a model was trained on in the page.
FEW_SHOT_DATA = "photos chosen in the page"

# A table of more classes is too wide: the figure shows them.
LARGEST_TABLE = 10

COMPARISON_TITLE = "## Both modes compared"


def model_card(config: Mapping[str, Any], comparison: Sequence[Sequence[str]] = (), modes_differ: str = "") -> str:
    """The text of README.md, filled from the content of config.json.

    `comparison` is a table of the results of one run's modes: its head, then a row for each mode; `modes_differ` says
    whether they differ by more than chance. Everything under "antbee" may be missing or None; the card then leaves out
    what it does not know.
    """
    return str(_card(config, comparison=comparison, modes_differ=modes_differ, figures=True))


def card_without_figures(config: Mapping[str, Any]) -> str:
    """The same for a folder without figures."""
    return str(_card(config, figures=False))


def page_text(config: Mapping[str, Any], repo_id: str = PLACEHOLDER) -> str:
    """The same as the page shows it, without front matter and figures, for the repository `repo_id`."""
    return _card(config, figures=False, repo_id=repo_id).text


def without_comparison(card: str) -> str:
    """A card without what depends on the other mode of its run."""
    return re.sub(rf"^{COMPARISON_TITLE}\n.*?(?=^## )", "", card, flags=re.MULTILINE | re.DOTALL)


def _card(
    config: Mapping[str, Any],
    *,
    figures: bool,
    comparison: Sequence[Sequence[str]] = (),
    modes_differ: str = "",
    repo_id: str = PLACEHOLDER,
) -> "ModelCard":
    from huggingface_hub import ModelCard

    known = _known(config)
    rendered = ModelCard.from_template(
        _front_matter(known),
        template_str=TEMPLATE.read_text("utf-8"),
        **known,
        classes=[as_text(name) for name in known["label_names"]],
        # A head and one row are one mode: nothing to compare.
        comparison=[[as_text(cell) for cell in row] for row in comparison] if len(comparison) > 2 else (),
        comparison_title=COMPARISON_TITLE,
        modes_differ=modes_differ,
        figures=figures,
        repo_id=repo_id,
        licenses=LICENSES,
        few_shot_data=FEW_SHOT_DATA,
        largest_table=LARGEST_TABLE,
        false_alarms=has_false_alarms(known["metrics"].get("neither") or {}),
        text=as_text,
    )
    # Parts that are left out leave blank lines.
    rendered.text = "\n" + re.sub(r"\n{3,}", "\n\n", rendered.text).strip() + "\n"
    return rendered


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a card is filled from, by its names in config.json; what is None or missing there is missing here."""
    own = _without_none(config.get("antbee") or {})
    return {
        "architecture": config["architecture"],
        "label_names": config["label_names"],
        "crop_mode": (config.get("pretrained_cfg") or {}).get("crop_mode"),
        "origin": _origin(own.get("weights", {})),
        **{key: own[key] for key in ("version", "mode", "seed") if key in own},
        **{key: own.get(key, {}) for key in ("metrics", "data", "weights", "recipe")},
    }


def _origin(weights: Mapping[str, Any]) -> str | None:
    """The name of the weights that a chain of models began with."""
    name: str | None = [weights, *weights.get("earlier", ())][-1].get("name")
    return name


def _license(weights: Mapping[str, Any]) -> str | None:
    """The license of a model by its starting weights; None where a model of the Hub is among them, with its own."""
    names = [one.get("name") for one in (weights, *weights.get("earlier", ()))]
    if weights.get("license") or weights.get("base_model") in names:
        return weights.get("license")
    return LICENSES.get(_origin(weights) or "")


def _without_none(value: Any, depth: int = 4) -> Any:
    """Mappings without their None values; nothing that a card says lies deeper than `depth`."""
    if not isinstance(value, Mapping) or depth == 0:
        return value
    return {key: _without_none(item, depth - 1) for key, item in value.items() if item is not None}


def _front_matter(known: Mapping[str, Any]) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    weights, results = known["weights"], _evaluation_results(known)
    return ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["antbee", "timm", "transformers", "image-classification"],
        license=_license(weights),
        base_model=weights.get("base_model"),
        datasets=[hub_id] if (hub_id := known["data"].get("hub_id")) else None,
        metrics=["accuracy"] if results else None,
        model_name=one_line(f"antbee {known['architecture']} {known.get('mode', '')}") if results else None,
        eval_results=results,
    )


def _evaluation_results(known: Mapping[str, Any]) -> "list[EvalResult] | None":
    """The accuracies for the Hub's own display of results, with what says how far to trust them."""
    from huggingface_hub import EvalResult

    metrics, data = known["metrics"], known["data"]
    hub_id = data.get("hub_id")
    is_own_split = str(data.get("split", "")).endswith("/ folder")  # not drawn from the training photos
    val = ("validation" if is_own_split else "train") if hub_id else "val"
    if metrics.get("cross_validation"):
        val = "train"
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=hub_id or "imagefolder",
            dataset_name=hub_id or one_line(data.get("name", "own photos")),
            dataset_split="test" if score == "test" else val,
            dataset_revision=data.get("hub_revision") if hub_id else data.get("digest"),
            metric_type="accuracy",
            metric_name=name,
            metric_value=metrics[score]["accuracy"],
            metric_args=_metric_args(metrics[score]),
        )
        for score, name in ({"test": "Accuracy on test photos"} | _accuracy_names(metrics)).items()
        if "accuracy" in metrics.get(score, {})
    ] or None


def _accuracy_names(metrics: Mapping[str, Any]) -> dict[str, str]:
    last = {"last": "Accuracy, last epoch, not selected"}
    if folds := metrics.get("cross_validation"):
        return {"kept": f"Accuracy, {folds}-fold cross-validation"}
    match metrics.get("selected_on"):
        case "nothing":  # both are one epoch
            return last
        case None:
            return {"kept": "Accuracy, kept epoch", **last}
        case split:
            return {"kept": f"Accuracy, best epoch as selected on {one_line(split)}", **last}


def _metric_args(epoch: Mapping[str, Any]) -> dict[str, Any]:
    names = {"count": "n", "interval": "interval_95_wilson", "epoch": "epoch"}
    return {
        name: list(epoch[key]) if key == "interval" else epoch[key] for key, name in names.items() if epoch.get(key)
    }
