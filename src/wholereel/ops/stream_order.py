"""In which order many videos are read in parallel by consecutive steps.

Source: the rule of facebookresearch/MeMViT's loaders (key frames of all videos in one list, cut into equal streams).
Extra axes: G processes, S steps, B rows of a process.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["stream_order"]


def stream_order(count: int, processes: int, rows: int) -> Tensor:
    """Which clip of the list row b of process g reads in step s, `(G, S, B)` int64.

    The list is cut into G * B streams of ceil(count / (G * B)) steps; stream `G * b + g` belongs to row b of process g.
    The last stream wraps round to the beginning of the list.
    Raises: ValueError: a count below 1.
    """
    if min(count, processes, rows) < 1:
        raise ValueError(f"needs at least 1 clip, process and row, got {count}, {processes} and {rows}")
    steps = -(-count // (processes * rows))
    first_GB = steps * (torch.arange(processes)[:, None] + processes * torch.arange(rows))
    return (first_GB[:, None] + torch.arange(steps)[:, None]) % count
