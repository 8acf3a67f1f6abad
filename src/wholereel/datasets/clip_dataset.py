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

from wholereel.batches import Audio, Bank, Boxes, ClipBatch, Erased, Fault, Poses, Target, map_tensors
from wholereel.config import Augment, Data
from wholereel.datasets.bank_windows import BankWindows, Window, batched_bank
from wholereel.datasets.batch_samplers import seeded_generator, share_of_clips
from wholereel.datasets.clip_boxes import batched_boxes, has_detections
from wholereel.datasets.clip_geometry import Moved, moved
from wholereel.datasets.clip_poses import batched_poses
from wholereel.datasets.clip_reader import ClipReader, ReadClips, part_of
from wholereel.datasets.clip_sound import ClipSound, batched_audio
from wholereel.datasets.events import labels_between
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Box
from wholereel.errors import ConfigError, DataError
from wholereel.media.augment import NO_TARGETS, USUAL_FLIP, CenterCrop, TrainAugment
from wholereel.media.clip_plans import SEGMENTS, check_clips
from wholereel.media.key_clips import key_clip, key_offsets

__all__ = ["ClipDataset", "ClipSample", "SampleKey", "collate", "augment_of", "copy_generators", "frame_cache_of"]

COPY_DRAWS = 3  # in seeds of all copies of a sample but the first; see also `batch_samplers.STEP_DRAWS`
TRUNCATED = "truncated: the last frame that decodes is repeated"
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
        clips_NTCHW: uint8, cropped; N = 0 where the sample could not be read (evaluation), T = 0 where pictures are not
            asked for.
        seconds_NT: float64, time of each frame (with T of the plan in any case).
        labels: by label space: int64 scalar, or float32 multi-hot K.
        fault: the sample that should have been here and could not be read; or this one, where frames of these clips do
            not decode; or `None`.
        boxes: at the key frame, in pixels of the crop, or `None` in sets without key frames; with `data.judged="all"`
            also those of the other clips.
        poses: of the frames, in pixels of the crop, or `None` in sets without poses.
        audio: of the clips (B = 1), or `None`.
        own: `(begin, end)`: which of the batch's clips the pixels are (padding included), where several processes share
            the clips of a video; `None` = those of the sample.
        batch_clips: N of the batch that this sample is for, at least its own; `None` = no wish.
        valid_N: bool, clips that lie in the video; `None` = all.
        bank: features of the video that the clips may read, or `None`.
        erased: rectangles of the clips to fill with noise.
        copies: the same clips augmented by other draws, further rows of the batch.
    """

    id: str
    clips_NTCHW: Tensor
    seconds_NT: Tensor
    labels: Mapping[str, Tensor]
    fault: Fault | None = None
    boxes: Boxes | None = None
    poses: Poses | None = None
    audio: Audio | None = None
    batch_clips: int | None = None
    valid_N: Tensor | None = None
    own: tuple[int, int] | None = None
    bank: Window | None = None
    erased: tuple[Erased, ...] = ()
    copies: tuple[ClipSample, ...] = ()


class ClipDataset(Dataset[ClipSample]):
    """Clips of the videos of a manifest; indexed by `(epoch, index)`.

    Samples with a key frame are read around it (`media/key_clips.py`) and have boxes: in training all, in evaluation
    those that a detector found, if there are any in the manifest. Poses are those of the frames that are shown. The
    label of a training sample with timed events is what its clips show, each from its first frame to its last; in
    evaluation it is what the whole video shows. `meta["left_pad"]` seconds before the video are filled with its first
    frame, and with silence. Labels and joints that know left and right follow a flip (`mirror.py`); a video whose
    mirror image has no label is not flipped.

    Args:
        manifest: the samples; only the first `data.limit` are used.
        data: clips, geometry, sound, cache (the other fields belong to the reader of the manifest and the loader).
        train: draw geometry and colour, and replace what cannot be read; otherwise crop in the middle.
        seed: of all draws.
        cache_dir: folder of decoded frames; needed where `data.cache` is set.
        share: `(rank, size)` among processes that share the clips of each video (training): only the own clips are
            read and moved; everything else is about all clips.
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
        share: tuple[int, int] = (0, 1),
    ) -> None:
        check_clips(data.clips)
        self.samples = manifest.samples[: data.limit]
        _check_labels(self.samples, manifest.root)
        self.classes, self.multi_label, self.mirror = manifest.classes, manifest.multi_label, manifest.mirror
        self.data, self.train, self.seed, self.share = data, train, seed, share
        self._augment = TrainAugment(augment_of(data.augment, manifest.mirror))
        self._center = CenterCrop(data.augment)
        cache = frame_cache_of(data, train, cache_dir) if data.cache else None
        self._reader = ClipReader(cache, sound_only=data.audio is not None and data.audio.only, share=share)
        self._sound = None if data.audio is None else ClipSound(data.audio, data.clips)
        self._bank = None if data.bank is None else BankWindows(data.bank)
        self._only_detected = not train and has_detections(self.samples)
        self._films = _films(self.samples) if train and data.judged == "all" else {}
        # The first sample tells, as with key frames: millions of samples need not be looked at.
        self._posed = bool(self.samples) and bool(self.samples[0].poses or "labelled" in self.samples[0].meta)
        boxed = bool(self.samples) and self.samples[0].key_seconds is not None
        if train and data.augment.rand_augment is not None and (self._posed or boxed):
            raise ConfigError(NO_TARGETS)
        if train and data.augment.frame_jitter:
            raise ConfigError("data.augment.frame_jitter=True is for streams, and data.streams is null; use False.")

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
        read = self._reader.read(
            sample.path,
            clips,
            part_of(sample),
            side=side,
            frame_rate=sample.frame_rate,
            # Without a generator segments show their middle frames; plans that always draw do so in evaluation too.
            generator=generator if self.train or clips.plan != SEGMENTS else None,
        )
        audio = None if self._sound is None else self._sound.read(sample.path, read.begins_N, read.clip_seconds)
        middles_N = read.begins_N + read.clip_seconds / 2
        bank = None if self._bank is None else self._bank.read(sample.id, middles_N)
        offsets_N = key_offsets(clips, clips.frame_rate or read.frame_rate)
        further = copy_generators(self.data.augment.copies if self.train else 1, self.seed, key.epoch, key.sample)
        rows = []
        for draws in (generator, *further):
            seen = self._moved(sample, read, offsets_N, key_clip(clips), draws)
            labels = self._labels(sample, flipped=seen.flipped)
            if self.train and sample.events and "label" in labels:
                labels["label"] = self._shown(sample, read, flipped=seen.flipped)
            row = ClipSample(
                id=sample.id,
                clips_NTCHW=seen.clips_NTCHW,
                seconds_NT=read.seconds_NT,
                labels=labels,
                boxes=seen.boxes,
                poses=seen.poses,
                audio=audio,
                batch_clips=key.clips,
                valid_N=read.valid_N,
                bank=bank,
                own=None if read.own is None else share_of_clips(clips.count, *self.share),
                erased=seen.erased,
            )
            rows.append(row)
        fault = Fault(sample.id, str(sample.path), TRUNCATED, kind="truncated") if read.truncated else None
        return replace(rows[0], fault=fault, copies=tuple(rows[1:]))

    def _moved(
        self, sample: Sample, read: ReadClips, offsets_N: Tensor, judged: int, generator: torch.Generator
    ) -> Moved:
        """Pixels, boxes and joints after the same geometry; `offsets_N`: seconds from the key frame to the clips'
        middles; `judged`: the key frame's clip."""
        if read.pixels_NTCHW is None:
            crop = self.data.augment.crop
            return Moved(torch.empty(len(read.seconds_NT), 0, 3, crop, crop, dtype=torch.uint8), None, None, False)
        return moved(
            read,
            self._augment if self.train else self._center,
            boxes=None if sample.key_seconds is None else self._boxes_of_clips(sample, offsets_N, judged),
            poses=sample.poses if self._posed else None,
            classes=len(self.classes.get("label", ())),
            mirror=self.mirror,
            flippable=self.mirror.flippable(sample.labels),
            generator=generator,
        )

    def _boxes_of_clips(self, sample: Sample, offsets_N: Tensor, judged: int) -> list[Sequence[Box]]:
        """Boxes that are judged, by clip: those of the key frame, and of other key frames where all are."""
        chosen: list[Sequence[Box]] = [()] * len(offsets_N)
        if self._films and sample.key_seconds is not None:
            film = self._films[sample.path]
            chosen = [film.get(_moment(sample.key_seconds + offset), ()) for offset in offsets_N.tolist()]
        own = [box for box in sample.boxes if not (self._only_detected and box.score is None)]
        chosen[judged] = own
        return chosen

    def _labels(self, sample: Sample, *, flipped: bool = False) -> dict[str, Tensor]:
        labels = {}
        for name, stored in sample.labels.items():
            label = self.mirror.flipped(name, stored) if flipped else stored
            if isinstance(label, tuple):
                labels[name] = torch.zeros(len(self.classes[name]))
                labels[name][list(label)] = 1.0
            else:
                labels[name] = torch.tensor(label)
        return labels

    def _shown(self, sample: Sample, read: ReadClips, *, flipped: bool) -> Tensor:
        """Multi-hot K of the classes that the clips show."""
        frames_NT = (read.seconds_NT * read.frame_rate + 1e-6).floor().long()  # a time looked up is one of a frame
        shown_K = torch.zeros(len(self.classes["label"]))
        for first, last in frames_NT[:, [0, -1]].tolist():
            shown = labels_between(sample.events, first, last, read.frame_rate)
            mirrored = self.mirror.flipped("label", shown) if flipped else shown
            shown_K[list(mirrored) if isinstance(mirrored, tuple) else [mirrored]] = 1.0
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
        shown = 0 if self.data.audio is not None and self.data.audio.only else frames
        nothing = torch.empty(0, shown, 3, crop, crop, dtype=torch.uint8)
        seconds = torch.empty(0, frames, dtype=torch.float64)
        audio = None if self._sound is None else self._sound.nothing()
        return ClipSample(fault.id, nothing, seconds, self._labels(self.samples[index]), fault, audio=audio)


def copy_generators(copies: int, *numbers: int) -> list[torch.Generator]:
    """One for each copy of a sample but the first, which keeps the sample's own."""
    return [seeded_generator(*numbers, COPY_DRAWS, copy) for copy in range(1, copies)]


def augment_of(augment: Augment, mirror: Mirror) -> Augment:
    """The settings with a probability of flips that suits the data set."""
    flip = (0.0 if mirror.knows_sides else USUAL_FLIP) if augment.flip is None else augment.flip
    if flip and augment.per_clip and mirror.knows_sides:
        raise ConfigError(
            f"data.augment.per_clip flips some clips of a video and not others, but the label of a video of this data "
            f"set changes with a flip; use augment.flip=0 instead of {flip}, or per_clip=False."
        )
    return replace(augment, flip=flip)


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


def frame_cache_of(data: Data, train: bool, cache_dir: Path | None) -> FrameCache:
    """The cache of decoded frames that the settings ask for.

    Raises: ConfigError: frames of one size, and jitter of the size. ValueError: no folder.
    """
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

    N is what the samples wish (`batch_clips`), or the largest number of clips among them. Copies of a sample follow it.

    Args:
        samples: at least one. Those without clips are left out, only their faults are kept; if none has clips the batch
            is empty (B = 0).
    """
    samples = [row for sample in samples for row in (sample, *sample.copies)]
    faults = tuple(sample.fault for sample in samples if sample.fault is not None)
    kept = [sample for sample in samples if len(sample.clips_NTCHW)]
    rows = kept or list(samples[:1])  # one sample gives the shapes of an empty batch
    most = max(len(sample.seconds_NT) for sample in rows)
    wanted = max(sample.batch_clips or 0 for sample in rows)
    largest = max(wanted, most) if kept else most  # nothing to repeat in a sample without clips
    counts_B = torch.tensor([len(sample.seconds_NT) for sample in rows])
    count = len(kept)
    return ClipBatch(
        clips_BNTCHW=torch.stack(
            [_padded(sample.clips_NTCHW, largest) if sample.own is None else sample.clips_NTCHW for sample in rows]
        )[:count],
        seconds_BNT=torch.stack([_padded(sample.seconds_NT, largest) for sample in rows])[:count],
        valid_BN=((torch.arange(largest) < counts_B[:, None]) & _valid(rows, largest))[:count],
        target=_target(rows, count),
        ids=tuple(sample.id for sample in kept),
        audio=_audio(rows, largest, count),
        faults=faults,
        bank=_bank(kept, largest),
        own=rows[0].own,
        erased=tuple(replace(patch, row=row) for row, sample in enumerate(kept) for patch in sample.erased),
    )


def _target(rows: Sequence[ClipSample], count: int) -> Target:
    """Of the first `count` samples: all, or none of the one that only gives shapes."""
    labels = {name: torch.stack([sample.labels[name] for sample in rows])[:count] for name in rows[0].labels}
    boxes = [sample.boxes for sample in rows if sample.boxes is not None]
    poses = [sample.poses for sample in rows if sample.poses is not None]
    return Target(
        labels,
        batched_boxes(boxes) if boxes and len(boxes) == count else None,
        batched_poses(poses) if poses and len(poses) == count else None,
    )


def _audio(rows: Sequence[ClipSample], clips: int, count: int) -> Audio | None:
    sounds = [sample.audio for sample in rows if sample.audio is not None]
    if not sounds:
        return None
    audio = batched_audio(sounds, [len(sample.seconds_NT) for sample in rows], clips)
    return map_tensors(audio, lambda tensor: tensor[:count])


def _bank(kept: Sequence[ClipSample], clips: int) -> Bank | None:
    windows = [sample.bank for sample in kept if sample.bank is not None]
    return batched_bank(windows, clips) if windows else None


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
