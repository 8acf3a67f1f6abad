"""kitchen: a chain of actions as promised, dishes known from the banner alone, recall in closed form, EPIC's files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.formats.epic_kitchens import read_epic_kitchens
from wholereel.datasets.worlds import get_world, oracle_scores
from wholereel.datasets.worlds.kitchen import blind_recall
from wholereel.datasets.worlds.kitchen_plan import ACTION_NAMES, ACTIONS, BANNER_SECONDS, COMMON, NOUNS, VERBS
from wholereel.datasets.worlds.verify import dependent_groups
from wholereel.errors import ConfigError

WORLD = get_world("kitchen")
SCENES = [WORLD.sample(0, "train", index) for index in range(300)]


def test_actions_are_pairs():
    assert len(ACTIONS) == len(set(ACTIONS)) == 24
    assert COMMON == 14
    assert {VERBS[verb] for verb, _ in ACTIONS[COMMON:]} == {"serve"}
    assert max(Counter(noun for _, noun in ACTIONS[:COMMON]).values()) == 2
    assert min(Counter(verb for verb, _ in ACTIONS[:COMMON]).values()) >= 2


def test_chains_are_as_promised():
    seen = Counter(segment.action for scene in SCENES for segment in scene.segments)
    assert set(seen) == set(range(24))
    for scene in SCENES:
        assert scene.segments[0].start > BANNER_SECONDS
        for last, segment in zip(scene.segments, scene.segments[1:], strict=False):
            assert 1 <= segment.start - last.end <= 2
            assert 2 <= segment.end - segment.start <= 3
            expected = COMMON + scene.recipe if last.bell else 7 if last.action >= COMMON else (last.action + 1) % 14
            assert segment.action == expected
            assert not (segment.bell and segment.action >= COMMON), "a bell at a dish would tell what the next one is"
        assert scene.segments[-1].end <= 120


def test_a_bell_that_rings_more_often_changes_nothing_else():
    busy = get_world("kitchen", bell=0.5)
    scenes = [busy.sample(0, "train", index) for index in range(100)]
    rings = [last.bell for scene in scenes for last in scene.segments if last.action < COMMON]
    assert abs(np.mean(rings) - 0.5) < 0.05
    assert [scene.recipe for scene in scenes] == [scene.recipe for scene in SCENES[:100]]
    assert [scene.segments[0].start for scene in scenes] == [scene.segments[0].start for scene in SCENES[:100]]
    assert busy.ceilings() == WORLD.ceilings()
    for level, score in oracle_scores(busy, samples=100, seed=2).items():
        assert abs(score.value - busy.ceilings()[level]) <= 4 * score.error + 1e-12, level
    with pytest.raises(ConfigError, match="bell must be above 0"):
        get_world("kitchen", bell=0.0)


def test_recipes_are_balanced_and_participants_mean_nothing():
    for split, count in WORLD.sizes("smoke").items():
        scenes = [WORLD.sample(5, split, index) for index in range(count)]
        assert Counter(scene.recipe for scene in scenes) == dict.fromkeys(range(10), count // 10)
    people = {split: {WORLD.sample(0, split, i).participant for i in range(100)} for split in ("train", "val")}
    assert people == {"train": set(range(1, 9)), "val": set(range(1, 11))}
    tables = {name: np.zeros((10, 32)) for name in ("participant", "bells", "first", "rings at")}
    for scene in SCENES:
        values = {
            "participant": scene.participant,
            "bells": sum(segment.bell for segment in scene.segments),
            "first": scene.segments[0].start,
            "rings at": next((segment.action for segment in scene.segments if segment.bell), 31),
        }
        for name, value in values.items():
            tables[name][scene.recipe, value] += 1
    assert min(chi_square_p(table) for table in tables.values()) > 0.01 / len(tables)


def test_another_recipe_changes_banner_and_dishes_only():
    scene = SCENES[0]
    recipe = (scene.recipe + 1) % 10
    segments = tuple(replace(s, action=COMMON + recipe) if s.action >= COMMON else s for s in scene.segments)
    a, b = (WORLD.record(s).frames_THWC for s in (scene, replace(scene, recipe=recipe, segments=segments)))
    differs_S = (a != b).any(axis=(1, 2, 3)).reshape(-1, 8).any(axis=1)
    dishes = {second for s in scene.segments if s.action >= COMMON for second in range(s.start, s.end)}
    assert set(np.flatnonzero(differs_S).tolist()) == {0, 1, 2} | dishes


def test_recall_in_closed_form():
    assert float(blind_recall(5)) == pytest.approx(19 / 24)
    assert round(float(blind_recall(5)), 3) == 0.792
    assert float(blind_recall(1)) == pytest.approx(15 / 24)
    assert float(blind_recall(10)) == 1
    for level, score in oracle_scores(WORLD, samples=200, seed=2).items():
        assert abs(score.value - WORLD.ceilings()[level]) <= 4 * score.error + 1e-12, level


@pytest.mark.parametrize("changed", [1, 60])
def test_seconds_are_coded_independently(changed):
    assert dependent_groups(WORLD, SCENES[0], changed=changed) == []


def test_all_is_painted_inside_the_canvas():
    for size in (32, 112):
        world = get_world("kitchen", size=size)
        frames_THWC = world.record(world.sample(0, "train", 1)).frames_THWC
        assert frames_THWC.shape == (960, size, size, 3)


def test_official_files_read_as_epic_kitchens(tmp_path):
    scenes = [WORLD.sample(0, split, index) for split in ("train", "val", "test") for index in range(20)]
    WORLD.export(tmp_path, scenes)
    (tmp_path / "videos").mkdir()
    for scene in scenes:
        (tmp_path / "videos" / f"{scene.id}.mp4").touch()
    annotations = read_epic_kitchens(tmp_path, anticipation=True)
    assert annotations.classes["verb"] == VERBS
    assert annotations.classes["noun"] == NOUNS
    assert annotations.classes["action"] == ACTION_NAMES
    found = {sample.id: sample for sample in annotations.samples}
    for scene in scenes:
        split = scene.split
        for number, segment in enumerate(scene.segments):
            sample = found[f"{scene.id}_{number}"]
            assert sample.path == tmp_path / "videos" / f"{scene.id}.mp4"
            assert sample.end == segment.start - 1
            labels = dict(zip(("verb", "noun"), ACTIONS[segment.action], strict=True)) | {"action": segment.action}
            assert sample.labels == ({} if split == "test" else labels)
            assert sample.meta["unseen"] == (split != "train" and scene.participant > 8)
    tail = annotations.facts["tail_nouns"]
    counts = Counter(s.labels["noun"] for s in annotations.samples if s.split == "train")
    assert sum(counts[noun] for noun in tail) <= 0.2 * counts.total()
    assert set(range(7, 17)) <= set(tail), "dishes are rare"
