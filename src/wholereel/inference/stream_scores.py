"""From the logits of single clips to what a stream says: of the clip, of its frames, of the video so far.

Axes: K classes, T outputs in time of models that judge frames (usually fewer than frames).
Not here: where logits come from (`stream_judges.py`), the rule itself (`ops/aggregate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wholereel.config import Task
from wholereel.media.clip_assembly import TimedClip
from wholereel.ops.aggregate import RULES, aggregate_scores

__all__ = ["ClipScore", "Scoring", "VideoTotals", "frame_seconds"]


@dataclass(frozen=True)
class ClipScore:
    """What the model says of one clip, and of the video so far.

    Args:
        number: of the clip, from 0. begin, end: seconds.
        scores_K: float32 probabilities of the clip.
        video_scores_K: of all clips of the video so far; with `late_read` refreshed at growing distances.
        classes: names of the K classes. spaces: the same by label space, where there are several.
        final: this stream will not say anything else of this clip. What it says of the video is final only in the last
            line of a stream that has ended.
        frame_scores_TK: of models that judge frames, else `None`. frame_seconds_T: float64, begin of each output.
    """

    number: int
    begin: float
    end: float
    scores_K: Tensor
    video_scores_K: Tensor
    classes: tuple[str, ...]
    final: bool
    frame_scores_TK: Tensor | None = None
    frame_seconds_T: Tensor | None = None
    spaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The clip's best class; of several label spaces the best of each."""
        return " · ".join(str(found[0][0]) for _, found in self.best(self.scores_K, 1))

    def best(self, scores_K: Tensor, top: int) -> list[tuple[str, list[list[Any]]]]:
        """Name of each label space (one, without a name, where there are not several) and its best classes."""
        if len(self.spaces) < 2:
            return [("", best(scores_K, self.classes, top))]
        parts = scores_K.split([len(names) for names in self.spaces.values()])
        pairs = zip(self.spaces.items(), parts, strict=True)
        return [(space, best(part, names, top)) for (space, names), part in pairs]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON; the best `top` classes of the clip, its frames and the video, as
        pairs of name and score; of several label spaces by their names."""
        record = {
            "clip": self.number,
            "begin": round(self.begin, 6),
            "end": round(self.end, 6),
            "top": self._top(self.scores_K, top),
            "video_top": self._top(self.video_scores_K, top),
            "final": self.final,
        }
        if self.frame_scores_TK is not None and self.frame_seconds_T is not None:
            seconds = [round(second, 6) for second in self.frame_seconds_T.tolist()]
            frames = zip(seconds, self.frame_scores_TK, strict=True)
            record["frames"] = [{"second": second, "top": self._top(scores_K, top)} for second, scores_K in frames]
        return record

    def _top(self, scores_K: Tensor, top: int) -> Any:
        found = self.best(scores_K, top)
        return dict(found) if len(found) > 1 else found[0][1]


@dataclass(frozen=True)
class Scoring:
    """How logits become scores.

    Args:
        task: its rule and its kind of labels.
        spaces: class names by label space, where there are several: each is judged by itself.
        classes: of all spaces, one after the other.
    """

    task: Task
    spaces: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]

    @property
    def rule(self) -> str:
        """Of `ops/aggregate.py`."""
        return RULES[self.task.aggregate]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid or softmax over the last axis, of each label space."""
        if self.task.multi_label:
            return logits.sigmoid()
        return torch.cat([part.softmax(-1) for part in self._parts(logits)], -1)

    def aggregate(self, logits_NK: Tensor) -> Tensor:
        """Probabilities (K) of N clips, or frames, together."""
        valid_1N, task = torch.ones(1, len(logits_NK), dtype=torch.bool), self.task
        parts = self._parts(logits_NK)
        scores = [aggregate_scores(p[None], valid_1N, task.aggregate, multi_label=task.multi_label)[0] for p in parts]
        return torch.cat(scores)

    def clip(self, logits: Tensor) -> Tensor:
        """Probabilities (K) of a clip, from its logits `(K)` or, by its rule, those of its frames `(T, K)`."""
        return self.probabilities(logits) if logits.ndim == 1 else self.aggregate(logits)

    def _parts(self, logits: Tensor) -> tuple[Tensor, ...]:
        sizes = [len(names) for names in self.spaces.values()]
        return logits.split(sizes, -1) if len(sizes) > 1 else (logits,)


class VideoTotals:
    """Running scores of a video by the rule of its task: sums of what clips said, never the clips themselves."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring, self.count = scoring, 0
        self._total_K = torch.zeros(len(scoring.classes), dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """One more clip, with logits `(K)` or, of its frames, `(T, K)`: those count together as one."""
        rule = self.scoring.rule
        values_TK = torch.atleast_2d(self.scoring.probabilities(logits) if rule == "prob" else logits).double()
        if rule == "max":
            largest_K = values_TK.amax(0)
            self._total_K = largest_K if self.count == 0 else torch.maximum(self._total_K, largest_K)
        else:
            self._total_K = self._total_K + values_TK.mean(0)
        self.count += 1

    def scores(self) -> Tensor:
        """Probabilities (K); NaN before the first clip."""
        if self.count == 0:
            return torch.full_like(self._total_K, torch.nan).float()
        rule = self.scoring.rule
        values_K = (self._total_K if rule == "max" else self._total_K / self.count).float()
        return values_K if rule == "prob" else self.scoring.probabilities(values_K)

    def merge(self, other: VideoTotals) -> None:
        """Also what the clips of another stretch said."""
        if self.scoring.rule == "max" and self.count and other.count:
            self._total_K = torch.maximum(self._total_K, other._total_K)
        elif other.count:
            self._total_K = self._total_K + other._total_K
        self.count += other.count

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"total": self._total_K, "count": torch.tensor(self.count)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `as_dict`."""
        self._total_K, self.count = tensors["total"], int(tensors["count"])


def frame_seconds(clip: TimedClip, outputs: int) -> Tensor:
    """Begin of each of a clip's `outputs` in time, float64; those of frames that exist only."""
    every = max(1, len(clip.seconds_T) // outputs)
    return clip.seconds_T[: clip.real : every]


def best(scores_K: Tensor, classes: tuple[str, ...], top: int) -> list[list[Any]]:
    """The best `top` classes with their scores, ties in the order of the classes."""
    order = scores_K.sort(descending=True, stable=True).indices[:top].tolist()
    return [[classes[index], round(float(scores_K[index]), 6)] for index in order]
