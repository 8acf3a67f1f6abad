"""HMDB51: a text file for each class and fold, `<class>_test_split{1,2,3}.txt`, with lines `name.avi code`.

Code 1 = train, 2 = test, 0 = not used in this fold. Names hold `#`, `&`, `(`, `;` and `!`: nothing is split there.
"""

from __future__ import annotations

import re
from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, sub_folders, text_lines
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_hmdb51"]

CODES = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(root: Path, *, fold: int = 1) -> Annotations:
    """Read one of the three official folds; its parts are called train and test. Classes are sorted by name.

    Args:
        root: folder with the lists (or a sub-folder with them) and the folders of classes.
        fold: 1, 2 or 3.
    """
    if fold not in (1, 2, 3):
        raise ConfigError(f"HMDB51 has the folds 1, 2 and 3, not {fold}")
    pattern = re.compile(rf"(?P<name>.+)_test_split{fold}\.txt")
    found = {}
    for folder in sub_folders(root):
        named = ((path, pattern.fullmatch(path.name)) for path in folder.iterdir() if path.is_file())
        found = {match["name"]: path for path, match in named if match}
        if found:
            break
    if not found:
        raise DataError(root, f"does not hold <class>_test_split{fold}.txt", "the 51 lists there, or one folder below")
    classes = tuple(sorted(found))
    videos = VideoIndex(root)
    samples = []
    for index, name in enumerate(classes):
        for number, line in text_lines(found[name]):
            video, _, code = line.rpartition(" ")
            if code not in CODES or not video:
                raise DataError(found[name], f"line {number} is {line[:80]!r}", "'name.avi code' with code 0, 1 or 2")
            split, stem = CODES[code], Path(video.strip()).stem
            if split is not None:
                path = videos.find(stem, folder=name) or root / name / video.strip()
                samples.append(Sample(f"{name}/{stem}", path, None, None, split, {"label": index}))
    return Annotations(tuple(samples), {"label": classes}, root, tuple(found[name] for name in classes))
