"""Depthwise 3-D convolution and its two gradients as Triton kernels, on channels-last memory.

Bytes are counted, not sums: a tensor that is read once and one that is written once are the least. A program of `roll`
owns a piece of one row, `columns` positions by `lanes` channels, and walks along time: each input is loaded once for
all frames of the kernel, whose sums wait in registers, one for every outgoing frame that is not complete. With a
stride in time, or a kernel of one frame, `slide` takes its place, which loads an input for each tap. The gradient of
inputs is the same kernels in gather form: each input asks which errors it took part in, so that no two programs write
one place. The gradient of weights walks along time too, with one sum for every tap, over a few rows; a second reduction
in a fixed order adds these parts. Sums are float32 (float64 for float64); nothing here uses atomics.
Letters in the kernels: n sample, t, i, j frame, row, column, c channels, a, b, d frame, row, column of the kernel; a
prefix o marks outputs. Kernels see memory as (N, T, H, W, C), filters as (K * K * K, C) in the type of the sums.
Plain twins and checks: `depthwise_conv3d.py`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["TILES", "Tile", "convolve", "input_gradient", "weight_gradient"]


@dataclass(frozen=True)
class Tile:
    """What one program owns: at most so many positions of a row, channels and frames; its warps, registers a thread."""

    columns: int
    lanes: int
    frames: int
    warps: int
    registers: int | None = None


# (kernel, bytes of a number) -> tile; "gather" is `slide` in gather form. Measured by `benchmarks/triton_tiles.py` on
# an H100 80GB (torch 2.11.0, triton 3.6.0, commit 8f9bc44; `benchmarks/results/triton_tiles_h100_2026-11-26.json`):
# `roll` of 2 and 4 bytes over four sizes of ir-CSN-50 in both directions, where maps of 14 and 7 positions were bound
# by the host and did not decide; `slide` and `gather` of 2 bytes at one size each. The others are set by counting the
# registers and the changes of layout that the compiler reports for compute capability 9.0, and are not timed yet.
TILES = {
    ("roll", 2): Tile(columns=32, lanes=32, frames=16, warps=2),
    ("roll", 4): Tile(columns=16, lanes=64, frames=16, warps=4, registers=128),
    ("roll", 8): Tile(columns=8, lanes=64, frames=8, warps=4),
    ("slide", 2): Tile(columns=16, lanes=64, frames=1, warps=4),
    ("slide", 4): Tile(columns=16, lanes=64, frames=1, warps=4),
    ("slide", 8): Tile(columns=8, lanes=64, frames=1, warps=4),
    ("gather", 2): Tile(columns=32, lanes=64, frames=1, warps=4),
    ("gather", 4): Tile(columns=16, lanes=64, frames=1, warps=4),
    ("gather", 8): Tile(columns=8, lanes=64, frames=1, warps=4),
    ("weights", 2): Tile(columns=1, lanes=64, frames=8, warps=1),
    ("weights", 4): Tile(columns=1, lanes=64, frames=8, warps=1),
    ("weights", 8): Tile(columns=1, lanes=32, frames=8, warps=1),
}
PROGRAMS = 4096  # of the gradient of weights; beyond them each takes more rows, so that the parts stay few
MOST_TAPS = 27  # whose sums one program keeps; of larger kernels it takes one frame


@triton.jit
def source(out, tap, STRIDE: tl.constexpr, PAD: tl.constexpr, GATHER: tl.constexpr):
    """Where, along one axis, an output and a tap of the kernel read, and whether it is at a whole number of steps.

    With GATHER outputs are the inputs of the convolution, and its errors are read.
    """
    if GATHER:
        at = out + PAD - tap
        # Negative numbers are divided towards zero: what lies in front of the first is told apart by sign.
        where, whole = at // STRIDE, (at >= 0) & (at % STRIDE == 0)
    else:
        where = out * STRIDE - PAD + tap
        whole = where >= 0
    return where, whole


@triton.jit
def roll(
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
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_T: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    KERNEL_T: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    GATHER: tl.constexpr,
    FRAMES: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    SUM: tl.constexpr,
):
    """FRAMES outgoing frames of a piece of a row; steps of one frame only. See `source` for GATHER."""
    tiles, chunks = tl.cdiv(out_width, COLUMNS), tl.cdiv(out_frames, FRAMES)
    oj = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0) // tiles
    oi = row % out_height
    first = (row // out_height % chunks) * FRAMES
    n = (row // out_height // chunks).to(tl.int64)  # places times channels pass 2^31
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    is_channel = c < channels
    out_offset = oj[:, None] * channels + c
    out_mask = (oj < out_width)[:, None] & is_channel
    zero = tl.zeros((COLUMNS, LANES), dtype=SUM)
    totals = (zero,) * KERNEL_T  # of the outgoing frames first + step, first + step - 1, ...
    for step in range(FRAMES + KERNEL_T - 1):
        t = first + step - (KERNEL_T - 1 - PAD_T if GATHER else PAD_T)
        for b in tl.static_range(KERNEL_H):
            i, meets_row = source(oi, b, STRIDE_H, PAD_H, GATHER)
            meets_row = meets_row & (i < height) & (t >= 0) & (t < frames)
            x_row_ptr = x_ptr + ((n * frames + t) * height + i) * width * channels
            for d in tl.static_range(KERNEL_W):
                j, meets = source(oj, d, STRIDE_W, PAD_W, GATHER)
                meets = meets & (j < width) & meets_row
                mask = meets[:, None] & is_channel
                x = tl.load(x_row_ptr + (j[:, None] * channels + c), mask=mask, other=0.0).to(SUM)
                summed = ()
                for back in tl.static_range(KERNEL_T):
                    a = KERNEL_T - 1 - back if GATHER else back
                    tap = (a * KERNEL_H + b) * KERNEL_W + d
                    summed = summed + (  # type: ignore[assignment]
                        totals[back] + x * tl.load(weight_ptr + tap * channels + c, mask=is_channel, other=0.0),
                    )
                totals = summed
        ot = first + step - (KERNEL_T - 1)
        y_row_ptr = y_ptr + ((n * out_frames + ot) * out_height + oi) * out_width * channels
        done = (step >= KERNEL_T - 1) & (ot < out_frames)
        tl.store(y_row_ptr + out_offset, totals[KERNEL_T - 1].to(y_ptr.dtype.element_ty), mask=out_mask & done)
        totals = (zero,) + totals[: KERNEL_T - 1]


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
    """A piece of one outgoing row, for any steps. See `source` for GATHER."""
    tiles = tl.cdiv(out_width, COLUMNS)
    oj = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    row = (tl.program_id(0) // tiles).to(tl.int64)  # places times channels pass 2^31
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    oi = row % out_height
    ot = (row // out_height) % out_frames
    n = row // out_height // out_frames
    is_channel = c < channels
    total = tl.zeros((COLUMNS, LANES), dtype=SUM)
    for a in tl.static_range(KERNEL_T):
        t, meets_frame = source(ot, a, STRIDE_T, PAD_T, GATHER)
        for b in tl.static_range(KERNEL_H):
            i, meets_row = source(oi, b, STRIDE_H, PAD_H, GATHER)
            # One condition for the whole program: of gathered taps most meet nothing, and are passed over.
            if meets_frame & meets_row & (t < frames) & (i < height):
                x_row_ptr = x_ptr + ((n * frames + t) * height + i) * width * channels
                for d in tl.static_range(KERNEL_W):
                    j, meets = source(oj, d, STRIDE_W, PAD_W, GATHER)
                    mask = (meets & (j < width))[:, None] & is_channel
                    x = tl.load(x_row_ptr + (j[:, None] * channels + c), mask=mask, other=0.0).to(SUM)
                    tap = (a * KERNEL_H + b) * KERNEL_W + d
                    total += x * tl.load(weight_ptr + tap * channels + c, mask=is_channel, other=0.0)
    y_row_ptr = y_ptr + row * out_width * channels
    mask = (oj < out_width)[:, None] & is_channel
    tl.store(y_row_ptr + (oj[:, None] * channels + c), total.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def partial_weights(
    error_ptr,
    x_ptr,
    part_ptr,
    rows,
    rows_a_part,
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
    OFFSETS: tl.constexpr,
    FRAMES: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    SUM: tl.constexpr,
):
    """Sums of error times input over some outgoing rows and FRAMES frames, for OFFSETS frames of the kernel."""
    chunks = tl.cdiv(frames, FRAMES)
    first_frame, part = (tl.program_id(0) % chunks) * FRAMES, tl.program_id(0) // chunks
    c = tl.program_id(1) * LANES + tl.arange(0, LANES)
    first_a = tl.program_id(2) * OFFSETS
    is_channel = c < channels
    totals = (tl.zeros((COLUMNS, LANES), dtype=SUM),) * (OFFSETS * KERNEL_H * KERNEL_W)
    for row in range(part * rows_a_part, min(part * rows_a_part + rows_a_part, rows)):
        oi, n = row % out_height, (row // out_height).to(tl.int64)  # places times channels pass 2^31
        for first in range(0, out_width, COLUMNS):
            oj = first + tl.arange(0, COLUMNS)
            is_out = (oj < out_width)[:, None] & is_channel
            for t in range(first_frame, min(first_frame + FRAMES, frames)):
                errors = ()
                for offset in tl.static_range(OFFSETS):
                    ot, meets = source(t, first_a + offset, STRIDE_T, PAD_T, True)
                    error_row_ptr = error_ptr + ((n * out_frames + ot) * out_height + oi) * out_width * channels
                    mask = is_out & (meets & (ot < out_frames))
                    error = tl.load(error_row_ptr + (oj[:, None] * channels + c), mask=mask, other=0.0)
                    errors = errors + (error.to(SUM),)  # type: ignore[assignment]
                summed = ()
                for b in tl.static_range(KERNEL_H):
                    i, meets_row = source(oi, b, STRIDE_H, PAD_H, False)
                    meets_row = meets_row & (i < height)
                    x_row_ptr = x_ptr + ((n * frames + t) * height + i) * width * channels
                    for d in tl.static_range(KERNEL_W):
                        j, meets = source(oj, d, STRIDE_W, PAD_W, False)
                        mask = is_out & (meets & (j < width) & meets_row)[:, None]
                        x = tl.load(x_row_ptr + (j[:, None] * channels + c), mask=mask, other=0.0).to(SUM)
                        for offset in tl.static_range(OFFSETS):
                            total = totals[(b * KERNEL_W + d) * OFFSETS + offset]
                            summed = summed + (total + errors[offset] * x,)  # type: ignore[assignment]
                totals = summed
    part_row_ptr = part_ptr + tl.program_id(0).to(tl.int64) * KERNEL_T * KERNEL_H * KERNEL_W * channels
    for tap in tl.static_range(KERNEL_H * KERNEL_W):
        for offset in tl.static_range(OFFSETS):
            where = ((first_a + offset) * KERNEL_H * KERNEL_W + tap) * channels + c
            tl.store(part_row_ptr + where, tl.sum(totals[tap * OFFSETS + offset], 0), mask=is_channel)


def convolve(x_BCTHW: Tensor, weight_C1KKK: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    """`F.conv3d(..., groups=C)`; channels-last in and out."""
    kernel = weight_C1KKK.shape[2:]
    sizes = zip(x_BCTHW.shape[2:], kernel, stride, padding, strict=True)
    size = [(length + 2 * pad - side) // step + 1 for length, side, step, pad in sizes]
    return _run(x_BCTHW, weight_C1KKK, size, stride, padding, gather=False)


def input_gradient(
    error_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of an input of that size (T, H, W)."""
    return _run(error_BCTHW, weight_C1KKK, list(size), stride, padding, gather=True)


def weight_gradient(
    error_BCTHW: Tensor, x_BCTHW: Tensor, kernel: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of a filter (C, 1, *kernel)."""
    batch, channels, *size = x_BCTHW.shape
    out_size = error_BCTHW.shape[2:]
    tile = TILES["weights", x_BCTHW.element_size()]
    constants = _constants(tile, out_size[2], channels, x_BCTHW.dtype)
    frames = min(tile.frames, size[0])
    rows, chunks, lane_tiles = batch * out_size[1], _parts(size[0], frames), _parts(channels, constants["LANES"])
    rows_a_part = _parts(rows * chunks * lane_tiles, PROGRAMS)
    parts, taps = _parts(rows, rows_a_part) * chunks, math.prod(kernel)
    offsets = kernel[0] if taps <= MOST_TAPS else 1
    part_RKC = torch.empty(parts, taps, channels, dtype=_sums(x_BCTHW.dtype), device=x_BCTHW.device)
    numbers = rows, rows_a_part, channels, *size, *out_size, *stride, *padding, *kernel
    with torch.cuda.device_of(x_BCTHW):
        partial_weights[parts, lane_tiles, kernel[0] // offsets](
            _last(error_BCTHW), _last(x_BCTHW), part_RKC, *numbers, OFFSETS=offsets, FRAMES=frames, **constants
        )
    to_weight_C1KKK = torch.empty(channels, 1, *kernel, dtype=x_BCTHW.dtype, device=x_BCTHW.device)
    to_weight_KC = to_weight_C1KKK.view(channels, taps).t()
    if part_RKC.dtype == x_BCTHW.dtype:
        torch.sum(part_RKC, 0, out=to_weight_KC)
    else:
        to_weight_KC.copy_(part_RKC.sum(0))
    return to_weight_C1KKK


def _run(
    x_BCTHW: Tensor, weight_C1KKK: Tensor, size: list[int], stride: list[int], padding: list[int], gather: bool
) -> Tensor:
    batch, channels, *in_size = x_BCTHW.shape
    kernel = weight_C1KKK.shape[2:]
    y_BCTHW = torch.empty(
        batch, channels, *size, dtype=x_BCTHW.dtype, device=x_BCTHW.device, memory_format=torch.channels_last_3d
    )
    # Programs read neighbouring channels of one tap: filters are turned, and cast, by one copy.
    weight_KC = torch.empty(math.prod(kernel), channels, dtype=_sums(x_BCTHW.dtype), device=x_BCTHW.device)
    weight_KC.copy_(weight_C1KKK.flatten(1).t())
    inputs = (_last(x_BCTHW), weight_KC, y_BCTHW, channels, *in_size, *size)
    rolls = stride[0] == 1 and kernel[0] > 1
    tile = TILES["roll" if rolls else "gather" if gather else "slide", x_BCTHW.element_size()]
    constants = _constants(tile, size[2], channels, x_BCTHW.dtype)
    programs = batch * size[1] * _parts(size[2], constants["COLUMNS"])
    lane_tiles = _parts(channels, constants["LANES"])
    with torch.cuda.device_of(x_BCTHW):
        if rolls:
            frames = min(tile.frames, size[0])
            roll[programs * _parts(size[0], frames), lane_tiles](
                *inputs, *stride[1:], *padding, *kernel, GATHER=gather, FRAMES=frames, **constants
            )
        else:
            slide[programs * size[0], lane_tiles](*inputs, *stride, *padding, *kernel, GATHER=gather, **constants)
    return y_BCTHW


def _last(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.contiguous(memory_format=torch.channels_last_3d)


def _parts(length: int, of: int) -> int:
    return -(-length // of)


def _sums(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@functools.cache
def _constants(tile: Tile, width: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "COLUMNS": min(triton.next_power_of_2(width), tile.columns),
        "LANES": min(triton.next_power_of_2(channels), tile.lanes),
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "num_warps": tile.warps,
        "maxnreg": tile.registers,
    }
