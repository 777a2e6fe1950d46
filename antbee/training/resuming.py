"""Why there is nothing to resume: what differs between a run and that of the models in its output folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from antbee.models.config import ClassifierConfig, Mode, ModelFolderError, read_config
from antbee.models.tensors import WeightsError
from antbee.training import output
from antbee.training.checkpoint import differing_flags
from antbee.training.context import RunContext
from antbee.training.steps import SELECTED_ON


def nothing_to_resume(context: RunContext, modes: Sequence[Mode]) -> str:
    """A sentence: nothing is resumed, why the models in the output folder are not those of this run, what to do."""
    start = f"nothing to resume in {context.settings.output}: "
    if (found := _last_model(context, modes)) is None:
        return start + "starting anew"
    folder, config = found
    mode = config.mode or modes[-1]
    flags = differing_flags(_decides(config), _decides_now(context, mode)) or ["flags"]
    advice = f"starting anew; to go on from that model instead: --weights {folder}"
    if flags == ["--epochs"]:
        ended, wanted = config.recipe.get("epochs"), context.recipe.schedule(mode).epochs
        return (
            f"{start}the run of {folder} has ended, whose learning rates were planned for --epochs {ended}, so one of "
            f"{wanted} is another run: {advice} --epochs N"
        )
    return f"{start}{folder} is of a run with other {', '.join(flags)}: {advice}"


def _last_model(context: RunContext, modes: Sequence[Mode]) -> tuple[Path, ClassifierConfig] | None:
    """The model in the output folder of the last of these modes that has one, and its config."""
    for mode in reversed(modes):
        folder = context.settings.output / mode
        try:
            config = read_config(folder)
        except (ModelFolderError, WeightsError):  # none there, or one that nothing can be said of
            continue
        if config.run is not None:
            return folder, config
    return None


def _decides(config: ClassifierConfig) -> dict[str, Any]:
    """What decided a model, as far as its config says, by the names of `pipeline.checkpoint_of`."""
    metrics = config.metrics
    seeds = len(metrics.seeds.kept.values) if metrics and metrics.seeds else 1
    return _described(config, metrics.selected_on if metrics else None, seeds)


def _decides_now(context: RunContext, mode: Mode) -> Mapping[str, Any]:
    """The same of a model that a run is going to train."""
    settings = context.settings
    return _described(output.config_of(context, mode, "this run"), SELECTED_ON[settings.select], settings.seeds)


def _described(config: ClassifierConfig, selected_on: str | None, seeds: int) -> dict[str, Any]:
    data = config.data
    return {
        "architecture": config.architecture,
        "weights": [config.weights.name, config.weights.digest],
        "photos": [data.digest, data.split, config.label_names, data.excluded, data.excluded_digest],
        "recipe": {**config.recipe, "crop": config.preprocessing.crop, "fit": config.preprocessing.fit},
        "select": selected_on,
        "seeds": seeds,
        "seed": config.seed,
    }
