"""Four ways in which a glyph moves, such that one frame does not tell which: left, right, grow, shrink.

In every frame, whatever the way, the glyph's middle is spread evenly along the width (what leaves on one side enters
on the other) and its size is spread evenly between the smallest and the largest (one that grew to the largest begins
at the smallest again).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholereel.datasets.worlds.glyphs import glyph_mask
from wholereel.datasets.worlds.painting import Color, draw_color, paint_mask
from wholereel.datasets.worlds.render import scaled

__all__ = ["VERBS", "Mover", "draw_mover", "paint_mover"]

VERBS = ("left", "right", "grow", "shrink")
SIDES = (12.0, 28.0)
SPEED = (1.5, 2.5)
GROWTH = (0.5, 0.8)


@dataclass(frozen=True)
class Mover:
    """A glyph that moves.

    Args:
        kind: 0..7, index into `glyphs.NAMES`.
        verb: index into `VERBS`.
        x, y: its middle at the first frame, in pixels.
        side: of its square at the first frame, in pixels.
        speed: pixels a frame to either side, used by left and right.
        growth: pixels a frame, used by grow and shrink.
        color: red, green, blue.
        start, frames: first frame, and number of frames, in which it is shown.
    """

    kind: int
    verb: int
    x: float
    y: float
    side: float
    speed: float
    growth: float
    color: Color
    start: int
    frames: int


def draw_mover(
    kind: int, verb: int, *, size: int, frames: int, start: int = 0, generator: np.random.Generator
) -> Mover:
    """Place, size, speeds and colour: the same draws for all kinds and verbs."""
    low, high = (scaled(side, size) for side in SIDES)
    # As far from the upper and lower border as the largest glyph needs, whatever its size is now.
    x, y = generator.uniform(0, size), generator.uniform(high / 2 + 1, size - high / 2 - 1)
    side = generator.uniform(low, high)
    speed, growth = scaled(generator.uniform(*SPEED), size), scaled(generator.uniform(*GROWTH), size)
    color = draw_color(generator)
    return Mover(kind, verb, float(x), float(y), float(side), float(speed), float(growth), color, start, frames)


def look(mover: Mover, step: int, size: int) -> tuple[float, float, float]:
    """Middle (x, y) and side of a mover `step` frames after its first."""
    low, high = (scaled(side, size) for side in SIDES)
    sign = (-1, 1, 1, -1)[mover.verb]
    if VERBS[mover.verb] in ("left", "right"):
        return (mover.x + sign * mover.speed * step) % size, mover.y, mover.side
    return mover.x, mover.y, low + (mover.side - low + sign * mover.growth * step) % (high - low)


def paint_mover(frames_THWC: np.ndarray, mover: Mover) -> None:
    """Paint a mover into the frames in which it is shown, in place."""
    size = frames_THWC.shape[2]
    for step, frame_HWC in enumerate(frames_THWC[mover.start : mover.start + mover.frames]):
        x, y, length = look(mover, step, size)
        side = round(length)
        mask_HW = glyph_mask(mover.kind, side)
        paint_mask(frame_HWC, mask_HW, x=round(x - length / 2), y=round(y - length / 2), color=mover.color)
