"""Which classes a part of a video shows, from its timed events; and timed events from labels frame by frame.

K classes. The rule is that of Charades: a frame at time t shows a class if start < t < end, strictly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from wholereel.datasets.sample import Event

__all__ = ["events_of_frames", "labels_between", "labels_of_frames"]

SLACK = 1e-9  # a frame's time is a quotient; one that misses a border by rounding alone lies on it


def labels_between(events: Iterable[Event], first: int, last: int, frame_rate: float) -> tuple[int, ...]:
    """Classes of all frames from `first` to `last`, both included: the target of a clip between them.

    Args:
        events: of the video.
        first, last: frame numbers, from 0; frame n is shown at n / frame_rate seconds.
        frame_rate: frames per second.
    Returns: class indices, increasing.
    """
    shown = set()
    for event in events:
        begin = math.floor(event.start * frame_rate + SLACK) + 1  # the first frame behind the start
        end = math.ceil(event.end * frame_rate - SLACK) - 1  # the last one before the end
        if max(begin, first) <= min(end, last):
            shown.add(event.label)
    return tuple(sorted(shown))


def labels_of_frames(events: Sequence[Event], frames: int, frame_rate: float) -> list[tuple[int, ...]]:
    """Classes of each of the frames of a video."""
    return [labels_between(events, frame, frame, frame_rate) for frame in range(frames)]


def events_of_frames(labels: Sequence[Iterable[int]], frame_rate: float) -> tuple[Event, ...]:
    """Events that give these labels back: each run of frames of a class, with half a frame around it.

    Args:
        labels: the classes of each frame.
        frame_rate: frames per second.
    Returns: in the order of their starts, then of their classes.
    """
    runs: list[tuple[int, int, int]] = []
    open_runs: dict[int, int] = {}
    for frame, found in enumerate([*labels, ()]):
        now = set(found)
        for label in sorted(open_runs.keys() - now):
            runs.append((open_runs.pop(label), label, frame - 1))
        for label in now - open_runs.keys():
            open_runs[label] = frame
    return tuple(
        Event(label, (begin - 0.5) / frame_rate, (end + 0.5) / frame_rate) for begin, label, end in sorted(runs)
    )
