"""Annotation tables with named columns: CSV or TSV with a header, JSON Lines, Parquet.

Columns: `path`, the label columns, and optionally `split`, `start` and `end` in seconds (or `start_s`, `end_s`), `id`
and `frame_rate` (of a folder of pictures); others are ignored. In JSON Lines, `labels` may hold a mapping of label
columns, or the value of the only one, and a line may carry boxes, events, poses and meta (`sample_json.py`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from wholereel.datasets.rows import Row, canonical_split, seconds_or_none
from wholereel.datasets.sample_json import parts_of_record
from wholereel.errors import DataError, import_extra

__all__ = ["TABLES", "column_names", "rows_of_table"]


def _csv_rows(file: Path) -> list[dict[str, Any]]:
    # utf-8-sig: spreadsheet programs put a byte-order mark in front of the first column's name.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
        rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            found = len(row[None]) + len(row) - 1 if None in row else sum(value is not None for value in row.values())
            raise DataError(
                file, f"row {number} has {found} columns", f"{len(reader.fieldnames or ())} as in the header"
            )
    return rows


def _jsonl_rows(file: Path) -> list[dict[str, Any]]:
    rows = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(file, f"line {number} is not JSON ({error.msg})", "one object a line") from error
            if not isinstance(row, dict):
                raise DataError(file, f"line {number} is {type(row).__name__}", "one object a line")
            rows.append(row)
    return rows


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    parquet = import_extra("pyarrow.parquet", extra="parquet", purpose="reading Parquet manifests")
    return parquet.read_table(file).to_pylist()


TABLES: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def rows_of_table(file: Path, labels: Iterable[str]) -> list[Row]:
    """Read a table of a type in `TABLES`.

    Args:
        file: the table; its suffix tells the type.
        labels: columns to keep as labels.
    Raises: DataError: a column or a path is missing, or a line cannot be read.
        MissingExtraError: Parquet without pyarrow.
    """
    columns = tuple(labels)
    try:
        records = [_spread_labels(record, columns) for record in TABLES[file.suffix](file)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"cannot be read ({error})") from error
    known = {name for record in records for name in record}
    for name in ("path", *columns):
        timed = name == "label" and "events" in known  # streams: parts of a video have labels, and it has none
        if records and name not in known and not timed:
            raise _missing_column(file, name, known)
    # Records are given back while rows are made: there may be millions of both.
    records.reverse()
    return [_row(file, f"row {number}", records.pop(), columns) for number in range(1, len(records) + 1)]


def column_names(file: Path) -> list[str]:
    """Columns that the first line of a text table names; empty for other files."""
    if file.suffix not in (".csv", ".tsv", ".jsonl"):
        return []
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix == ".jsonl":
                return list(json.loads(next(lines, "{}")))
            return [
                name.strip() for name in next(csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ","), [])
            ]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error, TypeError):
        return []  # reading the table says what is wrong


def _missing_column(file: Path, name: str, known: set[str]) -> DataError:
    remedy = "Name the columns that hold labels in `data.labels`." if name != "path" else ""
    return DataError(file, f"has no column {name!r}; its columns are {', '.join(sorted(known))}", remedy=remedy)


def _spread_labels(record: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """Write the values of `labels` under the names of the label columns."""
    labels = record.get("labels")
    if "labels" in columns or labels is None:
        return record
    if isinstance(labels, Mapping):
        return {**record, **labels}
    return {**record, columns[0]: labels} if len(columns) == 1 and columns[0] not in record else record


def _row(file: Path, place: str, record: Mapping[str, Any], columns: tuple[str, ...]) -> Row:
    path = record.get("path")
    if not isinstance(path, str) or not path.strip():
        raise DataError(file, f"{place} has no path", "the path of a video in column 'path'")
    start = seconds_or_none(record.get("start", record.get("start_s")), file, place)
    end = seconds_or_none(record.get("end", record.get("end_s")), file, place)
    if end is not None and end <= (start or 0.0):
        raise DataError(file, f"{place} ends at {end} s, before it starts at {start or 0.0} s")
    split, id = record.get("split"), record.get("id")
    # Other tables have columns of their own that may be called like this.
    carried = record if file.suffix == ".jsonl" else {"frame_rate": record.get("frame_rate")}
    return Row(
        path=path.strip(),
        labels={name: record.get(name) for name in columns if name in record or "events" not in record},
        split=canonical_split(str(split)) if split not in (None, "") else None,
        start=start,
        end=end,
        id=str(id) if id not in (None, "") else None,
        place=place,
        parts=parts_of_record(carried, file, place),
    )
