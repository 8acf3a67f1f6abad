"""Cached memory: a layer attends to compressed tokens of the clips before, causally (MeMViT).

Source: arXiv 2201.08383 and its public code's order of operations (facebookresearch/MeMViT, attention with memory).
Extra axes: L tokens of an entry, E older entries in the cache, M entries attended.
All functions are pure and know no model: keys and values come from a layer, the compression is handed in. One state
belongs to one layer; layers without memory need none.
With reach M and gap G a cache holds C = M * G entries: the newest P as they came, uncompressed and detached, and C - P
older ones compressed. In each step the oldest of the P is compressed, with graph, and every G-th entry is attended,
counted back from the newest. P is 1 in the public code: with a G of 2 or more what is compressed with graph is attended
only later, without, so that the compression never learns. With P = G (our choice) it is attended in the step that
compresses it.
Our choice: entries that do not exist, or belong to another video, are masked row by row (`mask`; the public code does
this by deleting entries for a batch of one). `zero` is what it does for larger batches: entries of another video are
attended to as zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wholereel.batches import map_tensors
from wholereel.memory.state import State, cleared_rows

__all__ = ["BOUNDARIES", "Attended", "CachedState", "cache_step"]

BOUNDARIES = ("mask", "zero")

Compress = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CachedState(State):
    """What one layer remembers.

    Args:
        newest_keys_BLD, newest_values_BLD: the entries of the last P steps one behind the other, oldest first,
            uncompressed, without graph.
        keys_BELD, values_BELD: older entries, compressed, without graph, oldest first; E = reach * gap - P.
        entries_B: int64 in [0, E + P], how many entries of its present video a row holds; they are the newest ones.
        steps_B: int64 in [0, E + P], how many entries of any video; `reset` leaves it as it is.
    """

    newest_keys_BLD: Tensor
    newest_values_BLD: Tensor
    keys_BELD: Tensor
    values_BELD: Tensor
    entries_B: Tensor
    steps_B: Tensor

    @classmethod
    def init(
        cls,
        batch_size: int,
        *,
        tokens: int,
        compressed_tokens: int,
        dim: int,
        reach: int,
        gap: int = 1,
        pending: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> CachedState:
        """The empty cache.

        Args:
            tokens, compressed_tokens: L of an entry before and after compression; equal without compression.
            dim: width of keys and values.
            reach: M, entries that a step attends to at most.
            gap: G, distance between them in steps.
            pending: P, entries that stay uncompressed.
        Raises: ValueError: a reach or gap below 1, or pending entries that would be attended.
        """
        if reach < 1 or gap < 1:
            raise ValueError(f"reach and gap must be at least 1, got {reach} and {gap}")
        if not 1 <= pending <= gap:
            raise ValueError(f"from 1 to gap={gap} entries can stay uncompressed, got {pending}")
        newest = torch.zeros(batch_size, pending * tokens, dim, dtype=dtype, device=device)
        older = torch.zeros(batch_size, reach * gap - pending, compressed_tokens, dim, dtype=dtype, device=device)
        entries_B = torch.zeros(batch_size, dtype=torch.int64, device=device)
        return cls(newest, newest.clone(), older, older.clone(), entries_B, entries_B.clone())

    def reset(self, rows_B: Tensor) -> CachedState:
        """Forget the rows where `rows_B` (bool) is true: those videos begin anew."""
        cleared = map_tensors(self, lambda tensor: cleared_rows(tensor, rows_B))
        return replace(cleared, steps_B=self.steps_B)


@dataclass(frozen=True)
class Attended:
    """Past entries for one step's attention, oldest first.

    Args:
        keys_BMLD, values_BMLD: compressed; the newest one has graph to its compression where P = G.
        valid_BM: bool; entries that are False must get the score -inf.
    """

    keys_BMLD: Tensor
    values_BMLD: Tensor
    valid_BM: Tensor

    def mask(self) -> Tensor:
        """`valid_BM` for each token, `(B, M * L)`."""
        return self.valid_BM.repeat_interleave(self.keys_BMLD.shape[2], dim=1)


def cache_step(
    state: CachedState,
    keys_BLD: Tensor,
    values_BLD: Tensor,
    *,
    gap: int = 1,
    compress: Compress | None = None,
    boundary: str = "mask",
) -> tuple[Attended, CachedState]:
    """One step of one layer: what to attend to besides the present clip, and the cache for the next step.

    Args:
        state: after `reset` of the rows whose video begins with this clip.
        keys_BLD, values_BLD: of the present clip, as they shall be remembered.
        gap: G that the state was made for.
        compress: keys and values `(B, L, D)` to those of a compressed entry; `None` = kept as they are.
        boundary: of `BOUNDARIES`, what a row sees of the time before its video.
    Raises: ValueError: shapes or a gap that the state was not made for, or an unknown boundary.
    """
    pending = _check(state, keys_BLD, values_BLD, gap)
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {BOUNDARIES}, got {boundary!r}")
    if boundary == "zero":
        state = _zeroed(state, pending)
    tokens = keys_BLD.shape[1]
    due = state.newest_keys_BLD[:, :tokens], state.newest_values_BLD[:, :tokens]
    compressed_keys_BLD, compressed_values_BLD = due if compress is None else compress(*due)
    if compressed_keys_BLD.shape[1:] != state.keys_BELD.shape[2:]:
        found, expected = tuple(compressed_keys_BLD.shape[1:]), tuple(state.keys_BELD.shape[2:])
        raise ValueError(f"a compressed entry has (tokens, width) {found}, the state was made for {expected}")
    all_keys = torch.cat([state.keys_BELD, compressed_keys_BLD[:, None]], 1)
    all_values = torch.cat([state.values_BELD, compressed_values_BLD[:, None]], 1)
    capacity = all_keys.shape[1] + pending - 1
    # Slot j is the (capacity - j)-th entry back; every gap-th one back from the newest is slots 0, G, 2G, ...
    back_M = capacity - torch.arange(0, capacity, gap, device=state.entries_B.device)
    held_B = state.steps_B if boundary == "zero" else state.entries_B
    attended = Attended(all_keys[:, ::gap], all_values[:, ::gap], back_M <= held_B[:, None])
    dtype = state.keys_BELD.dtype

    def newest(before_BLD: Tensor, entry_BLD: Tensor) -> Tensor:
        # Storages and strides of their own, as `init` makes them: compiled graphs are guarded by strides.
        entry_BLD = entry_BLD.detach().to(dtype).contiguous()
        return entry_BLD if pending == 1 else torch.cat([before_BLD[:, tokens:].detach(), entry_BLD], 1)

    following = CachedState(
        newest(state.newest_keys_BLD, keys_BLD),
        newest(state.newest_values_BLD, values_BLD),
        all_keys[:, 1:].detach().to(dtype, copy=True, memory_format=torch.contiguous_format),
        all_values[:, 1:].detach().to(dtype, copy=True, memory_format=torch.contiguous_format),
        (state.entries_B + 1).clamp(max=capacity),
        (state.steps_B + 1).clamp(max=capacity),
    )
    return attended, following


def _zeroed(state: CachedState, pending: int) -> CachedState:
    # The entry that was newest when a video began is zeros, but its compression (the norm's bias) is not: away with it.
    older = state.keys_BELD.shape[1]
    back_E = older + pending - torch.arange(older, device=state.entries_B.device)
    own_BE11 = (back_E <= state.entries_B[:, None])[:, :, None, None]
    keys, values = (torch.where(own_BE11, t, torch.zeros_like(t)) for t in (state.keys_BELD, state.values_BELD))
    return replace(state, keys_BELD=keys, values_BELD=values)


def _check(state: CachedState, keys_BLD: Tensor, values_BLD: Tensor, gap: int) -> int:
    """P, how many entries the state keeps uncompressed."""
    rows, kept, dim = state.newest_keys_BLD.shape
    pending, rest = divmod(kept, keys_BLD.shape[1])
    expected = (rows, kept // max(pending, 1), dim)
    fits = all(tuple(tokens.shape) == expected for tokens in (keys_BLD, values_BLD))
    if rest or pending not in (1, gap) or not fits:
        found = f"{tuple(keys_BLD.shape)} and {tuple(values_BLD.shape)}"
        raise ValueError(
            f"keys and values must have the shape {(rows, kept, dim)} that the state was made for, got {found}"
        )
    entries = state.keys_BELD.shape[1] + pending
    if gap < 1 or entries % gap:
        raise ValueError(f"a cache of {entries} entries was not made for gap={gap}")
    return pending


torch.export.register_dataclass(CachedState, serialized_type_name="wholereel.CachedState")
torch.export.register_dataclass(Attended, serialized_type_name="wholereel.Attended")
