"""ava_rooms_clips: the key frame's clip shows what is touched, people are those of the rooms, it reads as a set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world, verify_world
from wholereel.datasets.worlds.room_painting import box_at
from wholereel.datasets.worlds.room_schedule import KINDS, X_RANGE, path_of
from wholereel.datasets.worlds.verify import dependent_groups

WORLD = get_world("ava_rooms_clips")
SCENES = [WORLD.sample(0, "train", index) for index in range(240)]
AGENTS = [agent for scene in SCENES for agent in scene.agents]
KEY_CLIP = (4, 8)  # frames that a clip of half a second around the key frame shows


def test_people_are_those_of_the_rooms():
    assert {len(scene.agents) for scene in SCENES} == {2, 3}
    assert {agent.deeds[0].action for agent in AGENTS} == set(range(6))
    for agent in AGENTS:
        x_T = path_of(agent.x, agent.deeds)
        assert len(x_T) == 16
        assert X_RANGE[0] <= x_T.min() <= x_T.max() <= X_RANGE[1]
    touching = np.mean([len(agent.carries) for agent in AGENTS])
    assert 0.74 < touching < 0.86
    assert {carry.start for agent in AGENTS for carry in agent.carries} == {1, 2}


def test_the_clip_around_the_key_frame_shows_the_kind():
    for scene in SCENES[:12]:
        for number, agent in enumerate(scene.agents):
            for carry in agent.carries:
                other = replace(agent, carries=(replace(carry, kind=(carry.kind + 1) % 4),))
                agents = (*scene.agents[:number], other, *scene.agents[number + 1 :])
                a, b = (WORLD.record(s).frames_THWC for s in (scene, replace(scene, agents=agents)))
                differs_T = (a != b).any(axis=(1, 2, 3))
                assert np.flatnonzero(differs_T).tolist() == list(range(8 * carry.start - 8, 8 * carry.start))
                assert differs_T[list(KEY_CLIP)].sum() == 1


def test_kinds_depend_on_nothing_else():
    values = {
        "start": lambda agent, carry: carry.start,
        "side": lambda agent, carry: carry.side + 1,
        "red": lambda agent, carry: carry.color[0] // 16,
        "agent": lambda agent, carry: agent.color[1] // 16,
        "lane": lambda agent, carry: agent.lane,
        "action": lambda agent, carry: agent.deeds[0].action,
    }
    for what, value in values.items():
        table = np.zeros((len(KINDS), 24))
        for agent in AGENTS:
            for carry in agent.carries:
                table[carry.kind, value(agent, carry)] += 1
        assert chi_square_p(table) > 0.01 / len(values), what


def test_an_oracle_that_names_another_label_is_not_right():
    scene = SCENES[0]
    right = WORLD.oracle("clip")(scene, np.random.default_rng(0))
    assert WORLD.right(scene, right) == 1
    assert WORLD.right(scene, [right[0][:1] if len(right[0]) > 1 else [*right[0], 9], *right[1:]]) < 1


@pytest.mark.parametrize("changed", [0, 1])
def test_seconds_are_coded_independently(changed):
    assert dependent_groups(WORLD, SCENES[0], changed=changed) == []


def test_the_folder_reads_as_a_set_of_key_frames(tmp_path):
    folder = make_world("ava_rooms_clips", tmp_path / "clips", sizes={"train": 3, "val": 1, "test": 1})
    assert verify_world(folder) == []
    manifest = read_manifest(folder, split="train")
    assert manifest.multi_label
    for sample, scene in zip(manifest.samples, SCENES, strict=False):
        assert sample.key_seconds == 1.0
        assert [box.labels for box in sample.boxes] == [
            tuple(labels) for labels in WORLD.oracle("clip")(scene, np.random.default_rng(0))
        ]
        for box, agent in zip(sample.boxes, scene.agents, strict=True):
            assert box.xyxy == pytest.approx(tuple(np.array(box_at(agent, 1)) / (128, 96, 128, 96)), abs=1e-6)
