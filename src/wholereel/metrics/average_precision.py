"""Mean average precision for multi-label videos: mean over positives of the precision at their rank, no interpolation.

Extra axes: K classes. Classes without any positive video are left out of the mean, as in the public Charades
evaluation. Average precision is no ratio of counts: what is kept and merged are the scores themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ScoredVideos", "average_precision_K", "unlabelled_last", "weighted_mean"]


@dataclass(frozen=True)
class ScoredVideos:
    """Scores and labels of all videos so far.

    Args:
        scores_BK: float32 or wider. target_BK: multi-hot, same shape.
    """

    scores_BK: Tensor
    target_BK: Tensor

    @classmethod
    def zero(cls, num_classes: int, *, device: torch.device | str | None = None) -> ScoredVideos:
        """Nothing scored yet."""
        return cls(torch.empty(0, num_classes, device=device), torch.empty(0, num_classes, device=device))

    def merge(self, other: ScoredVideos) -> ScoredVideos:
        """Both sets of videos together (disjoint sets)."""
        return ScoredVideos(torch.cat([self.scores_BK, other.scores_BK]), torch.cat([self.target_BK, other.target_BK]))

    def value(self) -> dict[str, float]:
        """`map` in [0, 1]; NaN where no class has a positive video."""
        return {"map": float(average_precision_K(self.scores_BK, self.target_BK).nanmean())}


def average_precision_K(scores_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Average precision of each class.

    Videos with equal scores form one step, at which precision is taken after all of them: their order does not matter.

    Args:
        scores_BK: NaN counts as lowest. target_BK: positive where > 0.
    Returns: float64 (K,), NaN where a class has no positive video.
    Raises: ValueError: shapes that do not agree.
    """
    if scores_BK.shape != target_BK.shape:
        raise ValueError(f"scores {tuple(scores_BK.shape)} and target {tuple(target_BK.shape)} differ in shape")
    columns = zip(scores_BK.double().nan_to_num(nan=float("-inf")).T, (target_BK > 0).T, strict=True)
    return torch.stack([_average_precision(scores_B, positive_B) for scores_B, positive_B in columns])


def unlabelled_last(scores_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Scores in which videos without any label are minus infinity, as in the Charades authors' own evaluation.

    Source: gsig/charades-algorithms (`pytorch/utils/map.py`). It flatters: such videos can be no false positives.
    """
    return scores_BK.masked_fill(~(target_BK > 0).any(1, keepdim=True), float("-inf"))


def weighted_mean(precision_K: Tensor, target_BK: Tensor) -> float:
    """Mean of the classes' precisions, each weighted by its number of positives; NaN without positives."""
    positives_K = (target_BK > 0).sum(0)
    counted_K = positives_K > 0
    return float((precision_K[counted_K] * positives_K[counted_K]).sum() / positives_K.sum())


def _average_precision(scores_B: Tensor, positive_B: Tensor) -> Tensor:
    order_B = scores_B.argsort(descending=True, stable=True)
    sorted_B, hit_B = scores_B[order_B], positive_B[order_B].double()
    place_B = torch.arange(1, len(order_B) + 1, device=scores_B.device, dtype=torch.float64)
    precision_B = hit_B.cumsum(0) / place_B
    # precision of a video = precision at the last video with the same score
    last_B = torch.searchsorted(-sorted_B, -sorted_B, right=True) - 1
    return (precision_B[last_B] * hit_B).sum() / hit_B.sum()
