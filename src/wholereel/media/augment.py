"""Geometry and colour of clips: one random draw moves frames, boxes and joints of a whole video together.

Clips of one video share the draw, because a memory relates them to each other (our choice; independent draws are an
option). Frames come already scaled: `side` says to which short side the reader shall scale them, so nothing is resized
twice. N clips, V views (clips x crops). Not here: flips that change a label or swap left and right joints; those belong
to the data set, which finds in `Augmented.draws` what was flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from wholereel.config import Augment
from wholereel.errors import ConfigError

__all__ = [
    "USUAL_FLIP",
    "Augmented",
    "Draw",
    "TrainAugment",
    "CenterCrop",
    "scaled_size",
    "test_crops",
    "whole_pictures",
]

USUAL_FLIP = 0.5

Moving = TypeVar("Moving", Tensor, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)


@dataclass(frozen=True)
class Draw:
    """One draw of all parameters.

    Args:
        side: short side in pixels.
        top, left: place of the crop as fractions in [0, 1) of the room that it has.
        flip: whether left and right are exchanged.
        colors: factors of brightness, contrast and saturation.
    """

    side: int
    top: float
    left: float
    flip: bool
    colors: tuple[float, float, float]


@dataclass(frozen=True)
class Augmented:
    """Clips after augmentation, with what moved along.

    Args:
        clips_NTCHW: uint8.
        boxes, joints: one a clip, in pixels of the crop; boxes are clamped to it as their own mode says, joints are
            not. Flips count pixel borders for boxes and pixel centres for joints, as torchvision does. Empty where none
            were given.
        draws: what was done: one draw for all clips, or with `per_clip` one a clip.
    """

    clips_NTCHW: Tensor
    draws: tuple[Draw, ...]
    boxes: tuple[tv_tensors.BoundingBoxes, ...] = ()
    joints: tuple[tv_tensors.KeyPoints, ...] = ()

    @property
    def flipped(self) -> tuple[bool, ...]:
        """For each clip whether left and right were exchanged: labels and joints that know sides must follow."""
        shared = len(self.draws) == 1
        count = (len(self.boxes) or len(self.joints) or len(self.clips_NTCHW)) if shared else len(self.draws)
        return tuple(self.draws[0 if shared else n].flip for n in range(count))


class TrainAugment:
    """Short-side jitter, random crop, flip and colour jitter of training clips.

    Args:
        augment: the settings.
    Raises: ConfigError: the crop does not fit into the smallest short side, or a number is out of range.
    """

    def __init__(self, augment: Augment) -> None:
        check_augment(augment)
        self.augment = augment

    def side(self, generator: torch.Generator) -> int:
        """Short side to which the reader shall scale the frames; the first draw of a video.

        With independent draws it is the largest side, from which every clip is then scaled down.
        """
        low, high = self.augment.short_side
        return high if low == high or self.augment.per_clip else self._own_side(generator)

    def draws(self, count: int, side: int, generator: torch.Generator) -> tuple[Draw, ...]:
        """`count` equal draws for the clips of a video whose frames have that short side, or independent ones."""
        if self.augment.per_clip:
            return tuple(self._draw(generator, self._own_side(generator)) for _ in range(count))
        return (self._draw(generator, side),) * count

    def __call__(
        self,
        clips_NTCHW: Tensor,
        boxes: Sequence[tv_tensors.BoundingBoxes] = (),
        joints: Sequence[tv_tensors.KeyPoints] = (),
        *,
        generator: torch.Generator,
        flippable: bool = True,
        own: Sequence[int] | None = None,
    ) -> Augmented:
        """Crop, flip and recolour.

        Args:
            clips_NTCHW: uint8, scaled to the short side that `side` drew.
            boxes, joints: one a clip, in pixels of the scaled frames; may be empty.
            generator: the one that `side` drew from.
            flippable: False = this video is not flipped, whatever was drawn (its mirror image has no label).
            own: which of the video's clips `clips_NTCHW` are, where they are not all: nothing that is drawn depends on
                which are here. Boxes and joints are those of all.
        Raises: ValueError: boxes or joints are not one a clip.
        """
        own = range(len(clips_NTCHW)) if own is None else own
        count = max(max(own, default=-1) + 1, len(boxes), len(joints))
        if len(boxes) not in (0, count) or len(joints) not in (0, count):
            raise ValueError(f"{count} clips need as many boxes and joints, got {len(boxes)} and {len(joints)}")
        height, width = clips_NTCHW.shape[-2:]
        draws = self.draws(count, min(height, width), generator)
        draws = draws if flippable else tuple(replace(draw, flip=False) for draw in draws)
        moved_boxes = tuple(self._move(part, draw, height, width) for part, draw in zip(boxes, draws, strict=False))
        moved_joints = tuple(self._move(part, draw, height, width) for part, draw in zip(joints, draws, strict=False))
        if self.augment.per_clip:
            parts = [self._pixels(clip, draws[n]) for clip, n in zip(clips_NTCHW, own, strict=True)]
            return Augmented(torch.stack(parts), draws, moved_boxes, moved_joints)
        return Augmented(self._pixels(clips_NTCHW, draws[0]), draws[:1], moved_boxes, moved_joints)

    def _own_side(self, generator: torch.Generator) -> int:
        low, high = self.augment.short_side
        if self.augment.jitter == "uniform":
            return int(torch.randint(low, high + 1, (), generator=generator))
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return round(1 / (1 / high + share * (1 / low - 1 / high)))

    def _draw(self, generator: torch.Generator, side: int) -> Draw:
        top, left, flip, *colors = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        strength = self.augment.color_jitter
        brightness, contrast, saturation = (1 + strength * (2 * color - 1) for color in colors)
        wanted = USUAL_FLIP if self.augment.flip is None else self.augment.flip
        return Draw(side, top, left, flip < wanted, (brightness, contrast, saturation))

    def _move(self, part: Moving, draw: Draw, height: int, width: int) -> Moving:
        crop = self.augment.crop
        new_height, new_width = scaled_size(height, width, draw.side)
        if (new_height, new_width) != (height, width):
            part = _resized(part, new_height, new_width)
        top, left = int(draw.top * (new_height - crop + 1)), int(draw.left * (new_width - crop + 1))
        if crop == 0:
            pass  # whole pictures
        elif isinstance(part, tv_tensors.TVTensor):
            part = F.crop(part, top, left, crop, crop)
        else:  # a view: the pixels are copied once, when the batch is made
            part = part[..., top : top + crop, left : left + crop]
        return F.horizontal_flip(part) if draw.flip else part

    def _pixels(self, pixels: Tensor, draw: Draw) -> Tensor:
        height, width = pixels.shape[-2:]
        pixels = self._move(pixels, draw, height, width)
        if self.augment.color_jitter:
            brightness, contrast, saturation = draw.colors
            pixels = F.adjust_brightness(pixels, brightness)
            pixels = F.adjust_contrast(pixels, contrast)
            pixels = F.adjust_saturation(pixels, saturation)
        return pixels


def _resized(part: Moving, height: int, width: int) -> Moving:
    if isinstance(part, tv_tensors.KeyPoints):  # torchvision scales corners of pixels, but flips their centres
        corners = tv_tensors.wrap(part.as_subclass(Tensor) + 0.5, like=part)
        scaled = F.resize(corners, [height, width])
        return tv_tensors.wrap(scaled.as_subclass(Tensor) - 0.5, like=scaled)
    return F.resize(part, [height, width], antialias=True)


class CenterCrop:
    """The crop of evaluation: one square in the middle of frames whose short side is the smallest of the training
    range; or the whole frames, where training has them."""

    def __init__(self, augment: Augment) -> None:
        check_augment(augment)
        self.side, self.crop = augment.short_side[0], augment.crop

    def __call__(self, clips_NTCHW: Tensor) -> Tensor:
        return test_crops(clips_NTCHW, self.side, self.crop, 1) if self.crop else whole_pictures(clips_NTCHW, self.side)


def whole_pictures(pixels_NTCHW: Tensor, short_side: int) -> Tensor:
    """Pictures of this short side, nothing cut off; scaled here unless the reader did so."""
    height, width = pixels_NTCHW.shape[-2:]
    if min(height, width) == short_side:
        return pixels_NTCHW
    return F.resize(pixels_NTCHW, list(scaled_size(height, width, short_side)), antialias=True)


def test_crops(pixels_NTCHW: Tensor, short_side: int, crop: int, crops: int) -> Tensor:
    """Square crops of evaluation: one in the middle, or three along the longer side.

    The offsets are those of facebookresearch/SlowFast (`slowfast/datasets/transform.py`): 0, ceil(room / 2) and room.

    Args:
        pixels_NTCHW: uint8; scaled to `short_side` here unless the reader did so.
        short_side: pixels, >= crop.
        crop: side of the square.
        crops: 1 or 3.
    Returns: pixels_VTCHW, V = N * crops; view v is clip v // crops, crop v % crops (left or top first).
    Raises: ValueError: another number of crops, or a crop larger than the frames.
    """
    if crops not in (1, 3):
        raise ValueError(f"crops must be 1 or 3, got {crops}")
    if crop > short_side:
        raise ValueError(f"a crop of {crop} pixels does not fit into a short side of {short_side}")
    height, width = pixels_NTCHW.shape[-2:]
    if min(height, width) != short_side:
        height, width = scaled_size(height, width, short_side)
        pixels_NTCHW = F.resize(pixels_NTCHW, [height, width], antialias=True)
    tops, lefts = [-(-(height - crop) // 2)], [-(-(width - crop) // 2)]
    if crops == 3 and height > width:
        tops = [0, *tops, height - crop]
    elif crops == 3:
        lefts = [0, *lefts, width - crop]
    views = [pixels_NTCHW[..., y : y + crop, x : x + crop] for y in tops for x in lefts]
    return views[0] if crops == 1 else torch.stack(views, dim=1).flatten(0, 1)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after scaling the short side; the longer one is rounded down."""
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def check_augment(augment: Augment) -> None:
    """Raise ConfigError where the settings cannot be used."""
    low, high = augment.short_side
    if not (1 <= augment.crop <= low <= high or (augment.crop == 0 and 1 <= low <= high)):
        raise ConfigError(
            f"augment: crop {augment.crop} and short_side ({low}, {high}) do not fit; "
            "legal is 1 <= crop <= low <= high, or crop 0 for whole pictures"
        )
    if augment.flip is not None and not 0 <= augment.flip <= 1:
        raise ConfigError(f"augment.flip is a probability from 0 to 1, got {augment.flip}")
    if augment.jitter not in ("uniform", "inverse"):
        raise ConfigError(f"augment.jitter={augment.jitter!r} is unknown; legal are uniform, inverse")
    if not 0 <= augment.color_jitter <= 1:
        raise ConfigError(f"augment.color_jitter is a strength from 0 to 1, got {augment.color_jitter}")
