"""Kinetics-400, 600 and 700: the official CSV files and the usual names of the video files.

Columns `label,youtube_id,time_start,time_end,split` (test files have no `label`; `is_cc` is ignored). A trimmed clip is
called `{youtube_id}_{start:06d}_{end:06d}`, an untrimmed copy `{youtube_id}`. Copies differ in their folders, so files
are found by name anywhere below the folder. Files in a folder `replacement_*` (the common mirror's repair of 1,392
videos) override others with the same id.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wholereel.datasets.class_folders import rows_of_class_folders, video_files
from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import sub_folders
from wholereel.datasets.rows import Row, canonical_split, is_known_split
from wholereel.datasets.sample import Sample
from wholereel.datasets.sample_table import SampleTable
from wholereel.errors import DataError

__all__ = ["VideoNames", "read_kinetics", "rows_of_kinetics"]

ID_LENGTH = 11  # of a YouTube id; it may begin with or hold '-' and '_', so a name is never split at those


class VideoNames:
    """Video files below a folder by the stems of their names; the folder is walked once."""

    def __init__(self, root: Path) -> None:
        self._by_stem: dict[str, str] = {}
        self._replacement: dict[str, str] = {}
        for path in video_files(root):
            inside = path.relative_to(root)
            if any(part.startswith("replacement") for part in inside.parts[:-1]):
                self._replacement[path.stem[:ID_LENGTH]] = inside.as_posix()
            else:
                self._by_stem[path.stem] = inside.as_posix()

    def find(self, youtube_id: str, start: int, end: int) -> tuple[str, bool] | None:
        """Path below the folder, and whether it is trimmed; `None` where there is none."""
        trimmed = self._replacement.get(youtube_id) or self._by_stem.get(f"{youtube_id}_{start:06d}_{end:06d}")
        if trimmed is not None:
            return trimmed, True
        whole = self._by_stem.get(youtube_id)
        return None if whole is None else (whole, False)


@dataclass(frozen=True, slots=True)
class _Clip:
    """A line of a CSV file."""

    youtube_id: str
    start: int
    end: int
    label: str | None
    split: str | None
    place: str

    @property
    def id(self) -> str:
        return f"{self.youtube_id}_{self.start:06d}_{self.end:06d}"

    def located(self, names: VideoNames) -> tuple[str, float | None, float | None] | None:
        """Path below the folder and the part of the file; `None` where there is no file."""
        found = names.find(self.youtube_id, self.start, self.end)
        if found is None:
            return None
        path, trimmed = found
        return (path, None, None) if trimmed else (path, float(self.start), float(self.end))


def read_kinetics(root: Path) -> Annotations:
    """Read the CSV files of a folder (or of its sub-folders), or, where there are none, its folders of classes.

    Class indices are places in the sorted list of names, without the quotes that some files put around them. Folders of
    classes may spell them with spaces or underscores.
    Raises: DataError: a row is not as published, or there is nothing.
    """
    files = [file for folder in sub_folders(root) for file in sorted(folder.glob("*.csv")) if _is_kinetics(file)]
    if not files:
        return _read_class_folders(root)
    names = VideoNames(root)
    clips = [clip for file in files for clip in _clips(file)]
    classes = tuple(sorted({clip.label for clip in clips if clip.label is not None}))
    places = {name: index for index, name in enumerate(classes)}
    samples = SampleTable.of((_sample(clip, places, names, root) for clip in clips), root)
    return Annotations(samples, {"label": classes}, root, tuple(files))


def _sample(clip: _Clip, places: Mapping[str, int], names: VideoNames, root: Path) -> Sample:
    path, start, end = clip.located(names) or (f"{clip.id}.mp4", None, None)
    labels = {} if clip.label is None else {"label": places[clip.label]}
    return Sample(clip.id, root / path, start, end, clip.split, labels)


def rows_of_kinetics(file: Path, label: str, names: VideoNames) -> tuple[list[Row], list[str]]:
    """Read one official CSV file.

    Args:
        file: the CSV file.
        label: name of the label column to make.
        names: the videos that one has.
    Returns: rows with a video, and the names of the videos that are missing.
    Raises: DataError: a row is not as published, or not one video was found.
    """
    rows, dropped = [], []
    for clip in _clips(file):
        found = clip.located(names)
        if found is None:
            dropped.append(f"{clip.id}.mp4")
            continue
        path, start, end = found
        labels = {} if clip.label is None else {label: clip.label}
        rows.append(Row(path, labels, clip.split, start, end, clip.id, clip.place))
    if dropped and not rows:
        raise DataError(
            file, f"not one of its {len(dropped)} videos was found, e.g. {dropped[0]}", f"them below {file.parent}"
        )
    return rows, dropped


def _clips(file: Path) -> Iterator[_Clip]:
    name = next((part for part in file.stem.replace("-", "_").split("_") if is_known_split(part)), None)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, record in enumerate(csv.DictReader(lines), start=1):
            place = f"row {number}"
            try:
                youtube_id = record["youtube_id"].strip()
                start, end = int(float(record["time_start"])), int(float(record["time_end"]))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    file, f"{place} cannot be read", "columns label,youtube_id,time_start,time_end,split"
                ) from error
            label = record.get("label") and record["label"].strip().strip('"')
            split = record.get("split") or name
            yield _Clip(youtube_id, start, end, label or None, canonical_split(split) if split else None, place)


def _is_kinetics(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        return "youtube_id" in [name.strip() for name in next(lines, "").split(",")]


def _read_class_folders(root: Path) -> Annotations:
    rows = rows_of_class_folders(root, "label")
    spelled = [str(row.labels["label"]).strip('"').replace("_", " ") for row in rows]
    classes = tuple(sorted(set(spelled)))
    places = {name: index for index, name in enumerate(classes)}
    samples = tuple(
        Sample(Path(row.path).stem, root / row.path, None, None, row.split, {"label": places[name]})
        for row, name in zip(rows, spelled, strict=True)
    )
    return Annotations(samples, {"label": classes}, root, ())
