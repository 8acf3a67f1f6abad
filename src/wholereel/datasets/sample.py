"""What every annotation format becomes: samples with labels, and where a set has them boxes, poses and timed events.

J joints. Not here: reading and writing manifests (`manifest.py`), the JSON form of all this (`sample_json.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholereel.datasets.mirror import Mirror

__all__ = ["Box", "Event", "Pose", "Sample", "Manifest"]


@dataclass(frozen=True, slots=True)
class Box:
    """A person or thing at one moment.

    Args:
        seconds: time of the key frame after the first frame of the file.
        xyxy: left, top, right, bottom as fractions of width and height, in [0, 1].
        labels: class indices of the label column `label`, increasing; may be empty.
        track: identity within the video, or `None`.
        score: confidence of the detector that found it; `None` = annotated by people.
    """

    seconds: float
    xyxy: tuple[float, float, float, float]
    labels: tuple[int, ...] = ()
    track: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a part of a video.

    Args:
        label: class index of the label column `label`.
        start, end: seconds after the first frame (the start may lie before it). A frame at time t shows it if
            start < t < end, strictly.
    """

    label: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Pose:
    """One person's joints in one frame.

    Args:
        frame: index of the frame in the video, from 0.
        joints: J triples x, y (pixels of the stored picture) and visible (1, or 0 = annotated as covered); `None` where
            a joint is not annotated.
        head, box: left, top, right, bottom in pixels of the head and of the person, or `None`.
        track: identity within the video, or `None`.
        score: confidence; `None` = annotated by people.
    """

    frame: int
    joints: tuple[tuple[float, float, float] | None, ...]
    head: tuple[float, float, float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    track: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated video or part of a video.

    Args:
        id: unique within its split.
        path: the file; or a folder of numbered pictures, then with a `frame_rate`.
        start, end: seconds after the first frame; `None` = beginning, end.
        split: `None` where the source knows no splits.
        labels: class index by label column, or several (multi-label). Columns may be missing in test sets.
        key_seconds: time of the frame that is judged (and around which a clip is read), for sets of key frames.
        boxes: in the order of the source.
        events: what happens when, for multi-label sets whose clips have labels of their own.
        poses: in the order of the source.
        frame_rate: pictures per second of a folder of pictures; files know their own.
        meta: anything else that JSON can hold (participant, group, observed seconds, ignored regions).
    """

    id: str
    path: Path
    start: float | None
    end: float | None
    split: str | None
    labels: Mapping[str, int | tuple[int, ...]]
    key_seconds: float | None = None
    boxes: tuple[Box, ...] = ()
    events: tuple[Event, ...] = ()
    poses: tuple[Pose, ...] = ()
    frame_rate: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Samples and what their labels mean.

    Args:
        samples: in the order of the source; those read from files are a `SampleTable`, small and the same everywhere.
        classes: names by index, by label column; of the whole source, not of the chosen split only.
        root: folder that the paths are relative to.
        multi_label: labels are tuples of class indices, possibly empty.
        mirror: what flips from left to right do to labels and joints.
        dropped: files that the source lists and that do not exist (published sets only; elsewhere a missing file is an
            error when it is read).
    """

    samples: Sequence[Sample]
    classes: Mapping[str, tuple[str, ...]]
    root: Path
    multi_label: bool = False
    dropped: tuple[str, ...] = ()
    mirror: Mirror = field(default_factory=Mirror)

    def __len__(self) -> int:
        return len(self.samples)
