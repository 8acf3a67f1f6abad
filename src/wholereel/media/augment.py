"""Geometry and colour of clips: one random draw moves frames, boxes and joints of a whole video together.

Clips of one video share the draw, because a memory relates them to each other (our choice; independent draws are an
option). Frames come already scaled: `side` says to which short side the reader shall scale them, so nothing is resized
twice. N clips, V views (clips x crops). The order: RandAugment on whole pictures, crop, flip, colour jitter, lighting
noise; what is erased is drawn here and done after normalisation (`mixed_input.py`), where rows are blended, too.
Not here: flips that change a label or swap left and right joints; those belong to the data set, which finds in
`Augmented.draws` what was flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from wholereel.batches import Erased
from wholereel.config import Augment, Erasing, Mixing, RandAugment, ResizedCrop
from wholereel.errors import ConfigError
from wholereel.media.rand_augment import MOST, Operation, apply_operations, draw_operations
from wholereel.media.windows import Window, draw_patches, draw_window

__all__ = [
    "NO_TARGETS",
    "USUAL_FLIP",
    "Augmented",
    "Draw",
    "TrainAugment",
    "CenterCrop",
    "check_augment",
    "scaled_size",
    "test_crops",
    "whole_pictures",
]

USUAL_FLIP = 0.5
# Principal directions of ImageNet's colours (rows red, green, blue) and their weights, as in facebookresearch/SlowFast.
COLOR_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
COLOR_WEIGHTS = (0.225, 0.224, 0.229)

Moving = TypeVar("Moving", Tensor, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)


@dataclass(frozen=True)
class Draw:
    """One draw of all parameters.

    Args:
        side: short side in pixels.
        top, left: place of the crop as fractions in [0, 1) of the room that it has.
        flip: whether left and right are exchanged.
        colors: factors of brightness, contrast and saturation.
        order: in which these three are applied.
        light: added to red, green and blue, in units of full brightness.
        operations: of RandAugment. window: of a resized crop, in the scaled picture.
        erased: see `windows.draw_patches`.
    """

    side: int
    top: float
    left: float
    flip: bool
    colors: tuple[float, float, float]
    order: tuple[int, ...] = (0, 1, 2)
    light: tuple[float, ...] = (0.0, 0.0, 0.0)
    operations: tuple[Operation, ...] = ()
    window: Window | None = None
    erased: tuple[Erased, ...] = ()


@dataclass(frozen=True)
class Augmented:
    """Clips after augmentation, with what moved along.

    Args:
        clips_NTCHW: uint8.
        boxes, joints: one a clip, in pixels of the crop; boxes are clamped to it as their own mode says, joints are
            not. Flips count pixel borders for boxes and pixel centres for joints, as torchvision does. Empty where none
            were given.
        draws: what was done: one draw for all clips, or with `per_clip` one a clip.
        erased: rectangles to fill with noise in the clips that are here; `clip` counts the video's clips.
    """

    clips_NTCHW: Tensor
    draws: tuple[Draw, ...]
    boxes: tuple[tv_tensors.BoundingBoxes, ...] = ()
    joints: tuple[tv_tensors.KeyPoints, ...] = ()
    erased: tuple[Erased, ...] = ()

    @property
    def flipped(self) -> tuple[bool, ...]:
        """For each clip whether left and right were exchanged: labels and joints that know sides must follow."""
        shared = len(self.draws) == 1
        count = (len(self.boxes) or len(self.joints) or len(self.clips_NTCHW)) if shared else len(self.draws)
        return tuple(self.draws[0 if shared else n].flip for n in range(count))


class TrainAugment:
    """All that training draws for the clips of one video, see the head of this file.

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

    def draws(self, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Draw, ...]:
        """`count` equal draws for the clips of a video whose frames have that size, or independent ones."""
        if self.augment.per_clip:
            return tuple(self._draw(generator, self._own_side(generator), height, width) for _ in range(count))
        return (self._draw(generator, min(height, width), height, width),) * count

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
        Raises: ValueError: boxes or joints are not one a clip. ConfigError: RandAugment moves pictures, not boxes.
        """
        if self.augment.rand_augment is not None and (len(boxes) or len(joints)):
            raise ConfigError(NO_TARGETS)
        own = range(len(clips_NTCHW)) if own is None else own
        count = max(max(own, default=-1) + 1, len(boxes), len(joints))
        if len(boxes) not in (0, count) or len(joints) not in (0, count):
            raise ValueError(f"{count} clips need as many boxes and joints, got {len(boxes)} and {len(joints)}")
        height, width = clips_NTCHW.shape[-2:]
        draws = self.draws(count, height, width, generator)
        draws = draws if flippable else tuple(replace(draw, flip=False) for draw in draws)
        moved_boxes = tuple(self._move(part, draw, height, width) for part, draw in zip(boxes, draws, strict=False))
        moved_joints = tuple(self._move(part, draw, height, width) for part, draw in zip(joints, draws, strict=False))
        erased = tuple(
            replace(patch, clip=n, seed=patch.seed + n) for n in dict.fromkeys(own) for patch in draws[n].erased
        )
        if self.augment.per_clip:
            parts = [self._pixels(clip, draws[n]) for clip, n in zip(clips_NTCHW, own, strict=True)]
            return Augmented(torch.stack(parts), draws, moved_boxes, moved_joints, erased)
        return Augmented(self._pixels(clips_NTCHW, draws[0]), draws[:1], moved_boxes, moved_joints, erased)

    def _own_side(self, generator: torch.Generator) -> int:
        low, high = self.augment.short_side
        if self.augment.jitter == "uniform":
            return int(torch.randint(low, high + 1, (), generator=generator))
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return round(1 / (1 / high + share * (1 / low - 1 / high)))

    def _draw(self, generator: torch.Generator, side: int, height: int, width: int) -> Draw:
        """What is switched off draws nothing, so that a setting more leaves those before it as they were."""
        top, left, flip, *colors = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        strength = self.augment.color_jitter
        brightness, contrast, saturation = (1 + strength * (2 * color - 1) for color in colors)
        wanted = USUAL_FLIP if self.augment.flip is None else self.augment.flip
        draw = Draw(side, top, left, flip < wanted, (brightness, contrast, saturation))
        settings, size = self.augment, scaled_size(height, width, side)
        if settings.color_order == "random":
            draw = replace(draw, order=tuple(torch.randperm(3, generator=generator).tolist()))
        if settings.lighting:
            draw = replace(draw, light=_light(settings.lighting, generator))
        if settings.rand_augment is not None:
            draw = replace(draw, operations=draw_operations(settings.rand_augment, generator))
        if settings.resized_crop is not None:
            draw = replace(draw, window=draw_window(settings.resized_crop, *size, generator))
        if settings.erasing is not None:
            shown = (settings.crop, settings.crop) if settings.crop else size
            draw = replace(draw, erased=draw_patches(settings.erasing, *shown, generator))
        return draw

    def _move(self, part: Moving, draw: Draw, height: int, width: int) -> Moving:
        """Scale, crop and flip."""
        return self._cut(_scaled(part, height, width, draw.side), draw, *scaled_size(height, width, draw.side))

    def _cut(self, part: Moving, draw: Draw, height: int, width: int) -> Moving:
        crop = self.augment.crop
        high, wide = (crop, crop) if draw.window is None else draw.window[2:]
        top, left = int(draw.top * (height - crop + 1)), int(draw.left * (width - crop + 1))
        top, left = (top, left) if draw.window is None else draw.window[:2]
        if crop == 0:
            pass  # whole pictures
        elif isinstance(part, tv_tensors.TVTensor):
            part = F.crop(part, top, left, high, wide)
        else:  # a view: the pixels are copied once, when the batch is made
            part = part[..., top : top + high, left : left + wide]
        if (high, wide) != (crop, crop):
            part = _resized(part, crop, crop, antialias=False)  # as in facebookresearch/SlowFast
        return F.horizontal_flip(part) if draw.flip else part

    def _pixels(self, pixels: Tensor, draw: Draw) -> Tensor:
        height, width = pixels.shape[-2:]
        pixels = apply_operations(_scaled(pixels, height, width, draw.side), draw.operations)
        pixels = self._cut(pixels, draw, *scaled_size(height, width, draw.side))
        if self.augment.color_jitter:
            for number in draw.order:
                pixels = COLORS[number](pixels, draw.colors[number])
        if any(draw.light):  # rounded and clamped, which the public code, in floating point, does not
            light_C11 = torch.tensor(draw.light, dtype=torch.float32)[:, None, None] * 255
            pixels = (pixels + light_C11).round_().clamp_(0, 255).to(torch.uint8)
        return pixels


COLORS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
NO_TARGETS = (
    "data.augment.rand_augment turns, shears and moves pictures, but not the boxes or joints that this data set has; "
    "use null, and color_jitter or resized_crop instead"
)


def _light(std: float, generator: torch.Generator) -> tuple[float, ...]:
    """Noise along the principal colours, in units of full brightness."""
    amounts = (torch.randn(3, generator=generator, dtype=torch.float64) * std).tolist()
    return tuple(
        sum(axis * amount * weight for axis, amount, weight in zip(axes, amounts, COLOR_WEIGHTS, strict=True))
        for axes in COLOR_AXES
    )


def _scaled(part: Moving, height: int, width: int, side: int) -> Moving:
    new_height, new_width = scaled_size(height, width, side)
    return part if (new_height, new_width) == (height, width) else _resized(part, new_height, new_width)


def _resized(part: Moving, height: int, width: int, *, antialias: bool = True) -> Moving:
    if isinstance(part, tv_tensors.KeyPoints):  # torchvision scales corners of pixels, but flips their centres
        corners = tv_tensors.wrap(part.as_subclass(Tensor) + 0.5, like=part)
        scaled = F.resize(corners, [height, width])
        return tv_tensors.wrap(scaled.as_subclass(Tensor) - 0.5, like=scaled)
    return F.resize(part, [height, width], antialias=antialias)


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
    if augment.color_order not in ("fixed", "random"):
        raise ConfigError(f"augment.color_order={augment.color_order!r} is unknown; legal are fixed, random")
    if augment.resized_crop is not None and augment.crop == 0:
        raise ConfigError("augment.resized_crop needs a size, got crop 0 (whole pictures); set augment.crop")
    for path, found, legal, expected in _numbers(augment):
        if not legal:
            raise ConfigError(f"augment.{path} must be {expected}, got {found}")


def _numbers(augment: Augment) -> list[tuple[str, object, bool, str]]:
    """Path, value, whether it is legal, and what is, of all newer numbers; written so that NaN is never legal."""
    random, window = augment.rand_augment or RandAugment(), augment.resized_crop or ResizedCrop()
    erasing, mixing = augment.erasing or Erasing(), augment.mixing or Mixing()
    (least, most), (low, high), (small, large) = window.area, window.aspect, erasing.area
    return [
        ("lighting", augment.lighting, 0 <= augment.lighting < float("inf"), "a standard deviation, at least 0"),
        ("copies", augment.copies, augment.copies >= 1, "at least 1"),
        ("rand_augment.count", random.count, random.count >= 1, "at least 1"),
        ("rand_augment.magnitude", random.magnitude, 0 <= random.magnitude <= MOST, f"from 0 to {MOST:.0f}"),
        ("rand_augment.std", random.std, 0 <= random.std < float("inf"), "a standard deviation, at least 0"),
        ("resized_crop.area", window.area, 0 < least <= most <= 1, "a range inside of 0 to 1, above 0"),
        ("resized_crop.aspect", window.aspect, 0 < low <= high < float("inf"), "a range of width over height, above 0"),
        ("erasing.probability", erasing.probability, 0 <= erasing.probability <= 1, "from 0 to 1"),
        ("erasing.count", erasing.count, erasing.count >= 1, "at least 1"),
        (
            "erasing.area",
            erasing.area,
            0 < small <= large <= 1,
            "a range inside of 0 to 1, above 0",
        ),
        ("erasing.least_aspect", erasing.least_aspect, 0 < erasing.least_aspect <= 1, "above 0 and at most 1"),
        ("mixing.mixup", mixing.mixup, 0 <= mixing.mixup < float("inf"), "at least 0"),
        ("mixing.cutmix", mixing.cutmix, 0 <= mixing.cutmix < float("inf"), "at least 0"),
        (
            "mixing.mixup",
            mixing.mixup,
            mixing.mixup + mixing.cutmix > 0,
            "above 0 where mixing.cutmix is 0",
        ),
        ("mixing.probability", mixing.probability, 0 <= mixing.probability <= 1, "from 0 to 1"),
        ("mixing.switch", mixing.switch, 0 <= mixing.switch <= 1, "from 0 to 1"),
    ]
