"""CLEAR-MOT counts: how well hypotheses with identities follow objects over the frames of a sequence.

Source: Bernardin and Stiefelhagen 2008, with the matching order of cheind/py-motmetrics: a pair of the frame before is
kept while it may match; what is left is matched as cheaply as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from wholereel.metrics.assignment import cheapest_matching

__all__ = ["MotCounts", "Tracker"]


@dataclass(frozen=True)
class MotCounts:
    """Counts of one or many sequences.

    Args:
        objects: over all frames. detections: of them matched, also to another identity than before.
        misses, false_positives: unmatched objects and hypotheses. switches: matches to another identity than before.
        distance: sum over matches.
        event_distance: sum over all rows of py-motmetrics' table of events: matches, all pairs that might match, and
            once more those that newly belong to another object or hypothesis (`TRANSFER`, `ASCEND`, `MIGRATE`).
    """

    objects: int = 0
    detections: int = 0
    misses: int = 0
    false_positives: int = 0
    switches: int = 0
    distance: float = 0.0
    event_distance: float = 0.0

    def merge(self, other: MotCounts) -> MotCounts:
        """Counts of both."""
        return MotCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def value(self) -> dict[str, float]:
        """`mota`, `motp` (1 - mean distance; 0 without matches), `precision`, `recall`; NaN where there is nothing."""
        objects = self.objects or float("nan")
        claims = self.detections + self.false_positives or float("nan")
        return {
            "mota": 1.0 - (self.misses + self.switches + self.false_positives) / objects,
            "motp": 1.0 - self.distance / self.detections if self.detections else 0.0,
            "precision": self.detections / claims,
            "recall": self.detections / objects,
        }


class Tracker:
    """Counts one sequence, frame by frame.

    Attributes:
        counts: so far.
    """

    def __init__(self) -> None:
        self.counts = MotCounts()
        self._partner: dict[int, int] = {}  # of objects
        self._owner: dict[int, int] = {}  # of hypotheses, as far as they were newly matched
        self._matched_objects: set[int] = set()
        self._matched_hypotheses: set[int] = set()

    def update(self, objects: Sequence[int], hypotheses: Sequence[int], distance_OH: np.ndarray) -> None:
        """Count one frame.

        Args:
            objects, hypotheses: identities, each once.
            distance_OH: NaN where a pair may not match.
        """
        free_OH = np.array(distance_OH, dtype=np.float64)
        pairs = self._kept_pairs(objects, hypotheses, free_OH)
        for row, column in pairs:
            free_OH[row, :] = np.nan
            free_OH[:, column] = np.nan
        self._matched_objects.update(objects[row] for row, _ in pairs)
        self._matched_hypotheses.update(hypotheses[column] for _, column in pairs)
        switches, extra = 0, float(np.nansum(distance_OH))
        for row, column in cheapest_matching(free_OH):
            switched, rows = self._match(objects[row], hypotheses[column])
            switches += switched
            extra += rows * float(distance_OH[row, column])
            pairs.append((row, column))
        distance = float(sum(distance_OH[pair] for pair in pairs))
        self.counts = self.counts.merge(
            MotCounts(
                objects=len(objects),
                detections=len(pairs),
                misses=len(objects) - len(pairs),
                false_positives=len(hypotheses) - len(pairs),
                switches=switches,
                distance=distance,
                event_distance=distance + extra,
            )
        )

    def _kept_pairs(
        self, objects: Sequence[int], hypotheses: Sequence[int], distance_OH: np.ndarray
    ) -> list[tuple[int, int]]:
        """Pairs of earlier frames that may still match; of objects that shared a hypothesis the first keeps it."""
        column = {identity: place for place, identity in enumerate(hypotheses)}
        pairs, taken = [], set()
        for row, identity in enumerate(objects):
            place = column.get(self._partner[identity]) if identity in self._partner else None
            if place is not None and place not in taken and np.isfinite(distance_OH[row, place]):
                pairs.append((row, place))
                taken.add(place)
        return pairs

    def _match(self, identity: int, hypothesis: int) -> tuple[bool, int]:
        """Note a new pair: is it a switch, and how many further rows would the table of events have?"""
        switched = self._partner.get(identity, hypothesis) != hypothesis
        rows = int(switched and hypothesis not in self._matched_hypotheses)
        if self._owner.get(hypothesis, identity) != identity:
            rows += 1 + (identity not in self._matched_objects)
        self._matched_hypotheses.add(hypothesis)
        self._matched_objects.add(identity)
        self._partner[identity], self._owner[hypothesis] = hypothesis, identity
        return switched, rows
