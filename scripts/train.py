"""python scripts/train.py [--data DIR|drawn] [--weights imagenet|random|FILE] [--mode both|finetune|frozen] ...

Trains ResNet in both classic ways of transfer learning and writes a model folder for each:

    frozen     the backbone is a fixed feature extractor, only the head learns
    finetune   every weight learns

Without flags it takes the classic ants and bees and ImageNet's weights, downloading what isn't there yet; without a
network it goes on with drawn pictures and with random weights, and says so. What a flag names is never replaced.
Several processes train together under `torchrun --nproc-per-node N scripts/train.py ...`.
"""

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet

import antbee
from antbee import cards, data, evaluation, figures, model, resident, tracking, training
from antbee.classifier import (
    COMPARISON_COLUMNS,
    MODES,
    Classifier,
    ClassifierConfig,
    ModelFolderError,
    comparison,
    previous,
    read_config,
    replacing,
)
from antbee.installation import home, spoken

BATCH_FIGURE = 16  # photos in the sample batch grid


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Train ResNet by transfer learning, frozen and fine-tuned.")
    what = parser.add_argument_group("what is trained")
    what.add_argument("--data", metavar="DIR|drawn", help="folder with train/ and val/, or with class folders")
    what.add_argument("--weights", metavar="imagenet|random|FILE", help="starting weights (.safetensors or .pth)")
    what.add_argument("--arch", default="resnet18", choices=model.ARCHITECTURES, metavar="NAME", help="resnet18, ...")
    what.add_argument("--mode", default="both", choices=("both", *MODES), help="default: %(default)s")
    how = parser.add_argument_group("how it is trained")
    how.add_argument("--recipe", default="fast", choices=sorted(training.RECIPES), help="default: %(default)s")
    how.add_argument("--epochs", type=positive(int), metavar="N", help="of each mode (default: the recipe's)")
    how.add_argument("--batch-size", type=positive(int), metavar="N", help="photos a step (default: the recipe's)")
    how.add_argument("--lr", type=positive(float), metavar="X", help="highest learning rate (default: the recipe's)")
    how.add_argument(
        "--seed", type=count, default=0, metavar="N", help="repeats a run on the same machine (default: 0)"
    )
    where = parser.add_argument_group("where it runs and what it writes")
    where.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    where.add_argument(
        "--precision",
        choices=("auto", *model.PRECISIONS),
        metavar="auto|float32|bfloat16",
        help="default: the recipe's",
    )
    where.add_argument("--compile", action="store_true", help="torch.compile the network: on a GPU, for long runs")
    where.add_argument("--workers", type=positive(int), metavar="N", help="threads that decode photos (default: cores)")
    where.add_argument("--output", type=Path, default=home() / "outputs", metavar="DIR", help="default: outputs/")
    where.add_argument("--track", choices=tracking.TRACKERS, help="also tell the epochs to a tracker (pip install it)")
    where.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    return parser.parse_args(words)


def positive(number: Callable[[str], float]) -> Callable[[str], float]:
    """A flag's type: a number above zero."""

    def parse(text: str) -> float:
        value = number(text)
        if not 0 < value < math.inf:  # also where it is "nan"
            raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
        return value

    parse.__name__ = number.__name__  # what argparse calls it
    return parse


def count(text: str) -> int:
    """A flag's type: a whole number, zero or more."""
    if not 0 <= (value := int(text)) < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {2**32 - 1}")
    return value


# ---------------------------------------------------------------------------------------------------------------------
# The story


@dataclass(frozen=True)
class Job:
    """All that a run starts from; `notices` tell what was replaced because there was no network."""

    arguments: argparse.Namespace
    process: training.Process
    photos: data.PhotoFolder
    memory: data.PictureMemory
    weights: model.StartingWeights
    recipe: training.Recipe
    notices: tuple[str, ...]

    def say(self, text: str) -> None:
        """Prints at once, in the first of several processes alone."""
        if self.process.is_first:
            print(text, flush=True)


def main() -> None:
    """Train the modes asked for, one after the other, and compare them."""
    arguments = parse_arguments()
    with training.joined(model.choose_device(arguments.device)) as process:
        if arguments.track is not None and process.is_first:
            tracking.check_tracker(arguments.track)
        job = prepare(arguments, process)
        describe(job)
        configs = train_modes(job)
        conclude(job, configs)


def prepare(arguments: argparse.Namespace, process: training.Process) -> Job:
    """The photos, the starting weights and the recipe."""
    no_photos = no_weights = None
    if process.is_first:  # it alone finds out whether there is a network, so that all go on with the same
        root, no_photos = choose_data(arguments.data)
        weights, no_weights = choose_weights(arguments.weights, arguments.arch)
    no_photos, no_weights = process.from_first((no_photos, no_weights))
    with process.in_turn():
        if not process.is_first:
            root, _ = choose_data("drawn" if no_photos else arguments.data)
            weights, _ = choose_weights("random" if no_weights else arguments.weights, arguments.arch)
    recipes = training.RECIPES if weights.state is not None else training.RECIPES_FROM_RANDOM
    recipe = changed(recipes[arguments.recipe], arguments)
    precision = model.choose_precision(arguments.precision or recipe.precision, process.device)
    recipe = replace(recipe, precision=precision)
    memory = data.PictureMemory()
    photos = data.read_folder(root, seed=arguments.seed, seen=partial(remember, memory, recipe, root / "val"))
    notices = tuple(notice for notice in (no_photos, no_weights) if notice)
    return Job(arguments, process, photos, memory, weights, recipe, notices)


def remember(memory: data.PictureMemory, recipe: training.Recipe, val: Path, path: Path, photo: Image.Image) -> None:
    """Keeps of a photo what training is going to ask for, while it is decoded anyhow."""
    looks = [recipe.augmentation(mode) or recipe.preprocessing for mode in MODES]
    data.keep_checked(memory, path, photo, [recipe.preprocessing] if val in path.parents else looks)


def choose_data(choice: str | None) -> tuple[Path, str | None]:
    """The data folder and, where drawn pictures stand in for the photos, why."""
    if choice == "drawn":
        return data.drawn_folder(home() / "data"), None
    if choice is not None:
        return Path(choice), None
    try:
        return data.hymenoptera_folder(home() / "data"), None
    except data.DownloadError as error:
        return data.drawn_folder(home() / "data"), f"DRAWN PICTURES stand in for the photos of ants and bees: {error}."


def choose_weights(choice: str | None, architecture: str) -> tuple[model.StartingWeights, str | None]:
    """The starting weights and, where random ones stand in for ImageNet's, why."""
    try:
        return model.load_starting_weights(choice or "imagenet", architecture), None
    except model.WeightsUnreachableError as error:
        if choice is not None:
            raise
        weights = model.load_starting_weights("random", architecture)
        return weights, f"RANDOM WEIGHTS stand in for ImageNet's, so expect a poor classifier: {error}."


def changed(recipe: training.Recipe, arguments: argparse.Namespace) -> training.Recipe:
    """The recipe with what the flags change in both of its schedules."""
    flags = {"epochs": arguments.epochs, "batch_size": arguments.batch_size, "learning_rate": arguments.lr}
    given = {name: value for name, value in flags.items() if value is not None}
    return replace(recipe, frozen=replace(recipe.frozen, **given), finetune=replace(recipe.finetune, **given))


def train_modes(job: Job) -> list[ClassifierConfig]:
    """Trains the modes asked for and writes their model folders; the configs tell how it went."""
    wanted = MODES if job.arguments.mode == "both" else (job.arguments.mode,)
    # Fine-tuning that starts from a trained head needs the frozen mode first, asked for or not.
    modes = [mode for mode in MODES if mode in wanted or (mode == "frozen" and job.recipe.head_first)]
    checkpoints = {mode: checkpoint(job, mode) for mode in modes}
    if job.process.is_first and not job.arguments.resume:
        forget(job, checkpoints.values())
    head, configs = None, []
    for mode in modes:
        config, head = finish_mode(job, mode, head, checkpoints[mode], write=mode in wanted)
        if mode in wanted:
            configs.append(config)
    if job.process.is_first:
        compare_in_cards(job.arguments.output, configs)
        for done in checkpoints.values():
            done.remove()
    return configs


def finish_mode(
    job: Job, mode: str, head: Mapping[str, Tensor] | None, checkpoint: training.Checkpoint, *, write: bool
) -> tuple[ClassifierConfig, Mapping[str, Tensor]]:
    """The config and the head of a mode: finished before, or trained now and written where it was asked for."""
    folder = job.arguments.output / mode
    if before := finished_before(job, folder, checkpoint):
        job.say(f"\n{mode}: finished before, in {folder}")
        return before
    classifier, history = train_mode(job, mode, head, checkpoint)
    if write and job.process.is_first:
        write_model(job, folder, classifier, history)
    return classifier.config, classifier.network.fc.state_dict()


def train_mode(
    job: Job, mode: str, head: Mapping[str, Tensor] | None, checkpoint: training.Checkpoint
) -> tuple[Classifier, training.History]:
    """One mode from the starting weights, with a trained `head` where there is one and the recipe wants it."""
    class_names, arguments = job.photos.class_names, job.arguments
    network = model.build_network(arguments.arch, len(class_names), job.weights, seed=arguments.seed)
    if head is not None and job.recipe.head_first:
        network.fc.load_state_dict(head)
    network = network.to(job.process.device, memory_format=job.recipe.layout)
    train_the_mode = training.train_frozen if mode == "frozen" else training.train_finetune
    job.say(f"\n{mode}")
    with tracked_epochs(job, mode) as log:
        fitted = train_the_mode(network, run_of(job, mode, log), checkpoint)
    return Classifier(network, config_of(job, mode, network, fitted, checkpoint)), fitted.history


@contextmanager
def tracked_epochs(job: Job, mode: str) -> Iterator[tracking.Log]:
    """Where the first process tells a mode's epochs, if a tracker was asked for; a resumed run from there on."""
    if job.arguments.track is None or not job.process.is_first:
        yield lambda record: None
        return
    run = f"{mode} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    settings = {"architecture": job.arguments.arch, "weights": job.weights.name, "data": job.photos.name}
    settings |= {"seed": job.arguments.seed, **job.recipe.flat(mode)}
    with tracking.tracked(job.arguments.track, run, settings, job.arguments.output / "tensorboard") as log:
        yield log


def run_of(job: Job, mode: str, log: tracking.Log) -> training.Run:
    """What a mode learns from, is measured on, and how; every epoch is said and logged."""

    def report(epoch: training.Epoch) -> None:
        job.say(epoch_line(epoch))
        log(epoch.to_record())

    recipe, seed, process = job.recipe, job.arguments.seed, job.process
    loading = data.Loading.beside(process.device, workers=job.arguments.workers, processes=process.local_count)
    loading = replace(loading, layout=recipe.layout, memory=job.memory)
    train = data.Photos(job.photos.train, recipe.preprocessing, recipe.augmentation(mode), seed=seed, loading=loading)
    val = data.Photos(job.photos.val, recipe.preprocessing, loading=loading)
    return training.Run(
        recipe=recipe,
        train=resident.placed(train),
        val=resident.placed(val),
        seed=seed,
        process=process,
        compiled=job.arguments.compile,
        report=report,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted and taken up again


def checkpoint(job: Job, mode: str) -> training.Checkpoint:
    """Where a mode's progress is kept, and the fingerprint of all that decides how it ends."""
    decides = {
        "mode": mode,
        "recipe": asdict(job.recipe),
        "architecture": job.arguments.arch,
        "weights": [job.weights.name, job.weights.digest],
        "photos": [job.photos.digest, job.photos.split, job.photos.class_names],
        "seed": job.arguments.seed,
    }
    fingerprint = training.fingerprint(decides)
    if fingerprint != job.process.from_first(fingerprint):
        raise training.TrainingError("the photos or the weights here are not those of the first process: copy them")
    return training.Checkpoint(job.arguments.output / ".checkpoints" / f"{mode}.pt", fingerprint)


def forget(job: Job, checkpoints: Iterable[training.Checkpoint]) -> None:
    """A run that starts anew has no use for what an interrupted one left."""
    if any(old.path.exists() for old in checkpoints):
        job.say(f"\nAn interrupted run in {job.arguments.output} is given up; --resume would have gone on with it.")
    for old in checkpoints:
        old.remove()


def finished_before(
    job: Job, folder: Path, checkpoint: training.Checkpoint
) -> tuple[ClassifierConfig, Mapping[str, Tensor]] | None:
    """The config and the head of the model in `folder`, if it is what this very run would train again."""
    before = None
    if job.arguments.resume and job.process.is_first:
        with suppress(ModelFolderError):  # no model there, or none that can be read: it is trained
            if read_config(folder).run == checkpoint.fingerprint:
                classifier = Classifier.from_pretrained(folder, device="cpu")
                before = classifier.config, classifier.network.fc.state_dict()
    return job.process.from_first(before)


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def config_of(
    job: Job, mode: str, network: ResNet, fitted: training.Fitted, checkpoint: training.Checkpoint
) -> ClassifierConfig:
    """What the model folder tells of the model."""
    photos = job.photos
    return ClassifierConfig(
        architecture=job.arguments.arch,
        label_names=photos.class_names,
        preprocessing=job.recipe.preprocessing,
        version=antbee.__version__,
        mode=mode,
        recipe=job.recipe.flat(mode),
        data={
            "name": photos.name,
            "train": photos.train.counts(photos.class_names),
            "val": photos.val.counts(photos.class_names),
            "split": photos.split,
            "digest": photos.digest,
            "skipped": [asdict(skipped) for skipped in photos.skipped],
        },
        weights={"name": job.weights.name, "digest": job.weights.digest, "base_model": job.weights.base_model},
        metrics=metrics_of(job, network, fitted),
        seed=job.arguments.seed,
        run=checkpoint.fingerprint,
    )


def metrics_of(job: Job, network: ResNet, fitted: training.Fitted) -> dict[str, Any]:
    """How good the model is on the validation photos, and what it took."""
    history, labels = fitted.history, torch.tensor(job.photos.val.labels)
    return {
        "kept": result_of(history.kept, len(labels)),
        "last": result_of(history.last, len(labels)),
        "selected_on": "val",
        "confusion": evaluation.confusion_matrix(fitted.val_logits, labels).tolist(),
        "epochs": len(history.epochs),
        "seconds": history.seconds,
        "parameters": {
            "total": model.count_parameters(network, trainable=False),
            "trainable": model.count_parameters(network, trainable=True),
        },
    }


def result_of(epoch: training.Epoch, count: int) -> dict[str, Any]:
    """An epoch's result on `count` validation photos."""
    correct = round(epoch.val.accuracy * count)
    return {
        "epoch": epoch.number,
        "accuracy": epoch.val.accuracy,
        "loss": epoch.val.loss,
        "correct": correct,
        "count": count,
        "interval": evaluation.wilson_interval(correct, count),
    }


def write_model(job: Job, folder: Path, classifier: Classifier, history: training.History) -> None:
    """A complete Hub repository in place of `folder`, beside which an older model is kept."""
    config = classifier.config
    replaces = folder.exists()
    with replacing(folder) as beside:
        classifier.save_pretrained(beside)
        (beside / "history.json").write_text(json.dumps(history.to_records(), indent=1) + "\n", "utf-8")
        (beside / "README.md").write_text(cards.model_card(config.to_json()), "utf-8")
        (beside / "figures").mkdir()
        sample_batch(job, str(config.mode)).save(beside / "figures" / "batch.png")
        curves = figures.learning_curves({str(config.mode): history.to_records()})
        curves.save(beside / "figures" / "curves.png")
        confusion = figures.confusion_matrix(config.metrics["confusion"], config.label_names)
        confusion.save(beside / "figures" / "confusion.png")
    job.say(f"written to {folder}" + (f"; the older model is now {previous(folder)}" if replaces else ""))


def compare_in_cards(output: Path, configs: Sequence[ClassifierConfig]) -> None:
    """Writes into the models' cards how the modes compare; a card that somebody changed stays as it is."""
    compared = [COMPARISON_COLUMNS, *comparison(configs)]
    for config in configs:
        path = output / str(config.mode) / "README.md"
        written = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        card = cards.model_card(config.to_json(), compared)
        if written != card and cards.without_comparison(written) == cards.without_comparison(card):
            beside = path.with_name(f".{path.name}.writing")
            beside.write_text(card, "utf-8")
            beside.replace(path)


def sample_batch(job: Job, mode: str) -> Image.Image:
    """The grid that shows what a mode learns from, at full size, with class names."""
    recipe, seed = job.recipe, job.arguments.seed
    augmentation = recipe.augmentation(mode)
    if augmentation is not None:
        augmentation = replace(augmentation, sizes=(recipe.preprocessing.crop,))
    photos = data.Photos(
        job.photos.train, recipe.preprocessing, augmentation, seed=seed, loading=data.Loading(memory=job.memory)
    )
    positions = training.shuffled_batches(len(photos), BATCH_FIGURE, seed, 1)[:1]
    ((images, labels),) = photos.batches(positions, epoch=1)
    shown = recipe.preprocessing.unnormalise(images)
    titles = [job.photos.class_names[label] for label in labels]
    return figures.grid([figures.Tile(image, title) for image, title in zip(shown, titles, strict=True)])


# ---------------------------------------------------------------------------------------------------------------------
# What is said


def describe(job: Job) -> None:
    """Says what the run starts from."""
    photos, device = job.photos, job.process.device
    with_names = [f"{len(split)} {name}" for name, split in (("train", photos.train), ("val", photos.val))]
    what = {"cuda": torch.cuda.get_device_name, "cpu": lambda _: f"{torch.get_num_threads()} threads"}
    job.say(box(job.notices))
    job.say(f"photos    {photos.root}: {' + '.join(with_names)} ({photos.split})")
    for name, count in photos.train.counts(photos.class_names).items():
        job.say(f"          {name}: {count} train, {photos.val.counts(photos.class_names)[name]} val")
    for skipped in photos.skipped:
        job.say(f"skipped   {skipped.file}: {skipped.reason}")
    job.say(
        f"network   {job.arguments.arch}, weights: {job.weights.name}; a new head for {len(photos.class_names)} classes"
    )
    job.say(f"device    {device}" + (f", {what[device.type](device)}" if device.type in what else ""))
    job.say(f"recipe    {job.recipe.name}, {job.recipe.precision}, seed {job.arguments.seed}")


def epoch_line(epoch: training.Epoch) -> str:
    """An epoch in a line."""
    phases = (("train", epoch.train), ("val", epoch.val))
    results = "   ".join(f"{name} loss {phase.loss:.3f} accuracy {phase.accuracy:6.1%}" for name, phase in phases)
    seconds = epoch.train.seconds + epoch.val.seconds
    return f"  epoch {epoch.number:2}   lr {epoch.learning_rate:.5f}   {results}   {seconds:6.1f} s"


def conclude(job: Job, configs: Sequence[ClassifierConfig]) -> None:
    """Says how both modes compare and what to do next."""
    job.say("\n" + table([COMPARISON_COLUMNS, *comparison(configs)]))
    job.say(f"(the best epoch is chosen on the {len(job.photos.val)} photos it is scored on; the last is not chosen)")
    job.say(box(job.notices))
    job.say(f"models    {job.arguments.output}")
    job.say(f"see them  {shlex.join([*spoken('app').split(), *app_words(job.arguments)])}")


def app_words(arguments: argparse.Namespace) -> list[str]:
    """What app.py needs to be told to find the models and the photos."""
    modes = [mode for mode in MODES if arguments.mode in ("both", mode)]
    models = [] if arguments.output == home() / "outputs" else [str(arguments.output / mode) for mode in modes]
    photos = [] if arguments.data in (None, "drawn") else ["--data", arguments.data]
    return [*models, *photos]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(word.rjust(width) for word, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return "\n".join("   ".join(line) for line in lines)


def box(notices: Sequence[str], width: int = 100) -> str:
    """Notices in a frame that nobody overlooks; nothing where there are none."""
    lines = [line for notice in notices for line in wrap(notice, width - 4)]
    return (
        "\n".join(["", "#" * width, *(f"# {line:{width - 4}} #" for line in lines), "#" * width, ""]) if lines else ""
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid Unicode
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped: the same command with --resume goes on after the last finished epoch", file=sys.stderr)
        sys.exit(130)
    except (
        data.DataError,
        model.WeightsError,
        model.DeviceError,
        training.TrainingError,
        tracking.TrackerError,
        OSError,
    ) as error:
        sys.exit(f"error: {error}")
