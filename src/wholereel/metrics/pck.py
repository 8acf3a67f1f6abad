"""Share of key points that are predicted near enough (PCK; with the head as the scale: PCKh), as counts.

Extra axes: P persons, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PckCounts", "pck_counts"]


@dataclass(frozen=True)
class PckCounts:
    """How many joints were right.

    Args:
        right_J, total_J: int64, predicted within the threshold, and labelled.
    """

    right_J: Tensor
    total_J: Tensor

    @classmethod
    def zero(cls, num_joints: int, *, device: torch.device | str | None = None) -> PckCounts:
        """Nothing counted yet."""
        none = torch.zeros(num_joints, dtype=torch.int64, device=device)
        return cls(none, none.clone())

    def merge(self, other: PckCounts) -> PckCounts:
        """Counts of both sets of persons together (disjoint sets, same joints)."""
        if self.right_J.shape != other.right_J.shape:
            raise ValueError(f"cannot merge {len(self.right_J)} joints with {len(other.right_J)}")
        return PckCounts(self.right_J + other.right_J, self.total_J + other.total_J)

    def joint_J(self) -> Tensor:
        """Share of each joint, float64; NaN where it is never labelled."""
        return self.right_J.double() / self.total_J.double()

    def value(self) -> dict[str, float]:
        """`pck` over all labelled joints, `mean_joint_pck` over joints that are ever labelled; NaN without any."""
        total = int(self.total_J.sum())
        over_all = int(self.right_J.sum()) / total if total else float("nan")
        return {"pck": over_all, "mean_joint_pck": float(self.joint_J().nanmean())}


def pck_counts(
    predicted_PJ2: Tensor, true_PJ2: Tensor, labelled_PJ: Tensor, scale_P: Tensor, *, threshold: float = 0.5
) -> PckCounts:
    """Count joints whose distance is at most `threshold` times the person's scale.

    Args:
        predicted_PJ2, true_PJ2: in the same unit; a NaN in the prediction is a joint that was not predicted: wrong.
        labelled_PJ: > 0 where the truth is known; others do not count.
        scale_P: such as the head size (PCKh: 0.6 times the diagonal of the head box), the torso or the box.
        threshold: usually 0.5 (PCKh@0.5) or 0.2 (PCK@0.2).
    Raises: ValueError: shapes that do not agree.
    """
    if predicted_PJ2.shape != true_PJ2.shape or labelled_PJ.shape != true_PJ2.shape[:2]:
        raise ValueError(
            f"joints {tuple(predicted_PJ2.shape)} and {tuple(true_PJ2.shape)}, labels {tuple(labelled_PJ.shape)} differ"
        )
    if scale_P.shape != true_PJ2.shape[:1]:
        raise ValueError(f"scale has shape {tuple(scale_P.shape)}; expected ({len(true_PJ2)},)")
    distance_PJ = (predicted_PJ2.double() - true_PJ2.double()).norm(dim=-1)
    labelled_PJ = labelled_PJ > 0
    right_PJ = (distance_PJ <= threshold * scale_P.double()[:, None]) & labelled_PJ
    return PckCounts(right_PJ.sum(0), labelled_PJ.sum(0))
