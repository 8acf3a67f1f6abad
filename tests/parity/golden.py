"""What a golden file is, and how a number of ours is compared with one of its arrays.

A golden file is an `.npz` with a JSON string `meta` and arrays, or a `.json` whose top level is the meta.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["CPU", "Comparison", "Golden", "NotUnderstood", "Outcome", "check_fields", "compare", "load_golden"]


CPU = torch.device("cpu")


class NotUnderstood(Exception):
    """The file asks for something that no family here can build."""


@dataclass(frozen=True)
class Golden:
    """A golden file. `group` is the name of its directory, `device` where ours is computed."""

    path: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    device: torch.device = CPU

    @property
    def group(self) -> str:
        return self.path.resolve().parent.name

    def has(self, name: str) -> bool:
        """Whether the file holds this array, whole or as samples."""
        return name in self.arrays or f"{name}__flat_index" in self.arrays


@dataclass(frozen=True)
class Comparison:
    """One array compared: `error` is already relative to the scale that the tolerance is meant for."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.tolerance)  # false for nan


@dataclass(frozen=True)
class Outcome:
    """All comparisons of a file, and the arrays that nothing was compared with."""

    comparisons: tuple[Comparison, ...]
    not_compared: tuple[str, ...] = field(default=())


def load_golden(path: Path, device: torch.device = CPU) -> Golden:
    """Read a file; `NotUnderstood` where it has no meta."""
    if path.suffix == ".json":
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise NotUnderstood("no meta: the top level is not an object")
        return Golden(path, meta, {}, device)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if "meta" not in arrays:
        raise NotUnderstood("no meta")
    meta = json.loads(str(arrays.pop("meta")))
    if not isinstance(meta, dict):
        raise NotUnderstood("no meta: it is not an object")
    return Golden(path, meta, arrays, device)


def check_fields(fields: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse what is not understood: a field that is ignored might change the numbers."""
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise NotUnderstood(f"{where} has fields that are not understood: {', '.join(unknown)}")


def compare(
    golden: Golden, name: str, ours: Tensor | None, tolerance: float, label: str = "", *, floor: float = 0.0
) -> Comparison:
    """Largest error relative to the array's largest absolute value; big arrays are stored as samples and statistics.

    `floor` is the least scale, for a number that is a sum of cancelling terms.
    """
    title = f"{label}{name}"
    if ours is None:
        return Comparison(f"{title} (we have none)", float("inf"), tolerance)
    values = ours.detach().to(torch.float64).cpu().numpy()
    if name in golden.arrays:
        expected = np.asarray(golden.arrays[name], dtype=np.float64)
        if values.size != expected.size:
            return Comparison(f"{title} (shape {values.shape}, not {expected.shape})", float("inf"), tolerance)
        return Comparison(title, _relative(values.reshape(-1), expected.reshape(-1), floor), tolerance)
    index = np.asarray(golden.arrays[f"{name}__flat_index"]).reshape(-1)
    expected = np.asarray(golden.arrays[f"{name}__flat_value"], dtype=np.float64).reshape(-1)
    flat = values.reshape(-1)
    if index.size and (index.min() < 0 or index.max() >= flat.size):
        return Comparison(f"{title} (shape {values.shape} is too small)", float("inf"), tolerance)
    error = _relative(flat[index], expected)
    if f"{name}__stats" in golden.arrays:
        error = max(error, _stats_error(flat, np.asarray(golden.arrays[f"{name}__stats"], dtype=np.float64)))
    return Comparison(title, error, tolerance)


def _relative(values: np.ndarray, expected: np.ndarray, floor: float = 0.0) -> float:
    if not expected.size:
        return 0.0
    scale = max(float(np.abs(expected).max()), floor)
    return float(np.abs(values - expected).max() / (scale or 1.0))


def _stats_error(flat: np.ndarray, stats: np.ndarray) -> float:
    mean, std, largest, norm = (float(value) for value in stats.reshape(-1)[:4])
    # The files do not say which of the two standard deviations is meant; for big arrays they are nearly the same.
    std_errors = [abs(float(flat.std(ddof=ddof)) - std) for ddof in (0, 1) if flat.size > ddof]
    scale = largest or 1.0
    errors = [
        abs(float(flat.mean()) - mean) / scale,
        min(std_errors) / scale,
        abs(float(np.abs(flat).max()) - largest) / scale,
        abs(float(np.sqrt(np.square(flat).sum())) - norm) / (norm or 1.0),
    ]
    return float("nan") if any(np.isnan(errors)) else max(errors)
