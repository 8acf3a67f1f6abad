"""Frames of the clips of one sample, from its file or from the frame cache, with all that targets and sound need.

Not here: which samples, geometry, labels (`clip_dataset.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wholereel.config import Clips
from wholereel.datasets.batch_samplers import share_of_clips
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.sample import Sample
from wholereel.datasets.shard_encode import is_sound_only
from wholereel.errors import ConfigError, VideoError
from wholereel.media.audio_clips import sound_seconds
from wholereel.media.clip_plans import SLACK, ClipTimes
from wholereel.media.clip_reading import FrameSource, read_clips
from wholereel.media.frame_folder import open_frames
from wholereel.media.part_plans import Part, clip_seconds, plan_part

__all__ = ["ClipReader", "ReadClips", "part_of"]


@dataclass(frozen=True)
class ReadClips:
    """N clips of T frames.

    Args:
        pixels_NTCHW: uint8, scaled; `None` where pictures were not asked for.
        seconds_NT: float64, the frames' own times (without pictures, those of the plan).
        frames_NT: int64, their numbers in the video (without pictures, in the plan's time line).
        begins_N: float64, where the clips begin, also where that is outside the video.
        clip_seconds: how long each lasts.
        frame_rate: of the video.
        stored: height and width of the stored picture.
        valid_N: bool, clips that lie in the video.
        truncated: frames were asked for that do not decode.
        own: which clips the pixels are, where other processes have the others; `None` = all N. Clips behind the last
            one are the last one again, as in padded batches.
    """

    pixels_NTCHW: Tensor | None
    seconds_NT: Tensor
    frames_NT: Tensor
    begins_N: Tensor
    clip_seconds: float
    frame_rate: float
    stored: tuple[int, int]
    valid_N: Tensor
    truncated: bool = False
    own: tuple[int, ...] | None = None


def part_of(sample: Sample) -> Part:
    """What of its file a sample is."""
    return Part(sample.start, sample.end, sample.key_seconds, float(sample.meta.get("left_pad", 0.0)))


@dataclass(frozen=True)
class _Source:
    """An open video: `frames` is `None` where it has sound alone, or pictures are not asked for."""

    path: Path
    frames: FrameSource | None
    seconds_F: Tensor
    rate: float
    stored: tuple[int, int]


class ClipReader:
    """Reads the clips of files.

    Args:
        cache: of decoded frames, or `None`.
        sound_only: plan the clips, but read no pictures.
        share: `(rank, size)` among the processes that share a video's clips: the pixels of the others are not read.
    """

    def __init__(self, cache: FrameCache | None, *, sound_only: bool = False, share: tuple[int, int] = (0, 1)) -> None:
        self.cache, self.sound_only, self.share = cache, sound_only, share

    def read(
        self,
        path: Path,
        clips: Clips,
        part: Part,
        *,
        side: int,
        frame_rate: float | None = None,
        generator: torch.Generator | None = None,
    ) -> ReadClips:
        """Read the clips of a part of a file.

        Args:
            path: the file, or a folder of pictures.
            clips, part: what to read.
            side: short side to which frames are scaled (a cache has its own).
            frame_rate: of a folder of pictures.
            generator: for plans that draw.
        Raises: VideoError: the file cannot be read, or the part lies behind its end, or holds no frame or not its key
            frame. ConfigError: a file of sound alone without `clips.frame_rate`.
        """
        if self.sound_only and is_sound_only(path):
            return _read(_sound_source(path, clips.frame_rate), clips, part, generator, self.share)
        if self.cache is not None and not self.sound_only:
            kept = self.cache.open(path, frame_rate=frame_rate)
            seconds_F = torch.from_numpy(kept.seconds_T)
            return _read(
                _Source(path, kept, seconds_F, kept.frame_rate, kept.stored), clips, part, generator, self.share
            )
        with open_frames(path, frame_rate=frame_rate, size=side) as reader:
            about, seconds_F = reader.metadata, reader.seconds_T
            frames, stored = None if self.sound_only else reader, (about.height, about.width)
            return _read(
                _Source(path, frames, seconds_F, float(about.frame_rate), stored), clips, part, generator, self.share
            )


def _sound_source(path: Path, rate: float | None) -> _Source:
    """A file of sound alone, with the time line that its clips would have."""
    if rate is None:
        raise ConfigError(
            f"{path}: holds sound alone, and clips.frame_rate is not set, so that clips.frames and clips.stride mean "
            "no time. Set it; with frames=100, stride=1 and frame_rate=100 a clip is one second."
        )
    count = max(1, int(sound_seconds(path) * rate + SLACK))
    return _Source(path, None, torch.arange(count).double() / rate, rate, (0, 0))


def _read(
    source: _Source, clips: Clips, part: Part, generator: torch.Generator | None, share: tuple[int, int]
) -> ReadClips:
    count, rate = len(source.seconds_F), source.rate
    begin = max(part.start or 0.0, part.key_seconds or 0.0)
    if begin >= count / rate:
        raise VideoError(source.path, f"lasts {count / rate:.2f} s", f"a part from {begin:.2f} s on")
    try:
        times = plan_part(count, rate, clips, part, generator=generator)
    except ConfigError:
        raise
    except ValueError as error:
        inside, remedy = "a part that lies inside the video", "Check start, end and key_seconds in the manifest."
        raise VideoError(source.path, str(error), inside, remedy) from error
    own = None if share[1] == 1 else _own(clips.count, len(times.seconds_NT), share)
    frames = None if source.frames is None else read_clips(source.frames, times if own is None else times.of(own))
    seconds_NT = times.seconds_NT if frames is None else frames.seconds_NT.contiguous()
    if own is not None and frames is not None:
        seconds_NT = _times_of_frames(source, times)
    # A frame's time is one of the file's own: numbers are exact also where the frame rate varies.
    frames_NT = torch.searchsorted(source.seconds_F, seconds_NT - SLACK).clamp(max=count - 1)
    return ReadClips(
        pixels_NTCHW=None if frames is None else frames.clips_NTCHW,
        seconds_NT=seconds_NT,
        frames_NT=frames_NT,
        begins_N=_begins(times, seconds_NT),
        clip_seconds=clip_seconds(count, rate, clips, part),
        frame_rate=rate,
        stored=source.stored,
        valid_N=times.valid_N,
        truncated=frames is not None and frames.truncated,
        own=own,
    )


def _own(count: int, planned: int, share: tuple[int, int]) -> tuple[int, ...]:
    begin, end = share_of_clips(count, *share)
    return tuple(min(n, planned - 1) for n in range(begin, end))


def _times_of_frames(source: _Source, times: ClipTimes) -> Tensor:
    """The frames' own times without decoding them."""
    if times.indices_NT is not None:
        return source.seconds_F[times.indices_NT]
    shown_NT = torch.searchsorted(source.seconds_F, times.seconds_NT + SLACK, right=True) - 1
    return source.seconds_F[shown_NT.clamp(min=0)]


def _begins(times: ClipTimes, seconds_NT: Tensor) -> Tensor:
    """Where the clips begin: with their first frame's own time, or by the plan where the time line is resampled."""
    first_N = times.seconds_NT[:, 0]
    lead_N = torch.zeros_like(first_N) if times.begins_N is None else times.begins_N - first_N
    return (first_N if times.indices_NT is None else seconds_NT[:, 0]) + lead_N
