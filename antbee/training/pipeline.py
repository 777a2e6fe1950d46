"""The pipeline of a run: data -> starting weights -> frozen -> finetune -> calibrate -> evaluate -> write."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from antbee.data.folder import ImageDataset
from antbee.models.backbone import count_all_parameters
from antbee.models.classifier import Classifier
from antbee.models.config import MODES, Mode, ModelFolderError, read_config, read_history
from antbee.models.device import choose_device
from antbee.models.metrics import Metrics
from antbee.models.tensors import WeightsError
from antbee.models.versions import Replace, RunFolder, check_output, place_models
from antbee.training import output, summary
from antbee.training.checkpoint import Checkpoint, check_space, deferring_signals, fingerprint
from antbee.training.context import RunContext, Settings, prepare
from antbee.training.distributed import is_restarted, joined
from antbee.training.history import History
from antbee.training.mirroring import mirror_hint
from antbee.training.recipe import TrainingError
from antbee.training.resuming import nothing_to_resume
from antbee.training.steps import (
    HeadInitialisation,
    StartingFeatures,
    calibrate_and_evaluate,
    starting_features,
    train_mode,
    val_logits_of,
)
from antbee.training.tracking import check_tracker, empty_epochs


@dataclass(frozen=True)
class TrainedModel:
    """A trained mode: its classifier, the history of its training, its folder, and its validation logits."""

    classifier: Classifier
    history: History
    folder: Path
    val_logits: Tensor  # float32 (N, classes), on the CPU

    def __repr__(self) -> str:
        """Its mode, accuracy and folder."""
        return f"<TrainedModel {self.mode}: accuracy {self.metrics.accuracy:.1%}, {self.folder}>"

    @property
    def metrics(self) -> Metrics:
        """Its metrics on the validation images; `metrics.accuracy` is that of the kept epoch."""
        assert self.classifier.config.metrics is not None
        return self.classifier.config.metrics

    @property
    def mode(self) -> str:
        """ "frozen" or "finetune"."""
        return str(self.classifier.config.mode)


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: a model for each requested mode."""

    frozen: TrainedModel | None
    finetune: TrainedModel | None
    notices: tuple[str, ...]  # substitutes for images or weights that could not be downloaded

    def __repr__(self) -> str:
        """The modes with their accuracy."""
        return f"<TrainResult {', '.join(f'{model.mode} {model.metrics.accuracy:.1%}' for model in self.models)}>"

    @property
    def models(self) -> list[TrainedModel]:
        """The trained modes, in the order in which they were trained."""
        return [model for model in (self.frozen, self.finetune) if model is not None]

    @property
    def best(self) -> Classifier:
        """The classifier with the higher validation accuracy; if they are equal, the one trained later."""
        return max(reversed(self.models), key=lambda model: model.metrics.accuracy).classifier


def train(
    data: str | Path | ImageDataset | None = None,
    *,
    weights: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    fit: Literal["crop", "squash", "pad"] | None = None,
    mode: Literal["both", "frozen", "finetune"] = "both",
    recipe: Literal["fast", "tutorial"] = "fast",
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    select: Literal["val", "holdout", "last"] = "val",
    balance: bool = False,
    mirror: bool | None = None,
    folds: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    exclude: str | Path | None = None,
    allow_bad: bool = False,
    follow_links: bool = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] | None = None,
    compile: bool = False,  # noqa: A002 - the flag's name
    workers: int | None = None,
    output: str | Path | None = None,
    replace: Replace = "unless-worse",
    resume: bool = False,
    track: Literal["trackio", "tensorboard", "jsonl"] | None = None,
    log: Callable[[str], None] = print,
) -> TrainResult:
    """Trains a backbone in one or both ways of transfer learning, and writes a model folder for each.

    The arguments are the flags of scripts/train.py:

    data        what `load_folder` takes, such as a folder of class folders, or an ImageDataset; None: ants and bees
    weights     "imagenet", "random", a tag of timm's, a model folder or Hub id to go on from, or a file; None: imagenet
    backbone    a network of timm; None: the model's own or resnet18, EfficientNet-Lite0 if its weights can't be had
    image_size  pixels a side; None: the size that the weights were trained with
    fit         how a photo becomes a square: "crop" cuts out its centre, "squash" and "pad" keep the whole of it; None:
                as the weights were trained, which is "crop" for most
    mode        "frozen", "finetune" or "both"
    recipe      "fast" or "tutorial"; `epochs`, `batch_size`, `lr` and `folds` (of the calibration) override it
    select      the epoch to keep is the best on "val", the best on a "holdout" of train/, or the "last"
    balance     weigh the classes equally in the loss
    mirror      mirror half of the augmented photos; False where left and right tell the classes apart; None: as the
                model that training goes on from, else True
    seeds       train with this many seeds, for mean and spread; `seed` is the first, and gives the model
    exclude     a file that lists images not to train on
    allow_bad   train even if over a tenth of a class is damaged
    follow_links  follow links to photos and folders anywhere, not only in the data folder and the Hub's cache
    device      "auto", "cpu", "cuda" or "mps"; `precision` and `compile` apply to training there
    workers     threads that decode images
    output      gets frozen/ and finetune/; models there are kept in versions/ if `replace` allows new ones
    resume      continue an interrupted run in `output`
    track       also log the epochs to a tracker
    log         called with each line of the log

    Raises InputError for arguments or images that can't be used, TrainingError where training diverges, a batch does
    not fit into memory or the disk is full.
    """
    given = {name: value for name, value in locals().items() if name not in ("data", "log") and value is not None}
    return run(data, Settings.checked(**given), log)


def run(data: str | Path | ImageDataset | None, settings: Settings, log: Callable[[str], None]) -> TrainResult:
    """The same with validated settings."""
    started = time.monotonic()
    check_output(settings.output, settings.modes)
    if is_restarted():
        settings = settings.model_copy(update={"resume": True})
    with deferring_signals() as signals, joined(choose_device(settings.device)) as distributed:
        if settings.track is not None and distributed.is_first:
            check_tracker(settings.track)
        with RunFolder(settings.output).locked() if distributed.is_first else nullcontext():
            context = prepare(data, settings, distributed, signals, log)
            for line in summary.start_lines(context):
                context.say(line)
            models = train_modes(context)
            folders = finish(context, models, started)
    placed = [replace(model, folder=folders[model.mode]) for model in models]
    by_mode = {model.mode: model for model in placed}
    return TrainResult(by_mode.get("frozen"), by_mode.get("finetune"), context.notices)


def train_modes(context: RunContext) -> list[TrainedModel]:
    """Trains the requested modes, and writes their model folders into the run folder."""
    wanted = context.settings.modes
    # Fine-tuning that starts from a trained head needs the frozen mode first, even if only finetune is requested.
    modes = [mode for mode in MODES if mode in wanted or (mode == "frozen" and context.recipe.head_first)]
    checkpoints = {mode: checkpoint_of(context, mode) for mode in modes}
    if context.distributed.is_first:
        clear_the_way(context, checkpoints)
    features = starting_features(context)
    trained: dict[str, TrainedModel] = {}
    start = HeadInitialisation()
    for mode in modes:
        trained[mode] = finish_mode(features, mode, start, checkpoints[mode], write=mode in wanted)
        if context.recipe.head_first:
            start = HeadInitialisation.of(trained[mode].classifier)
    return [trained[mode] for mode in wanted]


def clear_the_way(context: RunContext, checkpoints: Mapping[Mode, Checkpoint]) -> None:
    """Removes the files of an interrupted run, unless this run resumes it. Raises TrainingError if the disk is full."""
    settings = context.settings
    check_space(settings.output, space_needed(context, list(checkpoints)))
    if settings.resume:
        is_finished = any(finished_folder(context, mode, checkpoint) for mode, checkpoint in checkpoints.items())
        if not is_finished and not context.run_folder.is_interrupted:
            context.say(f"\n{nothing_to_resume(context, list(checkpoints))}")
        return
    if context.run_folder.is_interrupted:
        context.say(f"\nAn interrupted run in {settings.output} is discarded; --resume would have continued it.")
    context.run_folder.clear()
    if settings.track == "jsonl":
        empty_epochs(settings.output)


def space_needed(context: RunContext, modes: Sequence[str]) -> int:
    """Disk space in bytes: a model of each mode, and two checkpoints with weights, momentum and the best weights."""
    size = 4 * count_all_parameters(context.backbone, len(context.dataset.class_names))
    trains_all = "finetune" in modes or not context.recipe.cached_features
    return size * (len(modes) + (6 if trains_all else 0))


def finish_mode(
    features: StartingFeatures, mode: Mode, start: HeadInitialisation, checkpoint: Checkpoint, *, write: bool
) -> TrainedModel:
    """Trains, calibrates, evaluates and writes a mode, unless an interrupted run has finished it."""
    context = features.context
    if (finished := finished_earlier(context, mode, checkpoint)) is not None:
        context.say(f"\n{mode}: finished before")
        return finished
    context.say(f"\n{mode}")
    network, fitted = train_mode(features, mode, start, checkpoint)
    config = output.config_of(context, mode, checkpoint.fingerprint)
    classifier, val_logits = calibrate_and_evaluate(features, mode, start, network, fitted, config)
    if write and context.distributed.is_first:
        figures = output.figures_of(context, classifier, val_logits, fitted.history)
        with context.run_folder.writing(mode) as folder:
            output.write_model_folder(classifier, folder, fitted.history, figures)
    return TrainedModel(classifier, fitted.history, context.run_folder.model(mode), val_logits)


def finish(context: RunContext, models: Sequence[TrainedModel], started: float) -> dict[str, Path]:
    """Logs the results and moves the models of all modes to the output folder; returns their folders by mode.

    `started` is the time of `time.monotonic` at the start of the run.
    """
    settings = context.settings
    logits = {model.mode: model.val_logits for model in models}
    configs = [model.classifier.config for model in models]
    for line in summary.result_lines(context, configs, output.difference_sentence(context, logits)):
        context.say(line)
    if not context.distributed.is_first:
        return {mode: settings.output / mode for mode in settings.modes}
    if len(models) == 2 and (hint := mirror_hint(context, *(model.classifier for model in models))):
        context.say(hint)
    output.write_comparison(context, {model.mode: model.folder for model in models}, configs, logits)
    with context.signals.deferred():
        placed = place_models(
            settings.output, context.run_folder, replace=settings.replace, is_stand_in=bool(context.notices)
        )
        context.run_folder.clear()
    context.say(summary.time_line(time.monotonic() - started))
    for line in summary.placement_lines(context, placed):
        context.say(line)
    return dict(placed.folders)


# ---------------------------------------------------------------------------------------------------------------------
# Resuming


def checkpoint_of(context: RunContext, mode: str) -> Checkpoint:
    """The checkpoint of a mode, with the fingerprint of everything that decides its result."""
    dataset, settings = context.dataset, context.settings
    decides = {
        "mode": mode,
        "recipe": asdict(context.recipe),
        "architecture": context.backbone,
        "weights": [context.weights.name, context.weights.digest],
        "photos": [dataset.digest, dataset.split, dataset.class_names, dataset.excluded],
        "select": settings.select,
        "seeds": settings.seeds,
        "seed": settings.seed,
    }
    found = fingerprint(decides)
    if found != context.distributed.from_first(found):
        raise TrainingError("the photos or the weights here are not those of the first process: copy them")
    return Checkpoint(context.run_folder.checkpoint(mode), found, decides)


def finished_folder(context: RunContext, mode: str, checkpoint: Checkpoint) -> Path | None:
    """The model folder that an interrupted or ended run with this fingerprint wrote for a mode, if there is one."""
    for folder in (context.run_folder.model(mode), context.settings.output / mode):
        with suppress(ModelFolderError, WeightsError):  # none there
            if read_config(folder).run == checkpoint.fingerprint:
                return folder
    return None


def finished_earlier(context: RunContext, mode: str, checkpoint: Checkpoint) -> TrainedModel | None:
    """The model that training the mode would give again, if a resumed run finds it; else None."""
    found = None
    if (
        context.settings.resume
        and context.distributed.is_first
        and (folder := finished_folder(context, mode, checkpoint))
    ):
        try:
            history = History.from_records(read_history(folder))
            found = folder, Classifier.from_pretrained(folder, device="cpu"), history
        except (ModelFolderError, WeightsError) as error:
            context.say(f"\n{mode} is trained again: {error}")
    found = context.distributed.from_first(found)
    if found is None:
        return None
    folder, classifier, history = found
    return TrainedModel(classifier, history, folder, val_logits_of(context, classifier.network))
