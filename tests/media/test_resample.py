"""Another rate: tones keep frequency, phase and height; nothing folds back; parts are slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel.media.resample import Resampler

RATES = [(44100, 16000), (48000, 16000), (16000, 44100), (8000, 16000), (44100, 48000), (22050, 16000), (11025, 16000)]


def resampled(resampler: Resampler, wave_CS: np.ndarray, first: int, count: int) -> np.ndarray:
    begin, end = resampler.inputs(first, count)
    needed_CS = np.zeros((len(wave_CS), end - begin), dtype=np.float32)
    low, high = max(begin, 0), min(end, wave_CS.shape[1])
    if low < high:
        needed_CS[:, low - begin : high - begin] = wave_CS[:, low:high]
    return resampler.apply(needed_CS, first, count)


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_tones_keep_their_phase_and_nothing_folds_back(rate, to):
    resampler = Resampler(rate, to)
    seconds_S = np.arange(rate // 2) / rate
    count = resampler.length(len(seconds_S))
    assert count == to // 2
    middle = slice(to // 10, -to // 10)
    for share in (0.0, 0.05, 0.3, 0.4):
        hertz = share * min(rate, to)
        wave_CS = np.cos(2 * np.pi * hertz * seconds_S + 0.3).astype(np.float32)[None]
        expected = np.cos(2 * np.pi * hertz * np.arange(count) / to + 0.3)
        np.testing.assert_allclose(resampled(resampler, wave_CS, 0, count)[0][middle], expected[middle], atol=5e-5)
    if to < rate:
        for share in (0.51, 0.6, rate / to / 2):
            wave_CS = np.cos(2 * np.pi * share * to * seconds_S + 0.3).astype(np.float32)[None]
            assert np.abs(resampled(resampler, wave_CS, 0, count)[0][middle]).max() < 1e-4  # -80 dB


@settings(max_examples=25, deadline=None)
@given(
    rates=st.sampled_from([*RATES, (16000, 16001), (1000, 999)]),
    first=st.integers(-6000, 12000),
    count=st.integers(0, 6000),
)
def test_a_part_is_a_slice_bit_for_bit(rates, first, count):
    resampler = Resampler(*rates)
    wave_CS = np.random.default_rng(0).standard_normal((2, 9000)).astype(np.float32)
    whole = resampled(resampler, wave_CS, -6000, 25000)
    part = resampled(resampler, wave_CS, first, count)
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, whole[:, 6000 + first : 6000 + first + count])


def test_a_rate_must_be_a_rate():
    with pytest.raises(ValueError, match="rates must be at least 1 sample per second, got 0 and 16000"):
        Resampler(0, 16000)
