"""Poses: PoseTrack's AP and MOTA, COCO's key-point AP, from their JSON files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wholereel.evaluation.files.coco import keypoint_ap, read_coco, run_pycocotools
from wholereel.evaluation.files.posetrack import read_pose_sequences
from wholereel.evaluation.official.report import ClassValue, Report
from wholereel.metrics.keypoint_ap import COCO_SIGMAS
from wholereel.metrics.pose_tracks import GROUPS, JOINTS, PoseTracks

__all__ = ["keypoint_report", "posetrack_report"]

POSETRACK = (
    "AP and CLEAR-MOT by joint as in leonid-pishchulin/poseval: PCKh at half a head size, persons assigned greedily, "
    "frames without annotated persons and joints in ignored regions left out"
)
STRICT = (
    "; tracking as the public code counts it: without the last frame of every sequence, one miss and one false person "
    "a joint where a frame has persons on one side only, MOTP over all candidate pairs"
)
FULL = "; tracking over all frames as they are"


def posetrack_report(truth: str | Path, predictions: str | Path, *, strict_reference: bool = True) -> Report:
    """Evaluate a folder of predicted sequences (or one file) in either layout.

    Args:
        truth, predictions: folders with a JSON file a sequence, or two files.
        strict_reference: which way of counting tracks is reported first; the other is reported as `..._full` or
            `..._reference`.
    Raises: DataError: a file that is not as expected or has no counterpart.
    """
    tracks = PoseTracks()
    for name, frames in read_pose_sequences(truth, predictions).items():
        tracks = tracks.update(name, frames)
    values, other = tracks.compute(strict_reference=strict_reference), tracks.compute(
        strict_reference=not strict_reference
    )  # fmt: skip
    names = [*GROUPS, "total"]
    metrics = {f"AP/{name}": values[f"AP/{name}"] for name in names}
    metrics |= {f"{kind}/total": values[f"{kind}/total"] for kind in ("precision", "recall")}
    if "MOTA/total" in values:
        metrics |= {f"MOTA/{name}": values[f"MOTA/{name}"] for name in names}
        tracking = ("MOTP", "track_precision", "track_recall")
        metrics |= {f"{kind}/total": values[f"{kind}/total"] for kind in tracking}
        suffix = "full" if strict_reference else "reference"
        metrics |= {f"{kind}_{suffix}/total": other[f"{kind}/total"] for kind in ("MOTA", *tracking)}
    counts = tracks.counts()
    rows = tuple(ClassValue(joint, counts["persons"], values[f"AP/{joint}"]) for joint in JOINTS)
    text = POSETRACK + (
        (STRICT if strict_reference else FULL) if "MOTA/total" in values else "; no identities, no MOTA"
    )
    return Report({"name": "PoseTrack", "text": text, "strict_reference": strict_reference}, counts, metrics, rows)


def keypoint_report(
    truth: str | Path,
    predictions: str | Path,
    *,
    sigmas: Sequence[float] = COCO_SIGMAS,
    engine: Literal["wholereel", "pycocotools"] = "wholereel",
) -> Report:
    """Evaluate COCO results of key points.

    Args:
        truth: the annotation file. predictions: the list of results.
        sigmas: one a joint.
        engine: ours, or COCO's own tool (extra `pose`); they give the same numbers.
    Raises: DataError: a file that is not as expected. MissingExtraError: pycocotools is not installed.
    """
    data, results = read_coco(truth, predictions)
    measured = keypoint_ap(data, results, sigmas)
    metrics = run_pycocotools(data, results, sigmas) if engine == "pycocotools" else measured.compute()
    protocol = {
        "name": "COCO key points",
        "text": f"OKS 0.50:0.05:0.95, 20 detections an image, by {engine}; -1 = none",
    }
    return Report(protocol | {"engine": engine}, measured.counts(), metrics, percent=False)
