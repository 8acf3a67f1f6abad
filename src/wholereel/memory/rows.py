"""States of several videos as the rows of one, and back: what a batch of streams needs.

A state is any nesting of frozen dataclasses and tuples of tensors with the batch axis in front. Rows that are joined
may have come from anywhere; each goes on as it would alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from wholereel.batches import map_tensors

__all__ = ["join_rows", "split_rows"]

S = TypeVar("S")


def join_rows(states: Sequence[S]) -> S:
    """One state whose rows are those of all given ones, in order.

    Raises: ValueError: no state, or states of different kinds or sizes.
    """
    if not states:
        raise ValueError("there is no state to join")
    if len(states) == 1:
        return states[0]
    joined: S = _joined(list(states))
    return joined


def split_rows(state: S, rows: int) -> list[S]:
    """A state of each row, of its own storage (a slice would keep the whole batch alive)."""
    if rows == 1:
        return [state]
    return [map_tensors(state, lambda tensor, b=b: tensor[b : b + 1].clone()) for b in range(rows)]  # type: ignore[misc]


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if any(type(part) is not type(first) for part in parts):
        raise ValueError(f"states of different kinds cannot be joined: {sorted({type(p).__name__ for p in parts})}")
    if isinstance(first, Tensor):
        sizes = {tuple(part.shape[1:]) for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"states of different sizes cannot be joined: {sorted(sizes)}")
        return torch.cat(parts)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{name: _joined([getattr(part, name) for part in parts]) for name in names})
    if isinstance(first, tuple):
        return tuple(_joined(list(group)) for group in zip(*parts, strict=True))
    raise ValueError(f"a state is made of tensors, dataclasses and tuples, got {type(first).__name__}")
