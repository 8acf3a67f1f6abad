"""What sound networks see of a wave: log-mel energies and cepstra, each equal to a public front end, on `torch.stft`.

All are pure functions of the last axis S (samples); any leading axes. Computed in the dtype and on the device of the
wave. Extra axes: F filters or cepstral coefficients, Q bins of the Fourier transform, T columns, W samples of a window.
Not here: reading sound (`audio_reader.py`), the banks of filters (`mel_filters.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.errors import ConfigError
from wholereel.media.mel_filters import (
    FilterNorm,
    MelScale,
    integer_bin_filters_FQ,
    mel_filters_FQ,
    vmz_filters_FQ,
    vmz_last_bins,
)

__all__ = ["cepstra", "clip_columns", "log_filter_bank", "log_mel", "mfcc", "resize_columns", "vmz_log_mel"]

FLOAT64_EPS = 2.0**-52  # what python_speech_features puts in the place of exact zeros
VMZ_GAIN = 1080674186.3482928  # kGain of VMZ's ops/LogMels.cc


def log_mel(
    wave_S: Tensor,
    rate: int,
    *,
    n_fft: int = 1024,
    win_length: int = 320,
    hop_length: int = 160,
    filters: int = 40,
    low: float = 0.0,
    high: float | None = None,
    scale: MelScale = "htk",
    norm: FilterNorm = "none",
    center: bool = False,
    offset: float = 1e-6,
) -> Tensor:
    """`ln(energy + offset)` of mel bands of the power spectrum, as librosa computes it.

    Args:
        wave_S: floating point, `(..., S)`.
        rate: samples per second.
        win_length: samples of a periodic Hann window, which stands in the middle of the `n_fft` samples transformed.
        hop_length: samples from column to column.
        low, high, scale, norm: see `mel_filters_FQ`.
        center: column t is centred on sample `t * hop_length`, the wave being mirrored at its ends; else column t
            begins there, and `1 + (S - n_fft) // hop_length` columns fit.
    Returns: `(..., F, T)`.
    Raises: ConfigError: sizes that do not fit each other, or a wave too short for one column.
    """
    least = n_fft // 2 + 1 if center else n_fft
    if not 0 < win_length <= n_fft or hop_length < 1 or wave_S.shape[-1] < least:
        raise ConfigError(
            f"no log-mel column of {wave_S.shape[-1]} samples with n_fft {n_fft}, win_length {win_length} and "
            f"hop_length {hop_length}; win_length must be at most n_fft, and {least} samples are needed"
        )
    window_W = torch.hann_window(win_length, dtype=wave_S.dtype, device=wave_S.device)
    power_QT = _power(wave_S, n_fft, hop_length, window_W, center=center)
    bank_FQ = mel_filters_FQ(rate, n_fft, filters, low=low, high=high, scale=scale, norm=norm).to(power_QT)
    return torch.log(bank_FQ @ power_QT + offset)


def log_filter_bank(
    wave_S: Tensor,
    rate: int,
    *,
    win_seconds: float = 0.02,
    step_seconds: float = 0.01,
    n_fft: int = 1024,
    filters: int = 40,
    low: float = 0.0,
    high: float | None = None,
    preemphasis: float = 0.97,
) -> Tensor:
    """Natural log of filter-bank energies as `python_speech_features.logfbank` computes them (version 0.6).

    Pre-emphasis, rectangular window, `|rfft|^2 / n_fft`, triangles on whole bins; exact zeros become float64's epsilon.

    Args:
        wave_S: floating point, `(..., S)`, at least one sample.
        win_seconds, step_seconds: rounded half up to samples.
        low, high: hertz; `None` = half the rate.
    Returns: `(..., F, T)`, T = 1 + ceil((S - window) / step), at least 1; the last column is completed with zeros.
    Raises: ConfigError: no samples, or times or frequencies that cannot be.
    """
    power_QT = _speech_power(wave_S, rate, win_seconds, step_seconds, n_fft, preemphasis)
    return _speech_log(integer_bin_filters_FQ(rate, n_fft, filters, low=low, high=high).to(power_QT) @ power_QT)


def mfcc(
    wave_S: Tensor,
    rate: int,
    *,
    coefficients: int = 13,
    win_seconds: float = 0.025,
    step_seconds: float = 0.01,
    n_fft: int = 512,
    filters: int = 26,
    low: float = 0.0,
    high: float | None = None,
    preemphasis: float = 0.97,
    lifter: int = 22,
    energy: bool = True,
) -> Tensor:
    """Mel cepstra as `python_speech_features.mfcc` computes them (version 0.6), with its defaults.

    Args:
        coefficients: F, from the 0th on, at most `filters`.
        lifter: see `cepstra`.
        energy: put the log of the column's whole energy in the place of the 0th coefficient.
        others: see `log_filter_bank`.
    Returns: `(..., F, T)`.
    Raises: ConfigError: see `log_filter_bank`, `cepstra`.
    """
    power_QT = _speech_power(wave_S, rate, win_seconds, step_seconds, n_fft, preemphasis)
    bank_FQ = integer_bin_filters_FQ(rate, n_fft, filters, low=low, high=high).to(power_QT)
    cepstra_FT = cepstra(_speech_log(bank_FQ @ power_QT), coefficients, lifter=lifter)
    if energy:
        cepstra_FT[..., 0, :] = _speech_log(power_QT.sum(-2))
    return cepstra_FT


def cepstra(log_FT: Tensor, coefficients: int, *, lifter: int = 0) -> Tensor:
    """Orthonormal cosine transform (DCT-II) over the filters of any log energies.

    Args:
        log_FT: `(..., F, T)`.
        coefficients: how many to keep, from the 0th on.
        lifter: L multiplies coefficient n by `1 + L / 2 sin(pi n / L)`; 0 = none.
    Returns: `(..., coefficients, T)`.
    Raises: ConfigError: more coefficients than filters, or less than one.
    """
    filters = log_FT.shape[-2]
    if not 1 <= coefficients <= filters or lifter < 0:
        raise ConfigError(
            f"{coefficients} cepstral coefficients of {filters} filters with lifter {lifter}; "
            f"1 to {filters} can be had, and the lifter must not be negative"
        )
    n = torch.arange(coefficients, dtype=torch.float64, device=log_FT.device)
    angle = math.pi / filters * (torch.arange(filters, dtype=torch.float64, device=log_FT.device) + 0.5)
    cosines = torch.cos(n[:, None] * angle) * math.sqrt(2.0 / filters)
    cosines[0] /= math.sqrt(2.0)
    if lifter:
        cosines *= (1.0 + lifter / 2.0 * torch.sin(math.pi * n / lifter))[:, None]
    return cosines.to(log_FT) @ log_FT


def vmz_log_mel(
    wave_S: Tensor, rate: int = 16000, *, win_ms: float = 16, step_ms: float = 10, filters: int = 40
) -> Tensor:
    """Log-mel energies of facebookresearch/VMZ (`ops/LogMels.cc`), for its published audio networks.

    Its particulars are kept: symmetric Hann window, the packed real transform's first value (DC^2 + Nyquist^2) as bin
    0, each filter without its upper bin, a gain, and `x / e` in place of `ln(x)` below e.

    Args:
        wave_S: floating point in [-1, 1], `(..., S)`, mono.
        win_ms, step_ms: milliseconds, cut to whole samples.
    Returns: `(..., F, T)`; columns begin every step while more than one window of samples remains (T may be 0).
    Raises: ConfigError: times that cannot be.
    """
    window, step = int(win_ms * rate / 1000), int(step_ms * rate / 1000)
    if window < 2 or step < 1:
        raise ConfigError(f"window {win_ms} ms and step {step_ms} ms are too short at {rate} samples per second")
    n_fft = 1 << (window - 1).bit_length()
    columns = max(0, -(-(wave_S.shape[-1] - window) // step))
    if columns == 0:
        return wave_S.new_zeros(*wave_S.shape[:-1], filters, 0)
    window_W = torch.hann_window(window, periodic=False, dtype=wave_S.dtype, device=wave_S.device)
    used_S = wave_S[..., : (columns - 1) * step + window]
    power_QT = _power(_spread(used_S, window, n_fft), n_fft, step, window_W, center=False)
    power_QT[..., 0, :] += power_QT[..., -1, :]
    bank_FQ = vmz_filters_FQ(rate, n_fft, filters).clone()
    for row, last in enumerate(vmz_last_bins(rate, n_fft, filters)):
        bank_FQ[row, last:] = 0.0
    energy_FT = bank_FQ.to(power_QT) @ power_QT * VMZ_GAIN
    return torch.where(energy_FT > math.e, torch.log(energy_FT.clamp(min=math.e)), energy_FT / math.e)


def resize_columns(mel_FT: Tensor, columns: int) -> Tensor:
    """Another number of columns for the same time, linearly between the nearest two (half-pixel centres).

    Args:
        mel_FT: `(..., F, T)`, T >= 1.
    Returns: `(..., F, columns)`.
    Raises: ConfigError: no column, before or after.
    """
    _check_columns(mel_FT, columns)
    flat_XFT = mel_FT.reshape(-1, *mel_FT.shape[-2:])
    resized_XFT = F.interpolate(flat_XFT, size=columns, mode="linear", align_corners=False)
    return resized_XFT.reshape(*mel_FT.shape[:-1], columns)


def clip_columns(mel_FT: Tensor, *, start_frame: int, clip_span: int, video_frames: int, columns: int = 100) -> Tensor:
    """Cut a clip's columns out of those of the whole file so that they cover exactly the clip (VMZ's alignment 1).

    The whole file is resized to `video_frames * columns // clip_span` columns (linear when that is as many or more,
    nearest when fewer), of which `columns` are taken from `start_frame * that // video_frames` on.

    Args:
        mel_FT: of the whole file, `(..., F, T)`.
        start_frame: first frame of the clip. clip_span: frames from its first to its last, both included.
        video_frames: of the whole file.
    Returns: `(..., F, columns)`.
    Raises: ConfigError: a clip that is not inside the video; no column.
    """
    if not (start_frame >= 0 and clip_span >= 1 and start_frame + clip_span <= video_frames):
        raise ConfigError(f"frames {start_frame} to {start_frame + clip_span - 1} are not in {video_frames} frames")
    total, length = video_frames * columns // clip_span, mel_FT.shape[-1]
    first = start_frame * total // video_frames
    if total >= length:
        return resize_columns(mel_FT, total)[..., first : first + columns]
    _check_columns(mel_FT, columns)
    at = torch.arange(first, first + columns, device=mel_FT.device) * length // total  # integers: no rounding
    return mel_FT[..., at]


def _check_columns(mel_FT: Tensor, columns: int) -> None:
    if min(mel_FT.shape[-1], columns) < 1:
        raise ConfigError(f"{mel_FT.shape[-1]} log-mel columns cannot be made {columns}; at least one is needed")


def _power(wave_S: Tensor, n_fft: int, hop: int, window_W: Tensor, *, center: bool) -> Tensor:
    """|STFT|^2, `(..., Q, T)`."""
    flat_XS = wave_S.reshape(-1, wave_S.shape[-1])
    spectrum_XQT = torch.stft(
        flat_XS,
        n_fft,
        hop_length=hop,
        win_length=len(window_W),
        window=window_W,
        center=center,
        pad_mode="reflect",
        return_complex=True,
    )
    power_XQT = spectrum_XQT.real.square() + spectrum_XQT.imag.square()
    return power_XQT.reshape(*wave_S.shape[:-1], *power_XQT.shape[-2:])


def _spread(wave_S: Tensor, window: int, n_fft: int) -> Tensor:
    """Zeros around a wave, so that columns of `n_fft` samples have windows from its first to its last sample.

    `torch.stft` puts a short window in the middle of the transform, others at its start: the power is the same.
    """
    return F.pad(wave_S, ((n_fft - window) // 2, n_fft - window - (n_fft - window) // 2))


def _speech_power(
    wave_S: Tensor, rate: int, win_seconds: float, step_seconds: float, n_fft: int, preemphasis: float
) -> Tensor:
    window, step = _half_up(win_seconds * rate), _half_up(step_seconds * rate)
    samples = wave_S.shape[-1]
    if samples < 1 or window < 1 or step < 1:
        raise ConfigError(
            f"no filter-bank column of {samples} samples with a window of {win_seconds} s and a step of {step_seconds} "
            f"s at {rate} samples per second; each must be at least one sample"
        )
    emphasised_S = torch.cat([wave_S[..., :1], wave_S[..., 1:] - preemphasis * wave_S[..., :-1]], dim=-1)
    columns = 1 + max(0, -(-(samples - window) // step))
    padded_S = F.pad(emphasised_S, (0, max(0, (columns - 1) * step + window - samples)))
    used = min(window, n_fft)  # of a window longer than the transform only the beginning is transformed
    padded_S = padded_S[..., : (columns - 1) * step + used]
    ones_W = torch.ones(used, dtype=wave_S.dtype, device=wave_S.device)
    return _power(_spread(padded_S, used, n_fft), n_fft, step, ones_W, center=False) / n_fft


def _speech_log(energy: Tensor) -> Tensor:
    return torch.log(torch.where(energy == 0, FLOAT64_EPS, energy))


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)
