"""motion_objects and distinit_transfer: one frame looks the same whatever the motion; noise changes labels only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world
from wholereel.datasets.worlds.motions import SIDES, VERBS, look
from wholereel.datasets.worlds.textures import TEXTURES, texture
from wholereel.errors import ConfigError

WORLD = get_world("motion_objects")


def test_ceilings():
    assert WORLD.ceilings() == {"frame": 0.25, "motion": 0.25, "video": 1.0}
    noisy = get_world("motion_objects", label_noise=0.1)
    assert noisy.ceilings()["video"] == pytest.approx(0.90625)
    with pytest.raises(ConfigError, match=r"label_noise of motion_objects must be in 0\.\.1, got 2"):
        get_world("motion_objects", label_noise=2.0)


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_place_and_size_in_a_frame_do_not_depend_on_the_motion(frame):
    tables = np.zeros((3, len(VERBS), 8))
    for index in range(2000):
        scene = WORLD.sample(1, "train", index)
        x, y, side = look(scene.mover, frame, 64)
        assert 0 <= x < 64
        assert side / 2 <= y <= 64 - side / 2
        for table, value, low, high in zip(tables, (x, y, side), (0, 15, SIDES[0]), (64, 49, SIDES[1]), strict=True):
            table[scene.mover.verb, int(8 * (value - low) / (high - low))] += 1
    for table in tables:
        assert chi_square_p(table) > 0.01 / 9
        assert chi_square_p([table.sum(axis=0), [250] * 8]) > 0.01 / 9


def test_motions_are_what_they_are_called():
    scene = WORLD.sample(0, "train", 0)
    mover = replace(scene.mover, x=30.0, side=20.0, speed=2.0, growth=0.5)
    looks = {verb: look(replace(mover, verb=n), 3, 64) for n, verb in enumerate(VERBS)}
    assert looks == {
        "left": (24.0, mover.y, 20.0),
        "right": (36.0, mover.y, 20.0),
        "grow": (30.0, mover.y, 21.5),
        "shrink": (30.0, mover.y, 18.5),
    }


def test_labels_are_balanced_and_columns_agree():
    rows = [WORLD.truth(WORLD.sample(0, "train", index)) for index in range(160)]
    assert set(Counter(row["label"] for row in rows).values()) == {10}
    assert all(row["label"] == f"{row['verb']}_{row['noun']}" == row["meta"]["shown"] for row in rows)


def test_noise_changes_labels_and_nothing_else():
    noisy = get_world("motion_objects", label_noise=0.1)
    scenes = [(WORLD.sample(0, "train", n), noisy.sample(0, "train", n)) for n in range(2000)]
    assert all(replace(b, label=a.label) == a for a, b in scenes)
    changed = [b.label for a, b in scenes if b.label != a.label]
    expected = 0.1 * 15 / 16
    assert len(changed) / 2000 == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5)
    assert chi_square_p([np.bincount(changed, minlength=16), [len(changed) / 16] * 16]) > 0.01


def test_few_shots_are_eight_a_class():
    target = get_world("distinit_transfer")
    assert target.sizes("std") == {"train": 128, "val": 160, "test": 640}
    labels = Counter(target.sample(0, "train", index).label for index in range(128))
    assert labels == dict.fromkeys(range(16), 8)
    assert target.sample(0, "train", 0).id != WORLD.sample(0, "train", 0).id


def test_the_mix_says_nothing(tmp_path):
    folder = make_world("unlabelled_mix", tmp_path, sizes={"train": 8})
    assert [dict(sample.labels) for sample in read_manifest(folder, labels=()).samples] == [{}] * 8
    assert (folder / "classes.json").read_text().strip() == "[]"
    text = (folder / "manifest.jsonl").read_text()
    assert not any(word in text for word in ("label", "verb", "noun", *TEXTURES))
    world = get_world("unlabelled_mix")
    scenes = [world.sample(0, "train", index) for index in range(200)]
    assert {len(scene.movers) for scene in scenes} == {1, 2}
    assert len({mover.kind for scene in scenes for mover in scene.movers}) == 8


def test_textures_differ_in_form_and_not_in_colour():
    pictures = np.stack([[texture(kind, seed, 64) for seed in range(40)] for kind in range(len(TEXTURES))])
    assert pictures.min() >= 30
    assert pictures.max() <= 190
    mean_KN = pictures.mean(axis=(2, 3, 4))
    assert np.ptp(mean_KN.mean(axis=1)) < 2 * mean_KN.std()
    edges = np.abs(np.diff(pictures.astype(int), axis=3)).mean(axis=(1, 2, 3, 4))
    assert np.argmin(edges) == TEXTURES.index("clouds")
