"""Measure a trained model as its task asks: one entry for every kind of task.

Not here: what is measured and how (`evaluate.py` for whole videos, one file for each other kind).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wholereel.config import Views
from wholereel.datasets.manifest import Manifest
from wholereel.errors import ConfigError
from wholereel.evaluation.evaluate import evaluate
from wholereel.evaluation.key_frames import evaluate_key_frames
from wholereel.evaluation.measured import Measured
from wholereel.evaluation.stream_boxes import evaluate_stream_boxes
from wholereel.evaluation.streams import evaluate_streams
from wholereel.inference.predictor import find_package
from wholereel.models.package import Package, load_package

__all__ = ["MEASURES", "measure"]


MEASURES: dict[str, Callable[..., Measured]] = {
    "classify": evaluate,
    "detect": evaluate_key_frames,
    "stream": evaluate_streams,
    "stream_detect": evaluate_stream_boxes,
}


def measure(package: Package | str | Path, manifest: Manifest, views: Views, **options: Any) -> Measured:
    """Evaluate a model package by the kind of its task.

    Args:
        package, manifest, views: see `evaluate`.
        **options: `data`, `batch`, `workers`, `precision`, `device`, `cache_dir`, `out`, as in `evaluate`.
    Raises: ConfigError: a kind of task that cannot be measured; else what the kind's own function raises.
    """
    package = package if isinstance(package, Package) else load_package(find_package(package))
    kind = package.task.kind
    if kind not in MEASURES:
        raise ConfigError(f"tasks of kind {kind!r} cannot be measured; there are {', '.join(MEASURES)}.")
    return MEASURES[kind](package, manifest, views, **options)
