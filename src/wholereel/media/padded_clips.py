"""Clips of an observation that would begin before its video: the first frame stands in for the rest (our choice).

Anticipation asks for a fixed number of seconds before an action, and some actions come early.
"""

from __future__ import annotations

import torch

from wholereel.config import Clips
from wholereel.media.clip_plans import ClipTimes, plan_clips

__all__ = ["plan_padded_clips"]


def plan_padded_clips(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    pad_seconds: float,
    *,
    end: float | None = None,
    generator: torch.Generator | None = None,
) -> ClipTimes:
    """Times of the clips of [-pad_seconds, end), times before the first frame being that of the first frame.

    Args:
        frame_count, frame_rate, clips, generator: as in `plan_clips`.
        pad_seconds: what is missing on the left, >= 0; rounded to frames of the file.
        end: seconds after the first frame; `None` = to the end.
    Raises: as `plan_clips`.
    """
    pad = round(pad_seconds * frame_rate)
    stop = None if end is None else end + pad / frame_rate
    times = plan_clips(frame_count + pad, frame_rate, clips, end=stop, generator=generator)
    indices_NT = None if times.indices_NT is None else (times.indices_NT - pad).clamp(min=0)
    begins_N = (times.seconds_NT[:, 0] if times.begins_N is None else times.begins_N) - pad / frame_rate
    seconds_NT = (times.seconds_NT - pad / frame_rate).clamp(min=0.0)
    seconds_NT = seconds_NT if indices_NT is None else indices_NT.double() / frame_rate
    return ClipTimes(seconds_NT, indices_NT, begins_N=begins_N)
