"""Results at key frames: per-frame records, the numbers made of them, and the files, AVA's own among them.

K classes; class ids are indices + 1. Records are kept until the end and counted in the order of the manifest, so that
one and several processes give the same numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.batches import Fault
from wholereel.datasets.atomic_files import write_text_file
from wholereel.evaluation.measured import Measured, write_measured
from wholereel.metrics.frame_map import BoxRows, FrameMap, FrameMapCounts

__all__ = [
    "BoxRecord",
    "ClassPrecision",
    "DetectionResults",
    "TruthBox",
    "detection_rows",
    "summarise",
    "write_detections",
]

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxRecord:
    """What was found at one key frame; plain numbers, so that it travels between processes.

    Args:
        index: place in the manifest.
        id: the sample's id.
        video, seconds: as in official files.
        boxes: as fractions of the picture. scores: K probabilities for each.
        clips_read, clips_encoded, truncated: see `inference.key_frames.Judged`.
    """

    index: int
    id: str
    video: str
    seconds: float
    boxes: tuple[Corners, ...]
    scores: tuple[tuple[float, ...], ...]
    clips_read: int
    clips_encoded: int
    truncated: bool = False


@dataclass(frozen=True)
class TruthBox:
    """An annotated box and its class indices."""

    xyxy: Corners
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ClassPrecision:
    """One class that is evaluated: annotated boxes that show it, average precision (NaN without any)."""

    name: str
    boxes: int
    value: float


@dataclass(frozen=True, kw_only=True)
class DetectionResults(Measured):
    """What was found at key frames: `map` (protocol `slowfast`) and `map_activitynet`; `box_top1` where each box shows
    one action.

    Args:
        counts: of everything that the numbers rest on.
        evaluated_classes: indices of the classes that count.
        records: of the key frames that were judged, in the order of the manifest.
        others: see `Measured`.
    """

    counts: Mapping[str, int]
    evaluated_classes: tuple[int, ...]
    records: tuple[BoxRecord, ...]
    per_class: tuple[ClassPrecision, ...]

    unit = "key frames"

    def to_dict(self) -> dict[str, Any]:
        """As `Measured`, with the counts."""
        return {**super().to_dict(), "counts": dict(self.counts)}

    def _counts(self) -> list[str]:
        return [*(f"  {name:<22}{value}" for name, value in self.counts.items()), *super()._counts()]


def summarise(
    records: Sequence[BoxRecord],
    faults: Sequence[Fault],
    truth: Mapping[int, Sequence[TruthBox]],
    *,
    classes: tuple[str, ...],
    evaluated: Sequence[int],
    protocol: Mapping[str, Any],
) -> DetectionResults:
    """Make the numbers of the records.

    Args:
        truth: annotated boxes by the record's index.
        evaluated: indices of the classes that count.
    Raises: ValueError: a key frame that occurs twice.
    """
    if len({record.index for record in records}) != len(records) or len({record.id for record in records}) != len(
        records
    ):
        raise ValueError("a key frame was judged twice")
    frames = FrameMap(tuple(index + 1 for index in evaluated)).update(
        truth=_truth_rows(records, truth), detections=_found_rows(records)
    )
    slowfast, official = frames.compute("slowfast"), frames.compute("activitynet_official")
    return DetectionResults(
        protocol=protocol,
        metrics={"map": slowfast.mean(), "map_activitynet": official.mean(), **_top1(records, truth)},
        counts=_counts(records, slowfast, len(evaluated)),
        classes=classes,
        evaluated_classes=tuple(evaluated),
        intervals={},
        samples=len(records) + len(faults),
        evaluated=len(records),
        records=tuple(records),
        faults=tuple(faults),
        truncated=tuple(record.id for record in records if record.truncated),
        per_class=tuple(
            ClassPrecision(classes[index], slowfast.truth_boxes[index + 1], slowfast.ap[index + 1])
            for index in evaluated
        ),
    )


def _top1(records: Sequence[BoxRecord], truth: Mapping[int, Sequence[TruthBox]]) -> dict[str, float]:
    """`box_top1`, the share of boxes whose best class is theirs, of annotated boxes that show one each."""
    pairs = []
    for record in records:
        boxes = truth[record.index]
        if record.boxes != tuple(box.xyxy for box in boxes) or any(len(box.labels) != 1 for box in boxes):
            return {}
        pairs += [
            (max(range(len(row)), key=row.__getitem__), box.labels[0])
            for row, box in zip(record.scores, boxes, strict=True)
        ]
    return {"box_top1": sum(found == wanted for found, wanted in pairs) / len(pairs)} if pairs else {}


def _counts(records: Sequence[BoxRecord], counts: FrameMapCounts, classes: int) -> dict[str, int]:
    return {
        "classes": classes,
        "classes_with_truth": counts.classes_with_truth,
        "key_frames": len(records),
        "key_frames_truth": counts.frames_truth,
        "key_frames_detected": counts.frames_detected,
        "key_frames_both": counts.frames_both,
        "boxes": sum(len(record.boxes) for record in records),
        "rows_truth": counts.rows_truth,
        "rows_detected": counts.rows_detected,
        "clips_read": sum(record.clips_read for record in records),
        "clips_encoded": sum(record.clips_encoded for record in records),
    }


def _truth_rows(records: Sequence[BoxRecord], truth: Mapping[int, Sequence[TruthBox]]) -> BoxRows:
    rows = [
        (frame, box.xyxy, label + 1, 1.0)
        for frame, record in enumerate(records)
        for box in truth[record.index]
        for label in box.labels
    ]
    return _rows(rows, records)


def _found_rows(records: Sequence[BoxRecord]) -> BoxRows:
    rows = [
        (frame, box, number, score)
        for frame, record in enumerate(records)
        for box, scores in zip(record.boxes, record.scores, strict=True)
        for number, score in enumerate(scores, start=1)
    ]
    return _rows(rows, records)


def _rows(rows: Sequence[tuple[int, Corners, int, float]], records: Sequence[BoxRecord]) -> BoxRows:
    frame, box, number, score = zip(*rows, strict=True) if rows else ((), (), (), ())
    return BoxRows(
        np.array(frame, dtype=np.int64),
        np.array(box, dtype=np.float64).reshape(-1, 4),
        np.array(number, dtype=np.int64),
        np.array(score, dtype=np.float64),
        tuple(record.id for record in records),
    )


def detection_rows(records: Iterable[BoxRecord], evaluated: Sequence[int]) -> str:
    """AVA's file of detections: `video,timestamp,x1,y1,x2,y2,action,score`, no header."""
    words = io.StringIO()
    writer = csv.writer(words, lineterminator="\n")
    for record in records:
        stamp = f"{record.seconds:04.0f}" if record.seconds == int(record.seconds) else f"{record.seconds:.6f}"
        for box, scores in zip(record.boxes, record.scores, strict=True):
            corners = [f"{value:g}" if f"{value:g}" == repr(value) else repr(value) for value in box]
            # Nine digits tell float32 apart: the file gives the same ranking.
            writer.writerows([record.video, stamp, *corners, k + 1, f"{scores[k]:.9g}"] for k in evaluated)
    return words.getvalue()


def write_detections(results: DetectionResults, out: Path) -> None:
    """Write `detections.csv`, `per_class.csv` and, last, `results.json`."""
    out.mkdir(parents=True, exist_ok=True)
    write_text_file(out / "detections.csv", detection_rows(results.records, results.evaluated_classes))
    words = io.StringIO()
    writer = csv.writer(words, lineterminator="\n")
    writer.writerow(["class", "boxes", "average_precision"])
    for row in results.per_class:
        writer.writerow([row.name, row.boxes, "" if math.isnan(row.value) else f"{row.value:.6f}"])
    write_text_file(out / "per_class.csv", words.getvalue())
    write_measured(results, out)
