"""finemotion8: which way does half of a cloud of dots drift? One frame knows nothing, two neighbours know all.

Dots live for six frames and are born anywhere, so in each frame they are spread evenly whatever the direction. Half of
them move together by 2, 4 or 6 pixels a frame, the others step in random directions. Played backwards, the label turns
by 180 degrees. Six pixels a frame is more than a 3x3x3 kernel sees: the regime of the correlation operator of CorrNet
(arXiv 1906.03349). Extra letter: D dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import canvas, draw_identity
from wholereel.errors import ConfigError

__all__ = ["DIRECTIONS", "FineMotion8", "best_direction"]

FRAMES, DOTS, LIFE, COHERENCE, DOT_SIDE = 16, 260, 6, 0.5, 2
STEPS = (2, 4, 6)
GREYS = (200, 255)
DOT_STREAM = 2_000_000
# x to the right, y down, in the order of the clock from three.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "down_right": (1, 1),
    "down": (0, 1),
    "down_left": (-1, 1),
    "left": (-1, 0),
    "up_left": (-1, -1),
    "up": (0, -1),
    "up_right": (1, -1),
}


@dataclass(frozen=True)
class DotScene(Scene):
    """A video: class index, pixels a frame, and the seed of dots and canvas."""

    label: int
    step: int
    paint_seed: int


@dataclass(frozen=True)
class FineMotion8(World[DotScene]):
    """Sixteen frames, all intra.

    Args:
        size: side of the square canvas in pixels, even, at least 32. The number of dots grows with the area.
        step: pixels a frame, 2, 4 or 6; 0 = one of these, drawn for each video.
    Raises: ConfigError: `size` is odd or below 32, or another step.
    """

    name: ClassVar[str] = "finemotion8"
    summary: ClassVar[str] = "in which of 8 directions half of a cloud of dots drifts, by 2, 4 or 6 pixels a frame"
    classes: ClassVar[tuple[str, ...]] = tuple(DIRECTIONS)
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 1000, "val": 150, "test": 400}
    group_frames: ClassVar[int] = 1
    oracle_samples: ClassVar[int] = 300

    size: int = 64
    step: int = 0

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.step not in (0, *STEPS):
            raise ConfigError(f"step of finemotion8 must be 2, 4 or 6 pixels a frame, or 0 for all, got {self.step}")

    def sample(self, seed: int, split: str, index: int) -> DotScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        step = int(generator.choice(STEPS))
        return DotScene(name, split, index, label, self.step or step, paint_seed)

    def record(self, scene: DotScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=FRAMES, size=self.size)
        grey = int(np.random.default_rng([scene.paint_seed, DOT_STREAM]).integers(GREYS[0], GREYS[1] + 1))
        for frame_HWC, place_D2 in zip(frames_THWC, self.dots(scene), strict=True):
            for dy in range(DOT_SIDE):
                for dx in range(DOT_SIDE):
                    frame_HWC[(place_D2[:, 1] + dy) % self.size, (place_D2[:, 0] + dx) % self.size] = grey
        return Recording(frames_THWC)

    def dots(self, scene: DotScene) -> np.ndarray:
        """Left and top of each dot in each frame; the canvas is a torus. Returns: place_TD2, int64."""
        generator = np.random.default_rng([scene.paint_seed, DOT_STREAM + 1])
        count = round(DOTS * self.size**2 / 64**2)
        vectors_K2 = np.array([shift(label, scene.step) for label in range(len(DIRECTIONS))])
        place_D2 = generator.integers(0, self.size, size=(count, 2))
        age_D = generator.integers(0, LIFE, size=count)
        coherent_D = generator.random(count) < COHERENCE
        frames = []
        for _ in range(FRAMES):
            frames.append(place_D2)
            random_D2 = vectors_K2[generator.integers(0, len(DIRECTIONS), size=count)]
            moved_D2 = (place_D2 + np.where(coherent_D[:, None], vectors_K2[scene.label], random_D2)) % self.size
            born_D2 = generator.integers(0, self.size, size=(count, 2))
            born_D = age_D == LIFE - 1
            place_D2 = np.where(born_D[:, None], born_D2, moved_D2)
            coherent_D = np.where(born_D, generator.random(count) < COHERENCE, coherent_D)
            age_D = (age_D + 1) % LIFE
        return np.stack(frames)

    def truth(self, scene: DotScene) -> dict[str, Any]:
        return {"label": self.classes[scene.label], "meta": {"step": scene.step}}

    def right(self, scene: DotScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"frame": 1 / len(DIRECTIONS), "two_frames": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        def match(scene: DotScene, generator: np.random.Generator) -> int:
            first = int(generator.integers(FRAMES - 1))
            shown_HW = np.zeros((2, self.size, self.size))
            for which, place_D2 in enumerate(self.dots(scene)[first : first + 2]):
                shown_HW[which, place_D2[:, 1], place_D2[:, 0]] = 1
            return best_direction(*shown_HW)

        return {
            "frame": lambda scene, generator: int(generator.integers(len(DIRECTIONS))),
            "two_frames": match,
        }


def shift(label: int, step: int) -> tuple[int, int]:
    """Pixels a frame to the right and down, whole numbers; along diagonals the length is nearly `step`."""
    dx, dy = tuple(DIRECTIONS.values())[label]
    along = step if dx == 0 or dy == 0 else round(step / 2**0.5)
    return dx * along, dy * along


def best_direction(first_HW: np.ndarray, second_HW: np.ndarray) -> int:
    """The direction in which the first picture, moved by 2, 4 or 6 pixels, resembles the second most."""
    first_HW, second_HW = first_HW - first_HW.mean(), second_HW - second_HW.mean()
    # All shifts at once, over a torus.
    matched_HW = np.fft.ifft2(np.conj(np.fft.fft2(first_HW)) * np.fft.fft2(second_HW)).real
    scores_KN = [[matched_HW[dy, dx] for dx, dy in (shift(label, step) for step in STEPS)] for label in range(8)]
    return int(np.max(scores_KN, axis=1).argmax())
