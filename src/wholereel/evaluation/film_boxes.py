"""What people do in a film whose boxes are in a table, without annotations: a file of detections as AVA has them.

Not here: data sets (`key_frames.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from wholereel.config import Views
from wholereel.datasets.formats.ava import read_detected_boxes
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.key_frame_results import BoxRecord, detection_rows
from wholereel.evaluation.key_frames import predict_key_frames
from wholereel.models.package import Package

__all__ = ["FilmDetections", "detect_in_film"]


@dataclass(frozen=True)
class FilmDetections:
    """Scores of all boxes of a film.

    Args:
        path: the film. classes: K names.
        records: one a key frame, in order of time.
        unread: ids and reasons of key frames that could not be judged.
    """

    path: str
    classes: tuple[str, ...]
    records: tuple[BoxRecord, ...]
    unread: tuple[tuple[str, str], ...]

    def csv(self) -> str:
        """AVA's file of detections."""
        return detection_rows(self.records, range(len(self.classes)))

    def to_json(self) -> str:
        """One line: key frames with their boxes and scores by class."""
        frames = [
            {
                "seconds": record.seconds,
                "boxes": [
                    {"xyxy": list(box), "scores": dict(zip(self.classes, (round(s, 6) for s in scores), strict=True))}
                    for box, scores in zip(record.boxes, record.scores, strict=True)
                ],
            }
            for record in self.records
        ]
        unread = [{"id": name, "reason": reason} for name, reason in self.unread]
        return json.dumps({"video": self.path, "key_frames": frames, "unread": unread}, ensure_ascii=False)


def detect_in_film(
    package: Package,
    film: str | Path,
    boxes: str | Path,
    *,
    views: Views | None = None,
    threshold: float = 0.0,
    device: torch.device | str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> FilmDetections:
    """Judge the boxes of a table in a film.

    Args:
        package: of a detector.
        film: the file.
        boxes: `video,timestamp,x1,y1,x2,y2,,score` (AVA's file of detected boxes): times are seconds of this file,
            `video` is its name without suffix.
        views: windows and short side; the package's where `None`.
        threshold: least score of a box.
        precision: "bf16" computes the clip model under autocast.
    Raises: ConfigError: a model that judges clips. DataError: a table that cannot be read, or has no box of this film.
    """
    film, boxes = Path(film), Path(boxes)
    if package.task.kind != "detect":
        raise ConfigError(f"this model was trained for task.kind={package.task.kind!r}: it does not judge boxes")
    found = read_detected_boxes(boxes, threshold)
    mine = {second: rows for (video, second), rows in found.items() if video == film.stem}
    if not mine:
        others = sorted({video for video, _ in found})
        raise DataError(
            boxes,
            f"has no box of {film.stem!r}, but of {', '.join(others[:5]) or 'no film at all'}",
            "the film's name without suffix in the first column",
        )
    samples: Sequence[Sample] = [
        Sample(
            f"{film.stem},{second:g}",
            film,
            None,
            None,
            None,
            {},
            key_seconds=second,
            boxes=tuple(rows),
            meta={"video": film.stem, "second": second},
        )
        for second, rows in sorted(mine.items())
    ]
    views = views or Views(clips=package.clips, short_side=package.short_side, crop=package.crop)
    records, faults = predict_key_frames(package, samples, views, detected=True, device=device, precision=precision)
    if not records:
        raise DataError(film, f"no key frame could be judged; the first: {faults[0].reason}")
    unread = tuple((fault.id, fault.reason) for fault in faults)
    return FilmDetections(str(film), package.classes, tuple(records), unread)
