"""The page: one function a tab. Handlers take and return plain data; the layout has no logic.

Gradio is imported here alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import pandas
import torch
from PIL import Image
from torch import Tensor

from antbee import cards, figures
from antbee.cards import as_text, one_line
from antbee.classifier import (
    COMPARISON_COLUMNS,
    Classifier,
    ClassifierConfig,
    Neighbour,
    Prediction,
    comparison,
    find_folder,
    read_history,
)
from antbee.data import PhotoFolder, Photos, seeded_generator
from antbee.images import Augmentation, DataError, open_photo
from antbee.installation import spoken
from antbee.training import FAST

# Told apart with every kind of colour vision; of each model, validation and training.
CURVE_COLOURS = (("#009e73", "#8fd3bf"), ("#7b4fb3", "#c3aee0"), ("#d55e00", "#f0b48c"), ("#0072b2", "#8cbfdf"))
LARGEST_SEED = 999_999  # what the browser sends must fit into the numbers it is sent back in
NEIGHBOURS = 4  # training photos shown beside each answer
NEIGHBOUR_SIDE = 160  # pixels
LARGEST_BATCH = 32  # photos; each model predicts them all when a batch is drawn
MODE_SENTENCES = {
    "frozen": "frozen: only the head learned",
    "finetune": "finetune: every weight learned",
}
STYLE = """
.notice { border-left: 0.4rem solid #d55e00; padding: 0.4rem 1rem; background: var(--background-fill-secondary); }
.notice .notice { border: 0; padding: 0; } /* Gradio gives the class to the block and to the text in it */
"""


# ---------------------------------------------------------------------------------------------------------------------
# What the page shows


@dataclass(frozen=True)
class Shown:
    """One model of the page, with all that its folder tells."""

    name: str
    classifier: Classifier
    history: tuple[dict[str, float], ...]  # see training.History.to_records
    card: str  # Markdown, without front matter and pictures

    @property
    def config(self) -> ClassifierConfig:
        """What config.json says."""
        return self.classifier.config


def load_models(sources: Sequence[str | Path], *, device: str = "auto") -> tuple[Shown, ...]:
    """The models in folders or Hub repositories, under names that tell them apart.

    Raises what `Classifier.from_pretrained` raises.
    """
    folders = [find_folder(source) for source in sources]
    classifiers = [Classifier.from_pretrained(folder, device=device) for folder in folders]
    names = _names([classifier.config.mode for classifier in classifiers], sources)
    # Where somebody else trained a model, a history.json would be one of their own kind.
    histories = [
        read_history(folder) if classifier.config.mode else ()
        for folder, classifier in zip(folders, classifiers, strict=True)
    ]
    written = [_card(classifier.config, source) for classifier, source in zip(classifiers, sources, strict=True)]
    return tuple(map(Shown, names, classifiers, histories, written))


def _names(modes: Sequence[str | None], sources: Sequence[str | Path]) -> list[str]:
    """What visitors know the models by: the mode where it tells them apart, else the Hub id or the folder's name.

    Never the whole path of a folder, which is nobody's business but its owner's.
    """
    paths = [Path(source).resolve() if Path(source).is_dir() else Path(source) for source in sources]
    folders = [one_line("/".join(path.parts[-2:])) for path in paths]
    names = [mode or folder for mode, folder in zip(modes, folders, strict=True)]
    names = names if len(set(names)) == len(names) else folders
    return [
        name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def of_classes(models: Sequence[Shown], photos: PhotoFolder) -> list[Shown]:
    """The models that know the photos' classes, in whatever order."""
    return [shown for shown in models if set(shown.config.label_names) == set(photos.class_names)]


def _card(config: ClassifierConfig, source: str | Path) -> str:
    """The model's card, written anew from its config: nothing but weights and JSON is downloaded of a model."""
    card = cards.model_card(config.to_json())
    if not Path(source).is_dir():
        card = card.replace(cards.PLACEHOLDER, str(source))
    without_front_matter = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    # The card's pictures are files of its repository; the page shows the same figures by itself.
    return re.sub(r"^!\[[^\]]*\]\(figures/[^)]*\)\n*", "", without_front_matter, flags=re.MULTILINE)


def notices(models: Sequence[Shown]) -> list[str]:
    """What a visitor has to know before believing a prediction."""
    said = []
    if drawn := [as_text(shown.name) for shown in models if shown.config.data.get("name") == "drawn"]:
        said.append(f"**Drawn pictures.** {' and '.join(drawn)} learned from pictures that a program drew, not photos.")
    if random := [as_text(shown.name) for shown in models if shown.config.weights.get("name") == "random"]:
        said.append(f"**Random weights.** {' and '.join(random)} started knowing nothing, so expect poor answers.")
    return said


# ---------------------------------------------------------------------------------------------------------------------
# The page and its tabs


def build_page(models: Sequence[Shown], photos: PhotoFolder | None) -> gr.Blocks:
    """The whole page. `photos` gives the examples and the batches; without them both are left out."""
    with gr.Blocks(title="antbee", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# antbee\nTwo folders of photos in, an image classifier out: transfer learning, both classic ways."
        )
        for notice in notices(models):
            gr.Markdown(notice, elem_classes="notice")
        with gr.Tab("Classify"):
            classify_tab(models, photos, page)
        with gr.Tab("Batches"):
            batches_tab(models, photos, page)
        with gr.Tab("Report"):
            report_tab(models)
    return page


def launch(page: gr.Blocks, *, host: str | None, port: int | None, share: bool) -> list[str]:
    """Serves the page in the background and gives its addresses; `page.block_thread()` waits until it is stopped.

    Raises OSError where the port is taken.
    """
    page.queue(max_size=32)  # visitors beyond it are told to try again
    _, local, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        theme=gr.themes.Default(primary_hue="amber", secondary_hue="blue"),
        css=STYLE,
        max_file_size="20mb",
        footer_links=["api", "settings"],
        run_history=False,  # photos are not kept in the visitor's browser
        enable_monitoring=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    return [address for address in (local, public) if address]


def how_to_train() -> str:
    """What stands where a model would be shown."""
    return f"""
### No model yet
Train both modes, then start this page again:
```
{spoken("train")}
{spoken("app")}
```
"""


def classify_tab(models: Sequence[Shown], photos: PhotoFolder | None, page: gr.Blocks) -> None:
    """One photo in; what every model answers, and where in the photo that comes from."""
    if not models:
        gr.Markdown(how_to_train())
        return
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            # format: what the page itself puts here stays the same to the pixel
            photo = gr.Image(label="Photo", sources=["upload", "webcam", "clipboard"], height=320, format="png")
            if photos is not None:
                examples = example_paths(photos)
                gr.Examples([[str(path)] for path in examples], photo, label="Examples", cache_examples=False)
                # A first answer says more than an empty form.
                page.load(lambda: open_photo(examples[0]), outputs=photo, api_visibility="private")
            crop = gr.Image(label="What the network sees", interactive=False, height=240, buttons=["fullscreen"])
        outputs: list[gr.components.Component] = [crop]
        for shown in models:
            with gr.Column(scale=3, min_width=280):
                gr.Markdown(f"**{MODE_SENTENCES.get(shown.name, as_text(shown.name))}**")
                outputs.append(gr.Markdown())
                outputs.append(gr.Label(label=f"{shown.name}: probabilities", num_top_classes=5))
                outputs.append(
                    gr.Image(
                        label=f"{shown.name}: what speaks for the answer",
                        alt_text=f"The photo; glowing places speak for the answer of {shown.name}",
                        interactive=False,
                        buttons=["fullscreen"],
                    )
                )
                outputs.append(
                    gr.Gallery(
                        label=f"{shown.name}: it looks like these training photos",
                        columns=NEIGHBOURS,
                        height=180,
                        interactive=False,
                        visible=shown.classifier.bank is not None and learned_from(shown, photos),
                    )
                )
    classify, predict = with_photo(classify_handler(models, photos)), with_photo(predict_handler(models))
    photo.change(classify, photo, outputs, preprocess=False, api_visibility="private")
    answers = gr.JSON(visible=False)
    gr.Button(visible=False).click(
        predict,
        photo,
        answers,
        preprocess=False,
        api_name="predict",
        api_description="Says what is in a photo: each model's answer, the probability of every class, and whether the "
        "photo is like any it learned from.",
    )


Result = TypeVar("Result")


def with_photo(handler: Callable[[Image.Image | None], Result]) -> Callable[[dict[str, Any] | None], Result]:
    """The handler of a photo as one of an upload in Gradio's own form, which `preprocess=False` leaves as it came.

    Gradio's preprocessing opens the file before any handler runs, and fails with a message that tells a visitor nothing
    where it is no photo. Raises gr.Error, which the visitor reads, with what to do.
    """

    @wraps(handler)  # clients of the page see its name and its argument's
    def handle(upload: dict[str, Any] | None) -> Result:
        try:
            photo = open_photo(Path(upload["path"])) if upload else None
        except DataError as error:
            raise gr.Error(
                f"This file can't be used: {error}. Try a JPEG or PNG photo.", print_exception=False
            ) from error
        return handler(photo)

    return handle


def classify_handler(models: Sequence[Shown], photos: PhotoFolder | None) -> Callable[[Image.Image | None], list[Any]]:
    """Photo -> the crop, then for every model verdict, probabilities, class activation map and neighbours."""

    def classify(photo: Image.Image | None) -> list[Any]:
        if photo is None:
            return [None] * (1 + 4 * len(models))
        results: list[Any] = [models[0].config.preprocessing.cropped(photo)]
        for shown in models:
            explanation = shown.classifier.explain(photo, NEIGHBOURS)
            activation_map = explanation.activation_maps[explanation.prediction.label]
            box = shown.config.preprocessing.crop_box(photo.width, photo.height)
            heat = figures.heat_map(photo, activation_map, box, strongest=float(activation_map.max()))
            results += [
                verdict_sentence(explanation.prediction),
                _shown_probabilities(explanation.prediction),
                heat,
                neighbour_pictures(explanation.neighbours, photos if learned_from(shown, photos) else None),
            ]
        return results

    return classify


def verdict_sentence(prediction: Prediction) -> str:
    """Whether to believe the answer, as Markdown."""
    if prediction.distance is None:
        return ""
    if prediction.threshold is None:
        return f"**{as_text(prediction.label)}**; too little is known to tell whether it is any of the classes."
    distance = f"distance {prediction.distance:.2f}, limit {prediction.threshold:.2f}"
    if prediction.is_neither:
        return f"**Neither.** This photo is like none that was learned from ({distance}): believe no class below."
    return f"**{as_text(prediction.label)}**, a photo like those learned from ({distance})."


def learned_from(shown: Shown, photos: PhotoFolder | None) -> bool:
    """Whether these are the very photos that a model learned from; others may be called the same."""
    return photos is not None and shown.config.data.get("digest") == photos.digest


def neighbour_pictures(neighbours: Sequence[Neighbour], photos: PhotoFolder | None) -> list[tuple[Image.Image, str]]:
    """The training photos named, small, with class and distance; those that are not here are left out.

    Names come from models, and models from anybody: only files of the folder that is shown anyhow are opened.
    """
    if photos is None:
        return []
    paths = dict(zip(photos.train.names(photos.root), photos.train.paths, strict=True))
    pictures = []
    for neighbour in neighbours:
        if (path := paths.get(neighbour.name)) is not None and path.is_file():
            picture = open_photo(path, shorter_side=NEIGHBOUR_SIDE)
            pictures.append((picture, f"{one_line(neighbour.label)} {neighbour.distance:.2f}"))
    return pictures


def _shown_probabilities(prediction: Prediction) -> dict[str, float]:
    """By names that a browser can be sent: a folder's need not be valid Unicode."""
    return {one_line(name): probability for name, probability in prediction.probabilities.items()}


def predict_handler(models: Sequence[Shown]) -> Callable[[Image.Image | None], dict[str, Any]]:
    """Photo -> for every model its answer and the probabilities: the page's API."""

    def predict(photo: Image.Image | None) -> dict[str, Any]:
        if photo is None:
            raise gr.Error("No photo came: send an image file.", print_exception=False)
        predictions = {shown.name: shown.classifier.predict([photo])[0] for shown in models}
        return {
            name: {
                "label": one_line(prediction.label),
                "probabilities": _shown_probabilities(prediction),
                "verdict": one_line(prediction.verdict),
                "distance": prediction.distance,
                "threshold": prediction.threshold,
            }
            for name, prediction in predictions.items()
        }

    return predict


def example_paths(photos: PhotoFolder, per_class: int = 4) -> list[Path]:
    """A few validation photos, the classes in turn."""
    by_class = [
        [path for path, label in zip(photos.val.paths, photos.val.labels, strict=True) if label == index][:per_class]
        for index in range(len(photos.class_names))
    ]
    return [path for turn in zip(*by_class, strict=False) for path in turn]


def batches_tab(models: Sequence[Shown], photos: PhotoFolder | None, page: gr.Blocks) -> None:
    """The tutorial's sample batch grid: what training sees, or what the models answer on validation photos."""
    if photos is None:
        gr.Markdown(f"### No photos here\nName the folder the models learned from: `{spoken('app')} --data DIR`")
        return
    gr.Markdown(
        "**train** shows photos as the network learns from them: cropped and mirrored at random, different in every "
        "epoch. **val** shows the evaluation crop and what each model answers: a solid blue frame and "
        f"{figures.RIGHT_SIGN} for right, a dashed orange one and {figures.WRONG_SIGN} for wrong."
    )
    with gr.Row():
        split = gr.Radio(["train", "val"], value="train", label="Split")
        size = gr.Slider(4, LARGEST_BATCH, value=8, step=4, label="Batch size")
        seed = gr.Number(0, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed")
        new = gr.Button("New batch", variant="primary")
    places: list[gr.components.Component] = []
    for _ in range(max(1, len(models))):
        places.append(gr.Markdown())
        places.append(gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"]))
    draw = batch_handler(models, photos)

    def fill(split: str, size: int, seed: int) -> list[Any]:
        return [
            part
            for title, grid in draw(split, size, seed)
            for part in (
                f"**{as_text(title)}**" if title else "",
                gr.Image(grid, visible=grid is not None, alt_text=title),
            )
        ]

    changes = [page.load, split.change, size.release, seed.change]
    gr.on(changes, fill, [split, size, seed], places, api_visibility="private")
    new.click(lambda seed: ((seed or 0) + 1) % (LARGEST_SEED + 1), seed, seed, api_visibility="private")


def batch_handler(
    models: Sequence[Shown], photos: PhotoFolder
) -> Callable[[str, int, int], list[tuple[str, Image.Image | None]]]:
    """Split, batch size and seed -> a label and a grid for each place on the tab; None where a place stays empty."""
    preprocessing = models[0].config.preprocessing if models else FAST.preprocessing
    recipes = [shown.config.recipe for shown in models]
    smallest_crop = next((r["smallest_crop"] for r in recipes if "smallest_crop" in r), FAST.smallest_crop)
    answering = of_classes(models, photos)
    augmentations = {"train": Augmentation(smallest_crop, (preprocessing.crop,)), "val": None}

    def draw(split: str, size: int, seed: int) -> list[tuple[str, Image.Image | None]]:
        chosen = photos.train if split == "train" else photos.val
        positions = torch.randperm(len(chosen), generator=seeded_generator(seed, split))[:size]
        if split == "val" and answering:
            titles = [f"{shown.name}: val batch {seed}" for shown in answering]
            grids = [answer_grid(shown, photos, positions) for shown in answering]
            return [*zip(titles, grids, strict=True), *[("", None)] * (len(models) - len(grids))]
        images = visible(Photos(chosen, preprocessing, augmentations[split], seed=seed), positions)
        names = [photos.class_names[chosen.labels[position]] for position in positions]
        picture = figures.grid([figures.Tile(image, name) for image, name in zip(images, names, strict=True)])
        return [(f"{split} batch {seed}", picture), *[("", None)] * (len(models) - 1)]

    return draw


def visible(photos: Photos, positions: Tensor) -> Tensor:
    """Photos as the network is given them, made visible again: float32 (B, 3, H, W) in 0..1."""
    ((images, _),) = photos.batches([positions])
    return photos.preprocessing.unnormalise(images)


def answer_grid(shown: Shown, photos: PhotoFolder, positions: Tensor) -> Image.Image:
    """Validation photos with a model's answers, right or wrong, and the class each is really of."""
    images = visible(Photos(photos.val, shown.config.preprocessing), positions)
    predictions = shown.classifier.predict([open_photo(photos.val.paths[position]) for position in positions])
    tiles = []
    for image, position, prediction in zip(images, positions, predictions, strict=True):
        truth = photos.class_names[photos.val.labels[position]]
        answer = f"{prediction.label} {prediction.probabilities[prediction.label]:.0%}"
        right = prediction.label == truth
        tiles.append(figures.Tile(image, answer if right else f"{answer}\nis: {truth}", right))
    return figures.grid(tiles)


def report_tab(models: Sequence[Shown]) -> None:
    """How the models compare, how they learned, what they confuse, and what their cards say."""
    if not models:
        gr.Markdown(how_to_train())
        return
    if rows := [list(row) for row in comparison(shown.config for shown in models)]:
        headers = list(COMPARISON_COLUMNS)
        gr.Dataframe(rows, headers=headers, interactive=False, label="The modes on the validation photos")
        gr.Markdown(
            "An epoch chosen on val is the best of its run on the very photos it is scored on here; the last epoch "
            "was not chosen. The interval says how far chance alone could move the result (Wilson, 95 %)."
        )
    curves = curve_table(models)
    if len(curves):
        with gr.Row():
            for quantity in ("accuracy", "loss"):
                gr.LinePlot(
                    curves[curves["quantity"] == quantity],
                    x="epoch",
                    y="value",
                    y_title=quantity,
                    color="curve",
                    color_title="mode, split",
                    color_map=curve_colours(models),
                    tooltip="all",
                    label=f"Learning curves: {quantity}",
                )  # of its own height: with one given, the front end cuts the legend off
    with gr.Row():
        for shown in models:
            if confusion := shown.config.metrics.get("confusion"):
                with gr.Column(min_width=280):
                    gr.Markdown(f"**{as_text(shown.name)}: what it takes for what**")
                    gr.Image(
                        figures.confusion_matrix(confusion, shown.config.label_names),
                        show_label=False,
                        alt_text=f"Validation photos by true class and answer of {shown.name}",
                        interactive=False,
                        height=320,
                        buttons=["download", "fullscreen"],
                    )
    for shown in models:
        with gr.Accordion(f"{shown.name}: model card", open=False):
            gr.Markdown(shown.card)


def curve_table(models: Sequence[Shown]) -> pandas.DataFrame:
    """The histories as a table with the columns epoch, curve, quantity and value."""
    rows = [
        {"epoch": record["epoch"], "curve": f"{shown.name}, {split}", "quantity": quantity, "value": value}
        for shown in models
        for record in shown.history
        for split in ("train", "val")
        for quantity in ("accuracy", "loss")
        if (value := record.get(f"{split}_{quantity}")) is not None
    ]
    return pandas.DataFrame(rows, columns=["epoch", "curve", "quantity", "value"])


def curve_colours(models: Sequence[Shown]) -> dict[str, str]:
    """A colour for each curve: validation in the mode's own, training in a paler one."""
    colours: dict[str, str] = {}
    for number, shown in enumerate(models):
        strong, pale = CURVE_COLOURS[number % len(CURVE_COLOURS)]
        colours |= {f"{shown.name}, val": strong, f"{shown.name}, train": pale}
    return colours
