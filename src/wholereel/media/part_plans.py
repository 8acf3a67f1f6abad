"""Which plan a part of a video asks for: around a key frame, with time missing before the video, or neither.

Training and evaluation both plan through this file, so that they read the same frames.
Not here: the plans themselves (`clip_plans.py`, `key_clips.py`, `padded_clips.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wholereel.config import Clips
from wholereel.media.clip_plans import SEGMENTS, ClipTimes, plan_clips
from wholereel.media.key_clips import plan_key_clips
from wholereel.media.padded_clips import plan_padded_clips

__all__ = ["Part", "clip_seconds", "plan_part"]


@dataclass(frozen=True)
class Part:
    """A part of a video.

    Args:
        start, end: seconds after the first frame; `None` = beginning, end.
        key_seconds: time of the frame that is judged; clips lie around it.
        left_pad: seconds before the first frame that belong to the part; then `start` has no say.
    """

    start: float | None = None
    end: float | None = None
    key_seconds: float | None = None
    left_pad: float = 0.0


def plan_part(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    part: Part,
    *,
    generator: torch.Generator | None = None,
) -> ClipTimes:
    """Times of the clips of a part of a video.

    Args:
        frame_count, frame_rate: of the file.
        clips: the plan; around key frames only its sizes count.
        generator: for the plans that draw.
    Raises: ValueError: no frame lies in the part. ConfigError: see `check_clips`.
    """
    if part.left_pad:
        return plan_padded_clips(frame_count, frame_rate, clips, part.left_pad, end=part.end, generator=generator)
    if part.key_seconds is not None:
        return plan_key_clips(frame_count, frame_rate, clips, part.key_seconds, start=part.start, end=part.end)
    return plan_clips(frame_count, frame_rate, clips, start=part.start, end=part.end, generator=generator)


def clip_seconds(frame_count: int, frame_rate: float, clips: Clips, part: Part) -> float:
    """How long a clip lasts: T * stride frames, or under the plan `segments` the whole part."""
    if clips.plan == SEGMENTS and part.key_seconds is None:
        whole = frame_count / frame_rate
        begin = -part.left_pad if part.left_pad else part.start or 0.0
        return (whole if part.end is None else min(part.end, whole)) - begin
    return clips.frames * clips.stride / (clips.frame_rate or frame_rate)
