"""Training checkpoints: one file, replaced in one step, that holds all that a run needs in order to go on.

Not here: model packages (`models/package.py`), which hold what users of a trained model need.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from wholereel.errors import CheckpointError, DataError

__all__ = ["FORMAT", "load_checkpoint", "save_checkpoint"]

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write to a file beside it, force it to the disk, then take the place of the old one.

    Killed at any moment, the path holds the old checkpoint or the new one, whole.

    Args:
        content: nested dicts and lists of tensors, numbers and strings (all that `weights_only` loading allows).
    Raises: DataError: the disk refused (full, read-only); the old checkpoint is untouched.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_directory(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        beside.unlink(missing_ok=True)
        raise DataError(
            path, f"the checkpoint could not be written ({error})", remedy="Free some space, then resume the run."
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in it can run code.

    Raises: CheckpointError: no such file, not a checkpoint, or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such checkpoint", remedy="Start the run without resuming.") from error
    except Exception as error:  # the unpickler raises whatever the bytes make it stumble over, KeyError among others
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            path, f"cannot be read ({reason})", "a training checkpoint", "Delete it to start anew."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(path, f"checkpoint format {found}", f"format {FORMAT}")
    return content


def _sync_directory(path: Path) -> None:
    """The new name, too, must survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
