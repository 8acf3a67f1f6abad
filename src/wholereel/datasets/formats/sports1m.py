"""Sports-1M: `labels.txt` (line number = class, from 0) and partitions with lines `URL label1,label2`.

A prediction counts as right if it is any of the labels (Hit@k). In the cross-validation partitions a video can be in
both parts of a pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, find_file, text_lines
from wholereel.datasets.sample import Sample
from wholereel.datasets.sample_table import SampleTable
from wholereel.errors import DataError

__all__ = ["read_sports1m"]

LINE = re.compile(r"(?P<url>\S*[?&]v=(?P<id>[\w-]{11})\S*)\s+(?P<labels>\d+(,\d+)*)")


def read_sports1m(
    root: Path,
    *,
    train: str = "original/train_partition.txt",
    test: str = "original/test_partition.txt",
) -> Annotations:
    """Read a pair of partitions; videos are looked up by their YouTube id.

    Args:
        root: folder with `labels.txt` and the videos.
        train, test: the pair, relative to `root`.
    """
    names_file = find_file(root, "labels.txt")
    classes = tuple(line for _, line in text_lines(names_file))
    videos = VideoIndex(root)
    parts = [("train", find_file(root, train)), ("test", find_file(root, test))]
    samples = (sample for split, file in parts for sample in _samples(file, split, videos, len(classes)))
    table = SampleTable.of(samples, root)
    sources = (names_file, *(file for _, file in parts))
    return Annotations(table, {"label": classes}, root, sources, multi_label=True)


def _samples(file: Path, split: str, videos: VideoIndex, classes: int) -> Iterator[Sample]:
    for number, line in text_lines(file):
        match = LINE.fullmatch(line)
        if match is None:
            raise DataError(file, f"line {number} is {line[:80]!r}", "'URL label1,label2'")
        labels = tuple(sorted({int(label) for label in match["labels"].split(",")}))
        if labels[-1] >= classes:
            raise DataError(file, f"line {number} has label {labels[-1]}", f"one of 0..{classes - 1}")
        path = videos.find(match["id"]) or videos.root / f"{match['id']}.mp4"
        yield Sample(match["id"], path, None, None, split, {"label": labels})
