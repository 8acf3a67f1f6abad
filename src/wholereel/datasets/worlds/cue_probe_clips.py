"""cue_probe_clips: trimmed two-second clips of the cues, probes and fillers of `cue_probe`, for pre-training.

The clips look like those of the streams. Classes: four hues, four shapes, then `filler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import Event, check_size
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.render import render_scene
from wholereel.datasets.worlds.stream_clips import (
    ANSWERS,
    CLIP_FRAMES,
    CUE_NAMES,
    FILLERS,
    Flash,
    draw_flash,
    draw_shape,
    flash_record,
    paint_flash,
    shape_record,
)

__all__ = ["CueProbeClips", "CueProbeClipScene"]


@dataclass(frozen=True)
class CueProbeClipScene(Scene):
    """One clip: a flash or a glyph.

    Args:
        label: class index.
        flash, shape: one of them.
        paint_seed: of background, noise and distractor.
    """

    label: int
    flash: Flash | None
    shape: Event | None
    paint_seed: int


@dataclass(frozen=True)
class CueProbeClips(World[CueProbeClipScene]):
    """What a clip shows. Ceiling 1: nothing covers it.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    """

    name: ClassVar[str] = "cue_probe_clips"
    summary: ClassVar[str] = "which cue, which probe, or a filler: trimmed clips (companion of cue_probe)"
    classes: ClassVar[tuple[str, ...]] = (
        *(f"cue_{hue}" for hue in CUE_NAMES),
        *(f"probe_{NAMES[kind]}" for kind in range(ANSWERS)),
        "filler",
    )
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 1800, "val": 225, "test": 450}
    group_frames: ClassVar[int] = CLIP_FRAMES

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> CueProbeClipScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        flash = draw_flash(label, 0, generator) if label < ANSWERS else None
        filler = int(generator.choice(FILLERS))
        kind = label - ANSWERS if label < 2 * ANSWERS else filler
        shape = None if flash else draw_shape(0, kind, self.size, generator)
        return CueProbeClipScene(f"{name:016x}", split, index, label, flash, shape, paint_seed)

    def record(self, scene: CueProbeClipScene) -> Recording:
        shapes = [scene.shape] if scene.shape else []
        frames_THWC = render_scene(shapes, scene.paint_seed, segments=1, segment_frames=CLIP_FRAMES, size=self.size)
        if scene.flash:
            paint_flash(frames_THWC, scene.flash)
        return Recording(frames_THWC)

    def truth(self, scene: CueProbeClipScene) -> dict[str, Any]:
        shown = flash_record(scene.flash) if scene.flash else shape_record(scene.shape) if scene.shape else {}
        return {"label": self.classes[scene.label], "meta": {"shown": shown}}

    def ceilings(self) -> dict[str, float]:
        return {"clip": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"clip": label_of_clip}

    def moments(self, scene: CueProbeClipScene) -> list[int]:
        return [0, CLIP_FRAMES // 2]


def label_of_clip(scene: CueProbeClipScene, generator: np.random.Generator) -> int:
    """Class index of what is shown."""
    if scene.flash:
        return scene.flash.hue
    return ANSWERS + min(scene.shape.kind, ANSWERS) if scene.shape else 2 * ANSWERS
