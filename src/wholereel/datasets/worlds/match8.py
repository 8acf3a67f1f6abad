"""match8: do the two events of a video show the same glyph? Adding up clip scores is not enough.

One clip knows nothing. A sum (mean, maximum) of clip scores that depend on the glyph's kind reaches 9/14; if a clip's
score may also depend on the clip's own colours and places, used as private dice, 19/28 and no more. Seeing both
events: 1. Proofs: `docs/worlds/match8.md`. Extra letters: k kinds, s kinds with a high score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle
from wholereel.datasets.worlds.event_world import Event, EventScene
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.two_events import TwoEventWorld

__all__ = ["Match8", "best_randomised_sum", "best_sum"]

KINDS = len(NAMES)


@dataclass(frozen=True)
class Match8(TwoEventWorld):
    """Label 1 (`match`): both events of one kind, uniform; label 0: two kinds, uniform over the 56 ordered pairs."""

    name: ClassVar[str] = "match8"
    summary: ClassVar[str] = (
        "whether two glyphs, seconds apart, are of the same kind (needs clips that exchange what they saw)"
    )
    classes: ClassVar[tuple[str, ...]] = ("differ", "match")

    def draw_kinds(self, label: int, generator: np.random.Generator) -> tuple[int, int]:
        first, step = int(generator.integers(KINDS)), int(generator.integers(1, KINDS))
        return first, first if label else (first + step) % KINDS

    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        """Half of the kinds vote for `match`; two such votes outweigh the votes for `differ` (0.75 an event)."""
        return 0.75 * len(events), float(sum(event.kind < KINDS // 2 for event in events))

    def video_label(self, events: Sequence[Event]) -> int:
        return int(events[0].kind == events[1].kind)

    def ceilings(self) -> dict[str, float]:
        return {
            "clip": 0.5,
            "sum": float(best_sum(KINDS)),
            "sum_any": float(best_randomised_sum(KINDS)),
            "video": 1.0,
        }

    def oracles(self) -> dict[str, Oracle]:
        return super().oracles() | {"sum_any": predict_from_randomised_sum}


def best_sum(kinds: int) -> Fraction:
    """Best accuracy of "match iff u(a) + u(b) > threshold" over all functions u of the kind: 9/14 for eight kinds.

    Let s kinds have 2u > threshold. Matches: s/k are right. All s(s-1) ordered pairs of those kinds exceed the
    threshold too.
    """

    def accuracy(s: int) -> Fraction:
        return (Fraction(s, kinds) + 1 - Fraction(s * (s - 1), kinds * (kinds - 1))) / 2

    return max(accuracy(s) for s in range(kinds + 1))


def best_randomised_sum(kinds: int) -> Fraction:
    """As `best_sum`, where a clip's score may also depend on the clip's own nuisances: 19/28 for eight kinds."""
    return Fraction(1, 2) + Fraction(2 * kinds - 1, 12 * (kinds - 1))


def randomised_score(kind: int, generator: np.random.Generator) -> int:
    """Clip score that attains `best_randomised_sum`: strength k - kind, positive with probability kind / (k - 1)."""
    strength = KINDS - kind
    return strength if generator.random() < kind / (KINDS - 1) else -strength


def predict_from_randomised_sum(scene: EventScene, generator: np.random.Generator) -> int:
    """Oracle: match iff the sum of the clips' randomised scores is not negative."""
    return int(sum(randomised_score(event.kind, generator) for event in scene.events) >= 0)
