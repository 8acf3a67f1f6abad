"""Read the clips of a plan from anything that has frames: a video file, or frames that are kept elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from wholereel.media.clip_plans import ClipTimes
from wholereel.media.frames import Frames

__all__ = ["ClipFrames", "FrameSource", "read_clips"]


class FrameSource(Protocol):
    """What `VideoReader.read` promises."""

    def read(self, *, indices: Sequence[int] | None = None, seconds: Sequence[float] | Tensor | None = None) -> Frames:
        """Frames by number or by time, in the order asked for."""
        ...


@dataclass(frozen=True)
class ClipFrames:
    """N clips of T frames.

    Args:
        clips_NTCHW: uint8.
        seconds_NT: float64, the frames' own times.
        truncated: as in `Frames`.
        valid_N: bool, as planned.
    """

    clips_NTCHW: Tensor
    seconds_NT: Tensor
    truncated: bool
    valid_N: Tensor


def read_clips(source: FrameSource, times: ClipTimes) -> ClipFrames:
    """Read all clips at once (frames that clips share are decoded once).

    Raises: what `source.read` raises.
    """
    if times.indices_NT is not None:
        frames = source.read(indices=times.indices_NT.flatten().tolist())
    else:
        frames = source.read(seconds=times.seconds_NT.flatten())
    shape = times.seconds_NT.shape
    clips_NTCHW, seconds_NT = frames.pixels_TCHW.unflatten(0, shape), frames.seconds_T.unflatten(0, shape)
    return ClipFrames(clips_NTCHW, seconds_NT, frames.truncated, times.valid_N)
