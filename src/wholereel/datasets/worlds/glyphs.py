"""Eight binary shapes that are told apart by form alone: equal size range, any colour; all are their own mirror image.

Mirror symmetry (left-right) makes a horizontal flip a legal augmentation. The stripes are horizontal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

__all__ = ["NAMES", "glyph_mask"]

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Each shape is a condition on x, y in [-1, 1] (y points down).
SHAPES: dict[str, Shape] = {
    "disc": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (abs(x) <= (y + 1) / 2) & (y <= 0.9),
    "plus": lambda x, y: (abs(x) <= 0.3) | (abs(y) <= 0.3),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3),
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
    "cross": lambda x, y: abs(abs(x) - abs(y)) <= 0.4,
    "stripes": lambda x, y: np.floor((y + 1) * 2.5) % 2 == 0,
}
NAMES: tuple[str, ...] = tuple(SHAPES)


@lru_cache(maxsize=512)
def glyph_mask(kind: int, side: int) -> np.ndarray:
    """Shape number `kind` (order of `NAMES`) on a square of `side` pixels. Returns: mask_HW, bool, read-only."""
    if not 0 <= kind < len(NAMES):
        raise ValueError(f"kind must be in 0..{len(NAMES) - 1}, got {kind}")
    axis = (2 * np.arange(side) + 1) / side - 1
    mask_HW = np.broadcast_to(SHAPES[NAMES[kind]](axis[None, :], axis[:, None]), (side, side)).copy()
    mask_HW.flags.writeable = False
    return mask_HW
