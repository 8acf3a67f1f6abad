"""Front ends of sound against goldens, literal loops in float64, and closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity.families import check_file
from wholereel.errors import ConfigError
from wholereel.media.audio_features import (
    cepstra,
    clip_columns,
    log_filter_bank,
    log_mel,
    mfcc,
    resize_columns,
    vmz_log_mel,
)
from wholereel.media.mel_filters import hz_to_mel, integer_bin_filters_FQ, mel_filters_FQ, mel_to_hz

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "audio_features").glob("*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path):
    line = check_file(path)
    assert line.status == "pass", line.text
    assert "not compared" not in line.text


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples) * 0.1


def mel(hz: float, factor: float = 2595.0) -> float:
    return factor * math.log10(1 + hz / 700)


def hertz(mels: float, factor: float = 2595.0) -> float:
    return 700 * (10 ** (mels / factor) - 1)


# ---------------------------------------------------------------------------------------------------------------- mel


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_scales_are_inverse_and_known(scale):
    hz = np.linspace(0, 11025, 500)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-9)
    assert (np.diff(hz_to_mel(hz, scale)) > 0).all()
    assert hz_to_mel(np.array([700.0]), "htk")[0] == pytest.approx(2595 * math.log10(2))
    np.testing.assert_allclose(hz_to_mel(np.array([500.0, 1000.0, 6400.0]), "slaney"), [7.5, 15.0, 42.0])


@pytest.mark.parametrize(("n_fft", "low", "high"), [(512, 0.0, None), (400, 60.0, 7600.0), (1023, 20.0, 4000.0)])
def test_filters_are_triangles_between_mel_points(n_fft, low, high):
    rate, filters = 16000, 12
    top = rate / 2 if high is None else high
    corners = [hertz(mel(low) + (mel(top) - mel(low)) * i / (filters + 1)) for i in range(filters + 2)]
    expected = np.zeros((filters, n_fft // 2 + 1))
    for f in range(filters):
        for q in range(n_fft // 2 + 1):
            hz = q * rate / n_fft
            rise = (hz - corners[f]) / (corners[f + 1] - corners[f])
            fall = (corners[f + 2] - hz) / (corners[f + 2] - corners[f + 1])
            expected[f, q] = max(0.0, min(rise, fall))
    plain = mel_filters_FQ(rate, n_fft, filters, low=low, high=high).numpy()
    np.testing.assert_allclose(plain, expected, atol=1e-9)
    areas = mel_filters_FQ(rate, n_fft, filters, low=low, high=high, norm="slaney").numpy()
    widths = [corners[f + 2] - corners[f] for f in range(filters)]
    np.testing.assert_allclose(areas, expected * 2 / np.array(widths)[:, None], atol=1e-9)


def test_impossible_filters_are_refused():
    with pytest.raises(ConfigError, match=r"40 mel filters from 0.0 to 9000.0 Hz cannot be made at 16000"):
        mel_filters_FQ(16000, 512, 40, high=9000.0)
    with pytest.raises(ConfigError, match="0 mel filters"):
        integer_bin_filters_FQ(16000, 512, 0)
    with pytest.raises(ConfigError, match="scale 'bark' is not one of htk, slaney"):
        mel_filters_FQ(16000, 512, 40, scale="bark")


# ------------------------------------------------------------------------------------------------------------- log-mel


@pytest.mark.parametrize(
    ("n_fft", "win", "hop", "center"),
    [(512, 400, 160, True), (512, 400, 160, False), (256, 256, 100, True), (510, 333, 77, False), (254, 127, 63, True)],
)
def test_log_mel_is_the_literal_formula(n_fft, win, hop, center):
    wave = noise(1500)
    padded = np.pad(wave, n_fft // 2, mode="reflect") if center else wave
    window = np.zeros(n_fft)
    begin = (n_fft - win) // 2
    window[begin : begin + win] = [0.5 - 0.5 * math.cos(2 * math.pi * i / win) for i in range(win)]
    bank = mel_filters_FQ(16000, n_fft, 20, scale="slaney", norm="slaney").numpy()
    columns = []
    for start in range(0, len(padded) - n_fft + 1, hop):
        power = np.abs(np.fft.rfft(padded[start : start + n_fft] * window)) ** 2
        columns.append(np.log(bank @ power + 1e-6))
    settings = {"n_fft": n_fft, "win_length": win, "hop_length": hop, "filters": 20, "center": center}
    ours = log_mel(torch.from_numpy(wave), 16000, scale="slaney", norm="slaney", **settings)
    np.testing.assert_allclose(ours.numpy(), np.stack(columns, axis=1), atol=1e-9)


def test_a_wave_too_short_for_a_column_is_refused():
    with pytest.raises(ConfigError, match=r"no log-mel column of 1023 samples .* 1024 samples are needed"):
        log_mel(torch.zeros(1023), 16000)


# ---------------------------------------------------------------------------------------------- python_speech_features


def literal_power(wave, rate, win_s, step_s, n_fft, preemphasis):
    win, step = math.floor(win_s * rate + 0.5), math.floor(step_s * rate + 0.5)
    wave = np.concatenate([wave[:1], wave[1:] - preemphasis * wave[:-1]])
    columns = 1 if len(wave) <= win else 1 + math.ceil((len(wave) - win) / step)
    wave = np.concatenate([wave, np.zeros((columns - 1) * step + win)])
    frames = [wave[t * step : t * step + win] for t in range(columns)]
    return np.stack([np.abs(np.fft.rfft(frame, n_fft)) ** 2 / n_fft for frame in frames])


def literal_bank(rate, n_fft, filters, low, high):
    mels = [mel(low) + (mel(high) - mel(low)) * i / (filters + 1) for i in range(filters + 2)]
    bins = [math.floor((n_fft + 1) * hertz(m) / rate) for m in mels]
    bank = np.zeros((filters, n_fft // 2 + 1))
    for f in range(filters):
        for q in range(bins[f], bins[f + 1]):
            bank[f, q] = (q - bins[f]) / (bins[f + 1] - bins[f])
        for q in range(bins[f + 1], bins[f + 2]):
            bank[f, q] = (bins[f + 2] - q) / (bins[f + 2] - bins[f + 1])
    return bank


@pytest.mark.parametrize(
    ("rate", "samples", "win_s", "n_fft", "filters", "low", "high"),
    [
        (16000, 16000, 0.02, 1024, 40, 0.0, 8000.0),
        (22050, 5000, 0.0125, 512, 26, 100.0, 8000.0),  # 275.625 samples
        (48000, 5003, 0.02, 512, 20, 0.0, 24000.0),  # the window is longer than the transform
        (8000, 100, 0.025, 256, 13, 0.0, 4000.0),  # shorter than one window
        (16000, 321, 0.02, 512, 26, 0.0, 8000.0),  # one sample more than a window
        (11025, 1, 0.02, 256, 20, 0.0, 5512.5),  # a single sample, half of an odd rate
        (44100, 4409, 0.02, 1024, 40, 0.0, 22050.0),  # one sample less than a tenth of a second
        (22050, 7777, 0.0251, 2048, 40, 20.0, 11025.0),  # a window of 553 samples
    ],
)
@pytest.mark.parametrize("preemphasis", [0.97, 0.0])
def test_filter_bank_is_the_literal_formula(rate, samples, win_s, n_fft, filters, low, high, preemphasis):
    wave = noise(samples)
    wave[: samples // 8] = 0.0
    power = literal_power(wave, rate, win_s, 0.01, n_fft, preemphasis)
    energy = power @ literal_bank(rate, n_fft, filters, low, high).T
    expected = np.log(np.where(energy == 0, np.finfo(np.float64).eps, energy))
    settings = {"win_seconds": win_s, "n_fft": n_fft, "filters": filters, "preemphasis": preemphasis}
    ours = log_filter_bank(torch.from_numpy(wave), rate, low=low, high=high, **settings)
    np.testing.assert_allclose(ours.numpy().T, expected, atol=1e-8)
    cosines = np.array(
        [
            [
                math.sqrt((1 if n == 0 else 2) / filters) * math.cos(math.pi * n * (f + 0.5) / filters)
                for f in range(filters)
            ]
            for n in range(10)
        ]
    )
    lifter = np.array([1 + 11 * math.sin(math.pi * n / 22) for n in range(10)])
    cepstral = expected @ cosines.T * lifter
    plain = mfcc(torch.from_numpy(wave), rate, coefficients=10, low=low, high=high, energy=False, **settings)
    np.testing.assert_allclose(plain.numpy().T, cepstral, atol=1e-7)
    whole = power.sum(axis=1)
    cepstral[:, 0] = np.log(np.where(whole == 0, np.finfo(np.float64).eps, whole))
    ours = mfcc(torch.from_numpy(wave), rate, coefficients=10, low=low, high=high, **settings)
    np.testing.assert_allclose(ours.numpy().T, cepstral, atol=1e-7)


def test_silence_is_the_log_of_epsilon_in_both_precisions():
    for dtype in (torch.float32, torch.float64):
        silent = log_filter_bank(torch.zeros(1600, dtype=dtype), 16000)
        assert torch.equal(silent, torch.full_like(silent, -36.04365338911715))


def test_cepstra_are_orthonormal_and_bounded():
    log_FT = torch.from_numpy(noise(40 * 7).reshape(40, 7))
    whole = cepstra(log_FT, 40)
    torch.testing.assert_close(whole.square().sum(), log_FT.square().sum())
    torch.testing.assert_close(cepstra(torch.ones(16, 1), 3)[:, 0], torch.tensor([4.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    for wrong in (0, 41):
        with pytest.raises(ConfigError, match=f"{wrong} cepstral coefficients of 40 filters"):
            cepstra(log_FT, wrong)
    with pytest.raises(ConfigError, match="no filter-bank column of 0 samples"):
        mfcc(torch.zeros(0), 16000)


# ----------------------------------------------------------------------------------------------------------------- VMZ


@pytest.mark.parametrize(
    ("win_ms", "filters", "samples"), [(16, 40, 3000), (25, 20, 2777), (16, 64, 257), (10, 13, 1601)]
)
def test_vmz_log_mel_is_the_literal_formula(win_ms, filters, samples):
    rate = 16000
    wave = noise(samples)
    wave[: samples // 3] *= 1e-6  # some values fall below e
    window, step = int(win_ms * rate / 1000), 160
    n_fft = 2 ** math.ceil(math.log2(window))
    bins = n_fft // 2 + 1
    step_mel = 1127 * math.log(1 + 8000 / 700) / (filters + 1)
    corners = [700 * (math.exp(i * step_mel / 1127) - 1) / (8000 / bins) for i in range(filters + 2)]
    columns, start = [], 0
    while samples - start > window:
        frame = wave[start : start + window] * [
            0.5 * (1 - math.cos(2 * math.pi * i / (window - 1))) for i in range(window)
        ]
        spectrum = np.fft.rfft(frame, n_fft)
        power = np.abs(spectrum) ** 2
        power[0] = spectrum[0].real ** 2 + spectrum[-1].real ** 2
        column = []
        for left, top, right in zip(corners[:-2], corners[1:-1], corners[2:], strict=True):
            last = min(bins - 1, int(right) + 1)
            weights = {}
            for q in range(int(left), last + 1):
                side = (top - q) / max(1.0, top - left) if q < top else (q - top) / max(1.0, right - top)
                weights[q] = max(0.0, 1 - side)
            total = sum(weights.values())
            value = sum(power[q] * weight / total for q, weight in weights.items() if q < last) * 1080674186.3482928
            column.append(math.log(value) if value > math.e else value / math.e)
        columns.append(column)
        start += step
    ours = vmz_log_mel(torch.from_numpy(wave), rate, win_ms=win_ms, filters=filters)
    np.testing.assert_allclose(ours.numpy().T, np.array(columns), atol=1e-8)
    assert vmz_log_mel(torch.zeros(2, window), rate, win_ms=win_ms, filters=filters).shape == (2, filters, 0)


def test_columns_are_resized_linearly():
    mel_FT = torch.arange(6.0).reshape(2, 3)
    assert resize_columns(mel_FT, 6)[0].tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.0])
    assert torch.equal(resize_columns(mel_FT, 3), mel_FT)
    with pytest.raises(ConfigError, match="0 log-mel columns cannot be made 5"):
        resize_columns(torch.zeros(2, 0), 5)


def test_a_clip_has_its_columns_wherever_it_is():
    video, span = 250, 32
    total = video * 100 // span  # 781
    short, long = torch.randn(4, 700), torch.randn(4, 998)
    for start in range(video - span + 1):
        first = start * total // video
        enlarged = clip_columns(short, start_frame=start, clip_span=span, video_frames=video)
        assert torch.equal(enlarged, resize_columns(short, total)[:, first : first + 100])
        shrunk = clip_columns(long, start_frame=start, clip_span=span, video_frames=video)
        nearest = [math.floor((first + i) * 998 / total + 1e-9) for i in range(100)]
        assert torch.equal(shrunk, long[:, nearest])
    with pytest.raises(ConfigError, match="frames 219 to 250 are not in 250 frames"):
        clip_columns(short, start_frame=219, clip_span=span, video_frames=video)


# ---------------------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize("front_end", [log_mel, log_filter_bank, mfcc, vmz_log_mel])
def test_leading_axes_precision_and_gradient(front_end):
    wave_BNCS = torch.from_numpy(noise(2 * 3 * 2000).reshape(2, 3, 1, 2000)).requires_grad_()
    whole = front_end(wave_BNCS, 16000)
    assert whole.shape[:3] == (2, 3, 1)
    torch.testing.assert_close(whole[1, 2, 0], front_end(wave_BNCS[1, 2, 0], 16000))
    single = front_end(wave_BNCS.float(), 16000)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), whole, atol=5e-3, rtol=0)
    (gradient,) = torch.autograd.grad(whole.sum(), wave_BNCS)
    assert gradient.isfinite().all()
