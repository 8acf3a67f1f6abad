"""Manifests in a bucket or on a server: the list is fetched, the videos stay where they are until they are read."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from wholereel.errors import DataError
from wholereel.media.remote_files import cache_folder, list_remote, local_copy, remote_url

__all__ = ["fetch_annotations"]


def fetch_annotations(root: str | Path, is_annotation: Callable[[str], bool]) -> tuple[Path, Path]:
    """Copy the annotation files of a remote data set.

    Args:
        root: URL of an annotation file, or of a folder that holds some.
        is_annotation: whether a file of this name is to be fetched from a folder; `classes.json` beside a file always
            is.
    Returns: the copy, to be read in the place of `root`, and the remote folder that paths in it are relative to.
    Raises: DataError: there is nothing to read. MissingExtraError: see `local_copy`.
    """
    url = remote_url(root).rstrip("/")
    names = list_remote(url)
    single = Path(url).name in names or not names  # some servers list a file as itself
    folder = url.rsplit("/", 1)[0] if single else url
    wanted = [Path(url).name] if single else [name for name in names if is_annotation(name)]
    if single and "classes.json" in list_remote(folder):
        wanted.append("classes.json")
    if not wanted or wanted == ["classes.json"]:
        raise DataError(
            url,
            "holds no list of videos",
            "manifest.jsonl, annotations.csv, train.csv or the like",
            "Remote folders of classes are not walked: write a list, or pack the data set.",
        )
    copies = {name: Path(local_copy(f"{folder}/{name}")) for name in wanted}
    state = repr([(name, str(copy)) for name, copy in copies.items()])  # a copy's name tells its content's state
    kept = cache_folder() / "remote" / "lists" / hashlib.blake2b(state.encode(), digest_size=16).hexdigest()
    if not kept.exists():
        _gather(copies, kept)
    return (kept / wanted[0] if single else kept), Path(folder)


def _gather(copies: dict[str, Path], kept: Path) -> None:
    """Put files under their own names into one folder, which appears when it is complete."""
    temporary = kept.with_name(f".fetching-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        for name, copy in copies.items():
            shutil.copyfile(copy, temporary / name)
        os.rename(temporary, kept)
    except OSError:
        if not kept.exists():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
