"""Small clip models for videos of 32 to 64 pixels, meant to be trained on two processor cores (our own; no paper).

`tiny_r2d` sees single frames; `tiny2d` does so until its last stage, which mixes neighbouring frames; `tiny_r3d` and
`tiny_r2plus1d` see motion from the first stage on, and `tiny_corrnet` looks for it (arXiv 1906.03349). No residual
shortcuts: four or five convolutions do not need them.
Extra axis: P positions of a frame (H*W).
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.convolution import Conv3d
from wholereel.layers.correlation import CorrelationBlock
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions

__all__ = ["Tiny", "TinyPeak", "tiny2d", "tiny2d_peak", "tiny_corrnet", "tiny_r2d", "tiny_r2plus1d", "tiny_r3d"]

Norm = Literal["group", "batch"]
GROUPS = 8
INFO = ModelInfo(
    mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop=32, frames=8, stride=1, frame_rate=8.0, origin="wholereel's own"
)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    if norm == "batch":
        return BatchNorm3d(channels)
    raise ValueError(f"norm must be 'group' or 'batch', got {norm!r}")


class Frames(nn.Module):
    """A 3 x 3 convolution of single frames. Statistics of a GroupNorm are those of a frame here, not of a clip.

    Frames are folded into the batch: a 2-D convolution is quicker on CPU than a 3-D one with a flat kernel, and as
    stages hand on what they fold, no copy is made.
    """

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, 3, stride=stride[1], padding=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, planes) if norm == "group" else nn.BatchNorm2d(planes)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        frames = x_BCTHW.shape[2]
        x_LCHW = x_BCTHW.transpose(1, 2).flatten(0, 1)
        x_LCHW = F.relu(self.norm(self.conv(x_LCHW)), inplace=True)
        return x_LCHW.unflatten(0, (-1, frames)).transpose(1, 2)


class Temporal(nn.Module):
    """Three neighbouring frames at each position, added to the middle one."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        # As a 2-D convolution over (time, position): no 3-D kernel with two flat sides.
        self.conv = nn.Conv2d(in_planes, planes, (3, 1), padding=(1, 0), bias=False)
        self.norm = nn.GroupNorm(GROUPS, planes) if norm == "group" else nn.BatchNorm2d(planes)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BCTP = x_BCTHW.flatten(3)
        x_BCTP = F.relu(x_BCTP + self.norm(self.conv(x_BCTP)), inplace=True)
        return x_BCTP.unflatten(3, x_BCTHW.shape[3:])


class Peaks(Temporal):
    """`Temporal`, then the largest value of each channel in every block of `stride` frames, rows and columns.

    Blocks at the far edges may be smaller. A small sign in one frame is not thinned out by all the empty positions, for
    the classifier and the memory alike.
    """

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__(in_planes, planes, stride, norm)
        self.pool = nn.MaxPool3d((stride[0], stride[1], stride[1]), ceil_mode=True)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        peaks_BCTHW: Tensor = self.pool(super().forward(x_BCTHW))
        return peaks_BCTHW


class Pointwise(nn.Module):
    """A 1 x 1 x 1 convolution: after `Peaks` it sees all that the clip shows, and takes place and colour out of it."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_planes, planes, 1, bias=False)
        self.norm = _norm(norm, planes)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x_BCTHW)), inplace=True)


class Cube(nn.Module):
    """A 3 x 3 x 3 convolution."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        strides = (stride[0], stride[1], stride[1])
        self.conv = Conv3d(in_planes, planes, 3, stride=strides, padding=1, bias=False)
        self.norm = _norm(norm, planes)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x_BCTHW)), inplace=True)


class Factorised(nn.Module):
    """1 x 3 x 3, norm, ReLU, 3 x 1 x 1, norm, ReLU; the middle is as wide as the output."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.spatial = Frames(in_planes, planes, stride, norm)
        self.conv = nn.Conv2d(planes, planes, (3, 1), stride=(stride[0], 1), padding=(1, 0), bias=False)
        self.norm = nn.GroupNorm(GROUPS, planes) if norm == "group" else nn.BatchNorm2d(planes)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BCTHW = self.spatial(x_BCTHW)
        x_BCTP = F.relu(self.norm(self.conv(x_BCTHW.flatten(3))), inplace=True)
        return x_BCTP.unflatten(3, x_BCTHW.shape[3:])


class Correlated(nn.Module):
    """`Factorised`, and what has moved by up to three positions since the frame before, added to it.

    One filter for all frames: clips of any length are read alike.
    """

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.stage = Factorised(in_planes, planes, stride, norm)
        self.block = CorrelationBlock(planes, 1, kernel=7, dilation=1, norm=partial(_norm, norm))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        correlated: Tensor = self.block(self.stage(x_BCTHW))
        return correlated


class Placed(nn.Module):
    """A stage that also knows where in the picture its positions are: two channels more, row and column from -1 to 1.

    For boxes: whose memory is whose is easier to tell with a place (our choice).
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        batch, _, frames, height, width = x_BCTHW.shape
        row_H = torch.linspace(-1, 1, height, dtype=x_BCTHW.dtype, device=x_BCTHW.device)
        column_W = torch.linspace(-1, 1, width, dtype=x_BCTHW.dtype, device=x_BCTHW.device)
        row_HW, column_HW = torch.meshgrid(row_H, column_W, indexing="ij")
        places = torch.stack((row_HW, column_HW))[None, :, None].expand(batch, -1, frames, -1, -1)
        placed: Tensor = self.stage(torch.cat((x_BCTHW, places), 1))
        return placed


Stage = type[Frames] | type[Temporal] | type[Pointwise] | type[Cube] | type[Factorised] | type[Correlated]
# Per stage: kind, width in units of `width`, (temporal, spatial) stride.
STAGES: dict[str, tuple[tuple[Stage, int, tuple[int, int]], ...]] = {
    "tiny2d": ((Frames, 1, (1, 2)), (Frames, 2, (1, 2)), (Frames, 4, (1, 2)), (Temporal, 4, (1, 1))),
    "tiny2d_peak": (
        (Frames, 1, (1, 2)),
        (Frames, 2, (1, 2)),
        (Frames, 4, (1, 2)),
        (Peaks, 4, (4, 4)),
        (Pointwise, 8, (1, 1)),
    ),
    "tiny_r3d": ((Cube, 1, (1, 2)), (Cube, 2, (1, 2)), (Cube, 4, (2, 2)), (Cube, 4, (1, 1))),
    "tiny_r2plus1d": (
        (Factorised, 1, (1, 2)),
        (Factorised, 2, (1, 2)),
        (Factorised, 4, (2, 2)),
        (Factorised, 4, (1, 1)),
    ),
    "tiny_r2d": ((Frames, 1, (1, 2)), (Frames, 2, (1, 2)), (Frames, 4, (1, 2)), (Frames, 4, (1, 1))),
    "tiny_corrnet": (
        (Correlated, 1, (1, 2)),
        (Factorised, 2, (1, 2)),
        (Factorised, 4, (2, 2)),
        (Factorised, 4, (1, 1)),
    ),
}


class Tiny(ClipModel):
    """Stages from the table `STAGES`: four, and in `TinyPeak` a fifth.

    Args:
        kind: row of the table.
        num_classes: K; 0 = no classifier.
        in_channels: C of the input.
        width: channels of the first stage, a multiple of 8; later ones have up to eight times as many.
        norm: `group` (no batch statistics: any batch and any strategy give the same function) or `batch`.
        dropout: probability in front of the classifier.
        placed: the last stage knows where in the picture its positions are.
    Raises: ValueError: a width that is no multiple of 8, an unknown norm.
    """

    stage_names: ClassVar[tuple[str, ...]] = ("stem", "layer1", "layer2", "layer3")

    def __init__(
        self,
        kind: str,
        *,
        num_classes: int,
        in_channels: int,
        width: int,
        norm: Norm,
        dropout: float,
        placed: bool = False,
    ) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, got {width}")
        if norm not in ("group", "batch"):
            raise ValueError(f"norm must be 'group' or 'batch', got {norm!r}")
        self.info, self.feature_info = INFO, []
        planes, reduction = in_channels, (1, 1, 1)
        for name, (stage, factor, stride) in zip(self.stage_names, STAGES[kind], strict=True):
            last = placed and name == self.stage_names[-1]
            module: nn.Module = stage(planes + 2 * last, width * factor, stride, norm)
            setattr(self, name, Placed(module) if last else module)
            planes = width * factor
            reduction = (reduction[0] * stride[0], reduction[1] * stride[1], reduction[2] * stride[1])
            self.feature_info.append({"name": name, "channels": planes, "reduction": reduction})
        self.num_features = planes
        init_convolutions(self)
        self.reset_classifier(num_classes, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # a quarter less time on CPU; activations follow the weights
                module.to(memory_format=torch.channels_last)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        if stage == self.stage_names[-1]:
            return super().stage_inputs(stage)
        following = self.stage_names[self.stage_names.index(stage) + 1]
        module = self.get_submodule(following)
        if isinstance(module, (Temporal, Placed)):  # its shortcut reads the output too; places are not to be rescaled
            return ()
        return (f"{following}.spatial.conv.weight" if isinstance(module, Factorised) else f"{following}.conv.weight",)


class TinyPeak(Tiny):
    """Five stages."""

    stage_names: ClassVar[tuple[str, ...]] = (*Tiny.stage_names, "layer4")


def tiny2d(
    *, num_classes: int = 400, in_channels: int = 3, width: int = 24, norm: Norm = "group", dropout: float = 0.0
) -> Tiny:
    """Per-frame convolutions, then one over neighbouring frames; the cheapest, for worlds of still signs."""
    return Tiny("tiny2d", num_classes=num_classes, in_channels=in_channels, width=width, norm=norm, dropout=dropout)


def tiny2d_peak(
    *, num_classes: int = 400, in_channels: int = 3, width: int = 24, norm: Norm = "group", dropout: float = 0.0
) -> TinyPeak:
    """`tiny2d`, a maximum over blocks of 4 frames and 4 x 4 positions (leaves one of 4 x 32 x 32), one more layer."""
    return TinyPeak(
        "tiny2d_peak", num_classes=num_classes, in_channels=in_channels, width=width, norm=norm, dropout=dropout
    )


def tiny_r3d(
    *, num_classes: int = 400, in_channels: int = 3, width: int = 16, norm: Norm = "group", dropout: float = 0.0
) -> Tiny:
    """3-D convolutions."""
    return Tiny("tiny_r3d", num_classes=num_classes, in_channels=in_channels, width=width, norm=norm, dropout=dropout)


def tiny_r2plus1d(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    width: int = 16,
    norm: Norm = "group",
    dropout: float = 0.0,
    placed: bool = False,
) -> Tiny:
    """Factorised spatial and temporal convolutions."""
    return Tiny(
        "tiny_r2plus1d",
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        norm=norm,
        dropout=dropout,
        placed=placed,
    )


def tiny_r2d(
    *, num_classes: int = 400, in_channels: int = 3, width: int = 16, norm: Norm = "group", dropout: float = 0.0
) -> Tiny:
    """Convolutions of single frames alone: what it knows of motion is nothing."""
    return Tiny("tiny_r2d", num_classes=num_classes, in_channels=in_channels, width=width, norm=norm, dropout=dropout)


def tiny_corrnet(
    *, num_classes: int = 400, in_channels: int = 3, width: int = 16, norm: Norm = "group", dropout: float = 0.0
) -> Tiny:
    """`tiny_r2plus1d` with a correlation block behind its first stage."""
    return Tiny(
        "tiny_corrnet", num_classes=num_classes, in_channels=in_channels, width=width, norm=norm, dropout=dropout
    )
