"""Correlation of neighbouring frames and its gradients as Triton kernels, on contiguous `(N, C, T, H, W)` memory.

A program of `forward` owns one frame and group of one sample, and a tile of positions: the fixed frame's channels are
loaded once, then for each displacement the moved frame's, whose neighbourhoods overlap in the cache. `gradients` does
the same in gather form, so that both input gradients are written once and by one program: at a position, the error of
each displacement times the moved frame there, and the error of where the displacement came from times the fixed frame
there. A program of `partial_filter` owns one row of displacements of one frame, with a sum for each, and adds over all
positions; a second reduction in a fixed order adds the samples. Sums are float32 (float64 for float64); nothing uses
atomics.
Letters in the kernels: n sample, c channel, t frame, g group, p position in a frame, a and b row and column of a
displacement. Kernels see filters as (T, K * K, C).
Plain twins and checks: `correlation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["TILES", "Tile", "correlate_fused", "fused_gradients"]


@dataclass(frozen=True)
class Tile:
    """What one program owns: at most so many positions, with all channels of a group at most so many numbers; warps."""

    positions: int
    numbers: int
    warps: int


# (kernel, bytes of a number) -> tile. Set by counting the registers that the compiler reports for compute capability
# 9.0; whole calls were timed with them on an H100, other tiles were not: `benchmarks/triton_tiles.py` does.
TILES = {
    ("forward", 2): Tile(positions=64, numbers=2048, warps=2),
    ("forward", 4): Tile(positions=64, numbers=2048, warps=2),
    ("forward", 8): Tile(positions=32, numbers=1024, warps=2),
    ("gradients", 2): Tile(positions=64, numbers=2048, warps=4),
    ("gradients", 4): Tile(positions=64, numbers=2048, warps=4),
    ("gradients", 8): Tile(positions=32, numbers=1024, warps=4),
    ("filter", 2): Tile(positions=32, numbers=1024, warps=4),
    ("filter", 4): Tile(positions=32, numbers=1024, warps=4),
    ("filter", 8): Tile(positions=16, numbers=512, warps=4),
}


@triton.jit
def shifted(p, rows, columns, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Positions moved by a displacement, and which of them lie inside the frame."""
    i, j = p // WIDTH + rows, p % WIDTH + columns
    inside = (p < HEIGHT * WIDTH) & (i >= 0) & (i < HEIGHT) & (j >= 0) & (j < WIDTH)
    return p + rows * WIDTH + columns, inside


@triton.jit
def forward(
    fixed_ptr,
    moved_ptr,
    filter_ptr,
    y_ptr,
    frames,
    GROUPS: tl.constexpr,
    WIDTH_OF_GROUP: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SUM: tl.constexpr,
):
    size = HEIGHT * WIDTH
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    t, g, n = tl.program_id(1) // GROUPS, tl.program_id(1) % GROUPS, tl.program_id(2)
    c = tl.arange(0, CHANNELS)
    is_channel = c < WIDTH_OF_GROUP
    channel = n * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
    plane = (channel.to(tl.int64) * frames + t) * size
    weights = t * KERNEL * KERNEL * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
    fixed = tl.load(fixed_ptr + plane[:, None] + p, mask=is_channel[:, None] & (p < size), other=0.0).to(SUM)
    for tap in range(KERNEL * KERNEL):
        rows, columns = (tap // KERNEL - KERNEL // 2) * DILATION, (tap % KERNEL - KERNEL // 2) * DILATION
        there, inside = shifted(p, rows, columns, HEIGHT, WIDTH)
        moved = tl.load(moved_ptr + plane[:, None] + there, mask=is_channel[:, None] & inside, other=0.0).to(SUM)
        weight = tl.load(filter_ptr + weights + tap * GROUPS * WIDTH_OF_GROUP, mask=is_channel, other=0.0).to(SUM)
        y = tl.sum(fixed * moved * weight[:, None], 0) / WIDTH_OF_GROUP
        out = (((n * GROUPS + g) * KERNEL * KERNEL + tap).to(tl.int64) * frames + t) * size
        tl.store(y_ptr + out + p, y.to(y_ptr.dtype.element_ty), mask=p < size)


@triton.jit
def gradients(
    fixed_ptr,
    moved_ptr,
    filter_ptr,
    error_ptr,
    to_fixed_ptr,
    to_moved_ptr,
    frames,
    GROUPS: tl.constexpr,
    WIDTH_OF_GROUP: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SUM: tl.constexpr,
):
    size = HEIGHT * WIDTH
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    t, g, n = tl.program_id(1) // GROUPS, tl.program_id(1) % GROUPS, tl.program_id(2)
    c = tl.arange(0, CHANNELS)
    is_channel = c < WIDTH_OF_GROUP
    channel = n * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
    plane = (channel.to(tl.int64) * frames + t) * size
    weights = t * KERNEL * KERNEL * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
    to_fixed = tl.zeros((CHANNELS, POSITIONS), dtype=SUM)
    to_moved = tl.zeros((CHANNELS, POSITIONS), dtype=SUM)
    for tap in range(KERNEL * KERNEL):
        rows, columns = (tap // KERNEL - KERNEL // 2) * DILATION, (tap % KERNEL - KERNEL // 2) * DILATION
        weight = tl.load(filter_ptr + weights + tap * GROUPS * WIDTH_OF_GROUP, mask=is_channel, other=0.0).to(SUM)
        out = (((n * GROUPS + g) * KERNEL * KERNEL + tap).to(tl.int64) * frames + t) * size
        there, inside = shifted(p, rows, columns, HEIGHT, WIDTH)
        error = tl.load(error_ptr + out + p, mask=p < size, other=0.0).to(SUM)
        moved = tl.load(moved_ptr + plane[:, None] + there, mask=is_channel[:, None] & inside, other=0.0).to(SUM)
        to_fixed += error * moved * weight[:, None]
        origin, came = shifted(p, -rows, -columns, HEIGHT, WIDTH)
        error = tl.load(error_ptr + out + origin, mask=came, other=0.0).to(SUM)
        fixed = tl.load(fixed_ptr + plane[:, None] + origin, mask=is_channel[:, None] & came, other=0.0).to(SUM)
        to_moved += error * fixed * weight[:, None]
    mask = is_channel[:, None] & (p < size)
    place = plane[:, None] + p
    tl.store(to_fixed_ptr + place, (to_fixed / WIDTH_OF_GROUP).to(to_fixed_ptr.dtype.element_ty), mask=mask)
    tl.store(to_moved_ptr + place, (to_moved / WIDTH_OF_GROUP).to(to_moved_ptr.dtype.element_ty), mask=mask)


@triton.jit
def partial_filter(
    fixed_ptr,
    moved_ptr,
    error_ptr,
    part_ptr,
    frames,
    GROUPS: tl.constexpr,
    WIDTH_OF_GROUP: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SUM: tl.constexpr,
):
    """Sums of error times both frames over one sample, for one frame, group and row of displacements."""
    size = HEIGHT * WIDTH
    a, n = tl.program_id(0), tl.program_id(2)
    t, g = tl.program_id(1) // GROUPS, tl.program_id(1) % GROUPS
    c = tl.arange(0, CHANNELS)
    is_channel = c < WIDTH_OF_GROUP
    channel = n * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
    plane = (channel.to(tl.int64) * frames + t) * size
    rows = (a - KERNEL // 2) * DILATION
    totals = (tl.zeros((CHANNELS, POSITIONS), dtype=SUM),) * KERNEL
    for first in range(0, size, POSITIONS):
        p = first + tl.arange(0, POSITIONS)
        mask = is_channel[:, None] & (p < size)
        fixed = tl.load(fixed_ptr + plane[:, None] + p, mask=mask, other=0.0).to(SUM)
        summed = ()
        for b in tl.static_range(KERNEL):
            there, inside = shifted(p, rows, (b - KERNEL // 2) * DILATION, HEIGHT, WIDTH)
            out = (((n * GROUPS + g) * KERNEL * KERNEL + a * KERNEL + b).to(tl.int64) * frames + t) * size
            error = tl.load(error_ptr + out + p, mask=inside, other=0.0).to(SUM)
            mask = is_channel[:, None] & inside
            moved = tl.load(moved_ptr + plane[:, None] + there, mask=mask, other=0.0).to(SUM)
            summed = summed + (totals[b] + error * fixed * moved,)  # type: ignore[assignment]
        totals = summed
    for b in tl.static_range(KERNEL):
        tap = ((n * frames + t) * KERNEL + a) * KERNEL + b
        where = tap.to(tl.int64) * GROUPS * WIDTH_OF_GROUP + g * WIDTH_OF_GROUP + c
        tl.store(part_ptr + where, tl.sum(totals[b], 1) / WIDTH_OF_GROUP, mask=is_channel)


def correlate_fused(
    fixed_BCTHW: Tensor, moved_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int
) -> Tensor:
    """`correlate_plain` without its unfolded neighbourhoods."""
    batch, _, frames, height, width = fixed_BCTHW.shape
    kernel = filter_TCKK.shape[2]
    y_BCTHW = fixed_BCTHW.new_empty(batch, groups * kernel * kernel, frames, height, width)
    tile = _tile("forward", fixed_BCTHW, filter_TCKK, dilation, groups)
    grid = triton.cdiv(height * width, tile["POSITIONS"]), frames * groups, batch
    inputs = fixed_BCTHW.contiguous(), moved_BCTHW.contiguous(), _channels_last(filter_TCKK)
    with torch.cuda.device_of(y_BCTHW):
        forward[grid](*inputs, y_BCTHW, frames, **tile)
    return y_BCTHW


def fused_gradients(
    fixed_BCTHW: Tensor,
    moved_BCTHW: Tensor,
    filter_TCKK: Tensor,
    error_BCTHW: Tensor,
    dilation: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of both clips and of the filter."""
    batch, channels, frames, height, width = fixed_BCTHW.shape
    kernel = filter_TCKK.shape[2]
    fixed, moved, error = (tensor.contiguous() for tensor in (fixed_BCTHW, moved_BCTHW, error_BCTHW))
    to_fixed, to_moved = torch.empty_like(fixed), torch.empty_like(moved)
    kind = torch.float64 if fixed.dtype == torch.float64 else torch.float32
    part_BTKKC = torch.empty(batch, frames, kernel, kernel, channels, dtype=kind, device=fixed.device)
    tile, adding = (_tile(name, fixed, filter_TCKK, dilation, groups) for name in ("gradients", "filter"))
    grid = triton.cdiv(height * width, tile["POSITIONS"]), frames * groups, batch
    with torch.cuda.device_of(fixed):
        gradients[grid](fixed, moved, _channels_last(filter_TCKK), error, to_fixed, to_moved, frames, **tile)
        partial_filter[kernel, frames * groups, batch](fixed, moved, error, part_BTKKC, frames, **adding)
    return to_fixed, to_moved, part_BTKKC.sum(0).permute(0, 3, 1, 2).to(filter_TCKK.dtype)


def _channels_last(filter_TCKK: Tensor) -> Tensor:
    return filter_TCKK.permute(0, 2, 3, 1).contiguous()


def _tile(name: str, fixed_BCTHW: Tensor, filter_TCKK: Tensor, dilation: int, groups: int) -> dict[str, Any]:
    """Sizes that a kernel is compiled for."""
    height, width = fixed_BCTHW.shape[3:]
    per_group = fixed_BCTHW.shape[1] // groups
    channels = triton.next_power_of_2(per_group)
    chosen = TILES[name, fixed_BCTHW.element_size()]
    positions = min(triton.next_power_of_2(height * width), chosen.positions, max(chosen.numbers // channels, 16))
    return {
        "GROUPS": groups,
        "WIDTH_OF_GROUP": per_group,
        "HEIGHT": height,
        "WIDTH": width,
        "KERNEL": filter_TCKK.shape[2],
        "DILATION": dilation,
        "CHANNELS": channels,
        "POSITIONS": positions,
        "SUM": tl.float64 if fixed_BCTHW.dtype == torch.float64 else tl.float32,
        "num_warps": chosen.warps,
    }
