"""Average precision and recall of key points by object key-point similarity (OKS), as COCO measures them.

Source: cocodataset/cocoapi (`pycocotools/cocoeval.py`, `keypoints`), whose numbers this gives without the package.
Axes: G true persons, D detections of an image, J joints, T thresholds of similarity.
Not here: files (`evaluation/files/coco.py`, which can also run pycocotools itself).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["COCO_SIGMAS", "DetectedPoses", "KeypointAP", "TruePoses", "similarity_DG"]

COCO_SIGMAS = (
    .026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087, .089, .089,
)  # fmt: skip
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
DETECTIONS = 20  # best ones of an image
AREAS = {"": (0.0, 1e10), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class TruePoses:
    """Annotated persons of one image.

    Args:
        joint_GJ3: x, y, visibility (0 = not labelled). area_G: of the segment. box_G4: x, y, width, height.
        crowd_G: bool, regions that several detections may match and none need match.
    """

    joint_GJ3: np.ndarray
    area_G: np.ndarray
    box_G4: np.ndarray
    crowd_G: np.ndarray


@dataclass(frozen=True)
class DetectedPoses:
    """Predicted persons of one image: joint_DJ2 in pixels, score_D of the person."""

    joint_DJ2: np.ndarray
    score_D: np.ndarray


@dataclass(frozen=True)
class _Image:
    """By range of areas: scores, which detections match and which do not count (T, D), persons to be found."""

    score_D: np.ndarray
    matched: tuple[np.ndarray, ...]
    ignored: tuple[np.ndarray, ...]
    wanted: tuple[int, ...]
    persons: int


def similarity_DG(detected: DetectedPoses, truth: TruePoses, sigma_J: np.ndarray) -> np.ndarray:
    """OKS: mean over labelled joints of exp(-d^2 / (2 * area * (2 * sigma)^2)), in [0, 1].

    For a person without a labelled joint, d is the distance of each predicted joint to the person's box, enlarged by
    its own width and height on every side.
    """
    labelled_GJ = truth.joint_GJ3[..., 2] > 0
    offset = detected.joint_DJ2[:, None] - truth.joint_GJ3[None, ..., :2]  # D, G, J, 2
    low_G2 = truth.box_G4[:, :2] - truth.box_G4[:, 2:]
    high_G2 = truth.box_G4[:, :2] + 2 * truth.box_G4[:, 2:]
    joint = detected.joint_DJ2[:, None]
    outside = np.maximum(0.0, low_G2[None, :, None] - joint) + np.maximum(0.0, joint - high_G2[None, :, None])
    known_G = np.asarray(labelled_GJ.any(1))
    offset = np.where(known_G[None, :, None, None], offset, outside)
    scale_GJ = (2 * sigma_J) ** 2 * (truth.area_G[:, None] + np.spacing(1)) * 2
    near_DGJ = np.exp(-(offset**2).sum(-1) / scale_GJ)
    counted_GJ = labelled_GJ | ~known_G[:, None]
    return (near_DGJ * counted_GJ).sum(-1) / counted_GJ.sum(-1)


@dataclass(frozen=True)
class KeypointAP:
    """COCO's ten numbers, gathered image by image.

    Args:
        sigmas: spread of each joint.
        images: results by image id; an image that is known already does not count again.
    """

    sigmas: tuple[float, ...] = COCO_SIGMAS
    images: Mapping[int, _Image] = field(default_factory=dict)

    def update(self, image: int, truth: TruePoses, detected: DetectedPoses) -> KeypointAP:
        """With one more image.

        Raises: ValueError: another number of joints than sigmas.
        """
        joints = {truth.joint_GJ3.shape[1], detected.joint_DJ2.shape[1]}
        if joints != {len(self.sigmas)}:
            raise ValueError(f"{sorted(joints)} joints for {len(self.sigmas)} sigmas")
        return self.merge(KeypointAP(self.sigmas, {image: _judge(truth, detected, np.array(self.sigmas))}))

    def merge(self, other: KeypointAP) -> KeypointAP:
        """Both sets of images together, those in both once."""
        if self.sigmas != other.sigmas:
            raise ValueError("cannot merge average precisions made with other sigmas")
        return KeypointAP(self.sigmas, {**other.images, **self.images})

    def compute(self) -> dict[str, float]:
        """`AP`, `AP50`, `AP75`, `AP_medium`, `AP_large` and the same for `AR`; -1 (COCO's word) where undefined."""
        images = [self.images[name] for name in sorted(self.images)]
        precision, recall = zip(*(_curves(images, place) for place in range(len(AREAS))), strict=True)
        values: dict[str, float] = {}
        for name, table in (("AP", precision), ("AR", recall)):
            values[name] = _mean(table[0])
            values |= {f"{name}{title}": _mean(table[0][place : place + 1]) for title, place in (("50", 0), ("75", 5))}
            values |= {f"{name}{title}": _mean(table[place]) for place, title in enumerate(AREAS) if title}
        return values

    def counts(self) -> dict[str, int]:
        """Images, persons, those that must be found, detections."""
        parts = self.images.values()
        return {
            "images": len(self.images),
            "persons": sum(part.persons for part in parts),
            "counted_persons": sum(part.wanted[0] for part in parts),
            "detections": sum(len(part.score_D) for part in parts),
        }


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if len(known) else -1.0


def _judge(truth: TruePoses, detected: DetectedPoses, sigma_J: np.ndarray) -> _Image:
    best_D = np.argsort(-detected.score_D, kind="stable")[:DETECTIONS]
    detected = DetectedPoses(detected.joint_DJ2[best_D], detected.score_D[best_D])
    oks_DG = similarity_DG(detected, truth, sigma_J)
    span = np.ptp(detected.joint_DJ2, axis=1) if len(best_D) else np.empty((0, 2))
    area_D = span[:, 0] * span[:, 1]
    uncounted_G = truth.crowd_G.astype(bool) | ~(truth.joint_GJ3[..., 2] > 0).any(1)
    matched, ignored, wanted = [], [], []
    for low, high in AREAS.values():
        skip_G = uncounted_G | (truth.area_G < low) | (truth.area_G > high)
        order_G = np.argsort(skip_G, kind="stable")
        hits = [
            _match(oks_DG[:, order_G], skip_G[order_G], truth.crowd_G[order_G].astype(bool), threshold)
            for threshold in THRESHOLDS
        ]
        matched_TD, skipped_TD = (np.array(part).reshape(len(THRESHOLDS), -1) for part in zip(*hits, strict=True))
        outside_D = (area_D < low) | (area_D > high)
        matched.append(matched_TD)
        ignored.append(skipped_TD | (~matched_TD & outside_D))
        wanted.append(int((~skip_G).sum()))
    return _Image(detected.score_D, tuple(matched), tuple(ignored), tuple(wanted), len(truth.area_G))


def _match(
    oks_DG: np.ndarray, skip_G: np.ndarray, crowd_G: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection the most similar free person; persons that do not count stand behind all others."""
    matched_D, skipped_D = (np.zeros(len(oks_DG), dtype=bool) for _ in range(2))
    taken_G = np.zeros(len(skip_G), dtype=bool)
    for place, oks_G in enumerate(oks_DG):
        for part_G in (~skip_G, skip_G):
            open_G = part_G & (~taken_G | crowd_G) & (oks_G >= min(threshold, 1 - 1e-10))
            if open_G.any():
                # of equal similarities the last, as the reference replaces at equality
                best = np.flatnonzero(open_G & (oks_G == oks_G[open_G].max()))[-1]
                taken_G[best] = matched_D[place] = True
                skipped_D[place] = skip_G[best]
                break
    return matched_D, skipped_D


def _curves(images: Sequence[_Image], area: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, 101) at fixed recalls and final recall (T,) of one range of areas; -1 without persons."""
    precision, recall = np.full((len(THRESHOLDS), len(RECALLS)), -1.0), np.full(len(THRESHOLDS), -1.0)
    wanted = sum(image.wanted[area] for image in images)
    if not wanted:
        return precision, recall
    order = np.argsort(-np.concatenate([image.score_D for image in images]), kind="stable")
    matched_TD = np.concatenate([image.matched[area] for image in images], axis=1)[:, order]
    counted_TD = ~np.concatenate([image.ignored[area] for image in images], axis=1)[:, order]
    right_TD = np.cumsum(matched_TD & counted_TD, axis=1).astype(np.float64)
    wrong_TD = np.cumsum(~matched_TD & counted_TD, axis=1).astype(np.float64)
    for place, (right_D, wrong_D) in enumerate(zip(right_TD, wrong_TD, strict=True)):
        reached_D = right_D / wanted
        share_D = np.maximum.accumulate((right_D / (wrong_D + right_D + np.spacing(1)))[::-1])[::-1]
        index = np.searchsorted(reached_D, RECALLS, side="left")
        precision[place] = np.append(share_D, 0.0)[index]
        recall[place] = reached_D[-1] if len(reached_D) else 0.0
    return precision, recall
