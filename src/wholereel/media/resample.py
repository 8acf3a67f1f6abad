"""Another sampling rate: windowed sinc, the same numbers whether a wave is resampled whole or in parts.

Output sample k lies at the time of input sample `k * down / up`. Blocks of outputs with fixed borders are computed
whole, always by the same arithmetic, so that a part is bit for bit a slice of the whole.
Extra axes: S samples, W taps, P periods (`up` outputs that are `down` inputs).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Resampler"]

ZERO_CROSSINGS = 32  # of the sinc on either side, at the lower of the two rates
KAISER_BETA = 9.0  # stop band below -90 dB
ROLLOFF = 0.91  # middle of the transition band, in units of the lower rate's half: it ends where aliases would begin
BLOCK = 4096  # outputs computed at once, about


@dataclass(frozen=True)
class Resampler:
    """From one rate to another.

    Args:
        rate, to: samples per second, before and after.
    Raises: ValueError: a rate below 1.
    """

    rate: int
    to: int

    def __post_init__(self) -> None:
        if min(self.rate, self.to) < 1:
            raise ValueError(f"rates must be at least 1 sample per second, got {self.rate} and {self.to}")

    @property
    def up(self) -> int:
        return self.to // math.gcd(self.rate, self.to)

    @property
    def down(self) -> int:
        return self.rate // math.gcd(self.rate, self.to)

    @property
    def half_taps(self) -> int:
        """Inputs on either side that an output depends on."""
        return math.ceil(ZERO_CROSSINGS * max(1.0, self.down / self.up))

    @property
    def block(self) -> int:
        """Outputs of a block: a whole number of periods."""
        return self.up * max(1, round(BLOCK / self.up))

    def length(self, samples: int) -> int:
        """Outputs of a wave of so many samples: those that lie before its end."""
        return -(-samples * self.up // self.down)

    def inputs(self, first: int, count: int) -> tuple[int, int]:
        """Range of inputs (from, up to) that `apply` needs for outputs `first` to `first + count`; may be negative."""
        begin = first // self.block
        end = -(-(first + count) // self.block)
        per_block = self.block // self.up * self.down
        return begin * per_block - self.half_taps, end * per_block + self.half_taps + 1

    def apply(self, wave_CS: np.ndarray, first: int, count: int) -> np.ndarray:
        """Outputs `first` to `first + count`.

        Args:
            wave_CS: float32 inputs of the range `inputs(first, count)`, zeros where there is no sound.
        Returns: float32 `(C, count)`.
        """
        taps_PW = _taps(self.up, self.down, self.half_taps)
        begin = first // self.block * self.block
        blocks = -(-(first + count) // self.block) - first // self.block
        per_block = self.block // self.up * self.down
        out_CS = np.empty((len(wave_CS), blocks * self.block), dtype=np.float32)
        for channel, wave_S in enumerate(wave_CS):
            for number in range(blocks):
                at = number * per_block
                needed_S = np.ascontiguousarray(wave_S[at : at + per_block + 2 * self.half_taps + 1])
                target_S = out_CS[channel, number * self.block : (number + 1) * self.block]
                _one_block(needed_S, target_S.reshape(-1, self.up), taps_PW, self.down)
        return out_CS[:, first - begin : first - begin + count]


def _one_block(wave_S: np.ndarray, out_PU: np.ndarray, taps_UW: np.ndarray, down: int) -> None:
    """Each phase of the period is one product of a strided view with that phase's taps."""
    windows_SW = np.lib.stride_tricks.sliding_window_view(wave_S, taps_UW.shape[1])
    for phase, taps_W in enumerate(taps_UW):
        begin = phase * down // len(taps_UW)
        np.matmul(windows_SW[begin::down][: len(out_PU)], taps_W, out=out_PU[:, phase])


@functools.lru_cache(maxsize=8)
def _taps(up: int, down: int, half: int) -> np.ndarray:
    """float32 `(up, 2 * half + 1)`: weights of the inputs around each output of a period; each row sums to 1."""
    fraction_U = (np.arange(up) * down % up) / up
    distance_UW = np.arange(-half, half + 1)[None, :] - fraction_U[:, None]
    cutoff = ROLLOFF * min(1.0, up / down)
    inside = np.clip(1.0 - (distance_UW / half) ** 2, 0.0, None)
    taps_UW = np.sinc(cutoff * distance_UW) * np.i0(KAISER_BETA * np.sqrt(inside))
    taps_UW[np.abs(distance_UW) > half] = 0.0
    return np.asarray(taps_UW / taps_UW.sum(axis=1, keepdims=True), dtype=np.float32)
