"""Which samples form a batch: pure functions of (seed, epoch, step, rank, world size); two integers resume a job.

R rows of a stream batch are read in parallel, one video each, clip after clip.
Not here: which clips of a sample are read (`media/clip_plans.py`), loading (`loader.py`).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.errors import ConfigError

__all__ = [
    "EpochBatches",
    "StreamPlace",
    "batch_indices",
    "clips_of_step",
    "seeded_generator",
    "share_of_clips",
    "steps_per_epoch",
    "stream_rows",
]

STEP_DRAWS = 2  # in seeds of what belongs to a step; draws of samples have other numbers in this place
BLEND_DRAWS = 4  # the same for blends of rows


def seeded_generator(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all the numbers, in their order: (seed, epoch, index, ...).

    A hash mixes them, because sums of seeds would make different epochs share draws.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def steps_per_epoch(length: int, batch: int, world_size: int = 1, drop_last: bool = True) -> int:
    """Steps of an epoch, equal on all ranks.

    Args:
        length: samples of the data set.
        batch: samples of a step on one rank.
        drop_last: leave out the last, incomplete step (training); otherwise it is kept (evaluation).
    Raises: ValueError: a size below 1. ConfigError: not one complete step where only complete ones count.
    """
    if min(length, batch, world_size) < 1:
        raise ValueError(f"length {length}, batch {batch} and world_size {world_size} must be at least 1")
    steps = length // (batch * world_size) if drop_last else -(-length // (batch * world_size))
    if steps == 0:
        raise ConfigError(
            f"{length} samples do not fill one step of {batch} x {world_size}; make the batch smaller than that"
        )
    return steps


def epoch_order(length: int, *, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """All indices once, in the order in which an epoch visits them; the same on all ranks.

    Returns: int64, 8 bytes a sample: a list of Python's integers would be five times that.
    """
    return torch.randperm(length, generator=seeded_generator(seed, epoch)) if shuffle else torch.arange(length)


def batch_indices(
    length: int,
    *,
    batch: int,
    seed: int,
    epoch: int,
    step: int,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool = True,
) -> list[int]:
    """Samples of one step on one rank: disjoint over ranks, each sample at most once an epoch.

    Args:
        length: samples of the data set.
        batch: samples of a step on one rank. What all ranks see in a step depends on `batch * world_size` only.
        step: from 0. The last step may be incomplete; then it is dealt out evenly and some ranks may get nothing.
    Returns: indices into the data set.
    Raises: ValueError: there is no such step or rank.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}")
    if not 0 <= step < steps_per_epoch(length, batch, world_size, drop_last=False):
        raise ValueError(f"an epoch of {length} samples has no step {step} of {batch} x {world_size}")
    return _share(epoch_order(length, seed=seed, epoch=epoch, shuffle=shuffle), batch, step, rank, world_size)


def clips_of_step(least: int, most: int, *, seed: int, epoch: int, step: int) -> int:
    """N of a step's videos, drawn evenly from `least` to `most`; the same on all ranks."""
    generator = seeded_generator(seed, epoch, step, STEP_DRAWS)
    return int(torch.randint(least, most + 1, (), generator=generator))


def share_of_clips(count: int, rank: int, size: int) -> tuple[int, int]:
    """`(begin, end)`: which of a video's N clips one of `size` processes reads; in order, as evenly as possible.

    Raises: ValueError: there is no such rank.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} of {size}")
    return count * rank // size, count * (rank + 1) // size


def _share(order: Tensor, batch: int, step: int, rank: int, world_size: int) -> list[int]:
    size = batch * world_size
    share: list[int] = order[step * size : (step + 1) * size][rank::world_size].tolist()
    return share


@dataclass(frozen=True)
class EpochBatches:
    """The batches of one rank; `batches(epoch, start_step)` may begin anywhere.

    Args:
        length, batch, seed, rank, world_size, shuffle: as in `batch_indices`.
        drop_last: as in `steps_per_epoch`.
    """

    length: int
    batch: int
    seed: int
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    drop_last: bool = True

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.length, self.batch, self.world_size, self.drop_last)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys `(epoch, index)` of each step's samples; an empty last share of this rank is left out."""
        order = epoch_order(self.length, seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        for step in range(start_step, self.steps_per_epoch):
            if share := _share(order, self.batch, step, self.rank, self.world_size):
                yield [(epoch, index) for index in share]


@dataclass(frozen=True)
class StreamPlace:
    """One clip of a stream batch.

    Args:
        row: row of the batch (and of the memory's state).
        video: index into the data set.
        clip: number of the clip in its video.
    """

    row: int
    video: int
    clip: int

    @property
    def starts(self) -> bool:
        """The clip is the first of its video: the memory's row must be reset before it."""
        return self.clip == 0


def stream_rows(
    clips: Sequence[int],
    *,
    rows: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool = True,
) -> Iterator[list[StreamPlace | None]]:
    """Read videos clip by clip, several at a time: a row that ends its video goes on with the next one of the queue.

    Args:
        clips: number of clips of each video, >= 1.
        rows: R, videos that a rank reads in parallel.
        start_step: steps to skip (they are counted, not read).
        seed, epoch, rank, world_size, shuffle: as in `batch_indices`. Videos are dealt to all rows of all ranks.
    Yields: for each step the next clip of each row, in the order of the rows; `None` for a row that has ended its last
        video. All ranks have the same number of steps, those of the longest row of any of them.
    Raises: ValueError: a video without clips, or a rank or number of rows that cannot be.
    """
    if min(clips, default=1) < 1 or rows < 1 or not 0 <= rank < world_size:
        raise ValueError(f"clips {list(clips)[:5]}..., rows {rows}, rank {rank} of {world_size} cannot be streamed")
    order = epoch_order(len(clips), seed=seed, epoch=epoch, shuffle=shuffle)
    queues = _queues(clips, order.tolist(), rows * world_size)
    places = [
        [StreamPlace(row, video, clip) for video in queue for clip in range(clips[video])]
        for row, queue in enumerate(queues[rank * rows : (rank + 1) * rows])
    ]
    for step in range(start_step, max(sum(clips[video] for video in queue) for queue in queues)):
        yield [row[step] if step < len(row) else None for row in places]


def _queues(clips: Sequence[int], order: Sequence[int], rows: int) -> list[list[int]]:
    """Deal the videos: each goes to the row that is free first (the lowest one where several are)."""
    free = [(0, row) for row in range(rows)]
    queues: list[list[int]] = [[] for _ in range(rows)]
    for video in order:
        step, row = heapq.heappop(free)
        queues[row].append(video)
        heapq.heappush(free, (step + clips[video], row))
    return queues
