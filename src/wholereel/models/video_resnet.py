"""R3D, MCx and R(2+1)D, with the parameter names of torchvision's video networks.

Source: R(2+1)D, arXiv 1711.11248. Depth 18 follows pytorch/vision `models/video/resnet.py` (BSD-3-Clause), so that
weights published for `r3d_18`, `mc3_18` and `r2plus1d_18` load unchanged; its R(2+1)D computes the middle width of
*both* convolutions of a block from the block's own input and output widths. All others follow facebookresearch/VMZ
(Apache-2.0), the form of the paper's networks and of the IG-65M weights: the middle width of each convolution from its
own widths, epsilon 1e-3, and above depth 34 bottleneck blocks.
MCx: the stem and the first x - 2 layers are 3-D, all others see single frames (mc3 is torchvision's, mc2, mc4, mc5
follow the paper's rule). rMCx is the reverse: these see single frames, all others are 3-D.
Not here: blocks (`layers/residual_3d.py`), channel-separated networks, which share this trunk (`csn.py`).
Order: network, key layouts, named networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

from torch import nn

from wholereel.layers.dilation import dilate
from wholereel.layers.residual_3d import (
    CONVOLUTIONS,
    BasicBlock,
    BottleneckBlock,
    ChannelsLast,
    Conv2Plus1D,
    Convolution,
    Factorised1x1,
    ResidualLayer,
    stem_2plus1d,
    stem_3d,
)
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions
from wholereel.models.layouts import OWN, ImageTrunk, Layout, renaming
from wholereel.models.vmz_layout import vmz_caffe2

__all__ = ["DEPTHS", "NETWORKS", "SIMPLE", "VMZ", "VideoResNet", "vmz_info"]

DEPTHS: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
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
            stem = stem_2plus1d(in_channels, width, 83 if mmaction2 else 45)
        else:
            stem = stem_3d(in_channels, width, stem_kernel, stem_stride)
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


# ---------------------------------------------------------------------------------------------------------- key layouts

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
