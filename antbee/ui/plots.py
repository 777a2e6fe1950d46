"""Plots that more than one tab shows: how models learned, epoch by epoch."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import gradio as gr
import pandas

from antbee.figures import MODE_COLOURS
from antbee.ui.words import label

QUANTITIES = ("accuracy", "loss")
STRONG = tuple(MODE_COLOURS.values())  # validation
PALE = ("#8fd3bf", "#c3aee0")  # training

Histories = Mapping[str, Sequence[Mapping[str, Any]]]  # epochs' records by name, see training.Epoch.to_record


def epoch_table(histories: Histories, quantity: str) -> pandas.DataFrame:
    """Accuracy or loss of both splits by epoch, a row for each point of each curve."""
    rows = [
        {"epoch": record["epoch"], "curve": f"{name}, {split}", "value": value}
        for name, records in histories.items()
        for record in records
        for split in ("train", "val")
        if (value := record.get(f"{split}_{quantity}")) is not None
    ]
    return pandas.DataFrame(rows, columns=["epoch", "curve", "value"])


def curve_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each curve: validation in one of the name's own, training in a paler one.

    Both modes have theirs; other names get what is left, two of them each another.
    """
    modes = list(MODE_COLOURS)
    free = cycle([mode for mode in modes if mode not in names] or modes)
    colours: dict[str, str] = {}
    for name in names:
        place = modes.index(name if name in modes else next(free))
        colours |= {f"{name}, val": STRONG[place], f"{name}, train": PALE[place]}
    return colours


def epoch_plots(histories: Histories) -> list[gr.LinePlot]:
    """What `empty_epoch_plots` shows from now on; `epoch_colours` has to follow."""
    tables = [epoch_table(histories, quantity) for quantity in QUANTITIES]
    return [gr.LinePlot(table, visible=bool(len(table))) for table in tables]


def epoch_colours(histories: Histories) -> list[gr.LinePlot]:
    """The colours of what `epoch_plots` gave, in an event of their own after it.

    The front end takes curves that were not there before into a plot only once its colours change after its values.
    """
    return [gr.LinePlot(color_map=curve_colours(list(histories))) for _ in QUANTITIES]


def empty_epoch_plots() -> list[gr.LinePlot]:
    """Accuracy and loss, side by side; of their own height, else the front end cuts the legend off."""
    with gr.Row():
        return [
            gr.LinePlot(
                x="epoch",
                y="value",
                y_title=quantity,
                color="curve",
                color_title="mode, split",
                tooltip="all",
                label=label(f"plots.{quantity}"),
                min_width=280,
                visible=False,
            )
            for quantity in QUANTITIES
        ]
