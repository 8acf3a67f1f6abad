"""A table of samples gives back what it was given, to every process, in flat memory."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel.datasets.sample import Box, Event, Pose, Sample
from wholereel.datasets.sample_table import SampleTable

ROOT = Path("/data/films")
times = st.one_of(st.none(), st.floats(0, 1e6))
labels = st.one_of(st.integers(0, 10**6), st.lists(st.integers(0, 400), max_size=4).map(tuple))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
boxes = st.builds(
    Box,
    seconds=st.floats(0, 1e4),
    xyxy=st.tuples(*[st.floats(0, 1)] * 4),
    labels=st.sets(st.integers(0, 80)).map(lambda found: tuple(sorted(found))),
    track=st.one_of(st.none(), st.integers(0, 99)),
    score=st.one_of(st.none(), st.floats(0, 1)),
)
samples = st.builds(
    Sample,
    id=names,
    path=names.map(lambda name: ROOT / name.replace("/", "_").replace("\0", "_")),
    start=times,
    end=times,
    split=st.sampled_from([None, "train", "val"]),
    labels=st.dictionaries(st.sampled_from(["label", "verb", "noun"]), labels),
    key_seconds=times,
    boxes=st.lists(boxes, max_size=2).map(tuple),
    events=st.lists(st.builds(Event, st.integers(0, 9), st.floats(-5, 5), st.floats(5, 9)), max_size=2).map(tuple),
    frame_rate=st.one_of(st.none(), st.floats(1, 60)),
    meta=st.dictionaries(names, st.one_of(st.integers(), names, st.lists(st.floats(-1, 1))), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, max_size=8))
def test_samples_come_back_as_they_were(given_samples):
    table = SampleTable.of(iter(given_samples), ROOT)
    assert list(table) == given_samples
    assert [table[n] for n in range(-len(given_samples), 0)] == given_samples
    assert table == tuple(given_samples)
    assert table != [*given_samples, None]
    assert list(pickle.loads(pickle.dumps(table))) == given_samples  # noqa: S301
    assert table.split_counts() == {
        split: sum(sample.split == split for sample in given_samples)
        for split in dict.fromkeys(sample.split for sample in given_samples)
    }
    for split in (None, "train", "test"):
        assert list(table.of_split(split)) == [sample for sample in given_samples if sample.split == split]


def sample(n: int, **changes) -> Sample:
    plain = Sample(f"v{n}.mp4", ROOT / f"v{n}.mp4", None, None, "train" if n % 3 else "val", {"label": n % 7})
    return replace(plain, **changes)


def test_slices_and_choices_are_views():
    whole = [sample(n) for n in range(10_000)]
    table = SampleTable.of(whole, ROOT)
    for part in (slice(None), slice(3), slice(5, 9_000, 7), slice(None, None, -1), slice(8, 2)):
        assert list(table[part]) == whole[part]
        assert list(table[part][1:3]) == whole[part][1:3]
    chosen = table.take([5, 9_999, 5])
    assert list(chosen) == [whole[5], whole[9_999], whole[5]]
    assert list(chosen.take(torch.tensor([1]))) == [whole[9_999]]
    assert list(table[::2].take([0, 3])) == [whole[0], whole[6]]
    assert chosen[1:][0] == whole[9_999]
    assert table[:None] == whole
    assert table.nbytes == chosen.nbytes < 10_000 * 60
    assert SampleTable.of(table, ROOT) is table
    for wrong in (10_000, -10_001):
        with pytest.raises(IndexError):
            table[wrong]


def test_paths_outside_the_root_and_names_of_their_own():
    others = [sample(1, path=Path("/elsewhere/a.mp4")), sample(2, id="two"), sample(3, path=Path("/data/filmsb.mp4"))]
    assert list(SampleTable.of(others, ROOT)) == others
    relative = [sample(1, path=Path("a/b.mp4"), id="a/b.mp4"), sample(2, path=Path("s3:/bucket/c.mp4"))]
    assert list(SampleTable.of(relative, Path())) == relative


def test_poses_and_labels_that_come_late():
    pose = Pose(7, ((1.0, 2.0, 1.0), None), head=(0.0, 1.0, 2.0, 3.0), track=4)
    mixed = [sample(0), sample(1, poses=(pose,)), sample(2, labels={"noun": (4, 5)}), sample(3, labels={"noun": ()})]
    table = SampleTable.of(mixed, ROOT)
    assert list(table) == mixed
    assert table.label_columns == ("label", "noun")
    assert table.without_label("label") == 2
    assert table.without_label("noun") == 0
    assert table[:2].without_label("label") is None
    assert table[2:].without_label("label") is None
    assert table.without_label("other") is None


def test_ids_that_repeat_within_a_split():
    assert SampleTable.of([sample(n) for n in range(5000)], ROOT).repeated_id() is None
    assert SampleTable.of([], ROOT).repeated_id() is None
    both = [sample(0, split="train"), sample(0, split="val")]
    assert SampleTable.of(both, ROOT).repeated_id() is None
    more = SampleTable.of([*both, *[sample(3, split="val")] * 3, *both], ROOT)
    assert more.repeated_id() == ("val", "v3.mp4", 3)
    assert more[:3].repeated_id() is None


def test_file_names_need_not_be_text():
    odd = [sample(0, id="a\udcff", path=ROOT / "a\udcff.mp4")]
    assert list(SampleTable.of(odd, ROOT)) == odd


def _first_and_last(table, queue):
    queue.put((table[0], table[len(table) - 1], table._columns.paths.data.is_shared()))


def test_a_spawned_process_receives_shared_memory():
    table = SampleTable.of((sample(n) for n in range(1000)), ROOT)
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=_first_and_last, args=(table, queue))
    child.start()
    assert queue.get() == (sample(0), sample(999), True)
    child.join()
