"""The log of a run, at its start, after every epoch and at its end, as lines of text."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import torch

from antbee.data import quality
from antbee.data.download import folder_named
from antbee.data.images import size_of, uses_a_sixteenth
from antbee.data.listing import summary as left_out
from antbee.data.quality import UNBALANCED, unbalanced
from antbee.evaluation.report import aligned, comparison, conclusions
from antbee.installation import command_name, home
from antbee.models import versions
from antbee.models.config import ClassifierConfig
from antbee.text import counted, printable
from antbee.training.history import Epoch

if TYPE_CHECKING:
    from antbee.training.context import RunContext

SELECTION_SENTENCES = {
    "val": "(the kept epoch is the best on the {photos} it is scored on; the last is not chosen)",
    "holdout": "(the kept epoch was chosen on photos set aside from training; the {photos} to score it were used once)",
    "last": "(the last epoch was kept: the {photos} decided nothing)",
}


def start_lines(context: "RunContext") -> list[str]:
    """Photos, skipped files, warnings, weights, device and recipe."""
    dataset, settings, device = context.dataset, context.settings, context.distributed.device
    splits = {name: split.counts(dataset.class_names) for name, split in dataset.splits.items()}
    details = {"cuda": torch.cuda.get_device_name, "cpu": lambda _: counted(torch.get_num_threads(), "thread")}
    detail = f", {details[device.type](device)}" if device.type in details else ""
    sizes = " + ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    fit = context.recipe.preprocessing.fit
    ways = f", --fit {fit}" * (fit != "crop") + ", --no-mirror" * (not context.recipe.mirror)
    return [
        box(context.notices),
        f"photos    {printable(dataset.root)}: {sizes} ({dataset.split})",
        *(
            f"          {printable(name)}: {', '.join(f'{counts[name]} {split}' for split, counts in splits.items())}"
            for name in dataset.class_names
        ),
        *(f"skipped   {printable(line)}" for line in left_out(dataset.skipped)),
        *warnings(context),
        f"network   {context.backbone}, weights: {context.weights.name}; {head_line(context)}",
        f"device    {device}{detail}",
        f"recipe    {context.recipe.name}, {context.recipe.precision}, seed {settings.seed}{ways}",
    ]


def head_line(context: "RunContext") -> str:
    """Where the head comes from."""
    names, earlier = context.dataset.class_names, context.weights.model
    if earlier is None:
        is_own = context.recipe.own_head and context.own_head is not None
        head = "head from the weights' own" if is_own else "new head"
        return f"a {head} for {len(names)} classes"
    kept, dropped = earlier.kept(names), earlier.dropped(names)
    new = [name for name in names if name not in kept]
    parts = [f"head: {len(kept)} of {len(names)} classes from {context.weights.name}"]
    parts += [f"{word} {some(found)}" for word, found in (("new:", new), ("left out:", dropped)) if found]
    return "; ".join(parts)


def some(names: Sequence[str], most: int = 5) -> str:
    """A few names, and how many others there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def warnings(context: "RunContext") -> list[str]:
    """Warnings about the data, and changes to the training split."""
    dataset, lines = context.dataset, []
    if dataset.leaked:
        lines.append(
            f"warning   {dataset.leaked} of the {counted(len(dataset.val), 'validation photo')} are, byte for byte, "
            f"among the training photos, so scores will look too good: `{command_name('check')} "
            f"{printable(dataset.root)}` names them"
        )
    if dataset.test_leaked:
        lines.append(
            f"warning   {dataset.test_leaked} of the {counted(len(dataset.test), 'test photo')} are, byte for byte, "
            "among the training or validation photos, so their score will look too good"
        )
    absent = [printable(name) for name, count in dataset.test.counts(dataset.class_names).items() if not count]
    if len(dataset.test) and absent:
        lines.append(f"warning   no test photos of {', '.join(absent)}: the test accuracy is that of the other classes")
    lines += photo_warnings(context)
    lines += seen_lines(context)
    if dataset.excluded:
        lines.append(f"excluded  {counted(len(dataset.excluded), 'file')}, by {context.settings.exclude}")
    if context.selection is not dataset.val:
        lines.append(f"set aside {len(context.selection)} of the training photos, to choose the epoch on")
    counts = context.train.counts(dataset.class_names)
    if not context.recipe.balanced and (found := unbalanced(counts)):
        largest, smallest = map(printable, found)
        lines.append(
            f"warning   {largest} has over {UNBALANCED} times the photos of {smallest}, which will be found less "
            "often: --balance weighs them the same"
        )
    return lines


def photo_warnings(context: "RunContext") -> list[str]:
    """Warnings about what the network sees of the training photos."""
    dataset, preprocessing = context.dataset, context.recipe.preprocessing
    check = f"`{command_name('check')} {printable(dataset.root)}` names them"
    lines = []
    excluded = {dataset.root / name for name in dataset.excluded}
    if pairs := [pair for pair in dataset.contradictory if not excluded & set(pair)]:
        one, other = (printable(path.relative_to(dataset.root)) for path in pairs[0])
        lines.append(
            f"warning   {counted(len(pairs), 'training photo')} with the bytes of a photo of another class, such as "
            f"{other} and {one}: {check}"
        )
    paths = quality.sample(context.train.paths)
    of = "training photos" if len(paths) == len(context.train) else "training photos that were looked at"
    seen = quality.median_seen(filter(None, map(size_of, paths)), preprocessing)
    if preprocessing.fit == "crop" and seen < quality.LEAST_SEEN:
        lines.append(
            f"warning   of half of the training photos the centre crop sees {seen:.0%} of the area or less: "
            "--fit squash trains on the whole of them"
        )
    if narrow := sum(map(uses_a_sixteenth, paths)):
        lines.append(
            f"warning   {narrow} of {len(paths)} {of} have 16 bits but use a sixteenth of their range or less, so they "
            "are nearly black to the network: scale their values to the whole range, or export them with 8 bits"
        )
    return lines


def seen_lines(context: "RunContext") -> list[str]:
    """Warnings about photos that the earlier model was trained on, by their names."""
    dataset, name, lines = context.dataset, context.weights.name, []
    for kind, split in (("validation", dataset.val), ("test", dataset.test)):
        if seen := context.seen_before(split):
            photos = counted(len(split), f"{kind} photo")
            lines.append(
                f"warning   {seen} of the {photos} have the names of photos that {name} was trained on, so "
                "scores will look too good: give the --seed of its training"
            )
    if seen := context.seen_before(context.train):
        lines.append(
            f"warning   {name} was trained on {counted(seen, 'photo')} of these, so probabilities and the threshold of "
            "neither are fitted to photos that it knows; from --weights imagenet they would not be"
        )
    return lines


def epoch_line(epoch: Epoch) -> str:
    """The metrics of an epoch in a line."""
    splits = (("train", epoch.train), ("val", epoch.val))
    results = "   ".join(f"{name} loss {one.loss:.3f} accuracy {one.accuracy:6.1%}" for name, one in splits)
    seconds = epoch.train.seconds + epoch.val.seconds
    return f"  epoch {epoch.number:2}   lr {epoch.learning_rate:.5f}   {results}   {seconds:6.1f} s"


def result_lines(context: "RunContext", configs: Sequence[ClassifierConfig], difference: str) -> list[str]:
    """The metrics of the trained modes and their comparison."""
    return [
        "\n" + aligned(comparison(configs)),
        *selection_lines(context.settings.select, configs, len(context.dataset.val)),
        *([difference] if difference else []),
        *conclusions(configs),
    ]


def selection_lines(select: str, configs: Sequence[ClassifierConfig], photos: int) -> list[str]:
    """The sentence on what the kept epochs were chosen on; none where they are the last ones all the same."""
    measured = [config.metrics for config in configs if config.metrics]
    if select == "val" and all(metrics.kept.epoch == metrics.epochs for metrics in measured):
        return []
    return [SELECTION_SENTENCES[select].format(photos=counted(photos, "photo"))]


def time_line(seconds: float) -> str:
    """How long a whole run took."""
    return f"took      {seconds:.0f} s in all"


def placement_lines(context: "RunContext", placed: versions.Placement) -> list[str]:
    """The folders of the models, earlier versions, and the next command."""
    settings, dataset = context.settings, context.dataset
    boxed = list(context.notices)
    if placed.kept:
        version = next(iter(placed.folders.values())).parent.name
        boxed.append(f"{placed.kept} To put the new ones in place: {restore_command(settings.output, version)}")
    in_place = placed.kept is None and settings.output == home() / "outputs"
    models = [] if in_place else [str(folder) for folder in placed.folders.values()]
    is_in_data = context.place == folder_named(home() / "data", dataset.name)  # the page finds the models' own photos
    photos = [] if is_in_data else ["--data", str(context.place)]
    return [
        box(boxed),
        *(f"models    {folder}" for folder in placed.folders.values()),
        *version_lines(settings.output, placed.put_aside),
        f"see them  {shlex.join([*command_name('app').split(), *models, *photos])}",
    ]


def restored_lines(output: Path, placed: versions.Placement) -> list[str]:
    """The models that are in place once a version has been restored, and how to go back."""
    lines = []
    for mode, accuracy in versions.read_version(output).accuracies.items():
        measured = "no accuracy is recorded" if accuracy is None else f"{accuracy:.1%} of its validation photos right"
        lines.append(f"in place  {output / mode}: {measured}")
    return [*lines, *version_lines(output, placed.put_aside)]


def version_lines(output: Path, newest: Path | None) -> list[str]:
    """The number of earlier versions, and the command that restores one."""
    if not (known := versions.list_versions(output)):
        return []
    name = known[0].name if newest is None else newest.name
    return [
        f"versions  {len(known)} in {output / versions.VERSIONS}, kept until you delete them",
        f"restore   {restore_command(output, name)}",
    ]


def restore_command(output: Path, version: str) -> str:
    """The command that puts the models of a version in place."""
    where = [] if output == home() / "outputs" else ["--output", str(output)]
    return shlex.join([*command_name("train").split(), "--restore", version, *where])


def box(notices: Sequence[str], width: int = 100) -> str:
    """Notices in a conspicuous frame; empty without notices."""
    lines = [line for notice in notices for line in wrap(notice, width - 4)]
    if not lines:
        return ""
    return "\n".join(["", "#" * width, *(f"# {line:{width - 4}} #" for line in lines), "#" * width, ""])
