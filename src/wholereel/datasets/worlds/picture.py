"""Draw the page picture of the worlds: one still per glyph, and one frame per segment of one video of each world.

`python -m wholereel.datasets.worlds.picture docs/_static/worlds_overview.png`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.io import write_png

from wholereel.datasets.worlds.base import Scene, World
from wholereel.datasets.worlds.table import get_world

__all__ = ["draw_overview"]

GAP = 4
COLUMNS = 9


def draw_overview(path: str | Path, *, size: int = 64, seed: int = 0) -> None:
    """Write a PNG: the classes of `events8` in the first row, then videos of match8 (match, differ), pair6, order2."""
    clips = get_world("events8", size=size)
    rows = [[_event_frame(clips, _first(clips, label, seed)) for label in range(len(clips.classes))]]
    for name, label in (("match8", 1), ("match8", 0), ("pair6", 0), ("order2", 0), ("order2", 1)):
        world = get_world(name, size=size)
        rows.append(_segment_frames(world, _first(world, label, seed)))
    sheet = np.full((len(rows) * (size + GAP) + GAP, COLUMNS * (size + GAP) + GAP, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture_HWC in enumerate(pictures):
            y, x = GAP + row * (size + GAP), GAP + column * (size + GAP)
            sheet[y : y + size, x : x + size] = picture_HWC
    write_png(torch.from_numpy(sheet).permute(2, 0, 1), str(path))


def _first(world: World, label: int, seed: int) -> Scene:
    """The first test scene of a class; there is one in every block of K samples."""
    scenes = (world.sample(seed, "test", index) for index in range(len(world.classes)))
    return next(scene for scene in scenes if scene.label == label)


def _event_frame(world: World, scene: Scene) -> np.ndarray:
    return world.render(scene)[scene.events[0].start if scene.events else 0]


def _segment_frames(world: World, scene: Scene) -> list[np.ndarray]:
    """One frame of each segment: where its event is shown, else its first."""
    shown = {event.segment: event.start for event in scene.events}
    frames_THWC = world.render(scene)
    return [frames_THWC[shown.get(segment, segment * world.segment_frames)] for segment in range(world.segments)]


if __name__ == "__main__":
    draw_overview(sys.argv[1])
