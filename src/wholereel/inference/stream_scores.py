"""From the logits of single clips to what a stream says: of the clip, of its frames, of the video so far.

Axes: K classes, T outputs in time of models that judge frames (usually fewer than frames).
Not here: where logits come from (`stream_judges.py`), the rule itself (`ops/aggregate.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wholereel.config import Task
from wholereel.media.clip_assembly import TimedClip
from wholereel.ops.aggregate import RULES, aggregate_scores

__all__ = ["ClipScore", "VideoTotals", "probabilities"]


@dataclass(frozen=True)
class ClipScore:
    """What the model says of one clip, and of the video so far.

    Args:
        number: of the clip, from 0. begin, end: seconds.
        scores_K: float32 probabilities of the clip.
        video_scores_K: of all clips of the video so far; with `late_read` refreshed at growing distances.
        classes: names of the K classes.
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

    @property
    def label(self) -> str:
        """The clip's best class."""
        return self.classes[int(self.scores_K.argmax())]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON; the best `top` classes of the clip, its frames and the video."""
        record = {
            "clip": self.number,
            "begin": round(self.begin, 6),
            "end": round(self.end, 6),
            "top": best(self.scores_K, self.classes, top),
            "video_top": best(self.video_scores_K, self.classes, top),
            "final": self.final,
        }
        if self.frame_scores_TK is not None and self.frame_seconds_T is not None:
            seconds = [round(second, 6) for second in self.frame_seconds_T.tolist()]
            frames = zip(seconds, self.frame_scores_TK, strict=True)
            record["frames"] = [
                {"second": second, "top": best(scores_K, self.classes, top)} for second, scores_K in frames
            ]
        return record


class VideoTotals:
    """Running scores of a video by the rule of its task: sums of what clips said, never the clips themselves."""

    def __init__(self, task: Task, classes: int) -> None:
        self.task, self.count = task, 0
        self._total_K = torch.zeros(classes, dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """One more clip, with logits `(K)` or, of its frames, `(T, K)`: those count together as one."""
        rule = RULES[self.task.aggregate]
        values_TK = torch.atleast_2d(probabilities(logits, self.task) if rule == "prob" else logits).double()
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
        rule = RULES[self.task.aggregate]
        values_K = (self._total_K if rule == "max" else self._total_K / self.count).float()
        return values_K if rule == "prob" else probabilities(values_K, self.task)

    def merge(self, other: VideoTotals) -> None:
        """Also what the clips of another stretch said."""
        if RULES[self.task.aggregate] == "max" and self.count and other.count:
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


def clip_scores(logits: Tensor, task: Task) -> Tensor:
    """Probabilities (K) of a clip from its logits `(K)`, or from those of its frames `(T, K)` by the task's rule."""
    if logits.ndim == 1:
        return probabilities(logits, task)
    valid_1T = torch.ones(1, len(logits), dtype=torch.bool)
    return aggregate_scores(logits[None], valid_1T, task.aggregate, multi_label=task.multi_label)[0]


def frame_seconds(clip: TimedClip, outputs: int) -> Tensor:
    """Begin of each of a clip's `outputs` in time, float64; those of frames that exist only."""
    every = max(1, len(clip.seconds_T) // outputs)
    return clip.seconds_T[: clip.real : every]


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Sigmoid or softmax over the last axis."""
    return logits.sigmoid() if task.multi_label else logits.softmax(-1)


def best(scores_K: Tensor, classes: tuple[str, ...], top: int) -> list[list[Any]]:
    """The best `top` classes with their scores, ties in the order of the classes."""
    order = scores_K.sort(descending=True, stable=True).indices[:top].tolist()
    return [[classes[index], round(float(scores_K[index]), 6)] for index in order]
