"""Files in a bucket or on a server, by fsspec: fetched once, kept in a folder of this machine, and read from there.

Paths look like `s3://bucket/films/a.mp4`, `gs://...`, `hf://datasets/...`. A file inside a tar shard
(`s3://bucket/shard-000000.tar#OFFSET+SIZE.mp4`) is fetched alone. `pathlib` turns `//` into `/`; both are understood.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

from wholereel.errors import MissingExtraError, VideoError, import_extra
from wholereel.media.byte_ranges import remote_range

__all__ = ["cache_folder", "is_remote", "list_remote", "local_copy", "remote_url"]

SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")


def is_remote(path: str | Path) -> bool:
    """Whether a path names something that is not on this machine."""
    return SCHEME.match(str(path)) is not None


def remote_url(path: str | Path) -> str:
    """A remote path with both slashes behind its scheme."""
    return SCHEME.sub(r"\1://", str(path), count=1)


def cache_folder() -> Path:
    """Where fetched files are kept: `WHOLEREEL_CACHE`, or the usual cache folder. It may be deleted at any time."""
    chosen = os.environ.get("WHOLEREEL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wholereel"


def local_copy(path: str | Path) -> str | Path:
    """A file of this machine with the content of `path`; `path` itself if it is local.

    What was fetched before is not fetched again, unless it has changed on the server. Whether it has is asked once by
    each process.

    Raises: VideoError: it cannot be fetched. MissingExtraError: fsspec, or what it needs for this scheme, is missing.
    """
    if not is_remote(path):
        return path
    url, offset, size = remote_range(remote_url(path))
    name = hashlib.blake2b(repr((url, _state(url), offset, size)).encode(), digest_size=16).hexdigest()
    kept = cache_folder() / "remote" / name[:2] / f"{name}{Path(path).suffix}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, kept, offset, size)
    return kept


def list_remote(folder: str | Path) -> list[str]:
    """Names in a remote folder, sorted; empty where there is no such folder.

    Raises: as `local_copy`.
    """
    url = remote_url(folder).rstrip("/")
    system, place = _system(url)
    try:
        return sorted(Path(entry).name for entry in system.ls(place, detail=False) if Path(entry).name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # every server has its own
        raise _unreachable(url, error) from error


def _fetch(url: str, kept: Path, offset: int, size: int | None) -> None:
    """Write the file under another name and move it: other processes may want it, too."""
    system, place = _system(url)
    temporary = kept.with_name(f".fetching-{secrets.token_hex(4)}")
    try:
        if size is None:
            system.get_file(place, str(temporary))
        else:
            temporary.write_bytes(system.cat_file(place, start=offset, end=offset + size))
        os.replace(temporary, kept)
    except Exception as error:  # every server has its own
        raise _unreachable(url, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@functools.lru_cache(maxsize=2**16)
def _state(url: str) -> str:
    """Something that changes when the file does."""
    system, place = _system(url)
    try:
        return str(system.ukey(place))
    except FileNotFoundError as error:
        raise VideoError(
            url, "no such file", "", "Check the path, and whether the annotation file fits this copy of the data."
        ) from error
    except Exception as error:  # every server has its own
        raise _unreachable(url, error) from error


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the place in it."""
    fsspec = import_extra("fsspec", extra="remote", purpose="reading remote files")
    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(
            f"reading {url.split(':')[0]}:// needs another package ({error}). "
            "Install it with: pip install 'wholereel[remote]'"
        ) from error
    except ValueError as error:
        raise VideoError(url, f"cannot be reached ({error})", "s3://, gs://, hf:// or another of fsspec's") from error
    return system, place


def _unreachable(url: str, error: Exception) -> VideoError:
    found = f"cannot be fetched ({type(error).__name__}: {error})"
    return VideoError(url, found, "", "Check the address, the network and your rights.")
