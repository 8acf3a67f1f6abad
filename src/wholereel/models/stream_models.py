"""Models that read a video clip by clip: `prediction, state = model(clip_BCTHW, state)`, with a state that is reset by
rows.

Two kinds do: MeMViT, whose layers cache, and `VideoModel`, whose collaborative memory is then read causally (a clip
sees itself and what came before); without memory its state is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wholereel.memory.state import VideoState
from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_state import MemvitState
from wholereel.models.video_model import VideoModel

__all__ = [
    "StreamModel",
    "StreamState",
    "head_dropout",
    "head_parameters",
    "init_stream_state",
    "memory_parameters",
    "stream_state",
]

StreamModel = VideoModel | MeMViT
StreamState = VideoState | MemvitState


def init_stream_state(
    model: StreamModel, rows: int, size: tuple[int, int] | None = None, device: torch.device | str | None = None
) -> StreamState:
    """The memory of B videos of which nothing has been seen.

    Args:
        size: height and width of the clips to come; those of the training crop where `None`.
        device: the model's where `None`.
    Raises: ValueError: a memory that grows with every clip.
    """
    if isinstance(model, MeMViT):
        return model.init_state(rows, size=size, device=device)
    if model.memory is not None and model.memory.interaction.startswith("nl_"):
        raise ValueError(f"streams need a memory of fixed size; interaction {model.memory.interaction!r} has none")
    return model.init_state(rows, device=next(model.parameters()).device if device is None else device)


def stream_state(model: StreamModel, tensors: Mapping[str, Tensor]) -> StreamState:
    """The inverse of the state's `as_dict`.

    Raises: ValueError: the names are not those of this model's state.
    """
    return MemvitState.from_dict(tensors) if isinstance(model, MeMViT) else VideoState.from_dict(tensors)


def head_dropout(model: StreamModel) -> nn.Dropout:
    """The dropout in front of the classifier."""
    return model.head.dropout if isinstance(model, MeMViT) else model.clip_model.dropout


def head_parameters(model: StreamModel) -> Iterable[nn.Parameter]:
    """Those of the classifier."""
    clip_model = model if isinstance(model, MeMViT) else model.clip_model
    return clip_model.get_submodule(clip_model.classifier).parameters()


def memory_parameters(model: StreamModel) -> Iterable[nn.Parameter]:
    """Those that only a memory needs: blocks of collaborative memory; compressions and tables of MeMViT."""
    if isinstance(model, VideoModel):
        return model.memories.parameters()
    return [p for name, p in model.named_parameters() if "compress_" in name or "rel_pos_mem_" in name]
