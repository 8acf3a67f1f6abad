"""CorrNet, and the R(2+1)D bottleneck networks and R2D baseline that it is built on.

Source: arXiv 1906.03349, tables 1 and 2; the trunk, with the temporal convolution in front of the spatial one, is also
facebookresearch/pytorchvideo's `r2plus1d_r50` (Apache-2.0), hence `_ptv` in the names. No official code of CorrNet
exists; what the paper leaves open is said in `layers/correlation.py` and `docs`.
Order: network, key layouts, named networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.bottleneck import (
    DEPTHS,
    BlockPlan,
    Middle,
    Stage,
    Stem,
    begin_residuals_at_zero,
    spatial,
    stage_blocks,
)
from wholereel.layers.convolution import Conv3d
from wholereel.layers.correlation import CorrelationBlock, FilterInit, Join
from wholereel.layers.dilation import dilate
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions
from wholereel.models.layouts import Layout, renaming
from wholereel.models.slow import PYTORCHVIDEO_BLOCK, RES_STAGES, pyslowfast_info
from wholereel.ops.correlation import Displaced, Implementation

__all__ = ["NETWORKS", "CorrNet", "corrnet", "correlation_places", "factorised_resnet"]


class TemporalThenSpatial(nn.Module):
    """3 x 1 x 1 with the temporal stride, norm, ReLU, 1 x 3 x 3 with the spatial stride."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        time, space = plan.stride
        self.conv_t = Conv3d(plan.inner, plan.inner, (3, 1, 1), stride=(time, 1, 1), padding=(1, 0, 0), bias=False)
        self.norm = BatchNorm3d(plan.inner, eps=plan.bn_eps)
        self.conv_xy = Conv3d(
            plan.inner, plan.inner, (1, 3, 3), stride=(1, space, space), padding=(0, 1, 1), bias=False
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        y_BCTHW: Tensor = self.conv_xy(F.relu(self.norm(self.conv_t(x_BCTHW)), inplace=True))
        return y_BCTHW


MIDDLES: dict[str, Middle] = {"2d": spatial, "2plus1d": TemporalThenSpatial}


def correlation_places(depth: int) -> dict[str, tuple[int, ...]]:
    """Stage -> blocks behind which a correlation block stands: the last of res2, res3 and res4.

    Depth 101 has a fourth in the middle of res4, which we put behind its 12th block (our choice).
    """
    places: dict[str, tuple[int, ...]] = {
        name: (count - 1,) for name, count in zip(RES_STAGES[1:4], DEPTHS[depth], strict=False)
    }
    return places if depth < 101 else places | {"res4": (11, *places["res4"])}


class CorrNet(ClipModel):
    """Bottleneck network with correlation blocks.

    Args:
        middle: row of `MIDDLES`: what stands between the 1 x 1 x 1 convolutions of a block.
        depth: row of `DEPTHS`.
        info: clip that the network is meant for.
        places: stage -> indices of the blocks behind which a correlation block stands.
        frames: length of clip that the filters have slices for; 1 = one slice for all frames.
        correlation: further arguments of `CorrelationBlock`.
        num_classes: K; 0 = no classifier. in_channels: C of the input. dropout: in front of the classifier.
        width: channels of the stem. bn_eps: of all norms. zero_init: residual branches begin at zero.
        dilated: res5 keeps the size of res4 in space and looks twice as far (for detection).
    """

    stage_names: ClassVar[tuple[str, ...]] = RES_STAGES

    def __init__(
        self,
        middle: str,
        depth: int,
        info: ModelInfo,
        *,
        places: Mapping[str, tuple[int, ...]],
        frames: int,
        correlation: Mapping[str, Any],
        num_classes: int,
        in_channels: int,
        dropout: float,
        width: int,
        bn_eps: float,
        zero_init: bool,
        dilated: bool = False,
    ) -> None:
        super().__init__()
        self.info, self.num_features = info, 32 * width
        self.settings = {
            "bn_eps": bn_eps,
            "dilated": dilated,
            **{key: correlation[key] for key in HIDDEN if any(places.values())},
        }
        self.stem = Stem(in_channels, width, 1, pool=False, bn_eps=bn_eps)
        self.feature_info = [{"name": "stem", "channels": width, "reduction": (1, 2, 2)}]
        planes, time, space = width, 1, 2
        for index, (name, count) in enumerate(zip(RES_STAGES[1:], DEPTHS[depth], strict=True)):
            inner, out = width << index, 4 * width << index
            stride = (1 if index < 2 else 2, 2)
            widens = dilated and name == RES_STAGES[-1]
            time, space = time * stride[0], space * (1 if widens else stride[1])
            blocks = stage_blocks(count, BlockPlan(planes, inner, out, stride, bn_eps=bn_eps), middle=MIDDLES[middle])
            length = -(-frames // time)  # strides round up
            inserted = {
                block: CorrelationBlock(out, length, bn_eps=bn_eps, **correlation) for block in places.get(name, ())
            }
            setattr(self, name, Stage(blocks, inserted))
            if widens:
                dilate(self.get_submodule(name))
            self.feature_info.append({"name": name, "channels": out, "reduction": (time, space, space)})
            planes = out
        init_convolutions(self)
        if zero_init:
            begin_residuals_at_zero(self)
        self.reset_classifier(num_classes, dropout)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        if stage == RES_STAGES[-1]:
            return super().stage_inputs(stage)
        following = f"{RES_STAGES[RES_STAGES.index(stage) + 1]}.blocks.0"
        return f"{following}.conv_a.weight", f"{following}.shortcut_conv.weight"

    def layouts(self) -> tuple[Layout, ...]:
        return (PYTORCHVIDEO,)


# Settings of correlation blocks that keys and shapes don't show.
HIDDEN = ("dilation", "displaced", "half")

# ---------------------------------------------------------------------------------------------------------- key layouts

PYTORCHVIDEO = Layout(
    "pytorchvideo",
    renaming(
        *((rf"^{name}\.", f"blocks.{number}.") for number, name in enumerate(RES_STAGES)),
        (r"^(blocks\.\d)\.blocks\.", r"\1.res_blocks."),
        (r"^(blocks\.\d)\.inserted\.", r"\1.corr."),  # ours: pytorchvideo has no such blocks
        *PYTORCHVIDEO_BLOCK,
        (r"^fc\.", "blocks.5.proj."),
    ),
    {"bn_eps": 1e-5},
)

# ------------------------------------------------------------------------------------------------------- named networks


def factorised_resnet(
    middle: str,
    depth: int,
    clip: tuple[int, int],
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = 64,
    bn_eps: float = 1e-5,
    zero_init: bool = True,
    dilated: bool = False,
) -> CorrNet:
    """The trunk alone: `2plus1d` in pytorchvideo's form, or the paper's `2d` baseline."""
    return CorrNet(
        middle,
        depth,
        pyslowfast_info(*clip, "arXiv 1711.11248, 1906.03349; facebookresearch/pytorchvideo"),
        places={},
        frames=clip[0],
        correlation={},
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        zero_init=zero_init,
        dilated=dilated,
    )


def corrnet(
    depth: int,
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = 64,
    bn_eps: float = 1e-5,
    zero_init: bool = True,
    frames: int = 32,
    per_frame: bool = True,
    join: Join = "sum",
    kernel: int = 7,
    dilation: int = 2,
    group_size: int = 32,
    displaced: Displaced = "previous",
    half: bool = False,
    implementation: Implementation = "auto",
    filter_init: FilterInit = "ones",
    dilated: bool = False,
) -> CorrNet:
    """CorrNet of a depth.

    Args:
        frames: length of clip that the filters have slices for.
        per_frame: a slice for every frame, as in the paper, or one for all.
        join, kernel, dilation, group_size, displaced, half, implementation: as in `CorrelationBlock`; `filter_init` is
            its `init`.
        num_classes, in_channels, dropout, width, bn_eps, zero_init: as in `CorrNet`.
    """
    return CorrNet(
        "2plus1d",
        depth,
        pyslowfast_info(frames, 2, "arXiv 1906.03349"),
        places=correlation_places(depth),
        frames=frames if per_frame else 1,
        correlation={
            "join": join,
            "kernel": kernel,
            "dilation": dilation,
            "group_size": group_size,
            "displaced": displaced,
            "half": half,
            "implementation": implementation,
            "init": filter_init,
        },
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        zero_init=zero_init,
        dilated=dilated,
    )


NETWORKS: dict[str, Callable[..., CorrNet]] = {
    "r2d_ptv_26": partial(factorised_resnet, "2d", 26, (32, 2)),
    "r2plus1d_ptv_26": partial(factorised_resnet, "2plus1d", 26, (32, 2)),
    "r2plus1d_ptv_50": partial(factorised_resnet, "2plus1d", 50, (16, 4)),
    "r2plus1d_ptv_101": partial(factorised_resnet, "2plus1d", 101, (32, 2)),
    **{f"corrnet_{depth}": partial(corrnet, depth) for depth in (26, 50, 101)},
}
