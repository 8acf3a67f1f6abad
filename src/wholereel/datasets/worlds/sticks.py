"""sticks: where is the wrist when it is covered? People of sticks, with exact joints in every frame.

In each frame every wrist and ankle is covered with probability 0.3. A covered forearm points anywhere, so one frame
leaves a circle of 1.2 head sizes around the elbow; its neighbours tell. Every seventh frame counts as labelled. With
`motion=fast` joints move by 1.5 tolerances a frame and more, so that averaging neighbours without following the motion
fails. For PoseWarper (arXiv 1906.04016) and DiMoFs. F frames on either side, A angles.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.formats.posetrack import JOINTS
from wholereel.datasets.mirror import Mirror, mirror_of_joints
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import canvas, draw_color, draw_identity
from wholereel.datasets.worlds.posetrack_files import annotations_2017, annotations_2018, visible_joints
from wholereel.datasets.worlds.skeleton import (
    ANGLES,
    ENDS,
    FOREARM,
    Figure,
    head_box,
    joints_of,
    person_box,
    walk_angles,
    walk_root,
)
from wholereel.datasets.worlds.stick_paint import paint_figures
from wholereel.errors import ConfigError

__all__ = ["LABELLED", "StickScene", "Sticks", "displacements", "pose_records", "wrist_from_frames"]

FRAMES = 32
LABELLED = tuple(range(3, FRAMES, 7))
COVERED = 0.3
TOLERANCE = 0.5
"""Of PCKh, in head sizes."""
NEIGHBOURS = 3
PARTS = ("wrist", "elbow", "knee", "ankle")
MOVING = tuple(JOINTS.index(f"{side}_{part}") for side in ("right", "left") for part in PARTS)
REFERENCE_SIZE = 112
HEADS = (7.5, 9.5)
SIMULATED = 40_000


@dataclass(frozen=True)
class Motion:
    """How much figures move.

    Args:
        joint_step: largest change of a joint angle a frame, degrees.
        speed: of the whole body, in head sizes a frame, smallest and largest.
        turn: largest change of the body's direction a frame, degrees.
    """

    joint_step: float
    speed: tuple[float, float]
    turn: float


MOTIONS: dict[str, Motion] = {
    "slow": Motion(6.0, (0.0, 0.1), 20.0),
    "fast": Motion(12.0, (0.9, 1.2), 20.0),
}


@dataclass(frozen=True)
class StickScene(Scene):
    """A video: its figures, the farthest first, and the seed of the rest."""

    figures: tuple[Figure, ...]
    paint_seed: int


@dataclass(frozen=True)
class Sticks(World[StickScene]):
    """One to three figures, 32 frames, all intra; no class labels, but poses.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        motion: `slow` or `fast`.
    Raises: ConfigError: `size` is odd or below 32, another motion.
    """

    name: ClassVar[str] = "sticks"
    summary: ClassVar[str] = "where 15 joints of 1 to 3 stick figures are, also covered ones (options motion=slow|fast)"
    classes: ClassVar[tuple[str, ...]] = ()
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 200, "val": 30, "test": 60}
    group_frames: ClassVar[int] = 1

    size: int = REFERENCE_SIZE
    motion: str = "slow"

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.motion not in MOTIONS:
            raise ConfigError(f"motion of sticks must be one of {', '.join(MOTIONS)}, got {self.motion!r}")

    def sample(self, seed: int, split: str, index: int) -> StickScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = draw_identity(generator)
        count = int(generator.integers(1, 4))
        figures = tuple(self._draw_figure(generator) for _ in range(count))
        return StickScene(name, split, index, figures, paint_seed)

    def _draw_figure(self, generator: np.random.Generator) -> Figure:
        motion = MOTIONS[self.motion]
        head = float(generator.uniform(*HEADS)) * self.size / REFERENCE_SIZE
        speed, turn = head * generator.uniform(*motion.speed), np.deg2rad(motion.turn)
        angle_TA = walk_angles(FRAMES, np.full(len(ANGLES), np.deg2rad(motion.joint_step)), generator)
        root_T2 = walk_root(FRAMES, head=head, size=self.size, speed=speed, turn=turn, generator=generator)
        covered_TL = generator.random((FRAMES, len(ENDS))) < COVERED
        return Figure(
            head,
            draw_color(generator),
            tuple(map(tuple, angle_TA.tolist())),
            tuple(map(tuple, root_T2.tolist())),
            tuple(map(tuple, covered_TL.tolist())),
        )

    def record(self, scene: StickScene) -> Recording:
        frames_THWC = canvas(scene.paint_seed, frames=FRAMES, size=self.size)
        paint_figures(frames_THWC, scene.figures)
        return Recording(frames_THWC)

    def truth(self, scene: StickScene) -> dict[str, Any]:
        return {"poses": pose_records(scene.figures), "meta": {"labelled": list(LABELLED)}}

    def ceilings(self) -> dict[str, float]:
        """PCKh of wrists: from one frame (guessed on the circle, and at the best place), and from seven.

        The last is what interpolating the forearm's direction reaches, simulated.
        """
        motion = MOTIONS[self.motion]
        on_circle = 2 * np.arcsin(TOLERANCE / (2 * FOREARM)) / np.pi
        best = np.arcsin(TOLERANCE / FOREARM) / np.pi
        return {
            "wrist_frame_on_circle": float(1 - COVERED + COVERED * on_circle),
            "wrist_frame": float(1 - COVERED + COVERED * best),
            "wrist_7_frames": simulated_wrist(motion.joint_step),
        }

    def oracles(self) -> dict[str, Oracle]:
        """Predictors of one wrist in one frame, drawn at random; predictions are whether it is hit."""
        guesses = {"wrist_frame_on_circle": FOREARM, "wrist_frame": (FOREARM**2 - TOLERANCE**2) ** 0.5}

        def from_frame(radius: float) -> Oracle:
            def predict(scene: StickScene, generator: np.random.Generator) -> bool:
                direction, covered, frame = _one_wrist(scene, generator)
                if not covered[frame]:
                    return True
                turn = float(generator.uniform(-np.pi, np.pi))
                return _is_hit(turn, direction[frame], radius)

            return predict

        def from_7_frames(scene: StickScene, generator: np.random.Generator) -> bool:
            direction, covered, frame = _one_wrist(scene, generator)
            window = slice(max(0, frame - NEIGHBOURS), frame + NEIGHBOURS + 1)
            seen = [None if hidden else at for at, hidden in zip(direction[window], covered[window], strict=True)]
            turn = wrist_from_frames(seen, frame - window.start)
            if turn is None:
                return _is_hit(float(generator.uniform(-np.pi, np.pi)), direction[frame], guesses["wrist_frame"])
            return _is_hit(turn, direction[frame], FOREARM)

        return {level: from_frame(radius) for level, radius in guesses.items()} | {"wrist_7_frames": from_7_frames}

    def right(self, scene: StickScene, prediction: Any) -> float:
        return float(prediction)

    def measurements(self, scenes: Sequence[StickScene]) -> dict[str, float]:
        """How far wrists, elbows, knees and ankles move from frame to frame, in tolerances of PCKh."""
        moved = displacements(scenes) / TOLERANCE
        values = {f"joint motion a frame in PCKh tolerances, {q} % quantile": q for q in (5, 25, 50, 75, 95)}
        return {
            "joint motion a frame in PCKh tolerances, mean (fast: at least 1.5)": float(moved.mean()),
            **{what: float(np.percentile(moved, q)) for what, q in values.items()},
        }

    def export(self, folder: Path, scenes: Iterable[StickScene]) -> None:
        """PoseTrack 2017 and 2018: `posetrack17|18/annotations/SPLIT/ID.json`.

        Of training videos the labelled frames carry annotations, of the others all.
        """
        for video, scene in enumerate(scenes, start=1):
            labelled = LABELLED if scene.split == "train" else range(FRAMES)
            names_2017 = [f"images/{scene.split}/{scene.id}/{frame + 1:08d}.jpg" for frame in range(FRAMES)]
            names_2018 = [f"images/{scene.split}/{scene.id}/{frame:06d}.jpg" for frame in range(FRAMES)]
            contents = {
                "posetrack17": annotations_2017(scene.figures, names_2017, labelled),
                "posetrack18": annotations_2018(scene.figures, names_2018, labelled, video=video, size=self.size),
            }
            for year, content in contents.items():
                path = folder / "official" / year / "annotations" / scene.split / f"{scene.id}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text_file(path, json.dumps(content))

    def mirror(self) -> Mirror:
        """Colours tell left limbs from right ones: a flipped figure would be none of this world."""
        return Mirror(joints=mirror_of_joints(JOINTS), never=True)

    def moments(self, scene: StickScene) -> list[int]:
        return list(range(8, 14))


def pose_records(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Poses of all frames for the manifest, frame by frame; joints x, y, and 0 where covered."""
    places, visible = [joints_of(figure) for figure in figures], [visible_joints(figure) for figure in figures]
    return [
        {
            "frame": frame,
            "joints": [
                [round(x, 2), round(y, 2), int(seen)]
                for (x, y), seen in zip(places[track][frame].tolist(), visible[track][frame], strict=True)
            ],
            "head": [round(at, 2) for at in head_box(places[track][frame], figure.head)],
            "box": [round(at, 2) for at in person_box(places[track][frame], figure.head)],
            "track": track,
        }
        for frame in range(len(figures[0].root))
        for track, figure in enumerate(figures)
    ]


def displacements(scenes: Sequence[StickScene]) -> np.ndarray:
    """Way of each wrist, elbow, knee and ankle from each frame to the next, in head sizes; one long row."""
    parts = []
    for scene in scenes:
        for figure in scene.figures:
            step_TJ2 = np.diff(joints_of(figure)[:, MOVING], axis=0)
            parts.append(np.hypot(step_TJ2[..., 0], step_TJ2[..., 1]).ravel() / figure.head)
    return np.concatenate(parts)


def wrist_from_frames(directions: Sequence[float | None], place: int) -> float | None:
    """The forearm's direction in one frame, from those frames of a row in which it can be seen.

    Between the nearest ones before and after, in proportion; with one side only, that one.
    Args: directions: in radians; `None` = covered.
    Returns: `None` where no frame shows it.
    """
    if directions[place] is not None:
        return directions[place]
    before = next(((n, d) for n in range(place - 1, -1, -1) if (d := directions[n]) is not None), None)
    after = next(((n, d) for n in range(place + 1, len(directions)) if (d := directions[n]) is not None), None)
    if before is None or after is None:
        found = before or after
        return None if found is None else found[1]
    turn = (after[1] - before[1] + np.pi) % (2 * np.pi) - np.pi
    return before[1] + turn * (place - before[0]) / (after[0] - before[0])


@cache
def simulated_wrist(joint_step: float) -> float:
    """PCKh of a wrist from seven frames by `wrist_from_frames`: seeded simulation of the label model.

    The forearm's direction is the sum of three walks: lean (whose mirrors are left out), upper arm, forearm.
    """
    generator = np.random.default_rng(1906_04016)
    frames = 2 * NEIGHBOURS + 1
    step = np.deg2rad(joint_step)
    steps_NF = generator.uniform(-step, step, size=(SIMULATED, frames, 3)).sum(axis=2)
    direction_NF = steps_NF.cumsum(axis=1)
    covered_NF = generator.random((SIMULATED, frames)) < COVERED
    guess_N = generator.uniform(-np.pi, np.pi, size=SIMULATED)
    hits = 0
    for direction_F, covered_F, guess in zip(direction_NF.tolist(), covered_NF.tolist(), guess_N, strict=True):
        seen = [None if covered else at for at, covered in zip(direction_F, covered_F, strict=True)]
        turn = wrist_from_frames(seen, NEIGHBOURS)
        radius = FOREARM if turn is not None else (FOREARM**2 - TOLERANCE**2) ** 0.5
        hits += _is_hit(guess if turn is None else turn, direction_F[NEIGHBOURS], radius)
    return hits / SIMULATED


def _one_wrist(scene: StickScene, generator: np.random.Generator) -> tuple[list[float], list[bool], int]:
    """Directions of a random forearm in all frames, where it is covered, and a random frame that has all neighbours."""
    figure = scene.figures[int(generator.integers(len(scene.figures)))]
    side = ("right", "left")[int(generator.integers(2))]
    parts = [ANGLES.index(part) for part in ("lean", f"{side}_upper_arm", f"{side}_forearm")]
    directions = np.asarray(figure.angles)[:, parts].sum(axis=1).tolist()
    covered = [row[ENDS.index(f"{side}_wrist")] for row in figure.covered]
    return directions, covered, int(generator.integers(NEIGHBOURS, FRAMES - NEIGHBOURS))


def _is_hit(guess: float, direction: float, radius: float) -> bool:
    """Whether a guess at a distance from the elbow is within the tolerance of the wrist (head sizes, radians)."""
    square = radius**2 + FOREARM**2 - 2 * radius * FOREARM * np.cos(guess - direction)
    return bool(square <= TOLERANCE**2)
