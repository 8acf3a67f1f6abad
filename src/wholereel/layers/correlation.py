"""Correlation blocks: what moved between neighbouring frames, added to features or joined to them (arXiv 1906.03349).

The paper draws the blocks (figure 2) without norms and ReLU; those are our choice, as is the initial filter of ones.
Extra axes: L slices of a filter, K side of the neighbourhood.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.ops.correlation import Displaced, Implementation, correlate, filters_for_length

__all__ = ["FILTER_INIT", "Correlation", "CorrelationBlock", "FilterInit", "Join"]

Join = Literal["sum", "concat"]
FilterInit = Literal["ones", "normal", "he"]
# What filters begin as: the plain correlation, that with noise, or He's noise for C inputs (all our choice).
FILTER_INIT: dict[str, Callable[[Tensor], Tensor]] = {
    "ones": nn.init.ones_,
    "normal": lambda filter_LCKK: nn.init.normal_(filter_LCKK, mean=1.0, std=0.1),
    "he": lambda filter_LCKK: nn.init.normal_(filter_LCKK, std=(2 / filter_LCKK.shape[1]) ** 0.5),
}
log = logging.getLogger(__name__)


class Correlation(nn.Module):
    """`ops.correlation.correlate` with a learned filter.

    Args:
        channels: C.
        frames: L slices of the filter; 1 = one for all frames. Clips of other lengths get interpolated slices.
        kernel: K. dilation, groups, displaced, implementation: see `correlate`.
        init: row of `FILTER_INIT`.
    Raises: ValueError: an unknown `init`.
    """

    def __init__(
        self,
        channels: int,
        frames: int,
        kernel: int = 7,
        *,
        dilation: int = 2,
        groups: int = 1,
        displaced: Displaced = "previous",
        implementation: Implementation = "auto",
        init: FilterInit = "ones",
    ) -> None:
        super().__init__()
        if init not in FILTER_INIT:
            raise ValueError(f"init must be one of {', '.join(FILTER_INIT)}, got {init!r}")
        self.filter = nn.Parameter(torch.empty(frames, channels, kernel, kernel))
        FILTER_INIT[init](self.filter)
        self.dilation, self.groups, self.displaced = dilation, groups, displaced
        self.implementation = implementation
        self.said = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `Module.to(memory_format=torch.channels_last_3d)` asks it of every tensor of four axes, too, and fails.
        return super()._apply(lambda tensor: fn(tensor[None])[0].contiguous(), recurse)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        frames, length = x_BCTHW.shape[2], self.filter.shape[0]
        if length not in (1, frames) and not self.said:
            log.info("a correlation filter for %d frames is interpolated for clips of %d", length, frames)
            self.said = True
        return correlate(
            x_BCTHW,
            filters_for_length(self.filter, frames).to(x_BCTHW.dtype),
            dilation=self.dilation,
            groups=self.groups,
            displaced=self.displaced,
            implementation=self.implementation,
        )


class CorrelationBlock(nn.Module):
    """1 x 1 x 1 to a quarter of the channels, correlation, and back.

    Args:
        channels: C of input and output.
        frames: see `Correlation`.
        join: `sum`: 1 x 1 x 1 back to C, added to the input. `concat`: next to a 1 x 1 x 1 convolution of the quarter.
        group_size: channels of a group, cut to the quarter.
        half: the block works at half the height and width (mean before, nearest neighbour after).
        kernel, dilation, displaced, implementation, init: see `Correlation`.
        bn_eps: of the norms.
        norm: makes another norm than BatchNorm for a number of channels.
    Raises: ValueError: sizes that do not fit together, an unknown join.
    """

    def __init__(
        self,
        channels: int,
        frames: int,
        *,
        join: Join = "sum",
        kernel: int = 7,
        dilation: int = 2,
        group_size: int = 32,
        displaced: Displaced = "previous",
        half: bool = False,
        implementation: Implementation = "auto",
        init: FilterInit = "ones",
        bn_eps: float = 1e-5,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        inner = channels // 4
        groups = max(inner // group_size, 1)
        matches = groups * kernel * kernel
        if join not in ("sum", "concat"):
            raise ValueError(f"join must be 'sum' or 'concat', got {join!r}")
        if inner % groups or (join == "concat" and matches >= channels):
            raise ValueError(
                f"{channels} channels, groups of {group_size} and K = {kernel} do not fit: {inner} channels in "
                f"{groups} groups give {matches} correlations"
            )
        make_norm = norm or (lambda planes: BatchNorm3d(planes, eps=bn_eps))
        self.join, self.halved = join, half
        self.reduce = nn.Conv3d(channels, inner, 1, bias=False)
        self.reduce_norm = make_norm(inner)
        self.corr = Correlation(
            inner,
            frames,
            kernel,
            dilation=dilation,
            groups=groups,
            displaced=displaced,
            implementation=implementation,
            init=init,
        )
        if join == "sum":
            self.expand = nn.Conv3d(matches, channels, 1, bias=False)
            self.expand_norm = make_norm(channels)
        else:
            self.bypass = nn.Conv3d(inner, channels - matches, 1, bias=False)
            self.bypass_norm = make_norm(channels - matches)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        size = x_BCTHW.shape[2:]
        y_BCTHW = F.avg_pool3d(x_BCTHW, (1, 2, 2), ceil_mode=True) if self.halved else x_BCTHW
        y_BCTHW = F.relu(self.reduce_norm(self.reduce(y_BCTHW)), inplace=True)
        if self.join == "sum":
            y_BCTHW = self.expand_norm(self.expand(self.corr(y_BCTHW)))
        else:
            y_BCTHW = torch.cat((self.corr(y_BCTHW), self.bypass_norm(self.bypass(y_BCTHW))), 1)
        if self.halved:
            y_BCTHW = y_BCTHW.repeat_interleave(2, 3).repeat_interleave(2, 4)[..., : size[1], : size[2]]
        return F.relu(y_BCTHW + x_BCTHW if self.join == "sum" else y_BCTHW)
