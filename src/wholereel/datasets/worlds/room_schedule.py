"""What the agents of `ava_rooms` do and when: the label model, without a pixel.

Visible actions change half a second after a full second, so that the second around every key frame shows one. An agent
touches an object for one second, the only one in which it is shown, and then carries *something*: the pose is the same
for all kinds. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "ACTIONS",
    "CLASSES",
    "DURATION",
    "KEYS",
    "KINDS",
    "LANES",
    "STEP",
    "X_RANGE",
    "Agent",
    "Carry",
    "Deed",
    "draw_agents",
    "draw_color",
    "labels_at",
    "opposite",
    "path_of",
]

DURATION = 60
KEYS = range(2, 58)
ACTIONS = ("stand", "walk left", "walk right", "jump", "crouch", "spin")
KINDS = ("triangle", "plus", "ring", "diamond")
CLASSES = (*ACTIONS, *(f"carry {kind}" for kind in KINDS))
LANES = 3
FRAME_RATE = 8
X_RANGE = (20, 108)
LEFT, RIGHT = ACTIONS.index("walk left"), ACTIONS.index("walk right")
STEP = {LEFT: -1, RIGHT: 1}  # pixels a frame
DEED_SECONDS = (2, 4)
CARRY_SECONDS = (8, 20)
PAUSE_SECONDS = (3, 8)
COLORS = (150, 255)


@dataclass(frozen=True)
class Deed:
    """A visible action, from frame `start` to frame `end` (not included)."""

    action: int
    start: int
    end: int


@dataclass(frozen=True)
class Carry:
    """Something is picked up and carried.

    Args:
        kind: index into `KINDS`.
        start: full second at which carrying begins; the object is shown in the second before.
        seconds: how long; 8..20.
        side: -1 = the object is touched on the left, 1 = on the right.
        color: of the object.
    """

    kind: int
    start: int
    seconds: int
    side: int
    color: tuple[int, int, int]

    @property
    def last(self) -> int:
        """The last key frame with the label."""
        return self.start + self.seconds - 1


@dataclass(frozen=True)
class Agent:
    """Somebody in a lane of the picture; lanes do not overlap, so nobody covers anybody.

    Args:
        lane: 0 = top.
        x: middle at the beginning, pixels.
        color, head: of body and head.
        deeds: without gaps, from frame 0 to the end.
        carries: in order of time.
    """

    lane: int
    x: int
    color: tuple[int, int, int]
    head: tuple[int, int, int]
    deeds: tuple[Deed, ...]
    carries: tuple[Carry, ...]

    def action_at(self, frame: int) -> int:
        """Index of the visible action."""
        return next(deed.action for deed in self.deeds if deed.start <= frame < deed.end)

    def carry_at(self, second: int) -> Carry | None:
        """What is carried at a key frame."""
        return next((carry for carry in self.carries if carry.start <= second <= carry.last), None)


def draw_agents(generator: np.random.Generator) -> tuple[Agent, ...]:
    """Two or three agents, each in a lane of its own. Kinds are drawn last: no time or colour depends on them."""
    lanes = sorted(generator.permutation(LANES)[: generator.integers(2, LANES + 1)].tolist())
    agents = []
    for lane in lanes:
        x = int(generator.integers(X_RANGE[0], X_RANGE[1] + 1))
        color, head = draw_color(generator), draw_color(generator)
        deeds = _draw_deeds(x, generator)
        agents.append(Agent(lane, x, color, head, deeds, _draw_carries(generator)))
    return tuple(agents)


def labels_at(agent: Agent, second: int) -> tuple[int, ...]:
    """Class indices at a key frame: one visible action, and the kind that is carried, if any."""
    action, carry = agent.action_at(second * FRAME_RATE), agent.carry_at(second)
    return (action,) if carry is None else (action, len(ACTIONS) + carry.kind)


def path_of(x: int, deeds: Sequence[Deed]) -> np.ndarray:
    """Middle of an agent in each frame. Returns: x_T, int64 pixels."""
    step_T = np.concatenate([np.full(deed.end - deed.start, STEP.get(deed.action, 0)) for deed in deeds])
    return x + np.cumsum(step_T) - step_T


def draw_color(generator: np.random.Generator) -> tuple[int, int, int]:
    """Any rather bright colour."""
    red, green, blue = (int(n) for n in generator.integers(COLORS[0], COLORS[1] + 1, size=3))
    return red, green, blue


def opposite(action: int) -> int:
    """The walk the other way."""
    return LEFT + RIGHT - action


def _draw_deeds(x: int, generator: np.random.Generator) -> tuple[Deed, ...]:
    deeds: list[Deed] = []
    frame, frames = 0, DURATION * FRAME_RATE
    while frame < frames:
        seconds = int(generator.integers(DEED_SECONDS[0], DEED_SECONDS[1] + 1))
        # Only the first one is not a number of full seconds: all later ones begin half a second after one.
        end = min(frames, frame + seconds * FRAME_RATE + (FRAME_RATE // 2 if frame == 0 else 0))
        action = int(generator.integers(len(ACTIONS)))
        if not X_RANGE[0] <= x + STEP.get(action, 0) * (end - frame) <= X_RANGE[1]:
            action = opposite(action)  # one of both has room
        x += STEP.get(action, 0) * (end - frame)
        deeds.append(Deed(action, frame, end))
        frame = end
    return tuple(deeds)


def _draw_carries(generator: np.random.Generator) -> tuple[Carry, ...]:
    times: list[tuple[int, int]] = []
    start = int(generator.integers(2, PAUSE_SECONDS[1] + 1))
    while start < KEYS[-1]:
        seconds = int(generator.integers(CARRY_SECONDS[0], CARRY_SECONDS[1] + 1))
        times.append((start, seconds))
        start += seconds + int(generator.integers(PAUSE_SECONDS[0], PAUSE_SECONDS[1] + 1))
    looks = [(2 * int(generator.integers(2)) - 1, draw_color(generator)) for _ in times]
    kinds = generator.integers(len(KINDS), size=len(times)).tolist()
    return tuple(Carry(kind, *time, *look) for kind, time, look in zip(kinds, times, looks, strict=True))
