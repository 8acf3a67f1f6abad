"""Which clip each row of a stream batch reads in each step: a pure function of (seed, epoch, step, rank, world size).

Training has the same number of steps in every epoch, `ceil(clips / rows)` or the longest video's clips: rows that would
be longer are cut there (another video's end each epoch, since videos are shuffled), shorter ones idle. Evaluation reads
every clip once, for as many steps as the longest row has.
Not here: what a clip is (`stream_dataset.py`), how videos are dealt to rows (`batch_samplers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from wholereel.datasets.batch_samplers import StreamPlace, epoch_order, stream_rows
from wholereel.errors import ConfigError
from wholereel.ops.stream_order import stream_order

__all__ = ["ORDERS", "StreamKey", "StreamPlaces"]

ORDERS = ("balanced", "memvit")


@dataclass(frozen=True)
class StreamKey:
    """One clip of an epoch; its memory row is reset before it where `starts`."""

    epoch: int
    video: int
    clip: int
    starts: bool


@dataclass(frozen=True)
class StreamPlaces:
    """The steps of one rank; `steps(epoch, start_step)` may begin anywhere.

    Args:
        clips: number of clips of each video, >= 1.
        rows: R, clips of a step on this rank.
        order: of `ORDERS`, see `config.Streams`.
        train: shuffle, and the number of steps that is said above; `memvit` drops its last, incomplete step then.
        seed, rank, world_size: as in `batch_indices`.
    Raises: ConfigError: not one complete step of `memvit`. ValueError: an unknown order, or nothing to read.
    """

    clips: Sequence[int]
    rows: int
    seed: int
    order: str = "balanced"
    train: bool = True
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if not self.clips:
            raise ValueError("there is no video to stream")
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"{sum(self.clips)} clips do not fill one step of {self.rows} x {self.world_size} rows in order "
                "'memvit'; make the batch smaller than that"
            )

    @property
    def steps_per_epoch(self) -> int:
        """The same for every epoch and rank."""
        total, rows = sum(self.clips), self.rows * self.world_size
        if self.order == "memvit":
            return total // rows if self.train else -(-total // rows)
        if self.train:
            return max(-(-total // rows), max(self.clips))
        return sum(1 for _ in self._balanced(epoch=0, start_step=0))

    def steps(self, epoch: int, start_step: int = 0) -> Iterator[list[StreamKey | None]]:
        """Yield the keys of each step's rows; `None` where a row has ended."""
        source = self._balanced if self.order == "balanced" else self._memvit
        yield from islice(source(epoch, start_step), max(0, self.steps_per_epoch - start_step) if self.train else None)

    def _balanced(self, epoch: int, start_step: int) -> Iterator[list[StreamKey | None]]:
        rows = stream_rows(
            self.clips, rows=self.rows, seed=self.seed, epoch=epoch, start_step=start_step, rank=self.rank,
            world_size=self.world_size, shuffle=self.train,
        )  # fmt: skip
        for places in rows:
            yield [None if place is None else _key(epoch, place) for place in places]

    def _memvit(self, epoch: int, start_step: int) -> Iterator[list[StreamKey | None]]:
        """Streams may begin inside a video; the last one wraps round, and in evaluation reads nothing twice."""
        order = epoch_order(len(self.clips), seed=self.seed, epoch=epoch, shuffle=self.train)
        lengths_V = torch.tensor(self.clips)[order]
        ends_V = lengths_V.cumsum(0)
        number_SB = stream_order(int(ends_V[-1]), self.world_size, self.rows)[self.rank]
        steps = len(number_SB)
        for step in range(start_step, steps):
            keys: list[StreamKey | None] = []
            for row, number in enumerate(number_SB[step].tolist()):
                place = int(torch.searchsorted(ends_V, number, right=True))
                clip = number - int(ends_V[place] - lengths_V[place])
                unread = steps * (self.rank + self.world_size * row) + step < int(ends_V[-1])
                key = StreamKey(epoch, int(order[place]), clip, starts=clip == 0 or step == 0)
                keys.append(key if unread or self.train else None)
            yield keys


def _key(epoch: int, place: StreamPlace) -> StreamKey:
    return StreamKey(epoch, place.video, place.clip, place.starts)
