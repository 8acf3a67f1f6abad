"""Results of an evaluation: per-video records, the numbers made of them, and the four files.

Extra axes: K classes. Records are kept until the end and counted in the order of the manifest, so that one and several
processes give the same numbers, mean average precision included.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.batches import Fault
from wholereel.datasets.atomic_files import write_text_file
from wholereel.evaluation.intervals import wilson_interval
from wholereel.evaluation.measured import Measured, json_number, write_measured
from wholereel.metrics.average_precision import average_precision_K, weighted_mean
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.topk import topk_counts

__all__ = ["ClassRow", "Results", "VideoRecord", "summarise", "write_results"]


@dataclass(frozen=True)
class VideoRecord:
    """What was found for one video; plain numbers, so that it travels between processes.

    Args:
        index: place in the manifest.
        id: the sample's id.
        target: indices of its classes (one where the classes exclude each other).
        scores: K probabilities.
        views: number of views (clips x crops) that were scored.
        shared_right, alone_right: views whose best class is right, given the memory of all clips, and each with the
            memory of itself alone; 0 for several labels.
        truncated: the file is cut off; its last frame stands in for the missing ones.
    """

    index: int
    id: str
    target: tuple[int, ...]
    scores: tuple[float, ...]
    views: int
    shared_right: int
    alone_right: int
    truncated: bool = False


@dataclass(frozen=True)
class ClassRow:
    """One class: videos that have it, and accuracy (one label) or average precision (several); NaN without videos."""

    name: str
    videos: int
    right: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Results(Measured):
    """What was found of whole videos.

    Args:
        records: of the videos that were judged, in the order of the manifest.
        confusion_KK: rows true, columns predicted; empty for several labels.
        others: see `Measured`.
    """

    records: tuple[VideoRecord, ...]
    per_class: tuple[ClassRow, ...]
    confusion_KK: tuple[tuple[int, ...], ...]


def summarise(
    records: Sequence[VideoRecord],
    faults: Sequence[Fault],
    *,
    classes: tuple[str, ...],
    multi_label: bool,
    protocol: Mapping[str, Any],
) -> Results:
    """Make the numbers of the records (in any order).

    Raises: ValueError: no records, or a video that occurs twice.
    """
    records = sorted(records, key=lambda record: record.index)
    if not records:
        raise ValueError("no video could be evaluated")
    if len({record.index for record in records}) != len(records):
        raise ValueError("a video was evaluated twice: the shards of the processes overlap")
    scores_BK = torch.tensor([record.scores for record in records], dtype=torch.float64)
    parts = _multi_label(records, scores_BK, classes) if multi_label else _single_label(records, scores_BK, classes)
    metrics, intervals, per_class, confusion_KK = parts
    return Results(
        protocol=protocol,
        metrics=metrics,
        intervals=intervals,
        classes=classes,
        samples=len(records) + len(faults),
        evaluated=len(records),
        records=tuple(records),
        faults=tuple(sorted(faults, key=lambda fault: fault.id)),
        truncated=tuple(record.id for record in records if record.truncated),
        per_class=per_class,
        confusion_KK=confusion_KK,
    )


Parts = tuple[dict[str, float], dict[str, tuple[float, float]], tuple[ClassRow, ...], tuple[tuple[int, ...], ...]]


def _single_label(records: Sequence[VideoRecord], scores_BK: Tensor, classes: tuple[str, ...]) -> Parts:
    target_B = torch.tensor([record.target[0] for record in records])
    ks = [k for k in (1, 5) if k < len(classes)]  # the k best of k classes are always right
    top = topk_counts(scores_BK, target_B, ks)
    confusion = confusion_counts(scores_BK, target_B)
    views = sum(record.views for record in records)
    metrics = {f"video_top{k}": int(top.correct[k]) / int(top.total) for k in ks}
    metrics["video_mean_class"] = confusion.value()["mean_class_accuracy"]
    metrics["clip_top1_shared"] = sum(record.shared_right for record in records) / views
    metrics["clip_top1_alone"] = sum(record.alone_right for record in records) / views
    intervals = {f"video_top{k}": wilson_interval(int(top.correct[k]), int(top.total)) for k in ks}
    columns = confusion.total_K(), confusion.matrix_KK.diagonal(), confusion.class_accuracy_K()
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return metrics, intervals, tuple(ClassRow(*row) for row in rows), tuple(map(tuple, confusion.matrix_KK.tolist()))


def _multi_label(records: Sequence[VideoRecord], scores_BK: Tensor, classes: tuple[str, ...]) -> Parts:
    target_BK = torch.zeros_like(scores_BK)
    for row, record in enumerate(records):
        target_BK[row, list(record.target)] = 1.0
    precision_K = average_precision_K(scores_BK, target_BK)
    positives_K = target_BK.sum(0)
    ks = [k for k in (1, 5) if k < len(classes)]
    hits = topk_counts(scores_BK, target_BK, ks)
    metrics = {"video_map": float(precision_K.nanmean())}
    metrics["video_map_weighted"] = weighted_mean(precision_K, target_BK)
    metrics |= {f"video_hit{k}": int(hits.correct[k]) / int(hits.total) for k in ks}
    intervals = {f"video_hit{k}": wilson_interval(int(hits.correct[k]), int(hits.total)) for k in ks}
    rows = zip(classes, positives_K.long().tolist(), precision_K.tolist(), strict=True)
    return metrics, intervals, tuple(ClassRow(name, videos, 0, value) for name, videos, value in rows), ()


def write_results(results: Results, out: Path) -> None:
    """Write `results.json`, `predictions.jsonl`, `per_class.csv` and, for one label, `confusion.csv`.

    `results.json` comes last: where it exists, the others are complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    multi_label = not results.confusion_KK
    write_text_file(
        out / "predictions.jsonl", "".join(_prediction_line(record, results.classes) for record in results.records)
    )
    header = ["class", "videos", "average_precision"] if multi_label else ["class", "videos", "right", "accuracy"]
    rows = [
        [row.name, row.videos, *([] if multi_label else [row.right]), _csv_number(row.value)]
        for row in results.per_class
    ]
    write_text_file(out / "per_class.csv", _csv([header, *rows]))
    if not multi_label:
        matrix = [[name, *row] for name, row in zip(results.classes, results.confusion_KK, strict=True)]
        write_text_file(out / "confusion.csv", _csv([["true \\ predicted", *results.classes], *matrix]))
    write_measured(results, out)


def _prediction_line(record: VideoRecord, classes: tuple[str, ...]) -> str:
    best = max(range(len(classes)), key=lambda index: record.scores[index])
    row = {
        "id": record.id,
        "labels": [classes[index] for index in record.target],
        "predicted": classes[best],
        "scores": [json_number(score) for score in record.scores],
        "views": record.views,
        "views_right_shared": record.shared_right,
        "views_right_alone": record.alone_right,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    words = io.StringIO()
    csv.writer(words, lineterminator="\n").writerows(rows)
    return words.getvalue()


def _csv_number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
