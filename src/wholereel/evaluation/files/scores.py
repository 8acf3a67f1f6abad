"""Files of scores: one row a sample, in the forms that people have them.

    .npz    `ids` (N,) and arrays such as `scores` (N, K), `verb` (N, V), `noun` (N, O); no pickled objects
    .jsonl  an object a line with `id` and `scores`, as `wholereel evaluate` writes it
    .json   `{"results": {id: {"verb": {"0": ..., ...}, "noun": ..., "action": {"0,12": ...}}}}`, EPIC's submissions,
            or `{id: [scores]}`
    others  lines `id score score ...`, separated by blanks, tabs or commas, as Charades wants them; a first line that
            begins with `id` is a header
N samples, K classes; what is missing in a sparse row scores minus infinity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.errors import DataError

__all__ = ["Scores", "read_scores"]

ID_NAMES = ("ids", "id", "narration_id")


@dataclass(frozen=True)
class Scores:
    """Content of a file of scores.

    Args:
        file: its name, for errors.
        ids: of the samples, each once.
        arrays: float64 or float32, by name, a row a sample.
        pairs: (verb, noun) of each column of `action`, where the file says so.
    """

    file: str
    ids: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    pairs: tuple[tuple[int, int], ...] | None = None

    def array(self, name: str) -> np.ndarray:
        """One of the arrays. Raises: DataError: there is none of this name."""
        if name not in self.arrays:
            raise DataError(self.file, f"no scores called {name!r}", f"one of {', '.join(sorted(self.arrays))}")
        return self.arrays[name]

    def rows_of(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Which of the wanted samples have scores, and in which row: mask (len(ids),) and rows of those that have."""
        place = {name: row for row, name in enumerate(self.ids)}
        mask = np.array([name in place for name in ids], dtype=bool)
        return mask, np.array([place[name] for name in ids if name in place], dtype=np.int64)


def read_scores(path: str | Path) -> Scores:
    """Read a file of scores; its form follows from its ending.

    Raises: DataError: rows of different lengths, an id twice, no ids, or something else than numbers.
    """
    path = Path(path)
    readers = {".npz": _npz, ".json": _json, ".jsonl": _jsonl}
    try:
        found = readers.get(path.suffix, _lines)(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(path, f"cannot be read as scores ({type(error).__name__}: {error})", "see the docs") from error
    if len(set(found.ids)) != len(found.ids):
        doubled = next(name for name in found.ids if found.ids.count(name) > 1)
        raise DataError(path, f"{doubled!r} occurs more than once", "each sample once")
    for name, array in found.arrays.items():
        if array.ndim < 2 or len(array) != len(found.ids):
            raise DataError(path, f"{name!r} has the shape {array.shape} for {len(found.ids)} ids", "a row a sample")
        if np.isnan(array).any():
            raise DataError(
                path,
                f"{name!r} holds NaN for {found.ids[int(np.isnan(array).reshape(len(array), -1).any(1).argmax())]!r}",
                "numbers",
            )
    return found


def _npz(path: Path) -> Scores:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    name = next((name for name in ID_NAMES if name in arrays), None)
    if name is None:
        raise DataError(path, f"arrays {', '.join(sorted(arrays))}", f"one of {', '.join(ID_NAMES)} among them")
    ids = tuple(map(str, arrays.pop(name).tolist()))
    pairs = arrays.pop("action_pairs", None)
    known = None if pairs is None else tuple((int(verb), int(noun)) for verb, noun in pairs)
    # float32 stays: logits of thirty views of a data set fill gigabytes
    floats = {key: array if array.dtype == np.float32 else array.astype(np.float64) for key, array in arrays.items()}
    return Scores(str(path), ids, floats, known)


def _jsonl(path: Path) -> Scores:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return Scores(str(path), tuple(str(row["id"]) for row in rows), {"scores": _table([row["scores"] for row in rows])})


def _json(path: Path) -> Scores:
    data = json.loads(path.read_text(encoding="utf-8"))
    results: Mapping[str, Any] = data.get("results", data)
    rows = list(results.values())
    if rows and isinstance(rows[0], Mapping):
        arrays, pairs = {}, None
        for name in rows[0]:
            arrays[name], columns = _sparse([row[name] for row in rows])
            if name == "action":
                pairs = tuple((int(verb), int(noun)) for verb, noun in (column.split(",") for column in columns))
        return Scores(str(path), tuple(results), arrays, pairs)
    return Scores(str(path), tuple(results), {"scores": _table(rows)})


def _sparse(rows: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, list[str]]:
    """Scores by class as a table; classes are numbers (then all from 0 have a column) or pairs of numbers."""
    found = {column for row in rows for column in row}
    if any("," in column for column in found):
        columns = sorted(found, key=lambda column: tuple(map(int, column.split(","))))
    else:
        columns = [str(number) for number in range(max(map(int, found), default=-1) + 1)]
    place = {column: number for number, column in enumerate(columns)}
    table = np.full((len(rows), len(columns)), -np.inf)
    for number, row in enumerate(rows):
        table[number, [place[column] for column in row]] = list(row.values())
    return table, columns


def _lines(path: Path) -> Scores:
    ids, rows = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells or (number == 1 and cells[0] in ID_NAMES):  # a header
            continue
        try:
            rows.append([float(cell) for cell in cells[1:]])
        except ValueError as error:
            raise DataError(path, f"line {number}: {error}", "an id and numbers") from None
        ids.append(cells[0])
    return Scores(str(path), tuple(ids), {"scores": _table(rows)})


def _table(rows: Sequence[Sequence[float]]) -> np.ndarray:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"rows of {min(widths)} to {max(widths)} scores")
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)
