"""Family of sound front ends: wave in, filter bank and log energies out, in float64 and float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields
from wholereel.media.audio_features import log_filter_bank, log_mel, resize_columns, vmz_log_mel
from wholereel.media.mel_filters import integer_bin_filters_FQ, mel_filters_FQ, vmz_filters_FQ

__all__ = ["check_audio_features", "is_audio_features"]

FILTERS = 1e-6
KINDS = ("logfbank_psf", "logmel", "vmz_logmel")
SAID = {"kind", "reference", "tolerance", "note", "waveform", "sr", "window", "power", "filter", "log", "frames"}
FIELDS = {
    "logfbank_psf": SAID | {"win_s", "step_s", "nfft", "n_filters", "preemphasis", "fmin", "fmax"},
    "logmel": SAID | {"n_fft", "win_length", "hop_length", "n_mels", "mel", "norm", "fmin", "fmax", "center"},
    "vmz_logmel": SAID | {"win_ms", "step_ms", "n_mels"},
}
FIELDS["logmel"] |= {"pad_mode"}


def is_audio_features(golden: Golden) -> bool:
    """Whether the file holds features of a stored wave."""
    return golden.meta.get("kind") in KINDS


def check_audio_features(golden: Golden) -> Outcome:
    """The bank first, then the log energies at both precisions, then what is derived from them."""
    kind, meta = golden.meta["kind"], golden.meta
    check_fields(meta, FIELDS[kind], "meta")
    wave_S = torch.from_numpy(np.asarray(golden.arrays["wave"]))
    check = {"logfbank_psf": _speech, "logmel": _log_mel, "vmz_logmel": _vmz}[kind]
    comparisons = check(golden, meta, wave_S)
    compared = {comparison.name.split()[-1] for comparison in comparisons}
    return Outcome(tuple(comparisons), tuple(sorted(set(golden.arrays) - compared - {"wave"})))


def _speech(golden: Golden, meta: Any, wave_S: Tensor) -> list[Comparison]:
    said = {"low": meta.get("fmin", 0.0), "high": meta.get("fmax")}
    bank_FQ = integer_bin_filters_FQ(meta["sr"], meta["nfft"], meta["n_filters"], **said)
    comparisons = [_compare(golden, "filterbank", bank_FQ, FILTERS)]
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.float32, 5e-3)):
        log_FT = log_filter_bank(
            wave_S.to(dtype),
            meta["sr"],
            win_seconds=meta["win_s"],
            step_seconds=meta["step_s"],
            n_fft=meta["nfft"],
            filters=meta["n_filters"],
            preemphasis=meta["preemphasis"],
            **said,
        )
        comparisons.append(_compare(golden, "logfbank_TF", log_FT.T, tolerance, _name(dtype)))
    return comparisons


def _log_mel(golden: Golden, meta: Any, wave_S: Tensor) -> list[Comparison]:
    if meta.get("pad_mode", "reflect") != "reflect" or meta.get("power", 2) != 2:
        raise NotUnderstood(f"no builder for pad_mode {meta.get('pad_mode')!r} and power {meta.get('power')!r}")
    said = {"low": meta["fmin"], "high": meta["fmax"], "scale": meta["mel"], "norm": meta["norm"] or "none"}
    bank_FQ = mel_filters_FQ(meta["sr"], meta["n_fft"], meta["n_mels"], **said)
    comparisons = [_compare(golden, "filterbank_FB", bank_FQ, FILTERS)]
    for dtype, tolerance in ((torch.float64, 2e-3), (torch.float32, 2e-3)):
        log_FT = log_mel(
            wave_S.to(dtype),
            meta["sr"],
            n_fft=meta["n_fft"],
            win_length=meta["win_length"],
            hop_length=meta["hop_length"],
            filters=meta["n_mels"],
            center=meta["center"],
            **said,
        )
        comparisons.append(_compare(golden, "logmel_TF", log_FT.T, tolerance, _name(dtype), least=-10.0))
    return comparisons


def _vmz(golden: Golden, meta: Any, wave_S: Tensor) -> list[Comparison]:
    n_fft = 1 << (int(meta["win_ms"] * meta["sr"] / 1000) - 1).bit_length()
    comparisons = [_compare(golden, "filterbank", vmz_filters_FQ(meta["sr"], n_fft, meta["n_mels"]), FILTERS)]
    for dtype in (torch.float64, torch.float32):
        log_FT = vmz_log_mel(
            wave_S.to(dtype), meta["sr"], win_ms=meta["win_ms"], step_ms=meta["step_ms"], filters=meta["n_mels"]
        )
        # "rtol 1e-4, atol 1e-3": the error in units of what is allowed at each place.
        comparisons.append(_compare(golden, "logmel", log_FT.T, 1e-3, _name(dtype), relative=1e-4))
        for name in golden.arrays:
            if name.startswith("resized_"):
                resized_FT = resize_columns(log_FT, int(name.removeprefix("resized_")))
                comparisons.append(_compare(golden, name, resized_FT.T, 1e-3, _name(dtype), relative=1e-4))
    return comparisons


def _compare(
    golden: Golden,
    name: str,
    ours: Tensor,
    tolerance: float,
    label: str = "",
    *,
    least: float = -np.inf,
    relative: float = 0.0,
) -> Comparison:
    """Largest absolute error where the expected value is at least `least`, less what `relative` allows there."""
    title = f"{label} {name}".strip()
    expected = golden.arrays[name].astype(np.float64)
    if tuple(ours.shape) != expected.shape:
        return Comparison(f"(shape {tuple(ours.shape)}, not {expected.shape}) {title}", float("inf"), tolerance)
    error = np.abs(ours.double().numpy() - expected) / (1 + relative / tolerance * np.abs(expected))
    return Comparison(title, float(error[expected >= least].max(initial=0.0)), tolerance)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
