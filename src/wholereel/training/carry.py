"""What strategies carry from step to step, on disk: one file a process and checkpoint, named after the update.

Written before the checkpoint that belongs to it and removed after the next one, so a run killed at any moment finds
the checkpoint and the carries of the same update. Memories of many streams are large, so nobody gathers them.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from wholereel.errors import CheckpointError
from wholereel.models.stream_models import StreamState
from wholereel.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["forget_carries", "load_carry", "save_carry"]


def save_carry(directory: Path, carry: StreamState, *, rank: int, update: int) -> None:
    """Write this process's carry.

    Raises: DataError: the disk refused.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in carry.as_dict().items()}
    save_checkpoint(_file(directory, rank, update), {"update": update, "carry": tensors})


def load_carry(directory: Path, *, rank: int, update: int) -> dict[str, Tensor]:
    """Read what `save_carry` wrote, on the CPU.

    Raises: CheckpointError: it is not there, or of another update.
    """
    file = _file(directory, rank, update)
    content = load_checkpoint(file)
    if content.get("update") != update:
        raise CheckpointError(file, f"the memory of update {content.get('update')}", f"that of update {update}")
    tensors: dict[str, Tensor] = content["carry"]
    return tensors


def forget_carries(directory: Path, *, rank: int, update: int | None) -> None:
    """Remove this process's files of other updates; of all where `None`."""
    kept = None if update is None else _file(directory, rank, update)
    for file in directory.glob(f"carry_*_rank{rank}.pt"):
        if file != kept:
            file.unlink(missing_ok=True)


def _file(directory: Path, rank: int, update: int) -> Path:
    return directory / f"carry_{update}_rank{rank}.pt"
