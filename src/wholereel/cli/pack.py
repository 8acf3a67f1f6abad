"""`wholereel data pack`: a data set in tar shards, as it is or encoded anew for reading clips."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

__all__ = ["pack"]

MEGABYTE = 10**6


def pack(
    path: Annotated[Path, arg(metavar="MANIFEST")],
    out: Annotated[Path, arg(metavar="OUT")],
    /,
    short_side: Annotated[int | None, arg(metavar="PIXELS")] = None,
    gop: Annotated[int | None, arg(metavar="FRAMES")] = None,
    crf: Annotated[int, arg(metavar="0-51")] = 20,
    shard_size: Annotated[int, arg(metavar="MB")] = 1000,
    split: Annotated[str | None, arg(metavar="NAME")] = None,
    labels: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ("label",),
    workers: Annotated[int, arg(metavar="N")] = 2,
) -> int:
    """Pack a data set into tar shards that are read in place, here and by WebDataset.

    Files are copied byte for byte, unless --short-side or --gop asks for encoding them anew. A call that was stopped
    goes on where it was when it is given again. Exit code 1 where files had to be left out; bad_files.tsv lists them.

    Args:
        path: Folder of classes or list of videos, see `wholereel data formats`.
        out: Folder for the shards and their manifest; it is a data set like any other.
        short_side: Encode anew with this shorter side (smaller videos keep theirs).
        gop: Encode anew with a key frame every so many frames (12 where only the short side is given).
        crf: Quality of the new encoding, 0 = lossless.
        shard_size: A shard that has reached this size in megabytes (10^6 bytes) is closed.
        split: Pack only this split.
        labels: Label columns.
        workers: Files that are encoded at the same time.
    """
    from wholereel.datasets.atomic_files import write_text_file
    from wholereel.datasets.manifest import read_manifest
    from wholereel.datasets.shard_encode import Encoding
    from wholereel.datasets.shards import pack as pack_manifest
    from wholereel.errors import ConfigError

    try:
        encoding = None if short_side is None and gop is None else Encoding(short_side, 12 if gop is None else gop, crf)
        if shard_size < 1 or workers < 1:
            raise ValueError(f"shard size and workers must be at least 1, got {shard_size} and {workers}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    manifest = read_manifest(path, split=split, labels=labels)
    packed = pack_manifest(
        manifest,
        out,
        encoding=encoding,
        shard_bytes=shard_size * MEGABYTE,
        workers=workers,
        progress=_progress if sys.stderr.isatty() else lambda done, of: None,
    )
    resumed = f", {packed.resumed} of them from before" if packed.resumed else ""
    print(f"{packed.samples} of {packed.of_samples} samples in {packed.files} files")
    print(f"{packed.shards} shards{resumed}, {packed.bytes / MEGABYTE:.1f} MB")
    print(f"manifest: {packed.manifest}")
    if not packed.unpackable:
        return 0
    lines = [f"{bad.path}\t{' '.join(bad.reason.split())}\n" for bad in packed.unpackable]
    write_text_file(out / "bad_files.tsv", "path\treason\n" + "".join(lines))
    print(f"{len(packed.unpackable)} files were left out, listed in {out / 'bad_files.tsv'}")
    return 1


def _progress(done: int, of: int) -> None:
    print(f"\r{done} of {of} files", end="\n" if done == of else "", file=sys.stderr, flush=True)
