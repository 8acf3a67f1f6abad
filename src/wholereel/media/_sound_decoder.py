"""Samples of one open file in the order of time, each with its place on the sound's own clock.

The container's time stamps say where a block of samples belongs: lost packets leave gaps, what is there twice is left
out, and stamps that are only rounded are not taken literally.
Axes: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from wholereel.errors import VideoError
from wholereel.media._container import open_problem, open_video
from wholereel.media.byte_ranges import av_url

__all__ = ["NoSoundError", "SoundDecoder"]

# Blocks of these depend on nothing before them, so decoding may begin anywhere and gives the same samples.
INDEPENDENT_CODECS = ("pcm_", "flac", "alac")
SEEKABLE_CONTAINERS = ("mov", "wav", "flac")
JITTER_SECONDS = Fraction(1, 500)  # less is rounding of the time stamps, not a gap
# Blocks have several lengths, and stamps name the beginning of one, or its end, or that of its neighbour; counting
# samples is right in all these files.
VORBIS_JITTER_SAMPLES = Fraction(2048)
LONGEST_OVERLAP = 1  # seconds; a clock that jumps back further has been started anew
SEEK_WORTH = 2  # seconds of decoding that a jump must save

FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


class NoSoundError(VideoError):
    """The file is in order, and has no sound stream."""


class SoundDecoder:
    """The first sound stream of a file. Not safe to share between threads or processes.

    Args:
        path: file.
        stream: number among the file's sound streams.
    Raises: NoSoundError: there is no such stream. VideoError: the file cannot be opened, or no sound decodes.
    """

    def __init__(self, path: str, stream: int = 0) -> None:
        self.path, self._number = path, stream
        self._open()
        first = next(self._frames(), None)
        if first is None:
            raise VideoError(
                path, "no sound decodes", "at least one sample", "The file is damaged: copy it again or leave it out."
            )
        codec = self.stream.codec_context.codec.canonical_name
        self.rate, self.layout, self.channels = first.sample_rate, first.layout.name, first.layout.nb_channels
        self.codec, self.sample_format = codec, first.format.name
        self._ticks_from, self._time_base = first.pts or 0, self.stream.time_base or Fraction(1, self.rate)
        self._samples_per_tick = self._time_base * self.rate
        family = self.container.format.name.split(",")[0]
        self._jumps = (
            codec.startswith(INDEPENDENT_CODECS) and family in SEEKABLE_CONTAINERS and self._samples_per_tick == 1
        )
        # Where each sample has its own tick, and any place may be reached by a jump, stamps are exact by definition.
        rounding = max(self._samples_per_tick + 1, JITTER_SECONDS * self.rate)
        if codec == "vorbis":
            rounding = max(rounding, VORBIS_JITTER_SAMPLES)
        self._tolerance = Fraction(0) if self._jumps else rounding

    @property
    def first_seconds(self) -> Fraction:
        """Time of the first sample on the container's clock."""
        return self._ticks_from * self._time_base

    def close(self) -> None:
        """Give back the file."""
        self.container.close()

    def __del__(self) -> None:
        if hasattr(self, "container"):
            self.container.close()  # PyAV's objects refer to each other; see `_decoder.Decoder`

    def jump_helps(self, at: int, target: int) -> bool:
        """Whether it is worth it to leave the decoder, which stands at one sample, for another one further on."""
        return self._jumps and target - at > SEEK_WORTH * self.rate

    def blocks(self, begin: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the first sample, float32 wave_CS), in order, without overlaps.

        Args:
            begin: what lies before this sample may be left out.
        Raises: VideoError: rate or channels change on the way.
        """
        if self._jumps and begin > SEEK_WORTH * self.rate:
            frames = self._seek(begin)
            if frames is not None:
                yield from self._placed(frames, None)
                return
        self._rewind()
        yield from self._placed(self._frames(), 0)

    def _placed(self, frames: Iterator[av.AudioFrame], expected: int | None) -> Iterator[tuple[int, np.ndarray]]:
        shift = 0
        for frame in frames:
            self._check(frame)
            wave_CS = _samples(frame)
            at = (0 if expected is None else expected) if frame.pts is None else self._place(frame.pts) + shift
            if expected is not None:
                if abs(at - expected) <= self._tolerance:
                    at = expected
                elif expected - at > LONGEST_OVERLAP * self.rate:
                    shift += expected - at
                    at = expected
                wave_CS = wave_CS[:, max(0, expected - at) :]
                at = max(at, expected)
            if wave_CS.shape[1]:
                yield at, wave_CS
                expected = at + wave_CS.shape[1]

    def _place(self, pts: int) -> int:
        return round((pts - self._ticks_from) * self._samples_per_tick)

    def _check(self, frame: av.AudioFrame) -> None:
        if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
            raise VideoError(
                self.path,
                f"its sound changes from {self.channels} channels at {self.rate} Hz to "
                f"{frame.layout.nb_channels} at {frame.sample_rate} Hz",
                "the same throughout",
                "Encode it again.",
            )

    def _seek(self, begin: int) -> Iterator[av.AudioFrame] | None:
        """Frames from at or before a sample on; `None` if the demuxer does not get there."""
        self._fresh = False
        try:
            self.container.seek(begin + self._ticks_from, stream=self.stream)
        except (av.error.FFmpegError, OSError):
            return None
        frames = self._frames()
        first = next(frames, None)
        if first is None or first.pts is None or self._place(first.pts) > begin:
            return None
        return _again(first, frames)

    def _open(self) -> None:
        self.container, self.stream = _open_sound(self.path, self._number)
        self._fresh = True

    def _rewind(self) -> None:
        """Open anew: the only jump that leaves nothing behind in the decoder."""
        if not self._fresh:
            self.close()
            self._open()

    def _frames(self) -> Iterator[av.AudioFrame]:
        """All frames from where the demuxer stands; packets that do not decode give none."""
        self._fresh = False
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                break
            if packet.size:
                yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Any) -> list[av.AudioFrame]:
        try:
            return self.stream.codec_context.decode(packet)
        except (av.error.FFmpegError, EOFError):
            return []


def picture_begin(path: str, container: InputContainer) -> Fraction | None:
    """Time of the first picture on the container's clock, from which `VideoReader` counts; `None` without pictures."""
    pictures = (s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
    stream = next(pictures, None)
    if stream is None:
        return None
    stored = (stream.start_time or 0) * (stream.time_base or Fraction(0))
    opened, video = open_video(path, threads=1)
    try:
        for packet in opened.demux(video):
            if opened.format.name == "avi":
                # AVI stores no presentation times, frames' are guesses: a picture is shown in its packet's turn.
                if packet.size and packet.dts is not None:
                    return packet.dts * (video.time_base or Fraction(0))
                continue
            for frame in _pictures(video, packet):
                return stored if frame.pts is None else frame.pts * (video.time_base or Fraction(0))
    except (av.error.FFmpegError, OSError):
        return stored
    finally:
        opened.close()
    return stored


def _pictures(video: Any, packet: Any) -> list[av.VideoFrame]:
    try:
        return cast("list[av.VideoFrame]", video.codec_context.decode(packet if packet.size else None))
    except (av.error.FFmpegError, EOFError):
        return []


def _open_sound(path: str, number: int) -> tuple[InputContainer, AudioStream]:
    try:
        container = av.open(av_url(path), "r", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(path, *open_problem(path, error)) from error
    sounds = container.streams.audio
    if number >= len(sounds):
        kinds = sorted({s.type for s in container.streams})
        container.close()
        what = "no sound stream" if not sounds else f"no sound stream number {number}"
        raise NoSoundError(
            path,
            f"{what} (streams: {', '.join(kinds) or 'none'})",
            "a file with sound",
            "Leave the file out, or choose a recipe without sound.",
        )
    stream = sounds[number]
    if hasattr(stream, "discard"):  # PyAV >= 17: packets of other streams are not even read
        for other in container.streams:
            if other.index != stream.index:
                cast(Any, other).discard = cast(Any, av.stream).Discard.all
    return container, stream


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """float32 wave_CS, full scale = 1."""
    name = frame.format.name.removesuffix("p")
    stored = frame.to_ndarray()
    wave_CS = stored if frame.format.is_planar else stored.reshape(-1, frame.layout.nb_channels).T
    if name in ("flt", "dbl"):
        return np.asarray(wave_CS, dtype=np.float32)
    scale = FULL_SCALE[name]
    return np.asarray((wave_CS - scale if name == "u8" else wave_CS) / np.float64(scale), dtype=np.float32)


def _again(first: av.AudioFrame, rest: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    yield first
    yield from rest
