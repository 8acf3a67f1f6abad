"""Poses of a video whose pictures were scaled: joints count pixel centres, boxes and regions borders."""

from __future__ import annotations

from dataclasses import replace

from wholereel.datasets.sample import Pose, Sample

__all__ = ["scaled_poses"]

Corners = tuple[float, float, float, float]


def scaled_poses(sample: Sample, wide: float, high: float) -> Sample:
    """The sample with everything that is given in pixels.

    Args:
        sample: its poses, and the ignored regions in its meta, are in pixels of the stored picture.
        wide, high: new width and height in units of the old ones.
    """
    if wide == high == 1.0:
        return sample
    meta = dict(sample.meta)
    if "ignored" in meta:
        meta["ignored"] = {
            frame: [[[x * wide, y * high] for x, y in polygon] for polygon in polygons]
            for frame, polygons in meta["ignored"].items()
        }
    return replace(sample, poses=tuple(_scaled(pose, wide, high) for pose in sample.poses), meta=meta)


def _scaled(pose: Pose, wide: float, high: float) -> Pose:
    joints = tuple(
        None if joint is None else ((joint[0] + 0.5) * wide - 0.5, (joint[1] + 0.5) * high - 0.5, joint[2])
        for joint in pose.joints
    )
    return replace(pose, joints=joints, head=_corners(pose.head, wide, high), box=_corners(pose.box, wide, high))


def _corners(box: Corners | None, wide: float, high: float) -> Corners | None:
    return None if box is None else (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)
