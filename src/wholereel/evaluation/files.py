"""Text files that appear only when they are complete."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["write_text"]


def write_text(path: Path, words: str) -> Path:
    """Write a UTF-8 text file in one piece: a reader (or a killed job) never sees half of it. Folders are made.

    Returns: the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".writing-{secrets.token_hex(4)}-{path.name}")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(words)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
