"""python scripts/benchmark.py [--against tutorial] [--full] [--json FILE]

Measures the speed and the memory of antbee on this machine: the bare network as a baseline, training in both modes
relative to it, predictions, and start-up times. Every figure is measured in a process of its own, in rounds, so that a
slow minute of the machine affects all figures alike. Compare figures of one run, never of two.

    --against tutorial   also times the tutorial's two runs: an epoch of each, times 25
    --full               trains those 25 epochs to the end, `fast` with five seeds, and on one and on two processes
"""

import argparse
import itertools
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # lets the script run from a clone, from any folder

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet

import antbee
from antbee import errors
from antbee.data import download
from antbee.data.download import folder_named
from antbee.data.folder import ImageDataset, Split, read_folder
from antbee.data.images import open_photo
from antbee.data.loading import GPUImageLoader, ImageLoader, LoaderOptions, choose_loader
from antbee.data.transforms import Augmentation, Preprocessing, pixels_of
from antbee.installation import home
from antbee.models.backbone import build_network, freeze_backbone, fuse_conv_bn
from antbee.models.classifier import Classifier
from antbee.models.config import MODES, ClassifierConfig, Mode
from antbee.models.device import Precision, autocast, choose_device, choose_precision
from antbee.models.predict import BATCH_SIZE
from antbee.models.weights import WeightsUnreachableError, load_starting_weights
from antbee.training import features, modes
from antbee.training.distributed import DistributedContext
from antbee.training.features import evaluation_batch
from antbee.training.modes import Run
from antbee.training.pipeline import TrainedModel
from antbee.training.recipe import FAST, TUTORIAL, Recipe
from antbee.training.trainer import set_training_mode

ROUNDS = 3
SEEDS = 5  # with --full
TUTORIAL_EPOCHS = 25
FORWARD_BATCHES = (1, 4, 16, 32)
STEP_BATCHES = (4, 16)
BATCHES = 4  # that take turns
CLASSES = ("ants", "bees")


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Measure the speed and the memory of antbee on this machine.")
    parser.add_argument("--against", choices=("tutorial",), help="also time the tutorial's two runs")
    parser.add_argument("--full", action="store_true", help="train the tutorial's 25 epochs, and fast with five seeds")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="DIR", help="default: data/hymenoptera_data, or drawn images")
    parser.add_argument("--weights", default="imagenet", metavar="imagenet|random|FILE", help="default: %(default)s")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values as JSON")
    parser.add_argument("--figure", choices=sorted(FIGURES), help=argparse.SUPPRESS)  # of a child process
    return parser.parse_args()


@dataclass(frozen=True)
class Bench:
    """The data, weights and device of all measurements."""

    data: Path
    weights: str
    device: torch.device

    def photos(self) -> ImageDataset:
        """The data set."""
        return read_folder(self.data)

    def network(self) -> ResNet:
        """ResNet-18 with the starting weights, on the device."""
        weights = load_starting_weights(self.weights, "resnet18")
        return build_network("resnet18", len(CLASSES), weights, seed=0).to(self.device)

    def recipe(self) -> Recipe:
        """The recipe `fast` with the precision of this device."""
        return replace(FAST, precision=self.precision)

    @property
    def precision(self) -> Precision:
        """The precision of `fast` on this device."""
        return choose_precision(FAST.precision, self.device)

    @property
    def augmentation(self) -> Augmentation:
        """The random crops of fine-tuning with `fast`."""
        augmentation = FAST.augmentation("finetune")
        assert augmentation is not None
        return augmentation

    def loader(self, split: Split, augmentation: Augmentation | None = None) -> ImageLoader | GPUImageLoader:
        """The images of a split as training loads them."""
        options = replace(LoaderOptions.for_device(self.device), layout=FAST.layout)
        return choose_loader(ImageLoader(split, FAST.preprocessing, augmentation, options=options))

    def batches(self, count: int, size: int = 224) -> Iterator[Tensor]:
        """A few batches of `count` random images on the device, in the memory layout of `fast`.

        A single batch would stay in the CPU's caches, unlike the batches of a real run.
        """
        for batch in torch.randn(BATCHES * count, 3, size, size, device=self.device).split(count):
            yield batch.contiguous(memory_format=FAST.layout)


@dataclass(frozen=True)
class Value:
    """One measurement."""

    name: str
    value: float
    unit: str


def main() -> None:
    """Measures one figure in this process, or each in a process of its own."""
    arguments = parse_arguments()
    if arguments.figure:
        bench = Bench(arguments.data, arguments.weights, choose_device(arguments.device))
        values = [*FIGURES[arguments.figure](bench), Value("peak memory", peak_memory(bench.device), "MB")]
        print(json.dumps([asdict(value) for value in values]))
        return
    arguments.data, arguments.weights = local_inputs(arguments)
    print(describe(arguments))
    measured = measure(arguments)
    print(table(measured))
    for line in conclusions(measured):
        print(line)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(arguments), "values": measured}, indent=1) + "\n")
        print(f"written to {arguments.json}")


def local_inputs(arguments: argparse.Namespace) -> tuple[Path, str]:
    """A data folder and weights on the disk, so that no figure includes a download."""
    folder, weights = arguments.data, arguments.weights
    if folder is None:
        folder = folder_named(home() / "data", "hymenoptera_data") or download.drawn_folder(home() / "data")
    try:
        load_starting_weights(weights, "resnet18")
    except WeightsUnreachableError:
        weights = "random"
    return folder, weights


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The values of all rounds, by "figure: name"."""
    chosen = arguments.only or [name for name in FIGURES if name not in EXTRA]
    if arguments.against and not arguments.only:
        chosen += ["tutorial in full" if arguments.full else "tutorial"]
    if arguments.full and not arguments.only:
        chosen += ["seeds", "processes"]
    measured: dict[str, dict[str, Any]] = {}
    for number in range(arguments.rounds):
        for figure in chosen:
            if number and figure in ONCE:
                continue
            print(f"round {number + 1} of {arguments.rounds}: {figure}", file=sys.stderr, flush=True)
            for value in measure_in_process(figure, arguments):
                entry = measured.setdefault(f"{figure}: {value['name']}", {"unit": value["unit"], "values": []})
                entry["values"].append(value["value"])
    return measured


def measure_in_process(figure: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures a figure in a new process."""
    argv = ["--figure", figure, "--data", arguments.data, "--weights", arguments.weights, "--device", arguments.device]
    command = [sys.executable, __file__, *map(str, argv)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# The bare network: the baseline


def forward(bench: Bench) -> Iterator[Value]:
    """Forward passes of the bare network by batch size: as torchvision builds it, and fused as antbee uses it."""
    network = bench.network().eval()
    fused = fuse_conv_bn(network)
    for size in FORWARD_BATCHES:
        plain = [batch.contiguous() for batch in bench.batches(size)]
        yield Value(f"plain, batch {size}", rate(bench, forward_pass(network, plain), size), "images/s")
        for how in precisions(bench):
            yield Value(f"fused, {how}, batch {size}", forward_rate(bench, fused, size, how), "images/s")


def precisions(bench: Bench) -> list[Precision]:
    """float32, and the precision of `fast` if it is another."""
    return list(dict.fromkeys(("float32", bench.precision)))


def forward_rate(bench: Bench, fused: ResNet, size: int, precision: Precision) -> float:
    """The images/s of a fused network's forward passes."""
    with autocast(precision, bench.device):
        return rate(bench, forward_pass(fused, list(bench.batches(size))), size)


def step(bench: Bench) -> Iterator[Value]:
    """Forward and backward passes of the bare network by batch size: as in the tutorial, and as in `fast`."""
    for size in STEP_BATCHES:
        plain = [batch.contiguous() for batch in bench.batches(size)]
        tutorial_pass = training_pass(bench.network().train(), plain)
        yield Value(f"plain, batch {size}", rate(bench, tutorial_pass, size), "images/s")
        network = training_network(bench)
        for precision in precisions(bench):
            with autocast(precision, bench.device):
                value = rate(bench, training_pass(network, list(bench.batches(size))), size)
            yield Value(f"fast, {precision}, batch {size}", value, "images/s")


def forward_pass(network: nn.Module, batches: Sequence[Tensor]) -> Callable[[], object]:
    """A forward pass, on the next of the batches each time."""
    endless = itertools.cycle(batches)

    def run() -> object:
        with torch.inference_mode():
            return network(next(endless))

    return run


def training_pass(network: ResNet, batches: Sequence[Tensor]) -> Callable[[], object]:
    """A forward and a backward pass, on the next of the batches each time."""
    endless = itertools.cycle(batches)
    labels = torch.arange(len(batches[0]), device=batches[0].device) % len(CLASSES)

    def run() -> object:
        network.zero_grad()
        return functional.cross_entropy(network(next(endless)).float(), labels).backward()

    return run


def training_network(bench: Bench) -> ResNet:
    """The network as `fast` fine-tunes it."""
    network = bench.network().to(memory_format=FAST.layout)
    set_training_mode(network, FAST.batch_norm)
    return network


# ---------------------------------------------------------------------------------------------------------------------
# Training, relative to the baseline


def frozen(bench: Bench) -> Iterator[Value]:
    """Feature extraction, relative to bare forward passes of the same batch size.

    From files, and again from the image cache, as in a run, where the check of the folder has decoded every image.
    """
    dataset, network = bench.photos(), bench.network()
    fused, size = fuse_conv_bn(network), evaluation_batch(bench.device)
    context = DistributedContext(bench.device)
    spent, bare = {"from the disk": 0.0, "from memory": 0.0}, 0.0
    for split in (dataset.train, dataset.val):
        loader = bench.loader(split)
        before = forward_rate(bench, fused, size, "float32")
        for source in spent:
            spent[source] += seconds(bench, partial(features.compute_features, network, loader, context, what=""))
        after = forward_rate(bench, fused, size, "float32")
        bare += len(split) * 2 / (before + after)  # measured before and after, since the machine's speed drifts
    count = len(dataset.both)
    for source, total in spent.items():
        yield Value(source, count / total, "images/s")
        yield Value(f"{source}, of the bare forward", 100 * bare / total, "%")


def finetune(bench: Bench) -> Iterator[Value]:
    """Gradient steps on cached images, relative to bare forward and backward passes."""
    dataset, schedule = bench.photos(), FAST.finetune
    train, val = bench.loader(dataset.train, bench.augmentation), bench.loader(dataset.val)
    for _ in train.batches([torch.arange(len(train))]):  # fills the image cache
        pass
    for precision in precisions(bench):
        before = bare_seconds(bench, precision)
        run = Run(replace(FAST, precision=precision), train, val, context=DistributedContext(bench.device))
        result = modes.train_finetune(bench.network().to(memory_format=FAST.layout), run)
        baseline = (before + bare_seconds(bench, precision)) / 2  # before and after, since the machine's speed drifts
        spent = sum(epoch.train.seconds for epoch in result.history.epochs)
        yield Value(f"{precision}, steps", schedule.epochs * len(train) / spent, "images/s")
        yield Value(f"{precision}, steps, of bare forward + backward", 100 * baseline * len(train) / spent, "%")


def bare_seconds(bench: Bench, precision: Precision) -> float:
    """The seconds per image of bare forward and backward passes in all epochs of fine-tuning."""
    network, sizes, batch = training_network(bench), bench.augmentation.sizes, FAST.finetune.batch_size
    with autocast(precision, bench.device):
        rates = {
            size: rate(bench, training_pass(network, list(bench.batches(batch, size))), batch) for size in set(sizes)
        }
    return sum(1 / rates[size] for size in sizes)


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


def fast(bench: Bench, **options: Any) -> Iterator[Value]:
    """`antbee.train` from the data folder to the model folders."""
    spent, models = train(bench, **options)
    yield Value("wall time", spent, "s")
    for model in models:
        yield Value(f"{model.mode} training and evaluation", model.metrics.seconds, "s")


def seeds(bench: Bench) -> Iterator[Value]:
    """The validation accuracies of `fast` with several seeds."""
    for seed in range(SEEDS):
        for model in train(bench, folds=0, seed=seed)[1]:
            metrics = model.metrics
            for epoch, score in (("best", metrics.kept), ("last", metrics.last)):
                if score is not None:
                    yield Value(f"{model.mode}, {epoch} accuracy", 100 * score.accuracy, "%")


def train(bench: Bench, **options: Any) -> tuple[float, list[TrainedModel]]:
    """Trains with `antbee.train`: the wall time in seconds, and the models."""
    with tempfile.TemporaryDirectory() as output:
        options |= {"weights": bench.weights, "device": str(bench.device), "output": output, "log": lambda line: None}
        started = time.perf_counter()
        result = antbee.train(bench.data, **options)
        return time.perf_counter() - started, result.models


def tutorial(bench: Bench) -> Iterator[Value]:
    """The second epoch of each of the tutorial's runs, times 25; the first epoch warms up."""
    for mode in MODES:
        times = [spent for spent, _ in tutorial_epochs(bench, mode, 2)]
        yield Value(f"{mode}, an epoch times {TUTORIAL_EPOCHS}", times[1] * TUTORIAL_EPOCHS, "s")


def tutorial_in_full(bench: Bench) -> Iterator[Value]:
    """The tutorial's two runs, all epochs."""
    for mode in MODES:
        epochs = list(tutorial_epochs(bench, mode, TUTORIAL_EPOCHS))
        yield Value(f"{mode}, {TUTORIAL_EPOCHS} epochs", sum(spent for spent, _ in epochs), "s")
        yield Value(f"{mode}, best accuracy", 100 * max(accuracy for _, accuracy in epochs), "%")
        yield Value(f"{mode}, last accuracy", 100 * epochs[-1][1], "%")


def tutorial_epochs(bench: Bench, mode: str, epochs: int) -> Iterator[tuple[float, float]]:
    """Seconds and validation accuracy of each epoch of the tutorial, in code as plain as the tutorial's.

    https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, with the settings of `recipe.TUTORIAL`.
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
    schedule = TUTORIAL.schedule(mode)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=schedule.learning_rate, momentum=schedule.momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for _ in range(epochs):
        started, correct = time.perf_counter(), 0
        for split, loader in loaders.items():
            network.train(split == "train")
            for inputs_here, labels_here in loader:
                inputs, labels = inputs_here.to(bench.device), labels_here.to(bench.device)
                with torch.set_grad_enabled(split == "train"):
                    logits = network(inputs)
                    loss = functional.cross_entropy(logits, labels)
                if split == "train":
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                else:
                    correct += int((logits.argmax(1) == labels).sum())
            if split == "train":
                scheduler.step()
        yield time.perf_counter() - started, correct / len(datasets["val"])


def processes(bench: Bench) -> Iterator[Value]:
    """Fine-tuning with one process and with two, of one thread each."""
    times, losses = {}, {}
    for count in (1, 2):
        torchrun = str(Path(sys.executable).with_name("torchrun"))
        launcher = [torchrun, "--standalone", "--nproc-per-node", str(count)]
        with tempfile.TemporaryDirectory() as output:
            argv = ["--data", bench.data, "--weights", bench.weights, "--device", "cpu", "--precision", "float32"]
            argv += ["--mode", "finetune", "--epochs", "1", "--output", output]
            command = [*launcher, str(ROOT / "scripts" / "train.py"), *map(str, argv)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            (epoch,) = json.loads((Path(output) / "finetune" / "history.json").read_text())
            times[count] = epoch["train_seconds"]
            losses[count] = epoch["val_loss"]
        yield Value(f"an epoch on {count}", times[count], "s")
    yield Value("speed-up", times[1] / times[2], "times")
    yield Value("validation loss, difference", abs(losses[1] - losses[2]), "nats")


# ---------------------------------------------------------------------------------------------------------------------
# Photos, predictions, start-up


def photos(bench: Bench) -> Iterator[Value]:
    """The time that a photo takes before it reaches the network, on one thread."""
    split = bench.photos().train
    loader = ImageLoader(split, Preprocessing(), replace(bench.augmentation, sizes=(224,)))
    positions = range(len(split))

    def milliseconds(work: Callable[[], object], count: int = len(split)) -> float:
        return 1000 * seconds(bench, work) / count

    yield Value("decode", milliseconds(lambda: [loader.picture(i) for i in positions]), "ms")
    yield Value("from the cache", milliseconds(lambda: [loader.picture(i) for i in positions]), "ms")
    crops: list[Image.Image] = []
    yield Value("crop and mirror", milliseconds(lambda: crops.extend(loader.crop(i, 1) for i in positions)), "ms")
    batch = crops[:64]
    stacked = milliseconds(lambda: loader.preprocessing.normalise(pixels_of(batch)), len(batch))
    yield Value("stack and normalise", stacked, "ms")


def predict(bench: Bench) -> Iterator[Value]:
    """Predictions for one photo and for a folder, relative to decoding and the bare network."""
    classifier = Classifier(bench.network(), ClassifierConfig("resnet18", CLASSES))
    paths = bench.photos().val.paths
    fused = fuse_conv_bn(classifier.network)
    bare_pass = forward_pass(fused, list(bench.batches(1)))
    whole, bare = [], []
    for path in (*paths[:5], *paths):  # the first five warm up
        whole.append(seconds(bench, partial(classifier.predict, path)))
        bare.append(seconds(bench, partial(open_photo, path)) + seconds(bench, bare_pass))
    whole, bare = whole[5:], bare[5:]
    ratio = statistics.median(whole) / statistics.median(bare)
    yield Value("one photo, p50", 1000 * statistics.median(whole), "ms")
    yield Value("one photo, p95", 1000 * statistics.quantiles(whole, n=20)[-1], "ms")
    yield Value("one photo, over decoding and bare forward", ratio, "times")

    before = forward_rate(bench, fused, BATCH_SIZE, "float32")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        classifier.save_pretrained(model)
        started = time.perf_counter()
        count = len(antbee.predict_files(model, bench.data, csv=Path(folder) / "predictions.csv"))
        speed = count / (time.perf_counter() - started)
    baseline = (before + forward_rate(bench, fused, BATCH_SIZE, "float32")) / 2
    yield Value("a folder", speed, "images/s")
    yield Value("a folder, of the bare forward", 100 * speed / baseline, "%")


def start(bench: Bench) -> Iterator[Value]:
    """Start-up times, each of a new process."""
    imports = ("import torch, torchvision", "import antbee", "from antbee import Classifier")
    for _ in range(3):  # in turn: they differ by less than the machine's speed drifts
        for code in imports:
            yield Value(code, seconds_of([sys.executable, "-c", code]), "s")
    yield Value("train.py --help", seconds_of([sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]), "s")
    started = time.perf_counter()
    with serving_page(bench) as address:
        if address is not None:
            yield Value("the page", time.perf_counter() - started, "s")


@contextmanager
def serving_page(bench: Bench) -> Iterator[str | None]:
    """The address of the page with both modes, once it responds; None without gradio."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        models = [Path(folder) / mode for mode in MODES]
        for mode, model_folder in zip(MODES, models, strict=True):
            classifier_of(bench, mode).save_pretrained(model_folder)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        argv = [ROOT / "app.py", *models, "--data", bench.data, "--port", port]
        process = subprocess.Popen([sys.executable, *map(str, argv)], stdout=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}/"
        try:
            while process.poll() is None and not responds(address):
                time.sleep(0.05)
            yield address if process.poll() is None else None
        finally:
            process.terminate()
            process.wait()


def classifier_of(bench: Bench, mode: Mode) -> Classifier:
    """An untrained classifier."""
    return Classifier(bench.network(), ClassifierConfig("resnet18", CLASSES, mode=mode))


def page(bench: Bench) -> Iterator[Value]:
    """The times that a visitor waits: for the page in a new Chromium, and for the predictions of both modes."""
    if find_spec("gradio") is None:
        return
    from antbee import ui
    from antbee.ui.tabs.classify import classify

    models = [ui.LoadedModel(mode, classifier_of(bench, mode), (), "") for mode in MODES]
    paths = read_folder(bench.data).val.paths[:20]
    classify(open_photo(paths[0]), models, None)
    for path in paths:
        started = time.perf_counter()
        classify(open_photo(path), models, None)
        yield Value("predictions and heat maps of both modes", 1000 * (time.perf_counter() - started), "ms")
    if (chromium := shutil.which("chromium")) is None or find_spec("playwright") is None:
        return
    from playwright.sync_api import sync_playwright

    with serving_page(bench) as address, sync_playwright() as driver:
        assert address is not None
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            yield from first_visit(browser, address)
        browser.close()


def first_visit(browser: Any, address: str) -> Iterator[Value]:
    """Opens the page with an empty browser cache."""
    context = browser.new_context()
    visitor = context.new_page()
    network = context.new_cdp_session(visitor)
    network.send("Network.enable")
    received: list[float] = []
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    started = time.perf_counter()
    visitor.goto(address)
    visitor.get_by_role("tab").first.wait_for()
    yield Value("first load, until the page is usable", time.perf_counter() - started, "s")
    visitor.locator(".verdict h2").nth(1).wait_for()
    yield Value("first load, until the first example is predicted", time.perf_counter() - started, "s")
    yield Value("first load, received", sum(received) / 1e6, "MB")
    yield Value("first load, requests", len(received), "requests")
    context.close()


def seconds_of(command: Sequence[str]) -> float:
    """The wall time of a process, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def responds(address: str) -> bool:
    """Whether a server responds at the address."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


FIGURES: dict[str, Callable[[Bench], Iterator[Value]]] = {
    "forward": forward,
    "step": step,
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
    "tutorial in full": tutorial_in_full,
    "seeds": seeds,
    "processes": processes,
}
EXTRA = ("tutorial", "tutorial in full", "seeds", "processes")  # only on request
ONCE = ("tutorial in full", "seeds", "processes")  # in the first round only


# ---------------------------------------------------------------------------------------------------------------------
# Measuring and printing


def seconds(bench: Bench, work: Callable[[], object]) -> float:
    """The wall time of a call in seconds, until the GPU has finished too."""
    synchronise(bench.device)
    started = time.perf_counter()
    work()
    synchronise(bench.device)
    return time.perf_counter() - started


def rate(bench: Bench, work: Callable[[], object], count: int) -> float:
    """Items per second of a call that processes `count` items: the median of several calls, after a warm-up."""
    for _ in range(2):
        work()
    once = seconds(bench, work)
    times = [seconds(bench, work) for _ in range(max(3, min(50, round(1 / once))))]
    return count / statistics.median(times)


def synchronise(device: torch.device) -> None:
    """Waits for a GPU to finish."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """The peak memory of this process in megabytes; on CUDA that of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Versions and hardware, by name."""
    device = choose_device(arguments.device)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "antbee": antbee.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": choose_precision("auto", device),
        "data": str(arguments.data),
        "weights": arguments.weights,
    }


def describe(arguments: argparse.Namespace) -> str:
    """Versions and hardware, a line each."""
    return "\n".join(f"{name:13} {value}" for name, value in machine(arguments).items()) + "\n"


def table(measured: dict[str, dict[str, Any]]) -> str:
    """All figures with n, median, minimum and maximum."""
    lines = [f"{'figure':60} {'n':>2} {'median':>9} {'min':>9} {'max':>9}"]
    for name, entry in measured.items():
        values = entry["values"]
        numbers = " ".join(f"{number:9.2f}" for number in (statistics.median(values), min(values), max(values)))
        lines.append(f"{name:60} {len(values):2} {numbers} {entry['unit']}")
    return "\n".join(lines)


def conclusions(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The speed-up of `fast` over the tutorial, if both were measured."""
    medians = {name: statistics.median(entry["values"]) for name, entry in measured.items()}
    tutorials: dict[str, float] = {}
    for mode in MODES:
        in_full = f"tutorial in full: {mode}, {TUTORIAL_EPOCHS} epochs"
        extrapolated = f"tutorial: {mode}, an epoch times {TUTORIAL_EPOCHS}"
        found = [medians[name] for name in (in_full, extrapolated) if name in medians]
        if not found:
            return
        tutorials[mode] = found[0]
    both = sum(tutorials.values())
    tutorials |= {"both": both, "both in float32": both}
    yield ""
    for what, spent in tutorials.items():
        if ours := medians.get(f"fast {what}: wall time"):
            yield f"{what:16} tutorial {spent:7.1f} s   fast {ours:6.1f} s   {spent / ours:5.1f} times faster"


if __name__ == "__main__":
    errors.run(main)
