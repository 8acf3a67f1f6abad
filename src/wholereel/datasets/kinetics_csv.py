"""Kinetics-400/600/700: the official CSV files and the usual names of the video files.

Columns `label,youtube_id,time_start,time_end,split` (test files have no `label`; `is_cc` is ignored). A trimmed clip is
called `{youtube_id}_{start:06d}_{end:06d}`, an untrimmed copy `{youtube_id}`. Copies differ in their folders, so files
are found by name anywhere below the CSV file's folder; rows whose video nobody has any more are dropped and counted.
Files in a folder `replacement_*` (the common mirror's repair of 1,392 videos) override others with the same id.
"""

from __future__ import annotations

import csv
from pathlib import Path

from wholereel.datasets.class_folders import video_files
from wholereel.datasets.rows import Row, canonical_split
from wholereel.errors import DataError

__all__ = ["VideoNames", "rows_of_kinetics"]

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


def rows_of_kinetics(file: Path, label: str, names: VideoNames) -> tuple[list[Row], list[str]]:
    """Read an official CSV file.

    Args:
        file: the CSV file.
        label: name of the label column to make.
        names: the videos that one has.
    Returns: rows with a video, and the names of the videos that are missing.
    Raises: DataError: a row is not as published, or not one video was found.
    """
    rows, dropped = [], []
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
            found = names.find(youtube_id, start, end)
            if found is None:
                dropped.append(f"{youtube_id}_{start:06d}_{end:06d}.mp4")
                continue
            path, trimmed = found
            begin, stop = (None, None) if trimmed else (float(start), float(end))
            labels = {label: record["label"].strip().strip('"')} if record.get("label") else {}
            split = canonical_split(record["split"]) if record.get("split") else None
            id = f"{youtube_id}_{start:06d}_{end:06d}"
            rows.append(Row(path, labels, split, begin, stop, id, place))
    if dropped and not rows:
        raise DataError(
            file, f"not one of its {len(dropped)} videos was found, e.g. {dropped[0]}", f"them below {file.parent}"
        )
    return rows, dropped
