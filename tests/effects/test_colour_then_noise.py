"""What a memory teaches itself on "colour, then noise", and what a truncated gradient cannot teach."""

from __future__ import annotations

import pytest

from tests.effects.colour_then_noise import Videos, accuracies, learn

pytestmark = pytest.mark.effects


def test_within_reach_everything_is_known_and_nothing_leaks():
    task = learn(Videos(120, 3, range(3)))
    found = accuracies(task, steps=3)
    assert all(value >= 0.99 for value in found.values()), found
    foreign = accuracies(task, steps=3, foreign=True)
    assert all(0.10 <= foreign[step] <= 0.40 for step in (1, 2)), foreign


def test_without_memory_later_steps_are_guessed():
    found = accuracies(learn(Videos(60, 3, range(3)), remember=False), steps=3)
    assert found[0] >= 0.99
    assert all(0.15 <= found[step] <= 0.35 for step in (1, 2)), found


def test_asked_on_the_way_a_second_hop_is_learned():
    found = accuracies(learn(Videos(600, 3, range(3), seed=1, rows=16), reach=1, seed=1, constant=False), steps=7)
    assert min(found[0], found[1]) >= 0.99, found
    assert found[2] >= 0.75, found
    assert all(0.15 <= found[step] <= 0.35 for step in (5, 6)), found  # beyond four blocks


def test_nothing_teaches_a_second_hop():
    found = accuracies(learn(Videos(72, 5, (0, 4))), steps=5)
    assert found[0] >= 0.99
    assert 0.15 <= found[4] <= 0.35, found
