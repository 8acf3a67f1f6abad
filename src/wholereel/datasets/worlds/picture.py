"""Draw the picture of a world's page: a row of frames for each of a few scenes, below it the sound as a spectrogram.

The file has few colours, so that it stays small although every scene has noise. Extra letters: S
samples of a wave, F frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wholereel.datasets.worlds.base import Recording, Scene, World

__all__ = ["draw_world"]

GAP = 4
MOST_ROWS = 4
FRAMES_ACROSS = 8
COLORS = 256
SOUND_HEIGHT = 32
SEARCHED = 64
SMALLEST = 64  # pixels: smaller frames are shown enlarged


def draw_world(world: World[Any], path: str | Path, *, seed: int = 0, rows: int = MOST_ROWS) -> None:
    """Write a PNG: frames (`world.moments`) of the first test scenes, one of each class where classes are balanced.

    Args:
        path: file to write; its folder exists.
        rows: lines of frames at most.
    """
    split = "test" if world.std_sizes.get("test") else next(iter(world.std_sizes))
    # Scenes of few frames stand side by side.
    across = max(1, FRAMES_ACROSS // len(world.moments(world.sample(seed, split, 0))))
    scenes = _chosen(world, seed, split, rows * across)
    lines = [scenes[at : at + across] for at in range(0, len(scenes), across)]
    strips = [_beside([_strip(world, scene) for scene in line]) for line in lines]
    width = max(strip.shape[1] for strip in strips)
    height = sum(strip.shape[0] + GAP for strip in strips) + GAP
    sheet = np.full((height, width + 2 * GAP, 3), 255, np.uint8)
    y = GAP
    for strip_HWC in strips:
        sheet[y : y + strip_HWC.shape[0], GAP : GAP + strip_HWC.shape[1]] = strip_HWC
        y += strip_HWC.shape[0] + GAP
    zoom = max(1, SMALLEST // world.record(scenes[0]).frames_THWC.shape[1])
    sheet = sheet.repeat(zoom, axis=0).repeat(zoom, axis=1)
    picture = Image.fromarray(sheet).quantize(COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(path, format="png", optimize=True)


def _chosen(world: World[Any], seed: int, split: str, count: int) -> list[Scene]:
    """The first scenes; in worlds with balanced classes the first of each class."""
    scenes: Iterable[Scene] = (world.sample(seed, split, index) for index in range(SEARCHED))
    chosen: dict[str, Scene] = {}
    for scene in scenes:
        chosen.setdefault(world.truth(scene)["label"] if world.balanced and world.classes else scene.id, scene)
        if len(chosen) == count:
            break
    return list(chosen.values())


def _strip(world: World[Any], scene: Scene) -> np.ndarray:
    """Frames side by side. Returns: strip_HWC, uint8."""
    recording = world.record(scene)
    frames_THWC = recording.frames_THWC[world.moments(scene)]
    strip_HWC = _beside(list(frames_THWC))
    if recording.pcm_CS is None:
        return strip_HWC
    return np.concatenate([strip_HWC, _spectrogram(recording, strip_HWC.shape[1])])


def _beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one height in a row, with gaps."""
    gap_HWC = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture_HWC in pictures for part in (picture_HWC, gap_HWC)][:-1], axis=1)


def _spectrogram(recording: Recording, width: int) -> np.ndarray:
    """Log energy, low frequencies at the bottom, dark = loud, the whole recording from left to right."""
    assert recording.pcm_CS is not None
    wave_S = torch.from_numpy(recording.pcm_CS.mean(axis=0) / 32768.0)
    power_FT = torch.stft(wave_S, 512, hop_length=128, window=torch.hann_window(512), return_complex=True).abs() ** 2
    level_FT = torch.log10(power_FT + 1e-6)[None, None, :256]
    small_FT = torch.nn.functional.adaptive_max_pool2d(level_FT, (SOUND_HEIGHT, width))[0, 0].flip(0)
    low, high = small_FT.min(), small_FT.max()
    grey_FT = 255 * (1 - (small_FT - low) / (high - low + 1e-9))
    return np.repeat(grey_FT.numpy()[:, :, None], 3, axis=2).astype(np.uint8)
