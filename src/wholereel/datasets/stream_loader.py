"""Batches of streams: the next clip of each of B videos, from worker processes or without; resumable by (epoch, step).

Not here: what a clip is (`stream_dataset.py`), which clips form a step (`stream_places.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Sampler

from wholereel.batches import Blend, Fault, StreamBatch
from wholereel.config import Data
from wholereel.datasets.batch_samplers import BLEND_DRAWS, seeded_generator
from wholereel.datasets.epoch_loader import EpochLoader, StartMethod
from wholereel.datasets.loader import TooManyFaultsError, check_rows, too_many_faults
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.stream_dataset import StreamDataset, collate_streams
from wholereel.datasets.stream_places import StreamKey, StreamPlaces
from wholereel.media.mixed_input import draw_share, pairs

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
    if train:
        check_rows(data, batch)
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
        steps = self.places.steps(epoch, start_step)
        for keys, batch in zip(steps, self._batches(epoch, start_step), strict=True):
            missing += [fault for fault in batch.faults if fault.kind == "unreadable"]
            self._check(epoch, missing, batch.faults, self.steps_per_epoch * self.places.rows)
            yield replace(batch, faults=(*first, *batch.faults), blend=self._blend(keys, batch))
            first = ()

    def _blend(self, keys: Sequence[StreamKey | None], batch: StreamBatch) -> Blend | None:
        """How the rows of a step are blended, where that is asked for.

        A pair of rows has one draw for as long as both read the same videos (our choice; the public code draws anew
        each step, so that a row's memory holds other blends than its clip); a row without partner stays as it is.
        """
        mixing = self.dataset.data.augment.mixing
        if mixing is None or not self.dataset.train:
            return None
        height, width = batch.clip_BTCHW.shape[-2:]
        copies, partner_B, valid = self.dataset.data.augment.copies, pairs(len(batch.valid_B)), batch.valid_B.tolist()
        drawn = [(1.0, (0, 0, 0, 0))] * len(valid)
        for row, other in enumerate(partner_B.tolist()):
            one, two = keys[row // copies], keys[other // copies]
            if row < other and one is not None and two is not None and valid[row] and valid[other]:
                seed = (one.epoch, BLEND_DRAWS, one.video, row % copies, two.video, other % copies)
                generator = seeded_generator(self.dataset.seed, *seed)
                drawn[row] = drawn[other] = draw_share(mixing, height, width, generator)
        share_B = torch.tensor([share for share, _ in drawn], dtype=torch.float64)
        return self._pinned(Blend(partner_B, share_B, torch.tensor([box for _, box in drawn])))

    def _check(self, epoch: int, missing: list[Fault], last: tuple[Fault, ...], total: int) -> None:
        if self.dataset.train and len(missing) > self.dataset.data.max_bad * total:
            raise too_many_faults(self.root, epoch, missing, total, self.dataset.data.max_bad, last)
