"""The worlds of sound, sticks, stills and moving objects: files as promised, ceilings reached, no leak in one frame."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.datasets.worlds.frame_probes import HIDDEN, cell_means, decoded_frames, interval, linear_accuracy
from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import WORLDS, get_world, make_world, verify_world
from wholereel.errors import ConfigError

OPTIONS = {
    "sparse6": [{}],
    "sparse6_clips": [{}],
    "av_bounce": [{}],
    "bounce_rhythm": [{}],
    "bounce_material": [{}],
    "gblend4": [{}],
    "finemotion8": [{}, {"step": 6}],
    "sticks": [{}, {"motion": "fast"}],
    "stick_actions": [{}],
    "stills_clips": [{}],
    "stills_clips_stills": [{}, {"conflict": True}],
    "motion_objects": [{}, {"label_noise": 0.1}],
    "distinit_transfer": [{}],
    "stills_objects": [{}],
    "stills_scenes": [{}],
    "unlabelled_mix": [{}],
    "hashtags": [{}, {"length": "long"}],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


def few(world):
    """Two blocks of the first split, none of the others."""
    first, *others = world.std_sizes
    return {first: 2 if world.block == 1 else world.block} | dict.fromkeys(others, 0)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_made_files_are_what_the_world_says(name, options, tmp_path):
    """Codec, sound to the sample, hashes, exports and oracles on their ceilings: all that verify looks at."""
    world = get_world(name, **options)
    folder = make_world(name, tmp_path, sizes=few(world), options=options)
    assert verify_world(folder) == []
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    manifest = read_manifest(folder, labels=tuple(world.label_spaces()))
    assert [sample.id for sample in manifest.samples] == [row["id"] for row in rows]
    assert manifest.classes == {space: tuple(names) for space, names in world.label_spaces().items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_scene_is_a_function_of_seed_split_and_index(name):
    world = get_world(name)
    first, *others = world.std_sizes
    scenes = [world.sample(0, first, index) for index in range(20)]
    assert [world.sample(0, first, index) for index in reversed(range(20))] == scenes[::-1]
    more = [world.sample(1, first, index) for index in range(20)]
    more += [world.sample(0, split, index) for split in others for index in range(20)]
    assert len({scene.id for scene in scenes + more}) == len(scenes + more)
    assert len({scene.paint_seed for scene in scenes + more}) == len(scenes + more)
    assert (world.record(scenes[0]).frames_THWC == world.record(scenes[0]).frames_THWC).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_videos_of_a_world_look_alike_from_outside(name):
    """Equal length, size and sound format, but for the two lengths of hashtags."""
    world = get_world(name, **({"length": "long"} if name == "hashtags" else {}))
    split = next(iter(world.std_sizes))
    recordings = [world.record(world.sample(2, split, index)) for index in range(6)]
    assert len({recording.frames_THWC.shape for recording in recordings}) == 1
    assert len({None if recording.pcm_CS is None else recording.pcm_CS.shape for recording in recordings}) == 1
    with pytest.raises(ConfigError, match="even and at least 32, got 31"):
        get_world(name, size=31)


@pytest.mark.parametrize("name", OPTIONS)
def test_any_even_canvas_from_32_pixels_on(name):
    for size in (32, 50):
        world = get_world(name, size=size)
        recording = world.record(world.sample(0, next(iter(world.std_sizes)), 1))
        assert recording.frames_THWC.shape[1:] == (size, size, 3)
    assert set(world.companions) <= WORLDS.keys()


def test_timbres_are_equally_loud():
    world = get_world("bounce_material")
    scenes = [world.sample(0, "fold1", index) for index in range(200)]
    loudness_N = np.array([world.wave(scene).std() for scene in scenes])
    rank_N = loudness_N.argsort().argsort() * 5 // 200
    table = np.zeros((4, 5))
    np.add.at(table, (np.array([scene.label for scene in scenes]), rank_N), 1)
    assert chi_square_p(table) > 0.01


PAINTED = {
    "finemotion8": 200,
    "bounce_rhythm": 160,
    "stick_actions": 100,
    "motion_objects": 200,
    "distinit_transfer": 200,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_one_decoded_frame_tells_nothing(name):
    (label, ceiling), count = HIDDEN[name], PAINTED[name]
    pictures_NHWC, labels_N, outside_NF = decoded_frames(get_world(name), count=count, label=label)
    low, high = interval(ceiling, count // 2, tests=2 * len(HIDDEN))
    assert low <= linear_accuracy(cell_means(pictures_NHWC), labels_N) <= high
    assert low <= linear_accuracy(outside_NF, labels_N) <= high


def test_the_probe_finds_what_is_there():
    generator = np.random.default_rng(0)
    labels_N = generator.integers(0, 4, size=300)
    noise_NF = generator.standard_normal((300, 4))
    low, high = interval(0.25, 150)
    assert low <= linear_accuracy(noise_NF, labels_N) <= high
    planted_NF = noise_NF + 2 * labels_N[:, None] * (1, 0, 0, 0)
    assert linear_accuracy(planted_NF, labels_N) > 0.4


NUISANCES = {
    "sparse6": {
        "first slot": lambda s: s.slots[0].slot // 3,
        "salient first": lambda s: int(s.slots[0].salient),
        "side": lambda s: next(slot.side for slot in s.slots if slot.salient) - 16,
        "pitch": lambda s: int(next(slot.hertz for slot in s.slots if slot.salient) // 50),
    },
    "sparse6_clips": {"moves": lambda s: int(s.slots[0].salient), "x": lambda s: int(s.slots[0].x // 8)},
    "bounce_rhythm": {"bounces": lambda s: len(s.ball.inside(6.0)), "red": lambda s: (s.ball.color[0] - 150) // 15},
    "bounce_material": {
        "noise": lambda s: int(-s.decibel // 10),
        "pitch": lambda s: int(s.hertz // 50),
        "bounces": lambda s: len(s.ball.inside(5.0)),
    },
    "gblend4": {
        "hum": lambda s: int(s.hum[0] // 100),
        "first cue": lambda s: s.seen[0].segment,
        "first tone": lambda s: s.heard[0].start // 16_000,
    },
    "finemotion8": {"step": lambda s: s.step, "paint seed": lambda s: s.paint_seed % 8},
    "stick_actions": {"head": lambda s: int(s.figure.head * 4), "x": lambda s: int(s.figure.root[0][0] // 8)},
    "stills_clips": {"style": lambda s: s.style, "x": lambda s: int(s.x // 3), "side": lambda s: s.side},
    "stills_clips_stills": {"style": lambda s: s.style, "x": lambda s: int(s.x // 3)},
    "motion_objects": {
        "x": lambda s: int(s.mover.x // 8),
        "side": lambda s: int(s.mover.side // 2),
        "red": lambda s: s.mover.color[0] // 15,
    },
    "stills_objects": {"x": lambda s: s.x // 8, "side": lambda s: s.side // 2},
}


@pytest.mark.parametrize("name", NUISANCES)
def test_label_tells_nothing_about_what_means_nothing(name):
    world = get_world(name)
    split = next(iter(world.std_sizes))
    scenes = [world.sample(0, split, index) for index in range(1000)]
    for nuisance, value in NUISANCES[name].items():
        values = [value(scene) for scene in scenes]
        kinds = sorted(set(values))
        table = np.zeros((len(world.classes), len(kinds)))
        for scene, found in zip(scenes, values, strict=True):
            table[scene.label, kinds.index(found)] += 1
        # 1 % for the whole family.
        assert chi_square_p(table) > 0.01 / sum(map(len, NUISANCES.values())), nuisance
