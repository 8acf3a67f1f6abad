"""Paint a scene: soft background, still noise, a wandering square that means nothing, and the glyphs on top.

Painting is a pure function of the events and a seed, in integers and element-wise float64, so that the raw frames
have the same hash everywhere. Every sample of a world, whatever its label, goes through these lines. Extra axis: G
cells of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wholereel.datasets.worlds.glyphs import glyph_mask

if TYPE_CHECKING:
    from wholereel.datasets.worlds.event_world import Event

__all__ = ["background", "paint_distractor", "render_scene", "scaled"]

CELLS = 6
BACKGROUND = (60, 160)
NOISE_SIGMA = 4.0
DISTRACTOR_SIDE = 8
DISTRACTOR_GREY = (150, 255)
DISTRACTOR_SPEED = (0.3, 1.5)
REFERENCE_SIZE = 64


def scaled(pixels: float, size: int) -> float:
    """A length that is given for the 64-pixel canvas, on a canvas of `size` pixels."""
    return pixels * size / REFERENCE_SIZE


def render_scene(
    events: Sequence[Event], paint_seed: int, *, segments: int, segment_frames: int, size: int
) -> np.ndarray:
    """Paint a video.

    Args:
        events: what is shown; drawn last, so that nothing covers them.
        paint_seed: 64-bit seed of everything else.
        segments, segment_frames: the video has their product of frames.
        size: height and width in pixels.
    Returns: frames_THWC, uint8.
    """
    ground_HWC = background(np.random.default_rng([paint_seed, 0]), size)
    frames_THWC = np.empty((segments * segment_frames, size, size, 3), np.uint8)
    frames_THWC[:] = ground_HWC
    for segment in range(segments):
        # A generator per segment: the square starts anew, so no clip tells which segment came before or after it.
        generator = np.random.default_rng([paint_seed, 1 + segment])
        paint_distractor(frames_THWC[segment * segment_frames : (segment + 1) * segment_frames], generator)
    for event in events:
        mask_HW = glyph_mask(event.kind, event.side)
        shown = slice(event.start, event.start + event.frames)
        place = frames_THWC[shown, event.y : event.y + event.side, event.x : event.x + event.side]
        place[:, mask_HW] = event.color
    return frames_THWC


def background(generator: np.random.Generator, size: int) -> np.ndarray:
    """6 x 6 random colours in 60..160, interpolated bilinearly, plus one noise image; square. Returns: ground_HWC."""
    colors_GGC = generator.integers(BACKGROUND[0], BACKGROUND[1] + 1, size=(CELLS, CELLS, 3)).astype(np.float64)
    place = np.linspace(0, CELLS - 1, size)
    low = np.minimum(place.astype(np.int64), CELLS - 2)
    part = place - low
    rows_HGC = colors_GGC[low] * (1 - part)[:, None, None] + colors_GGC[low + 1] * part[:, None, None]
    smooth_HWC = rows_HGC[:, low] * (1 - part)[None, :, None] + rows_HGC[:, low + 1] * part[None, :, None]
    noise_HWC = NOISE_SIGMA * generator.standard_normal((size, size, 3))
    return np.clip(np.rint(smooth_HWC + noise_HWC), 0, 255).astype(np.uint8)


def paint_distractor(frames_THWC: np.ndarray, generator: np.random.Generator) -> None:
    """Let a grey square wander through the frames, in place: constant speed, reflected at the borders."""
    count, height, width = frames_THWC.shape[:3]
    size = min(height, width)
    side = round(scaled(DISTRACTOR_SIDE, size))
    room = np.array([height - side, width - side])
    grey = generator.integers(DISTRACTOR_GREY[0], DISTRACTOR_GREY[1] + 1)
    speed_2 = scaled(1, size) * generator.uniform(*DISTRACTOR_SPEED, size=2)
    # Phase over a whole period (there and back): position and direction are then equally likely at every moment.
    phase_2 = generator.uniform(0, 2 * room, size=2)
    path_T2 = (phase_2 + speed_2 * np.arange(count)[:, None]) % (2 * room)
    corner_T2 = np.rint(np.minimum(path_T2, 2 * room - path_T2)).astype(np.int64)
    for frame_HWC, (y, x) in zip(frames_THWC, corner_T2.tolist(), strict=True):
        frame_HWC[y : y + side, x : x + side] = grey
