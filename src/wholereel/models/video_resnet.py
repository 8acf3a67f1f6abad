"""R3D, MCx and R(2+1)D of depth 18, in the form and with the parameter names of torchvision's video networks.

Source: R(2+1)D, arXiv 1711.11248; forms as in pytorch/vision `models/video/resnet.py` (BSD-3-Clause), so that weights
published for `r3d_18`, `mc3_18` and `r2plus1d_18` load unchanged. torchvision's R(2+1)D computes the middle width of
*both* convolutions of a block from the block's own input and output widths, unlike the paper's networks.
MCx: the stem and the first x - 2 layers are 3-D, all others see single frames (mc3 is torchvision's, mc2, mc4, mc5
follow the paper's rule).
Not here: the Caffe2 form of these networks, deeper ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions

__all__ = ["VideoResNet", "mc2_18", "mc3_18", "mc4_18", "mc5_18", "r2plus1d_18", "r3d_18"]

WIDTHS = (64, 128, 256, 512)
INFO = ModelInfo(
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
    crop=112,
    frames=16,
    stride=2,
    frame_rate=30.0,
    licence="BSD-3-Clause (torchvision)",
    origin="arXiv 1711.11248; pytorch/vision models/video/resnet.py",
)
# Layers (0 to 4) with 3-D convolutions, for the family that mixes 3-D and per-frame ones.
LAYERS_3D = {"mc2_18": 0, "mc3_18": 1, "mc4_18": 2, "mc5_18": 3, "r3d_18": 4}


class Conv3DSimple(nn.Conv3d):
    """3 x 3 x 3, stride in time and space."""

    def __init__(self, in_planes: int, out_planes: int, mid_planes: int, stride: int) -> None:
        super().__init__(in_planes, out_planes, 3, stride=stride, padding=1, bias=False)

    @staticmethod
    def downsample_stride(stride: int) -> tuple[int, int, int]:
        return stride, stride, stride


class Conv3DNoTemporal(nn.Conv3d):
    """1 x 3 x 3, stride in space only."""

    def __init__(self, in_planes: int, out_planes: int, mid_planes: int, stride: int) -> None:
        super().__init__(in_planes, out_planes, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)

    @staticmethod
    def downsample_stride(stride: int) -> tuple[int, int, int]:
        return 1, stride, stride


class Conv2Plus1D(nn.Sequential):
    """1 x 3 x 3 to the middle width, norm, ReLU, 3 x 1 x 1."""

    def __init__(self, in_planes: int, out_planes: int, mid_planes: int, stride: int) -> None:
        super().__init__(
            nn.Conv3d(in_planes, mid_planes, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(mid_planes),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid_planes, out_planes, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
        )

    @staticmethod
    def downsample_stride(stride: int) -> tuple[int, int, int]:
        return stride, stride, stride


Convolution = type[Conv3DSimple] | type[Conv3DNoTemporal] | type[Conv2Plus1D]


def middle_width(in_planes: int, planes: int) -> int:
    """Width between the factors of a (2+1)D convolution for which it has about as many weights as the 3-D one."""
    return (in_planes * planes * 27) // (in_planes * 9 + 3 * planes)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, in_planes: int, planes: int, convolution: Convolution, stride: int) -> None:
        super().__init__()
        mid = middle_width(in_planes, planes)
        self.conv1 = nn.Sequential(
            convolution(in_planes, planes, mid, stride), nn.BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(convolution(planes, planes, mid, 1), nn.BatchNorm3d(planes))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_planes != planes:
            strides = convolution.downsample_stride(stride)
            self.downsample = nn.Sequential(
                nn.Conv3d(in_planes, planes, 1, stride=strides, bias=False), nn.BatchNorm3d(planes)
            )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        shortcut = x_BCTHW if self.downsample is None else self.downsample(x_BCTHW)
        return F.relu(self.conv2(self.conv1(x_BCTHW)) + shortcut, inplace=True)


def _stem_3d(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, 64, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(64),
        nn.ReLU(inplace=True),
    )


def _stem_2plus1d(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, 45, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(45),
        nn.ReLU(inplace=True),
        nn.Conv3d(45, 64, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(64),
        nn.ReLU(inplace=True),
    )


class VideoResNet(ClipModel):
    """Residual network of depth 18 over clips.

    Args:
        convolutions: kind of convolution in each of the four layers.
        stem: builder of the stem from the number of input channels.
        num_classes: K; 0 = no classifier.
        in_channels: C of the input.
        dropout: probability in front of the classifier.
        bn_eps: of all BatchNorm layers (1e-5 in torchvision).
    """

    stage_names: ClassVar[tuple[str, ...]] = ("stem", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        convolutions: tuple[Convolution, ...],
        stem: Callable[[int], nn.Sequential],
        *,
        num_classes: int = 400,
        in_channels: int = 3,
        dropout: float = 0.0,
        bn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.info, self.num_features = INFO, WIDTHS[-1]
        self.stem = stem(in_channels)
        self.feature_info = [{"name": "stem", "channels": 64, "reduction": (1, 2, 2)}]
        planes, reduction = 64, (1, 2, 2)
        for index, (width, convolution) in enumerate(zip(WIDTHS, convolutions, strict=True)):
            stride = 1 if index == 0 else 2
            blocks = [BasicBlock(planes, width, convolution, stride), BasicBlock(width, width, convolution, 1)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            step = convolution.downsample_stride(stride)
            reduction = (reduction[0] * step[0], reduction[1] * step[1], reduction[2] * step[2])
            self.feature_info.append({"name": f"layer{index + 1}", "channels": width, "reduction": reduction})
            planes = width
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = bn_eps
        init_convolutions(self)
        self.reset_classifier(num_classes, dropout)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        if stage in ("layer1", "layer2", "layer3"):
            following = f"layer{int(stage[-1]) + 1}.0"
            factor = ".0" if isinstance(self.get_submodule(f"{following}.conv1.0"), Conv2Plus1D) else ""
            return f"{following}.conv1.0{factor}.weight", f"{following}.downsample.0.weight"
        return super().stage_inputs(stage)


def _mixed(name: str, num_classes: int, in_channels: int, dropout: float, bn_eps: float) -> VideoResNet:
    layers = tuple(Conv3DSimple if index < LAYERS_3D[name] else Conv3DNoTemporal for index in range(4))
    return VideoResNet(
        layers, _stem_3d, num_classes=num_classes, in_channels=in_channels, dropout=dropout, bn_eps=bn_eps
    )


def r3d_18(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5) -> VideoResNet:
    """3-D convolutions throughout; 33.4 M parameters with 400 classes."""
    return _mixed("r3d_18", num_classes, in_channels, dropout, bn_eps)


def mc2_18(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5) -> VideoResNet:
    """3-D stem, per-frame layers."""
    return _mixed("mc2_18", num_classes, in_channels, dropout, bn_eps)


def mc3_18(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5) -> VideoResNet:
    """3-D stem and first layer; 11.7 M parameters with 400 classes."""
    return _mixed("mc3_18", num_classes, in_channels, dropout, bn_eps)


def mc4_18(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5) -> VideoResNet:
    """3-D stem and first two layers."""
    return _mixed("mc4_18", num_classes, in_channels, dropout, bn_eps)


def mc5_18(*, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5) -> VideoResNet:
    """3-D stem and first three layers."""
    return _mixed("mc5_18", num_classes, in_channels, dropout, bn_eps)


def r2plus1d_18(
    *, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.0, bn_eps: float = 1e-5
) -> VideoResNet:
    """Factorised (2+1)D convolutions throughout; 31.5 M parameters with 400 classes."""
    return VideoResNet(
        (Conv2Plus1D,) * 4,
        _stem_2plus1d,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        bn_eps=bn_eps,
    )
