"""cue_probe: blocks as promised, a staircase of ceilings, answers that hang on the cue's clip alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world, oracle_scores, verify_world
from wholereel.datasets.worlds.cue_probe import CLIPS, GAPS
from wholereel.datasets.worlds.verify import decode, dependent_groups
from wholereel.errors import ConfigError

WORLD = get_world("cue_probe")
SCENES = [WORLD.sample(0, "train", index) for index in range(400)]


def test_staircase():
    assert list(WORLD.ceilings().values()) == pytest.approx([0.25, 0.40, 0.55, 0.70, 0.85, 1.00])
    assert {f"support_{s}" for s in (0, *GAPS)} == WORLD.ceilings().keys() == WORLD.oracles().keys()
    for level, score in oracle_scores(WORLD, samples=400, seed=3).items():
        assert abs(score.value - WORLD.ceilings()[level]) <= 4 * score.error, level


def test_blocks_are_as_promised():
    for scene in SCENES:
        assert sorted(block.gap for block in scene.blocks) == list(GAPS)
        used = [clip for block in scene.blocks for clip in range(block.cue_clip, block.probe_clip + 1)]
        assert len(used) == len(set(used)) == 36
        assert used == sorted(used)
        assert min(used) >= 0
        assert max(used) < CLIPS
        shown = {shape.segment: shape for shape in scene.shapes}
        assert shown.keys() | {flash.clip for flash in scene.flashes} == set(range(CLIPS))
        for block in scene.blocks:
            assert block.answer == (block.cue + block.probe) % 4
            assert shown[block.probe_clip].kind == block.probe
        probes = {block.probe_clip for block in scene.blocks}
        assert all(shape.kind >= 4 for clip, shape in shown.items() if clip not in probes)
        assert all(shape.start % 16 == 4 and shape.frames == 8 for shape in scene.shapes)
    assert len(Counter(tuple(block.gap for block in scene.blocks) for scene in SCENES)) > 90  # of 120 orders


@pytest.mark.parametrize(("longest", "rounds"), [(1, 18), (2, 7), (4, 3), (8, 1)])
def test_streams_that_ask_about_short_gaps_alone_ask_often(longest, rounds):
    world = get_world("cue_probe", longest=longest)
    gaps = [gap for gap in GAPS if gap <= longest]
    scenes = [world.sample(0, "train", index) for index in range(40)]
    for scene in scenes:
        assert sorted(block.gap for block in scene.blocks) == sorted(gaps * rounds)
        used = [clip for block in scene.blocks for clip in range(block.cue_clip, block.probe_clip + 1)]
        assert used == sorted(set(used))
        assert set(used) <= set(range(CLIPS))
        assert all(block.answer == (block.cue + block.probe) % 4 for block in scene.blocks)
    answers = Counter((block.gap, block.answer) for scene in scenes for block in scene.blocks)
    assert answers == dict.fromkeys(product(gaps, range(4)), 10 * rounds)
    for level, score in oracle_scores(world, samples=200, seed=3).items():
        assert abs(score.value - world.ceilings()[level]) <= 4 * score.error, level


def test_a_gap_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="longest must be one of"):
        get_world("cue_probe", longest=3)


def test_answers_are_balanced_for_each_gap():
    for split, count in WORLD.sizes("smoke").items():
        scenes = [WORLD.sample(5, split, index) for index in range(count)]
        for gap in GAPS:
            answers = Counter(block.answer for scene in scenes for block in scene.blocks if block.gap == gap)
            assert answers == dict.fromkeys(range(4), count // 4)


def test_what_is_seen_without_the_cue_tells_nothing():
    """Answers against probe, gap, place, order, colours, and the cues of all other blocks."""
    tables = {name: np.zeros((4, 48)) for name in ("probe", "gap", "place", "color", "cue", "last cue", "last probe")}
    for scene in SCENES:
        shapes = {shape.segment: shape for shape in scene.shapes}
        for number, block in enumerate(scene.blocks):
            values = {
                "probe": block.probe,
                "gap": block.gap,
                "place": block.probe_clip,
                "color": (shapes[block.probe_clip].color[0] - 150) // 15,
                "cue": block.cue,
                "last cue": scene.blocks[number - 1].cue,
                "last probe": scene.blocks[number - 1].probe,
            }
            for name, value in values.items():
                tables[name][block.answer, value] += 1
    assert min(chi_square_p(table) for table in tables.values()) > 0.01 / len(tables)


def test_another_answer_changes_only_the_cues_clip():
    """So whatever does not look at that clip has the same chance for each answer."""
    scene = SCENES[0]
    number = next(n for n, block in enumerate(scene.blocks) if block.gap == 4)
    flash = scene.flashes[number]
    other = replace(flash, hue=(flash.hue + 1) % 4, color=(50, 50, 230) if flash.hue != 1 else (220, 200, 30))
    flashes = tuple(other if f is flash else f for f in scene.flashes)
    a, b = WORLD.record(scene).frames_THWC, WORLD.record(replace(scene, flashes=flashes)).frames_THWC
    differs = (a != b).any(axis=(1, 2, 3))
    first = flash.clip * 16
    assert np.flatnonzero(differs).tolist() == list(range(first + 4, first + 12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"train": 16, "val": 0, "test": 0}
    return make_world("cue_probe", tmp_path_factory.mktemp("cue_probe") / "streams", sizes=sizes)


def right_answers(features_RD, answers_R):
    """Number of right answers of least squares from all other streams (five probes each), stream by stream."""
    features_RD = (features_RD - features_RD.mean(axis=0)) / features_RD.std(axis=0)
    features_RD = np.concatenate([features_RD, np.ones((len(features_RD), 1))], axis=1)
    right = 0
    for stream in range(len(answers_R) // 5):
        held_R = np.arange(len(answers_R)) // 5 == stream
        gram = features_RD[~held_R].T @ features_RD[~held_R] + np.eye(features_RD.shape[1])
        weights = np.linalg.solve(gram, features_RD[~held_R].T @ np.eye(4)[answers_R[~held_R]])
        right += int(((features_RD[held_R] @ weights).argmax(axis=1) == answers_R[held_R]).sum())
    return right


def test_a_probes_clip_alone_and_the_file_tell_nothing(folder):
    """Decoded probe clips, file size and place in the stream against the answers: a coin with four sides."""
    features, answers = [], []
    for scene in SCENES[:16]:
        path = folder / "videos" / f"{scene.id}.mp4"
        frames_THWC = decode(path).astype(float)
        for block in scene.blocks:
            clip_THWC = frames_THWC[16 * block.probe_clip : 16 * block.probe_clip + 16]
            corners = clip_THWC[8].reshape(2, 32, 2, 32, 3).mean(axis=(1, 3, 4)).ravel()
            means = clip_THWC.mean(axis=(0, 1, 2))
            features.append([*means, *corners, clip_THWC.std(), path.stat().st_size, block.probe_clip])
            answers.append(block.answer)
    features_RD, answers_R = np.array(features), np.array(answers)
    chance, spread = 80 / 4, (80 * 0.25 * 0.75) ** 0.5
    assert abs(right_answers(features_RD, answers_R) - chance) < 2.58 * spread
    permuted_R = np.random.default_rng(0).permutation(answers_R)
    assert abs(right_answers(features_RD, permuted_R) - chance) < 2.58 * spread
    planted_RD = features_RD + 3 * features_RD.std(axis=0) * (answers_R == 2)[:, None]
    assert right_answers(planted_RD, answers_R) > chance + 2.58 * spread


@pytest.mark.parametrize("changed", [0, 21])
def test_clips_are_coded_independently(changed):
    assert dependent_groups(WORLD, SCENES[0], changed=changed) == []


def test_the_streams_read_as_a_manifest(folder):
    assert verify_world(folder) == []
    manifest = read_manifest(folder, split="train", labels=())
    for sample, scene in zip(manifest.samples, SCENES, strict=False):
        assert sample.labels == {}
        labels = sample.meta["clip_labels"]
        assert len(labels) == CLIPS
        assert {clip: label for clip, label in enumerate(labels) if label is not None} == {
            block.probe_clip: block.answer for block in scene.blocks
        }
        assert [(event.label, event.start) for event in sample.events] == [
            (block.answer, 2.0 * block.probe_clip) for block in scene.blocks
        ]


def test_trimmed_clips_show_their_class():
    world = get_world("cue_probe_clips")
    scenes = [world.sample(0, "train", index) for index in range(18)]
    assert Counter(scene.label for scene in scenes) == dict.fromkeys(range(9), 2)
    assert all(world.right(scene, world.oracle("clip")(scene, np.random.default_rng(0))) == 1 for scene in scenes)
    for scene, (hue, channel) in product(scenes, enumerate((0, 1, 2))):
        if scene.label == hue:
            still, shown = world.record(scene).frames_THWC[[0, 8]].astype(int)
            change_C = (shown - still).mean(axis=(0, 1))
            assert change_C.argmax() == channel
