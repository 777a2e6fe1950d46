"""How good a classifier is: figures, calibration, plots."""
