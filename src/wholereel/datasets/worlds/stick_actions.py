"""stick_actions: one arm turns steadily, all else trembles. Which arm, and which way? One frame knows nothing.

All angles begin anywhere on the circle, so in every single frame they are uniform whatever the label. For DiMoFs'
motion features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.mirror import Mirror, mirror_of_joints
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import canvas, draw_color, draw_identity
from wholereel.datasets.worlds.skeleton import ANGLES, ENDS, JOINTS, Figure, walk_angles, walk_root
from wholereel.datasets.worlds.stick_paint import paint_figures
from wholereel.datasets.worlds.sticks import FRAMES, HEADS, REFERENCE_SIZE, pose_records

__all__ = ["StickActions"]

TURN, TREMBLE = 4.0, 1.0
"""Degrees a frame."""
ARMS = (ANGLES.index("left_upper_arm"), ANGLES.index("right_upper_arm"))


@dataclass(frozen=True)
class ActionScene(Scene):
    """A video: class index, its figure, and the seed of the rest."""

    label: int
    figure: Figure
    paint_seed: int


@dataclass(frozen=True)
class StickActions(World[ActionScene]):
    """One figure, nothing covered, 32 frames, all intra; with poses.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "stick_actions"
    summary: ClassVar[str] = "which arm of a stick figure turns, and which way (one frame tells nothing)"
    classes: ClassVar[tuple[str, ...]] = ("left_plus", "left_minus", "right_plus", "right_minus")
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 400, "val": 80, "test": 200}
    group_frames: ClassVar[int] = 1

    size: int = REFERENCE_SIZE

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> ActionScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        head = float(generator.uniform(*HEADS)) * self.size / REFERENCE_SIZE
        angle_TA = walk_angles(FRAMES, np.full(len(ANGLES), np.deg2rad(TREMBLE)), generator)
        root_T2 = walk_root(FRAMES, head=head, size=self.size, speed=0.0, turn=0.0, generator=generator)
        # The steady turn takes the place of the trembling.
        arm, sign = ARMS[label // 2], (1, -1)[label % 2]
        angle_TA[:, arm] = angle_TA[0, arm] + sign * np.deg2rad(TURN) * np.arange(FRAMES)
        figure = Figure(
            head,
            draw_color(generator),
            tuple(map(tuple, angle_TA.tolist())),
            tuple(map(tuple, root_T2.tolist())),
            ((False,) * len(ENDS),) * FRAMES,
        )
        return ActionScene(name, split, index, label, figure, paint_seed)

    def record(self, scene: ActionScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=FRAMES, size=self.size)
        paint_figures(frames_THWC, [scene.figure])
        return Recording(frames_THWC)

    def truth(self, scene: ActionScene) -> dict[str, Any]:
        return {"label": self.classes[scene.label], "poses": pose_records([scene.figure])}

    def right(self, scene: ActionScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"frame": 1 / len(self.classes), "video": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {
            "frame": lambda scene, generator: int(generator.integers(len(self.classes))),
            "video": lambda scene, generator: action_of(scene.figure),
        }

    def mirror(self) -> Mirror:
        """Colours tell left limbs from right ones: a flipped figure would be none of this world."""
        return Mirror(joints=mirror_of_joints(JOINTS), never=True)

    def moments(self, scene: ActionScene) -> list[int]:
        return list(range(0, FRAMES, 6))


def action_of(figure: Figure) -> int:
    """The label, from the angles of both upper arms over time."""
    turned_2 = np.diff(np.asarray(figure.angles)[[0, -1]][:, ARMS], axis=0)[0]
    arm = int(np.abs(turned_2).argmax())
    return 2 * arm + int(turned_2[arm] < 0)
