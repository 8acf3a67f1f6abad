"""Where the frames of a stream come from: a file, which can be read from anywhere and again, or something that goes on.

Not here: network, cameras, folders (`media/live_source.py`), frames that a program pushes (`media/frame_queue.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, cast

from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference.stream_track import Track
from wholereel.media.clip_assembly import TimedClip
from wholereel.media.frames import Frames
from wholereel.media.live_source import LiveSource, is_live
from wholereel.media.video_reader import VideoReader

__all__ = ["Source", "Takeable", "begin_file", "file_clips", "live_clips", "open_source"]


class Takeable(Protocol):
    """A source that another thread fills: `LiveSource`, `PushedFrames`."""

    @property
    def ended(self) -> bool: ...

    def take(self, timeout: float | None = None) -> Frames | None: ...


Source = str | Path | VideoReader | Takeable | Iterable[Frames]


def open_source(
    source: Source, size: int, after: float | None = None
) -> tuple[VideoReader | Takeable | Iterable[Frames], bool]:
    """What can be read, and whether it must be closed afterwards: what was opened here, and live sources, which are
    read once.

    Args:
        size: short side of the pictures in pixels, for what is opened here.
        after: time of the newest frame that is known; a live source goes on behind it.
    """
    if isinstance(source, (str, Path)):
        return (LiveSource(source, size=size, after=after) if is_live(source) else VideoReader(source, size=size)), True
    if isinstance(source, LiveSource):
        source.go_on_after(after)
        return source, True
    return source, False


def begin_file(track: Track, reader: VideoReader, part: tuple[int, int] | None) -> None:
    """Tell a track what file it reads, and which part of it; of a track that goes on, check that it is the same file.

    Args: part: (i, n), 1 <= i <= n: the i-th of n parts of about as many clips.
    Raises:
        ConfigError: no such part, or a model whose parts cannot be merged.
        CheckpointError: the track has begun with another file.
    """
    metadata = reader.metadata
    if track.begun:
        if track.frames and track.frames != reader.frame_count:
            raise CheckpointError(
                reader.path,
                f"has {reader.frame_count} frames",
                f"the video of {track.frames} frames that the state was saved with",
                "Give the same file, or begin anew without the state.",
            )
        return
    rate, half_tick = track.assembler.frame_rate, track.assembler.half_tick
    if rate is None:
        rate, half_tick = metadata.frame_rate, float(metadata.time_base) / 2
    track.frames = reader.frame_count
    assembler = track.assembler = track.engine.assembler(rate, half_tick, file=True)
    if part is None:
        return
    number, parts = part
    if track.engine.judge.no_parts is not None:
        raise ConfigError(track.engine.judge.no_parts)
    if not 1 <= number <= parts:
        raise ConfigError(f"part {number}/{parts}: the first number must lie between 1 and the second")
    total = assembler.clip_total(reader.frame_count)
    first, stop = total * (number - 1) // parts, total * number // parts
    if first == stop:
        raise ConfigError(f"part {number}/{parts} holds no clip: the video has {total}")
    track.first, track.stop = first, stop if stop < total else None
    assembler.start_at(first, reader.seconds_T)


def file_clips(track: Track, reader: VideoReader) -> Iterator[TimedClip]:
    """The clips of a file that the track has not had, in all sweeps; each must be judged before the next is asked for.

    Those of a part end with the part, in the first sweep.
    """
    while True:
        if not track.complete:
            yield from _file_sweep(track, reader)
        if track.stop is None:
            yield from track.assembler.finish()
        if track.partial or not track.next_sweep():
            return


def live_clips(track: Track, source: Takeable | Iterable[Frames], patience: float) -> Iterator[TimedClip | None]:
    """The clips of anything else; `None` whenever nothing has come for `patience` seconds."""
    taken = cast(Takeable, source) if hasattr(source, "take") else _Iterated(iter(source))
    while not taken.ended:
        frames = taken.take(patience)
        if frames is None:
            yield None
        else:
            yield from track.feed(frames)
    yield from track.assembler.finish()


def _file_sweep(track: Track, reader: VideoReader) -> Iterator[TimedClip]:
    seconds_T, position = reader.seconds_T, track.assembler.frames_seen
    if position < len(seconds_T):
        for frames in reader.stream(start=float(seconds_T[position])):
            yield from track.feed(frames)
            if track.complete:
                return


class _Iterated:
    """An iterable of frames as a source that is taken from; it does not know what waiting is."""

    def __init__(self, frames: Iterator[Frames]) -> None:
        self._frames, self.ended = frames, False

    def take(self, timeout: float | None = None) -> Frames | None:
        frames = next(self._frames, None)
        self.ended = frames is None
        return frames
