"""Strict borders, targets of clips, and labels of frames there and back."""

import pytest

from wholereel.datasets.events import events_of_frames, labels_between, labels_of_frames
from wholereel.datasets.sample import Event

EVENTS = (Event(92, 0.5, 1.0), Event(147, 0.0, 0.5), Event(3, 2.01, 2.02))


def brute_force(first: int, last: int, rate: float) -> tuple[int, ...]:
    times = [frame / rate for frame in range(first, last + 1)]
    return tuple(sorted({event.label for event in EVENTS for time in times if event.start < time < event.end}))


@pytest.mark.parametrize("rate", [24.0, 30.0, 29.97, 10.0, 100.0])
def test_clip_targets_are_those_of_its_frames_with_strict_borders(rate):
    for first in range(60):
        for last in (first, first + 1, first + 30):
            assert labels_between(EVENTS, first, last, rate) == brute_force(first, last, rate)


def test_borders_are_strict():
    assert labels_between(EVENTS, 12, 12, 24.0) == ()  # 0.5 s: one has ended, the other not begun
    assert labels_between(EVENTS, 11, 13, 24.0) == (92, 147)
    assert labels_between(EVENTS, 0, 0, 24.0) == ()
    assert labels_between(EVENTS, 48, 49, 24.0) == ()  # no frame falls into the short one


def test_labels_of_frames_and_back():
    labels = [(), (1,), (1, 4), (4,), (4,), (1,), (1,)]
    events = events_of_frames(labels, 24.0)
    assert [event.label for event in events] == [1, 4, 1]
    assert labels_of_frames(events, len(labels), 24.0) == labels
    assert labels_of_frames(events_of_frames([(0,)], 24.0), 1, 24.0) == [(0,)]
