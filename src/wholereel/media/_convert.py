"""Decoded picture (YUV, any depth) to red-green-blue bytes, scaled in the same pass.

One scaler per stream is kept. Bilinear with a support that widens when shrinking (no aliasing); at native size the result is
what `VideoFrame.to_ndarray(format="rgb24")` gives. The stream's colour matrix and range flags are obeyed.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

__all__ = ["RgbConverter"]

_THREADS = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
# PyAV < 17 looks at colour flags only when source and destination differ, and never at the frame's own range.
_OLD = int(av.__version__.split(".")[0]) < 17
_DEFAULT_COLORSPACE, _FULL_RANGE = 5, 2


class RgbConverter:
    """Turns frames into `(height, width, 3)` bytes, then turns them by quarter turns counter-clockwise.

    Args:
        height, width: of the result, after turning.
        quarter_turns: 0..3.
    """

    def __init__(self, height: int, width: int, quarter_turns: int) -> None:
        self.height, self.width, self.quarter_turns = height, width, quarter_turns
        self._stored = (width, height) if quarter_turns % 2 else (height, width)
        self._scaler = VideoReformatter()

    def write(self, frame: av.VideoFrame, out_HWC: np.ndarray) -> None:
        """Convert one frame into an array of the result's size."""
        height, width = self._stored
        flags = _old_colour_flags(frame) if _OLD else _THREADS
        rgb = self._scaler.reformat(frame, width=width, height=height, format="rgb24", **flags)
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)  # type: ignore[call-overload]
        picture_HWC = rows[:, : width * 3].reshape(height, width, 3)
        out_HWC[...] = np.rot90(picture_HWC, self.quarter_turns) if self.quarter_turns else picture_HWC


def _old_colour_flags(frame: av.VideoFrame) -> dict[str, Any]:
    full = frame.color_range == _FULL_RANGE and not frame.format.name.startswith("yuvj")
    if not full and frame.colorspace in (2, 5, 6):  # unspecified and the two names of BT.601: the scaler's own default
        return {}
    flags: dict[str, Any] = {"src_colorspace": frame.colorspace, "dst_colorspace": _DEFAULT_COLORSPACE}
    if full:
        flags["src_color_range"] = _FULL_RANGE
    return flags
