"""Relative positions decomposed over height, width and time: which row of a table belongs to a query and a key.

Sources: MViTv2, arXiv 2112.01526, section 4.1; MeMViT, arXiv 2201.08383, for keys that belong to earlier clips; the
rules for grids of different sizes are those of the public codes (facebookresearch/SlowFast, facebookresearch/MeMViT).
Extra axes: Q positions of queries on one axis, K positions of keys on it, R rows of a table.
Not here: what the rows are multiplied with (`attention.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["AXES_RULES", "axis_rows", "memory_time_rows", "position_codes", "resized_table", "spatial_rows"]

# `apart`: height and width each by their own sizes (SlowFast). `square`: where the grids are not square, both follow
# the shorter side (MeMViT, for inputs wider than the training crop; for taller ones it is our extension).
AXES_RULES = ("apart", "square")


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


def axis_rows(table_RD: Tensor, queries: int, keys: int) -> Tensor:
    """Rows of one axis for every query and key, `(Q, K, D)`; the table is resized where it has another size."""
    sizes = (queries, keys)
    index_QK = (distances(queries, keys, sizes, table_RD.device) + offset(sizes)).long()
    return resized_table(table_RD, table_rows(queries, keys))[index_QK]


def clamped_rows(table_RD: Tensor, sizes: tuple[int, int], like: tuple[int, int]) -> Tensor:
    """Rows of an axis that is longer than the one it follows: that one's table size, ratios and range."""
    followed = distances(*like, like, table_RD.device) + offset(like)
    index_QK = (distances(*sizes, like, table_RD.device) + offset(like)).clamp(followed.min(), followed.max()).long()
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
        raise ValueError(f"a table of {table_RD.shape[0]} rows does not reach back {furthest + 1} frames")
    at_keys = torch.arange(memory_frames - 1, -1, -1, device=table_RD.device) * stride
    return table_RD[torch.arange(frames, device=table_RD.device)[:, None] + at_keys]


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
    """One-hot codes of the coordinates of all keys, remembered clips first, `(K, E)` float32.

    Columns: heights of the present clip and of remembered ones, widths alike, frames alike; remembered frames lie on
    one axis, oldest first. Class tokens have no position.

    Args:
        grid, past_grid: (T, H, W) of the present clip's keys and of one remembered clip's.
        steps: how many clips are remembered.
        spatial, temporal: which columns there are; `past_temporal`: whether frames of remembered clips have some.
    """
    frames = (grid[0], past_grid[0] * steps if past_temporal else 0)
    starts, column = {}, 0
    for axis, wanted, sizes in (
        (1, spatial, (grid[1], past_grid[1])),
        (2, spatial, (grid[2], past_grid[2])),
        (0, temporal, frames),
    ):
        if wanted:
            starts[axis] = (column, column + sizes[0])
            column += sum(sizes)
    codes = []
    for size, past, first in [*((past_grid, 1, step * past_grid[0]) for step in range(steps)), (grid, 0, 0)]:
        at = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
        code = torch.zeros(size[0] * size[1] * size[2], column, device=device)
        for axis, start in starts.items():
            if axis or not past or past_temporal:
                place = at[axis].reshape(-1) + start[past] + (0 if axis else first)
                code = code + F.one_hot(place, column)
        codes.append(F.pad(code, (0, 0, int(class_token), 0)))
    return torch.cat(codes)
