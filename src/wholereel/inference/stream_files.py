"""States of streams on disk: tensors and settings in one safetensors file, replaced in one step.

Not here: what is in them (`stream_track.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wholereel.errors import CheckpointError

__all__ = ["read_state", "write_state"]

KEY = "wholereel.stream"


def write_state(path: str | Path, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a state; a kill leaves the old file or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    # clones: safetensors refuses tensors that share storage
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, temporary, metadata={KEY: json.dumps(settings)})
    temporary.replace(path)


def read_state(path: str | Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state that was saved with these settings.

    Raises: CheckpointError: not such a file, or of other settings.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", "the state of a stream") from error
    if stored is None:
        raise CheckpointError(path, "is not the state of a stream", "a file that a stream has saved")
    wanted = json.loads(json.dumps(settings))
    if stored != wanted:
        names = sorted(name for name in {*stored, *wanted} if stored.get(name) != wanted.get(name))
        raise CheckpointError(
            path,
            "was saved by a stream of " + ", ".join(f"{name}={stored.get(name)!r}" for name in names),
            "one of " + ", ".join(f"{name}={wanted.get(name)!r}" for name in names),
            "Open the stream with the settings that it was saved with.",
        )
    return tensors
