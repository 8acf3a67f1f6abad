"""From a manifest to clips in memory: what one sample of an epoch is, and how samples become a batch.

A sample is a pure function of (seed, epoch, index) and of the number of clips asked for: its draws come from a
generator of its own, whoever loads it and when. A sample that cannot be read is replaced by a deterministic other one
in training, and left out (and listed) in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wholereel.batches import Boxes, ClipBatch, Fault, Target
from wholereel.config import Clips, Data
from wholereel.datasets.batch_samplers import seeded_generator
from wholereel.datasets.clip_boxes import (
    batched_boxes,
    boxes_of_clips,
    boxes_of_sample,
    center_cropped,
    has_detections,
    pixel_boxes,
)
from wholereel.datasets.events import labels_between
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.sample import Box
from wholereel.errors import ConfigError, DataError, VideoError
from wholereel.media.augment import CenterCrop, TrainAugment
from wholereel.media.clip_plans import check_clips, plan_clips
from wholereel.media.clip_reading import ClipFrames, FrameSource, read_clips
from wholereel.media.frame_folder import open_frames
from wholereel.media.key_clips import key_clip, key_offsets, plan_key_clips
from wholereel.media.padded_clips import plan_padded_clips

__all__ = ["ClipDataset", "ClipSample", "SampleKey", "collate"]

TRUNCATED = "truncated: the last frame that decodes is repeated"
LEAST_SIDE = 1.0  # pixels that a training crop must leave of a box (our choice)
REPLACEMENTS = 10  # tries to find a readable sample before the data set counts as broken


class SampleKey(NamedTuple):
    """Which sample, and how many clips its batch has; `None` = as many as there are."""

    epoch: int
    sample: int
    clips: int | None = None


@dataclass(frozen=True)
class ClipSample:
    """The clips of one video.

    Args:
        id: of the sample that was read.
        clips_NTCHW: uint8, cropped; N = 0 where the sample could not be read (evaluation).
        seconds_NT: float64, time of each frame.
        labels: by label space: int64 scalar, or float32 multi-hot K.
        fault: the sample that should have been here and could not be read; or this one, where frames of these clips do
            not decode; or `None`.
        boxes: at the key frame, in pixels of the crop, or `None` in sets without key frames; with `data.judged="all"`
            also those of the other clips.
        valid_N: bool, clips that lie in the video; `None` = all.
        batch_clips: N of the batch that this sample is for, at least its own; `None` = no wish.
    """

    id: str
    clips_NTCHW: Tensor
    seconds_NT: Tensor
    labels: Mapping[str, Tensor]
    fault: Fault | None = None
    boxes: Boxes | None = None
    batch_clips: int | None = None
    valid_N: Tensor | None = None


class ClipDataset(Dataset[ClipSample]):
    """Clips of the videos of a manifest; indexed by `(epoch, index)`.

    Samples with a key frame are read around it (`media/key_clips.py`) and have boxes: in training all, in evaluation
    those that a detector found, if there are any in the manifest. The label of a training sample with timed events is
    what its clips show, each from its first frame to its last; in evaluation it is what the whole video shows.
    `meta["left_pad"]` seconds before the video are filled with its first frame.

    Args:
        manifest: the samples; only the first `data.limit` are used.
        data: clips, geometry, cache (the other fields belong to the reader of the manifest and the loader).
        train: draw geometry and colour, and replace what cannot be read; otherwise crop in the middle.
        seed: of all draws.
        cache_dir: folder of decoded frames; needed where `data.cache` is set.
    Raises: ConfigError: settings that cannot be, or that contradict each other. DataError: some samples have labels
        that others lack. ValueError: no cache folder.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: Data,
        *,
        train: bool,
        seed: int,
        cache_dir: Path | None = None,
    ) -> None:
        check_clips(data.clips)
        self.samples = manifest.samples[: data.limit]
        _check_labels(self.samples, manifest.root)
        self.classes, self.multi_label = manifest.classes, manifest.multi_label
        self.data, self.train, self.seed = data, train, seed
        self._augment = TrainAugment(data.augment)
        self._center = CenterCrop(data.augment)
        self._cache = _frame_cache(data, train, cache_dir) if data.cache else None
        self._only_detected = not train and has_detections(self.samples)
        self._films = _films(self.samples) if train and data.judged == "all" else {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey | tuple[int, int]) -> ClipSample:
        """Clips of sample `index` in `epoch`; with a third number so many of them instead of `data.clips.count`.

        Raises: DataError: in training, neither the sample nor its replacements can be read.
        """
        key = SampleKey(*key)
        try:
            return self._load(key)
        except DataError as error:
            fault = Fault(self.samples[key.sample].id, str(self.samples[key.sample].path), str(error))
            return self._replaced(key, fault) if self.train else self._left_out(key.sample, fault)

    def _load(self, key: SampleKey) -> ClipSample:
        sample = self.samples[key.sample]
        clips = self.data.clips if key.clips is None else replace(self.data.clips, count=key.clips, least=None)
        generator = seeded_generator(self.seed, key.epoch, key.sample)
        side = self._augment.side(generator) if self.train else self._center.side
        read, rate = self._read(sample, side, clips, generator)
        offsets_N = key_offsets(clips, clips.frame_rate or rate)
        clips_NTCHW, boxes = self._crop(sample, read.clips_NTCHW, offsets_N, generator)
        labels = self._labels(sample)
        if self.train and sample.events and "label" in labels:
            labels["label"] = self._shown(sample, read.seconds_NT, rate)
        note = Fault(sample.id, str(sample.path), TRUNCATED, kind="truncated") if read.truncated else None
        return ClipSample(sample.id, clips_NTCHW, read.seconds_NT, labels, note, boxes, key.clips, read.valid_N)

    def _crop(
        self, sample: Sample, clips_NTCHW: Tensor, offsets_N: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Boxes | None]:
        """Pixels and boxes after the same geometry; `offsets_N`: seconds from the key frame to the clips' middles."""
        if sample.key_seconds is None:
            if self.train:
                return self._augment(clips_NTCHW, generator=generator).clips_NTCHW, None
            return self._center(clips_NTCHW), None
        chosen = self._boxes_of_clips(sample, offsets_N)
        scaled = [pixel_boxes(boxes, *clips_NTCHW.shape[-2:]) for boxes in chosen]
        classes = len(self.classes.get("label", ()))
        if not self.train:
            key = key_clip(len(clips_NTCHW))
            cropped = center_cropped(scaled[key], self._center.crop)
            return self._center(clips_NTCHW), boxes_of_sample(chosen[key], cropped, key, classes)
        augmented = self._augment(clips_NTCHW, scaled, generator=generator)
        parts = [
            boxes_of_sample(boxes, moved, clip, classes, least_side=LEAST_SIDE)
            for clip, (boxes, moved) in enumerate(zip(chosen, augmented.boxes, strict=True))
        ]
        return augmented.clips_NTCHW, boxes_of_clips(parts)

    def _boxes_of_clips(self, sample: Sample, offsets_N: Tensor) -> list[Sequence[Box]]:
        """Boxes that are judged, by clip: those of the key frame, and of other key frames where all are."""
        chosen: list[Sequence[Box]] = [()] * len(offsets_N)
        if self._films and sample.key_seconds is not None:
            film = self._films[sample.path]
            chosen = [film.get(_moment(sample.key_seconds + offset), ()) for offset in offsets_N.tolist()]
        own = [box for box in sample.boxes if not (self._only_detected and box.score is None)]
        chosen[key_clip(len(chosen))] = own
        return chosen

    def _read(self, sample: Sample, side: int, clips: Clips, generator: torch.Generator) -> tuple[ClipFrames, float]:
        if self._cache is not None:
            kept = self._cache.open(sample.path, frame_rate=sample.frame_rate)
            read = self._plan_and_read(kept, kept.frame_count, kept.frame_rate, sample, clips, generator)
            return read, kept.frame_rate
        with open_frames(sample.path, frame_rate=sample.frame_rate, size=side) as reader:
            rate = float(reader.metadata.frame_rate)
            return self._plan_and_read(reader, reader.frame_count, rate, sample, clips, generator), rate

    def _plan_and_read(
        self,
        source: FrameSource,
        count: int,
        rate: float,
        sample: Sample,
        clips: Clips,
        generator: torch.Generator,
    ) -> ClipFrames:
        begin = max(sample.start or 0.0, sample.key_seconds or 0.0)
        if begin >= count / rate:
            raise VideoError(sample.path, f"lasts {count / rate:.2f} s", f"a part from {begin:.2f} s on")
        start, end = sample.start, sample.end
        left_pad = float(sample.meta.get("left_pad", 0.0))
        if left_pad:
            times = plan_padded_clips(count, rate, clips, left_pad, end=end, generator=generator)
        elif sample.key_seconds is None:
            times = plan_clips(count, rate, clips, start=start, end=end, generator=generator)
        else:
            times = plan_key_clips(count, rate, clips, sample.key_seconds, start=start, end=end)
        return read_clips(source, times)

    def _labels(self, sample: Sample) -> dict[str, Tensor]:
        labels = {}
        for name, label in sample.labels.items():
            if isinstance(label, tuple):
                labels[name] = torch.zeros(len(self.classes[name]))
                labels[name][list(label)] = 1.0
            else:
                labels[name] = torch.tensor(label)
        return labels

    def _shown(self, sample: Sample, seconds_NT: Tensor, rate: float) -> Tensor:
        """Multi-hot K of the classes that the clips show."""
        frames_NT = (seconds_NT * rate + 1e-6).floor().long()  # a time that was looked up is one of a frame
        shown_K = torch.zeros(len(self.classes["label"]))
        for first, last in frames_NT[:, [0, -1]].tolist():
            shown_K[list(labels_between(sample.events, first, last, rate))] = 1.0
        return shown_K

    def _replaced(self, key: SampleKey, fault: Fault) -> ClipSample:
        generator = seeded_generator(self.seed, key.epoch, key.sample, 1)
        for other in torch.randint(len(self.samples), (REPLACEMENTS,), generator=generator).tolist():
            try:
                sample = self._load(key._replace(sample=other))
            except DataError:
                continue  # counted when its own turn comes, as it is listed then where it is truncated
            return replace(sample, fault=replace(fault, replaced_by=sample.id))
        raise DataError(
            fault.path,
            f"cannot be read, and neither can any of {REPLACEMENTS} other samples. First reason: {fault.reason}",
            remedy="Run `wholereel data check` on the data set.",
        )

    def _left_out(self, index: int, fault: Fault) -> ClipSample:
        crop, frames = self.data.augment.crop, self.data.clips.frames
        nothing = torch.empty(0, frames, 3, crop, crop, dtype=torch.uint8)
        seconds = torch.empty(0, frames, dtype=torch.float64)
        return ClipSample(fault.id, nothing, seconds, self._labels(self.samples[index]), fault)


def _films(samples: Sequence[Sample]) -> dict[Path, dict[int, tuple[Box, ...]]]:
    """Boxes of each film by the moment of their key frame."""
    films: dict[Path, dict[int, tuple[Box, ...]]] = {}
    for sample in samples:
        if sample.key_seconds is not None:
            films.setdefault(sample.path, {})[_moment(sample.key_seconds)] = sample.boxes
    return films


def _moment(seconds: float) -> int:
    """Milliseconds: sums of seconds are compared."""
    return round(1000 * seconds)


def _check_labels(samples: Sequence[Sample], source: Path) -> None:
    names = samples[0].labels.keys() if samples else ()
    for sample in samples:
        if sample.labels.keys() != names:
            raise DataError(
                source,
                f"sample {samples[0].id!r} has labels {sorted(names)}, sample {sample.id!r} {sorted(sample.labels)}",
                "the same ones",
                "Choose one split; test sets may have none.",
            )


def _frame_cache(data: Data, train: bool, cache_dir: Path | None) -> FrameCache:
    if cache_dir is None:
        raise ValueError("data.cache is set, but no cache_dir is given")
    low, high = data.augment.short_side
    if train and low != high:
        raise ConfigError(
            f"data.cache keeps frames of one size, but data.augment.short_side is ({low}, {high}). "
            f"Use ({low}, {low}), or switch the cache off."
        )
    return FrameCache(cache_dir, low)


def collate(samples: Sequence[ClipSample]) -> ClipBatch:
    """Make a batch; videos with fewer clips than others repeat their last clip, with `valid_BN` False there.

    N is what the samples wish (`batch_clips`), or the largest number of clips among them.

    Args:
        samples: at least one. Those without clips are left out, only their faults are kept; if none has clips the batch
            is empty (B = 0).
    """
    faults = tuple(sample.fault for sample in samples if sample.fault is not None)
    kept = [sample for sample in samples if len(sample.clips_NTCHW)]
    rows = kept or list(samples[:1])  # one sample gives the shapes of an empty batch
    most = max(len(sample.clips_NTCHW) for sample in rows)
    wanted = max(sample.batch_clips or 0 for sample in rows)
    largest = max(wanted, most) if kept else most  # nothing to repeat in a sample without clips
    counts_B = torch.tensor([len(sample.clips_NTCHW) for sample in rows])
    labels = {name: torch.stack([sample.labels[name] for sample in rows]) for name in rows[0].labels}
    count = len(kept)
    parts = [sample.boxes for sample in kept if sample.boxes is not None]
    boxes = batched_boxes(parts) if parts and len(parts) == len(kept) else None
    return ClipBatch(
        clips_BNTCHW=torch.stack([_padded(sample.clips_NTCHW, largest) for sample in rows])[:count],
        seconds_BNT=torch.stack([_padded(sample.seconds_NT, largest) for sample in rows])[:count],
        valid_BN=((torch.arange(largest) < counts_B[:, None]) & _valid(rows, largest))[:count],
        target=Target({name: values[:count] for name, values in labels.items()}, boxes),
        ids=tuple(sample.id for sample in kept),
        faults=faults,
    )


def _valid(rows: Sequence[ClipSample], count: int) -> Tensor:
    """Clips that lie in their videos, bool; padding counts as if it did."""
    valid = torch.ones(len(rows), count, dtype=torch.bool)
    for row, sample in enumerate(rows):
        if sample.valid_N is not None:
            valid[row, : len(sample.valid_N)] = sample.valid_N
    return valid


def _padded(clips_N: Tensor, count: int) -> Tensor:
    missing = count - len(clips_N)
    return torch.cat([clips_N, clips_N[-1:].expand(missing, *clips_N.shape[1:])]) if missing else clips_N
