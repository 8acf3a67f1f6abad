"""Banks of triangular filters on a mel scale, as the public sound libraries build them; float64, kept after first use.

Extra axes: F filters, Q bins of a real Fourier transform (`n_fft / 2 + 1`).
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wholereel.errors import ConfigError

__all__ = [
    "FilterNorm",
    "MelScale",
    "hz_to_mel",
    "integer_bin_filters_FQ",
    "mel_filters_FQ",
    "mel_to_hz",
    "vmz_filters_FQ",
    "vmz_last_bins",
]

MelScale = Literal["htk", "slaney"]
FilterNorm = Literal["none", "slaney"]

LINEAR_HZ = 200 / 3  # slaney: below 1 kHz a mel is so many hertz
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # above, 27 mels are a factor of 6.4


def hz_to_mel(hz: np.ndarray, scale: MelScale) -> np.ndarray:
    """Frequency to mel: `htk` is 2595 log10(1 + f / 700), `slaney` is linear up to 1 kHz and logarithmic above."""
    hz = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: np.ndarray, scale: MelScale) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    above = BREAK_HZ * np.exp(LOG_STEP * np.maximum(mel - BREAK_HZ / LINEAR_HZ, 0.0))
    return np.where(mel < BREAK_HZ / LINEAR_HZ, mel * LINEAR_HZ, above)


@functools.lru_cache(maxsize=32)
def mel_filters_FQ(
    rate: int,
    n_fft: int,
    filters: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: MelScale = "htk",
    norm: FilterNorm = "none",
) -> Tensor:
    """Triangles between points that are equally far apart in mel, evaluated at the bins' frequencies (as librosa does).

    Args:
        rate: samples per second.
        n_fft: length of the transform.
        low, high: hertz; `None` = half the rate.
        norm: `slaney` gives every filter an area of 1 over frequency; `none` a height of 1.
    Returns: float64.
    Raises: ConfigError: a choice that is not listed, or frequencies that are not 0 <= low < high <= rate / 2.
    """
    high = _checked_range(rate, filters, low, high)
    _checked_choice("scale", scale, ("htk", "slaney"))
    _checked_choice("norm", norm, ("none", "slaney"))
    ends = hz_to_mel(np.array([low, high]), scale)
    corners = mel_to_hz(np.linspace(ends[0], ends[1], filters + 2), scale)
    bins_Q = np.arange(n_fft // 2 + 1) * rate / n_fft
    widths = np.diff(corners)
    distance = corners[:, None] - bins_Q[None, :]
    rising_FQ = -distance[:-2] / widths[:-1, None]
    falling_FQ = distance[2:] / widths[1:, None]
    bank_FQ = np.maximum(0.0, np.minimum(rising_FQ, falling_FQ))
    if norm == "slaney":
        bank_FQ *= (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return torch.from_numpy(bank_FQ)


@functools.lru_cache(maxsize=32)
def integer_bin_filters_FQ(
    rate: int, n_fft: int, filters: int, *, low: float = 0.0, high: float | None = None
) -> Tensor:
    """Triangles whose corners lie on whole bins, `floor((n_fft + 1) hz / rate)` (as python_speech_features does).

    Args, Returns and Raises: see `mel_filters_FQ`; the scale is `htk`, the height 1. Filters between corners that fall
    on the same bin are empty.
    """
    high = _checked_range(rate, filters, low, high)
    ends = hz_to_mel(np.array([low, high]), "htk")
    hz = mel_to_hz(np.linspace(ends[0], ends[1], filters + 2), "htk")
    corners = np.floor((n_fft + 1) * hz / rate)
    bank_FQ = np.zeros((filters, n_fft // 2 + 1))
    for row, (left, top, right) in enumerate(zip(corners[:-2], corners[1:-1], corners[2:], strict=True)):
        rise, fall = np.arange(int(left), int(top)), np.arange(int(top), int(right))
        bank_FQ[row, rise] = (rise - left) / (top - left)
        bank_FQ[row, fall] = (right - fall) / (right - top)
    return torch.from_numpy(bank_FQ)


@functools.lru_cache(maxsize=32)
def vmz_filters_FQ(rate: int, n_fft: int, filters: int) -> Tensor:
    """The bank of facebookresearch/VMZ (`ops/LogMels.cc`), up to half the rate, each filter divided by its sum.

    Bins are taken to be `rate / 2 / Q` apart, sides are at least one bin wide, mel is `1127 ln(1 + f / 700)`. The sum
    includes a filter's upper bin, which VMZ leaves out when it applies the filter: so does `vmz_log_mel`.

    Returns: float64.
    """
    high = _checked_range(rate, filters, 0.0, None)
    bins = n_fft // 2 + 1
    step = 1127.0 * np.log1p(high / 700.0) / (filters + 1)
    corners = 700.0 * np.expm1(np.arange(filters + 2) * step / 1127.0) / (rate / 2 / bins)
    bank_FQ = np.zeros((filters, bins))
    for row, (left, top, right) in enumerate(zip(corners[:-2], corners[1:-1], corners[2:], strict=True)):
        at = np.arange(int(left), min(bins - 1, int(right) + 1) + 1)
        sides = np.where(at < top, (top - at) / max(1.0, top - left), (at - top) / max(1.0, right - top))
        bank_FQ[row, at] = np.maximum(0.0, 1.0 - sides)
        bank_FQ[row] /= bank_FQ[row].sum() or 1.0
    return torch.from_numpy(bank_FQ)


def vmz_last_bins(rate: int, n_fft: int, filters: int) -> list[int]:
    """The upper bin of each filter of `vmz_filters_FQ`, which is left out when the filter is applied."""
    bins = n_fft // 2 + 1
    step = 1127.0 * np.log1p(rate / 2 / 700.0) / (filters + 1)
    ends = 700.0 * np.expm1(np.arange(2, filters + 2) * step / 1127.0) / (rate / 2 / bins)
    return [min(bins - 1, int(end) + 1) for end in ends]


def _checked_range(rate: int, filters: int, low: float, high: float | None) -> float:
    top = rate / 2 if high is None else high
    if filters < 1 or not 0 <= low < top <= rate / 2:
        raise ConfigError(
            f"{filters} mel filters from {low} to {top} Hz cannot be made at {rate} samples per second; "
            f"at least one filter is needed, and 0 <= low < high <= {rate / 2:g}"
        )
    return top


def _checked_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} {value!r} is not one of {', '.join(choices)}")
