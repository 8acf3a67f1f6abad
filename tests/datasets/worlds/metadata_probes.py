"""What the outside of files tells about labels: size, length, mean colours, contrast, loudness; nothing, it should.

    python -m tests.datasets.worlds.metadata_probes COUNT SEED

For each world whose label must not show from outside: accuracy of a linear classifier on the second half of COUNT
training samples, the probability that a guess does as well or better, and the same with permuted labels.
N samples, F features.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.datasets.worlds.frame_probes import linear_accuracy
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.base import World
from wholereel.datasets.worlds.make import write_recording

# World: the label of a scene. Not here: sets of single trimmed objects, where size and colour belong to what is shown.
HIDDEN = {
    "match8": lambda scene: scene.label,
    "pair6": lambda scene: scene.label,
    "order2": lambda scene: scene.label,
    "sparse6": lambda scene: scene.label,
    "bounce_rhythm": lambda scene: scene.label,
    "bounce_material": lambda scene: scene.label,
    "gblend4": lambda scene: scene.label,
    "finemotion8": lambda scene: scene.label,
    "stick_actions": lambda scene: scene.label,
    "motion_objects": lambda scene: scene.mover.verb,
}


def outside(world: World, *, count: int, seed: int, label) -> tuple[np.ndarray, np.ndarray]:
    """Features of the first samples of the first split. Returns: features_NF, labels_N."""
    split = next(iter(world.sizes("smoke")))
    features, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.mp4"
        for index in range(count):
            scene = world.sample(seed, split, index)
            recording = world.record(scene)
            write_recording(path, world, recording)
            pixels = recording.frames_THWC.astype(np.float32)
            wave = np.zeros(1) if recording.wave_CS is None else recording.wave_CS.astype(np.float64)
            moved = np.abs(np.diff(pixels, axis=0)).mean() if len(pixels) > 1 else 0.0
            loudness = [math.sqrt((wave**2).mean()), float(wave.size)]  # the peak belongs to a timbre
            features.append([path.stat().st_size, len(pixels), *pixels.mean((0, 1, 2)), pixels.std(), moved, *loudness])
            labels.append(label(scene))
    return np.array(features, dtype=np.float64), np.array(labels)


def chance_of(accuracy: float, samples: int, guess: float) -> float:
    """Probability that guessing is right at least this often (binomial, exact)."""
    right = round(accuracy * samples)
    terms = (
        math.lgamma(samples + 1) - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
        + k * math.log(guess) + (samples - k) * math.log1p(-guess)
        for k in range(right, samples + 1)
    )  # fmt: skip
    return min(1.0, sum(math.exp(term) for term in terms))


def main(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name, label in HIDDEN.items():
        features_NF, labels_N = outside(get_world(name), count=count, seed=seed, label=label)
        guess, half = 1 / (int(labels_N.max()) + 1), count - count // 2
        found = linear_accuracy(features_NF, labels_N)
        permuted = linear_accuracy(features_NF, generator.permutation(labels_N))
        print(
            f"{name:<16} guess {guess:.3f}  outside {found:.3f} (p = {chance_of(found, half, guess):.3f})  "
            f"labels permuted {permuted:.3f} (p = {chance_of(permuted, half, guess):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
