"""Metrics, calibration, synthetic out-of-distribution images, and reports and figures of them."""
