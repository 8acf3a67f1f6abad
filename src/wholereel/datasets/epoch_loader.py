"""Batches of one epoch after another, from worker processes or without: what loaders of clips and of streams share.

Not here: which samples form a batch, what counts as a fault (`loader.py`, `stream_loader.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from wholereel.batches import Blend

__all__ = ["EpochLoader", "Position", "StartMethod"]

Batch = TypeVar("Batch")
StartMethod = Literal["fork", "spawn", "forkserver"]


class Position(Protocol):
    """Where the next pass over the data begins; set, not constructed, since worker processes outlive an epoch."""

    epoch: int
    start_step: int

    def __iter__(self) -> Iterator[Any]:
        """The keys of one batch after the other."""


class EpochLoader(Generic[Batch]):
    """One pass at a time.

    Args:
        dataset: gives what `collate` makes a batch of. position: see there.
        workers: processes; 0 = none. start_method: how they start; `None` = the system's usual way.
    """

    def __init__(
        self,
        dataset: Any,
        position: Position,
        collate: Callable[[Any], Batch],
        *,
        workers: int,
        start_method: StartMethod | None = None,
    ) -> None:
        self._position = position
        self._loader: DataLoader[Batch] | None = DataLoader(
            dataset,
            batch_sampler=position,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            multiprocessing_context=start_method if workers else None,
            pin_memory=torch.cuda.is_available(),
            # Unused by our samples, but else the loader draws from the global generator, and resumed runs differ.
            generator=torch.Generator(),
        )

    def close(self) -> None:
        """End the worker processes."""
        self._loader = None

    def _pinned(self, blend: Blend) -> Blend:
        """As the loader pins all else: what is drawn in this process must not make the host wait for the device."""
        return blend.pin_memory() if torch.cuda.is_available() else blend

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """The batches of an epoch from a step on.

        Raises: ValueError: the loader is closed.
        """
        if self._loader is None:
            raise ValueError("the loader is closed")
        self._position.epoch, self._position.start_step = epoch, start_step
        yield from self._loader
