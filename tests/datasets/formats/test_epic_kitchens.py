"""Traps: time stamps, five frame rates, tests without labels, tails and unseen participants, actions near the start."""

import pytest

from tests.datasets.formats.folders import folder
from wholereel.datasets.formats.epic_kitchens import read_epic_kitchens, seconds_of_stamp
from wholereel.errors import DataError

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame"
)
LABELS = ",narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
TRAIN = (
    HEADER
    + LABELS
    + "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,2,door,1,['door'],[1]\n"
    + "P01_101_7,P01,P01_101,01:02:02.000,01:02:03.50,01:02:04.25,186175,186212,"
    + '"take, cup",take,0,cup:big,0,"[\'cup:big\', \'door\']","[0, 1]"\n'
)
VAL = (
    HEADER
    + LABELS
    + "P18_01_0,P18,P18_01,00:00:02.000,00:00:20.00,00:00:21.00,1000,1050,put cup,put,1,cup,0,['cup'],[0]\n"
    + "P01_01_9,P01,P01_01,00:00:09.000,00:00:10.00,00:00:11.00,600,660,put door,put,1,door,1,['door'],[1]\n"
)
TEST = HEADER + "\nP33_02_4,P33,P33_02,00:00:05.000,00:00:05.00,00:00:06.00,250,300\n"
TEXTS = {
    "EPIC_100_train.csv": TRAIN,
    "EPIC_100_validation.csv": VAL,
    "EPIC_100_test_timestamps.csv": TEST,
    "EPIC_100_verb_classes.csv": "id,key,instances,category\n0,take,\"['take', 'grab']\",access\n"
    "1,put,['put'],access\n2,open,['open'],access\n",
    "EPIC_100_noun_classes.csv": "id,key,instances,category\n0,cup,['cup'],crockery\n1,door,['door'],furniture\n",
    "EPIC_100_tail_verbs.csv": "verb\n2\n1\n",
    "EPIC_100_tail_nouns.csv": "noun\n1\n",
    "EPIC_100_unseen_participant_ids_validation.csv": "participant_id\nP18\nP32\n",
    "EPIC_100_unseen_participant_ids_test.csv": "participant_id\nP33\n",
    "EPIC_100_video_info.csv": "video_id,duration,fps,resolution\nP01_01,1652.15,59.94005994005994,1920x1080\n"
    "P01_101,4000.5,50.0,1920x1080\nP18_01,100.0,29.97002997002997,1920x1080\nP33_02,100.0,50.0,1920x1080\n",
}


@pytest.fixture
def root(tmp_path):
    texts = {f"epic-kitchens-100-annotations/{name}": text for name, text in TEXTS.items()}
    return folder(tmp_path, texts, "EPIC-KITCHENS/P01/videos/P01_01.MP4")


def test_classification(root):
    found = read_epic_kitchens(root)
    assert found.classes == {
        "verb": ("take", "put", "open"),
        "noun": ("cup", "door"),
        "action": ("take cup", "put cup", "put door", "open door"),
    }
    assert found.facts == {"tail_verbs": [1, 2], "tail_nouns": [1], "actions": [[0, 0], [1, 0], [1, 1], [2, 1]]}
    assert [(s.id, s.split, s.start, s.end, s.labels) for s in found.samples] == [
        ("P01_01_0", "train", 0.14, 3.37, {"verb": 2, "noun": 1, "action": 3}),
        ("P01_101_7", "train", 3723.5, 3724.25, {"verb": 0, "noun": 0, "action": 0}),
        ("P18_01_0", "val", 20.0, 21.0, {"verb": 1, "noun": 0, "action": 1}),
        ("P01_01_9", "val", 10.0, 11.0, {"verb": 1, "noun": 1, "action": 2}),
        ("P33_02_4", "test", 5.0, 6.0, {}),
    ]
    assert found.samples[0].path == root / "EPIC-KITCHENS/P01/videos/P01_01.MP4"
    assert found.samples[2].path == root / "P18" / "P18_01.MP4"
    assert found.samples[2].meta == {
        "video": "P18_01", "participant": "P18", "unseen": True, "tail_verb": True, "tail_noun": False
    }  # fmt: skip
    assert [sample.meta["unseen"] for sample in found.samples] == [False, False, True, False, True]
    assert "tail_verb" not in found.samples[4].meta


def test_pictures_have_the_rate_of_their_video(root):
    (root / "EPIC-KITCHENS/P01/rgb_frames/P01_01").mkdir(parents=True)
    found = read_epic_kitchens(root, layout="pictures").samples
    assert found[0].path == root / "EPIC-KITCHENS/P01/rgb_frames/P01_01"
    assert found[1].path == root / "P01/rgb_frames/P01_101"
    assert [sample.frame_rate for sample in found[:3]] == [59.94005994005994, 50.0, 29.97002997002997]


def test_anticipation_sees_until_a_second_before(root):
    first, _, val, _, test = read_epic_kitchens(root, anticipation=True).samples
    assert (val.start, val.end, val.meta["left_pad"]) == (14.0, 19.0, 0.0)
    assert (val.meta["action_start"], val.meta["action_stop"]) == (20.0, 21.0)
    assert (test.start, test.end, test.meta["left_pad"]) == (0.0, 4.0, 1.0)
    # begins 0.14 s into the video: nothing can be seen in time, so one frame stands for all of it
    frame = 1 / 59.94005994005994
    assert (first.start, first.end, first.meta["left_pad"]) == (0.0, frame, round(5.0 - frame, 6))
    assert first.labels == {"verb": 2, "noun": 1, "action": 3}
    longer = read_epic_kitchens(root, anticipation=True, gap=0.5, observed=8.0).samples[2]
    assert (longer.start, longer.end) == (11.5, 19.5)


def test_a_given_list_of_actions_is_used(root):
    list_file = root / "epic-kitchens-100-annotations" / "actions.csv"
    list_file.write_text(
        "id,verb,noun,action\n0,2,1,open door\n1,1,0,put cup\n2,0,0,take cup\n3,1,1,put door\n4,2,0,x\n"
    )
    found = read_epic_kitchens(root)
    assert [sample.labels.get("action") for sample in found.samples] == [0, 2, 1, 3, None]
    assert found.classes["action"] == ("open door", "put cup", "take cup", "put door", "open cup")
    list_file.write_text("id,verb,noun,action\n0,2,1,open door\n")
    with pytest.raises(DataError, match=r"actions\.csv: has no action for verb and noun \(0, 0\)"):
        read_epic_kitchens(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("EPIC_100_train.csv", "00:00:00.14", "0.14", r"row 2 has the time stamp '0\.14', expected HH:MM:SS\.ss"),
        ("EPIC_100_train.csv", "00:00:03.37", "00:00:00.14", r"row 2 stops at 0\.14 s, but starts at 0\.14 s"),
        ("EPIC_100_validation.csv", "put,1,cup,0", "put,7,cup,0", "row 2 has the verb class '7', expected 0..2"),
        ("EPIC_100_video_info.csv", "P18_01", "P18_02", r"video 'P18_01' is not in EPIC_100_video_info\.csv"),
        ("EPIC_100_noun_classes.csv", "1,door", "2,door", "row 3 has the id 2, expected 1"),
        ("EPIC_100_validation.csv", "noun_class,", "noun_id,", "has no column 'noun_class'"),
    ],
)
def test_what_is_not_as_published_is_named(root, name, old, new, message):
    file = root / "epic-kitchens-100-annotations" / name
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_epic_kitchens(root)


def test_stamps():
    assert [seconds_of_stamp(text) for text in ("00:00:00.00", "00:01:02.30", "01:00:00.005")] == [0.0, 62.3, 3600.005]
