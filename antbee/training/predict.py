"""Predictions for many photos: written as they come, resumed, and shared by several processes; antbee.predict_files."""

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from antbee.data.listing import SkippedFile
from antbee.data.paths import local_paths
from antbee.errors import InputError
from antbee.models.classifier import BATCH_SIZE, Classifier
from antbee.models.device import choose_device
from antbee.models.outputs import Output, in_order, make_folder, one_for_each
from antbee.models.predict import FilePrediction, load_classifier, photos_of, predict_batches, write_heat_map
from antbee.models.tables import CSV, JSON_LINES, PARQUET
from antbee.text import counted, printable
from antbee.training.distributed import DistributedContext, is_restarted, joined

PATIENCE = timedelta(days=7)  # that a process which is done with its share waits for the others
NAMED = 3  # files of each reason that a message names
MOST_REASONS = 20
SAME = 0.02  # difference of a probability on another device or in another batch, at most


def predict_files(
    model: Classifier | str | Path,
    paths: str | Path | Iterable[str | Path],
    *,
    csv: str | Path | None = None,
    json: str | Path | None = None,
    parquet: str | Path | None = None,
    explain: str | Path | None = None,
    resume: bool = False,
    follow_links: bool = False,
) -> list[FilePrediction]:
    """Predicts image files and all images below folders; one entry per file, in their order.

    As `iter_predictions`, all at once.
    """
    files = {"csv": csv, "json": json, "parquet": parquet, "explain": explain}
    return list(iter_predictions(model, paths, **files, resume=resume, follow_links=follow_links))


def iter_predictions(
    model: Classifier | str | Path,
    paths: str | Path | Iterable[str | Path],
    *,
    csv: str | Path | None = None,
    json: str | Path | None = None,
    parquet: str | Path | None = None,
    explain: str | Path | None = None,
    resume: bool = False,
    follow_links: bool = False,
) -> "PredictionRun":
    """Predicts image files and all images below folders, a batch at a time, while it is iterated over.

    `model` is a classifier, a model folder or a Hub id. A path may be a pattern such as photos/*.jpg. An unreadable
    file gets the reason instead of a prediction. `csv`, `json` (a JSON object a line) and `parquet` are files to write,
    with a row for each photo as soon as it is predicted, `explain` a folder for a heat map of each. Their folders are
    made. With `resume` photos that have a prediction in these files already are left out, and the rest is added. Links
    out of a folder are followed where they lead into the Hub's cache and, with `follow_links`, anywhere. Under torchrun
    the processes share the work, each iterates over its share, and the first writes all rows, in order. Raises
    InputError for files that can't be written, DataError for a folder without images, an address and a pattern that
    nothing fits, and what `Classifier.from_pretrained` raises.
    """
    files = [(csv, CSV), (json, JSON_LINES), (parquet, PARQUET)]
    outputs = [Output(Path(path), kind) for path, kind in files if path is not None]
    sources = local_paths([paths] if isinstance(paths, str | Path) else paths)
    maps = Path(explain) if explain is not None else None
    run = PredictionRun(model, sources, outputs, maps, resume=resume, follow_links=follow_links)
    run.check()
    return run


@dataclass
class Summary:
    """How many photos were asked for and answered, and why the others were not; printed, it is one line."""

    photos: int = 0
    answered: int = 0
    missing: dict[str, list[FilePrediction]] = field(default_factory=dict)  # by kind of reason: the first of them
    counts: dict[str, int] = field(default_factory=dict)  # all of them

    def __str__(self) -> str:
        """As in "2 of 3 photos answered"."""
        return f"{self.answered:,} of {counted(self.photos, 'photo')} answered"

    def add(self, result: FilePrediction) -> None:
        """Counts a result."""
        if result.prediction is not None:
            self.answered += 1
            return
        self._count(re.sub(r" \(.*\)", "", str(result.error)), 1, [result])

    def merge(self, other: "Summary") -> None:
        """Counts what another process has counted; `photos` is the same in all of them."""
        self.answered += other.answered
        for kind, count in other.counts.items():
            self._count(kind, count, other.missing[kind])

    def _count(self, kind: str, count: int, results: Sequence[FilePrediction]) -> None:
        if kind not in self.counts and len(self.counts) >= MOST_REASONS:
            kind = "other reasons"
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.missing[kind] = [*self.missing.get(kind, []), *results][:NAMED]

    @property
    def reasons(self) -> str:
        """Why photos were not answered, the most frequent reason first, as in "a.jpg: not there"."""
        ordered = sorted(self.counts, key=lambda kind: -self.counts[kind])
        return "; ".join(self._reason(kind) for kind in ordered)

    def _reason(self, kind: str) -> str:
        named, count = self.missing[kind], self.counts[kind]
        files = ", ".join(printable(result.path) for result in named)
        others = f" and {count - len(named):,} more" if count > len(named) else ""
        in_full = {result.error for result in named}
        return f"{files}{others}: {in_full.pop() if len(in_full) == 1 else kind}"


@dataclass
class PredictionRun:
    """Predictions, made while it is iterated over; `summary` counts them, in the first process those of all."""

    model: Classifier | str | Path
    sources: Sequence[Path]  # photos and folders
    outputs: Sequence[Output]
    heat_maps: Path | None
    resume: bool = False
    follow_links: bool = False
    summary: Summary = field(default_factory=Summary)
    left_out: list[SkippedFile] = field(default_factory=list)  # below the folders: no photos, as far as can be seen
    is_first: bool = True  # whether this is the first of several processes, which speaks for all

    def check(self) -> None:
        """Makes the folders to write to. Raises InputError where that can't be done."""
        if self.resume and not self.outputs:
            raise InputError("--resume adds to a file of predictions: name it with --csv, --json or --parquet")
        if len({output.path.resolve() for output in self.outputs}) < len(self.outputs):
            raise InputError("two tables would be written to one file: name a file for each")
        for output in self.outputs:
            output.check()
        if self.heat_maps is not None:
            make_folder(self.heat_maps)

    def __iter__(self) -> Iterator[FilePrediction]:
        device = self.model.device if isinstance(self.model, Classifier) else choose_device("auto")
        with joined(device, patience=PATIENCE) as process:
            self.is_first = process.is_first
            listings = process.from_first(
                [photos_of(source, follow_links=self.follow_links) for source in self.sources]
            )
            files = [file for listing in listings for file in listing.files]
            self.left_out = [entry for listing in listings for entry in listing.skipped]
            with process.in_turn():
                classifier = load_classifier(self.model, device=str(process.device))
            self.outputs = [
                Output(output.path, output.format, classifier.config.label_names) for output in self.outputs
            ]
            done = process.from_first(self._start(classifier, files) if process.is_first else set())
            self.summary = Summary(len(files))
            yield from self._predict(classifier, [file for file in files if str(file) not in done], process)
            self._finish(files, done, process)

    def _start(self, classifier: Classifier, files: Sequence[Path]) -> AbstractSet[str]:
        """The names of the photos with a prediction in any output, which all have these rows then, and no others."""
        if not self.outputs:
            return frozenset()
        if not (self.resume or is_restarted()):
            for output in self.outputs:
                output.discard()
            return frozenset()
        for output in self.outputs:
            _refuse_another_model(classifier, output)
        done = set().union(*(output.answered() for output in self.outputs))
        for output in self.outputs:
            output.collect(one_for_each(done, in_order(self.outputs, files)))
        return done

    def _predict(
        self, classifier: Classifier, files: Sequence[Path], process: DistributedContext
    ) -> Iterator[FilePrediction]:
        """Predicts this process's share of the files, in the same batches as one process."""
        starts = range(BATCH_SIZE * process.rank, len(files), BATCH_SIZE * process.count)
        batches = (files[start : start + BATCH_SIZE] for start in starts)
        predicted = predict_batches(classifier, batches, processes=process.local_count)
        bar = partial(tqdm, desc="photos", leave=False, delay=0.5, disable=None if process.is_first else True)
        with ExitStack() as stack:
            opened = [
                (output, stack.enter_context(output.opened(process.rank, process.count))) for output in self.outputs
            ]
            progress = stack.enter_context(bar(total=sum(len(files[start : start + BATCH_SIZE]) for start in starts)))
            for results in predicted:
                for result in results:
                    self.summary.add(result)
                    if self.heat_maps is not None and result.prediction is not None:
                        write_heat_map(classifier, result.path, self.heat_maps)
                for output, file in opened:
                    output.append(file, results)
                progress.update(len(results))
                yield from results

    def _finish(self, files: Sequence[Path], done: AbstractSet[str], process: DistributedContext) -> None:
        """Collects what the processes have counted and written."""
        own, *others = process.gathered(self.summary)
        if not process.is_first:
            return
        self.summary = own
        for other in others:
            own.merge(other)
        own.answered += sum(str(file) in done for file in files)
        for output in self.outputs:
            if 1 < process.count > (there := len(output.parts())):
                raise InputError(
                    f"{output.path} was not written: the parts of {there} of {process.count} processes are here; name "
                    "a file in a folder that all machines share, with --resume to keep the parts"
                )
            if output.parts():
                output.collect(in_order([output], files))


def _refuse_another_model(classifier: Classifier, output: Output) -> None:
    """Raises InputError where the first photo in the output gets another prediction now than it has there."""
    for before in (row for rows in output.rows() for row in rows):
        if before.prediction is None or not before.path.is_file():
            continue
        now, then = classifier.predict(before.path), before.prediction
        differences = [now.probabilities[name] - value for name, value in then.probabilities.items()]
        # The threshold is the model's own, to the last digit.
        if max(map(abs, differences)) > SAME or now.threshold != then.threshold:
            raise InputError(
                f"{output.path} was written with another model, or {printable(before.path)} is another photo now: "
                "name another file, or leave out --resume, which writes it anew"
            )
        return
