"""Top-k accuracy as counts (for multi-hot targets: Hit@k).

Extra axes: K classes. Equal scores rank by class index, lower first, as a stable descending sort does: a constant
prediction is right exactly for class 0, never by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TopKCounts", "ranks", "topk_counts"]


@dataclass(frozen=True)
class TopKCounts:
    """How many videos were right among their k best classes.

    Args:
        correct: number of right videos by k (int64 scalars).
        total: number of videos (int64 scalar).
    """

    correct: dict[int, Tensor]
    total: Tensor

    @classmethod
    def zero(cls, k: Sequence[int] = (1, 5), *, device: torch.device | str | None = None) -> TopKCounts:
        """Nothing counted yet."""
        return cls({each: torch.zeros((), dtype=torch.int64, device=device) for each in k}, _zero(device))

    def merge(self, other: TopKCounts) -> TopKCounts:
        """Counts of both sets of videos together (disjoint sets, same k)."""
        if self.correct.keys() != other.correct.keys():
            raise ValueError(f"cannot merge counts for k={list(self.correct)} with k={list(other.correct)}")
        return TopKCounts({k: count + other.correct[k] for k, count in self.correct.items()}, self.total + other.total)

    def value(self) -> dict[str, float]:
        """`{"top1": …}` in [0, 1] for each k; NaN where nothing was counted."""
        total = int(self.total)
        return {f"top{k}": int(count) / total if total else float("nan") for k, count in self.correct.items()}


def topk_counts(scores_BK: Tensor, target: Tensor, k: Sequence[int] = (1, 5)) -> TopKCounts:
    """Count the videos whose class (any of their classes) is among the k best scored ones.

    Args:
        scores_BK: any monotone score; a row that contains NaN counts as wrong for every k.
        target: int64 class indices (B,), or multi-hot (B, K) where a row without any label counts as wrong.
        k: each >= 1; k >= K is always right for a finite row.
    Raises: ValueError: shapes that do not agree.
    """
    rank_B = ranks(scores_BK, target)
    return TopKCounts({each: (rank_B < each).sum() for each in k}, _zero(scores_BK.device) + len(scores_BK))


def ranks(scores_BK: Tensor, target: Tensor) -> Tensor:
    """Place of each video's (best) true class in the order of scores: 0 = first, K = never.

    Args and Raises: as in `topk_counts`.
    Returns: rank_B int64.
    """
    batch, classes = scores_BK.shape
    if target.shape not in {(batch,), (batch, classes)}:
        raise ValueError(f"target has shape {tuple(target.shape)}; expected ({batch},) or ({batch}, {classes})")
    order_BK = scores_BK.argsort(dim=1, descending=True, stable=True)
    if target.ndim == 1:
        hit_BK = order_BK == target[:, None]
    else:
        hit_BK = (target > 0).gather(1, order_BK)
    # argsort puts NaN somewhere; a model that says nothing must not be right
    hit_BK = hit_BK & ~scores_BK.isnan().any(1, keepdim=True)
    # the first hit; argmax of a boolean row returns the first maximum on every device only as cumulative count
    before_BK = hit_BK.cumsum(1) == 0
    return before_BK.sum(1)


def _zero(device: torch.device | str | None) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device=device)
