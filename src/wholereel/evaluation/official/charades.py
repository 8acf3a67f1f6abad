"""Charades: classification of videos and localisation at 25 moments, from files of scores.

N rows, V views, K classes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from wholereel.errors import DataError
from wholereel.evaluation.files.charades import moment_rows, moments, read_videos, video_targets
from wholereel.evaluation.files.scores import Scores, read_scores
from wholereel.evaluation.official.report import ClassValue, Report, evaluated
from wholereel.metrics.video_scores import MultiLabelVideos

__all__ = ["charades_report"]

CLASSIFICATION = (
    "mean average precision over classes with positives, target = all classes of the video, scores of several views: "
    "their maximum; map as in facebookresearch/SlowFast, map_official with minus infinity for videos without a label "
    "as in gsig/charades-algorithms"
)
LOCALISATION = (
    "mean average precision over 25 evenly spaced moments of every video (Charades_v1_localize); an action includes "
    "its first and last moment"
)


def charades_report(truth: str | Path, predictions: str | Path, *, localisation: bool = False) -> Report:
    """Evaluate a file of scores.

    Args:
        truth: `Charades_v1_test.csv`.
        predictions: see `files/scores.py`: `scores` (N, K) or of views (N, V, K), sigmoid outputs or logits; for
            localisation, lines `id point score ...`. Charades has 157 classes.
        localisation: judge moments and not videos.
    Raises: DataError: a file that is not as expected, or nothing with scores.
    """
    videos = read_videos(truth)
    scores = moment_rows(predictions) if localisation else read_scores(predictions)
    table = _table(scores, videos.highest_class)
    classes = table.shape[1]
    if localisation:
        ids, target_NK = moments(videos, classes)
    else:
        ids, target_NK = list(videos.ids), video_targets(videos, classes)
    mask_N, rows = scores.rows_of(ids)
    table = table[rows]
    if not len(table):
        raise DataError(scores.file, f"none of the {len(ids)} annotated ids, e.g. {ids[0]!r}", "their ids")
    chosen = [name for name, there in zip(ids, mask_N, strict=True) if there]
    measured = MultiLabelVideos().update(chosen, table, torch.from_numpy(target_NK[mask_N]))
    metrics = measured.compute()
    if localisation:
        metrics = {name: metrics[name] for name in ("map", "weighted_map")}
    positives_K = target_NK[mask_N].sum(0).tolist()
    precision_K = measured.average_precision_K().tolist()
    rows_K = zip(range(classes), positives_K, precision_K, strict=True)
    counts = evaluated(len(chosen), len(ids), len(scores.ids) - len(rows)) | measured.counts()
    name = "localisation" if localisation else "classification"
    return Report(
        {"name": f"Charades {name}", "text": LOCALISATION if localisation else CLASSIFICATION},
        counts,
        metrics,
        tuple(ClassValue(f"c{number:03d}", count, value) for number, count, value in rows_K),
    )


def _table(scores: Scores, highest: int) -> torch.Tensor:
    table = torch.from_numpy(scores.array("scores"))
    if table.ndim == 3:  # the sigmoid is monotone: that of the largest logit is the largest
        table = table.amax(1)
    if table.ndim != 2 or table.shape[1] <= highest:
        expected = f"(N, K) or (N, V, K), K > {highest}, the highest class"
        raise DataError(scores.file, f"scores of the shape {tuple(table.shape)}", expected)
    return table
