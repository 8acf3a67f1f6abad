"""bounce_rhythm: four rhythms of a bouncing ball, without sound, and few labelled videos: downstream of av_bounce.

All rhythms have as many short intervals as long ones and begin anywhere in their period, so one frame, and even the
mean number of bounces, tells nothing. Order of intervals decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.av_bounce import bounce_meta
from wholereel.datasets.worlds.ball import BOUNCE_RATE, Ball, ball_frames, draw_ball
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import draw_identity

__all__ = ["RHYTHMS", "BounceRhythm", "rhythm_of"]

SECONDS = 6.0
SHORT, LONG = 0.42, 0.8
TEMPO = (0.9, 1.1)
RHYTHMS: dict[str, str] = {
    "short_long": "SL",
    "two_and_two": "SSLL",
    "three_and_three": "SSSLLL",
    "two_one_one_two": "SSLSLL",
}


@dataclass(frozen=True)
class RhythmScene(Scene):
    """A video: class index, flight, and the seed of the rest."""

    label: int
    ball: Ball
    paint_seed: int


@dataclass(frozen=True)
class BounceRhythm(World[RhythmScene]):
    """Which rhythm? One frame 1/4, the video 1.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "bounce_rhythm"
    summary: ClassVar[str] = "which of 4 rhythms a silent ball bounces in; 8 labelled videos a class (after av_bounce)"
    classes: ClassVar[tuple[str, ...]] = tuple(RHYTHMS)
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 32, "val": 40, "test": 200}
    frame_rate: ClassVar[int] = BOUNCE_RATE
    group_frames: ClassVar[int] = 1

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> RhythmScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        touches = draw_rhythm(tuple(RHYTHMS.values())[label], generator)
        return RhythmScene(name, split, index, label, draw_ball(touches, generator), paint_seed)

    def record(self, scene: RhythmScene) -> Recording:
        return Recording(ball_frames(scene.ball, scene.paint_seed, seconds=SECONDS, size=self.size))

    def truth(self, scene: RhythmScene) -> dict[str, Any]:
        meta = bounce_meta(scene.ball, SECONDS)
        del meta["onsets"]
        return {"label": self.classes[scene.label], "meta": meta}

    def right(self, scene: RhythmScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"frame": 1 / len(RHYTHMS), "video": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {
            "frame": lambda scene, generator: int(generator.integers(len(RHYTHMS))),
            "video": lambda scene, generator: rhythm_of(scene.ball.inside(SECONDS)),
        }


def draw_rhythm(pattern: str, generator: np.random.Generator) -> tuple[float, ...]:
    """Touches in a rhythm of a random tempo that begins at a moment of its period drawn uniformly."""
    tempo = generator.uniform(*TEMPO)
    lengths = [tempo * (SHORT if letter == "S" else LONG) for letter in pattern]
    times = [-float(generator.uniform(0, sum(lengths)))]
    place = 0
    while times[-1] <= 0 or times[-1] < SECONDS:
        times.append(times[-1] + lengths[place % len(lengths)])
        place += 1
    first = max(number for number, time in enumerate(times) if time <= 0)
    return tuple(times[first:])


def rhythm_of(touches: tuple[float, ...]) -> int:
    """The rhythm that fits the intervals between the touches (in letters: shorter or longer than the middle)."""
    lengths = np.diff(touches)
    letters = "".join("S" if length < (lengths.min() + lengths.max()) / 2 else "L" for length in lengths)
    fits = [label for label, pattern in enumerate(RHYTHMS.values()) if letters in pattern * 8]
    return fits[0] if len(fits) == 1 else -1
