"""Charades' annotations (`Charades_v1_test.csv`) and submissions, as far as its evaluation needs them.

Sources: gsig/charades-algorithms; `Charades_v1_localize.m` of the data set. K classes, N videos or moments of videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholereel.errors import DataError
from wholereel.evaluation.files.scores import Scores
from wholereel.evaluation.files.tables import read_columns

__all__ = ["MOMENTS", "AnnotatedVideos", "moment_id", "moment_rows", "moments", "read_videos", "video_targets"]

MOMENTS = 25  # evenly spaced points of a video that localisation is judged at


@dataclass(frozen=True)
class AnnotatedVideos:
    """Videos with timed actions.

    Args:
        ids: of the videos.
        seconds: length of each.
        actions: class, start and end in seconds, by video.
    """

    ids: tuple[str, ...]
    seconds: tuple[float, ...]
    actions: tuple[tuple[tuple[int, float, float], ...], ...]

    @property
    def highest_class(self) -> int:
        """-1 without any action."""
        return max((label for actions in self.actions for label, _, _ in actions), default=-1)


def read_videos(path: str | Path) -> AnnotatedVideos:
    """Read the table; `actions` is `c092 11.90 21.20;c147 0.00 12.60`, or empty.

    Raises: DataError: naming the video, an action or a length that cannot be read.
    """
    ids, texts, lengths = read_columns(path, ("id", "actions", "length"))
    actions = tuple(_actions(path, name, text) for name, text in zip(ids, texts, strict=True))
    try:
        seconds = tuple(float(length) for length in lengths)
    except ValueError as error:
        raise DataError(path, f"a length that is no number ({error})", "seconds") from None
    return AnnotatedVideos(tuple(ids), seconds, actions)


def _actions(path: str | Path, name: str, text: str) -> tuple[tuple[int, float, float], ...]:
    found = []
    for part in filter(None, text.split(";")):
        cells = part.split()
        try:
            label = int(cells[0].removeprefix("c"))
            if len(cells) != 3 or label < 0:
                raise ValueError(part)
            found.append((label, float(cells[1]), float(cells[2])))
        except (ValueError, IndexError):
            raise DataError(path, f"the action {part!r} of video {name}", "such as c092 11.90 21.20") from None
    return tuple(found)


def video_targets(videos: AnnotatedVideos, classes: int) -> np.ndarray:
    """Classes that occur anywhere in a video: bool (N, K)."""
    target_NK = np.zeros((len(videos.ids), classes), dtype=bool)
    for row, actions in enumerate(videos.actions):
        target_NK[row, [label for label, _, _ in actions]] = True
    return target_NK


def moments(videos: AnnotatedVideos, classes: int) -> tuple[list[str], np.ndarray]:
    """Ids and classes of the points `n / 25 * length`, n = 0..24, of every video; both ends of an action belong to it.

    (For frames of a clip the rule is strict; the evaluator of localisation is not.)
    """
    target_NK = np.zeros((len(videos.ids) * MOMENTS, classes), dtype=bool)
    ids = []
    for row, (name, length, actions) in enumerate(zip(videos.ids, videos.seconds, videos.actions, strict=True)):
        times = np.arange(MOMENTS) / MOMENTS * length
        ids += [moment_id(name, point) for point in range(MOMENTS)]
        for label, start, end in actions:
            target_NK[row * MOMENTS : (row + 1) * MOMENTS, label] |= (start <= times) & (times <= end)
    return ids, target_NK


def moment_id(video: str, point: int) -> str:
    """Name of a moment; `point` counts from 0."""
    return f"{video}-{point:03d}"


def moment_rows(path: str | Path) -> Scores:
    """Read the submission of localisation: lines `id point score ...`, points from 0 or (as published) from 1.

    Raises: DataError: a line that cannot be read, or a moment twice.
    """
    found: list[tuple[str, int, list[float]]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells:
            continue
        try:
            found.append((cells[0], int(cells[1]), [float(cell) for cell in cells[2:]]))
        except (ValueError, IndexError) as error:
            raise DataError(path, f"line {number}: {error}", "an id, a point and scores") from None
    first = min((point for _, point, _ in found), default=0)
    ids = tuple(moment_id(name, point - (first > 0)) for name, point, _ in found)
    if len({len(row) for _, _, row in found}) > 1:
        raise DataError(path, "lines with different numbers of scores", "one score a class")
    if len(set(ids)) != len(ids):
        raise DataError(path, f"{len(ids) - len(set(ids))} moments occur more than once", "each once")
    return Scores(str(path), ids, {"scores": np.array([row for _, _, row in found], dtype=np.float64)})
