"""Sound of the clips of one video as a network takes it: a wave, or one of the front ends.

S samples, F mel bins or cepstra. Not here: reading sound (`media/audio_clips.py`), the front ends
(`media/audio_features.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.batches import Audio
from wholereel.config import Audio as AudioSettings
from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.media.audio_clips import read_audio_clip
from wholereel.media.audio_features import log_filter_bank, log_mel, mfcc, resize_columns, vmz_log_mel
from wholereel.media.clip_plans import SEGMENTS

__all__ = ["FRONT_ENDS", "ClipSound", "batched_audio"]

WAVE = "wave"
FRONT_ENDS: dict[str, Callable[..., Tensor]] = {
    "log_mel": log_mel,
    "log_filter_bank": log_filter_bank,
    "mfcc": mfcc,
    "vmz_log_mel": vmz_log_mel,
}

# Columns per second of each, from the rate of the wave and the options.
COLUMN_RATES: dict[str, Callable[[int, Mapping[str, Any]], float]] = {
    "log_mel": lambda rate, options: rate / options.get("hop_length", 160),
    "log_filter_bank": lambda rate, options: rate / int(options.get("step_seconds", 0.01) * rate + 0.5),
    "mfcc": lambda rate, options: rate / int(options.get("step_seconds", 0.01) * rate + 0.5),
    "vmz_log_mel": lambda rate, options: rate / int(options.get("step_ms", 10) * rate / 1000),
}


class ClipSound:
    """Reads the sound of clips under the same settings for all videos.

    Args:
        audio: the settings.
        clips: which clips, for their length.
    Raises: ConfigError: an unknown front end, options that it does not have, numbers that cannot be, or clips of
        different lengths without a number of columns.
    """

    def __init__(self, audio: AudioSettings, clips: Clips) -> None:
        _check(audio, clips)
        self.audio, self._own_seconds = audio, _clip_seconds(clips)

    def read(self, path: Path, starts_N: Tensor, seconds: float) -> Audio:
        """Sound of the clips of one video, B = 1; zeros where there is none.

        Args:
            path: the file.
            starts_N: seconds after the first picture at which the clips begin.
            seconds: how long they last, for settings without a length of their own.
        Raises: VideoError: the file cannot be read.
        """
        length = self.audio.seconds or seconds
        wave = read_audio_clip(path, starts_N.tolist(), length, self.audio.rate)
        return self._front_end(wave)

    def nothing(self) -> Audio:
        """Of no clips (B = 1, N = 0), in the shape of all others."""
        seconds = self.audio.seconds or self._own_seconds or 1.0
        wave = torch.zeros(1, 1, 1, int(seconds * self.audio.rate + 0.5))
        audio = self._front_end(Audio(self.audio.rate, torch.zeros(1, 1, dtype=torch.bool), wave))
        wave_BNCS, mel_BNFT = (None if x is None else x[:, :0] for x in (audio.wave_BNCS, audio.mel_BNFT))
        return Audio(audio.rate, audio.present_BN[:, :0], wave_BNCS, mel_BNFT)

    def _front_end(self, wave: Audio) -> Audio:
        if self.audio.front_end == WAVE or wave.wave_BNCS is None:
            return wave
        spectra = FRONT_ENDS[self.audio.front_end]
        mel_BNFT = spectra(wave.wave_BNCS[:, :, 0], self.audio.rate, **self.audio.options)
        rate = COLUMN_RATES[self.audio.front_end](self.audio.rate, self.audio.options)
        if self.audio.columns is not None:
            rate *= self.audio.columns / mel_BNFT.shape[-1]
            mel_BNFT = resize_columns(mel_BNFT, self.audio.columns)
        mel_BNFT = torch.where(wave.present_BN[:, :, None, None], mel_BNFT, 0.0)
        return Audio(rate, wave.present_BN, None, mel_BNFT)


def batched_audio(parts: Sequence[Audio], counts: Sequence[int], clips: int) -> Audio:
    """Sound of a batch from that of its videos (B = 1 each); missing clips repeat the last one.

    Columns per second may differ between videos whose clips have different lengths: the batch's rate is nan then.

    Args:
        parts: one a video. counts: clips of each. clips: N of the batch.
    """
    rates = {part.rate for part in parts}
    places_BN = [[min(n, max(count - 1, 0)) for n in range(clips)] for count in counts]

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        rows = [
            tensor[:, places if count else []]
            for tensor, places, count in zip(tensors, places_BN, counts, strict=True)
            if tensor is not None
        ]
        return torch.cat(rows) if rows else None

    present_BN = joined([part.present_BN for part in parts])
    assert present_BN is not None  # there is one video at least
    wave_BNCS, mel_BNFT = joined([part.wave_BNCS for part in parts]), joined([part.mel_BNFT for part in parts])
    return Audio(rates.pop() if len(rates) == 1 else math.nan, present_BN, wave_BNCS, mel_BNFT)


def _clip_seconds(clips: Clips) -> float | None:
    """What all clips of all videos last, if they do."""
    if clips.plan == SEGMENTS or clips.frame_rate is None:
        return None
    return clips.frames * clips.stride / clips.frame_rate


def _check(audio: AudioSettings, clips: Clips) -> None:
    if audio.front_end != WAVE and audio.front_end not in FRONT_ENDS:
        raise ConfigError(f"audio.front_end={audio.front_end!r} is unknown; legal are {', '.join((WAVE, *FRONT_ENDS))}")
    if audio.rate < 1 or (audio.seconds is not None and not audio.seconds > 0):
        raise ConfigError(f"audio.rate and audio.seconds must be positive, got {audio.rate} and {audio.seconds}")
    if audio.columns is not None and (audio.columns < 1 or audio.front_end == WAVE):
        raise ConfigError(
            f"audio.columns={audio.columns} with front end {audio.front_end!r}: only spectra have columns, at least 1"
        )
    if audio.front_end == WAVE and audio.options:
        raise ConfigError(f"audio.options={dict(audio.options)}: the front end 'wave' has none")
    if audio.seconds is None and _clip_seconds(clips) is None and audio.columns is None:
        raise ConfigError(
            "clips of videos with different frame rates last differently, and so does their sound. Set "
            "audio.seconds, clips.frame_rate, or for spectra audio.columns."
        )
    if audio.only and clips.plan == SEGMENTS:
        raise ConfigError(
            "audio.only reads sound alone, but clips.plan='segments' counts pictures; choose another plan"
        )
    if audio.front_end != WAVE:
        seconds = audio.seconds or _clip_seconds(clips) or 1.0
        try:
            mel_FT = FRONT_ENDS[audio.front_end](
                torch.zeros(int(seconds * audio.rate + 0.5)), audio.rate, **audio.options
            )
        except TypeError as error:
            raise ConfigError(f"audio.options of {audio.front_end!r}: {error}") from error
        if mel_FT.shape[-1] < 1:
            raise ConfigError(f"{seconds} s of sound are too short for one column of {audio.front_end!r}")
