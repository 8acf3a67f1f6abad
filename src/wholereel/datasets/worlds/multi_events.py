"""multi_events: which of twelve things does a video show? Any number of them, each at its own time; Charades' form.

For the path of several labels a video. No claim hangs on it: the union of what the clips show is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.charades_files import write_charades_files
from wholereel.datasets.worlds.event_world import Event, check_size, event_record
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.placement import draw_place
from wholereel.datasets.worlds.render import render_scene

__all__ = ["MultiEvents", "MultiEventScene", "class_of", "seconds_of"]

FRAME_RATE = 8
KINDS = 6
WARM, COOL = 0, 1
CLASSES = tuple(f"{group} {kind}" for kind in NAMES[:KINDS] for group in ("warm", "cool"))
SLOTS, SLOT_FRAMES = len(CLASSES), 20
PRESENT = 0.25
SHOWN = (8, 16)  # frames
STRONG, MIDDLE, WEAK = (200, 255), (60, 180), (20, 80)


@dataclass(frozen=True)
class MultiEventScene(Scene):
    """Half a minute.

    Args:
        events: in order of time; each in a slot of its own, all of different classes.
        paint_seed: of background, noise and distractor.
    """

    events: tuple[Event, ...]
    paint_seed: int


@dataclass(frozen=True)
class MultiEvents(World[MultiEventScene]):
    """Videos of 30 s; each of the twelve classes occurs with probability 1/4, independently of the others.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    """

    name: ClassVar[str] = "multi_events"
    summary: ClassVar[str] = "which of 12 glyphs in warm or cool colours a video shows (several labels; Charades' form)"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 400, "val": 80, "test": 160}
    group_frames: ClassVar[int] = SLOT_FRAMES
    balanced: ClassVar[bool] = False

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> MultiEventScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        present = np.flatnonzero(generator.random(len(CLASSES)) < PRESENT).tolist()
        slots = generator.permutation(SLOTS).tolist()
        events = [self._draw_event(label, slots[label], generator) for label in present]
        return MultiEventScene(f"{name:016x}", split, index, tuple(sorted(events, key=lambda e: e.start)), paint_seed)

    def record(self, scene: MultiEventScene) -> Recording:
        frames_THWC = render_scene(
            scene.events, scene.paint_seed, segments=SLOTS, segment_frames=SLOT_FRAMES, size=self.size
        )
        return Recording(frames_THWC)

    def truth(self, scene: MultiEventScene) -> dict[str, Any]:
        return {
            "label": [CLASSES[label] for label in sorted(map(class_of, scene.events))],
            "events": [[class_of(event), *seconds_of(event)] for event in scene.events],
            "meta": {"shown": [event_record(event, FRAME_RATE) for event in scene.events]},
        }

    def ceilings(self) -> dict[str, float]:
        return {"union_of_clips": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"union_of_clips": union_of_clips}

    def right(self, scene: MultiEventScene, prediction: Any) -> float:
        """1 for exactly the classes that occur."""
        return float(prediction == {class_of(event) for event in scene.events})

    def export(self, folder: Path, scenes: Iterable[MultiEventScene]) -> None:
        rows = [
            (scene.split, scene.id, [(class_of(event), *seconds_of(event)) for event in scene.events])
            for scene in scenes
        ]
        write_charades_files(folder / "official", rows, CLASSES, SLOTS * SLOT_FRAMES / FRAME_RATE)

    def moments(self, scene: MultiEventScene) -> list[int]:
        """Each event, at most eight, else the beginnings of slots without one."""
        shown = [event.start for event in scene.events]
        used = {event.segment for event in scene.events}
        empty = [slot * SLOT_FRAMES for slot in range(SLOTS) if slot not in used]
        return sorted((shown + empty)[:8])

    def _draw_event(self, label: int, slot: int, generator: np.random.Generator) -> Event:
        frames = int(generator.integers(SHOWN[0], SHOWN[1] + 1))
        start = slot * SLOT_FRAMES + int(generator.integers(1, SLOT_FRAMES - frames))
        x, y, side, _ = draw_place(self.size, generator)
        strong, middle, weak = (int(generator.integers(low, high + 1)) for low, high in (STRONG, MIDDLE, WEAK))
        kind, group = divmod(label, 2)
        color = (strong, middle, weak) if group == WARM else (weak, middle, strong)
        return Event(kind, slot, start, frames, x, y, side, color)


def class_of(event: Event) -> int:
    """Class index: kind and group of colours."""
    red, _, blue = event.color
    return 2 * event.kind + (WARM if red > blue else COOL)


def seconds_of(event: Event) -> tuple[float, float]:
    """Beginning and end."""
    return event.start / FRAME_RATE, (event.start + event.frames) / FRAME_RATE


def union_of_clips(scene: MultiEventScene, generator: np.random.Generator) -> set[int]:
    """All classes that some clip shows."""
    return {class_of(event) for slot in range(SLOTS) for event in scene.events if event.segment == slot}
