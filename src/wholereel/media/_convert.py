"""Decoded picture (YUV, any depth) to red-green-blue bytes, scaled in the same pass.

One scaler per stream is kept. At native size the result is what `VideoFrame.to_ndarray(format="rgb24")` gives. Other
sizes are bilinear with a support that widens when shrinking (no aliasing), and go through planar pictures: the scaler
has no fast path to packed ones (0.33 instead of 0.47 ms for 320x240 to 298x224), and truncates there: native pictures
are about 1.2 of 255 darker than the formula says, scaled ones are not. The stream's colour matrix and range flags are
obeyed.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

__all__ = ["RgbConverter", "target_size"]

_THREADS = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
# PyAV < 17 looks at colour flags only when source and destination differ, and never at the frame's own range.
_OLD = int(av.__version__.split(".")[0]) < 17
_DEFAULT_COLORSPACE, _FULL_RANGE = 5, 2


class RgbConverter:
    """Turns frames into bytes of one size, then turns them by quarter turns counter-clockwise.

    Args:
        native: (height, width) as stored.
        height, width: of the result, after turning.
        quarter_turns: 0..3.
    """

    def __init__(self, native: tuple[int, int], height: int, width: int, quarter_turns: int) -> None:
        self.height, self.width, self.quarter_turns = height, width, quarter_turns
        self._stored = (width, height) if quarter_turns % 2 else (height, width)
        self._planar = self._stored != native
        self._scaler = VideoReformatter()

    def empty(self, count: int) -> np.ndarray:
        """Room for `count` pictures: uint8 TCHW; in memory THWC at native size, which saves a reordering copy."""
        if self._planar:
            return np.empty((count, 3, self.height, self.width), dtype=np.uint8)
        return np.empty((count, self.height, self.width, 3), dtype=np.uint8).transpose(0, 3, 1, 2)

    def write(self, frame: av.VideoFrame, out_CHW: np.ndarray) -> None:
        """Convert one frame into a picture of `empty`."""
        height, width = self._stored
        flags = _old_colour_flags(frame) if _OLD else _THREADS
        kind = "gbrp" if self._planar else "rgb24"
        rgb = self._scaler.reformat(frame, width=width, height=height, format=kind, **flags)
        if not self._planar:
            picture_HWC = _rows(rgb.planes[0], height, 3 * width).reshape(height, width, 3)
            out_CHW.transpose(1, 2, 0)[...] = self._turn(picture_HWC)
            return
        for channel, plane in enumerate((2, 0, 1)):
            out_CHW[channel] = self._turn(_rows(rgb.planes[plane], height, width))

    def _turn(self, picture: np.ndarray) -> np.ndarray:
        return np.rot90(picture, self.quarter_turns) if self.quarter_turns else picture


def target_size(height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) that a reader's `size` asks for, of a picture of that height and width: see `VideoReader`."""
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    short = min(height, width)
    return max(1, size * height // short), max(1, size * width // short)


def _rows(plane: av.video.plane.VideoPlane, height: int, length: int) -> np.ndarray:
    """A view of a plane without the padding at the end of its lines."""
    return np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, :length]  # type: ignore[call-overload]


def _old_colour_flags(frame: av.VideoFrame) -> dict[str, Any]:
    old_full_format = frame.format.name.startswith("yuvj")  # full range by name; the scaler knows
    full = frame.color_range == _FULL_RANGE or old_full_format
    # 2, 5, 6: unspecified and the two names of BT.601, the scaler's own default
    if frame.colorspace in (2, 5, 6) and (not full or old_full_format):
        return {}
    flags: dict[str, Any] = {"src_colorspace": frame.colorspace, "dst_colorspace": _DEFAULT_COLORSPACE}
    return flags | ({"src_color_range": _FULL_RANGE} if full else {})
