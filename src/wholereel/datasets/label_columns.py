"""From the raw values of a label column to class indices and class names.

A value is a name, a class index, or several of them: a list, a JSON list as text, or text separated by `;` or `|`. One
list in a column makes the whole column multi-label. Classes are the entries of the sidecar `classes.json`; without one,
names are sorted (folders called 1, 2, 10 by number) and indices stand for themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholereel.datasets.rows import Row
from wholereel.errors import DataError

__all__ = ["LabelColumn", "read_classes", "read_label_column"]

SEPARATOR = re.compile(r"\s*[;|]\s*")
# A column of ids that was taken for a label column shall not become millions of classes.
MOST_CLASSES = 100_000


@dataclass(frozen=True)
class LabelColumn:
    """A label column as class indices.

    Args:
        classes: names by index.
        indices: one tuple a row; exactly one index in it unless `multi`. `None` where a row has no such label.
        multi: several labels a row (or none) are possible.
    """

    classes: tuple[str, ...]
    indices: tuple[tuple[int, ...] | None, ...]
    multi: bool


def read_classes(folder: Path, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Class names by label column from `classes.json`; empty where there is no such file.

    The file holds a list of names (for a single label column), a mapping from column to such a list, or from name to
    index.
    Raises: DataError: it holds something else.
    """
    file = folder / "classes.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(file, f"is not JSON ({error})") from error
    if isinstance(content, dict) and content and all(type(index) is int for index in content.values()):
        if sorted(content.values()) != list(range(len(content))):
            raise DataError(file, "indices have gaps or repeat", f"0..{len(content) - 1}, each once")
        content = sorted(content, key=content.__getitem__)
    if isinstance(content, list):
        content = dict.fromkeys(columns[:1], content)
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise DataError(file, f"holds {type(content).__name__}", "a list of class names, or one for each label column")
    for column, names in content.items():
        if len(set(map(str, names))) != len(names):
            raise DataError(file, f"a class of {column!r} is listed twice", "different names")
    return {column: tuple(map(str, names)) for column, names in content.items()}


def read_label_column(
    rows: Sequence[Row], column: str, file: Path, *, names: tuple[str, ...] | None = None, by_name: bool = False
) -> LabelColumn:
    """Turn a column's values into class indices.

    Args:
        rows: all rows of the source, of every split, so that all splits agree on the classes.
        column: its name. Rows that don't have it at all have no label (test sets).
        file: source, for messages.
        names: class names by index where they are known.
        by_name: digits are names too (folders), not indices.
    Raises: DataError: a label is missing, unknown or out of range.
    """
    values = [_items(row.labels[column], names) if column in row.labels else None for row in rows]
    multi = any(several for items_several in values if items_several for several in items_several[1:])
    items = [None if value is None else value[0] for value in values]
    for row, labels in zip(rows, items, strict=True):
        if labels is not None and not labels and not multi:
            raise DataError(file, f"{row.place or row.path} has no value in column {column!r}", "a class")
    known = set(names or ())
    flat = {label for labels in items for label in labels or ()}
    if not by_name and all(_is_index(label) for label in flat) and not flat <= known:
        classes = names or tuple(map(str, range(_largest(flat, column, file) + 1)))
        lookup: dict[Any, int] = {label: int(label) for label in flat}
        unknown = sorted((label for label, index in lookup.items() if index >= len(classes)), key=int)
    else:
        classes = names or tuple(sorted(map(str, flat), key=_sort_key(flat)))
        places = {name: index for index, name in enumerate(classes)}
        lookup = {label: places[str(label)] for label in flat if str(label) in places}
        unknown = sorted(map(str, flat - lookup.keys()))
    if unknown:
        raise DataError(
            file,
            f"label {unknown[0]!r} in column {column!r} is not in classes.json",
            f"one of its {len(classes)} classes",
        )
    indices = tuple(None if labels is None else tuple(sorted({lookup[label] for label in labels})) for labels in items)
    return LabelColumn(classes, indices, multi)


def _items(value: Any, names: tuple[str, ...] | None) -> tuple[list[Any], bool]:
    """The labels in one cell, and whether it is written as a list."""
    if isinstance(value, str):
        text = value.strip().strip('"')
        if text in (names or ()):
            return [text], False
        if text.startswith("[") and text.endswith("]"):
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                return [text], False
        elif SEPARATOR.search(text):
            return [part for part in SEPARATOR.split(text) if part], True
        else:
            return ([text] if text else []), False
    if isinstance(value, (list, tuple)):
        return [part.strip() if isinstance(part, str) else part for part in value], True
    if value is None or value != value:  # NaN is how tables of numbers write an empty cell
        return [], False
    return [int(value) if isinstance(value, float) and value.is_integer() else value], False


def _is_index(label: Any) -> bool:
    return (type(label) is int and label >= 0) or (isinstance(label, str) and label.isascii() and label.isdigit())


def _largest(flat: set[Any], column: str, file: Path) -> int:
    largest = max(map(int, flat), default=-1)
    if largest >= MOST_CLASSES:
        raise DataError(file, f"column {column!r} has the class index {largest}", f"less than {MOST_CLASSES} classes")
    return largest


def _sort_key(flat: set[Any]) -> Any:
    return int if all(_is_index(label) for label in flat) else str
