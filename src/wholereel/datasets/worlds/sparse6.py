"""sparse6: a minute in which four seconds matter. A clip model that is right about each clip is misled by most.

Of 30 slots of two seconds, two show the true class's glyph *moving*, with a chirp; four show glyphs of wrong classes,
at rest and silent; 24 show nothing. The trimmed companion labels moving and resting glyphs alike, so a good clip
model is sure of itself on the wrong ones. Whoever first looks where something moves, or listens, needs two clips.
Imitates the setting of SCSampler (arXiv 1904.04289).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import product
from math import comb
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of, pick_largest
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.glyphs import NAMES, glyph_mask
from wholereel.datasets.worlds.painting import Color, canvas, draw_color, draw_identity, paint_mask
from wholereel.datasets.worlds.render import scaled
from wholereel.datasets.worlds.sound import SAMPLE_RATE, add_tone, noise, onset

__all__ = ["Slot", "Sparse6", "Sparse6Clips", "dense_accuracy", "random_accuracy"]

KINDS = tuple(NAMES.index(name) for name in ("disc", "square", "triangle", "plus", "ring", "diamond"))
CLASSES = tuple(NAMES[kind] for kind in KINDS)
SLOTS, SLOT_FRAMES, FRAME_RATE = 30, 16, 8
TRUE_SLOTS, DECOYS = 2, 4
SIDES = (16, 24)
SPEED = (2.0, 3.0)
CHIRP_SECONDS, CHIRP_DECAY, CHIRP_GLIDE, CHIRP_AMPLITUDE = 0.5, 0.2, 1200.0, 0.4
CHIRP_HERTZ = (500.0, 900.0)
# So quiet that a minute of it is a third of a megabyte.
NOISE_DECIBEL = -80.0


@dataclass(frozen=True)
class Slot:
    """A glyph in a slot of two seconds.

    Args:
        slot: which one, from 0.
        label: class index of the glyph.
        salient: it moves, and there is a chirp.
        side: of its square, in pixels.
        x, y: left, top at the first frame, in pixels.
        vx, vy: pixels a frame; 0 at rest. Reflected at the borders.
        color: red, green, blue.
        chirp: first sample of the chirp, counted from the beginning of the video; `None` = silent.
        hertz: frequency at which the chirp begins.
    """

    slot: int
    label: int
    salient: bool
    side: int
    x: float
    y: float
    vx: float
    vy: float
    color: Color
    chirp: int | None
    hertz: float


@dataclass(frozen=True)
class SparseScene(Scene):
    """A video: class index, slots that show something in order of time, and the seed of the rest."""

    label: int
    slots: tuple[Slot, ...]
    paint_seed: int


@dataclass(frozen=True)
class SlotWorld(World[SparseScene]):
    """What the untrimmed videos and the trimmed clips share: how a slot is drawn, painted and heard.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    classes: ClassVar[tuple[str, ...]] = CLASSES
    frame_rate: ClassVar[int] = FRAME_RATE
    group_frames: ClassVar[int] = SLOT_FRAMES
    slots: ClassVar[int]

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def draw_slot(self, slot: int, label: int, salient: bool, generator: np.random.Generator) -> Slot:
        """Place, size, colour, direction and sound: the same draws whatever is shown, moving or not."""
        side = round(scaled(int(generator.integers(SIDES[0], SIDES[1] + 1)), self.size))
        x, y = (float(n) for n in generator.uniform(0, self.size - side, size=2))
        speed, turn = generator.uniform(*SPEED), generator.uniform(0, 2 * np.pi)
        vx, vy = (float(scaled(speed * part, self.size)) for part in (np.cos(turn), np.sin(turn)))
        color = draw_color(generator)
        chirp = onset(slot * SLOT_FRAMES / FRAME_RATE + generator.uniform(0.1, 1.3))
        hertz = float(generator.uniform(*CHIRP_HERTZ))
        if salient:
            return Slot(slot, label, True, side, x, y, vx, vy, color, chirp, hertz)
        return Slot(slot, label, False, side, x, y, 0.0, 0.0, color, None, hertz)

    def record(self, scene: SparseScene) -> Recording:
        frames = self.slots * SLOT_FRAMES
        frames_THWC = canvas(scene.paint_seed, frames=frames, size=self.size, group_frames=SLOT_FRAMES)
        wave_S = noise(scene.paint_seed, frames / FRAME_RATE, decibel=NOISE_DECIBEL)
        for slot in scene.slots:
            mask_HW = glyph_mask(KINDS[slot.label], slot.side)
            # The first and the last frame of a slot are empty.
            for step in range(1, SLOT_FRAMES - 1):
                frame_HWC = frames_THWC[slot.slot * SLOT_FRAMES + step]
                x, y = (_reflected(at + step * v, self.size - slot.side) for at, v in _axes(slot))
                paint_mask(frame_HWC, mask_HW, x=x, y=y, color=slot.color)
            if slot.chirp is not None:
                tone = [(slot.hertz, CHIRP_AMPLITUDE)]
                add_tone(wave_S, slot.chirp, tone, seconds=CHIRP_SECONDS, decay=CHIRP_DECAY, glide=CHIRP_GLIDE)
        return Recording(frames_THWC, wave_S[None].astype(np.float32), SAMPLE_RATE)

    def truth(self, scene: SparseScene) -> dict[str, Any]:
        slots = [
            {
                "slot": slot.slot,
                "class": CLASSES[slot.label],
                "salient": slot.salient,
                "chirp": None if slot.chirp is None else slot.chirp / SAMPLE_RATE,
            }
            for slot in scene.slots
        ]
        return {"label": CLASSES[scene.label], "meta": {"slots": slots}}

    def right(self, scene: SparseScene, prediction: Any) -> float:
        return float(prediction == scene.label)


@dataclass(frozen=True)
class Sparse6(SlotWorld):
    """Untrimmed videos of a minute."""

    name: ClassVar[str] = "sparse6"
    summary: ClassVar[str] = "which glyph moves in 4 of 60 seconds, among resting glyphs of other classes (with sound)"
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 400, "val": 60, "test": 300}
    companions: ClassVar[tuple[str, ...]] = ("sparse6_clips",)
    slots: ClassVar[int] = SLOTS

    def sample(self, seed: int, split: str, index: int) -> SparseScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        where = generator.permutation(SLOTS)[: TRUE_SLOTS + DECOYS].tolist()
        wrong = (label + generator.integers(1, len(CLASSES), size=DECOYS)) % len(CLASSES)
        shown = [(label, True)] * TRUE_SLOTS + [(int(other), False) for other in wrong]
        slots = [self.draw_slot(slot, *what, generator) for slot, what in zip(where, shown, strict=True)]
        slots.sort(key=lambda slot: slot.slot)
        return SparseScene(name, split, index, label, tuple(slots), paint_seed)

    def ceilings(self) -> dict[str, float]:
        """Votes of an ideal clip classifier: of all clips, of random ones, of the two that move."""
        return {
            "dense": float(dense_accuracy()),
            **{f"random_{k}": float(random_accuracy(k)) for k in (1, 2, 4, 8)},
            "salient_2": 1.0,
        }

    def oracles(self) -> dict[str, Oracle]:
        def votes_of_random(count: int) -> Oracle:
            def predict(scene: SparseScene, generator: np.random.Generator) -> int:
                chosen = set(generator.permutation(SLOTS)[:count].tolist())
                return _most_votes([slot for slot in scene.slots if slot.slot in chosen], generator)

            return predict

        return {
            "dense": lambda scene, generator: _most_votes(scene.slots, generator),
            **{f"random_{k}": votes_of_random(k) for k in (1, 2, 4, 8)},
            "salient_2": lambda scene, generator: _most_votes([s for s in scene.slots if s.salient], generator),
        }

    def moments(self, scene: SparseScene) -> list[int]:
        """Two frames of each salient slot, one of each other glyph."""
        frames = [
            slot.slot * SLOT_FRAMES + step for slot in scene.slots for step in ((4, 11) if slot.salient else (7,))
        ]
        return frames


@dataclass(frozen=True)
class Sparse6Clips(SlotWorld):
    """Trimmed clips of two seconds, half of them moving and sounding, half at rest and silent."""

    name: ClassVar[str] = "sparse6_clips"
    summary: ClassVar[str] = "which of 6 glyphs a 2-second clip shows, moving or at rest (companion of sparse6)"
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 1200, "val": 120, "test": 300}
    slots: ClassVar[int] = 1

    def sample(self, seed: int, split: str, index: int) -> SparseScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        slot = self.draw_slot(0, label, bool(generator.integers(2)), generator)
        return SparseScene(name, split, index, label, (slot,), paint_seed)

    def ceilings(self) -> dict[str, float]:
        return {"clip": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {"clip": lambda scene, generator: _most_votes(scene.slots, generator)}


def dense_accuracy() -> Fraction:
    """Votes of all slots: two for the true class, four spread over the five others; ties at random. 320/625."""
    wrong = len(CLASSES) - 1
    total = Fraction(0)
    for decoys in product(range(wrong), repeat=DECOYS):
        total += _share_of_true([TRUE_SLOTS] + [decoys.count(kind) for kind in range(wrong)])
    return total / wrong**DECOYS


@cache
def random_accuracy(clips: int) -> Fraction:
    """The same votes of `clips` random slots: hypergeometric numbers of true ones and decoys among them."""
    wrong, dull = len(CLASSES) - 1, SLOTS - TRUE_SLOTS - DECOYS
    total = Fraction(0)
    for true in range(min(TRUE_SLOTS, clips) + 1):
        for decoys in range(min(DECOYS, clips - true) + 1):
            ways = comb(TRUE_SLOTS, true) * comb(DECOYS, decoys) * comb(dull, clips - true - decoys)
            votes = [[kinds.count(kind) for kind in range(wrong)] for kinds in product(range(wrong), repeat=decoys)]
            right = sum((_share_of_true([true, *others]) for others in votes), Fraction(0)) / len(votes)
            total += Fraction(ways, comb(SLOTS, clips)) * right
    return total


def _share_of_true(votes: Sequence[int]) -> Fraction:
    """Probability that the first class is chosen among those with most votes."""
    return Fraction(1, list(votes).count(max(votes))) if votes[0] == max(votes) else Fraction(0)


def _most_votes(slots: Sequence[Slot], generator: np.random.Generator) -> int:
    votes_K = np.bincount([slot.label for slot in slots], minlength=len(CLASSES)).astype(np.float64)
    return pick_largest(votes_K, generator)


def _axes(slot: Slot) -> tuple[tuple[float, float], tuple[float, float]]:
    return (slot.x, slot.vx), (slot.y, slot.vy)


def _reflected(at: float, room: float) -> int:
    """Place on a line of length `room` with mirrors at both ends."""
    folded = at % (2 * room)
    return int(np.rint(min(folded, 2 * room - folded)))
