"""Reading what runs and evaluations leave behind, for reports."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wholereel.errors import DataError

__all__ = ["curve", "read_confusion", "read_metrics", "read_results"]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of a training run's `metrics.jsonl`; a last line that a killed run left half written is dropped.

    Raises: DataError: no such file, or a line before the last one is no JSON object.
    """
    file = run / "metrics.jsonl"
    lines = _words(file, "a training run's log").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(file, f"line {number} is not JSON ({error.msg})", "one JSON object a line") from error
        rows.append(row)
    return rows


def curve(rows: Sequence[Mapping[str, Any]], kind: str, key: str) -> dict[float, float]:
    """Mean of `key` per epoch over the finite rows of one kind ("train", "validation"), in the order of epochs.

    A run that was killed and resumed may hold the rows of an update twice: the later ones count.
    """
    by_update = {row.get("update"): row for row in rows if row.get("kind") == kind and "epoch" in row}
    epochs: dict[float, list[float]] = {}
    for row in by_update.values():
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            epochs.setdefault(float(row["epoch"]), []).append(float(value))
    return {epoch: math.fsum(values) / len(values) for epoch, values in sorted(epochs.items())}


def read_results(folder: Path) -> dict[str, Any]:
    """Content of an evaluation's `results.json`.

    Raises: DataError: no such file, or not JSON.
    """
    file = folder / "results.json"
    try:
        results: dict[str, Any] = json.loads(_words(file, "an evaluation's result"))
    except json.JSONDecodeError as error:
        raise DataError(file, f"is not JSON ({error.msg})", "an evaluation's result") from error
    return results


def read_confusion(folder: Path) -> tuple[list[str], list[list[int]]] | None:
    """Classes and counts (rows true, columns predicted) of an evaluation's `confusion.csv`; `None` if there is none."""
    file = folder / "confusion.csv"
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    return header[1:], [[int(count) for count in row[1:]] for row in rows]


def _words(file: Path, expected: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(file, "no such file", expected) from error
