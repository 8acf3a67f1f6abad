"""Depthwise 3-D convolution and its two gradients as Triton kernels, on channels-last memory.

A program of `slide` owns a tile of one output row, `columns` positions by `lanes` channels: each tap's inputs are
loaded once per program and summed in float32 (float64 for float64). The gradient of inputs is the same kernel in gather
form: each input asks which errors it took part in, so that no two programs write one place. The gradient of weights is
partial sums over slabs of rows, added by a second reduction in a fixed order; nothing here uses atomics.
Letters in the kernels: n sample, t, i, j frame, row, column, c channels; a prefix o marks outputs. Kernels see memory
as (N, T, H, W, C).
Plain twins and checks: `depthwise_conv3d.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["convolve", "input_gradient", "weight_gradient"]

ROWS_A_SLAB = 64


@triton.jit
def slide(
    x_ptr,
    weight_ptr,
    y_ptr,
    channels,
    frames,
    height,
    width,
    out_frames,
    out_height,
    out_width,
    STRIDE_T: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_T: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    KERNEL_T: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    GATHER: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    SUM: tl.constexpr,
):
    """One tile of outputs; with GATHER outputs are the inputs of the convolution, and x its errors."""
    tiles = tl.cdiv(out_width, COLUMNS)
    row = tl.program_id(0) // tiles
    oj = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS).to(tl.int64)  # places times channels pass 2^31
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    oi = row % out_height
    ot = (row // out_height) % out_frames
    n = row // out_height // out_frames
    is_channel = c < channels
    total = tl.zeros((COLUMNS, LANES), dtype=SUM)
    for a in tl.static_range(KERNEL_T):
        for b in tl.static_range(KERNEL_H):
            for d in tl.static_range(KERNEL_W):
                if GATHER:
                    at, ai, aj = ot + PAD_T - a, oi + PAD_H - b, oj + PAD_W - d
                    t, i, j = at // STRIDE_T, ai // STRIDE_H, aj // STRIDE_W
                    # Negative numbers are divided towards zero: what lies in front of the first is told apart by sign.
                    meets_row = (at >= 0) & (ai >= 0) & (at % STRIDE_T == 0) & (ai % STRIDE_H == 0)
                    meets = meets_row & (aj >= 0) & (aj % STRIDE_W == 0)
                else:
                    t, i, j = ot * STRIDE_T - PAD_T + a, oi * STRIDE_H - PAD_H + b, oj * STRIDE_W - PAD_W + d
                    meets = (t >= 0) & (i >= 0) & (j >= 0)
                meets = meets & (t < frames) & (i < height) & (j < width)
                place = ((n * frames + t) * height + i) * width + j
                x = tl.load(x_ptr + place[:, None] * channels + c, mask=meets[:, None] & is_channel, other=0.0)
                tap = (a * KERNEL_H + b) * KERNEL_W + d
                weight = tl.load(weight_ptr + tap * channels + c, mask=is_channel, other=0.0)
                total += x.to(SUM) * weight.to(SUM)
    place = (row * out_width + oj)[:, None] * channels + c
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), mask=(oj < out_width)[:, None] & is_channel)


@triton.jit
def partial_weights(
    error_ptr,
    x_ptr,
    part_ptr,
    rows,
    channels,
    frames,
    height,
    width,
    out_frames,
    out_height,
    out_width,
    STRIDE_T: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_T: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    SLAB: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    SUM: tl.constexpr,
):
    """Sum of error times input over one slab of outgoing rows, for one tap."""
    slab, tap = tl.program_id(0), tl.program_id(1)
    a, b, d = tap // KERNEL_W // KERNEL_H, tap // KERNEL_W % KERNEL_H, tap % KERNEL_W
    c = tl.program_id(2) * LANES + tl.arange(0, LANES)
    is_channel = c < channels
    total = tl.zeros((COLUMNS, LANES), dtype=SUM)
    for row in range(slab * SLAB, min(slab * SLAB + SLAB, rows)):
        oi = row % out_height
        ot = (row // out_height) % out_frames
        n = row // out_height // out_frames
        t, i = ot * STRIDE_T - PAD_T + a, oi * STRIDE_H - PAD_H + b
        if (t >= 0) & (t < frames) & (i >= 0) & (i < height):
            for first in range(0, out_width, COLUMNS):
                oj = first + tl.arange(0, COLUMNS).to(tl.int64)
                j = oj * STRIDE_W - PAD_W + d
                meets = ((oj < out_width) & (j >= 0) & (j < width))[:, None] & is_channel
                out_place = (row * out_width + oj)[:, None] * channels + c
                place = (((n * frames + t) * height + i) * width + j)[:, None] * channels + c
                error = tl.load(error_ptr + out_place, mask=meets, other=0.0)
                x = tl.load(x_ptr + place, mask=meets, other=0.0)
                total += error.to(SUM) * x.to(SUM)
    where = (slab * tl.num_programs(1) + tap) * channels + c
    tl.store(part_ptr + where, tl.sum(total, 0), mask=is_channel)


def convolve(x_BCTHW: Tensor, weight_C1KKK: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    """`F.conv3d(..., groups=C)`; channels-last in and out."""
    kernel = weight_C1KKK.shape[2:]
    sizes = zip(x_BCTHW.shape[2:], kernel, stride, padding, strict=True)
    size = [(length + 2 * pad - side) // step + 1 for length, side, step, pad in sizes]
    return _slide(x_BCTHW, weight_C1KKK, size, stride, padding, gather=False)


def input_gradient(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of an input of that size (T, H, W)."""
    return _slide(error_BCTHW, weight_C1KKK, list(size), stride, padding, gather=True)


def weight_gradient(
    error_BCTHW: Tensor, x_BCTHW: Tensor, kernel: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of a filter (C, 1, *kernel)."""
    batch, channels, *size = x_BCTHW.shape
    out_size = error_BCTHW.shape[2:]
    taps, rows = kernel[0] * kernel[1] * kernel[2], batch * out_size[0] * out_size[1]
    slabs = triton.cdiv(rows, ROWS_A_SLAB)
    tile = _tile(out_size[2], channels, x_BCTHW.dtype)
    kinds = torch.float64 if x_BCTHW.dtype == torch.float64 else torch.float32
    part_RKC = torch.empty(slabs, taps, channels, dtype=kinds, device=x_BCTHW.device)
    partial_weights[slabs, taps, triton.cdiv(channels, tile["LANES"])](
        _rows(error_BCTHW),
        _rows(x_BCTHW),
        part_RKC,
        rows,
        channels,
        *size,
        *out_size,
        *stride,
        *padding,
        *kernel[1:],
        SLAB=ROWS_A_SLAB,
        **tile,
    )
    return part_RKC.sum(0).T.reshape(channels, 1, *kernel).to(x_BCTHW.dtype)


def _slide(
    x_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int], gather: bool
) -> Tensor:
    batch, channels, *in_size = x_BCTHW.shape
    kernel = weight_C1KKK.shape[2:]
    y_BTHWC = x_BCTHW.new_empty(batch, *size, channels)
    weight_KC = weight_C1KKK.flatten(1).T.contiguous()
    tile = _tile(size[2], channels, x_BCTHW.dtype)
    grid = batch * size[0] * size[1] * triton.cdiv(size[2], tile["COLUMNS"]), triton.cdiv(channels, tile["LANES"])
    slide[grid](
        _rows(x_BCTHW),
        weight_KC,
        y_BTHWC,
        channels,
        *in_size,
        *size,
        *stride,
        *padding,
        *kernel,
        GATHER=gather,
        **tile,
    )
    return y_BTHWC.permute(0, 4, 1, 2, 3)


def _rows(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()


def _tile(width: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """Tiles of at most 16 columns by 64 channels; not tuned on a device yet."""
    return {
        "COLUMNS": min(triton.next_power_of_2(width), 16),
        "LANES": min(triton.next_power_of_2(channels), 64),
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
    }
