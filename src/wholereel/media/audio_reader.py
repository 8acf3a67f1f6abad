"""Exact reading of sound by time: any part of a file is a slice of what decoding it in order gives.

Second 0 is the first picture, as for `VideoReader`, so that both mean the same moment; in a file without pictures it is
the first sample. What lies outside the sound, or in its gaps, is zero and marked.
Axes: C channels, S samples.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholereel.media._mp4_index import missing_samples
from wholereel.media._sound_decoder import NoSoundError, SoundDecoder, picture_begin
from wholereel.media.byte_ranges import byte_count, open_bytes
from wholereel.media.remote_files import local_copy
from wholereel.media.resample import Resampler

__all__ = ["AudioMetadata", "AudioReader", "NoSoundError", "Sound"]

HISTORY = 2  # seconds kept behind the last part read, so that the next one may overlap it


@dataclass(frozen=True)
class AudioMetadata:
    """What is known of a sound stream once its first block is decoded.

    Args:
        path: the file.
        rate: samples per second as stored. channels: as stored.
        layout, codec, sample_format, container: FFmpeg's names.
        begin: seconds from the first picture to the first sample; negative where sound begins earlier. 0 without
            pictures.
        duration: seconds of sound that the header claims; nan if it says nothing. Reading tells the exact one.
        truncated: the file ends before its header says it would.
    """

    path: str
    rate: int
    channels: int
    layout: str
    codec: str
    sample_format: str
    container: str
    begin: float
    duration: float
    truncated: bool


@dataclass(frozen=True)
class Sound:
    """Samples that follow each other.

    Args:
        wave_CS: float32, full scale 1; zero where there is no sound.
        rate: samples per second.
        start: exact time of the first sample, in seconds after the first picture (see the module's header).
        valid_S: bool; False outside the sound stream and in its gaps.
        truncated: some of what was asked for is missing because the file is cut off.
    """

    wave_CS: Tensor
    rate: int
    start: float
    valid_S: Tensor
    truncated: bool = False

    @property
    def seconds(self) -> float:
        return self.wave_CS.shape[-1] / self.rate

    def __repr__(self) -> str:
        channels, samples = self.wave_CS.shape
        missing = int((~self.valid_S).sum())
        notes = f"{f', {missing} without sound' if missing else ''}{', truncated' if self.truncated else ''}"
        return f"Sound({channels} x {samples} at {self.rate} Hz, from {self.start:.6f} s{notes})"


class AudioReader:
    """Random access to the sound of one file.

    Samples lie on a grid that begins with the first sample of the stream; another `rate` is a finer or coarser grid
    from the same beginning (see `Resampler`). Parts of any file, at any rate, are bit for bit slices of the whole.
    Files whose codec remembers nothing (PCM, FLAC, ALAC) are entered in the middle; all others are decoded from their
    beginning, unless the part lies behind the last one read: read the parts of a file in the order of time.

    Packets that do not decode leave gaps. One reader may be used from several threads (calls wait for each other),
    after a fork, and can be pickled.

    Args:
        path: the file.
        rate: of the samples returned; `None` = as stored.
        mono: the mean of all channels.
        stream: number among the file's sound streams.
    Raises: NoSoundError: the file has no (such) sound stream. VideoError: it cannot be read, or no sound decodes.
        ValueError: a rate below 1.

    Attributes: `time_zero` = second 0 on the container's own clock, exact.
    """

    def __init__(self, path: str | Path, *, rate: int | None = None, mono: bool = False, stream: int = 0) -> None:
        if rate is not None and rate < 1:
            raise ValueError(f"rate must be at least 1 sample per second, got {rate}")
        self.path, self.mono, self._asked_rate, self._stream = str(local_copy(path)), mono, rate, stream
        self._closed, self._begin = False, Fraction(0)
        self._attach()
        container = self._source.decoder.container
        zero = picture_begin(self.path, container)
        self.time_zero = self._source.decoder.first_seconds if zero is None else zero
        self._begin = self._source.decoder.first_seconds - self.time_zero
        self.metadata = _describe(self.path, self._source.decoder, self._begin)
        self.rate = self.metadata.rate if rate is None else rate
        self.channels = 1 if mono else self.metadata.channels

    def __reduce__(self) -> tuple[Callable[..., AudioReader], tuple[object, ...]]:
        return _open_again, (self.path, self._asked_rate, self.mono, self._stream)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"AudioReader({self.path!r}, rate={self.rate}, channels={self.channels})"

    def close(self) -> None:
        """Give back the file; reading afterwards is an error. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._source.decoder.close()

    def read(self, *, start: float | None = None, seconds: float | None = None) -> Sound:
        """Read a part, or all.

        Args:
            start: seconds after the first picture; the nearest sample of the grid is the first one returned. May lie
                outside the sound. `None` = where sound begins.
            seconds: length, rounded to samples; `None` = to where sound ends.
        Returns: exactly `round(seconds * rate)` samples where a length is given.
        Raises: ValueError: a time that is no number, or a negative length.
        """
        first = 0 if start is None else self._sample_at(start)
        if seconds is None:
            parts = list(self.stream(start=start))
            if not parts:
                return self._sound(np.zeros((self.channels, 0), np.float32), np.zeros(0, bool), first, False)
            cut = any(part.truncated for part in parts)
            whole_CS, whole_S = torch.cat([p.wave_CS for p in parts], 1), torch.cat([p.valid_S for p in parts])
            return Sound(whole_CS, self.rate, parts[0].start, whole_S, cut)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a length, got {seconds}")
        with self._open():
            count = _half_up(seconds * self.rate)
            wave_CS, valid_S = self._resampled(self._source, first, count)
            cut = self.metadata.truncated and self._source.ended and first + count > self._length(self._source)
            return self._sound(wave_CS, valid_S, first, cut)

    def stream(self, *, start: float | None = None, chunk: float = 1.0) -> Iterator[Sound]:
        """Read on to the end, `chunk` seconds at a time (the last may be shorter), with constant memory.

        Independent of other calls on this reader. Of a file that is cut off the last chunk is marked `truncated`.

        Raises: ValueError: a chunk shorter than a sample, or a time that is no number.
        """
        count = _half_up(chunk * self.rate)
        if count < 1:
            raise ValueError(f"chunk must be at least one sample of 1/{self.rate} s, got {chunk}")
        first = 0 if start is None else self._sample_at(start)
        with self._open():
            source = _Source(SoundDecoder(self.path, self._stream))
        try:
            while True:
                wave_CS, valid_S = self._resampled(source, first, count)
                if source.ended:
                    left = min(count, self._length(source) - first)
                    if left <= 0:
                        return
                    last = first + left == self._length(source)
                    yield self._sound(wave_CS[:, :left], valid_S[:left], first, last and self.metadata.truncated)
                else:
                    yield self._sound(wave_CS, valid_S, first, False)
                first += count
        finally:
            source.decoder.close()

    def _sample_at(self, seconds: float) -> int:
        if not math.isfinite(seconds):
            raise ValueError(f"a time must be a number of seconds, got {seconds}")
        return math.floor((Fraction(seconds) - self._begin) * self.rate + Fraction(1, 2))

    def _length(self, source: _Source) -> int:
        """Samples in all, of a source that has ended."""
        stored = self.metadata.rate
        return source.position if self.rate == stored else Resampler(stored, self.rate).length(source.position)

    def _resampled(self, source: _Source, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples of the grid of `self.rate`, and which of them exist."""
        if self.rate == self.metadata.rate:
            wave_CS, valid_S = source.take(first, count)
            return self._mixed(wave_CS), valid_S
        resampler = Resampler(self.metadata.rate, self.rate)
        begin, end = resampler.inputs(first, count)
        wave_CS, known_S = source.take(begin, end - begin)
        # An output exists where the input at its time, or just before it, does.
        valid_S = known_S[(first + np.arange(count)) * resampler.down // resampler.up - begin]
        wave_CS = resampler.apply(self._mixed(wave_CS), first, count)
        return np.where(valid_S, wave_CS, np.float32(0)), valid_S

    def _mixed(self, wave_CS: np.ndarray) -> np.ndarray:
        if not self.mono or len(wave_CS) == 1:
            return wave_CS
        total_S = wave_CS[0].copy()
        for channel_S in wave_CS[1:]:  # one by one: the order of a sum over an axis may depend on its length
            total_S += channel_S
        return (total_S / np.float32(len(wave_CS)))[None]

    def _sound(self, wave_CS: np.ndarray, valid_S: np.ndarray, first: int, truncated: bool) -> Sound:
        start = float(self._begin + Fraction(first, self.rate))
        wave = torch.from_numpy(np.ascontiguousarray(wave_CS))
        return Sound(wave, self.rate, start, torch.from_numpy(np.ascontiguousarray(valid_S)), truncated)

    def _attach(self) -> None:
        """Belong to this process: a lock and a file position of its own."""
        self._process, self._lock = os.getpid(), threading.RLock()
        self._source = _Source(SoundDecoder(self.path, self._stream))

    def _open(self) -> threading.RLock:
        if self._closed:
            raise ValueError(f"{self.path}: the reader is closed")
        if self._process != os.getpid():
            self._attach()  # after a fork the file position is shared with the parent
        return self._lock


class _Source:
    """Samples by number from a decoder, with the last ones kept.

    Attributes: `position` = number of samples that the decoder has passed; `ended` = there are no more.
    """

    def __init__(self, decoder: SoundDecoder) -> None:
        self.decoder = decoder
        self._start(0)

    def _start(self, begin: int) -> None:
        self._blocks, self._forgotten = self.decoder.blocks(begin), 0
        self._kept: deque[tuple[int, np.ndarray]] = deque()
        self.position, self.ended = 0, False
        if begin:
            self._forgotten = begin

    def take(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 wave_CS with zeros where nothing is, and bool valid_S."""
        begin = max(0, first)
        if begin < self._forgotten or (not self.ended and self.decoder.jump_helps(self.position, begin)):
            self._start(begin if self.decoder.jump_helps(0, begin) else 0)
        self._advance(begin, first + count)
        wave_CS = np.zeros((self.decoder.channels, count), dtype=np.float32)
        valid_S = np.zeros(count, dtype=bool)
        for at, block_CS in self._kept:
            low, high = max(at, first), min(at + block_CS.shape[1], first + count)
            if low < high:
                wave_CS[:, low - first : high - first] = block_CS[:, low - at : high - at]
                valid_S[low - first : high - first] = True
        return wave_CS, valid_S

    def _advance(self, begin: int, end: int) -> None:
        oldest = begin - HISTORY * self.decoder.rate
        while not self.ended and self.position < end:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
                break
            self._kept.append(block)
            self.position = block[0] + block[1].shape[1]
            self._forget(oldest)
        self._forget(oldest)

    def _forget(self, oldest: int) -> None:
        while self._kept and self._kept[0][0] + self._kept[0][1].shape[1] <= oldest:
            at, block_CS = self._kept.popleft()
            self._forgotten = max(self._forgotten, at + block_CS.shape[1])


def _describe(path: str, decoder: SoundDecoder, begin: Fraction) -> AudioMetadata:
    container, stream = decoder.container, decoder.stream
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = container.duration / 1e6 if container.duration else math.nan
    return AudioMetadata(
        path=path,
        rate=decoder.rate,
        channels=decoder.channels,
        layout=decoder.layout,
        codec=decoder.codec,
        sample_format=decoder.sample_format,
        container=container.format.name,
        begin=float(begin),
        duration=duration,
        truncated=_is_cut_off(path, container.format.name, stream.id),
    )


def _is_cut_off(path: str, container: str, track: int) -> bool:
    """Whether the header promises more bytes than there are; False for containers that promise nothing."""
    if container.startswith("mov"):
        try:
            return missing_samples(path, track) > 0
        except (KeyError, IndexError, ValueError, struct.error):
            return False
    if container in ("avi", "wav"):
        with open_bytes(path) as file:
            size = int.from_bytes(file.read(8)[4:], "little")
        # A recorder that was never told its length writes 0 or the largest number.
        return size not in (0, 0xFFFFFFFF) and size + 8 > byte_count(path)
    return False


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _open_again(path: str, rate: int | None, mono: bool, stream: int) -> AudioReader:
    return AudioReader(path, rate=rate, mono=mono, stream=stream)
