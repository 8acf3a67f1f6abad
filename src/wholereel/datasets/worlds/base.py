"""What a world is: a label model with known ceilings, drawn from a seed, that can be recorded as pictures and sound.

A world draws *scenes* (everything that determines one sample), records them, and says what is true about them.
`make.py` writes them to disk, `verify.py` checks a folder. Rules that keep the ceilings true are on the page
`docs/worlds/index.md`. Extra letter: S samples of a wave.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from wholereel.datasets.mirror import Mirror, mirror_of_classes
from wholereel.errors import ConfigError

__all__ = [
    "PROFILES",
    "SPLITS",
    "Oracle",
    "Recording",
    "Scene",
    "Score",
    "World",
    "generator_of",
    "oracle_scores",
    "pick_largest",
]

SPLITS: dict[str, int] = {"train": 0, "val": 1, "test": 2}
PROFILES: dict[str, Fraction] = {"smoke": Fraction(1, 20), "std": Fraction(1), "full": Fraction(10)}
SMALLEST_SPLIT = 16


@dataclass(frozen=True)
class Scene:
    """Everything that determines one sample; worlds add fields.

    Args:
        id: 16 hexadecimal digits, random; the file's name.
        split, index: place in the world.
    """

    id: str
    split: str
    index: int


@dataclass(frozen=True)
class Recording:
    """What a file holds before encoding.

    Args:
        frames_THWC: uint8 red, green, blue; one frame in worlds of stills.
        wave_CS: sound, int16 or float32 in -1..1; `None` = a file without sound.
        sample_rate: of the sound.
    """

    frames_THWC: np.ndarray
    wave_CS: np.ndarray | None = None
    sample_rate: int = 16_000

    @property
    def pcm_CS(self) -> np.ndarray | None:
        """The sound as it is stored: int16."""
        if self.wave_CS is None or self.wave_CS.dtype == np.int16:
            return self.wave_CS
        return np.round(np.clip(self.wave_CS, -1.0, 1.0) * 32767).astype(np.int16)


@dataclass(frozen=True)
class Score:
    """A measured mean and its standard error (or a bound of it)."""

    value: float
    error: float


S = TypeVar("S", bound=Scene)

Oracle = Callable[[Any, np.random.Generator], Any]
"""Predicts from as much of a scene's truth as its level may see: (scene, generator that breaks ties) -> prediction."""


@dataclass(frozen=True)
class World(ABC, Generic[S]):
    """A generated data set. A subclass fills in the class variables and the abstract methods; its fields are options.

    Class variables:
        name, summary: what `wholereel worlds list` prints.
        classes: names of the label column `label`; may be empty.
        std_sizes: samples in each split, profile `std`; the usual splits, or names of its own.
        frame_rate: frames a second; 0 = single pictures, stored as PNG.
        group_frames: frames that may be coded together: a segment, or 1 where a ceiling holds for a single frame.
        companions: other worlds that belong to this one (trimmed clips for pre-training and the like).
        balanced: each class has the same number of samples; needs `classes`, and labels from `balanced_label`.
        version: of the drawing rules; raise it with every change of what is drawn.
        oracle_samples: scenes on which `verify` runs the oracles.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    std_sizes: ClassVar[Mapping[str, int]]
    frame_rate: ClassVar[int] = 8
    group_frames: ClassVar[int]
    companions: ClassVar[tuple[str, ...]] = ()
    balanced: ClassVar[bool] = True
    version: ClassVar[int] = 1
    oracle_samples: ClassVar[int] = 1000

    @abstractmethod
    def sample(self, seed: int, split: str, index: int) -> S:
        """Scene number `index` of a split: a pure function, so order and number of processes do not matter.

        Its generator is `generator_of(seed, self.name, split, index)`.
        """

    @abstractmethod
    def record(self, scene: S) -> Recording:
        """Paint a scene, and let it sound: a pure function."""

    @abstractmethod
    def truth(self, scene: S) -> dict[str, Any]:
        """What is true about a scene: keys of its manifest line beside `id`, `path` and `split`, ready for JSON.

        Label columns (`label`: a class name, or a list of them; absent = unlabelled), `boxes`, `events`, `poses` as in
        `datasets/sample_json.py`, and `meta`.
        """

    @abstractmethod
    def ceilings(self) -> dict[str, float]:
        """Best possible score of each kind of system: closed forms, or a seeded simulation of the label model."""

    @abstractmethod
    def oracles(self) -> dict[str, Oracle]:
        """Predictors from the truth, by level; levels are keys of `ceilings`. They predict class indices (`right`)."""

    def right(self, scene: S, prediction: Any) -> float:
        """Score of an oracle's prediction, 0..1; here 1 for the index of the scene's class."""
        return float(self.classes[prediction] == self.truth(scene)["label"])

    def measure(self, scenes: Sequence[S], generator: np.random.Generator) -> dict[str, Score]:
        """Score of each oracle on some scenes; here the mean of `right`. Worlds with other metrics say so here."""
        ceilings = self.ceilings()
        scores = {}
        for level, predict in self.oracles().items():
            value = float(np.mean([self.right(scene, predict(scene, generator)) for scene in scenes]))
            # The variance of a score in 0..1 is largest when it is 0 or 1.
            variance = ceilings[level] * (1 - ceilings[level])
            scores[level] = Score(value, (max(variance, 0.0) / len(scenes)) ** 0.5)
        return scores

    def label_spaces(self) -> dict[str, tuple[str, ...]]:
        """Class names by label column."""
        return {"label": self.classes} if self.classes else {}

    def mirror(self) -> Mirror:
        """What flips from left to right do to labels and joints; here read from the names of the classes."""
        return mirror_of_classes(self.label_spaces())

    def export(self, folder: Path, scenes: Iterable[S]) -> None:
        """Write `folder/official`: the annotations in the format of the set that the world imitates; here nothing."""

    def measurements(self, scenes: Sequence[S]) -> dict[str, float]:
        """Properties of drawn scenes that a reader wants to see (`verify` prints them); here none."""
        return {}

    def moments(self, scene: S) -> list[int]:
        """Indices of the frames that a picture of the scene shows; here eight in equal steps."""
        count = len(self.record(scene).frames_THWC)
        return list(dict.fromkeys(((2 * np.arange(8) + 1) * count // 16).tolist()))

    def oracle(self, level: str) -> Oracle:
        """The best predictor of a level (see `oracles`).

        Raises: ConfigError: the world has no such level.
        """
        table = self.oracles()
        if level not in table:
            raise ConfigError(f"world {self.name!r} has no oracle {level!r}; choose one of {', '.join(table)}")
        return table[level]

    @property
    def options(self) -> dict[str, Any]:
        """The fields of this object: with the name, all that determines what is drawn."""
        return asdict(self)

    @property
    def block(self) -> int:
        """Sizes of splits are multiples of this number."""
        return len(self.classes) if self.balanced and self.classes else 1

    def sizes(self, profile: str = "std") -> dict[str, int]:
        """Samples in each split: a share of the standard sizes, at least 16, rounded up to a multiple of `block`.

        Raises: ConfigError: unknown profile.
        """
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}")
        wanted = {
            split: n if n == 0 else max(SMALLEST_SPLIT, int(n * PROFILES[profile]))
            for split, n in self.std_sizes.items()
        }
        return {split: -(-n // self.block) * self.block for split, n in wanted.items()}

    def balanced_label(self, seed: int, split: str, index: int) -> int:
        """Class index of a sample: every block of K consecutive indices holds each of the K classes once, shuffled.

        So a split whose size is a multiple of K is balanced exactly, whatever the size, and a small world is a prefix
        of a large one. The order comes from a stream of its own.
        """
        block, place = divmod(index, len(self.classes))
        order = generator_of(seed, f"{self.name} labels", self.known_split(split), block).permutation(len(self.classes))
        return int(order[place])

    def known_split(self, split: str) -> str:
        """The split's name.

        Raises: ConfigError: the world has no such split.
        """
        if split not in self.std_sizes:
            raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(self.std_sizes)}")
        return split


def generator_of(seed: int, name: str, split: str, index: int) -> np.random.Generator:
    """The sample's own stream of random numbers: `PCG64(SeedSequence([seed, crc32(name), split id, index]))`.

    Split ids: train 0, val 1, test 2; of any other split the CRC-32 of its name.
    """
    split_id = SPLITS[split] if split in SPLITS else zlib.crc32(split.encode())
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode()), split_id, index])
    return np.random.Generator(np.random.PCG64(sequence))


def pick_largest(scores_K: np.ndarray, generator: np.random.Generator) -> int:
    """Index of the largest score; among equals a random one (otherwise ties would favour the first class)."""
    best = np.flatnonzero(scores_K >= scores_K.max() - 1e-9)
    return int(generator.choice(best))


def oracle_scores(world: World[Any], *, samples: int, seed: int = 0) -> dict[str, Score]:
    """Score of each oracle over the first `samples` scenes of the world's first split (no pixels are painted)."""
    split = next(iter(world.std_sizes))
    scenes = [world.sample(seed, split, index) for index in range(samples)]
    return world.measure(scenes, np.random.default_rng([seed, 1]))
