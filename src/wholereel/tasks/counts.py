"""What classification measures, by name: `video_top1` and the like, each with the number of videos it rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wholereel.batches import Prediction, Target
from wholereel.metrics.average_precision import ScoredVideos
from wholereel.metrics.confusion import ConfusionCounts, confusion_counts
from wholereel.metrics.topk import TopKCounts, topk_counts

__all__ = ["ClassificationCounts"]


@dataclass(frozen=True)
class ClassificationCounts:
    """Counts over videos and over their valid clips, of one label space.

    Args:
        label: name of the label space.
        video, clip: top-k of the aggregated scores and of the single clips (with multi-hot labels: Hit@k).
        detail: the confusion matrix, or, for multi-label, all scores.
    """

    label: str
    video: TopKCounts
    clip: TopKCounts
    detail: ConfusionCounts | ScoredVideos

    @classmethod
    def zero(cls, label: str, num_classes: int, *, multi_label: bool) -> ClassificationCounts:
        """Nothing counted yet. Top-5 is counted where there are more than five classes."""
        k = (1, 5) if num_classes > 5 else (1,)
        detail = ScoredVideos.zero(num_classes) if multi_label else ConfusionCounts.zero(num_classes)
        return cls(label, TopKCounts.zero(k), TopKCounts.zero(k), detail)

    def add(self, prediction: Prediction, target: Target) -> ClassificationCounts:
        """These counts and those of one more batch; everything is brought to the CPU."""
        scores_BK = prediction.scores[self.label].float().cpu()
        labels = target.labels[self.label].cpu()
        k = tuple(self.video.correct)
        clip = self.clip
        if self.label in prediction.clip_logits:
            clip = clip.merge(_clip_counts(prediction.clip_logits[self.label], labels, prediction.valid_BN, k))
        if isinstance(self.detail, ScoredVideos):
            detail: ConfusionCounts | ScoredVideos = self.detail.merge(ScoredVideos(scores_BK, labels.float()))
        else:
            detail = self.detail.merge(confusion_counts(scores_BK, labels))
        return replace(self, video=self.video.merge(topk_counts(scores_BK, labels, k)), clip=clip, detail=detail)

    def merge(self, other: ClassificationCounts) -> ClassificationCounts:
        """Both sets of videos together (disjoint sets)."""
        if isinstance(self.detail, ScoredVideos):
            if not isinstance(other.detail, ScoredVideos):
                raise ValueError("cannot merge multi-label counts with single-label ones")
            detail: ConfusionCounts | ScoredVideos = self.detail.merge(other.detail)
        else:
            if isinstance(other.detail, ScoredVideos):
                raise ValueError("cannot merge single-label counts with multi-label ones")
            detail = self.detail.merge(other.detail)
        return replace(self, video=self.video.merge(other.video), clip=self.clip.merge(other.clip), detail=detail)

    def value(self) -> dict[str, float]:
        """`video_top1`, `clip_top1` (and 5), `video_mean_class` or `video_map`, and `videos`, how many were counted."""
        values = {f"video_{name}": value for name, value in self.video.value().items()}
        values |= {f"clip_{name}": value for name, value in self.clip.value().items()}
        if isinstance(self.detail, ScoredVideos):
            values["video_map"] = self.detail.value()["map"]
        else:
            values["video_mean_class"] = self.detail.value()["mean_class_accuracy"]
        return values | {"videos": float(self.video.total)}


def _clip_counts(logits_BNK: Tensor, labels: Tensor, valid_BN: Tensor, k: tuple[int, ...]) -> TopKCounts:
    """Top-k of every valid clip against its video's label."""
    row_R, clip_R = torch.nonzero(valid_BN.cpu(), as_tuple=True)
    return topk_counts(logits_BNK.float().cpu()[row_R, clip_R], labels[row_R], k)
