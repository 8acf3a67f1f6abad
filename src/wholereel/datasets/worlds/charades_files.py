"""Official files in the form of Charades v1: a table a split, and the names of the classes.

Charades has `train` and `test` (for validation); `val` is one of ours.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from wholereel.datasets.atomic_files import write_text_file

__all__ = ["write_charades_files"]

COLUMNS = (
    "id",
    "subject",
    "scene",
    "quality",
    "relevance",
    "verified",
    "script",
    "objects",
    "descriptions",
    "actions",
    "length",
)


def write_charades_files(
    folder: Path,
    videos: Iterable[tuple[str, str, Sequence[tuple[int, float, float]]]],
    classes: Sequence[str],
    seconds: float,
) -> None:
    """Write the tables.

    Args:
        folder: is made.
        videos: split, id, and (class index, start, end) of what they show, in seconds.
        classes: names.
        seconds: length of every video.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[list[object]]] = defaultdict(list)
    for split, id, events in videos:
        objects = ";".join(sorted({classes[label].split()[-1] for label, _, _ in events}))
        actions = ";".join(f"c{label:03d} {start:.3f} {end:.3f}" for label, start, end in events)
        tables[split].append([id, "", "", "", "", "Yes", "", objects, "", actions, f"{seconds:.2f}"])
    for split, rows in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
        write_text_file(folder / f"Charades_v1_{split}.csv", text.getvalue())
    names = "".join(f"c{label:03d} {name}\n" for label, name in enumerate(classes))
    write_text_file(folder / "Charades_v1_classes.txt", names)
