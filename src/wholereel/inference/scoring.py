"""Logits of all clips of videos under their complete memory, computed a few clips at a time.

Source: arXiv 2104.01198 for the memory; the ways of computing are derived. The memory is bidirectional: no clip can be
judged before all have pushed. Three exact ways, chosen by where the blocks stand:
  * one block in front of the head: one sweep; of each clip a pooled query and pooled features stay (*late read*);
  * blocks elsewhere: one sweep per block and one more, each going through the network again with the memories so far;
  * non-local blocks: all clips at once, since their memory is all tokens anyway.
Extra axes: R rows (videos, or videos x crops: whatever has one memory), V views, K classes.
Not here: reading (`views.py`), aggregation (`ops/aggregate.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from wholereel.batches import Bank, map_tensors
from wholereel.memory.state import PlaceState, VideoState
from wholereel.models.bank_model import BankModel
from wholereel.models.video_model import LAST, Summary, VideoModel

__all__ = ["ClipChunk", "ClipLogits", "from_rows", "score_clips", "to_rows"]


@dataclass(frozen=True)
class ClipChunk:
    """Some consecutive clips of R videos.

    Args:
        clips_RNCTHW: normalised, on the model's device.
        valid_RN: bool.
        order_RN: int64 index of each clip in its video.
        bank: what the clips read of features of their videos; of models that read a bank alone.
    """

    clips_RNCTHW: Tensor
    valid_RN: Tensor
    order_RN: Tensor
    bank: Bank | None = None


@dataclass(frozen=True)
class ClipLogits:
    """Logits of all clips.

    Args:
        shared_RNK: given the memory of all valid clips of the row.
        alone_RNK: each given the memory of itself alone; the same tensor without memory; `None` where not asked for.
    """

    shared_RNK: Tensor
    alone_RNK: Tensor | None


def to_rows(views_BV: Tensor, crops: int, *, memory_over: str) -> Tensor:
    """Give each memory a row: `(B, V, ...)` with view v = clip v // crops, crop v % crops.

    Returns: `(B * crops, N, ...)` for `memory_over="crop"`, unchanged for `"all"`.
    """
    if memory_over == "all" or crops == 1:
        return views_BV
    return views_BV.unflatten(1, (-1, crops)).transpose(1, 2).flatten(0, 1)


def from_rows(rows_RN: Tensor, crops: int, *, memory_over: str) -> Tensor:
    """The inverse of `to_rows`."""
    if memory_over == "all" or crops == 1:
        return rows_RN
    return rows_RN.unflatten(0, (-1, crops)).transpose(1, 2).flatten(1, 2)


@torch.no_grad()
def score_clips(model: VideoModel, source: Callable[[], Iterable[ClipChunk]], *, alone: bool = False) -> ClipLogits:
    """Judge all clips of R videos.

    Args:
        model: in eval mode (batch statistics would depend on the chunks).
        source: called once per sweep; gives the chunks of all clips, the same each time.
        alone: also judge every clip without the others.
    Raises: ValueError: the model is in train mode, or there is no clip.
    """
    if model.training:
        raise ValueError("score_clips needs the model in eval mode: call model.eval() first")
    if not model.places:
        return _independent(model, source)
    if model.causal:
        return ClipLogits(*_in_order(model, source, alone))
    nonlocal_block = model.memory is not None and model.memory.interaction.startswith("nl_")
    way = _all_at_once if nonlocal_block else _late_read if model.places == (LAST,) else _sweeps
    shared_RNK, alone_RNK = way(model, source, alone)
    return ClipLogits(shared_RNK, alone_RNK)


def _independent(model: VideoModel, source: Callable[[], Iterable[ClipChunk]]) -> ClipLogits:
    if isinstance(model, BankModel):
        logits_RNK = _joined([model(chunk.clips_RNCTHW, bank=chunk.bank)[0] for chunk in source()])
    else:
        logits_RNK = _joined([_each_alone(model, chunk) for chunk in source()])
    return ClipLogits(logits_RNK, logits_RNK)


def _in_order(
    model: VideoModel, source: Callable[[], Iterable[ClipChunk]], alone: bool
) -> tuple[Tensor, Tensor | None]:
    """Clips that read the past: one sweep, whatever the blocks."""
    shared: list[Tensor] = []
    alone_parts: list[Tensor] = []
    state: VideoState | None = None
    for chunk in source():
        logits, state = model(chunk.clips_RNCTHW, state, chunk.valid_RN, order_BN=chunk.order_RN)
        shared.append(logits)
        if alone:
            alone_parts.append(_each_alone(model, chunk))
    return _joined(shared), _joined(alone_parts) if alone else None


def _late_read(
    model: VideoModel, source: Callable[[], Iterable[ClipChunk]], alone: bool
) -> tuple[Tensor, Tensor | None]:
    memory: VideoState | None = None
    summaries: list[list[Summary]] = []
    alone_parts: list[Tensor] = []
    for chunk in source():
        rows, clips = chunk.valid_RN.shape
        flat = model.encode(chunk.clips_RNCTHW.flatten(0, 1), order_B=chunk.order_RN.flatten())
        by_clip = [_nth(flat, n, clips) for n in range(clips)]
        for n, summary in enumerate(by_clip):
            push = summary.push.reset(~chunk.valid_RN[:, n])
            memory = push if memory is None else memory.merge(push)
        if alone:
            alone_parts.append(_each_alone(model, chunk) if _knows_order(model) else _read_own(model, flat, rows))
        summaries.append([_without_push(summary) for summary in by_clip])
    if memory is None:
        raise ValueError("there is no clip to judge")
    logits_RNK = torch.stack([model.read(summary, memory) for part in summaries for summary in part], dim=1)
    return logits_RNK, _joined(alone_parts) if alone else None


def _sweeps(model: VideoModel, source: Callable[[], Iterable[ClipChunk]], alone: bool) -> tuple[Tensor, Tensor | None]:
    memories: list[PlaceState] = []
    for index in range(len(model.places)):
        memory: PlaceState | None = None
        for chunk in source():
            push = model.push_at(index, _features(model, chunk, memories), chunk.valid_RN, order_BN=chunk.order_RN)
            memory = push if memory is None else memory.merge(push)  # type: ignore[arg-type]
        if memory is None:
            raise ValueError("there is no clip to judge")
        memories.append(memory)
    shared: list[Tensor] = []
    alone_parts: list[Tensor] = []
    for chunk in source():
        logits = model.head(_features(model, chunk, memories))
        shared.append(logits)
        if alone:
            alone_parts.append(_each_alone(model, chunk))
    return _joined(shared), _joined(alone_parts) if alone else None


def _all_at_once(
    model: VideoModel, source: Callable[[], Iterable[ClipChunk]], alone: bool
) -> tuple[Tensor, Tensor | None]:
    chunks = list(source())
    clips, valid, order = (
        torch.cat([getattr(chunk, name) for chunk in chunks], dim=1)
        for name in ("clips_RNCTHW", "valid_RN", "order_RN")
    )
    logits_RNK, _ = model(clips, None, valid, order_BN=order)
    return logits_RNK, _joined([_each_alone(model, chunk) for chunk in chunks]) if alone else None


def _features(model: VideoModel, chunk: ClipChunk, memories: list[PlaceState]) -> Tensor:
    """Feature maps `(R, N, C, T, H, W)` at the first block whose memory is not complete, or in front of the head."""
    x_BCTHW = chunk.clips_RNCTHW.flatten(0, 1)
    for index, memory in enumerate(memories):
        x_RNCTHW = model.run_segment(index, x_BCTHW).unflatten(0, chunk.valid_RN.shape)
        x_BCTHW = model.infuse_at(index, x_RNCTHW, memory).flatten(0, 1)
    return model.run_segment(len(memories), x_BCTHW).unflatten(0, chunk.valid_RN.shape)


def _each_alone(model: VideoModel, chunk: ClipChunk) -> Tensor:
    # invalid clips run, too: a video of one invalid clip would have no memory at all
    logits, _ = model(chunk.clips_RNCTHW.flatten(0, 1))
    return logits.unflatten(0, chunk.valid_RN.shape)


def _read_own(model: VideoModel, flat: Summary, rows: int) -> Tensor:
    return model.read(flat, flat.push).unflatten(0, (rows, -1))


def _knows_order(model: VideoModel) -> bool:
    """A clip's push depends on its place in the video; alone it is the first."""
    return model.memory is not None and model.memory.clip_pos > 0


def _nth(flat: Summary, n: int, clips: int) -> Summary:
    """Summaries of clip n of each row, from those of all clips of all rows."""
    return map_tensors(flat, lambda tensor: tensor[n::clips])


def _without_push(summary: Summary) -> Summary:
    """Only the few numbers that `read` needs: the push of each clip is as large as the whole memory."""
    return Summary(map_tensors(summary.push, lambda t: t[:0]), summary.query_BP.clone(), summary.pooled_BD.clone())


def _joined(parts: list[Tensor]) -> Tensor:
    if not parts:
        raise ValueError("there is no clip to judge")
    return torch.cat(parts, dim=1)
