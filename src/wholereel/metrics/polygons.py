"""Which points lie inside polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["inside_polygons"]


def inside_polygons(points: np.ndarray, polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Whether points lie strictly inside at least one polygon (even-odd rule, so polygons may cross themselves).

    Args:
        points: (..., 2); NaN is never inside.
        polygons: each (corners, 2), closed by itself.
    Returns: bool (...).
    """
    x, y = points[..., 0], points[..., 1]
    inside = np.zeros(x.shape, dtype=bool)
    for polygon in polygons:
        inside |= _strictly_inside(x, y, np.asarray(polygon, dtype=np.float64))
    return inside & np.isfinite(x) & np.isfinite(y)


def _strictly_inside(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    odd = np.zeros(x.shape, dtype=bool)
    border = np.zeros(x.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
        within = (np.minimum(x1, x2) <= x) & (x <= np.maximum(x1, x2))
        within &= (np.minimum(y1, y2) <= y) & (y <= np.maximum(y1, y2))
        border |= (side == 0) & within
        # a ray to the right crosses the edge: the lower end counts, the upper does not, so a corner counts once
        crosses = (y1 <= y) != (y2 <= y)
        odd ^= crosses & ((side > 0) == (y2 > y1))
    return odd & ~border
