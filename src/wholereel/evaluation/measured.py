"""What every evaluation finds: how it was measured, numbers, what was left out; and its lines for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wholereel.batches import Fault
from wholereel.datasets.atomic_files import write_text_file

__all__ = ["Measured", "json_number", "write_measured"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`str` gives the lines for a terminal, `to_dict` the content of `results.json`.

    Args:
        protocol: how it was measured, in words (`"text"`) and numbers.
        metrics: by name, in [0, 1]; NaN for what cannot be measured here.
        intervals: 95 % (Wilson) of the accuracies among them, as if what is judged were independent.
        classes: names of the model's classes.
        samples: that there are; `evaluated` of them were judged.
        evaluated: samples that were judged.
        faults: the others, and why.
        truncated: ids of what was judged though its file is cut off, with what decodes.
    """

    protocol: Mapping[str, Any]
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    classes: tuple[str, ...]
    samples: int
    evaluated: int
    faults: tuple[Fault, ...]
    truncated: tuple[str, ...]

    unit: ClassVar[str] = ""  # what is counted, in the plural

    def to_dict(self) -> dict[str, Any]:
        """No times, no seeds, no machine paths besides those of failed files."""
        return {
            "protocol": dict(self.protocol),
            "samples": self.samples,
            "evaluated": self.evaluated,
            "faults": [{"id": fault.id, "path": fault.path, "reason": fault.reason} for fault in self.faults],
            "truncated": list(self.truncated),
            "metrics": {name: json_number(value) for name, value in self.metrics.items()},
            "intervals_95": {name: [round(low, 6), round(high, 6)] for name, (low, high) in self.intervals.items()},
            "classes": list(self.classes),
        }

    def __str__(self) -> str:
        lines = [str(self.protocol.get("text", ""))]
        for name, value in self.metrics.items():
            interval = "  [{:.4f}, {:.4f}]".format(*self.intervals[name]) if name in self.intervals else ""
            lines.append(f"  {name:<22}{value:.4f}{interval}")
        lines += self._counts()
        lines += [f"  failed: {fault.id}: {fault.reason}" for fault in self.faults]
        return "\n".join(lines)

    def _counts(self) -> list[str]:
        return [f"{self.evaluated} of {self.samples}{' ' + self.unit if self.unit else ''} evaluated"]


def write_measured(results: Measured, out: Path) -> None:
    """Write `results.json`: last of all files, so that where it exists the others are complete."""
    write_text_file(out / "results.json", json.dumps(results.to_dict(), indent=1, ensure_ascii=False) + "\n")


def json_number(value: float) -> float | None:
    """JSON knows no NaN; six decimals, so that files of different machines can be compared."""
    return None if math.isnan(value) else round(value, 6)
