"""Pooling of tokens that form a (T, H, W) grid behind an optional class token (MViTv1, arXiv 2104.11227).

Tokens are `(B, L, D)`: the class token, where there is one, then the grid in raster order.
Not here: attention (`pooling_attention.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.ops.depthwise_conv3d import depthwise_conv3d

__all__ = [
    "MODES",
    "NORM_EPS",
    "UNPOOLED",
    "Grid",
    "depthwise",
    "norm_heads",
    "pool_tokens",
    "pooled_grid",
    "pooling",
    "same_padding",
]

Grid = tuple[int, int, int]
MODES = ("conv", "conv_unshared", "max", "avg")
NORM_EPS = 1e-6
UNPOOLED: Grid = (1, 1, 1)


def pooled_grid(grid: Grid, kernel: Grid, stride: Grid, *, causal: bool = False) -> Grid:
    """Size of a grid after pooling with a padding of half the kernel (in causal mode the number of frames stays)."""
    sizes = tuple((n + 2 * (k // 2) - k) // s + 1 for n, k, s in zip(grid, kernel, stride, strict=True))
    return (grid[0] if causal else sizes[0], sizes[1], sizes[2])


def pool_tokens(
    x_BLD: Tensor, grid: Grid, pool: nn.Module | None, *, class_token: bool, heads: int = 1, causal: bool = False
) -> tuple[Tensor, Grid]:
    """Pool the grid of tokens; the class token passes by.

    Args:
        x_BLD: D holds the channels of all heads, head by head.
        pool: a depthwise convolution for the channels of one head, which all heads share; or a pooling without weights.
        causal: frames see no later ones: a convolution's temporal padding is all in front.
    """
    if pool is None:
        return x_BLD, grid
    tokens_BLD = x_BLD[:, 1:] if class_token else x_BLD
    maps_BDTHW = tokens_BLD.unflatten(1, grid).movedim(-1, 1)
    if isinstance(pool, nn.Conv3d):
        weight = pool.weight if heads == 1 else pool.weight.repeat(heads, 1, 1, 1, 1)
        kernel, stride, padding = (_triple(sizes) for sizes in (pool.kernel_size, pool.stride, pool.padding))
        if causal:
            padding = (kernel[0] - 1, *padding[1:])
        maps_BDTHW = depthwise_conv3d(maps_BDTHW, weight, stride, padding)
        if causal:
            maps_BDTHW = maps_BDTHW[:, :, : grid[0]]
    else:
        maps_BDTHW = pool(maps_BDTHW)
    size: Grid = (maps_BDTHW.shape[2], maps_BDTHW.shape[3], maps_BDTHW.shape[4])
    pooled_BLD = maps_BDTHW.flatten(2).transpose(1, 2)
    return torch.cat([x_BLD[:, :1], pooled_BLD], 1) if class_token else pooled_BLD, size


def _triple(sizes: Any) -> Grid:
    frames, rows, columns = sizes
    return frames, rows, columns


def norm_heads(x_BLD: Tensor, norm: nn.Module | None, heads: int) -> Tensor:
    """A norm over the channels of each head; `None` = none."""
    if norm is None:
        return x_BLD
    if heads == 1:
        return norm(x_BLD)
    return norm(x_BLD.unflatten(2, (heads, -1))).flatten(2)


def same_padding(kernel: Grid) -> Grid:
    """Half a kernel."""
    return kernel[0] // 2, kernel[1] // 2, kernel[2] // 2


def depthwise(channels: int, kernel: Grid, stride: Grid) -> nn.Conv3d:
    """A convolution of every channel by itself, without bias."""
    padding = same_padding(kernel)
    return nn.Conv3d(channels, channels, kernel, stride=stride, padding=padding, groups=channels, bias=False)


def pooling(mode: str, channels: int, kernel: Grid | None, stride: Grid) -> tuple[nn.Module | None, nn.Module | None]:
    """A pooling of a mode and the norm behind it; `None` where there is nothing to pool (kernel and stride of 1)."""
    if kernel is None or (kernel == UNPOOLED and stride == UNPOOLED):
        return None, None
    if mode in ("conv", "conv_unshared"):
        return depthwise(channels, kernel, stride), nn.LayerNorm(channels, eps=NORM_EPS)
    pool = nn.MaxPool3d if mode == "max" else Average
    return pool(kernel, stride, same_padding(kernel)), None


class Average(nn.Module):
    """Average pooling that counts its zeros; `nn.AvgPool3d` refuses maps smaller than the kernel, padded or not."""

    def __init__(self, kernel: Grid, stride: Grid, padding: Grid) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.around = tuple(side for side in reversed(padding) for _ in range(2))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.avg_pool3d(F.pad(x_BCTHW, self.around), self.kernel, self.stride)
