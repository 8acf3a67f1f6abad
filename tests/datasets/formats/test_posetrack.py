"""Traps: frames that count from 1 or 0, frames without people, ignored regions, 15 joints in two orders, ears."""

import json

import pytest

from wholereel.datasets.formats.posetrack import JOINTS, JOINTS_2018, read_posetrack
from wholereel.datasets.sample import Pose
from wholereel.errors import DataError


def point(id: int, x: float, y: float, **more) -> dict:
    return {"id": [id], "x": [x], "y": [y], **more}


PERSON = {
    "x1": [10], "y1": [20], "x2": [30], "y2": [45.5], "score": [0.5], "track_id": [3],
    "annopoints": [
        {"point": [point(0, 11, 90, is_visible=[1]), point(14, 20, 21.5, is_visible=[0]), point(13, 22, 30)]}
    ],
}  # fmt: skip
REGION = {"point": [point(0, 1, 2), point(1, 5, 2), point(2, 5, 9)]}
YEAR_2017 = {
    "annolist": [
        {"image": [{"name": "images/bonn_5sec/000342_mpii/00000001.jpg"}], "imgnum": [1], "is_labeled": [0],
         "ignore_regions": [], "annorect": []},
        {"image": [{"name": "images/bonn_5sec/000342_mpii/00000002.jpg"}], "imgnum": [2], "is_labeled": [1],
         "ignore_regions": [REGION], "annorect": [PERSON, {"track_id": [4], "annopoints": []}]},
        {"image": [{"name": "images/bonn_5sec/000342_mpii/00000003.jpg"}], "imgnum": [3], "is_labeled": [1],
         "annorect": []},
    ]
}  # fmt: skip


def keypoints(**joints: tuple[float, float]) -> list[float]:
    return [value for name in JOINTS_2018 for value in ((*joints[name], 1) if name in joints else (0, 0, 0))]


YEAR_2018 = {
    "images": [
        {"id": 10003420000, "file_name": "images/val/000342_mpii_test/000000.jpg", "frame_id": 10003420000,
         "vid_id": "000342", "is_labeled": True, "nframes": 2,
         "ignore_regions_x": [[1, 5, 5]], "ignore_regions_y": [[2, 2, 9]]},
        {"id": 10003420001, "file_name": "images/val/000342_mpii_test/000001.jpg", "is_labeled": False},
    ],
    "annotations": [
        {"image_id": 10003420000, "track_id": 0, "bbox": [5, 10, 40, 90], "bbox_head": [10, 20, 20, 25.5],
         "keypoints": keypoints(nose=(22, 30), right_ankle=(11, 90), head_top=(20, 21.5)), "category_id": 1},
    ],
    "categories": [{"name": "person", "keypoints": list(JOINTS_2018)}],
}  # fmt: skip


def written(root, split, name, content, folder="annotations"):
    (root / folder / split).mkdir(parents=True, exist_ok=True)
    (root / folder / split / name).write_text(json.dumps(content))
    return root


def test_2017(tmp_path):
    found = read_posetrack(written(tmp_path, "train", "000342_mpii.json", YEAR_2017))
    (video,) = found.samples
    assert (video.id, video.split, video.frame_rate) == ("000342_mpii", "train", 25.0)
    assert video.path == tmp_path / "images/bonn_5sec/000342_mpii"
    joints = [None] * 15
    joints[0], joints[13], joints[14] = (11.0, 90.0, 1.0), (22.0, 30.0, 1.0), (20.0, 21.5, 0.0)
    assert video.poses == (
        Pose(1, tuple(joints), head=(10.0, 20.0, 30.0, 45.5), track=3, score=0.5),
        Pose(1, (None,) * 15, track=4),
    )
    assert video.meta == {"labelled": [1, 2], "ignored": {"1": [[[1.0, 2.0], [5.0, 2.0], [5.0, 9.0]]]}}
    assert found.classes == {}


def test_2018(tmp_path):
    (video,) = read_posetrack(written(tmp_path, "val", "a.json", YEAR_2018, "posetrack_data"), frame_rate=30.0).samples
    assert video.path == tmp_path / "images/val/000342_mpii_test"
    joints = [None] * 15
    joints[JOINTS.index("right_ankle")] = (11.0, 90.0, 1.0)
    joints[JOINTS.index("nose")] = (22.0, 30.0, 1.0)
    joints[JOINTS.index("head_top")] = (20.0, 21.5, 1.0)
    assert (JOINTS.index("right_ankle"), JOINTS.index("nose"), JOINTS.index("head_top")) == (0, 13, 14)
    assert video.poses == (Pose(0, tuple(joints), (10.0, 20.0, 30.0, 45.5), (5.0, 10.0, 45.0, 100.0), track=0),)
    assert video.meta == {"labelled": [0], "ignored": {"0": [[[1.0, 2.0], [5.0, 2.0], [5.0, 9.0]]]}}
    assert video.frame_rate == 30.0


def test_the_two_orders_have_the_same_joints_but_for_the_ears():
    assert set(JOINTS_2018) - set(JOINTS) == {"left_ear", "right_ear"}
    assert len(JOINTS) == len(set(JOINTS)) == 15


def test_what_is_not_as_published_is_named(tmp_path):
    with pytest.raises(DataError, match=r"does not hold annotations/\{train,val\}/\*\.json"):
        read_posetrack(tmp_path)
    with pytest.raises(DataError, match=r"a\.json: cannot be read \(KeyError: 'images'\), expected PoseTrack"):
        read_posetrack(written(tmp_path, "train", "a.json", {}))
