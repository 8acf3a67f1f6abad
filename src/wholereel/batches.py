"""The data types that flow through the house: what a loader yields, what a task returns.

Axes: see the design page. Extra axes: S samples of a wave, F mel bins, R boxes, P persons (poses), J joints, K classes.
Everything here is a frozen dataclass of tensors (and names); nothing computes. `None` means "this batch has no such
thing".
Not here: memory states (`memory/`), whose fields may never be `None`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

__all__ = [
    "Audio",
    "Bank",
    "Blend",
    "Boxes",
    "ClipBatch",
    "Erased",
    "IGNORED",
    "Fault",
    "LossPart",
    "Losses",
    "Poses",
    "Prediction",
    "StreamBatch",
    "Target",
    "map_tensors",
]

T = TypeVar("T")

IGNORED = -1  # the label of a clip or frame that has none; in multi-hot labels, of all its classes


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Apply `function` to every tensor inside dataclasses, mappings, tuples and lists; everything else is kept.

    Args:
        value: any nesting of the containers named above.
        function: called once per tensor.
    Returns: a value of the same structure.
    """
    return _map(value, function)  # type: ignore[no-any-return]


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _map(getattr(value, f.name), function) for f in dataclasses.fields(value)}
        return type(value)(**fields)
    if isinstance(value, Mapping):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_map(item, function) for item in value)
    return value


class _Movable:
    """`to` and `pin_memory` for every batch type (the data loader calls the second by name)."""

    def to(self: T, device: torch.device | str, *, non_blocking: bool = False) -> T:
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: T) -> T:
        # What has been expanded has several elements in one place, and cannot be pinned as it lies.
        return map_tensors(self, lambda tensor: tensor.contiguous().pin_memory())


@dataclass(frozen=True)
class Fault:
    """A sample that could not be read, or not to its end, and what was done about it.

    Args:
        id: the sample's id in its manifest.
        path: the file.
        reason: the error's text, or what stands in for the missing frames.
        replaced_by: id of the sample that took its place (training), or `None` (evaluation never replaces).
        kind: `truncated` = the file is cut off, and what decodes of it is used: a note, the sample is there.
    """

    id: str
    path: str
    reason: str
    replaced_by: str | None = None
    kind: Literal["unreadable", "truncated"] = "unreadable"


@dataclass(frozen=True)
class Audio(_Movable):
    """Sound of the clips of a batch, as a wave or as a mel spectrogram (exactly one of the two).

    Args:
        wave_BNCS: float32 in [-1, 1], C sound channels; or `None`.
        mel_BNFT: float32 log-mel energies; or `None`.
        rate: samples (wave) or columns (mel) per second.
        present_BN: bool; False where a file has no sound (the values are zero there).
    """

    rate: float
    present_BN: Tensor
    wave_BNCS: Tensor | None = None
    mel_BNFT: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.wave_BNCS is None) == (self.mel_BNFT is None):
            raise ValueError("Audio holds either wave_BNCS or mel_BNFT; got both or neither")


@dataclass(frozen=True)
class Boxes(_Movable):
    """Boxes of all clips of a batch, flat: row r belongs to clip `clip_R[r]` of video `video_R[r]` (no padding).

    Args:
        xyxy_R4: float32 corners in pixels of the clip as the model sees it, x2 and y2 exclusive.
        video_R, clip_R: int64 indices into B and N.
        seconds_R: float64, time of the key frame in the video.
        labels_RK: float32 multi-hot, or `None` at test time.
        score_R: float32 detector confidence in [0, 1], or `None` for ground truth.
        track_R: int64 identity of the person, or `None`.
    """

    xyxy_R4: Tensor
    video_R: Tensor
    clip_R: Tensor
    seconds_R: Tensor
    labels_RK: Tensor | None = None
    score_R: Tensor | None = None
    track_R: Tensor | None = None


@dataclass(frozen=True)
class Poses(_Movable):
    """Poses of all frames, flat: person p stands in frame `frame_P[p]` of clip `clip_P[p]` of video `video_P[p]`.

    Args:
        joints_PJ2: float32 x, y in pixels of the clip as the model sees it.
        visible_PJ: float32 weight of each joint, 0 = not labelled.
        video_P, clip_P, frame_P: int64 indices into B, N and T.
        xyxy_P4: float32 person boxes, or `None`.
        track_P: int64 identity of the person, or `None`.
    """

    joints_PJ2: Tensor
    visible_PJ: Tensor
    video_P: Tensor
    clip_P: Tensor
    frame_P: Tensor
    xyxy_P4: Tensor | None = None
    track_P: Tensor | None = None


@dataclass(frozen=True)
class Target(_Movable):
    """What is to be learned from a batch.

    Args:
        labels: one tensor a label space ("label" where there is only one): int64 `(B,)` class indices, float32 `(B, K)`
            multi-hot, or the same with a clip axis (`(B, N)`, `(B, N, K)`) where clips have labels of their own; in
            streams N counts the labels of a clip, and `IGNORED` stands where there is none.
        boxes, poses: or `None`.
    """

    labels: Mapping[str, Tensor] = field(default_factory=dict)
    boxes: Boxes | None = None
    poses: Poses | None = None


@dataclass(frozen=True)
class Bank(_Movable):
    """Features of whole videos, made beforehand; M entries of E numbers.

    Args:
        entries_BME: float32.
        inside_BNM: bool, which entries clip n may read; False where a video has fewer.
    """

    entries_BME: Tensor
    inside_BNM: Tensor

    def of_clips(self, clips: slice) -> Bank:
        """The same for some of the clips."""
        return Bank(self.entries_BME, self.inside_BNM[:, clips])


@dataclass(frozen=True)
class Erased:
    """A rectangle of one clip of a training batch that noise fills, in all its frames, after normalisation.

    Args:
        row, clip: indices into B and N.
        top, left, height, width: pixels.
        seed: of the noise.
    """

    row: int
    clip: int
    top: int
    left: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class Blend(_Movable):
    """Which rows of a training batch are blended, after normalisation and erasing; labels by the same shares.

    Args:
        partner_B: int64, the other row; its own where nothing is blended.
        share_B: float64 from 0 to 1, how much of the row's own video there is.
        box_B4: int64 top, bottom, left, right (exclusive ends) of the rectangle that is the partner's (CutMix); zeros:
            all pixels are blended by `share_B` (mixup).
    """

    partner_B: Tensor
    share_B: Tensor
    box_B4: Tensor


@dataclass(frozen=True)
class ClipBatch(_Movable):
    """N clips of each of B videos.

    Args:
        clips_BNTCHW: uint8 pixels, RGB; `media.to_model_input` makes the model's `BNCTHW` of them, on the device.
        seconds_BNT: float64, time of each frame in its video.
        valid_BN: bool; False where a video has fewer clips than N. Each row has at least one True.
        target: what is to be learned.
        ids: the B samples' ids.
        audio: sound of the clips, or `None`.
        faults: samples that could not be read, or not to their end, see `Fault`.
        own: `(begin, end)`: `clips_BNTCHW` holds the pixels of these of the N clips only, where several processes share
            the clips of a video; `None` = of all. All else is about all N.
        bank: features of the videos, or `None`.
        erased, blend: what `media.mixed_input` still does to the pixels, once they are normalised (training).
    """

    clips_BNTCHW: Tensor
    seconds_BNT: Tensor
    valid_BN: Tensor
    target: Target
    ids: tuple[str, ...]
    audio: Audio | None = None
    faults: tuple[Fault, ...] = ()
    own: tuple[int, int] | None = None
    bank: Bank | None = None
    erased: tuple[Erased, ...] = ()
    blend: Blend | None = None

    def pixels(self, clips: slice | None = None) -> Tensor:
        """`clips_BNTCHW` of some of the N clips, or of all.

        Raises: ValueError: their pixels are on another process.
        """
        count = self.valid_BN.shape[1]
        first, end = (0, count) if self.own is None else self.own
        wanted = range(count)[slice(None) if clips is None else clips]
        if wanted and not (first <= min(wanted) and max(wanted) < end):
            raise ValueError(
                f"the pixels of clips {list(wanted)} were asked for; here are those of {first} to {end - 1}"
            )
        return self.clips_BNTCHW[:, wanted.start - first : wanted.stop - first : wanted.step]


@dataclass(frozen=True)
class StreamBatch(_Movable):
    """The next clip of each of B videos that are read in parallel, in order.

    B is the same in every step and row b is always row b of the memory's state, so that a state of fixed shape fits.

    Args:
        clip_BTCHW: uint8 pixels, RGB.
        valid_B: bool; False where a row's videos have ended: its clip is zeros, its id empty, it starts nothing, and
            nothing of it counts.
        starts_B: bool; True where this clip is the first of its video, i.e. where the memory's row is reset before it.
        seconds_B2: float64, begin and end of the clip in its video.
        target: what is to be learned.
        ids: the B samples' ids.
        audio: sound of the clip (N = 1), or `None`.
        faults: samples that could not be read.
        erased, blend: as in `ClipBatch`, with N = 1.
    """

    clip_BTCHW: Tensor
    valid_B: Tensor
    starts_B: Tensor
    seconds_B2: Tensor
    target: Target
    ids: tuple[str, ...]
    audio: Audio | None = None
    faults: tuple[Fault, ...] = ()
    erased: tuple[Erased, ...] = ()
    blend: Blend | None = None


@dataclass(frozen=True)
class Prediction(_Movable):
    """What a task says about a batch.

    Args:
        scores: one tensor a label space, `(B, K)` (or `(R, K)` with boxes): probabilities after the task's aggregation.
        clip_logits: one tensor a label space, `(B, N, K)`, before softmax or sigmoid; empty without clip scores.
        valid_BN: bool, which clips exist.
        seconds_BN2: float64, begin and end of each clip in its video.
        ids: the B samples' ids.
        final_B: bool; False while a stream's label may still change.
        boxes, poses: or `None`.
    """

    scores: Mapping[str, Tensor]
    clip_logits: Mapping[str, Tensor]
    valid_BN: Tensor
    seconds_BN2: Tensor
    ids: tuple[str, ...]
    final_B: Tensor
    boxes: Boxes | None = None
    poses: Poses | None = None


@dataclass(frozen=True)
class LossPart(_Movable):
    """A loss as a sum and the number of things summed; divided once, after reduction over ranks.

    Args:
        sum: scalar with graph, float32 or wider.
        count: scalar without graph, same dtype; how many terms `sum` has.
    """

    sum: Tensor
    count: Tensor


@dataclass(frozen=True)
class Losses(_Movable):
    """Named losses of one batch on one rank.

    Args:
        parts: by name, see `LossPart`.
        weights: factor of each part in the total; 1 where a name is missing.
    """

    parts: Mapping[str, LossPart]
    weights: Mapping[str, float] = field(default_factory=dict)

    def total(self, counts: Mapping[str, Tensor] | None = None) -> Tensor:
        """Weighted sum of the parts' means, a scalar with graph.

        Args:
            counts: what to divide each part by, e.g. the counts summed over all ranks; the own counts where `None`.
        Raises: ValueError: there is no part.
        """
        if not self.parts:
            raise ValueError("Losses.total needs at least one part")
        terms = [
            self.weights.get(name, 1.0) * part.sum / (part.count if counts is None else counts[name])
            for name, part in self.parts.items()
        ]
        return torch.stack(terms).sum()

    def detach(self) -> Losses:
        """The same numbers without graph, for logs."""
        return map_tensors(self, Tensor.detach)

    def merge(self, other: Losses) -> Losses:
        """Sum of two batches' parts (same names, same weights), for logs over several batches."""
        if self.parts.keys() != other.parts.keys():
            raise ValueError(f"cannot merge losses {sorted(self.parts)} with {sorted(other.parts)}")
        parts = {
            name: LossPart(part.sum + other.parts[name].sum, part.count + other.parts[name].count)
            for name, part in self.parts.items()
        }
        return Losses(parts, self.weights)
