"""Official files of `ava_rooms` in the form of AVA v2.2; second 0 of a video counts as second 900, as in cut films.

Detected boxes: the true ones, a little off, and false ones with lower scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.worlds.room_painting import HEIGHT, WIDTH, box_at
from wholereel.datasets.worlds.room_schedule import ACTIONS, CLASSES, KEYS, labels_at

if TYPE_CHECKING:
    from wholereel.datasets.worlds.ava_rooms import RoomScene

__all__ = ["write_ava_files"]

OFFSET = 900
JITTER = 0.04  # standard deviation of a corner, as a share of the box's side
FALSE_BOXES = 0.3  # a key frame, in the mean
TRUE_SCORES, FALSE_SCORES = (0.85, 1.0), (0.3, 0.95)
LABEL_MAP = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
SCALE = np.array((WIDTH, HEIGHT, WIDTH, HEIGHT), np.float64)


def write_ava_files(folder: Path, scenes: Iterable[RoomScene]) -> None:
    """Annotations, excluded timestamps and detected boxes of each split, and the label map."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = defaultdict(list)
    for scene in scenes:
        split = scene.split
        files[f"ava_{split}_v2.2.csv"] += _annotations(scene)
        files[f"ava_{split}_excluded_timestamps_v2.2.csv"].append(f"{scene.id},{OFFSET + scene.excluded:04d}\n")
        files[f"ava_detection_{split}_boxes_and_labels.csv"] += _detections(scene)
    files[LABEL_MAP] = [
        f'label {{\n  name: "{name}"\n  label_id: {number}\n'
        f"  label_type: {'PERSON_MOVEMENT' if number <= len(ACTIONS) else 'OBJECT_MANIPULATION'}\n}}\n"
        for number, name in enumerate(CLASSES, start=1)
    ]
    for name, lines in files.items():
        write_text_file(folder / name, "".join(lines))


def _annotations(scene: RoomScene) -> list[str]:
    """Rows `video,timestamp,x1,y1,x2,y2,action,person`; the excluded key frame has none."""
    return [
        f"{_place(scene, second)},{_corners(np.array(box_at(agent, second)) / SCALE)},{label + 1},{person}\n"
        for second in KEYS
        if second != scene.excluded
        for person, agent in enumerate(scene.agents)
        for label in labels_at(agent, second)
    ]


def _detections(scene: RoomScene) -> list[str]:
    """Rows `video,timestamp,x1,y1,x2,y2,,score`."""
    generator = np.random.default_rng(scene.box_seed)
    rows = []
    for second in KEYS:
        for agent in scene.agents:
            box_4 = np.array(box_at(agent, second), np.float64)
            sides_4 = np.tile(box_4[2:] - box_4[:2], 2)
            found_4 = (box_4 + JITTER * sides_4 * generator.standard_normal(4)) / SCALE
            rows.append((second, found_4.clip(0, 1), generator.uniform(*TRUE_SCORES)))
        for _ in range(generator.poisson(FALSE_BOXES)):
            corner_2, sides_2 = generator.uniform(0, 0.8, size=2), generator.uniform(0.08, 0.2, size=2)
            rows.append((second, np.concatenate([corner_2, corner_2 + sides_2]), generator.uniform(*FALSE_SCORES)))
    return [f"{_place(scene, second)},{_corners(found_4)},,{score:.6f}\n" for second, found_4, score in rows]


def _place(scene: RoomScene, second: int) -> str:
    return f"{scene.id},{OFFSET + second:04d}"


def _corners(box_4: np.ndarray) -> str:
    return ",".join(f"{value:.3f}" for value in box_4)
