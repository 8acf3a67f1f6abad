"""Videos of a data set, each with all its views, decoded by worker processes and padded into batches.

Extra axes: V views (clips x crops, see `inference/views.py`). A sample that cannot be read becomes a `Fault` in its
place; it is never replaced, because a number over other videos is another number.
Not here: loading for training (`datasets/`), whose batches hold one crop and may replace samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wholereel.batches import Bank, Fault, map_tensors
from wholereel.config import Views
from wholereel.datasets.bank_windows import BankWindows, Window, batched_bank
from wholereel.datasets.clip_reader import part_of
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.manifest import Sample
from wholereel.errors import DataError
from wholereel.inference.views import VideoViews

__all__ = ["LoadedVideo", "ViewBatch", "batches", "shard"]


@dataclass(frozen=True)
class LoadedVideo:
    """All views of one sample.

    Args:
        index: place in the manifest.
        views_VTCHW: uint8.
        valid_V: bool, views that lie in the film; around key frames some may not.
        truncated: the file is cut off.
        bank: features of the video that its clips may read, or `None`.
    """

    index: int
    views_VTCHW: Tensor
    valid_V: Tensor
    truncated: bool
    bank: Window | None = None


@dataclass(frozen=True)
class ViewBatch:
    """Several videos, padded to the largest number of views.

    Args:
        views_BVTCHW: uint8. valid_BV: bool.
        indices: places in the manifest.
        truncated: one flag a video.
        faults: of samples that should have been in this batch.
        bank: features of the videos with N clips each, or `None`.
    """

    views_BVTCHW: Tensor
    valid_BV: Tensor
    indices: tuple[int, ...]
    truncated: tuple[bool, ...]
    faults: tuple[Fault, ...]
    bank: Bank | None = None

    def pin_memory(self) -> ViewBatch:
        """Called by the data loader."""
        return map_tensors(self, Tensor.pin_memory)


def shard(length: int, rank: int, world_size: int) -> list[int]:
    """Places in the manifest that one process evaluates: disjoint over ranks, together everything, nothing twice.

    Raises: ValueError: rank outside [0, world_size).
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
    return list(range(rank, length, world_size))


def batches(
    samples: Sequence[Sample],
    indices: Sequence[int],
    views: Views,
    *,
    batch: int,
    workers: int,
    cache: FrameCache | None = None,
    pin_memory: bool = False,
    bank: BankWindows | None = None,
) -> Iterator[ViewBatch]:
    """Yield the samples at `indices` in that order, `batch` videos at a time; batches of nothing but faults have B = 0.

    Args:
        samples: the whole manifest's.
        views: how each video is read; each sample's part, key frame and left padding are kept, as in training.
        batch: videos of a batch, >= 1. workers: processes, 0 = none.
        cache: keeps decoded frames of the views' short side.
        pin_memory: for faster copies to a GPU.
        bank: looks up what clips read besides; `None` = nothing.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    yield from DataLoader(
        _Videos(samples, views, cache, bank),
        sampler=list(indices),
        batch_size=batch,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
    )


class _Videos(Dataset[LoadedVideo | Fault]):
    def __init__(
        self, samples: Sequence[Sample], views: Views, cache: FrameCache | None, bank: BankWindows | None
    ) -> None:
        self.samples, self.views, self.cache, self.bank = samples, views, cache, bank

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> LoadedVideo | Fault:
        sample = self.samples[index]
        try:
            part, rate = part_of(sample), sample.frame_rate
            kept = None if self.cache is None else self.cache.open(sample.path, frame_rate=rate)
            with VideoViews(
                sample.path,
                self.views,
                start=part.start,
                end=part.end,
                key_seconds=part.key_seconds,
                left_pad=part.left_pad,
                kept=kept,
                frame_rate=rate,
            ) as video:
                valid_V = video.valid_N.repeat_interleave(self.views.crops)
                bank = None if self.bank is None else self.bank.read(sample.id, video.middles_N)
                return LoadedVideo(index, video.read().contiguous(), valid_V, video.truncated, bank)
        except DataError as error:
            return Fault(sample.id, str(sample.path), str(error))


def _collate(items: Sequence[LoadedVideo | Fault]) -> ViewBatch:
    videos = [item for item in items if isinstance(item, LoadedVideo)]
    largest = max((len(video.views_VTCHW) for video in videos), default=0)
    shape = videos[0].views_VTCHW.shape[1:] if videos else (0, 0, 0, 0)
    views_BVTCHW = torch.zeros(len(videos), largest, *shape, dtype=torch.uint8)
    valid_BV = torch.zeros(len(videos), largest, dtype=torch.bool)
    for row, video in enumerate(videos):
        views_BVTCHW[row, : len(video.views_VTCHW)] = video.views_VTCHW
        valid_BV[row, : len(video.views_VTCHW)] = video.valid_V
    windows = [video.bank for video in videos if video.bank is not None]
    bank = batched_bank(windows, max(len(inside) for _, inside in windows)) if windows else None
    return ViewBatch(
        views_BVTCHW, valid_BV, tuple(video.index for video in videos), tuple(video.truncated for video in videos),
        tuple(item for item in items if isinstance(item, Fault)), bank,
    )  # fmt: skip
