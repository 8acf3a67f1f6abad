"""Results of all processes of a process group, on every one of them."""

from __future__ import annotations

from functools import reduce
from typing import Any, Protocol, Self, TypeVar

import torch.distributed as dist

__all__ = ["gather", "merge_over_ranks"]

T = TypeVar("T")


class _Mergeable(Protocol):
    def merge(self, other: Self) -> Self: ...


M = TypeVar("M", bound=_Mergeable)


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order; without a process group, this one's alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def merge_over_ranks(counts: M) -> M:
    """Counts of all ranks merged, the same on every rank.

    Metrics that keep samples by id count one that several ranks evaluated (padding) once; plain counts need ranks that
    share nothing, as `evaluation.loading.shard` deals them out.
    """
    return reduce(lambda one, other: one.merge(other), gather(counts))
