"""Clips around a key frame, for sets that judge single moments (AVA).

The rule is that of facebookresearch/SlowFast (`slowfast/datasets/utils.py`, `get_sequence`): a clip of T frames at
stride s begins `s*T // 2` frames before the key frame; frames outside the video (or the part of it) repeat the nearest
one inside. With several clips the others follow without gaps on both sides, or stand evenly in a window around the key
frame or before it, and those whose middle lies outside are masked (our choices). N clips, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.media.clip_plans import SLACK, ClipTimes

__all__ = ["KeyTimes", "key_clip", "key_middles", "key_offsets", "plan_clips_at", "plan_key_clips"]


@dataclass(frozen=True)
class KeyTimes(ClipTimes):
    """What to read around a key frame, or at other moments.

    Args:
        middles_N: int64, on the time line of the clips: clips of one film with the same middle are the same clip.
        inside_N: bool, whether the middle lies in the film (or in the part of it).
    """

    middles_N: Tensor
    inside_N: Tensor

    @property
    def valid_N(self) -> Tensor:
        return self.inside_N


def key_clip(clips: Clips) -> int:
    """Which of N clips holds the key frame: the one in the middle, the later one of two; the last of a window before
    it."""
    before = clips.window is not None and clips.window_side == "before"
    return clips.count - 1 if before else clips.count // 2


def key_offsets(clips: Clips, rate: float) -> Tensor:
    """Seconds from the key frame to the middle of each clip, N, float64.

    Args:
        rate: steps per second of the clips' time line.
    """
    if clips.window is None:
        places_N = torch.arange(clips.count, dtype=torch.float64) - key_clip(clips)
        return places_N * (clips.frames * clips.stride / rate)
    if clips.count == 1:
        return torch.zeros(1, dtype=torch.float64)
    places_N = torch.arange(clips.count, dtype=torch.float64) - key_clip(clips)
    offsets_N = places_N * clips.window / (clips.count - 1)
    if clips.window_grid is None:
        return offsets_N
    # Halves are rounded away from the key frame: both sides alike.
    steps_N = (offsets_N.abs() / clips.window_grid + 0.5 + SLACK).floor() * offsets_N.sign()
    return steps_N * clips.window_grid


def key_middles(seconds_K: Tensor, clips: Clips, rate: float) -> Tensor:
    """Where the middles of the clips around each of K key frames are on the clips' time line, `(K, N)`, int64.

    Args:
        seconds_K: float64, times of the key frames. rate: steps per second.
    """
    if clips.window is None:  # whole clips from the key frame on, whatever the rate
        places_N = (torch.arange(clips.count) - key_clip(clips)) * clips.frames * clips.stride
        return (seconds_K * rate + SLACK).floor().long()[:, None] + places_N
    return ((seconds_K[:, None] + key_offsets(clips, rate)) * rate + SLACK).floor().long()


def plan_key_clips(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    key_seconds: float,
    *,
    start: float | None = None,
    end: float | None = None,
) -> KeyTimes:
    """Times of the clips around a key frame; `clips.plan` and `clips.coverage` have no say.

    Args:
        frame_count: frames of the file.
        frame_rate: of the file, per second.
        clips: number of clips and frames, stride, window, and a common frame rate if there is one.
        key_seconds: time of the key frame after the first one.
        start, end: seconds that no frame may leave; `None` = beginning, end.
    Raises: ValueError: the key frame lies outside.
    """
    begin, stop = _part(frame_count / frame_rate, start, end)
    if not begin <= key_seconds < stop:
        raise ValueError(f"no key frame at {key_seconds} s between {begin} s and {stop:.3f} s")
    rate = clips.frame_rate or frame_rate
    middles_N = key_middles(torch.tensor([key_seconds], dtype=torch.float64), clips, rate)[0]
    return plan_clips_at(frame_count, frame_rate, clips, middles_N, start=start, end=end)


def plan_clips_at(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    middles_N: Tensor,
    *,
    start: float | None = None,
    end: float | None = None,
) -> KeyTimes:
    """Times of clips by their middles.

    Args:
        middles_N: int64, steps of the clips' time line: frames of the file, or of `clips.frame_rate`.
        frame_count, frame_rate, clips, start, end: as in `plan_key_clips`.
    """
    rate = clips.frame_rate or frame_rate
    begin, stop = _part(frame_count / frame_rate, start, end)
    first, last = math.ceil(begin * rate - SLACK), max(math.ceil(stop * rate - SLACK) - 1, 0)
    starts_N = middles_N - clips.frames * clips.stride // 2
    steps_NT = (starts_N[:, None] + torch.arange(clips.frames) * clips.stride).clamp(min(first, last), last)
    indices_NT = None if clips.frame_rate is not None else steps_NT.clamp(max=frame_count - 1)
    inside_N = (middles_N >= math.floor(begin * rate + SLACK)) & (middles_N <= last)
    return KeyTimes(steps_NT.double() / rate, indices_NT, middles_N, inside_N, begins_N=starts_N.double() / rate)


def _part(duration: float, start: float | None, end: float | None) -> tuple[float, float]:
    return start or 0.0, duration if end is None else min(end, duration)
