"""The tar files of packed data sets: written whole or not at all, each with a list of what lies where in it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wholereel.datasets.atomic_files import write_file, write_text_file
from wholereel.errors import DataError
from wholereel.media.byte_ranges import byte_count, open_bytes

__all__ = ["Member", "Place", "finished_shards", "shard_name", "write_shard"]


@dataclass(frozen=True)
class Member:
    """A video and its description on their way into a shard.

    Args:
        key: name in the shard, without a dot. suffix: of the video's name.
        file: the video's bytes. text: the description, JSON.
        temporary: the file is deleted once it is packed.
    """

    key: str
    suffix: str
    file: Path
    text: bytes
    temporary: bool


@dataclass(frozen=True)
class Place:
    """First byte, number of bytes and suffix of a video in its shard."""

    offset: int
    size: int
    suffix: str


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:06d}.tar"


def finished_shards(folder: Path) -> list[list[Place | str]]:
    """Lists of the complete shards of a folder, from the first one to the last without a gap.

    Returns: for each shard, for each file that was to be packed, its place, or the reason why it has none.
    Raises: DataError: a list cannot be read.
    """
    shards: list[list[Place | str]] = []
    while (listed := _list_file(folder, len(shards))).exists():
        try:
            entries = json.loads(listed.read_text(encoding="utf-8"))["files"]
            shards.append([entry if isinstance(entry, str) else Place(*entry) for entry in entries])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(listed, f"cannot be read ({error})", remedy="Delete it: its shard is made anew.") from error
    return shards


def write_shard(folder: Path, number: int, members: Iterator[Member | str], shard_bytes: int) -> list[Place | str]:
    """Take members until the shard is large enough or there are no more.

    The shard's list is written after it; a shard without a list counts as not made.

    Args:
        members: strings are reasons why a file is not there; they are kept in the list.
        shard_bytes: a shard that has reached this size is closed.
    Returns: as in `finished_shards`.
    """
    places: list[Place | str] = []

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for member in members:
                places.append(member if isinstance(member, str) else _add(tar, member))
                if tar.offset >= shard_bytes:
                    return

    write_file(folder / shard_name(number), write)
    entries = [place if isinstance(place, str) else [place.offset, place.size, place.suffix] for place in places]
    write_text_file(_list_file(folder, number), json.dumps({"files": entries}) + "\n")
    return places


def _add(tar: tarfile.TarFile, member: Member) -> Place:
    size = byte_count(member.file)
    with open_bytes(member.file) as file:
        tar.addfile(_header(member.key + member.suffix, size), file)
    offset = tar.offset - _padded(size)
    tar.addfile(_header(f"{member.key}.json", len(member.text)), io.BytesIO(member.text))
    if member.temporary:
        member.file.unlink()
    return Place(offset, size, member.suffix)


def _header(name: str, size: int) -> tarfile.TarInfo:
    """The same for everybody and at any time: equal input gives equal shards."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _list_file(folder: Path, number: int) -> Path:
    return folder / f"{shard_name(number)}.json"
