"""python scripts/benchmark.py [--against tutorial] [--full] [--only FIGURE ...] [--json FILE]

Measures the speed and the memory of antbee on this machine: the bare network as a baseline, training in both modes
relative to it, predictions, and start-up times. Every figure is measured in a process of its own, in rounds, so that a
slow minute of the machine affects all figures alike. Compare figures of one run, never of two.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # lets the script run from a clone, from any folder

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import antbee
from antbee import errors
from antbee.data.download import hymenoptera_folder
from antbee.data.images import open_photo
from antbee.data.loading import GPUImageLoader, ImageLoader, LoaderOptions, choose_loader
from antbee.installation import home
from antbee.models.backbone import Network, freeze_backbone, fuse_conv_bn, head_of
from antbee.models.classifier import BATCH_SIZE
from antbee.models.config import MODES, ClassifierConfig, Mode
from antbee.models.device import Precision, autocast, choose_device, choose_precision
from antbee.models.predict import photos_of
from antbee.models.weights import build_network, load_starting_weights
from antbee.training import distributed, features, modes, trainer
from antbee.training.recipe import FAST, TUTORIAL

CLASSES = ("ants", "bees")
Row = tuple[str, float, str]  # name, value, unit
Values = dict[str, dict[str, Any]]  # "figure: name" -> unit, and the values of all rounds


@dataclass(frozen=True)
class Bench:
    """The data, weights and device of all measurements."""

    data: Path
    weights: str
    device: torch.device

    @property
    def precisions(self) -> list[Precision]:
        """float32, and the precision of `fast` on this device if it is another."""
        return list(dict.fromkeys(("float32", choose_precision(FAST.precision, self.device))))

    @property
    def image(self) -> Tensor:
        """Noise in the size of an image (1, 3, 224, 224)."""
        return torch.randn(1, 3, 224, 224, device=self.device)

    def network(self, *, tuned: bool = False) -> Network:
        """ResNet-18 with the starting weights, on the device; `tuned`: as `fast` fine-tunes it."""
        weights = load_starting_weights(self.weights, "resnet18")
        network = build_network("resnet18", len(CLASSES), weights, seed=0).to(self.device)
        if tuned:
            trainer.set_training_mode(network.to(memory_format=FAST.layout), FAST.batch_norm)
        return network

    def classifier(self, mode: Mode) -> antbee.Classifier:
        """An untrained classifier."""
        return antbee.Classifier(self.network(), ClassifierConfig("resnet18", CLASSES, mode=mode))

    def images(self, mode: Mode) -> ImageLoader | GPUImageLoader:
        """All images (frozen) or the training images (finetune), loaded as by `fast`."""
        dataset = antbee.load_folder(self.data)
        options = replace(LoaderOptions.for_device(self.device), layout=FAST.layout)
        split = dataset.all if mode == "frozen" else dataset.train
        return choose_loader(ImageLoader(split, FAST.preprocessing, FAST.augmentation(mode), options=options))


def seconds(bench: Bench, work: Callable[..., object], *arguments: object) -> float:
    """The wall time of a call in seconds, until the GPU has finished too."""
    wait = (lambda: None) if bench.device.type == "cpu" else partial(torch.accelerator.synchronize, bench.device)
    wait()
    started = time.perf_counter()
    work(*arguments)
    wait()
    return time.perf_counter() - started


def bare_pass(network: Network, images: Tensor) -> None:
    """A forward pass and, in training mode, a backward pass."""
    with torch.inference_mode(not network.training):
        logits = network(images)
    if network.training:
        network.zero_grad()
        labels = torch.arange(len(images), device=images.device) % len(CLASSES)
        functional.cross_entropy(logits.float(), labels).backward()


def bare_seconds(
    bench: Bench, network: Network, count: int, precision: Precision = "float32", sizes: Sequence[int] = (224,)
) -> float:
    """Seconds per image of bare passes on random batches (count, 3, size, size): the mean over the sizes."""
    is_fast = next(network.parameters()).is_contiguous(memory_format=FAST.layout)
    layout = FAST.layout if is_fast else torch.contiguous_format
    medians = []
    for size in sizes:
        # A single batch would stay in the CPU's caches, unlike the batches of a real run.
        batches = torch.randn(4, count, 3, size, size, device=bench.device)
        turns = itertools.cycle([batch.contiguous(memory_format=layout) for batch in batches])
        times = (seconds(bench, bare_pass, network, images) for images in turns)
        with autocast(precision, bench.device):
            *_, once = itertools.islice(times, 3)  # warms up
            medians.append(statistics.median(itertools.islice(times, max(3, min(50, round(1 / once))))))
    return statistics.mean(medians) / count


def compare(bench: Bench, row: str, count: int, work: Callable[[], object], bare: Callable[[], float]) -> Iterator[Row]:
    """The images/s of a call that processes `count` images, and their ratio to those of the bare network."""
    before = bare()
    spent = seconds(bench, work) / count
    yield row, 1 / spent, "images/s"
    # The bare network is timed before and after, since the machine's speed drifts.
    yield f"{row}, of the bare network", 100 * (before + bare()) / 2 / spent, "%"


def passes(bench: Bench, *, training: bool) -> Iterator[Row]:
    """Passes of the bare network by batch size: as torchvision builds it, and as `fast` uses it."""
    plain = bench.network().train(training)
    tuned = bench.network(tuned=True) if training else fuse_conv_bn(plain, bench.image)
    for count in (4, 16) if training else (1, 4, 16, 32):
        yield f"plain, batch {count}", 1 / bare_seconds(bench, plain, count), "images/s"
        for precision in bench.precisions:
            yield f"fast, {precision}, batch {count}", 1 / bare_seconds(bench, tuned, count, precision), "images/s"


def frozen(bench: Bench) -> Iterator[Row]:
    """Feature extraction from files, and from the image cache as in a run, where the check has decoded every image."""
    network, images, context = bench.network(), bench.images("frozen"), distributed.DistributedContext(bench.device)
    work = partial(features.compute_features, network, images, context, what="")
    bare = partial(bare_seconds, bench, fuse_conv_bn(network, bench.image), features.evaluation_batch(bench.device))
    for source in ("from the disk", "from memory"):
        yield from compare(bench, source, len(images), work, bare)


def finetune(bench: Bench) -> Iterator[Row]:
    """Gradient steps on cached images."""
    images, context = bench.images("finetune"), distributed.DistributedContext(bench.device)
    for _ in images.batches([torch.arange(len(images))]):  # fills the image cache
        pass
    fit = partial(modes.fit_mode_without_validation, mode="finetune", seed=0, context=context)
    bare = partial(bare_seconds, bench, bench.network(tuned=True), FAST.finetune.batch_size, sizes=FAST.finetune_sizes)
    for precision in bench.precisions:
        work = partial(fit, bench.network(tuned=True), images, recipe=replace(FAST, precision=precision))
        count = FAST.finetune.epochs * len(images)
        yield from compare(bench, f"{precision}, steps", count, work, partial(bare, precision))


def fast(bench: Bench, seeds: int = 1, **options: Any) -> Iterator[Row]:
    """`antbee.train` from the data folder to the model folders."""
    options |= {"weights": bench.weights, "device": str(bench.device), "log": lambda line: None}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as output:
            started = time.perf_counter()
            models = antbee.train(bench.data, output=output, seed=seed, **options).models
            yield "wall time", time.perf_counter() - started, "s"
        for model in models:
            yield f"{model.mode} training and evaluation", model.metrics.seconds, "s"
            for epoch, score in (("best", model.metrics.kept), ("last", model.metrics.last)):
                if score is not None:
                    yield f"{model.mode}, {epoch} accuracy", 100 * score.accuracy, "%"


def processes(bench: Bench) -> Iterator[Row]:
    """Fine-tuning with one process and with two, of one thread each."""
    epochs = []
    for count in ("1", "2"):
        with tempfile.TemporaryDirectory() as output:
            torchrun = str(Path(sys.executable).with_name("torchrun"))
            command = [torchrun, "--standalone", "--nproc-per-node", count]
            command += [str(ROOT / "scripts" / "train.py"), "--data", str(bench.data), "--weights", bench.weights]
            command += ["--output", output, "--device", "cpu", "--precision", "float32"]
            command += ["--mode", "finetune", "--epochs", "1"]
            subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=True)
            epochs += json.loads((Path(output) / "finetune" / "history.json").read_text())
        yield f"an epoch on {count}", epochs[-1]["train_seconds"], "s"
    one, two = epochs
    yield "speed-up", one["train_seconds"] / two["train_seconds"], "times"
    yield "validation loss, difference", abs(one["val_loss"] - two["val_loss"]), "nats"


def tutorial(bench: Bench, epochs: int = 2) -> Iterator[Row]:
    """The tutorial's two runs; the first epoch warms up."""
    for mode in MODES:
        times, accuracies = zip(*tutorial_epochs(bench, mode, epochs), strict=True)
        yield f"{mode}, an epoch times 25", 25 * statistics.mean(times[1:]), "s"
        yield f"{mode}, best accuracy of {epochs} epochs", 100 * max(accuracies), "%"
        yield f"{mode}, last accuracy of {epochs} epochs", 100 * accuracies[-1], "%"


def tutorial_epochs(bench: Bench, mode: Mode, epochs: int) -> Iterator[tuple[float, float]]:
    """Seconds and validation accuracy of each epoch of the tutorial, in a loop as plain as its own:
    https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    """
    torch.manual_seed(0)
    to_tensor = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    steps = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *to_tensor],
        "val": [transforms.Resize(256), transforms.CenterCrop(224), *to_tensor],
    }
    datasets = {split: ImageFolder(bench.data / split, transforms.Compose(steps[split])) for split in steps}
    loaders = {split: DataLoader(dataset, batch_size=4, shuffle=True) for split, dataset in datasets.items()}
    network = bench.network()
    if mode == "frozen":
        freeze_backbone(network)
    schedule, trained = TUTORIAL.schedule(mode), head_of(network) if mode == "frozen" else network
    optimiser = torch.optim.SGD(trained.parameters(), lr=schedule.learning_rate, momentum=schedule.momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for _ in range(epochs):
        started, correct = time.perf_counter(), 0
        for split, loader in loaders.items():
            network.train(split == "train")
            for batch, batch_labels in loader:
                inputs, labels = batch.to(bench.device), batch_labels.to(bench.device)
                with torch.set_grad_enabled(split == "train"):
                    logits = network(inputs)
                    loss = functional.cross_entropy(logits, labels)
                if split == "train":
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                else:
                    correct += int((logits.argmax(1) == labels).sum())
        scheduler.step()
        yield time.perf_counter() - started, correct / len(datasets["val"])


def photos(bench: Bench) -> Iterator[Row]:
    """The time that a photo takes before it reaches the network, on one thread."""
    split = antbee.load_folder(bench.data).train
    loader = ImageLoader(split, FAST.preprocessing, replace(FAST, finetune_sizes=()).augmentation("finetune"))
    for name, work in (("decode", loader.picture), ("crop and mirror", partial(loader.crop, epoch=1))):
        yield name, 1000 * seconds(bench, list, map(work, range(len(split)))) / len(split), "ms"


def predict(bench: Bench) -> Iterator[Row]:
    """Predictions for one photo and for a folder, relative to decoding and the bare network."""
    classifier, paths = bench.classifier("frozen"), antbee.load_folder(bench.data).val.paths
    network = fuse_conv_bn(classifier.network, bench.image)
    image = torch.randn(1, 3, 224, 224, device=bench.device).contiguous(memory_format=FAST.layout)
    times, baselines = [], []
    for path in (*paths[:5], *paths):  # the first five warm up
        times.append(1000 * seconds(bench, classifier.predict, path))
        baselines.append(1000 * (seconds(bench, open_photo, path) + seconds(bench, bare_pass, network, image)))
    median = statistics.median(times[5:])
    yield "one photo, p50", median, "ms"
    yield "one photo, p95", statistics.quantiles(times[5:], n=20)[-1], "ms"
    yield "one photo, over decoding and bare forward", median / statistics.median(baselines[5:]), "times"
    with tempfile.TemporaryDirectory() as folder:
        model, csv = Path(folder) / "model", Path(folder) / "predictions.csv"
        classifier.save_pretrained(model)
        work = partial(antbee.predict_files, model, bench.data, csv=csv)
        bare = partial(bare_seconds, bench, network, BATCH_SIZE)
        yield from compare(bench, "a folder", len(photos_of(bench.data).files), work, bare)


def start(bench: Bench) -> Iterator[Row]:
    """Start-up times, each of a new process."""
    for _ in range(3):  # in turn: they differ by less than the machine's speed drifts
        for code in ("import torch, torchvision", "import antbee", "from antbee import Classifier"):
            yield code, seconds(bench, partial(subprocess.run, [sys.executable, "-c", code], cwd=ROOT, check=True)), "s"
    started = time.perf_counter()
    with page_server(bench):
        yield "the page", time.perf_counter() - started, "s"


def page(bench: Bench) -> Iterator[Row]:
    """The times that a visitor waits: for the predictions of both modes, and for the page in a new Chromium."""
    from playwright.sync_api import sync_playwright

    from antbee.ui import LoadedModel
    from antbee.ui.tabs.classify import classify

    models = [LoadedModel(mode, bench.classifier(mode), (), "") for mode in MODES]
    first, *paths = map(open_photo, antbee.load_folder(bench.data).val.paths[:21])
    classify(first, models, None)  # warms up
    for photo in paths:
        yield "predictions and heat maps of both modes", 1000 * seconds(bench, classify, photo, models, None), "ms"
    with page_server(bench) as address, sync_playwright() as driver:
        for _ in range(3):
            with driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]) as browser:
                tab, started = browser.new_page(), time.perf_counter()
                tab.goto(address)
                tab.get_by_role("tab").first.wait_for()
                yield "first load, until the page is usable", time.perf_counter() - started, "s"
                tab.locator(".verdict h2").nth(1).wait_for()
                yield "first load, until the first example is predicted", time.perf_counter() - started, "s"
                sizes = tab.evaluate("performance.getEntries().flatMap(entry => entry.transferSize ?? [])")  # bytes
                yield "first load, received", sum(sizes) / 1e6, "MB"
                yield "first load, requests", len(sizes), "requests"


@contextmanager
def page_server(bench: Bench) -> Iterator[str]:
    """The address of the page with untrained models of both modes, once it is served."""
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            bench.classifier(mode).save_pretrained(Path(folder) / mode)
        command = [sys.executable, ROOT / "app.py", *Path(folder).iterdir(), "--data", bench.data]
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as server:
            try:
                yield next(line for line in server.stdout or () if line.startswith("page ")).split()[-1]
            finally:
                server.terminate()


FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "forward": partial(passes, training=False),
    "step": partial(passes, training=True),
    "frozen": frozen,
    "finetune": finetune,
    "fast frozen": partial(fast, mode="frozen"),
    "fast finetune": partial(fast, mode="finetune"),
    "fast both": fast,
    "fast both without calibrating": partial(fast, folds=0),
    "fast both in float32": partial(fast, precision="float32"),
    "photos": photos,
    "predict": predict,
    "start": start,
    "page": page,
    "tutorial": tutorial,
    "tutorial in full": partial(tutorial, epochs=25),
    "seeds": partial(fast, seeds=5, folds=0),
    "processes": processes,
}
ONCE = ("tutorial in full", "seeds", "processes")  # in the first round only


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description="Measure the speed and the memory of antbee on this machine.", allow_abbrev=False
    )
    parser.add_argument("--against", choices=("tutorial",), help="also time the tutorial: 25 times an epoch")
    parser.add_argument("--full", action="store_true", help="with --against: all 25 epochs; also seeds and processes")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="DIR", help="default: the classic ants and bees")
    parser.add_argument("--weights", default="imagenet", metavar="imagenet|random|FILE", help="default: %(default)s")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values as JSON")
    return parser.parse_args()


def main() -> None:
    """Measures the figures, prints them, and writes them as JSON."""
    arguments = parse_arguments()
    data = arguments.data or hymenoptera_folder(home() / "data")
    bench = Bench(data, arguments.weights, choose_device(arguments.device))
    bench.network()  # downloads the weights, so that no figure includes that
    described = machine(bench)
    print("\n".join(f"{name:13} {value}" for name, value in described.items()), end="\n\n")
    against, full = arguments.against is not None, arguments.full
    extra = {"tutorial": against and not full, "tutorial in full": against and full, "seeds": full, "processes": full}
    figures = arguments.only or [figure for figure in FIGURES if extra.get(figure, figure != "page")]
    values = measure(bench, figures, arguments.rounds)
    print("\n".join(report(values)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": described, "values": values}, indent=1) + "\n")
        print(f"written to {arguments.json}")


def machine(bench: Bench) -> dict[str, Any]:
    """Versions, hardware and inputs, by name."""
    on_cuda, cpu = bench.device.type == "cuda", torch.cpu.get_capabilities().get("cpu_name", "unknown")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "antbee": antbee.__version__,
        "torch": torch.__version__,
        "processor": torch.cuda.get_device_name(bench.device) if on_cuda else cpu,
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "precision": bench.precisions[-1],
    } | {name: str(value) for name, value in vars(bench).items()}


def measure(bench: Bench, figures: Sequence[str], rounds: int) -> Values:
    """The values of all rounds, each figure measured in a new process."""
    values: Values = {}
    for number, figure in itertools.product(range(rounds), figures):
        if number and figure in ONCE:
            continue
        print(f"round {number + 1} of {rounds}: {figure}", file=sys.stderr, flush=True)
        with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
            for name, value, unit in pool.submit(measure_figure, figure, bench).result():
                values.setdefault(f"{figure}: {name}", {"unit": unit, "values": []})["values"].append(value)
    return values


def measure_figure(figure: str, bench: Bench) -> list[Row]:
    """The rows of a figure, and the peak memory of this process, without that of a GPU."""
    rows = list(FIGURES[figure](bench))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return [*rows, ("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, "MB")]


def report(values: Values) -> Iterator[str]:
    """All figures with n, median, minimum and maximum, and the speed-up of `fast` over the tutorial if it was timed."""
    yield f"{'figure':60} {'n':>2} {'median':>9} {'min':>9} {'max':>9}"
    for name, entry in values.items():
        rounds = entry["values"]
        numbers = (statistics.median(rounds), min(rounds), max(rounds))
        yield f"{name:60} {len(rounds):2} {' '.join(f'{number:9.2f}' for number in numbers)} {entry['unit']}"
    medians = {name: statistics.median(entry["values"]) for name, entry in values.items()}
    for tutorial_figure, figure in itertools.product(("tutorial", "tutorial in full"), FIGURES):
        rows = [f"{tutorial_figure}: {mode}, an epoch times 25" for mode in MODES if {mode, "both"} & {*figure.split()}]
        spent, ours = sum(medians.get(row, 0) for row in rows), medians.get(f"{figure}: wall time")
        if spent and ours:
            yield f"{figure:30} {ours:6.1f} s   tutorial {spent:7.1f} s   {spent / ours:5.1f} times faster"


if __name__ == "__main__":
    errors.run(main)
