"""Makers of files with sound, with PyAV alone. Waves are float32 `(channels, samples)`, full scale 1."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# name -> (encoder, suffix, rate, channels)
KINDS: dict[str, tuple[str, str, int, int]] = {
    "aac": ("aac", ".mp4", 44100, 2),
    "aac_adts": ("aac", ".aac", 16000, 1),
    "aac_ts": ("aac", ".ts", 48000, 2),
    "mp3": ("libmp3lame", ".mp3", 44100, 2),
    "mp3_avi": ("libmp3lame", ".avi", 44100, 1),
    "opus": ("libopus", ".webm", 48000, 1),
    "opus_mp4": ("libopus", ".mp4", 48000, 2),
    "flac": ("flac", ".flac", 22050, 2),
    "flac_mp4": ("flac", ".mp4", 16000, 1),
    "flac_mkv": ("flac", ".mkv", 44100, 1),
    "wav": ("pcm_s16le", ".wav", 8000, 1),
    "pcm_mov": ("pcm_s16le", ".mov", 16000, 2),
    "pcm_u8": ("pcm_u8", ".wav", 11025, 1),
    "alac": ("alac", ".m4a", 44100, 2),
    "ac3": ("ac3", ".mp4", 48000, 2),
}


def murmur(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose level changes, different in each channel."""
    rng = np.random.default_rng(seed)
    level_S = 0.1 + 0.1 * np.sin(np.arange(samples) / 900)
    return np.asarray(rng.standard_normal((channels, samples)) * level_S, dtype=np.float32).clip(-1, 1)


def clicks(times: list[float], seconds: float, rate: int) -> np.ndarray:
    """Silence with short decaying bursts, whose first sample is the one nearest to each time."""
    wave_CS = np.zeros((1, round(seconds * rate)), dtype=np.float32)
    length = rate // 100
    burst_S = np.cos(np.arange(length) * 0.9) * np.exp(-np.arange(length) / (length / 4)) * 0.8
    for time in times:
        at = round(time * rate)
        wave_CS[0, at : at + length] = burst_S[: wave_CS.shape[1] - at]
    return wave_CS


def add_sound(container: Any, codec: str, wave_CS: np.ndarray, rate: int, start: Fraction | float = 0) -> Any:
    """Add a sound stream; returns a function that encodes and gives all packets (call it after all streams exist)."""
    stream = container.add_stream(codec, rate=rate)
    stream.layout = "mono" if len(wave_CS) == 1 else "stereo"

    def encode() -> list[Any]:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave_CS), format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format.name, stream.layout.name, rate, frame_size=size)
        packets = []
        for block in resampler.resample(frame) + resampler.resample(None):
            packets += stream.encode(block)
        return packets + stream.encode(None)

    return encode


def sound_file(
    path: Path,
    codec: str,
    wave_CS: np.ndarray,
    rate: int,
    *,
    start: Fraction | float = 0,
    muxer: dict[str, str] | None = None,
    drop: Callable[[int], bool] = lambda packet: False,
) -> Path:
    """A file with one sound stream; packets can be dropped by their number."""
    with av.open(str(path), "w", options={"strict": "experimental"} | (muxer or {})) as container:
        encode = add_sound(container, codec, wave_CS, rate, start)
        for number, packet in enumerate(encode()):
            if not drop(number):
                container.mux(packet)
    return path


def flash_and_click(
    path: Path,
    times: list[float],
    *,
    frame_rate: Fraction,
    rate: int,
    seconds: float = 3.0,
    picture_start: Fraction = Fraction(0),
    sound_start: Fraction = Fraction(0),
    codec: str = "aac",
) -> Path:
    """H.264 with a white frame, and sound with a click, at the same moments of the presentation.

    Streams begin at `picture_start` and `sound_start`; `times` are on the container's clock.
    """
    with av.open(str(path), "w", options={"strict": "experimental"}) as container:
        stream = container.add_stream("libx264", rate=frame_rate, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30000)
        local = [time - float(sound_start) for time in times]
        encode = add_sound(container, codec, clicks(local, seconds, rate), rate, sound_start)
        packets = []
        shown = [picture_start + Fraction(i) / frame_rate for i in range(int(seconds * frame_rate))]
        for moment in shown:
            end = moment + 1 / frame_rate
            white = any(moment <= Fraction(time) < end for time in times)
            picture = np.full((32, 32, 3), 250 if white else 20, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(moment * 30000), Fraction(1, 30000)
            packets += stream.encode(frame)
        packets += stream.encode(None) + encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path
