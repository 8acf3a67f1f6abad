"""Rows of annotation files before labels become class indices: what every format is read into.

Not here: the formats (one file each), labels (`label_columns.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.errors import DataError

__all__ = ["Row", "canonical_split", "is_known_split", "seconds_or_none"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One annotated video or part of a video.

    Args:
        path: as written: relative to the annotation file's folder, or absolute.
        labels: raw value of each label column.
        split: canonical name, or `None`.
        start, end: seconds after the first frame; `None` = beginning, end.
        id: as written, or `None`.
        place: where it stands, for messages ("row 7").
        parts: what else the sample carries, by the names of `Sample`'s fields (boxes, meta and the like).
    """

    path: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    start: float | None = None
    end: float | None = None
    id: str | None = None
    place: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)


def canonical_split(name: str) -> str:
    """One spelling of the usual splits ("validate" is "val"); other names stay as they are."""
    return SPLIT_NAMES.get(name.strip().lower(), name.strip())


def is_known_split(name: str) -> bool:
    """Whether a file or folder of this name holds a split."""
    return name.lower() in SPLIT_NAMES


def seconds_or_none(value: Any, file: Path, place: str) -> float | None:
    """A time in seconds; empty cells are `None`.

    Raises: DataError: not a number, or negative.
    """
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if math.isnan(seconds) and isinstance(value, float):  # how tables of numbers write an empty cell
        return None
    if not 0 <= seconds < math.inf:
        raise DataError(file, f"{place}: {value!r} is not a time", "seconds after the first frame, or nothing")
    return seconds
