"""What a two-second clip of `cue_probe` can show in its middle second: a flash of a hue, or a glyph at rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wholereel.datasets.worlds.event_world import Event
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.placement import draw_place

__all__ = [
    "ANSWERS",
    "CLIP_FRAMES",
    "CUE_NAMES",
    "FILLERS",
    "Flash",
    "draw_flash",
    "draw_shape",
    "flash_record",
    "paint_flash",
    "shape_record",
]

ANSWERS = 4
CLIP_FRAMES = 16
SHOWN = (4, 8)  # first frame in the clip, number of frames: the middle second
FILLERS = tuple(range(ANSWERS, len(NAMES)))  # kinds that no probe shows
CUE_NAMES = ("red", "green", "blue", "yellow")
HUES = ((220, 40, 40), (40, 200, 40), (50, 50, 230), (220, 200, 30))
HUE_JITTER = 30


@dataclass(frozen=True)
class Flash:
    """The whole picture takes on a hue for a second.

    Args:
        hue: 0..3, index into `CUE_NAMES`.
        clip: which clip of the stream.
        color: red, green, blue, 0..255: the hue with a little chance.
    """

    hue: int
    clip: int
    color: tuple[int, int, int]


def draw_flash(hue: int, clip: int, generator: np.random.Generator) -> Flash:
    """A hue's flash; its shade is drawn independently of all else."""
    red, green, blue = (np.array(HUES[hue]) + generator.integers(-HUE_JITTER, HUE_JITTER + 1, size=3)).tolist()
    return Flash(hue, clip, (min(red, 255), min(green, 255), min(blue, 255)))


def draw_shape(clip: int, kind: int, size: int, generator: np.random.Generator) -> Event:
    """A glyph of any colour, size and place in the middle second of a clip."""
    x, y, side, color = draw_place(size, generator)
    return Event(kind, clip, clip * CLIP_FRAMES + SHOWN[0], SHOWN[1], x, y, side, color)


def paint_flash(frames_THWC: np.ndarray, flash: Flash) -> None:
    """Mix the middle second of a clip half and half with the flash's colour, in place."""
    start = flash.clip * CLIP_FRAMES + SHOWN[0]
    shown = slice(start, start + SHOWN[1])
    mixed_THWC = (frames_THWC[shown].astype(np.uint16) + np.array(flash.color, np.uint16)) // 2
    frames_THWC[shown] = mixed_THWC.astype(np.uint8)


def flash_record(flash: Flash) -> dict[str, Any]:
    """A flash for the manifest."""
    return asdict(flash) | {"name": CUE_NAMES[flash.hue], "color": list(flash.color)}


def shape_record(shape: Event) -> dict[str, Any]:
    """A glyph for the manifest; `clip` is its clip."""
    return {
        "name": NAMES[shape.kind],
        "kind": shape.kind,
        "clip": shape.segment,
        "x": shape.x,
        "y": shape.y,
        "side": shape.side,
        "color": list(shape.color),
    }
