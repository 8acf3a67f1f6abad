"""Paint stick figures: limbs coloured by side, torso and head in the figure's own colour, edges smooth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wholereel.datasets.worlds.painting import Color, blend
from wholereel.datasets.worlds.skeleton import BONES, ENDS, HEAD_SIDE, JOINTS, Figure, joints_of

__all__ = ["paint_figures"]

RIGHT: Color = (235, 90, 60)
LEFT: Color = (70, 130, 245)
WIDTH = 0.32
"""Of limbs, in head sizes."""


def paint_figures(frames_THWC: np.ndarray, figures: Sequence[Figure]) -> None:
    """Paint figures one after another, in place.

    A covered lower limb is not painted at all. A patch laid over it would also hide what is behind it, and so tell
    where the limb is.
    """
    for figure in figures:
        for frame_HWC, place_J2, covered in zip(frames_THWC, joints_of(figure), figure.covered, strict=True):
            _paint_figure(frame_HWC, figure, place_J2, covered)


def _paint_figure(frame_HWC: np.ndarray, figure: Figure, place_J2: np.ndarray, covered: Sequence[bool]) -> None:
    at = dict(zip(JOINTS, place_J2, strict=True))
    width = WIDTH * figure.head
    middle_2 = (at["right_hip"] + at["left_hip"]) / 2
    legs, arms = BONES[:4], BONES[4:]
    hidden = {name for name, is_covered in zip(ENDS, covered, strict=True) if is_covered}
    for parent, child in legs:
        if child not in hidden:
            _line(frame_HWC, at[parent], at[child], width, RIGHT if child.startswith("right") else LEFT)
    _line(frame_HWC, at["right_hip"], at["left_hip"], width, figure.color)
    _line(frame_HWC, at["right_shoulder"], at["left_shoulder"], width, figure.color)
    _line(frame_HWC, middle_2, at["head_bottom"], 1.6 * width, figure.color)
    _line(frame_HWC, at["nose"], at["nose"], HEAD_SIDE * figure.head, figure.color)
    for parent, child in arms:
        if child not in hidden:
            _line(frame_HWC, at[parent], at[child], width, RIGHT if child.startswith("right") else LEFT)


def _line(frame_HWC: np.ndarray, begin_2: np.ndarray, end_2: np.ndarray, width: float, color: Color) -> None:
    """A line with round ends; a disc where both ends are the same."""
    margin = width / 2 + 1
    left, top = np.maximum(np.floor(np.minimum(begin_2, end_2) - margin), 0).astype(np.int64)
    right, bottom = np.ceil(np.maximum(begin_2, end_2) + margin).astype(np.int64) + 1
    part_HWC = frame_HWC[top:bottom, left:right]
    y_H, x_W = top + np.arange(part_HWC.shape[0]), left + np.arange(part_HWC.shape[1])
    along_2 = end_2 - begin_2
    length = float(along_2 @ along_2)
    dx_HW, dy_HW = np.broadcast_arrays((x_W - begin_2[0])[None, :], (y_H - begin_2[1])[:, None])
    if length > 0:
        share_HW = np.clip((dx_HW * along_2[0] + dy_HW * along_2[1]) / length, 0, 1)
        dx_HW, dy_HW = dx_HW - share_HW * along_2[0], dy_HW - share_HW * along_2[1]
    distance_HW = np.sqrt(dx_HW**2 + dy_HW**2)
    blend(part_HWC, np.clip(width / 2 + 0.5 - distance_HW, 0, 1), color)
