"""kitchen: what will be done next? Most actions follow from the last one; ten need the recipe, shown at the beginning.

Anticipation as on EPIC-KITCHENS-100: what is seen ends one second before the action begins. From the last action alone
class-mean recall@5 is at most (14 + 10 / 2) / 24 = 0.792; who remembers the banner reaches 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, Score, World, generator_of
from wholereel.datasets.worlds.epic_files import write_epic_files
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.datasets.worlds.kitchen_plan import (
    ACTION_NAMES,
    ACTIONS,
    BANNER_SECONDS,
    BELL,
    COMMON,
    DISHES,
    DURATION,
    SERVE,
    VERBS,
    Segment,
    draw_segments,
    next_action,
)
from wholereel.datasets.worlds.render import background, paint_distractor, scaled
from wholereel.errors import ConfigError

__all__ = ["Kitchen", "KitchenScene", "blind_recall"]

FRAME_RATE = 8
PARTICIPANTS, UNSEEN = 10, 2
# A dish is a pair of glyphs, a thing a single one.
PAIRS = tuple(combinations(range(5), 2))
SIDE, PAIR_SIDE, BELL_SIDE, BANNER_HEIGHT, MARGIN = 18, 14, 10, 22, 7
BANNER, BANNER_INK, RINGING = (240, 240, 240), (20, 20, 20), (255, 220, 0)
SWING = (0, 3, 4, 3, 0, -3, -4, -3)
RISE = (5, 4, 2, 1, -1, -2, -4, -5)
# How what is done moves, by frame of the second: steps right, steps down, in pixels of the small canvas.
MOTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "wash": (SWING, (0,) * 8),
    "cut": ((0,) * 8, SWING),
    "mix": ((*SWING[2:], *SWING[:2]), SWING),
    "take": ((0,) * 8, RISE),
    "pour": ((0,) * 8, RISE[::-1]),
    "serve": ((0,) * 8, (0,) * 8),
}


@dataclass(frozen=True)
class KitchenScene(Scene):
    """Two minutes in a kitchen.

    Args:
        participant: 1..10; means nothing. The last two are not in the training split.
        recipe: index into `DISHES`.
        segments: in order of time.
        paint_seed: of background, noise and distractor.
    """

    participant: int
    recipe: int
    segments: tuple[Segment, ...]
    paint_seed: int


@dataclass(frozen=True)
class Kitchen(World[KitchenScene]):
    """Videos of 120 s with about 27 actions each.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        bell: probability that it rings during a common action. Higher: more dishes are served, and more must be known.
    Raises: ConfigError: `size` is odd or too small, or `bell` is no probability.
    """

    name: ClassVar[str] = "kitchen"
    summary: ClassVar[str] = "which action comes next; some follow from a recipe shown at the beginning (EPIC's form)"
    classes: ClassVar[tuple[str, ...]] = ACTION_NAMES
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 120, "val": 20, "test": 40}
    group_frames: ClassVar[int] = FRAME_RATE
    balanced: ClassVar[bool] = False
    oracle_samples: ClassVar[int] = 400

    size: int = 64
    bell: float = BELL

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.bell <= 1:
            raise ConfigError(f"kitchen: bell must be above 0 and at most 1, got {self.bell}")

    @property
    def block(self) -> int:
        """Each recipe has the same number of videos."""
        return len(DISHES)

    def sample(self, seed: int, split: str, index: int) -> KitchenScene:
        block, place = divmod(index, len(DISHES))
        recipes = generator_of(seed, f"{self.name} recipes", self.known_split(split), block).permutation(len(DISHES))
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        people = PARTICIPANTS - UNSEEN if split == "train" else PARTICIPANTS
        participant = 1 + int(generator.integers(people))
        recipe = int(recipes[place])
        segments = draw_segments(recipe, generator, bell=self.bell)
        # EPIC's names of videos begin with the participant.
        id = f"P{participant:02d}_{name:016x}"
        return KitchenScene(id, split, index, participant, recipe, segments, paint_seed)

    def record(self, scene: KitchenScene) -> Recording:
        frames_THWC = np.empty((DURATION * FRAME_RATE, self.size, self.size, 3), np.uint8)
        frames_THWC[:] = background(np.random.default_rng([scene.paint_seed, 0]), self.size)
        paint_distractor(frames_THWC, np.random.default_rng([scene.paint_seed, 1]))
        self._paint_banner(frames_THWC[: BANNER_SECONDS * FRAME_RATE], scene.recipe)
        for segment in scene.segments:
            self._paint_segment(frames_THWC[segment.start * FRAME_RATE : segment.end * FRAME_RATE], segment)
        return Recording(frames_THWC)

    def truth(self, scene: KitchenScene) -> dict[str, Any]:
        return {
            "label": [ACTION_NAMES[action] for action in sorted({segment.action for segment in scene.segments})],
            "events": [[segment.action, float(segment.start), float(segment.end)] for segment in scene.segments],
            "meta": {
                "participant": f"P{scene.participant:02d}",
                "recipe": DISHES[scene.recipe],
                "bells": [segment.bell for segment in scene.segments],
            },
        }

    def ceilings(self) -> dict[str, float]:
        return {
            "last_segment_top1": float(blind_recall(1)),
            "last_segment_recall5": float(blind_recall(5)),
            "memory_top1": 1.0,
            "memory_recall5": 1.0,
        }

    def oracles(self) -> dict[str, Oracle]:
        """The k best guesses for each action of a video, from the segment before it, with or without the recipe."""
        return {
            "last_segment_top1": partial(guesses, 1, False),
            "last_segment_recall5": partial(guesses, 5, False),
            "memory_top1": partial(guesses, 1, True),
            "memory_recall5": partial(guesses, 5, True),
        }

    def measure(self, scenes: Sequence[KitchenScene], generator: np.random.Generator) -> dict[str, Score]:
        """Class-mean recall: the share of an action's occurrences that is among the guesses, then the mean of those."""
        return {level: class_mean_recall(scenes, predict, generator) for level, predict in self.oracles().items()}

    def export(self, folder: Path, scenes: Iterable[KitchenScene]) -> None:
        write_epic_files(folder / "official", scenes, self.size)

    def moments(self, scene: KitchenScene) -> list[int]:
        """The banner, and the segments around the first bell."""
        number = next((n for n, segment in enumerate(scene.segments) if segment.bell), 0)
        first = max(0, number - 2)
        return [FRAME_RATE, *(segment.start * FRAME_RATE + 2 for segment in scene.segments[first : first + 7])]

    def _paint_banner(self, frames_THWC: np.ndarray, recipe: int) -> None:
        height = round(scaled(BANNER_HEIGHT, self.size))
        frames_THWC[:, :height] = BANNER
        self._paint_pair(frames_THWC, recipe, height // 2, self.size // 2, BANNER_INK)

    def _paint_segment(self, frames_THWC: np.ndarray, segment: Segment) -> None:
        verb, noun = ACTIONS[segment.action]
        # Half of what is shown, and how far it moves, stay inside the picture; the bell has the upper right corner.
        edge = round(scaled(PAIR_SIDE + 2 if verb == SERVE else SIDE // 2 + MARGIN, self.size))
        room, high = self.size - 2 * edge, round(scaled(BELL_SIDE, self.size))
        x, y = edge + round(segment.x * room), edge + high + round(segment.y * (room - high))
        if verb == SERVE:
            self._paint_pair(frames_THWC, segment.action - COMMON, y, x, segment.color)
        else:
            right, down = MOTIONS[VERBS[verb]]
            for frame, frame_HWC in enumerate(frames_THWC):
                moved_x = x + round(scaled(right[frame % FRAME_RATE], self.size))
                moved_y = y + round(scaled(down[frame % FRAME_RATE], self.size))
                self._paint_glyph(frame_HWC[None], noun, SIDE, moved_y, moved_x, segment.color)
        if segment.bell:
            side = round(scaled(BELL_SIDE, self.size))
            self._paint_glyph(frames_THWC, NAMES.index("triangle"), BELL_SIDE, side // 2 + 1, self.size - side, RINGING)

    def _paint_pair(self, frames_THWC: np.ndarray, dish: int, y: int, x: int, color: tuple[int, int, int]) -> None:
        step = round(scaled(PAIR_SIDE, self.size)) // 2 + 1
        for kind, side in zip(PAIRS[dish], (-step, step), strict=True):
            self._paint_glyph(frames_THWC, kind, PAIR_SIDE, y, x + side, color)

    def _paint_glyph(
        self, frames_THWC: np.ndarray, kind: int, side: int, y: int, x: int, color: tuple[int, int, int]
    ) -> None:
        """A glyph with its middle at x, y."""
        pixels = round(scaled(side, self.size))
        top, left = y - pixels // 2, x - pixels // 2
        frames_THWC[:, top : top + pixels, left : left + pixels][:, glyph_mask(kind, pixels)] = color


def blind_recall(guesses: int) -> Fraction:
    """Class-mean recall@k of who sees the last segment only: common actions follow from it, dishes are guessed."""
    return Fraction(COMMON + len(DISHES) * min(Fraction(1), Fraction(guesses, len(DISHES))), len(ACTIONS))


def guesses(count: int, knows_recipe: bool, scene: KitchenScene, generator: np.random.Generator) -> list[set[int]]:
    """Best `count` guesses for each segment. The first action is always the same; the others follow the last one."""
    result = [{scene.segments[0].action}]
    for last in scene.segments[:-1]:
        if not last.bell or knows_recipe:
            result.append({next_action(last.action, last.bell, scene.recipe)})
        else:
            result.append({COMMON + int(dish) for dish in generator.permutation(len(DISHES))[:count]})
    return result


def class_mean_recall(
    scenes: Sequence[KitchenScene],
    predict: Callable[[KitchenScene, np.random.Generator], list[set[int]]],
    generator: np.random.Generator,
) -> Score:
    """Mean over the actions that occur; the error is that of independent guesses."""
    hits_K, count_K = np.zeros(len(ACTIONS)), np.zeros(len(ACTIONS))
    for scene in scenes:
        for segment, guessed in zip(scene.segments, predict(scene, generator), strict=True):
            hits_K[segment.action] += segment.action in guessed
            count_K[segment.action] += 1
    seen_K = count_K > 0
    recall_K = hits_K[seen_K] / count_K[seen_K]
    variance_K = recall_K * (1 - recall_K) / count_K[seen_K]
    return Score(float(recall_K.mean()), float(variance_K.sum() ** 0.5 / seen_K.sum()))
