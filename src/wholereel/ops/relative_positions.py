"""Relative positions decomposed over height, width and time: which row of a table belongs to a query and a key.

Sources: MViTv2, arXiv 2112.01526, section 4.1; MeMViT, arXiv 2201.08383, for keys that belong to earlier clips; the
rules for grids of different sizes are those of the public codes (facebookresearch/SlowFast, facebookresearch/MeMViT).
Extra axes: Q positions of queries on one axis, K positions of keys on it, R rows of a table.
Not here: what the rows are multiplied with (`attention.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = [
    "AXES_RULES",
    "axis_rows",
    "centred_rows",
    "memory_time_rows",
    "position_codes",
    "resized_table",
    "spatial_rows",
    "time_rows",
]

Make = Callable[..., Tensor]

# `apart`: every axis by its own sizes (SlowFast). `square` (MeMViT): where the grids are not square, height and width
# both follow the shorter side (there for inputs wider than the training crop; for taller ones it is our extension), and
# positions in time count pooled frames, however many frames one stands for.
AXES_RULES = ("apart", "square")


def constant(make: Make, *sizes: Hashable, device: torch.device) -> Tensor:
    """`make(*sizes, device)`: indices and codes, which depend on sizes alone, are made once for each device.

    Not where somebody traces, whose tensors belong to the trace.
    """
    if device.type == "meta" or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return make(*sizes, device)
    return _kept(make, sizes, device)


@functools.lru_cache(maxsize=1024)
def _kept(make: Make, sizes: tuple[Hashable, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        return make(*sizes, device)


def resized_table(table_RD: Tensor, rows: int) -> Tensor:
    """A table with another number of rows, interpolated linearly (rows as pixels, corners not aligned)."""
    if table_RD.shape[0] == rows:
        return table_RD
    return F.interpolate(table_RD.T[None], size=rows, mode="linear")[0].T


def table_rows(queries: int, keys: int) -> int:
    """How many rows an axis needs."""
    return 2 * max(queries, keys) - 1


def distances(queries: int, keys: int, scale_by: tuple[int, int], device: torch.device) -> Tensor:
    """`(Q, K)` float32: distance in rows between queries and keys, before an offset; the coarser axis is scaled up."""
    query_step, key_step = max(scale_by[1] / scale_by[0], 1.0), max(scale_by[0] / scale_by[1], 1.0)
    at_queries = torch.arange(queries, device=device, dtype=torch.float32)[:, None] * query_step
    return at_queries - torch.arange(keys, device=device, dtype=torch.float32) * key_step


def offset(scale_by: tuple[int, int]) -> float:
    """Distance between the first query and the last key, which is row zero."""
    return (scale_by[1] - 1) * max(scale_by[0] / scale_by[1], 1.0)


def _axis_index(queries: int, keys: int, device: torch.device) -> Tensor:
    sizes = (queries, keys)
    return (distances(queries, keys, sizes, device) + offset(sizes)).long()


def _clamped_index(sizes: tuple[int, int], like: tuple[int, int], device: torch.device) -> Tensor:
    followed = distances(*like, like, device) + offset(like)
    index_QK = distances(*sizes, like, device) + offset(like)
    return index_QK.clamp(followed.min(), followed.max()).long()


def _time_index(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device) + keys - 1


def _memory_time_index(frames: int, memory_frames: int, stride: int, device: torch.device) -> Tensor:
    at_keys = torch.arange(memory_frames - 1, -1, -1, device=device) * stride
    return torch.arange(frames, device=device)[:, None] + at_keys


def axis_rows(table_RD: Tensor, queries: int, keys: int) -> Tensor:
    """Rows of one axis for every query and key, `(Q, K, D)`; the table is resized where it has another size."""
    index_QK = constant(_axis_index, queries, keys, device=table_RD.device)
    return resized_table(table_RD, table_rows(queries, keys))[index_QK]


def clamped_rows(table_RD: Tensor, sizes: tuple[int, int], like: tuple[int, int]) -> Tensor:
    """Rows of an axis that is longer than the one it follows: that one's table size, ratios and range."""
    index_QK = constant(_clamped_index, sizes, like, device=table_RD.device)
    return resized_table(table_RD, table_rows(*like))[index_QK]


def spatial_rows(
    table_h_RD: Tensor, table_w_RD: Tensor, query_hw: tuple[int, int], key_hw: tuple[int, int], rule: str = "apart"
) -> tuple[Tensor, Tensor]:
    """Rows for heights `(Q, K, D)` and for widths `(Q, K, D)`.

    Args:
        table_h_RD, table_w_RD: learned tables.
        query_hw, key_hw: height and width of the grids.
        rule: of `AXES_RULES`.
    Raises: ValueError: an unknown rule.
    """
    if rule not in AXES_RULES:
        raise ValueError(f"rule must be one of {AXES_RULES}, got {rule!r}")
    heights, widths = (query_hw[0], key_hw[0]), (query_hw[1], key_hw[1])
    needed_h, needed_w = table_rows(*heights), table_rows(*widths)
    if rule == "apart" or needed_h == needed_w:
        return axis_rows(table_h_RD, *heights), axis_rows(table_w_RD, *widths)
    if needed_w > needed_h:
        return axis_rows(table_h_RD, *heights), clamped_rows(table_w_RD, widths, heights)
    return clamped_rows(table_h_RD, heights, widths), axis_rows(table_w_RD, *widths)


def time_rows(table_RD: Tensor, queries: int, keys: int, frames: int, rule: str = "apart") -> Tensor:
    """Rows between frames of queries and of keys of one clip, `(Q, K, D)`.

    Args:
        table_RD: learned table.
        queries, keys: frames after pooling.
        frames: before it; `square` has a table for these, and takes of it what it needs.
        rule: of `AXES_RULES`. They differ where frames are pooled.
    Raises: ValueError: an unknown rule.
    """
    if rule not in AXES_RULES:
        raise ValueError(f"rule must be one of {AXES_RULES}, got {rule!r}")
    if rule == "apart":
        return axis_rows(table_RD, queries, keys)
    index_QK = constant(_time_index, queries, keys, device=table_RD.device)
    return resized_table(table_RD, table_rows(frames, frames))[index_QK]


def memory_time_rows(table_RD: Tensor, frames: int, memory_frames: int, stride: int) -> Tensor:
    """Rows between the frames of the present clip and those of all remembered clips, `(Q, K, D)`.

    The remembered clips lie on one time axis, oldest first; row 0 is first query frame and newest remembered frame, and
    larger rows are further back. How far apart the clips were is not encoded.

    Args:
        table_RD: learned table.
        frames: Q, of the present clip.
        memory_frames: K, of all remembered clips together.
        stride: present frames per remembered one.
    Raises: ValueError: the table has too few rows.
    """
    furthest = frames - 1 + stride * (memory_frames - 1)
    if furthest >= table_RD.shape[0]:
        raise ValueError(
            f"a table of {table_RD.shape[0]} rows does not reach back {furthest + 1} frames; it does "
            f"where the stride of a compression ({stride}) divides the frames"
        )
    return table_RD[constant(_memory_time_index, frames, memory_frames, stride, device=table_RD.device)]


def centred_rows(rows_QKD: Tensor) -> Tensor:
    """The first key's rows, and how those of the other keys differ from them."""
    return torch.cat([rows_QKD[:, :1], rows_QKD[:, 1:] - rows_QKD[:, :1]], 1)


def position_codes(
    grid: tuple[int, int, int],
    past_grid: tuple[int, int, int],
    steps: int,
    *,
    spatial: bool,
    temporal: bool,
    past_temporal: bool,
    class_token: bool,
    device: torch.device,
) -> Tensor:
    """Codes of the coordinates of all keys, remembered clips first, `(K, E)` float32 of zeros and ones.

    Columns: heights of the present clip and of remembered ones, widths alike, frames alike; remembered frames lie on
    one axis, oldest first. Class tokens have no position.
    A key has one coordinate on each axis, so that one number of an axis is enough for what all its keys have in common:
    of a kind of clip, every axis but its last has no column for coordinate 0, whose number is added to the last axis's.
    Heads of 96 channels and an M of 2 so stay within the 128 that fused kernels like.

    Args:
        grid, past_grid: (T, H, W) of the present clip's keys and of one remembered clip's.
        steps: how many clips are remembered.
        spatial, temporal: which columns there are; `past_temporal`: whether frames of remembered clips have some.
    """
    flags = (spatial, temporal, past_temporal, class_token)
    return constant(_position_codes, grid, past_grid, steps, flags, device=device)


def _position_codes(
    grid: tuple[int, int, int],
    past_grid: tuple[int, int, int],
    steps: int,
    flags: tuple[bool, bool, bool, bool],
    device: torch.device,
) -> Tensor:
    spatial, temporal, past_temporal, class_token = flags
    columns, width = {}, 0  # (kind of clip, axis): its first coordinate with a column, and that column
    for axis in (1, 2, 0):
        for kind, size in enumerate((grid, past_grid)):
            frames = past_temporal if kind else temporal
            if (spatial if axis else frames) and (not kind or steps):
                first = 0 if axis == 0 or (axis == 2 and not frames) else 1
                columns[kind, axis] = (first, width)
                width += (size[axis] if axis or not kind else size[axis] * steps) - first
    codes = []
    for step in range(steps + 1):  # the last one is the present clip
        kind, size = (1, past_grid) if step < steps else (0, grid)
        at = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
        code = torch.zeros(size[0] * size[1] * size[2], width, device=device)
        for (of_kind, axis), (first, column) in columns.items():
            if of_kind == kind:
                place = at[axis].reshape(-1, 1) + (step * past_grid[0] if kind and not axis else 0)
                code = code + (torch.arange(width, device=device) == place - first + column) * (place >= first)
        codes.append(F.pad(code, (0, 0, int(class_token), 0)))
    return torch.cat(codes)
