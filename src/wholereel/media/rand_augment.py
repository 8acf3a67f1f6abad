"""RandAugment for clips: a few random operations on whole pictures, the same ones for all frames.

Source: arXiv 1909.13719 in the form that facebookresearch/SlowFast trains MViT with (`slowfast/datasets/
rand_augment.py`, after timm): fifteen operations whose strength grows with the magnitude (`inc1`), drawn with
replacement, each of them applied with probability 0.5 and a magnitude of its own; the sign of those that have one is
drawn. Pixels are uint8, the borders that geometry opens are filled with 128. Colours are judged frame by frame, as
there.
The operations are torchvision's, but for three whose forms here are 6 to 8 times as quick on a CPU, to the same bits
(`Sharpness`, `Solarize`, `SolarizeAdd`). Against PIL, which the public code calls: `Color` and `Contrast` differ by at
most one step of 255, geometry interpolates linearly where the public settings say bicubic (by 2 to 4 steps in the mean
of a coarse pattern; with PIL's linear form the inside is equal to two steps, and opened borders are softer by one
pixel), all others are equal. PIL refuses to keep no bit at all, which `Posterize` does at magnitude 10: black.
Not here: crops, flips and jitter (`augment.py`). Letters as in the design page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from wholereel.config import RandAugment

__all__ = ["OPERATIONS", "Operation", "apply_operations", "draw_operations"]

PROBABILITY = 0.5  # of each operation that was drawn
MOST = 10.0  # magnitude
FILL = 128.0
LINEAR = InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Operation:
    """One operation to apply.

    Args:
        name: a key of `OPERATIONS`.
        level: signed share of the full strength, from -1 to 1; operations without a sign take its size.
    """

    name: str
    level: float


def _rotate(pixels: Tensor, level: float) -> Tensor:
    """By up to 30 degrees."""
    return F.rotate(pixels, 30 * level, interpolation=LINEAR, fill=[FILL])


def _shear_x(pixels: Tensor, level: float) -> Tensor:
    """Each row by up to 0.3 of its distance from the top."""
    return _affine(pixels, shear=[math.degrees(math.atan(0.3 * level)), 0.0])


def _shear_y(pixels: Tensor, level: float) -> Tensor:
    return _affine(pixels, shear=[0.0, math.degrees(math.atan(0.3 * level))])


def _translate_x(pixels: Tensor, level: float) -> Tensor:
    """By up to 0.45 of the width; a positive level moves the picture to the left."""
    return _affine(pixels, translate=[-0.45 * level * pixels.shape[-1], 0.0])


def _translate_y(pixels: Tensor, level: float) -> Tensor:
    return _affine(pixels, translate=[0.0, -0.45 * level * pixels.shape[-2]])


def _affine(pixels: Tensor, translate: Sequence[float] = (0.0, 0.0), shear: Sequence[float] = (0.0, 0.0)) -> Tensor:
    return F.affine(pixels, 0.0, list(translate), 1.0, list(shear), LINEAR, [FILL], center=[0, 0])


def _posterize(pixels: Tensor, level: float) -> Tensor:
    """Four bits down to none."""
    return F.posterize(pixels, 4 - int(4 * abs(level)))


def _solarize(pixels: Tensor, level: float) -> Tensor:
    """Invert what is at least 256 down to 0."""
    threshold = 256 - int(256 * abs(level))
    return pixels ^ ((pixels >= threshold).to(torch.uint8) * 255) if threshold < 256 else pixels


def _solarize_add(pixels: Tensor, level: float) -> Tensor:
    """Lighten the darker half by up to 110."""
    return pixels + (pixels < 128).to(torch.uint8) * int(110 * abs(level))


def _enhanced(function: Callable[[Tensor, float], Tensor], pixels: Tensor, level: float) -> Tensor:
    """By a factor of 1 - 0.9 to 1 + 0.9."""
    return function(pixels, 1 + 0.9 * level)


def _sharpness(pixels: Tensor, level: float) -> Tensor:
    """Away from, or towards, the mean of nine neighbours, of which the middle one counts five times; borders stay."""
    float_TCHW = pixels.float()
    rows = float_TCHW[..., :-2, :] + float_TCHW[..., 1:-1, :] + float_TCHW[..., 2:, :]
    blurred = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inside = float_TCHW[..., 1:-1, 1:-1]
    blurred.add_(inside, alpha=4).mul_(1 / 13).round_()  # no sum of whole numbers over 13 is near a half
    inside.add_(blurred.sub_(inside), alpha=-0.9 * level)
    return float_TCHW.clamp_(0, 255).to(torch.uint8)


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "AutoContrast": lambda pixels, level: F.autocontrast(pixels),
    "Equalize": lambda pixels, level: F.equalize(pixels),
    "Invert": lambda pixels, level: F.invert(pixels),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": partial(_enhanced, F.adjust_saturation),
    "Contrast": partial(_enhanced, F.adjust_contrast),
    "Brightness": partial(_enhanced, F.adjust_brightness),
    "Sharpness": _sharpness,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}


def draw_operations(settings: RandAugment, generator: torch.Generator) -> tuple[Operation, ...]:
    """The operations that happen, in their order; how many numbers are drawn does not depend on which do."""
    names = list(OPERATIONS)
    chosen = torch.randint(len(names), (settings.count,), generator=generator).tolist()
    happens, sign = torch.rand(2, settings.count, generator=generator, dtype=torch.float64).tolist()
    noise = torch.randn(settings.count, generator=generator, dtype=torch.float64).tolist()
    magnitudes = [min(MOST, max(0.0, settings.magnitude + settings.std * one)) for one in noise]
    return tuple(
        Operation(names[number], magnitudes[i] / MOST * (-1 if sign[i] > 0.5 else 1))
        for i, number in enumerate(chosen)
        if happens[i] <= PROBABILITY
    )


def apply_operations(pixels: Tensor, operations: Sequence[Operation]) -> Tensor:
    """The same operations on all pictures.

    Args:
        pixels: uint8, `...CHW`, three channels, red first.
    Raises: KeyError: an operation that is not in the table.
    """
    flat = pixels.flatten(0, -4) if operations else pixels
    for operation in operations:
        flat = OPERATIONS[operation.name](flat, operation.level)
    return flat.view(pixels.shape) if operations else pixels
