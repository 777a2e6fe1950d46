"""python tests/endurance/swap.py [--swaps N] [--requests N] [--users N]

Replaces both models of a running page again and again while visitors ask it; every fifth time by what can't be used.
Each answer must come whole from one version that was shown between question and answer, and what is damaged must be
refused while the models before it go on. Ends with 1 where any of that failed.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets it run from any folder
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
import torch
from load import Visitor, function_of, photos_of
from page_helpers import SMALL, serving

from antbee import Classifier, ui
from antbee.models.config import CONFIG_FILE, ClassifierConfig, ModelFolderError
from antbee.models.folder import WEIGHTS_FILE
from antbee.models.tensors import WeightsError
from antbee.models.weights import StartingWeights, build_network

MODES = ("frozen", "finetune")
STEPS = 1000  # a version is a probability in steps of one in so many


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Replace the models of a running page.")
    parser.add_argument("--swaps", type=int, default=100, metavar="N", help="replacements (default: 100)")
    parser.add_argument("--requests", type=int, default=1000, metavar="N", help="photos in all (default: 1000)")
    parser.add_argument("--users", type=int, default=8, metavar="N", help="visitors at once (default: 8)")
    return parser.parse_args()


@dataclass
class Log:
    """What happened."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    swapped: int = 0
    refused: int = 0


def write_version(outputs: Path, version: int) -> None:
    """Both models, which say the version of every photo: as the probability of its first class."""
    share = torch.tensor([version / STEPS, 1 - version / STEPS])
    for mode in MODES:
        network = build_network("resnet18", 2, StartingWeights("random"), seed=version)
        with torch.no_grad():
            network.fc.weight.zero_()
            network.fc.bias.copy_(share.log())
        config = ClassifierConfig("resnet18", ("ants", "bees"), SMALL, mode=mode)
        Classifier(network, config).save_pretrained(outputs / mode)


def cut(folder: Path) -> None:
    """Weights that end early."""
    path = folder / WEIGHTS_FILE
    os.truncate(path, path.stat().st_size // 2)


def flip(folder: Path) -> None:
    """Weights of which a bit is another one."""
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(10**7)
        (byte,) = file.read(1)
        file.seek(10**7)
        file.write(bytes([byte ^ 1]))


def forget_numbers(folder: Path) -> None:
    """Weights that are no numbers, in a folder that is whole otherwise."""
    classifier = Classifier.from_pretrained(folder, device="cpu")
    with torch.no_grad():
        classifier.network.conv1.weight[0] = float("nan")
    try:
        classifier.save_pretrained(folder)
    except (ModelFolderError, WeightsError, ValueError):  # they are not even written
        cut(folder)


def contradict(folder: Path) -> None:
    """A config that names a class more than the weights know."""
    path = folder / CONFIG_FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"label_names": ["ants", "bees", "wasps"], "num_classes": 3}))


def garble(folder: Path) -> None:
    """A config that is no JSON."""
    (folder / CONFIG_FILE).write_text("{broken")


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, flip, forget_numbers, contradict, garble)


class Swapping:
    """The page's models and their versions, replaced one after the other."""

    def __init__(self, outputs: Path, log: Log) -> None:
        self.outputs = outputs
        self.log = log
        self.oldest = self.newest = 1  # that an answer may come from now
        write_version(outputs, 1)
        self.registry = ui.ModelRegistry(lambda: [outputs / mode for mode in MODES], lambda models: None, device="cpu")

    def swap(self, number: int) -> None:
        """One replacement; every fifth is damaged."""
        write_version(self.outputs, number + 1)
        if number % 5:
            self.newest = number + 1
            self.registry.reload()
            self.oldest = self.newest
            self.log.swapped += 1
            return
        damage = DAMAGES[number // 5 % len(DAMAGES)]
        damage(self.outputs / MODES[number // 5 % 2])
        try:
            self.registry.reload()
        except (ModelFolderError, WeightsError):
            self.log.refused += 1
        else:
            self.log.errors.append(f"swap {number}: what {damage.__name__} left of a model was shown")


async def visit(url: str, swapping: Swapping, arguments: argparse.Namespace) -> None:
    """Lets visitors ask, and swaps in between, evenly."""
    log, photos, left = swapping.log, photos_of(is_unique=True), iter(range(arguments.requests))

    async def one() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120, verify=False) as client:
            visitor = Visitor(client, await function_of(client))
            while next(left, None) is not None:
                oldest = swapping.oldest
                try:
                    answer = await visitor.ask(next(photos))
                except httpx.HTTPError as error:
                    log.errors.append(f"{type(error).__name__}: {error}")
                    continue
                if "data" not in answer:
                    log.errors.append(str(answer)[:200])
                    continue
                said = {mode: answer["data"][0][mode]["probabilities"]["ants"] * STEPS for mode in MODES}
                (version, *others) = {round(share) for share in said.values()}
                if others or not oldest <= version <= swapping.newest:
                    log.errors.append(f"an answer of {said}, versions {oldest} to {swapping.newest} were shown")
                log.answered += 1

    await asyncio.gather(*(one() for _ in range(arguments.users)))


def main() -> None:
    """Serve a page, swap its models while it is asked, say how it went."""
    arguments, log = parse_arguments(), Log()
    with tempfile.TemporaryDirectory(prefix="antbee-endurance-") as workshop:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(workshop) / "uploads")
        swapping = Swapping(Path(workshop) / "outputs", log)
        with serving(ui.build_page(swapping.registry)) as url:
            asking = threading.Thread(target=lambda: asyncio.run(visit(url, swapping, arguments)))
            asking.start()
            for number in range(1, arguments.swaps + 1):
                swapping.swap(number)
                # Evenly among the requests, as long as there are any.
                while asking.is_alive() and log.answered < arguments.requests * number / arguments.swaps:
                    asking.join(0.01)
            asking.join()
    print(f"{log.answered} answers, {log.swapped} swaps, {log.refused} refused, {len(log.errors)} errors")
    for error in dict.fromkeys(log.errors):
        print(f"error: {error}")
    refused = arguments.swaps // 5
    sys.exit(0 if not log.errors and (log.refused, log.answered) == (refused, arguments.requests) else 1)


if __name__ == "__main__":
    main()
