"""python tests/endurance/fuzz.py [pictures|tensors|configs ...] [--count N] [--seed N] [--keep DIR]

Feeds the gates damaged files, one kind after the other: each must be used, or refused with a reason in one line.
Prints what came of them, the slowest and the memory that they took, and ends with status 1 where anything else
happened; what did it is kept in --keep, named by its seed, and becomes a test. Equal seeds give equal files.
"""

import argparse
import copy
import io
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image

from antbee.data.drawn import draw
from antbee.data.images import DataError, open_photo
from antbee.data.transforms import Preprocessing
from antbee.evaluation.report import comparison, conclusions, metric_rows
from antbee.hub.card import model_card
from antbee.models.config import ClassifierConfig, ModelFolderError, read_config
from antbee.models.detector import DetectorError, KNNDetector, build_detector
from antbee.models.tensors import TensorsError, WeightsError, read_tensors, write_tensors

COUNTS = {"pictures": 100_000, "tensors": 20_000, "configs": 20_000}
LONGEST, MOST_MEMORY = 10.0, 400.0  # seconds for one file; MB beyond what the process took before
BATCH = 500  # files for one process, so that one that dies names few
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


# ---- pictures --------------------------------------------------------------------------------------------------------


@cache
def whole_pictures() -> tuple[bytes, ...]:
    """A picture in every format and kind of pixels that is read, and in some that are not."""
    photo = draw("ants", 0, 64).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [draw("bees", seed, 64).resize(photo.size) for seed in range(3)]
    several: dict[str, Any] = {"save_all": True, "append_images": frames}
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (photo, "JPEG", {}),
        (photo, "JPEG", {"progressive": True, "exif": exif}),
        (photo.convert("L"), "JPEG", {}),
        (photo.convert("CMYK"), "JPEG", {}),
        (photo, "MPO", several),
        *((photo.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        (photo.convert("P"), "PNG", {"transparency": 3, "exif": exif}),
        (photo, "PNG", several),
        (photo, "WEBP", {}),
        (photo.convert("RGBA"), "WEBP", {"lossless": True, "exif": exif}),
        (photo, "WEBP", several),
        (photo, "GIF", {}),
        (photo, "GIF", several),
        *((photo.convert(mode), "BMP", {}) for mode in ("RGB", "L", "P", "1")),
        *((photo.convert(mode), "PPM", {}) for mode in ("RGB", "L", "1")),
        *(
            (photo, "TIFF", {"compression": kind})
            for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        *((photo.convert(mode), "TIFF", {}) for mode in ("RGBA", "CMYK", "L", "P", "1", "F", "I;16", "YCbCr", "LAB")),
        (photo, "TIFF", {"save_all": True, "append_images": [frame.copy() for frame in frames]}),
        (photo, "ICO", {}),
        (photo, "PDF", {}),
    ]
    contents = []
    for picture, kind, options in ways:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        contents.append(file.getvalue())
    return tuple(contents)


def try_picture(content: bytes, folder: Path) -> str:
    """What comes of a picture."""
    try:
        photo = open_photo(io.BytesIO(content))
    except DataError as error:
        return refused(error)
    Preprocessing().cropped(photo)
    return "used"


# ---- files of tensors ------------------------------------------------------------------------------------------------


@cache
def whole_tensors() -> tuple[bytes, ...]:
    """A few tensors, and a bank of features, as files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        named = {"conv1.weight": torch.ones(4, 3, 3, 3), "fc.bias": torch.zeros(2), "steps": torch.tensor(3)}
        write_tensors(path, named)
        few = path.read_bytes()
        labels = torch.tensor([0, 1, 0, 1])
        build_detector(torch.eye(4, 8), labels, ["a.jpg", "b.jpg", "c/ü.jpg", "d"], 0.5).save(path)
        return few, path.read_bytes()


def try_tensors(content: bytes, folder: Path) -> str:
    """What comes of a file of tensors, and of it as a bank."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    try:
        KNNDetector.load(path, feature_count=8, class_count=2)
    except DetectorError as error:
        refused(error)
    try:
        read_tensors(path)
    except TensorsError as error:
        return refused(error)
    return "used"


# ---- configs ---------------------------------------------------------------------------------------------------------


@cache
def whole_configs() -> tuple[bytes, ...]:
    """Configs by antbee with all that it measures, as timm writes them, and as transformers does."""
    score = {"correct": 9, "count": 10, "accuracy": 0.9, "interval": [0.6, 0.98], "loss": 0.3}
    one = {"precision": 0.9, "recall": 0.8, "f1": 0.85}
    full = ClassifierConfig(
        "resnet18",
        ("ants", "bees"),
        version="1.0",
        mode="frozen",
        seed=1,
        recipe={"name": "fast", "epochs": 3, "learning_rate": 0.1, "smallest_crop": 0.35, "mirror": False},
        data={
            "name": "x",
            "train": {"ants": 1, "bees": 2},
            "val": {"ants": 1, "bees": 2},
            "test": {"ants": 1, "bees": 0},
            "hub_id": "user/name",
            "hub_revision": "0" * 40,
            "split": "val/ folder",
            "digest": "0" * 64,
            "skipped": [{"file": "a.gif", "reason": "GIF"}],
            "excluded": ["b.jpg"],
        },
        weights={
            "name": "imagenet",
            "digest": "0" * 64,
            "base_model": "timm/resnet18.tv_in1k",
            "earlier": [{"name": "random"}],
        },
        metrics={
            "kept": score | {"epoch": 3},
            "last": score | {"epoch": 3},
            "selected_on": "val",
            "confusion": [[4, 1], [0, 5]],
            "macro": one,
            "per_class": [one, one],
            "auc": 0.9,
            "calibration_error": 0.1,
            "calibration": {"temperature": 1.2, "folds": 5, "loss_before": 0.5, "error_before": 0.1},
            "neither": {
                "threshold": 0.5,
                "rate": 0.05,
                "val": {"found": 1, "count": 10},
                "foreign": {"noise": {"found": 1, "count": 2}},
                "left_out": None,
            },
            "zero_shot": score,
            "test": score
            | {"macro": one, "per_class": [one, one], "confusion": [[4, 1], [0, 5]], "calibration_error": 0.1},
            "learning_curve": [{"per_class": 5, "photos": 10, "accuracies": [0.5, 0.6]}],
            "enough_data": "no",
            "epochs": 3,
            "seconds": 1.5,
            "parameters": {"total": 10, "trainable": 2},
        },
        run="abc",
        files={"model.safetensors": "0" * 64},
    ).to_json()
    timm = {"architecture": "resnet50", "label_names": ["a", "b"], "num_classes": 2, "crop_pct": 0.95}
    transformers = {
        "architecture": "resnet18",
        "id2label": {"0": "a", "1": "b"},
        "pretrained_cfg": full["pretrained_cfg"],
    }
    return tuple(json.dumps(config).encode() for config in (full, full, full, timm, transformers))


def try_config(content: bytes, folder: Path) -> str:
    """What comes of a config, and of the card that is filled from it."""
    (folder / "config.json").write_bytes(content)
    try:
        config = read_config(folder)
    except (ModelFolderError, WeightsError) as error:
        return refused(error)
    model_card(config.to_json())
    comparison([config])
    conclusions([config])
    if config.metrics:
        metric_rows(config.metrics)
    return "used"


ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2, 10**9, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"), 5e-324),
    *("", " ", "x" * 20_000, "<script>alert(1)</script>", "\u202eb", "\x1b[31m", "\ud800", "../../evil", "imagenet"),
    *([], {}, [[]], [None] * 3, {"": None}, {"__proto__": {}}, [0.5] * 3, ["a"] * 20_000, [[1, 2], [3, 4]]),
)


def changed_values(content: bytes, chance: random.Random) -> bytes:
    """JSON of which values are others, missing, or in each other's place."""
    value = json.loads(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        if not (places := list(places_in(value))):
            break
        holder, key = chance.choice(places)
        match chance.randrange(4):
            case 0:
                del holder[key]
            case 1:
                other_holder, other_key = chance.choice(places)
                try:
                    holder[key] = copy.deepcopy(other_holder[other_key])
                except (IndexError, KeyError):  # it was deleted a moment ago
                    continue
            case _:
                holder[key] = copy.deepcopy(chance.choice(ODD_VALUES))
    return json.dumps(value).encode()


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside of parsed JSON, as where it is and under what."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places_in(value[key])


# ---- damage ----------------------------------------------------------------------------------------------------------


def damaged(content: bytes, others: tuple[bytes, ...], chance: random.Random) -> bytes:
    """The bytes with one to eight kinds of damage."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if not changed:
            break
        place = chance.randrange(len(changed))
        # Headers decide most: half of the damage is done there.
        if chance.random() < 0.5:
            place = chance.randrange(min(len(changed), 256))
        match chance.randrange(7):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.randrange(256)
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + chance.randrange(1, 64)]
            case 4:
                changed[place:place] = changed[place : place + chance.randrange(1, 64)] * chance.choice((1, 2, 1000))
            case 5:
                number = chance.choice(INTERESTING)
                size = max(chance.choice((1, 2, 4, 8)), (number.bit_length() + 7) // 8)
                changed[place : place + size] = number.to_bytes(size, chance.choice(("little", "big")))
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                changed[place:place] = other[start : start + chance.randrange(1, 512)]
    return bytes(changed)


# ---- the loop --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What is damaged, and what comes of it."""

    whole: Callable[[], tuple[bytes, ...]]
    attempt: Callable[[bytes, Path], str]
    values: bool = False  # whether JSON inside is changed by its values as well


KINDS = {
    "pictures": Kind(whole_pictures, try_picture),
    "tensors": Kind(whole_tensors, try_tensors, values=True),
    "configs": Kind(whole_configs, try_config, values=True),
}


def made(kind: str, seed: int) -> bytes:
    """The damaged file of a seed."""
    chance = random.Random(f"{kind}/{seed}")
    whole = KINDS[kind].whole()
    content = chance.choice(whole)
    if KINDS[kind].values and chance.random() < 0.6:
        if kind == "configs":
            return changed_values(content, chance)
        size = int.from_bytes(content[:8], "little")
        header = changed_values(content[8 : 8 + size], chance)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return damaged(content, whole, chance)


def refused(error: Exception) -> str:
    """That a file was refused; what it says has to be a line with a reason in it."""
    text = str(error)
    assert text.strip(), "a refusal without a reason"
    assert len(text) < 3000, f"a refusal of {len(text)} letters"
    return "refused"


@dataclass
class Results:
    """What came of the files of a batch."""

    came: Counter[str]
    slowest: float = 0.0  # seconds
    memory: float = 0.0  # MB beyond what the process took before
    failures: tuple[tuple[int, str], ...] = ()


def batch(job: tuple[str, int, int]) -> Results:
    """Tries the files of the seeds from `first` on, in a process of its own."""
    kind, first, count = job
    warnings.filterwarnings("ignore", module=r"PIL\.")
    torch.set_num_threads(1)
    results = Results(Counter())
    KINDS[kind].whole()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        before = memory()
        for seed in range(first, first + count):
            content = made(kind, seed)
            started = time.perf_counter()
            try:
                came = KINDS[kind].attempt(content, Path(folder))
            except Exception:  # noqa: BLE001 - that none gets here is what is tested
                came = "failed"
                results.failures += ((seed, traceback.format_exc(limit=-4)),)
            results.came[came] += 1
            seconds, grown = time.perf_counter() - started, memory() - before
            results.slowest = max(results.slowest, seconds)
            results.memory = max(results.memory, grown)
            if seconds > LONGEST or grown > MOST_MEMORY:
                results.failures += ((seed, f"{seconds:.1f} s, {grown:.0f} MB"),)
                before = memory()
    return results


def memory() -> float:
    """The most that this process ever took, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Try every kind asked for; end with status 1 where one fails."""
    parser = argparse.ArgumentParser(description="Feed the gates damaged files.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--count", type=int, metavar="N", help=f"files of each kind (default: {told_counts()})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="where failures go")
    arguments = parser.parse_args()
    failed = False
    for kind in arguments.kinds or KINDS:
        count = arguments.count or COUNTS[kind]
        jobs = [
            (kind, first, min(BATCH, arguments.seed + count - first))
            for first in range(arguments.seed, arguments.seed + count, BATCH)
        ]
        total, started = Results(Counter()), time.monotonic()
        # A process that a decoder kills breaks this pool, and says so; multiprocessing's own would wait for ever.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            for results in pool.map(batch, jobs):
                total.came += results.came
                total.slowest = max(total.slowest, results.slowest)
                total.memory = max(total.memory, results.memory)
                for seed, why in results.failures:
                    failed = True
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{kind}-{seed}").write_bytes(made(kind, seed))
                    print(f"{kind} {seed}: {why}", flush=True)
        print(
            f"{kind}: {total.came.total():,} files from seed {arguments.seed}: {dict(total.came)}, slowest "
            f"{total.slowest:.2f} s, +{total.memory:.0f} MB, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    sys.exit(int(failed))


def told_counts() -> str:
    """The default counts in words."""
    return ", ".join(f"{count:,} {kind}" for kind, count in COUNTS.items())


if __name__ == "__main__":
    main()
