"""Rectangles that training draws on pictures: windows to crop, and patches to erase.

Rules and numbers are those of facebookresearch/SlowFast (`slowfast/datasets/transform.py`, `_get_param_spatial_crop`;
`random_erasing.py` in its form for clips): area and logarithm of the aspect are uniform, what does not fit is drawn
again. Not here: what is done with them (`augment.py`, `mixed_input.py`).
"""

from __future__ import annotations

import math

import torch

from wholereel.batches import Erased
from wholereel.config import Erasing, ResizedCrop

__all__ = ["Window", "draw_patches", "draw_window"]

WINDOW_TRIES, PATCH_TRIES = 10, 100

Window = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


def draw_window(settings: ResizedCrop, height: int, width: int, generator: torch.Generator) -> Window:
    """A window inside a picture; after ten that do not fit, the largest in the middle whose aspect is in the range."""
    for _ in range(WINDOW_TRIES):
        share, aspect, top, left = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = _between(settings.area, share) * height * width
        ratio = math.exp(_between((math.log(settings.aspect[0]), math.log(settings.aspect[1])), aspect))
        high, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < high <= height and 0 < wide <= width:
            return int(top * (height - high + 1)), int(left * (width - wide + 1)), high, wide
    low, most = settings.aspect
    high, wide = min(height, round(width / low)), min(width, round(height * most))
    return (height - high) // 2, (width - wide) // 2, high, wide


def draw_patches(settings: Erasing, height: int, width: int, generator: torch.Generator) -> tuple[Erased, ...]:
    """Rectangles to erase of the first clip of the first row, smaller than the picture; none of most draws."""
    happens, number = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    if happens >= settings.probability:
        return ()
    count = 1 + int(number * settings.count)
    found = (_patch(settings, count, height, width, generator) for _ in range(count))
    return tuple(patch for patch in found if patch is not None)


def _patch(settings: Erasing, count: int, height: int, width: int, generator: torch.Generator) -> Erased | None:
    bound = -math.log(settings.least_aspect)
    for _ in range(PATCH_TRIES):
        share, aspect, top, left = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = _between(settings.area, share) * height * width / count
        ratio = math.exp(_between((-bound, bound), aspect))
        high, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if high < height and wide < width:
            seed = int(torch.randint(2**62, (), generator=generator))
            top, left = int(top * (height - high + 1)), int(left * (width - wide + 1))
            return Erased(0, 0, top, left, high, wide, seed)
    return None


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])
