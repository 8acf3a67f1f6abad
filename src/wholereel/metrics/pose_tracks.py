"""Average precision and tracking accuracy of poses in videos, as PoseTrack measures them.

Source: leonid-pishchulin/poseval. Distances are in head sizes (0.6 times the diagonal of the head box); a joint matches
at 0.5 or less (PCKh). Axes: P persons of a frame (G true, D predicted), J joints, two numbers x and y.
Not here: the official files (`evaluation/files`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wholereel.metrics.clear_mot import MotCounts, Tracker
from wholereel.metrics.frame_map import interpolated_average_precision
from wholereel.metrics.polygons import inside_polygons

__all__ = ["GROUPS", "JOINTS", "PoseFrame", "PoseTracks", "Persons", "without_ignored"]

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "nose", "head_top",
)  # fmt: skip
GROUPS = {
    "Head": ("head_top", "neck", "nose"),
    "Shou": ("right_shoulder", "left_shoulder"),
    "Elb": ("right_elbow", "left_elbow"),
    "Wri": ("right_wrist", "left_wrist"),
    "Hip": ("right_hip", "left_hip"),
    "Knee": ("right_knee", "left_knee"),
    "Ankl": ("right_ankle", "left_ankle"),
}
NEAR = 0.5
NO_SCORE = -9999.0  # of a predicted joint without a score


@dataclass(frozen=True)
class Persons:
    """The persons of one frame.

    Args:
        joint_PJ2: float64 pixels; NaN = missing.
        score_PJ: of predicted joints. head_P4: x1, y1, x2, y2 of the true head box.
        track_P: identities, each once; `None` where there are none, then tracking is not measured.
    """

    joint_PJ2: np.ndarray
    score_PJ: np.ndarray
    head_P4: np.ndarray
    track_P: np.ndarray | None

    def __len__(self) -> int:
        return len(self.joint_PJ2)

    def where(self, keep_P: np.ndarray) -> Persons:
        """Some of the persons."""
        track_P = None if self.track_P is None else self.track_P[keep_P]
        return Persons(self.joint_PJ2[keep_P], self.score_PJ[keep_P], self.head_P4[keep_P], track_P)


@dataclass(frozen=True)
class PoseFrame:
    """One labelled frame: what is there, what was predicted, and polygons whose inside does not count."""

    truth: Persons
    predicted: Persons
    ignored: tuple[np.ndarray, ...] = ()


def without_ignored(frame: PoseFrame) -> PoseFrame:
    """Without the joints strictly inside an ignored polygon, on both sides, and persons that have no joint left.

    A frame without polygons stays as it is: there, a person whose list of joints is empty remains a person.
    """
    if not frame.ignored:
        return frame
    parts = []
    for persons in (frame.truth, frame.predicted):
        joint_PJ2 = persons.joint_PJ2.copy()
        joint_PJ2[inside_polygons(joint_PJ2, frame.ignored)] = np.nan
        kept = Persons(joint_PJ2, persons.score_PJ, persons.head_P4, persons.track_P)
        parts.append(kept.where(~np.isnan(joint_PJ2).any(-1).all(-1)))
    return PoseFrame(parts[0], parts[1])


@dataclass(frozen=True)
class _Sequence:
    """Results of one sequence: by joint, scores and hits of predicted joints, labelled joints, tracking counts."""

    score: tuple[np.ndarray, ...]
    hit: tuple[np.ndarray, ...]
    labelled_J: np.ndarray
    reference: tuple[MotCounts, ...] | None
    full: tuple[MotCounts, ...] | None
    frames: int
    persons: int
    predictions: int


@dataclass(frozen=True)
class PoseTracks:
    """AP and MOTA over sequences, gathered sequence by sequence.

    Args:
        sequences: results by name; a sequence that is known already does not count again.
    """

    sequences: Mapping[str, _Sequence] = field(default_factory=dict)

    def update(self, name: str, frames: Sequence[PoseFrame]) -> PoseTracks:
        """With one more sequence: its labelled frames, in order.

        Raises: ValueError: an identity that occurs twice in a frame.
        """
        return self.merge(PoseTracks({name: _sequence([without_ignored(frame) for frame in frames])}))

    def merge(self, other: PoseTracks) -> PoseTracks:
        """Both sets of sequences together, those in both once."""
        return PoseTracks({**other.sequences, **self.sequences})

    def compute(self, *, strict_reference: bool = True) -> dict[str, float]:
        """In [0, 1] (MOTA may be negative): `AP/nose`, `AP/Head`, `AP/total`, and `precision`, `recall`, `MOTA`, ...

        `MOTA`, `MOTP`, `track_precision` and `track_recall` are there where all sequences have identities. Totals are
        means over joints that have a value, groups over their joints.

        Args:
            strict_reference: track as the public code does: without the last frame of every sequence, with one missed
                and one false person (of all joints) in a frame where one side is empty, and with an MOTP over
                `MotCounts.event_distance`, which counts distances twice and more. Otherwise every frame counts as it
                is, and MOTP is 1 - mean distance of the matches.
        """
        parts = [self.sequences[name] for name in sorted(self.sequences)]
        table = _average_precisions(parts)
        chosen = [part.reference if strict_reference else part.full for part in parts]
        if parts and all(one is not None for one in chosen):
            counts = [MotCounts()] * len(JOINTS)
            for one in chosen:
                counts = [a.merge(b) for a, b in zip(counts, one or (), strict=True)]
            if strict_reference:
                counts = [replace(count, distance=count.event_distance) for count in counts]
            values = [count.value() for count in counts]
            names = {"MOTA": "mota", "MOTP": "motp", "track_precision": "precision", "track_recall": "recall"}
            table |= {title: np.array([value[name] for value in values]) for title, name in names.items()}
        return {f"{title}/{name}": value for title, row in table.items() for name, value in _with_means(row).items()}

    def counts(self) -> dict[str, int]:
        """Sequences, labelled frames, true and predicted persons, labelled joints."""
        parts = self.sequences.values()
        return {
            "sequences": len(self.sequences),
            "frames": sum(part.frames for part in parts),
            "persons": sum(part.persons for part in parts),
            "predicted_persons": sum(part.predictions for part in parts),
            "joints": int(sum(part.labelled_J.sum() for part in parts)),
        }


def _with_means(value_J: np.ndarray) -> dict[str, float]:
    named = dict(zip(JOINTS, value_J.tolist(), strict=True))
    groups = {group: float(np.mean([named[joint] for joint in joints])) for group, joints in GROUPS.items()}
    known = value_J[~np.isnan(value_J)]
    return {**named, **groups, "total": float(known.mean()) if len(known) else float("nan")}


def _average_precisions(parts: Sequence[_Sequence]) -> dict[str, np.ndarray]:
    table = {name: np.zeros(len(JOINTS)) for name in ("AP", "precision", "recall")}
    for joint in range(len(JOINTS)):
        score = np.concatenate([part.score[joint] for part in parts]) if parts else np.empty(0)
        hit = np.concatenate([part.hit[joint] for part in parts]) if parts else np.empty(0, dtype=bool)
        if not len(score):  # zero even where nothing is labelled, as in the public code
            continue
        labelled = int(sum(part.labelled_J[joint] for part in parts))
        order = np.argsort(-score, kind="stable")
        table["AP"][joint] = interpolated_average_precision(hit[order], labelled)
        table["precision"][joint] = hit.mean()
        table["recall"][joint] = hit.sum() / labelled if labelled else np.nan
    return table


def _sequence(frames: Sequence[PoseFrame]) -> _Sequence:
    labelled_J = np.zeros(len(JOINTS), dtype=np.int64)
    scores: list[list[np.ndarray]] = [[] for _ in JOINTS]
    hits: list[list[np.ndarray]] = [[] for _ in JOINTS]
    distances = [_distance_DGJ(frame) for frame in frames]
    for frame, distance_DGJ in zip(frames, distances, strict=True):
        hit_DJ = _hits_DJ(frame, distance_DGJ)
        there_DJ = _there(frame.predicted)
        labelled_J += _there(frame.truth).sum(0)
        for joint in range(len(JOINTS)):
            scores[joint].append(frame.predicted.score_PJ[there_DJ[:, joint], joint])
            hits[joint].append(hit_DJ[there_DJ[:, joint], joint])
    tracked = all(persons.track_P is not None for frame in frames for persons in (frame.truth, frame.predicted))
    return _Sequence(
        score=tuple(np.concatenate(part) if part else np.empty(0) for part in scores),
        hit=tuple(np.concatenate(part) if part else np.empty(0, dtype=bool) for part in hits),
        labelled_J=labelled_J,
        reference=_track(frames[:-1], distances[:-1], phantoms=True) if tracked else None,
        full=_track(frames, distances, phantoms=False) if tracked else None,
        frames=len(frames),
        persons=sum(len(frame.truth) for frame in frames),
        predictions=sum(len(frame.predicted) for frame in frames),
    )


def _there(persons: Persons) -> np.ndarray:
    """Which joints a person has, (P, J)."""
    return ~np.isnan(persons.joint_PJ2).any(-1)


def _distance_DGJ(frame: PoseFrame) -> np.ndarray:
    """In head sizes; infinite where a joint is missing on either side."""
    head_G4 = frame.truth.head_P4
    size_G = 0.6 * np.linalg.norm(head_G4[:, 2:] - head_G4[:, :2], axis=-1)
    offset = frame.predicted.joint_PJ2[:, None] - frame.truth.joint_PJ2[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance_DGJ = np.linalg.norm(offset, axis=-1) / size_G[None, :, None]
    return np.where(np.isnan(distance_DGJ), np.inf, distance_DGJ)


def _hits_DJ(frame: PoseFrame, distance_DGJ: np.ndarray) -> np.ndarray:
    """Which predicted joints match those of the true person that their person is assigned to."""
    hit_DJ = np.zeros((len(frame.predicted), len(JOINTS)), dtype=bool)
    if not len(frame.predicted) or not len(frame.truth):
        return hit_DJ
    near_DGJ = distance_DGJ <= NEAR
    labelled_G = _there(frame.truth).sum(1)
    share_DG = near_DGJ.sum(2) / np.maximum(labelled_G, 1)
    # a prediction keeps its best true person only, then a true person its best prediction (first on ties)
    best_D = share_DG.argmax(1)
    kept_DG = np.where(np.arange(len(frame.truth)) == best_D[:, None], share_DG, 0.0)
    chosen_G = kept_DG.argmax(0)
    for true in np.flatnonzero(kept_DG.max(0) > 0):
        hit_DJ[chosen_G[true]] = near_DGJ[chosen_G[true], true]
    return hit_DJ


def _track(frames: Sequence[PoseFrame], distances: Sequence[np.ndarray], *, phantoms: bool) -> tuple[MotCounts, ...]:
    trackers = [Tracker() for _ in JOINTS]
    for frame, distance_DGJ in zip(frames, distances, strict=True):
        identities = [_identities(persons) for persons in (frame.truth, frame.predicted)]
        lonely = phantoms and not (len(frame.truth) and len(frame.predicted))
        there_GJ, there_DJ = _there(frame.truth), _there(frame.predicted)
        for joint, tracker in enumerate(trackers):
            if lonely:
                tracker.update([-1], [-1], np.full((1, 1), np.nan))
                continue
            true, claimed = np.flatnonzero(there_GJ[:, joint]), np.flatnonzero(there_DJ[:, joint])
            distance_GD = distance_DGJ[:, :, joint].T[np.ix_(true, claimed)]
            tracker.update(
                [identities[0][place] for place in true],
                [identities[1][place] for place in claimed],
                np.where(distance_GD <= NEAR, distance_GD, np.nan),
            )
    return tuple(tracker.counts for tracker in trackers)


def _identities(persons: Persons) -> list[int]:
    identities = [] if persons.track_P is None else persons.track_P.tolist()
    if len(set(identities)) != len(identities):
        raise ValueError(f"identities must be unique inside a frame, got {sorted(identities)}")
    return identities
