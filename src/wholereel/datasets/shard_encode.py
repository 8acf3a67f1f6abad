"""Encode a video anew so that reading clips of it is cheap: small pictures, many key frames, the same times and sound.

Frames are those that our reader gives (rotated, completed where the file is cut off), each at its own time after the
first one. Sound is copied packet by packet where MP4 holds its codec and the copy is heard as the original; else it
becomes FLAC. Axes: C channels, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
import torch

from wholereel.errors import VideoError
from wholereel.media.audio_reader import AudioReader, NoSoundError
from wholereel.media.byte_ranges import av_url
from wholereel.media.frame_folder import open_frames

__all__ = ["Encoding", "encode_anew", "is_sound_only"]

CLOCK = Fraction(1, 90000)  # of the pictures; times are kept to 6 microseconds
COPIED_SOUND = ("aac", "mp3", "flac", "ac3", "alac")  # codecs whose packets MP4 holds as they are
BLOCK = 4096  # samples of a FLAC packet
LONGEST_PACKET = 4096  # samples by which the end of a copy may differ
SAME_TIME = 1e-3  # seconds; MP4 writes the begin of a stream in milliseconds


@dataclass(frozen=True)
class Encoding:
    """How videos are encoded anew.

    Args:
        short_side: pixels of the shorter side, made even; smaller videos keep their size. `None` = as it is.
        gop: frames from key frame to key frame; all groups are closed, and there are no B-frames.
        crf: quality of libx264, 0 (lossless) to 51.
    Raises: ValueError: a number that cannot be.
    """

    short_side: int | None = None
    gop: int = 12
    crf: int = 20

    def __post_init__(self) -> None:
        if (self.short_side is not None and self.short_side < 2) or self.gop < 1 or not 0 <= self.crf <= 51:
            raise ValueError(f"short_side must be at least 2, gop at least 1 and crf 0 to 51, got {self}")


def encode_anew(path: Path, target: Path, encoding: Encoding, *, frame_rate: float | None = None) -> None:
    """Write an MP4 with the pictures and the sound of a file.

    Args:
        path: a video file, or a folder of pictures with its `frame_rate`.
        target: the file to write.
    Raises: VideoError: the file cannot be read as a video.
    """
    sound = None if path.is_dir() else _sound(path)
    copies = sound is not None and sound.metadata.codec in COPIED_SOUND
    try:
        _write(path, target, encoding, frame_rate, sound, copy=copies)
        if copies and not _sounds_alike(cast(AudioReader, sound), target):
            _write(path, target, encoding, frame_rate, sound, copy=False)
    finally:
        if sound is not None:
            sound.close()


def is_sound_only(path: Path) -> bool:
    """Whether a file has sound and no pictures; False where it cannot be opened."""
    if path.is_dir():
        return False
    try:
        with av.open(av_url(path), metadata_errors="ignore") as container:
            return bool(container.streams.audio) and not container.streams.video
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def _sound(path: Path) -> AudioReader | None:
    try:
        return AudioReader(path)
    except NoSoundError:
        return None


def _write(
    path: Path, target: Path, encoding: Encoding, frame_rate: float | None, sound: AudioReader | None, *, copy: bool
) -> None:
    options = {"fflags": "+bitexact", "strict": "experimental", "movflags": "+faststart"}
    with av.open(str(target), "w", format="mp4", options=options) as container:
        with open_frames(path, frame_rate=frame_rate) as reader:
            height, width = _even_size(reader.metadata.height, reader.metadata.width, encoding.short_side)
            rate = Fraction(reader.metadata.frame_rate).limit_denominator(1001)
        # Without look-ahead: with it, 10 of 600 encodings of small pictures gave other bytes for equal input.
        fixed = "scenecut=0:bframes=0:rc-lookahead=0:mbtree=0"
        params = f"keyint={encoding.gop}:min-keyint={encoding.gop}:{fixed}"
        x264 = {"crf": str(encoding.crf), "preset": "veryfast", "threads": "1", "x264-params": params}
        stream = cast(Any, container.add_stream("libx264", rate=rate, options=x264))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.thread_count = CLOCK, 1
        heard: Iterator[tuple[Fraction, list[Any]]] = iter(())
        if sound is not None:
            heard = _copied_sound(container, sound) if copy else _flac_sound(container, sound)
        pending = next(heard, None)
        with open_frames(path, frame_rate=frame_rate, size=(height, width)) as reader:
            for frames in reader.stream(chunk=16):
                for picture_CHW, seconds in zip(frames.pixels_TCHW, frames.seconds_T.tolist(), strict=True):
                    picture_HWC = np.ascontiguousarray(picture_CHW.permute(1, 2, 0).numpy())
                    frame = av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")
                    frame.pts, frame.time_base = round(seconds / CLOCK), CLOCK
                    container.mux(stream.encode(frame))
                    while pending is not None and pending[0] <= seconds + 1:
                        container.mux(pending[1])
                        pending = next(heard, None)
        container.mux(stream.encode(None))
        while pending is not None:
            container.mux(pending[1])
            pending = next(heard, None)


def _even_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    scale = 1.0 if short_side is None else min(1.0, short_side / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def _copied_sound(container: Any, sound: AudioReader) -> Iterator[tuple[Fraction, list[Any]]]:
    """Packets as they are, on a clock whose zero is the first picture; the stream is added at once."""
    source = av.open(av_url(sound.path), metadata_errors="ignore")
    stored = source.streams.audio[0]
    stream = container.add_stream_from_template(stored)
    stream.metadata.clear()
    return _shifted(source, stored, stream, round(sound.time_zero / (stored.time_base or CLOCK)))


def _shifted(source: Any, stored: Any, stream: Any, zero: int) -> Iterator[tuple[Fraction, list[Any]]]:
    with source:
        try:
            for packet in source.demux(stored):
                if packet.size and packet.pts is not None:
                    packet.pts -= zero
                    packet.dts = packet.pts
                    packet.stream = stream
                    yield packet.pts * packet.time_base, [packet]
        except (av.error.FFmpegError, OSError):
            return  # cut off: what can be read is copied


def _flac_sound(container: Any, sound: AudioReader) -> Iterator[tuple[Fraction, list[Any]]]:
    """All sound from the first picture on, at 16 bit; silence stands in for gaps."""
    stream = container.add_stream("flac", rate=sound.rate, format="s16")
    stream.layout = "mono" if sound.channels == 1 else sound.metadata.layout
    return _flac_packets(stream, sound)


def _flac_packets(stream: Any, sound: AudioReader) -> Iterator[tuple[Fraction, list[Any]]]:
    begin = max(0.0, sound.metadata.begin)
    at = math.floor(begin * sound.rate + 0.5)
    for part in sound.stream(start=begin, chunk=BLOCK / sound.rate):
        wave_SC = np.round(part.wave_CS.numpy().T.clip(-1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave_SC).reshape(1, -1), format="s16", layout=stream.layout.name
        )
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, at, Fraction(1, sound.rate)
        yield Fraction(at, sound.rate), stream.encode(frame)
        at += len(wave_SC)
    yield Fraction(at, sound.rate), stream.encode(None)


def _sounds_alike(sound: AudioReader, target: Path) -> bool:
    """Whether a copy gives the same samples at the same times, from the first picture on."""
    try:
        copy = AudioReader(target)
    except VideoError:
        return False
    with copy:
        if (copy.rate, copy.channels) != (sound.rate, sound.channels):
            return False
        late = copy.metadata.begin - max(0.0, sound.metadata.begin)
        if abs(late) > SAME_TIME:
            return False
        # The first samples are the same ones, unless sound begins before the pictures do: that part is cut off.
        start = None if sound.metadata.begin >= 0 else 0.0
        ours_CS, theirs_CS = copy.read(start=start).wave_CS, sound.read(start=start).wave_CS
        count = min(ours_CS.shape[1], theirs_CS.shape[1])
        tail = max(ours_CS.shape[1], theirs_CS.shape[1]) - count
        return tail <= LONGEST_PACKET and torch.equal(ours_CS[:, :count], theirs_CS[:, :count])
