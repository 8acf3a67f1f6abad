"""cue_probe: a stream of clips in which the answer to a question needs a clip from some time ago.

A *cue* clip flashes one of four hues; some clips later a *probe* clip shows one of four shapes and asks for
(cue + probe) mod 4. A stream holds one such block for each gap of 1, 2, 4, 8 and 16 clips, so a system that remembers
s earlier clips answers the share of gaps up to s, and guesses the rest: a staircase (`docs/worlds/cue_probe.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import Event, check_size
from wholereel.datasets.worlds.render import render_scene
from wholereel.datasets.worlds.stream_clips import (
    ANSWERS,
    CLIP_FRAMES,
    FILLERS,
    Flash,
    draw_flash,
    draw_shape,
    flash_record,
    paint_flash,
    shape_record,
)
from wholereel.errors import ConfigError

__all__ = ["GAPS", "Block", "CueProbe", "CueProbeScene", "staircase"]

GAPS = (1, 2, 4, 8, 16)
CLIPS = 40
BUSY = sum(gap + 1 for gap in GAPS)  # clips that belong to blocks, at most


@dataclass(frozen=True)
class Block:
    """A question: the cue's and the probe's clip, what they show, and the answer."""

    gap: int
    cue_clip: int
    cue: int
    probe: int
    answer: int

    @property
    def probe_clip(self) -> int:
        """The clip that has a label."""
        return self.cue_clip + self.gap


@dataclass(frozen=True)
class CueProbeScene(Scene):
    """A stream.

    Args:
        blocks: in order of time.
        flashes: the cues' flashes, one a block.
        shapes: glyphs of probe and filler clips, in order of time.
        paint_seed: of background, noise and distractor.
    """

    blocks: tuple[Block, ...]
    flashes: tuple[Flash, ...]
    shapes: tuple[Event, ...]
    paint_seed: int


@dataclass(frozen=True)
class CueProbe(World[CueProbeScene]):
    """Forty clips of two seconds; the five probe clips have labels, the others have none.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
        longest: gaps are those up to this one; where it is less than 16, as many rounds of them as 36 clips hold. Gaps
            of one clip are asked 18 times in a stream, so that a memory can learn to be asked before it has to wait.
    Raises: ConfigError: `longest` is no gap.
    """

    name: ClassVar[str] = "cue_probe"
    summary: ClassVar[str] = (
        "questions whose answer needs a clip seen 1 to 16 clips ago (measures how far a memory reaches)"
    )
    classes: ClassVar[tuple[str, ...]] = tuple(f"answer_{answer}" for answer in range(ANSWERS))
    std_sizes: ClassVar[Mapping[str, int]] = {"train": 400, "val": 60, "test": 120}
    group_frames: ClassVar[int] = CLIP_FRAMES
    balanced: ClassVar[bool] = False
    companions: ClassVar[tuple[str, ...]] = ("cue_probe_clips",)

    size: int = 64
    longest: int = GAPS[-1]

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.longest not in GAPS:
            raise ConfigError(f"cue_probe: longest must be one of {GAPS}, got {self.longest}")

    @property
    def gaps(self) -> tuple[int, ...]:
        """The different gaps, ascending."""
        return GAPS[: GAPS.index(self.longest) + 1]

    @property
    def rounds(self) -> int:
        """How often a stream asks about each gap."""
        return BUSY // sum(gap + 1 for gap in self.gaps)

    @property
    def block(self) -> int:
        """Four consecutive streams have, for each gap, each answer once."""
        return ANSWERS

    def sample(self, seed: int, split: str, index: int) -> CueProbeScene:
        asked = [(gap, turn) for turn in range(self.rounds) for gap in self.gaps]
        answers = [self._balanced_answer(seed, split, index, gap, turn) for gap, turn in asked]
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = (int(n) for n in generator.integers(0, 2**64, size=2, dtype=np.uint64))
        blocks = draw_blocks([gap for gap, _ in asked], answers, generator)
        flashes = tuple(draw_flash(block.cue, block.cue_clip, generator) for block in blocks)
        kinds = {block.probe_clip: block.probe for block in blocks}
        cues = {block.cue_clip for block in blocks}
        shapes = tuple(
            # The filler's kind is drawn in every clip, so that the numbers that follow do not depend on the blocks.
            draw_shape(clip, kinds.get(clip, filler), self.size, generator)
            for clip, filler in enumerate(generator.choice(FILLERS, size=CLIPS).tolist())
            if clip not in cues
        )
        return CueProbeScene(f"{name:016x}", split, index, blocks, flashes, shapes, paint_seed)

    def record(self, scene: CueProbeScene) -> Recording:
        frames_THWC = render_scene(
            scene.shapes, scene.paint_seed, segments=CLIPS, segment_frames=CLIP_FRAMES, size=self.size
        )
        for flash in scene.flashes:
            paint_flash(frames_THWC, flash)
        return Recording(frames_THWC)

    def truth(self, scene: CueProbeScene) -> dict[str, Any]:
        seconds = CLIP_FRAMES / self.frame_rate
        answers = {block.probe_clip: block.answer for block in scene.blocks}
        return {
            "events": [[answer, clip * seconds, (clip + 1) * seconds] for clip, answer in answers.items()],
            "meta": {
                "clip_seconds": seconds,
                "clip_labels": [answers.get(clip) for clip in range(CLIPS)],
                "blocks": [asdict(block) | {"probe_clip": block.probe_clip} for block in scene.blocks],
                "flashes": [flash_record(flash) for flash in scene.flashes],
                "shapes": [shape_record(shape) for shape in scene.shapes],
            },
        }

    def ceilings(self) -> dict[str, float]:
        return {f"support_{support}": float(staircase(support, self.gaps)) for support in (0, *self.gaps)}

    def oracles(self) -> dict[str, Oracle]:
        """Predict the answers of a stream's probes from the cues at most `support` clips back."""
        return {f"support_{support}": partial(answer_with_support, support) for support in (0, *self.gaps)}

    def right(self, scene: CueProbeScene, prediction: Any) -> float:
        """Share of right answers among the stream's probes."""
        answers = [block.answer for block in scene.blocks]
        return float(np.mean([a == b for a, b in zip(prediction, answers, strict=True)]))

    def moments(self, scene: CueProbeScene) -> list[int]:
        """The middle of each clip, from the cue of the shortest gap on."""
        first = min(min(block.cue_clip for block in scene.blocks if block.gap in (1, 2, 4)), CLIPS - 8)
        return [clip * CLIP_FRAMES + CLIP_FRAMES // 2 for clip in range(first, first + 8)]

    def _balanced_answer(self, seed: int, split: str, index: int, gap: int, turn: int) -> int:
        block, place = divmod(index, ANSWERS)
        stream = f"{self.name} answers {gap}" + (f" turn {turn}" if turn else "")
        generator = generator_of(seed, stream, self.known_split(split), block)
        return int(generator.permutation(ANSWERS)[place])


def staircase(support: int, gaps: Sequence[int] = GAPS) -> Fraction:
    """Best accuracy of a system that sees a probe's clip and the `support` clips before it, all gaps equally often."""
    return Fraction(sum(Fraction(1) if gap <= support else Fraction(1, ANSWERS) for gap in gaps), len(gaps))


def draw_blocks(gaps: Sequence[int], answers: Sequence[int], generator: np.random.Generator) -> tuple[Block, ...]:
    """Order of the blocks, the spare clips between them, and the cues; a cue tells nothing about its answer.

    Args:
        gaps, answers: of each block.
    """
    order = generator.permutation(len(gaps)).tolist()
    spare = CLIPS - sum(gap + 1 for gap in gaps)
    # Each spare clip goes before a block, or behind the last, with equal probability.
    before = np.bincount(generator.integers(0, len(gaps) + 1, size=spare), minlength=len(gaps) + 1)
    cues = generator.integers(0, ANSWERS, size=len(gaps))
    blocks, clip = [], 0
    for place, skipped, cue in zip(order, before.tolist(), cues.tolist(), strict=False):
        clip += skipped
        gap, answer = gaps[place], answers[place]
        blocks.append(Block(gap, clip, cue, (answer - cue) % ANSWERS, answer))
        clip += gap + 1
    return tuple(blocks)


def answer_with_support(support: int, scene: CueProbeScene, generator: np.random.Generator) -> list[int]:
    """Right where the cue is at most `support` clips back, else any answer: without the cue all are equally likely."""
    guesses = generator.integers(0, ANSWERS, size=len(scene.blocks)).tolist()
    return [
        (block.cue + block.probe) % ANSWERS if block.gap <= support else guess
        for block, guess in zip(scene.blocks, guesses, strict=True)
    ]
