"""Files that appear only when they are complete, so that a killed process leaves none that looks finished."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["write_file", "write_text_file"]


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file under another name beside `path`, then move it there; nothing stays if it fails."""
    temporary = path.with_name(f".writing-{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text_file(path: Path, text: str) -> None:
    """Write text in UTF-8, see `write_file`."""
    write_file(path, lambda file: file.write(text.encode()))
