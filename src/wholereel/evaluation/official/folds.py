"""The number of a data set that is judged by folds: the mean over them, one model trained for each.

UCF101 and HMDB51 have three folds, ESC-50 five. Not here: evaluating one fold (`evaluation/evaluate.py`).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wholereel.errors import DataError
from wholereel.evaluation.official.report import ClassValue, Report

__all__ = ["FOLDS", "folds_report"]

FOLDS = {"ucf101": 3, "hmdb51": 3, "esc50": 5}
SHARED = ("views", "task", "model", "memory", "classes", "split", "precision")


def folds_report(results: Sequence[str | Path]) -> Report:
    """Mean of the metrics of all folds, every fold counting alike.

    Args:
        results: a `results.json` of `wholereel evaluate` (or its folder) for each fold, of a data set that was prepared
            with `fold=1`, `fold=2`, ...
    Returns: means, the standard deviation over folds as `..._std`, and as classes the folds with their first metric.
    Raises: DataError: a file that is no such result, folds of different data sets or protocols, one missing or twice.
    """
    paths = [Path(path) / "results.json" if Path(path).is_dir() else Path(path) for path in results]
    parts = [_read(path) for path in paths]
    first, name = parts[0], parts[0]["protocol"]["data"]["name"]
    for path, part in zip(paths, parts, strict=True):
        different = _difference(first, part)
        if different:
            raise DataError(path, f"has another {different} than {paths[0]}", "folds of one data set, one protocol")
    found = sorted(part["protocol"]["data"]["options"]["fold"] for part in parts)
    expected = list(range(1, FOLDS.get(name, len(parts)) + 1))
    if found != expected:
        raise DataError(paths[0], f"and the others are the folds {found} of {name}", f"{expected}, each once")
    names = [metric for metric in first["metrics"] if all(part["metrics"].get(metric) is not None for part in parts)]
    values = {metric: [float(part["metrics"][metric]) for part in parts] for metric in names}
    metrics = {metric: statistics.fmean(column) for metric, column in values.items()}
    metrics |= {f"{metric}_std": statistics.stdev(column) for metric, column in values.items() if len(column) > 1}
    rows = [
        ClassValue(f"fold {part['protocol']['data']['options']['fold']}", part["evaluated"], values[names[0]][place])
        for place, part in enumerate(parts)
    ]
    # the text of a fold begins with its data set and options
    text = f"mean over {len(parts)} folds, one model trained for each. In {first['protocol']['text']}"
    counts = {"folds": len(parts), "classes": first["protocol"]["classes"]}
    counts |= {key: sum(part[key] for part in parts) for key in ("samples", "evaluated")}
    return Report({"name": f"{name}, {len(parts)} folds", "text": text}, counts, metrics, tuple(rows))


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data = content["protocol"]["data"]
        if not isinstance(data["options"]["fold"], int) or not content["metrics"]:
            raise ValueError("no fold")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            path,
            f"is no result of a fold ({type(error).__name__}: {error})",
            "a results.json of `wholereel evaluate` on a data set that was prepared with fold=N",
        ) from error
    return content


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What two results differ in besides the fold; empty if nothing."""

    def settings(part: Mapping[str, Any]) -> dict[str, Any]:
        protocol = part["protocol"]
        options = {key: value for key, value in protocol["data"]["options"].items() if key != "fold"}
        shared = {key: protocol.get(key) for key in SHARED}
        return {"data set": (protocol["data"]["name"], options), **shared}

    mine, other = settings(a), settings(b)
    return next((key for key in mine if mine[key] != other[key]), "")
