"""av_bounce and what follows it: exact onsets, a process without a beginning, rhythms and timbres."""

from __future__ import annotations

import csv
import wave
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.formats.esc50 import read_esc50
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.av_bounce import SECONDS, SHIFTS, _cut, _draw_pair, draw_starts, in_step
from wholereel.datasets.worlds.ball import BOUNCE_RATE, INTERVALS, draw_touches, heights
from wholereel.datasets.worlds.bounce_material import TIMBRES
from wholereel.datasets.worlds.bounce_rhythm import RHYTHMS, draw_rhythm, rhythm_of
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.sound import SAMPLE_RATE, noise
from wholereel.datasets.worlds.verify import decode, decode_sound

WORLD = get_world("av_bounce")


def test_tones_begin_where_the_ball_touches_the_floor(tmp_path):
    for index in range(4):
        scene = WORLD.sample(0, "train", index)
        write_recording(tmp_path / "one.mp4", WORLD, WORLD.record(scene))
        pcm_CS, rate = decode_sound(tmp_path / "one.mp4")
        onsets = WORLD.truth(scene)["meta"]["onsets"]
        loud = np.flatnonzero(np.abs(pcm_CS[0]) > 0.4 * 32767)
        begins = [int(at) for at in loud if not ((loud < at) & (loud > at - 4000)).any()]
        assert begins == onsets
        # The decoded ball is lowest in one of the two frames around each touch.
        touches = scene.ball.inside(SECONDS - 2 / BOUNCE_RATE)
        height_T = heights(scene.ball.touches, np.arange(int(SECONDS * BOUNCE_RATE)) / BOUNCE_RATE)
        for touch in touches:
            frame = touch * BOUNCE_RATE
            assert min(height_T[int(frame)], height_T[int(frame) + 1]) < 7
        frames_THWC = decode(tmp_path / "one.mp4").astype(int)
        color = np.array(scene.ball.color)
        lowest = int(np.argmin(height_T))
        row = np.flatnonzero((np.abs(frames_THWC[lowest] - color).max(axis=2) < 40).any(axis=1)).max()
        assert abs(row - (61 - height_T[lowest])) <= 2
        assert rate == SAMPLE_RATE


def test_the_bounces_have_no_beginning():
    """At any moment: the same law of the interval around it (by length), and of the part that has passed."""
    generator = np.random.default_rng(0)
    low, high = INTERVALS
    for moment in (0.0, 3.0, 5.5):
        touches = [np.array(draw_touches(SECONDS, generator)) for _ in range(3000)]
        place = [np.searchsorted(touch, moment, side="right") for touch in touches]
        length_N = np.array([touch[n] - touch[n - 1] for touch, n in zip(touches, place, strict=True)])
        part_N = np.array([moment - touch[n - 1] for touch, n in zip(touches, place, strict=True)]) / length_N
        uniform_N = (length_N**2 - low**2) / (high**2 - low**2)
        for value_N in (uniform_N, part_N):
            counts = np.histogram(value_N, bins=10, range=(0, 1))[0]
            assert counts.sum() == 3000
            assert chi_square_p([counts, [300] * 10]) > 0.01


@pytest.mark.parametrize("kind", SHIFTS)
def test_negatives_are_as_far_away_as_their_kind_says(kind):
    generator = np.random.default_rng(1)
    low, high = SHIFTS[kind]
    gaps = [abs(a - b) for a, b in (draw_starts(kind, generator) for _ in range(500))]
    assert low <= min(gaps) < max(gaps) < high


def test_half_a_frame_of_doubt_is_enough_for_super_hard_pairs():
    """Whoever knows bounces to the nearest frame only is right in more than 99 of 100 cases."""
    generator = np.random.default_rng(2)
    right = 0
    for index in range(2000):
        scene = WORLD.sample(4, "train", index)
        seen, heard, positive = _draw_pair(scene, "super_hard", generator)
        assert min(len(seen), len(heard)) >= 3
        frames = tuple(round(t * BOUNCE_RATE) / BOUNCE_RATE for t in seen)
        right += in_step(frames, heard, tolerance=0.5 / BOUNCE_RATE + 1e-9) == positive
    assert right / 2000 > 0.99
    assert _cut(scene.ball, 0.0) == tuple(t for t in scene.ball.touches if 0 <= t < 2.75)


def test_rhythms_have_as_many_short_intervals_as_long_ones():
    assert len(RHYTHMS) == 4
    for pattern in RHYTHMS.values():
        assert pattern.count("S") == pattern.count("L")


def test_no_seven_intervals_occur_in_two_rhythms():
    rows = [{(pattern * 8)[place : place + 7] for place in range(len(pattern))} for pattern in RHYTHMS.values()]
    assert len(set.union(*rows)) == sum(map(len, rows)) == 2 + 4 + 6 + 6
    generator = np.random.default_rng(5)
    touches = [draw_rhythm(pattern, generator) for pattern in RHYTHMS.values() for _ in range(500)]
    assert min(sum(0 <= time < SECONDS for time in touch) - 1 for touch in touches) == 7


def test_one_moment_of_a_rhythm_is_as_high_as_of_any_other():
    generator = np.random.default_rng(3)
    counts = []
    for pattern in RHYTHMS.values():
        touches = [draw_rhythm(pattern, generator) for _ in range(1500)]
        moments = np.arange(1500) % 95 / BOUNCE_RATE
        height_N = [heights(touch, moments[n : n + 1])[0] for n, touch in enumerate(touches)]
        counts.append(np.histogram(height_N, bins=8, range=(0, 45))[0])
    assert chi_square_p(counts) > 0.01


def test_the_intervals_tell_the_rhythm():
    generator = np.random.default_rng(4)
    for label, pattern in enumerate(RHYTHMS.values()):
        for _ in range(200):
            touches = tuple(t for t in draw_rhythm(pattern, generator) if 0 <= t < SECONDS)
            assert rhythm_of(touches) == label
    world = get_world("bounce_rhythm")
    labels = Counter(world.truth(world.sample(0, "train", index))["label"] for index in range(32))
    assert labels == dict.fromkeys(RHYTHMS, 8)


def test_timbres_are_heard_in_the_noise():
    """Which timbre's exact sound, taken away, leaves least? Right even in the loudest noise."""
    world = get_world("bounce_material")
    scenes = [world.sample(1, "fold2", index) for index in range(24)]
    assert {scene.decibel for scene in scenes} == {-40.0, -30.0, -20.0}
    for scene in scenes:
        wave_S, noise_S = world.wave(scene), noise(scene.paint_seed, 5.0, decibel=scene.decibel)
        sounds = [world.wave(replace(scene, label=label)) - noise_S for label in range(len(TIMBRES))]
        left = [((wave_S - sound_S) ** 2).sum() for sound_S in sounds]
        assert np.argmin(left) == scene.label
        # By far: two sounds at distance d are confused when noise goes d / 2 in that direction.
        assert (sorted(left)[1] - min(left)) ** 0.5 / 2 > 10 * 10 ** (scene.decibel / 20)


def test_material_is_exported_as_esc50(tmp_path):
    world = get_world("bounce_material")
    scenes = [world.sample(0, f"fold{fold}", index) for fold in (1, 2) for index in range(4)]
    world.export(tmp_path, scenes)
    annotations = read_esc50(tmp_path / "official", fold=2)
    assert [sample.split for sample in annotations.samples] == ["train"] * 4 + ["test"] * 4
    assert [sample.labels["label"] for sample in annotations.samples] == [scene.label for scene in scenes]
    assert annotations.classes["label"] == world.classes
    with (tmp_path / "official" / "meta" / "esc50.csv").open() as lines:
        assert next(csv.reader(lines)) == ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    with wave.open(str(annotations.samples[0].path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 80_000)
        pcm_S = np.frombuffer(file.readframes(80_000), "<i2")
    assert (pcm_S == world.record(scenes[0]).pcm_CS[0]).all()
