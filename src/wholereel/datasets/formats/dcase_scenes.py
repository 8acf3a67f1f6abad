"""DCASE acoustic scenes: lists `train.txt` and `test.txt` with `file<TAB>label`, or a folder for each class.

The AVTS paper calls it DCASE2014: ten scenes, clips of 30 s.
"""

from __future__ import annotations

from pathlib import Path

from wholereel.datasets.class_folders import SOUND_SUFFIXES, rows_of_class_folders
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import sub_folders, text_lines
from wholereel.datasets.rows import canonical_split, is_known_split
from wholereel.datasets.sample import Sample
from wholereel.errors import DataError

__all__ = ["read_dcase_scenes"]


def read_dcase_scenes(root: Path) -> Annotations:
    """Read the lists of a folder (or of its sub-folders), or, where there are none, its folders of classes.

    Files in lists are relative to `root`. Classes are sorted by name.
    Raises: DataError: a line is not `file<TAB>label`, or there is nothing.
    """
    lists = [file for folder in sub_folders(root) for file in sorted(folder.glob("*.txt")) if is_known_split(file.stem)]
    entries: list[tuple[str, str, str | None]] = []
    for file in lists:
        for number, line in text_lines(file):
            name, tab, label = line.partition("\t")
            if not tab or not label.strip():
                raise DataError(file, f"line {number} is {line[:80]!r}", "file and label with a tab between them")
            entries.append((name.strip(), label.strip().split("\t")[0], canonical_split(file.stem)))
    if not lists:
        rows = rows_of_class_folders(root, "label", SOUND_SUFFIXES)
        entries = [(row.path, str(row.labels["label"]), row.split) for row in rows]
    classes = tuple(sorted({label for _, label, _ in entries}))
    places = {label: index for index, label in enumerate(classes)}
    samples = tuple(
        Sample(name, root / name, None, None, split, {"label": places[label]}) for name, label, split in entries
    )
    return Annotations(samples, {"label": classes}, root, tuple(lists))
