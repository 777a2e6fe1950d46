"""Plots of how models learned: all of what was measured, and nothing else, in colours that tell the curves apart."""

import pytest

from antbee.evaluation.plots import MODE_COLOURS
from antbee.ui.components import QUANTITIES, curve_colours, epoch_colours, epoch_plots, epoch_table

HISTORIES = {
    "frozen": [
        {
            "epoch": 1,
            "train_accuracy": 0.5,
            "val_accuracy": 0.6,
            "train_loss": 0.7,
            "val_loss": 0.65,
            "train_seconds": 9,
        },
        {"epoch": 2, "train_accuracy": 0.9, "val_accuracy": 0.8, "train_loss": 0.3, "val_loss": 0.0},
    ],
    "mine": [{"epoch": 1, "train_accuracy": None, "val_accuracy": 0.0, "val_loss": None, "mode": "finetune"}],
}


def points(quantity):
    return [(row.epoch, row.curve, row.value) for row in epoch_table(HISTORIES, quantity).itertuples()]


def test_every_value_of_every_curve_is_in_its_quantitys_table():
    assert points("accuracy") == [
        (1, "frozen, train", 0.5),
        (1, "frozen, val", 0.6),
        (2, "frozen, train", 0.9),
        (2, "frozen, val", 0.8),
        (1, "mine, val", 0.0),
    ]


def test_values_that_are_missing_are_left_out_and_zero_is_not_missing():
    assert points("loss")[-2:] == [(2, "frozen, train", 0.3), (2, "frozen, val", 0.0)]


def test_without_epochs_a_table_has_its_columns_and_a_plot_is_not_there():
    assert list(epoch_table({}, "loss").columns) == ["epoch", "curve", "value"]
    for histories in ({}, {"frozen": []}, {"frozen": [{"epoch": 1}]}):
        assert [plot.visible for plot in epoch_plots(histories)] == [False] * len(QUANTITIES)


def test_a_plot_is_there_where_there_is_something_of_its_quantity_to_show():
    assert [plot.visible for plot in epoch_plots(HISTORIES)] == [True, True]
    assert [plot.visible for plot in epoch_plots({"mine": HISTORIES["mine"]})] == [True, False]


@pytest.mark.parametrize("names", [["frozen"], ["finetune", "frozen"], ["a/frozen", "b/frozen"], ["a", "b", "c"], []])
def test_every_curve_has_a_colour_and_validation_another_than_training(names):
    colours = curve_colours(names)
    assert colours.keys() == {f"{name}, {split}" for name in names for split in ("train", "val")}
    for name in names:
        assert colours[f"{name}, val"] != colours[f"{name}, train"]


def test_a_modes_colour_is_the_one_of_the_figures_wherever_it_stands():
    for names in (["frozen", "finetune"], ["finetune", "frozen"], ["mine", "finetune"], ["frozen"]):
        colours = curve_colours(names)
        assert all(colours[f"{name}, val"] == MODE_COLOURS[name] for name in names if name in MODE_COLOURS)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "frozen"], ["frozen", "b"], ["finetune", "b"], ["a", "finetune"]])
def test_two_models_side_by_side_never_share_a_colour(names):
    assert len(set(curve_colours(names).values())) == 4


def test_the_plots_colours_are_those_of_the_curves_in_them():
    curves = {curve for quantity in QUANTITIES for curve in epoch_table(HISTORIES, quantity)["curve"]}
    for plot in epoch_colours(HISTORIES):
        assert curves <= plot.color_map.keys()
        assert plot.color_map == curve_colours(list(HISTORIES))
