"""Blocks of 3-D residual networks in torchvision's and VMZ's form: what convolves, simple and bottleneck blocks, stems.

Source: R(2+1)D, arXiv 1711.11248; pytorch/vision `models/video/resnet.py` (BSD-3-Clause), facebookresearch/VMZ
(Apache-2.0). Not here: blocks of the networks that followed SlowFast (`bottleneck.py`).
Order: convolutions, blocks, stems, sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.layers.convolution import Conv3d
from wholereel.layers.mlp import DropPath
from wholereel.layers.pointwise import PointwiseConv3d

__all__ = [
    "CONVOLUTIONS",
    "BasicBlock",
    "BottleneckBlock",
    "ChannelsLast",
    "Conv2Plus1D",
    "Convolution",
    "Factorised1x1",
    "ResidualLayer",
    "Triple",
    "dense",
    "middle_width",
    "stem_2plus1d",
    "stem_3d",
]

Triple = tuple[int, int, int]


# ------------------------------------------------------------------------------------------------------- convolutions


@dataclass(frozen=True)
class Convolution:
    """What stands where a 3-D residual network has a 3 x 3 x 3 convolution.

    Args:
        make: (input width, output width, middle width, strides in time, height and width) -> module.
        temporal: strides hold for time as well as for space.
    """

    make: Callable[[int, int, int, Triple], nn.Module]
    temporal: bool = True

    def strides(self, stride: int, temporal: bool = True) -> Triple:
        return (stride if self.temporal and temporal else 1), stride, stride


class Conv2Plus1D(nn.Sequential):
    """1 x 3 x 3 to the middle width, norm, ReLU, 3 x 1 x 1."""

    def __init__(self, in_planes: int, out_planes: int, mid_planes: int, strides: Triple) -> None:
        time, height, width = strides
        super().__init__(
            Conv3d(in_planes, mid_planes, (1, 3, 3), stride=(1, height, width), padding=(0, 1, 1), bias=False),
            BatchNorm3d(mid_planes),
            nn.ReLU(inplace=True),
            Conv3d(mid_planes, out_planes, (3, 1, 1), stride=(time, 1, 1), padding=(1, 0, 0), bias=False),
        )


def dense(in_planes: int, out_planes: int, mid_planes: int, strides: Triple) -> nn.Module:
    """3 x 3 x 3."""
    return Conv3d(in_planes, out_planes, 3, stride=strides, padding=1, bias=False)


def per_frame(in_planes: int, out_planes: int, mid_planes: int, strides: Triple) -> nn.Module:
    """1 x 3 x 3; its stride in time is 1."""
    return Conv3d(in_planes, out_planes, (1, 3, 3), stride=strides, padding=(0, 1, 1), bias=False)


CONVOLUTIONS = {
    "3d": Convolution(dense),
    "2d": Convolution(per_frame, temporal=False),
    "2plus1d": Convolution(Conv2Plus1D),
}


def middle_width(in_planes: int, planes: int) -> int:
    """Width between the factors of a (2+1)D convolution for which it has about as many weights as the 3-D one."""
    return (in_planes * planes * 27) // (in_planes * 9 + 3 * planes)


# ------------------------------------------------------------------------------------------------------------- blocks


class Factorised1x1(nn.Sequential):
    """A 1 x 1 x 1 convolution with a spatial stride, norm, ReLU, another with a temporal one: MMAction2's shortcut."""

    def __init__(self, in_planes: int, planes: int, strides: Triple) -> None:
        mid = (3 * in_planes * planes) // (in_planes + 3 * planes)
        time, height, width = strides
        super().__init__(
            PointwiseConv3d(in_planes, mid, (1, height, width)),
            BatchNorm3d(mid),
            nn.ReLU(inplace=True),
            PointwiseConv3d(mid, planes, (time, 1, 1)),
        )


def _shortcut(in_planes: int, planes: int, strides: Triple, factorised: bool = False) -> nn.Sequential | None:
    if strides == (1, 1, 1) and in_planes == planes:
        return None
    if factorised:
        return nn.Sequential(Factorised1x1(in_planes, planes, strides), BatchNorm3d(planes))
    return nn.Sequential(PointwiseConv3d(in_planes, planes, strides), BatchNorm3d(planes))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut.

    `shared_middle`: the second convolution has the first one's middle width, as in torchvision. `factorised_shortcut`:
    see `Factorised1x1`.
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        convolution: Convolution,
        strides: Triple,
        *,
        shared_middle: bool,
        factorised_shortcut: bool,
    ) -> None:
        super().__init__()
        mid = middle_width(in_planes, planes)
        mid2 = mid if shared_middle else middle_width(planes, planes)
        self.conv1 = nn.Sequential(
            convolution.make(in_planes, planes, mid, strides), BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(convolution.make(planes, planes, mid2, (1, 1, 1)), BatchNorm3d(planes))
        self.downsample = _shortcut(in_planes, planes, strides, factorised_shortcut)
        self.drop_path = DropPath(0.0)

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm that the residual branch ends with."""
        return cast(nn.BatchNorm3d, self.conv2[1])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        shortcut = x_BCTHW if self.downsample is None else self.downsample(x_BCTHW)
        return F.relu(self.drop_path(self.conv2(self.conv1(x_BCTHW))) + shortcut, inplace=True)


class BottleneckBlock(nn.Module):
    """1 x 1 x 1, the convolution, which carries the stride, 1 x 1 x 1, and a shortcut."""

    def __init__(self, in_planes: int, inner: int, planes: int, convolution: Convolution, strides: Triple) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(PointwiseConv3d(in_planes, inner), BatchNorm3d(inner), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(
            convolution.make(inner, inner, middle_width(inner, inner), strides),
            BatchNorm3d(inner),
            nn.ReLU(inplace=True),
        )
        self.conv3 = nn.Sequential(PointwiseConv3d(inner, planes), BatchNorm3d(planes))
        self.downsample = _shortcut(in_planes, planes, strides)
        self.drop_path = DropPath(0.0)

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm that the residual branch ends with."""
        return cast(nn.BatchNorm3d, self.conv3[1])

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        shortcut = x_BCTHW if self.downsample is None else self.downsample(x_BCTHW)
        return F.relu(self.drop_path(self.conv3(self.conv2(self.conv1(x_BCTHW)))) + shortcut, inplace=True)


# -------------------------------------------------------------------------------------------------------------- stems


def stem_3d(in_channels: int, width: int, kernel: int, stride: int) -> list[nn.Module]:
    """`kernel` x 7 x 7 with strides `stride`, 2, 2, norm, ReLU."""
    return [
        Conv3d(in_channels, width, (kernel, 7, 7), stride=(stride, 2, 2), padding=(kernel // 2, 3, 3), bias=False),
        BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


def stem_2plus1d(in_channels: int, width: int, mid: int) -> list[nn.Module]:
    """1 x 7 x 7 to the middle width, norm, ReLU, 3 x 1 x 1, norm, ReLU."""
    return [
        Conv3d(in_channels, mid, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        Conv3d(mid, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


# ---------------------------------------------------------------------------------------------------------- sequences


class ResidualLayer(CheckpointedStage, nn.Sequential):
    """Blocks one after the other."""

    def run(self, x_BCTHW: Tensor) -> Tensor:
        return nn.Sequential.forward(self, x_BCTHW)


class ChannelsLast(nn.Sequential):
    """A sequence that reads and gives channels-last memory; an exported program keeps its own."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            x_BCTHW = x_BCTHW.contiguous(memory_format=torch.channels_last_3d)
        return super().forward(x_BCTHW)
