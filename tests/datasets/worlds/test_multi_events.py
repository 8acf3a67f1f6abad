"""multi_events: each class with probability 1/4 in a slot of its own; manifest and Charades' files say the same."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from wholereel.datasets.formats.charades import read_charades
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world, oracle_scores
from wholereel.datasets.worlds.multi_events import CLASSES, class_of, seconds_of
from wholereel.datasets.worlds.verify import dependent_groups

WORLD = get_world("multi_events")
SCENES = [WORLD.sample(0, "train", index) for index in range(400)]


def test_each_class_occurs_in_a_quarter_of_the_videos():
    counts = Counter(class_of(event) for scene in SCENES for event in scene.events)
    assert len(CLASSES) == len(counts) == 12
    spread = (400 * 0.25 * 0.75) ** 0.5
    assert all(abs(count - 100) < 4 * spread for count in counts.values())
    present = np.array([[label in map(class_of, s.events) for label in range(12)] for s in SCENES], float)
    together = np.corrcoef(present.T) - np.eye(12)
    assert np.abs(together).max() < 4.5 / 400**0.5, "classes are independent"
    assert 0 < sum(not scene.events for scene in SCENES) < 30, "some videos show nothing: an empty list of labels"


def test_events_keep_to_their_slots():
    for scene in SCENES:
        assert len({event.segment for event in scene.events}) == len(scene.events)
        for event in scene.events:
            assert event.segment * 20 < event.start
            assert event.start + event.frames < (event.segment + 1) * 20
            red, _, blue = event.color
            assert abs(red - blue) >= 120


def test_the_union_of_clips_is_the_answer():
    assert oracle_scores(WORLD, samples=100)["union_of_clips"].value == WORLD.ceilings()["union_of_clips"] == 1.0


@pytest.mark.parametrize("changed", [0, 6])
def test_slots_are_coded_independently(changed):
    assert dependent_groups(WORLD, SCENES[0], changed=changed) == []


def test_manifest_and_official_files_agree(tmp_path):
    # The fourth training video of this seed shows nothing.
    folder = make_world("multi_events", tmp_path, sizes={"train": 8, "val": 0, "test": 2}, seed=1)
    scenes = [WORLD.sample(1, "train", index) for index in range(8)]
    manifest, annotations = read_manifest(folder, split="train"), read_charades(folder)
    assert manifest.multi_label
    assert annotations.classes["label"] == manifest.classes["label"] == CLASSES
    official = {sample.id: sample for sample in annotations.samples}
    assert Counter(sample.split for sample in annotations.samples) == {"train": 8, "val": 2}
    assert manifest.samples[3].labels["label"] == ()
    for sample, scene in zip(manifest.samples, scenes, strict=True):
        assert sample.labels["label"] == tuple(sorted(map(class_of, scene.events)))
        assert [(e.label, e.start, e.end) for e in sample.events] == [
            (class_of(event), *seconds_of(event)) for event in scene.events
        ]
        assert official[sample.id].labels == sample.labels
        assert official[sample.id].events == sample.events
        assert official[sample.id].path == sample.path
    with (folder / "official" / "Charades_v1_train.csv").open() as lines:
        assert next(csv.DictReader(lines))["length"] == "30.00"
