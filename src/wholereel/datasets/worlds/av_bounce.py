"""av_bounce: a bouncing ball with a tone at each bounce. Do picture and sound belong together?

The files are all in step; who trains or tests synchronisation makes negatives from them: sound of another video
(easy), of the same video half a second or more away (hard), 0.2 to 0.5 s away (super-hard). Colour, place and pitch
mean nothing, and the bounces have no rhythm, so one modality alone knows nothing. Setting of AVTS (arXiv 1807.00230).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.ball import BOUNCE_RATE, Ball, ball_frames, draw_ball, draw_touches
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import draw_identity
from wholereel.datasets.worlds.sound import SAMPLE_RATE, add_tone, noise, onset

__all__ = ["TONE_SECONDS", "AvBounce", "BounceScene", "bounce_meta", "draw_starts", "in_step"]

SECONDS = 6.0
CLIP_SECONDS = 2.75
"""Three intervals of at most 0.9 s fit, so every clip has at least three bounces."""
TONE_SECONDS, TONE_DECAY, TONE_AMPLITUDE = 0.04, 0.01, 0.5
HERTZ = (400.0, 2000.0)
SHIFTS = {"hard": (0.5, SECONDS - CLIP_SECONDS), "super_hard": (0.2, 0.5)}


@dataclass(frozen=True)
class BounceScene(Scene):
    """A video: the ball's flight, the pitch of its tone, and the seed of the rest."""

    ball: Ball
    hertz: float
    paint_seed: int


@dataclass(frozen=True)
class AvBounce(World[BounceScene]):
    """Six seconds, 16 frames a second, 16 kHz; no labels.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "av_bounce"
    summary: ClassVar[str] = "a ball with a tone at each bounce: are picture and sound in step?"
    classes: ClassVar[tuple[str, ...]] = ()
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 600, "val": 100, "test": 300}
    frame_rate: ClassVar[int] = BOUNCE_RATE
    group_frames: ClassVar[int] = BOUNCE_RATE
    companions: ClassVar[tuple[str, ...]] = ("bounce_rhythm", "bounce_material")

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> BounceScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = draw_identity(generator)
        ball = draw_ball(draw_touches(SECONDS, generator), generator)
        return BounceScene(name, split, index, ball, float(generator.uniform(*HERTZ)), paint_seed)

    def record(self, scene: BounceScene) -> Recording:
        wave_S = noise(scene.paint_seed, SECONDS)
        for touch in scene.ball.inside(SECONDS):
            tone = [(scene.hertz, TONE_AMPLITUDE)]
            add_tone(wave_S, onset(touch), tone, seconds=TONE_SECONDS, decay=TONE_DECAY)
        frames_THWC = ball_frames(scene.ball, scene.paint_seed, seconds=SECONDS, size=self.size)
        return Recording(frames_THWC, wave_S[None].astype(np.float32), SAMPLE_RATE)

    def truth(self, scene: BounceScene) -> dict[str, Any]:
        return {"meta": {"hertz": scene.hertz, **bounce_meta(scene.ball, SECONDS)}}

    def ceilings(self) -> dict[str, float]:
        """Accuracy of "in step or not" on as many positives as negatives, by kind of negatives."""
        return {"one_modality": 0.5, "easy": 1.0, "hard": 1.0, "super_hard": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        """Predictors that draw a pair of clips from the scene themselves and say whether they were right."""
        both = {kind: partial(_judge_both, kind=kind) for kind in ("easy", "hard", "super_hard")}
        return {"one_modality": _judge_sound_alone, **both}

    def right(self, scene: BounceScene, prediction: Any) -> float:
        return float(prediction)

    def moments(self, scene: BounceScene) -> list[int]:
        """Eight frames in a row of 1/8 s, in the middle: about one and a half bounces."""
        return list(range(40, 56, 2))


def bounce_meta(ball: Ball, seconds: float) -> dict[str, Any]:
    """Times of the bounces, and the samples at which their tones begin, for the manifest."""
    touches = ball.inside(seconds)
    flight = {key: value for key, value in asdict(ball).items() if key not in ("touches", "color")}
    return {
        "bounces": list(touches),
        "onsets": [onset(touch) for touch in touches],
        "ball": flight | {"color": list(ball.color)},
    }


def draw_starts(kind: str, generator: np.random.Generator) -> tuple[float, float]:
    """Starts of a negative pair in one video: of the picture, and of the sound `hard` or `super_hard` away from it.

    Uniform over all pairs at such a distance, so neither start alone tells that it belongs to a negative more than its
    place in the video does; and the place cannot be seen or heard.
    """
    low, high = SHIFTS[kind]
    last = SECONDS - CLIP_SECONDS
    while True:
        picture, sound = (float(t) for t in generator.uniform(0, last, size=2))
        if low <= abs(picture - sound) < high:
            return picture, sound


def in_step(seen: tuple[float, ...], heard: tuple[float, ...], *, tolerance: float) -> bool:
    """Whether two lists of times, each from the beginning of its clip, are the same bounces."""
    return len(seen) == len(heard) and all(abs(a - b) <= tolerance for a, b in zip(seen, heard, strict=True))


def _cut(ball: Ball, start: float) -> tuple[float, ...]:
    return tuple(touch - start for touch in ball.touches if start <= touch < start + CLIP_SECONDS)


def _draw_pair(
    scene: BounceScene, kind: str, generator: np.random.Generator
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Bounces seen, bounces heard, and whether the pair is a positive one."""
    if generator.integers(2):
        start = float(generator.uniform(0, SECONDS - CLIP_SECONDS))
        return _cut(scene.ball, start), _cut(scene.ball, start), True
    if kind == "easy":
        other = draw_ball(draw_touches(SECONDS, generator), generator)
        starts = generator.uniform(0, SECONDS - CLIP_SECONDS, size=2).tolist()
        return _cut(scene.ball, starts[0]), _cut(other, starts[1]), False
    picture, sound = draw_starts(kind, generator)
    return _cut(scene.ball, picture), _cut(scene.ball, sound), False


def _judge_both(scene: BounceScene, generator: np.random.Generator, *, kind: str) -> bool:
    seen, heard, positive = _draw_pair(scene, kind, generator)
    return in_step(seen, heard, tolerance=1 / SAMPLE_RATE) == positive


def _judge_sound_alone(scene: BounceScene, generator: np.random.Generator) -> bool:
    """Some rule that hears and does not see: an even number of tones means "in step"."""
    kind = ("easy", "hard", "super_hard")[int(generator.integers(3))]
    _, heard, positive = _draw_pair(scene, kind, generator)
    return (len(heard) % 2 == 0) == positive
