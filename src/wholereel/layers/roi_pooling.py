"""Features of boxes: the largest value inside a box of a clip's features, averaged over time.

Source: facebookresearch/SlowFast (`slowfast/models/head_helper.py`, `ResNetRoIHead`). R boxes, S slots of a row.
Not here: the classifier, and what a memory does with the vectors (`models/detector.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

__all__ = ["boxes_of_slots", "pool_boxes"]


def pool_boxes(
    maps_BDTHW: Tensor,
    boxes_R5: Tensor,
    *,
    scale: float,
    resolution: int = 7,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """`(R, D)`, float32 or wider.

    Args:
        maps_BDTHW: feature maps.
        boxes_R5: row of the batch, x1, y1, x2, y2 in pixels of the clip.
        scale: positions per pixel, e.g. 1 / 16.
        resolution: bins of a box's side.
        sampling_ratio: points per bin and side; 0 = as many as the box has positions in it.
        aligned: pixel centres lie at half numbers.
    """
    maps_BDHW = maps_BDTHW.to(torch.promote_types(maps_BDTHW.dtype, torch.float32)).mean(2)
    bins_RDHW = roi_align(
        maps_BDHW,
        boxes_R5.to(maps_BDHW.dtype),
        resolution,
        spatial_scale=scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    return bins_RDHW.amax((2, 3))


def boxes_of_slots(boxes_BS4: Tensor) -> Tensor:
    """`(B * S, 5)`: boxes of a fixed number of slots a row, as flat rows of row, x1, y1, x2, y2."""
    rows, slots, _ = boxes_BS4.shape
    row_R = torch.arange(rows, device=boxes_BS4.device, dtype=boxes_BS4.dtype).repeat_interleave(slots)
    return torch.cat([row_R[:, None], boxes_BS4.flatten(0, 1)], 1)
