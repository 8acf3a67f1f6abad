"""Four background textures, in two random colours, at random places and scales: what a scene is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wholereel.datasets.worlds import render
from wholereel.datasets.worlds.render import scaled

__all__ = ["TEXTURES", "texture"]

DARK, LIGHT = (60, 100), (120, 160)
PERIODS = (8.0, 14.0)
TEXTURE_STREAM = 3_000_000

# Each texture says where its light colour is, 0..1, by turns to the right and down.
Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
PATTERNS: dict[str, Pattern] = {
    "bars": lambda x, y: np.floor(2 * x) % 2 + 0 * y,
    "checks": lambda x, y: (np.floor(2 * x) + np.floor(2 * y)) % 2,
    "spots": lambda x, y: ((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 <= 0.1) * 1.0,
}
TEXTURES: tuple[str, ...] = (*PATTERNS, "clouds")


def texture(kind: int, paint_seed: int, size: int) -> np.ndarray:
    """A scene: texture number `kind`; "clouds" is the usual background. Returns: ground_HWC, uint8."""
    if TEXTURES[kind] == "clouds":
        return render.background(np.random.default_rng([paint_seed, 0]), size)
    generator = np.random.default_rng([paint_seed, TEXTURE_STREAM])
    dark_C, light_C = (generator.integers(low, high + 1, size=3) for low, high in (DARK, LIGHT))
    period, (right, down) = scaled(generator.uniform(*PERIODS), size), generator.random(2)
    turns = np.arange(size) / period
    share_HW = PATTERNS[TEXTURES[kind]](turns[None, :] + right, turns[:, None] + down)
    noise_HWC = render.NOISE_SIGMA * generator.standard_normal((size, size, 3))
    color_HWC = dark_C + share_HW[..., None] * (light_C - dark_C)
    return np.clip(np.rint(color_HWC + noise_HWC), 0, 255).astype(np.uint8)
