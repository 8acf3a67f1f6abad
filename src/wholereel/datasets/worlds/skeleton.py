"""A stick figure with PoseTrack's fifteen joints: lengths in head sizes, joint angles that walk, places of joints.

Head size is PoseTrack's, 0.6 of the diagonal of the head's box: the unit of PCKh. Letters: A angles, J joints, L limb
ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholereel.datasets.formats.posetrack import JOINTS
from wholereel.datasets.worlds.painting import Color

__all__ = [
    "ANGLES",
    "BONES",
    "ENDS",
    "FOREARM",
    "HEAD_SIDE",
    "JOINTS",
    "Figure",
    "head_box",
    "joints_of",
    "person_box",
    "reach",
    "walk_angles",
    "walk_root",
]

ANGLES = (
    "lean",
    "nod",
    "right_upper_arm",
    "right_forearm",
    "left_upper_arm",
    "left_forearm",
    "right_thigh",
    "right_shin",
    "left_thigh",
    "left_shin",
)
"""Lean is the torso's, from the vertical; all others are relative to the part they hang on. Radians."""
ENDS = ("right_wrist", "left_wrist", "right_ankle", "left_ankle")
# Upper and lower parts of the limbs.
BONES: tuple[tuple[str, str], ...] = (
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"),
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
)

# Lengths in head sizes.
TORSO, NECK, SHOULDER, HIP = 2.0, 0.3, 0.6, 0.4
UPPER_ARM, FOREARM, THIGH, SHIN = 1.2, 1.2, 1.3, 1.3
HEAD_SIDE = 1 / (0.6 * 2**0.5)
"""Side of the head's square box: its diagonal is 1 / 0.6."""
BENDS = 0.3
"""Largest lean and nod: about 17 degrees."""
BENDING = 2


@dataclass(frozen=True)
class Figure:
    """A person in every frame.

    Args:
        head: head size in pixels.
        color: of torso and head.
        angles: one tuple of `ANGLES` a frame, in radians.
        root: middle of the hips in each frame, x and y in pixels.
        covered: for each frame, which of `ENDS` is covered.
    """

    head: float
    color: Color
    angles: tuple[tuple[float, ...], ...]
    root: tuple[tuple[float, float], ...]
    covered: tuple[tuple[bool, ...], ...]


def walk_angles(frames: int, step: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Angles over time: begun anywhere on the circle (lean and nod: within their bounds), then uniform steps.

    So at every moment each limb's direction is uniform and independent of all others.

    Args:
        step: largest step of each angle a frame, in radians, of shape (A,).
    Returns: angle_TA.
    """
    begin_A = generator.uniform(-np.pi, np.pi, size=len(ANGLES))
    begin_A[:BENDING] = generator.uniform(-BENDS, BENDS, size=BENDING)
    steps_TA = generator.uniform(-1, 1, size=(frames - 1, len(ANGLES))) * step
    angle_TA = np.concatenate([begin_A[None], steps_TA]).cumsum(axis=0)
    angle_TA[:, :BENDING] = folded(angle_TA[:, :BENDING], -BENDS, BENDS)
    return angle_TA


def walk_root(
    frames: int, *, head: float, size: int, speed: float, turn: float, generator: np.random.Generator
) -> np.ndarray:
    """Way of the hips: constant speed, a direction that turns a little, mirrors where a limb could leave the picture.

    Args:
        speed: pixels a frame. turn: largest change of direction a frame, in radians.
    Returns: root_T2.
    """
    left, right, up, down = (length * head for length in reach())
    low_2, high_2 = np.array([left, up]), np.array([size - 1 - right, size - 1 - down])
    begin_2 = generator.uniform(low_2, high_2)
    heading_T = generator.uniform(-np.pi, np.pi) + turn * generator.uniform(-1, 1, size=frames - 1).cumsum()
    steps_T2 = speed * np.stack([np.cos(heading_T), np.sin(heading_T)], axis=1)
    return folded(np.concatenate([begin_2[None], steps_T2]).cumsum(axis=0), low_2, high_2)


def reach() -> tuple[float, float, float, float]:
    """How far a figure of head size 1 can extend from the middle of its hips: left, right, up, down."""
    side = SHOULDER + (TORSO + NECK) * np.sin(BENDS) + UPPER_ARM + FOREARM
    up = TORSO + SHOULDER * np.sin(BENDS) + UPPER_ARM + FOREARM
    down = HIP * np.sin(BENDS) + THIGH + SHIN
    # A little more, for the width of the lines.
    return side + 0.1, side + 0.1, up + 0.1, down + 0.1


def folded(at: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Places on a line with mirrors at both ends."""
    room = high - low
    inside = (at - low) % (2 * room)
    result: np.ndarray = low + np.minimum(inside, 2 * room - inside)
    return result


def joints_of(figure: Figure) -> np.ndarray:
    """Places of all joints, in pixels; whole numbers are the middles of pixels. Returns: place_TJ2."""
    angle = dict(zip(ANGLES, np.asarray(figure.angles).T, strict=True))
    root_T2 = np.asarray(figure.root)
    place: dict[str, np.ndarray] = {}
    lean_T = angle["lean"]
    top_T2 = root_T2 + figure.head * TORSO * _away(lean_T + np.pi)
    neck_T2 = top_T2 + figure.head * NECK * _away(lean_T + np.pi)
    across_T2 = _away(lean_T + np.pi / 2)
    nod_T = lean_T + angle["nod"] + np.pi
    place["head_bottom"] = neck_T2
    place["nose"] = neck_T2 + figure.head * HEAD_SIDE / 2 * _away(nod_T)
    place["head_top"] = neck_T2 + figure.head * HEAD_SIDE * _away(nod_T)
    # The figure faces the viewer: its right side is on the left of the picture.
    for side, sign in (("right", -1), ("left", 1)):
        place[f"{side}_shoulder"] = top_T2 + sign * figure.head * SHOULDER * across_T2
        place[f"{side}_hip"] = root_T2 + sign * figure.head * HIP * across_T2
        for begin, middle, end, upper, lower, lengths in (
            ("shoulder", "elbow", "wrist", "upper_arm", "forearm", (UPPER_ARM, FOREARM)),
            ("hip", "knee", "ankle", "thigh", "shin", (THIGH, SHIN)),
        ):
            upper_T = lean_T + angle[f"{side}_{upper}"]
            lower_T = upper_T + angle[f"{side}_{lower}"]
            place[f"{side}_{middle}"] = place[f"{side}_{begin}"] + figure.head * lengths[0] * _away(upper_T)
            place[f"{side}_{end}"] = place[f"{side}_{middle}"] + figure.head * lengths[1] * _away(lower_T)
    return np.stack([place[name] for name in JOINTS], axis=1)


def head_box(place_J2: np.ndarray, head: float) -> tuple[float, float, float, float]:
    """Upright square around the head, so large that 0.6 of its diagonal is the head size: left, top, right, bottom."""
    x, y = (float(n) for n in place_J2[JOINTS.index("nose")])
    half = head * HEAD_SIDE / 2
    return x - half, y - half, x + half, y + half


def person_box(place_J2: np.ndarray, head: float) -> tuple[float, float, float, float]:
    """Smallest upright box around all joints and the head: left, top, right, bottom."""
    corners = np.array([*place_J2, *np.reshape(head_box(place_J2, head), (2, 2))])
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return left, top, right, bottom


def _away(angle_T: np.ndarray) -> np.ndarray:
    """Unit vectors; angle 0 points down, growing towards the right of the picture. Returns: way_T2."""
    return np.stack([np.sin(angle_T), np.cos(angle_T)], axis=1)
