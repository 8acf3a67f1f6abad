"""distinit_transfer: can teachers of stills teach a video network about clips that nobody labelled?

`stills_objects` (eight glyphs) and `stills_scenes` (four textures) train two teachers; `unlabelled_mix` shows one or
two moving glyphs on a texture and has no labels; `distinit_transfer` itself is `motion_objects` with eight clips a
class to learn from. Setting of DistInit (arXiv 1901.09244).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds import render
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.datasets.worlds.motion_objects import FRAMES, MotionObjects
from wholereel.datasets.worlds.motions import SIDES, VERBS, Mover, draw_mover, paint_mover
from wholereel.datasets.worlds.painting import Color, canvas, draw_color, draw_identity, paint_mask
from wholereel.datasets.worlds.render import scaled
from wholereel.datasets.worlds.textures import TEXTURES, texture

__all__ = ["DistInitTransfer", "StillsObjects", "StillsScenes", "UnlabelledMix"]


@dataclass(frozen=True)
class DistInitTransfer(MotionObjects):
    """The target: motion_objects with few training clips (and other draws)."""

    name: ClassVar[str] = "distinit_transfer"
    summary: ClassVar[str] = "motion_objects with 8 training clips a class, after learning from teachers of stills"
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 128, "val": 160, "test": 640}
    companions: ClassVar[tuple[str, ...]] = ("stills_objects", "stills_scenes", "unlabelled_mix")


@dataclass(frozen=True)
class ObjectScene(Scene):
    """A picture of a glyph: class index, left, top and side of its square, colour, and the seed of the rest."""

    label: int
    x: int
    y: int
    side: int
    color: Color
    paint_seed: int


@dataclass(frozen=True)
class StillsObjects(World[ObjectScene]):
    """One of eight glyphs on the usual background.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "stills_objects"
    summary: ClassVar[str] = "which of 8 glyphs a picture shows (a teacher for distinit_transfer)"
    classes: ClassVar[tuple[str, ...]] = NAMES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 1600, "val": 160, "test": 400}
    frame_rate: ClassVar[int] = 0
    group_frames: ClassVar[int] = 1

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> ObjectScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        side = round(scaled(generator.uniform(*SIDES), self.size))
        x, y = (int(n) for n in generator.integers(0, self.size - side + 1, size=2))
        return ObjectScene(name, split, index, label, x, y, side, draw_color(generator), paint_seed)

    def record(self, scene: ObjectScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=1, size=self.size)
        paint_mask(frames_THWC[0], glyph_mask(scene.label, scene.side), x=scene.x, y=scene.y, color=scene.color)
        return Recording(frames_THWC)

    def truth(self, scene: ObjectScene) -> dict[str, Any]:
        return {"label": self.classes[scene.label]}

    def right(self, scene: ObjectScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"still": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"still": lambda scene, generator: scene.label}


@dataclass(frozen=True)
class TextureScene(Scene):
    """A picture of a texture: class index, and the seed of the rest."""

    label: int
    paint_seed: int


@dataclass(frozen=True)
class StillsScenes(World[TextureScene]):
    """One of four textures with the grey square on it.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "stills_scenes"
    summary: ClassVar[str] = "which of 4 textures a picture shows (a teacher for distinit_transfer)"
    classes: ClassVar[tuple[str, ...]] = TEXTURES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 800, "val": 80, "test": 200}
    frame_rate: ClassVar[int] = 0
    group_frames: ClassVar[int] = 1

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> TextureScene:
        label = self.balanced_label(seed, split, index)
        name, paint_seed = draw_identity(generator_of(seed, self.name, split, index))
        return TextureScene(name, split, index, label, paint_seed)

    def record(self, scene: TextureScene) -> Recording:
        return Recording(textured_canvas(scene.label, scene.paint_seed, frames=1, size=self.size))

    def truth(self, scene: TextureScene) -> dict[str, Any]:
        return {"label": self.classes[scene.label]}

    def right(self, scene: TextureScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"still": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"still": lambda scene, generator: scene.label}


@dataclass(frozen=True)
class MixScene(Scene):
    """A clip: texture, the glyphs that move on it, and the seed of the rest."""

    texture: int
    movers: tuple[Mover, ...]
    paint_seed: int


@dataclass(frozen=True)
class UnlabelledMix(World[MixScene]):
    """Clips without labels: one or two of eight glyphs, in any of four motions, on any of four textures.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "unlabelled_mix"
    summary: ClassVar[str] = "clips of 1 or 2 moving glyphs on textures, without labels (for distinit_transfer)"
    classes: ClassVar[tuple[str, ...]] = ()
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 2000}
    group_frames: ClassVar[int] = FRAMES

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> MixScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = draw_identity(generator)
        ground, count = int(generator.integers(len(TEXTURES))), int(generator.integers(1, 3))
        movers = []
        for _ in range(count):
            kind, verb = int(generator.integers(len(NAMES))), int(generator.integers(len(VERBS)))
            movers.append(draw_mover(kind, verb, size=self.size, frames=FRAMES, generator=generator))
        return MixScene(name, split, index, ground, tuple(movers), paint_seed)

    def record(self, scene: MixScene) -> Recording:
        frames_THWC = textured_canvas(scene.texture, scene.paint_seed, frames=FRAMES, size=self.size)
        for mover in scene.movers:
            paint_mover(frames_THWC, mover)
        return Recording(frames_THWC)

    def truth(self, scene: MixScene) -> dict[str, Any]:
        """Nothing: what the clips show stays unknown to whoever trains on them."""
        return {}

    def ceilings(self) -> dict[str, float]:
        return {}

    def oracles(self) -> dict[str, Oracle]:
        return {}


def textured_canvas(kind: int, paint_seed: int, *, frames: int, size: int) -> np.ndarray:
    """A texture with the wandering square on it. Returns: frames_THWC, uint8."""
    frames_THWC = np.repeat(texture(kind, paint_seed, size)[None], frames, axis=0)
    render.paint_distractor(frames_THWC, np.random.default_rng([paint_seed, 1]))
    return frames_THWC
