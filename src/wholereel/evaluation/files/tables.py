"""Columns of a CSV file with a header."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from wholereel.errors import DataError

__all__ = ["integers", "read_columns"]

T = TypeVar("T")


def read_columns(path: str | Path, names: Sequence[str]) -> list[list[str]]:
    """The named columns, each as a list of texts.

    Raises: DataError: a column that is missing, a row that is too short, or no rows.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(path, f"no column {missing[0]!r}", f"the columns {', '.join(names)}")
        columns: list[list[str]] = [[] for _ in names]
        for row in reader:
            for column, name in zip(columns, names, strict=True):
                if row[name] is None:
                    raise DataError(path, f"line {reader.line_num} ends before {name!r}", "as many cells as the header")
                column.append(row[name])
    if not columns[0]:
        raise DataError(path, "no rows below the header", "at least one")
    return columns


def integers(path: str | Path, name: str, texts: Sequence[str], *, of: Callable[[str], int] = int) -> list[int]:
    """A column as whole numbers. Raises: DataError: naming the first cell that is none."""
    numbers = []
    for row, text in enumerate(texts, start=1):
        try:
            numbers.append(of(text))
        except ValueError:
            raise DataError(path, f"{text!r} in row {row} of column {name!r}", "a whole number") from None
    return numbers
