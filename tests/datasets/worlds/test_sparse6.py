"""sparse6: closed forms against simulation; what is salient is seen by motion alone and heard by sound alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.sparse6 import SLOT_FRAMES, SLOTS, dense_accuracy, random_accuracy
from wholereel.datasets.worlds.verify import decode, decode_sound

WORLD = get_world("sparse6")
SAMPLES_A_SLOT = 32_000


def simulated(clips, samples=100_000):
    """Votes of random slots: 2 of kind 0, 4 of kinds 1..5, 24 without; ties at random."""
    generator = np.random.default_rng(0)
    kind_NS = np.full((samples, SLOTS), 6)
    kind_NS[:, :2] = 0
    kind_NS[:, 2:6] = generator.integers(1, 6, size=(samples, 4))
    chosen_NS = generator.random((samples, SLOTS)).argsort(axis=1)[:, :clips]
    picked = np.take_along_axis(kind_NS, chosen_NS, axis=1)
    votes_NK = (picked[..., None] == np.arange(6)).sum(axis=1) + 0.5 * generator.random((samples, 6))
    return (votes_NK.argmax(axis=1) == 0).mean()


def test_dense_averaging_is_right_in_320_of_625():
    assert dense_accuracy() == Fraction(320, 625)
    assert random_accuracy(SLOTS) == dense_accuracy()
    assert WORLD.ceilings()["salient_2"] == 1.0


@pytest.mark.parametrize(("clips", "expected"), [(1, 0.2), (2, 0.2276), (4, 0.2692), (8, 0.3191)])
def test_random_clips(clips, expected):
    assert float(random_accuracy(clips)) == pytest.approx(expected, abs=5e-5)
    assert simulated(clips) == pytest.approx(expected, abs=0.006)


def test_slots_are_as_promised():
    for index in range(60):
        scene = WORLD.sample(1, "train", index)
        assert len({slot.slot for slot in scene.slots}) == 6
        salient = [slot for slot in scene.slots if slot.salient]
        assert [slot.label for slot in salient] == [scene.label] * 2
        assert all(slot.label != scene.label for slot in scene.slots if not slot.salient)
        assert all((slot.chirp is not None) == slot.salient == (slot.vx != 0) for slot in scene.slots)
        assert all(slot.chirp // SAMPLES_A_SLOT == slot.slot for slot in salient)


def test_motion_alone_and_sound_alone_find_the_two_slots(tmp_path):
    """In the decoded file: share of pixels that change from frame to frame, and energy of the sound, slot by slot."""
    for index in range(6):
        scene = WORLD.sample(2, "test", index)
        write_recording(tmp_path / "one.mp4", WORLD, WORLD.record(scene))
        salient = {slot.slot for slot in scene.slots if slot.salient}
        grey_STHW = decode(tmp_path / "one.mp4").astype(int).sum(axis=3).reshape(SLOTS, SLOT_FRAMES, 64, 64)
        # Without the first and last frames, in which every glyph appears and disappears.
        moved_S = (np.abs(np.diff(grey_STHW[:, 1:-1], axis=1)) > 60).mean(axis=(1, 2, 3))
        assert set(np.argsort(moved_S)[-2:].tolist()) == salient
        pcm_CS, _ = decode_sound(tmp_path / "one.mp4")
        energy_S = (pcm_CS[0].reshape(SLOTS, SAMPLES_A_SLOT) / 32767.0).std(axis=1)
        assert set(np.argsort(energy_S)[-2:].tolist()) == salient


def test_chirps_begin_at_their_sample(tmp_path):
    scene = WORLD.sample(0, "train", 0)
    write_recording(tmp_path / "one.mp4", WORLD, WORLD.record(scene))
    pcm_CS, rate = decode_sound(tmp_path / "one.mp4")
    for slot in scene.slots:
        if slot.chirp is not None:
            around = np.abs(pcm_CS[0, slot.chirp - rate // 20 : slot.chirp + rate // 20])
            assert np.flatnonzero(around > 0.2 * 32767)[0] == rate // 20
