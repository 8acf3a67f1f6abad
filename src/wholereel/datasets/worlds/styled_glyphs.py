"""Eight silhouettes in six drawing styles, each its own mirror image.

Other shapes than `glyphs.py`: no ring and no stripes, which would be a disc or a square in another style.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from wholereel.datasets.worlds.glyphs import SHAPES, Shape
from wholereel.datasets.worlds.painting import Color, draw_color

__all__ = ["SILHOUETTES", "STYLES", "draw_style_color", "styled_mask"]

FORMS: dict[str, Shape] = {
    **{name: SHAPES[name] for name in ("triangle", "plus", "diamond", "cross", "disc", "square")},
    "hourglass": lambda x, y: abs(x) <= np.maximum(abs(y), 0.2),
    "tee": lambda x, y: (y <= -0.4) | (abs(x) <= 0.3),
}
SILHOUETTES: tuple[str, ...] = tuple(FORMS)

# A style is a condition on the silhouette, its border and the column and row inside the glyph's square.
Style = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
DRAWN: dict[str, Style] = {
    "solid": lambda form, border, x, y: form,
    "outline": lambda form, border, x, y: border,
    "checker": lambda form, border, x, y: form & ((x // 2 + y // 2) % 2 == 0),
    "stripes": lambda form, border, x, y: form & (y // 2 % 2 == 0),
    "dark": lambda form, border, x, y: form,
    "grid": lambda form, border, x, y: form & ((x % 3 == 0) | (y % 3 == 0)),
}
STYLES: tuple[str, ...] = tuple(DRAWN)
DARK = (0, 40)


@lru_cache(maxsize=1024)
def styled_mask(kind: int, style: int, side: int) -> np.ndarray:
    """Silhouette number `kind` drawn in style number `style`. Returns: mask_HW, bool, read-only."""
    # Exactly antisymmetric, unlike (2 n + 1) / side - 1: else rounding would decide on diagonals.
    axis = (2 * np.arange(side) + 1 - side) / side
    form_HW = np.broadcast_to(FORMS[SILHOUETTES[kind]](axis[None, :], axis[:, None]), (side, side))
    around = np.pad(form_HW, 1)
    inner_HW = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    place = np.arange(side)
    mask_HW = DRAWN[STYLES[style]](form_HW, form_HW & ~inner_HW, place[None, :], place[:, None]).copy()
    mask_HW.flags.writeable = False
    return mask_HW


def draw_style_color(style: int, generator: np.random.Generator) -> Color:
    """Light, or dark in the style `dark`: equally many draws."""
    return draw_color(generator, *DARK) if STYLES[style] == "dark" else draw_color(generator)
