"""Scenes: pure functions of seed and index, balanced, events in place, only the kinds tied to the label."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from wholereel.datasets.worlds import WORLDS, get_world
from wholereel.datasets.worlds.event_world import EventWorld
from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.errors import ConfigError

GLYPH_WORLDS = [name for name, world in WORLDS.items() if issubclass(world, EventWorld)]
TWO_EVENTS = ("match8", "pair6", "order2")


def chi_square_p(table):
    """p-value of independence of rows and columns (Wilson and Hilferty's normal approximation)."""
    table = np.asarray(table, float)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    chi = ((table - expected) ** 2 / expected).sum()
    free = (table.shape[0] - 1) * (table.shape[1] - 1)
    z = ((chi / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))
    return 0.5 * math.erfc(z / math.sqrt(2))


def scenes_of(name, count, seed=0, split="train"):
    world = get_world(name)
    return world, [world.sample(seed, split, index) for index in range(count)]


@pytest.mark.parametrize("name", GLYPH_WORLDS)
def test_a_scene_is_a_function_of_seed_split_and_index(name):
    world, scenes = scenes_of(name, 40)
    assert [world.sample(0, "train", index) for index in reversed(range(40))] == scenes[::-1]
    others = [world.sample(seed, split, index) for seed, split in ((1, "train"), (0, "val")) for index in range(40)]
    assert len({scene.id for scene in scenes + others}) == 120
    assert len({scene.paint_seed for scene in scenes + others}) == 120


@pytest.mark.parametrize("name", GLYPH_WORLDS)
def test_labels_are_balanced_and_true(name):
    world, _ = scenes_of(name, 0)
    for split, count in world.sizes("smoke").items():
        assert count >= 16
        scenes = [world.sample(5, split, index) for index in range(count)]
        assert Counter(scene.label for scene in scenes) == dict.fromkeys(
            range(len(world.classes)), count // len(world.classes)
        )
        assert all(world.video_label(scene.events) == scene.label for scene in scenes)


def test_sizes_of_the_profiles():
    world = get_world("match8")
    assert world.sizes("std") == {"train": 2000, "val": 300, "test": 700}
    assert world.sizes("full")["train"] == 20_000
    assert get_world("pair6").sizes("std") == {"train": 2004, "val": 300, "test": 702}
    with pytest.raises(ConfigError, match="unknown profile 'tiny'; choose one of smoke, std, full"):
        world.sizes("tiny")


@pytest.mark.parametrize("name", TWO_EVENTS)
def test_no_clip_of_three_seconds_sees_both_events(name):
    world, scenes = scenes_of(name, 300)
    for scene in scenes:
        first, second = scene.events
        assert second.segment - first.segment >= 2
        assert second.start - (first.start + first.frames - 1) >= world.group_frames + 3
        for event in scene.events:
            offset = event.start - event.segment * world.group_frames
            assert 1 <= offset <= world.group_frames - event.frames - 1
            assert 0 <= event.x <= world.size - event.side
            assert 0 <= event.y <= world.size - event.side
    assert len({(scene.events[0].segment, scene.events[1].segment) for scene in scenes}) == 21


@pytest.mark.parametrize("name", TWO_EVENTS)
def test_label_tells_nothing_about_time_place_size_and_colour(name):
    world, scenes = scenes_of(name, 2500)
    nuisances = {
        "first segment": lambda s: s.events[0].segment,
        "second segment": lambda s: s.events[1].segment,
        "start": lambda s: s.events[0].start % world.group_frames,
        "later start": lambda s: s.events[1].start % world.group_frames,
        "side": lambda s: s.events[0].side - 16,
        "larger first": lambda s: int(s.events[0].side > s.events[1].side),
        "x": lambda s: s.events[0].x // 8,
        "red": lambda s: (s.events[0].color[0] - 150) // 15,
        "brighter first": lambda s: int(sum(s.events[0].color) > sum(s.events[1].color)),
        "paint seed": lambda s: s.paint_seed % 8,
        "id": lambda s: int(s.id, 16) % 8,
    }
    for nuisance, value in nuisances.items():
        table = np.zeros((len(world.classes), 32))
        for scene in scenes:
            table[scene.label, value(scene)] += 1
        # 1 % for the whole family of 3 worlds and 11 nuisances.
        assert chi_square_p(table) > 0.01 / (3 * len(nuisances)), nuisance


def test_match8_draws_kinds_uniformly():
    _, scenes = scenes_of("match8", 2000)
    pairs = Counter((s.events[0].kind, s.events[1].kind) for s in scenes if s.label == 0)
    assert len(pairs) == 56
    assert chi_square_p([list(pairs.values()), [1000 / 56] * 56]) > 0.01
    assert len(Counter(s.events[0].kind for s in scenes if s.label == 1)) == 8


def test_glyphs_differ_in_form():
    masks = np.stack([glyph_mask(kind, 16) for kind in range(len(NAMES))])
    overlap = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[i + 1 :]]
    assert max(overlap) < 0.85  # disc and square, at the smallest side: 0.8125 (without pixels: pi / 4)
    assert (masks == masks[:, :, ::-1]).all(), "a horizontal flip must not change a kind"
    with pytest.raises(ValueError, match=r"kind must be in 0\.\.7, got 8"):
        glyph_mask(8, 16)


@pytest.mark.parametrize("size", [32, 64, 112])
def test_rendering_shows_the_glyph_where_the_event_says(size):
    world = get_world("events8", size=size)
    scene = next(s for s in (world.sample(0, "train", i) for i in range(9)) if s.label == NAMES.index("square"))
    frames_THWC = world.record(scene).frames_THWC
    assert frames_THWC.shape == (24, size, size, 3)
    event = scene.events[0]
    y, x = event.y + event.side // 2, event.x + event.side // 2
    shown_T = (frames_THWC[:, y, x] == event.color).all(axis=1)
    assert np.flatnonzero(shown_T).tolist() == list(range(event.start, event.start + 8))
    with pytest.raises(ConfigError, match="even and at least 32, got 33"):
        get_world("events8", size=33)


def test_the_distractor_starts_anew_in_every_segment():
    """Else the square's path would tell the order of clips, and order2 would leak."""
    world = get_world("order2")
    frames_THWC = world.record(world.sample(0, "train", 0)).frames_THWC.astype(int)
    step_T = np.abs(np.diff(frames_THWC, axis=0)).sum(axis=(1, 2, 3))
    borders = np.arange(1, world.segments) * world.group_frames - 1
    assert np.median(step_T[borders]) > 2 * np.median(np.delete(step_T, borders))
