"""What happens in a video of `kitchen`: the label model, without a pixel.

Fourteen common actions follow each other on a fixed circle. While one of them is done a bell may ring: then the next
action is to serve the dish of this video's recipe, and after that the circle goes on at a fixed place. So nothing but
the recipe decides which dish it is, and the recipe is shown once, at the beginning. Times are full seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "ACTIONS",
    "ACTION_NAMES",
    "BANNER_SECONDS",
    "BELL",
    "COMMON",
    "DISHES",
    "DURATION",
    "NOUNS",
    "SERVE",
    "VERBS",
    "Segment",
    "draw_segments",
    "next_action",
]

DURATION = 120
BANNER_SECONDS = 3
VERBS = ("wash", "cut", "mix", "take", "pour", "serve")
SERVE = VERBS.index("serve")
THINGS = ("carrot", "onion", "pan", "bowl", "egg", "milk", "spoon")
DISHES = ("soup", "salad", "stew", "pasta", "pie", "cake", "curry", "rice", "toast", "pizza")
NOUNS = (*THINGS, *DISHES)
# Two of the five common verbs for each thing, so that neither verb nor noun alone is the action.
COMMON = 2 * len(THINGS)
ACTIONS: tuple[tuple[int, int], ...] = (
    *((thing % SERVE, thing) for thing in range(len(THINGS))),
    *(((thing + 2) % SERVE, thing) for thing in range(len(THINGS))),
    *((SERVE, len(THINGS) + dish) for dish in range(len(DISHES))),
)
ACTION_NAMES = tuple(f"{VERBS[verb]} {NOUNS[noun]}" for verb, noun in ACTIONS)
FIRST, AFTER_SERVING = 0, COMMON // 2
BELL = 0.15
LENGTHS, GAPS = (2, 3), (1, 2)


@dataclass(frozen=True)
class Segment:
    """An action from second `start` to second `end`.

    Args:
        action: index into `ACTIONS`: common ones, then serving each dish.
        start, end: full seconds.
        bell: it rings, so the next action is to serve.
        x, y: middle of what is shown, in shares 0..1 of the room that there is.
        color: of what is shown.
    """

    action: int
    start: int
    end: int
    bell: bool
    x: float
    y: float
    color: tuple[int, int, int]


def next_action(action: int, bell: bool, recipe: int) -> int:
    """What follows an action in a video of a recipe."""
    if action >= COMMON:
        return AFTER_SERVING
    return COMMON + recipe if bell else (action + 1) % COMMON


def draw_segments(recipe: int, generator: np.random.Generator, *, bell: float = BELL) -> tuple[Segment, ...]:
    """All segments of a video; bells, times, places and colours are drawn without a look at the recipe.

    Args:
        bell: probability that it rings during a common action.
    """
    segments: list[Segment] = []
    action, time = FIRST, BANNER_SECONDS
    while True:
        start = time + int(generator.integers(GAPS[0], GAPS[1] + 1))
        end = start + int(generator.integers(LENGTHS[0], LENGTHS[1] + 1))
        rings = bool(generator.random() < bell)
        x, y = generator.random(2).tolist()
        red, green, blue = (int(n) for n in generator.integers(150, 256, size=3))
        if end > DURATION:
            return tuple(segments)
        rings = rings and action < COMMON
        segments.append(Segment(action, start, end, rings, x, y, (red, green, blue)))
        action, time = next_action(action, rings, recipe), end
