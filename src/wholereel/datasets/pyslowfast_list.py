"""Lists without a header, a path and a class index a line, as read by facebookresearch/SlowFast."""

from __future__ import annotations

import re
from pathlib import Path

from wholereel.datasets.rows import Row
from wholereel.errors import DataError

__all__ = ["is_list_line", "rows_of_list"]

# Greedy: a path may hold spaces and commas, the last separator counts.
LINE = re.compile(r"(?P<path>.*\S)\s*[ ,\t]\s*(?P<label>\d+)")


def is_list_line(line: str) -> bool:
    """Whether a line reads as `path label`."""
    return LINE.fullmatch(line.strip()) is not None


def rows_of_list(file: Path, label: str) -> list[Row]:
    """Read a list.

    Args:
        file: text file.
        label: name of the label column to make.
    Raises: DataError: a line is not a path and a class index.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(file, f"line {number} is {line[:80]!r}", "a path and a class index, as in 'a/b.mp4 17'")
        rows.append(Row(match["path"], {label: int(match["label"])}, place=f"line {number}"))
    return rows
