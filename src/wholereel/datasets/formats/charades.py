"""Charades v1: `Charades_v1_train.csv` and `Charades_v1_test.csv` (for validation); videos, or 24 pictures a second.

The column `actions` holds `c092 11.90 21.20;c147 0.00 12.60` (class, start, end in seconds) and may be empty. The label
of a sample is the union over the whole video, the target of evaluation; a training clip's is the union over the clip
(`datasets/events.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, csv_rows, find_file, text_lines
from wholereel.datasets.sample import Event, Sample
from wholereel.errors import DataError

__all__ = ["read_charades"]

ACTION = re.compile(r"c(?P<label>\d{3}) (?P<start>\d+(\.\d*)?) (?P<end>\d+(\.\d*)?)")
CLASSES = 157
RATE = 24.0  # of the published pictures
PARTS = {"train": "Charades_v1_train.csv", "val": "Charades_v1_test.csv"}


def read_charades(
    root: Path, *, layout: Literal["videos", "pictures"] = "videos", pictures: str = "Charades_v1_rgb"
) -> Annotations:
    """Read both tables; the second one is called val.

    Args:
        root: folder with the tables (or a sub-folder with them) and the videos or pictures.
        layout: video files `<id>.mp4` anywhere below, or a folder of pictures for each id.
        pictures: folder that holds the folders of pictures.
    """
    videos = VideoIndex(root) if layout == "videos" else None
    sources, samples = [], []
    largest = -1
    for split, name in PARTS.items():
        file = find_file(root, name)
        sources.append(file)
        for place, cells in csv_rows(file, ("id", "actions"), header=True):
            id = cells["id"]
            events = _events(cells["actions"], file, place)
            largest = max([largest, *(event.label for event in events)])
            path = root / pictures / id if videos is None else videos.find(id) or root / f"{id}.mp4"
            sample = Sample(
                id=id,
                path=path,
                start=None,
                end=None,
                split=split,
                labels={"label": tuple(sorted({event.label for event in events}))},
                events=events,
                frame_rate=RATE if videos is None else None,
                meta={"subject": cells["subject"]} if cells.get("subject") else {},
            )
            samples.append(sample)
    classes, names_file = _classes(root, largest)
    if names_file is not None:
        sources.append(names_file)
    return Annotations(tuple(samples), {"label": classes}, root, tuple(sources), multi_label=True)


def _events(text: str, file: Path, place: str) -> tuple[Event, ...]:
    events = []
    for part in filter(None, map(str.strip, text.split(";"))):
        match = ACTION.fullmatch(part)
        if match is None:
            raise DataError(file, f"{place} has the action {part[:40]!r}", "'c092 11.90 21.20': class, start, end")
        events.append(Event(int(match["label"]), float(match["start"]), float(match["end"])))
    return tuple(events)


def _classes(root: Path, largest: int) -> tuple[tuple[str, ...], Path | None]:
    """Names from `Charades_v1_classes.txt` (`c000 Holding some clothes`) where one has it, else the codes."""
    try:
        file = find_file(root, "Charades_v1_classes.txt")
    except DataError:
        return tuple(f"c{index:03d}" for index in range(max(CLASSES, largest + 1))), None
    names = [line.partition(" ")[2] or line for _, line in text_lines(file)]
    if len(names) <= largest:
        raise DataError(file, f"has {len(names)} classes", f"more than {largest}, which a video shows")
    return tuple(names), file
