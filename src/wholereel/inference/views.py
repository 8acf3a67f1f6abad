"""The views of a video: clips of a plan, times square crops; read a few clips at a time.

Extra axes: V views = clips x crops, view v is clip v // crops and crop v % crops; F frames of the file. The axis `2` is
begin and end. Evaluation and prediction both read through this file, so they see the same pixels.
Not here: what is done with them (`scoring.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from wholereel.config import Clips, Views
from wholereel.datasets.frame_cache import KeptFrames
from wholereel.errors import ConfigError, VideoError
from wholereel.media.augment import test_crops
from wholereel.media.clip_plans import FIXED, RANDOM, SEGMENTS, TEST_VIEWS, ClipTimes, check_clips
from wholereel.media.clip_reading import FrameSource, read_clips
from wholereel.media.frame_folder import open_frames
from wholereel.media.part_plans import Part, clip_seconds, plan_part

__all__ = ["VideoViews", "check_views", "repeatable"]


def repeatable(clips: Clips) -> Clips:
    """The plan for looking at a video without drawing: `stratified` and `random` become `uniform`, others stay."""
    return replace(clips, plan="uniform") if clips.plan in ("stratified", "random") else clips


def check_views(views: Views) -> None:
    """Refuse settings under which a video's score would not be a function of the video.

    Raises: ConfigError: a plan that draws, or numbers that do not fit.
    """
    check_clips(views.clips)
    if views.clips.plan in RANDOM:
        raise ConfigError(
            f"views.clips.plan={views.clips.plan!r} draws its clips, so that two evaluations would differ; "
            f"use one of {', '.join([*FIXED, *TEST_VIEWS, SEGMENTS])}"
        )
    if views.crops not in (1, 3):
        raise ConfigError(f"views.crops={views.crops} is neither 1 nor 3")
    if not 0 < views.crop <= views.short_side:
        raise ConfigError(f"views.crop={views.crop} must be positive and at most views.short_side={views.short_side}")


@dataclass(frozen=True)
class _Plan:
    times: ClipTimes
    seconds_N2: Tensor
    middles_N: Tensor
    duration: float


class VideoViews:
    """Views of one open file; use it as a context manager.

    Args:
        path: the video.
        views: clips, crops and sizes.
        start, end: the part of the file that is looked at, in seconds; `None` = all of it.
        key_seconds: look around this moment, as training does (`media/key_clips.py`).
        left_pad: seconds before the file that belong to the part; its first frame stands in for them.
        kept: the file's frames at `views.short_side`, read instead of the file.
        frame_rate: of a folder of pictures.
    Attributes:
        seconds_N2: float64, begin and end of each clip in the file.
        middles_N: float64, the middle of each clip, also where the clip reaches beyond the file.
        valid_N: bool, clips that lie in the file (around key frames some may not).
        duration: length of the part in seconds.
    Raises: VideoError: not a video, or no frame between start and end. ConfigError: see `check_views`.
    """

    def __init__(
        self,
        path: str | Path,
        views: Views,
        *,
        start: float | None = None,
        end: float | None = None,
        key_seconds: float | None = None,
        left_pad: float = 0.0,
        kept: KeptFrames | None = None,
        frame_rate: float | None = None,
    ) -> None:
        check_views(views)
        self.path, self.views, self.truncated = str(path), views, False
        self._open = ExitStack()
        with ExitStack() as stack:
            if kept is None:
                reader = stack.enter_context(open_frames(path, frame_rate=frame_rate, size=views.short_side))
                rate, seconds_F = reader.metadata.frame_rate, reader.seconds_T
            else:
                rate, seconds_F = kept.frame_rate, torch.from_numpy(kept.seconds_T)
            self._source: FrameSource = reader if kept is None else kept
            plan = self._plan(seconds_F, rate, Part(start, end, key_seconds, left_pad))
            self._open = stack.pop_all()  # from here on the file stays open until the end of the `with` block
        self._times, self.seconds_N2, self.duration = plan.times, plan.seconds_N2, plan.duration
        self.middles_N = plan.middles_N
        self.valid_N = plan.times.valid_N

    def __len__(self) -> int:
        """Number of clips N."""
        return len(self.seconds_N2)

    def __enter__(self) -> VideoViews:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def read(self, clips: Sequence[int] | None = None) -> Tensor:
        """Decode some clips (all where `None`); `truncated` turns True once frames that do not decode were asked for.

        Returns: views_VTCHW uint8, V = clips x crops.
        Raises: VideoError: nothing decodes.
        """
        chosen = torch.arange(len(self)) if clips is None else torch.as_tensor(clips, dtype=torch.int64)
        indices_NT = self._times.indices_NT
        times = ClipTimes(self._times.seconds_NT[chosen], None if indices_NT is None else indices_NT[chosen])
        frames = read_clips(self._source, times)
        self.truncated = self.truncated or frames.truncated
        return test_crops(frames.clips_NTCHW, self.views.short_side, self.views.crop, self.views.crops)

    def _plan(self, seconds_F: Tensor, rate: float, part: Part) -> _Plan:
        clips = self.views.clips
        # the reader's own last time, not the header's claim: containers round it, or count frames that do not decode
        whole = float(seconds_F[-1]) + 1 / rate
        try:
            times = plan_part(len(seconds_F), rate, clips, part)
        except ValueError as error:
            raise VideoError(
                self.path,
                str(error),
                "a part that lies inside the video",
                "Check start, end and key_seconds in the manifest.",
            ) from error
        stop = whole if part.end is None else min(part.end, whole)
        # with a variable frame rate, frame / rate is not the frame's time
        first_N = times.seconds_NT[:, 0] if times.indices_NT is None else seconds_F[times.indices_NT[:, 0]]
        begins_N = first_N if times.begins_N is None else first_N + times.begins_N - times.seconds_NT[:, 0]
        length = clip_seconds(len(seconds_F), rate, clips, part)
        middles_N, ends_N = begins_N + length / 2, (begins_N + length).clamp(0.0, stop)
        begins_N = begins_N.clamp(min=0.0)
        seconds_N2 = torch.stack([begins_N, torch.maximum(ends_N, begins_N)], dim=1)
        return _Plan(times, seconds_N2, middles_N, stop - (part.start or 0.0))
