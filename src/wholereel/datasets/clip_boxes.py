"""Boxes of a sample as the model sees its clips: from fractions of the picture to pixels of the crop.

R boxes, K classes. Not here: the draw that moves pixels and boxes together (`media/augment.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from wholereel.batches import Boxes
from wholereel.datasets.mirror import Mirror
from wholereel.datasets.sample import Box, Sample

__all__ = [
    "batched_boxes",
    "boxes_of_clips",
    "boxes_of_sample",
    "center_cropped",
    "has_detections",
    "mirrored_box",
    "pixel_boxes",
]


def has_detections(samples: Sequence[Sample]) -> bool:
    """Whether any box was found by a detector; then evaluation looks at those alone, also where a sample has none."""
    if not samples or samples[0].key_seconds is None:
        return False  # no set of key frames: millions of samples need not be looked at
    return any(box.score is not None for sample in samples for box in sample.boxes)


def pixel_boxes(boxes: Sequence[Box], height: int, width: int) -> tv_tensors.BoundingBoxes:
    """Corners in pixels of a picture of this size."""
    xyxy_R4 = torch.tensor([box.xyxy for box in boxes], dtype=torch.float32).reshape(-1, 4)
    size = torch.tensor([width, height, width, height])
    return tv_tensors.BoundingBoxes(xyxy_R4 * size, format="XYXY", canvas_size=(height, width))


def center_cropped(boxes: tv_tensors.BoundingBoxes, crop: int) -> tv_tensors.BoundingBoxes:
    """Boxes in the square in the middle, as `media.augment.test_crops` cuts it; clamped to it. `crop` 0: all stay."""
    if not crop:
        return boxes
    height, width = boxes.canvas_size
    top, left = -(-(height - crop) // 2), -(-(width - crop) // 2)
    return F.crop(boxes, top, left, crop, crop)


def mirrored_box(box: Box, mirror: Mirror) -> Box:
    """The box with the labels of the mirror image; its corners are the geometry's business."""
    labels = mirror.flipped("label", box.labels)
    return box if labels == box.labels or isinstance(labels, int) else replace(box, labels=labels)


def boxes_of_clips(parts: Sequence[Boxes]) -> Boxes:
    """Boxes of one sample from those of its clips, in order."""
    joined = batched_boxes(parts)
    return replace(joined, video_R=torch.zeros_like(joined.video_R))


def boxes_of_sample(
    boxes: Sequence[Box], xyxy_R4: Tensor, clip: int, classes: int, *, least_side: float = 0.0
) -> Boxes:
    """Boxes of one sample, as video 0.

    Args:
        boxes: what they are. xyxy_R4: where they are in the clip.
        clip: the clip that holds the key frame.
        classes: K; 0 = labels are not wanted.
        least_side: boxes of which a crop has left less than so many pixels are left out.
    """
    xyxy_R4 = torch.as_tensor(xyxy_R4).as_subclass(Tensor)
    if least_side:
        seen_R = ((xyxy_R4[:, 2:] - xyxy_R4[:, :2]) >= least_side).all(1)
        xyxy_R4, boxes = xyxy_R4[seen_R], [box for box, seen in zip(boxes, seen_R.tolist(), strict=True) if seen]
    rows = len(boxes)
    labels_RK = torch.zeros(rows, classes)
    for row, box in enumerate(boxes if classes else ()):
        labels_RK[row, list(box.labels)] = 1.0
    detected = any(box.score is not None for box in boxes)
    scores = [1.0 if box.score is None else box.score for box in boxes]
    tracked = all(box.track is not None for box in boxes)
    return Boxes(
        xyxy_R4=xyxy_R4,
        video_R=torch.zeros(rows, dtype=torch.int64),
        clip_R=torch.full((rows,), clip),
        seconds_R=torch.tensor([box.seconds for box in boxes], dtype=torch.float64),
        labels_RK=labels_RK if classes else None,
        score_R=torch.tensor(scores) if detected else None,
        track_R=torch.tensor([box.track for box in boxes], dtype=torch.int64) if tracked else None,
    )


def batched_boxes(parts: Sequence[Boxes]) -> Boxes:
    """Boxes of a batch from those of its videos, in order.

    Scores are there as soon as one video has them (annotated boxes count 1 then), tracks only where all have them.
    """
    counts = torch.tensor([len(part.xyxy_R4) for part in parts])
    scored = any(part.score_R is not None for part in parts)
    scores = [torch.ones(len(part.xyxy_R4)) if part.score_R is None else part.score_R for part in parts]
    tracks = [part.track_R for part in parts if part.track_R is not None]
    labels = [part.labels_RK for part in parts if part.labels_RK is not None]
    return Boxes(
        xyxy_R4=torch.cat([part.xyxy_R4 for part in parts]),
        video_R=torch.repeat_interleave(torch.arange(len(parts)), counts),
        clip_R=torch.cat([part.clip_R for part in parts]),
        seconds_R=torch.cat([part.seconds_R for part in parts]),
        labels_RK=torch.cat(labels) if len(labels) == len(parts) else None,
        score_R=torch.cat(scores) if scored else None,
        track_R=torch.cat(tracks) if len(tracks) == len(parts) else None,
    )
