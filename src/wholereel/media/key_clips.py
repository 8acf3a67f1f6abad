"""Clips around a key frame, for sets that judge single moments (AVA).

The rule is that of facebookresearch/SlowFast (`slowfast/datasets/utils.py`, `get_sequence`): a clip of T frames at
stride s begins `s*T // 2` frames before the key frame; frames outside the video (or the part of it) repeat the nearest
one inside. With several clips the others follow without gaps on both sides (our choice). N clips, T frames.
"""

from __future__ import annotations

import math

import torch

from wholereel.config import Clips
from wholereel.media.clip_plans import SLACK, ClipTimes

__all__ = ["key_clip", "plan_key_clips"]


def key_clip(count: int) -> int:
    """Which of N clips holds the key frame: the one in the middle, the later one of two."""
    return count // 2


def plan_key_clips(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    key_seconds: float,
    *,
    start: float | None = None,
    end: float | None = None,
) -> ClipTimes:
    """Times of the clips around a key frame; `clips.plan` and `clips.coverage` have no say.

    Args:
        frame_count: frames of the file.
        frame_rate: of the file, per second.
        clips: number of clips and frames, stride, and a common frame rate if there is one.
        key_seconds: time of the key frame after the first one.
        start, end: seconds that no frame may leave; `None` = beginning, end.
    Raises: ValueError: the key frame lies outside.
    """
    rate = clips.frame_rate or frame_rate
    duration = frame_count / frame_rate
    begin, stop = start or 0.0, duration if end is None else min(end, duration)
    if not begin <= key_seconds < stop:
        raise ValueError(f"no key frame at {key_seconds} s between {begin} s and {stop:.3f} s")
    first, last = math.ceil(begin * rate - SLACK), max(math.ceil(stop * rate - SLACK) - 1, 0)
    span = clips.frames * clips.stride
    key = math.floor(key_seconds * rate + SLACK)
    starts_N = key - span // 2 + (torch.arange(clips.count) - key_clip(clips.count)) * span
    steps_NT = (starts_N[:, None] + torch.arange(clips.frames) * clips.stride).clamp(min(first, last), last)
    indices_NT = None if clips.frame_rate is not None else steps_NT.clamp(max=frame_count - 1)
    return ClipTimes(steps_NT.double() / rate, indices_NT)
