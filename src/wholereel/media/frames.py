"""Decoded frames with their times: what every reader of pictures returns.

Not here: how frames are read (`video_reader.py`), how they become model input (`model_input.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Frames"]


@dataclass(frozen=True)
class Frames:
    """T decoded pictures of one size and the time of each.

    Args:
        pixels_TCHW: uint8, C = 3 (red, green, blue), 0..255. The order in memory is whatever decoding gave;
            `.contiguous()` makes it that of the axes.
        seconds_T: float64, time of each frame in seconds after the first frame of the video.
        truncated: some of the frames asked for do not decode (the file is cut off); the last one that does stands in.

    Raises: ValueError: axes or types do not fit together.
    """

    pixels_TCHW: Tensor
    seconds_T: Tensor
    truncated: bool = False

    def __post_init__(self) -> None:
        if self.pixels_TCHW.ndim != 4 or self.pixels_TCHW.dtype != torch.uint8:
            raise ValueError(f"pixels_TCHW must be uint8 with 4 axes, got {_kind(self.pixels_TCHW)}")
        if self.seconds_T.ndim != 1 or self.seconds_T.dtype != torch.float64:
            raise ValueError(f"seconds_T must be float64 with 1 axis, got {_kind(self.seconds_T)}")
        if len(self.pixels_TCHW) != len(self.seconds_T):
            raise ValueError(f"{len(self.pixels_TCHW)} pictures but {len(self.seconds_T)} times")

    def __len__(self) -> int:
        return len(self.seconds_T)

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.pixels_TCHW.shape)
        span = f"{self.seconds_T[0]:.3f}..{self.seconds_T[-1]:.3f} s" if len(self) else "no frames"
        return f"Frames({shape} {self.pixels_TCHW.dtype}, {span}{', truncated' if self.truncated else ''})"


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
