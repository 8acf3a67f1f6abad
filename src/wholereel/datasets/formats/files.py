"""Finding and opening official annotation files, finding videos below a folder; errors name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wholereel.datasets.class_folders import VIDEO_SUFFIXES, files_below
from wholereel.errors import DataError

__all__ = ["VideoIndex", "csv_rows", "find_file", "has_file", "json_content", "sub_folders", "text_lines"]


class VideoIndex:
    """Files below a folder by the stems of their names, whatever their case; the folder is walked once.

    Args:
        root: the folder.
        suffixes: which files count, in lower case.
    """

    def __init__(self, root: Path, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> None:
        self.root = root
        self._by_stem: dict[str, list[str]] = {}  # text: there may be millions
        for path in files_below(root, suffixes):
            self._by_stem.setdefault(path.stem.lower(), []).append(str(path))

    def find(self, stem: str, *, folder: str | None = None) -> Path | None:
        """The file of this name (first in the order of names where there are several), or `None`.

        Args:
            stem: name without suffix.
            folder: name of the folder that it must lie in, if that matters.
        """
        for text in self._by_stem.get(stem.lower(), ()):
            path = Path(text)
            if folder is None or path.parent.name.lower() == folder.lower():
                return path
        return None


def sub_folders(root: Path) -> list[Path]:
    """The folder itself, then the folders in it by name; hidden ones excepted."""
    if not root.is_dir():
        raise DataError(root, "no such folder", "the folder of the data set")
    return [root, *sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))]


def find_file(root: Path, *names: str) -> Path:
    """The first of these files that lies in a folder or in one of its sub-folders.

    Raises: DataError: there is none.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    for folder in sub_folders(root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise DataError(root, f"does not hold {' or '.join(names)}", "the official file there, or one folder below")


def has_file(root: Path, name: str) -> bool:
    """Whether `find_file` finds it."""
    return any((folder / name).is_file() for folder in sub_folders(root))


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbers and lines of a text file, without empty ones and without white space at their ends.

    Raises: DataError: it is not text.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"cannot be read ({error})", "text in UTF-8") from error


def csv_rows(
    file: Path, columns: Sequence[str], *, header: bool, least: int = 0
) -> Iterator[tuple[str, dict[str, str]]]:
    """Place ("row 3") and cells by column of a CSV file.

    Args:
        file: with commas and double quotes.
        columns: that there must be: found by the header, or in this order where there is none.
        header: the first row names the columns. Without, a first row that begins like `columns` is skipped.
        least: how many columns a row must have where there is no header, if not all.
    Raises: DataError: a column is missing, or a row is too short or too long.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = enumerate(csv.reader(lines), start=1)
            names = list(columns)
            if header:
                names = [name.strip() for name in next(rows, (0, []))[1]]
                missing = [name for name in columns if name not in names]
                if missing:
                    raise DataError(file, f"has no column {missing[0]!r}", f"a header with {', '.join(columns)}")
            for number, cells in rows:
                if not cells or (number == 1 and cells[0].strip() == columns[0]):
                    continue
                few = len(names) if header else least or len(names)
                if not few <= len(cells) <= len(names):
                    raise DataError(file, f"row {number} has {len(cells)} columns", ",".join(names))
                yield f"row {number}", dict(zip(names, map(str.strip, cells), strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(file, f"cannot be read ({error})", "a table in UTF-8") from error


def json_content(file: Path) -> Any:
    """What a JSON file holds.

    Raises: DataError: it is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(file, f"is not JSON ({error})") from error
