"""finemotion8: two decoded frames tell the direction, one does not, and backwards it is the opposite."""

from __future__ import annotations

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.finemotion8 import COHERENCE, DIRECTIONS, LIFE, best_direction, shift
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.verify import decode
from wholereel.errors import ConfigError


@pytest.mark.parametrize("step", [2, 4, 6])
def test_decoded_frames_tell_the_direction_and_its_opposite_backwards(step, tmp_path):
    """24 of 24 files, from two frames next to each other."""
    world = get_world("finemotion8", step=step)
    for index in range(8):
        scene = world.sample(0, "train", index)
        write_recording(tmp_path / "one.mp4", world, world.record(scene))
        grey_THW = decode(tmp_path / "one.mp4").astype(float).sum(axis=3)
        dots_THW = grey_THW - np.median(grey_THW, axis=0)
        assert best_direction(dots_THW[7], dots_THW[8]) == scene.label
        assert best_direction(dots_THW[8], dots_THW[7]) == (scene.label + 4) % 8


def test_dots_of_one_frame_are_spread_evenly_whatever_the_label():
    world = get_world("finemotion8")
    table = np.zeros((8, 64))
    for index in range(400):
        scene = world.sample(1, "train", index)
        place_D2 = world.dots(scene)[index % 16]
        np.add.at(table[scene.label], (place_D2 // 8) @ (1, 8), 1)
    assert chi_square_p(table) > 0.01
    assert chi_square_p([table.sum(axis=0), [table.sum() / 64] * 64]) > 0.01


def test_half_of_the_dots_move_together():
    world = get_world("finemotion8")
    shares = []
    for index in range(60):
        scene = world.sample(2, "train", index)
        place_TD2 = world.dots(scene)
        moved_TD2 = (place_TD2[1:] - place_TD2[:-1] - shift(scene.label, scene.step)) % 64
        shares.append((moved_TD2 == 0).all(axis=2).mean())
    # Coherent ones and, by chance, one in eight of the others; none in the step in which a dot is born anew.
    expected = (1 - 1 / LIFE) * (COHERENCE + (1 - COHERENCE) / 8)
    assert np.mean(shares) == pytest.approx(expected, abs=0.005)


def test_opposite_directions_are_four_apart():
    vectors = list(DIRECTIONS.values())
    assert all((-x, -y) == vectors[(n + 4) % 8] for n, (x, y) in enumerate(vectors))
    assert [round(np.hypot(*shift(1, step))) for step in (2, 4, 6)] == [1, 4, 6]
    with pytest.raises(ConfigError, match="must be 2, 4 or 6 pixels a frame, or 0 for all, got 3"):
        get_world("finemotion8", step=3)
