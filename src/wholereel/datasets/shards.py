"""Tar shards: a data set in a few large files that any file system and any bucket serves well.

`KEY.mp4` and `KEY.json` follow each other, as WebDataset expects; our own readers open a video inside its shard,
without unpacking, by its place there (`shard-000000.tar#OFFSET+SIZE.mp4`, see `media/byte_ranges.py`), which the
manifest beside the shards holds. Not here: encoding (`shard_encode.py`), the tar files themselves (`shard_files.py`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.batch_samplers import seeded_generator
from wholereel.datasets.manifest import write_manifest
from wholereel.datasets.pose_scaling import scaled_poses
from wholereel.datasets.sample import Manifest, Sample
from wholereel.datasets.sample_json import parts_of_sample
from wholereel.datasets.sample_table import SampleTable
from wholereel.datasets.shard_encode import Encoding, encode_anew, is_sound_only
from wholereel.datasets.shard_files import Member, Place, finished_shards, shard_name, write_shard
from wholereel.errors import DataError, VideoError
from wholereel.media.byte_ranges import open_bytes, range_path
from wholereel.media.frame_folder import PICTURE_SUFFIXES, open_frames

__all__ = ["Packed", "Unpackable", "pack"]

SETTINGS = "pack.json"


@dataclass(frozen=True)
class Unpackable:
    """A file that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Packed:
    """What `pack` has made.

    Args:
        manifest: the file that lists the packed samples.
        files, samples: how many were packed. of_samples: how many the source has.
        shards: how many there are. resumed: how many of them an earlier call had made.
        bytes: of all shards.
        unpackable: files left out, with their samples.
    """

    manifest: Path
    files: int
    samples: int
    of_samples: int
    shards: int
    resumed: int
    bytes: int
    unpackable: tuple[Unpackable, ...]


@dataclass(frozen=True)
class _Source:
    """A file to be packed, with the numbers of its samples; its key in the shards is its number."""

    number: int
    path: Path
    samples: list[int]


def pack(
    manifest: Manifest,
    out: Path,
    *,
    encoding: Encoding | None = None,
    shard_bytes: int = 2**30,
    seed: int | None = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Packed:
    """Write the files of a manifest into tar shards, with a manifest that reads them there.

    The result does not depend on `workers`, nor on being stopped and called again: complete shards are kept, a shard
    appears only when it is complete, and the manifest last. Files that cannot be read are left out and listed.

    Args:
        manifest: what to pack; a file that several samples are parts of is packed once.
        out: a folder, made where it does not exist.
        encoding: how to encode videos anew; `None` = copy the files byte for byte. Files of sound alone are copied.
        shard_bytes: a shard that has reached this size is closed.
        seed: of the order in which files are dealt to shards, so that reading shard by shard mixes classes; `None` =
            the manifest's order.
        workers: files that are encoded at the same time.
        progress: called with files done and files in all.
    Returns: counts, and what was left out.
    Raises: DataError: the folder holds shards of other settings, or pictures are to be copied. ValueError: shard_bytes
        or workers below 1.
    """
    if min(shard_bytes, workers) < 1:
        raise ValueError(f"shard_bytes and workers must be at least 1, got {shard_bytes} and {workers}")
    sources = _sources(manifest, seed)
    if encoding is None:
        _check_copyable(sources)
    out.mkdir(parents=True, exist_ok=True)
    _check_settings(out, manifest, encoding, shard_bytes, seed)
    shards = finished_shards(out)
    resumed = len(shards)
    scratch = out / f".encoding-{secrets.token_hex(4)}"
    scratch.mkdir()
    try:
        with ThreadPoolExecutor(workers) as pool:
            rest = sources[sum(map(len, shards)) :]
            made = _in_order(pool, lambda source: _member(source, manifest, scratch, encoding), rest, ahead=2 * workers)
            while sum(map(len, shards)) < len(sources):
                done = sum(map(len, shards))
                told = _told(made, progress, done, len(sources))
                shards.append(write_shard(out, len(shards), told, shard_bytes))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _finish(manifest, out, sources, shards, resumed)


def _sources(manifest: Manifest, seed: int | None) -> list[_Source]:
    by_path: dict[Path, list[int]] = {}
    for number, sample in enumerate(manifest.samples):
        by_path.setdefault(sample.path, []).append(number)
    files = list(by_path.items())
    if seed is not None:
        files = [files[n] for n in torch.randperm(len(files), generator=seeded_generator(seed)).tolist()]
    return [_Source(number, path, samples) for number, (path, samples) in enumerate(files)]


def _check_copyable(sources: Sequence[_Source]) -> None:
    for source in sources:
        if source.path.suffix.lower() in PICTURE_SUFFIXES or source.path.is_dir():
            raise DataError(
                source.path,
                "is a picture or a folder of pictures, which cannot be copied as one video",
                "video files",
                "Encode them: give a GOP or a short side.",
            )


def _check_settings(
    out: Path, manifest: Manifest, encoding: Encoding | None, shard_bytes: int, seed: int | None
) -> None:
    """Write down what makes the shards what they are, or compare it with what an earlier call wrote."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in manifest.samples:
        digest.update(repr((sample.id, str(sample.path), sample.split)).encode())
    settings: dict[str, Any] = {
        "samples": digest.hexdigest(),
        "encoding": None if encoding is None else asdict(encoding),
        "shard_bytes": shard_bytes,
        "seed": seed,
    }
    file = out / SETTINGS
    if not file.exists():
        write_text_file(file, json.dumps(settings, indent=1) + "\n")
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    changed = [name for name in settings if found.get(name) != settings[name]]
    if changed:
        raise DataError(
            file,
            f"the folder holds shards that were made with other {' and '.join(changed)}",
            "the same, to go on with them",
            "Choose another folder, or delete this one.",
        )


def _member(source: _Source, manifest: Manifest, scratch: Path, encoding: Encoding | None) -> Member | str:
    """What goes into a shard, or why a file cannot."""
    path, key = source.path, f"{source.number:08d}"
    samples = [manifest.samples[number] for number in source.samples]
    about = {"path": _name(path, manifest), "samples": [_record(sample, manifest) for sample in samples]}
    text = json.dumps(about, ensure_ascii=False).encode()
    try:
        if encoding is None or is_sound_only(path):
            with open_bytes(path) as file:
                if not file.read(1):
                    return "is empty (0 bytes)"
            return Member(key, path.suffix.lower() or ".mp4", path, text, temporary=False)
        target = scratch / f"{key}.mp4"
        encode_anew(path, target, encoding, frame_rate=samples[0].frame_rate)
        if any(sample.poses for sample in samples):
            about["samples"] = [_record(_fitted(sample, target), manifest) for sample in samples]
            text = json.dumps(about, ensure_ascii=False).encode()
        return Member(key, ".mp4", target, text, temporary=True)
    except VideoError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return str(error.strerror or error)


def _name(path: Path, manifest: Manifest) -> str:
    return path.relative_to(manifest.root).as_posix() if path.is_relative_to(manifest.root) else path.as_posix()


def _record(sample: Sample, manifest: Manifest) -> dict[str, Any]:
    """A sample for readers other than ours: labels as indices and as names."""
    record = {"id": sample.id, "split": sample.split, "start": sample.start, "end": sample.end}
    names = {
        column: [manifest.classes[column][index] for index in label]
        if isinstance(label, tuple)
        else manifest.classes[column][label]
        for column, label in sample.labels.items()
    }
    return record | {"labels": dict(sample.labels), "names": names} | parts_of_sample(sample)


def _fitted(sample: Sample, packed: Path) -> Sample:
    """The sample with its poses, which are in pixels, as they are in the packed file."""
    if not sample.poses:
        return sample
    with open_frames(sample.path, frame_rate=sample.frame_rate) as old, open_frames(packed) as new:
        before, after = old.metadata, new.metadata
    return scaled_poses(sample, after.width / before.width, after.height / before.height)


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[_Source], Member | str], sources: Iterable[_Source], ahead: int
) -> Iterator[Member | str]:
    """Results in the order of the sources, with no more than `ahead` of them waiting."""
    left = iter(sources)
    running: deque[Future[Member | str]] = deque(pool.submit(make, source) for source in islice(left, ahead))
    try:
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(make, source) for source in islice(left, 1))
            yield result
    finally:
        for future in running:
            future.cancel()


def _told(
    made: Iterator[Member | str], progress: Callable[[int, int], None], done: int, of: int
) -> Iterator[Member | str]:
    for number, member in enumerate(made, start=done + 1):
        progress(number, of)
        yield member


def _finish(
    manifest: Manifest, out: Path, sources: Sequence[_Source], shards: Sequence[Sequence[Place | str]], resumed: int
) -> Packed:
    """Write the manifest: samples in the source's order, at their places in the shards."""
    where: dict[int, Path] = {}
    unpackable, files = [], 0
    placed = [(number, place) for number, shard in enumerate(shards) for place in shard]
    for source, (shard, place) in zip(sources, placed, strict=True):
        if isinstance(place, str):
            unpackable.append(Unpackable(source.path, place))
            continue
        files += 1
        path = Path(range_path(out / shard_name(shard), place.offset, place.size, place.suffix))
        where.update(dict.fromkeys(source.samples, path))
    kept = (
        replace(_fitted(sample, where[number]), path=where[number], frame_rate=None)
        for number, sample in enumerate(manifest.samples)
        if number in where
    )
    samples = SampleTable.of(kept, out)
    target = out / "manifest.jsonl"
    write_manifest(Manifest(samples, manifest.classes, out, manifest.multi_label, mirror=manifest.mirror), target)
    return Packed(
        manifest=target,
        files=files,
        samples=len(samples),
        of_samples=len(manifest.samples),
        shards=len(shards),
        resumed=resumed,
        bytes=sum((out / shard_name(number)).stat().st_size for number in range(len(shards))),
        unpackable=tuple(unpackable),
    )
