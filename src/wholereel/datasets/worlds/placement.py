"""Where and when an event is shown: drawn independently of what it shows.

Not here: which kinds a label has (each world's own file).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholereel.datasets.worlds.event_world import Event
from wholereel.datasets.worlds.render import scaled

__all__ = ["EVENT_FRAMES", "Placement", "draw_place", "draw_placement", "draw_two_segments"]

EVENT_FRAMES = 8
SIDES = (16, 24)
COLORS = (150, 255)


@dataclass(frozen=True)
class Placement:
    """An event without its kind; fields as in `Event`."""

    segment: int
    start: int
    x: int
    y: int
    side: int
    color: tuple[int, int, int]

    def show(self, kind: int) -> Event:
        """The event that shows `kind` here."""
        return Event(kind, self.segment, self.start, EVENT_FRAMES, self.x, self.y, self.side, self.color)


def draw_placement(segment: int, *, segment_frames: int, size: int, generator: np.random.Generator) -> Placement:
    """Uniform time (at least one frame away from both borders of the segment), size, place and colour."""
    offset = int(generator.integers(1, segment_frames - EVENT_FRAMES))
    x, y, side, color = draw_place(size, generator)
    return Placement(segment, segment * segment_frames + offset, x, y, side, color)


def draw_place(size: int, generator: np.random.Generator) -> tuple[int, int, int, tuple[int, int, int]]:
    """Uniform size, place and colour of a glyph. Returns: x, y, side, color as in `Event`."""
    side = round(scaled(int(generator.integers(SIDES[0], SIDES[1] + 1)), size))
    x, y = (int(n) for n in generator.integers(0, size - side + 1, size=2))
    red, green, blue = (int(n) for n in generator.integers(COLORS[0], COLORS[1] + 1, size=3))
    return x, y, side, (red, green, blue)


def draw_two_segments(segments: int, generator: np.random.Generator) -> tuple[int, int]:
    """Two segments in order, uniform over all pairs that have at least one other segment between them."""
    pairs = [(first, second) for first in range(segments) for second in range(first + 2, segments)]
    return pairs[int(generator.integers(len(pairs)))]
