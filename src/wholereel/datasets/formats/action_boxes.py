"""Boxes with actions of one's own videos: a table in AVA's columns and, for splits, one of the videos.

`boxes.csv`: `video_id,timestamp,x1,y1,x2,y2,action_id,person_id`, with or without header, one row a person and action;
timestamps are seconds after the first frame, corners fractions of the picture, actions count from 1. `annotations.csv`
(may be missing): `path` and `split`, and `label` where a video shows one action, which then names its action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.ava import Key, read_ava_boxes, read_label_map
from wholereel.datasets.formats.files import VideoIndex, csv_rows, find_file, has_file
from wholereel.datasets.mirror import mirror_of_classes
from wholereel.datasets.sample import Box, Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_action_boxes"]

VIDEOS = "annotations.csv"


def read_action_boxes(
    root: Path,
    *,
    boxes: str = "boxes.csv",
    names: str | None = None,
    step: int = 1,
) -> Annotations:
    """Read boxes of one's own videos.

    Args:
        root: folder with the tables (or a sub-folder with them), and with the videos.
        boxes: the table of boxes.
        names: a label map (`.pbtxt`) with the actions' names.
        step: keep every so many-th key frame of a video, from the middle of the first `step` on; of a shorter one the
            frame in the middle. For tables with a row a frame.
    Returns: one sample a key frame; without `annotations.csv` of split `train`.
    Raises: ConfigError: a step below 1. DataError: a row that is not as described, no row at all, or a video without
        split.
    """
    if step < 1:
        raise ConfigError(f"step must be at least 1, got {step}")
    file = find_file(root, boxes)
    found = read_ava_boxes(file)
    if not found:
        raise DataError(file, "has no boxes", "one row for each person and action")
    videos, sources = VideoIndex(root), [file]
    table: dict[str, tuple[str, str]] = {}
    if has_file(root, VIDEOS):
        sources.append(find_file(root, VIDEOS))
        table = _videos(sources[-1])
    ids = read_label_map(find_file(root, names)) if names is not None else _names(found, table)
    largest = max([*ids, *(label + 1 for here in found.values() for box in here for label in box.labels)])
    by_video: dict[str, list[float]] = {}
    for video, second in found:
        by_video.setdefault(video, []).append(second)
    samples = []
    for video, seconds in by_video.items():
        if table and video not in table:
            raise DataError(file, f"has boxes of {video!r}", f"a video that {VIDEOS} lists, with its split")
        path = videos.find(video) or root / f"{video}.mp4"
        split = table[video][0] if table else "train"
        samples += [_sample(video, second, found[video, second], path, split) for second in _kept(seconds, step)]
    classes = tuple(ids.get(number, f"action {number}") for number in range(1, largest + 1))
    mirror = mirror_of_classes({"label": classes})
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), multi_label=True, mirror=mirror)


def _kept(seconds: Iterable[float], step: int) -> list[float]:
    ordered = sorted(seconds)
    return ordered[step // 2 :: step] or [ordered[len(ordered) // 2]]


def _videos(file: Path) -> dict[str, tuple[str, str]]:
    """Split and label (or nothing) by the stem of the video."""
    rows = {}
    for place, cells in csv_rows(file, ("path", "split"), header=True):
        if not cells["split"]:
            raise DataError(file, f"{place} has no split", "train, val or test")
        rows[Path(cells["path"]).stem] = (cells["split"], cells.get("label") or "")
    return rows


def _names(found: Mapping[Key, list[Box]], table: Mapping[str, tuple[str, str]]) -> dict[int, str]:
    """Names of the actions that are the only ones of videos with a label, where those agree."""
    shown: dict[str, set[int]] = {}
    for (video, _), boxes in found.items():
        shown.setdefault(video, set()).update(label + 1 for box in boxes for label in box.labels)
    names: dict[int, set[str]] = {}
    for video, numbers in shown.items():
        label = table.get(video, ("", ""))[1]
        if len(numbers) == 1 and label:
            names.setdefault(next(iter(numbers)), set()).add(label)
    return {number: next(iter(labels)) for number, labels in names.items() if len(labels) == 1}


def _sample(video: str, second: float, boxes: list[Box], path: Path, split: str) -> Sample:
    shown = sorted({label for box in boxes for label in box.labels})
    return Sample(
        id=f"{video},{second:04.0f}" if second == int(second) else f"{video},{second:.6f}",
        path=path,
        start=None,
        end=None,
        split=split,
        labels={"label": tuple(shown)},
        key_seconds=second,
        boxes=tuple(boxes),
        meta={"video": video, "second": second},
    )
