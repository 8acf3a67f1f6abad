"""The JSON form of what a sample may carry beside its labels: key time, boxes, events, poses, rate and meta.

Keys of a line: `key_seconds`, `boxes` (list of `{"seconds", "xyxy", "labels", "track", "score"}`), `events` (list of
`[class index, start, end]`), `poses` (list of `{"frame", "joints", "head", "box", "track", "score"}`), `frame_rate`,
`meta`. What is empty is left out. Labels of boxes and events are class indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from wholereel.datasets.sample import Box, Event, Pose, Sample
from wholereel.errors import DataError

__all__ = ["PARTS", "parts_of_record", "parts_of_sample"]


def parts_of_sample(sample: Sample) -> dict[str, Any]:
    """What a sample carries, ready for JSON; empty things are left out."""
    parts: dict[str, Any] = {}
    if sample.key_seconds is not None:
        parts["key_seconds"] = sample.key_seconds
    if sample.boxes:
        parts["boxes"] = [_filled(box) for box in sample.boxes]
    if sample.events:
        parts["events"] = [[event.label, event.start, event.end] for event in sample.events]
    if sample.poses:
        parts["poses"] = [_filled(pose) for pose in sample.poses]
    if sample.frame_rate is not None:
        parts["frame_rate"] = sample.frame_rate
    if sample.meta:
        parts["meta"] = dict(sample.meta)
    return parts


def parts_of_record(record: Mapping[str, Any], file: Path, place: str) -> dict[str, Any]:
    """Keyword arguments of `Sample` from a record of a table.

    Raises: DataError: a value is not as written by `parts_of_sample`.
    """
    parts = {}
    for name, read in PARTS.items():
        value = record.get(name)
        if value is None or value == "":
            continue
        try:
            parts[name] = read(value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(file, f"{place}: {name} cannot be read ({error})", f"{name} as {FORMS[name]}") from error
    return parts


def _filled(part: Box | Pose) -> dict[str, Any]:
    """Fields that are set; floats stay exact."""
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _boxes(value: Any) -> tuple[Box, ...]:
    return tuple(
        Box(
            seconds=_time(box["seconds"]),
            xyxy=_corners(box["xyxy"]),
            labels=tuple(sorted(_index(label) for label in box.get("labels") or ())),
            track=_integer(box.get("track")),
            score=_number(box.get("score")),
        )
        for box in value
    )


def _events(value: Any) -> tuple[Event, ...]:
    return tuple(Event(_index(label), float(start), float(end)) for label, start, end in value)


def _poses(value: Any) -> tuple[Pose, ...]:
    return tuple(
        Pose(
            frame=_index(pose["frame"]),
            joints=tuple(None if joint is None else _joint(joint) for joint in pose["joints"]),
            head=None if pose.get("head") is None else _corners(pose["head"]),
            box=None if pose.get("box") is None else _corners(pose["box"]),
            track=_integer(pose.get("track")),
            score=_number(pose.get("score")),
        )
        for pose in value
    )


def _joint(value: Any) -> tuple[float, float, float]:
    x, y, visible = map(float, value)
    return x, y, visible


def _corners(value: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, value)
    return left, top, right, bottom


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not an index")
    return value


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _time(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{value!r} is not a time")
    return seconds


def _rate(value: Any) -> float | None:
    rate = float(value)
    if math.isnan(rate):
        return None  # how tables of numbers write an empty cell
    if not 0 < rate < math.inf:
        raise ValueError(f"{value!r} is not a rate")
    return rate


def _meta(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} is not an object")
    return dict(value)


PARTS: dict[str, Callable[[Any], Any]] = {
    "key_seconds": _time,
    "boxes": _boxes,
    "events": _events,
    "poses": _poses,
    "frame_rate": _rate,
    "meta": _meta,
}
FORMS = {
    "key_seconds": "seconds after the first frame",
    "boxes": 'a list of {"seconds": 902.0, "xyxy": [0.1, 0.2, 0.5, 0.9], "labels": [11]}',
    "events": "a list of [class index, start, end] in seconds",
    "poses": 'a list of {"frame": 7, "joints": [[x, y, visible], null, ...]}',
    "frame_rate": "pictures per second, above 0",
    "meta": "an object",
}
