"""AVA v2.1 and v2.2: boxes of people at one key frame a second, each with several actions.

Rows `video_id,timestamp,x1,y1,x2,y2,action_id,person_id` (no header, one a person and action, corners as fractions);
detected boxes `video,timestamp,x1,y1,x2,y2,,score`; excluded timestamps `video_id,timestamp`; label map in pbtxt. Times
are seconds of the film. A sample is one key frame. Class index = action id - 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, csv_rows, find_file, has_file, text_lines
from wholereel.datasets.mirror import mirror_of_classes
from wholereel.datasets.rows import seconds_or_none
from wholereel.datasets.sample import Box, Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_ava", "read_ava_boxes", "read_detected_boxes", "read_excluded", "read_label_map"]

BEGIN, END = 900.0, 1801.0  # seconds of a film that published copies hold: 27,030 frames at 30 a second
KEYS = (902.0, 1798.0)
PICTURE_RATE = 30.0
LABEL_MAPS = {
    "v2.1": ("ava_action_list_v2.1_for_activitynet_2018.pbtxt", "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt"),
    "v2.2": ("ava_action_list_v2.2_for_activitynet_2019.pbtxt",),
}
# Time in the film at which files begin, and the part of the file that clips may not leave.
LAYOUTS: dict[str, tuple[float, float | None, float | None]] = {
    "films": (0.0, BEGIN, END),
    "segments": (BEGIN, None, None),
    "pictures": (BEGIN, None, None),
    "short": (0.0, None, None),
}

Key = tuple[str, float]  # film, second of the film


def read_ava(
    root: Path,
    *,
    version: Literal["v2.1", "v2.2"] = "v2.2",
    layout: Literal["films", "segments", "pictures", "short"] = "films",
    train_boxes: str | None = None,
    val_boxes: str | None = None,
    test_boxes: str | None = None,
    threshold: float = 0.8,
    val_step: int = 1,
) -> Annotations:
    """Read annotations and, where they are named, detected boxes; excluded timestamps are left out of both.

    Args:
        root: folder with the CSV files and the label map (or a sub-folder with them), and with the films.
        version: of the annotations.
        layout: what the files are: whole films; segments cut from second 900 to 1801; pictures, a folder
            `frames/<film>` at 30 a second from second 900 on; or short videos whose times count from their beginning
            (not AVA itself, but in its form). Key frames are seconds 902 to 1798; all of them in short videos.
        train_boxes, val_boxes, test_boxes: files of detected boxes below `root`. Their key frames are samples, too:
            evaluation has to look at key frames without annotations.
        threshold: least score of a detected box.
        val_step: 4 = keep validation seconds that can be divided by 4, the usual quick check.
    A split `test` is read where its annotations are there, as those of sets in the form of AVA; AVA's own are not
    published.
    Returns: one sample a key frame: `key_seconds` in the file; annotated boxes (no score), then detected ones; clips
        may not leave `start` to `end`. `facts["evaluated"]`: class indices of the label map.
    Raises: DataError: a row is not as published.
    """
    if val_step < 1:
        raise ConfigError(f"val_step must be at least 1, got {val_step}")
    map_file = find_file(root, *LABEL_MAPS[version])
    names = read_label_map(map_file)
    sources = [map_file]
    videos = None if layout == "pictures" else VideoIndex(root)
    boxes: dict[str, dict[Key, list[Box]]] = {}
    for split, detected in (("train", train_boxes), ("val", val_boxes), ("test", test_boxes)):
        if split == "test" and not has_file(root, f"ava_test_{version}.csv"):
            continue
        file = find_file(root, f"ava_{split}_{version}.csv")
        excluded_file = find_file(root, f"ava_{split}_excluded_timestamps_{version}.csv")
        sources += [file, excluded_file]
        found = read_ava_boxes(file)
        if detected is not None:
            detected_file = find_file(root, detected)
            sources.append(detected_file)
            for key, more in read_detected_boxes(detected_file, threshold).items():
                found.setdefault(key, []).extend(more)
        excluded = read_excluded(excluded_file)
        first, last = (0.0, math.inf) if layout == "short" else KEYS
        counting = {key for key in found if key not in excluded and first <= key[1] <= last}
        if split == "val" and val_step > 1:
            counting = {key for key in counting if key[1] % val_step == 0}
        boxes[split] = {key: found[key] for key in found if key in counting}
    paths: dict[str, Path] = {}
    for film in {film for keys in boxes.values() for film, _ in keys}:
        found_path = root / "frames" / film if videos is None else videos.find(film)
        paths[film] = found_path or root / f"{film}.mp4"
    rate = PICTURE_RATE if videos is None else None
    samples = tuple(
        _sample(key, found, split, paths[key[0]], layout, rate)
        for split, keys in boxes.items()
        for key, found in keys.items()
    )
    largest = max([*names, *(label + 1 for sample in samples for box in sample.boxes for label in box.labels)])
    classes = tuple(names.get(id, f"action {id}") for id in range(1, largest + 1))
    facts = {"evaluated": [id - 1 for id in sorted(names)]}
    mirror = mirror_of_classes({"label": classes})  # those of AVA itself know no sides
    return Annotations(samples, {"label": classes}, root, tuple(sources), multi_label=True, facts=facts, mirror=mirror)


def read_label_map(file: Path) -> dict[int, str]:
    """Names by action id, from 1; ids that are not there are not evaluated (60 of 80 are there).

    Raises: DataError: an id without a name, or none at all.
    """
    names: dict[int, str] = {}
    name: str | None = None
    for number, line in text_lines(file):
        if match := re.fullmatch(r'name:\s*"(.*)"', line):
            name = match[1]
        elif match := re.fullmatch(r"(?:label_id|id):\s*(\d+)", line):
            if name is None:
                raise DataError(file, f"line {number} has an id without a name before it", 'name: "...", then label_id')
            names[int(match[1])], name = name, None
    if not names:
        raise DataError(file, "has no classes", 'lines name: "..." and label_id: N')
    return names


def read_ava_boxes(file: Path) -> dict[Key, list[Box]]:
    """Annotated boxes by film and second, in the order of the file; the actions of one person are one box.

    `Box.seconds` counts from the beginning of the film. Raises: DataError: a row is not as published.
    """
    columns = ("video_id", "timestamp", "x1", "y1", "x2", "y2", "action_id", "person_id")
    people: dict[Key, dict[tuple[object, ...], Box]] = {}
    for place, cells in csv_rows(file, columns, header=False, least=7):
        seconds, xyxy = _place(cells, file, place)
        try:
            action = int(cells["action_id"])
            track = int(cells["person_id"]) if cells.get("person_id") else None
        except ValueError as error:
            raise DataError(file, f"{place} cannot be read ({error})", ",".join(columns)) from error
        if action < 1:
            raise DataError(file, f"{place} has the action {action}", "action ids from 1 on")
        here = people.setdefault((cells["video_id"], seconds), {})
        box = here.get((xyxy, track)) or Box(seconds, xyxy, track=track)
        here[xyxy, track] = replace(box, labels=tuple(sorted({*box.labels, action - 1})))
    return {key: list(here.values()) for key, here in people.items()}


def read_detected_boxes(file: Path, threshold: float) -> dict[Key, list[Box]]:
    """Detected boxes with at least this score, by film and second, in the order of the file.

    The column of labels is empty. Lists for training may fill it, one row an action; these are one box as above.
    Raises: DataError: a row is not as published.
    """
    columns = ("video", "timestamp", "x1", "y1", "x2", "y2", "label", "score")
    found: dict[Key, dict[tuple[object, ...], Box]] = {}
    for place, cells in csv_rows(file, columns, header=False):
        seconds, xyxy = _place(cells, file, place)
        try:
            score = float(cells["score"])
            action = int(cells["label"] or -1)  # negatives have none, or -1
        except ValueError as error:
            raise DataError(file, f"{place} cannot be read ({error})", ",".join(columns)) from error
        if score >= threshold:
            here = found.setdefault((cells["video"], seconds), {})
            box = here.get((xyxy, score)) or Box(seconds, xyxy, score=score)
            here[xyxy, score] = replace(box, labels=tuple(sorted({*box.labels, action - 1}))) if action > 0 else box
    return {key: list(here.values()) for key, here in found.items()}


def read_excluded(file: Path) -> set[Key]:
    """Film and second of the key frames that do not count."""
    return {
        (cells["video_id"], _seconds(cells["timestamp"], file, place))
        for place, cells in csv_rows(file, ("video_id", "timestamp"), header=False)
    }


def _place(cells: Mapping[str, str], file: Path, place: str) -> tuple[float, tuple[float, float, float, float]]:
    try:
        x1, y1, x2, y2 = (float(cells[name]) for name in ("x1", "y1", "x2", "y2"))
    except ValueError as error:
        raise DataError(file, f"{place} cannot be read ({error})", "corners of a box") from error
    if not all(-0.5 <= value <= 1.5 for value in (x1, y1, x2, y2)):  # detectors' boxes may end a little outside
        raise DataError(file, f"{place} has the box {x1}, {y1}, {x2}, {y2}", "fractions of width and height")
    return _seconds(cells["timestamp"], file, place), (x1, y1, x2, y2)


def _seconds(text: str, file: Path, place: str) -> float:
    seconds = seconds_or_none(text, file, place)
    if seconds is None:
        raise DataError(file, f"{place} has no timestamp", "seconds of the film, such as 0902")
    return seconds


def _sample(key: Key, boxes: Iterable[Box], split: str, path: Path, layout: str, frame_rate: float | None) -> Sample:
    film, second = key
    begin, start, end = LAYOUTS[layout]
    moved = tuple(replace(box, seconds=box.seconds - begin) for box in boxes)
    annotated = {label for box in moved if box.score is None for label in box.labels}
    return Sample(
        id=f"{film},{second:04.0f}" if second == int(second) else f"{film},{second:.6f}",
        path=path,
        start=start,
        end=end,
        split=split,
        labels={"label": tuple(sorted(annotated))},
        key_seconds=second - begin,
        boxes=moved,
        frame_rate=frame_rate,
        meta={"video": film, "second": second},
    )
