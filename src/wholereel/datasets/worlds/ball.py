"""A ball that bounces: parabolas between the moments at which it touches the floor, painted at sub-pixel places.

The ball swings slowly from side to side and never touches a wall, so every bounce is on the floor and at a known time.
Extra letter: N moments of touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wholereel.datasets.worlds.painting import Color, blend, canvas, draw_color
from wholereel.datasets.worlds.render import scaled

__all__ = ["BOUNCE_RATE", "INTERVALS", "Ball", "ball_frames", "draw_ball", "draw_touches"]

BOUNCE_RATE = 16
INTERVALS = (0.35, 0.9)
RADIUS = 4.0
FLOOR = 61.0
HIGHEST = 44.0
"""Height of the flight that lasts the longest interval, on the 64-pixel canvas."""


@dataclass(frozen=True)
class Ball:
    """A ball's flight.

    Args:
        touches: seconds at which it touches the floor, the last one before 0 and the first one after the end included.
        color: red, green, blue.
        middle, swing: of its way from side to side, in pixels of the 64-pixel canvas.
        swings, phase: turns a second, and turn at second 0, of that way.
    """

    touches: tuple[float, ...]
    color: Color
    middle: float
    swing: float
    swings: float
    phase: float

    def inside(self, seconds: float) -> tuple[float, ...]:
        """Touches in the video: 0 <= t < `seconds`."""
        return tuple(t for t in self.touches if 0 <= t < seconds)


def draw_touches(seconds: float, generator: np.random.Generator) -> tuple[float, ...]:
    """Touches of a ball that is kicked at random: intervals uniform in 0.35..0.9 s.

    The interval around second 0 is drawn by its length (a long one covers a given moment more often), so the process
    has no beginning: a part of a video does not tell from where in the video it was cut.
    """
    low, high = INTERVALS
    first = float(np.sqrt(low**2 + generator.random() * (high**2 - low**2)))
    times = [-first * generator.random()]
    times.append(times[0] + first)
    while times[-1] < seconds:
        times.append(times[-1] + generator.uniform(low, high))
    return tuple(float(t) for t in times)


def draw_ball(touches: Sequence[float], generator: np.random.Generator) -> Ball:
    """Colour and way from side to side, independent of the touches."""
    swing = float(generator.uniform(4, 20))
    margin = RADIUS + 1 + swing
    return Ball(
        tuple(touches),
        draw_color(generator),
        float(generator.uniform(margin, 63 - margin)),
        swing,
        float(generator.uniform(0.05, 0.25)),
        float(generator.random()),
    )


def ball_frames(ball: Ball, paint_seed: int, *, seconds: float, size: int) -> np.ndarray:
    """Paint the flight. Returns: frames_THWC, uint8, `BOUNCE_RATE` frames a second, frame n at n / `BOUNCE_RATE`."""
    frames = round(seconds * BOUNCE_RATE)
    frames_THWC = canvas(paint_seed, frames=frames, size=size)
    time_T = np.arange(frames) / BOUNCE_RATE
    x_T = ball.middle + ball.swing * np.sin(2 * np.pi * (ball.swings * time_T + ball.phase))
    y_T = FLOOR - RADIUS - heights(ball.touches, time_T)
    radius = scaled(RADIUS, size)
    reach = int(radius) + 2
    for frame_HWC, x, y in zip(frames_THWC, scaled(1, size) * x_T, scaled(1, size) * y_T, strict=True):
        left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
        part_HWC = frame_HWC[top : int(y) + reach + 1, left : int(x) + reach + 1]
        dy_H, dx_W = top + np.arange(part_HWC.shape[0]) - y, left + np.arange(part_HWC.shape[1]) - x
        blend(part_HWC, np.clip(radius + 0.5 - np.sqrt(dy_H[:, None] ** 2 + dx_W[None, :] ** 2), 0, 1), ball.color)
    return frames_THWC


def heights(touches: Sequence[float], time_T: np.ndarray) -> np.ndarray:
    """Height of the ball's lowest point above the floor, in pixels of the 64-pixel canvas. Returns: height_T."""
    touch_N = np.asarray(touches)
    after_T = np.searchsorted(touch_N, time_T, side="right")
    begin_T, end_T = touch_N[after_T - 1], touch_N[after_T]
    result: np.ndarray = 4 * HIGHEST / INTERVALS[1] ** 2 * (time_T - begin_T) * (end_T - time_T)
    return result
