"""R3D, MCx and R(2+1)D, with the parameter names of torchvision's video networks.

Source: R(2+1)D, arXiv 1711.11248. Depth 18 follows pytorch/vision `models/video/resnet.py` (BSD-3-Clause), so that
weights published for `r3d_18`, `mc3_18` and `r2plus1d_18` load unchanged; its R(2+1)D computes the middle width of
*both* convolutions of a block from the block's own input and output widths. All others follow facebookresearch/VMZ
(Apache-2.0), the form of the paper's networks and of the IG-65M weights: the middle width of each convolution from its
own widths, epsilon 1e-3, and above depth 34 bottleneck blocks.
MCx: the stem and the first x - 2 layers are 3-D, all others see single frames (mc3 is torchvision's, mc2, mc4, mc5
follow the paper's rule). rMCx is the reverse: these see single frames, all others are 3-D.
Not here: channel-separated networks, which share this trunk (`csn.py`).
Order: convolutions, blocks, stems, network, named networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.layers.convolution import Conv3d
from wholereel.layers.dilation import dilate
from wholereel.layers.mlp import DropPath
from wholereel.layers.pointwise import PointwiseConv3d
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions
from wholereel.models.layouts import OWN, ImageTrunk, Layout, renaming
from wholereel.models.vmz_layout import vmz_caffe2

__all__ = ["DEPTHS", "NETWORKS", "Conv2Plus1D", "Convolution", "VideoResNet", "dense", "per_frame", "vmz_info"]

DEPTHS: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Triple = tuple[int, int, int]
SIMPLE = (10, 18, 34)  # depths of two 3 x 3 x 3 convolutions a block; the others are bottlenecks
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


def vmz_info(crop: int, frames: int, origin: str) -> ModelInfo:
    """How the networks of VMZ read clips."""
    return ModelInfo(
        mean=INFO.mean,
        std=INFO.std,
        crop=crop,
        frames=frames,
        stride=2,
        frame_rate=30.0,
        licence="Apache-2.0 (VMZ)",
        origin=f"{origin}; facebookresearch/VMZ",
    )


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
            nn.BatchNorm3d(mid_planes),
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
            nn.BatchNorm3d(mid),
            nn.ReLU(inplace=True),
            PointwiseConv3d(mid, planes, (time, 1, 1)),
        )


def _shortcut(in_planes: int, planes: int, strides: Triple, factorised: bool = False) -> nn.Sequential | None:
    if strides == (1, 1, 1) and in_planes == planes:
        return None
    if factorised:
        return nn.Sequential(Factorised1x1(in_planes, planes, strides), nn.BatchNorm3d(planes))
    return nn.Sequential(PointwiseConv3d(in_planes, planes, strides), nn.BatchNorm3d(planes))


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
            convolution.make(in_planes, planes, mid, strides), nn.BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(convolution.make(planes, planes, mid2, (1, 1, 1)), nn.BatchNorm3d(planes))
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
        self.conv1 = nn.Sequential(PointwiseConv3d(in_planes, inner), nn.BatchNorm3d(inner), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(
            convolution.make(inner, inner, middle_width(inner, inner), strides),
            nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True),
        )
        self.conv3 = nn.Sequential(PointwiseConv3d(inner, planes), nn.BatchNorm3d(planes))
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


def _stem_3d(in_channels: int, width: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        Conv3d(in_channels, width, (kernel, 7, 7), stride=(stride, 2, 2), padding=(kernel // 2, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


def _stem_2plus1d(in_channels: int, width: int, mid: int) -> list[nn.Module]:
    return [
        Conv3d(in_channels, mid, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        Conv3d(mid, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    ]


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


# ------------------------------------------------------------------------------------------------------------ network


class VideoResNet(ClipModel):
    """Residual network over clips.

    Args:
        convolutions: kind of convolution in each of the four layers.
        depth: row of `DEPTHS`.
        info: clip that the network is meant for.
        factorised_stem: 1 x 7 x 7, then 3 x 1 x 1, instead of 3 x 7 x 7.
        shared_middle: see `BasicBlock`.
        mmaction2: MMAction2's R(2+1)D: 83 channels inside the stem, factorised shortcuts, epsilon 1e-5 inside
            factorised convolutions; with simple blocks alone.
        expansion: width behind a bottleneck over the width inside.
        num_classes: K; 0 = no classifier.
        in_channels: C of the input.
        dropout: probability in front of the classifier.
        width: channels of the stem.
        bn_eps: of all BatchNorm layers (1e-5 in torchvision, 1e-3 in VMZ).
        pool1: a 1 x 3 x 3 max pool of stride 2 behind the stem.
        dilated: layer4 keeps the size of layer3 in space and looks twice as far (for detection).
        temporal_strides: layers, from the second on, whose first block halves the frames; VMZ has 2 for clips of fewer
            than 8 frames, 1 for fewer than 4.
        stem_kernel, stem_stride: frames that a stem that is not factorised sees, and their stride.
        bottleneck: width inside a bottleneck in units of the usual one.
        channels_last: clips are brought to channels-last memory, in which all that follows stays.
    """

    stage_names: ClassVar[tuple[str, ...]] = ("stem", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        convolutions: tuple[Convolution, ...],
        depth: int,
        info: ModelInfo,
        *,
        factorised_stem: bool = False,
        shared_middle: bool = False,
        mmaction2: bool = False,
        expansion: int = 4,
        num_classes: int = 400,
        in_channels: int = 3,
        dropout: float = 0.0,
        width: int = 64,
        bn_eps: float = 1e-5,
        pool1: bool = False,
        channels_last: bool = False,
        dilated: bool = False,
        temporal_strides: int = 3,
        stem_kernel: int = 3,
        stem_stride: int = 1,
        bottleneck: float = 1.0,
    ) -> None:
        super().__init__()
        simple = depth in SIMPLE
        self.depth, self.factorised_stem, self.shared_middle = depth, factorised_stem, shared_middle
        self.info, self.num_features = info, (8 if simple else 8 * expansion) * width
        self.settings = {"bn_eps": bn_eps, "pool1": pool1, "dilated": dilated}
        unusual = {"temporal_strides": (temporal_strides, 3), "stem_stride": (stem_stride, 1)}
        self.settings |= {name: value for name, (value, usual) in unusual.items() if value != usual}
        if factorised_stem:
            stem = _stem_2plus1d(in_channels, width, 83 if mmaction2 else 45)
        else:
            stem = _stem_3d(in_channels, width, stem_kernel, stem_stride)
        self.stem = (ChannelsLast if channels_last else nn.Sequential)(*stem, *_pool1(pool1))
        planes, reduction = width, (stem_stride, *((4, 4) if pool1 else (2, 2)))
        self.feature_info: list[dict[str, Any]] = [{"name": "stem", "channels": width, "reduction": reduction}]
        for index, (count, convolution) in enumerate(zip(DEPTHS[depth], convolutions, strict=True)):
            out = (width << index) * (1 if simple else expansion)
            inner = round((width << index) * bottleneck)
            blocks: list[nn.Module] = []
            for number in range(count):
                strides = convolution.strides(2 if index and not number else 1, index <= temporal_strides)
                if simple:
                    blocks.append(
                        BasicBlock(
                            planes,
                            out,
                            convolution,
                            strides,
                            shared_middle=shared_middle,
                            factorised_shortcut=mmaction2,
                        )
                    )
                else:
                    blocks.append(BottleneckBlock(planes, inner, out, convolution, strides))
                planes = out
            setattr(self, f"layer{index + 1}", ResidualLayer(*blocks))
            step = convolution.strides(2 if index else 1, index <= temporal_strides)
            if dilated and index == 3:
                dilate(self.get_submodule("layer4"))
                step = (step[0], 1, 1)
            reduction = (reduction[0] * step[0], reduction[1] * step[1], reduction[2] * step[2])
            self.feature_info.append({"name": f"layer{index + 1}", "channels": out, "reduction": reduction})
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = bn_eps
        if mmaction2:
            inside = [module[1] for module in self.modules() if isinstance(module, (Conv2Plus1D, Factorised1x1))]
            for norm in (*inside, self.stem[1]):
                cast(nn.BatchNorm3d, norm).eps = 1e-5
        self.mmaction2 = mmaction2
        init_convolutions(self)
        self.reset_classifier(num_classes, dropout)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        if stage == "layer4":
            return super().stage_inputs(stage)
        following = self.stage_names[self.stage_names.index(stage) + 1]
        block = self.get_submodule(f"{following}.0")
        if block.downsample is None:  # the shortcut reads the features as they are
            return ()
        factor = ".0" if isinstance(self.get_submodule(f"{following}.0.conv1.0"), nn.Sequential) else ""
        shortcut = ".0" if self.mmaction2 else ""
        return f"{following}.0.conv1.0{factor}.weight", f"{following}.0.downsample.0{shortcut}.weight"

    def image_trunks(self) -> tuple[ImageTrunk, ...]:
        kinds = [module for module in self.modules() if isinstance(module, Conv2Plus1D)]
        return () if kinds or self.factorised_stem else (ImageTrunk(IMAGE),)

    def layouts(self) -> tuple[Layout, ...]:
        if self.mmaction2:
            return (MMACTION2,)
        caffe2 = vmz_caffe2(DEPTHS[self.depth], factorised_stem=self.factorised_stem, reduced=False, pool1=False)
        return caffe2, TORCHVISION if self.shared_middle else VMZ


def _pool1(pool1: bool) -> list[nn.Module]:
    return [nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))] if pool1 else []


FACTORS = (("0", "conv_s"), ("1", "bn_s"), ("3", "conv_t"))
MMACTION2 = Layout(
    "mmaction2",
    renaming(
        *((rf"^stem\.{number}\.", f"backbone.conv1.conv.{factor}.") for number, factor in FACTORS),
        (r"^stem\.4\.", "backbone.conv1.bn."),
        *((rf"\.(conv\d|downsample)\.0\.{number}\.", rf".\1.conv.{factor}.") for number, factor in FACTORS),
        (r"\.(conv\d|downsample)\.1\.", r".\1.bn."),
        (r"^layer", "backbone.layer"),
        (r"^fc\.", "cls_head.fc_cls."),
    ),
    {"bn_eps": 1e-3, "pool1": True},
)
# Their names are our own.
TORCHVISION = Layout("torchvision", OWN.key, {"bn_eps": 1e-5, "pool1": False}, licence="BSD-3-Clause (torchvision)")
VMZ = Layout("vmz", OWN.key, {"bn_eps": 1e-3}, licence="Apache-2.0 (VMZ)")
# Names of image networks in torchvision and timm.
IMAGE = Layout(
    "image",
    renaming(
        (r"^stem\.0\.", "conv1."),
        (r"^stem\.1\.", "bn1."),
        (r"\.conv(\d)\.0\.", r".conv\1."),
        (r"\.conv(\d)\.1\.", r".bn\1."),
    ),
)
# ----------------------------------------------------------------------------------------------------- named networks


def torchvision_resnet(
    layers_3d: int,
    reverse: bool = False,
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.0,
    width: int = 64,
    bn_eps: float = 1e-5,
    pool1: bool = False,
    dilated: bool = False,
) -> VideoResNet:
    """Depth 18 as in torchvision; stem and `layers_3d` (0 to 4) layers are 3-D, -1 = all are (2+1)D.

    With `reverse` the stem and so many layers see single frames, and the others are 3-D.
    """
    first, others = ("2d", "3d") if reverse else ("3d", "2d")
    kinds = ["2plus1d"] * 4 if layers_3d < 0 else [first] * layers_3d + [others] * (4 - layers_3d)
    return VideoResNet(
        tuple(CONVOLUTIONS[kind] for kind in kinds),
        18,
        INFO,
        factorised_stem=layers_3d < 0,
        stem_kernel=1 if reverse else 3,
        shared_middle=True,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        pool1=pool1,
        dilated=dilated,
    )


def vmz_resnet(
    kind: str,
    depth: int,
    frames: int,
    crop: int,
    pool: bool,
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.0,
    width: int = 64,
    bn_eps: float = 1e-3,
    pool1: bool | None = None,
    dilated: bool = False,
    temporal_strides: int = 3,
) -> VideoResNet:
    """The form of VMZ: one kind of convolution throughout, a row of `CONVOLUTIONS`; depth 26 does not widen."""
    return VideoResNet(
        (CONVOLUTIONS[kind],) * 4,
        depth,
        vmz_info(crop, frames, "arXiv 1711.11248"),
        factorised_stem=kind == "2plus1d",
        expansion=1 if depth == 26 else 4,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        pool1=pool if pool1 is None else pool1,
        dilated=dilated,
        temporal_strides=temporal_strides,
    )


def mmaction2_resnet(
    depth: int,
    frames: int,
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = 64,
    bn_eps: float = 1e-3,
    dilated: bool = False,
) -> VideoResNet:
    """R(2+1)D in MMAction2's form, which no other code base's weights fit."""
    info = vmz_info(112, frames, "arXiv 1711.11248")
    return VideoResNet(
        (CONVOLUTIONS["2plus1d"],) * 4,
        depth,
        replace(
            info,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            licence="Apache-2.0 (MMAction2)",
            origin="arXiv 1711.11248; open-mmlab/mmaction2",
        ),
        factorised_stem=True,
        mmaction2=True,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        pool1=True,
        dilated=dilated,
    )


NETWORKS: dict[str, Callable[..., VideoResNet]] = {
    **{f"rmc{x}_18": partial(torchvision_resnet, x - 2, True) for x in range(2, 6)},
    "mc2_18": partial(torchvision_resnet, 0),
    "mc3_18": partial(torchvision_resnet, 1),
    "mc4_18": partial(torchvision_resnet, 2),
    "mc5_18": partial(torchvision_resnet, 3),
    "r3d_18": partial(torchvision_resnet, 4),
    "r2plus1d_18": partial(torchvision_resnet, -1),
    "r3d_18_vmz": partial(vmz_resnet, "3d", 18, 8, 112, False),
    "r3d_34": partial(vmz_resnet, "3d", 34, 8, 112, False),
    "r2plus1d_18_vmz": partial(vmz_resnet, "2plus1d", 18, 8, 112, False),
    "r3d_50": partial(vmz_resnet, "3d", 50, 8, 112, False),
    "r3d_101": partial(vmz_resnet, "3d", 101, 8, 112, False),
    "r3d_152": partial(vmz_resnet, "3d", 152, 8, 112, False),
    "r2plus1d_34": partial(vmz_resnet, "2plus1d", 34, 32, 112, False),
    "r2plus1d_34_mmaction2": partial(mmaction2_resnet, 34, 8),
    "r2plus1d_50": partial(vmz_resnet, "2plus1d", 50, 32, 112, False),
    "r2plus1d_101": partial(vmz_resnet, "2plus1d", 101, 32, 112, False),
    "r2plus1d_152": partial(vmz_resnet, "2plus1d", 152, 32, 112, False),
    "resnet3d_26": partial(vmz_resnet, "3d", 26, 32, 224, True),
    "resnet3d_50": partial(vmz_resnet, "3d", 50, 32, 224, True),
    "resnet3d_101": partial(vmz_resnet, "3d", 101, 32, 224, True),
    "resnet3d_152": partial(vmz_resnet, "3d", 152, 32, 224, True),
}
