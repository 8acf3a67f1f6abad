"""From the official files of a data set to a manifest of what one has: missing files are left out and counted.

Written are `manifest.jsonl`, `classes.json` and `prepared.json` (options, SHA-256 of the sources, counts, facts).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.manifest import write_manifest
from wholereel.datasets.sample import Manifest
from wholereel.errors import DataError

__all__ = ["Counts", "Prepared", "prepare", "write_prepared"]


@dataclass(frozen=True)
class Counts:
    """Samples of one split.

    Args:
        expected: that the official files list.
        found: whose file exists.
    """

    expected: int
    found: int

    @property
    def dropped(self) -> int:
        """Listed, but not there."""
        return self.expected - self.found


@dataclass(frozen=True)
class Prepared:
    """A data set as one has it.

    Args:
        manifest: samples whose files exist; `dropped` names the files that do not.
        counts: by split, in the order of the source.
        sources: SHA-256 by the name of the file, relative to the data set's folder.
        facts: see `Annotations`.
    """

    manifest: Manifest
    counts: Mapping[str, Counts]
    sources: Mapping[str, str]
    facts: Mapping[str, Any]


def prepare(annotations: Annotations) -> Prepared:
    """Leave out samples whose files do not exist.

    Raises: DataError: two samples of a split have the same id, nothing is listed, or not one file was found.
    """
    samples = annotations.samples
    if not samples:
        raise DataError(annotations.root, "lists no samples")
    (split, id), most = Counter((sample.split, sample.id) for sample in samples).most_common(1)[0]
    if most > 1:
        raise DataError(annotations.root, f"{most} samples of split {split!r} have the id {id!r}", "different ids")
    present = _present({sample.path for sample in samples})
    kept = tuple(sample for sample in samples if sample.path in present)
    root = annotations.root
    missing = dict.fromkeys(sample.path for sample in samples if sample.path not in present)
    if not kept:
        first = next(iter(missing))
        raise DataError(root, f"not one of the {len(missing)} files that it lists was found, e.g. {first}")
    expected = Counter(sample.split or "all" for sample in samples)
    found = Counter(sample.split or "all" for sample in kept)
    counts = {name: Counts(number, found[name]) for name, number in expected.items()}
    names = tuple(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in missing)
    manifest = Manifest(kept, annotations.classes, root, annotations.multi_label, names)
    sources = {os.path.relpath(file, root): _sha256(file) for file in annotations.sources}
    return Prepared(manifest, counts, sources, annotations.facts)


def write_prepared(prepared: Prepared, name: str, options: Mapping[str, Any], folder: Path) -> Path:
    """Write the manifest and its companions; returns the manifest's path.

    Args:
        prepared: what to write.
        name, options: how it was read, for the record.
        folder: made where it does not exist; paths in it become relative to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(prepared.manifest, folder / "manifest.jsonl")
    record = {
        "name": name,
        "options": dict(options),
        "sources": dict(prepared.sources),
        "counts": {
            split: {"expected": counts.expected, "found": counts.found, "dropped": counts.dropped}
            for split, counts in prepared.counts.items()
        },
        "facts": dict(prepared.facts),
    }
    write_text_file(folder / "prepared.json", json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return folder / "manifest.jsonl"


def _present(paths: Iterable[Path]) -> set[Path]:
    """Those that exist; each folder is listed once, which is much faster than asking for each file."""
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    found: set[Path] = set()
    for folder, wanted in by_folder.items():
        try:
            names = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.update(path for path in wanted if path.name in names)
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
