"""Which times of a video are read: clip plans as pure arithmetic.

The rules are our choice; the source (arXiv 2104.01198) only asks that the clips cover the video.
The test views `classic` and `offset` are those of facebookresearch/SlowFast (`slowfast/datasets/decoder.py`).
A clip of T frames at stride s spans T*s frames; `delta = max(0, total - span)` is the room that its start has. The
rules work on numbers of any unit; rounded down they give frames of a time line, either the video's own frames or, with
a common frame rate, a line of evenly spaced times. N counts clips, T frames of a clip.
Not here: reading the frames (`clip_reading.py`), learned choices of clips (selectors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import ConfigError

__all__ = [
    "ClipTimes",
    "plan_clips",
    "check_clips",
    "clip_starts",
    "clip_frames",
    "clip_count",
    "frame_indices",
    "stratified_starts",
    "random_starts",
    "uniform_starts",
    "contiguous_starts",
    "view_span",
    "view_starts",
    "view_frames",
    "segment_frames",
]

# Quotients that miss a whole number by rounding alone must not add a clip or lose a frame.
SLACK = 1e-6
WINDOW_SIDES = ("both", "before")


def _room(duration: float, span: float, count: int) -> float:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if not (duration > 0 and span > 0):
        raise ValueError(f"duration and span must be positive, got {duration} and {span}")
    return max(0.0, duration - span)


def stratified_starts(duration: float, span: float, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw one clip start from each of `count` equal parts of the room, independently: `delta * (n + u_n) / N`.

    Args:
        duration: length of the video, > 0 (any unit; that of `span` and of the result).
        span: length of one clip; may exceed `duration`, then all starts are 0.
        count: N.
        generator: source of u.
    Returns: starts_N, float64, non-decreasing, in [0, max(0, duration - span)].
    Raises: ValueError: count < 1, or a length that is not positive.
    """
    room = _room(duration, span, count)
    uniform_N = torch.rand(count, generator=generator, dtype=torch.float64)
    return (torch.arange(count, dtype=torch.float64) + uniform_N) * room / count


def random_starts(duration: float, span: float, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw `count` starts uniformly from the room and sort them; all else as in `stratified_starts`."""
    room = _room(duration, span, count)
    return torch.rand(count, generator=generator, dtype=torch.float64).sort().values * room


def uniform_starts(duration: float, span: float, count: int) -> Tensor:
    """Spread `count` starts evenly, first and last clip touching the ends: `delta * n / (N-1)`; one clip stands in the
    middle.

    Arguments, result and errors as in `stratified_starts`.
    """
    room = _room(duration, span, count)
    if count == 1:
        return torch.tensor([room / 2], dtype=torch.float64)
    # The product comes first: it is a whole number for whole frames, so that rounding down is exact.
    return torch.arange(count, dtype=torch.float64) * room / (count - 1)


def contiguous_starts(duration: float, span: float, count: int, hop: float | None = None) -> Tensor:
    """Clip after clip, `n * hop`, to the end of the video; the last clip ends with the video (and overlaps the one
    before).

    Args:
        count: the largest N; a longer video's rest is left out. Others as in `stratified_starts`.
        hop: from one start to the next, > 0; `None` = `span`.
    Returns: starts_N, float64, increasing; N = min(count, 1 + ceil(delta / hop)).
    Raises: as `stratified_starts`.
    """
    room, hop = _room(duration, span, count), span if hop is None else hop
    clips = min(1 + math.ceil(room / hop - SLACK), count)
    return (torch.arange(clips, dtype=torch.float64) * hop).clamp(max=room)


def view_span(frames: int, stride: int, frame_rate: float, target_rate: float, *, legacy: bool = False) -> float:
    """Frames of the file that a test view spans, at least 1: `stride * T / target_rate * frame_rate`.

    Args:
        frames: T. stride: in frames of `target_rate`.
        frame_rate: of the file. target_rate: that the stride counts in, such as 30.
        legacy: `ceil(stride * (T - 1) / target_rate * frame_rate)`, an older code path.
    """
    if legacy:
        return max(1.0, float(math.ceil(stride * (frames - 1) / target_rate * frame_rate)))
    return max(1.0, stride * frames / target_rate * frame_rate)


def view_starts(rule: str, total: int, span: float, count: int) -> Tensor:
    """First frame of each test view; with `delta = max(total - span, 0)`:

    `classic`: `delta * n / N`, so that the last view ends before the video does. `offset`: `n * floor(delta / (N-1))`;
    a single view at `floor(delta / 2)`.

    Args:
        rule: "classic" or "offset". total: frames of the file. span: see `view_span`. count: N.
    Returns: starts_N, float64, whole numbers for `offset`.
    Raises: ValueError: another rule, or lengths that are not positive.
    """
    delta = _room(total, span, count)
    if rule not in TEST_VIEWS:
        raise ValueError(f"unknown rule {rule!r}; rules are {', '.join(TEST_VIEWS)}")
    views_N = torch.arange(count, dtype=torch.float64)
    if rule == "classic":
        return delta * views_N / count
    if count == 1:
        return torch.tensor([math.floor(delta / 2)], dtype=torch.float64)
    return views_N * math.floor(delta / (count - 1))


def view_frames(starts_N: Tensor, span: float, frames: int, total: int) -> Tensor:
    """Frames of test views: `linspace(start, start + span - 1, T)` in float32, cut to the file, rounded down.

    Args: starts_N, span, total: see `view_starts`. frames: T.
    Returns: indices_NT, int64.
    """
    lines = [torch.linspace(start, start + span - 1, frames, dtype=torch.float32) for start in starts_N.tolist()]
    return torch.stack(lines).clamp(0, total - 1).long()


def segment_frames(total: int, frames: int, *, generator: torch.Generator | None = None) -> Tensor:
    """One clip of a whole video: a frame of each of T equal segments (`slowfast/datasets/ssv2.py` of that project).

    Segment n goes from `round(s * n)` to `round(s * (n + 1))`, both included, with `s = (total - 1) / T`.

    Args:
        total: frames of the video. frames: T.
        generator: draws each frame from its segment; without one the middle is taken, rounded down.
    Returns: indices_1T, int64, not decreasing.
    """
    step = (total - 1) / frames
    bounds = torch.tensor([round(step * n) for n in range(frames + 1)])
    first_T, last_T = bounds[:-1], bounds[1:]
    if generator is None:
        return ((first_T + last_T) // 2)[None]
    uniform_T = torch.rand(frames, generator=generator, dtype=torch.float64)
    return (first_T + (uniform_T * (last_T - first_T + 1)).floor().long())[None]


TEST_VIEWS = ("classic", "offset")
SEGMENTS = "segments"
RANDOM: dict[str, Callable[..., Tensor]] = {"stratified": stratified_starts, "random": random_starts}
FIXED: dict[str, Callable[..., Tensor]] = {"uniform": uniform_starts, "contiguous": contiguous_starts}


def clip_starts(
    plan: str, duration: float, span: float, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Starts by the name of the plan, see the four functions above.

    Raises: ValueError: unknown plan, or a plan that draws without a generator.
    """
    if plan in FIXED:
        return FIXED[plan](duration, span, count)
    if plan not in RANDOM:
        raise ValueError(f"unknown clip plan {plan!r}; plans are {', '.join([*RANDOM, *FIXED])}")
    if generator is None:
        raise ValueError(f"clip plan {plan!r} draws its starts and needs a generator")
    return RANDOM[plan](duration, span, count, generator=generator)


def clip_frames(plan: str, total: int, span: int, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Starts in whole frames, rounded down: starts_N int64 in [0, max(0, total - span)]; see `clip_starts`."""
    return clip_starts(plan, total, span, count, generator=generator).floor().long()


def clip_count(duration: float, span: float, largest: int) -> int:
    """Clips that cover a video: `clamp(ceil(duration / span), 1, largest)`."""
    return min(max(math.ceil(duration / span - SLACK), 1), largest)


def frame_indices(starts_N: Tensor, frames: int, stride: int, total: int) -> Tensor:
    """Frames of each clip, `min(start + i * stride, total - 1)`: short videos repeat their last frame.

    Args:
        starts_N: int64 first frames.
        frames: T.
        stride: distance of a clip's frames.
        total: frames of the time line.
    Returns: indices_NT, int64.
    """
    indices_NT = starts_N[:, None] + torch.arange(frames) * stride
    return indices_NT.clamp(max=total - 1)


@dataclass(frozen=True)
class ClipTimes:
    """What to read of one video.

    Args:
        seconds_NT: float64, time of each frame after the video's first frame.
        indices_NT: int64, the same as frames of the file, exact where time stamps are not; `None` where the time line
            is resampled, then frames are found by their time.
        begins_N: float64, where each clip begins if that is not its first frame: clips may leave the video (frames
            repeat there, sound does not); `None` = with its first frame.
    """

    seconds_NT: Tensor
    indices_NT: Tensor | None
    begins_N: Tensor | None = field(default=None, kw_only=True)

    @property
    def valid_N(self) -> Tensor:
        """All True: a plan holds the clips that exist; videos of different N are padded when they meet in a batch."""
        return torch.ones(len(self.seconds_NT), dtype=torch.bool)

    def of(self, clips: Sequence[int]) -> ClipTimes:
        """When to read some of the clips."""
        rows = list(clips)
        return ClipTimes(self.seconds_NT[rows], None if self.indices_NT is None else self.indices_NT[rows])


def plan_clips(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    *,
    start: float | None = None,
    end: float | None = None,
    generator: torch.Generator | None = None,
) -> ClipTimes:
    """Times of the clips of a video, or of the part [start, end) of it.

    Args:
        frame_count: frames of the file.
        frame_rate: of the file, per second.
        clips: the plan. With `coverage`, N follows the length (`clip_count`), so N may be smaller than `clips.count`.
        start, end: seconds after the first frame; `None` = from the beginning, to the end. An end behind the video's is
            cut.
        generator: for the plans that draw.
    Raises: ValueError: no frame lies between start and end. ConfigError: see `check_clips`.
    """
    if frame_count < 1 or frame_rate <= 0:
        raise ValueError(f"a video needs frames and a rate, got {frame_count} frames at {frame_rate} per second")
    check_clips(clips)
    rate = clips.frame_rate or frame_rate
    if clips.plan in (*TEST_VIEWS, SEGMENTS):
        return _plan_own_frames(frame_count, frame_rate, clips, start, end, generator)
    begin, total = _time_line(frame_count / frame_rate, rate, start, end)
    span = clips.frames * clips.stride
    if clips.plan == "contiguous" and clips.hop is not None:  # as many as there are, with coverage and without
        starts_N = contiguous_starts(total, span, clips.count, clips.hop * rate).floor().long()
    else:
        count = clip_count(total, span, clips.count) if clips.coverage else clips.count
        starts_N = clip_frames(clips.plan, total, span, count, generator=generator)
    steps_NT = frame_indices(starts_N, clips.frames, clips.stride, total)
    if clips.frame_rate is not None:
        return ClipTimes(begin + steps_NT.double() / rate, None)
    first = math.ceil(begin * frame_rate - SLACK)
    indices_NT = (steps_NT + first).clamp(max=frame_count - 1)
    return ClipTimes(indices_NT.double() / frame_rate, indices_NT)


def _plan_own_frames(
    frame_count: int,
    frame_rate: float,
    clips: Clips,
    start: float | None,
    end: float | None,
    generator: torch.Generator | None,
) -> ClipTimes:
    """Plans in frames of the file: a common frame rate changes what a view spans, and resamples nothing."""
    begin, total = _time_line(frame_count / frame_rate, frame_rate, start, end)
    if clips.plan == SEGMENTS:
        steps_NT = segment_frames(total, clips.frames, generator=generator)
    else:
        target = clips.frame_rate or frame_rate
        span = view_span(clips.frames, clips.stride, frame_rate, target, legacy=clips.legacy_span)
        count = clip_count(total, span, clips.count) if clips.coverage else clips.count
        steps_NT = view_frames(view_starts(clips.plan, total, span, count), span, clips.frames, total)
    indices_NT = (steps_NT + math.ceil(begin * frame_rate - SLACK)).clamp(max=frame_count - 1)
    # The first segment belongs to the clip as a whole, not from the frame on that was taken from it.
    begins_N = torch.tensor([begin], dtype=torch.float64) if clips.plan == SEGMENTS else None
    return ClipTimes(indices_NT.double() / frame_rate, indices_NT, begins_N=begins_N)


def check_clips(clips: Clips) -> None:
    """Raise ConfigError where the settings cannot be used."""
    plans = (*RANDOM, *FIXED, *TEST_VIEWS, SEGMENTS)
    if clips.plan not in plans:
        raise ConfigError(f"clips.plan={clips.plan!r} is unknown; legal are {', '.join(plans)}")
    if clips.plan == SEGMENTS and clips.count != 1:
        raise ConfigError(
            f"clips.plan='segments' makes one clip of the whole video; clips.count={clips.count} must be 1"
        )
    if clips.legacy_span and clips.plan not in TEST_VIEWS:
        raise ConfigError(f"clips.legacy_span is of the plans {', '.join(TEST_VIEWS)}, not of {clips.plan!r}")
    for name in ("count", "frames", "stride"):
        if getattr(clips, name) < 1:
            raise ConfigError(f"clips.{name} must be at least 1, got {getattr(clips, name)}")
    if clips.hop is not None and (clips.plan != "contiguous" or not clips.hop > 0):
        raise ConfigError(f"clips.hop={clips.hop} must be positive, and needs plan='contiguous', not {clips.plan!r}")
    if clips.least is not None and not 1 <= clips.least <= clips.count:
        raise ConfigError(f"clips.least must be from 1 to clips.count = {clips.count}, got {clips.least}")
    for name in ("frame_rate", "window", "window_grid"):
        value = getattr(clips, name)
        if value is not None and not value > 0:
            raise ConfigError(f"clips.{name} must be positive, got {value}")
    if clips.window_side not in WINDOW_SIDES:
        raise ConfigError(f"clips.window_side must be one of {WINDOW_SIDES}, got {clips.window_side!r}")
    if clips.window is not None:
        _check_window(clips)


def _check_window(clips: Clips) -> None:
    if clips.least is not None:
        raise ConfigError(f"clips.window needs the same number of clips in all steps: clips.least={clips.least}")
    if clips.count % 2 == 0 and clips.window_side == "both":
        raise ConfigError(f"clips.window needs an odd number of clips, one of which holds the key frame: {clips.count}")
    step = (clips.window or 0.0) / max(clips.count - 1, 1)
    if clips.window_grid is not None and clips.count > 1 and step < clips.window_grid - SLACK:
        raise ConfigError(
            f"clips.window={clips.window} with {clips.count} clips puts them {step:.3g} s apart: closer than "
            f"clips.window_grid={clips.window_grid}"
        )


def _time_line(duration: float, rate: float, start: float | None, end: float | None) -> tuple[float, int]:
    """Begin in seconds and number of evenly spaced frames between start and end (at least one)."""
    begin, stop = start or 0.0, duration if end is None else min(end, duration)
    if not 0 <= begin < stop:
        raise ValueError(f"no frame between {begin} s and {stop} s of a video of {duration:.3f} s")
    return begin, max(1, math.floor((stop - begin) * rate + SLACK))
