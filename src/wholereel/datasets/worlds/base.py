"""What a world is: a label model with known ceilings, drawn from a seed, that can be painted as video.

A world draws *scenes* (a label and the events that carry it); `render.py` paints them, `make.py` writes them to disk,
`verify.py` checks a folder. A subclass says which events a label has (`draw_events`), what a clip's events tell
(`clip_scores`), what all events tell (`video_label`) and the closed-form ceilings. Rules that keep the ceilings true
are on the page `docs/worlds.md`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from wholereel.datasets.worlds import render
from wholereel.errors import ConfigError

__all__ = ["PROFILES", "SPLITS", "Event", "Oracle", "Scene", "World", "oracle_accuracies"]

SPLITS: dict[str, int] = {"train": 0, "val": 1, "test": 2}
PROFILES: dict[str, Fraction] = {"smoke": Fraction(1, 20), "std": Fraction(1), "full": Fraction(10)}
SMALLEST_SPLIT = 16


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
class Scene:
    """Everything that determines one video.

    Args:
        id: 16 hexadecimal digits, random; the file's name.
        split, index: place in the world.
        label: class index.
        events: in order of time.
        paint_seed: of background, noise and distractor (drawn independently of the label).
    """

    id: str
    split: str
    index: int
    label: int
    events: tuple[Event, ...]
    paint_seed: int


Oracle = Callable[[Scene, np.random.Generator], int]
"""Predicts a scene's label from as much of its true events as its level may see; the generator breaks ties."""


@dataclass(frozen=True)
class World(ABC):
    """A generated data set; subclasses fill in the class variables and the four abstract methods.

    Args:
        size: side of the square canvas in pixels, even, at least 32. Glyphs and distractor grow with it.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    segments: ClassVar[int]
    std_sizes: ClassVar[Mapping[str, int]]
    version: ClassVar[int] = 1
    frame_rate: ClassVar[int] = 8
    segment_frames: ClassVar[int] = 24

    size: int = 64

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise ConfigError(f"size of a world's canvas must be even and at least 32, got {self.size}")

    @abstractmethod
    def draw_events(self, label: int, generator: np.random.Generator) -> tuple[Event, ...]:
        """Events of one video. Whatever is not the events' kind must be drawn independently of `label`."""

    @abstractmethod
    def clip_scores(self, events: Sequence[Event]) -> tuple[float, ...]:
        """K class scores of a one-segment clip that shows `events`: optimal alone, and when added up over clips."""

    @abstractmethod
    def video_label(self, events: Sequence[Event]) -> int:
        """The label, from the events of the whole video in order of time."""

    @abstractmethod
    def ceilings(self) -> dict[str, float]:
        """Best possible accuracy of each kind of system, in closed form; one key for each level of `oracle`."""

    @property
    def frame_count(self) -> int:
        """Frames of every video."""
        return self.segments * self.segment_frames

    def sizes(self, profile: str = "std") -> dict[str, int]:
        """Videos in each split: a share of the standard sizes, at least 16, rounded up to a multiple of K classes.

        Raises: ConfigError: unknown profile.
        """
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}")
        wanted = {split: max(SMALLEST_SPLIT, int(n * PROFILES[profile])) for split, n in self.std_sizes.items()}
        return {split: -(-n // len(self.classes)) * len(self.classes) for split, n in wanted.items()}

    def sample(self, seed: int, split: str, index: int) -> Scene:
        """Scene number `index` of a split: a pure function, so order and number of processes do not matter.

        The label comes from a stream of its own (`balanced_label`); the sample's generator is
        `PCG64(SeedSequence([seed, crc32(name), split id, index]))`.
        """
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        label = self.balanced_label(seed, split, index)
        generator = _generator(seed, self.name, SPLITS[split], index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        return Scene(f"{name:016x}", split, index, label, self.draw_events(label, generator), paint_seed)

    def balanced_label(self, seed: int, split: str, index: int) -> int:
        """Label of a sample: every block of K consecutive indices holds each of the K classes once, in random order.

        So a split whose size is a multiple of K is balanced exactly, whatever the size, and a small world is a prefix
        of a large one.
        """
        block, place = divmod(index, len(self.classes))
        order = _generator(seed, f"{self.name} labels", SPLITS[split], block).permutation(len(self.classes))
        return int(order[place])

    def render(self, scene: Scene) -> np.ndarray:
        """Paint a scene. Returns: frames_THWC, uint8 red, green, blue."""
        return render.render_scene(
            scene.events,
            scene.paint_seed,
            segments=self.segments,
            segment_frames=self.segment_frames,
            size=self.size,
        )

    def oracles(self) -> dict[str, Oracle]:
        """Predictors from the true events, by level: one random clip, sum of the clips' scores, all events together."""
        return {"clip": self._predict_from_clip, "sum": self._predict_from_sum, "video": self._predict_from_video}

    def oracle(self, level: str) -> Oracle:
        """The best predictor of a level (see `oracles`).

        Raises: ConfigError: the world has no such level.
        """
        table = self.oracles()
        if level not in table:
            raise ConfigError(f"world {self.name!r} has no oracle {level!r}; choose one of {', '.join(table)}")
        return table[level]

    def _segment_scores(self, scene: Scene, segment: int) -> np.ndarray:
        return np.asarray(self.clip_scores([event for event in scene.events if event.segment == segment]))

    def _predict_from_clip(self, scene: Scene, generator: np.random.Generator) -> int:
        segment = int(generator.integers(self.segments))
        return pick_largest(self._segment_scores(scene, segment), generator)

    def _predict_from_sum(self, scene: Scene, generator: np.random.Generator) -> int:
        total = sum(self._segment_scores(scene, segment) for segment in range(self.segments))
        return pick_largest(np.asarray(total), generator)

    def _predict_from_video(self, scene: Scene, generator: np.random.Generator) -> int:
        return self.video_label(scene.events)


def pick_largest(scores_K: np.ndarray, generator: np.random.Generator) -> int:
    """Index of the largest score; among equals a random one (otherwise ties would favour the first class)."""
    best = np.flatnonzero(scores_K >= scores_K.max() - 1e-9)
    return int(generator.choice(best))


def oracle_accuracies(world: World, *, samples: int, seed: int = 0) -> dict[str, float]:
    """Share of right predictions of each oracle over the first `samples` training scenes (no pixels are painted)."""
    right = dict.fromkeys(world.oracles(), 0)
    generator = np.random.default_rng([seed, 1])
    for index in range(samples):
        scene = world.sample(seed, "train", index)
        for level, predict in world.oracles().items():
            right[level] += predict(scene, generator) == scene.label
    return {level: count / samples for level, count in right.items()}


def _generator(seed: int, name: str, split_id: int, index: int) -> np.random.Generator:
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode()), split_id, index])
    return np.random.Generator(np.random.PCG64(sequence))
