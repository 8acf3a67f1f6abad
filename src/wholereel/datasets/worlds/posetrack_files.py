"""PoseTrack's two file formats, written from exact figures: 2017 (one `annolist` a video) and 2018 (COCO layout).

Not here: reading them (`datasets/formats`). Joint names of 2018 are in another order, with two ears that nobody
annotates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from wholereel.datasets.formats.posetrack import JOINTS_2018
from wholereel.datasets.worlds.skeleton import ENDS, JOINTS, Figure, head_box, joints_of, person_box

__all__ = ["annotations_2017", "annotations_2018", "visible_joints"]

# The skeleton that PoseTrack's own files list: joined slots, counted from 1.
BONES_2018 = [
    [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
    [2, 3], [1, 2], [1, 3], [1, 4], [1, 5], [2, 6], [2, 7],
]  # fmt: skip


def visible_joints(figure: Figure) -> np.ndarray:
    """Which joints are not covered, in the order of `JOINTS`. Returns: visible_TJ, bool."""
    visible_TJ = np.ones((len(figure.covered), len(JOINTS)), bool)
    visible_TJ[:, [JOINTS.index(name) for name in ENDS]] = ~np.asarray(figure.covered)
    return visible_TJ


def annotations_2017(
    figures: Sequence[Figure], names: Sequence[str], labelled: Collection[int]
) -> dict[str, list[dict[str, Any]]]:
    """The content of a file of 2017.

    Args:
        names: path of each frame's picture, as the file shall name it.
        labelled: indices of frames that carry annotations; the others are listed without.
    """
    places, visible = [joints_of(f) for f in figures], [visible_joints(f) for f in figures]
    entries = []
    for frame, name in enumerate(names):
        people = [] if frame not in labelled else [
            _person_2017(track, figure.head, place_TJ2[frame], visible_TJ[frame])
            for track, (figure, place_TJ2, visible_TJ) in enumerate(zip(figures, places, visible, strict=True))
        ]  # fmt: skip
        entries.append(
            {
                "image": [{"name": name}],
                "imgnum": [frame + 1],
                "is_labeled": [int(frame in labelled)],
                "ignore_regions": [],
                "annorect": people,
            }
        )
    return {"annolist": entries}


def _person_2017(track: int, head: float, place_J2: np.ndarray, visible_J: np.ndarray) -> dict[str, Any]:
    points = [
        {"id": [joint], "x": [_pixel(x)], "y": [_pixel(y)], "is_visible": [int(visible_J[joint])]}
        for joint, (x, y) in enumerate(place_J2)
    ]
    corners = zip(("x1", "y1", "x2", "y2"), head_box(place_J2, head), strict=True)
    return {key: [_pixel(at)] for key, at in corners} | {"track_id": [track], "annopoints": [{"point": points}]}


def annotations_2018(
    figures: Sequence[Figure], names: Sequence[str], labelled: Collection[int], *, video: int, size: int
) -> dict[str, list[dict[str, Any]]]:
    """The content of a file of 2018; arguments as in `annotations_2017`, and the video's number and its canvas."""
    places = [joints_of(figure) for figure in figures]
    images = [
        {
            "id": _image_id(video, frame),
            "file_name": name,
            "vid_id": f"{video:06d}",
            "frame_id": _image_id(video, frame),
            "is_labeled": frame in labelled,
            "nframes": len(names),
            "width": size,
            "height": size,
        }
        for frame, name in enumerate(names)
    ]
    people = [
        _person_2018(video, frame, track, figure.head, place_TJ2[frame])
        for frame in sorted(labelled)
        for track, (figure, place_TJ2) in enumerate(zip(figures, places, strict=True))
    ]
    category = {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(JOINTS_2018),
        "skeleton": BONES_2018,
    }
    return {"images": images, "annotations": people, "categories": [category]}


def _person_2018(video: int, frame: int, track: int, head: float, place_J2: np.ndarray) -> dict[str, Any]:
    keypoints: list[float] = []
    for name in JOINTS_2018:
        # The third number says whether the joint was annotated, not whether it can be seen. Ears never are.
        keypoints += [*map(_pixel, place_J2[JOINTS.index(name)]), 1] if name in JOINTS else [0, 0, 0]
    return {
        "id": _image_id(video, frame) * 100 + track,
        "image_id": _image_id(video, frame),
        "category_id": 1,
        "track_id": track,
        "keypoints": keypoints,
        "scores": [],
        "bbox": _corner_and_size(person_box(place_J2, head)),
        "bbox_head": _corner_and_size(head_box(place_J2, head)),
    }


def _image_id(video: int, frame: int) -> int:
    """PoseTrack's rule: 1, the video's number in six digits, the frame's in four."""
    return 10_000_000_000 + video * 10_000 + frame


def _corner_and_size(box: tuple[float, float, float, float]) -> list[float]:
    left, top, right, bottom = box
    return [_pixel(left), _pixel(top), _pixel(right - left), _pixel(bottom - top)]


def _pixel(value: float) -> float:
    return round(float(value), 3)
