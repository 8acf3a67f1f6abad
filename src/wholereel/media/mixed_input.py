"""What training does to clips after they are normalised: noise in erased rectangles, and blends of two rows.

Sources: arXiv 1708.04896 (random erasing), 1710.09412 (mixup), 1905.04899 (CutMix), in the form of
facebookresearch/SlowFast (`random_erasing.py` mode `pixel`, `mixup.py`): noise is standard normal, drawn anew for each
frame; row b is blended with row B - 1 - b; the share of CutMix is what the rectangle, cut at the border, leaves.
Everything is drawn beforehand and travels with the batch, so a clip that goes through the network twice is twice the
same. Noise is drawn on the device of the clips: the same seed gives other noise on another kind of device.
Not here: the labels of blends (`tasks/`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wholereel.batches import Blend, Erased
from wholereel.config import Mixing

__all__ = ["blended", "draw_blend", "draw_share", "erase", "pairs"]


def erase(clips_BNCTHW: Tensor, erased: Sequence[Erased], clips: range) -> None:
    """Fill rectangles with noise, in place.

    Args:
        clips_BNCTHW: normalised.
        erased: of all clips of the batch.
        clips: which of the batch's clips these are; rectangles of others are left out.
    """
    for patch in erased:
        if patch.clip in clips:
            bottom, right = patch.top + patch.height, patch.left + patch.width
            clip_CTHW = clips_BNCTHW[patch.row, clips.index(patch.clip)]
            region_CTHW = clip_CTHW[..., patch.top : bottom, patch.left : right]
            generator = torch.Generator(clips_BNCTHW.device).manual_seed(patch.seed)
            noise_CTHW = torch.randn(region_CTHW.shape, generator=generator, device=region_CTHW.device)
            region_CTHW.copy_(noise_CTHW)


def blended(clips: Tensor, blend: Blend) -> Tensor:
    """Each row mixed with its partner; rows with a share of 1 stay as they are, bit by bit.

    Args:
        clips: normalised, `B...HW`.
    """
    own_BHW = _own_share(blend, clips.shape[-2], clips.shape[-1]).to(clips.dtype)
    own = own_BHW.view(len(own_BHW), *[1] * (clips.ndim - 3), *own_BHW.shape[1:])
    return torch.lerp(clips[blend.partner_B], clips, own)


def _own_share(blend: Blend, height: int, width: int) -> Tensor:
    """How much of each pixel is the row's own: BHW, float64."""
    top, bottom, left, right = (edge[:, None, None] for edge in blend.box_B4.unbind(1))
    rows = torch.arange(height, device=blend.box_B4.device)[:, None]
    columns = torch.arange(width, device=blend.box_B4.device)
    inside_BHW = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    cut = (blend.box_B4[:, 1] > blend.box_B4[:, 0])[:, None, None]
    return torch.where(cut, (~inside_BHW).double(), blend.share_B[:, None, None])


def pairs(rows: int) -> Tensor:
    """The partner of each row: the batch read backward. The middle one of an odd number is its own."""
    return torch.arange(rows - 1, -1, -1)


def draw_blend(settings: Mixing, rows: int, height: int, width: int, generator: torch.Generator) -> Blend:
    """One draw for all rows of a batch, as the public code draws it."""
    share, box = draw_share(settings, height, width, generator)
    box_B4 = torch.tensor(box).expand(rows, 4).clone()
    return Blend(pairs(rows), torch.full((rows,), share, dtype=torch.float64), box_B4)


def draw_share(
    settings: Mixing, height: int, width: int, generator: torch.Generator
) -> tuple[float, tuple[int, int, int, int]]:
    """The own share, and the rectangle (top, bottom, left, right) of CutMix; of mixup, and where nothing is blended,
    zeros.

    Args:
        height, width: of the pictures.
    """
    happens, switch, middle_y, middle_x = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    # torch.distributions.Beta takes no generator
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if happens >= settings.probability:
        return 1.0, (0, 0, 0, 0)
    cuts = settings.cutmix > 0 and (settings.mixup == 0 or switch < settings.switch)
    alpha = settings.cutmix if cuts else settings.mixup
    share = float(numbers.beta(alpha, alpha))
    if not cuts:
        return share, (0, 0, 0, 0)
    side = (1 - share) ** 0.5
    top, bottom = _cut(int(height * side), int(middle_y * height), height)
    left, right = _cut(int(width * side), int(middle_x * width), width)
    area = (bottom - top) * (right - left)
    return 1 - area / (height * width), (top, bottom, left, right) if area else (0, 0, 0, 0)


def _cut(length: int, middle: int, size: int) -> tuple[int, int]:
    return max(0, middle - length // 2), min(size, middle + length // 2)
