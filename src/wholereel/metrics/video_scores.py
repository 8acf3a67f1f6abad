"""Measures of whole videos that are gathered by sample id: one label, or several.

Source of the several-label ones: `get_map` of facebookresearch/SlowFast (`slowfast/utils/meters.py`) and
gsig/charades-algorithms (`pytorch/utils/map.py`). Extra axes: K classes.
Counts that need no ids, for training loops, are in `topk.py`, `confusion.py` and `average_precision.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wholereel.metrics.average_precision import average_precision_K, unlabelled_last, weighted_mean
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.samples import Samples
from wholereel.metrics.topk import topk_counts

__all__ = ["MultiLabelVideos", "SingleLabelVideos", "clip_accuracy_B"]


def clip_accuracy_B(clip_logits_BNK: Tensor, valid_BN: Tensor, target: Tensor) -> Tensor:
    """Share of each video's valid clips whose best class is right; of equal logits the lowest class is best.

    Args:
        clip_logits_BNK: a clip with NaN is wrong. valid_BN: bool.
        target: class indices (B,), or multi-hot (B, K), where any of the labels is right.

    Its mean over videos is clip@1: the expected accuracy where one clip a video is drawn at random. (Accuracy over all
    clips is another number where videos have different numbers of clips.)

    Returns: float64 (B,), NaN for a video without a valid clip.
    """
    called_BN = clip_logits_BNK.argsort(dim=-1, descending=True, stable=True)[..., 0]
    hit_BN = called_BN == target[:, None] if target.ndim == 1 else (target > 0).gather(1, called_BN)
    right_BN = hit_BN & valid_BN & ~clip_logits_BNK.isnan().any(-1)
    return right_BN.sum(1).double() / valid_BN.sum(1).double()


@dataclass(frozen=True)
class SingleLabelVideos:
    """Top-k and mean class accuracy of videos with one label.

    Args:
        k: each >= 1.
        samples: rows so far.
    """

    k: tuple[int, ...] = (1, 5)
    samples: Samples = field(default_factory=Samples)

    def update(
        self, ids: Sequence[str], scores_BK: Tensor, target_B: Tensor, *, clip_share_B: Tensor | None = None
    ) -> SingleLabelVideos:
        """With one more batch; a video that is known already does not count again.

        Args:
            clip_share_B: of `clip_accuracy_B`; with it, clip@1 is reported.
        """
        columns = {"scores": scores_BK, "target": target_B}
        if clip_share_B is not None:
            columns["clip_share"] = clip_share_B
        return SingleLabelVideos(self.k, self.samples.update(ids, **columns))

    def merge(self, other: SingleLabelVideos) -> SingleLabelVideos:
        """Both sets of videos together, those in both once."""
        return SingleLabelVideos(self.k, self.samples.merge(other.samples))

    def compute(self) -> dict[str, float]:
        """In [0, 1]: `top1` ..., `mean_class_accuracy` (classes without videos left out), `clip_at_1`."""
        _, table = self.samples.table()
        scores_BK, target_B = torch.from_numpy(table["scores"]), torch.from_numpy(table["target"])
        values = topk_counts(scores_BK, target_B, self.k).value()
        values["mean_class_accuracy"] = confusion_counts(scores_BK, target_B).value()["mean_class_accuracy"]
        if "clip_share" in table:
            values["clip_at_1"] = float(np.nanmean(table["clip_share"]))
        return values

    def counts(self) -> dict[str, int]:
        """Videos, and classes that have one."""
        ids, table = self.samples.table()
        return {"videos": len(ids), "classes": table["scores"].shape[1],
                "classes_with_videos": len(np.unique(table["target"]))}  # fmt: skip


@dataclass(frozen=True)
class MultiLabelVideos:
    """Mean average precision and Hit@k of videos (or of moments of videos) with any number of labels.

    Args:
        k: each >= 1.
        samples: rows so far.
    """

    k: tuple[int, ...] = (1, 5)
    samples: Samples = field(default_factory=Samples)

    def update(
        self, ids: Sequence[str], scores_BK: Tensor, target_BK: Tensor, *, clip_share_B: Tensor | None = None
    ) -> MultiLabelVideos:
        """With one more batch; a video that is known already does not count again.

        Args:
            clip_share_B: of `clip_accuracy_B`; with it, clip@1 is reported.
        """
        columns = {"scores": scores_BK, "target": target_BK > 0}
        if clip_share_B is not None:
            columns["clip_share"] = clip_share_B
        return MultiLabelVideos(self.k, self.samples.update(ids, **columns))

    def merge(self, other: MultiLabelVideos) -> MultiLabelVideos:
        """Both sets of videos together, those in both once."""
        return MultiLabelVideos(self.k, self.samples.merge(other.samples))

    def average_precision_K(self, *, official: bool = False) -> Tensor:
        """Of each class, float64, NaN without positives.

        Args:
            official: videos without any label score minus infinity first, see `unlabelled_last`.
        """
        scores_BK, target_BK = self._tensors()
        return average_precision_K(unlabelled_last(scores_BK, target_BK) if official else scores_BK, target_BK)

    def compute(self) -> dict[str, float]:
        """In [0, 1]: `map`, `weighted_map`, both with `_official`, `hit1` ..., `clip_at_1`; NaN without positives."""
        scores_BK, target_BK = self._tensors()
        values: dict[str, float] = {}
        for suffix, official in (("", False), ("_official", True)):
            precision_K = self.average_precision_K(official=official)
            values[f"map{suffix}"] = float(precision_K.nanmean())
            values[f"weighted_map{suffix}"] = weighted_mean(precision_K, target_BK)
        hits = topk_counts(scores_BK, target_BK, self.k).value()
        values |= {name.replace("top", "hit"): value for name, value in hits.items()}
        _, table = self.samples.table()
        if "clip_share" in table:
            values["clip_at_1"] = float(np.nanmean(table["clip_share"]))
        return values

    def counts(self) -> dict[str, int]:
        """Videos, labels, and the classes that a mean goes over."""
        _, target_BK = self._tensors()
        return {
            "videos": len(target_BK),
            "videos_without_label": int((~target_BK.any(1)).sum()),
            "labels": int(target_BK.sum()),
            "classes": target_BK.shape[1],
            "classes_with_positives": int(target_BK.any(0).sum()),
        }

    def _tensors(self) -> tuple[Tensor, Tensor]:
        _, table = self.samples.table()
        return torch.from_numpy(table["scores"]), torch.from_numpy(table["target"])
