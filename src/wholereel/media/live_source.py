"""Frames of a source that has not ended: a network stream, a camera, a folder into which files are still written.

A live source is read in a thread of its own into a queue of bounded length. When the reader of the queue is too slow,
either the source waits (`block`) or the oldest frames are dropped and counted (`drop`). A source that dies is opened
again, with growing pauses, until nothing has come from it for `give_up` seconds. Times go on across connections, with
the time that passed in between.
Files that are complete are read by `VideoReader.stream`; this module only chooses.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
import torch

from wholereel.errors import ConfigError, VideoError
from wholereel.media._container import frame_rate
from wholereel.media._convert import RgbConverter, target_size
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoReader

__all__ = ["LiveSource", "is_live"]

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt", "hls")
FORMATS = {"/dev/video": "v4l2"}
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
SETTLED = 1.0  # seconds without growth after which the newest file of a folder counts as complete

Log = Callable[[str], None]


def is_live(source: str | Path) -> bool:
    """Whether a source is a URL, a camera or a folder, and not a file."""
    text = str(source)
    return text.split("://", 1)[0] in SCHEMES or any(text.startswith(p) for p in FORMATS) or Path(text).is_dir()


@dataclass
class LiveSource:
    """Iterate over it once to get chunks of frames; `close` from anywhere ends it.

    Args:
        source: URL (rtsp, http, udp, tcp, srt, HLS play lists ...), a camera (`/dev/video0`), or a folder of video
            files that are read one after the other in the order of their names, new ones as they appear.
        size: as in `VideoReader`.
        chunk: frames handed over together.
        policy: `block` or `drop`, see above.
        room: chunks that the queue holds.
        after: time of the last frame that an earlier reader of this source has seen; times go on behind it.
        give_up: seconds without any frame after which the source counts as ended.
        log: called with a line about everything that is not a frame.
    Attributes:
        dropped: frames dropped so far, by policy or because their time did not increase.
        connections: how often the source was opened with success.
    Raises: ConfigError: settings that cannot be.
    """

    source: str | Path
    size: int | tuple[int, int] | None = None
    chunk: int = 8
    policy: Literal["block", "drop"] = "drop"
    room: int = 16
    give_up: float = 30.0
    after: float | None = None
    log: Log = print
    dropped: int = field(default=0, init=False)
    connections: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.policy not in ("block", "drop"):
            raise ConfigError(f"policy={self.policy!r} is neither 'block' nor 'drop'")
        if self.chunk < 1 or self.room < 1 or not self.give_up > 0:
            raise ConfigError(
                f"chunk and room must be at least 1 and give_up positive, got {self.chunk}, {self.room}, {self.give_up}"
            )
        self._queue: queue.Queue[Frames | BaseException | None] = queue.Queue(self.room)
        self._closed = threading.Event()
        self._begin: float | None = None  # stored time of the first frame of this connection
        self._offset = 0.0  # where this connection begins on the stream's own line
        self._last = -1.0 if self.after is None else self.after
        self._last_clock = time.monotonic()

    def __iter__(self) -> Iterator[Frames]:
        thread = threading.Thread(target=self._run, daemon=True, name=f"reading {self.source}")
        thread.start()
        try:
            while True:
                item = self._queue.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.close()
            thread.join(timeout=2.0)

    def close(self) -> None:
        """End the source; what is in the queue is lost."""
        self._closed.set()

    def _run(self) -> None:
        try:
            for frames in self._folder() if Path(self.source).is_dir() else self._network():
                self._hand_over(frames)
                if self._closed.is_set():
                    return
            self._hand_over(None)
        except BaseException as error:  # whatever it is, the reader of the queue must hear of it
            self._hand_over(error)

    def _hand_over(self, item: Frames | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                if self.policy == "drop" and isinstance(item, Frames):
                    self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            oldest = self._queue.get_nowait()
        except queue.Empty:
            return
        lost = len(oldest) if isinstance(oldest, Frames) else 0
        self.dropped += lost
        self.log(f"{self.source}: reading is slower than the source, {lost} frames dropped ({self.dropped} in all)")

    def _network(self) -> Iterator[Frames]:
        pause, self._last_clock = FIRST_PAUSE, time.monotonic()
        while not self._closed.is_set():
            reason = "it ended"
            try:
                for frames in self._connection():
                    pause = FIRST_PAUSE
                    yield frames
            except (av.error.FFmpegError, OSError) as error:
                reason = str(error)
            silent = time.monotonic() - self._last_clock
            if silent + pause > self.give_up:
                self.log(f"{self.source}: nothing for {silent:.0f} s ({reason}), given up")
                if self.connections == 0:
                    raise VideoError(
                        str(self.source), f"cannot be opened ({reason})", "a live source", "Check address and network."
                    )
                return
            self.log(f"{self.source}: {reason}; opened again in {pause:.1f} s")
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connection(self) -> Iterator[Frames]:
        kind = next((name for prefix, name in FORMATS.items() if str(self.source).startswith(prefix)), None)
        with av.open(str(self.source), format=kind, timeout=self.give_up, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VideoError(str(self.source), "has no video stream", "moving pictures")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            self.connections += 1
            self.log(f"{self.source}: open ({stream.codec_context.name}, {float(frame_rate(stream)):.4g} frames/s)")
            yield from self._chunks(container.decode(stream), float(frame_rate(stream)))

    def _chunks(self, frames: Iterator[av.VideoFrame], rate: float) -> Iterator[Frames]:
        """Pictures of one connection in chunks, their times being those of the whole stream."""
        self._begin = None
        pixels: list[np.ndarray] = []
        seconds: list[float] = []
        converter: RgbConverter | None = None
        native = (0, 0)
        try:
            for number, frame in enumerate(frames):
                second = self._second(frame, number, rate)
                if second is None:
                    continue
                if converter is None or native != (frame.height, frame.width):
                    native = (frame.height, frame.width)
                    converter = RgbConverter(native, *target_size(*native, self.size), 0)
                    if pixels:  # pictures of another size cannot share a chunk
                        yield _frames(pixels, seconds)
                        pixels, seconds = [], []
                picture = converter.empty(1)
                converter.write(frame, picture[0])
                pixels.append(picture[0])
                seconds.append(second)
                if len(pixels) == self.chunk:
                    yield _frames(pixels, seconds)
                    pixels, seconds = [], []
                if self._closed.is_set():
                    return
        finally:
            if pixels and not self._closed.is_set():
                self._hand_over(_frames(pixels, seconds))  # what had come before the connection broke

    def _second(self, frame: av.VideoFrame, number: int, rate: float) -> float | None:
        """Time on the stream's line; None for a frame to drop, whose time does not increase."""
        stored = number / rate if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
        now = time.monotonic()
        if self._begin is None:
            self._begin = stored
            gap = max(1 / rate, now - self._last_clock) if self._last >= 0 else 0.0
            self._offset = max(self._last, 0.0) + gap
        second = self._offset + stored - self._begin
        self._last_clock = now
        if second <= self._last:
            self.dropped += 1
            return None
        self._last = second
        return second

    def _folder(self) -> Iterator[Frames]:
        folder, done = Path(self.source), set[str]()
        quiet = time.monotonic()
        while not self._closed.is_set():
            waiting = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name not in done)
            # All but the newest are complete: something else is being written already.
            ready = waiting[:-1] if len(waiting) > 1 else [p for p in waiting if _is_settled(p)]
            if not ready:
                if time.monotonic() - quiet > self.give_up:
                    self.log(f"{folder}: no new file for {self.give_up:.0f} s, given up")
                    return
                self._closed.wait(0.2)
                continue
            done.add(ready[0].name)
            yield from self._file(ready[0])
            quiet = time.monotonic()

    def _file(self, path: Path) -> Iterator[Frames]:
        try:
            with VideoReader(path, size=self.size) as reader:
                begin = self._last + 1 / reader.metadata.frame_rate if self._last >= 0 else 0.0
                self.connections += 1
                self.log(f"{path}: open")
                for frames in reader.stream(chunk=self.chunk):
                    moved = Frames(frames.pixels_TCHW, frames.seconds_T + begin, frames.truncated)
                    self._last = float(moved.seconds_T[-1])
                    yield moved
        except VideoError as error:
            self.log(f"left out: {error}")


def _is_settled(path: Path) -> bool:
    status = path.stat()
    return status.st_size > 0 and time.time() - status.st_mtime > SETTLED


def _frames(pixels: list[np.ndarray], seconds: list[float]) -> Frames:
    return Frames(torch.from_numpy(np.stack(pixels)), torch.tensor(seconds, dtype=torch.float64))
