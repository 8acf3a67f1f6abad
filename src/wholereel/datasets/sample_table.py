"""Millions of samples in a few flat arrays: a sequence of `Sample` that makes each one when it is asked for.

A list of Python objects is copied into every loader process, page by page, as reference counts are touched. Columns of
numbers and of text are not: forked workers share them, spawned ones receive them as shared memory.
Axes: N samples of the table, V values of a column.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from wholereel.datasets.sample import Sample
from wholereel.datasets.sample_json import parts_of_record, parts_of_sample

__all__ = ["SampleTable"]

ANY_NAME = "surrogatepass"  # file names need not be valid UTF-8
CHUNK = 4096  # samples made at once while iterating
OWN_COLUMNS = ("key_seconds", "frame_rate")  # of the parts that a sample may carry; the others are kept as JSON
MISSING, ONE, SEVERAL = 0, 1, 2


class SampleTable(Sequence[Sample]):
    """Samples as columns; made by `of`.

    Slices are views. Two tables, or a table and any sequence of samples, are equal if their samples are.

    Args:
        columns: of all samples. rows: which of them, in order; `None` = all.
    """

    def __init__(self, columns: _Columns, rows: range | Tensor | None = None) -> None:
        self._columns = columns
        self._rows = range(len(columns)) if rows is None else rows

    @classmethod
    def of(cls, samples: Iterable[Sample], root: Path) -> SampleTable:
        """Take samples, one at a time; an iterator need never hold them all.

        Args:
            samples: in order.
            root: folder that most paths begin with; it is stored once.
        """
        if isinstance(samples, SampleTable):
            return samples
        building = _Building(root)
        for sample in samples:
            building.add(sample)
        return cls(building.finish())

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> SampleTable: ...
    def __getitem__(self, index: int | slice) -> Sample | SampleTable:
        if isinstance(index, slice):
            if isinstance(self._rows, range):
                return SampleTable(self._columns, self._rows[index])
            return SampleTable(self._columns, torch.from_numpy(self._rows.numpy()[index].copy()))
        return next(self._columns.samples(np.array([int(self._rows[index])])))

    def __iter__(self) -> Iterator[Sample]:
        for begin in range(0, len(self), CHUNK):
            yield from self._columns.samples(self._numbers(begin, begin + CHUNK))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SampleTable({len(self)} samples, {self.nbytes / 2**20:.1f} MB)"

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, whichever rows this view shows."""
        return self._columns.nbytes

    def take(self, rows: Sequence[int] | Tensor) -> SampleTable:
        """A view of some samples, by their numbers in this table."""
        chosen = torch.as_tensor(rows, dtype=torch.int64).numpy()
        return SampleTable(self._columns, torch.from_numpy(self._numbers()[chosen]))

    def moved(self, root: Path) -> SampleTable:
        """The same samples in another folder: paths that were below the old root are below this one."""
        return SampleTable(replace(self._columns, root=root), self._rows)

    def of_split(self, split: str | None) -> SampleTable:
        """The samples of one split."""
        names, codes_N = self._columns.splits, self._columns.split_codes.numpy()[self._numbers()]
        wanted = names.index(split) if split in names else -1
        return self.take(torch.from_numpy(np.flatnonzero(codes_N == wanted)))

    def split_counts(self) -> dict[str | None, int]:
        """How many samples each split has, in the order of first appearance."""
        codes = Counter(self._columns.split_codes.numpy()[self._numbers()].tolist())
        return {name: codes[code] for code, name in enumerate(self._columns.splits) if codes[code]}

    def repeated_id(self) -> tuple[str | None, str, int] | None:
        """Split, id and number of samples of the id that most samples of one split share; `None` if all differ."""
        hashes_N = np.empty(len(self), dtype=np.int64)
        for begin in range(0, len(self), CHUNK):
            ids, codes = self._ids(begin, begin + CHUNK)
            hashes_N[begin : begin + len(ids)] = [hash(pair) for pair in zip(codes, ids, strict=True)]
        _, places_N, counts = np.unique(hashes_N, return_inverse=True, return_counts=True)
        suspects = np.flatnonzero(counts[places_N] > 1)
        found: Counter[tuple[int, str]] = Counter()
        for number in suspects.tolist():
            (id,), (code,) = self._ids(number, number + 1)
            found[code, id] += 1
        if not found or max(found.values()) == 1:
            return None
        (code, id), most = found.most_common(1)[0]
        return self._columns.splits[code], id, most

    def _ids(self, begin: int, end: int) -> tuple[list[str], list[int]]:
        """Ids and codes of splits of some samples of this view."""
        rows = self._numbers(begin, end)
        return self._columns.ids.get(rows), self._columns.split_codes.numpy()[rows].tolist()

    def without_label(self, column: str) -> int | None:
        """Number of the first sample that lacks a label which others have; `None` if all or none have it."""
        if column not in self._columns.labels:
            return None
        missing_N = self._columns.labels[column].kinds.numpy()[self._numbers()] == MISSING
        return int(missing_N.argmax()) if missing_N.any() and not missing_N.all() else None

    def _numbers(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Numbers in the columns of some samples of this view."""
        rows = self._rows[begin:end]
        return np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows.numpy()

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the label columns that any sample of the table has."""
        return tuple(self._columns.labels)


@dataclass(frozen=True)
class _Text:
    """Texts in UTF-8, one after the other; text n ends at `ends[n + 1]`."""

    data: Tensor
    ends: Tensor

    def get(self, rows: np.ndarray) -> list[str]:
        ends, data = self.ends.numpy(), self.data.numpy()
        return [
            data[begin:end].tobytes().decode(errors=ANY_NAME)
            for begin, end in zip(ends[rows].tolist(), ends[rows + 1].tolist(), strict=True)
        ]


@dataclass(frozen=True)
class _Labels:
    """One label column: `kinds` says whether a sample has none, one or a tuple; `ends` is left out without tuples."""

    kinds: Tensor
    values: Tensor
    ends: Tensor | None

    def get(self, rows: np.ndarray) -> list[int | tuple[int, ...] | None]:
        kinds, values = self.kinds.numpy()[rows].tolist(), self.values.numpy()
        if self.ends is None:
            ones = values[rows].tolist()
            return [one if kind == ONE else None for kind, one in zip(kinds, ones, strict=True)]
        ends = self.ends.numpy()
        spans = zip(kinds, ends[rows].tolist(), ends[rows + 1].tolist(), strict=True)
        found: list[int | tuple[int, ...] | None] = []
        for kind, begin, end in spans:
            several = tuple(values[begin:end].tolist())
            found.append(None if kind == MISSING else several[0] if kind == ONE else several)
        return found


@dataclass(frozen=True)
class _Columns:
    root: Path
    ids: _Text
    paths: _Text
    splits: tuple[str | None, ...]
    split_codes: Tensor
    numbers: Mapping[str, Tensor]
    labels: Mapping[str, _Labels]
    parts: _Text | None

    def __len__(self) -> int:
        return len(self.split_codes)

    @property
    def nbytes(self) -> int:
        columns = [self.ids.data, self.ids.ends, self.split_codes, *self.numbers.values()]
        texts = [self.paths, *([self.parts] if self.parts is not None else [])]
        columns += [column for text in texts if text is not self.ids for column in (text.data, text.ends)]
        for labels in self.labels.values():
            columns += [labels.kinds, labels.values, *([] if labels.ends is None else [labels.ends])]
        return sum(column.nbytes for column in columns)

    def samples(self, rows: np.ndarray) -> Iterator[Sample]:
        """Samples of some rows."""
        paths = self.paths.get(rows)
        ids = paths if self.ids is self.paths else self.ids.get(rows)
        codes = self.split_codes.numpy()[rows].tolist()
        numbers = {name: _or_none(column.numpy()[rows]) for name, column in self.numbers.items()}
        labels = {name: column.get(rows) for name, column in self.labels.items()}
        parts = None if self.parts is None else self.parts.get(rows)
        for n, (id, path) in enumerate(zip(ids, paths, strict=True)):
            carried: dict[str, Any] = {name: numbers[name][n] for name in OWN_COLUMNS if name in numbers}
            if parts is not None and parts[n]:
                carried |= parts_of_record(json.loads(parts[n]), self.root, id)
            yield Sample(
                id=id,
                path=self.root / path,
                start=numbers["start"][n] if "start" in numbers else None,
                end=numbers["end"][n] if "end" in numbers else None,
                split=self.splits[codes[n]],
                labels={name: label for name, column in labels.items() if (label := column[n]) is not None},
                **carried,
            )


class _Building:
    """Columns that grow; arrays of machine numbers, not lists of objects."""

    def __init__(self, root: Path) -> None:
        self.root, self._prefix = root, f"{root}/" if str(root) not in ("", ".") else ""
        self.count, self.ids_are_paths = 0, True
        self.ids, self.paths, self.parts = _GrowingText(), _GrowingText(), _GrowingText()
        self.splits: dict[str | None, int] = {}
        self.split_codes = array("i")
        self.numbers = {name: array("d") for name in ("start", "end", *OWN_COLUMNS)}
        self.labels: dict[str, _GrowingLabels] = {}

    def add(self, sample: Sample) -> None:
        path = str(sample.path)
        if self._prefix and path.startswith(self._prefix):
            path = path[len(self._prefix) :]
        self.ids_are_paths &= sample.id == path
        self.ids.add(sample.id)
        self.paths.add(path)
        self.split_codes.append(self.splits.setdefault(sample.split, len(self.splits)))
        for name, column in self.numbers.items():
            value = getattr(sample, name)
            column.append(math.nan if value is None else value)
        for name in sample.labels:
            if name not in self.labels:
                self.labels[name] = _GrowingLabels(self.count)
        for name, labels in self.labels.items():
            labels.add(sample.labels.get(name))
        parts = {name: part for name, part in parts_of_sample(sample).items() if name not in OWN_COLUMNS}
        self.parts.add(json.dumps(parts, ensure_ascii=False, separators=(",", ":")) if parts else "")
        self.count += 1

    def finish(self) -> _Columns:
        paths = self.paths.finish()
        numbers = {name: torch.from_numpy(np.array(column)) for name, column in self.numbers.items()}
        return _Columns(
            root=self.root,
            ids=paths if self.ids_are_paths else self.ids.finish(),
            paths=paths,
            splits=tuple(self.splits),
            split_codes=torch.from_numpy(np.array(self.split_codes, dtype=np.int32)),
            numbers={name: column for name, column in numbers.items() if not bool(column.isnan().all())},
            labels={name: labels.finish() for name, labels in self.labels.items()},
            parts=self.parts.finish() if self.parts.data else None,
        )


class _GrowingText:
    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("q", [0])

    def add(self, text: str) -> None:
        self.data += text.encode(errors=ANY_NAME)
        self.ends.append(len(self.data))

    def finish(self) -> _Text:
        return _Text(torch.from_numpy(np.frombuffer(self.data, dtype=np.uint8).copy()), torch.tensor(self.ends))


class _GrowingLabels:
    def __init__(self, earlier: int) -> None:
        self.kinds, self.values, self.ends = array("b", bytes(earlier)), array("i"), array("q", [0] * (earlier + 1))

    def add(self, label: int | tuple[int, ...] | None) -> None:
        several = label if isinstance(label, tuple) else () if label is None else (label,)
        self.kinds.append(SEVERAL if isinstance(label, tuple) else MISSING if label is None else ONE)
        self.values.extend(several)
        self.ends.append(len(self.values))

    def finish(self) -> _Labels:
        kinds = torch.tensor(self.kinds, dtype=torch.int8)
        values, ends = np.array(self.values, dtype=np.int32), np.array(self.ends)
        if SEVERAL not in self.kinds:
            padded = np.full(len(self.kinds), -1, dtype=np.int32)
            padded[np.array(self.kinds) == ONE] = values
            return _Labels(kinds, torch.from_numpy(padded), None)
        return _Labels(kinds, torch.from_numpy(values), torch.from_numpy(ends))


def _or_none(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
