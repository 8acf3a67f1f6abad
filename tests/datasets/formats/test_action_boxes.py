"""Traps: a row a frame, videos shorter than a step, actions named by videos that show one alone, missing tables."""

import pytest

from tests.datasets.formats.folders import folder
from wholereel.datasets.formats.action_boxes import read_action_boxes
from wholereel.datasets.sample import Box
from wholereel.errors import ConfigError, DataError

BOXES = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id\n" + "".join(
    f"jump_0,{frame / 30:.4f},0.1,0.2,0.3,0.9,1,0\njump_0,{frame / 30:.4f},0.5,0.2,0.7,0.9,3,1\n" for frame in range(10)
)
BOXES += "run_1,0.5,0.1,0.1,0.2,0.2,3,0\nrun_1,1,0.1,0.1,0.2,0.2,3,0\n"
VIDEOS = "path,label,split\nvideos/jump_0.avi,jump,train\nvideos/run_1.avi,run,val\n"


def test_key_frames_of_own_videos(tmp_path):
    root = folder(tmp_path, {"boxes.csv": BOXES, "annotations.csv": VIDEOS}, "videos/jump_0.avi", "videos/run_1.avi")
    found = read_action_boxes(root, step=4)
    # Frames 2 and 6 of ten; of two frames the later one. Only run_1 shows one action: it names action 3.
    assert [(s.id, s.split) for s in found.samples] == [
        ("jump_0,0.066700", "train"),
        ("jump_0,0.200000", "train"),
        ("run_1,0001", "val"),
    ]
    assert found.classes == {"label": ("action 1", "action 2", "run")}
    first = found.samples[0]
    assert first.path == tmp_path / "videos" / "jump_0.avi"
    assert first.key_seconds == 0.0667
    assert first.boxes == (
        Box(0.0667, (0.1, 0.2, 0.3, 0.9), (0,), track=0),
        Box(0.0667, (0.5, 0.2, 0.7, 0.9), (2,), track=1),
    )
    assert first.labels == {"label": (0, 2)}
    assert first.meta == {"video": "jump_0", "second": 0.0667}
    assert found.multi_label
    assert len(read_action_boxes(root).samples) == 12


def test_without_a_table_of_videos_all_are_for_training(tmp_path):
    names = 'item {\n  name: "turn left"\n  id: 1\n}\nitem {\n  name: "turn right"\n  id: 3\n}\n'
    found = read_action_boxes(folder(tmp_path, {"b.csv": BOXES, "map.pbtxt": names}), boxes="b.csv", names="map.pbtxt")
    assert {sample.split for sample in found.samples} == {"train"}
    assert found.classes == {"label": ("turn left", "action 2", "turn right")}
    assert found.mirror.labels == {"label": (2, 1, 0)}


def test_what_does_not_fit_is_named(tmp_path):
    root = folder(tmp_path, {"boxes.csv": BOXES, "annotations.csv": "path,split\nvideos/jump_0.avi,train\n"})
    with pytest.raises(DataError, match="has boxes of 'run_1', expected a video that annotations.csv lists"):
        read_action_boxes(root)
    (tmp_path / "annotations.csv").write_text("path,split\nvideos/jump_0.avi,\n")
    with pytest.raises(DataError, match="row 2 has no split, expected train, val or test"):
        read_action_boxes(root)
    with pytest.raises(ConfigError, match="step must be at least 1, got 0"):
        read_action_boxes(root, step=0)
    (tmp_path / "nobody.csv").write_text(BOXES.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"nobody.csv: has no boxes, expected one row for each person and action"):
        read_action_boxes(root, boxes="nobody.csv")
    with pytest.raises(DataError, match="does not hold none.csv"):
        read_action_boxes(root, boxes="none.csv")
