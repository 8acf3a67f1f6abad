"""Folders of videos, sounds or pictures: `<class>/<file>` or `<split>/<class>/<file>`, and the search for files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from wholereel.datasets.rows import Row, canonical_split, is_known_split
from wholereel.errors import DataError

__all__ = ["SOUND_SUFFIXES", "VIDEO_SUFFIXES", "files_below", "rows_of_class_folders", "video_files"]

VIDEO_SUFFIXES = frozenset(
    (
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    )
)


SOUND_SUFFIXES = frozenset((".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"))


def video_files(folder: Path) -> Iterator[Path]:
    """All files below a folder that are videos by their suffix, in the order of their names; no hidden ones."""
    return files_below(folder, VIDEO_SUFFIXES)


def files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """All files with one of these suffixes (in lower case), in the order of their names; no hidden ones."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                yield Path(parent, name)


def rows_of_class_folders(root: Path, label: str, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> list[Row]:
    """Read a folder whose sub-folders are classes, or splits that hold the classes.

    Args:
        root: the folder.
        label: name of the label column to make.
        suffixes: of the files that count.
    Raises: DataError: no sub-folder holds a video, or splits and other folders with videos stand side by side.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = [folder for folder in folders if is_known_split(folder.name)]
    groups: list[tuple[str | None, list[Path]]] = [(None, folders)]
    if splits:
        _check_only_splits(root, splits, [folder for folder in folders if folder not in splits], suffixes)
        groups = [(canonical_split(split.name), sorted(p for p in split.iterdir() if p.is_dir())) for split in splits]
    rows = [
        Row(path.relative_to(root).as_posix(), {label: folder.name}, split)
        for split, classes in groups
        for folder in classes
        for path in files_below(folder, suffixes)
    ]
    if not rows:
        raise DataError(
            root,
            "holds neither an annotation file nor a folder with videos",
            "manifest.jsonl, annotations.csv, train.csv or a sub-folder for each class",
        )
    return rows


def _check_only_splits(root: Path, splits: list[Path], others: list[Path], suffixes: frozenset[str]) -> None:
    """Folders named like splits may be splits or classes (a train on rails): beside others with videos nobody knows."""
    classes = [folder.name for folder in others if any(files_below(folder, suffixes))]
    if classes:
        names = ", ".join(folder.name for folder in splits)
        raise DataError(
            root,
            f"holds folders named like splits ({names}) beside other folders with videos ({', '.join(classes)})",
            "folders of splits only, or folders of classes only",
            f"If {names} are splits, move the others away or into them; if they are classes, rename them or move all "
            "folders into a folder named train.",
        )
