"""What a clip of a stream is asked for, from the timed events of its video. K classes, P parts of a clip.

Of classes that exclude each other a part has the one whose event fills most of it, and at least half (our choice); of
several labels a part has all that its time shows, as `events.labels_between` says it of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wholereel.batches import IGNORED
from wholereel.datasets.sample import Event

__all__ = ["RULES", "begins_next", "fills_most", "labels_of_part", "shown_between"]

HALF = 0.5 - 1e-6
RULES = ("shown", "all", "next")  # of timed events; the others are the sample's own label


def fills_most(events: Sequence[Event], begin: float, end: float) -> int:
    """Class of the event that fills most of [begin, end); the earlier one of two equals; `IGNORED` below one half."""
    best, label = 0.0, IGNORED
    for event in events:
        shared = min(event.end, end) - max(event.start, begin)
        if shared > best + 1e-9:
            best, label = shared, event.label
    return label if best >= HALF * (end - begin) else IGNORED


def shown_between(events: Sequence[Event], begin: float, end: float, classes: int) -> Tensor:
    """Multi-hot K of the events that overlap the open interval."""
    shown_K = torch.zeros(classes)
    shown_K[[event.label for event in events if event.start < end and event.end > begin]] = 1.0
    return shown_K


def begins_next(events: Sequence[Event], begin: float, end: float) -> int:
    """Class of the first event that begins in [begin, end); `IGNORED` where none does."""
    starts = [(event.start, event.label) for event in events if begin - 1e-6 <= event.start < end - 1e-6]
    return min(starts)[1] if starts else IGNORED


def labels_of_part(
    events: Sequence[Event],
    begin: float,
    span: float,
    *,
    rule: str,
    hop: float,
    gap: float,
    parts: int,
    classes: int,
) -> Tensor:
    """Labels of the clip [begin, begin + span): int64, or float32 multi-hot with a last axis K.

    Args:
        rule: `shown`, `all` (multi-hot) or `next`, see `config.Streams`.
        hop, gap: seconds; of `next`.
        parts: P equal parts of the clip, each with a label of its own: axis P in front; 0 = one label, no such axis.
    Raises: ValueError: another rule.
    """
    if rule not in RULES:
        raise ValueError(f"clips are asked for one of {', '.join(RULES)}, got {rule!r}")
    length, found = span / max(parts, 1), []
    for part in range(max(parts, 1)):
        first, last = begin + part * length, begin + (part + 1) * length
        if rule == "all":
            found.append(shown_between(events, first, last, classes))
        elif rule == "shown":
            found.append(torch.tensor(fills_most(events, first, last)))
        else:
            # each event belongs to one clip, or one part of all: the last that ends before the gap
            found.append(torch.tensor(begins_next(events, last + gap, last + gap + (length if parts else hop))))
    return torch.stack(found) if parts else found[0]
