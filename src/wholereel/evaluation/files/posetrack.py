"""PoseTrack's files, as frames of persons: the 2017 layout (`annolist`) and the 2018 one (COCO-like).

Source of the conversion: leonid-pishchulin/poseval (`convert.py`, `eval_helpers.py`). J: the 15 joints of `JOINTS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.errors import DataError
from wholereel.metrics.pose_tracks import JOINTS, NO_SCORE, Persons, PoseFrame

__all__ = ["pose_frames", "read_pose_sequences"]

# the 2018 files call the neck head_bottom
NAMES_2018 = {("head_bottom" if name == "neck" else name): place for place, name in enumerate(JOINTS)}


@dataclass(frozen=True)
class _Person:
    joint_J2: np.ndarray
    score_J: np.ndarray
    head: tuple[float, float, float, float] | None
    track: int | None
    listed: bool  # it has a list of points, be it empty


@dataclass(frozen=True)
class _Frame:
    name: str
    persons: list[_Person]
    ignored: tuple[np.ndarray, ...]


def read_pose_sequences(truth: str | Path, predictions: str | Path) -> dict[str, list[PoseFrame]]:
    """Read a folder of ground truth and one of predictions, a JSON file a sequence, named alike on both sides.

    Single files stand for a folder of one. Raises: DataError: a file without its counterpart, or one that
    `pose_frames` refuses.
    """
    files = sorted(Path(truth).glob("*.json")) if Path(truth).is_dir() else [Path(truth)]
    if not files:
        raise DataError(truth, "no .json file", "one file a sequence")
    sequences = {}
    for file in files:
        other = Path(predictions) / file.name if Path(predictions).is_dir() else Path(predictions)
        if not other.is_file():
            raise DataError(other, "no such file", f"the predictions for {file}", "Every sequence needs predictions.")
        sequences[file.stem] = pose_frames(_load(file), _load(other), where=str(file), other=str(other))
    return sequences


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error


def pose_frames(
    truth: Mapping[str, Any], predictions: Mapping[str, Any], *, where: str = "truth", other: str = "predictions"
) -> list[PoseFrame]:
    """Frames of one sequence that have a list of true persons; frames of both files go by their place.

    Args:
        truth, predictions: content of the files, in either layout. where, other: their names, for errors.
    Raises: DataError: another number or order of frames, an unknown layout, no head box, an identity twice in a frame.
    """
    true, claimed = _frames(truth, where), _frames(predictions, other)
    if len(true) != len(claimed):
        raise DataError(other, f"{len(claimed)} frames", f"the {len(true)} frames of {where}")
    names = [frame.name for frame in true]
    theirs_by_name = [frame.name for frame in claimed]
    if names != theirs_by_name and sorted(names) == sorted(theirs_by_name):
        raise DataError(other, f"the frames of {where} in another order", "the same order; frames go by their place")
    frames = []
    for place, (ours, theirs) in enumerate(zip(true, claimed, strict=True)):
        if ours.persons:
            sides = _persons(ours, where, place, heads=True), _persons(theirs, other, place, heads=False)
            frames.append(PoseFrame(*sides, ours.ignored))
    return frames


def _persons(frame: _Frame, where: str, place: int, *, heads: bool) -> Persons:
    persons = [person for person in frame.persons if person.listed]
    tracks = [person.track for person in persons]
    known = [track for track in tracks if track is not None]
    if len(set(known)) != len(known):
        raise DataError(where, f"frame {place} has a track_id twice ({sorted(known)})", "each once in a frame")
    if heads and any(person.head is None for person in persons):
        raise DataError(where, f"a person of frame {place} has no head box", "a head box for every person")
    count = len(persons)
    return Persons(
        np.array([person.joint_J2 for person in persons]).reshape(count, len(JOINTS), 2),
        np.array([person.score_J for person in persons]).reshape(count, len(JOINTS)),
        np.array([person.head or (np.nan,) * 4 for person in persons]).reshape(count, 4),
        np.array(known, dtype=np.int64) if len(known) == count else None,
    )


def _frames(data: Mapping[str, Any], where: str) -> list[_Frame]:
    try:
        if "annolist" in data:
            return [_frame_2017(image) for image in data["annolist"]]
        if "images" in data and "annotations" in data:
            return _frames_2018(data)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            where, f"{type(error).__name__} on reading it ({error})", "a PoseTrack 2017 or 2018 file"
        ) from error
    raise DataError(where, "neither 'annolist' nor 'images' and 'annotations'", "a PoseTrack 2017 or 2018 file")


def _frame_2017(image: Mapping[str, Any]) -> _Frame:
    regions = image.get("ignore_regions") or []
    polygons = [np.array([(point["x"][0], point["y"][0]) for point in region["point"]]) for region in regions]
    persons = [_person_2017(rect) for rect in image.get("annorect") or []]
    return _Frame(str(image.get("image", "")), persons, tuple(polygons))


def _person_2017(rect: Mapping[str, Any]) -> _Person:
    joint_J2, score_J = _no_joints()
    lists = rect.get("annopoints") or []
    listed = bool(lists) and bool(lists[0]) and "point" in lists[0]
    for point in reversed(lists[0]["point"] if listed else []):  # of several points with one id the first counts
        joint = point["id"][0] if point.get("id") else None
        if joint is not None and 0 <= joint < len(JOINTS):
            joint_J2[joint] = point["x"][0], point["y"][0]
            score_J[joint] = point["score"][0] if point.get("score") else NO_SCORE
    head = (rect["x1"][0], rect["y1"][0], rect["x2"][0], rect["y2"][0]) if rect.get("x1") else None
    return _Person(joint_J2, score_J, head, rect["track_id"][0] if rect.get("track_id") else None, listed)


def _frames_2018(data: Mapping[str, Any]) -> list[_Frame]:
    names = data["categories"][0]["keypoints"]
    missing = [name for name in NAMES_2018 if name not in names]
    if missing:
        raise ValueError(f"key points without {', '.join(missing)}")
    persons: dict[int, list[_Person]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        if annotation["image_id"] in persons:
            persons[annotation["image_id"]].append(_person_2018(annotation, names))
    return [
        _Frame(str(image.get("file_name", "")), persons[image["id"]], _regions_2018(image)) for image in data["images"]
    ]


def _regions_2018(image: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    columns, rows = image.get("ignore_regions_x") or [], image.get("ignore_regions_y") or []
    if columns and not isinstance(columns[0], Sequence):  # one region is sometimes written without the outer list
        columns, rows = [columns], [rows]
    return tuple(np.column_stack([x, y]) for x, y in zip(columns, rows, strict=True) if len(x))


def _person_2018(annotation: Mapping[str, Any], names: Sequence[str]) -> _Person:
    joint_J2, score_J = _no_joints()
    scores = annotation.get("scores") or []
    points = np.array(annotation["keypoints"], dtype=np.float64).reshape(len(names), 3)
    for slot, name in enumerate(names):
        x, y, visible = points[slot]
        if name in NAMES_2018 and not (x == 0 and y == 0 and visible == 0):
            joint_J2[NAMES_2018[name]] = x, y
            score_J[NAMES_2018[name]] = scores[slot] if scores else NO_SCORE
    head = annotation.get("bbox_head")
    corners = (head[0], head[1], head[0] + head[2], head[1] + head[3]) if head else None
    return _Person(joint_J2, score_J, corners, annotation.get("track_id"), True)


def _no_joints() -> tuple[np.ndarray, np.ndarray]:
    return np.full((len(JOINTS), 2), np.nan), np.full(len(JOINTS), NO_SCORE)
