"""Sound of the worlds: quiet noise and tones that begin at an exact sample. S samples of a wave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["SAMPLE_RATE", "add_hum", "add_tone", "noise", "onset"]

SAMPLE_RATE = 16_000
NOISE_STREAM = 1_000_000


def noise(paint_seed: int, seconds: float, *, decibel: float = -40.0) -> np.ndarray:
    """White noise; 0 decibel is a standard deviation of full scale. Returns: wave_S, float64."""
    generator = np.random.default_rng([paint_seed, NOISE_STREAM])
    wave_S: np.ndarray = 10 ** (decibel / 20) * generator.standard_normal(round(seconds * SAMPLE_RATE))
    return wave_S


def onset(seconds: float) -> int:
    """The sample at which something begins that begins at a time."""
    return round(seconds * SAMPLE_RATE)


def add_tone(
    wave_S: np.ndarray,
    start: int,
    partials: Sequence[tuple[float, float]],
    *,
    seconds: float,
    decay: float,
    glide: float = 0.0,
) -> None:
    """Add a tone that dies away, in place; what does not fit is cut off.

    Its first sample is its largest (all partials begin as cosines), so the onset is exact.

    Args:
        start: index of the first sample, >= 0.
        partials: (frequency in hertz, amplitude) of each.
        decay: seconds in which the amplitude falls to 1/e.
        glide: hertz by which all frequencies rise in a second (a chirp).
    """
    count = min(round(seconds * SAMPLE_RATE), len(wave_S) - start)
    time_S = np.arange(max(count, 0)) / SAMPLE_RATE
    turns = [frequency * time_S + glide / 2 * time_S**2 for frequency, _ in partials]
    tone_S = sum(amplitude * np.cos(2 * np.pi * turn) for turn, (_, amplitude) in zip(turns, partials, strict=True))
    wave_S[start : start + len(time_S)] += tone_S * np.exp(-time_S / decay)


def add_hum(wave_S: np.ndarray, frequencies: Sequence[float], phases: Sequence[float], *, amplitude: float) -> None:
    """Add tones that last as long as the wave, in place. `phases` in turns, 0..1."""
    time_S = np.arange(len(wave_S)) / SAMPLE_RATE
    for frequency, phase in zip(frequencies, phases, strict=True):
        wave_S += amplitude * np.sin(2 * np.pi * (frequency * time_S + phase))
