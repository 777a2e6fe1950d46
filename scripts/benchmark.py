"""python scripts/benchmark.py [--against tutorial] [--full] [--json FILE]

Measures what antbee costs on this machine: the bare network, both modes' real runs as a share of it, predictions,
start-up times and memory. Every figure has a process of its own, and they take turns, so that a slow minute of the
machine hits all alike. Compare figures of one run, never of two.

    --against tutorial   times the tutorial's own two runs as well: an epoch of each, times 25
    --full               runs those 25 epochs to the end, `fast` with five seeds, and both on one and on two processes
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import resource
import runpy
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
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet

import antbee
from antbee import errors
from antbee.data import download
from antbee.data import folder as data_folder
from antbee.data import loading as data_loading
from antbee.data.download import folder_named
from antbee.data.folder import ImageDataset, Split
from antbee.data.images import open_photo
from antbee.data.loading import ImageLoader, LoaderOptions, choose_loader
from antbee.data.transforms import Augmentation, Preprocessing, pixels_of
from antbee.installation import home
from antbee.models.backbone import build_network, freeze_backbone, fuse_conv_bn
from antbee.models.classifier import Classifier
from antbee.models.config import MODES, ClassifierConfig
from antbee.models.device import Precision, autocast, choose_device, choose_precision
from antbee.models.weights import WeightsUnreachableError, load_starting_weights
from antbee.training import features, modes
from antbee.training.distributed import DistributedContext
from antbee.training.features import evaluation_batch
from antbee.training.modes import Run
from antbee.training.recipe import FAST, TUTORIAL, Recipe
from antbee.training.trainer import set_training_mode

ROUNDS = 3  # of all figures in turn
SEEDS = 5  # of `fast`, with --full
TUTORIAL_EPOCHS = 25
FORWARD_BATCHES = (1, 4, 16, 32)
STEP_BATCHES = (4, 16)
PREDICTED_AT_ONCE = 32  # by scripts/predict.py
READY = 4  # batches
CLASSES = ("ants", "bees")


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Measure what antbee costs on this machine.")
    parser.add_argument("--against", choices=("tutorial",), help="time the tutorial's own two runs as well")
    parser.add_argument("--full", action="store_true", help="run the tutorial's 25 epochs, and fast with five seeds")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), metavar="FIGURE", help=" ".join(FIGURES))
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="DIR", help="default: data/hymenoptera_data, else drawn pictures")
    parser.add_argument("--weights", default="imagenet", metavar="imagenet|random|FILE", help="default: %(default)s")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values as JSON")
    parser.add_argument("--figure", choices=sorted(FIGURES), help=argparse.SUPPRESS)  # what a child process measures
    return parser.parse_args()


@dataclass(frozen=True)
class Bench:
    """What is measured on."""

    data: Path
    weights: str
    device: torch.device

    def photos(self) -> ImageDataset:
        """The photos, read and checked."""
        return data_folder.read_folder(self.data)

    def network(self) -> ResNet:
        """ResNet-18 with the starting weights, where they are wanted."""
        weights = load_starting_weights(self.weights, "resnet18")
        return build_network("resnet18", len(CLASSES), weights, seed=0).to(self.device)

    def recipe(self) -> Recipe:
        """`fast`, as it runs on this device."""
        precision = choose_precision(FAST.precision, self.device)
        return replace(FAST, precision=precision)

    def looks(
        self, split: Split, augmentation: Augmentation | None = None
    ) -> ImageLoader | data_loading.GPUImageLoader:
        """A split's photos, as training reads them."""
        loading = replace(LoaderOptions.for_device(self.device), layout=self.recipe().layout)
        return choose_loader(ImageLoader(split, self.recipe().preprocessing, augmentation, options=loading))

    def ready(self, count: int, size: int = 224) -> Iterator[Tensor]:
        """Batches of `count` images that are ready for the network, in the layout that `fast` uses.

        Several in turn: one batch again and again would lie in the caches, as no run's next batch does.
        """
        for batch in torch.randn(READY * count, 3, size, size, device=self.device).split(count):
            yield batch.contiguous(memory_format=self.recipe().layout)


@dataclass(frozen=True)
class Value:
    """One measurement."""

    name: str
    value: float
    unit: str


def main() -> None:
    """Measure one figure in this process, or all of them in processes of their own."""
    arguments = parse_arguments()
    if arguments.figure:
        bench = Bench(arguments.data, arguments.weights, choose_device(arguments.device))
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            values = list(FIGURES[arguments.figure](bench))
            values.append(Value("peak memory", peak_memory(bench.device), "MB"))
        print(json.dumps([asdict(value) for value in values]))
        return
    arguments.data, arguments.weights = starting_point(arguments)
    print(describe(arguments))
    measured = measure(arguments)
    print(table(measured))
    for line in conclusions(measured):
        print(line)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(arguments), "values": measured}, indent=1) + "\n")
        print(f"written to {arguments.json}")


def starting_point(arguments: argparse.Namespace) -> tuple[Path, str]:
    """Photos and weights that lie on the disk, so that no figure waits for a network."""
    folder, weights = arguments.data, arguments.weights
    if folder is None:
        folder = folder_named(home() / "data", "hymenoptera_data") or download.drawn_folder(home() / "data")
    try:
        load_starting_weights(weights, "resnet18")
    except WeightsUnreachableError:
        weights = "random"
    return folder, weights


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All values of every figure, by "figure: name"; rounds repeat the figures in turn."""
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
            for value in in_a_process(figure, arguments):
                entry = measured.setdefault(f"{figure}: {value['name']}", {"unit": value["unit"], "values": []})
                entry["values"].append(value["value"])
    return measured


def in_a_process(figure: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What a fresh process measures for a figure."""
    words = ["--figure", figure, "--data", arguments.data, "--weights", arguments.weights, "--device", arguments.device]
    command = [sys.executable, __file__, *map(str, words)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# The bare network: the roof


def forward(bench: Bench) -> Iterator[Value]:
    """The bare network answering, by batch size: as torchvision builds it, and as antbee uses it."""
    network = bench.network().eval()
    folded = fuse_conv_bn(network)
    precision = bench.recipe().precision
    for size in FORWARD_BATCHES:
        plain = [batch.contiguous() for batch in bench.ready(size)]
        yield Value(f"plain, batch {size}", rate(bench, answering(network, plain), size), "images/s")
        for how in dict.fromkeys(("float32", precision)):
            yield Value(f"folded, {how}, batch {size}", forward_rate(bench, folded, size, how), "images/s")


def forward_rate(bench: Bench, folded: ResNet, size: int, precision: Precision) -> float:
    """Images/s of a folded network, answering."""
    with autocast(precision, bench.device):
        return rate(bench, answering(folded, list(bench.ready(size))), size)


def step(bench: Bench) -> Iterator[Value]:
    """The bare network learning, forward and backward, by batch size: as the tutorial does, and as `fast` does."""
    recipe = bench.recipe()
    for size in STEP_BATCHES:
        plain = [batch.contiguous() for batch in bench.ready(size)]
        yield Value(f"plain, batch {size}", rate(bench, learning(bench.network().train(), plain), size), "images/s")
        network = learner(bench, recipe)
        for precision in dict.fromkeys(("float32", recipe.precision)):
            with autocast(precision, bench.device):
                value = rate(bench, learning(network, list(bench.ready(size))), size)
            yield Value(f"fast, {precision}, batch {size}", value, "images/s")


def answering(network: nn.Module, ready: Sequence[Tensor]) -> Callable[[], object]:
    """A forward pass on ready images, other ones each time."""
    batches = itertools.cycle(ready)

    def answer() -> object:
        with torch.inference_mode():
            return network(next(batches))

    return answer


def learning(network: ResNet, ready: Sequence[Tensor]) -> Callable[[], object]:
    """A forward and a backward pass on ready images, other ones each time."""
    batches = itertools.cycle(ready)
    labels = torch.arange(len(ready[0]), device=ready[0].device) % len(CLASSES)

    def learn() -> object:
        network.zero_grad()
        return functional.cross_entropy(network(next(batches)).float(), labels).backward()

    return learn


def learner(bench: Bench, recipe: Recipe) -> ResNet:
    """The network as a recipe fine-tunes it."""
    network = bench.network().to(memory_format=recipe.layout)
    set_training_mode(network, recipe.batch_norm)
    return network


# ---------------------------------------------------------------------------------------------------------------------
# The pipelines, as a share of the roof


def frozen(bench: Bench) -> Iterator[Value]:
    """Photos -> features, against bare forward passes at the same batch size.

    From the disk, and once more from what memory keeps of them, as in a run, whose check has decoded them before.
    """
    photos, network = bench.photos(), bench.network()
    folded, size = fuse_conv_bn(network), evaluation_batch(bench.device)
    process = DistributedContext(bench.device)
    spent, bare = {"from the disk": 0.0, "from memory": 0.0}, 0.0
    for split in (photos.train, photos.val):
        looks = bench.looks(split)
        before = forward_rate(bench, folded, size, "float32")
        for source in spent:
            cached = features.FeatureCache(network, looks, context=process, what="")
            spent[source] += seconds(bench, lambda cached=cached: cached.computed)
        after = forward_rate(bench, folded, size, "float32")
        bare += len(split) * 2 / (before + after)  # before and after: the machine drifts
    count = len(photos.train) + len(photos.val)
    for source, total in spent.items():
        yield Value(source, count / total, "images/s")
        yield Value(f"{source}, of the bare forward", 100 * bare / total, "%")


def finetune(bench: Bench) -> Iterator[Value]:
    """Photos that memory keeps, as in a run -> gradient steps, against bare forward and backward passes alike."""
    recipe, photos = bench.recipe(), bench.photos()
    augmentation, schedule = recipe.augmentation("finetune"), recipe.finetune
    looks, val = bench.looks(photos.train, augmentation), bench.looks(photos.val)
    for _ in looks.batches([torch.arange(len(looks))]):  # decodes them
        pass
    for precision in dict.fromkeys(("float32", recipe.precision)):
        before = bare_seconds(bench, precision)
        run = Run(replace(recipe, precision=precision), looks, val, context=DistributedContext(bench.device))
        fitted = modes.train_finetune(bench.network().to(memory_format=recipe.layout), run)
        roof = (before + bare_seconds(bench, precision)) / 2  # before and after: the machine drifts
        spent = sum(epoch.train.seconds for epoch in fitted.history.epochs)
        yield Value(f"{precision}, steps", schedule.epochs * len(looks) / spent, "images/s")
        yield Value(f"{precision}, steps, of bare forward + backward", 100 * roof * len(looks) / spent, "%")


def bare_seconds(bench: Bench, precision: Precision) -> float:
    """What a photo costs the bare network, forward and backward, in all epochs of fine-tuning."""
    recipe, network = bench.recipe(), learner(bench, bench.recipe())
    sizes, batch = recipe.augmentation("finetune").sizes, recipe.finetune.batch_size
    with autocast(precision, bench.device):
        rates = {size: rate(bench, learning(network, list(bench.ready(batch, size))), batch) for size in set(sizes)}
    return sum(1 / rates[size] for size in sizes)


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


def fast(bench: Bench, words: Sequence[str] = ()) -> Iterator[Value]:
    """scripts/train.py from its first line to the last file, without the interpreter's start."""
    spent, configs = train(bench, *words)
    yield Value("wall time", spent, "s")
    for config in configs:
        yield Value(f"{config['antbee']['mode']} learning and measuring", config["antbee"]["metrics"]["seconds"], "s")


def seeds(bench: Bench) -> Iterator[Value]:
    """Accuracies of `fast` with several seeds."""
    for seed in range(SEEDS):
        _, configs = train(bench, "--folds", "0", "--seed", str(seed))
        for config in configs:
            for which, name in (("kept", "best"), ("last", "last")):
                accuracy = config["antbee"]["metrics"][which]["accuracy"]
                yield Value(f"{config['antbee']['mode']}, {name} accuracy", 100 * accuracy, "%")


def train(bench: Bench, *words: str) -> tuple[float, list[dict[str, Any]]]:
    """Runs scripts/train.py in this process: its wall time in seconds, and the configs it wrote."""
    with tempfile.TemporaryDirectory() as output:
        start = ["--data", str(bench.data), "--weights", bench.weights, "--device", str(bench.device)]
        spent = run_script("train.py", *start, "--output", output, *words)
        return spent, [json.loads(path.read_text("utf-8")) for path in sorted(Path(output).glob("*/config.json"))]


def run_script(name: str, *words: str) -> float:
    """The wall time of a script in this process, in seconds."""
    before = sys.argv
    sys.argv = [name, *words]
    try:
        started = time.perf_counter()
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
        return time.perf_counter() - started
    finally:
        sys.argv = before


def tutorial(bench: Bench) -> Iterator[Value]:
    """The second epoch of each of the tutorial's runs, times 25: the first one also warms up."""
    for mode in ("frozen", "finetune"):
        times = [spent for spent, _ in tutorial_epochs(bench, mode, 2)]
        yield Value(f"{mode}, an epoch times {TUTORIAL_EPOCHS}", times[1] * TUTORIAL_EPOCHS, "s")


def tutorial_in_full(bench: Bench) -> Iterator[Value]:
    """The tutorial's two runs to the end."""
    for mode in ("frozen", "finetune"):
        epochs = list(tutorial_epochs(bench, mode, TUTORIAL_EPOCHS))
        yield Value(f"{mode}, {TUTORIAL_EPOCHS} epochs", sum(spent for spent, _ in epochs), "s")
        yield Value(f"{mode}, best accuracy", 100 * max(accuracy for _, accuracy in epochs), "%")
        yield Value(f"{mode}, last accuracy", 100 * epochs[-1][1], "%")


def tutorial_epochs(bench: Bench, mode: str, epochs: int) -> Iterator[tuple[float, float]]:
    """Seconds and validation accuracy of each epoch of the tutorial, written as plainly as it is there.

    https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, with the settings of `recipe.TUTORIAL`.
    """
    torch.manual_seed(0)
    ending = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    looks = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *ending],
        "val": [transforms.Resize(256), transforms.CenterCrop(224), *ending],
    }
    loaders = {
        split: DataLoader(ImageFolder(bench.data / split, transforms.Compose(look)), batch_size=4, shuffle=True)
        for split, look in looks.items()
    }
    network = bench.network()
    if mode == "frozen":
        freeze_backbone(network)
    schedule = TUTORIAL.schedule(mode)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=schedule.learning_rate, momentum=schedule.momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for _ in range(epochs):
        started, right = time.perf_counter(), 0
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
                    right += int((logits.argmax(1) == labels).sum())
            if split == "train":
                scheduler.step()
        yield time.perf_counter() - started, right / len(loaders["val"].dataset)


def processes(bench: Bench) -> Iterator[Value]:
    """Fine-tuning on one process with one thread, and on two with one each."""
    times, logits = {}, {}
    for count in (1, 2):
        torchrun = str(Path(sys.executable).with_name("torchrun"))
        launcher = [torchrun, "--standalone", "--nproc-per-node", str(count)]
        with tempfile.TemporaryDirectory() as output:
            words = ["--data", bench.data, "--weights", bench.weights, "--device", "cpu", "--precision", "float32"]
            words += ["--mode", "finetune", "--epochs", "1", "--output", output]
            command = [*launcher, str(ROOT / "scripts" / "train.py"), *map(str, words)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            (epoch,) = json.loads((Path(output) / "finetune" / "history.json").read_text())
            times[count] = epoch["train_seconds"]
            logits[count] = epoch["val_loss"]
        yield Value(f"an epoch on {count}", times[count], "s")
    yield Value("speed-up", times[1] / times[2], "times")
    yield Value("validation loss, difference", abs(logits[1] - logits[2]), "nats")


# ---------------------------------------------------------------------------------------------------------------------
# Photos, predictions, start-up


def photos(bench: Bench) -> Iterator[Value]:
    """What a photo costs before it reaches the network, on one thread."""
    split = bench.photos().train
    augmentation = replace(FAST.augmentation("finetune"), sizes=(224,))
    looks = ImageLoader(split, Preprocessing(), augmentation)
    everyone = range(len(split))
    yield Value("decode", 1000 * seconds(bench, lambda: [looks.picture(i) for i in everyone]) / len(split), "ms")
    yield Value("kept picture", 1000 * seconds(bench, lambda: [looks.picture(i) for i in everyone]) / len(split), "ms")
    crops: list[Any] = []
    yield Value(
        "crop and mirror",
        1000 * seconds(bench, lambda: crops.extend(looks.crop(i, 1) for i in everyone)) / len(split),
        "ms",
    )
    batch = crops[:64]
    once = seconds(bench, lambda: looks.preprocessing.normalise(pixels_of(batch)))
    yield Value("stack and normalise", 1000 * once / len(batch), "ms")


def predict(bench: Bench) -> Iterator[Value]:
    """One photo and many, against decoding and the bare network."""
    config = ClassifierConfig("resnet18", CLASSES)
    classifier = Classifier(bench.network(), config)
    paths = bench.photos().val.paths
    folded = fuse_conv_bn(classifier.network)
    answer = answering(folded, list(bench.ready(1)))
    whole, bare = [], []
    for path in (*paths[:5], *paths):  # a few to warm up
        whole.append(seconds(bench, lambda path=path: classifier.predict([open_photo(path)])))
        bare.append(seconds(bench, lambda path=path: (open_photo(path), answer())))
    whole, bare = whole[5:], bare[5:]
    yield Value("one photo, p50", 1000 * statistics.median(whole), "ms")
    yield Value("one photo, p95", 1000 * statistics.quantiles(whole, n=20)[-1], "ms")
    yield Value(
        "one photo, over decoding and bare forward", statistics.median(whole) / statistics.median(bare), "times"
    )

    before = forward_rate(bench, folded, PREDICTED_AT_ONCE, "float32")
    with tempfile.TemporaryDirectory() as folder:
        classifier.save_pretrained(Path(folder) / "model")
        words = [str(Path(folder) / "model"), str(bench.data), "--csv", str(Path(folder) / "answers.csv")]
        spent = run_script("predict.py", *words)
        count = len((Path(folder) / "answers.csv").read_text("utf-8").splitlines()) - 1
    roof = (before + forward_rate(bench, folded, PREDICTED_AT_ONCE, "float32")) / 2
    yield Value("a folder", count / spent, "images/s")
    yield Value("a folder, of the bare forward", 100 * count / spent / roof, "%")


def start(bench: Bench) -> Iterator[Value]:
    """How long it takes until something answers: each in a process of its own, beside a bare interpreter's."""
    bare = "import torch, torchvision"
    for _ in range(3):  # in turn: they differ by less than the machine drifts
        for name, code in (("import torch, torchvision", bare), ("import antbee", "import antbee")):
            yield Value(name, seconds_of([sys.executable, "-c", code]), "s")
    yield Value("train.py --help", seconds_of([sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]), "s")
    started = time.perf_counter()
    with serving_page(bench) as address:
        if address is not None:
            yield Value("the page", time.perf_counter() - started, "s")


@contextmanager
def serving_page(bench: Bench) -> Iterator[str | None]:
    """The address of the page with both modes, once it answers; None where there is no gradio."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        models = [Path(folder) / mode for mode in MODES]
        for model_folder in models:
            config = ClassifierConfig("resnet18", CLASSES, mode=model_folder.name)
            Classifier(bench.network(), config).save_pretrained(model_folder)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        words = [str(ROOT / "app.py"), *map(str, models), "--data", str(bench.data), "--port", str(port)]
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}/"
        try:
            while process.poll() is None and not answers(address):
                time.sleep(0.05)
            yield address if process.poll() is None else None
        finally:
            process.terminate()
            process.wait()


def page(bench: Bench) -> Iterator[Value]:
    """What a visitor waits for: the page in a Chromium that has never seen it, and an answer of both modes."""
    if find_spec("gradio") is None:
        return
    from antbee import ui
    from antbee.ui.tabs.classify import classify

    shown = [
        ui.LoadedModel(mode, Classifier(bench.network(), ClassifierConfig("resnet18", CLASSES, mode=mode)), (), "")
        for mode in MODES
    ]
    paths = data_folder.read_folder(bench.data).val.paths[:20]
    classify(open_photo(paths[0]), shown, None)
    for path in paths:
        started = time.perf_counter()
        classify(open_photo(path), shown, None)
        yield Value("both modes' answers and maps", 1000 * (time.perf_counter() - started), "ms")
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
    """The page, opened without anything in the browser's cache."""
    context = browser.new_context()
    visitor = context.new_page()
    network = context.new_cdp_session(visitor)
    network.send("Network.enable")
    received: list[float] = []
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    started = time.perf_counter()
    visitor.goto(address)
    visitor.get_by_role("tab").first.wait_for()
    yield Value("first load, until it can be used", time.perf_counter() - started, "s")
    visitor.locator(".verdict h2").nth(1).wait_for()
    yield Value("first load, until the first example is answered", time.perf_counter() - started, "s")
    yield Value("first load, received", sum(received) / 1e6, "MB")
    yield Value("first load, requests", len(received), "requests")
    context.close()


def seconds_of(command: Sequence[str]) -> float:
    """The wall time of a process, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def answers(address: str) -> bool:
    """Whether somebody serves the address."""
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
    "fast frozen": partial(fast, words=("--mode", "frozen")),
    "fast finetune": partial(fast, words=("--mode", "finetune")),
    "fast both": fast,
    "fast both without calibrating": partial(fast, words=("--folds", "0")),
    "fast both in float32": partial(fast, words=("--precision", "float32")),
    "photos": photos,
    "predict": predict,
    "start": start,
    "page": page,
    "tutorial": tutorial,
    "tutorial in full": tutorial_in_full,
    "seeds": seeds,
    "processes": processes,
}
EXTRA = ("tutorial", "tutorial in full", "seeds", "processes")  # only where asked for
ONCE = ("tutorial in full", "seeds", "processes")  # however many rounds


# ---------------------------------------------------------------------------------------------------------------------
# Measuring and telling


def seconds(bench: Bench, work: Callable[[], object]) -> float:
    """The wall time of some work, in seconds, with what it left a GPU to do."""
    synchronise(bench.device)
    started = time.perf_counter()
    work()
    synchronise(bench.device)
    return time.perf_counter() - started


def rate(bench: Bench, work: Callable[[], object], count: int) -> float:
    """How often `count` things are done in a second: the median of several times, after warming up."""
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
    """The most memory that this process had, in megabytes; on a GPU, the GPU's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Versions and hardware."""
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
    """Every figure with n, median and spread."""
    lines = [f"{'figure':60} {'n':>2} {'median':>9} {'least':>9} {'most':>9}"]
    for name, entry in measured.items():
        values = entry["values"]
        numbers = " ".join(f"{number:9.2f}" for number in (statistics.median(values), min(values), max(values)))
        lines.append(f"{name:60} {len(values):2} {numbers} {entry['unit']}")
    return "\n".join(lines)


def conclusions(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    """`fast` against the tutorial, where both were measured."""
    medians = {name: statistics.median(entry["values"]) for name, entry in measured.items()}
    whole = {
        mode: medians.get(f"tutorial in full: {mode}, {TUTORIAL_EPOCHS} epochs")
        or medians.get(f"tutorial: {mode}, an epoch times {TUTORIAL_EPOCHS}")
        for mode in ("frozen", "finetune")
    }
    if None in whole.values():
        return
    tutorials = whole | {"both": sum(whole.values()), "both in float32": sum(whole.values())}
    yield ""
    for what, spent in tutorials.items():
        if ours := medians.get(f"fast {what}: wall time"):
            yield f"{what:16} tutorial {spent:7.1f} s   fast {ours:6.1f} s   {spent / ours:5.1f} times faster"


if __name__ == "__main__":
    errors.run(main)
