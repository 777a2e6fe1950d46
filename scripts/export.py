"""python scripts/export.py MODEL --onnx FILE [--int8 FILE] [--data DATA]

Exports a model to one ONNX file that runs without antbee and torch; its metadata describes the preprocessing. Input:
"images", float32 (batch, 3, H, W); output: "logits", float32 (batch, classes). MODEL is a model folder or a Hub id such
as user/name. --int8 also writes a version quantised to 8-bit integers, a quarter of the size and faster on most CPUs,
and evaluates both files on the validation photos of --data, or of the model's own data set in data/.
It needs three more packages: pip install onnx onnxscript onnxruntime
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the flags are the arguments of `antbee.export`."""
    parser = argparse.ArgumentParser(description="Export a model to an ONNX file.", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("--onnx", type=Path, metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--int8", type=Path, metavar="FILE", help="also write a version in 8-bit integers")
    parser.add_argument(
        "--data", metavar="DATA", help="for --int8, what train.py --data takes (default: the model's own in data/)"
    )
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    return parser.parse_args()


def main() -> None:
    """Exports the model and prints what was written."""
    options = vars(parse_arguments())
    with errors.importing():
        export = antbee.export
    print(export(**options))


if __name__ == "__main__":
    errors.run(main)
