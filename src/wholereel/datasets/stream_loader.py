"""Batches of streams: the next clip of each of B videos, from worker processes or without; resumable by (epoch, step).

Not here: what a clip is (`stream_dataset.py`), which clips form a step (`stream_places.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import Sampler

from wholereel.batches import Fault, StreamBatch
from wholereel.config import Data
from wholereel.datasets.epoch_loader import EpochLoader, StartMethod
from wholereel.datasets.loader import TooManyFaultsError, too_many_faults
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.stream_dataset import StreamDataset, collate_streams
from wholereel.datasets.stream_places import StreamKey, StreamPlaces

__all__ = ["StreamLoader", "TooManyFaultsError", "stream_loader"]


def stream_loader(
    manifest: Manifest,
    data: Data,
    *,
    train: bool,
    seed: int,
    batch: int,
    rank: int = 0,
    world_size: int = 1,
    cache_dir: Path | None = None,
    start_method: StartMethod | None = None,
) -> StreamLoader:
    """A loader for one rank; all ranks have the same number of steps, and each step the same number of rows.

    Training shuffles the videos; evaluation keeps their order and reads every clip once (`StreamPlaces`). Files that
    cannot be opened are in no stream, clips that cannot be read count for nothing; both are listed.

    Args:
        manifest, data, train, seed, cache_dir: see `StreamDataset`.
        batch: rows of a step on this rank.
        rank, world_size: of this process.
        start_method: how worker processes start; `None` = the system's usual way.
    Raises: ConfigError, DataError: see `StreamDataset` and `StreamPlaces`.
    """
    dataset = StreamDataset(manifest, data, train=train, seed=seed, cache_dir=cache_dir)
    clips = [video.clips for video in dataset.videos]
    places = StreamPlaces(clips, batch, seed, dataset.streams.order, train, rank, world_size)
    return StreamLoader(dataset, places, root=manifest.root, start_method=start_method)


@dataclass
class _Position(Sampler[list[StreamKey | None]]):
    """See `epoch_loader.Position`."""

    places: StreamPlaces
    epoch: int = 0
    start_step: int = 0

    def __iter__(self) -> Iterator[list[StreamKey | None]]:
        return self.places.steps(self.epoch, self.start_step)


class StreamLoader(EpochLoader[StreamBatch]):
    """Iterates over epochs, see `stream_loader`; one pass at a time."""

    def __init__(
        self, dataset: StreamDataset, places: StreamPlaces, *, root: Path, start_method: StartMethod | None = None
    ) -> None:
        self.dataset, self.places, self.root = dataset, places, root
        self.steps_per_epoch = places.steps_per_epoch
        workers = dataset.data.workers
        super().__init__(dataset, _Position(places), collate_streams, workers=workers, start_method=start_method)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StreamBatch]:
        """Yield the steps of an epoch from one on; the first of the first rank also lists files that cannot be opened.

        Raises: TooManyFaultsError: in training, more than `data.max_bad` of the videos could not be opened, or of this
            rank's clips of the epoch not be read (counted from `start_step` on). ValueError: the loader is closed.
        """
        first = () if start_step or self.places.rank else self.dataset.faults
        self._check(epoch, list(self.dataset.faults), first, len(self.dataset.videos) + len(self.dataset.faults))
        missing: list[Fault] = []
        for batch in self._batches(epoch, start_step):
            missing += [fault for fault in batch.faults if fault.kind == "unreadable"]
            self._check(epoch, missing, batch.faults, self.steps_per_epoch * self.places.rows)
            yield replace(batch, faults=(*first, *batch.faults))
            first = ()

    def _check(self, epoch: int, missing: list[Fault], last: tuple[Fault, ...], total: int) -> None:
        if self.dataset.train and len(missing) > self.dataset.data.max_bad * total:
            raise too_many_faults(self.root, epoch, missing, total, self.dataset.data.max_bad, last)
