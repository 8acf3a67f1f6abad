"""Lists without a header, a path and a class index a line, as read and written for facebookresearch/SlowFast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.rows import Row
from wholereel.datasets.sample import Manifest, Sample
from wholereel.errors import DataError

__all__ = ["is_list_line", "list_text", "rows_of_list", "write_lists"]

# Greedy: a path may hold spaces and commas, the last separator counts.
LINE = re.compile(r"(?P<path>.*\S)\s*[ ,\t]\s*(?P<label>\d+)")


def is_list_line(line: str) -> bool:
    """Whether a line reads as `path label`."""
    return LINE.fullmatch(line.strip()) is not None


def rows_of_list(file: Path, label: str) -> list[Row]:
    """Read a list.

    Args:
        file: text file.
        label: name of the label column to make.
    Raises: DataError: a line is not a path and a class index.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(file, f"line {number} is {line[:80]!r}", "a path and a class index, as in 'a/b.mp4 17'")
        rows.append(Row(match["path"], {label: int(match["label"])}, place=f"line {number}"))
    return rows


def write_lists(manifest: Manifest, folder: Path, *, separator: str = " ") -> list[Path]:
    """Write `train.csv`, `val.csv`, `test.csv` (one a split; `all.csv` where there are no splits).

    Args:
        manifest: whole videos with one class each.
        folder: where they go; paths below it become relative to it.
        separator: between path and class; SlowFast calls it `DATA.PATH_LABEL_SEPARATOR`.
    Returns: the files.
    Raises: ValueError: see `list_text`; then nothing is written.
    """
    by_split: dict[str, list[Sample]] = {}
    for sample in manifest.samples:
        by_split.setdefault(sample.split or "all", []).append(sample)
    texts = {folder / f"{split}.csv": list_text(samples, folder, separator) for split, samples in by_split.items()}
    for file, text in texts.items():
        write_text_file(file, text)
    return list(texts)


def list_text(samples: Sequence[Sample], folder: Path, separator: str = " ") -> str:
    """The lines of a list.

    Raises: ValueError: something that a list cannot hold: parts of videos, several labels, or a path with the separator
        in it (SlowFast splits there).
    """
    lines = []
    for sample in samples:
        labels = list(sample.labels.values())
        if len(labels) != 1 or not isinstance(labels[0], int) or sample.start is not None or sample.end is not None:
            raise ValueError(f"a list holds whole videos with one class each, which sample {sample.id!r} is not")
        path = sample.path.absolute()
        text = (path.relative_to(folder.absolute()) if path.is_relative_to(folder.absolute()) else path).as_posix()
        if separator in text:
            raise ValueError(f"the path {text!r} holds the separator {separator!r}: choose another one, such as ','")
        lines.append(f"{text}{separator}{labels[0]}\n")
    return "".join(lines)
