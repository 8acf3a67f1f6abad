"""From the official files of a data set to a manifest of what one has: missing files are left out and counted.

Written are `manifest.jsonl`, `classes.json`, `prepared.json` (options, SHA-256 of the sources, counts, facts) and, if
something is missing, `missing_files.txt`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.manifest import write_manifest
from wholereel.datasets.sample import Manifest
from wholereel.datasets.sample_table import SampleTable
from wholereel.errors import DataError

__all__ = ["Counts", "Prepared", "evaluated_classes", "prepare", "prepared_as", "write_prepared"]


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
    root = annotations.root
    table = SampleTable.of(annotations.samples, root)
    if not table:
        raise DataError(root, "lists no samples")
    repeated = table.repeated_id()
    if repeated is not None:
        split, id, most = repeated
        raise DataError(root, f"{most} samples of split {split!r} have the id {id!r}", "different ids")
    places: list[int] = []
    missing: dict[Path, None] = {}
    folders = _Folders()
    for place, sample in enumerate(table):
        if folders.hold(sample.path):
            places.append(place)
        else:
            missing[sample.path] = None
    if not places:
        first = next(iter(missing))
        raise DataError(root, f"not one of the {len(missing)} files that it lists was found, e.g. {first}")
    kept = table.take(places)
    found = kept.split_counts()
    counts = {name or "all": Counts(number, found.get(name, 0)) for name, number in table.split_counts().items()}
    names = tuple(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in missing)
    manifest = Manifest(kept, annotations.classes, root, annotations.multi_label, names, annotations.mirror)
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
    missing = folder / "missing_files.txt"
    if prepared.manifest.dropped:
        write_text_file(missing, "".join(f"{name}\n" for name in prepared.manifest.dropped))
    else:
        missing.unlink(missing_ok=True)  # of an earlier run
    return folder / "manifest.jsonl"


def prepared_as(folder: Path) -> dict[str, Any] | None:
    """Name and options under which a data set's folder was prepared; `None` where it was not."""
    try:
        record = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        return {"name": str(record["name"]), "options": dict(record["options"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evaluated_classes(root: Path, label: str, classes: int) -> list[int]:
    """Indices of the classes that count, as noted in `prepared.json` beside a manifest (60 of AVA's 80); else all.

    Args:
        root: the manifest, or its folder.
        label: the column that is evaluated; the notes are about "label". classes: that it has.
    """
    file = (root if root.is_dir() else root.parent) / "prepared.json"
    if label != "label" or not file.is_file():
        return list(range(classes))
    facts: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")).get("facts", {})
    return [int(index) for index in facts.get("evaluated", range(classes))]


class _Folders:
    """Which files exist; each folder is listed once, which is much faster than asking for each file."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def hold(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return name in self._names[folder]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
