"""events8: trimmed three-second clips of the eight glyphs, or of nothing; companion for pre-training a clip model.

The clips look like the segments of the worlds with two events. Classes: the eight kinds, then `none`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds.event_world import Event, EventWorld
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.placement import draw_placement

__all__ = ["Events8"]


@dataclass(frozen=True)
class Events8(EventWorld):
    """Which glyph is shown, if any. Ceiling 1: a clip shows everything."""

    name: ClassVar[str] = "events8"
    summary: ClassVar[str] = "which of 8 glyphs a 3-second clip shows, or none (companion of match8, pair6, order2)"
    classes: ClassVar[tuple[str, ...]] = (*NAMES, "none")
    segments: ClassVar[int] = 1
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 3600, "val": 450, "test": 900}

    def draw_events(self, label: int, generator: np.random.Generator) -> tuple[Event, ...]:
        place = draw_placement(0, segment_frames=self.group_frames, size=self.size, generator=generator)
        return () if label == len(NAMES) else (place.show(label),)

    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        shown = self.video_label(events)
        return tuple(float(label == shown) for label in range(len(self.classes)))

    def video_label(self, events: Sequence[Event]) -> int:
        return events[0].kind if events else len(NAMES)

    def ceilings(self) -> dict[str, float]:
        return {"clip": 1.0, "sum": 1.0, "video": 1.0}
