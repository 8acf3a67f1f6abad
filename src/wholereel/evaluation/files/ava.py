"""AVA's official files: rows of boxes, the label map, excluded key frames.

Formats (cvdfoundation/ava-dataset): `video,timestamp,x1,y1,x2,y2,action,person` for the truth, the same with a score in
the last column for detections, no header; `video,timestamp` for a key frame without boxes or an excluded one.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholereel.errors import DataError
from wholereel.metrics.frame_map import BoxRows

__all__ = ["LabelMap", "read_box_rows", "read_key_frames", "read_label_map"]

BLOCK = 65536  # rows that are Python objects at a time: they take ten times the memory of their numbers
# Kinds of the 80 actions where the label map does not say: 1-14 poses, 15-63 with objects, 64-80 between persons.
GROUPS = {"pose": range(1, 15), "object": range(15, 64), "person": range(64, 81)}
LABEL_TYPES = {"PERSON_MOVEMENT": "pose", "OBJECT_MANIPULATION": "object", "PERSON_INTERACTION": "person"}


@dataclass(frozen=True)
class LabelMap:
    """The classes that are evaluated.

    Args:
        names: by class id.
        groups: class ids by kind: `pose`, `object`, `person`; only kinds that have a class.
    """

    names: dict[int, str]
    groups: dict[str, frozenset[int]]


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map in protobuf text (`label_id` or `id`, with or without `label_type`).

    Raises: DataError: an entry without a name or an id, an id given twice, or no entry.
    """
    names: dict[int, str] = {}
    groups: dict[str, set[int]] = {}
    text = Path(path).read_text(encoding="utf-8")
    for block in re.findall(r"\{([^{}]*)\}", text):
        name = re.search(r'^\s*name:\s*(?:"([^"]*)"|\'([^\']*)\')', block, re.MULTILINE)
        number = re.search(r"^\s*(?:label_id|id):\s*(\d+)", block, re.MULTILINE)
        kind = re.search(r"^\s*label_type:\s*(\w+)", block, re.MULTILINE)
        if name is None or number is None:
            raise DataError(path, f"an entry without name or id: {' '.join(block.split())[:80]!r}", "both")
        label = int(number[1])
        if label in names:
            raise DataError(path, f"the id {label} stands there twice", "each id once")
        names[label] = name[1] if name[1] is not None else name[2]
        found = LABEL_TYPES.get(kind[1]) if kind else next((key for key, ids in GROUPS.items() if label in ids), None)
        if found is not None:
            groups.setdefault(found, set()).add(label)
    if not names:
        raise DataError(path, "no label entry", 'entries such as: item { name: "bend/bow (at the waist)" id: 1 }')
    return LabelMap(names, {key: frozenset(groups[key]) for key in GROUPS if key in groups})


def key_frame(video: str, timestamp: str) -> str:
    """Name of a key frame: the same for `902`, `0902` and `902.0`, sorting by video and time."""
    return f"{video},{float(timestamp):011.6f}"


def read_box_rows(path: str | Path, *, truth: bool) -> tuple[BoxRows, frozenset[str]]:
    """Read a file of boxes.

    Args:
        truth: the last column is a person's id and does not count; otherwise it is a score, which must be there.
    Returns: the rows, and the key frames that a two-column row declares empty.
    Raises: DataError: naming the line, a row of another width or with something else than numbers.
    """
    frames: dict[str, int] = {}
    names: dict[tuple[str, str], int] = {}
    frame_R = array("q")
    numbers: list[tuple[float, ...]] = []
    blocks: list[np.ndarray] = []
    empty: set[str] = set()
    widths = (7, 8) if truth else (8,)
    for line, row in _rows(path):
        if len(row) == 2 and truth:
            empty.add(_named(path, line, row))
            continue
        if len(row) not in widths:
            found = f"{len(row)} columns in line {line}"
            raise DataError(path, found, "video,timestamp,x1,y1,x2,y2,action," + ("person" if truth else "score"))
        place = names.get((row[0], row[1]))
        if place is None:
            place = frames.setdefault(_named(path, line, row), len(frames))
            names[row[0], row[1]] = place
        try:
            numbers.append((float(row[2]), float(row[3]), float(row[4]), float(row[5]), int(row[6]),
                            1.0 if truth else float(row[7])))  # fmt: skip
        except ValueError as error:
            raise DataError(path, f"line {line}: {error}", "numbers, and a whole number as the action") from None
        frame_R.append(place)
        if len(numbers) == BLOCK:
            blocks.append(np.array(numbers))
            numbers = []
    table_R6 = np.concatenate([*blocks, np.array(numbers, dtype=np.float64).reshape(-1, 6)])
    if not np.isfinite(table_R6).all():
        raise DataError(path, f"{int((~np.isfinite(table_R6)).any(1).sum())} rows that hold NaN or infinity", "none")
    rows = BoxRows(
        np.frombuffer(frame_R, dtype=np.int64),
        table_R6[:, :4],
        table_R6[:, 4].astype(np.int64),
        table_R6[:, 5],
        tuple(frames),
    )
    return rows, frozenset(empty)


def read_key_frames(path: str | Path) -> frozenset[str]:
    """Read `video,timestamp` lines (excluded or empty key frames).

    Raises: DataError: a line of another width.
    """
    names = set()
    for line, row in _rows(path):
        if len(row) != 2:
            raise DataError(path, f"{len(row)} columns in line {line}", "video,timestamp")
        names.add(_named(path, line, row))
    return frozenset(names)


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:
                yield reader.line_num, row


def _named(path: str | Path, line: int, row: list[str]) -> str:
    try:
        return key_frame(row[0], row[1])
    except ValueError:
        raise DataError(path, f"the time stamp {row[1]!r} in line {line}", "seconds, such as 0902") from None
