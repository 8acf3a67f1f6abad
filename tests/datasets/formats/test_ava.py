"""Traps: several actions a person, excluded seconds, key frames without annotations, ids that are not evaluated."""

import pytest

from tests.datasets.formats.folders import folder
from wholereel.datasets.formats.ava import read_ava, read_ava_boxes, read_detected_boxes, read_label_map
from wholereel.datasets.sample import Box
from wholereel.errors import ConfigError, DataError

# An id is written as label_id or id, and only classes that are evaluated are there: 2 is not.
LABEL_MAP = """label {
  name: "bend/bow (at the waist)"
  label_id: 1
  label_type: PERSON_MOVEMENT
}
label {
  name: "stand \\ sit"
  id: 3
}
label {
  name: "watch (a person)"
  label_id: 5
}
"""
TRAIN = """-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,3,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,5,1
-5KQ66BBWC4,0902,0.332,0.194,0.481,0.891,2,0
-5KQ66BBWC4,0903,0.1,0.1,0.2,0.2,1,0
-5KQ66BBWC4,0901,0.1,0.1,0.2,0.2,1,0
_film2,1798,0.000,0.005,1.000,0.997,1,12
"""
VAL = "1j20qq1JyX4,0904,0.002,0.118,0.714,0.977,5,1\n1j20qq1JyX4,0905,0.193,0.016,1.000,0.978,3,6\n"
DETECTED = """1j20qq1JyX4,0904,0.010,0.120,0.700,0.970,,0.995
1j20qq1JyX4,0904,0.500,0.100,0.600,0.200,,0.899
1j20qq1JyX4,0906,0.300,0.300,0.400,0.900,,0.9
1j20qq1JyX4,0907,0.300,0.300,0.400,0.900,,0.3
1j20qq1JyX4,0905,0.3,0.3,0.4,0.9,,0.99
"""
TEXTS = {
    "annotations/ava_train_v2.2.csv": TRAIN,
    "annotations/ava_val_v2.2.csv": VAL,
    "annotations/ava_train_excluded_timestamps_v2.2.csv": "-5KQ66BBWC4,0903\n",
    "annotations/ava_val_excluded_timestamps_v2.2.csv": "1j20qq1JyX4,0905\n",
    "annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt": LABEL_MAP,
    "annotations/ava_val_predicted_boxes.csv": DETECTED,
}


def test_annotations_of_whole_films(tmp_path):
    found = read_ava(folder(tmp_path, TEXTS, "trainval/-5KQ66BBWC4.mkv", "trainval/1j20qq1JyX4.mp4"))
    names = ("bend/bow (at the waist)", "action 2", "stand \\ sit", "action 4", "watch (a person)")
    assert found.classes == {"label": names}
    assert found.facts == {"evaluated": [0, 2, 4]}
    assert found.multi_label
    first, last, val = found.samples
    assert [sample.id for sample in found.samples] == ["-5KQ66BBWC4,0902", "_film2,1798", "1j20qq1JyX4,0904"]
    assert [sample.split for sample in found.samples] == ["train", "train", "val"]
    assert first.path == tmp_path / "trainval" / "-5KQ66BBWC4.mkv"
    assert last.path == tmp_path / "_film2.mp4"  # not there
    assert (first.start, first.end, first.key_seconds) == (900.0, 1801.0, 902.0)
    assert first.boxes == (
        Box(902.0, (0.077, 0.151, 0.283, 0.811), (2, 4), track=1),
        Box(902.0, (0.332, 0.194, 0.481, 0.891), (1,), track=0),
    )
    assert first.labels == {"label": (1, 2, 4)}
    assert val.boxes == (Box(904.0, (0.002, 0.118, 0.714, 0.977), (4,), track=1),)
    assert first.meta == {"video": "-5KQ66BBWC4", "second": 902.0}


def test_detected_boxes_bring_their_own_key_frames(tmp_path):
    found = read_ava(folder(tmp_path, TEXTS), val_boxes="ava_val_predicted_boxes.csv", threshold=0.9)
    val = [sample for sample in found.samples if sample.split == "val"]
    assert [sample.id for sample in val] == ["1j20qq1JyX4,0904", "1j20qq1JyX4,0906"]  # 905 is excluded on both sides
    assert val[0].boxes[1:] == (Box(904.0, (0.01, 0.12, 0.7, 0.97), score=0.995),)
    assert val[1].boxes == (Box(906.0, (0.3, 0.3, 0.4, 0.9), score=0.9),)
    assert val[1].labels == {"label": ()}  # no annotation: every detection there is wrong
    quick = read_ava(tmp_path, val_boxes="ava_val_predicted_boxes.csv", threshold=0.9, val_step=4)
    assert [sample.id for sample in quick.samples if sample.split == "val"] == ["1j20qq1JyX4,0904"]
    assert [sample.id for sample in quick.samples if sample.split == "train"] == [s.id for s in found.samples[:2]]


def test_detected_boxes_for_training_may_have_labels(tmp_path):
    file = tmp_path / "boxes.csv"
    file.write_text("a,0902,0,0,1,1,12,0.95\na,0902,0,0,1,1,80,0.95\na,0902,0,0,0.5,1,-1,0.9\na,0902,0,0,0.5,1,,0.91\n")
    assert read_detected_boxes(file, 0.9) == {
        ("a", 902.0): [
            Box(902.0, (0.0, 0.0, 1.0, 1.0), (11, 79), score=0.95),
            Box(902.0, (0.0, 0.0, 0.5, 1.0), score=0.9),
            Box(902.0, (0.0, 0.0, 0.5, 1.0), score=0.91),
        ]
    }


def test_a_test_split_is_read_where_it_is_annotated(tmp_path):
    texts = {
        "annotations/ava_test_v2.2.csv": "room,0902,0,0,1,1,3,1\nroom,0903,0,0,1,1,3,1\n",
        "annotations/ava_test_excluded_timestamps_v2.2.csv": "room,0903\n",
        "annotations/found.csv": "room,0904,0,0,1,1,,0.9\n",
    }
    found = read_ava(folder(tmp_path, {**TEXTS, **texts}), test_boxes="found.csv")
    assert [sample.id for sample in found.samples if sample.split == "test"] == ["room,0902", "room,0904"]


@pytest.mark.parametrize(
    ("layout", "start", "end", "key", "path", "rate"),
    [
        ("films", 900.0, 1801.0, 902.0, "-5KQ66BBWC4.mp4", None),
        ("segments", None, None, 2.0, "-5KQ66BBWC4.mp4", None),
        ("pictures", None, None, 2.0, "frames/-5KQ66BBWC4", 30.0),
    ],
)
def test_times_count_from_the_beginning_of_the_file(tmp_path, layout, start, end, key, path, rate):
    sample = read_ava(folder(tmp_path, TEXTS), layout=layout).samples[0]
    assert (sample.start, sample.end, sample.key_seconds, sample.frame_rate) == (start, end, key, rate)
    assert {box.seconds for box in sample.boxes} == {key}
    assert sample.path == tmp_path / path
    assert sample.id == "-5KQ66BBWC4,0902"  # as the metric's key


def test_short_videos_in_the_same_form(tmp_path):
    texts = {**TEXTS, "annotations/ava_train_v2.2.csv": "room0,0002,0.1,0.1,0.2,0.2,1,0\nroom0,3.5,0,0,1,1,3,\n"}
    found = read_ava(folder(tmp_path, texts), layout="short").samples[:2]
    assert [(sample.id, sample.key_seconds, sample.start) for sample in found] == [
        ("room0,0002", 2.0, None),
        ("room0,3.500000", 3.5, None),
    ]
    assert found[1].boxes[0].track is None


def test_columns_with_a_header_and_one_box_a_frame(tmp_path):
    file = tmp_path / "boxes.csv"
    file.write_text("video_id,timestamp,x1,y1,x2,y2,action_id,person_id\ncatch_00,0.0333,0.37,0.23,0.54,0.97,1,0\n")
    assert read_ava_boxes(file) == {("catch_00", 0.0333): [Box(0.0333, (0.37, 0.23, 0.54, 0.97), (0,), track=0)]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "ava_train_v2.2.csv",
            "a,0902,77,151,283,811,3,1\n",
            r"row 1 has the box 77\.0, .*expected fractions",
        ),
        ("ava_train_v2.2.csv", "a,0902,0,0,1,1,0,1\n", "row 1 has the action 0, expected action ids from 1 on"),
        ("ava_train_v2.2.csv", "a,0902,0,0,1\n", "row 1 has 5 columns, expected video_id,timestamp,x1"),
        ("ava_train_v2.2.csv", "a,,0,0,1,1,2,1\n", "row 1 has no timestamp"),
        ("ava_train_v2.2.csv", "a,0902,0,0,1,1,x,1\n", "row 1 cannot be read"),
        ("ava_action_list_v2.2_for_activitynet_2019.pbtxt", "item {\n}\n", "has no classes"),
        ("ava_action_list_v2.2_for_activitynet_2019.pbtxt", "id: 3\n", "line 1 has an id without a name"),
    ],
)
def test_what_is_not_as_published_is_named(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read_ava(folder(tmp_path, {**TEXTS, f"annotations/{name}": text}))


def test_missing_files_and_options(tmp_path):
    with pytest.raises(
        DataError, match=r"does not hold ava_action_list_v2\.2_for_activitynet_2019\.pbtxt, expected the"
    ):
        read_ava(tmp_path)
    with pytest.raises(ConfigError, match="val_step must be at least 1"):
        read_ava(tmp_path, val_step=0)
    file = tmp_path / "map.pbtxt"
    file.write_text(LABEL_MAP)
    assert read_label_map(file) == {1: "bend/bow (at the waist)", 3: "stand \\ sit", 5: "watch (a person)"}
