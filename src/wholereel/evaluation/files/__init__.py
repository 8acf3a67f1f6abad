"""Predictions and ground truth in the official formats of the data sets, as arrays for the metrics."""
