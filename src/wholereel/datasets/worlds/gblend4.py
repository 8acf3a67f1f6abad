"""gblend4: three cues to see and three to hear, each right only more often than not; the best answer uses both.

Every video also has a hum of five out of 24 frequencies (42,504 sets), which means nothing and by which its sound can
be told from all others: audio is learned by heart faster than it is understood, the disease that Gradient-Blending
(arXiv 1905.12681) treats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of, pick_largest
from wholereel.datasets.worlds.event_world import Event, check_size
from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.datasets.worlds.painting import canvas, draw_color, draw_identity, paint_mask
from wholereel.datasets.worlds.render import scaled
from wholereel.datasets.worlds.sound import SAMPLE_RATE, add_hum, add_tone, noise, onset

__all__ = ["Gblend4", "bayes_accuracy"]

FRAME_RATE, SECONDS, CUE_FRAMES = 8, 8, 4
KINDS = tuple(NAMES.index(name) for name in ("disc", "plus", "ring", "cross"))
PITCHES = (400.0, 560.0, 784.0, 1098.0)
SEEN_RIGHT, HEARD_RIGHT = 0.6, 0.5
CUES = 3
HUM_HERTZ = tuple(1500.0 + 100.0 * step for step in range(24))
HUM_TONES, HUM_AMPLITUDE = 5, 0.05
CUE_SECONDS, CUE_DECAY, CUE_AMPLITUDE = 0.25, 0.15, 0.3
NOISE_DECIBEL = -60.0
SIDES = (16, 24)


@dataclass(frozen=True)
class Tone:
    """A cue to hear: class index of its pitch, first sample."""

    label: int
    start: int


@dataclass(frozen=True)
class BlendScene(Scene):
    """A video: class index, what is shown and heard in order of time, the hum, and the seed of the rest.

    The kinds of `seen` are class indices.
    """

    label: int
    seen: tuple[Event, ...]
    heard: tuple[Tone, ...]
    hum: tuple[float, ...]
    hum_phases: tuple[float, ...]
    paint_seed: int


@dataclass(frozen=True)
class Gblend4(World[BlendScene]):
    """Eight seconds of picture and sound, four classes.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "gblend4"
    summary: ClassVar[str] = "four classes from three unsure cues to see and three to hear; every video has its own hum"
    classes: ClassVar[tuple[str, ...]] = tuple(NAMES[kind] for kind in KINDS)
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 800, "val": 400, "test": 1000}
    frame_rate: ClassVar[int] = FRAME_RATE
    group_frames: ClassVar[int] = FRAME_RATE

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> BlendScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        hum = sorted(generator.permutation(len(HUM_HERTZ))[:HUM_TONES].tolist())
        phases = tuple(generator.random(HUM_TONES).tolist())
        seen = tuple(
            self._draw_event(second, _draw_cue(label, SEEN_RIGHT, generator), generator)
            for second in _draw_seconds(generator)
        )
        heard = tuple(
            Tone(_draw_cue(label, HEARD_RIGHT, generator), onset(second + generator.uniform(0.05, 0.7)))
            for second in _draw_seconds(generator)
        )
        return BlendScene(name, split, index, label, seen, heard, tuple(HUM_HERTZ[n] for n in hum), phases, paint_seed)

    def _draw_event(self, second: int, kind: int, generator: np.random.Generator) -> Event:
        start = second * FRAME_RATE + int(generator.integers(1, FRAME_RATE - CUE_FRAMES))
        side = round(scaled(int(generator.integers(SIDES[0], SIDES[1] + 1)), self.size))
        x, y = (int(n) for n in generator.integers(0, self.size - side + 1, size=2))
        return Event(kind, second, start, CUE_FRAMES, x, y, side, draw_color(generator))

    def record(self, scene: BlendScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=FRAME_RATE * SECONDS, size=self.size, group_frames=FRAME_RATE)
        for event in scene.seen:
            for frame_HWC in frames_THWC[event.start : event.start + event.frames]:
                paint_mask(
                    frame_HWC, glyph_mask(KINDS[event.kind], event.side), x=event.x, y=event.y, color=event.color
                )
        wave_S = noise(scene.paint_seed, SECONDS, decibel=NOISE_DECIBEL)
        add_hum(wave_S, scene.hum, scene.hum_phases, amplitude=HUM_AMPLITUDE)
        for tone in scene.heard:
            partials = [(PITCHES[tone.label], CUE_AMPLITUDE)]
            add_tone(wave_S, tone.start, partials, seconds=CUE_SECONDS, decay=CUE_DECAY)
        return Recording(frames_THWC, wave_S[None].astype(np.float32), SAMPLE_RATE)

    def truth(self, scene: BlendScene) -> dict[str, Any]:
        meta = {
            "seen": [{"class": self.classes[e.kind], "seconds": e.start / FRAME_RATE} for e in scene.seen],
            "heard": [{"class": self.classes[t.label], "seconds": t.start / SAMPLE_RATE} for t in scene.heard],
            "hum": list(scene.hum),
        }
        return {"label": self.classes[scene.label], "meta": meta}

    def right(self, scene: BlendScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        """The most probable class given the cues of one modality or of both: 0.712, 0.583, 0.798."""
        return {
            "video": bayes_accuracy([SEEN_RIGHT] * CUES),
            "audio": bayes_accuracy([HEARD_RIGHT] * CUES),
            "both": bayes_accuracy([SEEN_RIGHT] * CUES + [HEARD_RIGHT] * CUES),
        }

    def oracles(self) -> dict[str, Oracle]:
        def predict(
            scene: BlendScene, generator: np.random.Generator, *, seen: bool = False, heard: bool = False
        ) -> int:
            cues = [(e.kind, SEEN_RIGHT) for e in scene.seen if seen] + [
                (t.label, HEARD_RIGHT) for t in scene.heard if heard
            ]
            return pick_largest(_log_odds([kind for kind, _ in cues], [right for _, right in cues]), generator)

        return {
            "video": lambda scene, generator: predict(scene, generator, seen=True),
            "audio": lambda scene, generator: predict(scene, generator, heard=True),
            "both": lambda scene, generator: predict(scene, generator, seen=True, heard=True),
        }

    def moments(self, scene: BlendScene) -> list[int]:
        """One frame of each second: where a cue is shown, else its first."""
        shown = {event.segment: event.start for event in scene.seen}
        return [shown.get(second, second * FRAME_RATE) for second in range(SECONDS)]


def bayes_accuracy(rates: Sequence[float]) -> float:
    """Accuracy of the most probable of four classes, given cues that are right with these probabilities.

    The sum, over all outcomes of the cues, of the largest joint probability of outcome and class.
    """
    classes = len(KINDS)
    total = 0.0
    for outcome in product(range(classes), repeat=len(rates)):
        likelihood_K = np.ones(classes)
        for cue, rate in zip(outcome, rates, strict=True):
            likelihood_K *= np.where(np.arange(classes) == cue, rate, (1 - rate) / (classes - 1))
        total += float(likelihood_K.max()) / classes
    return total


def _log_odds(cues: Sequence[int], rates: Sequence[float]) -> np.ndarray:
    """Score of each class, up to a constant. Returns: scores_K."""
    scores_K = np.zeros(len(KINDS))
    for cue, rate in zip(cues, rates, strict=True):
        scores_K[cue] += np.log(rate * (len(KINDS) - 1) / (1 - rate))
    return scores_K


def _draw_cue(label: int, right: float, generator: np.random.Generator) -> int:
    """The true class with probability `right`, else one of the three others."""
    other = int((label + generator.integers(1, len(KINDS))) % len(KINDS))
    return label if generator.random() < right else other


def _draw_seconds(generator: np.random.Generator) -> list[int]:
    """Three different seconds of the video, in order."""
    chosen: list[int] = generator.permutation(SECONDS)[:CUES].tolist()
    return sorted(chosen)
