"""pair6: which two of four glyphs does a video show? A control: adding up clip scores already solves it.

Each event votes for the three pairs that contain it; the true pair gets two votes, all others at most one.
A random segment shows an event in 2 of 8 cases and then leaves three pairs: 1/4 * 1/3 + 3/4 * 1/6 = 5/24.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds.event_world import Event
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.two_events import TwoEventWorld

__all__ = ["Pair6"]

PAIRS: tuple[tuple[int, int], ...] = tuple(combinations(range(4), 2))


@dataclass(frozen=True)
class Pair6(TwoEventWorld):
    """Label: the unordered pair of kinds; which of the two comes first is random."""

    name: ClassVar[str] = "pair6"
    summary: ClassVar[str] = "which two of four glyphs a video shows (control: adding clip scores is enough)"
    classes: ClassVar[tuple[str, ...]] = tuple(f"{NAMES[a]}+{NAMES[b]}" for a, b in PAIRS)

    def draw_kinds(self, label: int, generator: np.random.Generator) -> tuple[int, int]:
        first, second = PAIRS[label]
        return (second, first) if generator.integers(2) else (first, second)

    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        shown = {event.kind for event in events}
        return tuple(float(len(shown & set(pair))) for pair in PAIRS)

    def video_label(self, events: Sequence[Event]) -> int:
        first, second = sorted(event.kind for event in events)
        return PAIRS.index((first, second))

    def ceilings(self) -> dict[str, float]:
        seen = Fraction(2, self.segments)
        clip = seen * Fraction(1, 3) + (1 - seen) * Fraction(1, len(PAIRS))
        return {"clip": float(clip), "sum": 1.0, "video": 1.0}
