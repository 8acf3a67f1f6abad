"""stills_clips: clips that show two drawing styles, stills that show six. Do the stills teach the clips' model to see?

A clip's label is a glyph and a direction; training clips are drawn solid or in outline, one test set likewise, the
other in the four styles that only stills show. Setting of UniDual (arXiv 1906.03857).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import Color, canvas, draw_identity, paint_mask
from wholereel.datasets.worlds.styled_glyphs import SILHOUETTES, STYLES, draw_style_color, styled_mask

__all__ = ["StillsClips", "StillsClipsStills"]

REFERENCE_SIZE = 32
FRAMES = 8
SIDES = (12, 14)
SPEED = (1.5, 2.5)
MOVING = SILHOUETTES[:4]
WAYS = ("left", "right")
SEEN = tuple(STYLES.index(name) for name in ("solid", "outline"))
UNSEEN = tuple(style for style in range(len(STYLES)) if style not in SEEN)


@dataclass(frozen=True)
class StyledScene(Scene):
    """A glyph in a style.

    Args:
        label: class index.
        kind, style: indices into `SILHOUETTES` and `STYLES`.
        side: of the glyph's square, in pixels.
        x, y: left, top at half time, in pixels.
        velocity: pixels a frame to the right; 0 in stills.
        color: red, green, blue.
        paint_seed: of the rest.
    """

    label: int
    kind: int
    style: int
    side: int
    x: float
    y: float
    velocity: float
    color: Color
    paint_seed: int


@dataclass(frozen=True)
class StyledWorld(World[StyledScene]):
    """What stills and clips share: how a styled glyph is placed and painted."""

    frames: ClassVar[int]
    group_frames: ClassVar[int] = FRAMES

    size: int = REFERENCE_SIZE

    def __post_init__(self) -> None:
        check_size(self.size)

    def draw(
        self, place: tuple[int, str, int], label: int, kind: int, sign: int, styles: tuple[int, ...]
    ) -> StyledScene:
        """A scene of a kind; `sign` is the direction, 0 at rest. Place and style do not depend on the label."""
        seed, split, index = place
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        style = int(generator.choice(styles))
        unit = self.size / REFERENCE_SIZE
        side = round(unit * int(generator.integers(SIDES[0], SIDES[1] + 1)))
        speed = unit * float(generator.uniform(*SPEED))
        # The whole way is inside the picture in either direction, so the middle of the way is the same for both.
        margin = speed * (FRAMES - 1) / 2 if sign else 0.0
        x = float(generator.uniform(margin, self.size - side - margin))
        y = float(generator.uniform(0, self.size - side))
        color = draw_style_color(style, generator)
        return StyledScene(name, split, index, label, kind, style, side, x, y, sign * speed, color, paint_seed)

    def paint(self, scene: StyledScene) -> np.ndarray:
        """Returns: frames_THWC, uint8."""
        frames_THWC = canvas(scene.paint_seed, frames=self.frames, size=self.size)
        mask_HW = styled_mask(scene.kind, scene.style, scene.side)
        for step, frame_HWC in enumerate(frames_THWC):
            x = scene.x + scene.velocity * (step - (self.frames - 1) / 2)
            paint_mask(frame_HWC, mask_HW, x=round(x), y=round(scene.y), color=scene.color)
        return frames_THWC

    def truth(self, scene: StyledScene) -> dict[str, Any]:
        shown = {"glyph": SILHOUETTES[scene.kind], "style": STYLES[scene.style], "velocity": scene.velocity}
        return {"label": self.classes[scene.label], "meta": shown}

    def right(self, scene: StyledScene, prediction: Any) -> float:
        return float(prediction == scene.label)


@dataclass(frozen=True)
class StillsClips(StyledWorld):
    """Clips of eight frames; splits `test_seen` and `test_unseen` beside train and val.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "stills_clips"
    summary: ClassVar[str] = "which of 4 glyphs moves which way, drawn in 2 styles; tested in these and in 4 others"
    classes: ClassVar[tuple[str, ...]] = tuple(f"{glyph}_{way}" for glyph in MOVING for way in WAYS)
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 800, "val": 160, "test_seen": 300, "test_unseen": 300}
    companions: ClassVar[tuple[str, ...]] = ("stills_clips_stills",)
    frames: ClassVar[int] = FRAMES

    def sample(self, seed: int, split: str, index: int) -> StyledScene:
        label = self.balanced_label(seed, split, index)
        kind, way = divmod(label, len(WAYS))
        styles = UNSEEN if split == "test_unseen" else SEEN
        return self.draw((seed, split, index), label, kind, (-1, 1)[way], styles)

    def record(self, scene: StyledScene) -> Recording:
        return Recording(self.paint(scene))

    def ceilings(self) -> dict[str, float]:
        return {"video": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"video": lambda scene, generator: len(WAYS) * scene.kind + int(scene.velocity > 0)}

    def moments(self, scene: StyledScene) -> list[int]:
        return list(range(FRAMES))


@dataclass(frozen=True)
class StillsClipsStills(StyledWorld):
    """Single pictures of all eight glyphs in all six styles.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        conflict: the pictures are negatives, dark on light.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "stills_clips_stills"
    summary: ClassVar[str] = "which of 8 glyphs a picture shows, in 6 styles (for stills_clips; option conflict)"
    classes: ClassVar[tuple[str, ...]] = SILHOUETTES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 2000, "val": 160, "test": 500}
    frame_rate: ClassVar[int] = 0
    frames: ClassVar[int] = 1

    conflict: bool = False

    def sample(self, seed: int, split: str, index: int) -> StyledScene:
        label = self.balanced_label(seed, split, index)
        return self.draw((seed, split, index), label, label, 0, tuple(range(len(STYLES))))

    def record(self, scene: StyledScene) -> Recording:
        frames_THWC = self.paint(scene)
        return Recording(255 - frames_THWC if self.conflict else frames_THWC)

    def ceilings(self) -> dict[str, float]:
        return {"still": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"still": lambda scene, generator: scene.kind}
