"""ava_rooms_clips: trimmed clips of the rooms of `ava_rooms` with one key frame, for pre-training.

They look like the rooms. Most people touch an object, shown in the second before the key frame or in the one that
begins with it; the labels of a box are the visible action and the kind that is touched, if any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.room_painting import box_record, paint_room
from wholereel.datasets.worlds.room_schedule import (
    ACTIONS,
    FRAME_RATE,
    KINDS,
    LANES,
    STEP,
    X_RANGE,
    Agent,
    Carry,
    Deed,
    draw_color,
    opposite,
)

__all__ = ["AvaRoomsClips", "RoomClipScene"]

SECONDS = 2
KEY = 1
TOUCHING = 0.8  # share of the people
CLASSES = (*ACTIONS, *(f"touch {kind}" for kind in KINDS))


@dataclass(frozen=True)
class RoomClipScene(Scene):
    """Two seconds in a room.

    Args:
        agents: each with one deed, and at most one carry, that begins at the key frame or a second later.
        paint_seed: of what is painted without meaning.
    """

    agents: tuple[Agent, ...]
    paint_seed: int


@dataclass(frozen=True)
class AvaRoomsClips(World[RoomClipScene]):
    """What people in a clip do and touch. Ceiling 1: nobody covers anybody, and the key frame's clip shows it."""

    name: ClassVar[str] = "ava_rooms_clips"
    summary: ClassVar[str] = "what people do and touch, by boxes in trimmed clips (companion of ava_rooms)"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 3000, "val": 200, "test": 200}
    group_frames: ClassVar[int] = FRAME_RATE
    balanced: ClassVar[bool] = False

    def sample(self, seed: int, split: str, index: int) -> RoomClipScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        lanes = sorted(generator.permutation(LANES)[: generator.integers(2, LANES + 1)].tolist())
        agents = tuple(_draw_agent(lane, generator) for lane in lanes)
        return RoomClipScene(f"{name:016x}", split, index, agents, paint_seed)

    def record(self, scene: RoomClipScene) -> Recording:
        return Recording(paint_room(scene.agents, scene.paint_seed, seconds=SECONDS))

    def truth(self, scene: RoomClipScene) -> dict[str, Any]:
        labels = [_labels_of(agent) for agent in scene.agents]
        touched = [
            [asdict(carry) | {"name": KINDS[carry.kind], "color": list(carry.color)} for carry in agent.carries]
            for agent in scene.agents
        ]
        return {
            "label": [CLASSES[label] for label in sorted({label for found in labels for label in found})],
            "key_seconds": float(KEY),
            "boxes": [
                box_record(agent, KEY, found, track)
                for track, (agent, found) in enumerate(zip(scene.agents, labels, strict=True))
            ],
            "meta": {"touched": touched},
        }

    def ceilings(self) -> dict[str, float]:
        return {"clip": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        """Labels of each box, from the deeds and the objects."""
        return {"clip": labels_of_clip}

    def right(self, scene: RoomClipScene, prediction: Any) -> float:
        """Share of boxes all of whose labels are named, and no other."""
        boxes = self.truth(scene)["boxes"]
        return float(np.mean([set(box["labels"]) == set(found) for box, found in zip(boxes, prediction, strict=True)]))

    def moments(self, scene: RoomClipScene) -> list[int]:
        """Half a second around the key frame."""
        return [KEY * FRAME_RATE - FRAME_RATE // 2, KEY * FRAME_RATE]


def labels_of_clip(scene: RoomClipScene, generator: np.random.Generator) -> list[list[int]]:
    """Class indices of each box."""
    return [_labels_of(agent) for agent in scene.agents]


def _labels_of(agent: Agent) -> list[int]:
    return [agent.deeds[0].action, *(len(ACTIONS) + carry.kind for carry in agent.carries)]


def _draw_agent(lane: int, generator: np.random.Generator) -> Agent:
    """The kind is drawn last."""
    frames = SECONDS * FRAME_RATE
    x = int(generator.integers(X_RANGE[0], X_RANGE[1] + 1))
    color, head = draw_color(generator), draw_color(generator)
    action = int(generator.integers(len(ACTIONS)))
    if not X_RANGE[0] <= x + STEP.get(action, 0) * frames <= X_RANGE[1]:
        action = opposite(action)
    touches, start = generator.random() < TOUCHING, KEY + int(generator.integers(SECONDS))
    side, object_color = 2 * int(generator.integers(2)) - 1, draw_color(generator)
    kind = int(generator.integers(len(KINDS)))
    carries = (Carry(kind, start, SECONDS, side, object_color),) if touches else ()
    return Agent(lane, x, color, head, (Deed(action, 0, frames),), carries)
