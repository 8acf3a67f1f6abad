"""ava_rooms: people in a room, boxes and actions once a second; what they carry was shown when they picked it up.

Six actions are visible at any moment; four (carry a triangle, a plus, ...) look all alike, so a clip knows them only
around the pick-up. Form of AVA: key frames, boxes, several labels a box, frame-level mAP, official files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.ava_files import write_ava_files
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, Score, World, generator_of
from wholereel.datasets.worlds.room_painting import box_record, paint_room
from wholereel.datasets.worlds.room_schedule import (
    ACTIONS,
    CLASSES,
    FRAME_RATE,
    KEYS,
    KINDS,
    Agent,
    draw_agents,
    labels_at,
)
from wholereel.metrics.frame_map import interpolated_average_precision

__all__ = ["AvaRooms", "RoomScene", "room_scores"]

# Seconds before a key frame that are seen, and one second behind it: a clip has two.
REACH = {"clip": 1, "memory_5s": 5, "memory_10s": 10, "memory_20s": 20}
JUDGED_TOGETHER = 20  # videos, as in the test set: average precision of a few hundred boxes is not that of many
SIMULATED = 20
LEAST_ERROR = 0.001


@dataclass(frozen=True)
class RoomScene(Scene):
    """A minute in a room.

    Args:
        agents: with all they do.
        excluded: a key frame that does not count, as AVA has them.
        paint_seed, box_seed: of what is painted without meaning; of the detector's mistakes.
    """

    agents: tuple[Agent, ...]
    excluded: int
    paint_seed: int
    box_seed: int


@dataclass(frozen=True)
class AvaRooms(World[RoomScene]):
    """Videos of 60 s, 128 x 96 pixels, with key frames at seconds 2 to 57."""

    name: ClassVar[str] = "ava_rooms"
    summary: ClassVar[str] = "what people do and what they picked up earlier, by boxes at key frames (AVA's form)"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 60, "val": 10, "test": 20}
    group_frames: ClassVar[int] = FRAME_RATE
    balanced: ClassVar[bool] = False
    companions: ClassVar[tuple[str, ...]] = ("ava_rooms_clips",)
    oracle_samples: ClassVar[int] = 200

    def sample(self, seed: int, split: str, index: int) -> RoomScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed, box_seed = (int(n) for n in generator.integers(0, 2**64, size=3, dtype=np.uint64))
        excluded = int(generator.choice(KEYS))
        return RoomScene(f"{name:016x}", split, index, draw_agents(generator), excluded, paint_seed, box_seed)

    def record(self, scene: RoomScene) -> Recording:
        return Recording(paint_room(scene.agents, scene.paint_seed))

    def truth(self, scene: RoomScene) -> dict[str, Any]:
        boxes = [
            box_record(agent, second, labels_at(agent, second), track)
            for second in KEYS
            for track, agent in enumerate(scene.agents)
        ]
        shown = sorted({label for second in KEYS for agent in scene.agents for label in labels_at(agent, second)})
        carries = [
            [asdict(carry) | {"name": KINDS[carry.kind], "color": list(carry.color)} for carry in agent.carries]
            for agent in scene.agents
        ]
        return {
            "label": [CLASSES[label] for label in shown],
            "boxes": boxes,
            "meta": {"carries": carries, "excluded_seconds": [scene.excluded]},
        }

    def ceilings(self) -> dict[str, float]:
        return dict(simulated_ceilings())

    def oracles(self) -> dict[str, Oracle]:
        """Scores of a scene's boxes from what is shown at most so many seconds before."""
        return {level: partial(room_scores, reach) for level, reach in REACH.items()}

    def measure(self, scenes: Sequence[RoomScene], generator: np.random.Generator) -> dict[str, Score]:
        """Frame-mAP of the true boxes, in the mean over groups of 20 videos."""
        groups = [scenes[at : at + JUDGED_TOGETHER] for at in range(0, len(scenes), JUDGED_TOGETHER)]
        scores = {}
        for level, predict in self.oracles().items():
            values = [mean_precision(group, [predict(scene, generator) for scene in group]) for group in groups]
            # Twice the variance: the ceiling is simulated as well. Ten groups may by chance lie close together.
            error = float(np.std(values, ddof=1) * (2 / len(values)) ** 0.5)
            scores[level] = Score(float(np.mean(values)), max(error, LEAST_ERROR) if error else 0.0)
        return scores

    def export(self, folder: Path, scenes: Iterable[RoomScene]) -> None:
        write_ava_files(folder / "official", scenes)

    def moments(self, scene: RoomScene) -> list[int]:
        """Around a pick-up: before, at it, and while something is carried."""
        start = scene.agents[0].carries[0].start
        return [(start + second) * FRAME_RATE for second in (-2, -1, 0, 4, 7)]


def room_scores(reach: int, scene: RoomScene, generator: np.random.Generator) -> np.ndarray:
    """Best scores of a scene's boxes for who sees from `reach` seconds before a key frame to one second behind it.

    Visible actions are known. Of what is carried the kind is known if the pick-up was seen, else all are equally
    likely; equal scores rank by chance. Returns: scores_RK in the order of `truth`'s boxes.
    """
    rows = []
    for second in KEYS:
        for agent in scene.agents:
            score_K = np.zeros(len(CLASSES))
            score_K[agent.action_at(second * FRAME_RATE)] = 1
            carry = agent.carry_at(second)
            if carry is not None and second - carry.start < reach:
                score_K[len(ACTIONS) + carry.kind] = 1
            elif carry is not None:
                score_K[len(ACTIONS) :] = 1 / len(KINDS)
            rows.append(score_K)
    return np.array(rows) + 1e-6 * generator.random((len(rows), len(CLASSES)))


def mean_precision(scenes: Sequence[RoomScene], scores: Sequence[np.ndarray]) -> float:
    """Frame-mAP over all classes when the boxes are the true ones."""
    scores_RK = np.concatenate(scores)
    labels = [labels_at(agent, second) for scene in scenes for second in KEYS for agent in scene.agents]
    target_RK = np.zeros(scores_RK.shape, bool)
    for row_K, found in zip(target_RK, labels, strict=True):
        row_K[list(found)] = True
    order_RK = np.argsort(-scores_RK, axis=0, kind="stable")
    hits_RK = np.take_along_axis(target_RK, order_RK, axis=0)
    return float(np.nanmean([interpolated_average_precision(hit_R, int(hit_R.sum())) for hit_R in hits_RK.T]))


@lru_cache(maxsize=1)
def simulated_ceilings() -> tuple[tuple[str, float], ...]:
    """Mean of the oracles' mAP on twenty test sets of a root seed that no folder uses."""
    world = AvaRooms()
    scenes = [world.sample(2**32, "test", index) for index in range(SIMULATED * JUDGED_TOGETHER)]
    scores = world.measure(scenes, np.random.default_rng(0))
    return tuple((level, score.value) for level, score in scores.items())
