"""One geometric draw for all that a sample's clips show: pixels, boxes at the key frame, joints and people's boxes.

Not here: the draws themselves (`media/augment.py`), what boxes and poses are (`clip_boxes.py`, `clip_poses.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors

from wholereel.batches import Boxes, Erased, Poses
from wholereel.datasets.clip_boxes import boxes_of_clips, boxes_of_sample, center_cropped, mirrored_box, pixel_boxes
from wholereel.datasets.clip_poses import center_cropped_joints, shown_poses
from wholereel.datasets.clip_reader import ReadClips
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Box, Pose
from wholereel.media.augment import CenterCrop, TrainAugment

__all__ = ["LEAST_SIDE", "Moved", "moved"]

LEAST_SIDE = 1.0  # pixels that a training crop must leave of a box (our choice)


@dataclass(frozen=True)
class Moved:
    """What the model sees of a sample.

    Args:
        clips_NTCHW: uint8; those that were read.
        boxes, poses: in pixels of the crop, as video 0; or `None`.
        flipped: the video was mirrored (of independent draws: the first clip).
        erased: rectangles of the clips that are to be filled with noise.
    """

    clips_NTCHW: Tensor
    boxes: Boxes | None
    poses: Poses | None
    flipped: bool
    erased: tuple[Erased, ...] = ()


def moved(
    read: ReadClips,
    geometry: TrainAugment | CenterCrop,
    *,
    boxes: Sequence[Sequence[Box]] | None,
    poses: Sequence[Pose] | None,
    classes: int,
    mirror: Mirror,
    flippable: bool,
    generator: torch.Generator,
) -> Moved:
    """Move pixels, boxes and poses together.

    Args:
        read: the clips, with pixels.
        geometry: drawn (training, where boxes of which less than a pixel is left are left out), or the middle.
        boxes: that are judged, for each clip; `None` = the set has none.
        poses: of the video; `None` = the set has none.
        classes: K of the boxes' labels; 0 = not wanted.
        mirror: what a flip does to joints and to the boxes' labels.
        flippable: the mirror image of the video has labels.
        generator: the one that drew the short side.
    """
    if read.pixels_NTCHW is None:
        raise ValueError("moved() needs clips with pixels")
    count, size = len(read.seconds_NT), (read.pixels_NTCHW.shape[-2], read.pixels_NTCHW.shape[-1])
    judged: Sequence[Sequence[Box]] = ((),) * count if boxes is None else boxes
    flippable = flippable and all(mirror.flippable({"label": box.labels}) for part in judged for box in part)
    shown = None if poses is None else shown_poses(poses, read.frames_NT, read.stored, size)
    scaled = [pixel_boxes(part, *size) for part in judged]
    people = (pixel_boxes((), *size),) * count if shown is None or shown.boxes is None else shown.boxes
    boxed = boxes is not None or (shown is not None and shown.boxes is not None)
    both = [_boxes(torch.cat(pair), size) for pair in zip(scaled, people, strict=True)] if boxed else []
    joints = () if shown is None else shown.joints
    if isinstance(geometry, TrainAugment):
        drawn = geometry(read.pixels_NTCHW, both, joints, generator=generator, flippable=flippable, own=read.own)
        clips_NTCHW, new_boxes, new_joints, flipped = drawn.clips_NTCHW, drawn.boxes, drawn.joints, drawn.flipped
        erased = drawn.erased
    else:
        clips_NTCHW, flipped, erased = geometry(read.pixels_NTCHW), (False,) * count, ()
        new_boxes = tuple(center_cropped(part, geometry.crop) for part in both)
        new_joints = tuple(center_cropped_joints(part, geometry.crop) for part in joints)
    rows_N = [len(part) for part in scaled]
    if boxes is not None:  # else nothing tells how many clips were flipped, where only some are here
        judged = [[mirrored_box(box, mirror) for box in part] if turned else part
                  for part, turned in zip(judged, flipped, strict=True)]  # fmt: skip
    least = LEAST_SIDE if isinstance(geometry, TrainAugment) else 0.0
    found = None
    if boxes is not None:
        parts = zip(judged, new_boxes, rows_N, strict=True)
        clips = [boxes_of_sample(part, new[:n], clip, classes, least_side=least)
                 for clip, (part, new, n) in enumerate(parts)]  # fmt: skip
        found = boxes_of_clips(clips)
    placed = None
    if shown is not None:
        around = None if shown.boxes is None else [new[n:] for new, n in zip(new_boxes, rows_N, strict=True)]
        placed = shown.placed(new_joints, around, flipped=flipped, sides=mirror.joints)
    return Moved(clips_NTCHW, found, placed, any(flipped[:1]), erased)


def _boxes(xyxy_R4: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(xyxy_R4, format="XYXY", canvas_size=size)
