"""python scripts/train.py [--data DATA|drawn] [--weights imagenet|random|MODEL|FILE] [--mode both|finetune|frozen] ...

Trains a backbone in both classic ways of transfer learning and writes a model folder for each:

    frozen     the backbone is a fixed feature extractor, only the head is trained
    finetune   every weight is trained

Without flags it takes the classic ants and bees and ImageNet's weights, downloading what isn't there yet; without a
network it goes on with drawn pictures and with random weights, and says so. What a flag names is never replaced.
Several processes train together under `torchrun --nproc-per-node N scripts/train.py ...`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

from antbee import errors
from antbee.installation import home


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of the command line, by the names of `antbee.train`'s arguments."""
    parser = argparse.ArgumentParser(
        description="Train a backbone by transfer learning, frozen and fine-tuned.", allow_abbrev=False
    )
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--data",
        metavar="DATA|drawn",
        help="folder of train/ and val/, folder of class folders, table, archive or Hub data set (user/name)",
    )
    what.add_argument("--allow-bad", action="store_true", help="train also where over a tenth of a class is damaged")
    what.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    what.add_argument("--exclude", type=Path, metavar="FILE", help="list of photos that are not trained on")
    what.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help="imagenet, random, a tag of timm's, a model folder or Hub id to go on from, or .safetensors or .pth",
    )
    what.add_argument(
        "--backbone", "--arch", metavar="NAME", help="a network of timm; 'vit*' lists some (default: resnet18)"
    )
    what.add_argument("--image-size", type=int, metavar="N", help="pixels a side (default: that of the weights)")
    what.add_argument(
        "--fit",
        choices=("crop", "squash", "pad"),
        help="how a photo becomes a square: its centre is cut out, or the whole of it squashed, or padded (default: as "
        "the weights were trained, which is crop for most)",
    )
    what.add_argument("--mode", default="both", choices=("both", "frozen", "finetune"), help="default: %(default)s")
    how = parser.add_argument_group("how it is trained")
    how.add_argument("--recipe", default="fast", choices=("fast", "tutorial"), help="default: %(default)s")
    how.add_argument("--epochs", type=int, metavar="N", help="of each mode (default: the recipe's)")
    how.add_argument("--batch-size", type=int, metavar="N", help="photos a step (default: the recipe's)")
    how.add_argument("--lr", type=float, metavar="X", help="highest learning rate (default: the recipe's)")
    how.add_argument(
        "--select",
        default="val",
        choices=("val", "holdout", "last"),
        help="what the epoch to keep is chosen on: the photos in val/, a fifth of those in train/, or nothing",
    )
    how.add_argument("--balance", action="store_true", help="weigh every class the same, however many photos it has")
    how.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="mirror half of the augmented photos; --no-mirror where left and right tell the classes apart (default: "
        "as the model that training goes on from, else --mirror)",
    )
    how.add_argument("--folds", type=int, metavar="N", help="folds to calibrate with (default: the recipe's; 0: don't)")
    how.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with N seeds: mean and spread")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="repeats a run on the same machine (default: 0)")
    where = parser.add_argument_group("where it runs and what it writes")
    where.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="default: the fastest there is")
    where.add_argument("--precision", choices=("auto", "float32", "bfloat16"), help="default: the recipe's")
    where.add_argument("--compile", action="store_true", help="torch.compile the network: on a GPU, for long runs")
    where.add_argument("--workers", type=int, metavar="N", help="threads that decode photos (default: cores)")
    where.add_argument("--output", type=Path, default=home() / "outputs", metavar="DIR", help="default: outputs/")
    where.add_argument(
        "--track",
        choices=("trackio", "tensorboard", "jsonl"),
        help="also log the epochs to a tracker (pip install it), or to epochs.jsonl",
    )
    where.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    where.add_argument(
        "--replace",
        default="unless-worse",
        choices=("unless-worse", "always", "never"),
        help="whether new models take the places of those in --output, which are kept in versions/ (default: "
        "%(default)s, by the validation accuracy); new models that don't are kept there too",
    )
    where.add_argument(
        "--restore", metavar="NAME", help="put the models of versions/NAME back in their places, and train nothing"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Train the modes asked for and compare them, or put earlier models back."""
    arguments = vars(parse_arguments())
    with errors.importing():
        from antbee.models.search import matching
        from antbee.models.versions import restore_version
        from antbee.training import summary
        from antbee.training.context import Settings
        from antbee.training.pipeline import run

    restore, data = arguments.pop("restore"), arguments.pop("data")
    if restore is not None:
        placed = restore_version(arguments["output"], restore)
        for line in summary.restored_lines(arguments["output"], placed):
            print(line)
        return
    if set("*?") & set(arguments["backbone"] or ""):
        print(matching(arguments["backbone"]))
        return
    run(data, Settings.checked(**arguments), say)


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    errors.run(main, stopped="stopped: the same command with --resume goes on where it stopped")
