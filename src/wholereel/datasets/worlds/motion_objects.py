"""motion_objects: which of four motions, by which of four glyphs? Needs motion and appearance both.

Without motion 1/4 of the sixteen pairs are right, without appearance 1/4. With the option `label_noise` a share of the
labels is drawn at random: a set that can be learned by heart, for the gap between training and test (CSN, arXiv
1904.02811). Target of DistInit (arXiv 1901.09244) and of the hashtag study (arXiv 1905.00561).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.motions import VERBS, Mover, draw_mover, paint_mover
from wholereel.datasets.worlds.painting import canvas, draw_identity
from wholereel.errors import ConfigError

__all__ = ["NOUNS", "PAIRS", "MotionObjects", "MoverScene"]

NOUNS = NAMES[:4]
PAIRS = tuple(f"{verb}_{noun}" for verb in VERBS for noun in NOUNS)
FRAMES = 16


@dataclass(frozen=True)
class MoverScene(Scene):
    """A video: class index as written in the manifest, the glyph that moves, and the seed of the rest."""

    label: int
    mover: Mover
    paint_seed: int

    @property
    def true_label(self) -> int:
        """Class index of what is shown."""
        return self.mover.verb * len(NOUNS) + self.mover.kind


@dataclass(frozen=True)
class MotionObjects(World[MoverScene]):
    """Sixteen frames, all intra; label columns `label` (pairs), `verb` and `noun` (of what is shown).

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        label_noise: share of videos whose `label` is drawn from all classes, the true one included.
    Raises: ConfigError: `size` is odd or below 32, `label_noise` outside 0..1.
    """

    name: ClassVar[str] = "motion_objects"
    summary: ClassVar[str] = "which of 4 motions by which of 4 glyphs (motion and appearance are both needed)"
    classes: ClassVar[tuple[str, ...]] = PAIRS
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 640, "val": 160, "test": 640}
    group_frames: ClassVar[int] = 1
    # What is shown is balanced exactly; the written labels are so without noise only.
    balanced: ClassVar[bool] = False

    size: int = 64
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(f"label_noise of {self.name} must be in 0..1, got {self.label_noise}")

    @property
    def block(self) -> int:
        return len(PAIRS)

    def label_spaces(self) -> dict[str, tuple[str, ...]]:
        return {"label": PAIRS, "verb": VERBS, "noun": NOUNS}

    def sample(self, seed: int, split: str, index: int) -> MoverScene:
        shown = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        verb, noun = divmod(shown, len(NOUNS))
        mover = draw_mover(noun, verb, size=self.size, frames=FRAMES, generator=generator)
        # Drawn last: the pixels are the same with and without noise.
        changed, other = generator.random() < self.label_noise, int(generator.integers(len(PAIRS)))
        return MoverScene(name, split, index, other if changed else shown, mover, paint_seed)

    def record(self, scene: MoverScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=FRAMES, size=self.size)
        paint_mover(frames_THWC, scene.mover)
        return Recording(frames_THWC)

    def truth(self, scene: MoverScene) -> dict[str, Any]:
        return {
            "label": PAIRS[scene.label],
            "verb": VERBS[scene.mover.verb],
            "noun": NOUNS[scene.mover.kind],
            "meta": {"shown": PAIRS[scene.true_label], "side": scene.mover.side, "x": scene.mover.x},
        }

    def right(self, scene: MoverScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        """Of sixteen classes: from one frame, from motion without form, from the video."""
        video = 1 - self.label_noise + self.label_noise / len(PAIRS)
        part = (1 - self.label_noise) / 4 + self.label_noise / len(PAIRS)
        return {"frame": part, "motion": part, "video": video}

    def oracles(self) -> dict[str, Oracle]:
        def from_frame(scene: MoverScene, generator: np.random.Generator) -> int:
            return int(generator.integers(len(VERBS))) * len(NOUNS) + scene.mover.kind

        def from_motion(scene: MoverScene, generator: np.random.Generator) -> int:
            return scene.mover.verb * len(NOUNS) + int(generator.integers(len(NOUNS)))

        return {
            "frame": from_frame,
            "motion": from_motion,
            "video": lambda scene, generator: scene.true_label,
        }

    def moments(self, scene: MoverScene) -> list[int]:
        return list(range(0, FRAMES, 2))
