"""Poses of a sample as the model sees its clips: from pixels of the stored picture to pixels of the crop.

P persons, J joints. A joint's place counts pixel centres, as flips of joints do. Not here: the draw that moves pixels
and joints together (`media/augment.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from wholereel.batches import Poses
from wholereel.datasets.sample import Pose

__all__ = ["ShownPoses", "batched_poses", "center_cropped_joints", "shown_poses"]


@dataclass(frozen=True)
class ShownPoses:
    """Which poses the frames of the clips show, and where they are in the frames as read.

    Args:
        poses: one entry a pose and frame; a frame that is shown twice shows its poses twice.
        clip_P, frame_P: place of each: clip and frame of the clip.
        joints: for each clip, in pixels of the frames as read, P * J rows.
        boxes: for each clip the persons' boxes, or `None` where one of them is not known.
    """

    poses: tuple[Pose, ...]
    clip_P: Tensor
    frame_P: Tensor
    joints: tuple[tv_tensors.KeyPoints, ...]
    boxes: tuple[tv_tensors.BoundingBoxes, ...] | None

    def placed(
        self,
        joints: Sequence[tv_tensors.KeyPoints],
        boxes: Sequence[Tensor] | None,
        *,
        flipped: Sequence[bool],
        sides: Sequence[tuple[int, int]],
    ) -> Poses:
        """As video 0 of a batch, after the geometry.

        Args:
            joints, boxes: of each clip, in pixels of the crop; a joint outside it has weight 0.
            flipped: for each clip whether left and right were exchanged.
            sides: joints that are each other's mirror image.
        """
        rows, count = len(self.poses), len(self.poses[0].joints) if self.poses else 0
        joints_PJ2 = torch.cat([part.as_subclass(Tensor) for part in joints]).reshape(rows, count, 2)
        known_PJ = torch.tensor([[joint is not None for joint in pose.joints] for pose in self.poses], dtype=torch.bool)
        known_PJ = known_PJ.reshape(rows, count)
        mirrored = list(range(count))
        for left, right in sides if count else ():
            mirrored[left], mirrored[right] = right, left
        for row, clip in enumerate(self.clip_P.tolist()):
            if flipped[clip]:
                joints_PJ2[row], known_PJ[row] = joints_PJ2[row, mirrored], known_PJ[row, mirrored]
        edge_2 = torch.tensor(joints[0].canvas_size[::-1]) - 0.5  # x, y; all clips have one size
        inside_PJ = ((joints_PJ2 > -0.5) & (joints_PJ2 < edge_2)).all(-1)
        tracks = [pose.track for pose in self.poses]
        known_tracks = torch.tensor([-1 if track is None else track for track in tracks], dtype=torch.int64)
        return Poses(
            joints_PJ2=joints_PJ2,
            visible_PJ=(known_PJ & inside_PJ).float(),
            video_P=torch.zeros(rows, dtype=torch.int64),
            clip_P=self.clip_P,
            frame_P=self.frame_P,
            xyxy_P4=None if boxes is None else torch.cat([torch.as_tensor(part).as_subclass(Tensor) for part in boxes]),
            track_P=None if None in tracks else known_tracks,
        )


def shown_poses(poses: Sequence[Pose], frames_NT: Tensor, stored: tuple[int, int], size: tuple[int, int]) -> ShownPoses:
    """Poses in the frames of the clips.

    Args:
        poses: of the video.
        frames_NT: the video's frame that is shown at each place.
        stored: height and width of the stored picture. size: of the frames as read.
    """
    by_frame: dict[int, list[Pose]] = {}
    for pose in poses:
        by_frame.setdefault(pose.frame, []).append(pose)
    shown: list[list[tuple[int, Pose]]] = [
        [(place, pose) for place, frame in enumerate(clip) for pose in by_frame.get(frame, ())]
        for clip in frames_NT.tolist()
    ]
    ratio = torch.tensor([size[1] / stored[1], size[0] / stored[0]], dtype=torch.float64)
    everyone = tuple(pose for clip in shown for _, pose in clip)
    boxed = all(pose.box is not None for pose in poses)
    return ShownPoses(
        everyone,
        torch.tensor([number for number, clip in enumerate(shown) for _ in clip], dtype=torch.int64),
        torch.tensor([place for clip in shown for place, _ in clip], dtype=torch.int64),
        tuple(_joints(clip, ratio, size) for clip in shown),
        tuple(_boxes(clip, ratio, size) for clip in shown) if boxed else None,
    )


def center_cropped_joints(joints: tv_tensors.KeyPoints, crop: int) -> tv_tensors.KeyPoints:
    """Joints in the square in the middle, as `media.augment.test_crops` cuts it; `crop` 0: all stay."""
    if not crop:
        return joints
    height, width = joints.canvas_size
    top, left = -(-(height - crop) // 2), -(-(width - crop) // 2)
    return F.crop(joints, top, left, crop, crop)


def batched_poses(parts: Sequence[Poses]) -> Poses:
    """Poses of a batch from those of its videos, in order; boxes and tracks only where all have them."""
    counts = torch.tensor([len(part.joints_PJ2) for part in parts])
    joints = max(part.joints_PJ2.shape[1] for part in parts)  # 0 where a video shows nobody
    rows = [part for part in parts if len(part.joints_PJ2)]
    boxes = [part.xyxy_P4 for part in parts if part.xyxy_P4 is not None]
    tracks = [part.track_P for part in parts if part.track_P is not None]
    return Poses(
        joints_PJ2=torch.cat([torch.empty(0, joints, 2), *(part.joints_PJ2 for part in rows)]),
        visible_PJ=torch.cat([torch.empty(0, joints), *(part.visible_PJ for part in rows)]),
        video_P=torch.repeat_interleave(torch.arange(len(parts)), counts),
        clip_P=torch.cat([part.clip_P for part in parts]),
        frame_P=torch.cat([part.frame_P for part in parts]),
        xyxy_P4=torch.cat(boxes) if len(boxes) == len(parts) else None,
        track_P=torch.cat(tracks) if len(tracks) == len(parts) else None,
    )


def _joints(clip: Sequence[tuple[int, Pose]], ratio: Tensor, size: tuple[int, int]) -> tv_tensors.KeyPoints:
    flat = [(0.0, 0.0) if joint is None else joint[:2] for _, pose in clip for joint in pose.joints]
    places = (torch.tensor(flat, dtype=torch.float64).reshape(-1, 2) + 0.5) * ratio - 0.5
    return tv_tensors.KeyPoints(places.float(), canvas_size=size)


def _boxes(clip: Sequence[tuple[int, Pose]], ratio: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    corners = torch.tensor([pose.box for _, pose in clip if pose.box is not None], dtype=torch.float64).reshape(-1, 4)
    return tv_tensors.BoundingBoxes((corners * ratio.repeat(2)).float(), format="XYXY", canvas_size=size)
