"""What holds for every world: pure scenes, truth ready for JSON, sizes, levels, a lawful recording, and oracles."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from wholereel.datasets.worlds import WORLDS, get_world
from wholereel.datasets.worlds.verify import oracle_problems
from wholereel.errors import ConfigError

FEW = 24


@pytest.fixture(params=WORLDS)
def world(request):
    return get_world(request.param)


def test_scenes_are_functions_of_seed_split_and_index(world):
    first, *others = world.std_sizes
    scenes = [world.sample(0, first, index) for index in range(FEW)]
    assert [world.sample(0, first, index) for index in reversed(range(FEW))] == scenes[::-1]
    assert [(scene.split, scene.index) for scene in scenes] == [(first, index) for index in range(FEW)]
    more = [world.sample(0, split, index) for split in others for index in range(FEW)]
    more += [world.sample(1, first, index) for index in range(FEW)]
    assert len({scene.id for scene in scenes + more}) == len(scenes + more)
    with pytest.raises(ConfigError, match="unknown split 'dev'; choose one of"):
        world.sample(0, "dev", 0)


def test_truth_is_ready_for_json_and_balanced(world):
    spaces = world.label_spaces()
    for split, count in world.sizes("smoke").items():
        assert count % world.block == 0
        labels = Counter()
        for index in range(world.block if world.balanced and world.classes else 2):
            truth = world.truth(world.sample(0, split, index))
            assert json.loads(json.dumps(truth)).keys() == truth.keys()
            assert truth.keys() <= {*spaces, "boxes", "events", "poses", "key_seconds", "meta"}
            for column in spaces.keys() & truth.keys():
                found = truth[column] if isinstance(truth[column], list) else [truth[column]]
                assert set(found) <= set(spaces[column]) | {None}
            labels[str(truth.get("label"))] += 1
        if world.balanced and world.classes:
            assert labels == dict.fromkeys(world.classes, 1)


def test_recordings_can_be_written_and_are_pure(world):
    scene = world.sample(0, next(iter(world.std_sizes)), 1)
    one, two = world.record(scene), world.record(scene)
    frames, height, width, channels = one.frames_THWC.shape
    assert one.frames_THWC.dtype == np.uint8
    assert channels == 3
    assert (one.frames_THWC == two.frames_THWC).all()
    assert all(0 <= moment < frames for moment in world.moments(scene))
    if world.frame_rate:
        assert height % 2 == width % 2 == 0
        assert frames % world.group_frames == 0
    else:
        assert frames == 1
    if one.pcm_CS is not None:
        assert one.pcm_CS.shape[1] == frames * one.sample_rate // world.frame_rate
        assert (one.pcm_CS == two.pcm_CS).all()


def test_oracles_keep_to_the_ceilings(world):
    assert world.oracles().keys() <= world.ceilings().keys()
    # Few scenes: each world's own test takes more.
    assert oracle_problems(world, seed=11, samples=min(200, world.oracle_samples)) == []


def test_companions_exist():
    for name, world in WORLDS.items():
        assert world.name == name
        assert set(world.companions) <= WORLDS.keys() - {name}
