"""Videos with one label or several, from a table of labels and a file of scores or of view-level logits.

N videos, V views, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wholereel.errors import DataError
from wholereel.evaluation.files.scores import Scores, read_scores
from wholereel.evaluation.files.tables import integers, read_columns
from wholereel.evaluation.official.report import ClassValue, Report, evaluated
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.video_scores import MultiLabelVideos, SingleLabelVideos, clip_accuracy_B
from wholereel.ops.aggregate import aggregate_scores

__all__ = ["VIEWS", "videos_report"]

ViewRule = Literal["softmax_sum", "sigmoid_max", "logits_mean"]
# rule -> (aggregate, sigmoid instead of softmax, words); a sum of softmax outputs ranks as their mean does
VIEWS: dict[str, tuple[Literal["prob", "max", "logits"], bool, str]] = {
    "softmax_sum": ("prob", False, "the sum of the softmax outputs of the views"),
    "sigmoid_max": ("max", True, "the largest sigmoid output of the views"),
    "logits_mean": ("logits", False, "the mean logits of the views"),
}
SINGLE = "top-k accuracy over videos; mean_class_accuracy over classes that have videos"
SEVERAL = "mean average precision over classes with positives (no interpolation), and Hit@k: any label among the k best"


def videos_report(
    truth: str | Path, predictions: str | Path, *, views: ViewRule | None = None, several: bool = False
) -> Report:
    """Evaluate a file of scores.

    Args:
        truth: CSV with the columns `id` and `label`: a class index, or several (or none) with `;` between them.
        predictions: see `files/scores.py`: `scores` (N, K), taken as they are, or logits of views (N, V, K).
        views: how views become one score; `None` = the usual way, `softmax_sum` for one label and `sigmoid_max` for
            several.
        several: videos may have any number of labels; implied by a row that has another number than one.
    Raises: DataError: a file that is not as expected, a class without scores, or no video with scores.
    """
    ids, texts = read_columns(truth, ("id", "label"))
    labels = [integers(truth, "label", [part for part in text.split(";") if part.strip()]) for text in texts]
    several = several or any(len(found) != 1 for found in labels)
    views = views or ("sigmoid_max" if several else "softmax_sum")
    scores = read_scores(predictions)
    mask_N, rows = scores.rows_of(ids)
    table = torch.from_numpy(scores.array("scores"))[torch.from_numpy(rows)]
    if not len(rows):
        raise DataError(scores.file, f"none of the {len(ids)} videos, e.g. {ids[0]!r}", "their ids")
    classes = table.shape[-1]
    highest, lowest = (function((label for found in labels for label in found), default=0) for function in (max, min))
    if not 0 <= lowest <= highest < classes:
        raise DataError(scores.file, f"scores of {classes} classes", f"of all labels, {lowest} to {highest}")
    chosen = [(name, found) for name, found, there in zip(ids, labels, mask_N, strict=True) if there]
    scores_NK = _combined(table, views, scores)
    counts = evaluated(len(chosen), len(ids), len(scores.ids) - len(rows))
    protocol = {
        "name": "videos, several labels" if several else "videos, one label",
        "text": _text(table, views, several),
    }
    names = [name for name, _ in chosen]
    if several:
        target = torch.zeros(len(chosen), classes, dtype=torch.bool)
        for row, (_, found) in enumerate(chosen):
            target[row, found] = True
    else:
        target = torch.tensor([found[0] for _, found in chosen])
    share_N = None
    if table.ndim == 3:
        share_N = clip_accuracy_B(table, torch.ones(table.shape[:2], dtype=torch.bool), target)
    if several:
        measured = MultiLabelVideos().update(names, scores_NK, target, clip_share_B=share_N)
        value_K, count_K = measured.average_precision_K(), target.sum(0)
        return _report(protocol, counts | measured.counts(), measured.compute(), count_K, value_K)
    videos = SingleLabelVideos().update(names, scores_NK, target, clip_share_B=share_N)
    confusion = confusion_counts(scores_NK, target)
    return _report(
        protocol, counts | videos.counts(), videos.compute(), confusion.total_K(), confusion.class_accuracy_K()
    )


def _combined(table: Tensor, views: str, scores: Scores) -> Tensor:
    if table.ndim == 2:
        return table
    if table.ndim != 3:
        raise DataError(scores.file, f"scores of the shape {tuple(table.shape)}", "(N, K) or (N, V, K)")
    aggregate, sigmoid, _ = VIEWS[views]
    valid_NV = torch.ones(table.shape[:2], dtype=torch.bool)
    return aggregate_scores(table, valid_NV, aggregate, multi_label=sigmoid)


def _text(table: Tensor, views: str, several: bool) -> str:
    text = SEVERAL if several else SINGLE
    if table.ndim == 3:
        text += f"; a video's score is {VIEWS[views][2]} ({table.shape[1]} views)"
        text += "; clip_at_1 is the expected accuracy of one view drawn at random"
    return text


def _report(
    protocol: dict[str, str], counts: dict[str, int], metrics: dict[str, float], count_K: Tensor, value_K: Tensor
) -> Report:
    rows = zip(count_K.tolist(), np.asarray(value_K).tolist(), strict=True)
    per_class = tuple(ClassValue(str(number), count, value) for number, (count, value) in enumerate(rows))
    return Report(protocol, counts, metrics, per_class)
