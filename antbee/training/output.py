"""The files of a run: a complete Hub repository for each mode, its figures, and the comparison of the modes."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import antbee
from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.data.origin import hub_origin
from antbee.evaluation import metrics, plots
from antbee.evaluation.report import comparison
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig, DataInfo, Mode
from antbee.models.provenance import WeightsInfo
from antbee.text import counted
from antbee.training.context import RunContext
from antbee.training.history import History
from antbee.training.trainer import shuffled_batches

BATCH_FIGURE = 16  # images in the sample batch grid
MISTAKES_FIGURE = 24  # images at most


def config_of(context: RunContext, mode: Mode, fingerprint: str) -> ClassifierConfig:
    """The config of a model, without its metrics."""
    dataset, weights, names = context.dataset, context.weights, context.dataset.class_names
    counts = {"train": context.train.counts(names), "val": dataset.val.counts(names)}
    if context.selection is not dataset.val:
        counts["holdout"] = context.selection.counts(names)
    if len(dataset.test):
        counts["test"] = dataset.test.counts(names)
    origin = hub_origin(dataset.root)
    return ClassifierConfig(
        architecture=context.backbone,
        label_names=names,
        preprocessing=context.recipe.preprocessing,
        version=antbee.__version__,
        mode=mode,
        recipe=context.recipe.flat(mode),
        data=DataInfo.listing(
            dataset.skipped,
            dataset.excluded,
            name=dataset.name,
            **({} if origin is None else {"hub_id": origin.hub_id, "hub_revision": origin.revision}),
            **counts,
            split=dataset.split,
            digest=dataset.digest,
        ),
        weights=WeightsInfo(**{name: getattr(weights, name) for name in WeightsInfo.model_fields}),
        seed=context.settings.seed,
        run=fingerprint,
    )


def write_model_folder(
    classifier: Classifier,
    folder: Path,
    history: History | None = None,
    figures: Mapping[str, Image.Image] | None = None,
) -> None:
    """Writes a complete Hub repository into `folder`: weights, config and card; history and figures if given."""
    from antbee.hub.card import card_without_figures, model_card

    classifier.save_pretrained(folder)
    if history is not None:
        (folder / "history.json").write_text(json.dumps(history.to_records(), indent=1) + "\n", "utf-8")
    card = card_without_figures if figures is None else model_card
    (folder / "README.md").write_text(card(classifier.config.to_json()), "utf-8")
    if figures is not None:
        (folder / "figures").mkdir()
        for name, figure in figures.items():
            figure.save(folder / "figures" / f"{name}.png")


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def figures_of(
    context: RunContext, classifier: Classifier, val_logits: Tensor, history: History
) -> dict[str, Image.Image]:
    """The figures of a model folder, by name."""
    config = classifier.config
    assert config.metrics is not None
    mode = str(config.mode)
    drawn = {
        "batch": sample_batch(context, mode),
        "curves": plots.learning_curves({mode: history.to_records()}),
        "confusion": plots.confusion_matrix(config.metrics.confusion, config.label_names),
        "photos": plots.accuracy_by_photos([point.model_dump() for point in config.metrics.learning_curve or []]),
    }
    confidence, predicted = val_logits.softmax(1).max(1)
    wrong = predicted != torch.tensor(context.dataset.val.labels)
    surest = [position for position in confidence.argsort(descending=True).tolist() if wrong[position]]
    if surest:
        drawn["mistakes"] = predictions_grid(context, surest[:MISTAKES_FIGURE], {mode: val_logits})
    return drawn


def sample_batch(context: RunContext, mode: str) -> Image.Image:
    """A grid of augmented training images of a mode, at full size, with class names."""
    recipe, seed = context.recipe, context.settings.seed
    augmentation = recipe.augmentation(mode)
    if augmentation is not None:
        augmentation = replace(augmentation, sizes=(recipe.preprocessing.crop,))
    options = LoaderOptions(cache=context.cache)
    loader = ImageLoader(context.train, recipe.preprocessing, augmentation, seed=seed, options=options)
    ((images, labels),) = loader.batches(shuffled_batches(len(loader), BATCH_FIGURE, seed, 1)[:1], epoch=1)
    titles = [context.dataset.class_names[label] for label in labels]
    tiles = map(plots.Tile, recipe.preprocessing.unnormalise(images), titles)
    return plots.grid(list(tiles))


def predictions_grid(context: RunContext, positions: Sequence[int], logits: Mapping[str, Tensor]) -> Image.Image:
    """A grid of validation images with their class and each mode's prediction; `logits` (N, classes) by mode."""
    preprocessing, names = context.recipe.preprocessing, context.dataset.class_names
    loader = ImageLoader(context.dataset.val, preprocessing, options=LoaderOptions(cache=context.cache))
    ((images, labels),) = loader.batches([torch.tensor(positions)])
    tiles = []
    for image, label, position in zip(preprocessing.unnormalise(images), labels, positions, strict=True):
        lines = [f"is: {names[label]}"]
        for mode, rows in logits.items():
            probabilities = rows[position].softmax(0)
            prefix = f"{mode}: " if len(logits) > 1 else ""
            lines.append(f"{prefix}{names[int(probabilities.argmax())]} {float(probabilities.max()):.0%}")
        tiles.append(plots.Tile(image, "\n".join(lines)))
    return plots.grid(tiles, columns=6)


# ---------------------------------------------------------------------------------------------------------------------
# How the modes compare


def write_comparison(
    context: RunContext, folders: Mapping[str, Path], configs: Sequence[ClassifierConfig], logits: Mapping[str, Tensor]
) -> None:
    """Adds the comparison of the modes to their model folders; a card that was edited is not overwritten."""
    from antbee.hub.card import model_card, without_comparison

    rows = comparison(configs)
    sentence = difference_sentence(context, logits)
    first, *others = (rows.argmax(1) for rows in logits.values())
    apart = [position for other in others for position in (first != other).nonzero()[:, 0].tolist()]
    for config in configs:
        folder = folders[str(config.mode)]
        differences = folder / "figures" / "differences.png"
        if apart and not differences.exists():  # it exists where no mode was trained again
            predictions_grid(context, apart[:MISTAKES_FIGURE], logits).save(differences)
        path = folder / "README.md"
        written = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        card = model_card(config.to_json(), rows, sentence)
        if written != card and without_comparison(written) == without_comparison(card):
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            temporary.write_text(card, "utf-8")
            temporary.replace(path)


def difference_sentence(context: RunContext, logits: Mapping[str, Tensor]) -> str:
    """Whether the modes differ by more than chance, by McNemar's test; empty for a single mode."""
    if len(logits) < 2:
        return ""
    labels = torch.tensor(context.dataset.val.labels)
    found = metrics.difference(*(rows.argmax(1) == labels for rows in logits.values()))
    one, other = logits
    verdict = "a difference that chance hardly explains" if found.is_significant else "no more than chance explains"
    chosen = " Each answers with the epoch that is best on these photos." if context.settings.select == "val" else ""
    return (
        f"Of {counted(found.count, 'validation photo')}, {found.first_alone} were right with {one} alone and "
        f"{found.second_alone} with {other} alone: {verdict} (McNemar's exact test, p = {found.p:.2g}).{chosen}"
    )
