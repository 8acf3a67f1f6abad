"""Batches of clips, in order, from worker processes or without; resumable by (epoch, step).

Not here: what a sample is (`clip_dataset.py`), which samples form a batch (`batch_samplers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import Sampler

from wholereel.batches import ClipBatch, Fault
from wholereel.config import Clips, Data
from wholereel.datasets.batch_samplers import BLEND_DRAWS, EpochBatches, clips_of_step, seeded_generator
from wholereel.datasets.clip_dataset import ClipDataset, SampleKey, collate
from wholereel.datasets.epoch_loader import EpochLoader, StartMethod
from wholereel.datasets.manifest import Manifest
from wholereel.errors import ConfigError, DataError
from wholereel.media.mixed_input import draw_blend

__all__ = ["ClipLoader", "TooManyFaultsError", "check_rows", "clip_loader", "too_many_faults"]

NAMED_FAULTS = 3  # files that the error names; all are on the batches and on the error


class TooManyFaultsError(DataError):
    """Too many samples of an epoch could not be read.

    Args:
        file, found, expected, remedy: see `DataError`.
        faults: those of the batch that was one too many, which nobody gets to see.
    """

    def __init__(
        self, file: str | Path, found: str, expected: str = "", remedy: str = "", faults: tuple[Fault, ...] = ()
    ) -> None:
        super().__init__(file, found, expected, remedy)
        self.faults = faults


def clip_loader(
    manifest: Manifest,
    data: Data,
    *,
    train: bool,
    seed: int,
    batch: int,
    rank: int = 0,
    world_size: int = 1,
    share: tuple[int, int] = (0, 1),
    cache_dir: Path | None = None,
    start_method: StartMethod | None = None,
) -> ClipLoader:
    """A loader for one rank.

    Training shuffles, leaves out the last incomplete step and replaces samples that cannot be read; its batches have
    `data.clips.count` clips a video on all ranks (or the number drawn for the step, see `Clips.least`), masked where a
    video has fewer. Evaluation keeps
    the order of the manifest and every sample, replaces nothing and repeats nothing: batches may be smaller, even empty
    (B = 0), and list what could not be read; ranks get disjoint samples.

    Args:
        manifest, data, train, seed, cache_dir: see `ClipDataset`.
        batch: videos of a step on this rank.
        rank, world_size: of this process, or of its group where several share the clips of a video.
        share: `(rank, size)` in that group (training): each reads its own clips of the same videos.
        start_method: how worker processes start; `None` = the system's usual way.
    Raises: ConfigError: not one complete step (training), see also `ClipDataset`.
    """
    dataset = ClipDataset(manifest, data, train=train, seed=seed, cache_dir=cache_dir, share=share)
    if train:
        check_rows(data, batch)
    batches = EpochBatches(len(dataset), batch, seed, rank, world_size, shuffle=train, drop_last=train)
    return ClipLoader(dataset, batches, root=manifest.root, start_method=start_method)


@dataclass
class _Position(Sampler[list[SampleKey]]):
    """See `epoch_loader.Position`."""

    batches: EpochBatches
    clips: Clips | None  # of training, where N is the same for all samples of a step
    epoch: int = 0
    start_step: int = 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step, keys in enumerate(self.batches.batches(self.epoch, self.start_step), self.start_step):
            count = self._count(step)
            yield [SampleKey(epoch, index, count) for epoch, index in keys]

    def _count(self, step: int) -> int | None:
        if self.clips is None or self.clips.least is None:
            return None if self.clips is None else self.clips.count
        seed = self.batches.seed
        return clips_of_step(self.clips.least, self.clips.count, seed=seed, epoch=self.epoch, step=step)


class ClipLoader(EpochLoader[ClipBatch]):
    """Iterates over epochs, see `clip_loader`; one pass at a time."""

    def __init__(
        self, dataset: ClipDataset, batches: EpochBatches, *, root: Path, start_method: StartMethod | None = None
    ) -> None:
        self.dataset, self.batches, self.root = dataset, batches, root
        self.steps_per_epoch = batches.steps_per_epoch
        # In training N is fixed: some strategies talk to the other ranks after each clip.
        position = _Position(batches, dataset.data.clips if dataset.train else None)
        super().__init__(dataset, position, collate, workers=dataset.data.workers, start_method=start_method)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ClipBatch]:
        """Yield the batches of an epoch from a step on.

        Raises: TooManyFaultsError: in training, more than `data.max_bad` of this rank's samples of the epoch were
            replaced (counted from `start_step` on). DataError: nothing could replace one. ValueError: the loader is
            closed.
        """
        replaced: list[Fault] = []
        for step, batch in enumerate(self._batches(epoch, start_step), start_step):
            missing = [fault for fault in batch.faults if fault.kind == "unreadable"]
            if self.dataset.train and missing:
                replaced.extend(missing)
                self._check_faults(epoch, replaced, last=batch.faults)
            yield self._blended(batch, epoch, step)

    def _blended(self, batch: ClipBatch, epoch: int, step: int) -> ClipBatch:
        """The batch with one draw of how its rows are blended, where that is asked for."""
        mixing = self.dataset.data.augment.mixing
        if mixing is None or not self.dataset.train:
            return batch
        generator = seeded_generator(self.batches.seed, epoch, step, BLEND_DRAWS, self.batches.rank)
        height, width = batch.clips_BNTCHW.shape[-2:]
        return replace(batch, blend=self._pinned(draw_blend(mixing, len(batch.ids), height, width, generator)))

    def _check_faults(self, epoch: int, replaced: list[Fault], *, last: tuple[Fault, ...]) -> None:
        total = self.steps_per_epoch * self.batches.batch
        limit = self.dataset.data.max_bad
        if len(replaced) <= limit * total:
            return
        raise too_many_faults(self.root, epoch, replaced, total, limit, last)


def check_rows(data: Data, batch: int) -> None:
    """Refuse blends where there is only one row.

    Raises: ConfigError.
    """
    if data.augment.mixing is not None and batch * data.augment.copies < 2:
        raise ConfigError(
            f"data.augment.mixing blends the rows of a batch in pairs, and a process has {batch} video a step in "
            f"{data.augment.copies} copy; use batch=2 or more, or data.augment.mixing=null."
        )


def too_many_faults(
    root: Path, epoch: int, missing: Sequence[Fault], total: int, limit: float, last: tuple[Fault, ...]
) -> TooManyFaultsError:
    """The error that ends a training.

    Args:
        missing: what could not be read, of `total` samples. limit: `data.max_bad`. last: see `TooManyFaultsError`.
    """
    named = " | ".join(fault.reason for fault in missing[:NAMED_FAULTS])
    return TooManyFaultsError(
        root,
        f"{len(missing)} of {total} samples of epoch {epoch + 1} could not be read ({named})",
        f"at most {limit:.2%} (data.max_bad)",
        "Run `wholereel data check` for the full list, repair or remove those files, or raise data.max_bad.",
        last,
    )
