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
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from textwrap import wrap
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet

import antbee
from antbee import errors
from antbee.data import download
from antbee.data import folder as data_folder
from antbee.data import loading as data_loading
from antbee.data.download import DownloadError
from antbee.data.folder import ImageDataset, Split, divide, read_exclusions, refuse_damaged
from antbee.data.images import DataError
from antbee.data.loading import ImageCache, ImageLoader, LoaderOptions, choose_loader, keep_checked
from antbee.data.quality import UNBALANCED, unbalanced
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation import ood, plots
from antbee.evaluation.calibration import fit_temperature
from antbee.evaluation.report import COMPARISON_COLUMNS, aligned, comparison, conclusions
from antbee.hub.card import model_card, without_comparison
from antbee.installation import command_name, home
from antbee.models import detector as models_detector
from antbee.models import versions
from antbee.models.backbone import (
    apply_temperature,
    build_network,
    count_all_parameters,
    count_parameters,
    freeze_backbone,
    zero_shot_head,
)
from antbee.models.classifier import Classifier
from antbee.models.config import MODES, ClassifierConfig, DataInfo, ModelFolderError, WeightsInfo, read_config
from antbee.models.detector import FALSE_ALARM_RATE, NO_LIMIT, KNNDetector, build_detector, leave_classes_out
from antbee.models.device import PRECISIONS, DeviceError, choose_device, choose_precision
from antbee.models.metrics import Metrics
from antbee.models.versions import (
    REPLACE,
    VERSIONS,
    OutputError,
    Placement,
    RunFolder,
    check_output,
    place_models,
    versions,
)
from antbee.models.weights import (
    ARCHITECTURES,
    StartingWeights,
    WeightsError,
    WeightsUnreachableError,
    load_starting_weights,
)
from antbee.text import one_line
from antbee.training import checkpoint as training_checkpoint
from antbee.training import crossvalidation, features, tracking
from antbee.training import modes as training_modes
from antbee.training import recipe as training_recipe
from antbee.training.checkpoint import Checkpoint, DeferredSignals, check_space, deferring_signals
from antbee.training.crossvalidation import (
    OutOfFold,
    distances_left_out,
    enough_data,
    head_out_of_fold,
    learning_curve,
    logits_of,
    network_out_of_fold,
    stratified_folds,
)
from antbee.training.distributed import DistributedContext, is_restarted, joined
from antbee.training.features import Features, compute_features
from antbee.training.history import Epoch, History
from antbee.training.modes import Run, learn_mode, train_frozen
from antbee.training.recipe import FAST, Recipe, TrainingError
from antbee.training.tracking import TRACKERS, Log, TrackerError, empty_epochs
from antbee.training.trainer import DivergedError, FitResult, shuffled_batches

BATCH_FIGURE = 16  # photos in the sample batch grid
MISTAKES_FIGURE = 24  # photos at most
HOLDOUT = 0.2  # of the photos in train/, what --select holdout sets aside
SELECTED_ON = {"val": "val", "holdout": "a holdout", "last": "nothing"}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Train ResNet by transfer learning, frozen and fine-tuned.")
    what = parser.add_argument_group("what is trained")
    what.add_argument("--data", metavar="DIR|drawn", help="folder with train/ and val/, or with class folders")
    what.add_argument("--allow-bad", action="store_true", help="learn also where over a tenth of a class is damaged")
    what.add_argument("--exclude", type=Path, metavar="FILE", help="list of photos that are not learned from")
    what.add_argument("--weights", metavar="imagenet|random|FILE", help="starting weights (.safetensors or .pth)")
    what.add_argument("--arch", default="resnet18", choices=ARCHITECTURES, metavar="NAME", help="resnet18, ...")
    what.add_argument("--mode", default="both", choices=("both", *MODES), help="default: %(default)s")
    how = parser.add_argument_group("how it is trained")
    how.add_argument("--recipe", default="fast", choices=sorted(training_recipe.RECIPES), help="default: %(default)s")
    how.add_argument("--epochs", type=positive(int), metavar="N", help="of each mode (default: the recipe's)")
    how.add_argument("--batch-size", type=positive(int), metavar="N", help="photos a step (default: the recipe's)")
    how.add_argument("--lr", type=positive(float), metavar="X", help="highest learning rate (default: the recipe's)")
    how.add_argument(
        "--select",
        default="val",
        choices=("val", "holdout", "last"),
        help="what the epoch to keep is chosen on: the photos in val/, a fifth of those in train/, or nothing",
    )
    how.add_argument("--balance", action="store_true", help="weigh every class the same, however many photos it has")
    how.add_argument(
        "--folds", type=folds, metavar="N", help="parts to calibrate with (default: the recipe's; 0: don't)"
    )
    how.add_argument("--seeds", type=positive(int), default=1, metavar="N", help="repeat with N seeds: mean and spread")
    how.add_argument(
        "--seed", type=count, default=0, metavar="N", help="repeats a run on the same machine (default: 0)"
    )
    where = parser.add_argument_group("where it runs and what it writes")
    where.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    where.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        metavar="auto|float32|bfloat16",
        help="default: the recipe's",
    )
    where.add_argument("--compile", action="store_true", help="torch.compile the network: on a GPU, for long runs")
    where.add_argument("--workers", type=positive(int), metavar="N", help="threads that decode photos (default: cores)")
    where.add_argument("--output", type=Path, default=home() / "outputs", metavar="DIR", help="default: outputs/")
    where.add_argument(
        "--track",
        choices=TRACKERS,
        help="also tell the epochs to a tracker (pip install it), or to epochs.jsonl in --output (jsonl)",
    )
    where.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    where.add_argument(
        "--replace",
        default=REPLACE[0],
        choices=REPLACE,
        help="whether new models take the places of those in --output, which are kept in versions/ (default: "
        "%(default)s, by the validation accuracy); new models that don't are kept there too",
    )
    where.add_argument(
        "--restore", metavar="NAME", help="put the models of versions/NAME back in their places, and train nothing"
    )
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


def folds(text: str) -> int:
    """A flag's type: 0, or two parts and more."""
    if (value := count(text)) == 1:
        raise argparse.ArgumentTypeError("1 leaves nothing to learn from: two parts or more, or 0 for none")
    return value


# ---------------------------------------------------------------------------------------------------------------------
# The story


@dataclass(frozen=True)
class Job:
    """All that a run starts from; `notices` tell what was replaced because there was no network."""

    arguments: argparse.Namespace
    context: DistributedContext
    signals: DeferredSignals
    photos: ImageDataset
    learned: Split  # the photos that are learned from
    chosen_on: Split  # the photos that the epoch to keep is chosen on
    cache: ImageCache
    weights: StartingWeights
    recipe: Recipe
    notices: tuple[str, ...]

    @property
    def run_folder(self) -> RunFolder:
        """Where checkpoints and finished models are kept until the run ends."""
        return RunFolder(self.arguments.output)

    def say(self, text: str) -> None:
        """Prints at once, in the first of several processes alone; not where somebody asked the run to stop."""
        self.signals.check()
        if self.context.is_first:
            print(text, flush=True)


def main() -> None:
    """Train the modes asked for, one after the other, and compare them."""
    arguments = parse_arguments()
    if arguments.restore is not None:
        restore(arguments.output, arguments.restore)
        return
    check_output(arguments.output, modes_asked_for(arguments))
    arguments.resume |= is_restarted()
    with deferring_signals() as signals, joined(choose_device(arguments.device)) as process:
        if arguments.track is not None and process.is_first:
            tracking.check_tracker(arguments.track)
        with RunFolder(arguments.output).locked() if process.is_first else nullcontext():
            job = prepare(arguments, process, signals)
            describe(job)
            outcomes = train_modes(job)
            conclude(job, outcomes)
            place(job, outcomes)


def modes_asked_for(arguments: argparse.Namespace) -> Sequence[str]:
    """The modes that get a model folder."""
    return MODES if arguments.mode == "both" else (arguments.mode,)


def prepare(arguments: argparse.Namespace, process: DistributedContext, signals: DeferredSignals) -> Job:
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
    recipes = training_recipe.RECIPES if weights.state is not None else training_recipe.RECIPES_FROM_RANDOM
    recipe = changed(recipes[arguments.recipe], arguments)
    precision = choose_precision(arguments.precision or recipe.precision, process.device)
    recipe = replace(recipe, precision=precision)
    memory = ImageCache()
    photos = data_folder.read_folder(root, seed=arguments.seed, seen=partial(remember, memory, recipe, root / "val"))
    if not arguments.allow_bad:
        refuse_damaged(photos)
    if arguments.exclude is not None:
        photos = photos.without(read_exclusions(arguments.exclude))
    learned, chosen_on = photos.train, photos.val
    if arguments.select == "holdout":
        learned, chosen_on = divide(photos.train, photos.class_names, arguments.seed, HOLDOUT)
    notices = tuple(notice for notice in (no_photos, no_weights) if notice)
    return Job(arguments, process, signals, photos, learned, chosen_on, memory, weights, recipe, notices)


def remember(memory: ImageCache, recipe: Recipe, val: Path, path: Path, photo: Image.Image) -> None:
    """Keeps of a photo what training is going to ask for, while it is decoded anyhow."""
    looks = [recipe.augmentation(mode) or recipe.preprocessing for mode in MODES]
    keep_checked(memory, path, photo, [recipe.preprocessing] if val in path.parents else looks)


def choose_data(choice: str | None) -> tuple[Path, str | None]:
    """The data folder and, where drawn pictures stand in for the photos, why."""
    if choice == "drawn":
        return download.drawn_folder(home() / "data"), None
    if choice is not None:
        return Path(choice), None
    try:
        return download.hymenoptera_folder(home() / "data"), None
    except DownloadError as error:
        return download.drawn_folder(
            home() / "data"
        ), f"DRAWN PICTURES stand in for the photos of ants and bees: {error}."


def choose_weights(choice: str | None, architecture: str) -> tuple[StartingWeights, str | None]:
    """The starting weights and, where random ones stand in for ImageNet's, why."""
    try:
        return load_starting_weights(choice or "imagenet", architecture), None
    except WeightsUnreachableError as error:
        if choice is not None:
            raise
        weights = load_starting_weights("random", architecture)
        return weights, f"RANDOM WEIGHTS stand in for ImageNet's, so expect a poor classifier: {error}."


def changed(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the flags change in both of its schedules."""
    flags = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.lr,
        "folds": arguments.folds,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    frozen, finetune = replace(recipe.frozen, **given), replace(recipe.finetune, **given)
    return replace(recipe, frozen=frozen, finetune=finetune, balanced=arguments.balance)


@dataclass(frozen=True)
class Foundation:
    """The starting network's features: what the frozen mode learns from, and what is told of the photos."""

    job: Job
    learned: features.FeatureCache
    chosen_on: features.FeatureCache
    val: features.FeatureCache

    @cached_property
    def told(self) -> dict[str, Any]:
        """What they say of the photos, whatever is trained on them."""
        return data_metrics(self.job, self)


@dataclass(frozen=True)
class Outcome:
    """A trained mode, and what it says of the validation photos."""

    classifier: Classifier
    val_logits: Tensor  # float32 (N, classes), on the CPU

    @property
    def config(self) -> ClassifierConfig:
        """What config.json says."""
        return self.classifier.config


@dataclass(frozen=True)
class Start:
    """The head that a mode starts from: trained before it, and divided by its temperature; None: a new one."""

    head: Mapping[str, Tensor] | None
    temperature: float


def train_modes(job: Job) -> list[Outcome]:
    """Trains the modes asked for and writes their model folders."""
    wanted = modes_asked_for(job.arguments)
    # Fine-tuning that starts from a trained head needs the frozen mode first, asked for or not.
    modes = [mode for mode in MODES if mode in wanted or (mode == "frozen" and job.recipe.head_first)]
    checkpoints = {mode: checkpoint(job, mode) for mode in modes}
    if job.context.is_first:
        check_space(job.arguments.output, space_needed(job, modes))
    if job.context.is_first and not job.arguments.resume:
        if job.run_folder.is_interrupted:
            job.say(f"\nAn interrupted run in {job.arguments.output} is given up; --resume would have gone on with it.")
        job.run_folder.clear()
        if job.arguments.track == "jsonl":
            empty_epochs(job.arguments.output)
    foundation = lay_foundation(job)
    before, outcomes = None, []
    for mode in modes:
        before = finish_mode(job, foundation, mode, before, checkpoints[mode], write=mode in wanted)
        if mode in wanted:
            outcomes.append(before)
    if job.context.is_first:
        compare_in_folders(job, outcomes)
    return outcomes


def lay_foundation(job: Job) -> Foundation:
    """The features of the starting network, which are computed when they are first asked for."""
    network = starting_network(job, job.arguments.seed)
    freeze_backbone(network)
    learned, chosen_on, val = (
        features.FeatureCache(network, looks(job, split), context=job.context, what="features")
        for split in (job.learned, job.chosen_on, job.photos.val)
    )
    # Where the epoch is chosen on the validation photos these are the same, and computed once.
    return Foundation(job, learned, val if job.chosen_on is job.photos.val else chosen_on, val)


def finish_mode(
    job: Job,
    foundation: Foundation,
    mode: str,
    before: Outcome | None,
    checkpoint: Checkpoint,
    *,
    write: bool,
) -> Outcome:
    """A mode, finished earlier, or trained now and written where it was asked for; `before` is the mode before it."""
    if finished := finished_earlier(job, mode, checkpoint):
        job.say(f"\n{mode}: finished before")
        return Outcome(finished, val_logits_of(job, finished.network))
    job.say(f"\n{mode}")
    start = Start(None, 1.0)
    if before is not None and job.recipe.head_first:
        calibration = before.config.metrics.calibration if before.config.metrics else None
        start = Start(before.classifier.network.fc.state_dict(), calibration.temperature if calibration else 1.0)
    network, fitted = train_mode(job, foundation, mode, start, checkpoint)
    outcome = believable(job, foundation, mode, start, network, fitted, checkpoint)
    if write and job.context.is_first:
        write_model(job, mode, outcome, fitted.history)
    return outcome


def train_mode(
    job: Job, foundation: Foundation, mode: str, start: Start, checkpoint: Checkpoint
) -> tuple[ResNet, FitResult]:
    """One mode from the starting weights."""
    network = starting_network(job, job.arguments.seed)
    if start.head is not None:
        network.fc.load_state_dict(start.head)

    with tracked_epochs(job, mode) as log:

        def report(epoch: Epoch) -> None:
            job.say(epoch_line(epoch))
            log(epoch.to_record())

        run = run_of(job, mode, job.arguments.seed, report)
        try:
            return network, fit_mode(network, foundation, mode, run, checkpoint)
        except DivergedError as error:
            raise TrainingError(f"{error}. {seen_at(job, error.positions)}") from error


def seen_at(job: Job, positions: Sequence[int]) -> str:
    """Where a loss was seen that is no number, and what is left."""
    names = job.learned.names(job.photos.root)
    batch = ", ".join(names[position] for position in positions[:3])
    more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
    seen = f"It was seen at {batch}{more}. " if positions else ""
    return f"{seen}The last finished epoch and older models are kept"


def fit_mode(
    network: ResNet,
    foundation: Foundation,
    mode: str,
    run: Run,
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Trains the network as the mode does; the frozen mode from the foundation's features, if the recipe keeps them."""
    if mode == "finetune":
        return training_modes.train_finetune(network, run, checkpoint)
    if not run.recipe.cached_features:
        return train_frozen(network, run, checkpoint)
    freeze_backbone(network)
    return training_modes.train_head(network.fc, foundation.learned, foundation.chosen_on, run, checkpoint)


def starting_network(job: Job, seed: int) -> ResNet:
    """The starting weights with a new head, drawn by `seed`; random weights are those of the run's own seed."""
    arguments, class_count = job.arguments, len(job.photos.class_names)
    network = build_network(arguments.arch, class_count, job.weights, seed=arguments.seed)
    if seed != arguments.seed:
        other = build_network(arguments.arch, class_count, job.weights, seed=seed)
        network.fc.load_state_dict(other.fc.state_dict())
    return network.to(job.context.device, memory_format=job.recipe.layout)


@contextmanager
def tracked_epochs(job: Job, mode: str) -> Iterator[Log]:
    """Where the first process tells a mode's epochs, if a tracker was asked for; a resumed run from there on."""
    if job.arguments.track is None or not job.context.is_first:
        yield lambda record: None
        return
    run = f"{mode} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    settings = {"architecture": job.arguments.arch, "weights": job.weights.name, "data": job.photos.name}
    settings |= {"mode": mode, "seed": job.arguments.seed, **job.recipe.flat(mode)}
    with tracking.tracked(job.arguments.track, run, settings, job.arguments.output) as log:
        yield log


def run_of(job: Job, mode: str, seed: int, report: Callable[[Epoch], None]) -> Run:
    """What a mode learns from, what its epoch is chosen on, and how."""
    return Run(
        recipe=job.recipe,
        train=looks(job, job.learned, mode, seed=seed),
        val=looks(job, job.chosen_on),
        seed=seed,
        context=job.context,
        keep="last" if job.arguments.select == "last" else "best",
        compiled=job.arguments.compile,
        signals=job.signals,
        report=report,
    )


def looks(
    job: Job, split: Split, mode: str | None = None, *, seed: int = 0
) -> ImageLoader | data_loading.GPUImageLoader:
    """Photos as a mode learns from them, or, without one, in the evaluation's crop."""
    process, recipe = job.context, job.recipe
    loading = LoaderOptions.for_device(process.device, workers=job.arguments.workers, processes=process.local_count)
    loading = replace(loading, layout=recipe.layout, cache=job.cache)
    augmentation = recipe.augmentation(mode) if mode else None
    return choose_loader(ImageLoader(split, recipe.preprocessing, augmentation, seed=seed, loading=loading))


# ---------------------------------------------------------------------------------------------------------------------
# What makes it believable: calibrated probabilities, "neither", and how good it is


def believable(
    job: Job,
    foundation: Foundation,
    mode: str,
    start: Start,
    network: ResNet,
    fitted: FitResult,
    checkpoint: Checkpoint,
) -> Outcome:
    """The trained network with calibrated probabilities, the features it learned from, and what was measured of it."""
    unmoved = mode == "frozen" and job.recipe.cached_features  # then its features are the foundation's
    learned = foundation.learned.computed if unmoved else features_of(job, network, job.learned)
    val = foundation.val.computed if unmoved else features_of(job, network, job.photos.val)
    left_out = answers_to_left_out(job, foundation, mode, start, fitted.kept.number)
    calibration = calibrate(job, mode, network.fc, left_out, val)
    detector = bank_of(job, mode, learned, left_out)
    val_logits = logits_of(network.fc, val)
    config = config_of(job, mode, checkpoint)
    metrics = {
        **metrics_of(job, network, fitted, val_logits),
        "calibration": calibration,
        "neither": neither_of(Classifier(network, config, detector), val, unmoved),
        "seeds": seeds_of(job, foundation, mode, start, fitted, val_logits),
        **foundation.told,
    }
    config = replace(config, metrics=Metrics.model_validate(metrics))
    return Outcome(Classifier(network, config, detector), val_logits)


def features_of(job: Job, network: ResNet, split: Split) -> Features:
    """The features of a split's photos, in evaluation crops."""
    return compute_features(network, looks(job, split), job.context, what="features")


def val_logits_of(job: Job, network: ResNet) -> Tensor:
    """What a network says of the validation photos: float32 (N, classes), on the CPU."""
    return logits_of(network.fc, features_of(job, network.to(job.context.device), job.photos.val))


def answers_to_left_out(job: Job, foundation: Foundation, mode: str, start: Start, max_epochs: int) -> OutOfFold | None:
    """What each photo gets from trainings that left it out, which stop at the epoch `max_epochs`, whose weights are kept.

    None where the recipe leaves none out, or where a class is too small to.
    """
    labels, seed = torch.tensor(job.learned.labels), job.arguments.seed
    folds = stratified_folds(labels, job.recipe.schedule(mode).folds, seed)
    if (divided := len(folds.unique())) < job.recipe.schedule(mode).folds:
        job.say(f"  calibrating with {divided} parts, as the smallest class has no more photos; 1 is too few to")
    if divided < 2:
        return None
    process, recipe = job.context, job.recipe
    if mode == "frozen" and recipe.cached_features:
        return head_out_of_fold(
            foundation.learned.computed, folds, recipe, seed=seed, device=process.device, max_epochs=max_epochs
        )

    def train_on(positions: Tensor) -> ResNet:
        network = starting_network(job, seed)
        if start.head is not None:
            part = foundation.learned.computed.part(positions)
            head = crossvalidation.trained_head(part, network.fc.out_features, recipe, seed=seed, device=process.device)
            network.fc.load_state_dict(head.state_dict())
            apply_temperature(network.fc, start.temperature)
        part_looks = looks(job, job.learned.part(positions.tolist()), mode, seed=seed)
        if mode == "frozen":
            freeze_backbone(network)
        learn_mode(network, part_looks, mode, recipe, seed=seed, context=process, max_epochs=max_epochs)
        return network

    job.say("  calibrating: training again without some of the photos")
    precision = choose_precision(recipe.precision, process.device)
    return network_out_of_fold(train_on, looks(job, job.learned), folds, process, precision)


def calibrate(job: Job, mode: str, head: nn.Linear, left_out: OutOfFold | None, val: Features) -> dict[str, Any] | None:
    """Divides the head's weights by the temperature that suits photos left out of training.

    So every program that loads the model gives calibrated probabilities, without knowing of a temperature.
    """
    if left_out is None:
        return None
    before = evaluation_metrics.report(logits_of(head, val), val.labels)
    temperature = fit_temperature(left_out.logits, torch.tensor(job.learned.labels))
    apply_temperature(head, temperature)
    after = evaluation_metrics.report(logits_of(head, val), val.labels)
    job.say(
        f"  calibrated: temperature {temperature:.2f}, val loss {before.score.loss:.3f} -> {after.score.loss:.3f}, "
        f"calibration error {before.calibration_error:.3f} -> {after.calibration_error:.3f}"
    )
    return {
        "temperature": temperature,
        "folds": left_out.folds,
        "loss_before": before.score.loss,
        "error_before": before.calibration_error,
    }


def bank_of(job: Job, mode: str, learned: Features, left_out: OutOfFold | None) -> KNNDetector:
    """The features learned from, with the distance beyond which a photo is like none of them.

    Photos that a backbone learned from lie nearer to each other than new ones: where none were left out of its
    training, there is no limit.
    """
    threshold = NO_LIMIT
    if left_out is not None:
        threshold = models_detector.threshold(left_out.distances)
    elif mode == "frozen":
        threshold = models_detector.threshold(distances_left_out(learned))
    return build_detector(learned.features, learned.labels, job.learned.names(job.photos.root), threshold)


def neither_of(classifier: Classifier, val: Features, frozen: bool) -> dict[str, Any] | None:
    """How often "neither" is said: wrongly of validation photos, rightly of pictures of nothing.

    With a backbone that knows nothing of the classes also of the validation photos of a class that the bank lacks.
    None where too little is known to say it.
    """
    detector = classifier.detector
    assert detector is not None
    if detector.limit is None:
        return None
    alarms = int((detector.distance(val.features) > detector.threshold).sum())
    predictions = {kind: classifier.predict(ood.synthetic_images(kind, ood.COUNT)) for kind in ood.KINDS}
    left_out = leave_classes_out(detector.features, detector.labels, val.features, val.labels) if frozen else None
    return {
        "threshold": detector.threshold,
        "rate": FALSE_ALARM_RATE,
        "val": {"found": alarms, "count": len(val)},
        "foreign": {
            kind: {"found": sum(prediction.is_neither for prediction in answers), "count": len(answers)}
            for kind, answers in predictions.items()
        },
        "left_out": None if left_out is None else {"found": left_out, "count": len(val)},
    }


def seeds_of(
    job: Job, foundation: Foundation, mode: str, start: Start, fitted: FitResult, val_logits: Tensor
) -> dict[str, Any] | None:
    """What the same run with other seeds comes to, which draw heads, orders and crops. None where one is enough."""
    if job.arguments.seeds < 2:
        return None
    labels = torch.tensor(job.photos.val.labels)
    accuracies = [(evaluation_metrics.score(val_logits, labels).accuracy, fitted.history.last.val.accuracy)]
    for seed in range(job.arguments.seed + 1, job.arguments.seed + job.arguments.seeds):
        accuracies.append(accuracies_of_seed(job, foundation, mode, start, seed))
        job.say(f"  seed {seed}: {accuracies[-1][0]:.1%}")
    of_kept, of_last = (evaluation_metrics.spread(values).to_record() for values in zip(*accuracies, strict=True))
    # The last epoch's accuracy on a holdout says nothing of the validation photos.
    return {"kept": of_kept, "last": None if job.arguments.select == "holdout" else of_last}


def accuracies_of_seed(job: Job, foundation: Foundation, mode: str, start: Start, seed: int) -> tuple[float, float]:
    """The accuracy of the kept epoch on the validation photos, and of the last one on what the epoch is chosen on."""
    network = starting_network(job, seed)
    steps = ["frozen", mode] if mode == "finetune" and job.recipe.head_first else [mode]
    for step in steps:
        if step != steps[0]:
            apply_temperature(network.fc, start.temperature)  # as the head was that the run itself started from
        fitted = fit_mode(network, foundation, step, run_of(job, step, seed, lambda epoch: None))
    accuracy = fitted.kept.val.accuracy
    if job.chosen_on is not job.photos.val:
        accuracy = evaluation_metrics.score(val_logits_of(job, network), foundation.val.labels).accuracy
    return accuracy, fitted.history.last.val.accuracy


def metrics_of(job: Job, network: ResNet, fitted: FitResult, val_logits: Tensor) -> dict[str, Any]:
    """How good the model is on the validation photos, and what it took."""
    history = fitted.history
    labels = torch.tensor(job.photos.val.labels)
    report = evaluation_metrics.report(val_logits, labels)
    last = evaluation_metrics.share(round(history.last.val.accuracy * len(labels)), len(labels))
    cleaned = job.photos.cleaned
    is_other = 0 < len(cleaned) < len(labels)
    return {
        "kept": report.score.to_record() | {"epoch": fitted.kept.number},
        "last": None if job.arguments.select == "holdout" else last | {"epoch": history.last.number},
        "cleaned": evaluation_metrics.score(val_logits[cleaned], labels[cleaned]).to_record() if is_other else None,
        "selected_on": SELECTED_ON[job.arguments.select],
        **report.details(),
        "epochs": len(history.epochs),
        "seconds": history.seconds,
        "parameters": {
            "total": count_parameters(network, trainable=False),
            "trainable": count_parameters(network, trainable=True),
        },
    }


def data_metrics(job: Job, foundation: Foundation) -> dict[str, Any]:
    """What the starting network says of the photos, whatever is trained: what it knows by itself, and of how many."""
    learned, val = foundation.learned.computed, foundation.val.computed
    own_head = zero_shot_head(job.weights, job.arguments.arch, job.photos.class_names)
    zero_shot = None
    if own_head is not None:
        logits = logits_of(own_head.to(job.context.device), val)
        zero_shot = evaluation_metrics.score(logits, val.labels).to_record()
    points = learning_curve(learned, val, FAST, seed=job.arguments.seed, device=job.context.device)
    return {
        "zero_shot": zero_shot,
        "learning_curve": [
            {"per_class": point.per_class, "photos": point.photos, "accuracies": list(point.accuracies)}
            for point in points
        ],
        "enough_data": enough_data(points),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted and taken up again


def checkpoint(job: Job, mode: str) -> Checkpoint:
    """Where a mode's progress is kept, and the fingerprint of all that decides how it ends."""
    decides = {
        "mode": mode,
        "recipe": asdict(job.recipe),
        "architecture": job.arguments.arch,
        "weights": [job.weights.name, job.weights.digest],
        "photos": [job.photos.digest, job.photos.split, job.photos.class_names, job.photos.excluded],
        "select": job.arguments.select,
        "seeds": job.arguments.seeds,
        "seed": job.arguments.seed,
    }
    fingerprint = training_checkpoint.fingerprint(decides)
    if fingerprint != job.context.from_first(fingerprint):
        raise TrainingError("the photos or the weights here are not those of the first process: copy them")
    return Checkpoint(job.run_folder.checkpoint(mode), fingerprint)


def space_needed(job: Job, modes: Sequence[str]) -> int:
    """Bytes on the disk: a model of each mode, and two checkpoints with weights, momentum and the best weights each."""
    size = 4 * count_all_parameters(job.arguments.arch, len(job.photos.class_names))
    learns_all = "finetune" in modes or not job.recipe.cached_features
    return size * (len(modes) + (6 if learns_all else 0))


def finished_earlier(job: Job, mode: str, checkpoint: Checkpoint) -> Classifier | None:
    """The model of a mode, if it is what this very run would train again: finished, or in its place already."""
    found = None
    if job.arguments.resume and job.context.is_first:
        folders = [folder for folder in model_places(job, mode) if run_of_folder(folder) == checkpoint.fingerprint]
        with suppress(ModelFolderError, WeightsError):  # damaged: it is trained again
            found = Classifier.from_pretrained(folders[0], device="cpu") if folders else None
    return job.context.from_first(found)


def model_places(job: Job, mode: str) -> list[Path]:
    """Where the model of a mode may be: finished by this run, or in its place."""
    return [job.run_folder.model(mode), job.arguments.output / mode]


def run_of_folder(folder: Path) -> str | None:
    """The fingerprint of the run that wrote a model; None where there is no model, or none that can be read."""
    with suppress(ModelFolderError, WeightsError):
        return read_config(folder).run
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def config_of(job: Job, mode: str, checkpoint: Checkpoint) -> ClassifierConfig:
    """What the model folder tells of the model, but for how good it is."""
    photos = job.photos
    counts = {"train": job.learned.counts(photos.class_names), "val": photos.val.counts(photos.class_names)}
    if job.chosen_on is not photos.val:
        counts["holdout"] = job.chosen_on.counts(photos.class_names)
    return ClassifierConfig(
        architecture=job.arguments.arch,
        label_names=photos.class_names,
        preprocessing=job.recipe.preprocessing,
        version=antbee.__version__,
        mode=mode,
        recipe=job.recipe.flat(mode),
        data=DataInfo.listing(
            [(skipped.file, skipped.reason) for skipped in photos.skipped],
            photos.excluded,
            name=photos.name,
            **counts,
            split=photos.split,
            digest=photos.digest,
        ),
        weights=WeightsInfo(name=job.weights.name, digest=job.weights.digest, base_model=job.weights.base_model),
        seed=job.arguments.seed,
        run=checkpoint.fingerprint,
    )


def write_model(job: Job, mode: str, outcome: Outcome, history: History) -> None:
    """A complete Hub repository, which takes its place when the whole run has ended."""
    config = outcome.config
    with job.run_folder.writing(mode) as folder:
        outcome.classifier.save_pretrained(folder)
        (folder / "history.json").write_text(json.dumps(history.to_records(), indent=1) + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(config.to_json()), "utf-8")
        (folder / "figures").mkdir()
        for name, figure in figures_of(job, outcome, history).items():
            figure.save(folder / "figures" / f"{name}.png")


def place(job: Job, outcomes: Sequence[Outcome]) -> None:
    """Puts the models in their places, both together, and says where they and those before them are."""
    if not job.context.is_first:
        return
    arguments = job.arguments
    with job.signals.whole():
        placed = place_models(
            arguments.output, job.run_folder, replace=arguments.replace, is_stand_in=bool(job.notices)
        )
        job.run_folder.clear()
    job.say(box(job.notices))
    if placed.kept:
        told = (
            f"{placed.kept} To put the new ones in place: --restore {next(iter(placed.folders.values())).parent.name}"
        )
        job.say(box([told]))
    for folder in placed.folders.values():
        job.say(f"models    {folder}")
    say_versions(arguments.output, placed.put_aside)
    job.say(f"see them  {shlex.join([*command_name('app').split(), *app_words(job, placed)])}")


def say_versions(output: Path, newest: Path | None) -> None:
    """Says which models are kept beside those in place, and how to go back to them."""
    if known := versions(output):
        name = known[0].name if newest is None else newest.name
        where = [] if output == home() / "outputs" else ["--output", str(output)]
        print(f"versions  {len(known)} in {output / VERSIONS}, kept until you delete them")
        print(f"go back   {shlex.join([*command_name('train').split(), '--restore', name, *where])}", flush=True)


def restore(output: Path, name: str) -> None:
    """Puts the models of a version in their places."""
    placed = versions.restore(output, name)
    for folder in placed.folders.values():
        print(f"models    {folder}")
    say_versions(output, placed.put_aside)


def figures_of(job: Job, outcome: Outcome, history: History) -> dict[str, Image.Image]:
    """The pictures of a model folder, by name."""
    config = outcome.config
    drawn = {
        "batch": sample_batch(job, str(config.mode)),
        "curves": plots.learning_curves({str(config.mode): history.to_records()}),
        "confusion": plots.confusion_matrix(config.metrics.confusion, config.label_names),
        "photos": plots.accuracy_by_photos([point.model_dump() for point in config.metrics.learning_curve]),
    }
    wrong = ~right_answers(job, outcome)
    confidence = outcome.val_logits.softmax(1).max(1).values
    surest = [position for position in confidence.argsort(descending=True).tolist() if wrong[position]]
    if surest:
        drawn["mistakes"] = answers_grid(job, surest[:MISTAKES_FIGURE], [outcome])
    return drawn


def answers_grid(job: Job, positions: Sequence[int], outcomes: Sequence[Outcome]) -> Image.Image:
    """Validation photos, each with what every outcome answers."""
    photos = ImageLoader(job.photos.val, job.recipe.preprocessing, loading=LoaderOptions(cache=job.cache))
    ((images, labels),) = photos.batches([torch.tensor(positions)])
    names = job.photos.class_names
    tiles = []
    for image, label, position in zip(job.recipe.preprocessing.unnormalise(images), labels, positions, strict=True):
        lines = [f"is: {names[label]}"]
        for outcome in outcomes:
            shares = outcome.val_logits[position].softmax(0)
            mode = f"{outcome.config.mode}: " if len(outcomes) > 1 else ""
            lines.append(f"{mode}{names[int(shares.argmax())]} {float(shares.max()):.0%}")
        tiles.append(plots.Tile(image, "\n".join(lines)))
    return plots.grid(tiles, columns=6)


def compare_in_folders(job: Job, outcomes: Sequence[Outcome]) -> None:
    """Writes into the models' folders how the modes compare; a card that somebody changed stays as it is."""
    compared = [COMPARISON_COLUMNS, *comparison(outcome.config for outcome in outcomes)]
    apart = positions_apart(job, outcomes)
    for outcome in outcomes:
        folder = next((place for place in model_places(job, str(outcome.config.mode)) if place.is_dir()), None)
        if folder is None:  # somebody took it away while the other mode was trained
            continue
        differences = folder / "figures" / "differences.png"
        if apart and not differences.exists():  # it is there where nothing was trained anew
            answers_grid(job, apart[:MISTAKES_FIGURE], outcomes).save(differences)
        path = folder / "README.md"
        written = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        card = model_card(outcome.config.to_json(), compared, modes_differ(job, outcomes))
        if written != card and without_comparison(written) == without_comparison(card):
            beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            beside.write_text(card, "utf-8")
            beside.replace(path)


def right_answers(job: Job, outcome: Outcome) -> Tensor:
    """Which validation photos are answered right: bool (N,)."""
    return outcome.val_logits.argmax(1) == torch.tensor(job.photos.val.labels)


def positions_apart(job: Job, outcomes: Sequence[Outcome]) -> list[int]:
    """The validation photos that two modes answer differently; none where there is one mode."""
    if len(outcomes) < 2:
        return []
    first, second = (outcome.val_logits.argmax(1) for outcome in outcomes)
    return [int(position) for position in (first != second).nonzero()[:, 0]]


def modes_differ(job: Job, outcomes: Sequence[Outcome]) -> str:
    """Whether the modes' results differ by more than chance, in a sentence; nothing where there is one mode."""
    if len(outcomes) < 2:
        return ""
    first, second = (right_answers(job, outcome) for outcome in outcomes)
    found = evaluation_metrics.difference(first, second)
    names = [str(outcome.config.mode) for outcome in outcomes]
    return (
        f"Of {found.count} validation photos {found.first_alone} are right with {names[0]} alone and "
        f"{found.second_alone} with {names[1]} alone: "
        + ("a difference that chance hardly explains" if found.is_significant else "no more than chance explains")
        + f" (McNemar's exact test, p = {found.p:.2g})."
        + (" Each answers with the epoch that is best on these photos." if job.arguments.select == "val" else "")
    )


def sample_batch(job: Job, mode: str) -> Image.Image:
    """The grid that shows what a mode learns from, at full size, with class names."""
    recipe, seed = job.recipe, job.arguments.seed
    augmentation = recipe.augmentation(mode)
    if augmentation is not None:
        augmentation = replace(augmentation, sizes=(recipe.preprocessing.crop,))
    photos = ImageLoader(
        job.learned, recipe.preprocessing, augmentation, seed=seed, loading=LoaderOptions(cache=job.cache)
    )
    positions = shuffled_batches(len(photos), BATCH_FIGURE, seed, 1)[:1]
    ((images, labels),) = photos.batches(positions, epoch=1)
    shown = recipe.preprocessing.unnormalise(images)
    titles = [job.photos.class_names[label] for label in labels]
    return plots.grid([plots.Tile(image, title) for image, title in zip(shown, titles, strict=True)])


# ---------------------------------------------------------------------------------------------------------------------
# What is said


def describe(job: Job) -> None:
    """Says what the run starts from."""
    photos, device = job.photos, job.context.device
    with_names = [f"{len(split)} {name}" for name, split in (("train", photos.train), ("val", photos.val))]
    what = {"cuda": torch.cuda.get_device_name, "cpu": lambda _: f"{torch.get_num_threads()} threads"}
    job.say(box(job.notices))
    job.say(f"photos    {printable(photos.root)}: {' + '.join(with_names)} ({photos.split})")
    for name, count in photos.train.counts(photos.class_names).items():
        job.say(f"          {printable(name)}: {count} train, {photos.val.counts(photos.class_names)[name]} val")
    for skipped in photos.skipped:
        job.say(f"skipped   {printable(skipped.file)}: {printable(skipped.reason)}")
    if photos.leaked:
        job.say(
            f"warning   {photos.leaked} of the {len(photos.val)} validation photos are, byte for byte, among those to "
            f"learn from, so scores will look too good: `{command_name('check')} {printable(photos.root)}` names them"
        )
    if photos.excluded:
        job.say(f"excluded  {len(photos.excluded)} files, by {job.arguments.exclude}")
    if job.chosen_on is not photos.val:
        job.say(f"set aside {len(job.chosen_on)} of the training photos, to choose the epoch on")
    if not job.recipe.balanced and (found := unbalanced(job.learned.counts(photos.class_names))):
        largest, smallest = found
        job.say(
            f"warning   {printable(largest)} has over {UNBALANCED} times the photos of "
            f"{printable(smallest)}, which will be found less often: --balance weighs them the same"
        )
    job.say(
        f"network   {job.arguments.arch}, weights: {job.weights.name}; a new head for {len(photos.class_names)} classes"
    )
    job.say(f"device    {device}" + (f", {what[device.type](device)}" if device.type in what else ""))
    job.say(f"recipe    {job.recipe.name}, {job.recipe.precision}, seed {job.arguments.seed}")


def printable(name: object) -> str:
    """A name from somebody's folder, as a line of a terminal can show it."""
    return one_line(str(name), longest=4096)


def epoch_line(epoch: Epoch) -> str:
    """An epoch in a line."""
    phases = (("train", epoch.train), ("val", epoch.val))
    results = "   ".join(f"{name} loss {phase.loss:.3f} accuracy {phase.accuracy:6.1%}" for name, phase in phases)
    seconds = epoch.train.seconds + epoch.val.seconds
    return f"  epoch {epoch.number:2}   lr {epoch.learning_rate:.5f}   {results}   {seconds:6.1f} s"


def conclude(job: Job, outcomes: Sequence[Outcome]) -> None:
    """Says how good the modes are, how they compare and what to do next."""
    configs = [outcome.config for outcome in outcomes]
    job.say("\n" + aligned([COMPARISON_COLUMNS, *comparison(configs)]))
    job.say(SELECTION_SENTENCES[job.arguments.select].format(count=len(job.photos.val)))
    job.say(modes_differ(job, outcomes))
    for line in conclusions(configs):
        job.say(line)


SELECTION_SENTENCES = {
    "val": "(the kept epoch is the best on the {count} photos it is scored on; the last is not chosen)",
    "holdout": "(the kept epoch was chosen on photos set aside from training; the {count} photos were looked at once)",
    "last": "(the last epoch was kept: the {count} photos decided nothing)",
}


def app_words(job: Job, placed: Placement) -> list[str]:
    """What app.py needs to be told to find the models and the photos."""
    arguments = job.arguments
    in_place = placed.kept is None and arguments.output == home() / "outputs"
    models = [] if in_place else [str(folder) for folder in placed.folders.values()]
    photos = [] if arguments.data in (None, "drawn") else ["--data", arguments.data]
    return [*models, *photos]


def box(notices: Sequence[str], width: int = 100) -> str:
    """Notices in a frame that nobody overlooks; nothing where there are none."""
    lines = [line for notice in notices for line in wrap(notice, width - 4)]
    return (
        "\n".join(["", "#" * width, *(f"# {line:{width - 4}} #" for line in lines), "#" * width, ""]) if lines else ""
    )


if __name__ == "__main__":
    errors.run(
        main,
        bad_input=(DataError, WeightsError, DeviceError, TrackerError, OutputError),
        faults=(DownloadError, WeightsUnreachableError, TrainingError),
        stopped="stopped: the same command with --resume goes on where it stopped",
    )
