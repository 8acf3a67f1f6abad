"""gblend4: Bayes rates by enumeration and simulation, cues at their sample, a hum for every video."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.gblend4 import HUM_HERTZ, PITCHES, bayes_accuracy
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.verify import decode_sound

WORLD = get_world("gblend4")
SCENES = [WORLD.sample(0, "train", index) for index in range(800)]


def test_bayes_rates():
    assert WORLD.ceilings() == pytest.approx({"video": 0.712, "audio": 7 / 12, "both": 0.7984444444}, abs=1e-8)
    assert bayes_accuracy([]) == 0.25
    assert bayes_accuracy([0.6]) == pytest.approx(0.6)
    # Three votes of 0.6: all or two right, or all different and a lucky one in three (1 - 2/9 of pairs of wrong ones).
    three = 0.6**3 + 3 * 0.6**2 * 0.4 + 3 * 0.6 * 0.4**2 * (2 / 3) / 3
    assert three == pytest.approx(0.712)


def test_cues_are_right_as_often_as_said():
    seen = [event.kind == scene.label for scene in SCENES for event in scene.seen]
    heard = [tone.label == scene.label for scene in SCENES for tone in scene.heard]
    assert len(seen) == len(heard) == 2400
    assert np.mean(seen) == pytest.approx(0.6, abs=4 * (0.24 / 2400) ** 0.5)
    assert np.mean(heard) == pytest.approx(0.5, abs=4 * (0.25 / 2400) ** 0.5)
    wrong = Counter((e.kind - s.label) % 4 for s in SCENES for e in s.seen if e.kind != s.label)
    assert chi_square_p([list(wrong.values()), [sum(wrong.values()) / 3] * 3]) > 0.01


def test_every_video_hums_by_itself():
    assert all(len(set(scene.hum)) == 5 for scene in SCENES)
    # 42,504 sets: of 800 draws nearly all differ.
    assert len({scene.hum for scene in SCENES}) > 780
    assert min(abs(pitch - hum) for pitch in PITCHES for hum in HUM_HERTZ) > 400
    assert all(len({event.segment for event in scene.seen}) == 3 for scene in SCENES)


def test_pitches_and_hum_are_in_the_file(tmp_path):
    scene = SCENES[0]
    write_recording(tmp_path / "one.mp4", WORLD, WORLD.record(scene))
    pcm_CS, rate = decode_sound(tmp_path / "one.mp4")
    wave_S = pcm_CS[0] / 32767
    strength = np.abs(np.fft.rfft(wave_S)) / len(wave_S) * 2
    hum = [hertz for hertz in HUM_HERTZ if strength[int(hertz * len(wave_S) / rate)] > 0.04]
    assert tuple(hum) == scene.hum
    time_S = np.arange(rate // 5) / rate
    for tone in scene.heard:
        piece_S = wave_S[tone.start : tone.start + rate // 5]
        heard = [abs(piece_S @ np.exp(-2j * np.pi * pitch * time_S)) for pitch in PITCHES]
        assert np.argmax(heard) == tone.label
        # Nothing of the tone is there before its first sample.
        before_S = wave_S[tone.start - 160 : tone.start]
        assert abs(before_S @ np.exp(-2j * np.pi * PITCHES[tone.label] * time_S[:160])) / 160 < 0.05
