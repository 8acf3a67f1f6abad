"""Numerical parity with golden files: `python -m tests.parity DIR`."""
