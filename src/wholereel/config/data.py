"""What is read: clips, sound, streams, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wholereel.config.augment import Augment

__all__ = ["Audio", "BankWindow", "Clips", "Data", "FrontEnd", "Plan", "Streams"]

Plan = Literal["stratified", "random", "uniform", "contiguous", "classic", "offset", "segments"]
FrontEnd = Literal["wave", "log_mel", "log_filter_bank", "mfcc", "vmz_log_mel"]


@dataclass(frozen=True)
class Clips:
    """Which frames of a video are read (spec of the plans: `media/clip_plans.py`).

    Args:
        plan: where the clips start.
        count: N, clips of a video in a batch; for `contiguous` the largest N (the rest of the video is left out).
        frames: T, frames of a clip.
        stride: distance of a clip's frames, in frames of `frame_rate`.
        frame_rate: common frame rate that the video's time line is resampled to; `None` = each video's own.
        coverage: N = clamp(ceil(duration / span), 1, count) for each video; missing clips are masked. With `hop` it has
            no say: N follows from that.
        least: in training N is drawn for each step from `least` to `count`, for all videos and ranks alike; `None` = it
            is always `count`. Against models that know one N only.
        hop: of `contiguous`: seconds from the beginning of a clip to that of the next; `None` = as long as a clip.
        window: of sets of key frames: seconds over which the middles of the clips are spread, half of them on each side
            of the key frame (N odd); `None` = one after another without gaps. Clips whose middle lies outside the film
            are masked.
        window_side: of a window: on both sides of the key frame, or all before it (`"before"`): the key frame's clip is
            then the last one, and no score depends on what comes later.
        window_grid: distances from the key frame are rounded to whole multiples of so many seconds, so that key frames
            share clips (1 = clips of a film are encoded once a second); `None` = not rounded.
        legacy_span: of `classic` and `offset`: a view spans `ceil(stride * (T - 1) / frame_rate)` seconds in frames of
            the file, as in an older public code path, and not `stride * T / frame_rate`.
    """

    plan: Plan = "stratified"
    count: int = 4
    frames: int = 8
    stride: int = 8
    frame_rate: float | None = None
    coverage: bool = False
    least: int | None = None
    hop: float | None = None
    window: float | None = None
    window_side: Literal["both", "before"] = "both"
    window_grid: float | None = None
    legacy_span: bool = False


@dataclass(frozen=True)
class Audio:
    """Sound of the clips, cut by time and mixed to one channel.

    Args:
        front_end: `"wave"`, or what a network sees of it (`media/audio_features.py`).
        rate: samples per second, whatever is stored.
        seconds: length from the beginning of each clip on; `None` = as long as the clip.
        columns: resize spectra to so many columns; `None` = as many as the front end makes.
        options: keyword arguments of the front end.
        only: read no pictures: clips have no frames (T = 0). Files of sound alone can only be read so, and need
            `clips.frame_rate`.
    """

    front_end: FrontEnd = "wave"
    rate: int = 16_000
    seconds: float | None = None
    columns: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    only: bool = False


@dataclass(frozen=True)
class Streams:
    """How videos are read clip after clip, many in parallel (`datasets/stream_places.py`); one step is one clip a row.

    Of `Clips` frames, stride and frame rate count, plan and number do not.

    Args:
        steps: `grid`: a clip every `hop` seconds of each sample. `events`: one clip for each timed event of a sample,
            in order of time. `samples`: one clip for each sample (key frame, segment or whole file), in order of time
            in its file, with the sample's own labels.
        hop: of the grid, seconds from the begin of one clip to that of the next; `None` = the clips' span: they touch.
        count: of the grid, the most clips of a video; `None` = to its end.
        begin: of the grid: with the video, or (`random`) in training after a random part, drawn for each epoch, of what
            `count` clips leave of it.
        place: of the clip in a segment (`samples`, and `events` that are `shown`): its middle, or so that it ends with
            it, as anticipation needs.
        label: what a clip is asked for. On the grid: the event that fills most of it, and at least half (`shown`); all
            events that it shows (`all`, for task.multi_label); the event that begins `gap` seconds behind its end, and
            less than a hop later (`next`); the sample's own label, at every clip (`video`) or at the last one (`last`).
            Of `events`: `shown`, the clip shows the event; `next`, it ends `gap` seconds before the event.
        gap: seconds of anticipation of `next`.
        frames: labels of a clip; 0 = one for the clip, else one for each of so many equal parts (frame-level models).
        order: `balanced`: videos go to the row that is free first. `memvit`: the public code's rule, one list of all
            clips cut into equal parts.
    """

    steps: Literal["grid", "events", "samples"] = "grid"
    hop: float | None = None
    count: int | None = None
    begin: Literal["start", "random"] = "start"
    place: Literal["middle", "end"] = "middle"
    label: Literal["shown", "all", "next", "video", "last"] = "shown"
    gap: float = 1.0
    frames: int = 0
    order: Literal["balanced", "memvit"] = "balanced"


@dataclass(frozen=True)
class BankWindow:
    """Features of the whole video around each clip, for models that read a bank (arXiv 1812.05038).

    Args:
        root: folder of shards with features, or `"stage:NAME"` of an `Extract` stage.
        seconds: length of the window, the clip's middle being its own.
    """

    root: str
    seconds: float = 60.0


@dataclass(frozen=True)
class Data:
    """A data set and how clips are taken from it.

    Args:
        root: folder of classes, manifest file (`.csv`, `.jsonl`, `.parquet`, PySlowFast list), or `"stage:NAME"`.
        split: rows with this value in the manifest's `split` column; `None` = all.
        labels: label columns (one a label space).
        clips, augment: see there.
        audio: sound of the clips; `None` = not read.
        limit: use only the first so many samples; `None` = all.
        cache: decode every video once, scale it to the short side and keep the frames on disk under the run's cache
            (small videos only). The same pixels with and without, except that jitter of the short side is then not
            possible.
        workers: loader processes; 0 = none.
        max_bad: largest fraction of samples replaced in one epoch before training stops.
        judged: of sets of key frames, in training: boxes of the key frame alone (`"centre"`), or also those of other
            key frames of the film that are the middle of a clip (`"all"`).
        bank: features of the same videos that the model reads besides; `None` = none.
        streams: read videos as streams instead of a few clips of each; `None` = not.
    """

    root: str | None = None
    split: str | None = "train"
    labels: tuple[str, ...] = ("label",)
    clips: Clips = field(default_factory=Clips)
    augment: Augment = field(default_factory=Augment)
    audio: Audio | None = None
    limit: int | None = None
    cache: bool = False
    workers: int = 2
    max_bad: float = 0.01
    judged: Literal["centre", "all"] = "centre"
    bank: BankWindow | None = None
    streams: Streams | None = None
