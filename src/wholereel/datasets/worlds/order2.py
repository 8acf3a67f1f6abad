"""order2: which of two glyphs comes first? A leak detector: whoever forgets the order of clips is at chance.

Both labels show the same two glyphs, and nothing else in a clip tells its time; so one clip, and any function of the
*set* of a video's clips, is at 1/2. That includes a memory over the whole video which does not know the clips' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle
from wholereel.datasets.worlds.event_world import Event
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.two_events import TwoEventWorld

__all__ = ["Order2"]

KINDS = (NAMES.index("disc"), NAMES.index("plus"))


@dataclass(frozen=True)
class Order2(TwoEventWorld):
    """Label 0: disc, then plus; label 1: plus, then disc."""

    name: ClassVar[str] = "order2"
    summary: ClassVar[str] = (
        "which of two glyphs comes first (control: 1/2 for everything that forgets the order of clips)"
    )
    classes: ClassVar[tuple[str, ...]] = tuple(f"{NAMES[kind]}_first" for kind in KINDS)

    def draw_kinds(self, label: int, generator: np.random.Generator) -> tuple[int, int]:
        return KINDS[label], KINDS[1 - label]

    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        return 0.0, 0.0

    def video_label(self, events: Sequence[Event]) -> int:
        return KINDS.index(events[0].kind)

    def ceilings(self) -> dict[str, float]:
        return {"clip": 0.5, "sum": 0.5, "order_free": 0.5, "video": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        # The set of clips is the same for both labels, so the best that forgets the order is the sum, i.e. a guess.
        return super().oracles() | {"order_free": self._predict_from_sum}
