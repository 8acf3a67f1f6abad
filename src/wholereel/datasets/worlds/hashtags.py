"""hashtags: videos with the tags that their authors gave them: some true ones are missing, some are wrong.

Each video shows one of four motions by one of eight glyphs for four seconds; half of the videos are little longer than
that, half last a minute. Label spaces: `verb`, `noun` and `verb_noun` tags. Setting of large-scale weakly supervised
pre-training (arXiv 1905.00561); the clean target is `motion_objects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.motions import VERBS, Mover, draw_mover, paint_mover
from wholereel.datasets.worlds.painting import canvas, draw_identity
from wholereel.errors import ConfigError

__all__ = ["LENGTHS", "TAGS", "Hashtags", "overlap_probability", "tagged_probability"]

FRAME_RATE = 8
EVENT_SECONDS, CLIP_SECONDS = 4, 2
SHORT, LONG = (4.0, 8.0), 60
LENGTHS = ("short", "long", "mixed")
TAGS = (*VERBS, *NAMES)
PAIRS = tuple(f"{verb}_{noun}" for verb in VERBS for noun in NAMES)
KEPT, WRONG = 0.7, 0.5
"""Probability that a true tag was given; mean number of wrong tags."""


@dataclass(frozen=True)
class TaggedScene(Scene):
    """A video.

    Args:
        frames: its length.
        mover: the event, with its first frame.
        tags: indices into `TAGS`, increasing; at least one.
        paint_seed: of the rest.
    """

    frames: int
    mover: Mover
    tags: tuple[int, ...]
    paint_seed: int


@dataclass(frozen=True)
class Hashtags(World[TaggedScene]):
    """Short and long videos with tags.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        length: `short` (4 to 8 s), `long` (60 s), or `mixed`: half of each.
    Raises: ConfigError: `size` is odd or below 32, another length.
    """

    name: ClassVar[str] = "hashtags"
    summary: ClassVar[str] = "motions of glyphs in short and long videos, with missing and wrong tags (multi-label)"
    classes: ClassVar[tuple[str, ...]] = ()
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 4000, "val": 200, "test": 200}
    frame_rate: ClassVar[int] = FRAME_RATE
    group_frames: ClassVar[int] = CLIP_SECONDS * FRAME_RATE

    size: int = 64
    length: str = "mixed"

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.length not in LENGTHS:
            raise ConfigError(f"length of hashtags must be one of {', '.join(LENGTHS)}, got {self.length!r}")

    def label_spaces(self) -> dict[str, tuple[str, ...]]:
        return {"verb": VERBS, "noun": NAMES, "verb_noun": PAIRS}

    def sample(self, seed: int, split: str, index: int) -> TaggedScene:
        generator = generator_of(seed, self.name, self.known_split(split), index)
        name, paint_seed = draw_identity(generator)
        verb, noun = int(generator.integers(len(VERBS))), int(generator.integers(len(NAMES)))
        is_long = bool(generator.integers(2)) if self.length == "mixed" else self.length == "long"
        frames = LONG * FRAME_RATE if is_long else round(generator.uniform(*SHORT) * FRAME_RATE)
        start = draw_start(frames, generator)
        mover = draw_mover(
            noun, verb, size=self.size, frames=EVENT_SECONDS * FRAME_RATE, start=start, generator=generator
        )
        # A video without tags would not be found: it is left out, which is to say, tagged again.
        while not (tags := draw_tags(verb, noun, generator)):
            pass
        return TaggedScene(name, split, index, frames, mover, tags, paint_seed)

    def record(self, scene: TaggedScene) -> Recording:
        whole = -(-scene.frames // self.group_frames) * self.group_frames
        frames_THWC = canvas(scene.paint_seed, frames=whole, size=self.size, group_frames=self.group_frames)
        frames_THWC = frames_THWC[: scene.frames]
        paint_mover(frames_THWC, scene.mover)
        return Recording(frames_THWC)

    def truth(self, scene: TaggedScene) -> dict[str, Any]:
        verbs = [TAGS[tag] for tag in scene.tags if tag < len(VERBS)]
        nouns = [TAGS[tag] for tag in scene.tags if tag >= len(VERBS)]
        spaces = {"verb": verbs, "noun": nouns, "verb_noun": [f"{verb}_{noun}" for verb in verbs for noun in nouns]}
        start, seconds = scene.mover.start / FRAME_RATE, scene.frames / FRAME_RATE
        meta = {
            "verb": VERBS[scene.mover.verb],
            "noun": NAMES[scene.mover.kind],
            "length": "long" if seconds == LONG else "short",
            "seconds": seconds,
            "event": [start, start + EVENT_SECONDS],
        }
        # A video without tags of a space is not labelled there.
        return {space: tags for space, tags in spaces.items() if tags} | {"meta": meta}

    def ceilings(self) -> dict[str, float]:
        """Frequencies of the label model: clips of a long video that touch the event, true tags that were given."""
        return {
            "long_clip": overlap_probability(LONG),
            "verb_tagged": tagged_probability(),
            "noun_tagged": tagged_probability(),
        }

    def oracles(self) -> dict[str, Oracle]:
        def overlaps(scene: TaggedScene, generator: np.random.Generator) -> bool:
            frames = LONG * FRAME_RATE
            # Short videos stand for a long one with an event of its own.
            start = scene.mover.start if scene.frames == frames else draw_start(frames, generator)
            clip = generator.uniform(0, LONG - CLIP_SECONDS)
            return bool(start / FRAME_RATE - CLIP_SECONDS < clip < start / FRAME_RATE + EVENT_SECONDS)

        return {
            "long_clip": overlaps,
            "verb_tagged": lambda scene, generator: scene.mover.verb in scene.tags,
            "noun_tagged": lambda scene, generator: len(VERBS) + scene.mover.kind in scene.tags,
        }

    def right(self, scene: TaggedScene, prediction: Any) -> float:
        return float(prediction)

    def moments(self, scene: TaggedScene) -> list[int]:
        """Eight frames of the event."""
        return list(range(scene.mover.start, scene.mover.start + scene.mover.frames, 4))


def draw_start(frames: int, generator: np.random.Generator) -> int:
    """First frame of the event; in long videos at least a clip's length from both ends."""
    margin = CLIP_SECONDS * FRAME_RATE if frames == LONG * FRAME_RATE else 0
    return int(generator.integers(margin, frames - margin - EVENT_SECONDS * FRAME_RATE + 1))


def draw_tags(verb: int, noun: int, generator: np.random.Generator) -> tuple[int, ...]:
    """True tags, each with probability 0.7, and a Poisson number of wrong ones by Zipf's law. May be empty."""
    true = (verb, len(VERBS) + noun)
    tags = {tag for tag in true if generator.random() < KEPT}
    wrong = [tag for tag in range(len(TAGS)) if tag not in true]
    # How common a tag is depends on the tag, not on the video: 1 / rank in the order of `TAGS`.
    weight = np.array([1 / (1 + tag) for tag in wrong])
    drawn = generator.choice(wrong, size=int(generator.poisson(WRONG)), p=weight / weight.sum())
    return tuple(sorted(tags | {int(tag) for tag in drawn}))


def overlap_probability(seconds: float) -> float:
    """Probability that a random 2-s clip touches a 4-s event that is at least 2 s from both ends: 0.103 of 60 s."""
    return (EVENT_SECONDS + CLIP_SECONDS) / (seconds - CLIP_SECONDS)


def tagged_probability() -> float:
    """Probability that a video carries its true verb's (noun's) tag, given that it carries any: 0.740."""
    return KEPT / (1 - (1 - KEPT) ** 2 * exp(-WRONG))
