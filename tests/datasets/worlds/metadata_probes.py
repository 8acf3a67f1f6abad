"""What the outside of files tells about labels: size, length, mean colours, contrast, loudness; nothing, it should.

    python -m tests.datasets.worlds.metadata_probes COUNT SEED [WORLD...]

For each world with something hidden: accuracy of a linear classifier of these numbers, their squares and their products
on the second half of COUNT samples, chi-square of right and wrong answers against guessing (one degree of freedom) and
its probability, and the same with permuted labels. Worlds in which nothing is hidden are named with the reason.
N samples, F features.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.datasets.worlds.frame_probes import linear_accuracy
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.av_bounce import CLIP_SECONDS, SECONDS, draw_starts
from wholereel.datasets.worlds.ball import BOUNCE_RATE
from wholereel.datasets.worlds.base import World
from wholereel.datasets.worlds.kitchen_plan import COMMON
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.sound import SAMPLE_RATE
from wholereel.datasets.worlds.verify import decode

Features = list[float]
Unit = tuple[Features, int]


def _pixels(frames_THWC: np.ndarray) -> Features:
    frames = frames_THWC.astype(np.float32)
    return [float(len(frames)), *frames.mean((0, 1, 2)).tolist(), float(frames.std())]


def _sound(wave_CS: np.ndarray | None) -> Features:
    if wave_CS is None:
        return [0.0, 0.0]
    wave = wave_CS.astype(np.float64)
    return [math.sqrt((wave**2).mean()), float(wave.size)]  # the peak belongs to a timbre


def _files(world: World[Any], scenes: Iterator[Any]) -> Iterator[tuple[Any, Path, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.mp4"
        for scene in scenes:
            recording = world.record(scene)
            write_recording(path, world, recording)
            yield scene, path, recording


def whole_files(label: Callable[[Any], int]) -> Callable[[World[Any], Iterator[Any]], Iterator[Unit]]:
    """One unit a file."""

    def units(world: World[Any], scenes: Iterator[Any]) -> Iterator[Unit]:
        for scene, path, recording in _files(world, scenes):
            features = [float(path.stat().st_size), *_pixels(recording.frames_THWC), *_sound(recording.wave_CS)]
            yield features, label(scene)

    return units


def probe_clips(world: World[Any], scenes: Iterator[Any]) -> Iterator[Unit]:
    """cue_probe: the clip that asks, its place and gap, and the file; the answer."""
    frames = world.group_frames
    for scene, path, _ in _files(world, scenes):
        decoded_THWC = decode(path)
        for block in scene.blocks:
            clip = block.probe_clip
            clip_THWC = decoded_THWC[clip * frames : (clip + 1) * frames]
            yield [float(path.stat().st_size), float(clip), float(block.gap), *_pixels(clip_THWC)], block.answer


def carried_things(world: World[Any], scenes: Iterator[Any]) -> Iterator[Unit]:
    """ava_rooms: the second in the middle of each carrying, and the file; the kind that is carried."""
    for scene, path, _ in _files(world, scenes):
        decoded_THWC = decode(path)
        for agent in scene.agents:
            for carry in agent.carries:
                second = min(carry.start + carry.seconds // 2, len(decoded_THWC) // world.frame_rate - 1)
                part_THWC = decoded_THWC[second * world.frame_rate : (second + 1) * world.frame_rate]
                yield [float(path.stat().st_size), float(second), *_pixels(part_THWC)], carry.kind


def bells(world: World[Any], scenes: Iterator[Any]) -> Iterator[Unit]:
    """kitchen: each action during which the bell rings; the dish that is served next.

    Not the size of the file: the other servings in it do show the dish.
    """
    for scene, path, _ in _files(world, scenes):
        decoded_THWC = decode(path)
        for segment in scene.segments:
            if segment.bell and segment.action < COMMON:
                part_THWC = decoded_THWC[segment.start * world.frame_rate : segment.end * world.frame_rate]
                yield [float(segment.start), *_pixels(part_THWC)], scene.recipe


def pairs(modality: str) -> Callable[[World[Any], Iterator[Any]], Iterator[Unit]]:
    """av_bounce: one modality of a pair that is in step, or apart by half a second and more."""

    def units(world: World[Any], scenes: Iterator[Any]) -> Iterator[Unit]:
        generator = np.random.default_rng(7)
        for _scene, _, recording in _files(world, scenes):
            positive = int(generator.integers(2))
            start = float(generator.uniform(0, SECONDS - CLIP_SECONDS))
            picture, sound = (start, start) if positive else draw_starts("hard", generator)
            if modality == "sound":
                first = round(sound * SAMPLE_RATE)
                wave_CS = recording.wave_CS[:, first : first + round(CLIP_SECONDS * SAMPLE_RATE)]
                parts_S = np.array_split(wave_CS[0].astype(np.float64), 5)
                yield [*_sound(wave_CS), *(float((part**2).mean()) for part in parts_S)], positive
            else:
                first = round(picture * BOUNCE_RATE)
                clip_THWC = recording.frames_THWC[first : first + round(CLIP_SECONDS * BOUNCE_RATE)]
                moved = np.abs(np.diff(clip_THWC.astype(np.float32), axis=0)).mean()
                yield [*_pixels(clip_THWC), float(moved)], positive

    return units


# What is hidden, by world: units and the number of answers.
HIDDEN: dict[str, tuple[Callable[[World[Any], Iterator[Any]], Iterator[Unit]], int]] = {
    "match8": (whole_files(lambda scene: scene.label), 2),
    "pair6": (whole_files(lambda scene: scene.label), 6),
    "order2": (whole_files(lambda scene: scene.label), 2),
    "cue_probe": (probe_clips, 4),
    "ava_rooms": (carried_things, 4),
    "kitchen": (bells, 10),
    "sparse6": (whole_files(lambda scene: scene.label), 6),
    "av_bounce (sound)": (pairs("sound"), 2),
    "av_bounce (picture)": (pairs("picture"), 2),
    "bounce_rhythm": (whole_files(lambda scene: scene.label), 4),
    "bounce_material": (whole_files(lambda scene: scene.label), 4),
    "gblend4": (whole_files(lambda scene: scene.label), 4),
    "finemotion8": (whole_files(lambda scene: scene.label), 8),
    "stick_actions": (whole_files(lambda scene: scene.label), 4),
    "motion_objects": (whole_files(lambda scene: scene.mover.verb), 4),
    "distinit_transfer": (whole_files(lambda scene: scene.mover.verb), 4),
    "stills_clips": (whole_files(lambda scene: int(scene.velocity > 0)), 2),
    "hashtags": (whole_files(lambda scene: scene.mover.verb), 4),
}
VISIBLE = {
    "events8": "ceiling 1: the whole file is what is asked for, and glyphs have different areas",
    "ava_rooms_clips": "ceiling 1: the object is shown whole",
    "cue_probe_clips": "ceiling 1: the flash is the colour that is asked for",
    "sparse6_clips": "ceiling 1: the whole file is what is asked for",
    "stills_clips_stills": "ceiling 1: the whole picture is what is asked for",
    "stills_objects": "ceiling 1: the whole picture is what is asked for",
    "stills_scenes": "ceiling 1: the texture fills the picture",
    "multi_events": "no ceiling below 1: more things make larger files",
    "sticks": "has no classes; what is hidden is a place, see frame_probes.py",
    "unlabelled_mix": "has no labels",
}


def outside(name: str, *, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of `count` units of the first split. Returns: features_NF, labels_N."""
    world, units = get_world(name.partition(" ")[0]), HIDDEN[name][0]
    split = next(iter(world.std_sizes))

    def scenes() -> Iterator[Any]:
        index = 0
        while True:
            yield world.sample(seed, split, index)
            index += 1

    features, labels = [], []
    for found, label in units(world, scenes()):
        features.append(found)
        labels.append(label)
        if len(labels) == count:
            break
    return np.array(features, dtype=np.float64), np.array(labels)


def with_products(features_NF: np.ndarray) -> np.ndarray:
    """Standardised features, their squares and products of two."""
    scaled_NF = (features_NF - features_NF.mean(0)) / (features_NF.std(0) + 1e-9)
    scaled_NF = scaled_NF[:, features_NF.std(0) > 0]
    rows, columns = np.triu_indices(scaled_NF.shape[1])
    return np.concatenate([scaled_NF, scaled_NF[:, rows] * scaled_NF[:, columns]], axis=1)


def chi_square(accuracy: float, samples: int, guess: float) -> tuple[float, float]:
    """Of right and wrong answers against guessing, and the probability of as much by chance (one degree of freedom)."""
    right, expected = accuracy * samples, guess * samples
    value = (right - expected) ** 2 / expected + (right - expected) ** 2 / (samples - expected)
    return value, math.erfc(math.sqrt(value / 2))


def main(count: int, seed: int, names: list[str]) -> None:
    generator = np.random.default_rng(seed)
    for name in names or HIDDEN:
        features_NF, labels_N = outside(name, count=count, seed=seed)
        features_NF = with_products(features_NF)
        guess, half = 1 / HIDDEN[name][1], count - count // 2
        found = linear_accuracy(features_NF, labels_N)
        permuted = linear_accuracy(features_NF, generator.permutation(labels_N))
        (value, p), (value_permuted, p_permuted) = (chi_square(a, half, guess) for a in (found, permuted))
        print(
            f"{name:<20} {half} tested, guess {guess:.3f}  outside {found:.3f} (chi2 {value:.2f}, p {p:.3f})  "
            f"permuted {permuted:.3f} (chi2 {value_permuted:.2f}, p {p_permuted:.3f})",
            flush=True,
        )
    if not names:
        for name, reason in VISIBLE.items():
            print(f"{name:<20} nothing hidden: {reason}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
