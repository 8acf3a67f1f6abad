"""What a report of an official evaluation holds: protocol, counts and numbers, for a terminal and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_text_file

__all__ = ["ClassValue", "Report", "evaluated"]


@dataclass(frozen=True)
class ClassValue:
    """One class: its name, how often it occurs in the truth, its value (NaN = undefined)."""

    name: str
    count: int
    value: float


@dataclass(frozen=True)
class Report:
    """An official evaluation; `str` gives the lines for a terminal.

    Args:
        protocol: how it was measured: `"name"`, `"text"` in words, and settings.
        counts: of everything that the numbers rest on.
        metrics: by name. Shares are printed in percent, all others as they are.
        per_class: may be empty.
        percent: whether the metrics are shares in [0, 1].
    """

    protocol: Mapping[str, Any]
    counts: Mapping[str, int]
    metrics: Mapping[str, float]
    per_class: tuple[ClassValue, ...] = ()
    percent: bool = field(default=True)

    def to_dict(self) -> dict[str, Any]:
        """Content of the JSON file; numbers with all digits, undefined ones as null."""
        return {
            "protocol": dict(self.protocol),
            "counts": dict(self.counts),
            "metrics": {name: _json(value) for name, value in self.metrics.items()},
            "per_class": [{"name": row.name, "count": row.count, "value": _json(row.value)} for row in self.per_class],
        }

    def write(self, path: str | Path) -> None:
        """Write the JSON file."""
        write_text_file(Path(path), json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

    def __str__(self) -> str:
        width = max(map(len, [*self.metrics, *self.counts]))
        lines = [f"{self.protocol['name']}: {self.protocol['text']}"]
        lines += [f"  {name:<{width}}  {value:,}" for name, value in self.counts.items()]
        lines += [f"  {name:<{width}}  {self._number(value)}" for name, value in self.metrics.items()]
        return "\n".join(lines)

    def _number(self, value: float) -> str:
        if math.isnan(value):
            return "undefined"
        return f"{100 * value:.3f} %" if self.percent else f"{value:.4f}"


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def evaluated(scored: int, annotated: int, unknown: int) -> dict[str, int]:
    """Counts that reports on samples begin with: `scored` of `annotated`; `unknown` rows of scores are not used."""
    return {"evaluated": scored, "annotated": annotated, "without_scores": annotated - scored, "unknown_ids": unknown}
