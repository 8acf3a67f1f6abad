"""Timed actions in untrimmed videos: a table of one's own, or ActivityNet's JSON, which many sets share.

`actions.csv`: `path,label,start,end` and, if there are splits, `split`; one row an action, in seconds after the first
frame. A row with empty cells behind the path is a video in which nothing happens. JSON:
`{"database": {ID: {"subset": "training", "annotations": [{"label": "Surfing", "segment": [1.2, 3.4]}]}}}`, videos
called `v_ID` or `ID`: ActivityNet, and THUMOS14, HACS Segments, FineAction and others where they come in this form.

One sample a video, whose label is the union of its actions; what happens when are its events (`data.streams`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, csv_rows, find_file, json_content, text_lines
from wholereel.datasets.mirror import mirror_of_classes
from wholereel.datasets.rows import canonical_split
from wholereel.datasets.sample import Event, Sample
from wholereel.errors import DataError

__all__ = ["read_activitynet", "read_timed_actions"]

ROW = "path,label,start,end: the video, what happens, from when to when in seconds"
DATABASE = '{"database": {ID: {"subset": ..., "annotations": [{"label": ..., "segment": [start, end]}]}}}'


@dataclass
class _Video:
    """What a file says of one video."""

    id: str
    path: Path
    split: str | None
    actions: list[tuple[str, float, float]] = field(default_factory=list)


def read_timed_actions(root: Path, *, table: str = "actions.csv", names: str | None = None) -> Annotations:
    """Read a table of timed actions.

    Args:
        root: folder with the table (or a sub-folder with it); paths are relative to the table's folder.
        table: its name.
        names: a file with one class name a line, in the order wanted; otherwise names are sorted.
    Raises: DataError: a row that is not as described, a video in two splits, or an action that `names` does not have.
    """
    file = find_file(root, table)
    videos: dict[str, _Video] = {}
    for place, cells in csv_rows(file, ("path", "label", "start", "end"), header=True):
        text, split = cells["path"], canonical_split(cells.get("split", "")) or None
        if not text:
            raise DataError(file, f"{place} has no path", ROW)
        video = videos.setdefault(text, _Video(Path(text).with_suffix("").as_posix(), file.parent / text, split))
        if video.split != split:
            raise DataError(file, f"{place} has the split {split!r}", f"{video.split!r}, as an earlier row of {text}")
        given = [bool(cells[name]) for name in ("label", "start", "end")]
        if any(given):
            if not all(given):
                raise DataError(file, f"{place} has an action without label, start or end", ROW)
            video.actions.append((cells["label"], *_seconds(cells["start"], cells["end"], file, place)))
    listed = None if names is None else find_file(root, names)
    classes = None if listed is None else tuple(line for _, line in text_lines(listed))
    sources = (file,) if listed is None else (file, listed)
    return _annotations(videos.values(), classes, root, sources)


def read_activitynet(root: Path, *, database: str = "activity_net.v1-3.min.json") -> Annotations:
    """Read ActivityNet's JSON; subsets `training`, `validation`, `testing` are called train, val, test.

    Args:
        root: folder with the file (or a sub-folder with it), and with the videos anywhere below.
        database: its name.
    Raises: DataError: it is not of this form.
    """
    file = find_file(root, database)
    content = json_content(file)
    records = content.get("database") if isinstance(content, Mapping) else None
    if not isinstance(records, Mapping):
        raise DataError(file, "has no object 'database'", DATABASE)
    found, videos = VideoIndex(root), []
    for id, record in records.items():
        try:
            split, annotations = canonical_split(record["subset"]), record.get("annotations") or []
            path = found.find(f"v_{id}") or found.find(id) or root / f"v_{id}.mp4"
            video = _Video(id, path, split)
            for action in annotations:
                start, end = action["segment"]
                video.actions.append((str(action["label"]), *_seconds(start, end, file, f"video {id}")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(file, f"video {id} cannot be read ({type(error).__name__}: {error})", DATABASE) from error
        videos.append(video)
    return _annotations(videos, None, root, (file,))


def _seconds(start: Any, end: Any, file: Path, place: str) -> tuple[float, float]:
    try:
        times = float(start), float(end)
    except (TypeError, ValueError):
        times = math.nan, math.nan
    if not 0 <= times[0] < times[1] < math.inf:
        raise DataError(file, f"{place} has an action from {start!r} to {end!r}", "seconds, 0 <= start < end")
    return times


def _annotations(
    videos: Iterable[_Video], classes: tuple[str, ...] | None, root: Path, sources: tuple[Path, ...]
) -> Annotations:
    videos = list(videos)
    shown = {label for video in videos for label, _, _ in video.actions}
    names = tuple(sorted(shown)) if classes is None else classes
    if missing := sorted(shown - set(names)):
        raise DataError(sources[0], f"has the action {missing[0]!r}", f"one of {sources[-1].name}: {', '.join(names)}")
    place = {name: index for index, name in enumerate(names)}
    samples = [
        Sample(
            id=video.id,
            path=video.path,
            start=None,
            end=None,
            split=video.split,
            labels={"label": tuple(sorted({place[label] for label, _, _ in video.actions}))},
            events=tuple(Event(place[label], start, end) for label, start, end in video.actions),
        )
        for video in videos
    ]
    mirror = mirror_of_classes({"label": names})
    return Annotations(tuple(samples), {"label": names}, root, sources, multi_label=True, mirror=mirror)
