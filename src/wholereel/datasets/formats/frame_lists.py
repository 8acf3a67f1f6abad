"""Lists of pictures with the labels of each, as facebookresearch/SlowFast reads them (Charades, Something-Something).

Header `original_vido_id video_id frame_id path labels` (the typo is theirs), columns separated by single spaces; labels
are a comma list in double quotes, empty where a picture has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.events import events_of_frames, labels_of_frames
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import text_lines
from wholereel.datasets.sample import Manifest, Sample
from wholereel.errors import DataError
from wholereel.media.frame_folder import FrameFolder

__all__ = [
    "ListedVideo",
    "read_frame_list",
    "read_frame_lists",
    "sample_of_listed",
    "write_frame_list",
    "write_frame_lists",
]

SPLITS = ("train", "val", "test")
HEADER = "original_vido_id video_id frame_id path labels"


def read_frame_lists(root: Path, *, pictures: str = ".", frame_rate: float = 24.0) -> Annotations:
    """Read `train.csv`, `val.csv`, `test.csv` of a folder, as far as they are there, as a multi-label data set.

    Args:
        root: folder with the lists.
        pictures: folder below that paths in the lists are relative to.
        frame_rate: pictures per second.
    Raises: DataError: there is none, or a line is not as published.
    """
    files = [root / f"{split}.csv" for split in SPLITS if (root / f"{split}.csv").is_file()]
    if not files:
        raise DataError(root, "does not hold train.csv, val.csv or test.csv", "lists of pictures")
    samples = tuple(
        sample_of_listed(video, root / pictures, frame_rate, split=file.stem)
        for file in files
        for video in read_frame_list(file)
    )
    largest = max((event.label for sample in samples for event in sample.events), default=-1)
    classes = tuple(map(str, range(largest + 1)))
    return Annotations(samples, {"label": classes}, root, tuple(files), multi_label=True)


@dataclass(frozen=True)
class ListedVideo:
    """One video of a list.

    Args:
        id: its name.
        paths: of its pictures, in the order of the list.
        labels: of each picture.
    """

    id: str
    paths: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]


def read_frame_list(file: Path) -> list[ListedVideo]:
    """Read a list; videos are in the order of their first lines.

    Raises: DataError: another header, a line without five columns, or a label that is no number.
    """
    paths: dict[str, list[str]] = {}
    labels: dict[str, list[tuple[int, ...]]] = {}
    lines = text_lines(file)
    _, first = next(lines, (0, ""))
    if not first.startswith("original_vido_id"):
        raise DataError(file, f"begins with {first[:60]!r}", repr(HEADER))
    for number, line in lines:
        cells = line.split()
        found = cells[-1].strip('"').split(",") if cells else []
        if len(cells) != 5 or not all(label.isdigit() for label in found if label):
            raise DataError(file, f"line {number} is {line[:80]!r}", repr(HEADER))
        paths.setdefault(cells[0], []).append(cells[3])
        labels.setdefault(cells[0], []).append(tuple(int(label) for label in found if label))
    return [ListedVideo(id, tuple(paths[id]), tuple(labels[id])) for id in paths]


def sample_of_listed(video: ListedVideo, root: Path, frame_rate: float, *, split: str | None = None) -> Sample:
    """A multi-label sample of the folder that the pictures lie in, with the runs of its labels as events.

    Args:
        video: all pictures of a folder, in order.
        root: what its paths are relative to.
        frame_rate: pictures per second.
        split: name of the part.
    """
    events = events_of_frames(video.labels, frame_rate)
    labels = {"label": tuple(sorted({event.label for event in events}))}
    path = (root / video.paths[0]).parent
    return Sample(video.id, path, None, None, split, labels, events=events, frame_rate=frame_rate)


def write_frame_list(samples: Iterable[Sample], file: Path, root: Path) -> None:
    """Write the pictures of samples, with the labels that their events give each.

    Args:
        samples: folders of pictures.
        file: the list.
        root: what the paths in it are relative to (SlowFast: `DATA.PATH_PREFIX`).
    Raises: VideoError: a folder cannot be read. ValueError: a name with a space, which the format cannot hold.
    """
    lines = [HEADER + "\n"]
    for number, sample in enumerate(samples):
        folder = FrameFolder(sample.path, frame_rate=sample.frame_rate)
        found = labels_of_frames(sample.events, folder.frame_count, folder.metadata.frame_rate)
        for frame, (picture, labels) in enumerate(zip(folder.pictures, found, strict=True)):
            path = picture.relative_to(root).as_posix() if picture.is_relative_to(root) else picture.as_posix()
            if len(f"{sample.id} {path}".split()) != 2:
                raise ValueError(f"{sample.id} {path}: a frame list cannot hold names with spaces")
            lines.append(f'{sample.id} {number} {frame} {path} "{",".join(map(str, labels))}"\n')
    write_text_file(file, "".join(lines))


def write_frame_lists(manifest: Manifest, folder: Path) -> list[Path]:
    """Write `train.csv`, `val.csv`, `test.csv` (one a split; `all.csv` where there are no splits); returns the files.

    Args:
        manifest: folders of pictures, multi-label.
        folder: where the lists go; paths in them are relative to the manifest's folder.
    Raises: as `write_frame_list`; ValueError: a set with one class a video.
    """
    if not manifest.multi_label:
        raise ValueError("lists of pictures hold several labels a picture; this set has one class a video")
    by_split: dict[str, list[Sample]] = {}
    for sample in manifest.samples:
        by_split.setdefault(sample.split or "all", []).append(sample)
    for split, samples in by_split.items():
        write_frame_list(samples, folder / f"{split}.csv", manifest.root)
    return [folder / f"{split}.csv" for split in by_split]
