"""Worlds whose videos show two events, so far apart that no clip of three seconds sees both.

The events lie in two segments with at least one segment between them and stay away from the segments' borders: 27
frames or more from the last frame of the first event to the first frame of the second, where a three-second clip
spans 24.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds.event_world import Event, EventWorld
from wholereel.datasets.worlds.placement import draw_placement, draw_two_segments

__all__ = ["TwoEventWorld"]


@dataclass(frozen=True)
class TwoEventWorld(EventWorld):
    """24 seconds, eight segments, two events; a subclass draws the kinds of the first and the second."""

    segments: ClassVar[int] = 8
    companions: ClassVar[tuple[str, ...]] = ("events8",)
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 2000, "val": 300, "test": 700}

    @abstractmethod
    def draw_kinds(self, label: int, generator: np.random.Generator) -> tuple[int, int]:
        """Kinds of the first and the second event."""

    def draw_events(self, label: int, generator: np.random.Generator) -> tuple[Event, ...]:
        # Time, place and colour are drawn before the kinds: they cannot depend on the label.
        places = [
            draw_placement(segment, segment_frames=self.group_frames, size=self.size, generator=generator)
            for segment in draw_two_segments(self.segments, generator)
        ]
        kinds = self.draw_kinds(label, generator)
        return tuple(place.show(kind) for place, kind in zip(places, kinds, strict=True))
