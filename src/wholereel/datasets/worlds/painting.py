"""What worlds of moving things share: a sample's name and seed, the canvas, and shapes painted on it.

Everything is a pure function of a seed. Not here: background, noise and distractor (`render.py`).
"""

from __future__ import annotations

import numpy as np

from wholereel.datasets.worlds import render

__all__ = ["Color", "blend", "canvas", "draw_color", "draw_identity", "paint_mask"]

Color = tuple[int, int, int]
COLORS = (150, 255)


def draw_identity(generator: np.random.Generator) -> tuple[str, int]:
    """The first two draws of a sample. Returns: id of 16 hexadecimal digits, 64-bit seed of all that means nothing."""
    name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
    return f"{name:016x}", paint_seed


def draw_color(generator: np.random.Generator, low: int = COLORS[0], high: int = COLORS[1]) -> Color:
    """Red, green and blue, each uniform in low..high."""
    red, green, blue = (int(n) for n in generator.integers(low, high + 1, size=3))
    return red, green, blue


def canvas(paint_seed: int, *, frames: int, size: int, group_frames: int | None = None) -> np.ndarray:
    """Background, still noise and the wandering square, which starts anew in each group of frames.

    Args:
        group_frames: divides `frames`; `None` = one group.
    Returns: frames_THWC, uint8.
    """
    group_frames = frames if group_frames is None else group_frames
    frames_THWC = np.empty((frames, size, size, 3), np.uint8)
    frames_THWC[:] = render.background(np.random.default_rng([paint_seed, 0]), size)
    for group in range(frames // group_frames):
        # A generator per group: no part of a video tells which part came before or after it.
        generator = np.random.default_rng([paint_seed, 1 + group])
        render.paint_distractor(frames_THWC[group * group_frames : (group + 1) * group_frames], generator)
    return frames_THWC


def paint_mask(frame_HWC: np.ndarray, mask_HW: np.ndarray, *, x: int, y: int, color: Color) -> None:
    """Fill a shape with a colour, in place; what leaves the picture on the right enters on the left.

    Args:
        x, y: left, top of the mask; it may stick out on the left and right, but not at the top and bottom.
    """
    rows, columns = np.nonzero(mask_HW)
    frame_HWC[y + rows, (x + columns) % frame_HWC.shape[1]] = color


def blend(part_HWC: np.ndarray, cover_HW: np.ndarray, color: Color) -> None:
    """Lay a colour over a part of a picture, in place; `cover_HW` is its opacity, 0..1."""
    part_HWC[:] = np.rint(part_HWC + cover_HW[..., None] * (np.asarray(color, np.float64) - part_HWC)).astype(np.uint8)
