"""Paint the agents of `ava_rooms`: a head on a rounded body with two legs, and what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.datasets.worlds.render import background, paint_distractor
from wholereel.datasets.worlds.room_schedule import ACTIONS, DURATION, FRAME_RATE, KINDS, Agent, path_of

__all__ = ["HEIGHT", "WIDTH", "box_at", "box_record", "paint_room"]

WIDTH, HEIGHT = 128, 96
LANE_HEIGHT = 32
BODY, HEAD, LEG = (10, 10), 6, 3  # width and height of the body, side of the head, length of a leg
CROUCHED = 5  # height of the body
JUMP = (0, 3, 5, 6, 6, 5, 3, 0)  # pixels above the floor, by frame of the second
SPIN = (10, 8, 5, 3, 3, 5, 8, 10)  # width of the body
OBJECT_SIDE = 10
PARCEL = ((12, 3), (235, 235, 235))  # what everything looks like that is carried


def paint_room(agents: Sequence[Agent], paint_seed: int, *, seconds: int = DURATION) -> np.ndarray:
    """A room for so many seconds, as long as the agents' deeds last. Returns: frames_THWC, uint8."""
    frames = seconds * FRAME_RATE
    frames_THWC = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    frames_THWC[:] = background(np.random.default_rng([paint_seed, 0]), WIDTH)[:HEIGHT]
    paint_distractor(frames_THWC, np.random.default_rng([paint_seed, 1]))
    for agent in agents:
        x_T = path_of(agent.x, agent.deeds).tolist()
        for deed in agent.deeds:
            for frame in range(deed.start, deed.end):
                _paint_agent(frames_THWC[frame], agent, frame, x_T[frame], ACTIONS[deed.action])
    return frames_THWC


def box_at(agent: Agent, second: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (not included) of legs, body and head at a key frame, in pixels."""
    frame = second * FRAME_RATE
    x = int(path_of(agent.x, agent.deeds)[frame])
    floor, width, height = _shape(agent, frame, ACTIONS[agent.action_at(frame)])
    half = max(width, HEAD) // 2
    return x - half, floor - LEG - height - HEAD, x + half, floor


def box_record(agent: Agent, second: int, labels: Sequence[int], track: int) -> dict[str, Any]:
    """An agent's box at a key frame, for the manifest; corners are fractions of the picture."""
    sides = (WIDTH, HEIGHT) * 2
    xyxy = [round(value / side, 6) for value, side in zip(box_at(agent, second), sides, strict=True)]
    return {"seconds": float(second), "xyxy": xyxy, "labels": list(labels), "track": track}


def _shape(agent: Agent, frame: int, action: str) -> tuple[int, int, int]:
    """Where the feet are, and width and height of the body."""
    moment = frame % FRAME_RATE
    floor = LANE_HEIGHT * (agent.lane + 1) - 2 - (JUMP[moment] if action == "jump" else 0)
    width = SPIN[moment] if action == "spin" else BODY[0]
    return floor, width, CROUCHED if action == "crouch" else BODY[1]


def _paint_agent(frame_HWC: np.ndarray, agent: Agent, frame: int, x: int, action: str) -> None:
    floor, width, height = _shape(agent, frame, action)
    top = floor - LEG - height
    left = x - width // 2
    # Walking legs swing against each other; the others stand.
    swing = frame % 4 // 2 if action.startswith("walk") else 0
    for leg_x in (x - 4 + 3 * swing, x + 2 - 3 * swing):
        frame_HWC[floor - LEG : floor, leg_x : leg_x + 2] = agent.color
    frame_HWC[top + 1 : floor - LEG - 1, left : left + width] = agent.color
    frame_HWC[top : floor - LEG, left + 1 : left + width - 1] = agent.color
    head_HW = glyph_mask(NAMES.index("disc"), HEAD)
    frame_HWC[top - HEAD : top, x - HEAD // 2 : x + HEAD // 2][head_HW] = agent.head
    _paint_carrying(frame_HWC, agent, frame, x, top)


def _paint_carrying(frame_HWC: np.ndarray, agent: Agent, frame: int, x: int, top: int) -> None:
    second = frame // FRAME_RATE
    for carry in agent.carries:
        if carry.start <= second <= carry.last:
            (width, height), color = PARCEL
            over = top - HEAD - height
            frame_HWC[over : over + height, x - width // 2 : x + width // 2] = color
            for arm in (x - width // 2, x + width // 2 - 1):
                frame_HWC[over + height : top + 2, arm] = agent.color
        elif second == carry.start - 1:
            mask_HW = glyph_mask(NAMES.index(KINDS[carry.kind]), OBJECT_SIDE)
            left = x + 7 if carry.side > 0 else x - 7 - OBJECT_SIDE
            frame_HWC[top : top + OBJECT_SIDE, left : left + OBJECT_SIDE][mask_HW] = carry.color
