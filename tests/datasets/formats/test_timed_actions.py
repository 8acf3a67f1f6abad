"""Traps: rows of one video apart from each other, videos in which nothing happens, times and splits that contradict."""

import json

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.timed_actions import read_activitynet, read_timed_actions
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import prepare, write_prepared
from wholereel.datasets.sample import Event
from wholereel.errors import DataError

TABLE = "path,label,start,end,split\n" + (
    "films/a.mp4,walk,0,3.5,train\n"
    "films/b.mp4,sit,1,2,val\n"
    "films/a.mp4,fall,3.5,4,train\n"
    "films/empty.mp4,,,,validation\n"
)
FILES = ("films/a.mp4", "films/b.mp4", "films/empty.mp4")
DATABASE = {
    "version": "VERSION 1.3",
    "database": {
        "--1DO2V4K74": {"subset": "training", "annotations": [{"label": "Surfing", "segment": [5.5, 9.0]}]},
        "x": {
            "subset": "validation",
            "annotations": [{"label": "Surfing", "segment": [1, 2]}, {"label": "Archery", "segment": [0, 1.5]}],
        },
        "gone": {"subset": "testing", "annotations": []},
    },
}


def test_a_table_of_ones_own(tmp_path):
    found = read_timed_actions(folder(tmp_path, {"actions.csv": TABLE}, *FILES))
    assert found.classes == {"label": ("fall", "sit", "walk")}
    assert found.multi_label
    assert rows(found) == [
        ("films/a", "films/a.mp4", "train", {"label": (0, 2)}),
        ("films/b", "films/b.mp4", "val", {"label": (1,)}),
        ("films/empty", "films/empty.mp4", "val", {"label": ()}),
    ]
    assert found.samples[0].events == (Event(2, 0.0, 3.5), Event(0, 3.5, 4.0))
    assert found.samples[2].events == ()


def test_what_is_written_is_read_back(tmp_path):
    found = read_timed_actions(folder(tmp_path / "in", {"actions.csv": TABLE}, *FILES))
    write_prepared(prepare(found), "timed_actions", {}, tmp_path / "out")
    read = read_manifest(tmp_path / "out")
    assert read.classes == found.classes
    assert [sample.events for sample in read.samples] == [sample.events for sample in found.samples]
    assert [sample.path.resolve() for sample in read.samples] == [sample.path.resolve() for sample in found.samples]


def test_names_give_the_order_of_classes_and_sides_are_noticed(tmp_path):
    table = "path,label,start,end\na.mp4,turn left,0,1\na.mp4,turn right,1,2\n"
    root = folder(tmp_path, {"t.csv": table, "names.txt": "turn right\nturn left\nwait\n"}, "a.mp4")
    found = read_timed_actions(root, table="t.csv", names="names.txt")
    assert found.classes == {"label": ("turn right", "turn left", "wait")}
    assert [event.label for event in found.samples[0].events] == [1, 0]
    assert found.mirror.labels == {"label": (1, 0, 2)}
    assert found.samples[0].split is None
    (tmp_path / "names.txt").write_text("turn left\n")
    with pytest.raises(DataError, match=r"has the action 'turn right', expected one of names\.txt: turn left"):
        read_timed_actions(root, table="t.csv", names="names.txt")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,walk,2,1", "row 2 has an action from '2' to '1', expected seconds, 0 <= start < end"),
        ("a.mp4,walk,x,1", "row 2 has an action from 'x' to '1'"),
        ("a.mp4,walk,nan,1", "row 2 has an action from 'nan' to '1'"),
        ("a.mp4,walk,1,", "row 2 has an action without label, start or end, expected path,label,start,end"),
        (",walk,1,2", "row 2 has no path"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path, row, said):
    root = folder(tmp_path, {"actions.csv": f"path,label,start,end\n{row}\n"}, "a.mp4")
    with pytest.raises(DataError, match=r"actions\.csv: " + said):
        read_timed_actions(root)


def test_a_video_has_one_split(tmp_path):
    table = "path,label,start,end,split\na.mp4,walk,0,1,train\na.mp4,walk,1,2,val\n"
    with pytest.raises(DataError, match="row 3 has the split 'val', expected 'train', as an earlier row of a.mp4"):
        read_timed_actions(folder(tmp_path, {"actions.csv": table}, "a.mp4"))


def test_activitynet(tmp_path):
    texts = {"activity_net.v1-3.min.json": json.dumps(DATABASE)}
    found = read_activitynet(folder(tmp_path, texts, "videos/v_--1DO2V4K74.mkv", "videos/x.mp4"))
    assert found.classes == {"label": ("Archery", "Surfing")}
    assert rows(found) == [
        ("--1DO2V4K74", "videos/v_--1DO2V4K74.mkv", "train", {"label": (1,)}),
        ("x", "videos/x.mp4", "val", {"label": (0, 1)}),
        ("gone", "v_gone.mp4", "test", {"label": ()}),
    ]
    assert found.samples[1].events == (Event(1, 1.0, 2.0), Event(0, 0.0, 1.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "has no object 'database', expected"),
        ('{"database": {"x": {"annotations": []}}}', r"video x cannot be read \(KeyError: 'subset'\)"),
        (
            '{"database": {"x": {"subset": "training", "annotations": [{"label": "a", "segment": [3]}]}}}',
            "video x cannot",
        ),
        (
            '{"database": {"x": {"subset": "training", "annotations": [{"label": "a", "segment": [3, 2]}]}}}',
            "video x has an action from 3 to 2",
        ),
    ],
)
def test_other_json_is_named(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_activitynet(folder(tmp_path, {"db.json": text}), database="db.json")
