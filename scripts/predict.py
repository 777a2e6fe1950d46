"""python scripts/predict.py MODEL PATH ... [--csv FILE] [--json FILE] [--parquet FILE] [--resume] [--explain DIR]

Predicts photos: prints a line for each, or writes files with the probability of every class: CSV, JSON lines (an object
a line) or Parquet (needs pyarrow). PATH is a photo or a folder of photos, MODEL a model folder or a Hub id such as
user/name. Rows are written as they come: after a run that was stopped, the same command with --resume predicts what is
missing. --explain writes a heat map of each photo, which shows the regions that support the prediction. Several
processes share the photos under `torchrun --nproc-per-node N scripts/predict.py ...`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lets the script run from a clone, from any folder

import antbee
from antbee import errors


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; the flags are the arguments of `antbee.predict_files`."""
    parser = argparse.ArgumentParser(description="Predict photos.", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="model folder or Hub id")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="photos, folders of photos, or patterns such as *.jpg")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the predictions to a CSV file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the predictions as JSON, an object a line")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the predictions to a Parquet file")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="write a heat map of each photo")
    parser.add_argument("--resume", action="store_true", help="predict what is missing in the files, and add it")
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of a folder")
    return parser.parse_args()


def main() -> None:
    """Prints the predictions, or how many were written; ends with status 2 if a file can't be read."""
    arguments = parse_arguments()
    with errors.importing():
        from tqdm.auto import tqdm

        from antbee.data.listing import summary

        iter_predictions = antbee.iter_predictions
    tables = [str(path) for path in (arguments.csv, arguments.json, arguments.parquet) if path is not None]
    run = iter_predictions(**vars(arguments))
    for result in run:
        if not tables and result.prediction is not None:
            tqdm.write(str(result))  # above the progress bar
    if not run.is_first:
        return
    for line in summary(run.left_out):
        print(f"left out  {line}", file=sys.stderr)
    if tables:
        print(f"{run.summary}, written to {' and '.join(tables)}")
    if arguments.explain is not None:
        print(f"heat maps written to {arguments.explain}")
    if run.summary.reasons:
        raise errors.InputError(f"{run.summary}, not {run.summary.reasons}")


if __name__ == "__main__":
    errors.run(main, stopped="stopped: the rows in files stay, and the same command with --resume adds the rest")
