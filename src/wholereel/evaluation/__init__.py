"""Protocols: how a trained model is measured, and what stands in the files of a result."""
