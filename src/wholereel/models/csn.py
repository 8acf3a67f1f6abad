"""Channel-separated networks (CSN): 3 x 3 x 3 convolutions that see one channel, and 1 x 1 x 1 ones that mix them.

Source: arXiv 1904.02811; forms as in facebookresearch/VMZ (Apache-2.0), whose parameter names these are. In
interaction-reduced networks (ir) the depthwise convolution replaces the 3 x 3 x 3 one; in interaction-preserved ones
(ip) a 1 x 1 x 1 convolution with a norm, and no ReLU, stands in front of it. `group:G` splits the channels into G
groups instead, as in the paper's study. Depths 18 and 34, of simple blocks, are for such studies: VMZ has none of them.
Order: convolutions, network, from the dense network, key layouts, named networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.depthwise import DepthwiseConv3d
from wholereel.layers.pointwise import PointwiseConv3d
from wholereel.layers.residual_3d import Convolution, dense
from wholereel.models.layouts import ImageTrunk, Layout, renaming
from wholereel.models.video_resnet import DEPTHS, SIMPLE, VMZ, VideoResNet, vmz_info
from wholereel.models.vmz_layout import vmz_caffe2
from wholereel.ops.depthwise_conv3d import Implementation, Triple

__all__ = ["NETWORKS", "ChannelSeparated", "copy_dense", "csn", "separated"]


class PointThenDepthwise(nn.Sequential):
    """1 x 1 x 1, norm, (ReLU,) depthwise 3 x 3 x 3."""

    def __init__(
        self, planes: int, out: int, strides: Triple, relu_between: bool, implementation: Implementation
    ) -> None:
        super().__init__(
            PointwiseConv3d(planes, out),
            BatchNorm3d(out),
            *([nn.ReLU(inplace=True)] if relu_between else []),
            _depthwise(out, strides, implementation),
        )

    @property
    def pointwise(self) -> nn.Conv3d:
        """The factor that mixes channels."""
        return cast(nn.Conv3d, self[0])

    @property
    def norm(self) -> nn.BatchNorm3d:
        """The norm between the factors."""
        return cast(nn.BatchNorm3d, self[1])

    @property
    def depthwise(self) -> nn.Conv3d:
        """The factor that sees time and space."""
        return cast(nn.Conv3d, self[-1])


def _depthwise(planes: int, strides: Triple, implementation: Implementation) -> DepthwiseConv3d:
    return DepthwiseConv3d(planes, 3, strides, 1, implementation=implementation)


def _grouped(planes: int, out: int, groups: int, strides: Triple, implementation: Implementation) -> nn.Conv3d:
    if groups == planes == out:
        return _depthwise(planes, strides, implementation)
    return nn.Conv3d(planes, out, 3, stride=strides, padding=1, groups=groups, bias=False)


def separated(mode: str, relu_between: bool = False, implementation: Implementation = "auto") -> Convolution:
    """The convolution of a mode: `ir`, `ip`, `dense` or `group:G`; `implementation` of the depthwise ones.

    A depthwise convolution gives as many channels as it reads. Where a simple block widens, `ir` is therefore `ip` (our
    choice).
    Raises: ValueError: another mode.
    """
    kind, _, number = mode.partition(":")
    if kind == "ip" and not number:
        return Convolution(
            lambda planes, out, mid, strides: PointThenDepthwise(planes, out, strides, relu_between, implementation)
        )
    if kind == "ir" and not number:
        return Convolution(
            lambda planes, out, mid, strides: (
                _depthwise(planes, strides, implementation)
                if planes == out
                else PointThenDepthwise(planes, out, strides, relu_between, implementation)
            )
        )
    if kind == "group" and number.isdigit() and int(number):
        return Convolution(
            lambda planes, out, mid, strides: _grouped(planes, out, int(number), strides, implementation)
        )
    if mode == "dense":
        return Convolution(dense)
    raise ValueError(f"mode must be 'ir', 'ip', 'dense' or 'group:G' with G > 0, got {mode!r}")


class ChannelSeparated(VideoResNet):
    """A `VideoResNet` with the layouts that channel-separated networks are published in.

    `reduced`: its convolutions are plain depthwise ones.
    """

    reduced: bool

    def image_trunks(self) -> tuple[ImageTrunk, ...]:
        return ()  # a depthwise kernel is no inflated one

    def layouts(self) -> tuple[Layout, ...]:
        if self.depth in SIMPLE:
            return ()  # published by nobody
        ip = any(isinstance(module, PointThenDepthwise) for module in self.modules())
        caffe2 = vmz_caffe2(DEPTHS[self.depth], factorised_stem=False, reduced=self.reduced, pool1=True)
        return (mmaction2(ip), caffe2, VMZ) if ip else (mmaction2(ip), caffe2, VMZ, PYTORCHVIDEO)


# ----------------------------------------------------------------------------------------------- from the dense network


@torch.no_grad()
def copy_dense(model: ChannelSeparated, dense: VideoResNet) -> None:
    """Begin an `ip` network as the dense one of its depth (our addition; no paper does it).

    Each filter W[o, i, :] becomes p[o, i] d[o, :], the nearest of rank one; exact in eval mode where W is separable.
    Raises: ValueError: not an `ip` network without ReLU between its factors, or another depth or width.
    """
    source = dense.state_dict()
    factors = {name: module for name, module in model.named_modules() if isinstance(module, PointThenDepthwise)}
    inside = tuple(f"{name}." for name in factors)
    shared = {name: value for name, value in model.state_dict().items() if not name.startswith(inside)}
    kernels = {f"{name}.weight" for name in factors}
    if (
        not factors
        or any(len(module) != 3 for module in factors.values())
        or set(shared) | kernels != set(source)
        or any(value.shape != source[name].shape for name, value in shared.items())
        or any(len(source[f"{name}.weight"]) != len(module.pointwise.weight) for name, module in factors.items())
    ):
        raise ValueError("needs an 'ip' network without ReLU between its factors, and the dense one of its size")
    model.load_state_dict({**model.state_dict(), **{name: source[name] for name in shared}})
    for name, factor in factors.items():
        pointwise, norm, depthwise = factor.pointwise, factor.norm, factor.depthwise
        kernel_OIK = source[f"{name}.weight"].flatten(2)
        left_OIR, sizes_OR, right_ORK = torch.linalg.svd(kernel_OIK.double(), full_matrices=False)
        pointwise.weight.copy_((left_OIR[:, :, 0] * sizes_OR[:, :1])[..., None, None, None])
        depthwise.weight.copy_(right_ORK[:, 0].unflatten(1, (1, 3, 3, 3)))
        norm.reset_running_stats()
        nn.init.constant_(norm.weight, (1 + norm.eps) ** 0.5)  # the norm changes nothing
        nn.init.zeros_(norm.bias)


# -------------------------------------------------------------------------------------------------------- key layouts


def mmaction2(ip: bool) -> Layout:
    """In conv2, MMAction2 counts pairs of convolution and norm, ours is a sequence and a norm behind it."""
    inside = ((r"\.conv2\.0\.0\.", ".conv2.0.conv."), (r"\.conv2\.0\.1\.", ".conv2.0.bn.")) if ip else ()
    key = renaming(
        (r"\.conv2\.1\.", ".conv2.1.bn." if ip else ".conv2.0.bn."),
        *inside,
        (r"\.conv2\.0\.[23]\.", ".conv2.1.conv."),
        (r"\.conv2\.0\.weight$", ".conv2.0.conv.weight"),
        (r"\.(conv[13]|downsample)\.0\.", r".\1.conv."),
        (r"\.(conv[13]|downsample)\.1\.", r".\1.bn."),
        (r"^stem\.0\.", "conv1.conv."),
        (r"^stem\.1\.", "conv1.bn."),
        (r"^(?=conv1|layer)", "backbone."),
        (r"^fc\.", "cls_head.fc_cls."),
    )
    return Layout("mmaction2", key, {"bn_eps": 1e-3, "pool1": True})


PYTORCHVIDEO = Layout(
    "pytorchvideo",
    renaming(
        (r"^stem\.0\.", "blocks.0.conv."),
        (r"^stem\.1\.", "blocks.0.norm."),
        (r"^layer(\d)\.(\d+)\.", r"blocks.\1.res_blocks.\2."),
        (r"\.downsample\.0\.", ".branch1_conv."),
        (r"\.downsample\.1\.", ".branch1_norm."),
        *((rf"\.conv{number}\.0\.", f".branch2.conv_{letter}.") for number, letter in enumerate("abc", 1)),
        *((rf"\.conv{number}\.1\.", f".branch2.norm_{letter}.") for number, letter in enumerate("abc", 1)),
        (r"^fc\.", "blocks.5.proj."),
    ),
    {"bn_eps": 1e-5, "pool1": True},
)

# ----------------------------------------------------------------------------------------------------- named networks


def csn(
    published_mode: str,
    depth: int,
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.0,
    width: int = 64,
    bn_eps: float = 1e-3,
    pool1: bool = True,
    mode: str | None = None,
    relu_between: bool = False,
    implementation: Implementation = "auto",
    dilated: bool = False,
    bottleneck: float = 1.0,
    stem_kernel: int = 3,
    stem_stride: int = 1,
    temporal_strides: int = 3,
) -> ChannelSeparated:
    """A row of `NETWORKS`; depth 26 does not widen behind its bottlenecks.

    Args:
        mode: see `separated`; the name's where `None`.
        relu_between: a ReLU between the factors of `ip`, which the published networks don't have.
        implementation: of depthwise convolutions, see `ops.depthwise_conv3d`; `native` also leaves the memory format of
            clips as it is, which repeats what other code bases compute to the last bit.
        num_classes, in_channels, dropout, width, bn_eps, pool1, dilated, bottleneck, stem_kernel, stem_stride,
            temporal_strides: as in `VideoResNet`.
    """
    mode = published_mode if mode is None else mode
    model = ChannelSeparated(
        (separated(mode, relu_between, implementation),) * 4,
        depth,
        vmz_info(224, 32, "arXiv 1904.02811"),
        expansion=1 if depth == 26 else 4,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        pool1=pool1,
        dilated=dilated,
        channels_last=implementation != "native",
        bottleneck=bottleneck,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        temporal_strides=temporal_strides,
    )
    model.reduced = mode == "ir"
    return model


NETWORKS: dict[str, Callable[..., ChannelSeparated]] = {
    f"{mode}_csn_{depth}": partial(csn, mode, depth) for mode in ("ir", "ip") for depth in (18, 26, 34, 50, 101, 152)
}
