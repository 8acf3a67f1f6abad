"""Family of MeMViT's rules: stream order, selection from the cache, index tables of relative positions, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tests.parity import rule_v1
from tests.parity.golden import Comparison, Golden, Outcome, check_fields
from wholereel.memory.cached import CachedState, cache_step
from wholereel.models.mvit_keys import grown_table
from wholereel.ops.relative_positions import axis_rows, memory_time_rows, resized_table, spatial_rows
from wholereel.ops.stream_order import stream_order

__all__ = ["check_memvit_rules", "is_memvit_rules"]


def is_memvit_rules(golden: Golden) -> bool:
    """Whether the file lists orders, selections and indices."""
    return "memory_selection" in golden.meta and "spatial_rel_pos_index" in golden.meta


def check_memvit_rules(golden: Golden) -> Outcome:
    """Stream order, selection from the cache, index tables, resizing: exact (resizing 1e-6)."""
    meta = golden.meta
    rules: Mapping[str, Callable[[Any], list[Comparison]]] = {
        "stream_order": _check_order,
        "memory_selection": _check_selection,
        "spatial_rel_pos_index": _check_spatial,
        "temporal_rel_pos_index": _check_temporal,
        "table_resize": _check_resize,
    }
    check_fields(meta, {*rules, "note", "kind"}, "meta")
    return Outcome(tuple(line for name, check in rules.items() if name in meta for line in check(meta[name])))


def _exact(name: str, ours: Any, expected: Any) -> Comparison:
    same = np.array_equal(np.asarray(ours), np.asarray(expected))
    return Comparison(name, 0.0 if same else math.inf, 0.0)


def _check_order(rows: list[Any]) -> list[Comparison]:
    lines = []
    for row in rows:
        ours = stream_order(row["n_keyframes"], row["world_size"], row["clips_per_rank"])
        name = f"stream order of {row['n_keyframes']}"
        lines.append(_exact(name, ours, row["keyframe_index_by_rank_step_slot"]))
        lines.append(_exact(f"{name}, steps", ours.shape[1], row["steps_per_stream"]))
    return lines


def _check_selection(selections: Mapping[str, Any]) -> list[Comparison]:
    lines = []
    for name, by_length in selections.items():
        gap = int(name.removeprefix("gap")) if name.startswith("gap") else 1
        reach = max(map(int, by_length)) // gap + 1
        state = CachedState.init(1, tokens=1, compressed_tokens=1, dim=1, reach=reach, gap=gap)
        for length in range(max(map(int, by_length)) + 1):
            entry = torch.full((1, 1, 1), float(length))
            past, state = cache_step(state, entry, entry, gap=gap)
            chosen = past.keys_BMLD[0, past.valid_BM[0], 0, 0].long().tolist()
            if str(length) in by_length:
                lines.append(_exact(f"{name} of {length}", chosen, by_length[str(length)]))
    return lines


def _check_spatial(rows: list[Any]) -> list[Comparison]:
    lines = []
    for row in rows:
        table = torch.arange(float(row["table_rows"]))[:, None]
        query, key = tuple(row["q_shape"][1:]), tuple(row["k_shape"][1:])
        ours = spatial_rows(table, table, query, key, "square")
        for axis, index in zip("hw", ours, strict=True):
            lines.append(_exact(f"index_{axis} of {query} and {key}", index[..., 0].long(), row[f"index_{axis}"]))
    return lines


def _check_temporal(rows: list[Any]) -> list[Comparison]:
    lines = []
    for row in rows:
        frames, keys, stride = row["q_t"], row["k_t"], row["stride"]
        table = torch.arange(float(frames + stride * keys))[:, None]
        ours = memory_time_rows(table, frames, keys, stride)[..., 0].long()
        name = f"frames {frames} and {keys} at {stride}"
        lines.append(_exact(name, ours, row["index"]))
        if stride == 1 and frames == keys:
            present = axis_rows(table[: 2 * frames - 1], frames, keys)[..., 0].long()
            lines.append(_exact(f"{name}, present", present, row["index"]))
    return lines


def _check_resize(rows: list[Any]) -> list[Comparison]:
    lines = []
    for row in rows:
        resize = grown_table if row["kind"] == "temporal" else resized_table
        ours = resize(torch.tensor(row["input"]), row["rows_out"])
        name = f"{row['kind']} table {row['rows_in']} to {row['rows_out']}"
        lines.append(rule_v1.compare_whole(name, ours, np.asarray(row["output"]), 1e-6))
    return lines
