"""Confusion matrix and mean class accuracy, as counts.

Extra axes: K classes; in the matrix, rows are true classes and columns predicted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ConfusionCounts", "confusion_counts"]


@dataclass(frozen=True)
class ConfusionCounts:
    """How often class k (row) was called class j (column).

    Args:
        matrix_KK: int64.
        unscored_K: int64, videos of each class whose scores were NaN: wrong, but called nothing.
    """

    matrix_KK: Tensor
    unscored_K: Tensor

    @classmethod
    def zero(cls, num_classes: int, *, device: torch.device | str | None = None) -> ConfusionCounts:
        """Nothing counted yet."""
        return cls(
            torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device),
            torch.zeros(num_classes, dtype=torch.int64, device=device),
        )

    def merge(self, other: ConfusionCounts) -> ConfusionCounts:
        """Counts of both sets of videos together (disjoint sets, same classes)."""
        if self.matrix_KK.shape != other.matrix_KK.shape:
            raise ValueError(f"cannot merge {len(self.matrix_KK)} classes with {len(other.matrix_KK)}")
        return ConfusionCounts(self.matrix_KK + other.matrix_KK, self.unscored_K + other.unscored_K)

    def total_K(self) -> Tensor:
        """Videos of each true class, int64."""
        return self.matrix_KK.sum(1) + self.unscored_K

    def class_accuracy_K(self) -> Tensor:
        """Accuracy of each class, float64; NaN where a class has no video."""
        return self.matrix_KK.diagonal().double() / self.total_K().double()

    def value(self) -> dict[str, float]:
        """`accuracy` over videos, `mean_class_accuracy` over classes that have videos; NaN if nothing was counted."""
        total = int(self.total_K().sum())
        accuracy = int(self.matrix_KK.diagonal().sum()) / total if total else float("nan")
        return {"accuracy": accuracy, "mean_class_accuracy": float(self.class_accuracy_K().nanmean())}


def confusion_counts(scores_BK: Tensor, target_B: Tensor) -> ConfusionCounts:
    """Count true against best scored class; of equal scores the lowest class index wins.

    Args:
        scores_BK: any monotone score; rows with NaN are counted as unscored.
        target_B: int64 class indices in [0, K).
    Raises: ValueError: shapes that do not agree.
    """
    batch, classes = scores_BK.shape
    if target_B.shape != (batch,):
        raise ValueError(f"target has shape {tuple(target_B.shape)}; expected ({batch},)")
    called_B = scores_BK.argsort(dim=1, descending=True, stable=True)[:, 0]
    scored_B = ~scores_BK.isnan().any(1)
    cells_B = target_B * classes + called_B
    # zeros().index_add_ and not bincount: fixed size without looking at the values, so no device synchronisation
    flat = torch.zeros(classes * classes, dtype=torch.int64, device=scores_BK.device)
    flat.index_add_(0, cells_B, scored_B.to(torch.int64))
    unscored_K = torch.zeros(classes, dtype=torch.int64, device=scores_BK.device)
    unscored_K.index_add_(0, target_B, (~scored_B).to(torch.int64))
    return ConfusionCounts(flat.view(classes, classes), unscored_K)
