"""Worlds of glyphs: a video has segments, and in some of them a glyph is shown at rest for a second.

A subclass says which events a label has (`draw_events`), what a clip's events tell (`clip_scores`), what all events
tell (`video_label`) and the closed-form ceilings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds import render
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of, pick_largest
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.errors import ConfigError

__all__ = ["Event", "EventScene", "EventWorld", "check_size", "event_record"]


@dataclass(frozen=True)
class Event:
    """A glyph that is shown, at rest, for a while inside one segment.

    Args:
        kind: 0..7, index into `glyphs.NAMES`.
        segment: which segment of the video.
        start, frames: first frame (counted from the beginning of the video) and number of frames.
        x, y, side: left, top and side of the glyph's square, in pixels.
        color: red, green, blue, 0..255.
    """

    kind: int
    segment: int
    start: int
    frames: int
    x: int
    y: int
    side: int
    color: tuple[int, int, int]


@dataclass(frozen=True)
class EventScene(Scene):
    """A video of glyphs.

    Args:
        label: class index.
        events: in order of time.
        paint_seed: of background, noise and distractor (drawn independently of the label).
    """

    label: int
    events: tuple[Event, ...]
    paint_seed: int


def check_size(size: int) -> None:
    """Refuse a canvas that cannot be encoded or is too small for the glyphs.

    Raises: ConfigError: `size` is odd or below 32.
    """
    if size < 32 or size % 2:
        raise ConfigError(f"size of a world's canvas must be even and at least 32, got {size}")


@dataclass(frozen=True)
class EventWorld(World[EventScene]):
    """A world of glyphs in segments.

    Args:
        size: side of the square canvas in pixels, even, at least 32. Glyphs and distractor grow with it.
    Raises: ConfigError: `size` is odd or below 32.
    """

    segments: ClassVar[int]
    group_frames: ClassVar[int] = 24

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    @abstractmethod
    def draw_events(self, label: int, generator: np.random.Generator) -> tuple[Event, ...]:
        """Events of one video. Whatever is not the events' kind must be drawn independently of `label`."""

    @abstractmethod
    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        """K class scores of a one-segment clip that shows `events`: optimal alone, and when added up over clips."""

    @abstractmethod
    def video_label(self, events: Sequence[Event]) -> int:
        """The label, from the events of the whole video in order of time."""

    @property
    def frame_count(self) -> int:
        """Frames of every video."""
        return self.segments * self.group_frames

    def sample(self, seed: int, split: str, index: int) -> EventScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        return EventScene(f"{name:016x}", split, index, label, self.draw_events(label, generator), paint_seed)

    def record(self, scene: EventScene) -> Recording:
        frames_THWC = render.render_scene(
            scene.events,
            scene.paint_seed,
            segments=self.segments,
            segment_frames=self.group_frames,
            size=self.size,
        )
        return Recording(frames_THWC)

    def truth(self, scene: EventScene) -> dict[str, Any]:
        events = [event_record(event, self.frame_rate) for event in scene.events]
        return {"label": self.classes[scene.label], "meta": {"events": events}}

    def right(self, scene: EventScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def oracles(self) -> dict[str, Oracle]:
        """Predictors from the true events, by level: one random clip, sum of the clips' scores, all events together."""
        return {"clip": self._predict_from_clip, "sum": self._predict_from_sum, "video": self._predict_from_video}

    def moments(self, scene: EventScene) -> list[int]:
        """One frame of each segment: where its event is shown, else its first."""
        shown = {event.segment: event.start for event in scene.events}
        return [shown.get(segment, segment * self.group_frames) for segment in range(self.segments)]

    def _segment_scores(self, scene: EventScene, segment: int) -> np.ndarray:
        return np.asarray(self.clip_scores([event for event in scene.events if event.segment == segment]))

    def _predict_from_clip(self, scene: EventScene, generator: np.random.Generator) -> int:
        segment = int(generator.integers(self.segments))
        return pick_largest(self._segment_scores(scene, segment), generator)

    def _predict_from_sum(self, scene: EventScene, generator: np.random.Generator) -> int:
        total = sum(self._segment_scores(scene, segment) for segment in range(self.segments))
        return pick_largest(np.asarray(total), generator)

    def _predict_from_video(self, scene: EventScene, generator: np.random.Generator) -> int:
        return self.video_label(scene.events)


def event_record(event: Event, frame_rate: int) -> dict[str, Any]:
    """An event for the manifest, with its name and its times in seconds."""
    return asdict(event) | {
        "name": NAMES[event.kind],
        "color": list(event.color),
        "seconds": [event.start / frame_rate, (event.start + event.frames) / frame_rate],
    }
