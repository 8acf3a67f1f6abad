"""Which frames the clips of a stream are made of: one clip after the other, at a free distance.

A clip of T frames at a stride lasts `T * stride / rate` seconds; what would lie outside its part of the video repeats
the nearest frame inside.
Not here: clips around key frames (`key_clips.py`), which clips are read together (`datasets/stream_places.py`).
"""

from __future__ import annotations

import math

import torch

from wholereel.config import Clips
from wholereel.media.clip_plans import SLACK, ClipTimes

__all__ = ["grid_count", "jittered", "plan_clip_at", "segment_begin", "span_seconds"]


def span_seconds(clips: Clips, frame_rate: float) -> float:
    """How long a clip lasts, in a file of that frame rate."""
    return clips.frames * clips.stride / (clips.frame_rate or frame_rate)


def grid_count(duration: float, span: float, hop: float) -> int:
    """Clips at 0, hop, 2 hop, ... until one reaches the end, >= 1; it may reach further.

    Raises: ValueError: a length that is not positive.
    """
    if min(duration, span, hop) <= 0:
        raise ValueError(f"duration, span and hop must be positive, got {duration}, {span} and {hop}")
    return max(0, math.ceil((duration - span) / hop - SLACK)) + 1


def segment_begin(place: str, start: float, end: float, span: float) -> float:
    """Where a clip of a segment begins: around its `middle`, or so that it ends with it (`end`).

    Raises: ValueError: another place.
    """
    if place not in ("middle", "end"):
        raise ValueError(f"a clip stands in the 'middle' or at the 'end' of its segment, not {place!r}")
    return (start + end - span) / 2 if place == "middle" else end - span


def plan_clip_at(
    begin: float, frame_count: int, frame_rate: float, clips: Clips, *, start: float = 0.0, end: float | None = None
) -> ClipTimes:
    """Times of the one clip that begins at `begin`.

    Args:
        begin: seconds after the first frame; may lie before `start`.
        frame_count, frame_rate: of the file.
        clips: frames, stride and a common frame rate if there is one.
        start, end: seconds that no frame may leave; `None` = the video's end.
    Raises: ValueError: no frame lies between start and end.
    """
    rate = clips.frame_rate or frame_rate
    stop = frame_count / frame_rate if end is None else min(end, frame_count / frame_rate)
    first, last = _steps_between(start, stop, rate)
    if not 0 <= first <= last:
        raise ValueError(f"no frame between {start} s and {stop} s of {frame_count} frames at {frame_rate} per second")
    steps_1T = (math.floor(begin * rate + SLACK) + torch.arange(clips.frames)[None] * clips.stride).clamp(first, last)
    return ClipTimes(steps_1T.double() / rate, None if clips.frame_rate else steps_1T.clamp(max=frame_count - 1))


def _steps_between(start: float, stop: float, rate: float) -> tuple[int, int]:
    """The first and the last step of a time line between two seconds."""
    return math.ceil(start * rate - SLACK), math.ceil(stop * rate - SLACK) - 1


def jittered(
    times: ClipTimes,
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    generator: torch.Generator,
    *,
    start: float = 0.0,
    end: float | None = None,
) -> ClipTimes:
    """The same clips, each frame of them up to half a stride s earlier or later, inside the video or its part.

    The rule is that of facebookresearch/MeMViT (`memvit/datasets/ava_dataset.py`, `PERTURB_AVA_FRAMES`): by a whole
    number of frames from floor(-s / 2) to floor(s / 2) - 1, of which the first frame takes none below 0 and the last
    one none above -1. There a frame before the video is counted from its end; here it is the first one. A stride of 1
    has no room.

    Args:
        times: planned with these `clips`.
        frame_count, frame_rate: of the file.
        start, end: as in `plan_clip_at`.
    """
    if clips.stride == 1:
        return times
    rate = clips.frame_rate or frame_rate
    low_T = torch.full((clips.frames,), -clips.stride // 2)
    high_T = torch.full((clips.frames,), clips.stride // 2)
    low_T[0], high_T[-1] = 0, 0
    share_NT = torch.rand(times.seconds_NT.shape, generator=generator, dtype=torch.float64)
    moved_NT = low_T + (share_NT * (high_T - low_T)).floor().long()
    stop = frame_count / frame_rate if end is None else min(end, frame_count / frame_rate)
    first, last = _steps_between(start, stop, rate)
    steps_NT = ((times.seconds_NT * rate).round().long() + moved_NT).clamp(first, max(first, last))
    indices_NT = None if times.indices_NT is None else steps_NT.clamp(max=frame_count - 1)
    return ClipTimes(steps_NT.double() / rate, indices_NT, begins_N=times.begins_N)
