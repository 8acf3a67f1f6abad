"""The clips of one video over several processes: what they tell each other, so that each judges the whole video.

Derived from the formulas of arXiv 2104.01198: a memory is a sum (or a maximum, or a set) over clips, so partial
memories of processes merge; and what else the loss needs of a clip is small. Every process then computes the same
loss, and goes back through its own clips only.
Not here: which clips a process has (`share_of_clips` in `datasets/batch_samplers.py`), the two passes
(`strategies/exact.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wholereel.batches import map_tensors
from wholereel.errors import DataError
from wholereel.memory.state import CollaborativeState, VideoState
from wholereel.training.distributed import Ranks

__all__ = ["check_same_videos", "fill_gradients", "gather_values", "is_sum", "sum_states", "tensors_in"]

T = TypeVar("T")
ALIGNED = 16  # bytes: every tensor in a message begins at a multiple, so that it can be looked at in its own type


def tensors_in(value: object) -> list[Tensor]:
    """All tensors of a nesting, in its order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found


def is_sum(state: Any) -> bool:
    """Is this memory a plain sum of what clips push? Then a clip's gradient is the sum's, and pushes need not be
    kept."""
    places = state.places if isinstance(state, VideoState) else (state,)
    return all(isinstance(place, CollaborativeState) for place in places)


def sum_states(state: T, ranks: Ranks) -> T:
    """The sum over the processes that share a video of a memory that is a sum; the argument stays as it is."""

    def total(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().clone()
        dist.all_reduce(tensor, group=ranks.clip_group)
        return tensor

    return state if ranks.clip_parallel == 1 else map_tensors(state, total)


def gather_values(own: Sequence[T], ranks: Ranks, device: torch.device) -> list[T]:
    """The values of all processes that share a video, in their order; one's own are the very objects.

    Args:
        own: nestings of tensors, of any shapes and types; not the same ones on all processes.
        device: where messages travel, and where the others' tensors are.
    """
    if ranks.clip_parallel == 1:
        return list(own)
    shapes: list[Any] = [None] * ranks.clip_parallel
    dist.all_gather_object(shapes, [map_tensors(value, _shape) for value in own], group=ranks.clip_group)
    packed = [_bytes(tensor.detach()) for tensor in tensors_in(list(own))]
    lengths = [sum(_aligned(tensor) for tensor in tensors_in(each)) for each in shapes]
    message = torch.cat([*packed, torch.empty(0, dtype=torch.uint8, device=device)])
    message = torch.nn.functional.pad(message, (0, max(lengths) - len(message)))
    received = [torch.empty_like(message) for _ in shapes]
    dist.all_gather(received, message, group=ranks.clip_group)
    values: list[T] = []
    for rank, each in enumerate(shapes):
        values += own if rank == ranks.clip_rank else _unpacked(each, received[rank])
    return values


@torch.no_grad()
def fill_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks, device: torch.device) -> None:
    """Zeros for parameters that have a gradient on another process only: what judges one clip alone, or all of them.

    Afterwards the same parameters have gradients on all processes, as sums over them need it.
    """
    if ranks.clip_parallel == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    has = torch.tensor([parameter.grad is not None for parameter in learning], dtype=torch.uint8, device=device)
    dist.all_reduce(has, dist.ReduceOp.MAX, group=ranks.clip_group)
    for parameter, needed in zip(learning, has.tolist(), strict=True):
        if needed and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def check_same_videos(own: tuple[str, ...], ranks: Ranks) -> None:
    """Compare the videos of a batch before anything about them is exchanged.

    A part of a file that one process alone reads may be broken, and only there another video takes its place.
    Args:
        own: ids of this process's videos.
    Raises: DataError: another process has other videos.
    """
    if ranks.clip_parallel == 1:
        return
    ids: list[Any] = [None] * ranks.clip_parallel
    dist.all_gather_object(ids, own, group=ranks.clip_group)
    for theirs in ids[1:]:
        for a, b in zip(ids[0], theirs, strict=True):
            if a != b:
                raise DataError(
                    f"{a} / {b}",
                    "processes that share the clips of a video have different videos: one of the files is broken in "
                    "the part that one of them reads",
                    "the same video on all of them",
                    "Run `wholereel data check`, and repair or remove the file.",
                )


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor.contiguous().flatten().view(torch.uint8)
    return torch.nn.functional.pad(flat, (0, _aligned(tensor) - len(flat)))


def _unpacked(shapes: list[T], message: Tensor) -> list[T]:
    begin = 0

    def take(shape: Tensor) -> Tensor:
        nonlocal begin
        part = message[begin : begin + shape.numel() * shape.element_size()]
        begin += _aligned(shape)
        return part.view(shape.dtype).view(shape.shape)

    return map_tensors(shapes, take)
