"""PoseTrack 2017 (`annolist`) and 2018 (COCO with 17 slots): joints of people over time, one JSON file a video.

J joints, in the order of 2017: 0 right ankle, 1 right knee, 2 right hip, 3 left hip, 4 left knee, 5 left ankle, 6 right
wrist, 7 right elbow, 8 right shoulder, 9 left shoulder, 10 left elbow, 11 left wrist, 12 neck, 13 nose, 14 head top.
A sample is a video: a folder of pictures. `meta["labelled"]`: frames with annotations (also those without people);
`meta["ignored"]`: polygons `[[x, y], ...]` by frame, in which nothing counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import json_content
from wholereel.datasets.mirror import Mirror, mirror_of_joints
from wholereel.datasets.rows import canonical_split, is_known_split
from wholereel.datasets.sample import Pose, Sample
from wholereel.errors import DataError

__all__ = ["JOINTS", "read_posetrack", "read_posetrack_video"]

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "head_bottom", "nose", "head_top",
)  # fmt: skip
JOINTS_2018 = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
FOLDERS = ("annotations", "posetrack_data")
SLOTS = tuple(JOINTS_2018.index(name) for name in JOINTS)  # ears are never annotated

Corners = tuple[float, float, float, float]


def read_posetrack(root: Path, *, frame_rate: float = 25.0) -> Annotations:
    """Read `annotations/{train,val,test}/*.json` (or `posetrack_data/...`) of either year.

    Args:
        root: folder with the annotations and with the pictures that the files name.
        frame_rate: pictures per second, which the files do not tell.
    Raises: DataError: a file is not as published, or there is none.
    """
    parts = [path for name in FOLDERS for path in sorted((root / name).glob("*")) if path.is_dir()]
    folders = [path for path in parts if is_known_split(path.name)]
    files = [(file, canonical_split(folder.name)) for folder in folders for file in sorted(folder.glob("*.json"))]
    if not files:
        raise DataError(root, "does not hold annotations/{train,val}/*.json", "the official files there")
    samples = tuple(read_posetrack_video(file, root, frame_rate, split=split) for file, split in files)
    sources, mirror = tuple(file for file, _ in files), Mirror(joints=mirror_of_joints(JOINTS))
    return Annotations(samples, {}, root, sources, facts={"joints": list(JOINTS)}, mirror=mirror)


def read_posetrack_video(file: Path, root: Path, frame_rate: float, *, split: str | None = None) -> Sample:
    """One file of either year as a sample; all else as in `read_posetrack`."""
    content = json_content(file)
    try:
        if "annolist" in content:
            names, poses, labelled, ignored = _video_2017(content["annolist"])
        else:
            names, poses, labelled, ignored = _video_2018(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            file, f"cannot be read ({type(error).__name__}: {error})", "PoseTrack annotations of 2017 or 2018"
        ) from error
    folders = {Path(name).parent.as_posix() for name in names}
    if len(folders) != 1:
        raise DataError(file, f"names pictures in {len(folders)} folders", "those of one video")
    meta = {"labelled": labelled, "ignored": ignored}
    return Sample(
        file.stem, root / folders.pop(), None, None, split, {}, poses=tuple(poses), frame_rate=frame_rate, meta=meta
    )


Video = tuple[list[str], list[Pose], list[int], dict[str, Any]]


def _video_2017(entries: Sequence[Mapping[str, Any]]) -> Video:
    names = [entry["image"][0]["name"] for entry in entries]
    numbers = _frames(names)
    poses: list[Pose] = []
    labelled, ignored = [], {}
    for name, entry in zip(names, entries, strict=True):
        frame = numbers[name]
        people = entry.get("annorect") or []
        if (entry.get("is_labeled") or [bool(people)])[0]:
            labelled.append(frame)
        polygons = [[[float(p["x"][0]), float(p["y"][0])] for p in region["point"]]
                    for region in entry.get("ignore_regions") or []]  # fmt: skip
        if polygons:
            ignored[str(frame)] = polygons
        for person in people:
            points = {}
            for annotated in person.get("annopoints") or []:
                for point in annotated["point"]:
                    visible = (point.get("is_visible") or [1])[0]
                    points[int(point["id"][0])] = (float(point["x"][0]), float(point["y"][0]), float(visible))
            score = person.get("score") or [None]
            head = tuple(float(person[side][0]) for side in ("x1", "y1", "x2", "y2")) if "x1" in person else None
            track = person.get("track_id") or [None]
            joints = tuple(points.get(joint) for joint in range(len(JOINTS)))
            poses.append(Pose(frame, joints, _corners(head), None, track[0], score[0]))
    return names, poses, labelled, ignored


def _video_2018(content: Mapping[str, Any]) -> Video:
    images = content["images"]
    names = [image["file_name"] for image in images]
    numbers = _frames(names)
    frames = {image["id"]: numbers[name] for image, name in zip(images, names, strict=True)}
    labelled, ignored = [], {}
    annotated = {person["image_id"] for person in content.get("annotations") or []}
    for image in images:
        frame = frames[image["id"]]
        if image.get("is_labeled", image["id"] in annotated):
            labelled.append(frame)
        xs, ys = image.get("ignore_regions_x") or [], image.get("ignore_regions_y") or []
        polygons = [[[float(x), float(y)] for x, y in zip(*region, strict=True)] for region in zip(xs, ys, strict=True)]
        if polygons:
            ignored[str(frame)] = polygons
    poses = []
    for person in content.get("annotations") or []:
        values = [float(value) for value in person["keypoints"]]
        triples = [tuple(values[3 * slot : 3 * slot + 3]) for slot in SLOTS]
        # any flag above 0 says that the joint was annotated; it is not COCO's "visible"
        joints = tuple((x, y, 1.0) if flag > 0 else None for x, y, flag in triples)
        head, box = (_corners_of_size(person.get(name)) for name in ("bbox_head", "bbox"))
        score = person.get("score")
        poses.append(Pose(frames[person["image_id"]], joints, head, box, person.get("track_id"), score))
    order = sorted(range(len(poses)), key=lambda index: poses[index].frame)
    return names, [poses[index] for index in order], labelled, ignored


def _frames(names: Sequence[str]) -> dict[str, int]:
    """Frame of each picture: its number minus the smallest one (2017 counts from 1, 2018 from 0)."""
    numbers = {}
    for name in names:
        found = re.search(r"\d+$", Path(name).stem)
        if found is None:
            raise ValueError(f"picture {name!r} has no number")
        numbers[name] = int(found[0])
    first = min(numbers.values(), default=0)
    return {name: number - first for name, number in numbers.items()}


def _corners(values: Sequence[float] | None) -> Corners | None:
    if values is None:
        return None
    left, top, right, bottom = map(float, values)
    return left, top, right, bottom


def _corners_of_size(values: Sequence[float] | None) -> Corners | None:
    """Corners of a box that is given as left, top, width, height."""
    if not values:
        return None
    left, top, width, height = map(float, values)
    return left, top, left + width, top + height
