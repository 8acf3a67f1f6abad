"""UCF101: `classInd.txt`, `trainlist0{1,2,3}.txt`, `testlist0{1,2,3}.txt`.

Files are looked up whatever their case: the folder `HandstandPushups` holds `v_HandStandPushups_*`.
"""

from __future__ import annotations

import re
from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, find_file, text_lines
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_ucf101"]

EXAMPLE = {"train": "Archery/v_Archery_g08_c01.avi 3", "test": "Archery/v_Archery_g01_c01.avi"}
GROUP = re.compile(r"_g(\d+)_c\d+$", re.IGNORECASE)


def read_ucf101(root: Path, *, fold: int = 1) -> Annotations:
    """Read one of the three official splits; its parts are called train and test.

    Args:
        root: folder with the lists (or a sub-folder with them) and the videos.
        fold: 1, 2 or 3.
    Returns: samples with `meta["group"]`: videos of one group come from one recording, never split them otherwise.
    """
    if fold not in (1, 2, 3):
        raise ConfigError(f"UCF101 has the folds 1, 2 and 3, not {fold}")
    index_file = find_file(root, "classInd.txt")
    places = _class_places(index_file)
    videos = VideoIndex(root)
    sources, samples = [index_file], []
    for split in ("train", "test"):
        file = find_file(root, f"{split}list0{fold}.txt")
        sources.append(file)
        for number, line in text_lines(file):
            # test lists have no class index behind the name, but every name begins with the folder of its class
            name, _, index = line.partition(" ") if split == "train" else (line, "", "")
            folder, _, video = name.partition("/")
            place = places.get(folder.lower())
            group = GROUP.search(Path(video).stem)
            if place is None or group is None or index not in ("", str(place + 1)):
                raise DataError(
                    file,
                    f"line {number} is {line[:80]!r}",
                    f"{EXAMPLE[split]!r}, with a class of classInd.txt",
                )
            path = videos.find(Path(video).stem) or root / name
            meta = {"group": int(group[1])}
            samples.append(Sample(Path(video).stem, path, None, None, split, {"label": place}, meta=meta))
    return Annotations(tuple(samples), {"label": tuple(_class_names(index_file))}, root, tuple(sources))


def _class_names(file: Path) -> list[str]:
    """Names by index; the file counts from 1."""
    names: list[str] = []
    for number, line in text_lines(file):
        index, _, name = line.partition(" ")
        if not index.isdigit() or int(index) != len(names) + 1 or not name:
            raise DataError(file, f"line {number} is {line[:80]!r}", f"'{len(names) + 1} ClassName'")
        names.append(name.strip())
    return names


def _class_places(file: Path) -> dict[str, int]:
    return {name.lower(): index for index, name in enumerate(_class_names(file))}
