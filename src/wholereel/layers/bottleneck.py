"""Bottleneck blocks and stages of the networks that followed SlowFast: 1 x 1, 3 x 3, 1 x 1 with the time axis inside.

Source: arXiv 1812.03982; forms as in facebookresearch/SlowFast and facebookresearch/pytorchvideo (Apache-2.0). Norms
behind every convolution, ReLU behind the first two, add, ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.layers.convolution import Conv3d
from wholereel.layers.mlp import DropPath

__all__ = ["DEPTHS", "Bottleneck", "BlockPlan", "Middle", "Stage", "Stem", "begin_residuals_at_zero", "stage_blocks"]

# Blocks of the four stages.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True)
class BlockPlan:
    """Sizes of a block.

    Args:
        planes, inner, out: channels of the input, inside, and of the output.
        stride: (time, space).
        kernel_t: frames that the first convolution sees.
        dilation: of the 3 x 3 convolution.
        bn_eps: of all norms.
    """

    planes: int
    inner: int
    out: int
    stride: tuple[int, int] = (1, 1)
    kernel_t: int = 1
    dilation: int = 1
    bn_eps: float = 1e-5


Middle = Callable[[BlockPlan], nn.Module]


def spatial(plan: BlockPlan) -> nn.Module:
    """1 x 3 x 3 with the block's stride and dilation."""
    step, gap = plan.stride, plan.dilation
    return Conv3d(
        plan.inner,
        plan.inner,
        (1, 3, 3),
        stride=(step[0], step[1], step[1]),
        padding=(0, gap, gap),
        dilation=(1, gap, gap),
        bias=False,
    )


class Bottleneck(nn.Module):
    """1 x 1 x 1 (or `kernel_t` x 1 x 1), the middle convolution, 1 x 1 x 1; added to the shortcut.

    The shortcut is a convolution where width or stride change, else the input itself.
    """

    def __init__(self, plan: BlockPlan, middle: Middle = spatial) -> None:
        super().__init__()
        self.conv_a = Conv3d(
            plan.planes, plan.inner, (plan.kernel_t, 1, 1), padding=(plan.kernel_t // 2, 0, 0), bias=False
        )
        self.norm_a = BatchNorm3d(plan.inner, eps=plan.bn_eps)
        self.conv_b = middle(plan)
        self.norm_b = BatchNorm3d(plan.inner, eps=plan.bn_eps)
        self.conv_c = nn.Conv3d(plan.inner, plan.out, 1, bias=False)
        self.norm_c = BatchNorm3d(plan.out, eps=plan.bn_eps)
        if plan.planes != plan.out or plan.stride != (1, 1):
            strides = (plan.stride[0], plan.stride[1], plan.stride[1])
            self.shortcut_conv = nn.Conv3d(plan.planes, plan.out, 1, stride=strides, bias=False)
            self.shortcut_norm = BatchNorm3d(plan.out, eps=plan.bn_eps)
        self.drop_path = DropPath(0.0)
        self.projects = plan.planes != plan.out or plan.stride != (1, 1)

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm that the residual branch ends with."""
        return self.norm_c

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        shortcut = self.shortcut_norm(self.shortcut_conv(x_BCTHW)) if self.projects else x_BCTHW
        x_BCTHW = F.relu(self.norm_a(self.conv_a(x_BCTHW)), inplace=True)
        x_BCTHW = F.relu(self.norm_b(self.conv_b(x_BCTHW)), inplace=True)
        return F.relu(self.drop_path(self.norm_c(self.conv_c(x_BCTHW))) + shortcut, inplace=True)


class Stage(CheckpointedStage):
    """Residual blocks, with further modules behind some of them.

    Args:
        blocks: in order.
        inserted: index of a block -> module behind it.
        pool_t: frames of a max pool in front of the first block; clips with fewer frames pass it as they are.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], inserted: Mapping[int, nn.Module] | None = None, pool_t: int = 1
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.inserted = nn.ModuleDict({str(index): module for index, module in (inserted or {}).items()})
        self.pool_t = pool_t

    def run(self, x_BCTHW: Tensor) -> Tensor:
        if 1 < self.pool_t <= x_BCTHW.shape[2]:
            x_BCTHW = F.max_pool3d(x_BCTHW, (self.pool_t, 1, 1))
        for index, block in enumerate(self.blocks):
            x_BCTHW = block(x_BCTHW)
            if str(index) in self.inserted:
                x_BCTHW = self.inserted[str(index)](x_BCTHW)
        return x_BCTHW


class Stem(nn.Module):
    """`kernel_t` x 7 x 7 with spatial stride 2, norm, ReLU and, if `pool`, a 1 x 3 x 3 max pool of stride 2.

    `stride_t` is the temporal stride of the convolution, `pool_stride_t` that of the pool.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        kernel_t: int,
        *,
        pool: bool = True,
        bn_eps: float = 1e-5,
        stride_t: int = 1,
        pool_stride_t: int = 1,
    ) -> None:
        super().__init__()
        self.conv = Conv3d(
            in_channels,
            planes,
            (kernel_t, 7, 7),
            stride=(stride_t, 2, 2),
            padding=(kernel_t // 2, 3, 3),
            bias=False,
        )
        self.norm = BatchNorm3d(planes, eps=bn_eps)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(pool_stride_t, 2, 2), padding=(0, 1, 1)) if pool else None

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x_BCTHW = F.relu(self.norm(self.conv(x_BCTHW)), inplace=True)
        return x_BCTHW if self.pool is None else self.pool(x_BCTHW)


def stage_blocks(
    count: int, first: BlockPlan, kernels_t: Sequence[int] = (1,), middle: Middle = spatial
) -> list[Bottleneck]:
    """The blocks of a stage: strides stand in the first; block i sees `kernels_t[i % len]` frames."""
    plans = [first, *[replace(first, planes=first.out, stride=(1, 1))] * (count - 1)]
    return [
        Bottleneck(replace(plan, kernel_t=kernels_t[index % len(kernels_t)]), middle)
        for index, plan in enumerate(plans)
    ]


def begin_residuals_at_zero(model: nn.Module) -> None:
    """Scale 0 in the last norm of every residual and non-local block: the network begins as its shortcuts."""
    for module in model.modules():
        last_norm = getattr(module, "last_norm", None)
        if isinstance(last_norm, nn.BatchNorm3d):
            nn.init.zeros_(last_norm.weight)
