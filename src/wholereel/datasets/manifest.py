"""The manifest: samples, labels and classes, read from any annotation format; the rest of the house reads nothing else.

Formats: a folder of classes; a table (CSV with header, JSON Lines, Parquet); a Kinetics CSV; a PySlowFast list; or a
folder that holds one of these under a usual name. Paths are relative to the annotation file's folder.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_file, write_text_file
from wholereel.datasets.class_folders import rows_of_class_folders
from wholereel.datasets.formats.kinetics import VideoNames, rows_of_kinetics
from wholereel.datasets.formats.pyslowfast import is_list_line, list_text, rows_of_list
from wholereel.datasets.label_columns import LabelColumn, read_classes, read_label_column
from wholereel.datasets.mirror import MIRROR_FILE, Mirror, mirror_text, read_mirror
from wholereel.datasets.remote import fetch_annotations
from wholereel.datasets.rows import Row, canonical_split, is_known_split
from wholereel.datasets.sample import Manifest, Sample
from wholereel.datasets.sample_json import parts_of_sample
from wholereel.datasets.sample_table import SampleTable
from wholereel.datasets.tables import TABLES, column_names, rows_of_table
from wholereel.errors import DataError
from wholereel.media.remote_files import is_remote

__all__ = ["Sample", "Manifest", "label_columns", "read_manifest", "write_manifest"]

WHOLE_FILES = ("manifest.jsonl", "manifest.parquet", "manifest.csv", "annotations.csv", "annotations.jsonl")
LISTS = (".txt", ".list")


def read_manifest(root: str | Path, *, split: str | None = None, labels: Sequence[str] = ("label",)) -> Manifest:
    """Read annotations of any supported format.

    Args:
        root: annotation file, or folder; may be remote (`s3://...`, extra `remote`), then with a list of videos.
        split: keep the samples of this split only; `None` = all.
        labels: label columns, one a label space; may be empty. Formats without named columns have exactly one.
    Raises: DataError: no such file, nothing in it, a column or label that does not fit, an unknown split, or an id that
        occurs twice in a split.
    """
    if is_remote(root):
        fetched, folder = fetch_annotations(root, _is_annotation)
        manifest = read_manifest(fetched, split=split, labels=labels)
        return replace(manifest, samples=SampleTable.of(manifest.samples, manifest.root).moved(folder), root=folder)
    root = Path(root)
    if not root.exists():
        raise DataError(root, "no such file or folder", "an annotation file, or a folder of videos")
    folder = root if root.is_dir() else root.parent
    rows, dropped, by_name = _read_rows(root, tuple(labels))
    if not rows:
        raise DataError(root, "has no samples")
    names = read_classes(folder, labels)
    columns = {name: read_label_column(rows, name, root, names=names.get(name), by_name=by_name) for name in labels}
    multi_label = any(column.multi for column in columns.values())
    kept = _of_split(rows, split, root)
    samples = SampleTable.of((_sample(rows[index], index, folder, columns, multi_label) for index in kept), folder)
    _check_ids(samples, root)
    classes = {name: column.classes for name, column in columns.items()}
    return Manifest(samples, classes, folder, multi_label, tuple(dropped), read_mirror(folder, classes))


def label_columns(root: str | Path) -> tuple[str, ...]:
    """The label columns of a source as far as it tells: those of `classes.json`; else `label`, unless a table lacks it.

    Args:
        root: annotation file, or folder.
    """
    root = Path(root)
    known = read_classes(root if root.is_dir() else root.parent, ("label",))
    if known:
        return tuple(known)
    files = [root] if root.is_file() else _annotation_files(root) if root.is_dir() else []
    names = [name for file in files for name in column_names(file)]
    return ("label",) if not names or {"label", "labels"} & set(names) or "path" not in names else ()


def _read_rows(root: Path, labels: tuple[str, ...]) -> tuple[list[Row], list[str], bool]:
    """Rows, names of dropped videos, and whether labels are names even where they are digits."""
    # Walking a large folder takes minutes and most formats need not: done when first asked for, once for all files.
    names = functools.cache(lambda: VideoNames(root if root.is_dir() else root.parent))
    files = [root] if root.is_file() else _annotation_files(root)
    if not files:
        return rows_of_class_folders(root, _only(labels, root)), [], True
    rows, dropped = [], []
    for file in files:
        rows_of_one, dropped_of_one = _rows_of_file(file, labels, names)
        rows.extend(rows_of_one)
        dropped.extend(dropped_of_one)
    return rows, dropped, False


def _is_annotation(name: str) -> bool:
    """Whether a file of this name belongs to the annotations of a folder."""
    path = Path(name)
    of_split = is_known_split(path.stem) and path.suffix in (*TABLES, *LISTS)
    return name in (*WHOLE_FILES, "classes.json", MIRROR_FILE) or of_split


def _annotation_files(root: Path) -> list[Path]:
    """The annotation file of a folder, or its files named after splits; none in a folder of classes."""
    for name in WHOLE_FILES:
        if (root / name).is_file():
            return [root / name]
    return [
        path
        for path in sorted(root.iterdir())
        if is_known_split(path.stem) and path.suffix in (*TABLES, *LISTS) and path.is_file()
    ]


def _rows_of_file(file: Path, labels: tuple[str, ...], names: Callable[[], VideoNames]) -> tuple[list[Row], list[str]]:
    if file.suffix not in (*TABLES, *LISTS):
        raise DataError(
            file, f"is a {file.suffix or 'file without a suffix'}", f"{', '.join((*TABLES, *LISTS))} or a folder"
        )
    dropped: list[str] = []
    first = _first_line(file) if file.suffix in (".csv", *LISTS) else ""
    header = [name.strip() for name in first.split(",")]
    if file.suffix in LISTS or ("path" not in header and is_list_line(first)):
        rows = rows_of_list(file, _only(labels, file))
    elif "youtube_id" in header:
        rows, dropped = rows_of_kinetics(file, _only(labels, file), names())
    else:
        rows = rows_of_table(file, labels)
    if is_known_split(file.stem):
        split = canonical_split(file.stem)
        rows = [row if row.split is not None else replace(row, split=split) for row in rows]
    return rows, dropped


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            return next((line.strip() for line in lines if line.strip()), "")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"cannot be read ({error})", "text in UTF-8") from error


def _only(labels: tuple[str, ...], source: Path) -> str:
    if len(labels) > 1:
        raise DataError(source, "has one label a sample", f"the {len(labels)} label columns {', '.join(labels)}")
    return labels[0] if labels else "label"


def _of_split(rows: Sequence[Row], split: str | None, source: Path) -> list[int]:
    """Indices of the rows of a split."""
    if split is None:
        return list(range(len(rows)))
    wanted = canonical_split(split)
    kept = [index for index, row in enumerate(rows) if row.split == wanted]
    if not kept:
        counts = Counter(row.split for row in rows)
        known = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=str) if name is not None)
        raise DataError(
            source,
            f"has no samples of split {split!r}",
            f"one of {known}" if known else "",
            "" if known else "It knows no splits; ask for all samples (no split), or add a column 'split'.",
        )
    return kept


def _sample(row: Row, index: int, folder: Path, columns: Mapping[str, LabelColumn], multi_label: bool) -> Sample:
    labels: dict[str, int | tuple[int, ...]] = {}
    for name, column in columns.items():
        indices = column.indices[index]
        if indices is not None:
            labels[name] = indices if multi_label else indices[0]
    part = (
        ""
        if row.start is None and row.end is None
        else f"@{row.start or 0.0:g}-{'' if row.end is None else f'{row.end:g}'}"
    )
    id = row.id or row.path + part
    return Sample(id, folder / row.path, row.start, row.end, row.split, labels, **row.parts)


def _check_ids(samples: SampleTable, source: Path) -> None:
    repeated = samples.repeated_id()
    if repeated is not None:
        split, name, count = repeated
        where = f" of split {split!r}" if split else ""
        raise DataError(source, f"{count} samples{where} have the id {name!r}", "different ids")


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write samples as `.jsonl` or `.csv`, or as a PySlowFast list (`.txt`).

    The first two get the sidecars `classes.json` and, where left and right matter, `mirror.json`.

    Paths inside the file's folder become relative to it. Files appear only when they are complete.
    Raises: ValueError: another suffix, something that a list cannot hold (parts of videos, several labels, splits), or
        something that only `.jsonl` can hold (boxes, events, poses, meta).
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".csv", ".txt"):
        raise ValueError(f"manifests are written as .jsonl, .csv or .txt, got {path.name!r}")
    if path.suffix == ".txt":
        write_text_file(path, list_text(manifest.samples, path.parent))
        return
    records = (_record(sample, manifest, path.parent.absolute().as_posix()) for sample in manifest.samples)
    if path.suffix == ".jsonl":  # line by line: there may be millions
        lines = (json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        write_file(path, lambda file: file.writelines(lines))
    else:
        write_text_file(path, _csv_text(list(records)))
    classes = {name: list(names) for name, names in manifest.classes.items()}
    write_text_file(path.with_name("classes.json"), json.dumps(classes, ensure_ascii=False, indent=1) + "\n")
    mirror = path.with_name(MIRROR_FILE)
    if manifest.mirror == Mirror():
        mirror.unlink(missing_ok=True)  # of an earlier manifest
    else:
        write_text_file(mirror, mirror_text(manifest.mirror, manifest.classes))


def _record(sample: Sample, manifest: Manifest, folder: str) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sample.id, "path": _relative(sample.path, folder), "split": sample.split}
    record |= {"start": sample.start, "end": sample.end}
    for name, label in sample.labels.items():
        classes = manifest.classes[name]
        record[name] = [classes[index] for index in label] if isinstance(label, tuple) else classes[label]
    return record | parts_of_sample(sample)


def _csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for record in records for name in record)), lineterminator="\n"
    )
    writer.writeheader()
    for record in records:
        cells = {name: json.dumps(value) if isinstance(value, list) else value for name, value in record.items()}
        nested = [name for name in ("key_seconds", "boxes", "events", "poses", "meta") if name in record]
        if nested:
            raise ValueError(f"only .jsonl holds {', '.join(nested)}, which sample {record['id']!r} has")
        writer.writerow(cells)
    return text.getvalue()


def _relative(path: Path, folder: str) -> str:
    """The path below a folder, which is given as absolute; else the absolute path."""
    text = path.absolute().as_posix()
    return text.removeprefix(f"{folder.rstrip('/')}/")
