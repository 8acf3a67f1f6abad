"""A media file that lies inside another file, as in a tar shard: `shard-000.tar#OFFSET+SIZE.mp4` is read in place.

The one place that knows this notation. FFmpeg reads such parts with its own protocol `subfile`; our own readers of
headers use `open_bytes`.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["av_url", "byte_count", "containing_file", "open_bytes", "range_path", "remote_range"]

RANGE = re.compile(r"(?P<file>.+)#(?P<offset>\d+)\+(?P<size>\d+)(?P<suffix>\.\w+)?", re.DOTALL)


def range_path(file: str | Path, offset: int, size: int, suffix: str = "") -> str:
    """The notation for `size` bytes of a file, from byte `offset` on; `suffix` (`.mp4`) tells what they are."""
    if offset < 0 or size < 0:
        raise ValueError(f"{size} bytes from {offset} on are no part of a file")
    return f"{file}#{offset}+{size}{suffix}"


def containing_file(path: str | Path) -> Path:
    """The file on disk: `path` itself, or the one that it is a part of."""
    file, _, _ = _split(path)
    return Path(file)


def byte_count(path: str | Path) -> int:
    """Bytes of a file, or of a part of one as far as the file holds it.

    Raises: OSError: no such file.
    """
    file, offset, size = _split(path)
    whole = os.path.getsize(file)
    return whole if size is None else max(0, min(size, whole - offset))


def open_bytes(path: str | Path) -> BinaryIO:
    """Open a file, or a part of one, for reading.

    Raises: OSError: no such file.
    """
    file, offset, size = _split(path)
    opened = open(file, "rb")  # noqa: SIM115  the caller closes it
    return opened if size is None else cast(BinaryIO, io.BufferedReader(_Part(opened, offset, byte_count(path))))


def av_url(path: str | Path) -> str:
    """What FFmpeg opens."""
    file, offset, size = _split(path)
    if size is None:
        return str(path)
    return f"subfile,,start,{offset},end,{offset + size},,:{os.path.abspath(file)}"


def remote_range(url: str) -> tuple[str, int, int | None]:
    """A URL without its byte range, the first byte and the number of bytes (`None` = all)."""
    found = RANGE.fullmatch(url)
    return (url, 0, None) if found is None else (found["file"], int(found["offset"]), int(found["size"]))


def _split(path: str | Path) -> tuple[str, int, int | None]:
    found = RANGE.fullmatch(str(path))
    # A file may really have such a name.
    if found is None or os.path.exists(str(path)):
        return str(path), 0, None
    return found["file"], int(found["offset"]), int(found["size"])


class _Part(io.RawIOBase):
    """Bytes `offset` to `offset + size` of an open file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + position)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
