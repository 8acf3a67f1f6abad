"""What training does to pictures (`docs/augmentation.md`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Augment", "Erasing", "Mixing", "RandAugment", "ResizedCrop"]


@dataclass(frozen=True)
class RandAugment:
    """A few random operations on whole pictures before they are cropped (`media/rand_augment.py`, arXiv 1909.13719).

    Args:
        count: operations of a draw, with replacement; each of them happens with probability 0.5.
        magnitude: how strong they are, from 0 (none, or as good as none) to 10.
        std: the magnitude is drawn from a normal distribution of this width, and clamped.
    """

    count: int = 4
    magnitude: float = 7.0
    std: float = 0.5


@dataclass(frozen=True)
class ResizedCrop:
    """A window of random area and shape, scaled to the crop, instead of a square of the crop's own size.

    Args:
        area: range of its share of the picture.
        aspect: range of width over height, whose logarithm is uniform.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (0.75, 1.3333)


@dataclass(frozen=True)
class Erasing:
    """Rectangles filled with noise after normalisation, the same in all frames of a clip (arXiv 1708.04896).

    Args:
        probability: of a clip (of a video, where its clips share the draw).
        count: largest number of rectangles; the number is uniform from 1, and they share the area.
        area: range of the share of the picture that is erased.
        least_aspect: height over width is from this to one over it; its logarithm is uniform.
    """

    probability: float = 0.25
    count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    least_aspect: float = 0.3


@dataclass(frozen=True)
class Mixing:
    """Rows of a batch are blended in pairs, with their labels (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899).

    Args:
        mixup, cutmix: both numbers of the beta distribution of the own share; 0 = this kind is off.
        probability: that a draw blends at all.
        switch: where both kinds are on, the probability of CutMix.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5


@dataclass(frozen=True)
class Augment:
    """Geometry and colour of training clips; drawn once per video unless `per_clip`.

    Args:
        short_side: range of the short side in pixels after jitter, inclusive.
        jitter: how the short side is drawn: `"uniform"` from its range, or `"inverse"`: one over it is uniform, as
            facebookresearch/SlowFast does with `INV_UNIFORM_SAMPLE`.
        crop: side of the square crop; random in training, centre at test. 0 = whole pictures, for tasks of kind
            `detect` on videos that all have one shape.
        flip: probability of a horizontal flip; `None` = 0.5, but 0 in data sets whose labels know left and right. Where
            such a data set is flipped, its labels and joints follow (`mirror.json`).
        color_jitter: strength of brightness, contrast and saturation jitter, 0 = off.
        per_clip: independent draws for the clips of one video.
        color_order: brightness, contrast, saturation in this order (`fixed`), or in one that is drawn (`random`).
        lighting: standard deviation of noise along the principal colours of ImageNet, 0 = off.
        rand_augment: operations on whole pictures, which move them, so not in sets with boxes or poses; `None` = off.
        resized_crop: how the crop is drawn; `None` = a square of the scaled picture.
        erasing: `None` = off.
        mixing: of the videos of a batch; `None` = off. For tasks of whole clips.
        copies: each clip is decoded once and augmented so many times, each a row of the batch (repeated augmentation,
            arXiv 1901.09335): a step has `batch * copies` rows. They share frames and short side.
        frame_jitter: each frame is taken up to half a stride earlier or later, as the public code of arXiv 2201.08383
            does on AVA. In streams only.
    """

    short_side: tuple[int, int] = (128, 160)
    crop: int = 112
    flip: float | None = None
    color_jitter: float = 0.0
    per_clip: bool = False
    jitter: Literal["uniform", "inverse"] = "uniform"
    color_order: Literal["fixed", "random"] = "fixed"
    lighting: float = 0.0
    rand_augment: RandAugment | None = None
    resized_crop: ResizedCrop | None = None
    erasing: Erasing | None = None
    mixing: Mixing | None = None
    copies: int = 1
    frame_jitter: bool = False
