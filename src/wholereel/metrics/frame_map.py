"""Frame-level mean average precision of boxes with actions at IoU 0.5, as on AVA, in both public protocols.

Protocols: `slowfast` (facebookresearch/SlowFast, `slowfast/utils/ava_eval_helper.py`; all published SlowFast and MeMViT
numbers) and `activitynet_official` (activitynet/ActivityNet, `Evaluation/get_ava_performance.py`); they give clearly
different numbers. Extra axes: G rows of the truth, D rows of detections (a row = a box with one class), F key frames.
Ties of scores rank in input order, where the references leave it to an unstable sort.
Not here: the official files (`evaluation/files`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["BoxRows", "FrameMap", "FrameMapCounts", "Protocol", "PROTOCOLS", "interpolated_average_precision"]

Protocol = Literal["slowfast", "activitynet_official"]
PROTOCOLS: tuple[Protocol, ...] = ("slowfast", "activitynet_official")
IOU = 0.5
CAPACITY = 50  # rows that `activitynet_official` keeps of a key frame


@dataclass(frozen=True)
class BoxRows:
    """Boxes with one class each, in input order.

    Args:
        frame_R: index of the row's key frame among `frames`.
        box_R4: float64 x1, y1, x2, y2. class_R: class ids. score_R: 1 for the truth.
        frames: names of key frames; those without a row are known to be empty (or to hold other classes only).
    """

    frame_R: np.ndarray
    box_R4: np.ndarray
    class_R: np.ndarray
    score_R: np.ndarray
    frames: tuple[str, ...]

    def __post_init__(self) -> None:
        rows = len(self.frame_R)
        if (self.box_R4.shape, self.class_R.shape, self.score_R.shape) != ((rows, 4), (rows,), (rows,)):
            raise ValueError(
                f"{rows} rows need boxes ({rows}, 4), classes ({rows},) and scores ({rows},); got "
                f"{self.box_R4.shape}, {self.class_R.shape} and {self.score_R.shape}"
            )

    def __len__(self) -> int:
        return len(self.frame_R)

    def where(self, keep_R: np.ndarray) -> BoxRows:
        """Some of the rows (mask or places); the key frames stay known."""
        if keep_R.dtype == bool and keep_R.all():  # millions of rows: a copy takes longer than all the rest
            return self
        return BoxRows(
            self.frame_R[keep_R], self.box_R4[keep_R], self.class_R[keep_R], self.score_R[keep_R], self.frames
        )

    def without_frames(self, names: frozenset[str]) -> BoxRows:
        """Rows and names of the key frames that are not among `names`."""
        if names.isdisjoint(self.frames):
            return self
        keep_F = np.array([name not in names for name in self.frames], dtype=bool)
        number_F = np.cumsum(keep_F) - 1
        rows = self.where(keep_F[self.frame_R])
        frames = tuple(name for name, keep in zip(self.frames, keep_F, strict=True) if keep)
        return BoxRows(number_F[rows.frame_R], rows.box_R4, rows.class_R, rows.score_R, frames)

    @classmethod
    def joined(cls, parts: Sequence[BoxRows]) -> BoxRows:
        """Rows of all parts; of a key frame in several those of the first (padded samples count once)."""
        if not parts:
            none = np.empty(0, dtype=np.int64)
            return cls(none, np.empty((0, 4)), none, np.empty(0), ())
        number: dict[str, int] = {}
        kept: list[BoxRows] = []
        for part in parts:
            rest = part.without_frames(frozenset(name for name in part.frames if name in number))
            number |= {name: len(number) + place for place, name in enumerate(rest.frames)}
            kept.append(rest)
        if len(kept) == 1:
            return kept[0]
        begins = np.cumsum([0, *(len(part.frames) for part in kept)]).tolist()
        return cls(
            np.concatenate([part.frame_R + begin for part, begin in zip(kept, begins, strict=False)]),
            np.concatenate([part.box_R4 for part in kept]),
            np.concatenate([part.class_R for part in kept]),
            np.concatenate([part.score_R for part in kept]),
            tuple(number),
        )

    def sorted_by_frame(self) -> BoxRows:
        """Key frames by name, the rows of each in input order: independent of how samples were dealt out."""
        if list(self.frames) == sorted(self.frames):
            return self.grouped()
        order_F = np.array(sorted(range(len(self.frames)), key=self.frames.__getitem__), dtype=np.int64)
        place_F = np.empty(len(order_F), dtype=np.int64)
        place_F[order_F] = np.arange(len(order_F))
        frames = tuple(self.frames[index] for index in order_F)
        return BoxRows(place_F[self.frame_R], self.box_R4, self.class_R, self.score_R, frames).grouped()

    def by_first_row(self) -> BoxRows:
        """Key frames in the order of their first row, those without a row last."""
        seen_F, first_F = np.unique(self.frame_R, return_index=True)
        if (np.diff(first_F) > 0).all() and (np.diff(seen_F) == 1).all() and (not len(seen_F) or seen_F[0] == 0):
            return self
        place_F = np.full(len(self.frames), len(self.frame_R))
        place_F[seen_F] = first_F
        order_F = np.argsort(place_F, kind="stable")
        number_F = np.empty(len(order_F), dtype=np.int64)
        number_F[order_F] = np.arange(len(order_F))
        frames = tuple(self.frames[index] for index in order_F)
        return BoxRows(number_F[self.frame_R], self.box_R4, self.class_R, self.score_R, frames)

    def grouped(self) -> BoxRows:
        """Rows by key frame, those of each in input order."""
        if (np.diff(self.frame_R) >= 0).all():
            return self
        return self.where(np.argsort(self.frame_R, kind="stable"))


@dataclass(frozen=True)
class FrameMapCounts:
    """What stands behind a frame-mAP.

    Args:
        protocol: its name.
        ap: average precision in [0, 1] by class id; NaN for a class without a box in the truth.
        truth_boxes: rows of the truth by class id.
        frames_truth, frames_detected, frames_both: key frames with a row (or declared empty) on either side.
        rows_truth, rows_detected: that were judged.
        rows_ignored: detections that the protocol leaves out: on key frames outside the truth, and over the capacity.
    """

    protocol: Protocol
    ap: Mapping[int, float]
    truth_boxes: Mapping[int, int]
    frames_truth: int
    frames_detected: int
    frames_both: int
    rows_truth: int
    rows_detected: int
    rows_ignored: int

    @property
    def classes_with_truth(self) -> int:
        return sum(not np.isnan(value) for value in self.ap.values())

    def mean(self, classes: frozenset[int] | None = None) -> float:
        """mAP over all classes that have a box in the truth, or over those among `classes`; NaN if there is none."""
        values = [
            value for number, value in self.ap.items() if not np.isnan(value) and (classes is None or number in classes)
        ]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class FrameMap:
    """Frame-mAP, gathered batch by batch.

    Args:
        classes: ids of the classes that are evaluated; rows of others are dropped.
        excluded: names of key frames that are left out on both sides.
        truth, detections: rows so far, in parts.
        empty: key frames that are declared to show nothing; only `activitynet_official` needs to be told.
    """

    classes: tuple[int, ...]
    excluded: frozenset[str] = frozenset()
    truth: tuple[BoxRows, ...] = ()
    detections: tuple[BoxRows, ...] = ()
    empty: frozenset[str] = frozenset()

    def update(
        self,
        *,
        truth: BoxRows | None = None,
        detections: BoxRows | None = None,
        empty: frozenset[str] = frozenset(),
    ) -> FrameMap:
        """With the rows of further key frames; all rows of one come in one call. A known key frame is not changed."""
        return FrameMap(
            self.classes,
            self.excluded,
            self.truth + (() if truth is None else (truth,)),
            self.detections + (() if detections is None else (detections,)),
            self.empty | empty,
        )

    def merge(self, other: FrameMap) -> FrameMap:
        """Both sets of key frames together, those known to both once."""
        if (self.classes, self.excluded) != (other.classes, other.excluded):
            raise ValueError("cannot merge frame-mAPs of other classes or other excluded key frames")
        truth, detections = self.truth + other.truth, self.detections + other.detections
        return FrameMap(self.classes, self.excluded, truth, detections, self.empty | other.empty)

    def compute(self, protocol: Protocol = "slowfast", *, input_order: bool = False) -> FrameMapCounts:
        """Average precision of every class.

        Args:
            protocol: see the header.
            input_order: break ties of scores by the order of rows as they came in (that of a file); otherwise key
                frames go by name first, which several processes can reproduce.
        Raises: ValueError: unknown protocol.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol={protocol!r} is none of {', '.join(PROTOCOLS)}")
        classes_K = np.array(sorted(self.classes), dtype=np.int64)
        sides = (BoxRows.joined(self.truth), BoxRows.joined(self.detections))
        truth, detections = (part.without_frames(self.excluded) for part in sides)
        if not input_order:
            truth, detections = truth.sorted_by_frame(), detections.sorted_by_frame()
        truth, detections = (part.where(np.isin(part.class_R, classes_K)) for part in (truth, detections))
        if input_order:
            detections = detections.by_first_row()
        empty = (self.empty - self.excluded) if protocol == "activitynet_official" else frozenset()
        return _judge(truth, detections, classes_K, empty, protocol)


def _judge(
    truth: BoxRows, detections: BoxRows, classes_K: np.ndarray, empty: frozenset[str], protocol: Protocol
) -> FrameMapCounts:
    number = {name: place for place, name in enumerate(detections.frames)}
    for name in truth.frames:
        number.setdefault(name, len(number))
    frame_G = _renumbered(truth, number)
    declared = {number[name] for name in empty if name in number}
    known_F = np.zeros(len(number), dtype=bool)
    known_F[frame_G] = True
    known_F[list(declared)] = True
    found = len(detections)
    if protocol == "activitynet_official":
        detections = detections.where(_best_rows(detections))
        detections = detections.where(known_F[detections.frame_R])
    else:
        # the references gather image by image: rows follow their key frame's first appearance
        detections = detections.grouped()
    ignored = found - len(detections)
    box_D4 = detections.box_R4
    detections = detections.where((box_D4[:, 2] > box_D4[:, 0]) & (box_D4[:, 3] > box_D4[:, 1]))
    hit_D = _true_positives(truth, frame_G, detections, classes_K)
    class_D = np.searchsorted(classes_K, detections.class_R).astype(np.int16)
    boxes_K = np.bincount(np.searchsorted(classes_K, truth.class_R), minlength=len(classes_K))
    order_D = np.argsort(-detections.score_R, kind="stable")
    order_D = order_D[np.argsort(class_D[order_D], kind="stable")]  # 16 bits: numpy sorts them by counting
    bounds = np.searchsorted(class_D[order_D], np.arange(len(classes_K) + 1))
    ap_K = [
        interpolated_average_precision(hit_D[order_D[bounds[k] : bounds[k + 1]]], int(boxes_K[k]))
        for k in range(len(classes_K))
    ]
    seen_D = np.zeros(len(number), dtype=bool)
    seen_D[detections.frame_R] = True
    return FrameMapCounts(
        protocol=protocol,
        ap=dict(zip(classes_K.tolist(), ap_K, strict=True)),
        truth_boxes=dict(zip(classes_K.tolist(), boxes_K.tolist(), strict=True)),
        frames_truth=int(known_F.sum()) + len([name for name in empty if name not in number]),
        frames_detected=int(seen_D.sum()),
        frames_both=int((known_F & seen_D).sum()),
        rows_truth=len(truth),
        rows_detected=len(detections),
        rows_ignored=ignored,
    )


def _renumbered(rows: BoxRows, number: Mapping[str, int]) -> np.ndarray:
    common_F = np.array([number[name] for name in rows.frames], dtype=np.int64)
    return common_F[rows.frame_R]


def _best_rows(rows: BoxRows) -> np.ndarray:
    """Places of the best rows of each key frame, by key frame and descending score."""
    order_R = np.lexsort((-rows.score_R, rows.frame_R))  # stable
    frame_R = rows.frame_R[order_R]
    rank_R = np.arange(len(order_R)) - np.searchsorted(frame_R, frame_R)
    return order_R[rank_R < CAPACITY]


def _true_positives(truth: BoxRows, frame_G: np.ndarray, detections: BoxRows, classes_K: np.ndarray) -> np.ndarray:
    """Which detections take the box that they overlap most; the first in order takes it, there is no second choice."""
    hit_D = np.zeros(len(detections), dtype=bool)
    if not len(truth) or not len(detections):
        return hit_D
    group_G = frame_G * len(classes_K) + np.searchsorted(classes_K, truth.class_R)
    group_D = detections.frame_R * len(classes_K) + np.searchsorted(classes_K, detections.class_R)
    order_G = np.argsort(group_G, kind="stable")
    begin_D = np.searchsorted(group_G[order_G], group_D, side="left")
    count_D = np.searchsorted(group_G[order_G], group_D, side="right") - begin_D
    rival_E = np.flatnonzero(count_D)  # E: detections that have a box of their class on their key frame
    count_E = count_D[rival_E]
    first_E = np.cumsum(count_E) - count_E
    pair_D = np.repeat(rival_E, count_E)
    place_G = np.arange(len(pair_D)) - np.repeat(first_E, count_E) + np.repeat(begin_D[rival_E], count_E)
    overlap_P = _overlap(detections.box_R4[pair_D], truth.box_R4[order_G[place_G]])
    if not len(rival_E):
        return hit_D
    best_E = np.maximum.reduceat(overlap_P, first_E)
    # of equal overlaps the first box in input order; lowest place among those that reach the maximum
    reaches_P = overlap_P == np.repeat(best_E, count_E)
    chosen_E = np.minimum.reduceat(np.where(reaches_P, place_G, len(order_G)), first_E)
    claims = np.flatnonzero(best_E >= IOU)
    _, taken = np.unique(chosen_E[claims], return_index=True)
    hit_D[rival_E[claims[taken]]] = True
    return hit_D


def _overlap(a_P4: np.ndarray, b_P4: np.ndarray) -> np.ndarray:
    """Intersection over union of paired boxes; operations in the order of the references, so that 0.5 stays 0.5."""
    height = np.maximum(0.0, np.minimum(a_P4[:, 3], b_P4[:, 3]) - np.maximum(a_P4[:, 1], b_P4[:, 1]))
    width = np.maximum(0.0, np.minimum(a_P4[:, 2], b_P4[:, 2]) - np.maximum(a_P4[:, 0], b_P4[:, 0]))
    shared = height * width
    area_a, area_b = ((box[:, 3] - box[:, 1]) * (box[:, 2] - box[:, 0]) for box in (a_P4, b_P4))
    union = area_a + area_b - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def interpolated_average_precision(hit_D: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve, precision made monotone from the right (all points, PASCAL VOC).

    Args:
        hit_D: bool, detections in descending order of score.
        positives: boxes of the truth.
    Returns: in [0, 1]; NaN without positives, 0 without detections.
    """
    if not positives:
        return float("nan")
    if not len(hit_D):
        return 0.0
    hits = np.cumsum(hit_D)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hit_D) + 1))[::-1])[::-1]
    # recall rises by 1 / positives at each hit and nowhere else
    return float(precision[hit_D].sum() / positives)
