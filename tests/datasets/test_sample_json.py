import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wholereel.datasets.manifest import read_manifest, write_manifest
from wholereel.datasets.sample import Box, Event, Manifest, Pose, Sample
from wholereel.datasets.sample_json import parts_of_record, parts_of_sample
from wholereel.errors import DataError

seconds = st.floats(0, 1e6)
numbers = st.floats(-1e4, 1e4)
corners = st.tuples(*[numbers] * 4)
labels = st.sets(st.integers(0, 80), max_size=4).map(lambda found: tuple(sorted(found)))
boxes = st.builds(
    Box, seconds, corners, labels, st.none() | st.integers(0, 999), st.none() | st.floats(0, 1)
)  # fmt: skip
events = st.builds(Event, st.integers(0, 156), seconds, seconds)
joints = st.lists(st.none() | st.tuples(numbers, numbers, st.sampled_from([0.0, 1.0])), min_size=1, max_size=15)
poses = st.builds(Pose, st.integers(0, 500), joints.map(tuple), st.none() | corners, st.none() | corners,
                  st.none() | st.integers(0, 999), st.none() | st.floats(0, 1))  # fmt: skip
carried = st.fixed_dictionaries(
    {},
    optional={
        "key_seconds": seconds,
        "boxes": st.lists(boxes, min_size=1, max_size=3).map(tuple),
        "events": st.lists(events, min_size=1, max_size=3).map(tuple),
        "poses": st.lists(poses, min_size=1, max_size=3).map(tuple),
        "frame_rate": st.floats(0.1, 240),
        "meta": st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers()), min_size=1),
    },
)


@given(carried)
def test_what_a_sample_carries_survives_json(tmp_path_factory, parts):
    sample = Sample("a", tmp_path_factory.getbasetemp() / "a", None, None, None, {}, **parts)
    text = json.dumps(parts_of_sample(sample))
    assert parts_of_record(json.loads(text), sample.path, "line 1") == parts


def test_manifests_keep_it(tmp_path):
    sample = Sample(
        id="film@0902", path=tmp_path / "film.mkv", start=0.0, end=900.0, split="val", labels={"label": (0, 2)},
        key_seconds=2.0, boxes=(Box(2.0, (0.1, 0.2, 0.5, 1.0), (0, 2), track=7), Box(2.0, (0, 0, 1, 1), score=0.9)),
        events=(Event(2, 0.5, 3.25),), poses=(Pose(0, ((1.5, 2.0, 1.0), None), head=(0.0, 1.0, 2.0, 3.0)),),
        frame_rate=24.0, meta={"participant": "P01"},
    )  # fmt: skip
    manifest = Manifest((sample,), {"label": ("bend", "run", "sit")}, tmp_path, multi_label=True)
    write_manifest(manifest, tmp_path / "manifest.jsonl")
    assert read_manifest(tmp_path) == manifest
    with pytest.raises(ValueError, match="only .jsonl holds key_seconds, boxes, events, poses, meta, which sample"):
        write_manifest(manifest, tmp_path / "manifest.csv")


def test_rates_of_picture_folders_may_stand_in_any_table(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,frame_rate,boxes\nrun/1,run,12,many\nb.mp4,jump,,none\n")
    manifest = read_manifest(tmp_path / "a.csv")
    assert [sample.frame_rate for sample in manifest.samples] == [12.0, None]
    assert [sample.boxes for sample in manifest.samples] == [(), ()]  # a column of the table's own
    write_manifest(manifest, tmp_path / "b.csv")
    again = read_manifest(tmp_path / "b.csv")
    assert again.samples == manifest.samples


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("boxes", [{"xyxy": [0, 0, 1, 1]}], r"row 1: boxes cannot be read \('seconds'\), expected boxes as a list"),
        ("boxes", [{"seconds": 1, "xyxy": [0, 0, 1]}], "boxes cannot be read"),
        ("boxes", [{"seconds": 1, "xyxy": [0, 0, 1, 1], "labels": ["run"]}], "'run' is not an index"),
        ("events", [[1, 2.0]], "events cannot be read"),
        ("poses", [{"frame": -1, "joints": []}], "-1 is not an index"),
        ("frame_rate", 0, "0 is not a rate"),
        ("key_seconds", "soon", "key_seconds cannot be read"),
        ("meta", "x", "str is not an object"),
    ],
)
def test_what_cannot_be_read_names_the_row(tmp_path, name, value, message):
    file = tmp_path / "manifest.jsonl"
    file.write_text(json.dumps({"path": "a.mp4", "label": "run", name: value}) + "\n")
    with pytest.raises(DataError, match=message):
        read_manifest(file)
