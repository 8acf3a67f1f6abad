"""From a manifest to the clips of streams: which videos there are, how many clips each has, and one clip in memory.

A clip is a pure function of (seed, epoch, video, clip). All clips of a video share one draw of geometry and colour in
an epoch, because a memory relates them to each other (`augment.per_clip`: each its own, as the public code of MeMViT
draws them).
Not here: which clips are read together (`stream_places.py`), labels of clips (`stream_labels.py`).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wholereel.batches import IGNORED, Boxes, Erased, Fault, StreamBatch, Target
from wholereel.config import Data, Streams
from wholereel.datasets.batch_samplers import seeded_generator
from wholereel.datasets.clip_boxes import (
    batched_boxes,
    boxes_of_sample,
    center_cropped,
    has_detections,
    mirrored_box,
    pixel_boxes,
)
from wholereel.datasets.clip_dataset import TRUNCATED, augment_of, copy_generators, frame_cache_of
from wholereel.datasets.clip_geometry import LEAST_SIDE
from wholereel.datasets.frame_cache import KeptFrames
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.sample import Event
from wholereel.datasets.stream_labels import RULES, labels_of_part
from wholereel.datasets.stream_places import StreamKey
from wholereel.errors import ConfigError, DataError
from wholereel.media.augment import NO_TARGETS, CenterCrop, TrainAugment
from wholereel.media.clip_plans import ClipTimes, check_clips
from wholereel.media.clip_reading import ClipFrames, read_clips
from wholereel.media.frame_folder import FrameReader, open_frames
from wholereel.media.key_clips import plan_key_clips
from wholereel.media.stream_clips import grid_count, jittered, plan_clip_at, segment_begin, span_seconds

__all__ = ["StreamClip", "StreamDataset", "StreamVideo", "collate_streams"]

LEAD_DRAWS = 5  # in seeds of where a video's grid begins; see also `batch_samplers.STEP_DRAWS`
OPEN_VIDEOS = 64  # readers, and samples, that a process keeps: consecutive clips of a video come to the same few


@dataclass(frozen=True)
class StreamVideo:
    """One video of the streams.

    Args:
        samples: places in the manifest: the sample that the grid covers, or one for each step, in order of time.
        clips: how many steps it has.
        span: seconds of a clip. duration: of the file.
    """

    samples: tuple[int, ...]
    clips: int
    span: float
    duration: float


@dataclass(frozen=True)
class StreamClip:
    """One clip.

    Args:
        id: of the sample, with `#number` where it has several clips.
        clip_TCHW: uint8, cropped; zeros where it could not be read.
        seconds_2: float64, begin and end.
        labels: by label space; `IGNORED` where there is none.
        starts: the memory's row is reset before it.
        valid: it could be read.
        erased: rectangles to fill with noise.
        copies: the same clip augmented by other draws, further rows of the step.
    """

    id: str
    clip_TCHW: Tensor
    seconds_2: Tensor
    labels: Mapping[str, Tensor]
    starts: bool
    valid: bool = True
    boxes: Boxes | None = None
    fault: Fault | None = None
    erased: tuple[Erased, ...] = ()
    copies: tuple[StreamClip, ...] = ()


class StreamDataset(Dataset["StreamClip"]):
    """Clips of the videos of a manifest; indexed by `StreamKey`, or `None` for a row that has ended.

    Lengths of videos are looked up here, so files that cannot be opened are found at once: they are in `faults`, and no
    stream. A clip that cannot be read later is a clip of zeros that counts for nothing.

    Args:
        manifest, data, train, seed, cache_dir: as in `ClipDataset`; `data.streams` says how.
    Raises: ConfigError: settings that contradict each other or the data. DataError: no video can be read.
    """

    def __init__(
        self, manifest: Manifest, data: Data, *, train: bool, seed: int, cache_dir: Path | None = None
    ) -> None:
        check_clips(replace(data.clips, plan="contiguous"))
        if data.streams is None:
            raise ConfigError("streams need their settings: data.streams is null")
        self.samples = manifest.samples[: data.limit]
        self.classes = manifest.classes
        self.data, self.train, self.seed, self.streams = data, train, seed, data.streams
        timed = data.streams.label in RULES and data.streams.steps != "samples"
        self.multi_hot = data.streams.label == "all" if timed else manifest.multi_label
        tables = manifest.mirror.labels.values()
        lost = manifest.mirror.never or any(min(table, default=0) < 0 for table in tables)
        augment = augment_of(data.augment, manifest.mirror)
        # A stream is flipped as a whole, so no class of it may lack a mirror image.
        self._augment = TrainAugment(replace(augment, flip=0.0) if lost else augment)
        self._center, self._mirror = CenterCrop(data.augment), manifest.mirror
        self._cache = frame_cache_of(data, train, cache_dir) if data.cache else None
        self._open: OrderedDict[tuple[Path, int], FrameReader] = OrderedDict()
        self._made: OrderedDict[int, Sample] = OrderedDict()
        self._only_detected = not train and has_detections(self.samples)
        _check_streams(data.streams, data.labels)
        self._copies = data.augment.copies if train else 1
        boxed = bool(self.samples) and self.samples[0].key_seconds is not None
        if train and boxed and data.augment.rand_augment is not None:
            raise ConfigError(NO_TARGETS)
        self.faults: tuple[Fault, ...] = ()
        by_sample = data.streams.steps != "samples"
        self.videos = tuple(self._videos_of_samples() if by_sample else self._videos_of_files())
        if not self.videos:
            reason = self.faults[0].reason if self.faults else "there are no samples"
            raise DataError(manifest.root, f"has no video that can be streamed; the first: {reason}")

    def __len__(self) -> int:
        return sum(video.clips for video in self.videos)

    def __getitem__(self, key: StreamKey | None) -> StreamClip:
        """One clip; never fails."""
        if key is None:
            return self._nothing("", [0.0, 0.0], starts=False)
        video = self.videos[key.video]
        sample = self._sample(video.samples[0 if len(video.samples) == 1 else key.clip])
        id = sample.id if self.streams.steps == "samples" else f"{sample.id}#{key.clip:04d}"
        begin = self._begin(sample, video, key)
        seconds = [begin, begin + video.span]
        try:
            return self._load(key, sample, id, seconds)
        except DataError as error:
            return self._nothing(id, seconds, key.starts, Fault(id, str(sample.path), str(error)))

    def _videos_of_samples(self) -> list[StreamVideo]:
        videos, faults = [], []
        for number, sample in enumerate(self.samples):
            try:
                rate, duration = self._measure(sample)
            except DataError as error:
                faults.append(Fault(sample.id, str(sample.path), str(error)))
                continue
            span = span_seconds(self.data.clips, rate)
            start, end = sample.start or 0.0, min(_end(sample, duration), duration)
            if start >= end:
                found = f"lasts {duration:.2f} s, expected a part from {start:.2f} s on"
                faults.append(Fault(sample.id, str(sample.path), f"{sample.path}: {found}"))
                continue
            if self.streams.steps == "grid":
                count = grid_count(end - start, span, self.streams.hop or span)
                count = count if self.streams.count is None else min(count, self.streams.count)
            else:
                count = len(sample.events)
            if count:
                videos.append(StreamVideo((number,), count, span, duration))
        self.faults = tuple(faults)
        return videos

    def _videos_of_files(self) -> list[StreamVideo]:
        by_path: dict[Path, list[int]] = defaultdict(list)
        for number, sample in enumerate(self.samples):
            by_path[sample.path].append(number)
        videos, faults = [], []
        for path, numbers in by_path.items():
            steps = [(self.samples[number], number) for number in numbers]
            try:
                rate, duration = self._measure(steps[0][0])
            except DataError as error:
                faults += [Fault(sample.id, str(path), str(error)) for sample, _ in steps]
                continue
            ordered = sorted((_moment(sample, self.streams.place, duration), number) for sample, number in steps)
            span = span_seconds(self.data.clips, rate)
            videos.append(StreamVideo(tuple(number for _, number in ordered), len(steps), span, duration))
        self.faults = tuple(faults)
        return videos

    def _sample(self, number: int) -> Sample:
        """A sample of the manifest; those of the last clips are kept, as making one costs as much as a small clip."""
        if number not in self._made:
            while len(self._made) >= OPEN_VIDEOS:
                self._made.popitem(last=False)
            self._made[number] = self.samples[number]
        self._made.move_to_end(number)
        return self._made[number]

    def _begin(self, sample: Sample, video: StreamVideo, key: StreamKey) -> float:
        if self.streams.steps == "grid":
            return self._lead(sample, video, key) + key.clip * (self.streams.hop or video.span)
        if self.streams.steps == "events":
            event = _in_order(sample.events)[key.clip]
            if self.streams.label == "next":
                return event.start - self.streams.gap - video.span
            return segment_begin(self.streams.place, event.start, event.end, video.span)
        if sample.key_seconds is not None:
            return sample.key_seconds - video.span / 2
        return segment_begin(self.streams.place, sample.start or 0.0, _end(sample, video.duration), video.span)

    def _lead(self, sample: Sample, video: StreamVideo, key: StreamKey) -> float:
        """Where the grid begins, in seconds of the file."""
        start = sample.start or 0.0
        if not self.train or self.streams.begin == "start":
            return start
        shown = (video.clips - 1) * (self.streams.hop or video.span) + video.span
        room = max(0.0, min(_end(sample, video.duration), video.duration) - start - shown)
        generator = seeded_generator(self.seed, key.epoch, key.video, LEAD_DRAWS, 0)
        return start + room * float(torch.rand((), generator=generator, dtype=torch.float64))

    def _load(self, key: StreamKey, sample: Sample, id: str, seconds: list[float]) -> StreamClip:
        video = (key.video, key.clip) if self.data.augment.per_clip else (key.video,)
        generator = seeded_generator(self.seed, key.epoch, *video)
        side = self._augment.side(generator) if self.train else self._center.side
        source = self._source(sample, side)
        read = self._read(source, sample, seconds, generator)
        note = Fault(id, str(sample.path), TRUNCATED, kind="truncated") if read.truncated else None
        times_2 = torch.tensor(seconds, dtype=torch.float64)
        rows = []
        for draws in (generator, *copy_generators(self._copies, self.seed, key.epoch, *video)):
            clips_1TCHW, boxes, flipped, erased = self._crop(sample, read.clips_NTCHW, draws)
            labels = self._labels(sample, self.videos[key.video], key.clip, seconds[0])
            if flipped:
                labels = {name: self._mirrored(name, label) for name, label in labels.items()}
            # Where the clips of a video share a rectangle, its noise is still another in each of them.
            erased = tuple(replace(patch, seed=patch.seed + key.clip) for patch in erased)
            rows.append(StreamClip(id, clips_1TCHW[0], times_2, labels, key.starts, boxes=boxes, erased=erased))
        return replace(rows[0], fault=note, copies=tuple(rows[1:]))

    def _measure(self, sample: Sample) -> tuple[float, float]:
        """Frame rate and duration of the sample's file."""
        if self._cache is not None:
            kept = self._cache.open(sample.path, frame_rate=sample.frame_rate)
            return kept.frame_rate, kept.frame_count / kept.frame_rate
        with open_frames(sample.path, frame_rate=sample.frame_rate) as reader:
            rate = float(reader.metadata.frame_rate)
            return rate, reader.frame_count / rate

    def _source(self, sample: Sample, side: int) -> KeptFrames | FrameReader:
        if self._cache is not None:
            return self._cache.open(sample.path, frame_rate=sample.frame_rate)
        key = (sample.path, side)
        if key not in self._open:
            while len(self._open) >= OPEN_VIDEOS:
                self._open.popitem(last=False)[1].close()
            self._open[key] = open_frames(sample.path, frame_rate=sample.frame_rate, size=side)
        self._open.move_to_end(key)
        return self._open[key]

    def _read(
        self, source: KeptFrames | FrameReader, sample: Sample, seconds: list[float], generator: torch.Generator
    ) -> ClipFrames:
        rate = source.frame_rate if isinstance(source, KeptFrames) else float(source.metadata.frame_rate)
        clips, count = replace(self.data.clips, count=1), source.frame_count
        segment = self.streams.steps == "samples"
        # A segment's clip may look around it, but one that asks for what comes next not behind its end.
        start = 0.0 if segment else sample.start or 0.0
        ends_there = self.streams.steps == "events" and self.streams.label == "next"
        end = None if segment and self.streams.place == "middle" else sample.end
        end = max(seconds[1], 1 / rate) if ends_there else end
        try:
            times: ClipTimes
            if sample.key_seconds is not None and segment:
                times = plan_key_clips(count, rate, clips, sample.key_seconds, start=sample.start, end=sample.end)
            else:
                times = plan_clip_at(seconds[0], count, rate, clips, start=start, end=end)
        except ValueError as error:
            raise DataError(sample.path, f"lasts {count / rate:.2f} s", f"a clip at {seconds[0]:.2f} s") from error
        if self.train and self.data.augment.frame_jitter:
            key_frame = sample.key_seconds is not None and segment
            part = (sample.start or 0.0, sample.end) if key_frame else (start, end)
            times = jittered(times, count, rate, clips, generator, start=part[0], end=part[1])
        return read_clips(source, times)

    def _crop(
        self, sample: Sample, clips_1TCHW: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Boxes | None, bool, tuple[Erased, ...]]:
        """Pixels and boxes after the same geometry, whether they were flipped, and what is to be erased."""
        if sample.key_seconds is None:
            if not self.train:
                return self._center(clips_1TCHW), None, False, ()
            drawn = self._augment(clips_1TCHW, generator=generator)
            return drawn.clips_NTCHW, None, drawn.flipped[0], drawn.erased
        chosen = [box for box in sample.boxes if not (self._only_detected and box.score is None)]
        scaled = pixel_boxes(chosen, *clips_1TCHW.shape[-2:])
        flipped = False
        erased: tuple[Erased, ...] = ()
        if self.train:
            done = self._augment(clips_1TCHW, [scaled], generator=generator)
            clips_1TCHW, cropped, flipped, erased = done.clips_NTCHW, done.boxes[0], done.flipped[0], done.erased
            chosen = [mirrored_box(box, self._mirror) for box in chosen] if flipped else chosen
        else:
            clips_1TCHW, cropped = self._center(clips_1TCHW), center_cropped(scaled, self._center.crop)
        least = LEAST_SIDE if self.train else 0.0
        boxes = boxes_of_sample(chosen, cropped, 0, len(self.classes.get("label", ())), least_side=least)
        return clips_1TCHW, boxes, flipped, erased

    def _mirrored(self, name: str, label: Tensor) -> Tensor:
        """The labels of the mirror image."""
        table = torch.tensor(self._mirror.labels.get(name, range(len(self.classes[name]))), dtype=torch.int64)
        if label.is_floating_point():
            return torch.empty_like(label).index_copy_(-1, table, label)
        return torch.where(label >= 0, table[label.clamp(min=0)], label)

    def _labels(self, sample: Sample, video: StreamVideo, clip: int, begin: float) -> dict[str, Tensor]:
        """By label space."""
        rule, steps = self.streams.label, self.streams.steps
        if steps == "samples" or rule == "video" or (rule == "last" and clip + 1 == video.clips):
            return {name: self._own_label(name, sample) for name in self.data.labels}
        if rule == "last":
            return {name: self._no_label(name) for name in self.data.labels}
        if steps == "events":
            return {name: torch.tensor(_in_order(sample.events)[clip].label) for name in self.data.labels}
        hop, gap, parts = self.streams.hop or video.span, self.streams.gap, self.streams.frames
        return {
            name: labels_of_part(
                sample.events, begin, video.span, rule=rule, hop=hop, gap=gap, parts=parts,
                classes=len(self.classes[name]),
            )
            for name in self.data.labels
        }  # fmt: skip

    def _own_label(self, name: str, sample: Sample) -> Tensor:
        own = sample.labels.get(name)
        if not isinstance(own, tuple):
            return self._no_label(name) if own is None else torch.tensor(own)
        hot_K = torch.zeros(len(self.classes[name]))
        hot_K[list(own)] = 1.0
        return hot_K

    def _no_label(self, name: str) -> Tensor:
        """Of a clip that counts for nothing."""
        timed = self.streams.steps == "grid" and self.streams.label in RULES
        parts = (self.streams.frames,) if timed and self.streams.frames else ()
        if self.multi_hot:
            return torch.full((*parts, len(self.classes[name])), float(IGNORED))
        return torch.full(parts, IGNORED)

    def _nothing(self, id: str, seconds: list[float], starts: bool, fault: Fault | None = None) -> StreamClip:
        side, frames = self.data.augment.crop or self.data.augment.short_side[0], self.data.clips.frames
        pixels_TCHW = torch.zeros(frames, 3, side, side, dtype=torch.uint8)
        times_2 = torch.tensor(seconds, dtype=torch.float64)
        labels = {name: self._no_label(name) for name in self.data.labels}
        nothing = StreamClip(id, pixels_TCHW, times_2, labels, starts, valid=False)
        return replace(nothing, fault=fault, copies=(nothing,) * (self._copies - 1))


def _moment(sample: Sample, place: str, duration: float) -> float:
    """By which the steps of a video are ordered: the key frame, the middle or the end of the segment."""
    if sample.key_seconds is not None:
        return sample.key_seconds
    return segment_begin(place, sample.start or 0.0, _end(sample, duration), 0.0)


def _end(sample: Sample, duration: float) -> float:
    return duration if sample.end is None else sample.end


def _in_order(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.start, event.end))


def _check_streams(streams: Streams, labels: Sequence[str]) -> None:
    if streams.hop is not None and not streams.hop > 0:
        raise ConfigError(f"streams.hop must be positive, got {streams.hop}")
    if streams.count is not None and streams.count < 1:
        raise ConfigError(f"streams.count must be at least 1, or null, got {streams.count}")
    if streams.begin not in ("start", "random"):
        raise ConfigError(f"streams.begin={streams.begin!r} is unknown; legal are start, random")
    if streams.steps != "grid" and (streams.count is not None or streams.begin != "start"):
        raise ConfigError(
            f"streams.count={streams.count} and streams.begin={streams.begin!r} are of steps='grid', not of "
            f"streams.steps={streams.steps!r}; use null and start"
        )
    if streams.begin == "random" and streams.count is None:
        raise ConfigError("streams.begin='random' moves a few clips of each video; say how many with streams.count")
    if streams.frames < 0 or streams.gap < 0:
        raise ConfigError(f"streams.frames and streams.gap must be at least 0, got {streams.frames} and {streams.gap}")
    if streams.steps == "events" and streams.label not in ("shown", "next"):
        raise ConfigError(
            f"streams.steps='events' asks for what is 'shown' or 'next', not streams.label={streams.label!r}"
        )
    if streams.steps != "samples" and streams.label in RULES and tuple(labels) != ("label",):
        raise ConfigError(
            f"timed events have the label column 'label'; data.labels={tuple(labels)} needs steps='samples'"
        )


def collate_streams(clips: Sequence[StreamClip]) -> StreamBatch:
    """One step: B is the number of clips, whether they are valid or not; copies of a clip follow it."""
    clips = [row for clip in clips for row in (clip, *clip.copies)]
    boxes = None
    if any(clip.boxes is not None for clip in clips):
        rows = [row for row, clip in enumerate(clips) if clip.boxes is not None]
        flat = batched_boxes([clip.boxes for clip in clips if clip.boxes is not None])
        boxes = replace(flat, video_R=torch.tensor(rows)[flat.video_R])
    labels = {name: torch.stack([clip.labels[name] for clip in clips]) for name in clips[0].labels}
    shape = next((clip.clip_TCHW.shape for clip in clips if clip.valid), clips[0].clip_TCHW.shape)
    nothing_TCHW = torch.zeros(shape, dtype=torch.uint8)  # whole pictures are not square
    return StreamBatch(
        clip_BTCHW=torch.stack([clip.clip_TCHW if clip.valid else nothing_TCHW for clip in clips]),
        valid_B=torch.tensor([clip.valid for clip in clips]),
        starts_B=torch.tensor([clip.starts for clip in clips]),
        seconds_B2=torch.stack([clip.seconds_2 for clip in clips]),
        target=Target(labels, boxes),
        ids=tuple(clip.id for clip in clips),
        faults=tuple(clip.fault for clip in clips if clip.fault is not None),
        erased=tuple(replace(patch, row=row) for row, clip in enumerate(clips) for patch in clip.erased),
    )
